//! The daemon's side, with a real journal. No worker process is started here (`workers: 0`): the test plays the
//! worker, or there is none.

use std::path::Path;

use bytes::Bytes;
use moorline_protocol::{
    message::{
        AgentJobAck, AgentJobReply, ReplyContent, ResultStatus, TOPIC_CANCEL_COMMAND, TOPIC_SEND_COMMAND,
    },
    time::Now,
};
use serde_json::json;
use tempfile::TempDir;
use tokio::{task::JoinHandle, time::timeout};

use crate::{
    command::journal::{Beginning, Conclusion, Journal, NewReply, Opener, ProcessRecord},
    config::CommandConfig,
    runtime::Platform,
};

use super::*;

const PATIENCE: Duration = Duration::from_secs(20);

struct Daemon {
    dir: TempDir,
    mailbox: mpsc::Sender<AgentMessage>,
    outgoing: mpsc::Receiver<AgentMessage>,
    line: watch::Sender<bool>,
    task: JoinHandle<()>,
}

#[derive(Debug, PartialEq)]
enum Said {
    Ack(String),
    Reply {
        job_id: String,
        status: ResultStatus,
        message_id: Uuid,
    },
}

impl Daemon {
    fn start(queue: usize) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), queue)
    }

    fn start_in(dir: TempDir, queue: usize) -> Self {
        Self::start_with(dir, 0, queue)
    }

    fn start_with(dir: TempDir, workers: usize, queue: usize) -> Self {
        Self::start_serving(dir, workers, queue, None)
    }

    fn start_serving(dir: TempDir, workers: usize, queue: usize, drop_folder: Option<DropFolder>) -> Self {
        let (mailbox, received) = mpsc::channel(16);
        let (sender, outgoing) = mpsc::channel(64);
        let (line, standing) = watch::channel(true);
        let node = Node {
            limits: CommandConfig {
                workers,
                queue,
                ..CommandConfig::default()
            },
            policy_folder: dir.path().join("policy.d"),
            state_dir: dir.path().to_owned(),
            instance_id: "mi-0123456789abcdef0".to_owned(),
            region: "eu-test-1".to_owned(),
            platform: Platform {
                name: String::new(),
                version: String::new(),
            },
            is_moorline: true,
            groups: None,
            drop_folder,
            transcript: crate::config::TranscriptConfig::default(),
            seals: Arc::default(),
            courier: crate::recording::Courier::default(),
        };
        let (_, refused) = mpsc::channel(1);
        let received = Mailbox {
            messages: received,
            refused,
        };
        let received = Arc::new(tokio::sync::Mutex::new(received))
            .try_lock_owned()
            .unwrap();
        let service = Service::new(Arc::new(node), sender, received, standing);
        let task = tokio::spawn(service.run());
        Self {
            dir,
            mailbox,
            outgoing,
            line,
            task,
        }
    }

    /// As kill -9 does: no farewell.
    async fn kill(self) -> TempDir {
        self.task.abort();
        drop(self.task.await);
        self.dir
    }

    async fn send(&self, message_type: MessageType, payload: &serde_json::Value) -> Uuid {
        let message_id = Uuid::new_v4();
        let now = Now {
            monotonic: Duration::ZERO,
            unix_millis: now_millis(),
        };
        let payload = Bytes::from(payload.to_string());
        let message = AgentMessage::control(message_type, message_id, now, 0, payload);
        self.mailbox.send(message).await.unwrap();
        message_id
    }

    async fn send_command(&self, job_id: &str) -> Uuid {
        let document = json!({"schemaVersion": "2.2", "mainSteps": [
            {"action": "aws:runShellScript", "name": "s", "inputs": {"runCommand": ["true"]}}]});
        let content = json!({"CommandId": job_id, "DocumentName": "d", "DocumentContent": document});
        self.send_job(job_id, TOPIC_SEND_COMMAND, &content.to_string())
            .await
    }

    async fn send_job(&self, job_id: &str, topic: &str, content: &str) -> Uuid {
        let job = json!({"Content": content, "JobId": job_id, "Topic": topic, "SchemaVersion": 1});
        self.send(MessageType::AgentJob, &job).await
    }

    async fn acknowledge(&self, message_id: Uuid) {
        let ack = json!({"jobId": "any", "acknowledgedMessageId": message_id.to_string()});
        self.send(MessageType::AgentJobReplyAck, &ack).await;
    }

    async fn next(&mut self) -> Said {
        let message = timeout(PATIENCE, self.outgoing.recv()).await.unwrap().unwrap();
        match message.message_type {
            MessageType::AgentJobAck => {
                let ack: AgentJobAck = serde_json::from_slice(&message.payload).unwrap();
                Said::Ack(ack.status_code)
            }
            MessageType::AgentJobReply => {
                let reply: AgentJobReply = serde_json::from_slice(&message.payload).unwrap();
                let content: ReplyContent = serde_json::from_str(&reply.content).unwrap();
                let message_id = message.message_id;
                Said::Reply {
                    job_id: reply.job_id,
                    status: content.document_status,
                    message_id,
                }
            }
            other => panic!("{other:?}"),
        }
    }

    async fn expect_ack(&mut self, code: &str) {
        assert_eq!(self.next().await, Said::Ack(code.to_owned()));
    }

    async fn expect_reply(&mut self, job_id: &str, status: ResultStatus) -> Uuid {
        match self.next().await {
            Said::Reply {
                job_id: said,
                status: said_status,
                message_id,
            } => {
                assert_eq!((said.as_str(), said_status), (job_id, status));
                message_id
            }
            other => panic!("{other:?}"),
        }
    }
}

