//! Every process of a terminal's session: what a shell leaves behind when it ends.
//!
//! The stock agent kills the shell only, so background programs stay for ever. A process that made a session of its
//! own (a daemon) has left, and is not ours to end.

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// The living processes of the session that this leader began. The leader's number must still be taken, by a zombie
/// at least, or the session could be another's.
pub(super) fn of_session(leader: Pid) -> Vec<Pid> {
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid| session_of(*pid) == Some(leader.as_raw()))
        .map(Pid::from_raw)
        .collect()
}

/// The session of a living process.
fn session_of(pid: i32) -> Option<i32> {
    session_in(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// `PID (NAME) STATE PPID PGRP SESSION …`; the name may hold blanks and parentheses.
fn session_in(stat: &str) -> Option<i32> {
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut fields = fields.split(' ');
    if matches!(fields.next()?, "Z" | "X") {
        return None;
    }
    fields.nth(2)?.parse().ok()
}

/// Sends a signal to each. A stopped process would sleep through it, so all are woken.
pub(super) fn signal_all(members: &[Pid], signal: Signal) {
    for pid in members {
        for signal in [signal, Signal::SIGCONT] {
            // It may have ended meanwhile, or belong to root (sudo) while we do not; the hang-up of the terminal
            // reaches the latter.
            if let Err(error) = kill(*pid, signal) {
                tracing::debug!(%pid, %signal, %error, "process not signalled");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_read_whatever_the_program_is_called() {
        assert_eq!(session_in("12 (sh) S 1 12 99 34816 12 4194304 0"), Some(99));
        assert_eq!(session_in("12 (a) b ( c) R 1 12 7 0"), Some(7));
        assert_eq!(session_in("12 (sh) Z 1 12 99 0"), None);
        assert_eq!(session_in("12 (sh"), None);
        assert_eq!(session_in(""), None);
    }

    #[test]
    fn this_process_is_a_member_of_its_own_session() {
        let session = nix::unistd::getsid(None).unwrap();
        assert!(of_session(session).contains(&nix::unistd::getpid()));
    }
}
