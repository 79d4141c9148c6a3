//! The websocket of a session client: writing, reading, losing and restoring it.

use std::{
    io,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_util::{FutureExt, StreamExt};
use moorline_transport::WebSocket;
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::{self, Message};

use super::{
    Connection, MAX_BARREN_CONNECTIONS, PING_INTERVAL, SessionClient, SessionError, SessionEvent,
    link::Resumed,
};

const CLOSED: &str = "the endpoint closed it";

impl SessionClient {
    /// Writes what is to be written and reads one message; returns whether anything was read or lost.
    pub(super) fn poll_socket(&mut self, cx: &mut Context<'_>, has_room: bool) -> bool {
        let Connection::Up(socket) = &mut self.connection else {
            return false;
        };
        match self.to_send.poll_write(&mut **socket, cx) {
            Poll::Ready(Err(error)) => {
                self.on_lost(&reason_of(&error));
                return true;
            }
            Poll::Ready(Ok(())) | Poll::Pending => {}
        }
        if !has_room {
            // the silence is ours
            self.heard_at = Instant::now();
            return false;
        }
        if self.to_send.is_full() {
            // a peer that takes nothing for too long is dead, even if it has something to say
            return false;
        }
        match socket.poll_next_unpin(cx) {
            Poll::Pending => false,
            Poll::Ready(Some(Ok(message))) => {
                self.on_message(message);
                true
            }
            Poll::Ready(Some(Err(error))) => {
                self.on_lost(&reason_of(&error));
                true
            }
            Poll::Ready(None) => {
                self.on_lost(CLOSED);
                true
            }
        }
    }

    fn on_message(&mut self, message: Message) {
        self.heard_at = Instant::now();
        let frame = match message {
            Message::Binary(frame) => frame,
            Message::Text(text) => Bytes::from(text),
            Message::Close(close) => {
                self.close_reason = close.map(|close| format!("{} (code {})", close.reason, close.code));
                return;
            }
            // the answer to a ping is already written, and waits to be flushed
            Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {
                self.to_send.flush_soon();
                return;
            }
        };
        self.is_barren = false;
        self.barren_connections = 0;
        let now = self.now();
        self.channel.receive(now, &frame);
    }

    pub(super) fn on_connected(&mut self, socket: WebSocket) {
        let now = Instant::now();
        self.connection = Connection::Up(Box::new(socket));
        self.ping_at = now + PING_INTERVAL;
        self.heard_at = now;
        self.unacknowledged.1 = now;
        self.is_barren = true;
        self.close_reason = None;
        let now = self.now();
        self.channel.connected(now);
    }

    pub(super) fn on_lost(&mut self, error: &str) {
        self.channel.disconnected();
        self.to_send.clear();
        let reason = self.close_reason.take().unwrap_or_else(|| error.to_owned());
        if self.is_barren {
            self.barren_connections += 1;
        }
        if self.barren_connections >= MAX_BARREN_CONNECTIONS {
            self.connection = Connection::Over;
            let error = SessionError::Barren { reason };
            return self.events.push_back(SessionEvent::Failed(error));
        }
        self.connection = Connection::Restoring(self.link.clone().resume().boxed());
        self.events.push_back(SessionEvent::Lost(reason));
    }

    pub(super) fn on_restored(&mut self, result: Result<Resumed, SessionError>) {
        self.connection = Connection::Over;
        let event = match result {
            Ok(Resumed::Connected(socket)) => {
                self.on_connected(*socket);
                SessionEvent::Restored
            }
            Ok(Resumed::Over) => SessionEvent::Expired,
            Err(error) => SessionEvent::Failed(error),
        };
        self.events.push_back(event);
    }
}

/// What a broken connection says of itself, in words for the user.
fn reason_of(error: &tungstenite::Error) -> String {
    match error {
        tungstenite::Error::ConnectionClosed | tungstenite::Error::AlreadyClosed => CLOSED.to_owned(),
        tungstenite::Error::Io(error) if error.kind() == io::ErrorKind::UnexpectedEof => CLOSED.to_owned(),
        tungstenite::Error::Io(error) => error.to_string(),
        error => error.to_string(),
    }
}
