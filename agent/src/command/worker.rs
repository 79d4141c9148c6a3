//! The worker process of one command: runs its steps, and writes into the journal what becomes of them.
//!
//! It needs the daemon for nothing. It is told to cancel by SIGUSR1; SIGTERM means that the node goes down.

use std::{io::Read, path::PathBuf, process::ExitCode, time::Duration};

use moorline_protocol::{
    document::{
        AfterRun, CommandDocument, DocumentError, Flow, Next, Platform as PlanPlatform, Ran, Step,
        StepOutcome, StepResult, StopReason, document_status,
    },
    message::{ResultStatus, SendCommandContent},
};
use serde::{Deserialize, Serialize};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
    time::{Instant, sleep},
};

use crate::runtime::{GroupPlaces, Platform, ResourceLimits};

use super::{
    drop_folder, intake,
    journal::{Beginning, Conclusion, Journal, JournalError, MEMORY, Opener, ProcessRecord, StepProgress},
    now_millis,
    output::Allowance,
    reboot, reply,
    step::{self, HANDLED_ACTIONS, StepContext},
};

/// A task is a few paths and names.
const MAX_TASK_BYTES: u64 = 64 * 1024;
/// sysexits' EX_TEMPFAIL: nothing was begun, and another attempt may succeed.
const EXIT_TRY_AGAIN: u8 = 75;
const FIRST_RETRY: Duration = Duration::from_millis(250);
const LAST_RETRY: Duration = Duration::from_secs(30);

/// What a worker is told, on its standard input. The command itself stands in the journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct WorkerTask {
    pub(super) state_dir: PathBuf,
    pub(super) command_id: String,
    pub(super) instance_id: String,
    pub(super) region: String,
    pub(super) platform: Platform,
    /// Whether the endpoint is Moorline's.
    pub(super) is_moorline: bool,
    /// Program and arguments that reboot the node; empty: it is never rebooted.
    pub(super) reboot_command: Vec<String>,
    /// Parameters that the node's owner lets documents read: names, or with `*` at the end what names begin with.
    pub(super) secure_parameters: Vec<String>,
    /// Where control groups of steps are made; `None`: they have none.
    pub(super) groups: Option<GroupPlaces>,
    /// Of each step.
    pub(super) limits: ResourceLimits,
}

/// What a plan depends on here.
pub(super) const PLATFORM: PlanPlatform<'static> = PlanPlatform {
    platform_type: "Linux",
    handled_actions: &HANDLED_ACTIONS,
};

/// Entry point of the process.
pub(super) fn main() -> ExitCode {
    match read_task().and_then(|task| serve(&task)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            // Not with eprintln: the daemon may be gone, and with it whoever reads this.
            drop(std::io::Write::write_all(
                &mut std::io::stderr(),
                format!("moorline-agent: command worker: {reason}\n").as_bytes(),
            ));
            ExitCode::from(EXIT_TRY_AGAIN)
        }
    }
}

fn read_task() -> Result<WorkerTask, String> {
    let mut text = Vec::new();
    std::io::stdin()
        .take(MAX_TASK_BYTES)
        .read_to_end(&mut text)
        .map_err(|error| format!("failed to read the task: {error}"))?;
    serde_json::from_slice(&text).map_err(|error| format!("failed to understand the task: {error}"))
}

fn serve(task: &WorkerTask) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("failed to start: {error}"))?;
    runtime.block_on(async {
        let listen = |kind| signal(kind).map_err(|error| format!("failed to listen for signals: {error}"));
        // Before anything is begun: a signal without a listener ends the process.
        let mut cancel = listen(SignalKind::user_defined1())?;
        let mut terminate = listen(SignalKind::terminate())?;
        let (stop, _) = watch::channel(None);
        let stopper = stop.clone();
        let listening = async move {
            loop {
                let reason = tokio::select! {
                    _ = cancel.recv() => StopReason::Cancelled,
                    _ = terminate.recv() => StopReason::Interrupted,
                };
                // The first reason stands.
                stopper.send_if_modified(|stop| stop.replace(stop.unwrap_or(reason)).is_none());
            }
        };
        tokio::select! {
            done = run(task, &stop, nudge) => done.map_err(|error| chain(&error)),
            () = listening => Ok(()),
        }
    })
}

