//! The course of a document: which step runs next, and what its result means for the rest (documents.md §1.7-1.9).
//!
//! [`Flow`] is told how each step ended and says what comes next. What it knows can be had again from the saved
//! results of the steps ([`Flow::resume`]), so a document goes on after a reboot where it stood.

use super::{Decision, OnFailure, Step};
use crate::message::ResultStatus;

/// Exit code by which a step ends the document with success.
const EXIT_WITH_SUCCESS: i32 = 168;
/// Exit code by which a step ends the document with failure.
const EXIT_WITH_FAILURE: i32 = 169;
/// Exit code by which a step asks for a reboot.
const EXIT_WITH_REBOOT: i32 = 194;
/// The code of a step that was stopped, which is that of a process killed by SIGKILL.
const STOPPED: i64 = 137;

/// Reboots of one document. A step that asks for one each time it runs would never end.
pub const MAX_REBOOTS: u32 = 15;

const UNRECORDED: &str =
    "the command cannot be recorded any more, and this node's owner wants it to be (transcript.required)";

/// Why a running step was stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopReason {
    Cancelled,
    /// The agent itself was told to end, without a cancellation: the node shuts down.
    Interrupted,
    /// It must be recorded, and cannot be any more.
    Unrecorded,
    TimedOut,
}

/// How a step ended that ran.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// A program, with this code.
    Exited(i32),
    /// A program, by this signal, which we did not send.
    Killed(i32),
    /// A program could not be started, and why.
    NotStarted(String),
    Stopped(StopReason),
    /// An action that is no program has done its work, or has not; its output says why.
    Done,
    Failed,
}

/// A step that ran: its ending and what it wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ran {
    pub ending: Ending,
    pub stdout: String,
    pub stderr: String,
}

/// What a step came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepOutcome {
    pub status: ResultStatus,
    pub code: i64,
    pub stdout: String,
    pub stderr: String,
    /// Stands in `output` in place of both streams.
    pub text: Option<String>,
}

impl StepOutcome {
    /// A step that did not run, and why.
    pub fn not_run(status: ResultStatus, code: i64, text: impl Into<String>) -> Self {
        Self {
            status,
            code,
            stdout: String::new(),
            stderr: String::new(),
            text: Some(text.into()),
        }
    }
}

/// The saved result of a step that has ended: all that the steps behind it depend on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StepResult {
    pub status: ResultStatus,
    pub code: i64,
}

/// What comes next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// The step at this position runs; [`Flow::ran`] is to be told how it ended.
    Run(usize),
    /// The step at this position does not run, and this is what it came to.
    Settled(usize, StepOutcome),
    /// All steps have an outcome, and the document this status.
    Over(ResultStatus),
}

/// What the end of a step means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AfterRun {
    /// The step has its outcome.
    Outcome(StepOutcome),
    /// The node is to be rebooted, and then the same step runs again.
    Reboot,
}

/// The course of a document so far.
#[derive(Debug)]
pub struct Flow<'a> {
    steps: &'a [Step],
    has_exited: bool,
    statuses: Vec<ResultStatus>,
    reboots: u32,
}

impl<'a> Flow<'a> {
    /// A document that begins.
    pub fn new(steps: &'a [Step]) -> Self {
        Self::resume(steps, &[], 0)
    }

    /// A document that goes on: its first steps have these results, and steps have asked for a reboot so many times.
    pub fn resume(steps: &'a [Step], results: &[StepResult], reboots: u32) -> Self {
        let mut flow = Self {
            steps,
            has_exited: false,
            statuses: Vec::with_capacity(steps.len()),
            reboots,
        };
        for (step, result) in steps.iter().zip(results) {
            flow.has_exited |= is_exit(step, *result);
            flow.statuses.push(result.status);
        }
        flow
    }

    /// Statuses of the steps so far.
    pub fn statuses(&self) -> &[ResultStatus] {
        &self.statuses
    }

    /// The next step that has no outcome. `stop`: the document is being stopped.
    pub fn next(&mut self, stop: Option<StopReason>) -> Next {
        let position = self.statuses.len();
        let Some(step) = self.steps.get(position) else {
            return Next::Over(document_status(self.statuses.iter().copied()));
        };
        match self.outcome_without_run(step, stop) {
            None => Next::Run(position),
            Some(outcome) => Next::Settled(position, self.conclude(step, outcome)),
        }
    }

    /// How the step that was to run has ended.
    pub fn ran(&mut self, ran: Ran) -> AfterRun {
        if ran.ending == Ending::Exited(EXIT_WITH_REBOOT) && self.reboots < MAX_REBOOTS {
            self.reboots += 1;
            return AfterRun::Reboot;
        }
        let outcome = outcome(ran);
        AfterRun::Outcome(match self.steps.get(self.statuses.len()) {
            Some(step) => self.conclude(step, outcome),
            None => outcome,
        })
    }

    /// The reboot that a step asked for cannot be had; what follows counts on it, so nothing follows.
    pub fn reboot_failed(&mut self, ran: Ran, reason: &str) -> StepOutcome {
        let mut outcome = outcome(ran);
        append_line(&mut outcome.stderr, reason);
        outcome.status = ResultStatus::Failed;
        match self.steps.get(self.statuses.len()) {
            Some(step) => self.conclude(step, outcome),
            None => outcome,
        }
    }

