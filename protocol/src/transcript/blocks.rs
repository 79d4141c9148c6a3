//! A piece of a recording on its way to the endpoint, and in memory before: LZ4 blocks, each with its lengths. A link that
//! is slower than its session carries the recording beside the output, which it would halve; what a terminal shows is
//! several times smaller so. Nothing that is stored or sealed has this form.
//!
//! A block is the length of what it is of, the length of what follows, both as 32 bits, the most significant byte first;
//! then the LZ4 block, or the bytes themselves, where both lengths are the same.

use std::borrow::Cow;

use bytes::{BufMut as _, Bytes};
use lz4_flex::block;

/// One block is of at most so many bytes: LZ4 looks no further back, and whoever unpacks holds no more.
pub const MAX_BLOCK_BYTES: usize = 64 * 1024;
/// What is packed together is of at most so many.
pub const MAX_UNPACKED_BYTES: usize = 8 * 1024 * 1024;
/// Less is not worth it.
const LEAST_BYTES: usize = 1024;
const LENGTHS_BYTES: usize = 8;

/// What came is not packed as it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "these are no LZ4 blocks with their lengths, each of at most {MAX_BLOCK_BYTES} bytes, together {MAX_UNPACKED_BYTES}"
)]
pub struct BadBlocks;

/// A piece of a recording, packed. The bytes in its blocks may be damaged where it came from somebody else.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Blocks {
    blocks: Bytes,
    /// Of what is packed.
    length: usize,
}

impl Blocks {
    /// Packs a piece, whatever its length.
    #[must_use]
    pub fn new(piece: &[u8]) -> Self {
        let mut blocks = Vec::new();
        for bytes in piece.chunks(MAX_BLOCK_BYTES) {
            push_block(&mut blocks, bytes);
        }
        Self {
            // a copy: what it is made in has room for the worst case
            blocks: Bytes::copy_from_slice(&blocks),
            length: piece.len(),
        }
    }

    /// Takes blocks as they came, whose bytes are looked at only when they are unpacked.
    ///
    /// # Errors
    /// The lengths are not those of blocks, or of too much.
    pub fn parse(blocks: Bytes) -> Result<Self, BadBlocks> {
        let mut length = 0;
        let mut rest = &blocks[..];
        while !rest.is_empty() {
            let (block, behind) = first_block(rest).ok_or(BadBlocks)?;
            length += block.length;
            rest = behind;
        }
        match length <= MAX_UNPACKED_BYTES {
            true => Ok(Self { blocks, length }),
            false => Err(BadBlocks),
        }
    }

    /// One behind the other.
    #[must_use]
    pub fn joined(parts: &[Self]) -> Self {
        let blocks: Vec<&[u8]> = parts.iter().map(|part| &part.blocks[..]).collect();
        Self {
            blocks: blocks.concat().into(),
            length: parts.iter().map(Self::len).sum(),
        }
    }

    /// As they go onto the wire.
    #[must_use]
    pub fn blocks(&self) -> &Bytes {
        &self.blocks
    }

    /// Bytes of the recording.
    #[must_use]
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Bytes of memory.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.blocks.len()
    }

    /// What is packed, in pieces of at most [`MAX_BLOCK_BYTES`], so that never more is held; an error where a block is
    /// damaged. Small blocks come together: whoever takes a piece has work with each, however little is in it.
    pub fn pieces(&self) -> impl Iterator<Item = Result<Cow<'_, [u8]>, BadBlocks>> {
        let mut rest = &self.blocks[..];
        let mut damaged = false;
        std::iter::from_fn(move || {
            if std::mem::take(&mut damaged) {
                return Some(Err(BadBlocks));
            }
            let (block, behind) = first_block(rest)?;
            rest = behind;
            let mut piece = match block.unpack() {
                Ok(piece) => piece,
                Err(error) => return Some(Err(error)),
            };
            while let Some((block, behind)) = first_block(rest)
                && piece.len() + block.length <= MAX_BLOCK_BYTES
            {
                rest = behind;
                match block.unpack() {
                    Ok(more) => piece.to_mut().extend_from_slice(&more),
                    Err(BadBlocks) => {
                        damaged = true;
                        break;
                    }
                }
            }
            Some(Ok(piece))
        })
    }

    /// All of what is packed.
    ///
    /// # Errors
    /// A block is damaged.
    pub fn plain(&self) -> Result<Vec<u8>, BadBlocks> {
        let mut plain = Vec::with_capacity(self.length);
        for piece in self.pieces() {
            plain.extend_from_slice(&piece?);
        }
        Ok(plain)
    }
}

