//! Credentials that a node gets for its registration key: an access key, its secret and a session token.
//!
//! Nothing about them is stored. The token carries node, expiry and generation under a keyed hash; access key and
//! secret follow from the token and the master key. So they survive a restart of the endpoint, as the stock agent
//! needs: it does not ask for new ones when a request is rejected.

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use moorline_protocol::types::InstanceId;

use super::{MasterKey, Purpose, random};

/// AWS gives one hour, and agents refresh after half of it.
pub(crate) const ROLE_CREDENTIALS_LIFETIME_MILLIS: u64 = 60 * 60 * 1000;

const MAC_LENGTH: usize = 32;
const NONCE_LENGTH: usize = 12;
/// Expiry, generation and nonce; the node's id follows.
const HEAD_LENGTH: usize = 8 + 8 + NONCE_LENGTH;
/// Crockford's alphabet has 32 letters, so five bits of a hash make one of them.
const ACCESS_KEY_ALPHABET: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";

/// What a node gets.
#[derive(Clone)]
pub(crate) struct RoleCredentials {
    pub(crate) access_key_id: String,
    pub(crate) secret_access_key: String,
    pub(crate) session_token: String,
    pub(crate) expires_at: u64,
}

impl std::fmt::Debug for RoleCredentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RoleCredentials")
            .field("access_key_id", &self.access_key_id)
            .finish_non_exhaustive()
    }
}

/// What a session token says, once its hash is checked.
#[derive(Clone)]
pub(crate) struct OpenedRoleToken {
    pub(crate) node: InstanceId,
    pub(crate) generation: i64,
    pub(crate) expires_at: u64,
    pub(crate) access_key_id: String,
    pub(crate) secret_access_key: String,
}

impl std::fmt::Debug for OpenedRoleToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OpenedRoleToken")
            .field("node", &self.node)
            .finish_non_exhaustive()
    }
}

impl MasterKey {
    /// Credentials for a node, different on each call.
    pub(crate) fn role_credentials(&self, node: &InstanceId, generation: i64, now: u64) -> RoleCredentials {
        let expires_at = now.saturating_add(ROLE_CREDENTIALS_LIFETIME_MILLIS);
        let mut token = expires_at.to_be_bytes().to_vec();
        token.extend_from_slice(&generation.to_be_bytes());
        token.extend_from_slice(&random::<NONCE_LENGTH>());
        token.extend_from_slice(node.as_str().as_bytes());
        let tag = self.mac(Purpose::RoleToken, &token);
        token.extend_from_slice(&tag);
        RoleCredentials {
            access_key_id: self.role_access_key_id(&token),
            secret_access_key: self.role_secret(&token),
            session_token: URL_SAFE_NO_PAD.encode(token),
            expires_at,
        }
    }

    /// What the token says, if it is ours. Expiry and generation are the caller's to check.
    pub(crate) fn open_role_token(&self, session_token: &str) -> Option<OpenedRoleToken> {
        let bytes = URL_SAFE_NO_PAD.decode(session_token).ok()?;
        let (signed, tag) = bytes.split_at_checked(bytes.len().checked_sub(MAC_LENGTH)?)?;
        if !self.is_mac(Purpose::RoleToken, signed, tag) {
            return None;
        }
        let (head, node) = signed.split_at_checked(HEAD_LENGTH)?;
        let (expires_at, rest) = head.split_first_chunk()?;
        Some(OpenedRoleToken {
            node: std::str::from_utf8(node).ok()?.parse().ok()?,
            generation: i64::from_be_bytes(*rest.first_chunk()?),
            expires_at: u64::from_be_bytes(*expires_at),
            access_key_id: self.role_access_key_id(&bytes),
            secret_access_key: self.role_secret(&bytes),
        })
    }

    fn role_access_key_id(&self, token: &[u8]) -> String {
        let mut id = String::from("ASIA");
        for byte in self.mac(Purpose::RoleAccessKeyId, token).iter().take(16) {
            id.push(char::from(ACCESS_KEY_ALPHABET[usize::from(byte & 31)]));
        }
        id
    }

    fn role_secret(&self, token: &[u8]) -> String {
        STANDARD.encode(self.mac(Purpose::RoleSecret, token))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node() -> InstanceId {
        "mi-0123456789abcdef0".parse().unwrap()
    }

    #[test]
    fn a_token_gives_back_what_was_issued_with_it_after_a_restart() {
        let issued = MasterKey::from_bytes(&[3; 32]).role_credentials(&node(), 4, 1000);
        assert!(issued.access_key_id.starts_with("ASIA") && issued.access_key_id.len() == 20);
        let opened = MasterKey::from_bytes(&[3; 32])
            .open_role_token(&issued.session_token)
            .unwrap();
        assert_eq!(opened.node, node());
        assert_eq!(opened.generation, 4);
        assert_eq!(opened.expires_at, 1000 + ROLE_CREDENTIALS_LIFETIME_MILLIS);
        assert_eq!(opened.access_key_id, issued.access_key_id);
        assert_eq!(opened.secret_access_key, issued.secret_access_key);
    }

    #[test]
    fn a_token_of_another_key_or_cut_short_opens_nothing() {
        let key = MasterKey::from_bytes(&[3; 32]);
        let issued = key.role_credentials(&node(), 1, 1000);
        assert!(
            MasterKey::from_bytes(&[4; 32])
                .open_role_token(&issued.session_token)
                .is_none()
        );
        for end in 0..issued.session_token.len() {
            assert!(
                key.open_role_token(issued.session_token.get(..end).unwrap())
                    .is_none()
            );
        }
    }

    #[test]
    fn secrets_do_not_show_in_debug_output() {
        let issued = MasterKey::from_bytes(&[3; 32]).role_credentials(&node(), 1, 1000);
        let shown = format!("{issued:?}");
        assert!(!shown.contains(&issued.secret_access_key) && !shown.contains(&issued.session_token));
    }
}
