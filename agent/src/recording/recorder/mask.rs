//! Finds the values of secrets in a stream of bytes, wherever it is cut.

/// A shorter value is found everywhere, and hides more than it protects.
const LEAST_BYTES: usize = 4;
/// A longer value is sought in pieces of this length.
const MOST_BYTES: usize = 4096;

/// A part of the stream.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Piece<'a> {
    Plain(&'a [u8]),
    /// So many bytes of a secret.
    Secret(usize),
}

/// Secrets, and the end of the stream so far where one may begin.
#[derive(Debug, Default)]
pub(crate) struct Masker {
    /// The longest first.
    secrets: Vec<Vec<u8>>,
    held: Vec<u8>,
}

impl Masker {
    /// Each line of a value is a secret by itself: a terminal ends lines in its own way.
    pub(crate) fn new(values: &[String]) -> Self {
        let mut secrets: Vec<Vec<u8>> = values
            .iter()
            .flat_map(|value| value.lines())
            .flat_map(|line| line.as_bytes().chunks(MOST_BYTES).map(<[u8]>::to_vec))
            .filter(|piece| piece.len() >= LEAST_BYTES)
            .collect();
        secrets.sort_unstable_by_key(|secret| std::cmp::Reverse(secret.len()));
        Self {
            secrets,
            held: Vec::new(),
        }
    }

    /// What is known of the stream with these bytes. Where they end like the begin of a secret, that part waits.
    pub(crate) fn push(&mut self, bytes: &[u8], piece: impl FnMut(Piece<'_>)) {
        self.scan(bytes, false, piece);
    }

    /// Nothing follows, or nothing that is waited for.
    pub(crate) fn flush(&mut self, piece: impl FnMut(Piece<'_>)) {
        self.scan(&[], true, piece);
    }

    /// Bytes that wait.
    pub(crate) fn held_bytes(&self) -> usize {
        self.held.len()
    }

    fn scan(&mut self, bytes: &[u8], is_end: bool, mut piece: impl FnMut(Piece<'_>)) {
        let joined;
        let bytes = if self.held.is_empty() {
            bytes
        } else {
            let mut held = std::mem::take(&mut self.held);
            held.extend_from_slice(bytes);
            joined = held;
            &joined
        };
        let (mut plain, mut at) = (0, 0);
        while at < bytes.len() && !self.secrets.is_empty() {
            let rest = bytes.get(at..).unwrap_or_default();
            let begins = |secret: &Vec<u8>| secret.len() > rest.len() && secret.starts_with(rest);
            if !is_end && self.secrets.iter().any(begins) {
                break;
            }
            let found = self.secrets.iter().find(|secret| rest.starts_with(secret));
            let Some(secret) = found else {
                at += 1;
                continue;
            };
            if plain < at {
                piece(Piece::Plain(bytes.get(plain..at).unwrap_or_default()));
            }
            piece(Piece::Secret(secret.len()));
            at += secret.len();
            plain = at;
        }
        if self.secrets.is_empty() {
            at = bytes.len();
        }
        if plain < at {
            piece(Piece::Plain(bytes.get(plain..at).unwrap_or_default()));
        }
        self.held = bytes.get(at..).unwrap_or_default().to_vec();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The stream with `*` for each byte of a secret.
    fn masked(secrets: &[&str], chunks: &[&[u8]]) -> Vec<u8> {
        let secrets: Vec<String> = secrets.iter().map(|secret| (*secret).to_owned()).collect();
        let mut masker = Masker::new(&secrets);
        let mut seen = Vec::new();
        let mut see = |piece: Piece<'_>| match piece {
            Piece::Plain(plain) => seen.extend_from_slice(plain),
            Piece::Secret(bytes) => seen.resize(seen.len() + bytes, b'*'),
        };
        for chunk in chunks {
            masker.push(chunk, &mut see);
        }
        masker.flush(&mut see);
        assert_eq!(masker.held_bytes(), 0);
        seen
    }

    #[test]
    fn a_secret_is_found_where_it_stands_and_across_cuts() {
        assert_eq!(masked(&["hunter2"], &[b"pw=hunter2!"]), b"pw=*******!");
        assert_eq!(masked(&["hunter2"], &[b"pw=hun", b"", b"ter2"]), b"pw=*******");
        assert_eq!(masked(&["hunter2"], &[b"hunhunter2"]), b"hun*******");
        assert_eq!(
            masked(&["hunter2"], &[b"hunte"]),
            b"hunte",
            "what was none is shown at the end"
        );
    }

    #[test]
    fn of_a_value_however_long_nothing_is_shown() {
        let value = "abcdefgh".repeat(1500);
        let stream = format!("<{value}>");
        let chunks: Vec<&[u8]> = stream.as_bytes().chunks(1000).collect();
        let expected = format!("<{}>", "*".repeat(value.len()));
        assert_eq!(masked(&[&value], &chunks), expected.as_bytes());
    }

    #[test]
    fn the_longer_of_two_secrets_counts_even_if_the_shorter_one_was_read_first() {
        assert_eq!(masked(&["abcd", "abcdef"], &[b"abcd", b"ef"]), b"******");
        assert_eq!(masked(&["abcd", "abcdef"], &[b"abcd", b"xx"]), b"****xx");
    }

    #[test]
    fn lines_of_a_secret_are_found_however_they_are_ended_and_short_ones_are_not_looked_for() {
        assert_eq!(
            masked(&["line-one\nline-two\nab"], &[b"line-one\r\nline-two\r\nab"]),
            b"********\r\n********\r\nab"
        );
    }

    proptest! {
        #[test]
        fn however_a_stream_is_cut_the_same_is_masked(
            text in "[abc]{0,60}",
            secrets in proptest::collection::vec("[abc]{4,7}", 0..4),
            cuts in proptest::collection::vec(0_usize..60, 0..8),
        ) {
            let secrets: Vec<&str> = secrets.iter().map(String::as_str).collect();
            let whole = masked(&secrets, &[text.as_bytes()]);
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(text.len())).collect();
            cuts.extend([0, text.len()]);
            cuts.sort_unstable();
            let chunks: Vec<&[u8]> = cuts.windows(2).map(|cut| &text.as_bytes()[cut[0]..cut[1]]).collect();
            let cut = masked(&secrets, &chunks);
            prop_assert_eq!(cut.len(), text.len());
            prop_assert_eq!(&cut, &whole);
            let shown = String::from_utf8(whole).unwrap();
            for secret in secrets {
                prop_assert!(!shown.contains(secret), "{shown}");
            }
        }
    }
}