struct Block<'a> {
    /// Of what it is of.
    length: usize,
    bytes: &'a [u8],
}

impl<'a> Block<'a> {
    fn unpack(self) -> Result<Cow<'a, [u8]>, BadBlocks> {
        let Self { length, bytes } = self;
        if bytes.len() == length {
            return Ok(Cow::Borrowed(bytes));
        }
        let mut piece = vec![0; length];
        match block::decompress_into(bytes, &mut piece) {
            Ok(written) if written == length => Ok(Cow::Owned(piece)),
            Ok(_) | Err(_) => Err(BadBlocks),
        }
    }
}

/// The first block and what is behind it. `None`: there is none of allowed lengths.
fn first_block(blocks: &[u8]) -> Option<(Block<'_>, &[u8])> {
    let (length, rest) = blocks.split_first_chunk()?;
    let (stored, rest) = rest.split_first_chunk()?;
    let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
    let stored = usize::try_from(u32::from_be_bytes(*stored)).ok()?;
    let is_allowed = (1..=MAX_BLOCK_BYTES).contains(&length) && (1..=length).contains(&stored);
    let (bytes, behind) = rest.split_at_checked(stored).filter(|_| is_allowed)?;
    Some((Block { length, bytes }, behind))
}

/// `piece`: not empty, at most [`MAX_BLOCK_BYTES`].
fn push_block(blocks: &mut Vec<u8>, piece: &[u8]) {
    let begin = blocks.len();
    let room = LENGTHS_BYTES + block::get_maximum_output_size(piece.len());
    blocks.resize(begin + room, 0);
    let packed = match blocks.get_mut(begin + LENGTHS_BYTES..) {
        Some(room) if piece.len() >= LEAST_BYTES => block::compress_into(piece, room).ok(),
        _ => None,
    };
    // little gain is not worth the time of the other side
    let packed = packed.filter(|&packed| packed <= piece.len() / 8 * 7);
    let stored = packed.unwrap_or(piece.len());
    let mut lengths = Vec::with_capacity(LENGTHS_BYTES);
    for length in [piece.len(), stored] {
        lengths.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    }
    blocks.truncate(begin + LENGTHS_BYTES + packed.unwrap_or(0));
    if let Some(room) = blocks.get_mut(begin..begin + LENGTHS_BYTES) {
        room.copy_from_slice(&lengths);
    }
    if packed.is_none() {
        blocks.extend_from_slice(piece);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_a_terminal_shows_gets_smaller_and_comes_back() {
        let line = "[12.000001,\"o\",\"drwxr-xr-x 2 root root 4096 Nov 27 05:12 main\\r\\n\"]\n";
        let piece = line.repeat(4000);
        let packed = Blocks::new(piece.as_bytes());
        assert_eq!(packed.len(), piece.len());
        assert!(packed.held_bytes() < piece.len() / 10, "{}", packed.held_bytes());
        assert_eq!(packed.plain().unwrap(), piece.as_bytes());
        assert!(
            packed
                .pieces()
                .all(|piece| piece.unwrap().len() <= MAX_BLOCK_BYTES)
        );
    }

    /// The bytes of a node or an endpoint of another release must read the same.
    #[test]
    fn blocks_are_spelt_so() {
        let lz4 = [
            0x1f, b'a', 1, 0, 0xff, 0xff, 0xff, 0xea, 0x50, b'a', b'b', b'c', b'd', b'e',
        ];
        let few = [&[0, 0, 0, 3, 0, 0, 0, 3][..], b"few"].concat();
        let bytes = [&[0, 0, 4, 0, 0, 0, 0, 14][..], &lz4, &few].concat();
        let blocks = Blocks::parse(bytes.into()).unwrap();
        assert_eq!(blocks.len(), 1027);
        let expected = [b"a".repeat(1020), b"bcdefew".to_vec()].concat();
        assert_eq!(blocks.plain().unwrap(), expected);
        assert_eq!(Blocks::new(b"few").blocks()[..], few);
    }

    #[test]
    fn little_and_what_does_not_get_smaller_stays_as_it_is() {
        let mut state = 1_u64;
        let noise: Vec<u8> = (0..100_000)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                state.to_be_bytes()[0]
            })
            .collect();
        for piece in [&noise[..], &[b'x'; LEAST_BYTES - 1]] {
            let packed = Blocks::new(piece);
            let blocks = piece.len().div_ceil(MAX_BLOCK_BYTES);
            assert_eq!(packed.held_bytes(), piece.len() + blocks * LENGTHS_BYTES);
            assert_eq!(packed.plain().unwrap(), piece);
        }
        assert_eq!(Blocks::new(b""), Blocks::default());
    }

    #[test]
    fn other_lengths_than_those_of_blocks_are_refused() {
        let block = |length: u32, stored: u32, bytes: usize| {
            let mut block = Vec::new();
            block.put_u32(length);
            block.put_u32(stored);
            block.put_bytes(b'x', bytes);
            block
        };
        assert!(Blocks::parse(block(5, 5, 5).into()).is_ok());
        for wrong in [
            block(0, 0, 0),
            block(5, 0, 0),
            block(5, 6, 6),
            block(5, 5, 4),
            block(65_537, 5, 5),
            block(u32::MAX, u32::MAX, 100),
            block(5, 5, 6),
            b"x".to_vec(),
            block(65_536, 1, 1).repeat(129),
        ] {
            assert_eq!(Blocks::parse(wrong.into()), Err(BadBlocks));
        }
        assert_eq!(
            Blocks::parse(block(65_536, 1, 1).repeat(128).into())
                .unwrap()
                .len(),
            MAX_UNPACKED_BYTES
        );
    }

    /// Whoever takes a piece writes and hashes it: a MiB must not be a million of them.
    #[test]
    fn however_small_blocks_are_pieces_are_few() {
        let text: Vec<u8> = (0..251).cycle().take(MAX_UNPACKED_BYTES).collect();
        for bytes in [1, 7, 5000, MAX_BLOCK_BYTES / 2 + 1, MAX_BLOCK_BYTES] {
            let blocks: Vec<_> = text.chunks(bytes).map(Blocks::new).collect();
            let packed = Blocks::joined(&blocks);
            let pieces: Vec<_> = packed.pieces().map(Result::unwrap).collect();
            assert!(
                pieces.len() <= 2 * MAX_UNPACKED_BYTES / MAX_BLOCK_BYTES,
                "{bytes}"
            );
            assert!(pieces.iter().all(|piece| piece.len() <= MAX_BLOCK_BYTES));
            assert_eq!(pieces.concat(), text);
        }
    }

    #[test]
    fn a_damaged_block_is_told_and_those_before_it_are_had() {
        let parts = [Blocks::new(b"good"), Blocks::new(&[b'x'; 5000])];
        let mut blocks = Blocks::joined(&parts).blocks().to_vec();
        let first_of_lz4 = parts[0].held_bytes() + LENGTHS_BYTES;
        blocks[first_of_lz4] ^= 0xff;
        let packed = Blocks::parse(blocks.into()).unwrap();
        let pieces: Vec<_> = packed.pieces().collect();
        assert_eq!(pieces, [Ok(Cow::Borrowed(&b"good"[..])), Err(BadBlocks)]);
        assert_eq!(packed.plain(), Err(BadBlocks));
    }

    proptest! {
        #[test]
        fn any_piece_comes_back(words in prop::collection::vec("[ab]{0,9}|\\PC{0,3}", 0..400), at in any::<prop::sample::Index>()) {
            let piece = words.concat().into_bytes();
            let (head, tail) = piece.split_at(at.index(piece.len() + 1));
            let packed = Blocks::joined(&[Blocks::new(head), Blocks::new(tail)]);
            prop_assert_eq!(packed.len(), piece.len());
            prop_assert_eq!(packed.plain().unwrap(), piece);
        }

        #[test]
        fn no_bytes_are_too_strange(
            blocks in prop::collection::vec(any::<u8>(), 0..300),
            (length, stored) in (0..5000_u32, 0..300_u32),
        ) {
            let lengths = [length.to_be_bytes(), stored.to_be_bytes()].concat();
            for blocks in [blocks.clone(), [lengths, blocks].concat()] {
                if let Ok(packed) = Blocks::parse(blocks.into())
                    && let Ok(plain) = packed.plain()
                {
                    prop_assert_eq!(plain.len(), packed.len());
                }
            }
        }
    }
}
