//! The session's connection: one websocket at a time, opened again whenever it is lost, for as long as the session
//! lives. It moves frames and knows nothing of what is in them.

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use futures_util::Stream;
use moorline_protocol::error_chain;
use moorline_transport::{SendQueue, WebSocket};
use tokio::time::{Duration, Instant, sleep_until, timeout};
use tokio_tungstenite::tungstenite::{self, Message};

use super::channel_opening::{ChannelOpening, OpenError};
use crate::runtime::{Backoff, random_u32};

/// The first pause after a failed attempt, at most; later ones double up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// A connection that stood for this long ends a series of failures.
const STABLE_AFTER: Duration = Duration::from_secs(5);
/// A session that nobody can reach for this long ends.
const LONGEST_ABSENCE: Duration = Duration::from_secs(30 * 60);
/// And one that nobody ever reached ends after this long: its client has given up by then.
const LONGEST_START: Duration = Duration::from_secs(60);
const PING_INTERVAL: Duration = Duration::from_secs(10);
const PING_TEXT: &[u8] = b"keepalive";
/// No frame of any kind for this long: the peer is dead, though TCP has not noticed.
/// The endpoint gives a session up whose node is away for 300 s (`LOSS_GRACE` of its relay), and that begins when *it*
/// notices: a loss that only one side sees must be seen here long before.
const DEAD_AFTER: Duration = Duration::from_secs(25);
/// A peer that does not answer our close does not hold us.
const CLOSE_PATIENCE: Duration = Duration::from_secs(1);

/// What happened on the connection.
#[derive(Debug)]
pub(super) enum LinkEvent {
    /// A new websocket stands and the open message was sent.
    Opened,
    Frame(Bytes),
    /// The websocket is gone; a new one is being opened.
    Lost,
    /// The endpoint says that the session has ended.
    Ended,
    /// There will be no connection any more; the reason.
    GivenUp(String),
}

type Opening = Pin<Box<dyn Future<Output = Result<WebSocket, OpenError>> + Send>>;

enum State {
    Opening(Opening),
    Pausing(Instant),
    Open(Box<OpenLink>),
    Closed,
}

struct OpenLink {
    socket: WebSocket,
    to_send: SendQueue,
    reads: bool,
    opened_at: Instant,
    heard_at: Instant,
    ping_at: Instant,
}

/// The session's connection.
pub(super) struct Link {
    opening: Arc<ChannelOpening>,
    state: State,
    backoff: Backoff,
    /// Since when there is no connection.
    away_since: Instant,
    /// How long there may be none.
    patience: Duration,
}

impl Link {
    /// Begins to open a connection when [`Self::next`] is polled.
    pub(super) fn new(opening: Arc<ChannelOpening>) -> Self {
        Self {
            state: State::Opening(attempt(&opening)),
            opening,
            backoff: Backoff::new(FIRST_PAUSE, LONGEST_PAUSE),
            away_since: Instant::now(),
            patience: LONGEST_START,
        }
    }

    /// The next event. Nothing is lost when the future is dropped.
    pub(super) async fn next(&mut self) -> LinkEvent {
        loop {
            match &mut self.state {
                State::Opening(opening) => {
                    let opened = opening.await;
                    if let Some(event) = self.attempted(opened) {
                        return event;
                    }
                }
                State::Pausing(until) => {
                    sleep_until(*until).await;
                    self.state = State::Opening(attempt(&self.opening));
                }
                State::Open(link) => match link.next().await {
                    Ok(frame) => return LinkEvent::Frame(frame),
                    Err(reason) => {
                        tracing::info!(reason, "data channel lost, opening it again");
                        self.lost();
                        return LinkEvent::Lost;
                    }
                },
                State::Closed => std::future::pending().await,
            }
        }
    }

    /// Sends a frame, or drops it when there is no connection: the stream's state machine sends it again.
    pub(super) fn send(&mut self, frame: Bytes) {
        if let State::Open(link) = &mut self.state {
            link.to_send.push(Message::Binary(frame));
        }
    }

    pub(super) fn is_open(&self) -> bool {
        matches!(self.state, State::Open(_))
    }

    /// While not reading, what the peer sends stays in the network, so that it sends no more. Pings go on.
    pub(super) fn set_reading(&mut self, reads: bool) {
        if let State::Open(link) = &mut self.state {
            link.reads = reads;
        }
    }

    /// Bytes that wait for the network.
    pub(super) fn waiting_bytes(&self) -> usize {
        match &self.state {
            State::Open(link) => link.to_send.bytes(),
            State::Opening(_) | State::Pausing(_) | State::Closed => 0,
        }
    }

