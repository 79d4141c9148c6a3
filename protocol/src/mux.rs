//! Multiplexing inside a port session: many TCP connections over the one byte stream of a data channel
//! (client-wire §5.4, agent-wire §8.5). Pure: bytes and calls in, bytes and events out.
//!
//! Version 1 is what the stock peers speak. It has no flow control for a stream: one that nobody reads fills the
//! shared buffer, and then everything waits ([`Mux::may_receive`]). Version 2 adds one message, by which a receiver
//! says how much it has consumed and how much more it takes, and one that ends a stream at once; two ends of ours
//! agree on it in the handshake ([`DataChannel::mux_version`](crate::channel::DataChannel::mux_version)). Then a
//! stream that is not read stops its own sender only.
//!
//! What a multiplexer keeps is bounded whatever its peer does: 8 MiB and a piece of what it received
//! ([`Mux::may_receive`]), and 4 MiB of what is to be sent, however large the windows are that the peer gives.
//!
//! The end of a direction is a FIN. Stock peers close the whole stream on it. Between two ends of version 2 the other
//! direction stays open, as with TCP.

#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

mod frame;
mod stream;

use std::collections::{BTreeMap, VecDeque};

use bytes::{Bytes, BytesMut};

use self::{
    frame::{FrameReader, HEADER_BYTES, Received, header},
    stream::{Stream, WINDOW_UPDATE_BYTES, take},
};

pub use self::frame::{MuxError, StreamId};

/// Streams at the same time; a peer that opens more is refused each.
pub const MAX_STREAMS: usize = 512;
/// The most data in one frame (client-wire §5.4).
const MAX_DATA_BYTES: usize = 32_768;
/// What a stream sends before the next one has its turn.
const TURN_BYTES: usize = 16 * 1024;
/// Unread data of all streams, above which nothing more should be received. In version 2 windows stop each stream long
/// before, unless there are very many that nobody reads.
const MAX_UNREAD_BYTES: [usize; 2] = [4 * 1024 * 1024, 8 * 1024 * 1024];
/// Frames without data that wait to be sent. A peer that causes more takes nothing from us.
const MAX_CONTROL: usize = 4096;

/// Which end this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The client: its streams have the odd numbers from 3 on.
    Opens,
    /// The agent.
    Accepts,
}

/// What the driver should know. All but [`Self::Writable`] are said once, until what they are about has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MuxEvent {
    /// The peer opened a stream.
    Opened(StreamId),
    /// The peer opened one stream more than [`MAX_STREAMS`], which was left at once.
    Refused(StreamId),
    /// There is something to [`Mux::read`].
    Readable(StreamId),
    /// [`Mux::writable`] has grown.
    Writable(StreamId),
    /// Nothing follows what can still be read.
    Finished(StreamId),
    /// Both directions have ended and everything was read: the number is forgotten.
    Closed(StreamId),
    /// The peer left the stream at once: what it has not read is lost, and the number is forgotten.
    Reset(StreamId),
}

/// A frame without data that waits.
#[derive(Debug, Clone, Copy)]
enum Control {
    Open(StreamId),
    /// The end of both directions, as this version says it.
    Leave(StreamId),
    KeepAlive,
    Update(StreamId),
}

/// One multiplexed byte stream.
#[derive(Debug)]
pub struct Mux {
    side: Side,
    version: u8,
    next_id: u32,
    reader: FrameReader,
    streams: BTreeMap<StreamId, Stream>,
    control: VecDeque<Control>,
    /// Streams with something to send, in the order of their turns.
    turns: VecDeque<StreamId>,
    events: VecDeque<MuxEvent>,
    unread: usize,
    /// Written and not yet sent, of all streams.
    waiting: usize,
    failed: bool,
}

