//! Flags: four bytes, big-endian, beside the data of a Port session (client-wire §3.4).

use bytes::Bytes;

/// The local program has gone: the node is to close its connection.
pub(super) const DISCONNECT: u32 = 1;
/// The session is to end.
pub(super) const TERMINATE: u32 = 2;
/// The node could not connect.
pub(super) const CONNECT_FAILED: u32 = 3;

pub(super) fn payload(flag: u32) -> Bytes {
    Bytes::copy_from_slice(&flag.to_be_bytes())
}

pub(super) fn parse(payload: &[u8]) -> Option<u32> {
    payload.first_chunk().map(|bytes| u32::from_be_bytes(*bytes))
}
