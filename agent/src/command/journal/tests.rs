//! Any order of deliveries, beginnings, kills and acknowledgements ends in exactly one final state.

use std::collections::BTreeSet;

use moorline_protocol::document::StepResult;
use proptest::prelude::*;

use crate::runtime::ProcessKey;

use super::*;

const NOW: u64 = 1_795_333_005_107;
const ID: &str = "c1";

fn open(dir: &Path) -> Journal {
    Journal::open(dir, Opener::Daemon).unwrap()
}

fn worker(number: i32) -> ProcessRecord {
    ProcessRecord {
        boot_id: "boot".to_owned(),
        key: ProcessKey {
            pid: number,
            start_ticks: 7,
        },
    }
}

fn reply(is_final: bool) -> NewReply {
    NewReply {
        message_id: Uuid::new_v4(),
        is_final,
        payload: if is_final { "final" } else { "step" }.to_owned(),
    }
}

/// A command that has ended at that time, with replies that nobody has acknowledged.
pub(super) fn end(journal: &mut Journal, id: &str, then: u64) {
    journal.accept(id, id, "{}", then).unwrap();
    let ended = journal.cancel(id, false, then, |_| Conclusion {
        status: ResultStatus::Cancelled,
        replies: vec![reply(false), reply(true)],
    });
    ended.unwrap();
}

fn conclusion(status: ResultStatus) -> Conclusion {
    Conclusion {
        status,
        replies: vec![reply(true)],
    }
}

fn endings() -> Endings<impl FnOnce(&Assignment) -> Conclusion, impl FnOnce(&str, &[StepRecord]) -> Conclusion>
{
    Endings {
        cancelled: |_: &Assignment| conclusion(ResultStatus::Cancelled),
        lost: |_: &str, steps: &[StepRecord]| {
            assert_eq!(steps.len(), 2);
            conclusion(ResultStatus::Failed)
        },
    }
}

fn names() -> Vec<(String, String)> {
    vec![
        ("aws:runShellScript".to_owned(), "a".to_owned()),
        ("aws:runShellScript".to_owned(), "b".to_owned()),
    ]
}

#[test]
fn the_migrations_are_sound() {
    MIGRATIONS.validate().unwrap();
}

#[test]
fn the_file_is_for_its_owner_only() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let mut journal = open(dir.path());
    journal.accept(ID, "j1", "{}", NOW).unwrap();
    for entry in std::fs::read_dir(dir.path()).unwrap() {
        let entry = entry.unwrap();
        assert_eq!(
            entry.metadata().unwrap().permissions().mode() & 0o777,
            0o600,
            "{:?}",
            entry.path()
        );
    }
}

#[test]
fn a_command_delivered_twice_is_accepted_once_even_after_its_end() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = open(dir.path());
    assert!(journal.accept(ID, "j1", "{}", NOW).unwrap());
    assert!(!journal.accept(ID, "j1", "{}", NOW).unwrap());
    journal.begin(ID, &worker(1), &names()).unwrap();
    journal
        .record(
            ID,
            &worker(1),
            None,
            Some(&conclusion(ResultStatus::Success)),
            NOW,
        )
        .unwrap();
    assert!(!journal.accept(ID, "j1", "{}", NOW).unwrap());
    let pending = journal.replies_after(0, 10).unwrap();
    journal.acknowledge(pending.first().unwrap().message_id).unwrap();
    let two_days = 48 * 3600 * 1000;
    assert!(!journal.forget(NOW + two_days).unwrap());
    drop(journal);
    let mut journal = open(dir.path());
    assert!(
        !journal.accept(ID, "j1", "{}", NOW).unwrap(),
        "remembered for 48 hours, also by the next daemon"
    );
    journal.forget(NOW + two_days + 1).unwrap();
    assert!(journal.accept(ID, "j1", "{}", NOW).unwrap(), "and then forgotten");
}

#[test]
fn the_content_is_gone_when_the_command_has_ended() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = open(dir.path());
    journal.accept(ID, "j1", "a secret", NOW).unwrap();
    let expected = Assignment {
        job_id: "j1".to_owned(),
        content: "a secret".to_owned(),
        is_new: true,
    };
    assert_eq!(journal.assignment(ID).unwrap(), Some(expected));
    journal.begin(ID, &worker(1), &names()).unwrap();
    journal
        .record(
            ID,
            &worker(1),
            None,
            Some(&conclusion(ResultStatus::Success)),
            NOW,
        )
        .unwrap();
    let content: Option<String> = journal
        .connection
        .query_row("SELECT content FROM command", [], |row| row.get(0))
        .unwrap();
    assert_eq!(content, None);
    let steps: i64 = journal
        .connection
        .query_row("SELECT count(*) FROM step", [], |row| row.get(0))
        .unwrap();
    assert_eq!(steps, 0);
}

