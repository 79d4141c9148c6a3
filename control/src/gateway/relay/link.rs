//! One side's websocket as the relay drives it: polled, never awaited, so that a slow side holds up nobody else.

use std::{
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::gateway::socket::Socket;

/// How often a side is pinged.
pub(super) const PING_INTERVAL: Duration = Duration::from_secs(30);
/// After this long without any frame a side is lost.
pub(super) const SILENCE: Duration = Duration::from_secs(90);

/// Frames that cannot be read, after which a side's socket is closed.
const MOST_VIOLATIONS: u32 = 100;

pub(super) struct Link {
    pub(super) socket: Socket,
    last_heard: Duration,
    next_ping: Duration,
    due: Option<Message>,
    violations: u32,
    is_flushed: bool,
}

impl Link {
    pub(super) fn new(socket: Socket, now: Duration) -> Self {
        Self {
            socket,
            last_heard: now,
            next_ping: now + PING_INTERVAL,
            due: None,
            violations: 0,
            is_flushed: true,
        }
    }

    /// Sends what `next` has, as far as the socket takes it. `true`: everything is out.
    pub(super) fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        mut next: impl FnMut() -> Option<Bytes>,
    ) -> Result<bool, Error> {
        loop {
            match self.socket.poll_ready_unpin(cx) {
                Poll::Pending => return Ok(false),
                Poll::Ready(ready) => ready?,
            }
            let Some(message) = self.due.take().or_else(|| next().map(Message::Binary)) else {
                break;
            };
            self.socket.start_send_unpin(message)?;
            self.is_flushed = false;
        }
        if !self.is_flushed {
            match self.socket.poll_flush_unpin(cx) {
                Poll::Pending => return Ok(false),
                Poll::Ready(flushed) => flushed?,
            }
            self.is_flushed = true;
        }
        Ok(true)
    }

    /// The next stream message. `Ok(None)`: nothing now. An error is also the end of the socket.
    pub(super) fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        now: Duration,
    ) -> Result<Option<Bytes>, Error> {
        loop {
            let Poll::Ready(received) = self.socket.poll_next_unpin(cx) else {
                return Ok(None);
            };
            self.last_heard = now;
            // text after the open message means nothing (client-wire §8.3)
            if let Message::Binary(frame) = received.ok_or(Error::ConnectionClosed)?? {
                return Ok(Some(frame));
            }
        }
    }

    /// The side sent something that cannot be read. `false`: once too often.
    pub(super) fn forgives(&mut self) -> bool {
        self.violations += 1;
        self.violations < MOST_VIOLATIONS
    }

    /// Once per [`PING_INTERVAL`]. `false`: the side is lost.
    ///
    /// A side that is not read at the moment cannot be heard, and its pings wait unanswered: it is not lost, and gets
    /// a pong unasked, which a peer that counts pongs takes for an answer.
    pub(super) fn keep_alive(&mut self, now: Duration, is_read: bool) -> bool {
        if now < self.next_ping {
            return true;
        }
        self.next_ping = now + PING_INTERVAL;
        self.due = Some(if is_read {
            Message::Ping(Bytes::new())
        } else {
            Message::Pong(Bytes::new())
        });
        if !is_read {
            self.last_heard = now;
        }
        now.saturating_sub(self.last_heard) <= SILENCE
    }

    pub(super) fn next_ping(&self) -> Duration {
        self.next_ping
    }
}
