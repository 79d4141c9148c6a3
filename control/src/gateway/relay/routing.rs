//! What the relay of one session decides, without I/O: frames in, frames and events out, time an argument.
//!
//! The relay is a router between two data channels: acknowledgements are end to end and nothing is renumbered
//! (client-wire §8.1). It keeps state only for what neither end can do: repeat what a lost socket swallowed, answer a
//! peer whose acknowledgement was lost, filter acknowledgements that were none, order the end.
//!
//! The rule of use: one mutation, then drain [`Relay::next_frame`] for both sides and [`Relay::poll_event`], then
//! sleep until [`Relay::next_timeout`].

mod ending;
mod handshake_gate;
mod take_over;

use std::{collections::VecDeque, time::Duration};

use bytes::Bytes;
use moorline_protocol::{
    document::SessionType,
    message::{Acknowledge, AgentMessage, MessageType, PayloadType, StartPublication},
    time::Now,
};
use uuid::Uuid;

use self::{ending::Phase, handshake_gate::HandshakeGate, take_over::Stream};
use super::{
    composer::Composer,
    lane::{Accepted, Lane},
    session::{AnotherClient, Attached, Ending, Peer, RelayEvent, RelaySession, Side},
};

/// How long a session waits for the other side to come for the first time.
pub(crate) const ATTACH_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a node may be gone before its session is given up. The stock agent gives up by itself within ten seconds
/// or so (agent-wire §8.1); ours goes on trying, so that the session outlives minutes without a network. It may notice up to
/// 25 s later than we do (`DEAD_AFTER` of its link), and then needs a few attempts: this must be many times as long.
const STOCK_LOSS_GRACE: Duration = Duration::from_secs(30);
const LOSS_GRACE: Duration = Duration::from_secs(300);
/// An absent client's agent is paused after this time, or once this much waits.
const PAUSE_AFTER: Duration = Duration::from_secs(5);
const PAUSE_BYTES: usize = 512 * 1024;

#[derive(Debug)]
pub(crate) struct Relay {
    session: RelaySession,
    composer: Composer,
    to_agent: Lane,
    to_client: Lane,
    agent: Option<Peer>,
    client: Option<Peer>,
    /// Set once a client attached; kept while it is away.
    client_id: Option<String>,
    /// A stream frame passed on the client's side, or the agent was told of the client: the stream fits no other
    /// process.
    client_in_use: bool,
    /// This client connection was told to start.
    client_started: bool,
    stream: Stream,
    /// Whom the agent says that it serves, on this connection.
    agent_serves: Option<String>,
    /// Whether the agent can serve another client; `None`: not known yet.
    agent_hands_over: Option<bool>,
    agent_was_attached: bool,
    agent_paused: bool,
    /// When the relay stops waiting for the agent or the client.
    agent_deadline: Option<Duration>,
    client_deadline: Option<Duration>,
    pause_due: Option<Duration>,
    gate: HandshakeGate,
    phase: Phase,
    events: VecDeque<RelayEvent>,
    last_activity: Duration,
}

/// The NOP frame of smux version 1 (client-wire §5.4).
const MULTIPLEX_KEEP_ALIVE: [u8; 8] = [1, 3, 0, 0, 0, 0, 0, 0];

impl Relay {
    pub(crate) fn new(now: Now, session: RelaySession, seed: u128) -> Self {
        let deadline = now.monotonic + ATTACH_TIMEOUT;
        let mut to_agent = Lane::new(session.resumed);
        let mut stream = Stream::Settled;
        if session.resumed && session.client_id.is_some() {
            // the endpoint may have died over a change of clients
            to_agent.hold();
            stream = Stream::Unsettled;
        }
        Self {
            composer: Composer::new(session.session_id.clone(), seed),
            to_agent,
            to_client: Lane::new(session.resumed),
            agent: None,
            client: None,
            client_in_use: session.client_id.is_some(),
            client_id: session.client_id.clone(),
            client_started: false,
            stream,
            agent_serves: None,
            agent_hands_over: None,
            agent_was_attached: session.resumed,
            agent_paused: false,
            agent_deadline: Some(deadline),
            client_deadline: (!session.resumed).then_some(deadline),
            pause_due: None,
            gate: HandshakeGate::default(),
            phase: Phase::Open,
            events: VecDeque::new(),
            last_activity: now.monotonic,
            session,
        }
    }