    fn outcome_without_run(&self, step: &Step, stop: Option<StopReason>) -> Option<StepOutcome> {
        if self.has_exited && !step.control.finally {
            return Some(StepOutcome::not_run(
                ResultStatus::Skipped,
                0,
                step.skipped_after_exit(),
            ));
        }
        match stop {
            Some(StopReason::Interrupted) => {
                let text = "not run: the agent was told to stop";
                return Some(StepOutcome::not_run(ResultStatus::Failed, 1, text));
            }
            Some(StopReason::Unrecorded) => {
                let text = format!("not run: {UNRECORDED}");
                return Some(StepOutcome::not_run(ResultStatus::Failed, 1, text));
            }
            Some(StopReason::Cancelled | StopReason::TimedOut) => {
                let text = "not run: the command was cancelled";
                return Some(StepOutcome::not_run(ResultStatus::Cancelled, 1, text));
            }
            None => {}
        }
        match &step.decision {
            Decision::Run => None,
            Decision::Skip(text) => Some(StepOutcome::not_run(ResultStatus::Skipped, 0, text.clone())),
            Decision::Fail(text) => Some(StepOutcome::not_run(ResultStatus::Failed, 1, text.clone())),
        }
    }

    /// Applies the step's own control to its outcome and goes on to the next step.
    fn conclude(&mut self, step: &Step, mut outcome: StepOutcome) -> StepOutcome {
        if let (ResultStatus::Failed, Some(on_failure)) = (outcome.status, step.control.on_failure) {
            const TEXT: &str =
                "\nStep was found to have onFailure property. Further document steps will be skipped.";
            outcome.stdout.push_str(TEXT);
            outcome.stderr.push_str(TEXT);
            if let Some(text) = &mut outcome.text {
                text.push_str(TEXT);
            }
            self.has_exited = true;
            if on_failure == OnFailure::SuccessAndExit {
                outcome.status = ResultStatus::Success;
                outcome.code = i64::from(EXIT_WITH_SUCCESS);
            }
        }
        let result = StepResult {
            status: outcome.status,
            code: outcome.code,
        };
        self.has_exited |= is_exit(step, result);
        self.statuses.push(outcome.status);
        outcome
    }
}

/// Whether a step with this result ends the document.
fn is_exit(step: &Step, StepResult { status, code }: StepResult) -> bool {
    // Only a program that ran gives these codes: every other outcome has 0, 1, 137 or -1.
    let is_exit_code = [EXIT_WITH_SUCCESS, EXIT_WITH_FAILURE, EXIT_WITH_REBOOT]
        .into_iter()
        .any(|exit| i64::from(exit) == code);
    is_exit_code
        || match status {
            ResultStatus::Failed => step.control.on_failure.is_some(),
            ResultStatus::Success => step.control.exit_on_success,
            _ => false,
        }
}

/// The outcome of a step that ran, before its own control.
fn outcome(ran: Ran) -> StepOutcome {
    let Ran {
        ending,
        mut stdout,
        mut stderr,
    } = ran;
    let mut text = None;
    let mut failed = |reason: &str| append_line(&mut stderr, &format!("failed to run commands: {reason}"));
    let (status, code) = match ending {
        Ending::Exited(0) | Ending::Done => (ResultStatus::Success, 0),
        Ending::Failed => (ResultStatus::Failed, 1),
        Ending::Exited(EXIT_WITH_SUCCESS) => {
            stdout.push_str(
                "\nStep exited with code 168. Therefore, marking step as succeeded. \
                 Further document steps will be skipped.",
            );
            text = Some(stdout.clone());
            (ResultStatus::Success, i64::from(EXIT_WITH_SUCCESS))
        }
        Ending::Exited(EXIT_WITH_FAILURE) => {
            for stream in [&mut stdout, &mut stderr] {
                stream.push_str(
                    "\nStep exited with code 169. Therefore, marking step as Failed. \
                     Further document steps will be skipped.",
                );
            }
            (ResultStatus::Failed, i64::from(EXIT_WITH_FAILURE))
        }
        Ending::Exited(EXIT_WITH_REBOOT) => {
            let reason = format!(
                "exit status {EXIT_WITH_REBOOT} asks for a reboot, of which a document has at most {MAX_REBOOTS}. \
                 Further document steps will be skipped."
            );
            failed(&reason);
            (ResultStatus::Failed, i64::from(EXIT_WITH_REBOOT))
        }
        Ending::Exited(code) => {
            failed(&format!("exit status {code}"));
            (ResultStatus::Failed, i64::from(code))
        }
        Ending::Killed(signal) => {
            failed(&format!("killed by signal {signal}"));
            (ResultStatus::Failed, -1)
        }
        Ending::NotStarted(reason) => {
            failed(&reason);
            (ResultStatus::Failed, 1)
        }
        Ending::Stopped(StopReason::TimedOut) => (ResultStatus::TimedOut, STOPPED),
        Ending::Stopped(StopReason::Cancelled) => (ResultStatus::Cancelled, STOPPED),
        Ending::Stopped(StopReason::Interrupted) => {
            append_line(&mut stderr, "the step was stopped: the agent was told to stop");
            (ResultStatus::Failed, STOPPED)
        }
        Ending::Stopped(StopReason::Unrecorded) => {
            append_line(&mut stderr, &format!("the step was stopped: {UNRECORDED}"));
            (ResultStatus::Failed, STOPPED)
        }
    };
    StepOutcome {
        status,
        code,
        stdout,
        stderr,
        text,
    }
}

/// The status of a document whose steps all have one (agent-wire §6.7).
pub fn document_status(steps: impl Iterator<Item = ResultStatus> + Clone) -> ResultStatus {
    [
        ResultStatus::Failed,
        ResultStatus::TimedOut,
        ResultStatus::Cancelled,
    ]
    .into_iter()
    .find(|status| steps.clone().any(|step| step == *status))
    .unwrap_or(ResultStatus::Success)
}

fn append_line(text: &mut String, line: &str) {
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    text.push_str(line);
}

#[cfg(test)]
mod tests;
