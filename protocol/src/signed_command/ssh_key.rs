//! Ed25519 keys in the files of OpenSSH: `ssh-ed25519 BASE64 COMMENT`, and private keys without a passphrase
//! (its PROTOCOL.key).

use std::fmt;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use zeroize::Zeroizing;

use crate::public_keys::PublicKey;

const KIND: &[u8] = b"ssh-ed25519";
const MAGIC: &[u8] = b"openssh-key-v1\0";
const BEGIN: &str = "-----BEGIN OPENSSH PRIVATE KEY-----";
const END: &str = "-----END OPENSSH PRIVATE KEY-----";
/// Of a private key without a passphrase.
const BLOCK: usize = 8;
/// Longest file of a key.
const MAX_FILE_BYTES: usize = 16 * 1024;

/// Why a text holds no key that can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    #[error("it is no public key of the form: ssh-ed25519 BASE64 COMMENT")]
    Public,
    #[error("it is no private key of OpenSSH")]
    Private,
    #[error("it is a private key of another kind than ssh-ed25519")]
    Kind,
    #[error(
        "the private key has a passphrase, which cannot be asked for here: use a key of its own without one"
    )]
    Passphrase,
}

/// An operator's private key.
pub struct SigningKey {
    pub(super) pair: Ed25519KeyPair,
}

/// Without the key.
impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SigningKey").field(&self.public()).finish()
    }
}

impl SigningKey {
    /// The key that these 32 random bytes are the seed of.
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed).expect("every 32 bytes are a seed");
        Self { pair }
    }

    /// Its public half.
    pub fn public(&self) -> PublicKey {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(self.pair.public_key().as_ref());
        PublicKey(bytes)
    }

    /// Reads a file that `ssh-keygen -t ed25519` wrote, without a passphrase.
    ///
    /// # Errors
    /// It holds no such key.
    pub fn read(file: &str) -> Result<Self, KeyError> {
        if file.len() > MAX_FILE_BYTES {
            return Err(KeyError::Private);
        }
        let body = file
            .trim()
            .strip_prefix(BEGIN)
            .and_then(|rest| rest.strip_suffix(END));
        let body: String = body.ok_or(KeyError::Private)?.split_whitespace().collect();
        let body = Zeroizing::new(body);
        let bytes = Zeroizing::new(STANDARD.decode(body.as_bytes()).map_err(|_| KeyError::Private)?);
        let mut rest = bytes.strip_prefix(MAGIC).ok_or(KeyError::Private)?;
        let mut next = || take_string(&mut rest).ok_or(KeyError::Private);
        let (cipher, kdf, _options) = (next()?, next()?, next()?);
        if (cipher, kdf) != (b"none", b"none") {
            return Err(KeyError::Passphrase);
        }
        let (number, rest) = rest.split_first_chunk::<4>().ok_or(KeyError::Private)?;
        if u32::from_be_bytes(*number) != 1 {
            return Err(KeyError::Private);
        }
        let mut rest = rest;
        let _public = take_string(&mut rest).ok_or(KeyError::Private)?;
        let secret = take_string(&mut rest).ok_or(KeyError::Private)?;
        let (checks, mut secret) = secret.split_first_chunk::<8>().ok_or(KeyError::Private)?;
        let [a, b, c, d, first @ ..] = checks;
        if [a, b, c, d].into_iter().ne(first) {
            return Err(KeyError::Private);
        }
        if take_string(&mut secret).ok_or(KeyError::Private)? != KIND {
            return Err(KeyError::Kind);
        }
        let public = take_string(&mut secret).ok_or(KeyError::Private)?;
        let private = take_string(&mut secret).ok_or(KeyError::Private)?;
        let seed = private.first_chunk::<32>().ok_or(KeyError::Private)?;
        let key = Self::from_seed(seed);
        match key.public().0 == public && private.len() == 64 {
            true => Ok(key),
            false => Err(KeyError::Private),
        }
    }

    /// The file that `ssh-keygen` would have written for this seed.
    pub fn file(seed: &[u8; 32], comment: &str) -> Zeroizing<String> {
        let public = Self::from_seed(seed).public();
        let blob = public_blob(&public);
        // The two numbers show a wrong passphrase, and there is none.
        let mut secret = Zeroizing::new(vec![0; 8]);
        put_string(&mut secret, KIND);
        put_string(&mut secret, &public.0);
        let pair = Zeroizing::new([&seed[..], &public.0[..]].concat());
        put_string(&mut secret, &pair);
        put_string(&mut secret, comment.as_bytes());
        for padding in 1.. {
            if secret.len().is_multiple_of(BLOCK) {
                break;
            }
            secret.push(padding);
        }
        let mut bytes = Zeroizing::new(MAGIC.to_vec());
        for part in [b"none", b"none", &b""[..]] {
            put_string(&mut bytes, part);
        }
        bytes.extend(1_u32.to_be_bytes());
        put_string(&mut bytes, &blob);
        put_string(&mut bytes, &secret);
        let mut file = Zeroizing::new(format!("{BEGIN}\n"));
        let body = Zeroizing::new(STANDARD.encode(&*bytes));
        for (index, character) in body.chars().enumerate() {
            if index > 0 && index.is_multiple_of(70) {
                file.push('\n');
            }
            file.push(character);
        }
        file.push_str(&format!("\n{END}\n"));
        file
    }
}

/// The line of a public key.
pub fn public_key_line(key: &PublicKey, comment: &str) -> String {
    let line = format!("ssh-ed25519 {} {comment}", STANDARD.encode(public_blob(key)));
    line.trim_end().to_owned()
}

/// Reads the line of a public key; what stands behind the key is a comment.
///
/// # Errors
/// It is none, or of another kind.
pub fn read_public_key(line: &str) -> Result<PublicKey, KeyError> {
    let mut words = line.split_whitespace();
    let (kind, blob) = (words.next(), words.next());
    if line.len() > MAX_FILE_BYTES || kind.map(str::as_bytes) != Some(KIND) {
        return Err(KeyError::Public);
    }
    let blob = STANDARD
        .decode(blob.unwrap_or_default())
        .map_err(|_| KeyError::Public)?;
    let mut rest = blob.as_slice();
    let (kind, key) = (take_string(&mut rest), take_string(&mut rest));
    match (kind, key.and_then(|key| key.try_into().ok()), rest) {
        (Some(KIND), Some(key), []) => Ok(PublicKey(key)),
        _ => Err(KeyError::Public),
    }
}

fn public_blob(key: &PublicKey) -> Vec<u8> {
    let mut blob = Vec::new();
    put_string(&mut blob, KIND);
    put_string(&mut blob, &key.0);
    blob
}

/// A length in four bytes, and so many bytes.
pub(super) fn put_string(bytes: &mut Vec<u8>, part: &[u8]) {
    let length = u32::try_from(part.len()).unwrap_or(u32::MAX);
    bytes.extend(length.to_be_bytes());
    bytes.extend(part);
}

fn take_string<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
    let (string, rest) = rest.split_at_checked(length)?;
    *bytes = rest;
    Some(string)
}
