//! What the loop of a session reads and writes: a terminal, or the pipes of a program that has none.

use std::{borrow::Cow, io};

use moorline_protocol::message::PayloadType;
use nix::sys::signal::Signal;

use super::{pipes::Pipes, pty::Pty};
use crate::recording::{Size, as_on_terminal};

/// Control characters that reach a program without a terminal, as the signals that a terminal would make of them.
const SIGNALS: [(u8, Signal); 2] = [(0x03, Signal::SIGINT), (0x1c, Signal::SIGQUIT)];

#[derive(Debug)]
pub(super) enum ProgramIo {
    Terminal(Pty),
    Pipes(Pipes),
    /// The terminal of a program that is not started yet: nothing comes from it, and what is typed stays with us.
    Later,
}

/// What becomes of a client's input.
pub(super) enum Input<'a> {
    Typed(&'a [u8]),
    Signals(Vec<Signal>),
}

impl ProgramIo {
    /// Waits for output and reads what there is, up to the length of the buffer. A length of zero is the end of this
    /// kind of output: see [`Self::close`]. Nothing is lost when the future is dropped.
    pub(super) async fn read(&self, buffer: &mut [u8]) -> io::Result<(PayloadType, usize)> {
        match self {
            Self::Terminal(pty) => Ok((PayloadType::Output, pty.read(buffer).await?)),
            Self::Pipes(pipes) => pipes.read(buffer).await,
            Self::Later => std::future::pending().await,
        }
    }

    /// There is much to read.
    pub(super) fn read_ahead(&mut self) {
        match self {
            Self::Terminal(pty) => pty.read_ahead(),
            Self::Pipes(_) | Self::Later => {}
        }
    }

    /// Waits until input is taken, and returns how much of it. Nothing is written when the future is dropped.
    pub(super) async fn write(&self, input: &[u8]) -> io::Result<usize> {
        match self {
            Self::Terminal(pty) => pty.write(input).await,
            // nothing is typed into a program whose standard input is at its end
            Self::Pipes(_) => Ok(input.len()),
            Self::Later => std::future::pending().await,
        }
    }

    /// # Errors
    /// The terminal is gone.
    pub(super) fn resize(&self, size: Size) -> nix::Result<()> {
        match self {
            Self::Terminal(pty) => pty.resize(size),
            Self::Pipes(_) | Self::Later => Ok(()),
        }
    }

    pub(super) fn is_terminal(&self) -> bool {
        matches!(self, Self::Terminal(_))
    }

    /// Whether the terminal shows what is typed.
    pub(super) fn is_echoing(&self) -> bool {
        match self {
            Self::Terminal(pty) => pty.is_echoing(),
            Self::Pipes(_) | Self::Later => false,
        }
    }

    /// Has a program that fills the screen fill it again.
    pub(super) fn repaint(&self) {
        match self {
            Self::Terminal(pty) => pty.repaint(),
            Self::Pipes(_) | Self::Later => {}
        }
    }

    /// This kind of output is at its end. Whether there is no other.
    pub(super) fn close(&mut self, payload_type: PayloadType) -> bool {
        match self {
            Self::Terminal(_) | Self::Later => true,
            Self::Pipes(pipes) => pipes.close(payload_type),
        }
    }

    /// Most that may be read at once, if there is a limit; and what a read can grow by on its way to the peer.
    pub(super) fn read_limit(&self) -> (usize, usize) {
        match self {
            Self::Terminal(_) | Self::Later => (usize::MAX, 0),
            Self::Pipes(pipes) => (pipes.piece_bytes().unwrap_or(usize::MAX), pipes.prefix_bytes()),
        }
    }

    /// What was read, as the peer gets it.
    pub(super) fn for_peer<'a>(&mut self, payload_type: PayloadType, read: &'a [u8]) -> Cow<'a, [u8]> {
        match self {
            Self::Terminal(_) | Self::Later => Cow::Borrowed(read),
            Self::Pipes(pipes) => pipes.with_prefix(payload_type, read),
        }
    }

    /// What the peer gets, as the recording has it.
    pub(super) fn for_recording<'a>(&self, sent: &'a [u8]) -> Cow<'a, [u8]> {
        match self {
            Self::Terminal(_) | Self::Later => Cow::Borrowed(sent),
            Self::Pipes(_) => Cow::Owned(as_on_terminal(sent)),
        }
    }

    /// What a client's input means to the program.
    pub(super) fn input<'a>(&self, payload: &'a [u8]) -> Input<'a> {
        match self {
            Self::Terminal(_) | Self::Later => Input::Typed(payload),
            Self::Pipes(_) => Input::Signals(
                payload
                    .iter()
                    .filter_map(|byte| SIGNALS.iter().find(|(control, _)| control == byte))
                    .map(|(_, signal)| *signal)
                    .collect(),
            ),
        }
    }

    /// Whether the exit code is told as a payload of its own.
    pub(super) fn tells_exit_code(&self) -> bool {
        matches!(self, Self::Pipes(pipes) if pipes.is_separated())
    }
}
