//! A session being served: one loop between the program, data channel, recording and the end.
//!
//! What is read from the program is recorded before it is sent, and nothing is read for which there is no room in
//! both: so a slow peer slows the program down, as a slow terminal would, and nothing is lost or piles up.

mod gate;
mod output;
mod peer;
mod scrollback;
mod take_over;

use std::{collections::VecDeque, io, path::PathBuf, sync::Arc};

use futures_util::future::BoxFuture;
use moorline_protocol::{channel::DataKey, message::PayloadType};
use moorline_transport::unix_millis;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    task::yield_now,
    time::{Duration, Instant},
};

use self::{
    gate::{Gate, MAX_GATED_BYTES},
    peer::MAX_TYPED_BYTES,
    scrollback::Scrollback,
};
use super::{
    attachment::{Attachment, Order},
    data_key::{DataKeyError, KeyService},
    ending::{Action, Ending, Facts},
    link::LinkEvent,
    login_record::{LastRecord, LoginRecord},
    members::{Members, reap_orphans},
    process::{Process, Starting},
    program_io::ProgramIo,
    pty::PtyError,
    session_lock::SessionLock,
    shell_start::OnTerminal,
    shutdown::Shutdown,
    task::SessionOutcome,
    transcript::{Transcript, progress},
};
use crate::{
    recording::Size,
    runtime::{shrink, until},
};

/// Output on its way: sent and not acknowledged. Enough for 20 MB/s at a round trip of 50 ms.
pub(super) const WINDOW_BYTES: usize = 1024 * 1024;
/// Output that is read and sent at once.
const READ_BYTES: usize = 32 * 1024;
/// With less room than this the terminal is not read while anything is on its way: room for a few bytes would be
/// filled with messages of a few bytes.
const LEAST_READ_BYTES: usize = 1024;
/// After this long without anything happening the session is idle, and gives memory back.
const REST_AFTER: Duration = Duration::from_secs(1);
/// After so much output a session moves bulk, and what its start needed of the program is given back: both together
/// would be its most memory. From there on its terminal is read ahead.
const BULK_BYTES: u64 = 1024 * 1024;

/// The signals a worker lives with. Made before the shell, so that its end cannot be missed.
#[derive(Debug)]
pub(super) struct Signals {
    child: Signal,
    /// The daemon's order.
    pub(super) order: Signal,
    /// Whatever else ends processes.
    pub(super) shutdown: Shutdown,
    /// Received and not acted upon: a worker outlives the terminal its daemon was started on. A signal that is
    /// ignored the other way would be ignored by every program in the session as well.
    _hangup: Signal,
}

impl Signals {
    /// # Errors
    /// The operating system refused a handler.
    pub(super) fn new(state_dir: PathBuf) -> io::Result<Self> {
        Ok(Self {
            child: signal(SignalKind::child())?,
            order: signal(SignalKind::user_defined1())?,
            shutdown: Shutdown::listen(state_dir)?,
            _hangup: signal(SignalKind::hangup())?,
        })
    }
}

/// What happened.
enum Happening {
    Child,
    DataKey(Result<DataKey, DataKeyError>),
    Launched(Result<OnTerminal, PtyError>),
    Link(LinkEvent),
    Rest,
    Shown(io::Result<(PayloadType, usize)>),
    /// Of the node, not of this session; the reason.
    Shutdown(String),
    Terminate,
    Timer,
    Transcript,
    Typed(io::Result<usize>),
}

/// What a session is made of.
pub(super) struct Parts {
    pub(super) io: ProgramIo,
    pub(super) process: Process,
    pub(super) members: Members,
    pub(super) key_service: Arc<KeyService>,
    /// In utmp and wtmp.
    pub(super) record: Option<LoginRecord>,
    pub(super) transcript: Option<Transcript>,
    /// Whether the session must not go on without its recording.
    pub(super) is_recording_required: bool,
    /// Whether input is recorded that the terminal echoes.
    pub(super) records_input: bool,
    /// Typed before the client types anything.
    pub(super) profile: Vec<u8>,
    /// Held to the end.
    pub(super) _lock: Option<SessionLock>,
}

