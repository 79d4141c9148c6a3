//! Tokens that open a channel: sealed with the master key, short-lived, bound to one channel and one side.
//! They survive a restart of the endpoint because nothing about them is stored.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use moorline_protocol::types::{InstanceId, SessionId};

use super::{MasterKey, Purpose, random};

/// What a token opens.
#[expect(
    clippy::enum_variant_names,
    reason = "control channel and data channel are the field's words"
)]
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ChannelGrant {
    ControlChannel {
        node: InstanceId,
    },
    /// The node's side of a session.
    AgentDataChannel {
        node: InstanceId,
        session: SessionId,
    },
    /// The operator's side of a session.
    ClientDataChannel {
        session: SessionId,
        /// Who asked for it: a user's name, cut where it is long.
        operator: String,
    },
}

/// How long a token opens its channel, in milliseconds.
pub(crate) const CHANNEL_TOKEN_LIFETIME_MILLIS: u64 = 5 * 60 * 1000;

const MAC_LENGTH: usize = 32;
const NONCE_LENGTH: usize = 12;
/// Expiry and nonce come first, both of fixed length; what follows is text.
const HEAD_LENGTH: usize = 8 + NONCE_LENGTH;

impl ChannelGrant {
    /// No id has a space in it, so the text has one reading.
    fn to_text(&self) -> String {
        match self {
            Self::ControlChannel { node } => format!("control {node}"),
            Self::AgentDataChannel { node, session } => format!("agent {node} {session}"),
            Self::ClientDataChannel { session, operator } => format!("client {session} {operator}"),
        }
    }

    fn from_text(text: &str) -> Option<Self> {
        let words: Vec<&str> = text.splitn(3, ' ').collect();
        match words[..] {
            ["control", node] => Some(Self::ControlChannel {
                node: node.parse().ok()?,
            }),
            ["agent", node, session] => Some(Self::AgentDataChannel {
                node: node.parse().ok()?,
                session: session.parse().ok()?,
            }),
            ["client", session, operator] => Some(Self::ClientDataChannel {
                session: session.parse().ok()?,
                operator: operator.to_owned(),
            }),
            _ => None,
        }
    }
}

impl MasterKey {
    /// A token of at most 300 characters, URL- and JSON-safe, different on each call.
    pub(crate) fn channel_token(&self, grant: &ChannelGrant, now_unix_millis: u64) -> String {
        let expires = now_unix_millis.saturating_add(CHANNEL_TOKEN_LIFETIME_MILLIS);
        let mut token = expires.to_be_bytes().to_vec();
        token.extend_from_slice(&random::<NONCE_LENGTH>());
        token.extend_from_slice(grant.to_text().as_bytes());
        let tag = self.mac(Purpose::ChannelToken, &token);
        token.extend_from_slice(&tag);
        URL_SAFE_NO_PAD.encode(token)
    }

    /// What the token opens, if it is ours and not expired. Use of it once is the gateway's to enforce.
    pub(crate) fn open_channel_token(&self, token: &str, now_unix_millis: u64) -> Option<ChannelGrant> {
        let bytes = URL_SAFE_NO_PAD.decode(token).ok()?;
        let (signed, tag) = bytes.split_at_checked(bytes.len().checked_sub(MAC_LENGTH)?)?;
        if !self.is_mac(Purpose::ChannelToken, signed, tag) {
            return None;
        }
        let (head, text) = signed.split_at_checked(HEAD_LENGTH)?;
        let expires = u64::from_be_bytes(*head.first_chunk()?);
        if now_unix_millis >= expires {
            return None;
        }
        ChannelGrant::from_text(std::str::from_utf8(text).ok()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grants() -> [ChannelGrant; 3] {
        let node: InstanceId = "mi-0123456789abcdef0".parse().unwrap();
        let session: SessionId = "x".repeat(96).parse().unwrap();
        [
            ChannelGrant::ControlChannel { node: node.clone() },
            ChannelGrant::AgentDataChannel {
                node,
                session: session.clone(),
            },
            ChannelGrant::ClientDataChannel {
                session,
                operator: "x".repeat(64),
            },
        ]
    }

    #[test]
    fn a_token_opens_exactly_what_it_was_made_for_until_it_expires() {
        let key = MasterKey::from_bytes(&[1; 32]);
        for grant in grants() {
            let token = key.channel_token(&grant, 1000);
            assert!(token.len() <= 300, "{}", token.len());
            assert_ne!(token, key.channel_token(&grant, 1000));
            assert_eq!(
                key.open_channel_token(&token, 1000 + CHANNEL_TOKEN_LIFETIME_MILLIS - 1),
                Some(grant)
            );
            assert_eq!(
                key.open_channel_token(&token, 1000 + CHANNEL_TOKEN_LIFETIME_MILLIS),
                None
            );
        }
    }

    #[test]
    fn a_token_that_was_touched_or_made_elsewhere_opens_nothing() {
        let key = MasterKey::from_bytes(&[1; 32]);
        let [grant, ..] = grants();
        let token = key.channel_token(&grant, 1000);
        assert_eq!(
            MasterKey::from_bytes(&[2; 32]).open_channel_token(&token, 1000),
            None
        );
        for index in 0..token.len() {
            let mut touched = token.clone().into_bytes();
            touched[index] = if touched[index] == b'A' { b'B' } else { b'A' };
            assert_eq!(
                key.open_channel_token(std::str::from_utf8(&touched).unwrap(), 1000),
                None
            );
        }
        for text in ["", "A", "AAAA", "not base64!"] {
            assert_eq!(key.open_channel_token(text, 1000), None);
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_but_a_token_opens_anything(text in "[A-Za-z0-9_-]{0,300}|.{0,60}") {
            let key = MasterKey::from_bytes(&[1; 32]);
            proptest::prop_assert_eq!(key.open_channel_token(&text, 0), None);
            proptest::prop_assert!(key.open_role_token(&text).is_none());
        }

        #[test]
        fn a_grant_reads_back_from_its_text(id in "[A-Za-z0-9_-][A-Za-z0-9._-]{0,95}", hex in "[0-9a-f]{17}") {
            let node: InstanceId = format!("mi-{hex}").parse().unwrap();
            let session: SessionId = id.parse().unwrap();
            let grant = ChannelGrant::AgentDataChannel { node, session };
            proptest::prop_assert_eq!(ChannelGrant::from_text(&grant.to_text()), Some(grant));
        }
    }
}
