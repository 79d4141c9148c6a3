//! Standard output and standard error, written on a thread: a terminal held back by Ctrl-S must not hold back the
//! keyboard and the connection.

use std::{
    io::{self, Write},
    os::fd::AsFd,
    thread,
};

use bytes::Bytes;
use nix::{errno::Errno, poll::PollFlags};
use tokio::sync::{mpsc, oneshot};

/// Payloads that may wait for a slow terminal; beyond it the session is not read.
const QUEUE: usize = 32;

/// Where to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    Out,
    Err,
}

/// A bounded queue to the writing thread.
#[derive(Debug)]
pub(crate) struct OutputWriter {
    sender: mpsc::Sender<(Stream, Bytes)>,
    done: oneshot::Receiver<io::Result<()>>,
}

impl OutputWriter {
    /// # Errors
    /// There is no thread to be had.
    pub(crate) fn start() -> io::Result<Self> {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let (tell, done) = oneshot::channel();
        thread::Builder::new().name("stdout".to_owned()).spawn(move || {
            // where no one listens any more, the process ends
            let _over = tell.send(write(receiver));
        })?;
        Ok(Self { sender, done })
    }

    /// Whether [`Self::push`] takes one more.
    pub(crate) fn has_room(&self) -> bool {
        self.sender.capacity() > 0
    }

    /// Waits until there is room again, or the reader of the output has gone.
    pub(crate) async fn room(&self) {
        let _gone = self.sender.reserve().await;
    }

    /// Waits until nothing can be written any more.
    pub(crate) async fn gone(&self) {
        self.sender.closed().await;
    }

    /// Queues data. Returns whether someone still reads it.
    pub(crate) fn push(&self, stream: Stream, data: Bytes) -> bool {
        !matches!(
            self.sender.try_send((stream, data)),
            Err(mpsc::error::TrySendError::Closed(_))
        )
    }

    /// Waits until everything is written.
    ///
    /// # Errors
    /// It could not be.
    pub(crate) async fn finish(self) -> io::Result<()> {
        drop(self.sender);
        self.done.await.unwrap_or(Ok(()))
    }
}

/// Waits until the reader of standard output has gone, also while nothing is written.
///
/// # Errors
/// There is no thread to be had.
pub(crate) fn watch_reader() -> io::Result<oneshot::Receiver<()>> {
    let (tell, gone) = oneshot::channel();
    thread::Builder::new()
        .name("stdout-reader".to_owned())
        .spawn(move || {
            // without any event asked for, only errors and the end are told
            super::wait(io::stdout().as_fd(), PollFlags::empty());
            let _over = tell.send(());
        })?;
    Ok(gone)
}

fn write(mut receiver: mpsc::Receiver<(Stream, Bytes)>) -> io::Result<()> {
    while let Some((stream, data)) = receiver.blocking_recv() {
        match stream {
            Stream::Out => write_all(&data)?,
            // the session does not depend on who reads its errors
            Stream::Err => {
                let _unread = io::stderr().lock().write_all(&data);
            }
        }
    }
    Ok(())
}

/// Past the standard library's buffer, which looks for line ends and would flush twice.
fn write_all(mut data: &[u8]) -> io::Result<()> {
    let stdout = io::stdout();
    while !data.is_empty() {
        match nix::unistd::write(&stdout, data) {
            Ok(count) => data = data.get(count..).unwrap_or_default(),
            Err(Errno::EINTR) => {}
            // someone else made it non-blocking
            Err(Errno::EAGAIN) => super::wait(stdout.as_fd(), PollFlags::POLLOUT),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
