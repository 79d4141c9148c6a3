//! A piece of a recording as it waits in memory, and as it is sent. A session that prints faster than the endpoint takes
//! its recording needs the disk of the node so much later.

use std::borrow::Cow;

use bytes::Bytes;
use moorline_protocol::transcript::Blocks;

/// A piece of a recording, packed here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Packed(Blocks);

impl Packed {
    pub(crate) fn new(piece: &[u8]) -> Self {
        Self(Blocks::new(piece))
    }

    /// One behind the other.
    pub(crate) fn joined(parts: Vec<Self>) -> Self {
        let parts: Vec<_> = parts.into_iter().map(|part| part.0).collect();
        Self(Blocks::joined(&parts))
    }

    /// Bytes of the recording.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Bytes of memory, and of the network.
    pub(crate) fn held_bytes(&self) -> usize {
        self.0.held_bytes()
    }

    /// As they go to an endpoint that takes them.
    pub(crate) fn blocks(&self) -> &Bytes {
        self.0.blocks()
    }

    /// As it stands in the recording, in pieces that are small whatever the length of all.
    pub(crate) fn pieces(&self) -> impl Iterator<Item = Cow<'_, [u8]>> {
        #[expect(clippy::expect_used, reason = "only `new` makes blocks")]
        self.0
            .pieces()
            .map(|piece| piece.expect("a block of ours is one"))
    }

    /// All of it.
    pub(crate) fn plain(&self) -> Vec<u8> {
        self.pieces().collect::<Vec<_>>().concat()
    }

    /// The bytes before `at`, and those behind.
    pub(crate) fn split(self, at: usize) -> (Self, Self) {
        if at == 0 {
            return (Self::default(), self);
        }
        if at >= self.len() {
            return (self, Self::default());
        }
        let plain = self.plain();
        let (head, tail) = plain.split_at_checked(at).unwrap_or((&plain, &[]));
        (Self::new(head), Self::new(tail))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_piece_can_be_cut_anywhere(words in prop::collection::vec("[ab]{0,9}", 0..600), at in 0..3000_usize) {
            let piece = words.concat().into_bytes();
            let at = at.min(piece.len());
            let (head, tail) = Packed::new(&piece).split(at);
            prop_assert_eq!((head.len(), tail.len()), (at, piece.len() - at));
            prop_assert_eq!([head.plain(), tail.plain()].concat(), piece);
        }
    }
}