#[test]
fn a_worker_that_was_given_up_can_no_longer_report() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = open(dir.path());
    journal.accept(ID, "j1", "{}", NOW).unwrap();
    journal.begin(ID, &worker(1), &names()).unwrap();
    assert_eq!(
        journal.settle(ID, NOW, |_| true, endings()).unwrap(),
        Settled::Running(worker(1))
    );
    assert_eq!(
        journal.settle(ID, NOW, |_| false, endings()).unwrap(),
        Settled::Lost
    );
    assert_eq!(
        journal.settle(ID, NOW, |_| false, endings()).unwrap(),
        Settled::Finished
    );
    assert!(
        !journal
            .record(
                ID,
                &worker(1),
                None,
                Some(&conclusion(ResultStatus::Success)),
                NOW
            )
            .unwrap()
    );
    assert_eq!(journal.replies_after(0, 10).unwrap().len(), 1);
}

#[test]
fn a_cancelled_command_whose_worker_never_began_ends_without_another_try() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = open(dir.path());
    journal.accept(ID, "j1", "{}", NOW).unwrap();
    assert_eq!(
        journal.settle(ID, NOW, |_| false, endings()).unwrap(),
        Settled::Waiting
    );
    let marked = journal
        .cancel(ID, true, NOW, |_| conclusion(ResultStatus::Cancelled))
        .unwrap();
    assert_eq!(marked, CancelOutcome::Marked(None));
    assert_eq!(
        journal.settle(ID, NOW, |_| false, endings()).unwrap(),
        Settled::Cancelled
    );
    assert_eq!(
        journal.begin(ID, &worker(1), &names()).unwrap(),
        Beginning::NotOurs
    );
}

#[test]
fn a_reply_number_is_never_given_twice() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = open(dir.path());
    let mut last = 0;
    for round in 0..3 {
        let id = format!("c{round}");
        journal.accept(&id, &id, "{}", NOW).unwrap();
        journal
            .cancel(&id, false, NOW, |_| conclusion(ResultStatus::Cancelled))
            .unwrap();
        let pending = journal.replies_after(last, 10).unwrap();
        assert_eq!(pending.len(), 1);
        last = pending.first().unwrap().reply_id;
        journal.acknowledge(pending.first().unwrap().message_id).unwrap();
        drop(journal);
        journal = open(dir.path());
    }
}

#[test]
fn a_full_disk_is_an_error_and_leaves_the_journal_usable() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = open(dir.path());
    let pages: u32 = journal
        .connection
        .query_row("PRAGMA page_count", [], |row| row.get(0))
        .unwrap();
    journal
        .connection
        .query_row(&format!("PRAGMA max_page_count = {pages}"), [], |_| Ok(()))
        .unwrap();
    let large = "x".repeat(100_000);
    assert!(journal.accept(ID, "j1", &large, NOW).is_err());
    journal
        .connection
        .query_row("PRAGMA max_page_count = 10000", [], |_| Ok(()))
        .unwrap();
    assert!(journal.accept(ID, "j1", &large, NOW).unwrap());
}

/// The bound of the journals that these tests fill, in pages.
const MOST_PAGES: u64 = 200;

fn pages(journal: &Journal) -> u64 {
    let count: u32 = journal
        .connection
        .pragma_query_value(None, "page_count", |row| row.get(0))
        .unwrap();
    count.into()
}

fn large_end() -> Conclusion {
    let mut end = conclusion(ResultStatus::Success);
    for reply in &mut end.replies {
        reply.payload = "x".repeat(20_000);
    }
    end
}

/// Takes commands, and ends them, until no more is taken.
fn fill(journal: &mut Journal, of_worker: &mut Journal) -> usize {
    for taken in 0.. {
        let id = format!("f{taken}");
        match journal.accept(&id, "j1", &"x".repeat(2_000), NOW) {
            Ok(is_new) => assert!(is_new),
            Err(JournalError::Full { .. }) => return taken,
            Err(error) => panic!("{error}"),
        }
        journal.begin(&id, &worker(1), &names()).unwrap();
        let told = of_worker.record(&id, &worker(1), None, Some(&large_end()), NOW);
        assert!(told.unwrap());
    }
    unreachable!("there is a bound")
}

