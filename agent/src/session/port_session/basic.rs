//! One connection at a time, its bytes as they are (client-wire §5.3): for old clients, and for standard input and
//! output as a connection.

use std::{
    collections::VecDeque,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::{Buf, Bytes, BytesMut};
use tokio::net::TcpStream;

use super::{
    connection_log::{Connected, ConnectionLog},
    socket::{Dialling, READ_BYTES, Traffic, dial, poll_read, poll_write},
    target::{DialError, Target},
};

/// Input that the connection has not taken. With more, no more is taken of the client.
const MAX_INPUT_BYTES: usize = 256 * 1024;

enum State {
    /// Until the client sends something.
    Idle,
    Dialling(Dialling),
    Open(TcpStream),
    /// And the session with it.
    Over,
}

/// What the client said, in order.
enum Input {
    Data(BytesMut),
    /// Its program has closed the connection.
    Disconnect,
}

/// The only connection of a session.
pub(super) struct Basic {
    target: Arc<Target>,
    state: State,
    input: VecDeque<Input>,
    input_bytes: usize,
    output: Bytes,
    buffer: Box<[u8]>,
    end: Option<Result<(), String>>,
    pub(super) traffic: Traffic,
    /// The connection that is being made or stands, and the traffic before it.
    current: Option<(Connected, Traffic)>,
    /// Connections that were dialled.
    dialled: u64,
    pub(super) log: ConnectionLog,
}

impl Basic {
    /// Dials at once: a session whose port is closed fails at its start.
    pub(super) fn new(target: Arc<Target>) -> Self {
        let mut basic = Self {
            state: State::Idle,
            target,
            input: VecDeque::new(),
            input_bytes: 0,
            output: Bytes::new(),
            buffer: vec![0; READ_BYTES].into_boxed_slice(),
            end: None,
            traffic: Traffic::default(),
            current: None,
            dialled: 0,
            log: ConnectionLog::default(),
        };
        basic.dial();
        basic
    }

    fn dial(&mut self) {
        self.dialled += 1;
        let connected = Connected::new(self.dialled, &*self.target);
        self.current = Some((connected, self.traffic));
        self.state = State::Dialling(dial(&self.target));
    }

    /// Tells that the connection is over, if there is one.
    pub(super) fn log_end(&mut self, error: Option<&dyn std::fmt::Display>) {
        if let Some((connected, before)) = self.current.take() {
            self.log.closed(&connected, self.traffic - before, error);
        }
    }

    /// Whether input is taken. Until the connection stands it is not: the client sends it again.
    pub(super) fn takes_input(&self) -> bool {
        !matches!(self.state, State::Dialling(_)) && self.input_bytes < MAX_INPUT_BYTES
    }

    pub(super) fn input(&mut self, data: &[u8]) {
        if matches!(self.state, State::Over) {
            return;
        }
        self.input_bytes += data.len();
        if let Some(Input::Data(last)) = self.input.back_mut() {
            last.extend_from_slice(data);
        } else {
            self.input.push_back(Input::Data(data.into()));
        }
    }

    /// A second one in a row says nothing new.
    pub(super) fn disconnect(&mut self) {
        if !matches!(self.input.back(), Some(Input::Disconnect)) {
            self.input.push_back(Input::Disconnect);
        }
    }

    /// Up to `max` bytes of what the connection said.
    pub(super) fn take_output(&mut self, max: usize) -> Option<Bytes> {
        let length = max.min(self.output.len());
        (length > 0).then(|| self.output.split_to(length))
    }

    /// How the session ends, once everything that was read is taken.
    pub(super) fn end(&mut self) -> Option<Result<(), String>> {
        self.end.take_if(|_| self.output.is_empty())
    }

    /// Moves what can be moved; ready when something was.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut moved = false;
        while self.step(cx).is_ready() {
            moved = true;
        }
        if moved { Poll::Ready(()) } else { Poll::Pending }
    }

    fn step(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.state {
            State::Over => Poll::Pending,
            State::Idle => self.on_idle(),
            State::Dialling(dialling) => match dialling.as_mut().poll(cx) {
                Poll::Pending => Poll::Pending,
                Poll::Ready(Ok(stream)) => {
                    self.traffic.connections += 1;
                    if let Some((connected, _)) = &mut self.current {
                        self.log.opened(connected, stream.peer_addr().ok());
                    }
                    self.state = State::Open(stream);
                    Poll::Ready(())
                }
                Poll::Ready(Err(error)) => {
                    self.log_end(Some(&error));
                    self.finish(Err(unreachable(&error)));
                    Poll::Ready(())
                }
            },
            State::Open(stream) => {
                let mut step = Step {
                    stream,
                    input: &mut self.input,
                    input_bytes: &mut self.input_bytes,
                    traffic: &mut self.traffic,
                };
                match step.write(cx) {
                    Poll::Ready(Ok(Wrote::Some)) => return Poll::Ready(()),
                    Poll::Ready(Ok(Wrote::End)) => {
                        self.on_disconnect();
                        return Poll::Ready(());
                    }
                    Poll::Ready(Err(error)) => {
                        self.on_close(Err(error.to_string()));
                        return Poll::Ready(());
                    }
                    Poll::Pending => {}
                }
                self.read(cx)
            }
        }
    }

    fn on_idle(&mut self) -> Poll<()> {
        match self.input.front() {
            None => return Poll::Pending,
            Some(Input::Disconnect) => {
                self.input.pop_front();
            }
            Some(Input::Data(_)) => self.dial(),
        }
        Poll::Ready(())
    }

    fn read(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let State::Open(stream) = &mut self.state else {
            return Poll::Pending;
        };
        if !self.output.is_empty() {
            return Poll::Pending;
        }
        match poll_read(stream, cx, &mut self.buffer) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Ok(0)) => self.on_close(Ok(())),
            Poll::Ready(Ok(length)) => {
                self.traffic.add_out(length);
                self.output = Bytes::copy_from_slice(self.buffer.get(..length).unwrap_or_default());
            }
            Poll::Ready(Err(error)) => self.on_close(Err(error.to_string())),
        }
        Poll::Ready(())
    }

    /// The client's program has closed it.
    fn on_disconnect(&mut self) {
        self.log_end(None);
        if self.target.is_local_forward {
            self.state = State::Idle;
        } else {
            self.finish(Ok(()));
        }
    }

    /// The other end has closed it, or it broke.
    fn on_close(&mut self, how: Result<(), String>) {
        self.log_end(how.as_ref().err().map(|error| error as &dyn std::fmt::Display));
        // what is still to be written was meant for this connection
        while let Some(Input::Data(_)) = self.input.front() {
            self.input.pop_front();
        }
        self.input_bytes = self.input.iter().map(Input::bytes).sum();
        if self.target.is_local_forward {
            self.state = State::Idle;
        } else {
            self.finish(how.map_err(|error| format!("The connection to the port was lost: {error}")));
        }
    }

    fn finish(&mut self, how: Result<(), String>) {
        self.state = State::Over;
        self.input.clear();
        self.input_bytes = 0;
        self.end = Some(how);
    }
}

