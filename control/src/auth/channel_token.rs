//! Tokens that open a channel: sealed with the master key, short-lived, bound to one channel and one side.
//! They survive a restart of the endpoint because nothing about them is stored.

use moorline_protocol::types::{InstanceId, SessionId};

use super::MasterKey;

/// What a token opens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ChannelGrant {
    ControlChannel { node: InstanceId },
    /// The node's side of a session.
    AgentDataChannel { node: InstanceId, session: SessionId },
    /// The operator's side of a session.
    ClientDataChannel { session: SessionId },
}

/// How long a token opens its channel, in milliseconds.
pub(crate) const CHANNEL_TOKEN_LIFETIME_MILLIS: u64 = 5 * 60 * 1000;

impl MasterKey {
    /// A token of at most 300 characters, URL- and JSON-safe, different on each call.
    pub(crate) fn channel_token(&self, grant: &ChannelGrant, now_unix_millis: u64) -> String {
        let _ = (grant, now_unix_millis);
        todo!()
    }

    /// What the token opens, if it is ours and not expired. Use of it once is the gateway's to enforce.
    pub(crate) fn open_channel_token(&self, token: &str, now_unix_millis: u64) -> Option<ChannelGrant> {
        let _ = (token, now_unix_millis);
        todo!()
    }
}
