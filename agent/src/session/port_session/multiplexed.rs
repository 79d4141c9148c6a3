//! Many connections in one session (client-wire §5.4): each stream that the client opens is dialled.
//!
//! Nothing is read for which there is no room behind it, in either direction: a connection is read as far as its
//! stream may be written, and a stream as far as its connection takes it.

use std::{
    collections::BTreeMap,
    io,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use moorline_protocol::mux::{MAX_STREAMS, Mux, MuxError, MuxEvent, Side, StreamId};
use tokio::net::TcpStream;

use super::{
    connection_log::{Connected, ConnectionLog},
    socket::{Dialling, READ_BYTES, Traffic, abort, dial, poll_read, poll_write, shut_down},
    target::{DialError, Target},
};

/// What is written at once. Windows are told by what was written, so that the client goes on meanwhile.
const WRITE_BYTES: usize = 64 * 1024;
/// With less room than this a connection is not read: there will be more, as soon as what is on its way has arrived.
const LEAST_READ_BYTES: usize = 1024;

enum State {
    Dialling(Dialling),
    Open(TcpStream),
}

/// It holds no data: what it does not take stays in the multiplexer, which bounds that for all of them.
struct Connection {
    state: State,
    connected: Connected,
    traffic: Traffic,
    peer_finished: bool,
    shut_down: bool,
    read_ended: bool,
    /// Both directions have ended, and everything was written.
    closed: bool,
}

/// What a look at a connection has found.
enum Looked {
    Idle,
    Moved,
    /// Both directions have ended.
    Over,
    NotReached(DialError),
    Broken(io::Error),
}

/// The connections of a session.
pub(super) struct Multiplexed {
    target: Arc<Target>,
    mux: Mux,
    connections: BTreeMap<StreamId, Connection>,
    limit: usize,
    /// Streams that could not be connected, of which the client is to be told.
    unreached: usize,
    failure: Option<String>,
    buffer: Box<[u8]>,
    /// Of all connections.
    pub(super) traffic: Traffic,
    pub(super) log: ConnectionLog,
}

impl Multiplexed {
    pub(super) fn new(target: Arc<Target>, version: u32, limit: usize) -> Self {
        Self {
            target,
            mux: Mux::new(Side::Accepts, version),
            connections: BTreeMap::new(),
            limit,
            unreached: 0,
            failure: None,
            buffer: vec![0; READ_BYTES].into_boxed_slice(),
            traffic: Traffic::default(),
            log: ConnectionLog::default(),
        }
    }

    /// Tells that the connections that are left are over.
    pub(super) fn log_end(&mut self) {
        for connection in self.connections.values() {
            self.log.closed(&connection.connected, connection.traffic, None);
        }
        self.connections.clear();
    }

    pub(super) fn takes_input(&self) -> bool {
        self.mux.may_receive()
    }

    /// # Errors
    /// The client does not speak the protocol.
    pub(super) fn input(&mut self, data: &[u8]) -> Result<(), MuxError> {
        self.mux.receive(data)?;
        self.drain_events();
        Ok(())
    }

    pub(super) fn take_output(&mut self, max: usize) -> Option<Bytes> {
        let output = self.mux.transmit(max);
        self.drain_events();
        output
    }

    /// Whether the client must be told of a stream that was not connected; once for each.
    pub(super) fn has_unreached(&self) -> bool {
        self.unreached > 0
    }

    pub(super) fn told_unreached(&mut self) {
        self.unreached = self.unreached.saturating_sub(1);
    }

    pub(super) fn keep_alive(&mut self) {
        self.mux.keep_alive();
    }

    pub(super) fn fail(&mut self, reason: String) {
        self.failure = Some(reason);
    }

    /// Why the session must end.
    pub(super) fn failure(&mut self) -> Option<String> {
        self.failure.take()
    }

    fn drain_events(&mut self) {
        while let Some(event) = self.mux.poll_event() {
            match event {
                MuxEvent::Opened(id) => self.open(id),
                MuxEvent::Refused(id) => {
                    tracing::warn!(stream = %id, "a connection was refused: there are {MAX_STREAMS} already");
                    self.unreached = self.unreached.saturating_add(1);
                }
                MuxEvent::Finished(id) => self.with(id, |connection| connection.peer_finished = true),
                MuxEvent::Closed(id) => self.with(id, |connection| connection.closed = true),
                MuxEvent::Reset(id) => {
                    if let Some(connection) = self.connections.remove(&id) {
                        let error = "the client has aborted it";
                        self.log
                            .closed(&connection.connected, connection.traffic, Some(&error));
                        if let State::Open(stream) = &connection.state {
                            abort(stream);
                        }
                    }
                }
                // each connection is looked at whenever anything has happened
                MuxEvent::Readable(_) | MuxEvent::Writable(_) => {}
            }
        }
    }

    fn with(&mut self, id: StreamId, change: impl FnOnce(&mut Connection)) {
        if let Some(connection) = self.connections.get_mut(&id) {
            change(connection);
        }
    }

    fn open(&mut self, id: StreamId) {
        if self.connections.len() >= self.limit {
            tracing::warn!(
                limit = self.limit,
                "a connection was refused, see forward.connections"
            );
            let error = "this session has as many connections as this node's owner allows";
            let connected = Connected::new(id.number(), &*self.target);
            self.log.closed(&connected, Traffic::default(), Some(&error));
            self.refuse(id);
            return;
        }
        let connection = Connection {
            connected: Connected::new(id.number(), &*self.target),
            traffic: Traffic::default(),
            state: State::Dialling(dial(&self.target)),
            peer_finished: false,
            shut_down: false,
            read_ended: false,
            closed: false,
        };
        self.connections.insert(id, connection);
    }

    fn refuse(&mut self, id: StreamId) {
        self.unreached = self.unreached.saturating_add(1);
        self.mux.reset(id);
    }

    /// Moves what can be moved; ready when something was.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut gone = Vec::new();
        let mut moved = false;
        for (id, connection) in &mut self.connections {
            let before = connection.traffic;
            let looked = connection.look(cx, *id, &mut self.mux, &mut self.buffer, &mut self.log);
            self.traffic += connection.traffic - before;
            moved |= !matches!(looked, Looked::Idle);
            if !matches!(looked, Looked::Idle | Looked::Moved) {
                gone.push((*id, looked));
            }
        }
        for (id, looked) in gone {
            self.remove(id, looked);
        }
        self.drain_events();
        if moved { Poll::Ready(()) } else { Poll::Pending }
    }

    fn remove(&mut self, id: StreamId, looked: Looked) {
        let connection = self.connections.remove(&id);
        if let Some(connection) = &connection {
            let error: Option<&dyn std::fmt::Display> = match &looked {
                Looked::NotReached(error) => Some(error),
                Looked::Broken(error) => Some(error),
                Looked::Over | Looked::Idle | Looked::Moved => None,
            };
            self.log.closed(&connection.connected, connection.traffic, error);
        }
        match looked {
            Looked::NotReached(error) => {
                tracing::info!(stream = %id, %error, "not connected");
                if error.is_forbidden() {
                    self.failure = Some(error.to_string());
                }
                self.refuse(id);
            }
            Looked::Broken(error) => {
                tracing::debug!(stream = %id, %error, "connection lost");
                self.mux.reset(id);
            }
            Looked::Over | Looked::Idle | Looked::Moved => {}
        }
        drop(connection);
    }
}

