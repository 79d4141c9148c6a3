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