#[test]
fn results_that_nobody_acknowledges_fill_no_disk_and_what_runs_can_still_tell_its_end() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = open(dir.path());
    journal.most_bytes = MOST_PAGES * 4096;
    let mut of_worker = Journal::open(dir.path(), Opener::Worker).unwrap();
    journal.accept(ID, "j1", "{}", NOW).unwrap();
    journal.begin(ID, &worker(1), &names()).unwrap();
    let taken = 1 + fill(&mut journal, &mut of_worker);
    let told = of_worker.record(ID, &worker(1), None, Some(&large_end()), NOW);
    assert!(told.unwrap());
    let pages = pages(&journal);
    assert!(pages < MOST_PAGES + 20, "{pages}");
    assert!(
        journal.accept("a little one", "j1", "{}", NOW).is_err(),
        "not into the rest of a page either"
    );
    assert!(
        !journal.accept(ID, "j1", "{}", NOW).unwrap(),
        "a known one is known"
    );
    let pending = journal.replies_after(0, 10_000).unwrap();
    assert_eq!(pending.len(), taken, "none is dropped to make room");
    for reply in &pending {
        journal.acknowledge(reply.message_id).unwrap();
    }
    assert!(
        journal.accept("one more", "j1", "{}", NOW).unwrap(),
        "there is room when they are acknowledged"
    );
}

#[test]
fn what_the_daemon_ends_itself_has_room_beyond_the_bound() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = open(dir.path());
    journal.most_bytes = MOST_PAGES * 4096;
    let mut of_worker = Journal::open(dir.path(), Opener::Worker).unwrap();
    for id in ["lost", "cancelled", "large"] {
        journal.accept(id, "j1", "{}", NOW).unwrap();
    }
    for id in ["lost", "large"] {
        journal.begin(id, &worker(1), &names()).unwrap();
    }
    fill(&mut journal, &mut of_worker);
    // and far beyond it, by a command that was taken before
    let mut end = conclusion(ResultStatus::Success);
    for reply in &mut end.replies {
        reply.payload = "x".repeat(1_000_000);
    }
    assert!(
        of_worker
            .record("large", &worker(1), None, Some(&end), NOW)
            .unwrap()
    );
    assert!(journal.accept("a little one", "j1", "{}", NOW).is_err());
    let endings = Endings {
        cancelled: |_: &Assignment| panic!("nobody cancelled"),
        lost: |_: &str, _: &[StepRecord]| large_end(),
    };
    let settled = journal.settle("lost", NOW, |_| false, endings).unwrap();
    assert_eq!(settled, Settled::Lost);
    let cancelled = journal.cancel("cancelled", false, NOW, |_| large_end()).unwrap();
    assert_eq!(cancelled, CancelOutcome::Ended);
}

#[test]
fn old_replies_and_commands_go_in_batches() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = open(dir.path());
    for number in 0..150 {
        let id = format!("c{number}");
        journal.accept(&id, &id, "{}", NOW).unwrap();
        journal
            .cancel(&id, false, NOW, |_| conclusion(ResultStatus::Cancelled))
            .unwrap();
    }
    journal.accept("young", "young", "{}", NOW).unwrap();
    let later = NOW + 31 * 24 * 3600 * 1000;
    assert!(journal.forget(later).unwrap());
    assert!(!journal.forget(later).unwrap());
    assert!(journal.replies_after(0, 10).unwrap().is_empty());
    assert_eq!(
        journal.active().unwrap(),
        BTreeSet::from(["young".to_owned()]),
        "an open command never goes"
    );
}

#[test]
fn a_final_reply_waits_for_an_endpoint_that_is_away_for_weeks() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = open(dir.path());
    journal.accept(ID, "j1", "{}", NOW).unwrap();
    let told = |_: &Assignment| Conclusion {
        status: ResultStatus::Cancelled,
        replies: vec![reply(false), reply(true)],
    };
    journal.cancel(ID, false, NOW, told).unwrap();
    let day = 24 * 3600 * 1000;
    for (days, expected) in [(1, vec!["step", "final"]), (29, vec!["final"]), (31, vec![])] {
        journal.forget(NOW + days * day).unwrap();
        let left = journal.replies_after(0, 10).unwrap();
        let left: Vec<&str> = left.iter().map(|reply| reply.payload.as_str()).collect();
        assert_eq!(left, expected, "after {days} days");
    }
}

