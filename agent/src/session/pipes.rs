//! Standard output and standard error of a program without a terminal.
//!
//! A document may want the two told apart, each piece with a text in front (agent-wire §8.5): the text stands before
//! the first piece and before each that follows the end of a line, and a piece is at most what one payload of a stock
//! peer holds. Otherwise both are one pipe, so that the order in which the program wrote is kept.

use std::{
    borrow::Cow,
    io,
    os::fd::{AsFd, OwnedFd},
};

use moorline_protocol::{channel::STANDARD_PAYLOAD_BYTES, message::PayloadType};
use nix::{fcntl::OFlag, unistd::pipe2};
use tokio::net::unix::pipe::Receiver;

use super::program::Separation;

/// The program's ends of the pipes.
#[derive(Debug)]
pub(super) struct WriteEnds {
    pub(super) output: OwnedFd,
    pub(super) error: OwnedFd,
}

/// Our ends of the pipes.
#[derive(Debug)]
pub(super) struct Pipes {
    output: ReadEnd,
    /// When it is told apart.
    error: Option<ReadEnd>,
}

#[derive(Debug)]
struct ReadEnd {
    /// `None` once nobody can write any more.
    receiver: Option<Receiver>,
    prefix: String,
    /// The next piece begins with the prefix.
    is_line_start: bool,
}

impl ReadEnd {
    fn new(reader: OwnedFd, prefix: &str) -> io::Result<Self> {
        Ok(Self {
            receiver: Some(Receiver::from_owned_fd(reader)?),
            prefix: prefix.to_owned(),
            is_line_start: true,
        })
    }

    /// Waits until something can be read, or the end; for ever once that was seen.
    async fn readable(&self) -> io::Result<()> {
        match &self.receiver {
            Some(receiver) => receiver.readable().await,
            None => std::future::pending().await,
        }
    }

    fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match &self.receiver {
            Some(receiver) => receiver.try_read(buffer),
            None => Err(io::ErrorKind::WouldBlock.into()),
        }
    }
}

impl Pipes {
    /// # Errors
    /// The operating system gives no pipes.
    pub(super) fn new(separation: Option<&Separation>) -> io::Result<(Self, WriteEnds)> {
        let (reader, output) = pipe2(OFlag::O_CLOEXEC)?;
        let Some(separation) = separation else {
            let error = output.as_fd().try_clone_to_owned()?;
            let pipes = Self {
                output: ReadEnd::new(reader, "")?,
                error: None,
            };
            return Ok((pipes, WriteEnds { output, error }));
        };
        let (error_reader, error) = pipe2(OFlag::O_CLOEXEC)?;
        let pipes = Self {
            output: ReadEnd::new(reader, &separation.stdout_prefix)?,
            error: Some(ReadEnd::new(error_reader, &separation.stderr_prefix)?),
        };
        Ok((pipes, WriteEnds { output, error }))
    }

    pub(super) fn is_separated(&self) -> bool {
        self.error.is_some()
    }

    /// The longest prefix, in bytes.
    pub(super) fn prefix_bytes(&self) -> usize {
        let error = self.error.as_ref().map_or(0, |end| end.prefix.len());
        self.output.prefix.len().max(error)
    }

    /// As much as may be read at once: one piece, where pieces have a prefix.
    pub(super) fn piece_bytes(&self) -> Option<usize> {
        let prefix = self.prefix_bytes();
        (prefix > 0).then(|| STANDARD_PAYLOAD_BYTES.saturating_sub(prefix))
    }

    /// Waits for output and reads what there is. A length of zero means that nobody can write this kind any more:
    /// [`Self::close`] it. Nothing is lost when the future is dropped.
    pub(super) async fn read(&self, buffer: &mut [u8]) -> io::Result<(PayloadType, usize)> {
        loop {
            // while one pipe is never empty nothing else here gives the runtime the turn in which it looks at the other
            tokio::task::coop::consume_budget().await;
            let (payload_type, end) = match &self.error {
                None => {
                    self.output.readable().await?;
                    (PayloadType::Output, &self.output)
                }
                // neither goes before the other, so that a flood of one does not hide the other
                Some(error) => tokio::select! {
                    ready = self.output.readable() => { ready?; (PayloadType::Output, &self.output) }
                    ready = error.readable() => { ready?; (PayloadType::StdErr, error) }
                },
            };
            match end.try_read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return Ok((payload_type, result?)),
            }
        }
    }

    /// Nothing comes from this end any more. Whether that goes for both.
    pub(super) fn close(&mut self, payload_type: PayloadType) -> bool {
        self.end(payload_type).receiver = None;
        let error_is_open = self.error.as_ref().is_some_and(|end| end.receiver.is_some());
        self.output.receiver.is_none() && !error_is_open
    }

    /// What was read as one piece, as the peer gets it.
    pub(super) fn with_prefix<'a>(&mut self, payload_type: PayloadType, piece: &'a [u8]) -> Cow<'a, [u8]> {
        let end = self.end(payload_type);
        let begins = std::mem::replace(&mut end.is_line_start, piece.ends_with(b"\n"));
        if begins && !end.prefix.is_empty() {
            Cow::Owned([end.prefix.as_bytes(), piece].concat())
        } else {
            Cow::Borrowed(piece)
        }
    }

    fn end(&mut self, payload_type: PayloadType) -> &mut ReadEnd {
        match &mut self.error {
            Some(error) if payload_type == PayloadType::StdErr => error,
            _ => &mut self.output,
        }
    }
}

#[cfg(test)]
mod tests;