/// A session being served.
pub(super) struct ShellSession {
    attachment: Attachment,
    parts: Parts,
    typed: VecDeque<u8>,
    buffer: Box<[u8]>,
    size: Size,
    exit_code: Option<i32>,
    last_record: Option<LastRecord>,
    scrollback: Scrollback,
    /// Output that waits for its recording.
    gate: Gate,
    /// What is being typed will be echoed.
    is_echoing: bool,
    /// A new client is to be shown what was there; and its first size is to be felt by the program, whatever it is.
    replays: bool,
    repaints: bool,
    /// A handshake is to come or under way: the output waits for its end.
    is_handshaking: bool,
    /// The data key is being decrypted.
    decryption: Option<BoxFuture<'static, Result<DataKey, DataKeyError>>>,
    /// The program that waited for its client is being started.
    launching: Option<Starting>,
    output_ended: bool,
    exit_code_told: bool,
    /// When the session is idle, unless something happens; `None` while it is.
    rest_at: Option<Instant>,
    /// Bytes of output so far.
    shown: u64,
    ending: Ending,
}

impl ShellSession {
    pub(super) fn new(attachment: Attachment, mut parts: Parts) -> Self {
        let typed = VecDeque::from(std::mem::take(&mut parts.profile));
        Self {
            is_handshaking: attachment.has_handshake(),
            attachment,
            parts,
            scrollback: Scrollback::default(),
            gate: Gate::default(),
            is_echoing: false,
            replays: false,
            repaints: false,
            decryption: None,
            launching: None,
            typed,
            buffer: vec![0; READ_BYTES].into_boxed_slice(),
            size: Size::default(),
            exit_code: None,
            last_record: None,
            output_ended: false,
            exit_code_told: false,
            rest_at: None,
            shown: 0,
            ending: Ending::new(),
        }
    }

