//! Many connections at once over one session: accepts them, and moves the multiplexer's bytes.
//!
//! Nothing here waits for one connection. The multiplexer's bytes go out one piece at a time, as the session takes
//! them, so that what waits to be sent waits in the streams, where it has its turn.

use std::{io, time::Duration};

use moorline_protocol::message::PayloadType;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep_until, timeout},
};

use super::{
    connection::carry,
    flag,
    listener::{Listener, LocalStream},
    streams::Streams,
    voice::Voice,
};
use crate::{
    attach::Ending,
    console,
    session_client::{SessionClient, SessionEvent},
    terminal::signals::{EndSignal, EndSignals},
};

/// What the session is given at once.
const PIECE_BYTES: usize = 64 * 1024;
/// For agents that want one (client-wire §5.4).
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// How long local programs may take to read what the session has brought before its end.
const LAST_READS_LIMIT: Duration = Duration::from_secs(3);

struct Driver<'a> {
    client: &'a mut SessionClient,
    voice: &'a mut Voice,
    streams: Streams,
    connections: JoinSet<()>,
}

/// Serves until the session ends or a signal comes.
pub(super) async fn serve(
    client: &mut SessionClient,
    mut listener: Listener,
    voice: &mut Voice,
    signals: &mut EndSignals,
    (version, keeps_alive): (u32, bool),
) -> Ending {
    let mut driver = Driver {
        client,
        voice,
        streams: Streams::new(version),
        connections: JoinSet::new(),
    };
    let ending = driver.run(&mut listener, signals, keeps_alive).await;
    drop(listener);
    driver.streams.end();
    if matches!(ending, Ending::Closed { .. }) {
        let last_reads = async { while driver.connections.join_next().await.is_some() {} };
        tokio::select! {
            // what they have not read by then is lost
            _late = timeout(LAST_READS_LIMIT, last_reads) => {}
            _hurry = signals.next() => {}
        }
    }
    ending
}

impl Driver<'_> {
    async fn run(&mut self, listener: &mut Listener, signals: &mut EndSignals, keeps_alive: bool) -> Ending {
        let mut keep_alive_at = Instant::now() + KEEP_ALIVE_INTERVAL;
        loop {
            if self.client.takes_input()
                && let Some(bytes) = self.streams.transmit(PIECE_BYTES)
            {
                self.client.write(PayloadType::Output, bytes);
            }
            let may_receive = self.streams.may_receive();
            let ending = tokio::select! {
                event = self.client.next(may_receive) => self.on_event(event),
                accepted = listener.accept() => {
                    self.on_accepted(accepted);
                    None
                }
                signal = signals.next() => Some(self.on_signal(signal)),
                () = self.streams.changed() => None,
                Some(_ended) = self.connections.join_next() => None,
                () = sleep_until(keep_alive_at), if keeps_alive => {
                    keep_alive_at = Instant::now() + KEEP_ALIVE_INTERVAL;
                    self.streams.keep_alive();
                    None
                }
            };
            if let Some(ending) = ending {
                return ending;
            }
        }
    }

    fn on_event(&mut self, event: SessionEvent) -> Option<Ending> {
        match event {
            SessionEvent::Data {
                payload_type: PayloadType::Output,
                payload,
            } => self
                .streams
                .receive(&payload)
                .err()
                .map(|error| Ending::Failed(error.into())),
            SessionEvent::Data {
                payload_type: PayloadType::Flag,
                payload,
            } => {
                if flag::parse(&payload) == Some(flag::CONNECT_FAILED) {
                    self.voice.refused();
                }
                None
            }
            other => super::on_other_event(other),
        }
    }

    fn on_accepted(&mut self, accepted: io::Result<LocalStream>) {
        let local = match accepted {
            Ok(local) => local,
            Err(error) => return self.voice.not_accepted(&console::one_line(&error.to_string())),
        };
        self.voice.accepted(true);
        match self.streams.open() {
            Some(stream) => {
                let keeps_half = self.streams.keeps_half();
                self.connections.spawn(carry(local, stream, keeps_half));
            }
            None => {
                local.abort();
                self.voice
                    .not_accepted("there are as many as a session can carry");
            }
        }
    }

    fn on_signal(&mut self, signal: EndSignal) -> Ending {
        self.voice.leaving();
        super::ending_of(signal)
    }
}
