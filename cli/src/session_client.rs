//! The client's end of a session, whatever its type: one websocket after another under one
//! [`DataChannel`](moorline_protocol::channel::DataChannel).
//!
//! [`SessionClient::next`] does all the work and may be dropped at any await: what is half done is kept in `self`.
//! So a front end waits for it beside its keyboard and its signals. Input is taken one piece at a time
//! ([`SessionClient::takes_input`]), and while the front end has no room for output it says so: then the websocket is
//! not read, and TCP slows the node down. Neither direction needs a queue that grows.
//!
//! A connection that breaks, or is silent for too long, is replaced (`ResumeSession`, a new websocket, the same
//! client id), and the state machine sees to it that no byte is lost or repeated.

mod connection;
mod data_key;
mod event;
mod link;
#[cfg(test)]
mod tests;

use std::{
    collections::VecDeque,
    pin::Pin,
    task::{Context, Poll, ready},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use futures_util::{FutureExt, future::BoxFuture};
use moorline_protocol::{
    channel::{DataChannel, Event, Output, Role, WindowFull},
    message::{PayloadType, TerminalSize},
    time::Now,
};
use moorline_transport::{SendQueue, WebSocket};
use tokio::time::{Instant, Sleep, sleep_until};
use tokio_tungstenite::tungstenite::Message;
use uuid::Uuid;

use self::{
    data_key::{DataKeyError, MadeKey},
    link::{MAX_PAYLOAD_BYTES, Resumed},
};
pub(crate) use self::{
    event::{SessionError, SessionEvent},
    link::{Grant, Link},
};

use crate::error;

/// Sent and not acknowledged, and received out of order: at most this much each.
const WINDOW_BYTES: usize = 1024 * 1024;
/// Messages that wait for the network, above which input is not handed to the state machine: what is typed, or said on
/// another stream, goes behind all that was.
const MAX_AHEAD_BYTES: usize = 128 * 1024;
/// Input goes to the state machine in pieces of at most this much.
const INPUT_PIECE_BYTES: usize = 64 * 1024;
const PING_INTERVAL: Duration = Duration::from_secs(20);
/// A connection on which nothing arrives for this long is dead: the endpoint answers every ping.
const SILENCE_LIMIT: Duration = Duration::from_secs(60);
/// Input that no one acknowledges for this long: the session is of no use (client-wire §4.4).
const STALL_LIMIT: Duration = Duration::from_secs(300);
/// Connections in a row that ended before anything arrived on them.
const MAX_BARREN_CONNECTIONS: u32 = 5;
/// A node that wants a handshake asks for it as soon as both sides are attached; one that has not by then wants none,
/// and perhaps puts out nothing until it has input. Before, input would be thrown away (client-wire §4.5).
const HANDSHAKE_GRACE: Duration = Duration::from_secs(1);
/// The same, for endpoints that do not tell when both sides are attached.
const ATTACH_GRACE: Duration = Duration::from_secs(5);
/// Who takes a session over sends nothing before the endpoint says that it is theirs: should another one take it first,
/// it would be sent again with the next attempt, and typed twice. Longer than any attempt.
const TAKE_OVER_LIMIT: Duration = Duration::from_secs(24 * 3600);

enum Connection {
    Up(Box<WebSocket>),
    Restoring(BoxFuture<'static, Result<Resumed, SessionError>>),
    Over,
}

/// The client's end of one session.
pub(crate) struct SessionClient {
    link: Link,
    channel: DataChannel,
    connection: Connection,
    /// A data key is being made.
    data_key: Option<BoxFuture<'static, Result<MadeKey, DataKeyError>>>,
    origin: Instant,
    timer: Pin<Box<Sleep>>,
    to_send: SendQueue,
    events: VecDeque<SessionEvent>,
    /// Waits for room in the window.
    input: VecDeque<(PayloadType, Bytes)>,
    owes_input_taken: bool,
    size: Option<TerminalSize>,
    /// As the handshake gave it; sessions without one have none.
    session_type: Option<String>,
    /// Whether input may be sent, and if not yet, from when on.
    is_ready: bool,
    ready_at: Instant,
    ping_at: Instant,
    heard_at: Instant,
    /// The amount of unacknowledged input, and since when it has been that.
    unacknowledged: (usize, Instant),
    close_reason: Option<String>,
    is_barren: bool,
    barren_connections: u32,
}

impl SessionClient {
    /// Connects with the token of `grant`.
    ///
    /// # Errors
    /// No data channel stands. It is not tried again: a token is good for one connection.
    pub(crate) async fn open(link: Link, grant: &Grant) -> Result<Self, SessionError> {
        let socket = link.connect(grant).await?;
        let now = Instant::now();
        let grace = if link.takes_over() {
            TAKE_OVER_LIMIT
        } else {
            ATTACH_GRACE
        };
        let mut client = Self {
            link,
            channel: DataChannel::new(Role::Client, seed(), WINDOW_BYTES),
            connection: Connection::Over,
            data_key: None,
            origin: now,
            timer: Box::pin(sleep_until(now)),
            to_send: SendQueue::default(),
            events: VecDeque::new(),
            input: VecDeque::new(),
            owes_input_taken: false,
            size: None,
            session_type: None,
            is_ready: false,
            ready_at: now + grace,
            ping_at: now,
            heard_at: now,
            unacknowledged: (0, now),
            close_reason: None,
            is_barren: true,
            barren_connections: 0,
        };
        client.on_connected(socket);
        Ok(client)
    }

    /// Whether [`Self::write`] has room.
    pub(crate) fn takes_input(&self) -> bool {
        self.input.is_empty()
    }

    /// Takes input. Beyond one piece (see [`Self::takes_input`]) it is only for the rare: an interrupt must get through.
    pub(crate) fn write(&mut self, payload_type: PayloadType, data: Bytes) {
        if !data.is_empty() {
            self.input.push_back((payload_type, data));
        }
    }

    /// Waits until it is known what kind of session this is: the node has said it in the handshake, or has put
    /// something out without one, or wants none. The events that come until then come again from [`Self::next`].
    /// Not to be dropped before its end, unless the session is given up.
    pub(crate) async fn settle(&mut self) {
        let mut early = VecDeque::new();
        std::future::poll_fn(|cx| {
            loop {
                let polled = self.poll_next(cx, true);
                let is_pending = polled.is_pending();
                if let Poll::Ready(event) = polled {
                    early.push_back(event);
                }
                if self.is_ready || matches!(self.connection, Connection::Over) {
                    return Poll::Ready(());
                }
                if is_pending {
                    return Poll::Pending;
                }
            }
        })
        .await;
        early.append(&mut self.events);
        self.events = early;
    }

    /// The session's type, where the node has said it.
    pub(crate) fn session_type(&self) -> Option<&str> {
        self.session_type.as_deref()
    }

    /// What the handshake brought: properties of the session, and of the peer.
    pub(crate) fn channel(&self) -> &DataChannel {
        &self.channel
    }

    /// Tells the node the size of the terminal; only the newest counts.
    pub(crate) fn resize(&mut self, size: TerminalSize) {
        self.size = Some(size);
    }

    /// Waits until what was written is with the node, but not for ever: events are dropped.
    pub(crate) async fn flush(&mut self, limit: Duration) {
        let limit = Instant::now() + limit;
        while !self.input.is_empty() || self.channel.unacknowledged() > 0 {
            tokio::select! {
                event = self.next(true) => if matches!(event, SessionEvent::Lost(_) | SessionEvent::Closed { .. }) {
                    return;
                },
                () = sleep_until(limit) => return,
            }
        }
    }

    /// The next event. Data comes only while `has_room`.
    pub(crate) async fn next(&mut self, has_room: bool) -> SessionEvent {
        std::future::poll_fn(|cx| self.poll_next(cx, has_room)).await
    }

    fn poll_next(&mut self, cx: &mut Context<'_>, has_room: bool) -> Poll<SessionEvent> {
        loop {
            self.feed();
            self.drain();
            if has_room && let Some(event) = self.events.pop_front() {
                return Poll::Ready(event);
            }
            if self.owes_input_taken && self.input.is_empty() {
                self.owes_input_taken = false;
                return Poll::Ready(SessionEvent::InputTaken);
            }
            if self.poll_data_key(cx) {
                continue;
            }
            let moved = match &mut self.connection {
                Connection::Over => false,
                Connection::Restoring(restoring) => match restoring.poll_unpin(cx) {
                    Poll::Ready(result) => {
                        self.on_restored(result);
                        true
                    }
                    Poll::Pending => false,
                },
                Connection::Up(_) => {
                    let was_ahead = self.is_ahead();
                    self.poll_socket(cx, has_room) || (was_ahead && !self.is_ahead())
                }
            };
            if moved {
                continue;
            }
            // set after every change above, so that the earliest time counts
            let due = self.due();
            if self.timer.deadline() != due {
                self.timer.as_mut().reset(due);
            }
            ready!(self.timer.poll_unpin(cx));
            self.on_time();
        }
    }

    /// Gives the state machine the data key that it asked for; returns whether it was there.
    fn poll_data_key(&mut self, cx: &mut Context<'_>) -> bool {
        let made = self.data_key.as_mut().map(|making| making.poll_unpin(cx));
        let Some(Poll::Ready(result)) = made else {
            return false;
        };
        self.data_key = None;
        let now = self.now();
        match result {
            Ok((ciphertext, key)) => self.channel.provide_data_key(now, &ciphertext, &key),
            Err(error) => self.channel.refuse_data_key(now, &error::chain(&error)),
        }
        true
    }

    /// Moves input into the state machine as far as there is room.
    fn feed(&mut self) {
        // also of input that goes out at once: who waits has asked before
        self.owes_input_taken |= !self.input.is_empty();
        if self.is_ready {
            self.feed_channel();
        }
    }

    fn feed_channel(&mut self) {
        let now = self.now();
        if let Some(size) = self.size
            && let Ok(payload) = serde_json::to_vec(&size)
            && self.channel.send(now, PayloadType::Size, &payload).is_ok()
        {
            self.size = None;
        }
        while !self.is_ahead()
            && let Some((payload_type, data)) = self.input.front_mut()
        {
            let piece = data.len().min(self.channel.writable()).min(INPUT_PIECE_BYTES);
            if piece == 0 {
                return;
            }
            let head = data.split_to(piece);
            match self.channel.send(now, *payload_type, &head) {
                Ok(_) if data.is_empty() => {
                    self.input.pop_front();
                }
                Ok(_) => {}
                Err(WindowFull) => return, // `writable` has just said that there is room
            }
        }
    }

    /// Whether enough waits for the network.
    fn is_ahead(&self) -> bool {
        self.to_send.bytes() > MAX_AHEAD_BYTES
    }

    /// Takes everything the state machine has to say.
    fn drain(&mut self) {
        while let Some(output) = self.channel.poll() {
            match output {
                Output::Transmit(frame) => self.to_send.push(Message::Binary(frame)),
                Output::Event(event) => self.on_event(event),
            }
        }
        let unacknowledged = self.channel.unacknowledged();
        if unacknowledged != self.unacknowledged.0 {
            self.unacknowledged = (unacknowledged, Instant::now());
        }
    }

    fn on_event(&mut self, event: Event) {
        let event = match event {
            Event::Data {
                payload_type,
                payload,
            } => {
                self.is_ready = true;
                SessionEvent::Data {
                    payload_type,
                    payload,
                }
            }
            Event::HandshakeComplete {
                session_type,
                customer_message,
            } => {
                self.is_ready = true;
                self.session_type = Some(session_type.clone());
                if !customer_message.is_empty() {
                    self.events.push_back(SessionEvent::Message(customer_message));
                }
                SessionEvent::Type(session_type)
            }
            Event::DataKeyWanted { key_id, challenge } => {
                self.data_key = Some(self.link.data_key(key_id, challenge).boxed());
                return;
            }
            Event::HandshakeFailed(text) => {
                self.data_key = None;
                SessionEvent::Failed(SessionError::Handshake(text))
            }
            Event::EncryptionBroken(text) => SessionEvent::Failed(SessionError::Encryption(text)),
            Event::Started(start) => {
                self.link.has_taken_over();
                if let Some(bytes) = start.moorline_max_payload_bytes {
                    let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
                    self.channel.set_max_payload(bytes.min(MAX_PAYLOAD_BYTES));
                }
                self.ready_at = self.ready_at.min(Instant::now() + HANDSHAKE_GRACE);
                return;
            }
            Event::Closed(closed) => {
                self.connection = Connection::Over;
                SessionEvent::Closed {
                    reason: closed.output,
                    exit_code: closed.moorline_exit_code,
                }
            }
            // an endpoint that pauses us knows why; a frame that breaks the protocol was dropped
            Event::Paused
            | Event::SessionState(_)
            | Event::PeerMisbehaved(_)
            // not in this role
            | Event::DecryptionWanted { .. } => return,
        };
        self.events.push_back(event);
    }

    /// When the state machine wants to repeat something. Not while the first copy still waits here.
    fn resend_at(&self) -> Option<Duration> {
        self.channel
            .next_timeout()
            .filter(|_| !self.to_send.is_congested())
    }

    /// When something is to be done even if nothing arrives.
    fn due(&self) -> Instant {
        let mut due = self.origin + Duration::from_secs(365 * 86_400);
        if let Some(timeout) = self.resend_at() {
            due = due.min(self.origin + timeout);
        }
        if !self.is_ready {
            due = due.min(self.ready_at);
        }
        if matches!(self.connection, Connection::Up(_)) {
            due = due.min(self.ping_at).min(self.heard_at + SILENCE_LIMIT);
            if self.unacknowledged.0 > 0 {
                due = due.min(self.unacknowledged.1 + STALL_LIMIT);
            }
        }
        due
    }

    fn on_time(&mut self) {
        let instant = Instant::now();
        let now = self.now();
        if self.resend_at().is_some_and(|due| due <= now.monotonic) {
            self.channel.timeout(now);
        }
        self.is_ready |= instant >= self.ready_at;
        if !matches!(self.connection, Connection::Up(_)) {
            return;
        }
        if instant >= self.heard_at + SILENCE_LIMIT {
            let seconds = SILENCE_LIMIT.as_secs();
            return self.on_lost(&format!("nothing was heard for {seconds} s"));
        }
        if self.unacknowledged.0 > 0 && instant >= self.unacknowledged.1 + STALL_LIMIT {
            self.connection = Connection::Over;
            let event = SessionEvent::Failed(SessionError::Stalled);
            return self.events.push_back(event);
        }
        if instant >= self.ping_at {
            self.ping_at = instant + PING_INTERVAL;
            self.to_send.push(Message::Ping(Bytes::new()));
        }
    }

    fn now(&self) -> Now {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Now {
            monotonic: self.origin.elapsed(),
            unix_millis: u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX),
        }
    }
}

/// For message ids: never the same twice.
fn seed() -> [u8; 32] {
    let mut seed = [0; 32];
    let (left, right) = seed.split_at_mut(16);
    left.copy_from_slice(Uuid::new_v4().as_bytes());
    right.copy_from_slice(Uuid::new_v4().as_bytes());
    seed
}
