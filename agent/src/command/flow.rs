//! Which step runs, and what its result means for the document (documents.md §1.7-1.9). Pure.

use moorline_protocol::{
    document::{Decision, OnFailure, Step},
    message::ResultStatus,
};

use super::reply::StepOutcome;

/// Exit code by which a step ends the document with success.
const EXIT_WITH_SUCCESS: i32 = 168;
/// Exit code by which a step ends the document with failure.
const EXIT_WITH_FAILURE: i32 = 169;
/// Exit code by which a step asks for a reboot.
const EXIT_WITH_REBOOT: i32 = 194;
/// The code of a step that was stopped, which is that of a process killed by SIGKILL.
const STOPPED: i64 = 137;

/// Why a running script was stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StopReason {
    Cancelled,
    /// The worker itself was told to end, without a cancellation: the node shuts down.
    Interrupted,
    TimedOut,
}

/// How a script ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Ending {
    Exited(i32),
    /// By this signal, which we did not send.
    Killed(i32),
    NotStarted(String),
    Stopped(StopReason),
}

/// A step that ran: its ending and what it wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ran {
    pub(super) ending: Ending,
    pub(super) stdout: String,
    pub(super) stderr: String,
}

/// The course of a document so far.
#[derive(Debug, Default)]
pub(super) struct Flow {
    has_exited: bool,
    statuses: Vec<ResultStatus>,
}

impl Flow {
    /// Statuses of the steps so far.
    pub(super) fn statuses(&self) -> &[ResultStatus] {
        &self.statuses
    }

    /// The outcome of a step that is not to run; `None`: run it.
    pub(super) fn outcome_without_run(&self, step: &Step, stop: Option<StopReason>) -> Option<StepOutcome> {
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
            Some(_) => {
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

    /// Gives a step that ran its outcome.
    pub(super) fn outcome(&mut self, ran: Ran) -> StepOutcome {
        let Ran {
            ending,
            mut stdout,
            mut stderr,
        } = ran;
        let mut text = None;
        let (status, code) = match ending {
            Ending::Exited(0) => (ResultStatus::Success, 0),
            Ending::Exited(EXIT_WITH_SUCCESS) => {
                self.has_exited = true;
                stdout.push_str(
                    "\nStep exited with code 168. Therefore, marking step as succeeded. \
                     Further document steps will be skipped.",
                );
                text = Some(stdout.clone());
                (ResultStatus::Success, i64::from(EXIT_WITH_SUCCESS))
            }
            Ending::Exited(EXIT_WITH_FAILURE) => {
                self.has_exited = true;
                for stream in [&mut stdout, &mut stderr] {
                    stream.push_str(
                        "\nStep exited with code 169. Therefore, marking step as Failed. \
                         Further document steps will be skipped.",
                    );
                }
                (ResultStatus::Failed, i64::from(EXIT_WITH_FAILURE))
            }
            Ending::Exited(EXIT_WITH_REBOOT) => {
                // What follows counts on the reboot, so it must not run without one.
                self.has_exited = true;
                append_line(
                    &mut stderr,
                    "the step exited with code 194, which asks for a reboot; this agent does not reboot nodes yet. \
                     Further document steps will be skipped.",
                );
                (ResultStatus::Failed, i64::from(EXIT_WITH_REBOOT))
            }
            Ending::Exited(code) => {
                append_line(
                    &mut stderr,
                    &format!("failed to run commands: exit status {code}"),
                );
                (ResultStatus::Failed, i64::from(code))
            }
            Ending::Killed(signal) => {
                append_line(
                    &mut stderr,
                    &format!("failed to run commands: killed by signal {signal}"),
                );
                (ResultStatus::Failed, -1)
            }
            Ending::NotStarted(reason) => {
                append_line(&mut stderr, &format!("failed to run commands: {reason}"));
                (ResultStatus::Failed, 1)
            }
            Ending::Stopped(StopReason::TimedOut) => (ResultStatus::TimedOut, STOPPED),
            Ending::Stopped(StopReason::Cancelled) => (ResultStatus::Cancelled, STOPPED),
            Ending::Stopped(StopReason::Interrupted) => {
                append_line(&mut stderr, "the step was stopped: the agent was told to stop");
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

    /// Applies the step's own control to its outcome and goes on to the next step.
    pub(super) fn conclude(&mut self, step: &Step, mut outcome: StepOutcome) -> StepOutcome {
        match outcome.status {
            ResultStatus::Failed => {
                if let Some(on_failure) = step.control.on_failure {
                    self.has_exited = true;
                    const TEXT: &str = "\nStep was found to have onFailure property. Further document steps will be skipped.";
                    outcome.stdout.push_str(TEXT);
                    outcome.stderr.push_str(TEXT);
                    if let Some(text) = &mut outcome.text {
                        text.push_str(TEXT);
                    }
                    if on_failure == OnFailure::SuccessAndExit {
                        outcome.status = ResultStatus::Success;
                        outcome.code = i64::from(EXIT_WITH_SUCCESS);
                    }
                }
            }
            ResultStatus::Success if step.control.exit_on_success => self.has_exited = true,
            _ => {}
        }
        self.statuses.push(outcome.status);
        outcome
    }
}

fn append_line(text: &mut String, line: &str) {
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    text.push_str(line);
}

#[cfg(test)]
mod tests;
