//! The channels: a hub of control channels, a relay between the two data channels of a session.
//!
//! Everything under `/v1/` ends here. A node asks for a token by a signed POST and opens its websocket with it; a
//! client gets its token from StartSession or ResumeSession. What is due for a node stands in the store; a nudge only
//! says "look now".

mod answer;
mod at_rest;
mod clock_watch;
pub(crate) mod command_delivery;
mod control_channel;
mod data_channel;
mod hub;
mod output_upload;
mod questions;
mod relay;
mod reports;
mod rest;
mod session_delivery;
mod session_state;
mod socket;
mod sweep;
mod token;
mod upgrade;

#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{Method, Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use moorline_protocol::{
    message::PolicyAnswer,
    types::{InstanceId, SessionId, TranscriptId},
};
use tokio::{sync::Semaphore, time::Instant};

use self::{
    answer::Refusal,
    clock_watch::SessionAges,
    hub::Hub,
    relay::{Ending, Order, RelayHandle},
    socket::CLOSE_POLICY,
    token::UsedTokens,
};
use crate::{
    app::{App, NotAnswered, Routing},
    auth::claimed_key,
};

/// What every answer of the gateway is.
pub(crate) type Answer = Response<Full<Bytes>>;

/// Control channels that look into the store for commands at the same time; more wait for their turn.
const LOOKS: usize = 32;

/// The channels that end in this process.
#[derive(Debug)]
pub(crate) struct Gateway {
    hub: Hub,
    looks: Semaphore,
    relays: Mutex<HashMap<SessionId, RelayHandle>>,
    used_tokens: UsedTokens,
    session_ages: Mutex<SessionAges>,
    started_at: Instant,
}

impl Gateway {
    pub(crate) fn new() -> Self {
        Self {
            hub: Hub::default(),
            looks: Semaphore::new(LOOKS),
            relays: Mutex::default(),
            used_tokens: UsedTokens::default(),
            session_ages: Mutex::default(),
            started_at: Instant::now(),
        }
    }

    /// Starts what the gateway does by itself: time limits of sessions, redelivery, syncing of transcripts. Ends when
    /// nobody holds `app` any more. Call it once, when the app stands.
    pub(crate) fn attach(self: &Arc<Self>, app: &Arc<App>) {
        tokio::spawn(sweep::run(Arc::downgrade(app), Arc::downgrade(self)));
        tokio::spawn(at_rest::run(Arc::downgrade(app)));
        tokio::spawn(output_upload::run(Arc::downgrade(app)));
    }

    fn relays(&self) -> MutexGuard<'_, HashMap<SessionId, RelayHandle>> {
        self.relays.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn session_ages(&self) -> MutexGuard<'_, SessionAges> {
        self.session_ages.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn relay(&self, session: &SessionId) -> Option<RelayHandle> {
        self.relays().get(session).cloned()
    }

    async fn end_relay(&self, session: &SessionId, ending: Ending) {
        if let Some(relay) = self.relay(session) {
            relay.order(Order::End(ending)).await;
        }
    }
}

impl Routing for Gateway {
    fn is_connected<'a>(&'a self, node: &'a InstanceId) -> BoxFuture<'a, bool> {
        let is_connected = self.hub.is_connected(node);
        Box::pin(std::future::ready(is_connected))
    }

    fn ask_policy<'a>(
        &'a self,
        node: &'a InstanceId,
        content: &'a Arc<str>,
    ) -> BoxFuture<'a, Result<PolicyAnswer, NotAnswered>> {
        Box::pin(async move {
            let channel = self.hub.channel(node).ok_or(NotAnswered::Offline)?;
            channel.ask_policy(content).await
        })
    }

    fn nudge(&self, node: &InstanceId) {
        self.hub.nudge(node);
    }

    fn end_session<'a>(&'a self, session: &'a SessionId, reason: &'a str) -> BoxFuture<'a, ()> {
        let ending = Ending {
            reason: reason.to_owned(),
            ..Ending::default()
        };
        Box::pin(self.end_relay(session, ending))
    }

    fn disconnect<'a>(&'a self, node: &'a InstanceId, reason: &'a str) -> BoxFuture<'a, ()> {
        self.hub.close(node, CLOSE_POLICY, reason);
        Box::pin(std::future::ready(()))
    }
}

/// What a path under `/v1/` names.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Route {
    ControlChannel(InstanceId),
    DataChannel(SessionId),
    Transcript(TranscriptId),
    /// Which recordings of this node are open.
    OpenTranscripts(InstanceId),
}

impl Route {
    fn parse(path: &str) -> Option<Self> {
        let (kind, id) = path.strip_prefix("/v1/")?.split_once('/')?;
        match kind {
            "control-channel" => id.parse().ok().map(Self::ControlChannel),
            "data-channel" => id.parse().ok().map(Self::DataChannel),
            "transcript" => id.parse().ok().map(Self::Transcript),
            "open-transcripts" => id.parse().ok().map(Self::OpenTranscripts),
            _ => None,
        }
    }
}

/// Answers every request under `/v1/`.
pub(crate) async fn handle(
    app: &Arc<App>,
    gateway: &Arc<Gateway>,
    request: Request<Incoming>,
    peer: IpAddr,
) -> Answer {
    let Some(route) = Route::parse(request.uri().path()) else {
        return Refusal::no_such_path().into_answer();
    };
    let path = request.uri().path().to_owned();
    let claimed_key = claimed_key(request.headers()).map(str::to_owned);
    let answer = match (request.method(), route) {
        (&Method::POST, route) => rest::answer(app, route, request, peer).await,
        (&Method::GET, Route::ControlChannel(node)) => {
            upgrade::control_channel(app, gateway, node, request, peer).await
        }
        (&Method::GET, Route::DataChannel(session)) => {
            upgrade::data_channel(app, gateway, session, request, peer).await
        }
        _ => Err(Refusal::method_not_allowed()),
    };
    answer.unwrap_or_else(|refusal| {
        if let Some((code, message)) = refusal.denial() {
            app.audit
                .channel_refused(peer, &path, claimed_key.as_deref(), code, message);
        }
        refusal.into_answer()
    })
}

/// A time as the stock peers write it: ISO-8601 UTC with milliseconds.
pub(crate) fn wall_time(unix_millis: u64) -> String {
    let millis = i64::try_from(unix_millis).unwrap_or(i64::MAX);
    let time = jiff::Timestamp::from_millisecond(millis).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    time.strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string()
}
