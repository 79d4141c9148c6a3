//! One session as the daemon sees it: a worker process from its start to its reported end.

use std::{
    process::ExitStatus,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use bytes::Bytes;
use moorline_protocol::{
    error_chain,
    message::{AgentMessage, AgentTaskComplete, MessageType, StartSessionContent},
    time::Now,
    types::SessionId,
};
use moorline_transport::unix_millis;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::{
    io::AsyncReadExt,
    process::ChildStdout,
    sync::mpsc,
    time::{Instant, timeout},
};
use uuid::Uuid;

use super::{
    intake::Running,
    leftovers,
    task::{EXIT_SERVED_ELSEWHERE, SessionOutcome, SessionTask},
};
use crate::{
    identity::Learned,
    recording::Courier,
    runtime::{NodeContext, ProcessKey, WorkerKind, WorkerProcess, until},
};

/// Topic and type of the message that reports an end.
const TOPIC: &str = "agent_task_complete";
/// As the stock agent: this often, this long apart.
const ATTEMPTS: i64 = 3;
const ATTEMPT_INTERVAL: Duration = Duration::from_secs(1);
/// What a worker may say. It says one line.
const MAX_STDOUT_BYTES: u64 = 64 * 1024;
/// A worker that was ordered to end and does not is killed after this long: more than it may need to deliver the
/// rest of its recording.
const KILL_AFTER: Duration = Duration::from_secs(360);

/// How a session begins.
pub(super) enum Start {
    Worker(Box<StartSessionContent>),
    /// It does not, and this is why.
    Refused(String),
    /// It has ended, and no worker serves it: what it may have left is all there is to do.
    Over,
}

/// What the control channel has to say to a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Notice {
    /// End.
    Close,
    /// The endpoint knows of the end.
    Acknowledged,
}

/// One session under supervision.
pub(super) struct Supervision {
    context: Arc<NodeContext>,
    outgoing: mpsc::Sender<AgentMessage>,
    courier: Courier,
    session_id: SessionId,
    completion: Uuid,
    notices: mpsc::Receiver<Notice>,
}

impl Supervision {
    pub(super) fn new(
        context: Arc<NodeContext>,
        (outgoing, courier): (mpsc::Sender<AgentMessage>, Courier),
        session_id: SessionId,
        completion: Uuid,
        notices: mpsc::Receiver<Notice>,
    ) -> Self {
        Self {
            context,
            outgoing,
            courier,
            session_id,
            completion,
            notices,
        }
    }

    /// From the start to the acknowledged end.
    pub(super) async fn run(mut self, start: Start, running: Option<Running>) {
        let end = match start {
            Start::Worker(content) => self.run_worker(*content).await,
            Start::Refused(reason) => WorkerEnd::Said(SessionOutcome::failed(&reason)),
            Start::Over => {
                self.courier.review();
                return end_leftovers(&self.context, &self.session_id).await;
            }
        };
        drop(running);
        match end {
            WorkerEnd::Said(outcome) => {
                // it may have given its recording up, or the disk did not take what was left of it
                self.courier.review();
                self.report(&outcome).await;
            }
            WorkerEnd::Silent(reason) => {
                tracing::warn!(session_id = %self.session_id, reason, "session ended without an outcome");
                // nobody is left to end its recording
                self.courier.review();
                let context = Arc::clone(&self.context);
                let session_id = self.session_id.clone();
                let outcome = SessionOutcome::failed(&reason);
                tokio::join!(self.report(&outcome), end_leftovers(&context, &session_id));
            }
            // it will tell of its end itself
            WorkerEnd::ServedElsewhere => {
                tracing::info!(session_id = %self.session_id, "session runs already, of an earlier daemon");
            }
        }
    }

    async fn run_worker(&mut self, content: StartSessionContent) -> WorkerEnd {
        let state_dir = &self.context.state_dir;
        // A worker works in another directory. Only an empty path has no absolute form.
        let state_dir = std::path::absolute(state_dir).unwrap_or_else(|_| state_dir.clone());
        let task = SessionTask {
            content,
            state_dir: state_dir.clone(),
            credentials: self.context.credentials.borrow().clone().map(Into::into),
            learned: Learned::of(&self.context.registration),
            seals: self.context.seals.load(Ordering::Relaxed),
            settings: self.context.config.session.clone(),
            policy_folder: self.context.config.policy.folder.clone(),
            forward: self.context.config.forward.clone(),
            transcript: self.context.config.transcript.clone(),
        };
        let task = serde_json::to_vec(&task).expect("a struct of texts and numbers is JSON");
        let mut worker = match WorkerProcess::spawn(WorkerKind::Session, &state_dir, &task).await {
            Ok(worker) => worker,
            Err(error) => {
                let reason = error_chain(&error);
                tracing::warn!(session_id = %self.session_id, reason, "session not started");
                return WorkerEnd::Said(SessionOutcome::failed(&reason));
            }
        };
        let key = worker.key();
        let stdout = worker.take_stdout();
        let (said, status) = tokio::join!(read_stdout(stdout), self.wait(&mut worker, key));
        end_of(&said, status)
    }

