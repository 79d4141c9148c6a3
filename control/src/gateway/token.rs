//! Channel tokens open a channel once. Which were used is kept until they have expired; after a restart of the endpoint
//! a token of the last five minutes would open its channel a second time, for the same node or session only.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::{Mutex, PoisonError},
};

use ring::digest;

use crate::{
    app::App,
    auth::{CHANNEL_TOKEN_LIFETIME_MILLIS, ChannelGrant},
};

/// Tokens remembered at most; then no further channel opens until some expire.
const MOST_REMEMBERED: usize = 262_144;
/// Of these, for one channel and side, so that no peer can use up what all share.
const MOST_OF_ONE: u32 = 1024;
/// How long, by the steady clock: a wall clock that was set back fills the memory for good. Twice the lifetime, since
/// setting it back also gives tokens more time.
const REMEMBERED_MILLIS: u64 = 2 * CHANNEL_TOKEN_LIFETIME_MILLIS;

pub(in crate::gateway) type Fingerprint = [u8; 16];

#[derive(Debug, Default)]
pub(super) struct UsedTokens(Mutex<Used>);

#[derive(Debug, Default)]
pub(in crate::gateway) struct Used {
    known: HashSet<Fingerprint>,
    /// How many of them opened this channel.
    by_channel: HashMap<Fingerprint, u32>,
    /// When each was used, of which channel, in the order of use.
    by_time: VecDeque<(u64, Fingerprint, Fingerprint)>,
}

/// Why a token opens nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(in crate::gateway) enum TokenError {
    #[error("the token is invalid or expired")]
    Invalid,
    #[error("the token is for another channel")]
    Elsewhere,
    #[error("the token was used before")]
    Used,
    #[error("too many channels were opened in the last minutes; try again")]
    TooMany,
}

impl UsedTokens {
    /// What the token opens, this one time, if that `fits` where it is shown. One that does not is not used up.
    pub(super) fn redeem(
        &self,
        app: &App,
        token: &str,
        fits: impl FnOnce(&ChannelGrant) -> bool,
    ) -> Result<ChannelGrant, TokenError> {
        let grant = app
            .keys
            .open_channel_token(token, app.clock.unix_millis())
            .ok_or(TokenError::Invalid)?;
        if !fits(&grant) {
            return Err(TokenError::Elsewhere);
        }
        let channel = fingerprint(&channel_name(&grant));
        let mut used = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        used.remember(app.clock.steady_millis(), fingerprint(token), channel)?;
        Ok(grant)
    }
}

impl Used {
    /// Notes that the token opens this channel, at this time by the steady clock.
    pub(in crate::gateway) fn remember(
        &mut self,
        now: u64,
        token: Fingerprint,
        channel: Fingerprint,
    ) -> Result<(), TokenError> {
        self.forget_expired(now);
        if self.known.contains(&token) {
            return Err(TokenError::Used);
        }
        if self.known.len() >= MOST_REMEMBERED {
            return Err(TokenError::TooMany);
        }
        let of_channel = self.by_channel.entry(channel).or_default();
        if *of_channel >= MOST_OF_ONE {
            return Err(TokenError::TooMany);
        }
        *of_channel += 1;
        self.known.insert(token);
        self.by_time.push_back((now, token, channel));
        Ok(())
    }

    fn forget_expired(&mut self, now: u64) {
        while let Some((at, token, channel)) = self.by_time.front().copied() {
            if now < at.saturating_add(REMEMBERED_MILLIS) {
                break;
            }
            self.by_time.pop_front();
            self.known.remove(&token);
            if let Some(count) = self.by_channel.get_mut(&channel) {
                *count -= 1;
                if *count == 0 {
                    self.by_channel.remove(&channel);
                }
            }
        }
    }
}

fn channel_name(grant: &ChannelGrant) -> String {
    match grant {
        ChannelGrant::ControlChannel { node } => format!("control {node}"),
        ChannelGrant::AgentDataChannel { session, .. } => format!("agent {session}"),
        ChannelGrant::ClientDataChannel { session, .. } => format!("client {session}"),
    }
}

fn fingerprint(text: &str) -> Fingerprint {
    let digest = digest::digest(&digest::SHA256, text.as_bytes());
    let mut fingerprint = Fingerprint::default();
    for (byte, of_digest) in fingerprint.iter_mut().zip(digest.as_ref()) {
        *byte = *of_digest;
    }
    fingerprint
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_support::{TestApp, node_id};

    #[tokio::test]
    async fn one_peer_cannot_use_up_what_all_share() {
        let test = TestApp::new().await;
        let tokens = UsedTokens::default();
        let redeem = |index: u32| {
            let grant = ChannelGrant::ControlChannel { node: node_id(index) };
            let token = test.app.keys.channel_token(&grant, test.now());
            tokens.redeem(&test.app, &token, |_| true).map(drop)
        };
        for _ in 0..MOST_OF_ONE {
            assert_eq!(redeem(1), Ok(()));
        }
        assert_eq!(redeem(1), Err(TokenError::TooMany));
        assert_eq!(redeem(2), Ok(()));
        test.advance_millis(REMEMBERED_MILLIS);
        assert_eq!(redeem(1), Ok(()));
        let used = tokens.0.lock().unwrap();
        assert_eq!((used.known.len(), used.by_channel.len()), (1, 1));
    }

    #[tokio::test]
    async fn a_token_that_is_shown_elsewhere_is_not_used_up() {
        let test = TestApp::new().await;
        let tokens = UsedTokens::default();
        let grant = ChannelGrant::ControlChannel { node: node_id(1) };
        let token = test.app.keys.channel_token(&grant, test.now());
        let elsewhere = tokens.redeem(&test.app, &token, |_| false);
        assert_eq!(elsewhere, Err(TokenError::Elsewhere));
        assert!(tokens.0.lock().unwrap().known.is_empty());
        assert_eq!(tokens.redeem(&test.app, &token, |_| true), Ok(grant));
    }

    #[tokio::test]
    async fn a_clock_that_is_set_neither_forgets_tokens_nor_keeps_them_for_ever() {
        let test = TestApp::new().await;
        let tokens = UsedTokens::default();
        let grant = ChannelGrant::ControlChannel { node: node_id(1) };
        let token = test.app.keys.channel_token(&grant, test.now());
        assert!(tokens.redeem(&test.app, &token, |_| true).is_ok());
        test.step_clock(60 * 60 * 1000);
        test.step_clock(-60 * 60 * 1000);
        assert_eq!(tokens.redeem(&test.app, &token, |_| true), Err(TokenError::Used));
        test.step_clock(-60 * 60 * 1000);
        test.advance_millis(REMEMBERED_MILLIS);
        tokens
            .0
            .lock()
            .unwrap()
            .forget_expired(test.app.clock.steady_millis());
        assert!(tokens.0.lock().unwrap().known.is_empty());
    }
}
