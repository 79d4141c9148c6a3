//! Which commands run, which wait, and what has become of their workers.
//!
//! The journal decides; this only acts on it. A worker's word counts for nothing but "look".

mod rebooting;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use moorline_protocol::message::ResultStatus;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::{
    io::AsyncReadExt,
    sync::{Notify, mpsc},
    time::Instant,
};

use crate::{
    recording::{Courier, RefusedRecording},
    runtime::{ProcessKey, WorkerKind, WorkerProcess},
};

use self::rebooting::Rebooting;
use super::{
    drop_folder, intake,
    journal::{
        Assignment, CancelOutcome, Conclusion, Endings, JournalError, JournalThread, ProcessRecord, Settled,
        StepRecord, Unfinished,
    },
    node::Node,
    now_millis, owner_policy, reply, step,
    worker::{RECORDED, WorkerTask},
};

/// How often workers that are not our children are looked at.
const ADOPTED_LOOK: Duration = Duration::from_millis(500);
const FIRST_RETRY: Duration = Duration::from_millis(250);
const LAST_RETRY: Duration = Duration::from_secs(60);
/// Workers that end before they begin, one after another, until the command is given up.
const MAX_STARTS: u32 = 12;

/// The end of a worker process that this daemon started.
#[derive(Debug)]
pub(super) struct WorkerEnded {
    pub(super) command_id: String,
}

/// Commands in hand.
#[derive(Debug)]
pub(super) struct Executor {
    node: Arc<Node>,
    journal: JournalThread,
    waiting: VecDeque<Waiting>,
    running: BTreeMap<String, Running>,
    /// Commands whose worker has gone and that could not be settled, because the journal did not answer.
    unsettled: BTreeSet<String>,
    retry_at: Option<Instant>,
    /// Commands that go on after a reboot.
    rebooting: BTreeMap<String, Rebooting>,
    /// Before the next try; `None`: the journal answers.
    retry_pause: Option<Duration>,
    /// Commands have ended since this was last asked for.
    has_ended: bool,
    ended: mpsc::Sender<WorkerEnded>,
    nudged: Arc<Notify>,
}

#[derive(Debug)]
struct Waiting {
    command_id: String,
    starts: u32,
    not_before: Option<Instant>,
}

#[derive(Debug)]
struct Running {
    /// `None`: it ended before it could be looked at.
    key: Option<ProcessKey>,
    /// Set for a worker that another daemon started, or that won a race against ours.
    adopted: Option<ProcessRecord>,
    starts: u32,
}

impl Executor {
    pub(super) fn new(
        node: Arc<Node>,
        journal: JournalThread,
        ended: mpsc::Sender<WorkerEnded>,
        nudged: Arc<Notify>,
    ) -> Self {
        Self {
            node,
            journal,
            waiting: VecDeque::new(),
            running: BTreeMap::new(),
            unsettled: BTreeSet::new(),
            retry_at: None,
            rebooting: BTreeMap::new(),
            retry_pause: None,
            has_ended: false,
            ended,
            nudged,
        }
    }

    /// Takes over what the last daemon left: waiting commands, living workers, dead ones.
    pub(super) async fn recover(&mut self, unfinished: Vec<Unfinished>) {
        for Unfinished { command_id, worker } in unfinished {
            match worker {
                None => self.enqueue(command_id),
                Some(worker) if worker.is_alive() => self.adopt(command_id, worker, 0),
                Some(_) => self.settle(command_id, 0).await,
            }
        }
    }

    /// How many more commands may be accepted.
    pub(super) fn room(&self) -> usize {
        let limits = &self.node.limits;
        let taken = self.running.len() + self.waiting.len() + self.rebooting.len();
        limits.workers.saturating_add(limits.queue).saturating_sub(taken)
    }

    pub(super) fn enqueue(&mut self, command_id: String) {
        self.waiting.push_back(Waiting {
            command_id,
            starts: 0,
            not_before: None,
        });
    }

    /// Starts what can be started.
    pub(super) async fn start_waiting(&mut self) {
        while self.rebooting.is_empty() && self.running.len() < self.node.limits.workers {
            let now = Instant::now();
            let is_ready = |waiting: &Waiting| waiting.not_before.is_none_or(|at| at <= now);
            let Some(index) = self.waiting.iter().position(is_ready) else {
                return;
            };
            if let Some(waiting) = self.waiting.remove(index) {
                self.start(waiting).await;
            }
        }
    }