impl Mux {
    /// `version` is 1 or 2; anything else counts as the nearer of them.
    pub fn new(side: Side, version: u32) -> Self {
        let version = if version >= 2 { 2 } else { 1 };
        Self {
            side,
            version,
            next_id: 3,
            reader: FrameReader::new(version),
            streams: BTreeMap::new(),
            control: VecDeque::new(),
            turns: VecDeque::new(),
            events: VecDeque::new(),
            unread: 0,
            waiting: 0,
            failed: false,
        }
    }

    /// Opens a stream. `None`: this side opens none, there are [`MAX_STREAMS`], or the numbers are used up.
    pub fn open(&mut self) -> Option<StreamId> {
        if self.side != Side::Opens || self.failed || self.streams.len() >= MAX_STREAMS {
            return None;
        }
        let id = StreamId(self.next_id);
        self.next_id = self.next_id.checked_add(2)?;
        self.streams.insert(id, Stream::new());
        self.control.push_back(Control::Open(id));
        Some(id)
    }

    /// Bytes of the peer, in order, cut anywhere.
    ///
    /// # Errors
    /// They are no frames of this version, or the peer sent more than it was allowed to. Nothing can be told apart any
    /// more: the session must end.
    pub fn receive(&mut self, bytes: &[u8]) -> Result<(), MuxError> {
        let mut rest = bytes;
        while !rest.is_empty() && !self.failed {
            let taken = self.reader.read(&mut rest).and_then(|received| match received {
                Some(received) => self.on_received(received),
                None => Ok(()),
            });
            if let Err(error) = taken {
                self.failed = true;
                return Err(error);
            }
        }
        Ok(())
    }

    fn on_received(&mut self, received: Received<'_>) -> Result<(), MuxError> {
        match received {
            Received::Open(id) => self.on_open(id),
            Received::Finish(id) => {
                self.on_finish(id);
                Ok(())
            }
            Received::Data(id, data) => self.on_data(id, data),
            Received::Update { id, consumed, window } => {
                if let Some(stream) = self.streams.get_mut(&id) {
                    stream.updated(consumed, window);
                    self.tell_writable(id);
                }
                Ok(())
            }
            Received::Reset(id) => {
                if self.remove(id).is_some() {
                    self.events.push_back(MuxEvent::Reset(id));
                }
                Ok(())
            }
            Received::KeepAlive => Ok(()),
        }
    }

    fn on_open(&mut self, id: StreamId) -> Result<(), MuxError> {
        if self.streams.contains_key(&id) {
            return Ok(());
        }
        if self.side == Side::Opens || self.streams.len() >= MAX_STREAMS {
            self.push_control(Control::Leave(id))?;
            self.events.push_back(MuxEvent::Refused(id));
            return Ok(());
        }
        self.streams.insert(id, Stream::new());
        self.events.push_back(MuxEvent::Opened(id));
        Ok(())
    }

    fn on_finish(&mut self, id: StreamId) {
        let is_whole = self.version == 1;
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        if stream.peer_finished {
            return;
        }
        stream.peer_finished = true;
        self.events.push_back(MuxEvent::Finished(id));
        if is_whole {
            // it takes nothing any more, and waits for the same from us
            self.waiting = self.waiting.saturating_sub(stream.outgoing.len());
            stream.outgoing = BytesMut::new();
            self.finish(id);
        }
        self.forget_if_over(id);
    }

    fn on_data(&mut self, id: StreamId, data: &[u8]) -> Result<(), MuxError> {
        // of a stream that we have left: it was sent before the peer knew
        let Some(stream) = self.streams.get_mut(&id).filter(|stream| !stream.peer_finished) else {
            return Ok(());
        };
        if self.version == 2 && !stream.may_take(data.len()) {
            return Err(MuxError::WindowExceeded(id));
        }
        if stream.incoming.is_empty() && !data.is_empty() {
            self.events.push_back(MuxEvent::Readable(id));
        }
        stream.incoming.extend_from_slice(data);
        self.unread += data.len();
        Ok(())
    }

    /// Whether more bytes should be given to [`Self::receive`]: what nobody reads is kept within a bound.
    pub fn may_receive(&self) -> bool {
        let [first, second] = MAX_UNREAD_BYTES;
        self.unread < if self.version == 1 { first } else { second }
    }

