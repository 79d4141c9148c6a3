//! Text as the inside of a JSON string.

use moorline_protocol::transcript::json_plain_length;

/// As [`escape`], of bytes that are not all UTF-8.
pub(super) fn escape_lossy(into: &mut Vec<u8>, bytes: &[u8]) {
    for chunk in bytes.utf8_chunks() {
        escape(into, chunk.valid().as_bytes());
        if !chunk.invalid().is_empty() {
            into.extend_from_slice("\u{fffd}".as_bytes());
        }
    }
}

/// Appends text as the inside of a JSON string. Runs that need no escape, nearly everything, are copied whole.
pub(super) fn escape(into: &mut Vec<u8>, text: &[u8]) {
    let mut rest = text;
    loop {
        let plain = json_plain_length(rest);
        let (run, after) = rest.split_at(plain);
        into.extend_from_slice(run);
        let Some((special, after)) = after.split_first() else {
            return;
        };
        match special {
            b'"' => into.extend_from_slice(b"\\\""),
            b'\\' => into.extend_from_slice(b"\\\\"),
            b'\n' => into.extend_from_slice(b"\\n"),
            b'\r' => into.extend_from_slice(b"\\r"),
            b'\t' => into.extend_from_slice(b"\\t"),
            control => {
                const HEX: &[u8; 16] = b"0123456789abcdef";
                into.extend_from_slice(b"\\u00");
                into.push(HEX[usize::from(control >> 4)]);
                into.push(HEX[usize::from(control & 0x0F)]);
            }
        }
        rest = after;
    }
}
