//! A session being served: one loop between the program, data channel, recording and the end.
//!
//! What is read from the program is recorded before it is sent, and nothing is read for which there is no room in
//! both: so a slow peer slows the program down, as a slow terminal would, and nothing is lost or piles up.

mod output;
mod peer;
mod scrollback;
mod take_over;

use std::{collections::VecDeque, io, sync::Arc};

use futures_util::future::BoxFuture;
use moorline_protocol::{
    channel::{DataChannel, DataKey, HandshakeOffer},
    message::PayloadType,
    time::Now,
    types::SessionId,
};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::{Duration, Instant, sleep_until},
};

use self::{peer::MAX_TYPED_BYTES, scrollback::Scrollback};
use super::{
    data_key::{DataKeyError, KeyService},
    ending::{Action, Ending, Facts, Peer},
    link::{Link, LinkEvent},
    login_record::{LastRecord, LoginRecord},
    members::{Members, reap_orphans},
    process::Process,
    program_io::ProgramIo,
    recorder::Size,
    role_credentials::unix_millis,
    session_lock::SessionLock,
    task::SessionOutcome,
    transcript::Transcript,
};
use crate::runtime::shrink;

/// Output on its way: sent and not acknowledged. Enough for 20 MB/s at a round trip of 50 ms.
pub(super) const WINDOW_BYTES: usize = 1024 * 1024;
/// Output that is read and sent at once.
const READ_BYTES: usize = 32 * 1024;
/// With less room than this the terminal is not read while anything is on its way: room for a few bytes would be
/// filled with messages of a few bytes.
const LEAST_READ_BYTES: usize = 1024;
/// After this long without anything happening the session is idle, and gives memory back.
const REST_AFTER: Duration = Duration::from_secs(1);

/// The signals a worker lives with. Made before the shell, so that its end cannot be missed.
#[derive(Debug)]
pub(super) struct Signals {
    child: Signal,
    /// The daemon's order.
    pub(super) order: Signal,
    /// Whatever else ends processes: the machine is going down, or its administrator wants the worker gone.
    pub(super) terminate: Signal,
    /// Received and not acted upon: a worker outlives the terminal its daemon was started on. A signal that is
    /// ignored the other way would be ignored by every program in the session as well.
    _hangup: Signal,
}

impl Signals {
    /// # Errors
    /// The operating system refused a handler.
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            child: signal(SignalKind::child())?,
            order: signal(SignalKind::user_defined1())?,
            terminate: signal(SignalKind::terminate())?,
            _hangup: signal(SignalKind::hangup())?,
        })
    }
}

/// Why a session ends that did not end by itself.
pub(super) enum Order {
    /// By its client, or by the daemon: no failure.
    Closed,
    /// The endpoint wants it, or has said that it is over.
    ClosedByEndpoint,
    Failed(String),
    /// The node's machine, or its administrator.
    Shutdown,
}

impl Order {
    /// What the user is told.
    pub(super) fn reason(&self) -> Option<&str> {
        match self {
            Self::Closed | Self::ClosedByEndpoint => None,
            Self::Failed(reason) => Some(reason),
            Self::Shutdown => Some(SHUTDOWN),
        }
    }
}

pub(super) const SHUTDOWN: &str = "the node is shutting down, or its administrator ended the session";

/// What happened.
enum Happening {
    Child,
    DataKey(Result<DataKey, DataKeyError>),
    Link(LinkEvent),
    Rest,
    Shown(io::Result<(PayloadType, usize)>),
    /// Of the node, not of this session.
    Shutdown,
    Terminate,
    Timer,
    Transcript,
    Typed(io::Result<usize>),
}