    /// What happened, until `None`.
    pub fn poll_event(&mut self) -> Option<MuxEvent> {
        self.events.pop_front()
    }

    /// What was received and not yet taken. Empty: nothing is there.
    pub fn unread(&self, id: StreamId) -> &[u8] {
        self.streams.get(&id).map_or(&[], |stream| &stream.incoming)
    }

    /// Takes what was received, up to `max` bytes. `None`: nothing is there.
    pub fn read(&mut self, id: StreamId, max: usize) -> Option<Bytes> {
        let stream = self.streams.get_mut(&id)?;
        let length = stream.incoming.len().min(max);
        if length == 0 {
            return None;
        }
        let data = take(&mut stream.incoming, length);
        self.unread = self.unread.saturating_sub(length);
        if !stream.incoming.is_empty() {
            self.events.push_back(MuxEvent::Readable(id));
        }
        if self.version == 2 && self.consume(id, length) {
            self.control.push_back(Control::Update(id));
        }
        self.forget_if_over(id);
        Some(data)
    }

    /// Whether the peer is to be told that so much of a stream was read.
    fn consume(&mut self, id: StreamId, length: usize) -> bool {
        let others = self.streams.iter().filter(|(other, _)| **other != id);
        let promised = others.fold(0_u32, |sum, (_, stream)| sum.saturating_add(stream.promised()));
        let streams = self.streams.len();
        let stream = self.streams.get_mut(&id);
        stream.is_some_and(|stream| stream.consume(length, streams, promised))
    }

    /// Bytes that [`Self::write`] takes now. Zero for a stream that is finished or unknown.
    pub fn writable(&self, id: StreamId) -> usize {
        self.streams.get(&id).map_or(0, |stream| {
            stream.writable(self.version, self.streams.len(), self.waiting)
        })
    }

    /// Appends to a stream, and returns how many bytes it took.
    pub fn write(&mut self, id: StreamId, data: &[u8]) -> usize {
        let data = data.get(..self.writable(id)).unwrap_or(data);
        if let Some(stream) = self.streams.get_mut(&id).filter(|_| !data.is_empty()) {
            stream.outgoing.extend_from_slice(data);
            self.waiting += data.len();
            self.queue_turn(id);
        }
        data.len()
    }

    /// Ends our direction behind what was written. To a peer of version 1 it is the end of both.
    pub fn finish(&mut self, id: StreamId) {
        if let Some(stream) = self.streams.get_mut(&id)
            && !stream.finish_wanted
        {
            stream.finish_wanted = true;
            self.queue_turn(id);
        }
    }

    /// Leaves a stream at once, with whatever waits in it. Nothing more is said of it.
    pub fn reset(&mut self, id: StreamId) {
        if self
            .remove(id)
            .is_some_and(|stream| self.version == 2 || !stream.finish_sent)
        {
            self.control.push_back(Control::Leave(id));
        }
    }

    fn remove(&mut self, id: StreamId) -> Option<Stream> {
        let stream = self.streams.remove(&id)?;
        self.unread = self.unread.saturating_sub(stream.incoming.len());
        self.waiting = self.waiting.saturating_sub(stream.outgoing.len());
        self.turns.retain(|waiting| *waiting != id);
        self.events.retain(|event| event.stream() != id);
        Some(stream)
    }

    /// A sign of life that carries nothing: stock peers of old versions close a multiplexer that is silent for 30 s.
    pub fn keep_alive(&mut self) {
        if self.control.is_empty() {
            self.control.push_back(Control::KeepAlive);
        }
    }

    /// Whether [`Self::transmit`] has something.
    pub fn has_output(&self) -> bool {
        !self.control.is_empty() || !self.turns.is_empty()
    }

