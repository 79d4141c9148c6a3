//! Channel tokens open a channel once. Which were used is kept until they expire; after a restart of the endpoint a
//! token of the last five minutes would open its channel a second time, for the same node or session only.

use std::{
    collections::{HashSet, VecDeque},
    sync::{Mutex, PoisonError},
};

use ring::digest;

use crate::{
    app::App,
    auth::{CHANNEL_TOKEN_LIFETIME_MILLIS, ChannelGrant},
};

/// Tokens remembered at most; then no further channel opens until some expire.
const MOST_REMEMBERED: usize = 262_144;

type Fingerprint = [u8; 16];

#[derive(Debug, Default)]
pub(super) struct UsedTokens(Mutex<Used>);

#[derive(Debug, Default)]
struct Used {
    known: HashSet<Fingerprint>,
    /// When each may be forgotten, in the order of use.
    by_time: VecDeque<(u64, Fingerprint)>,
}

/// Why a token opens nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum TokenError {
    #[error("the token is invalid or expired")]
    Invalid,
    #[error("the token was used before")]
    Used,
    #[error("too many channels were opened in the last minutes; try again")]
    TooMany,
}

impl UsedTokens {
    /// What the token opens, this one time.
    pub(super) fn redeem(&self, app: &App, token: &str) -> Result<ChannelGrant, TokenError> {
        let now = app.clock.unix_millis();
        let grant = app
            .keys
            .open_channel_token(token, now)
            .ok_or(TokenError::Invalid)?;
        let digest = digest::digest(&digest::SHA256, token.as_bytes());
        let fingerprint = digest
            .as_ref()
            .first_chunk()
            .copied()
            .ok_or(TokenError::Invalid)?;
        let mut used = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        used.forget_expired(now);
        if used.known.contains(&fingerprint) {
            return Err(TokenError::Used);
        }
        if used.known.len() >= MOST_REMEMBERED {
            return Err(TokenError::TooMany);
        }
        used.known.insert(fingerprint);
        used.by_time
            .push_back((now.saturating_add(CHANNEL_TOKEN_LIFETIME_MILLIS), fingerprint));
        Ok(grant)
    }
}

impl Used {
    fn forget_expired(&mut self, now: u64) {
        while let Some((until, fingerprint)) = self.by_time.front().copied() {
            if until > now {
                break;
            }
            self.by_time.pop_front();
            self.known.remove(&fingerprint);
        }
    }
}