fn journal(dir: &Path) -> Journal {
    Journal::open(dir, Opener::Worker).unwrap()
}

#[tokio::test]
async fn a_job_is_on_the_disk_when_its_acknowledgement_leaves() {
    let mut daemon = Daemon::start(5);
    daemon.send_command("c1").await;
    daemon.expect_ack("200").await;
    assert!(journal(daemon.dir.path()).is_known("c1").unwrap());
    daemon.expect_reply("c1", ResultStatus::InProgress).await;
    daemon.send_command("c1").await;
    daemon.expect_ack("51405").await;
    // The same after a restart.
    let mut daemon = Daemon::start_in(daemon.kill().await, 5);
    daemon.send_command("c1").await;
    daemon.expect_ack("51405").await;
}

#[tokio::test]
async fn a_full_queue_refuses_new_commands_and_still_knows_the_old_ones() {
    let mut daemon = Daemon::start(1);
    daemon.send_command("c1").await;
    daemon.expect_ack("200").await;
    daemon.expect_reply("c1", ResultStatus::InProgress).await;
    daemon.send_command("c2").await;
    daemon.expect_ack("51402").await;
    daemon.send_command("c1").await;
    daemon.expect_ack("51405").await;
}

#[tokio::test]
async fn a_waiting_command_is_cancelled_without_a_start_and_a_repeated_cancel_is_harmless() {
    let mut daemon = Daemon::start(5);
    daemon.send_command("c1").await;
    daemon.expect_ack("200").await;
    daemon.expect_reply("c1", ResultStatus::InProgress).await;
    for round in 0..2 {
        let job_id = format!("cancel{round}");
        daemon
            .send_job(&job_id, TOPIC_CANCEL_COMMAND, r#"{"CancelMessageId":"c1"}"#)
            .await;
        daemon.expect_ack("200").await;
        daemon.expect_reply(&job_id, ResultStatus::InProgress).await;
        if round == 0 {
            let step = daemon.expect_reply("c1", ResultStatus::InProgress).await;
            let end = daemon.expect_reply("c1", ResultStatus::Cancelled).await;
            daemon.acknowledge(step).await;
            daemon.acknowledge(end).await;
        }
    }
    daemon
        .send_job(
            "cancel9",
            TOPIC_CANCEL_COMMAND,
            r#"{"CancelMessageId":"unheard-of"}"#,
        )
        .await;
    daemon.expect_ack("200").await;
    assert_eq!(journal(daemon.dir.path()).assignment("c1").unwrap(), None);
}

#[tokio::test]
async fn what_cannot_be_read_is_refused_with_a_reply_that_says_why() {
    let mut daemon = Daemon::start(5);
    daemon.send_job("c1", TOPIC_SEND_COMMAND, "{}").await;
    daemon.expect_ack("51408").await;
    daemon.expect_reply("c1", ResultStatus::Failed).await;
    daemon.send(MessageType::AgentJob, &json!("nonsense")).await;
    daemon.expect_ack("51408").await;
    daemon
        .send(MessageType::AgentJobReplyAck, &json!("nonsense"))
        .await;
    daemon.send_command("c2").await;
    daemon.expect_ack("200").await;
}

/// Plays a worker that runs a command to its end.
fn finish(dir: &Path, command_id: &str, worker: &ProcessRecord) {
    let mut journal = journal(dir);
    let steps = [("aws:runShellScript".to_owned(), "s".to_owned())];
    let begun = journal.begin(command_id, worker, &steps).unwrap();
    assert!(
        matches!(
            begun,
            Beginning::Begun {
                is_cancelled: false,
                ..
            }
        ),
        "{begun:?}"
    );
    let end = reply::end(
        command_id,
        ResultStatus::Success,
        None,
        reply::Counts::new(),
        "",
        now_millis(),
    );
    let conclusion = Conclusion {
        status: ResultStatus::Success,
        replies: vec![end],
    };
    assert!(
        journal
            .record(command_id, worker, None, Some(&conclusion), now_millis())
            .unwrap()
    );
}

#[tokio::test]
async fn a_result_is_sent_with_the_same_id_until_it_is_acknowledged() {
    let mut daemon = Daemon::start(5);
    daemon.send_command("c1").await;
    daemon.expect_ack("200").await;
    daemon.expect_reply("c1", ResultStatus::InProgress).await;
    let dir = daemon.kill().await;
    finish(dir.path(), "c1", &ProcessRecord::of_this_process().unwrap());

    let mut daemon = Daemon::start_in(dir, 5);
    let first = daemon.expect_reply("c1", ResultStatus::Success).await;
    daemon.line.send_replace(true);
    let second = daemon.expect_reply("c1", ResultStatus::Success).await;
    let third = daemon.expect_reply("c1", ResultStatus::Success).await;
    assert_eq!((first, first), (second, third));
    daemon.acknowledge(first).await;
    daemon
        .send_job("cancel", TOPIC_CANCEL_COMMAND, r#"{"CancelMessageId":"c1"}"#)
        .await;
    daemon.expect_ack("200").await;
    daemon.expect_reply("cancel", ResultStatus::InProgress).await;

    let mut daemon = Daemon::start_in(daemon.kill().await, 5);
    daemon.send_command("c2").await;
    daemon.expect_ack("200").await;
}

#[tokio::test]
async fn a_worker_that_outlived_the_daemon_is_taken_over_and_its_death_is_noticed() {
    let mut daemon = Daemon::start(5);
    for command in ["lives", "dies"] {
        daemon.send_command(command).await;
        daemon.expect_ack("200").await;
        daemon.expect_reply(command, ResultStatus::InProgress).await;
    }
    let dir = daemon.kill().await;
    // A living process stands for each worker.
    let mut processes: Vec<std::process::Child> = (0..2)
        .map(|_| std::process::Command::new("sleep").arg("300").spawn().unwrap())
        .collect();
    let records: Vec<ProcessRecord> = processes
        .iter()
        .map(|process| ProcessRecord::of(process.id()).unwrap())
        .collect();
    let steps = [("aws:runShellScript".to_owned(), "s".to_owned())];
    for (command, record) in ["lives", "dies"].iter().zip(&records) {
        journal(dir.path()).begin(command, record, &steps).unwrap();
    }

    let mut daemon = Daemon::start_in(dir, 5);
    // A command delivered meanwhile shows that the daemon has recovered, and has said nothing about the two.
    daemon.send_command("c3").await;
    daemon.expect_ack("200").await;
    daemon.expect_reply("c3", ResultStatus::InProgress).await;
    let [lives, dies] = processes.as_mut_slice() else {
        panic!("two were started")
    };
    dies.kill().unwrap();
    dies.wait().unwrap();
    let step = daemon.expect_reply("dies", ResultStatus::InProgress).await;
    let end = daemon.expect_reply("dies", ResultStatus::Failed).await;
    daemon.acknowledge(step).await;
    daemon.acknowledge(end).await;

    let payload = r#"{"schemaVersion":1,"jobId":"lives","content":"x","topic":"t"}"#;
    let told = NewReply {
        message_id: Uuid::new_v4(),
        is_final: true,
        payload: payload.to_owned(),
    };
    let conclusion = Conclusion {
        status: ResultStatus::Success,
        replies: vec![told.clone()],
    };
    let record = records.first().unwrap();
    assert!(
        journal(daemon.dir.path())
            .record("lives", record, None, Some(&conclusion), now_millis())
            .unwrap()
    );
    let message = timeout(PATIENCE, daemon.outgoing.recv()).await.unwrap().unwrap();
    assert_eq!(message.message_id, told.message_id);
    lives.kill().unwrap();
    lives.wait().unwrap();
}

#[tokio::test]
async fn the_end_of_a_command_makes_room_on_the_disk() {
    let mut daemon = Daemon::start(5);
    daemon.send_command("c1").await;
    daemon.expect_ack("200").await;
    let dir = daemon.kill().await;
    let old = dir.path().join("commands/old/0-s");
    std::fs::create_dir_all(&old).unwrap();
    // More than all commands together may keep, though not on this disk.
    let output = std::fs::File::create(old.join("stdout")).unwrap();
    output.set_len(2 * 1024 * 1024 * 1024).unwrap();
    let mut process = std::process::Command::new("sleep").arg("300").spawn().unwrap();
    let record = ProcessRecord::of(process.id()).unwrap();
    journal(dir.path()).begin("c1", &record, &[]).unwrap();

    let mut daemon = Daemon::start_in(dir, 5);
    daemon.send_command("c2").await;
    daemon.expect_ack("200").await;
    assert!(old.exists(), "nothing has ended yet");
    process.kill().unwrap();
    process.wait().unwrap();
    wait_until(|| !old.exists()).await;
}

async fn wait_until(is_so: impl Fn() -> bool) {
    let waiting = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, waiting).await.unwrap();
}

/// Runs a command to its end, this long ago, as far as the journal knows.
fn ran(dir: &Path, command_id: &str, job_id: &str, ago: Duration) -> NewReply {
    let then = now_millis() - u64::try_from(ago.as_millis()).unwrap();
    let mut journal = Journal::open(dir, Opener::Daemon).unwrap();
    let worker = ProcessRecord::of_this_process().unwrap();
    assert!(journal.accept(command_id, job_id, "{}", then).unwrap());
    journal.begin(command_id, &worker, &[]).unwrap();
    let reply = reply::end(
        job_id,
        ResultStatus::Success,
        None,
        reply::Counts::new(),
        "",
        then,
    );
    let end = Conclusion {
        status: ResultStatus::Success,
        replies: vec![reply.clone()],
    };
    assert!(
        journal
            .record(command_id, &worker, None, Some(&end), then)
            .unwrap()
    );
    reply
}

#[tokio::test]
async fn a_command_that_comes_again_31_minutes_after_its_end_is_known() {
    let dir = tempfile::tempdir().unwrap();
    let end = ran(dir.path(), "c1", "c1", Duration::from_secs(31 * 60));
    let mut journal = Journal::open(dir.path(), Opener::Daemon).unwrap();
    journal.acknowledge(end.message_id).unwrap();
    journal.forget(now_millis()).unwrap();
    drop(journal);
    let mut daemon = Daemon::start_in(dir, 5);
    daemon.send_command("c1").await;
    daemon.expect_ack("51405").await;
    daemon.send_command("c2").await;
    daemon.expect_ack("200").await;
}

#[tokio::test]
async fn a_result_that_cannot_be_written_keeps_neither_others_nor_documents_back() {
    let dir = tempfile::tempdir().unwrap();
    let dropped = dir.path().join("drop");
    // in the way of the first result
    std::fs::create_dir_all(dropped.join("a.result.json/x")).unwrap();
    for name in ["a", "b"] {
        ran(
            dir.path(),
            &format!("drop+{name}"),
            &format!("drop+{name}"),
            Duration::ZERO,
        );
    }
    std::fs::write(dropped.join("c.json"), "no document").unwrap();
    let daemon = Daemon::start_serving(dir, 0, 5, DropFolder::new(&dropped));
    wait_until(|| dropped.join("b.result.json").exists() && dropped.join("c.json.refused").exists()).await;
    std::fs::remove_dir_all(dropped.join("a.result.json")).unwrap();
    wait_until(|| dropped.join("a.result.json").is_file()).await;
    daemon.kill().await;
}

#[tokio::test]
async fn without_a_journal_jobs_are_put_off_and_taken_once_it_works() {
    let dir = tempfile::tempdir().unwrap();
    // A directory stands where the journal belongs.
    let obstacle = dir.path().join("journal.db");
    std::fs::create_dir(&obstacle).unwrap();
    let mut daemon = Daemon::start_in(dir, 5);
    daemon.send_command("c1").await;
    daemon.expect_ack("51402").await;
    daemon
        .send_job("cancel", TOPIC_CANCEL_COMMAND, r#"{"CancelMessageId":"c1"}"#)
        .await;
    daemon.expect_ack("51402").await;
    std::fs::remove_dir(&obstacle).unwrap();
    daemon.send_command("c1").await;
    daemon.expect_ack("200").await;
}

#[tokio::test]
async fn a_command_that_the_owner_refuses_ends_without_a_worker() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("policy.d");
    crate::policy::write_file(&folder, "20-deny.toml", "[default]\ncommand = \"deny\"\n");
    let mut daemon = Daemon::start_with(dir, 1, 8);
    daemon.send_command("c1").await;
    assert_eq!(daemon.next().await, Said::Ack("200".to_owned()));
    loop {
        let message = timeout(PATIENCE, daemon.outgoing.recv()).await.unwrap().unwrap();
        let reply: AgentJobReply = serde_json::from_slice(&message.payload).unwrap();
        let content: ReplyContent = serde_json::from_str(&reply.content).unwrap();
        if content.document_status == ResultStatus::InProgress {
            continue;
        }
        assert_eq!(content.document_status, ResultStatus::Failed);
        assert_eq!(content.moorline_refused, Some(true));
        assert!(
            content.document_trace_output.contains("20-deny.toml"),
            "{content:?}"
        );
        break;
    }
    // No worker left a directory for its steps.
    assert!(!daemon.dir.path().join("commands").exists());
}
