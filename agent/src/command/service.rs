//! The daemon's task for commands: takes jobs in, keeps workers going, gets replies out.

use std::{fs::ReadDir, sync::Arc, time::Duration};

use moorline_protocol::{
    error_chain,
    message::{AgentJobReplyAck, AgentMessage, JobAckCode, MessageType, PolicyQuestion},
};
use tokio::{
    sync::{Notify, OwnedMutexGuard, mpsc, watch},
    time::Instant,
};
use uuid::Uuid;

use crate::{recording::RefusedRecording, runtime::until};

use super::{
    drop_folder::{self, DropFolder, Dropped},
    executor::{Executor, WorkerEnded},
    intake::{self, Intake},
    journal::{Journal, JournalError, JournalThread, LocalEnd},
    node::Node,
    now_millis,
    outbox::Outbox,
    owner_policy, reply,
    retention::Retention,
};

/// Ends of workers that wait to be looked at.
const ENDED: usize = 64;
/// When the journal could not be opened, it is tried again at the next job, and after this time.
const RECOVERY_INTERVAL: Duration = Duration::from_secs(30);

/// Between two looks into the owner's folder.
const DROP_INTERVAL: Duration = Duration::from_secs(2);

/// Results that one look into it writes.
const MAX_RESULTS: usize = 32;

/// What comes to the task from others in the daemon.
#[derive(Debug)]
pub(super) struct Mailbox {
    pub(super) messages: mpsc::Receiver<AgentMessage>,
    /// Recordings of commands that the endpoint takes no more of.
    pub(super) refused: mpsc::Receiver<RefusedRecording>,
}

/// The task's state.
#[derive(Debug)]
pub(super) struct Service {
    node: Arc<Node>,
    journal: JournalThread,
    executor: Executor,
    outbox: Outbox,
    mailbox: OwnedMutexGuard<Mailbox>,
    line: watch::Receiver<bool>,
    nudged: Arc<Notify>,
    ended: mpsc::Receiver<WorkerEnded>,
    /// When to try again to read what the last daemon left; `None`: it has been read.
    recovery_at: Option<Instant>,
    retention: Retention,
    /// When to look into the owner's folder; `None`: there is none.
    drop_at: Option<Instant>,
    /// What was wrong with it at the last look: it is said once.
    drop_error: Option<String>,
    /// What the last look has not read of it.
    drop_rest: Option<ReadDir>,
    /// Number of the last end whose result was looked after; 0 begins anew with those that could not be written.
    told_until: i64,
}

/// What made the task wake up.
enum Event {
    /// The control channel was lost, or stands again.
    Line,
    Ended(WorkerEnded),
    Message(AgentMessage),
    Refused(RefusedRecording),
    /// Time, or a worker's word: look.
    Look,
    Over,
}

impl Service {
    pub(super) fn new(
        node: Arc<Node>,
        outgoing: mpsc::Sender<AgentMessage>,
        mailbox: OwnedMutexGuard<Mailbox>,
        line: watch::Receiver<bool>,
    ) -> Self {
        let journal = JournalThread::start(node.state_dir.clone());
        let nudged = Arc::new(Notify::new());
        let (sender, ended) = mpsc::channel(ENDED);
        let executor = Executor::new(Arc::clone(&node), journal.clone(), sender, Arc::clone(&nudged));
        let outbox = Outbox::new(journal.clone(), outgoing, line.clone());
        let retention = Retention::start(Arc::clone(&node), journal.clone());
        let now = Instant::now();
        let drop_at = node.drop_folder.is_some().then_some(now);
        Self {
            node,
            journal,
            executor,
            outbox,
            mailbox,
            line,
            nudged,
            ended,
            recovery_at: Some(now),
            retention,
            drop_at,
            drop_error: None,
            drop_rest: None,
            told_until: 0,
        }
    }

