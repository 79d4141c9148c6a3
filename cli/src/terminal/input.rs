//! Standard input, read on a thread: a read of a terminal cannot be interrupted, and switching the descriptor to
//! non-blocking would switch it for every process that shares it.

use std::{io, os::fd::AsFd, thread};

use bytes::Bytes;
use nix::{errno::Errno, poll::PollFlags};
use tokio::sync::mpsc;

/// As much as one read takes, so that what is pasted goes in few messages.
const READ_BYTES: usize = 16 * 1024;
/// Reads that may wait for the session. One is being sent, one waits, and one is being read.
const QUEUE: usize = 1;

/// Starts to read. The receiver ends with the input. The thread is never waited for: it may be in a read that only
/// the end of the process ends.
///
/// # Errors
/// There is no thread to be had.
pub(crate) fn start() -> io::Result<mpsc::Receiver<Bytes>> {
    let (sender, receiver) = mpsc::channel(QUEUE);
    thread::Builder::new()
        .name("stdin".to_owned())
        .spawn(move || read(&sender))?;
    Ok(receiver)
}

fn read(sender: &mpsc::Sender<Bytes>) {
    let stdin = io::stdin();
    let mut buffer = vec![0; READ_BYTES];
    loop {
        match nix::unistd::read(&stdin, &mut buffer) {
            Ok(0) => return,
            Ok(count) => {
                let read = Bytes::copy_from_slice(buffer.get(..count).unwrap_or_default());
                if sender.blocking_send(read).is_err() {
                    return; // the session is over
                }
            }
            Err(Errno::EINTR) => {}
            // someone else made it non-blocking
            Err(Errno::EAGAIN) => super::wait(stdin.as_fd(), PollFlags::POLLIN),
            // a terminal that hung up reads so
            Err(_) => return,
        }
    }
}
