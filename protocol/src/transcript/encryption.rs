//! `z` lines: event lines that only the recipients of a recording read.

use std::fmt;

use base64::{Engine, prelude::BASE64_STANDARD};
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use thiserror::Error;
use zeroize::Zeroizing;

use super::{
    header::RecordingId,
    line::{Code, event_line},
    word::Time,
};

/// The data key of one recording. It must be used for no other: nonces are counted from zero.
#[derive(Clone)]
pub struct DataKey(Zeroizing<[u8; 32]>);

impl DataKey {
    /// Of 32 random bytes.
    #[must_use]
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(Zeroizing::new(bytes))
    }
}

impl fmt::Debug for DataKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DataKey(..)")
    }
}

/// So many places are tried for one line: a file of damaged lines must not take for ever.
const MOST_MISSED: u8 = 16;

/// Writes `z` lines.
#[derive(Debug)]
pub struct Encryptor(Cipher);

/// Reads `z` lines, from the first of a recording on.
#[derive(Debug)]
pub struct Decryptor {
    cipher: Cipher,
    /// Lines since the last that opened that may have been some, and could not be read.
    missed: u8,
}

/// A `z` line that was not written with this key, or not in this place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the encrypted line {0} of the transcript does not open with this key")]
pub struct NotDecrypted(
    /// Which, from 0.
    pub u64,
);

#[derive(Debug)]
struct Cipher {
    key: LessSafeKey,
    id: RecordingId,
    /// The number of the next line.
    next: u64,
}

impl Cipher {
    fn new(key: &DataKey, id: RecordingId) -> Self {
        let key = UnboundKey::new(&CHACHA20_POLY1305, key.0.as_slice()).expect("the key has 32 bytes");
        Self {
            key: LessSafeKey::new(key),
            id,
            next: 0,
        }
    }

    fn nonce(&mut self) -> Nonce {
        let mut nonce = [0; 12];
        let number = self.next.to_be_bytes();
        nonce
            .iter_mut()
            .skip(4)
            .zip(number)
            .for_each(|(to, from)| *to = from);
        self.next += 1;
        Nonce::assume_unique_for_key(nonce)
    }
}

impl Encryptor {
    /// For a recording that has no `z` line yet.
    #[must_use]
    pub fn new(key: &DataKey, id: RecordingId) -> Self {
        Self(Cipher::new(key, id))
    }

    /// One `z` line, with its line feed, for whole event lines of at most 6,000,000 bytes, so that it is no longer than a
    /// line may be.
    #[must_use]
    pub fn encrypt(&mut self, time: Time, lines: &[u8]) -> String {
        let nonce = self.0.nonce();
        let mut data = lines.to_vec();
        self.0
            .key
            .seal_in_place_append_tag(nonce, Aad::from(self.0.id.as_str()), &mut data)
            .expect("a line is far below the cipher's limit of 256 GiB");
        event_line(time, Code::Encrypted, &BASE64_STANDARD.encode(data))
    }
}

impl Decryptor {
    /// For a recording, from its begin.
    #[must_use]
    pub fn new(key: &DataKey, id: RecordingId) -> Self {
        Self {
            cipher: Cipher::new(key, id),
            missed: 0,
        }
    }

    /// A line could not be read that may have been the next `z` line.
    pub fn missed(&mut self) {
        self.missed = MOST_MISSED.min(self.missed + 1);
    }

    /// The event lines in the text of the next `z` line.
    ///
    /// # Errors
    ///
    /// It does not open. The next one may.
    pub fn decrypt(&mut self, text: &str) -> Result<Vec<u8>, NotDecrypted> {
        let number = self.cipher.next;
        let failed = NotDecrypted(number);
        let sealed = BASE64_STANDARD.decode(text);
        if let Ok(sealed) = sealed {
            for _ in 0..=self.missed {
                let nonce = self.cipher.nonce();
                let aad = Aad::from(self.cipher.id.as_str());
                let mut data = sealed.clone();
                if let Ok(opened) = self.cipher.key.open_in_place(nonce, aad, &mut data) {
                    let opened = opened.len();
                    data.truncate(opened);
                    self.missed = 0;
                    return Ok(data);
                }
            }
        }
        self.cipher.next = number + 1;
        Err(failed)
    }
}
