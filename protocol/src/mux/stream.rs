//! One stream of a multiplexer: what waits in it, and how much more may.

use bytes::{Bytes, BytesMut};

/// What a stream may be sent before it has said anything of its window.
const FIRST_WINDOW: u32 = 64 * 1024;
/// Windows of all streams together, as far as each has [`FIRST_WINDOW`].
const SHARED_WINDOW: u32 = 16 * 1024 * 1024;
/// The largest window of one stream.
const LARGEST_WINDOW: u32 = 2 * 1024 * 1024;
/// Data that waits to be sent.
const SEND_BYTES: usize = 256 * 1024;
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
    /// A write did not take everything: its writer waits to be told.
    pub(super) is_starved: bool,
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
    /// The largest one that it was ever told: it may have counted on it.
    largest: u32,
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
            is_starved: false,
            sent: 0,
            peer_consumed: 0,
            peer_window: FIRST_WINDOW,
            consumed: 0,
            told: 0,
            window: FIRST_WINDOW,
            told_window: FIRST_WINDOW,
            largest: FIRST_WINDOW,
            is_update_due: false,
        }
    }

    pub(super) fn is_over(&self) -> bool {
        self.peer_finished && self.finish_sent && self.incoming.is_empty()
    }

    /// Bytes that may be written now.
    pub(super) fn writable(&self, version: u8) -> usize {
        if self.finish_wanted || (version == 1 && self.peer_finished) {
            return 0;
        }
        let buffer = SEND_BYTES.saturating_sub(self.outgoing.len());
        if version == 1 {
            return buffer;
        }
        let on_its_way = self.sent.wrapping_sub(self.peer_consumed);
        let credit = self.peer_window.saturating_sub(on_its_way) as usize;
        buffer.min(credit.saturating_sub(self.outgoing.len()))
    }

    /// The peer consumed so much in all, and takes a window. `true`: the writer that waits can go on.
    pub(super) fn updated(&mut self, consumed: u32, window: u32) -> bool {
        // it cannot have consumed what was not sent
        if self.sent.wrapping_sub(consumed) <= self.sent.wrapping_sub(self.peer_consumed) {
            self.peer_consumed = consumed;
        }
        self.peer_window = window;
        let is_fed = self.is_starved && self.writable(2) > 0;
        if is_fed {
            self.is_starved = false;
        }
        is_fed
    }

    /// Whether the peer may have sent so much more.
    pub(super) fn may_take(&self, length: usize) -> bool {
        self.incoming.len() + length <= self.largest as usize
    }

    /// So much was read, while so many streams share the windows. `true`: the peer must be told, and is not yet.
    pub(super) fn consume(&mut self, length: usize, streams: usize) -> bool {
        let length = u32::try_from(length).unwrap_or(u32::MAX);
        self.consumed = self.consumed.wrapping_add(length);
        let share = SHARED_WINDOW / u32::try_from(streams.max(1)).unwrap_or(u32::MAX);
        self.window = share.clamp(FIRST_WINDOW, LARGEST_WINDOW);
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
        self.largest = self.largest.max(self.window);
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