    /// Whether frames wait for the network: repeating any would only make it worse.
    pub(super) fn is_congested(&self) -> bool {
        matches!(&self.state, State::Open(link) if link.to_send.is_congested())
    }

    /// Sends what waits, closes the connection, and opens no other.
    pub(super) async fn close(&mut self) {
        if let State::Open(mut link) = std::mem::replace(&mut self.state, State::Closed) {
            link.to_send.push(Message::Close(None));
            // Either it is flushed, or the peer is not there to see it.
            let _flushed = timeout(CLOSE_PATIENCE, poll_fn(|cx| link.poll_send(cx))).await;
        }
    }

    fn attempted(&mut self, opened: Result<WebSocket, OpenError>) -> Option<LinkEvent> {
        let now = Instant::now();
        let error = match opened {
            Ok(socket) => {
                self.patience = LONGEST_ABSENCE;
                self.state = State::Open(Box::new(OpenLink::new(socket, now)));
                return Some(LinkEvent::Opened);
            }
            Err(error) => error,
        };
        if error.is_final() {
            self.state = State::Closed;
            return Some(LinkEvent::Ended);
        }
        let text = error_chain(&error);
        if now.duration_since(self.away_since) > self.patience {
            self.state = State::Closed;
            return Some(LinkEvent::GivenUp(text));
        }
        let pause = self.pause();
        tracing::info!("no data channel, next attempt in {pause:.1?}: {text}");
        None
    }

    fn lost(&mut self) {
        let now = Instant::now();
        self.away_since = now;
        if let State::Open(link) = &self.state
            && now.duration_since(link.opened_at) >= STABLE_AFTER
        {
            self.backoff.reset();
        }
        self.pause();
    }

    fn pause(&mut self) -> Duration {
        let pause = self.backoff.next(random_u32());
        self.state = State::Pausing(Instant::now() + pause);
        pause
    }
}

fn attempt(opening: &Arc<ChannelOpening>) -> Opening {
    let opening = Arc::clone(opening);
    Box::pin(async move { opening.open().await })
}

impl OpenLink {
    fn new(socket: WebSocket, now: Instant) -> Self {
        Self {
            socket,
            to_send: SendQueue::default(),
            reads: true,
            opened_at: now,
            heard_at: now,
            ping_at: now + PING_INTERVAL,
        }
    }

    /// Sends and receives until a frame came; an error says why there will be none.
    async fn next(&mut self) -> Result<Bytes, String> {
        loop {
            let ping_at = self.ping_at;
            if !self.reads {
                // who does not listen cannot say that nobody speaks
                self.heard_at = Instant::now();
            }
            let dead_at = self.heard_at + DEAD_AFTER;
            let message = tokio::select! {
                biased;
                message = poll_fn(|cx| self.poll_io(cx)) => message.map_err(|error| error.to_string())?,
                () = sleep_until(dead_at) => return Err("nothing was heard of the endpoint".to_owned()),
                () = sleep_until(ping_at) => {
                    self.ping_at = Instant::now() + PING_INTERVAL;
                    self.to_send.push(Message::Ping(Bytes::from_static(PING_TEXT)));
                    continue;
                }
            };
            self.heard_at = Instant::now();
            match message {
                Message::Binary(frame) => return Ok(frame),
                // Some clients send their frames as text.
                Message::Text(text) => return Ok(Bytes::from(text)),
                Message::Close(close) => {
                    let reason = close.map(|close| close.reason.to_string()).unwrap_or_default();
                    return Err(format!("the endpoint closed it: {reason:?}"));
                }
                // The answer to a ping goes out with the next flush.
                Message::Ping(_) => self.to_send.flush_soon(),
                Message::Pong(_) | Message::Frame(_) => {}
            }
        }
    }

    fn poll_io(&mut self, cx: &mut Context<'_>) -> Poll<Result<Message, tungstenite::Error>> {
        if let Poll::Ready(Err(error)) = self.poll_send(cx) {
            return Poll::Ready(Err(error));
        }
        if self.to_send.is_full() || !self.reads {
            return Poll::Pending;
        }
        let message = ready!(Pin::new(&mut self.socket).poll_next(cx));
        Poll::Ready(message.unwrap_or(Err(tungstenite::Error::ConnectionClosed)))
    }

    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), tungstenite::Error>> {
        self.to_send.poll_write(&mut self.socket, cx)
    }
}