    /// A side's open message was accepted. It replaces that side's socket, if there is one.
    ///
    /// # Errors
    /// The client side belongs to another process, which has already sent or received: numbers that begin at 0 would
    /// not fit (client-wire §8.8), and the new one does not take the session over, or cannot.
    pub(crate) fn attach(&mut self, now: Now, side: Side, peer: Peer) -> Result<Attached, AnotherClient> {
        let mut attached = Attached::Alone;
        match side {
            Side::Agent => {
                if !peer.is_ours() {
                    self.agent_hands_over = Some(false);
                    if self.stream == Stream::Unsettled {
                        self.stream = Stream::Settled;
                        self.to_agent.release();
                    }
                }
                self.agent_serves = None;
                self.agent = Some(peer);
                self.agent_was_attached = true;
                self.agent_deadline = None;
                self.agent_paused = false;
                self.to_agent.receiver_attached();
            }
            Side::Client => {
                let known = self.client_id.as_ref();
                if self.client_in_use && known.is_some_and(|known| *known != peer.client_id) {
                    let goodbye = self.take_over(now, &peer)?;
                    attached = Attached::TookOver { goodbye };
                }
                self.client_id = Some(peer.client_id.clone());
                self.client = Some(peer);
                self.client_started = false;
                self.client_deadline = None;
                self.pause_due = None;
                self.to_client.receiver_attached();
            }
        }
        if side == Side::Client {
            self.compare_streams(now);
        }
        self.announce(now);
        self.after_attach(now);
        Ok(attached)
    }

    /// What a client is told that is refused.
    pub(crate) fn refusal(&mut self, now: Now, refused: AnotherClient) -> Bytes {
        self.composer.channel_closed(now, "", &refused.to_string(), None)
    }

    /// Tells the sides that both stand, before anything else that waits (client-wire §6.2 rule 7).
    fn announce(&mut self, now: Now) {
        let (Some(agent), Some(client)) = (&self.agent, &self.client) else {
            return;
        };
        if self.stream != Stream::Settled {
            return;
        }
        let for_client = client.max_payload_bytes.and(agent.max_payload_bytes);
        let start = self.start_of_agent(false);
        self.client_in_use |= start.moorline_client_id.is_some();
        if self.agent_serves.is_some() {
            self.agent_serves.clone_from(&start.moorline_client_id);
        }
        let start = self.composer.start_publication(now, &start);
        self.to_agent.push_front(start);
        self.agent_paused = false;
        // a stock client that has the session running gains nothing from another one
        if !self.client_started || for_client.is_some() {
            self.client_started = true;
            let start = StartPublication {
                moorline_max_payload_bytes: for_client,
                ..StartPublication::default()
            };
            let start = self.composer.start_publication(now, &start);
            self.to_client.push_front(start);
        }
        self.events.push_back(RelayEvent::Connected);
    }

    /// A side's socket is gone.
    pub(crate) fn detach(&mut self, now: Now, side: Side) {
        match side {
            Side::Agent => {
                let Some(agent) = self.agent.take() else { return };
                self.to_agent.receiver_detached();
                self.agent_serves = None;
                let grace = if agent.is_ours() {
                    LOSS_GRACE
                } else {
                    STOCK_LOSS_GRACE
                };
                self.agent_deadline = Some(now.monotonic + grace);
            }
            Side::Client => {
                if self.client.take().is_none() {
                    return;
                }
                self.to_client.receiver_detached();
                self.pause_due = Some(now.monotonic + PAUSE_AFTER);
                self.events.push_back(RelayEvent::Disconnected);
            }
        }
        self.after_detach(now, side);
    }

