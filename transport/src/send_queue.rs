//! What waits for a websocket to take it, for both ends of a session.

use std::{
    collections::VecDeque,
    task::{Context, Poll, ready},
};

use futures_util::{Sink, SinkExt};
use tokio_tungstenite::tungstenite::{self, Message};

/// With more than this waiting, nothing more is taken in: every frame that comes causes one that goes.
const MAX_WAITING_BYTES: usize = 4 * 1024 * 1024;

/// Messages for a websocket, in order.
#[derive(Debug, Default)]
pub struct SendQueue {
    messages: VecDeque<Message>,
    bytes: usize,
    /// Something was written and may still be in the socket's buffer.
    needs_flush: bool,
}

impl SendQueue {
    /// Appends a message: there is no refusal, see [`Self::is_full`].
    pub fn push(&mut self, message: Message) {
        self.bytes = self.bytes.saturating_add(message.len());
        self.messages.push_back(message);
    }

    /// What waits, in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether messages wait for the network: repeating any would only make it worse.
    pub fn is_congested(&self) -> bool {
        !self.messages.is_empty()
    }

    /// Whether nothing should be read that asks for an answer.
    pub fn is_full(&self) -> bool {
        self.bytes > MAX_WAITING_BYTES
    }

    /// The websocket wrote something by itself.
    pub fn flush_soon(&mut self) {
        self.needs_flush = true;
    }

    /// Forgets everything: the websocket is gone.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// Writes as many messages as the socket takes, and flushes them. Ready when everything is with the operating
    /// system.
    ///
    /// # Errors
    /// The websocket is broken.
    pub fn poll_write<S>(
        &mut self,
        socket: &mut S,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), tungstenite::Error>>
    where
        S: Sink<Message, Error = tungstenite::Error> + Unpin,
    {
        while !self.messages.is_empty() {
            ready!(socket.poll_ready_unpin(cx))?;
            if let Some(message) = self.messages.pop_front() {
                self.bytes = self.bytes.saturating_sub(message.len());
                socket.start_send_unpin(message)?;
                self.needs_flush = true;
            }
        }
        if self.needs_flush {
            ready!(socket.poll_flush_unpin(cx))?;
            self.needs_flush = false;
        }
        Poll::Ready(Ok(()))
    }
}
