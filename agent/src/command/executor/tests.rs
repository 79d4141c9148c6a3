//! What happens while the journal does not answer.

use crate::{config::CommandConfig, runtime::Platform};

use super::*;

#[tokio::test]
async fn a_journal_that_does_not_answer_is_asked_less_and_less_often() {
    let dir = tempfile::tempdir().unwrap();
    // A directory stands where the journal belongs.
    let obstacle = dir.path().join("journal.db");
    std::fs::create_dir(&obstacle).unwrap();
    let node = Node {
        limits: CommandConfig {
            workers: 0,
            queue: 1,
            ..CommandConfig::default()
        },
        policy_folder: dir.path().join("policy.d"),
        state_dir: dir.path().to_owned(),
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
    let journal = JournalThread::start(dir.path().to_owned());
    let (ended, _) = mpsc::channel(1);
    let mut executor = Executor::new(Arc::new(node), journal, ended, Arc::new(Notify::new()));
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
