//! Files of the age v1 format (age-encryption.org/v1) to X25519 recipients: only written, and only small ones.

use std::{fmt, str::FromStr};

use base64::{Engine as _, engine::general_purpose::STANDARD_NO_PAD};
use ring::{
    aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey},
    agreement::{EphemeralPrivateKey, UnparsedPublicKey, X25519, agree_ephemeral},
    error::Unspecified,
    hkdf::{HKDF_SHA256, KeyType, Salt},
    hmac,
    rand::{SecureRandom as _, SystemRandom},
};

const CHARACTERS: &[u8; 32] = b"qpzry9x8gf2tvdw0s3jn54khce6mua7l";
const PREFIX: &str = "age";
/// Characters of the checksum.
const CHECKSUM: usize = 6;
const VERSION_LINE: &str = "age-encryption.org/v1\n";
const X25519_LABEL: &[u8] = b"age-encryption.org/v1/X25519";
/// The nonce of the only chunk of a file: number 0, and the mark that it is the last.
const ONLY_CHUNK: [u8; 12] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
/// A chunk that is full must have another behind it.
const MAX_DATA_BYTES: usize = 64 * 1024;

/// A text that names no X25519 recipient.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RecipientError {
    #[error("it does not begin with age1")]
    Prefix,
    #[error("its checksum is wrong: a character is missing or another one")]
    Checksum,
    #[error("it is no key of 32 bytes")]
    Length,
}

/// Who can open a file.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Recipient([u8; 32]);

impl fmt::Debug for Recipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Recipient(..)")
    }
}

impl FromStr for Recipient {
    type Err = RecipientError;

    /// Reads `age1…`, which is Bech32 (BIP 173).
    fn from_str(text: &str) -> Result<Self, RecipientError> {
        let data = text
            .strip_prefix(PREFIX)
            .and_then(|rest| rest.strip_prefix('1'))
            .ok_or(RecipientError::Prefix)?;
        let values = data
            .bytes()
            .map(|byte| CHARACTERS.iter().position(|known| *known == byte))
            .map(|position| position.and_then(|position| u8::try_from(position).ok()))
            .collect::<Option<Vec<u8>>>()
            .ok_or(RecipientError::Checksum)?;
        let high = PREFIX.bytes().map(|byte| byte >> 5);
        let low = PREFIX.bytes().map(|byte| byte & 31);
        if checksum(high.chain([0]).chain(low).chain(values.iter().copied())) != 1 {
            return Err(RecipientError::Checksum);
        }
        let payload = values.len().saturating_sub(CHECKSUM);
        let bytes = eight_bits(values.get(..payload).unwrap_or_default()).ok_or(RecipientError::Length)?;
        bytes.try_into().map(Self).map_err(|_| RecipientError::Length)
    }
}

fn checksum(values: impl Iterator<Item = u8>) -> u32 {
    const GENERATOR: [u32; 5] = [0x3b6a_57b2, 0x2650_8e6d, 0x1ea1_19fa, 0x3d42_33dd, 0x2a14_62b3];
    values.fold(1, |sum, value| {
        let next = ((sum & 0x01ff_ffff) << 5) ^ u32::from(value);
        let top = sum >> 25;
        GENERATOR
            .iter()
            .enumerate()
            .filter(|(bit, _)| (top >> bit) & 1 == 1)
            .fold(next, |next, (_, generator)| next ^ generator)
    })
}

/// Groups of five bits as bytes; what is left over must be less than a group, and zero.
fn eight_bits(values: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let (mut held, mut bits) = (0_u32, 0_u32);
    for value in values {
        held = (held << 5) | u32::from(*value);
        bits += 5;
        if bits >= 8 {
            bits -= 8;
            bytes.push(u8::try_from((held >> bits) & 0xff).unwrap_or_default());
        }
    }
    let left = held & ((1 << bits) - 1);
    (bits < 5 && left == 0).then_some(bytes)
}