    /// Works until the daemon drops its handles.
    pub(super) async fn run(mut self) {
        if self.recover().await {
            self.look().await;
        }
        loop {
            let is_look = match self.next_event().await {
                Event::Line => {
                    let stands = *self.line.borrow_and_update();
                    if stands {
                        self.outbox.connected();
                    }
                    stands
                }
                Event::Ended(ended) => {
                    self.executor.worker_ended(ended).await;
                    true
                }
                Event::Message(message) => {
                    self.take(message).await;
                    false
                }
                Event::Refused(refused) => {
                    self.executor.recording_refused(refused).await;
                    false
                }
                Event::Look => true,
                Event::Over => return,
            };
            if self.recovery_at.is_some_and(|at| at <= Instant::now()) {
                self.recover().await;
            }
            if is_look {
                self.look().await;
            }
            if self.drop_at.is_some_and(|at| at <= Instant::now()) {
                self.drop_at = Some(Instant::now() + DROP_INTERVAL);
                self.take_dropped().await;
            }
            self.executor.start_waiting().await;
            if self.executor.take_ended() {
                self.drop_at = self.drop_at.map(|_| Instant::now());
                self.retention.command_ended();
            }
        }
    }

    async fn next_event(&mut self) -> Event {
        let look = self
            .executor
            .look_interval()
            .map(|interval| Instant::now() + interval);
        let times = [
            self.outbox.next_due(),
            self.executor.next_due(),
            self.recovery_at,
            self.drop_at,
            look,
        ];
        let due = times.into_iter().flatten().min();
        let Mailbox { messages, refused } = &mut *self.mailbox;
        tokio::select! {
            message = messages.recv() => message.map_or(Event::Over, Event::Message),
            Some(refused) = refused.recv() => Event::Refused(refused),
            // The sender is kept by the executor, so there is always a value.
            Some(ended) = self.ended.recv() => Event::Ended(ended),
            () = self.nudged.notified() => Event::Look,
            Ok(()) = self.line.changed() => Event::Line,
            () = until(due) => Event::Look,
        }
    }

    /// Looks into the journal, whatever the reason: nothing is ever done on a worker's word.
    async fn look(&mut self) {
        self.executor.look().await;
        if self.recovery_at.is_some() {
            return;
        }
        let sent = match self.outbox.send_new().await {
            Ok(()) => self.outbox.send_due().await,
            error => error,
        };
        if let Err(error) = sent {
            warn(&error, "failed to read replies");
            self.outbox.pause();
        }
    }

    /// Reads what the last daemon left. False: the journal cannot be used now.
    async fn recover(&mut self) -> bool {
        if self.recovery_at.is_none() {
            return true;
        }
        match self.journal.call(|journal| journal.unfinished()).await {
            Ok(unfinished) => {
                self.recovery_at = None;
                self.executor.recover(unfinished).await;
                self.executor.start_waiting().await;
                // Replies of the last daemon's time.
                self.nudged.notify_one();
                true
            }
            Err(error) => {
                warn(
                    &error,
                    "no command is accepted until the journal can be used; is the disk full?",
                );
                self.recovery_at = Some(Instant::now() + RECOVERY_INTERVAL);
                false
            }
        }
    }

    async fn take(&mut self, message: AgentMessage) {
        match message.message_type {
            MessageType::AgentJob => self.take_job(message).await,
            MessageType::AgentJobReplyAck => {
                let read = serde_json::from_slice::<AgentJobReplyAck>(&message.payload);
                let Some(message_id) = read
                    .ok()
                    .and_then(|ack| Uuid::parse_str(&ack.acknowledged_message_id).ok())
                else {
                    tracing::debug!("an acknowledgement that names no message was ignored");
                    return;
                };
                if let Err(error) = self.outbox.acknowledge(message_id).await {
                    warn(&error, "failed to note an acknowledgement");
                }
                // There may be room in the window now.
                self.nudged.notify_one();
            }
            MessageType::MoorlinePolicyQuestion => self.answer_question(message).await,
            other => tracing::debug!(?other, "not a message for commands"),
        }
    }