#[test]
fn a_command_is_not_run_again_while_its_end_waits_to_be_told() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = open(dir.path());
    journal.accept(ID, "j1", "{}", NOW).unwrap();
    journal
        .cancel(ID, false, NOW, |_| conclusion(ResultStatus::Cancelled))
        .unwrap();
    let day = 24 * 3600 * 1000;
    let later = NOW + 29 * day;
    journal.forget(later).unwrap();
    assert!(!journal.accept(ID, "j1", "{}", later).unwrap(), "remembered");
    let pending = journal.replies_after(0, 10).unwrap();
    journal.acknowledge(pending.first().unwrap().message_id).unwrap();
    journal.forget(later).unwrap();
    assert!(
        journal.accept(ID, "j1", "{}", later).unwrap(),
        "and then forgotten"
    );
}

#[tokio::test]
async fn the_thread_opens_the_journal_again_after_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let state_dir = dir.path().join("later");
    let thread = JournalThread::start(state_dir.clone());
    assert!(thread.call(|journal| journal.unfinished()).await.is_err());
    std::fs::create_dir(&state_dir).unwrap();
    assert!(
        thread
            .call(|journal| journal.unfinished())
            .await
            .unwrap()
            .is_empty()
    );
    assert!(
        thread
            .call(|_| -> Result<(), JournalError> { panic!("in a test") })
            .await
            .is_err()
    );
    assert!(
        thread
            .call(|journal| journal.accept(ID, "j1", "{}", NOW))
            .await
            .unwrap()
    );
}

#[derive(Debug, Clone)]
enum Move {
    Acknowledge,
    Begin(i32),
    Cancel { has_process: bool },
    Deliver,
    Finish(i32),
    Kill(i32),
    Reopen,
    Settle,
    Step(i32),
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let number = 0..3_i32;
    let one = prop_oneof![
        Just(Move::Acknowledge),
        number.clone().prop_map(Move::Begin),
        any::<bool>().prop_map(|has_process| Move::Cancel { has_process }),
        Just(Move::Deliver),
        number.clone().prop_map(Move::Finish),
        number.clone().prop_map(Move::Kill),
        Just(Move::Reopen),
        Just(Move::Settle),
        number.prop_map(Move::Step),
    ];
    proptest::collection::vec(one, 0..40)
}

