//! Reads a terminal ahead, on a thread. The kernel hands out 4 KiB a call, and has a thread of its own get the next
//! ready, for which the call waits: a session that prints much would do nothing else meanwhile.

use std::{
    collections::VecDeque,
    io::{self, Read as _},
    os::fd::{AsFd as _, OwnedFd},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::eventfd::{EfdFlags, EventFd},
};
use tokio::sync::Notify;

use super::read_available;

/// The largest read.
const READ_BYTES: usize = 32 * 1024;
/// Most that is read and not taken.
const AHEAD_BYTES: usize = 2 * READ_BYTES;

/// What is read ahead of a terminal. Its thread ends with it.
#[derive(Debug)]
pub(super) struct ReadAhead {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// For the session: there is something, or the end.
    filled: Notify,
    /// For the thread: there is room, or nobody takes anything any more.
    taken: Condvar,
    /// Readable when nobody takes anything any more.
    dropped: EventFd,
}

#[derive(Debug, Default)]
struct State {
    read: VecDeque<u8>,
    end: Option<End>,
    is_dropped: bool,
}

/// Why there is no more to read.
#[derive(Debug)]
enum End {
    /// Nobody holds the other side open.
    HungUp,
    Failed(Errno),
}

impl ReadAhead {
    /// Begins to read from the programs' terminal. `master` does not wait for anything when it is read.
    ///
    /// # Errors
    /// The machine has no thread or no descriptor left.
    pub(super) fn start(master: OwnedFd) -> io::Result<Self> {
        // here, so that the thread needs no heap of its own
        let buffer = vec![0; READ_BYTES];
        let state = State {
            read: VecDeque::with_capacity(AHEAD_BYTES),
            ..State::default()
        };
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            filled: Notify::new(),
            taken: Condvar::new(),
            dropped: EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?,
        });
        let theirs = Arc::clone(&shared);
        let thread = thread::Builder::new()
            .name("terminal".to_owned())
            .stack_size(64 * 1024)
            .spawn(move || theirs.fill(&master, buffer))?;
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }

    /// As [`super::Pty::read`].
    pub(super) async fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if let Some(read) = self.shared.take(buffer) {
                return read;
            }
            self.shared.filled.notified().await;
        }
    }
}

impl Drop for ReadAhead {
    /// The terminal is hung up when its last descriptor is closed, hence the wait for the thread, which is short.
    fn drop(&mut self) {
        self.shared.state().is_dropped = true;
        self.shared.taken.notify_one();
        let woken = self.shared.dropped.write(1);
        if let (Ok(_), Some(thread)) = (woken, self.thread.take()) {
            let _panicked = thread.join();
        }
    }
}

impl Shared {
    /// What was read, or the end behind it; `None`: nothing yet.
    fn take(&self, buffer: &mut [u8]) -> Option<io::Result<usize>> {
        let mut state = self.state();
        if !state.read.is_empty() {
            let read = state.read.read(buffer);
            self.taken.notify_one();
            return Some(read);
        }
        match &state.end {
            None => None,
            Some(End::HungUp) => Some(Ok(0)),
            Some(End::Failed(errno)) => Some(Err((*errno).into())),
        }
    }

    /// The thread.
    fn fill(&self, master: &OwnedFd, mut buffer: Vec<u8>) {
        while self.wait_for_room() && self.wait_for_output(master) {
            let end = match read_available(master, &mut buffer) {
                Ok(0) => Some(End::HungUp),
                Ok(length) => {
                    let read = buffer.get(..length).unwrap_or_default();
                    self.state().read.extend(read);
                    None
                }
                Err(Errno::EAGAIN) => continue,
                Err(errno) => Some(End::Failed(errno)),
            };
            let is_over = end.is_some();
            self.state().end = end;
            self.filled.notify_one();
            if is_over {
                return;
            }
        }
    }

    /// `false`: nobody takes anything any more.
    fn wait_for_room(&self) -> bool {
        let full = |state: &mut State| !state.is_dropped && state.read.len() > AHEAD_BYTES - READ_BYTES;
        let state = self.taken.wait_while(self.state(), full);
        !state.unwrap_or_else(PoisonError::into_inner).is_dropped
    }

    /// `false`: nobody takes anything any more.
    fn wait_for_output(&self, master: &OwnedFd) -> bool {
        let mut fds = [
            PollFd::new(master.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.dropped.as_fd(), PollFlags::POLLIN),
        ];
        // what is wrong with the terminal is told by the read
        let _told_by_read = poll(&mut fds, PollTimeout::NONE);
        !self.state().is_dropped
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
