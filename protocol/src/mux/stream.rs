//! One stream of a multiplexer: what waits in it, and how much more may.

use bytes::{Bytes, BytesMut};

/// What a stream may be sent before it has said anything of its window.
pub(super) const FIRST_WINDOW: u32 = 64 * 1024;
/// Windows of all streams together, beyond what each is promised by its beginning.
const SHARED_WINDOW: u32 = 4 * 1024 * 1024;
/// The largest window of one stream.
const LARGEST_WINDOW: u32 = 2 * 1024 * 1024;
/// Data of all streams that waits to be sent, as far as each has [`LEAST_SEND_BYTES`].
const SHARED_SEND_BYTES: usize = 2 * 1024 * 1024;
/// What one stream may have waiting, at least and at most.
const LEAST_SEND_BYTES: usize = 4 * 1024;
const MOST_SEND_BYTES: usize = 256 * 1024;
/// Consumed bytes and window, each four bytes, little-endian.
pub(super) const WINDOW_UPDATE_BYTES: usize = 8;

#[derive(Debug)]
pub(super) struct Stream {
    pub(super) incoming: BytesMut,
    pub(super) outgoing: BytesMut,
    pub(super) peer_finished: bool,
    pub(super) finish_wanted: bool,
    pub(super) finish_sent: bool,
    /// It stands among the turns.
    pub(super) has_turn: bool,
    /// Data sent so far. This and the counters below go round.
    pub(super) sent: u32,
    peer_consumed: u32,
    peer_window: u32,
    consumed: u32,
    /// What was consumed when the peer was last told.
    told: u32,
    window: u32,
    /// The window that the peer was told last.
    told_window: u32,
    /// Up to here the peer may send: what it was ever told is not taken back.
    edge: u32,
    is_update_due: bool,
}

impl Stream {
    pub(super) fn new() -> Self {
        Self {
            incoming: BytesMut::new(),
            outgoing: BytesMut::new(),
            peer_finished: false,
            finish_wanted: false,
            finish_sent: false,
            has_turn: false,
            sent: 0,
            peer_consumed: 0,
            peer_window: FIRST_WINDOW,
            consumed: 0,
            told: 0,
            window: FIRST_WINDOW,
            told_window: FIRST_WINDOW,
            edge: FIRST_WINDOW,
            is_update_due: false,
        }
    }

    pub(super) fn is_over(&self) -> bool {
        self.peer_finished && self.finish_sent && self.incoming.is_empty()
    }

    /// Bytes that may be written now, while so many streams share the memory and have so much waiting in it.
    pub(super) fn writable(&self, version: u8, streams: usize, waiting: usize) -> usize {
        if self.finish_wanted || (version == 1 && self.peer_finished) {
            return 0;
        }
        let share = SHARED_SEND_BYTES / streams.max(1);
        let free = SHARED_SEND_BYTES.saturating_sub(waiting) + self.outgoing.len();
        let buffer = share.min(free).clamp(LEAST_SEND_BYTES, MOST_SEND_BYTES);
        let buffer = buffer.saturating_sub(self.outgoing.len());
        if version == 1 {
            return buffer;
        }
        let on_its_way = self.sent.wrapping_sub(self.peer_consumed);
        let credit = self.peer_window.saturating_sub(on_its_way) as usize;
        buffer.min(credit.saturating_sub(self.outgoing.len()))
    }

    /// The peer consumed so much in all, and takes a window.
    pub(super) fn updated(&mut self, consumed: u32, window: u32) {
        // it cannot have consumed what was not sent
        if self.sent.wrapping_sub(consumed) <= self.sent.wrapping_sub(self.peer_consumed) {
            self.peer_consumed = consumed;
        }
        self.peer_window = window;
    }

    /// The most that may have to be kept: what is there, and what the peer may send.
    pub(super) fn promised(&self) -> u32 {
        self.edge.wrapping_sub(self.consumed)
    }

    /// Whether the peer may have sent so much more.
    pub(super) fn may_take(&self, length: usize) -> bool {
        self.incoming.len() + length <= self.promised() as usize
    }

    /// So much was read, while so many streams share the windows and the others are promised so much. `true`: the peer
    /// must be told, and is not yet.
    pub(super) fn consume(&mut self, length: usize, streams: usize, others: u32) -> bool {
        let length = u32::try_from(length).unwrap_or(u32::MAX);
        self.consumed = self.consumed.wrapping_add(length);
        let share = SHARED_WINDOW / u32::try_from(streams.max(1)).unwrap_or(u32::MAX);
        let free = SHARED_WINDOW.saturating_sub(others);
        self.window = share.min(free).clamp(FIRST_WINDOW, LARGEST_WINDOW);
        let untold = self.consumed.wrapping_sub(self.told);
        let is_due = untold >= self.told_window / 2 || self.window > self.told_window;
        let is_new = is_due && !self.is_update_due && !self.peer_finished;
        self.is_update_due |= is_new;
        is_new
    }

    /// What the peer is told.
    pub(super) fn window_update(&mut self) -> [u8; WINDOW_UPDATE_BYTES] {
        self.is_update_due = false;
        self.told = self.consumed;
        self.told_window = self.window;
        // a window that shrinks takes nothing back
        let promised = self.promised().max(self.window);
        self.edge = self.consumed.wrapping_add(promised);
        let [c0, c1, c2, c3] = self.consumed.to_le_bytes();
        let [w0, w1, w2, w3] = self.window.to_le_bytes();
        [c0, c1, c2, c3, w0, w1, w2, w3]
    }
}

/// Takes bytes from the front of a buffer. One that is emptied gives its memory away with them: a stream that rests
/// holds none.
pub(super) fn take(buffer: &mut BytesMut, length: usize) -> Bytes {
    if length < buffer.len() {
        buffer.split_to(length).freeze()
    } else {
        std::mem::take(buffer).freeze()
    }
}
