//! Bytes as lower-case hex digits, which have one spelling.

use std::fmt;

/// Writes two digits for each byte.
pub(crate) fn write(f: &mut impl fmt::Write, bytes: &[u8]) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

/// Reads exactly `N` bytes: lower-case digits, nothing else.
pub(crate) fn parse<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    let (pairs, []) = text.as_chunks::<2>() else {
        return None;
    };
    if pairs.len() != N {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
        *byte = digit(*high)? << 4 | digit(*low)?;
    }
    Some(bytes)
}

fn digit(text: u8) -> Option<u8> {
    match text {
        b'0'..=b'9' => Some(text - b'0'),
        b'a'..=b'f' => Some(text - b'a' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_have_one_spelling() {
        let mut text = String::new();
        write(&mut text, &[0, 0x1f, 0xa0, 0xff]).unwrap();
        assert_eq!(text, "001fa0ff");
        assert_eq!(parse::<4>(text.as_bytes()), Some([0, 0x1f, 0xa0, 0xff]));
        for other in ["001FA0FF", "001fa0f", "001fa0ff00", "001fa0fg", "+01fa0ff", ""] {
            assert_eq!(parse::<4>(other.as_bytes()), None, "{other}");
        }
    }
}