impl Input {
    fn bytes(&self) -> usize {
        match self {
            Self::Data(data) => data.len(),
            Self::Disconnect => 0,
        }
    }
}

/// The text of a session that cannot reach its port.
fn unreachable(error: &DialError) -> String {
    match error.is_forbidden() {
        true => error.to_string(),
        false => format!("Unable to connect to specified port: {error}"),
    }
}

enum Wrote {
    Some,
    /// Everything before the client's end of the connection.
    End,
}

struct Step<'a> {
    stream: &'a mut TcpStream,
    input: &'a mut VecDeque<Input>,
    input_bytes: &'a mut usize,
    traffic: &'a mut Traffic,
}

impl Step<'_> {
    fn write(&mut self, cx: &mut Context<'_>) -> Poll<std::io::Result<Wrote>> {
        let data = match self.input.front_mut() {
            None => return Poll::Pending,
            Some(Input::Disconnect) => {
                self.input.pop_front();
                return Poll::Ready(Ok(Wrote::End));
            }
            Some(Input::Data(data)) => data,
        };
        match poll_write(self.stream, cx, data) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Ready(Ok(length)) => {
                data.advance(length);
                if data.is_empty() {
                    self.input.pop_front();
                }
                *self.input_bytes = self.input_bytes.saturating_sub(length);
                self.traffic.add_in(length);
                Poll::Ready(Ok(Wrote::Some))
            }
        }
    }
}

#[cfg(test)]
mod tests;