    async fn wait(
        &mut self,
        worker: &mut WorkerProcess,
        key: Option<ProcessKey>,
    ) -> std::io::Result<ExitStatus> {
        let mut kill_at = None;
        loop {
            tokio::select! {
                status = worker.wait() => return status,
                Some(notice) = self.notices.recv() => if notice == Notice::Close && kill_at.is_none() {
                    // SIGTERM is the machine's, and says another thing to the user
                    signal(key, Signal::SIGUSR1);
                    kill_at = Some(Instant::now() + KILL_AFTER);
                },
                () = until(kill_at) => {
                    tracing::warn!(session_id = %self.session_id, "session worker does not end, killed");
                    signal(key, Signal::SIGKILL);
                    kill_at = Some(Instant::now() + KILL_AFTER);
                }
            }
        }
    }

    /// Says how the session ended until the endpoint knows.
    async fn report(&mut self, outcome: &SessionOutcome) {
        for attempt in 1..=ATTEMPTS {
            let message = self.completion_message(outcome, attempt);
            if self.outgoing.try_send(message).is_err() {
                tracing::debug!(session_id = %self.session_id, "the control channel takes no message now");
            }
            let acknowledged = async {
                while let Some(notice) = self.notices.recv().await {
                    if notice == Notice::Acknowledged {
                        return;
                    }
                }
                std::future::pending::<()>().await;
            };
            if timeout(ATTEMPT_INTERVAL, acknowledged).await.is_ok() {
                return;
            }
        }
        tracing::info!(session_id = %self.session_id, "the end of the session was not acknowledged");
    }

    fn completion_message(&self, outcome: &SessionOutcome, attempt: i64) -> AgentMessage {
        let complete = AgentTaskComplete {
            schema_version: 1,
            task_id: self.session_id.to_string(),
            topic: TOPIC.to_owned(),
            final_task_status: outcome.status.as_str().to_owned(),
            is_routing_failure: false,
            aws_account_id: String::new(),
            instance_id: self.context.instance_id().to_string(),
            output: outcome.output.clone(),
            s3_bucket: String::new(),
            s3_url_suffix: String::new(),
            cwl_group: String::new(),
            cwl_stream: String::new(),
            retry_number: attempt,
            moorline_exit_code: outcome
                .exit_code
                .filter(|_| self.context.registration.is_moorline),
        };
        let payload = serde_json::to_vec(&complete).expect("a struct of texts and numbers is JSON");
        let now = Now {
            monotonic: Duration::ZERO,
            unix_millis: unix_millis(),
        };
        AgentMessage::control(
            MessageType::AgentTaskComplete,
            self.completion,
            now,
            0,
            Bytes::from(payload),
        )
    }
}

/// Unless the node's owner lets sessions leave what they like.
async fn end_leftovers(context: &NodeContext, session_id: &SessionId) {
    if !context.config.session.linger {
        leftovers::end(session_id).await;
    }
}

/// The process has not been waited for while this is called, so its number is still its own.
fn signal(key: Option<ProcessKey>, signal: Signal) {
    let Some(key) = key else { return };
    if let Err(error) = kill(Pid::from_raw(key.pid), signal) {
        tracing::debug!(%error, %signal, "session worker not signalled");
    }
}

async fn read_stdout(stdout: Option<ChildStdout>) -> Vec<u8> {
    let mut said = Vec::new();
    if let Some(stdout) = stdout
        && let Err(error) = stdout.take(MAX_STDOUT_BYTES).read_to_end(&mut said).await
    {
        tracing::debug!(%error, "session worker not heard");
    }
    said
}

/// How a worker ended.
#[derive(Debug, PartialEq, Eq)]
enum WorkerEnd {
    Said(SessionOutcome),
    /// It said nothing; what is known of it.
    Silent(String),
    ServedElsewhere,
}

fn end_of(said: &[u8], status: std::io::Result<ExitStatus>) -> WorkerEnd {
    if let Some(outcome) = SessionOutcome::from_last_line(said) {
        return WorkerEnd::Said(outcome);
    }
    match status {
        Ok(status) if status.code() == Some(i32::from(EXIT_SERVED_ELSEWHERE)) => WorkerEnd::ServedElsewhere,
        Ok(status) => WorkerEnd::Silent(silent_end(status)),
        Err(error) => WorkerEnd::Silent(format!(
            "the end of the session's worker process is not known: {error}"
        )),
    }
}

fn silent_end(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt;
    match (status.signal(), status.code()) {
        (Some(signal), _) => format!("the session's worker process was ended by signal {signal}"),
        (None, Some(code)) => {
            format!("the session's worker process ended with exit code {code} and said nothing")
        }
        (None, None) => "the session's worker process ended and said nothing".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    #[test]
    fn a_worker_that_said_nothing_is_described_by_its_end() {
        assert!(silent_end(ExitStatus::from_raw(9)).contains("signal 9"));
        assert!(silent_end(ExitStatus::from_raw(0x0100)).contains("exit code 1"));
    }

    #[test]
    fn a_session_that_another_worker_serves_has_not_ended() {
        let exited = |code: u8| Ok(ExitStatus::from_raw(i32::from(code) << 8));
        assert_eq!(
            end_of(b"", exited(EXIT_SERVED_ELSEWHERE)),
            WorkerEnd::ServedElsewhere
        );
        assert!(matches!(end_of(b"", exited(1)), WorkerEnd::Silent(_)));
        let outcome = SessionOutcome::success(Some(75));
        let said = serde_json::to_vec(&outcome).unwrap();
        assert_eq!(end_of(&said, exited(0)), WorkerEnd::Said(outcome));
    }
}