/// What an onlooker knows: who lives, who ever ran the command, which ends were told.
struct World {
    dir: tempfile::TempDir,
    journal: Journal,
    dead: BTreeSet<i32>,
    begun_by: Vec<i32>,
    told: BTreeSet<Uuid>,
    ends_told: usize,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let journal = open(dir.path());
        Self {
            dir,
            journal,
            dead: BTreeSet::new(),
            begun_by: Vec::new(),
            told: BTreeSet::new(),
            ends_told: 0,
        }
    }

    fn go(&mut self, step: &Move) {
        match step {
            Move::Deliver => drop(self.journal.accept(ID, "j1", "{}", NOW).unwrap()),
            Move::Begin(number) if !self.dead.contains(number) => {
                if self.journal.begin(ID, &worker(*number), &names()).unwrap() != Beginning::NotOurs {
                    self.begun_by.push(*number);
                }
            }
            Move::Step(number) if self.runs(*number) => {
                let progress = StepProgress {
                    position: 0,
                    result: StepResult {
                        status: ResultStatus::Success,
                        code: 0,
                    },
                    reply: reply(false),
                };
                self.journal
                    .record(ID, &worker(*number), Some(&progress), None, NOW)
                    .unwrap();
            }
            Move::Finish(number) if self.runs(*number) => {
                let end = conclusion(ResultStatus::Success);
                self.journal
                    .record(ID, &worker(*number), None, Some(&end), NOW)
                    .unwrap();
            }
            Move::Kill(number) => drop(self.dead.insert(*number)),
            Move::Settle => {
                let dead = self.dead.clone();
                let is_alive = |worker: &ProcessRecord| !dead.contains(&worker.key.pid);
                self.journal.settle(ID, NOW, is_alive, endings()).unwrap();
            }
            Move::Cancel { has_process } => {
                let ended = |_: &Assignment| conclusion(ResultStatus::Cancelled);
                self.journal.cancel(ID, *has_process, NOW, ended).unwrap();
            }
            Move::Acknowledge => {
                self.look();
                for message_id in self.told.clone() {
                    self.journal.acknowledge(message_id).unwrap();
                }
            }
            Move::Reopen => self.journal = open(self.dir.path()),
            Move::Begin(_) | Move::Step(_) | Move::Finish(_) => {}
        }
        self.look();
    }

    fn runs(&self, number: i32) -> bool {
        self.begun_by.contains(&number) && !self.dead.contains(&number)
    }

    fn look(&mut self) {
        for reply in self.journal.replies_after(0, 1000).unwrap() {
            if self.told.insert(reply.message_id) && reply.payload == "final" {
                self.ends_told += 1;
            }
        }
    }

    fn state(&self) -> Option<String> {
        use rusqlite::OptionalExtension;
        self.journal
            .connection
            .query_row("SELECT state FROM command", [], |row| row.get(0))
            .optional()
            .unwrap()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_order_of_events_and_kills_ends_in_exactly_one_final_state(moves in moves()) {
        let mut world = World::new();
        for step in &moves {
            world.go(step);
            prop_assert!(world.begun_by.len() <= 1, "begun twice");
            prop_assert!(world.ends_told <= 1, "two ends");
            prop_assert_eq!(world.ends_told == 1, world.state().as_deref() == Some("finished"));
        }
        // Everything that lived dies, and a new daemon clears up.
        for step in [Move::Deliver, Move::Kill(0), Move::Kill(1), Move::Kill(2), Move::Reopen, Move::Settle] {
            world.go(&step);
        }
        if world.state().as_deref() == Some("accepted") {
            for step in [Move::Begin(9), Move::Step(9), Move::Finish(9)] {
                world.go(&step);
            }
        }
        prop_assert_eq!(world.ends_told, 1);
        prop_assert!(world.begun_by.len() <= 1);
        let is_taken_again = world.journal.accept(ID, "j1", "{}", NOW).unwrap();
        prop_assert!(!is_taken_again);
    }
}

#[test]
fn a_signature_is_spent_by_one_command_and_remembered_until_nobody_accepts_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = Journal::open(dir.path(), Opener::Daemon).unwrap();
    let once = |nonce: &str| crate::policy::Once {
        nonce: nonce.to_owned(),
        expires: 1_000_000,
    };
    assert!(journal.spend(&once("a"), "c1").unwrap());
    // the same command again, as after a reboot
    assert!(journal.spend(&once("a"), "c1").unwrap());
    assert!(!journal.spend(&once("a"), "c2").unwrap());
    assert!(journal.spend(&once("b"), "c2").unwrap());
    // a session is begun once, under the same id as well
    assert!(!journal.spend_on_session(&once("b"), "s1").unwrap());
    assert!(journal.spend_on_session(&once("s"), "s1").unwrap());
    assert!(!journal.spend_on_session(&once("s"), "s1").unwrap());
    assert!(!journal.spend(&once("s"), "c9").unwrap());
    let (end, day) = (1_000_000_000_u64, 24 * 3600 * 1000);
    journal.forget(end + 2 * day).unwrap();
    assert!(!journal.spend(&once("a"), "c3").unwrap(), "clocks are set back");
    journal.forget(end + 2 * day + 1000).unwrap();
    assert!(journal.spend(&once("a"), "c3").unwrap());
}

#[test]
fn a_command_is_known_for_as_long_as_its_signature_is() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = open(dir.path());
    journal.accept(ID, "j1", "{}", NOW).unwrap();
    let once = crate::policy::Once {
        nonce: "a".to_owned(),
        expires: NOW / 1000 + 24 * 3600,
    };
    assert!(journal.spend(&once, ID).unwrap());
    journal
        .cancel(ID, false, NOW, |_| conclusion(ResultStatus::Cancelled))
        .unwrap();
    for reply in journal.replies_after(0, 10).unwrap() {
        journal.acknowledge(reply.message_id).unwrap();
    }
    // the clock was two days and a half ahead for a while, and the signature is good again now
    let day = 24 * 3600 * 1000;
    journal.forget(NOW + 5 * day / 2).unwrap();
    assert!(
        !journal.accept(ID, "j1", "{}", NOW).unwrap(),
        "it would run again"
    );
    journal.forget(NOW + 3 * day + 1000).unwrap();
    assert!(journal.accept(ID, "j1", "{}", NOW).unwrap());
}