    async fn start(&mut self, waiting: Waiting) {
        let Waiting {
            command_id, starts, ..
        } = waiting;
        if self.is_refused(&command_id).await {
            return;
        }
        let task = WorkerTask {
            state_dir: self.node.state_dir.clone(),
            command_id: command_id.clone(),
            instance_id: self.node.instance_id.clone(),
            region: self.node.region.clone(),
            platform: self.node.platform.clone(),
            is_moorline: self.node.is_moorline,
            reboot_command: self.node.limits.reboot_command.clone(),
            secure_parameters: self.node.limits.secure_parameters.clone(),
            s3: self.node.limits.s3.clone(),
            groups: self.node.groups.clone(),
            output: self.node.limits.output,
            limits: self.node.limits.limits.clone(),
            transcript: self.node.transcript.clone(),
            seals: self.node.seals.load(Ordering::Relaxed),
            policy_folder: self.node.policy_folder.clone(),
        };
        let task = serde_json::to_vec(&task).unwrap_or_default();
        match WorkerProcess::spawn(WorkerKind::Command, &self.node.state_dir, &task).await {
            Ok(worker) => {
                let running = Running {
                    key: worker.key(),
                    adopted: None,
                    starts: starts + 1,
                };
                self.running.insert(command_id.clone(), running);
                tokio::spawn(watch(
                    command_id,
                    worker,
                    self.ended.clone(),
                    (Arc::clone(&self.nudged), self.node.courier.clone()),
                ));
            }
            Err(error) => {
                tracing::warn!(
                    command_id,
                    error = &error as &dyn std::error::Error,
                    "no worker for a command"
                );
                self.wait_again(command_id, starts + 1).await;
            }
        }
    }

    /// Whether the owner's policy refuses a command that has not begun; then it has ended.
    async fn is_refused(&mut self, command_id: &str) -> bool {
        let (id, folder) = (command_id.to_owned(), self.node.policy_folder.clone());
        let node = self.node.instance_id.clone();
        if !folder.exists() {
            return false;
        }
        let is_moorline = self.node.is_moorline;
        let refused = self.journal.call(move |journal| {
            // What the owner put there is not asked about, nor what has begun.
            let is_asked_about = |assignment: &Assignment| {
                assignment.is_new && drop_folder::name_of(&assignment.job_id).is_none()
            };
            let Some(assignment) = journal.assignment(&id)?.filter(is_asked_about) else {
                return Ok(false);
            };
            let Err(refusal) = owner_policy::foresee(&folder, &assignment.content, &node) else {
                return Ok(false);
            };
            let (steps, now) = (intake::step_names(&assignment.content), now_millis());
            journal.abandon(&id, now, |assignment| {
                reply::refused(&assignment.job_id, &steps, &refusal.to_string(), is_moorline, now)
            })
        });
        // Where the journal does not answer, the worker asks the policy.
        let is_refused = refused.await.unwrap_or(false);
        if is_refused {
            tracing::warn!(command_id, "a command is refused by the owner's policy");
            self.has_ended = true;
            self.nudged.notify_one();
        }
        is_refused
    }

    /// A worker did not begin its command: another one will, or the command is given up.
    async fn wait_again(&mut self, command_id: String, starts: u32) {
        if starts >= MAX_STARTS && self.abandon(&command_id).await {
            return;
        }
        let pause = FIRST_RETRY
            .saturating_mul(1 << starts.saturating_sub(1).min(10))
            .min(LAST_RETRY);
        let not_before = Some(Instant::now() + pause);
        self.waiting.push_back(Waiting {
            command_id,
            starts,
            not_before,
        });
    }

    async fn abandon(&self, command_id: &str) -> bool {
        let id = command_id.to_owned();
        let abandoned = self.journal.call(move |journal| {
            let now = now_millis();
            journal.abandon(&id, now, |assignment| {
                let reason = "the command's worker could not be started; nothing was run";
                never_run(assignment, ResultStatus::Failed, reason, now)
            })
        });
        match abandoned.await {
            Ok(_) => {
                self.nudged.notify_one();
                true
            }
            // The journal does not answer, so no worker could begin either.
            Err(_) => false,
        }
    }