    /// Serves the session to its end.
    pub(super) async fn serve(mut self, signals: &mut Signals) -> SessionOutcome {
        self.exit_code = self.parts.process.exit_code();
        loop {
            if self.output_ended && self.gate.len() == 0 {
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
            let is_output = matches!(happening, Happening::Shown(_));
            self.handle(happening);
            if is_output {
                // output may be there without end; what carries the recording is another task on this thread
                yield_now().await;
            }
        }
    }

    fn outcome(self) -> SessionOutcome {
        let outcome = match (self.attachment.into_order(), self.exit_code) {
            (Some(Order::Failed(reason)), _) => SessionOutcome::failed(&reason),
            (Some(Order::Closed | Order::ClosedByEndpoint(_)), _) => SessionOutcome::success(None),
            (Some(Order::Shutdown(reason)), _) => SessionOutcome::stopped(&reason),
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

    async fn next_happening(&mut self, signals: &mut Signals) -> Happening {
        let room = self.room();
        let (timer_at, rest_at) = (self.timer_at(), self.rest_at);
        let (typed, _) = self.typed.as_slices();
        self.is_echoing = self.parts.records_input && !typed.is_empty() && self.parts.io.is_echoing();
        let (decryption, launching) = (self.decryption.as_mut(), self.launching.as_mut());
        let link = &mut self.attachment.link;
        let Parts { io, transcript, .. } = &mut self.parts;
        let io = &*io;
        // Input goes before output, so that an interrupt overtakes the flood it is meant to stop.
        tokio::select! {
            biased;
            _ = signals.order.recv() => Happening::Terminate,
            reason = signals.shutdown.wanted() => Happening::Shutdown(reason),
            _ = signals.child.recv() => Happening::Child,
            event = link.next() => Happening::Link(event),
            key = outcome(decryption) => Happening::DataKey(key),
            launched = outcome(launching) => Happening::Launched(launched),
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
                // until it is known which one is the shell, it may be this one
                if self.launching.is_none() {
                    reap_orphans(self.parts.process.pid());
                }
            }
            Happening::DataKey(result) => self.on_data_key(result),
            Happening::Launched(result) => self.on_terminal(result),
            Happening::Link(event) => self.attachment.on_link(event),
            Happening::Rest => {
                self.scrollback.rest();
                if let Some(transcript) = &mut self.parts.transcript {
                    transcript.rest();
                }
                shrink();
            }
            Happening::Shown(read) => self.on_output(read),
            Happening::Terminate => self.attachment.end(Order::Closed),
            Happening::Shutdown(reason) => self.attachment.end(Order::Shutdown(reason)),
            Happening::Timer => self.attachment.resend(),
            Happening::Transcript => self.on_transcript(),
            Happening::Typed(written) => self.on_typed(written),
        }
    }

    /// Output that may be read now, in bytes.
    fn room(&self) -> usize {
        if self.output_ended || !self.ending.reads_output() {
            return 0;
        }
        // After an order nobody sees the output any more, but programs must be able to write their last words.
        let window = match self.attachment.order() {
            // the channel is writable as long as it does not know that there will be a handshake
            None if self.is_handshaking => 0,
            None if self.gate.len() >= MAX_GATED_BYTES => 0,
            None => self.attachment.channel.writable().saturating_sub(self.gate.len()),
            Some(_) => READ_BYTES,
        };
        let (limit, growth) = self.parts.io.read_limit();
        let room = window.min(READ_BYTES).saturating_sub(growth);
        if room < LEAST_READ_BYTES && (self.attachment.unacknowledged() > 0 || self.gate.len() > 0) {
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
        let before = self.shown;
        self.shown += length as u64;
        if (before..self.shown).contains(&BULK_BYTES) {
            shrink();
            self.parts.io.read_ahead();
        }
        let buffer = std::mem::take(&mut self.buffer);
        let read = buffer.get(..length).unwrap_or_default();
        let shown = self.parts.io.for_peer(payload_type, read);
        self.show(payload_type, &shown);
        self.buffer = buffer;
    }

    fn on_typed(&mut self, written: io::Result<usize>) {
        match written {
            Ok(written) => {
                self.record_typed(written);
                drop(self.typed.drain(..written));
            }
            // The terminal is at its end, and so is the use of input.
            Err(_) => self.typed.clear(),
        }
        if self.typed.len() < MAX_TYPED_BYTES / 2 {
            self.attachment.channel.set_ready(true);
        }
    }

    fn next_action(&mut self) -> Option<Action> {
        let now = self.attachment.elapsed();
        let (ended, ordered) = (self.shell_ended(), self.attachment.order().is_some());
        if ordered {
            // what it has started so far is found as all that a session started
            self.launching = None;
        }
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
            ordered: self.attachment.order().is_some(),
            urgent: self.attachment.order().is_some_and(Order::is_urgent),
            processes_left: !self.parts.members.is_empty(),
            output_ended: self.output_ended,
            unacknowledged: self.attachment.unacknowledged() + self.gate.len(),
            progress_at: self.attachment.progress_at(),
            peer: self.attachment.peer(),
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
                let by_itself = self.exit_code.is_none().then_some("the program ended");
                let reason = self.attachment.order().map(Order::recorded).or(by_itself);
                if let Some(transcript) = &mut self.parts.transcript {
                    transcript.finish(self.exit_code, reason);
                }
            }
            Action::Announce => {
                // The stock agent says it only of a shell that ended by itself. Ours must: the daemon, who reports
                // every end, may be gone.
                match self.attachment.order() {
                    None => self.attachment.say_terminating(self.exit_code),
                    Some(Order::Closed | Order::Failed(_) | Order::Shutdown(_))
                        if self.attachment.is_moorline =>
                    {
                        self.attachment.say_terminating(None);
                    }
                    Some(_) => {}
                }
                self.attachment.close().await;
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
        let end = self.ending.deadline(&self.facts());
        let first = [self.attachment.resend_at(), end].into_iter().flatten().min()?;
        Some(self.attachment.instant(first))
    }
}

/// Of work that may not be there.
async fn outcome<T>(work: Option<&mut BoxFuture<'static, T>>) -> T {
    match work {
        Some(work) => work.await,
        None => std::future::pending().await,
    }
}