    /// The next bytes for the peer: whole frames, `max` bytes at most. `None`: there are none, or `max` has no room
    /// for a frame. Streams have turns, so that one with much to send holds up no other for long.
    pub fn transmit(&mut self, max: usize) -> Option<Bytes> {
        let mut out = Vec::new();
        while out.len() + HEADER_BYTES + WINDOW_UPDATE_BYTES <= max {
            let Some(control) = self.control.pop_front() else {
                break;
            };
            self.put_control(control, &mut out);
        }
        while let Some(room) = max
            .checked_sub(out.len() + HEADER_BYTES)
            .filter(|room| *room > 0 && self.control.is_empty())
        {
            let Some(id) = self.turns.pop_front() else { break };
            self.put_turn(id, room.min(TURN_BYTES).min(MAX_DATA_BYTES), &mut out);
        }
        (!out.is_empty()).then(|| out.into())
    }

    fn put_control(&mut self, control: Control, out: &mut Vec<u8>) {
        match control {
            Control::Open(id) => out.extend(header(self.version, frame::OPEN, 0, id)),
            Control::Leave(id) if self.version == 2 => {
                out.extend(header(self.version, frame::RESET, 0, id));
            }
            Control::Leave(id) => out.extend(header(self.version, frame::FINISH, 0, id)),
            Control::KeepAlive => out.extend(header(self.version, frame::KEEP_ALIVE, 0, StreamId(0))),
            Control::Update(id) => {
                if let Some(stream) = self.streams.get_mut(&id) {
                    let length = u16::try_from(WINDOW_UPDATE_BYTES).unwrap_or_default();
                    out.extend(header(self.version, frame::UPDATE, length, id));
                    out.extend(stream.window_update());
                }
            }
        }
    }

    fn put_turn(&mut self, id: StreamId, room: usize, out: &mut Vec<u8>) {
        let version = self.version;
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        stream.has_turn = false;
        let length = stream.outgoing.len().min(room);
        if length > 0 {
            let on_wire = u16::try_from(length).unwrap_or(u16::MAX);
            out.extend(header(version, frame::DATA, on_wire, id));
            out.extend_from_slice(&take(&mut stream.outgoing, length));
            stream.sent = stream.sent.wrapping_add(u32::from(on_wire));
            self.waiting = self.waiting.saturating_sub(length);
        }
        if stream.outgoing.is_empty() && stream.finish_wanted && !stream.finish_sent {
            stream.finish_sent = true;
            out.extend(header(version, frame::FINISH, 0, id));
        }
        if !stream.outgoing.is_empty() {
            self.queue_turn(id);
        }
        if length > 0 {
            self.tell_writable(id);
        }
        self.forget_if_over(id);
    }

    /// There is more room than before: a writer may wait for it.
    fn tell_writable(&mut self, id: StreamId) {
        if self.writable(id) > 0 {
            self.events.push_back(MuxEvent::Writable(id));
        }
    }

    fn queue_turn(&mut self, id: StreamId) {
        if let Some(stream) = self.streams.get_mut(&id)
            && !stream.has_turn
            && !stream.finish_sent
        {
            stream.has_turn = true;
            self.turns.push_back(id);
        }
    }

    fn forget_if_over(&mut self, id: StreamId) {
        if self.streams.get(&id).is_some_and(Stream::is_over) {
            self.streams.remove(&id);
            self.events.push_back(MuxEvent::Closed(id));
        }
    }

    fn push_control(&mut self, control: Control) -> Result<(), MuxError> {
        if self.control.len() >= MAX_CONTROL {
            return Err(MuxError::TooManyFrames);
        }
        self.control.push_back(control);
        Ok(())
    }
}

impl MuxEvent {
    /// The stream that it is about.
    pub fn stream(self) -> StreamId {
        match self {
            Self::Opened(id)
            | Self::Refused(id)
            | Self::Readable(id)
            | Self::Writable(id)
            | Self::Finished(id)
            | Self::Closed(id)
            | Self::Reset(id) => id,
        }
    }
}

#[cfg(test)]
mod tests;