impl Connection {
    fn look(
        &mut self,
        cx: &mut Context<'_>,
        id: StreamId,
        mux: &mut Mux,
        buffer: &mut [u8],
        log: &mut ConnectionLog,
    ) -> Looked {
        if self.closed {
            return Looked::Over;
        }
        let mut moved = false;
        if let State::Dialling(dialling) = &mut self.state {
            match dialling.as_mut().poll(cx) {
                Poll::Pending => return Looked::Idle,
                Poll::Ready(Err(error)) => return Looked::NotReached(error),
                Poll::Ready(Ok(stream)) => {
                    self.traffic.connections += 1;
                    log.opened(&mut self.connected, stream.peer_addr().ok());
                    self.state = State::Open(stream);
                    moved = true;
                }
            }
        }
        let written = self.write(cx, id, mux);
        let read = self.read(cx, id, mux, buffer);
        match (written, read) {
            (Err(error), _) | (_, Err(error)) => Looked::Broken(error),
            (Ok(written), Ok(read)) if moved || written || read => Looked::Moved,
            _ => Looked::Idle,
        }
    }

    /// From the stream to the connection; whether anything was moved.
    fn write(&mut self, cx: &mut Context<'_>, id: StreamId, mux: &mut Mux) -> io::Result<bool> {
        let State::Open(stream) = &mut self.state else {
            return Ok(false);
        };
        let mut moved = false;
        loop {
            let unread = mux.unread(id);
            let unread = unread.get(..WRITE_BYTES).unwrap_or(unread);
            if unread.is_empty() {
                break;
            }
            let Poll::Ready(written) = poll_write(stream, cx, unread) else {
                return Ok(moved);
            };
            let length = written?;
            mux.read(id, length);
            self.traffic.add_in(length);
            moved = true;
        }
        if self.peer_finished && !self.shut_down {
            self.shut_down = true;
            shut_down(stream, cx);
            moved = true;
        }
        Ok(moved)
    }

    /// From the connection to the stream.
    fn read(
        &mut self,
        cx: &mut Context<'_>,
        id: StreamId,
        mux: &mut Mux,
        buffer: &mut [u8],
    ) -> io::Result<bool> {
        let State::Open(stream) = &mut self.state else {
            return Ok(false);
        };
        let mut moved = false;
        while !self.read_ended {
            let room = mux.writable(id);
            if room < LEAST_READ_BYTES {
                break;
            }
            let length = room.min(buffer.len());
            let Poll::Ready(read) = poll_read(stream, cx, buffer.get_mut(..length).unwrap_or_default())
            else {
                break;
            };
            let read = buffer.get(..read?).unwrap_or_default();
            moved = true;
            if read.is_empty() {
                self.read_ended = true;
                mux.finish(id);
            } else {
                self.traffic.add_out(read.len());
                mux.write(id, read);
            }
        }
        Ok(moved)
    }
}

#[cfg(test)]
mod tests;
