//! The worker process of one command: runs its steps, and writes into the journal what becomes of them.
//!
//! It needs the daemon for nothing. It is told to cancel by SIGUSR1; SIGTERM means that the node goes down.

mod recorder;

use std::{io::Read, path::PathBuf, process::ExitCode, time::Duration};

use moorline_protocol::{
    document::{
        AfterRun, CommandDocument, Decision, Flow, Next, Platform as PlanPlatform, Ran, Step, StepOutcome,
        StepResult, StopReason, document_status,
    },
    error_chain,
    message::{ResultStatus, SendCommandContent},
    transcript::Digest,
};
use serde::{Deserialize, Serialize};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
    time::sleep,
};

use self::recorder::Recorder;
use crate::{
    config::{OutputLimits, S3Config, TranscriptConfig},
    policy::{Once, Refusal},
    runtime::{GroupPlaces, Platform, ResourceLimits, shrink, start_worker_log},
};

use super::{
    drop_folder, intake,
    journal::{
        Assignment, Beginning, Conclusion, Journal, JournalError, Opener, ProcessRecord, StepProgress,
    },
    now_millis,
    output::Allowance,
    owner_policy::{Candidate, Origin, Permission},
    reboot,
    recording::{CommandRecording, Wish},
    reply,
    step::{self, HANDLED_ACTIONS, StepContext},
    step_limits::StepLimits,
};

/// A task is a few paths and names.
const MAX_TASK_BYTES: u64 = 64 * 1024;
/// What a worker says on its standard output when there is more of its recording.
pub(super) const RECORDED: u8 = b'r';
/// And when there is more in the journal.
const JOURNAL: u8 = b'.';
/// sysexits' EX_TEMPFAIL: nothing was begun, and another attempt may succeed.
const EXIT_TRY_AGAIN: u8 = 75;
/// A command that takes longer than this is likely to take long.
const SETTLED_AFTER: Duration = Duration::from_secs(1);

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
    /// Where downloads out of S3 come from.
    pub(super) s3: S3Config,
    /// Where control groups of steps are made; `None`: they have none.
    pub(super) groups: Option<GroupPlaces>,
    /// What output may take on the disk.
    pub(super) output: OutputLimits,
    /// Of each step.
    pub(super) limits: ResourceLimits,
    /// How commands are recorded.
    pub(super) transcript: TranscriptConfig,
    /// Whether the endpoint knows the key that seals recordings.
    pub(super) seals: bool,
    /// Folder of the owner's policy.
    pub(super) policy_folder: PathBuf,
}

/// What a plan depends on here.
pub(super) const PLATFORM: PlanPlatform<'static> = PlanPlatform {
    platform_type: "Linux",
    handled_actions: &HANDLED_ACTIONS,
};

/// Entry point of the process.
pub(super) fn main() -> ExitCode {
    start_worker_log();
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
                    _ = cancel.recv() => stop_reason(task),
                    _ = terminate.recv() => StopReason::Interrupted,
                };
                // The first reason stands.
                stopper.send_if_modified(|stop| stop.replace(stop.unwrap_or(reason)).is_none());
            }
        };
        tokio::select! {
            done = run(task, &stop, || say(JOURNAL)) => done.map_err(|error| error_chain(&error)),
            () = listening => Ok(()),
        }
    })
}

/// Why the daemon has told this worker to stop.
fn stop_reason(task: &WorkerTask) -> StopReason {
    let journal = Journal::open(&task.state_dir, Opener::Worker);
    journal
        .and_then(|journal| journal.stop_reason(&task.command_id))
        // a journal that cannot be read must not keep anybody from cancelling
        .unwrap_or(StopReason::Cancelled)
}

