//! One connection after another, for agents that do not multiplex (client-wire §5.3).
//!
//! The agent is connected from the start, so what comes before the first local program is kept for it. What comes
//! between two programs belonged to the one that has gone.

use std::{collections::VecDeque, io};

use bytes::{Buf, Bytes};
use moorline_protocol::message::PayloadType;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf, split};

use super::{
    flag,
    listener::{Listener, LocalStream},
    voice::Voice,
};
use crate::{
    attach::Ending,
    console,
    session_client::{SessionClient, SessionEvent},
    terminal::signals::EndSignals,
};

const READ_BYTES: usize = 64 * 1024;
/// Kept for the first program; with more than this waiting, the session is not read.
const MAX_WAITING_BYTES: usize = 1024 * 1024;

struct Driver<'a> {
    client: &'a mut SessionClient,
    voice: &'a mut Voice,
    local: Option<(ReadHalf<LocalStream>, WriteHalf<LocalStream>)>,
    waiting: VecDeque<Bytes>,
    waiting_bytes: usize,
    had_local: bool,
}

/// What a local program did.
enum Local {
    Sent(io::Result<usize>),
    Took(io::Result<usize>),
}

/// Serves until the session ends or a signal comes.
pub(super) async fn serve(
    client: &mut SessionClient,
    mut listener: Listener,
    voice: &mut Voice,
    signals: &mut EndSignals,
) -> Ending {
    let mut driver = Driver {
        client,
        voice,
        local: None,
        waiting: VecDeque::new(),
        waiting_bytes: 0,
        had_local: false,
    };
    let mut buffer = vec![0; READ_BYTES];
    loop {
        let has_room = driver.waiting_bytes < MAX_WAITING_BYTES;
        let takes_input = driver.client.takes_input();
        let is_free = driver.local.is_none();
        let ending = tokio::select! {
            event = driver.client.next(has_room) => driver.on_event(event),
            accepted = listener.accept(), if is_free => {
                driver.on_accepted(accepted);
                None
            }
            did = local(&mut driver.local, &mut buffer, takes_input, driver.waiting.front()), if !is_free => {
                driver.on_local(did, &buffer);
                None
            }
            signal = signals.next() => {
                driver.voice.leaving();
                Some(super::ending_of(signal))
            }
        };
        if let Some(ending) = ending {
            return ending;
        }
    }
}

/// The next thing that the local program does: it sends, or it takes what waits for it.
async fn local(
    local: &mut Option<(ReadHalf<LocalStream>, WriteHalf<LocalStream>)>,
    buffer: &mut [u8],
    takes_input: bool,
    waiting: Option<&Bytes>,
) -> Local {
    let Some((reader, writer)) = local else {
        return std::future::pending().await;
    };
    let data = waiting.map(|data| &**data).unwrap_or_default();
    tokio::select! {
        read = reader.read(buffer), if takes_input => Local::Sent(read),
        written = writer.write(data), if !data.is_empty() => Local::Took(written),
        else => std::future::pending().await,
    }
}

impl Driver<'_> {
    fn on_event(&mut self, event: SessionEvent) -> Option<Ending> {
        match event {
            SessionEvent::Data {
                payload_type: PayloadType::Output,
                payload,
            } => {
                if self.local.is_some() || !self.had_local {
                    self.waiting_bytes += payload.len();
                    self.waiting.push_back(payload);
                }
                None
            }
            other => super::on_other_event(other),
        }
    }

    fn on_accepted(&mut self, accepted: io::Result<LocalStream>) {
        match accepted {
            Ok(local) => {
                self.voice.accepted(false);
                self.had_local = true;
                self.local = Some(split(local));
            }
            Err(error) => self.voice.not_accepted(&console::one_line(&error.to_string())),
        }
    }

    fn on_local(&mut self, did: Local, buffer: &[u8]) {
        match did {
            Local::Sent(Ok(count @ 1..)) => {
                let sent = buffer.get(..count).unwrap_or_default();
                self.client
                    .write(PayloadType::Output, Bytes::copy_from_slice(sent));
            }
            Local::Took(Ok(count @ 1..)) => {
                self.waiting_bytes = self.waiting_bytes.saturating_sub(count);
                if let Some(data) = self.waiting.front_mut() {
                    data.advance(count.min(data.len()));
                    if data.is_empty() {
                        self.waiting.pop_front();
                    }
                }
            }
            // there is no half of a connection here
            Local::Sent(_) | Local::Took(_) => {
                self.local = None;
                self.waiting.clear();
                self.waiting_bytes = 0;
                self.client
                    .write(PayloadType::Flag, flag::payload(flag::DISCONNECT));
            }
        }
    }
}