    /// A worker process has ended.
    pub(super) async fn worker_ended(&mut self, WorkerEnded { command_id }: WorkerEnded) {
        let Some(running) = self.running.remove(&command_id) else {
            return;
        };
        self.settle(command_id, running.starts).await;
    }

    /// Looks after workers that are not our children, and after what could not be settled.
    pub(super) async fn look(&mut self) {
        let is_gone = |running: &Running| running.adopted.as_ref().is_some_and(|worker| !worker.is_alive());
        let gone: Vec<String> = self
            .running
            .iter()
            .filter(|(_, running)| is_gone(running))
            .map(|(command_id, _)| command_id.clone())
            .collect();
        for command_id in gone {
            self.worker_ended(WorkerEnded { command_id }).await;
        }
        self.give_up_reboots().await;
        if self.retry_at.is_some_and(|at| at <= Instant::now()) {
            self.retry_at = None;
            self.retry_pause = self.retry_pause.map(|pause| (pause * 2).min(LAST_RETRY));
            for command_id in std::mem::take(&mut self.unsettled) {
                self.settle(command_id, 0).await;
            }
            if self.unsettled.is_empty() && self.retry_pause.take().is_some() {
                tracing::info!("no command waits for the journal any more");
            }
        }
    }

    async fn settle(&mut self, command_id: String, starts: u32) {
        let id = command_id.clone();
        let directory = step::run_directories(&self.node.state_dir).join(&command_id);
        let settled = self.journal.call(move |journal| {
            let now = now_millis();
            let endings = Endings {
                cancelled: |assignment: &Assignment| cancelled(assignment, now),
                lost: |job_id: &str, steps: &[StepRecord]| {
                    // First, so that nothing runs any more when the end is on record, should we die in between.
                    step::end_orphan(&directory);
                    let partial = |name: &str, position| step::partial_output(&directory, name, position);
                    reply::lost(job_id, steps, reply::LOST, partial, now)
                },
            };
            journal.settle(&id, now, ProcessRecord::is_alive, endings)
        });
        match settled.await {
            Ok(ended @ (Settled::Finished | Settled::Cancelled | Settled::Lost)) => {
                if ended == Settled::Lost {
                    tracing::warn!(
                        command_id,
                        "a command's worker ended unexpectedly; reported as failed"
                    );
                }
                self.has_ended = true;
                self.nudged.notify_one();
            }
            Ok(Settled::AwaitsReboot { is_arranged }) => self.await_reboot(command_id, is_arranged),
            Ok(Settled::Waiting) => self.wait_again(command_id, starts).await,
            Ok(Settled::Running(worker)) => self.adopt(command_id, worker, starts),
            Err(error) => {
                // Said once: it may stay so for days.
                let pause = *self.retry_pause.get_or_insert_with(|| {
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(command_id, error, "commands wait for the journal");
                    FIRST_RETRY
                });
                self.unsettled.insert(command_id);
                self.retry_at.get_or_insert_with(|| Instant::now() + pause);
            }
        }
    }

    fn adopt(&mut self, command_id: String, worker: ProcessRecord, starts: u32) {
        tracing::info!(
            command_id,
            pid = worker.key.pid,
            "a running command was taken over"
        );
        let running = Running {
            key: Some(worker.key),
            adopted: Some(worker),
            starts,
        };
        self.running.insert(command_id, running);
    }

    /// Cancels a command wherever it is.
    ///
    /// # Errors
    /// The journal cannot be written. A running command has been told all the same, but may not have heard it yet.
    pub(super) async fn cancel(&mut self, command_id: &str) -> Result<(), JournalError> {
        let has_process = self.running.contains_key(command_id);
        let id = command_id.to_owned();
        let outcome = self.journal.call(move |journal| {
            let now = now_millis();
            journal.cancel(&id, has_process, now, |assignment| cancelled(assignment, now))
        });
        let outcome = outcome.await;
        // With the disk full the mark cannot be set, and a cancellation matters most.
        let key = self.running.get(command_id).and_then(|running| running.key);
        let recorded = match &outcome {
            Ok(CancelOutcome::Marked(worker)) => worker.as_ref().map(|worker| worker.key),
            _ => None,
        };
        for key in [key, recorded.filter(|recorded| key != Some(*recorded))]
            .into_iter()
            .flatten()
        {
            signal(key, Signal::SIGUSR1);
        }
        if outcome? == CancelOutcome::Ended {
            self.waiting.retain(|waiting| waiting.command_id != command_id);
            self.nudged.notify_one();
        }
        Ok(())
    }