/// Tells the daemon where to look; it may be gone.
fn say(what: u8) {
    let mut stdout = std::io::stdout();
    drop(
        std::io::Write::write_all(&mut stdout, &[what, b'\n'])
            .and_then(|()| std::io::Write::flush(&mut stdout)),
    );
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
    let mut plan = Plan::make(&assignment, task);
    if !assignment.is_new {
        plan.refuse_the_rest();
    }
    if let Some(once) = &plan.once
        && !journal.spend(once, &task.command_id)?
    {
        plan.obstacle = Some(Obstacle::Owner(Refusal::of_replay()));
    }
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
    // a part that cannot say what it follows is better than none
    let follows = journal.last_part(&task.command_id).unwrap_or_default();
    let mut recorder = Recorder {
        task,
        worker,
        journal: Some(journal),
        nudge,
    };
    // what the owner's own folder holds is no endpoint's business
    let is_local = drop_folder::name_of(&assignment.job_id).is_some();
    let begun = plan
        .wish(task, (reboots, follows))
        .filter(|_| !is_local)
        .map(|wish| CommandRecording::begin(&wish, || say(RECORDED)));
    let recording = match begun.transpose() {
        Ok(recording) => recording.unwrap_or_default(),
        Err(error) => {
            let obstacle = Obstacle::Failed(error_chain(&error));
            refuse(&assignment.job_id, &plan.names, &obstacle, &mut recorder).await;
            return Ok(());
        }
    };
    recording.hide(&plan.secrets);
    let work = async {
        if let Some(obstacle) = &plan.obstacle {
            refuse(&assignment.job_id, &plan.names, obstacle, &mut recorder).await;
            return recording.refused(&obstacle.to_string());
        }
        let run = Run {
            job_id: &assignment.job_id,
            plan: &plan,
            recording: &recording,
        };
        let flow = Flow::resume(&plan.steps, &results, reboots);
        // what the start needed of the program is not what steps need: both together would be its most memory
        shrink();
        run.steps((flow, reboots), stop, &mut recorder).await;
    };
    let guard = async {
        recording.fails().await;
        if task.transcript.is_required() {
            stop.send_if_modified(|stop| stop.replace(stop.unwrap_or(StopReason::Unrecorded)).is_none());
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = work => {}
        () = recording.keep() => {}
        () = guard => {}
        () = settle() => {}
    }
    recording.deliver_end().await;
    Ok(())
}

/// Gives back what the start needed, of a command that takes longer than that; never ends.
async fn settle() {
    sleep(SETTLED_AFTER).await;
    shrink();
    std::future::pending::<()>().await;
}

/// What is to be run, as far as it can be read.
#[derive(Default)]
struct Plan {
    /// Action and name of each step, even when they cannot be run.
    names: Vec<(String, String)>,
    steps: Vec<Step>,
    /// Why they do not run.
    obstacle: Option<Obstacle>,
    /// It may run only once.
    once: Option<Once>,
    /// What its steps may use.
    limits: StepLimits,
    content: Option<SendCommandContent>,
    document: Option<CommandDocument>,
    /// Of the document.
    hash: [u8; 32],
    /// Texts of parameters that the document marks as secrets.
    secrets: Vec<String>,
}

/// Why no step may run.
#[derive(Debug, thiserror::Error)]
enum Obstacle {
    #[error("{0}")]
    Failed(String),
    #[error(transparent)]
    Owner(Refusal),
}

impl Plan {
    fn make(assignment: &Assignment, task: &WorkerTask) -> Self {
        let mut plan = Self {
            limits: StepLimits::of_agent(&task.limits, task.groups.as_ref()),
            ..Self::default()
        };
        if let Err(reason) = plan.read(&assignment.content) {
            plan.obstacle = Some(Obstacle::Failed(reason));
        } else if drop_folder::name_of(&assignment.job_id).is_none()
            && let Err(refusal) = plan.permit(assignment.is_new, task)
        {
            plan.obstacle = Some(Obstacle::Owner(refusal));
        }
        plan
    }

    /// Asks the owner's policy about what an endpoint sent.
    fn permit(&mut self, is_new: bool, task: &WorkerTask) -> Result<(), Refusal> {
        let Some(content) = &self.content else {
            return Ok(());
        };
        let candidate = Candidate {
            name: &content.document_name,
            content: &content.document_content,
            operator: content.moorline_operator.as_deref(),
            steps: &self.steps,
            origin: Origin::Command {
                parameters: &content.parameters,
                signature: content.moorline_signature.as_deref(),
                node: &task.instance_id,
                is_new,
            },
        };
        let Permission { once, grant } = candidate.permit(&task.policy_folder)?;
        self.limits = self.limits.within(&grant, &task.state_dir)?;
        self.once = once;
        Ok(())
    }

    /// The policy may have changed since the reboot that the command went through: what came before stays as it was.
    fn refuse_the_rest(&mut self) {
        if let Some(Obstacle::Owner(refusal)) = &self.obstacle {
            for step in &mut self.steps {
                step.decision = Decision::Fail(refusal.to_string());
            }
            self.obstacle = None;
        }
    }

    fn read(&mut self, content: &str) -> Result<(), String> {
        let content = self.content.insert(intake::read_content(content)?);
        let document =
            CommandDocument::parse(&content.document_content).map_err(|error| error.to_string())?;
        let document = self.document.insert(document);
        self.names = document
            .step_names()
            .map(|(action, name)| (action.to_owned(), name.to_owned()))
            .collect();
        self.hash = step::document_hash(&content.document_content);
        self.secrets = document.parameters.secret_texts(&content.parameters);
        let values = document.parameters.resolve_values(&content.parameters);
        let values = values.map_err(|error| error.to_string())?;
        self.secrets = document.parameters.secret_texts(values.as_map());
        let steps = document.plan(&content.parameters, PLATFORM);
        self.steps = steps.map_err(|error| error.to_string())?;
        Ok(())
    }

    /// How this command is recorded; of one that cannot be read nobody says where.
    fn wish<'a>(
        &'a self,
        task: &'a WorkerTask,
        (reboots, follows): (u32, Option<Digest>),
    ) -> Option<Wish<'a>> {
        Some(Wish {
            command_id: &task.command_id,
            node: &task.instance_id,
            reboots,
            follows,
            content: self.content.as_ref()?,
            document: self.document.as_ref(),
            state_dir: &task.state_dir,
            config: &task.transcript,
            seals: task.seals,
            is_moorline: task.is_moorline,
        })
    }
}