    /// Says what the owner's policy would make of a command. Whoever does not get an answer knows no more than before.
    async fn answer_question(&self, message: AgentMessage) {
        let node = Arc::clone(&self.node);
        let answer = self.journal.compute(move || {
            let question: PolicyQuestion = serde_json::from_slice(&message.payload).ok()?;
            serde_json::to_string(&owner_policy::answer(&question, &node)).ok()
        });
        match answer.await {
            Ok(Some(answer)) => self.outbox.send_once(MessageType::MoorlinePolicyAnswer, answer),
            Ok(None) => tracing::debug!("a question about the policy cannot be read"),
            Err(error) => warn(&error, "a question about the policy is not answered"),
        }
    }

    async fn take_job(&mut self, message: AgentMessage) {
        let payload = message.payload.clone();
        let Ok(read) = self.journal.compute(move || intake::read(&payload)).await else {
            self.acknowledge_job("", &message, JobAckCode::ProcessorBufferFull);
            return;
        };
        match read {
            Intake::Send {
                job_id,
                command_id,
                content,
            } => {
                let code = self.accept(&command_id, &job_id, content).await;
                self.acknowledge_job(&job_id, &message, code);
                if code == JobAckCode::Successful {
                    let reply = reply::in_progress(&job_id, false, now_millis());
                    self.outbox.send_once(MessageType::AgentJobReply, reply);
                    self.executor.enqueue(command_id);
                }
            }
            Intake::Cancel { job_id, command_id } => {
                let code = self.cancel(&command_id).await;
                self.acknowledge_job(&job_id, &message, code);
                if code == JobAckCode::Successful {
                    let reply = reply::in_progress(&job_id, true, now_millis());
                    self.outbox.send_once(MessageType::AgentJobReply, reply);
                }
            }
            Intake::Unusable { job_id, code, reason } => {
                tracing::warn!(job_id, reason, "a job cannot be taken");
                self.acknowledge_job(&job_id, &message, code);
                if !job_id.is_empty() {
                    let reply = reply::unreadable(&job_id, &reason, now_millis());
                    self.outbox.send_once(MessageType::AgentJobReply, reply);
                }
            }
        }
    }

    /// Takes documents from the owner's folder, and writes the results of those that have ended. What is wrong with one
    /// is no reason to leave the others.
    async fn take_dropped(&mut self) {
        let told = self.tell_dropped().await;
        let accepted = self.accept_dropped().await;
        let done = told.and(accepted);
        let error = done.err().map(|error| error_chain(&*error));
        if let Some(error) = error
            .as_ref()
            .filter(|error| self.drop_error.as_ref() != Some(*error))
        {
            tracing::warn!(error, "local.drop_folder is not served");
        }
        self.drop_error = error;
    }

    async fn accept_dropped(&mut self) -> anyhow::Result<()> {
        let Some(folder) = self.node.drop_folder.clone() else {
            return Ok(());
        };
        let room = self.executor.room();
        if room == 0 || !self.recover().await {
            return Ok(());
        }
        let (look, mut rest) = (folder.clone(), self.drop_rest.take());
        let looked = self.journal.compute(move || {
            let found = look.look(&mut rest, room);
            (found, rest)
        });
        let (found, rest) = looked.await?;
        self.drop_rest = rest;
        let mut trouble = None;
        for dropped in found? {
            let served = self.accept_one(folder.clone(), dropped).await;
            trouble = trouble.or_else(|| served.err());
        }
        trouble.map_or(Ok(()), Err)
    }