/// Tells the daemon to look into the journal; it may be gone.
fn nudge() {
    let mut stdout = std::io::stdout();
    drop(std::io::Write::write_all(&mut stdout, b".\n").and_then(|()| std::io::Write::flush(&mut stdout)));
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

/// Runs the command, if this worker is the one that gets it.
///
/// # Errors
/// The journal could not be opened, or the beginning not be written: nothing has been run.
pub(super) async fn run(
    task: &WorkerTask,
    stop: &watch::Sender<Option<StopReason>>,
    nudge: impl Fn(),
) -> Result<(), JournalError> {
    let mut journal = Journal::open(&task.state_dir, Opener::Worker)?;
    let Some(assignment) = journal.assignment(&task.command_id)? else {
        return Ok(());
    };
    let worker = ProcessRecord::of_this_process().ok_or(JournalError::Content {
        what: "a worker without /proc",
    })?;
    let plan = Plan::make(&assignment.content);
    let (results, reboots) = match journal.begin(&task.command_id, &worker, &plan.names)? {
        Beginning::NotOurs => return Ok(()),
        Beginning::Begun {
            is_cancelled,
            results,
            reboots,
        } => {
            if is_cancelled {
                stop.send_replace(Some(StopReason::Cancelled));
            }
            (results, reboots)
        }
    };
    nudge();
    let recorder = Recorder {
        task,
        worker,
        journal: Some(journal),
        nudge,
    };
    match plan.steps {
        Ok(steps) => {
            let flow = Flow::resume(&steps, &results, reboots);
            let run = Run {
                job_id: &assignment.job_id,
                steps: &steps,
                document: plan.hash,
            };
            run.steps(flow, stop, recorder).await;
        }
        Err(error) => refuse(&assignment.job_id, &plan.names, &error.to_string(), recorder).await,
    }
    Ok(())
}

/// The steps of a document, and their names even when they cannot be run.
struct Plan {
    /// Action and name.
    names: Vec<(String, String)>,
    steps: Result<Vec<Step>, DocumentError>,
    /// Of the document.
    hash: [u8; 32],
}

impl Plan {
    fn make(content: &str) -> Self {
        let SendCommandContent {
            document_content,
            parameters,
            ..
        } = match intake::read_content(content) {
            Ok(content) => content,
            Err(reason) => {
                return Self {
                    names: Vec::new(),
                    steps: Err(DocumentError::Malformed(reason)),
                    hash: [0; 32],
                };
            }
        };
        let document = match CommandDocument::parse(&document_content) {
            Ok(document) => document,
            Err(error) => {
                return Self {
                    names: Vec::new(),
                    steps: Err(error),
                    hash: [0; 32],
                };
            }
        };
        let names = document
            .step_names()
            .map(|(action, name)| (action.to_owned(), name.to_owned()))
            .collect();
        Self {
            names,
            steps: document.plan(&parameters, PLATFORM),
            hash: step::document_hash(&document_content),
        }
    }
}

/// A command that this worker has begun.
struct Run<'a> {
    job_id: &'a str,
    steps: &'a [Step],
    document: [u8; 32],
}

