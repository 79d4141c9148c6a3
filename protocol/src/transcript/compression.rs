//! A piece of a recording on its way to the endpoint, as an LZ4 block. A link that is slower than its session carries the
//! recording beside the output, which it would halve; what a terminal shows is several times smaller so. Nothing that is
//! stored or sealed has this form.

/// A compressed piece is of at most so many bytes, so that few of them make an endpoint hold little.
pub const MAX_COMPRESSED_FROM: usize = 256 * 1024;
/// Less is not worth it.
const LEAST_BYTES: usize = 1024;

/// What came is no LZ4 block of the length that it was said to have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it is no LZ4 block of {length} bytes, at most {MAX_COMPRESSED_FROM}")]
pub struct NotCompressed {
    /// What it was said to be of, in bytes.
    pub length: usize,
}

/// Compresses a piece. `None`: it stays as it is, being small or none that gets smaller.
#[must_use]
pub fn compressed(piece: &[u8]) -> Option<Vec<u8>> {
    if !(LEAST_BYTES..=MAX_COMPRESSED_FROM).contains(&piece.len()) {
        return None;
    }
    let block = lz4_flex::block::compress(piece);
    (block.len() <= piece.len() / 8 * 7).then_some(block)
}

/// Undoes [`compressed`], for a piece of `length` bytes.
///
/// # Errors
/// The block is damaged, or of another length.
pub fn decompressed(block: &[u8], length: usize) -> Result<Vec<u8>, NotCompressed> {
    let refused = NotCompressed { length };
    if length > MAX_COMPRESSED_FROM {
        return Err(refused);
    }
    let mut piece = vec![0; length];
    match lz4_flex::block::decompress_into(block, &mut piece) {
        Ok(written) if written == length => Ok(piece),
        Ok(_) | Err(_) => Err(refused),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_a_terminal_shows_gets_smaller_and_comes_back() {
        let line = "[12.000001,\"o\",\"drwxr-xr-x 2 root root 4096 Nov 27 05:12 main\\r\\n\"]\n";
        let piece = line.repeat(2000);
        let block = compressed(piece.as_bytes()).unwrap();
        assert!(block.len() < piece.len() / 10, "{}", block.len());
        assert_eq!(decompressed(&block, piece.len()).unwrap(), piece.as_bytes());
    }

    /// The bytes of an endpoint of another release must read the same.
    #[test]
    fn a_block_is_spelt_so() {
        let piece = [b"a".repeat(1020), b"bcde".to_vec()].concat();
        let block = [
            0x1f, b'a', 1, 0, 0xff, 0xff, 0xff, 0xea, 0x50, b'a', b'b', b'c', b'd', b'e',
        ];
        assert_eq!(decompressed(&block, piece.len()).unwrap(), piece);
    }

    #[test]
    fn little_and_what_does_not_get_smaller_stays_as_it_is() {
        assert_eq!(compressed(&[b'x'; LEAST_BYTES - 1]), None);
        let mut state = 1_u64;
        let noise: Vec<u8> = (0..100_000)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                state.to_be_bytes()[0]
            })
            .collect();
        assert_eq!(compressed(&noise), None);
        assert_eq!(compressed(&vec![b'x'; MAX_COMPRESSED_FROM + 1]), None);
    }

    #[test]
    fn a_block_of_another_length_or_a_damaged_one_is_refused() {
        let piece = [b'x'; 5000];
        let block = compressed(&piece).unwrap();
        for length in [0, 4999, 5001, MAX_COMPRESSED_FROM + 1, usize::MAX] {
            assert_eq!(decompressed(&block, length), Err(NotCompressed { length }));
        }
        assert_eq!(
            decompressed(&block[..block.len() - 1], 5000),
            Err(NotCompressed { length: 5000 })
        );
        assert_eq!(decompressed(b"", 0).unwrap_or_default(), b"");
    }

    proptest! {
        #[test]
        fn any_piece_comes_back(words in prop::collection::vec("[ab]{0,9}|\\PC{0,3}", 0..400)) {
            let piece = words.concat().into_bytes();
            if let Some(block) = compressed(&piece) {
                prop_assert_eq!(decompressed(&block, piece.len()).unwrap(), piece);
            }
        }

        #[test]
        fn no_bytes_are_too_strange(block in prop::collection::vec(any::<u8>(), 0..300), length in 0..5000_usize) {
            if let Ok(piece) = decompressed(&block, length) {
                prop_assert_eq!(piece.len(), length);
            }
        }
    }
}
