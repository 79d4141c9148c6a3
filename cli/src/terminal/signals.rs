//! Signals, as a session sees them. Handlers are installed for each: the AWS CLI ignores some of them, and a program
//! inherits that (client-wire §1.1).

use std::io;

use nix::libc;
use tokio::signal::unix::{Signal as Listener, SignalKind, signal};

/// What has happened to us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Signal {
    /// For the program on the node: the control character that stands for the signal.
    Forward(u8),
    /// The terminal has another size.
    Resized,
    /// We were stopped and go on.
    Continued,
    /// We are to end; with the signal's number.
    Terminate(u8),
}

/// What ends a program that has no terminal to serve.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EndSignal {
    Interrupt,
    /// With the signal's number.
    Terminate(u8),
}

/// Listens for those only: the rest does what it always does.
#[derive(Debug)]
pub(crate) struct EndSignals {
    interrupt: Listener,
    terminate: Listener,
    /// None where it is ignored, as under nohup.
    hangup: Option<Listener>,
}

impl EndSignals {
    /// # Errors
    /// The handlers cannot be installed.
    pub(crate) fn listen() -> io::Result<Self> {
        let is_hangup_ignored = is_ignored(libc::SIGHUP);
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: (!is_hangup_ignored)
                .then(|| signal(SignalKind::hangup()))
                .transpose()?,
        })
    }

    pub(crate) async fn next(&mut self) -> EndSignal {
        let hangup = async {
            match &mut self.hangup {
                Some(hangup) => hangup.recv().await,
                None => None,
            }
        };
        tokio::select! {
            Some(()) = self.interrupt.recv() => EndSignal::Interrupt,
            Some(()) = self.terminate.recv() => EndSignal::Terminate(15),
            Some(()) = hangup => EndSignal::Terminate(1),
            else => std::future::pending().await,
        }
    }
}

/// Whether this process ignores a signal.
fn is_ignored(number: libc::c_int) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(0);
    u32::try_from(number - 1).is_ok_and(|bit| mask.checked_shr(bit).unwrap_or(0) & 1 == 1)
}

/// Listens from its making on.
#[derive(Debug)]
pub(crate) struct Signals {
    interrupt: Listener,
    quit: Listener,
    stop: Listener,
    resize: Listener,
    proceed: Listener,
    terminate: Listener,
    hangup: Listener,
}

impl Signals {
    /// # Errors
    /// The handlers cannot be installed.
    pub(crate) fn listen() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            quit: signal(SignalKind::quit())?,
            stop: signal(SignalKind::from_raw(libc::SIGTSTP))?,
            resize: signal(SignalKind::window_change())?,
            proceed: signal(SignalKind::from_raw(libc::SIGCONT))?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    pub(crate) async fn next(&mut self) -> Signal {
        tokio::select! {
            Some(()) = self.interrupt.recv() => Signal::Forward(0x03),
            Some(()) = self.quit.recv() => Signal::Forward(0x1c),
            Some(()) = self.stop.recv() => Signal::Forward(0x1a),
            Some(()) = self.resize.recv() => Signal::Resized,
            Some(()) = self.proceed.recv() => Signal::Continued,
            Some(()) = self.terminate.recv() => Signal::Terminate(15),
            Some(()) = self.hangup.recv() => Signal::Terminate(1),
            else => std::future::pending().await,
        }
    }
}
