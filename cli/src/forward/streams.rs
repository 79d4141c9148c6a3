//! The multiplexer, shared by the task that drives the session and by one task for each connection.
//!
//! No lock is held across an await. Whoever changes something wakes those whom it concerns: a stream's two directions
//! by what the multiplexer says of it, the driver whenever there may be something to transmit.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use moorline_protocol::mux::{Mux, MuxError, MuxEvent, Side, StreamId};
use tokio::sync::Notify;

/// What a local program gets at once.
const READ_BYTES: usize = 64 * 1024;

/// All streams of a session.
#[derive(Debug, Clone)]
pub(super) struct Streams(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// For the driver.
    changed: Notify,
    keeps_half: bool,
}

#[derive(Debug)]
struct State {
    mux: Mux,
    known: HashMap<StreamId, Arc<Known>>,
    /// The session has ended: what was received can still be read.
    is_over: bool,
}

#[derive(Debug, Default)]
struct Known {
    readable: Notify,
    writable: Notify,
    end: Mutex<End>,
}

/// What the peer has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum End {
    #[default]
    None,
    /// Its direction.
    Finished,
    /// Both, in order.
    Closed,
    /// Both, at once.
    Reset,
}

/// What a stream brings next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Incoming {
    Data(Bytes),
    /// Nothing follows.
    End,
    /// The stream was cut short.
    Reset,
}

/// One stream; dropped, it is left at once unless it has ended.
#[derive(Debug)]
pub(super) struct Stream {
    id: StreamId,
    known: Arc<Known>,
    streams: Streams,
}

impl Streams {
    /// `version` is what both ends agreed on.
    pub(super) fn new(version: u32) -> Self {
        Self(Arc::new(Shared {
            state: Mutex::new(State {
                mux: Mux::new(Side::Opens, version),
                known: HashMap::new(),
                is_over: false,
            }),
            changed: Notify::new(),
            keeps_half: version >= 2,
        }))
    }

    /// Whether one direction of a stream outlives the other.
    pub(super) fn keeps_half(&self) -> bool {
        self.0.keeps_half
    }

    /// `None`: there are too many.
    pub(super) fn open(&self) -> Option<Stream> {
        let mut state = self.lock();
        let id = state.mux.open()?;
        let known = Arc::new(Known::default());
        state.known.insert(id, Arc::clone(&known));
        self.0.changed.notify_one();
        Some(Stream {
            id,
            known,
            streams: self.clone(),
        })
    }

    /// Bytes of the node.
    ///
    /// # Errors
    /// They make no sense.
    pub(super) fn receive(&self, bytes: &[u8]) -> Result<(), MuxError> {
        self.change(|mux| mux.receive(bytes))
    }

    pub(super) fn may_receive(&self) -> bool {
        self.lock().mux.may_receive()
    }

    /// Bytes for the node.
    pub(super) fn transmit(&self, max: usize) -> Option<Bytes> {
        let mut state = self.lock();
        let bytes = state.mux.transmit(max);
        state.tell();
        bytes
    }

    pub(super) fn keep_alive(&self) {
        self.lock().mux.keep_alive();
    }

    /// Waits until there may be something to transmit, or room to receive. One task at a time.
    pub(super) async fn changed(&self) {
        self.0.changed.notified().await;
    }

    /// The session has ended: readers get what is there, and then the end.
    pub(super) fn end(&self) {
        let mut state = self.lock();
        state.is_over = true;
        for known in state.known.values() {
            known.wake();
        }
    }

    fn change<T>(&self, change: impl FnOnce(&mut Mux) -> T) -> T {
        let mut state = self.lock();
        let result = change(&mut state.mux);
        state.tell();
        self.0.changed.notify_one();
        result
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Passes on what the multiplexer has to say.
    fn tell(&mut self) {
        while let Some(event) = self.mux.poll_event() {
            let Some(known) = self.known.get(&event.stream()) else {
                continue;
            };
            match event {
                MuxEvent::Readable(_) => known.readable.notify_one(),
                MuxEvent::Writable(_) => known.writable.notify_one(),
                MuxEvent::Finished(_) => known.end(End::Finished),
                MuxEvent::Closed(_) => known.end(End::Closed),
                MuxEvent::Reset(_) => known.end(End::Reset),
                // a node opens none
                MuxEvent::Opened(_) | MuxEvent::Refused(_) => {}
            }
        }
    }
}

impl Known {
    fn end(&self, end: End) {
        *self.end.lock().unwrap_or_else(PoisonError::into_inner) = end;
        self.wake();
    }

    fn ended(&self) -> End {
        *self.end.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self) {
        self.readable.notify_one();
        self.writable.notify_one();
    }
}

impl Stream {
    /// What comes next. One task at a time.
    pub(super) async fn read(&self) -> Incoming {
        loop {
            if let Some(incoming) = self.read_now() {
                return incoming;
            }
            self.known.readable.notified().await;
        }
    }