    async fn accept_one(&mut self, folder: DropFolder, dropped: Dropped) -> anyhow::Result<()> {
        let take = folder.clone();
        let mut taken = self.journal.compute(move || take.take(&dropped)).await??;
        let content = match std::mem::replace(&mut taken.content, Ok(String::new())) {
            Ok(content) => content,
            Err(reason) => {
                tracing::warn!(file = %taken.path.display(), reason, "a document of local.drop_folder is refused");
                let refused = self.journal.compute(move || folder.refuse(&taken, &reason));
                return Ok(refused.await??);
            }
        };
        let (id, job_id) = (taken.command_id.clone(), taken.job_id());
        let accept = move |journal: &mut Journal| journal.accept(&id, &job_id, &content, now_millis());
        // False: a daemon that was killed then has accepted it already.
        if self.journal.call(accept).await? {
            tracing::info!(
                command_id = taken.command_id,
                "a document of local.drop_folder was taken"
            );
            self.executor.enqueue(taken.command_id.clone());
        }
        Ok(self.journal.compute(move || folder.accepted(&taken)).await??)
    }

    /// Writes results, a few at a time: each waits for the disk, and others wait behind it.
    async fn tell_dropped(&mut self) -> anyhow::Result<()> {
        let Some(folder) = self.node.drop_folder.clone() else {
            return Ok(());
        };
        let mut trouble = None;
        for _ in 0..MAX_RESULTS {
            let after = self.told_until;
            let Some(end) = self.journal.call(move |journal| journal.local_end(after)).await? else {
                self.told_until = 0;
                return trouble.map_or(Ok(()), Err);
            };
            self.told_until = end.reply_id;
            if let Err(error) = self.tell_one(folder.clone(), end).await {
                trouble = trouble.or(Some(error));
            }
        }
        match trouble {
            None => self.drop_at = Some(Instant::now()),
            Some(error) => return Err(error),
        }
        Ok(())
    }

    async fn tell_one(&self, folder: DropFolder, end: LocalEnd) -> anyhow::Result<()> {
        let id = end.command_id.clone();
        let write = move || match drop_folder::name_of(&end.job_id) {
            Some(name) => folder.write_result(name, &drop_folder::ended_text(&end.command_id, &end.replies)),
            None => Ok(()),
        };
        self.journal.compute(write).await??;
        Ok(self
            .journal
            .call(move |journal| journal.result_written(&id))
            .await?)
    }

    async fn accept(&mut self, command_id: &str, job_id: &str, content: String) -> JobAckCode {
        if !self.recover().await {
            return JobAckCode::ProcessorBufferFull;
        }
        let has_room = self.executor.room() > 0;
        let (id, job_id) = (command_id.to_owned(), job_id.to_owned());
        let accepted = self.journal.call(move |journal| {
            if has_room {
                return journal.accept(&id, &job_id, &content, now_millis()).map(Some);
            }
            Ok(journal.is_known(&id)?.then_some(false))
        });
        match accepted.await {
            Ok(Some(true)) => JobAckCode::Successful,
            Ok(Some(false)) => JobAckCode::DuplicateCommand,
            Ok(None) => JobAckCode::ProcessorBufferFull,
            Err(error @ JournalError::Full { .. }) => {
                warn(&error, "a command is refused for now");
                JobAckCode::ProcessorBufferFull
            }
            Err(error) => {
                warn(&error, "a command is refused for now; is the disk full?");
                JobAckCode::ProcessorBufferFull
            }
        }
    }

    async fn cancel(&mut self, command_id: &str) -> JobAckCode {
        if !self.recover().await {
            return JobAckCode::ProcessorBufferFull;
        }
        match self.executor.cancel(command_id).await {
            Ok(()) => JobAckCode::Successful,
            Err(error) => {
                warn(&error, "a cancellation is not on record yet; is the disk full?");
                JobAckCode::ProcessorBufferFull
            }
        }
    }

    fn acknowledge_job(&self, job_id: &str, job: &AgentMessage, code: JobAckCode) {
        let ack = reply::job_ack(job_id, job.message_id, job.created_date, code);
        self.outbox.send_once(MessageType::AgentJobAck, ack);
    }
}

fn warn(error: &JournalError, what: &str) {
    tracing::warn!(error = error as &dyn std::error::Error, "{what}");
}

#[cfg(test)]
mod tests;