/// What a session is made of.
pub(super) struct Parts {
    pub(super) session_id: SessionId,
    /// Our extensions go to our endpoint only.
    pub(super) is_moorline: bool,
    pub(super) channel: DataChannel,
    pub(super) link: Link,
    pub(super) io: ProgramIo,
    pub(super) process: Process,
    pub(super) members: Members,
    /// What is asked of the client before anything else, if anything is.
    pub(super) handshake: Option<HandshakeOffer>,
    pub(super) key_service: Arc<KeyService>,
    /// In utmp and wtmp.
    pub(super) record: Option<LoginRecord>,
    pub(super) transcript: Option<Transcript>,
    /// Typed before the client types anything.
    pub(super) profile: Vec<u8>,
    /// Held to the end.
    pub(super) _lock: Option<SessionLock>,
}

/// A session being served.
pub(super) struct ShellSession {
    parts: Parts,
    started: Instant,
    typed: VecDeque<u8>,
    buffer: Box<[u8]>,
    size: Size,
    exit_code: Option<i32>,
    order: Option<Order>,
    last_record: Option<LastRecord>,
    /// The client that the stream is for; empty before the endpoint names one.
    client_id: String,
    scrollback: Scrollback,
    /// A new client is to be shown what was there; and its first size is to be felt by the program, whatever it is.
    replays: bool,
    repaints: bool,
    /// A handshake is to come or under way: the output waits for its end.
    is_handshaking: bool,
    handshake_begun: bool,
    /// The data key is being decrypted.
    decryption: Option<BoxFuture<'static, Result<DataKey, DataKeyError>>>,
    output_ended: bool,
    exit_code_told: bool,
    paused: bool,
    connected_before: bool,
    unacknowledged: usize,
    progress_at: Duration,
    /// When the session is idle, unless something happens; `None` while it is.
    rest_at: Option<Instant>,
    ending: Ending,
}

impl ShellSession {
    pub(super) fn new(mut parts: Parts) -> Self {
        let typed = VecDeque::from(std::mem::take(&mut parts.profile));
        Self {
            started: Instant::now(),
            is_handshaking: parts.handshake.is_some(),
            handshake_begun: false,
            parts,
            client_id: String::new(),
            scrollback: Scrollback::default(),
            replays: false,
            repaints: false,
            decryption: None,
            typed,
            buffer: vec![0; READ_BYTES].into_boxed_slice(),
            size: Size::default(),
            exit_code: None,
            order: None,
            last_record: None,
            output_ended: false,
            exit_code_told: false,
            paused: false,
            connected_before: false,
            unacknowledged: 0,
            progress_at: Duration::ZERO,
            rest_at: None,
            ending: Ending::new(),
        }
    }

    /// Serves the session to its end.
    pub(super) async fn serve(mut self, signals: &mut Signals) -> SessionOutcome {
        self.exit_code = self.parts.process.exit_code();
        loop {
            if self.output_ended {
                self.tell_exit_code();
            }
            self.drain_channel();
            while let Some(action) = self.next_action() {
                if action == Action::Finish {
                    return self.outcome();
                }
                self.act(action).await;
            }
            let happening = self.next_happening(signals).await;
            self.rest_at = match happening {
                Happening::Rest => None,
                _ => Some(Instant::now() + REST_AFTER),
            };
            self.handle(happening);
        }
    }

    fn outcome(self) -> SessionOutcome {
        let outcome = match (self.order, self.exit_code) {
            (Some(Order::Failed(reason)), _) => SessionOutcome::failed(&reason),
            (Some(Order::Closed | Order::ClosedByEndpoint), _) => SessionOutcome::success(None),
            (Some(Order::Shutdown), _) => SessionOutcome::stopped(SHUTDOWN),
            (None, exit_code) => match self.parts.process.not_started() {
                Some(not_started) => SessionOutcome {
                    exit_code,
                    ..SessionOutcome::failed(&not_started.reason)
                },
                None => SessionOutcome::success(exit_code),
            },
        };
        self.parts.process.reap();
        if let Some(record) = self.last_record {
            record.wait();
        }
        outcome
    }

