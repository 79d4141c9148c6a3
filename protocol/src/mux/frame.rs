//! Frames of the multiplexer: eight bytes of header, little-endian, and data. They come cut anywhere.

/// Version, command, length of the data, number of the stream.
pub(super) const HEADER_BYTES: usize = 8;

pub(super) const OPEN: u8 = 0;
pub(super) const FINISH: u8 = 1;
pub(super) const DATA: u8 = 2;
pub(super) const KEEP_ALIVE: u8 = 3;
/// Version 2 only.
pub(super) const UPDATE: u8 = 4;
/// Ours, in version 2: both directions end at once, whatever is under way in them.
pub(super) const RESET: u8 = 5;

/// The number of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub(super) u32);

impl StreamId {
    /// As it is on the wire.
    pub fn number(self) -> u64 {
        self.0.into()
    }
}

impl std::fmt::Display for StreamId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// Why the bytes of the peer are no frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MuxError {
    #[error("multiplexed data has version {0}")]
    Version(u8),
    #[error("multiplexed data has the unknown command {0}")]
    Command(u8),
    #[error("a frame of the multiplexer has {length} bytes for command {command}")]
    Length { command: u8, length: u16 },
    #[error("stream {0} got more data than its window allows")]
    WindowExceeded(StreamId),
    #[error("the peer causes more frames than it takes")]
    TooManyFrames,
}

/// A frame, or a part of its data.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Received<'a> {
    Open(StreamId),
    Finish(StreamId),
    Data(StreamId, &'a [u8]),
    KeepAlive,
    Reset(StreamId),
    Update {
        id: StreamId,
        consumed: u32,
        window: u32,
    },
}

pub(super) fn header(version: u8, command: u8, length: u16, id: StreamId) -> [u8; HEADER_BYTES] {
    let [l0, l1] = length.to_le_bytes();
    let [i0, i1, i2, i3] = id.0.to_le_bytes();
    [version, command, l0, l1, i0, i1, i2, i3]
}

#[derive(Debug)]
enum Expected {
    Header,
    /// So many bytes of a stream's data.
    Data(StreamId, usize),
    Update(StreamId),
}

/// Puts frames together again.
#[derive(Debug)]
pub(super) struct FrameReader {
    version: u8,
    expected: Expected,
    /// The part of a header, or of a window update, that has come. Both have eight bytes.
    part: [u8; HEADER_BYTES],
    length: usize,
}

impl FrameReader {
    pub(super) fn new(version: u8) -> Self {
        Self {
            version,
            expected: Expected::Header,
            part: [0; HEADER_BYTES],
            length: 0,
        }
    }

    /// Reads on; `rest` keeps what was not needed. `None`: more bytes are needed, or there is nothing to say.
    pub(super) fn read<'a>(&mut self, rest: &mut &'a [u8]) -> Result<Option<Received<'a>>, MuxError> {
        if let Expected::Data(id, length) = self.expected {
            let here = length.min(rest.len());
            let (data, after) = rest.split_at(here);
            *rest = after;
            self.expected = if here == length {
                Expected::Header
            } else {
                Expected::Data(id, length - here)
            };
            return Ok(Some(Received::Data(id, data)));
        }
        let Some(part) = self.complete(rest) else {
            return Ok(None);
        };
        if let Expected::Update(id) = self.expected {
            self.expected = Expected::Header;
            let [c0, c1, c2, c3, w0, w1, w2, w3] = part;
            return Ok(Some(Received::Update {
                id,
                consumed: u32::from_le_bytes([c0, c1, c2, c3]),
                window: u32::from_le_bytes([w0, w1, w2, w3]),
            }));
        }
        self.on_header(part)
    }

    /// The eight bytes, once they are there.
    fn complete(&mut self, rest: &mut &[u8]) -> Option<[u8; HEADER_BYTES]> {
        let (part, after) = rest.split_at(rest.len().min(HEADER_BYTES - self.length));
        *rest = after;
        for (place, byte) in self.part.iter_mut().skip(self.length).zip(part) {
            *place = *byte;
        }
        self.length += part.len();
        if self.length < HEADER_BYTES {
            return None;
        }
        self.length = 0;
        Some(self.part)
    }

    fn on_header<'a>(&mut self, header: [u8; HEADER_BYTES]) -> Result<Option<Received<'a>>, MuxError> {
        let [version, command, l0, l1, i0, i1, i2, i3] = header;
        if version != self.version {
            return Err(MuxError::Version(version));
        }
        let length = u16::from_le_bytes([l0, l1]);
        let id = StreamId(u32::from_le_bytes([i0, i1, i2, i3]));
        let received = match (command, length) {
            (OPEN, 0) => Received::Open(id),
            (FINISH, 0) => Received::Finish(id),
            (KEEP_ALIVE, 0) => Received::KeepAlive,
            (DATA, 0) => return Ok(None),
            (DATA, _) => {
                self.expected = Expected::Data(id, usize::from(length));
                return Ok(None);
            }
            (UPDATE, 8) if self.version == 2 => {
                self.expected = Expected::Update(id);
                return Ok(None);
            }
            (RESET, 0) if self.version == 2 => Received::Reset(id),
            (OPEN | FINISH | KEEP_ALIVE, _) => return Err(MuxError::Length { command, length }),
            (UPDATE | RESET, _) if self.version == 2 => return Err(MuxError::Length { command, length }),
            _ => return Err(MuxError::Command(command)),
        };
        Ok(Some(received))
    }
}