/// The file that holds these bytes, fewer than 64 KiB, for these recipients.
///
/// # Errors
/// The operating system gives no randomness, a recipient's key is no point of the curve, or the data is too long.
pub(crate) fn seal(recipients: &[Recipient], data: &[u8]) -> Result<Vec<u8>, Unspecified> {
    if data.len() >= MAX_DATA_BYTES {
        return Err(Unspecified);
    }
    let random = SystemRandom::new();
    let mut file_key = [0; 16];
    random.fill(&mut file_key)?;
    let mut header = VERSION_LINE.to_owned();
    for recipient in recipients {
        header.push_str(&stanza(recipient, &file_key, &random)?);
    }
    header.push_str("---");
    let mac_key = hmac::Key::new(hmac::HMAC_SHA256, &derive(&[], &file_key, b"header")?);
    let mac = hmac::sign(&mac_key, header.as_bytes());
    let mut nonce = [0; 16];
    random.fill(&mut nonce)?;
    let key = derive(&nonce, &file_key, b"payload")?;
    let mut file = format!("{header} {}\n", STANDARD_NO_PAD.encode(mac)).into_bytes();
    file.extend_from_slice(&nonce);
    file.extend_from_slice(&encrypt(&key, ONLY_CHUNK, data)?);
    Ok(file)
}

fn stanza(recipient: &Recipient, file_key: &[u8; 16], random: &SystemRandom) -> Result<String, Unspecified> {
    let ephemeral = EphemeralPrivateKey::generate(&X25519, random)?;
    let share = ephemeral.compute_public_key()?;
    let salt = [share.as_ref(), recipient.0.as_slice()].concat();
    let theirs = UnparsedPublicKey::new(&X25519, recipient.0);
    let wrapping = agree_ephemeral(ephemeral, &theirs, |shared| derive(&salt, shared, X25519_LABEL))??;
    let body = encrypt(&wrapping, [0; 12], file_key)?;
    Ok(format!(
        "-> X25519 {}\n{}\n",
        STANDARD_NO_PAD.encode(share),
        STANDARD_NO_PAD.encode(body)
    ))
}

struct KeyLength;

impl KeyType for KeyLength {
    fn len(&self) -> usize {
        32
    }
}

fn derive(salt: &[u8], secret: &[u8], label: &[u8]) -> Result<[u8; 32], Unspecified> {
    let mut key = [0; 32];
    Salt::new(HKDF_SHA256, salt)
        .extract(secret)
        .expand(&[label], KeyLength)?
        .fill(&mut key)?;
    Ok(key)
}

/// Each key encrypts once.
fn encrypt(key: &[u8; 32], nonce: [u8; 12], data: &[u8]) -> Result<Vec<u8>, Unspecified> {
    let key = LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, key)?);
    let mut sealed = data.to_vec();
    key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::empty(), &mut sealed)?;
    Ok(sealed)
}

#[cfg(test)]
mod tests {
    use age::x25519::Identity;

    use super::*;

    #[test]
    fn a_file_is_opened_by_each_recipient_with_another_program_and_by_nobody_else() {
        let identities = [Identity::generate(), Identity::generate()];
        let recipients = identities
            .each_ref()
            .map(|identity| identity.to_public().to_string().parse().unwrap());
        let file = seal(&recipients, &[7; 32]).unwrap();
        for identity in &identities {
            assert_eq!(age::decrypt(identity, &file).unwrap(), [7; 32]);
        }
        assert!(age::decrypt(&Identity::generate(), &file).is_err());
        assert_ne!(
            seal(&recipients, &[7; 32]).unwrap(),
            file,
            "each file has keys of its own"
        );
    }

    #[test]
    fn a_recipient_with_a_wrong_character_is_told_apart_from_what_is_none() {
        let good = Identity::generate().to_public().to_string();
        assert!(good.parse::<Recipient>().is_ok());
        let last = if good.ends_with('q') { 'p' } else { 'q' };
        let (short, _) = good.split_at(good.len() - 1);
        let wrong = format!("{short}{last}");
        assert_eq!(wrong.parse::<Recipient>(), Err(RecipientError::Checksum));
        assert_eq!(short.parse::<Recipient>(), Err(RecipientError::Checksum));
        for other in ["", "age", "ssh-ed25519 AAAA", "AGE-SECRET-KEY-1QQQ"] {
            assert_eq!(other.parse::<Recipient>(), Err(RecipientError::Prefix), "{other}");
        }
    }

    #[test]
    fn a_key_that_is_no_point_is_refused_and_not_encrypted_to() {
        assert!(seal(&[Recipient([0; 32])], b"data").is_err());
    }
}