    /// The endpoint takes no more of a command's recording. It is told what becomes of that: where the node's owner
    /// wants a recording the command ends.
    pub(super) async fn recording_refused(&mut self, refused: RefusedRecording) {
        let RefusedRecording {
            recording,
            reason,
            noted: is_noted,
        } = refused;
        let command_id = recording.split('.').next().unwrap_or_default().to_owned();
        let id = command_id.clone();
        let noted = self
            .journal
            .call(move |journal| journal.note_unrecorded(&id, &reason))
            .await;
        match noted {
            Ok(worker) => {
                if let Some(worker) = worker
                    && self.node.transcript.is_required()
                {
                    signal(worker.key, Signal::SIGUSR1);
                }
                // nobody asks any more while the daemon ends
                let _asked = is_noted.send(());
            }
            // the courier says it again
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(
                    command_id,
                    error,
                    "a command is not told that it is not recorded any more"
                );
            }
        }
    }

    /// Whether commands have ended since the last call.
    pub(super) fn take_ended(&mut self) -> bool {
        std::mem::take(&mut self.has_ended)
    }

    /// Commands that wait only for the journal have no end yet, and are looked at again then.
    pub(super) fn next_due(&self) -> Option<Instant> {
        let has_slot = self.running.len() < self.node.limits.workers;
        let start = self
            .waiting
            .iter()
            .filter(|_| has_slot)
            .filter_map(|waiting| waiting.not_before)
            .min();
        let reboot = self.rebooting.values().map(Rebooting::given_up_at).min();
        [start.filter(|_| reboot.is_none()), reboot, self.retry_at]
            .into_iter()
            .flatten()
            .min()
    }

    /// Whether workers run that say nothing to this daemon.
    pub(super) fn look_interval(&self) -> Option<Duration> {
        self.running
            .values()
            .any(|running| running.adopted.is_some())
            .then_some(ADOPTED_LOOK)
    }
}

/// Waits for a worker. It says [`RECORDED`] when there is more of its recording; everything else means "look into the
/// journal".
async fn watch(
    command_id: String,
    mut worker: WorkerProcess,
    ended: mpsc::Sender<WorkerEnded>,
    (nudged, courier): (Arc<Notify>, Courier),
) {
    if let Some(mut stdout) = worker.take_stdout() {
        let mut line = [0; 64];
        while let Ok(count @ 1..) = stdout.read(&mut line).await {
            let said = line.get(..count).unwrap_or_default();
            if said.contains(&RECORDED) {
                courier.nudge();
            }
            if said.iter().any(|byte| ![RECORDED, b'\n'].contains(byte)) {
                nudged.notify_one();
            }
        }
    }
    // what it left of its recording
    courier.nudge();
    // Without an exit status there is still the journal to look into.
    drop(worker.wait().await);
    drop(ended.send(WorkerEnded { command_id }).await);
}

/// The end of a command that was cancelled while it waited.
fn cancelled(assignment: &Assignment, now: u64) -> Conclusion {
    let reason = "not run: the command was cancelled";
    never_run(assignment, ResultStatus::Cancelled, reason, now)
}

fn never_run(assignment: &Assignment, status: ResultStatus, reason: &str, now: u64) -> Conclusion {
    let steps = intake::step_names(&assignment.content);
    reply::never_run(&assignment.job_id, &steps, status, reason, now)
}

/// Signals a process if it still is the one that is meant.
fn signal(key: ProcessKey, signal: Signal) {
    if key.is_alive() {
        // Gone meanwhile: then there is nothing to tell.
        kill(Pid::from_raw(key.pid), signal).ok();
    }
}

#[cfg(test)]
mod tests;
