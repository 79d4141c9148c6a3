//! What happens while the journal does not answer, and to commands that await a reboot.

use std::path::Path;

use tokio::time::timeout;

use crate::{
    command::journal::{Journal, Opener},
    config::CommandConfig,
    runtime::Platform,
};

use super::*;

fn executor(state_dir: &Path, limits: CommandConfig) -> (Executor, Arc<Notify>) {
    let node = Node {
        limits,
        policy_folder: state_dir.join("policy.d"),
        state_dir: state_dir.to_owned(),
        instance_id: String::new(),
        region: String::new(),
        platform: Platform {
            name: String::new(),
            version: String::new(),
        },
        is_moorline: true,
        groups: None,
        drop_folder: None,
        transcript: crate::config::TranscriptConfig::default(),
        seals: Arc::default(),
        courier: Courier::default(),
    };
    let journal = JournalThread::start(state_dir.to_owned());
    let (ended, _) = mpsc::channel(1);
    let nudged = Arc::new(Notify::new());
    let executor = Executor::new(Arc::new(node), journal, ended, Arc::clone(&nudged));
    (executor, nudged)
}

#[tokio::test]
async fn a_journal_that_does_not_answer_is_asked_less_and_less_often() {
    let dir = tempfile::tempdir().unwrap();
    // A directory stands where the journal belongs.
    let obstacle = dir.path().join("journal.db");
    std::fs::create_dir(&obstacle).unwrap();
    let limits = CommandConfig {
        workers: 0,
        queue: 1,
        ..CommandConfig::default()
    };
    let (mut executor, _) = executor(dir.path(), limits);
    for command_id in ["c1", "c2"] {
        executor.settle(command_id.to_owned(), 0).await;
    }
    let mut pause = FIRST_RETRY;
    for _ in 0..10 {
        assert_eq!(executor.retry_pause, Some(pause));
        assert!(executor.next_due().unwrap() <= Instant::now() + pause);
        executor.retry_at = Some(Instant::now());
        executor.look().await;
        pause = (pause * 2).min(LAST_RETRY);
    }
    assert_eq!(pause, LAST_RETRY);
    std::fs::remove_dir(&obstacle).unwrap();
    executor.retry_at = Some(Instant::now());
    executor.look().await;
    assert_eq!((executor.retry_pause, executor.next_due()), (None, None));
}

/// A command whose worker was killed when it had noted that it awaits a reboot, or when it had arranged that; and the
/// daemon that looks after it, whose reboots are asked for by this.
async fn left_at_a_reboot(
    state_dir: &Path,
    is_arranged: bool,
    reboot_command: &[&str],
) -> (Executor, Arc<Notify>) {
    let mut worker = std::process::Command::new("sleep").arg("300").spawn().unwrap();
    let record = ProcessRecord::of(worker.id()).unwrap();
    worker.kill().unwrap();
    worker.wait().unwrap();
    let mut journal = Journal::open(state_dir, Opener::Daemon).unwrap();
    journal.accept("c1", "j1", "{}", 1).unwrap();
    let steps = [("aws:runShellScript".to_owned(), "a".to_owned())];
    journal.begin("c1", &record, &steps).unwrap();
    assert!(journal.await_reboot("c1", &record, true).unwrap());
    if is_arranged {
        journal.reboot_arranged("c1").unwrap();
    }
    let unfinished = journal.unfinished().unwrap();
    let limits = CommandConfig {
        reboot_command: reboot_command.iter().map(|&word| word.to_owned()).collect(),
        ..CommandConfig::default()
    };
    let (mut executor, nudged) = executor(state_dir, limits);
    executor.recover(unfinished).await;
    (executor, nudged)
}

async fn nudge(nudged: &Notify) {
    timeout(Duration::from_secs(30), nudged.notified()).await.unwrap();
}

#[tokio::test]
async fn a_reboot_that_a_killed_worker_did_not_ask_for_is_asked_for_once_by_the_daemon() {
    let dir = tempfile::tempdir().unwrap();
    let asked = dir.path().join("asked");
    let ask = format!("echo asked >> {}", asked.display());
    let command = ["sh", "-c", ask.as_str()];
    let (mut executor, nudged) = left_at_a_reboot(dir.path(), false, &command).await;
    nudge(&nudged).await;
    executor.look().await;
    assert!(executor.rebooting.contains_key("c1"), "it goes on waiting");
    assert_eq!(std::fs::read_to_string(&asked).unwrap(), "asked\n");
    let journal = Journal::open(dir.path(), Opener::Daemon).unwrap();
    let unfinished = journal.unfinished().unwrap();
    assert_eq!(unfinished.len(), 1);
    // the next daemon of this boot
    executor.rebooting.clear();
    executor.recover(unfinished).await;
    assert!(executor.rebooting.values().all(|waiting| !waiting.is_asked_for()));
}

#[tokio::test]
async fn a_reboot_that_was_arranged_is_not_asked_for_again() {
    let dir = tempfile::tempdir().unwrap();
    let (executor, _) = left_at_a_reboot(dir.path(), true, &["false"]).await;
    let waiting = executor.rebooting.get("c1").unwrap();
    assert!(!waiting.is_asked_for());
}

#[tokio::test]
async fn a_command_whose_reboot_the_daemon_cannot_have_ends_at_once_and_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let (mut executor, nudged) =
        left_at_a_reboot(dir.path(), false, &["sh", "-c", "echo not today >&2; exit 3"]).await;
    nudge(&nudged).await;
    executor.look().await;
    assert!(executor.rebooting.is_empty() && executor.take_ended());
    let journal = Journal::open(dir.path(), Opener::Daemon).unwrap();
    let told = journal.replies_after(0, 10).unwrap();
    assert!(told.iter().any(|reply| {
        reply
            .payload
            .contains("did not arrange it: exit status: 3 not today")
    }));
}