/// A command that this worker has begun.
struct Run<'a> {
    job_id: &'a str,
    plan: &'a Plan,
    recording: &'a CommandRecording,
}

impl Run<'_> {
    async fn steps(
        &self,
        (mut flow, mut reboots): (Flow<'_>, u32),
        stop: &watch::Sender<Option<StopReason>>,
        recorder: &mut Recorder<'_, impl Fn()>,
    ) {
        let run_directory = step::run_directories(&recorder.task.state_dir).join(&recorder.task.command_id);
        let mut context = StepContext {
            task: recorder.task,
            limits: self.plan.limits.clone(),
            command_id_variable: match drop_folder::name_of(self.job_id) {
                None => intake::command_id_of_dotted(self.job_id),
                Some(_) => Some(&recorder.task.command_id),
            },
            allowance: Allowance::new(recorder.task.output),
            stop: stop.subscribe(),
            steps_directory: run_directory.clone(),
            run_directory,
            programs: 0,
            documents: vec![self.plan.hash],
            recording: self.recording.clone(),
            secrets: self.plan.secrets.clone(),
            operator: (self.plan.content.as_ref()).and_then(|content| content.moorline_operator.as_deref()),
        };
        loop {
            let started = now_millis();
            let stop = *context.stop.borrow();
            let (position, outcome) = match flow.next(stop) {
                Next::Over(_) => return,
                Next::Settled(position, outcome) => (position, outcome),
                Next::Run(position) => {
                    let Some(step) = self.plan.steps.get(position) else {
                        return;
                    };
                    let mut ran = step::run(step, position, &mut context).await;
                    self.tell_unrecorded(&mut ran, recorder);
                    match flow.ran(ran.clone()) {
                        AfterRun::Outcome(outcome) => (position, outcome),
                        AfterRun::Reboot => {
                            reboots += 1;
                            match self.reboot((&mut flow, reboots), ran, recorder).await {
                                Some(outcome) => (position, outcome),
                                None => return,
                            }
                        }
                    }
                }
            };
            if !self
                .tell(position, outcome, flow.statuses(), started, recorder)
                .await
            {
                return;
            }
        }
    }

    /// The first step whose end is not recorded says so.
    fn tell_unrecorded(&self, ran: &mut Ran, recorder: &mut Recorder<'_, impl Fn()>) {
        let Some(failure) = self.recording.take_failure() else {
            return;
        };
        let reason = recorder.unrecorded().unwrap_or(failure);
        tracing::warn!(reason, "the command is not recorded any more");
        if !ran.stderr.is_empty() && !ran.stderr.ends_with('\n') {
            ran.stderr.push('\n');
        }
        ran.stderr += &format!("moorline: this command is not recorded any more: {reason}\n");
    }

    /// Reboots the node. `None`: the command goes on in the next boot; else what the step comes to without one.
    async fn reboot(
        &self,
        (flow, reboots): (&mut Flow<'_>, u32),
        ran: Ran,
        recorder: &mut Recorder<'_, impl Fn()>,
    ) -> Option<StepOutcome> {
        // On record first: from then on the machine may go down at any moment.
        if !recorder.await_reboot(true).await {
            return None;
        }
        let follows = self.recording.reboots();
        if let Some(hash) = &follows {
            recorder.note_part(hash);
        }
        let Err(reason) = reboot::reboot(&recorder.task.reboot_command).await else {
            recorder.reboot_arranged();
            return None;
        };
        if !recorder.await_reboot(false).await {
            return None;
        }
        if let Some(wish) = self.plan.wish(recorder.task, (reboots, follows)) {
            self.recording.goes_on(&wish);
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
        let Self { job_id, plan, .. } = self;
        let Some(step) = plan.steps.get(position) else {
            return false;
        };
        self.recording.step_ended(step, &outcome);
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
        if position + 1 < plan.steps.len() {
            return recorder.record(Some(&progress), None).await;
        }
        let status = document_status(statuses.iter().copied());
        let only_step = (plan.steps.len() == 1).then_some((step.name.as_str(), &reply));
        let end = reply::end(job_id, status, only_step, counts, "", ended);
        // The end of a single step says everything, and somebody may be waiting for it: it goes first.
        let (step, replies) = match only_step {
            Some(_) => (None, vec![end, progress.reply]),
            None => (Some(&progress), vec![end]),
        };
        let told = recorder.record(step, Some(&Conclusion { status, replies })).await;
        // behind the result, which somebody waits for
        self.recording.finish(status);
        told
    }
}

/// No step runs, and each says why.
async fn refuse(
    job_id: &str,
    names: &[(String, String)],
    obstacle: &Obstacle,
    recorder: &mut Recorder<'_, impl Fn()>,
) {
    let (reason, now) = (obstacle.to_string(), now_millis());
    let conclusion = match obstacle {
        Obstacle::Failed(_) => reply::never_run(job_id, names, ResultStatus::Failed, &reason, now),
        Obstacle::Owner(_) => reply::refused(job_id, names, &reason, recorder.task.is_moorline, now),
    };
    recorder.record(None, Some(&conclusion)).await;
}

#[cfg(test)]
mod tests;
