//! A piece of a recording as it waits in memory: compressed, where that makes it smaller. A session that prints faster
//! than the endpoint takes its recording needs the disk of the node so much later.

use bytes::Bytes;
use moorline_protocol::transcript::{compressed, decompressed};

/// A piece of a recording.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Packed {
    Plain(Bytes),
    /// An LZ4 block of our own, and of how many bytes it is.
    Lz4 {
        block: Bytes,
        length: usize,
    },
}

impl Default for Packed {
    fn default() -> Self {
        Self::Plain(Bytes::new())
    }
}

impl Packed {
    /// Compresses what gets smaller by that.
    pub(crate) fn new(piece: impl Into<Bytes>) -> Self {
        let piece = piece.into();
        match compressed(&piece) {
            // a copy: the block has room for the worst case
            Some(block) => Self::Lz4 {
                block: Bytes::copy_from_slice(&block),
                length: piece.len(),
            },
            None => Self::Plain(piece),
        }
    }

    /// Bytes of the recording.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Plain(piece) => piece.len(),
            Self::Lz4 { length, .. } => *length,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of memory.
    pub(crate) fn held_bytes(&self) -> usize {
        match self {
            Self::Plain(piece) => piece.len(),
            Self::Lz4 { block, .. } => block.len(),
        }
    }

    /// As it stands in the recording.
    pub(crate) fn plain(&self) -> Bytes {
        match self {
            Self::Plain(piece) => piece.clone(),
            #[expect(clippy::expect_used, reason = "only `new` makes blocks")]
            Self::Lz4 { block, length } => decompressed(block, *length)
                .expect("a block of ours is one")
                .into(),
        }
    }

    /// The bytes before `at`, and those behind; what is cut is not compressed any more.
    pub(crate) fn split(self, at: usize) -> (Self, Self) {
        if at == 0 {
            return (Self::default(), self);
        }
        if at >= self.len() {
            return (self, Self::default());
        }
        let mut head = self.plain();
        let tail = head.split_off(at);
        (Self::Plain(head), Self::Plain(tail))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_gets_smaller_takes_less_memory_and_the_rest_stays_as_it_is() {
        let large = Packed::new(vec![b'x'; 200_000]);
        assert_eq!(
            (large.len(), large.plain()),
            (200_000, vec![b'x'; 200_000].into())
        );
        assert!(large.held_bytes() < 2000, "{}", large.held_bytes());
        assert_eq!(Packed::new(&b"little"[..]), Packed::Plain(b"little"[..].into()));
        assert!(Packed::new(Bytes::new()).is_empty());
    }

    proptest! {
        #[test]
        fn a_piece_can_be_cut_anywhere(words in prop::collection::vec("[ab]{0,9}", 0..600), at in 0..3000_usize) {
            let piece = words.concat().into_bytes();
            let at = at.min(piece.len());
            let (head, tail) = Packed::new(piece.clone()).split(at);
            prop_assert_eq!((head.len(), tail.len()), (at, piece.len() - at));
            prop_assert_eq!([head.plain(), tail.plain()].concat(), piece);
        }
    }
}
