//! Every process of a session: what a shell leaves behind when it ends.
//!
//! The stock agent kills the shell only, so background programs stay for ever. The worker adopts the orphans of its
//! session (it is their subreaper), so a daemon that forks twice and makes a session of its own is still found under
//! it. Whoever asks another to start something (the init system, `at`) is not ours, and is the way to start what
//! shall stay; or the node's owner lets everything linger.

use std::collections::BTreeMap;

use nix::{
    sys::{
        prctl::set_child_subreaper,
        signal::{Signal, kill},
        wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid},
    },
    unistd::{Pid, getpid},
};

/// The processes that end with a session.
#[derive(Debug)]
pub(super) struct Members {
    linger: bool,
    hung_up: bool,
    killing: bool,
    found: Vec<Pid>,
}

/// What `/proc` says about one process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Process {
    pub(super) pid: i32,
    pub(super) parent: i32,
    pub(super) session: i32,
    pub(super) is_zombie: bool,
}

impl Members {
    pub(super) fn new(linger: bool) -> Self {
        Self {
            linger,
            hung_up: false,
            killing: false,
            found: Vec::new(),
        }
    }

    /// Looks who is there, and who is dead and wants to be reaped. The leader's number must stay taken, by a zombie at
    /// least, or its session could be another's. The keeper closes the PAM session when all others are gone.
    pub(super) fn look(&mut self, leader: Option<Pid>, keeper: Option<Pid>) {
        let processes = processes();
        self.found = match self.linger {
            // without /proc only the leader is known
            _ if processes.is_empty() => leader.into_iter().filter(|pid| is_running(*pid)).collect(),
            true => self.on_the_terminal(leader, &processes),
            false => below(getpid(), keeper, &processes),
        };
        for process in &processes {
            if process.is_zombie && process.parent == getpid().as_raw() {
                reap(Pid::from_raw(process.pid), leader);
            }
        }
        if self.killing {
            // They may be born faster than they are found.
            self.send(Signal::SIGKILL);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// Sends a signal to all that were found.
    pub(super) fn signal(&mut self, signal: Signal) {
        self.hung_up = true;
        self.killing = signal == Signal::SIGKILL;
        self.send(signal);
    }

    /// A stopped process would sleep through it, so all are woken.
    fn send(&self, signal: Signal) {
        for pid in &self.found {
            for signal in [signal, Signal::SIGCONT] {
                // It may have ended meanwhile, or belong to root (sudo) while we do not; the hang-up of the terminal
                // reaches the latter.
                if let Err(error) = kill(*pid, signal) {
                    tracing::debug!(%pid, %signal, %error, "process not signalled");
                }
            }
        }
    }

    /// With lingering: who shares the terminal is told once that it hangs up, as by every terminal; after that only
    /// the shell itself must go.
    fn on_the_terminal(&self, leader: Option<Pid>, processes: &[Process]) -> Vec<Pid> {
        let Some(leader) = leader.map(Pid::as_raw) else {
            return Vec::new();
        };
        processes
            .iter()
            .filter(|process| !process.is_zombie)
            .filter(|process| match self.hung_up {
                true => process.pid == leader,
                false => process.session == leader,
            })
            .map(|process| Pid::from_raw(process.pid))
            .collect()
    }
}

/// Reaps the orphans that have ended. The leader is not ours to reap; its zombie may hide others here, which
/// [`Members::look`] finds.
pub(super) fn reap_orphans(leader: Option<Pid>) {
    let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    while let Ok(WaitStatus::Exited(pid, _) | WaitStatus::Signaled(pid, _, _)) = waitid(Id::All, flags)
        && reap(pid, leader)
    {}
}

fn reap(pid: Pid, leader: Option<Pid>) -> bool {
    Some(pid) != leader && waitpid(pid, Some(WaitPidFlag::WNOHANG)).is_ok()
}

fn is_running(child: Pid) -> bool {
    let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    waitid(Id::Pid(child), flags) == Ok(WaitStatus::StillAlive)
}

/// All living descendants, without the keeper and its own.
pub(super) fn below(ancestor: Pid, keeper: Option<Pid>, processes: &[Process]) -> Vec<Pid> {
    let mut children: BTreeMap<i32, Vec<&Process>> = BTreeMap::new();
    for process in processes {
        children.entry(process.parent).or_default().push(process);
    }
    let mut found = Vec::new();
    let mut next = vec![ancestor.as_raw()];
    while let Some(parent) = next.pop() {
        // Removed, so that a list that changed while it was read cannot lead in a circle.
        for process in children.remove(&parent).unwrap_or_default() {
            let pid = Pid::from_raw(process.pid);
            if Some(pid) == keeper {
                continue;
            }
            next.push(process.pid);
            if !process.is_zombie {
                found.push(pid);
            }
        }
    }
    found
}

/// From now on this process is the parent of every orphan below it.
pub(super) fn adopt_orphans() {
    if let Err(error) = set_child_subreaper(true) {
        tracing::warn!(%error, "what leaves the session's terminal will not be found at its end");
    }
}

/// All that are there now.
pub(super) fn processes() -> Vec<Process> {
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(|pid| process_in(pid, &std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?))
        .collect()
}

/// `PID (NAME) STATE PPID PGRP SESSION …`; the name may hold blanks and parentheses.
fn process_in(pid: i32, stat: &str) -> Option<Process> {
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut fields = fields.split(' ');
    let is_zombie = matches!(fields.next()?, "Z" | "X");
    let parent = fields.next()?.parse().ok()?;
    Some(Process {
        pid,
        parent,
        session: fields.nth(1)?.parse().ok()?,
        is_zombie,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(pid: i32, parent: i32, session: i32) -> Process {
        Process {
            pid,
            parent,
            session,
            is_zombie: false,
        }
    }

    fn numbers(found: &[Pid]) -> Vec<i32> {
        let mut numbers: Vec<i32> = found.iter().map(|pid| pid.as_raw()).collect();
        numbers.sort_unstable();
        numbers
    }

    #[test]
    fn a_process_is_read_whatever_its_program_is_called() {
        assert_eq!(
            process_in(12, "12 (sh) S 1 12 99 34816 12 4194304 0"),
            Some(process(12, 1, 99))
        );
        assert_eq!(
            process_in(12, "12 (a) b ( c) R 1 12 7 0"),
            Some(process(12, 1, 7))
        );
        assert!(process_in(12, "12 (sh) Z 1 12 99 0").unwrap().is_zombie);
        assert_eq!(process_in(12, "12 (sh"), None);
        assert_eq!(process_in(12, ""), None);
    }

    #[test]
    fn all_below_the_worker_belong_to_the_session_but_not_the_keeper() {
        let mut all = vec![
            process(10, 1, 10),
            process(20, 10, 20),
            process(21, 20, 20),
            process(22, 10, 22),
            process(23, 22, 23),
            process(30, 10, 30),
            process(31, 30, 30),
            process(99, 1, 99),
        ];
        all[3].is_zombie = true;
        let found = below(Pid::from_raw(10), Some(Pid::from_raw(30)), &all);
        assert_eq!(numbers(&found), [20, 21, 23]);
    }

    #[test]
    fn with_lingering_the_terminal_is_hung_up_and_then_only_the_shell_must_go() {
        let all = [process(20, 10, 20), process(21, 20, 20), process(22, 10, 22)];
        let mut members = Members::new(true);
        let leader = Some(Pid::from_raw(20));
        assert_eq!(numbers(&members.on_the_terminal(leader, &all)), [20, 21]);
        members.hung_up = true;
        assert_eq!(numbers(&members.on_the_terminal(leader, &all)), [20]);
    }

    #[test]
    fn this_process_is_found() {
        assert!(processes().iter().any(|process| process.pid == getpid().as_raw()));
    }
}