    /// One websocket message of a side. `false`: it cannot be read, and was dropped.
    pub(crate) fn receive(&mut self, now: Now, side: Side, frame: Bytes) -> bool {
        let Ok(message) = AgentMessage::decode(&frame) else {
            return false;
        };
        match (side, &message.message_type) {
            (Side::Client, MessageType::InputStreamData) => {
                self.input(now, &message, frame);
                true
            }
            (Side::Client, MessageType::Acknowledge) => self.client_acknowledged(now, &message, frame),
            // of a stream that is another client's
            (Side::Agent, MessageType::OutputStreamData | MessageType::Acknowledge)
                if self.stream != Stream::Settled =>
            {
                true
            }
            (Side::Agent, MessageType::OutputStreamData) => {
                self.output(now, &message, frame);
                true
            }
            (Side::Agent, MessageType::Acknowledge) => self.agent_acknowledged(now, &message, frame),
            (Side::Agent, MessageType::AgentSessionState) => self.session_state(now, &message),
            // no violation: a newer peer may know more (client-wire §8.3)
            _ => true,
        }
    }

    fn input(&mut self, now: Now, message: &AgentMessage, frame: Bytes) {
        self.client_in_use = true;
        let typed = matches!(message.payload_type, PayloadType::Output | PayloadType::Flag);
        if typed && !self.is_keep_alive(message) {
            self.last_activity = now.monotonic;
        }
        let number = message.sequence_number;
        if message.payload_type == PayloadType::HandshakeResponse {
            self.gate.response_sent(number);
        }
        let frame = canonical(message, frame);
        match self.to_agent.push_data(number, message.message_id, frame) {
            Accepted::Kept => self.agent_paused = false,
            Accepted::Acknowledged => {
                let answer = self.composer.acknowledge(now, message);
                self.to_client.push_answer(answer);
            }
        }
    }

    /// A forwarded port of an older stock client says every ten seconds that it is there; nobody uses it by that.
    fn is_keep_alive(&self, message: &AgentMessage) -> bool {
        self.session.session_type == SessionType::Port && *message.payload == MULTIPLEX_KEEP_ALIVE
    }

    fn output(&mut self, now: Now, message: &AgentMessage, frame: Bytes) {
        // where nobody types, output is the only sign of use
        let is_typed_into = !matches!(
            self.session.session_type,
            SessionType::Port | SessionType::NonInteractiveCommands
        );
        if !is_typed_into && !self.is_keep_alive(message) {
            self.last_activity = now.monotonic;
        }
        if self.client.is_some() {
            self.client_in_use = true;
        }
        self.accept_silent(message.sequence_number);
        if self.to_client.is_acknowledged(message.sequence_number) {
            let answer = self.composer.acknowledge(now, message);
            self.to_agent.push_answer(answer);
            self.agent_paused = false;
        } else if self
            .gate
            .holds_output(now, message, |n| self.to_agent.is_acknowledged(n))
        {
            self.gate.hold(message.sequence_number, message.message_id, frame);
        } else {
            let number = message.sequence_number;
            if message.payload_type == PayloadType::HandshakeComplete {
                self.gate.complete_queued(number);
            }
            self.to_client.push_data(number, message.message_id, frame);
        }
        self.pause_if_needed(now);
    }

    /// The stock client never acknowledges what it has already: if the connection broke over its acknowledgement, the
    /// agent would repeat this message for ever, and nothing behind it.
    fn accept_silent(&mut self, number: i64) {
        // a port session may have nobody to take its output yet, which is another reason for silence
        let shell = self.session.session_type != SessionType::Port;
        let stock = self
            .client
            .as_ref()
            .is_some_and(|client| client.max_payload_bytes.is_none());
        if shell && stock && self.to_client.is_silently_received(number) {
            self.to_client.acknowledge(number);
        }
    }

    fn client_acknowledged(&mut self, now: Now, message: &AgentMessage, frame: Bytes) -> bool {
        let Ok(acknowledge) = serde_json::from_slice::<Acknowledge>(&message.payload) else {
            return false;
        };
        let number = acknowledge.acknowledged_message_sequence_number;
        // a client that acknowledges everything also names ids of messages that were none of the stream
        let named = Uuid::try_parse(&acknowledge.acknowledged_message_id).ok();
        let delivered = self.to_client.unacknowledged_id(number);
        if delivered.is_some_and(|id| named.is_none_or(|named| named == id)) {
            self.to_client.acknowledge(number);
            self.to_agent.push_other(canonical(message, frame));
            self.agent_paused = false;
            self.check_delivered(now);
        }
        true
    }

