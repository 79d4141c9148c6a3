use std::sync::mpsc::SyncSender;

use tempfile::TempDir;

use crate::command::journal::{Journal, Opener};

use super::*;

const DAY: Duration = Duration::from_secs(24 * 3600);

/// A state directory with a journal and files of commands, and the thread's part without its timer.
struct State {
    dir: TempDir,
    keeper: Keeper,
    _bell: SyncSender<()>,
}

impl State {
    fn new(limits: Limits) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (bell, listening) = sync_channel(1);
        let keeper = Keeper {
            folder: step::run_directories(dir.path()),
            limits,
            groups: Vec::new(),
            abandoned: None,
            journal: JournalThread::start(dir.path().to_owned()),
            pace: Pace::new(listening),
            clocks: Clocks::new(Instant::now(), now_millis()),
            sizes: Sizes::new(),
        };
        Self {
            dir,
            keeper,
            _bell: bell,
        }
    }

    /// Files of a command as they are left, of 1000 bytes.
    fn make(&self, name: &str, age: Duration) {
        let directory = self.keeper.folder.join(name);
        fs::create_dir_all(directory.join("0-s")).unwrap();
        fs::write(directory.join("0-s/stdout"), [0; 1000]).unwrap();
        let directory = fs::File::open(directory).unwrap();
        directory.set_modified(SystemTime::now() - age).unwrap();
    }

    fn left(&self) -> Vec<String> {
        let listed = fs::read_dir(&self.keeper.folder).unwrap();
        let mut names: Vec<String> = listed
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

fn limits(days: u32, count: usize, bytes: u64) -> Limits {
    Limits {
        age: days * DAY,
        count,
        bytes,
    }
}

#[test]
fn age_number_and_bytes_each_have_a_limit_and_what_runs_stays_however_old() {
    let table = [
        (limits(14, 100, 100_000), vec!["a", "b", "c", "running"]),
        (limits(2, 100, 100_000), vec!["a", "running"]),
        (limits(14, 2, 100_000), vec!["a", "b", "running"]),
        (limits(14, 100, 1_500), vec!["a", "running"]),
        (limits(14, 0, 100_000), vec!["running"]),
    ];
    for (limits, expected) in table {
        let mut state = State::new(limits);
        let mut journal = Journal::open(state.dir.path(), Opener::Daemon).unwrap();
        journal.accept("running", "j", "{}", now_millis()).unwrap();
        for (name, days) in [("a", 1), ("b", 3), ("c", 5), ("old", 20), ("running", 30)] {
            state.make(name, days * DAY);
        }
        let all = state.left().len();
        let removed = state.keeper.keep(true).unwrap();
        assert_eq!(state.left(), expected, "{limits:?}");
        assert_eq!(removed, all - expected.len());
        assert_eq!(state.keeper.keep(true).unwrap(), 0);
    }
}

#[test]
fn a_command_that_has_ended_makes_the_oldest_one_go_and_ages_wait_for_their_round() {
    let mut state = State::new(limits(14, 1000, 3_500));
    for (name, days) in [("a", 1), ("b", 3), ("old", 20)] {
        state.make(name, days * DAY);
    }
    assert_eq!(state.keeper.keep(false).unwrap(), 0);
    state.make("new", Duration::ZERO);
    assert_eq!(state.keeper.keep(false).unwrap(), 1);
    assert_eq!(state.left(), ["a", "b", "new"]);
    // What is there was measured, and is not again: its growth is seen in the next full round.
    fs::write(state.keeper.folder.join("b/0-s/stdout"), [0; 9000]).unwrap();
    assert_eq!(state.keeper.keep(false).unwrap(), 0);
    assert_eq!(state.keeper.keep(true).unwrap(), 1);
    assert_eq!(state.left(), ["a", "new"]);
}

#[test]
fn nothing_goes_for_its_age_while_the_clock_cannot_be_believed() {
    let mut state = State::new(limits(14, 2, 100_000));
    for (name, days) in [("a", 20), ("b", 21), ("c", 22)] {
        state.make(name, days * DAY);
    }
    // Last seen long ago by the wall, and just now by the other clock.
    let long_ago = now_millis() - 30 * 24 * 3_600_000;
    state.keeper.clocks = Clocks::new(Instant::now(), long_ago);
    assert_eq!(state.keeper.keep(true).unwrap(), 1);
    assert_eq!(state.left(), ["a", "b"]);
    assert_eq!(state.keeper.keep(true).unwrap(), 2);
}

#[test]
fn where_the_journal_cannot_be_asked_nothing_goes() {
    let mut state = State::new(limits(14, 0, 0));
    state.make("a", DAY);
    fs::create_dir(state.dir.path().join("journal.db")).unwrap();
    assert!(matches!(state.keeper.keep(true), Err(RoundError::Journal(_))));
    assert_eq!(state.left(), ["a"]);
}

#[test]
fn a_folder_that_does_not_exist_is_nothing_to_do() {
    assert_eq!(State::new(limits(1, 1, 1)).keeper.keep(true).unwrap(), 0);
}

#[test]
fn the_thread_looks_when_a_command_has_ended_and_leaves_with_its_handle() {
    let mut state = State::new(limits(14, 0, 0));
    state.make("a", DAY);
    let (bell, listening) = sync_channel(1);
    state.keeper.pace = Pace::new(listening);
    let State { dir, keeper, .. } = state;
    let folder = keeper.folder.clone();
    let thread = thread::spawn(move || keeper.run());
    bell.send(()).unwrap();
    let began = Instant::now();
    while folder.join("a").exists() {
        assert!(began.elapsed() < FIRST_ROUND, "nothing was removed");
        thread::yield_now();
    }
    drop(bell);
    thread.join().unwrap();
    drop(dir);
}

#[test]
fn a_wall_clock_that_is_set_forward_is_noticed_once() {
    let hour = Duration::from_secs(3600);
    let start = Instant::now();
    let mut clocks = Clocks::new(start, 1_000);
    let looks = [
        (1, 3_601_000, false),
        (2, 3_601_000 + 100 * 24 * 3_600_000, true),
        (3, 3_601_000 + (100 * 24 + 1) * 3_600_000, false),
        (4, 1_000, false),
    ];
    for (hours, wall_millis, expected) in looks {
        assert_eq!(
            clocks.have_leapt(start + hour * hours, wall_millis),
            expected,
            "after {hours} hours"
        );
    }
}