impl Run<'_> {
    async fn steps(
        &self,
        mut flow: Flow<'_>,
        stop: &watch::Sender<Option<StopReason>>,
        mut recorder: Recorder<'_, impl Fn()>,
    ) {
        let run_directory = step::run_directories(&recorder.task.state_dir).join(&recorder.task.command_id);
        let mut context = StepContext {
            task: recorder.task,
            command_id_variable: match drop_folder::name_of(self.job_id) {
                None => intake::command_id_of_dotted(self.job_id),
                Some(_) => Some(&recorder.task.command_id),
            },
            allowance: Allowance::default(),
            stop: stop.subscribe(),
            steps_directory: run_directory.clone(),
            run_directory,
            documents: vec![self.document],
            programs: 0,
        };
        loop {
            let started = now_millis();
            let stop = *context.stop.borrow();
            let (position, outcome) = match flow.next(stop) {
                Next::Over(_) => return,
                Next::Settled(position, outcome) => (position, outcome),
                Next::Run(position) => {
                    let Some(step) = self.steps.get(position) else {
                        return;
                    };
                    let ran = step::run(step, position, &mut context).await;
                    match flow.ran(ran.clone()) {
                        AfterRun::Outcome(outcome) => (position, outcome),
                        AfterRun::Reboot => match self.reboot(&mut flow, ran, &mut recorder).await {
                            Some(outcome) => (position, outcome),
                            None => return,
                        },
                    }
                }
            };
            if !self
                .tell(position, outcome, flow.statuses(), started, &mut recorder)
                .await
            {
                return;
            }
        }
    }

    /// Reboots the node. `None`: the command goes on in the next boot; else what the step comes to without one.
    async fn reboot(
        &self,
        flow: &mut Flow<'_>,
        ran: Ran,
        recorder: &mut Recorder<'_, impl Fn()>,
    ) -> Option<StepOutcome> {
        // On record first: from then on the machine may go down at any moment.
        if !recorder.await_reboot(true).await {
            return None;
        }
        let Err(reason) = reboot::reboot(&recorder.task.reboot_command).await else {
            return None;
        };
        if !recorder.await_reboot(false).await {
            return None;
        }
        Some(flow.reboot_failed(ran, &reason))
    }

    /// Records what a step came to, and with the last one the end of the command. False: the command is not ours.
    async fn tell(
        &self,
        position: usize,
        outcome: StepOutcome,
        statuses: &[ResultStatus],
        started: u64,
        recorder: &mut Recorder<'_, impl Fn()>,
    ) -> bool {
        let Self { job_id, steps, .. } = self;
        let Some(step) = steps.get(position) else {
            return false;
        };
        let ended = now_millis();
        let result = StepResult {
            status: outcome.status,
            code: outcome.code,
        };
        let reply = reply::step_reply(outcome, &step.action, started, ended);
        let counts = reply::counts(statuses.iter().copied());
        let progress = StepProgress {
            position,
            result,
            reply: reply::step(job_id, &step.name, &reply, counts.clone(), ended),
        };
        if position + 1 < steps.len() {
            return recorder.record(Some(&progress), None).await;
        }
        let status = document_status(statuses.iter().copied());
        let only_step = (steps.len() == 1).then_some((step.name.as_str(), &reply));
        let end = reply::end(job_id, status, only_step, counts, "", ended);
        // The end of a single step says everything, and somebody may be waiting for it: it goes first.
        let (step, replies) = match only_step {
            Some(_) => (None, vec![end, progress.reply]),
            None => (Some(&progress), vec![end]),
        };
        recorder.record(step, Some(&Conclusion { status, replies })).await
    }
}

/// The document's parameters cannot be filled in: no step runs, and each says why.
async fn refuse(
    job_id: &str,
    names: &[(String, String)],
    reason: &str,
    mut recorder: Recorder<'_, impl Fn()>,
) {
    let conclusion = reply::never_run(job_id, names, ResultStatus::Failed, reason, now_millis());
    recorder.record(None, Some(&conclusion)).await;
}

/// Writes what happened into the journal, however long that takes.
struct Recorder<'a, N> {
    task: &'a WorkerTask,
    worker: ProcessRecord,
    journal: Option<Journal>,
    nudge: N,
}

impl<N: Fn()> Recorder<'_, N> {
    /// False: the command is not ours any more, and nothing further may be done for it.
    async fn record(&mut self, step: Option<&StepProgress>, conclusion: Option<&Conclusion>) -> bool {
        let now = now_millis();
        self.write(|journal, command_id, worker| journal.record(command_id, worker, step, conclusion, now))
            .await
    }

    /// The same for a reboot that is to come, or after all does not.
    async fn await_reboot(&mut self, is_rebooting: bool) -> bool {
        self.write(|journal, command_id, worker| journal.await_reboot(command_id, worker, is_rebooting))
            .await
    }

    async fn write(
        &mut self,
        write: impl Fn(&mut Journal, &str, &ProcessRecord) -> Result<bool, JournalError>,
    ) -> bool {
        let begun = Instant::now();
        let mut wait = FIRST_RETRY;
        loop {
            match self.try_write(&write) {
                Ok(is_ours) => {
                    (self.nudge)();
                    return is_ours;
                }
                // The disk is full, most likely. The result is known, so it is kept until there is room.
                Err(_) if begun.elapsed() < MEMORY => self.journal = None,
                Err(_) => return false,
            }
            sleep(wait).await;
            wait = (wait * 2).min(LAST_RETRY);
        }
    }

    fn try_write(
        &mut self,
        write: impl Fn(&mut Journal, &str, &ProcessRecord) -> Result<bool, JournalError>,
    ) -> Result<bool, JournalError> {
        let journal = match &mut self.journal {
            Some(journal) => journal,
            closed => closed.insert(Journal::open(&self.task.state_dir, Opener::Worker)?),
        };
        write(journal, &self.task.command_id, &self.worker)
    }
}

#[cfg(test)]
mod tests;
