//! The part of an attachment's URL that nobody can guess: what it leads to and until when, sealed with the master key.
//! It is given to whoever may read the document, and carries that right to the file alone.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

use super::{MasterKey, Purpose};

/// How long a URL leads to its file, in milliseconds.
pub(crate) const ATTACHMENT_URL_LIFETIME_MILLIS: u64 = 30 * 60 * 1000;

const MAC_BYTES: usize = 32;
const EXPIRY_BYTES: usize = 8;

impl MasterKey {
    /// For the file with this SHA-256, in lower-case hex.
    pub(crate) fn attachment_token(&self, sha256: &str, now_unix_millis: u64) -> String {
        let expires = now_unix_millis.saturating_add(ATTACHMENT_URL_LIFETIME_MILLIS);
        let mut token = expires.to_be_bytes().to_vec();
        token.extend_from_slice(sha256.as_bytes());
        let tag = self.mac(Purpose::AttachmentUrl, &token);
        token.extend_from_slice(&tag);
        URL_SAFE_NO_PAD.encode(token)
    }

    /// The SHA-256 of the file, if the token is ours and not expired.
    pub(crate) fn open_attachment_token(&self, token: &str, now_unix_millis: u64) -> Option<String> {
        let bytes = URL_SAFE_NO_PAD.decode(token).ok()?;
        let (sealed, tag) = bytes.split_at_checked(bytes.len().checked_sub(MAC_BYTES)?)?;
        if !self.is_mac(Purpose::AttachmentUrl, sealed, tag) {
            return None;
        }
        let (expires, sha256) = sealed.split_first_chunk::<EXPIRY_BYTES>()?;
        if now_unix_millis >= u64::from_be_bytes(*expires) {
            return None;
        }
        String::from_utf8(sha256.to_vec()).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_leads_to_its_file_until_it_expires_and_no_other_text_does() {
        let key = MasterKey::from_bytes(&[1; 32]);
        let sum = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let token = key.attachment_token(sum, 1000);
        let end = 1000 + ATTACHMENT_URL_LIFETIME_MILLIS;
        assert_eq!(key.open_attachment_token(&token, end - 1).as_deref(), Some(sum));
        assert_eq!(key.open_attachment_token(&token, end), None);
        let other = MasterKey::from_bytes(&[2; 32]);
        assert_eq!(other.open_attachment_token(&token, 1000), None);
        for index in 0..token.len() {
            let mut touched = token.clone().into_bytes();
            touched[index] = if touched[index] == b'A' { b'B' } else { b'A' };
            let touched = String::from_utf8(touched).unwrap();
            assert_eq!(key.open_attachment_token(&touched, 1000), None, "{index}");
        }
        for text in ["", "A", "AAAA", "not base64!"] {
            assert_eq!(key.open_attachment_token(text, 1000), None);
        }
    }
}
