//! The endpoint's master key, and what is derived from it: role credentials of nodes, sealed secrets of operators.

use std::fmt;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::{
    aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    hkdf, hmac,
    rand::{SecureRandom, SystemRandom},
};

/// What a derived key is for. A key for one purpose is of no use for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    AccessKeySecret,
    ActivationCode,
    AttachmentUrl,
    ChannelToken,
    NextToken,
    RoleAccessKeyId,
    RoleSecret,
    RoleToken,
}

impl Purpose {
    /// Part of what is stored and issued: never change one.
    fn label(self) -> &'static [u8] {
        match self {
            Self::AccessKeySecret => b"moorline access key secret 1",
            Self::ActivationCode => b"moorline activation code 1",
            Self::AttachmentUrl => b"moorline attachment url 1",
            Self::ChannelToken => b"moorline channel token 1",
            Self::NextToken => b"moorline next token 1",
            Self::RoleAccessKeyId => b"moorline role access key id 1",
            Self::RoleSecret => b"moorline role secret 1",
            Self::RoleToken => b"moorline role token 1",
        }
    }
}

/// 32 random bytes in `DIR/master.key`, mode 0600. Everything else that is secret is derived from or sealed with it.
pub(crate) struct MasterKey {
    root: hkdf::Prk,
}

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MasterKey")
    }
}

impl MasterKey {
    pub(crate) const LENGTH: usize = 32;

    pub(crate) fn from_bytes(bytes: &[u8; Self::LENGTH]) -> Self {
        Self {
            root: hkdf::Salt::new(hkdf::HKDF_SHA256, b"moorline master key").extract(bytes),
        }
    }

    fn derive(&self, purpose: Purpose) -> [u8; 32] {
        let mut key = [0; 32];
        self.root
            .expand(&[purpose.label()], hkdf::HKDF_SHA256)
            .and_then(|okm| okm.fill(&mut key))
            .expect("32 bytes are what HKDF-SHA256 gives");
        key
    }

    /// The keyed hash of `data`.
    pub(crate) fn mac(&self, purpose: Purpose, data: &[u8]) -> [u8; 32] {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &self.derive(purpose));
        let mut tag = [0; 32];
        tag.copy_from_slice(hmac::sign(&key, data).as_ref());
        tag
    }

    /// Whether `tag` is the keyed hash of `data`, in constant time.
    pub(crate) fn is_mac(&self, purpose: Purpose, data: &[u8], tag: &[u8]) -> bool {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &self.derive(purpose));
        hmac::verify(&key, data, tag).is_ok()
    }

    /// Encrypts, bound to `owner`, so that a sealed secret moved to another row does not open.
    pub(crate) fn seal(&self, purpose: Purpose, owner: &str, secret: &str) -> String {
        let nonce: [u8; NONCE_LEN] = random();
        let mut sealed = secret.as_bytes().to_vec();
        self.cipher(purpose)
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(owner), &mut sealed)
            .expect("a secret is far below AES-GCM's limit");
        URL_SAFE_NO_PAD.encode([&nonce[..], &sealed[..]].concat())
    }

    /// The secret, if it was sealed with this master key for this owner.
    pub(crate) fn unseal(&self, purpose: Purpose, owner: &str, sealed: &str) -> Option<String> {
        let mut bytes = URL_SAFE_NO_PAD.decode(sealed).ok()?;
        let (nonce, ciphertext) = bytes.split_at_mut_checked(NONCE_LEN)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let secret = self
            .cipher(purpose)
            .open_in_place(nonce, Aad::from(owner), ciphertext)
            .ok()?;
        String::from_utf8(secret.to_vec()).ok()
    }

    fn cipher(&self, purpose: Purpose) -> LessSafeKey {
        let key = UnboundKey::new(&AES_256_GCM, &self.derive(purpose));
        LessSafeKey::new(key.expect("AES-256 takes the 32 bytes derived for it"))
    }
}

/// Bytes that nobody can guess.
///
/// # Panics
/// If the operating system gives none: then no key may be made.
pub(crate) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    SystemRandom::new()
        .fill(&mut bytes)
        .expect("the operating system gives random bytes");
    bytes
}

/// Text of `length` characters drawn evenly from `alphabet`.
pub(crate) fn random_text(alphabet: &[u8], length: usize) -> String {
    let even = 256 - 256 % alphabet.len();
    let mut text = String::with_capacity(length);
    while text.len() < length {
        for byte in random::<32>() {
            let index = usize::from(byte);
            // What lies above the last whole multiple would favour the first letters.
            if index < even && text.len() < length {
                text.push(char::from(alphabet[index % alphabet.len()]));
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> MasterKey {
        MasterKey::from_bytes(&[7; 32])
    }

    #[test]
    fn a_sealed_secret_opens_for_its_owner_only() {
        let sealed = key().seal(Purpose::AccessKeySecret, "AKIA1", "secret");
        assert_eq!(
            key()
                .unseal(Purpose::AccessKeySecret, "AKIA1", &sealed)
                .as_deref(),
            Some("secret")
        );
        assert_eq!(key().unseal(Purpose::AccessKeySecret, "AKIA2", &sealed), None);
        assert_eq!(key().unseal(Purpose::RoleSecret, "AKIA1", &sealed), None);
        let other = MasterKey::from_bytes(&[8; 32]);
        assert_eq!(other.unseal(Purpose::AccessKeySecret, "AKIA1", &sealed), None);
        assert_eq!(key().unseal(Purpose::AccessKeySecret, "AKIA1", "AAAA"), None);
    }

    #[test]
    fn a_keyed_hash_depends_on_key_purpose_and_data() {
        let tag = key().mac(Purpose::ActivationCode, b"code");
        assert!(key().is_mac(Purpose::ActivationCode, b"code", &tag));
        assert!(!key().is_mac(Purpose::ActivationCode, b"codf", &tag));
        assert!(!key().is_mac(Purpose::NextToken, b"code", &tag));
        assert!(!MasterKey::from_bytes(&[8; 32]).is_mac(Purpose::ActivationCode, b"code", &tag));
    }

    #[test]
    fn random_text_keeps_to_its_alphabet_and_length() {
        let text = random_text(b"abc", 100);
        assert_eq!(text.len(), 100);
        assert!(text.bytes().all(|b| b"abc".contains(&b)));
    }
}