    fn now(&self) -> Now {
        Now {
            monotonic: self.started.elapsed(),
            unix_millis: unix_millis(),
        }
    }

    async fn next_happening(&mut self, signals: &mut Signals) -> Happening {
        let room = self.room();
        let (timer_at, rest_at) = (self.timer_at(), self.rest_at);
        let (typed, _) = self.typed.as_slices();
        let decryption = self.decryption.as_mut();
        let Parts {
            link, io, transcript, ..
        } = &mut self.parts;
        let io = &*io;
        // Input goes before output, so that an interrupt overtakes the flood it is meant to stop.
        tokio::select! {
            biased;
            _ = signals.order.recv() => Happening::Terminate,
            _ = signals.terminate.recv() => Happening::Shutdown,
            _ = signals.child.recv() => Happening::Child,
            event = link.next() => Happening::Link(event),
            key = decrypted(decryption) => Happening::DataKey(key),
            written = io.write(typed), if !typed.is_empty() => Happening::Typed(written),
            () = progress(transcript.as_mut()) => Happening::Transcript,
            () = until(timer_at) => Happening::Timer,
            read = io.read(self.buffer.get_mut(..room).unwrap_or_default()), if room > 0 => Happening::Shown(read),
            () = until(rest_at) => Happening::Rest,
        }
    }

    fn handle(&mut self, happening: Happening) {
        match happening {
            Happening::Child => {
                self.exit_code = self.parts.process.exit_code();
                reap_orphans(self.parts.process.pid());
            }
            Happening::DataKey(result) => self.on_data_key(result),
            Happening::Link(event) => self.on_link(event),
            Happening::Rest => {
                self.scrollback.rest();
                shrink();
            }
            Happening::Shown(read) => self.on_output(read),
            Happening::Terminate => self.end(Order::Closed),
            Happening::Shutdown => self.end(Order::Shutdown),
            Happening::Timer => {
                let now = self.now();
                if self
                    .parts
                    .channel
                    .next_timeout()
                    .is_some_and(|due| due <= now.monotonic)
                    && !self.parts.link.is_congested()
                {
                    self.parts.channel.timeout(now);
                }
            }
            Happening::Transcript => {
                if let Some(error) = self.parts.transcript.as_ref().and_then(Transcript::failure) {
                    let reason = format!("the session cannot be recorded: {error}");
                    self.end(Order::Failed(reason));
                }
            }
            Happening::Typed(written) => self.on_typed(written),
        }
    }

    /// Output that may be read now, in bytes.
    fn room(&self) -> usize {
        if self.output_ended || !self.ending.reads_output() {
            return 0;
        }
        // After an order nobody sees the output any more, but programs must be able to write their last words.
        let window = match self.order {
            // the channel is writable as long as it does not know that there will be a handshake
            None if self.is_handshaking => 0,
            None => self.parts.channel.writable(),
            Some(_) => READ_BYTES,
        };
        let (limit, growth) = self.parts.io.read_limit();
        let room = window.min(READ_BYTES).saturating_sub(growth);
        if room < LEAST_READ_BYTES && self.unacknowledged > 0 {
            return 0;
        }
        room.min(limit)
    }

    fn on_output(&mut self, read: io::Result<(PayloadType, usize)>) {
        let (payload_type, length) = match read {
            Ok(read) => read,
            Err(error) => {
                tracing::warn!(%error, "the program's output cannot be read any more");
                return self.end_output();
            }
        };
        if length == 0 {
            if self.parts.io.close(payload_type) {
                self.end_output();
            }
            return;
        }
        let buffer = std::mem::take(&mut self.buffer);
        let read = buffer.get(..length).unwrap_or_default();
        let shown = self.parts.io.for_peer(payload_type, read);
        self.show(payload_type, &shown);
        self.buffer = buffer;
    }

