//! Another client process takes a living session over (client-wire §8.8): numbers that begin at 0 fit nothing that was
//! said before, so the agent begins a new stream for it.
//!
//! The order is what makes it safe against a death of the endpoint at any moment: first the new client is on disk, then
//! the agent is told, and until the agent says that it serves this client nothing of its stream passes, in either
//! direction. An agent of ours says whom it serves on each of its connections, so a relay that was made anew compares
//! and tells again.

use bytes::Bytes;
use moorline_protocol::{document::SessionType, message::StartPublication, time::Now};

use super::{HandshakeGate, Lane, Peer, Phase, Relay, RelayEvent};
use crate::gateway::relay::session::AnotherClient;

/// Whose the agent's stream is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stream {
    /// The present client's.
    Settled,
    /// Perhaps another client's; the present one is being written to disk.
    Recording,
    /// Perhaps another client's, until the agent says otherwise.
    Unsettled,
}

impl Relay {
    /// The present client is none that the session's stream fits. Returns the last frame of the one before.
    ///
    /// # Errors
    /// It stays refused.
    pub(super) fn take_over(&mut self, now: Now, peer: &Peer) -> Result<Bytes, AnotherClient> {
        if !peer.takes_over {
            return Err(AnotherClient::Holds);
        }
        let session_type = self.session.session_type;
        if !matches!(
            session_type,
            SessionType::StandardStream | SessionType::InteractiveCommands
        ) {
            return Err(AnotherClient::NotAShell(session_type.as_str()));
        }
        if self.phase != Phase::Open {
            return Err(AnotherClient::Ends);
        }
        match self.agent_hands_over {
            None => return Err(AnotherClient::NodeAway),
            Some(false) => return Err(AnotherClient::StockAgent),
            Some(true) => {}
        }
        let old = self.client_id.clone().unwrap_or_default();
        let reason = format!("the session was taken over by another client ({})", peer.operator);
        let goodbye = self.composer.channel_closed(now, &old, &reason, None);
        self.begin_stream();
        self.stream = Stream::Recording;
        self.events.push_back(RelayEvent::TakenOver);
        Ok(goodbye)
    }

    /// Whether the driver must call [`Self::client_recorded`].
    pub(crate) fn awaits_record(&self) -> bool {
        self.stream == Stream::Recording
    }

    /// The present client is on disk.
    pub(crate) fn client_recorded(&mut self, now: Now) {
        if self.stream == Stream::Recording {
            self.stream = Stream::Unsettled;
            self.compare_streams(now);
        }
    }

    /// The agent said whose stream it has: nobody's yet, when that is empty. `None`: an agent that cannot say.
    pub(super) fn agent_said(&mut self, now: Now, client_id: Option<String>) {
        self.agent_hands_over = Some(client_id.is_some());
        if client_id.is_none() && self.stream == Stream::Unsettled {
            self.settle(now);
        }
        self.agent_serves = client_id;
        self.compare_streams(now);
    }

    /// Settles it, or tells the agent whose stream is wanted.
    pub(super) fn compare_streams(&mut self, now: Now) {
        let (Some(wanted), Some(serves)) = (&self.client_id, &self.agent_serves) else {
            return;
        };
        match self.stream {
            Stream::Recording => {}
            // the agent takes the first client of a session without being told more
            Stream::Settled if serves == wanted || serves.is_empty() => {}
            Stream::Unsettled if serves == wanted => self.settle(now),
            Stream::Settled | Stream::Unsettled => {
                if self.stream == Stream::Settled {
                    self.begin_stream();
                    self.stream = Stream::Unsettled;
                }
                let start = self.start_of_agent(true);
                let start = self.composer.start_publication(now, &start);
                self.to_agent.push_front(start);
            }
        }
    }

    pub(super) fn settle(&mut self, now: Now) {
        self.stream = Stream::Settled;
        self.to_agent.release();
        self.announce(now);
    }

    /// What an agent is told when its client is there, or another one is to be served.
    pub(super) fn start_of_agent(&self, take_over: bool) -> StartPublication {
        let of_client = self.client.as_ref().and_then(|client| client.max_payload_bytes);
        let ours = self.agent.as_ref().is_some_and(Peer::is_ours);
        StartPublication {
            moorline_max_payload_bytes: of_client.or(Some(1024)),
            moorline_client_id: self.client_id.clone().filter(|_| ours),
            moorline_take_over: take_over,
        }
    }

    /// Forgets the stream of the client before.
    fn begin_stream(&mut self) {
        let (agent, client) = (self.agent.is_some(), self.client.is_some());
        self.to_agent = Lane::held(agent);
        self.to_client = Lane::default();
        if client {
            self.to_client.receiver_attached();
        }
        self.gate = HandshakeGate::default();
        self.client_started = false;
        self.agent_paused = false;
    }
}