    fn read_now(&self) -> Option<Incoming> {
        let (data, is_over) = {
            let mut state = self.streams.lock();
            let data = state.mux.read(self.id, READ_BYTES);
            state.tell();
            (data, state.is_over)
        };
        if let Some(data) = data {
            // a window has to be told, or the shared buffer has room again
            self.streams.0.changed.notify_one();
            return Some(Incoming::Data(data));
        }
        match self.known.ended() {
            End::Reset => Some(Incoming::Reset),
            End::Finished | End::Closed => Some(Incoming::End),
            End::None => is_over.then_some(Incoming::Reset),
        }
    }

    /// Waits until something can be written, and returns how much. `None`: nothing ever can again.
    pub(super) async fn room(&self) -> Option<usize> {
        loop {
            let (room, is_over) = {
                let state = self.streams.lock();
                (state.mux.writable(self.id), state.is_over)
            };
            if is_over || matches!(self.known.ended(), End::Closed | End::Reset) {
                return None;
            }
            if room > 0 {
                return Some(room);
            }
            self.known.writable.notified().await;
        }
    }

    /// Whether the peer left at once.
    pub(super) fn is_reset(&self) -> bool {
        self.known.ended() == End::Reset
    }

    /// Writes all of it, waiting for room. Returns whether the stream took it.
    pub(super) async fn write_all(&self, mut data: &[u8]) -> bool {
        loop {
            let taken = self.streams.change(|mux| mux.write(self.id, data));
            data = data.get(taken..).unwrap_or_default();
            if data.is_empty() {
                return true;
            }
            if self.room().await.is_none() {
                return false;
            }
        }
    }

    /// Ends our direction behind what was written.
    pub(super) fn finish(&self) {
        self.streams.change(|mux| mux.finish(self.id));
    }

    /// Both directions have had their end: what was written still goes out.
    pub(super) fn release(self) {
        self.streams.lock().known.remove(&self.id);
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let is_held = self.streams.lock().known.remove(&self.id).is_some();
        if is_held {
            self.streams.change(|mux| mux.reset(self.id));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Carries what waits, both ways, until nothing does.
    fn exchange(streams: &Streams, node: &mut Mux) {
        loop {
            let mut moved = false;
            while let Some(bytes) = streams.transmit(64 * 1024) {
                node.receive(&bytes).unwrap();
                moved = true;
            }
            while let Some(bytes) = node.transmit(64 * 1024) {
                streams.receive(&bytes).unwrap();
                moved = true;
            }
            if !moved {
                return;
            }
        }
    }

    fn opened(version: u32) -> (Streams, Stream, Mux, StreamId) {
        let streams = Streams::new(version);
        let mut node = Mux::new(Side::Accepts, version);
        let stream = streams.open().unwrap();
        exchange(&streams, &mut node);
        let Some(MuxEvent::Opened(id)) = node.poll_event() else {
            panic!("no stream")
        };
        (streams, stream, node, id)
    }

    #[tokio::test]
    async fn a_writer_waits_for_the_window_and_goes_on_when_the_peer_has_read() {
        let (streams, stream, mut node, id) = opened(2);
        let writer = tokio::spawn(async move {
            let taken = stream.write_all(&vec![7; 1_000_000]).await;
            stream.finish();
            (taken, stream)
        });
        let mut read = 0;
        while read < 1_000_000 {
            tokio::task::yield_now().await;
            exchange(&streams, &mut node);
            while let Some(data) = node.read(id, 10_000) {
                read += data.len();
            }
        }
        assert!(writer.await.unwrap().0);
    }

    #[tokio::test]
    async fn what_was_received_before_the_sessions_end_can_still_be_read() {
        let (streams, stream, mut node, id) = opened(2);
        node.write(id, b"last words");
        exchange(&streams, &mut node);
        streams.end();
        assert_eq!(
            stream.read().await,
            Incoming::Data(Bytes::from_static(b"last words"))
        );
        // it did not end: it was cut short
        assert_eq!(stream.read().await, Incoming::Reset);
        assert_eq!(stream.room().await, None);
    }

    #[tokio::test]
    async fn a_dropped_stream_is_reset_and_a_released_one_is_not() {
        for is_released in [false, true] {
            let (streams, stream, mut node, id) = opened(2);
            if is_released {
                stream.finish();
                stream.release();
            } else {
                drop(stream);
            }
            exchange(&streams, &mut node);
            let expected = if is_released {
                MuxEvent::Finished(id)
            } else {
                MuxEvent::Reset(id)
            };
            assert_eq!(node.poll_event(), Some(expected));
        }
    }
}