    fn agent_acknowledged(&mut self, now: Now, message: &AgentMessage, frame: Bytes) -> bool {
        let Ok(acknowledge) = serde_json::from_slice::<Acknowledge>(&message.payload) else {
            return false;
        };
        let number = acknowledge.acknowledged_message_sequence_number;
        if self.to_agent.acknowledge(number) {
            self.to_client.push_other(frame);
            self.release_gate(now);
        }
        true
    }

    /// Sends what waited for the acknowledgement of the handshake response.
    fn release_gate(&mut self, now: Now) {
        for held in self.gate.release(now, |n| self.to_agent.is_acknowledged(n)) {
            self.to_client.push_data(held.number, held.id, held.frame);
        }
    }

    /// The agent goes on reading its source until somebody stops it; a paused one neither reads nor repeats.
    fn pause_if_needed(&mut self, now: Now) {
        // the stock agent takes a pause for a failed write in this kind of session (agent-wire §8.5)
        let tolerates = self.session.session_type != SessionType::NonInteractiveCommands;
        let absent = self.client.is_none() && self.client_id.is_some();
        let due = self.pause_due.is_some_and(|due| due <= now.monotonic)
            || self.to_client.unacknowledged_bytes() > PAUSE_BYTES;
        if absent && due && tolerates && self.agent.is_some() && !self.agent_paused {
            let pause = self.composer.pause_publication(now);
            self.to_agent.push_other(pause);
            self.agent_paused = true;
        }
    }

    /// The next frame to send to this side.
    pub(crate) fn next_frame(&mut self, now: Now, side: Side) -> Option<Bytes> {
        match side {
            Side::Agent => self.to_agent.pop(),
            Side::Client if self.gate.is_quiet(now) => None,
            Side::Client => {
                let frame = self.to_client.pop();
                let ours = self
                    .client
                    .as_ref()
                    .is_some_and(|peer| peer.max_payload_bytes.is_some());
                if let Some(frame) = &frame
                    && self.session.session_type == SessionType::Port
                    && !ours
                {
                    self.gate.sent(now, frame);
                }
                frame
            }
        }
    }

    /// Whether this side may be read: false while the other side has too much to take.
    pub(crate) fn may_read(&self, side: Side) -> bool {
        match side {
            Side::Agent => self.to_client.has_room() && self.gate.has_room(),
            Side::Client => self.to_agent.has_room(),
        }
    }

    /// What the driver should know, until `None`. Drain the frames first.
    pub(crate) fn poll_event(&mut self) -> Option<RelayEvent> {
        self.note_ended();
        self.events.pop_front()
    }

    pub(crate) fn next_timeout(&self) -> Option<Duration> {
        let paused = self.agent_paused || self.client.is_some();
        [
            self.agent_deadline.filter(|_| self.phase.waits_for_sides()),
            self.client_deadline.filter(|_| self.phase.waits_for_sides()),
            self.pause_due.filter(|_| !paused && self.agent.is_some()),
            self.gate.next_timeout(),
            self.phase.next_timeout(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    pub(crate) fn timeout(&mut self, now: Now) {
        self.release_gate(now);
        self.pause_if_needed(now);
        if self.pause_due.is_some_and(|due| due <= now.monotonic) {
            // either paused now, or it cannot be: nothing to wait for
            self.pause_due = Some(now.monotonic + PAUSE_AFTER);
        }
        self.check_deadlines(now);
    }

    /// When somebody last used the session.
    pub(crate) fn last_activity(&self) -> Duration {
        self.last_activity
    }
}

/// The frame as the strictest peer takes it. Nearly all are so already.
fn canonical(message: &AgentMessage, frame: Bytes) -> Bytes {
    if is_canonical(&frame) {
        frame
    } else {
        message.encode()
    }
}

/// Whether a frame has the header that the strictest peer takes: 116 bytes, the type padded with spaces.
fn is_canonical(frame: &Bytes) -> bool {
    let Some((length, rest)) = frame.split_first_chunk::<4>() else {
        return false;
    };
    let Some((name, _)) = rest.split_first_chunk::<32>() else {
        return false;
    };
    let text = name.iter().position(|b| *b == b' ').unwrap_or(name.len());
    let padding = name.get(text..).unwrap_or_default();
    u32::from_be_bytes(*length) == 116 && padding.iter().all(|b| *b == b' ') && !name.contains(&0)
}

#[cfg(test)]
mod tests;
