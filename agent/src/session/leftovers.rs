//! What a session leaves whose worker died before it could end it (`kill -9`, memory): the worker was what its orphans
//! had for a parent, and what knew them. Those that left the terminal are found by the variable that names their
//! session, and ended as the worker would have ended them.
//!
//! Only what lost its parent counts, with all below it: what `at` or another daemon runs with a copy of a session's
//! environment is that daemon's. What threw its environment away as well (`sudo`) is found below what did not, or not
//! at all.

use std::{collections::BTreeSet, fs, io::Read, thread, time::Duration};

use moorline_protocol::types::SessionId;
use nix::{
    sys::signal::{Signal, kill},
    unistd::{Pid, getpid},
};
use tokio::{
    sync::oneshot,
    time::{Instant, sleep, timeout},
};

use super::{
    environment::SESSION_ID,
    members::{Process, below, processes},
};

/// Between two signals, each rougher than the one before, as at every end of a session.
const GRACE: Duration = Duration::from_secs(2);
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// What a process has for its environment at most, as far as it is read.
const MAX_ENVIRONMENT_BYTES: u64 = 1024 * 1024;

/// Ends what a session without a worker has left, if anything. It takes a few seconds at most.
pub(super) async fn end(session_id: &SessionId) {
    for signal in [Signal::SIGHUP, Signal::SIGTERM, Signal::SIGKILL] {
        let since = Instant::now();
        let mut told = BTreeSet::new();
        loop {
            let mark = format!("{SESSION_ID}={session_id}");
            let found = beside(move || find(&mark)).await;
            if found.as_ref().is_some_and(Vec::is_empty) {
                return;
            }
            for pid in found.into_iter().flatten() {
                if told.insert(pid) {
                    tracing::info!(%session_id, %pid, %signal, "a process of a session whose worker is gone");
                    // a stopped one would sleep through it; one that is gone is no matter
                    let _gone = [signal, Signal::SIGCONT].map(|signal| kill(pid, signal));
                }
            }
            if since.elapsed() >= GRACE {
                break;
            }
            sleep(LOOK_AGAIN).await;
        }
    }
    tracing::warn!(%session_id, "processes of a session whose worker is gone cannot be ended");
}

/// On a thread, since the kernel may hold whoever looks at a process that is stuck. `None`: it does, or the machine has
/// no thread to give, where a runtime that promises one would panic.
async fn beside(look: impl FnOnce() -> Vec<Pid> + Send + 'static) -> Option<Vec<Pid>> {
    let (tell, told) = oneshot::channel();
    let started = thread::Builder::new()
        .name("leftovers".to_owned())
        .spawn(move || drop(tell.send(look())));
    started.ok()?;
    timeout(GRACE, told).await.ok()?.ok()
}

fn find(mark: &str) -> Vec<Pid> {
    let processes = processes();
    let marked = processes
        .iter()
        .filter(|process| !process.is_zombie && has(process.pid, mark.as_bytes()))
        .map(|process| process.pid)
        .collect();
    orphans(&marked, &adopters(&processes), &processes)
}

/// Whether a process was started with this variable. Its own user may change what is read here; that ends no other
/// user's processes.
fn has(pid: i32, mark: &[u8]) -> bool {
    let mut environment = Vec::new();
    let read = fs::File::open(format!("/proc/{pid}/environ"))
        .and_then(|file| file.take(MAX_ENVIRONMENT_BYTES).read_to_end(&mut environment));
    read.is_ok()
        && environment
            .split(|byte| *byte == 0)
            .any(|variable| variable == mark)
}

/// Who becomes the parent of a dead worker's orphans: the init process, or whoever of our ancestors wants to.
fn adopters(processes: &[Process]) -> BTreeSet<i32> {
    let mut adopters = BTreeSet::from([1]);
    let mut next = Some(getpid().as_raw());
    while let Some(pid) = next.filter(|pid| adopters.insert(*pid)) {
        next = processes
            .iter()
            .find(|process| process.pid == pid)
            .map(|process| process.parent);
    }
    adopters
}

/// The marked processes that were adopted, and all below them.
fn orphans(marked: &BTreeSet<i32>, adopters: &BTreeSet<i32>, processes: &[Process]) -> Vec<Pid> {
    processes
        .iter()
        .filter(|process| marked.contains(&process.pid) && adopters.contains(&process.parent))
        .map(|process| Pid::from_raw(process.pid))
        .flat_map(|root| below(root, None, processes).into_iter().chain([root]))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(pid: i32, parent: i32) -> Process {
        Process {
            pid,
            parent,
            session: pid,
            is_zombie: false,
        }
    }

    #[test]
    fn what_lost_its_parent_is_found_with_all_below_and_what_another_daemon_runs_is_not() {
        let processes = [
            process(1, 0),
            process(50, 1),
            // an orphan, its child without the variable, and that one's
            process(60, 1),
            process(61, 60),
            process(62, 61),
            // of another daemon, with a copy of the variable
            process(70, 1),
            process(71, 70),
            process(72, 71),
            // adopted by an ancestor of ours
            process(80, 50),
            // of another session
            process(90, 1),
        ];
        let marked = BTreeSet::from([60, 62, 71, 72, 80]);
        let mut found: Vec<i32> = orphans(&marked, &BTreeSet::from([1, 50]), &processes)
            .into_iter()
            .map(Pid::as_raw)
            .collect();
        found.sort_unstable();
        assert_eq!(found, [60, 61, 62, 80]);
    }

    #[test]
    fn a_list_of_processes_that_leads_in_a_circle_ends() {
        let own = getpid().as_raw();
        let processes = [process(own, 7), process(7, own)];
        assert_eq!(adopters(&processes), BTreeSet::from([1, 7, own]));
    }
}