    fn on_typed(&mut self, written: io::Result<usize>) {
        match written {
            Ok(written) => drop(self.typed.drain(..written)),
            // The terminal is at its end, and so is the use of input.
            Err(_) => self.typed.clear(),
        }
        if self.typed.len() < MAX_TYPED_BYTES / 2 {
            self.parts.channel.set_ready(true);
        }
    }

    /// The first reason counts.
    fn end(&mut self, order: Order) {
        if self.order.is_none() {
            self.order = Some(order);
        }
    }

    fn next_action(&mut self) -> Option<Action> {
        let now = self.started.elapsed();
        let (ended, ordered) = (self.shell_ended(), self.order.is_some());
        if self.ending.looks_for_processes(now, ended, ordered) {
            let process = &self.parts.process;
            self.parts.members.look(process.pid(), process.keeper());
        }
        let facts = self.facts();
        self.ending.advance(now, &facts)
    }

    /// A shell that ended before its client could see anything ends for us when the handshake has.
    fn shell_ended(&self) -> bool {
        self.exit_code.is_some() && !self.is_handshaking
    }

    fn facts(&self) -> Facts {
        Facts {
            shell_ended: self.shell_ended(),
            ordered: self.order.is_some(),
            processes_left: !self.parts.members.is_empty(),
            output_ended: self.output_ended,
            unacknowledged: self.unacknowledged,
            progress_at: self.progress_at,
            peer: match (self.parts.link.is_open(), self.paused) {
                (false, _) => Peer::Away,
                (true, true) => Peer::Paused,
                (true, false) => Peer::Attached,
            },
            recording_complete: self.parts.transcript.as_ref().is_none_or(Transcript::is_over),
        }
    }

    async fn act(&mut self, action: Action) {
        match action {
            Action::Signal(signal) => self.parts.members.signal(signal),
            Action::CompleteRecording => {
                // the output of a program that is gone may be open, where it left something behind
                self.tell_exit_code();
                self.log_out();
                let reason = self.order.as_ref().and_then(Order::reason);
                if let Some(transcript) = &mut self.parts.transcript {
                    transcript.finish(self.exit_code, reason);
                }
            }
            Action::Announce => {
                // The stock agent says it only of a shell that ended by itself. Ours must: the daemon, who reports
                // every end, may be gone.
                let (says, exit_code) = match self.order {
                    None => (true, self.exit_code),
                    Some(Order::ClosedByEndpoint) => (false, None),
                    Some(Order::Closed | Order::Failed(_) | Order::Shutdown) => {
                        (self.parts.is_moorline, None)
                    }
                };
                if says {
                    self.send_state("Terminating", exit_code);
                    self.drain_channel();
                }
                self.parts.link.close().await;
                self.parts.channel.disconnected();
            }
            Action::Finish => {}
        }
    }

    /// The machine's records of the session end with its last process.
    fn log_out(&mut self) {
        self.parts.process.log_out();
        let record = self.parts.record.take();
        self.last_record = record.and_then(|record| record.end(unix_millis()));
    }

    /// When something is due though nothing happens.
    fn timer_at(&self) -> Option<Instant> {
        let resend = self.parts.channel.next_timeout();
        let resend = resend.filter(|_| !self.parts.link.is_congested());
        let end = self.ending.deadline(&self.facts());
        let first = [resend, end].into_iter().flatten().min()?;
        Some(self.started + first)
    }
}

async fn progress(transcript: Option<&mut Transcript>) {
    match transcript {
        Some(transcript) => transcript.progress().await,
        None => std::future::pending().await,
    }
}

async fn decrypted(
    decryption: Option<&mut BoxFuture<'static, Result<DataKey, DataKeyError>>>,
) -> Result<DataKey, DataKeyError> {
    match decryption {
        Some(decryption) => decryption.await,
        None => std::future::pending().await,
    }
}

async fn until(instant: Option<Instant>) {
    match instant {
        Some(instant) => sleep_until(instant).await,
        None => std::future::pending().await,
    }
}
