//! A Port session being served: one loop between the data channel and the connections that go over it.
//!
//! Nothing piles up on the node: a connection is not read while the data channel has no room, and the data channel is
//! not read while the connections take nothing. Windows end to end do the same for each connection alone, where the
//! client has them ([`mux`](moorline_protocol::mux)).

mod basic;
mod client_version;
mod connection_log;
mod forward;
mod multiplexed;
mod peer;
mod policy;
mod socket;
mod target;

use std::{future::poll_fn, sync::Arc};

use moorline_protocol::message::PayloadType;
use tokio::time::{Duration, Instant};

use self::{forward::Forward, peer::CONNECT_TO_PORT_ERROR};
pub(super) use self::{
    policy::ForwardPolicy,
    target::{Target, TargetError, texts},
};
use super::{
    attachment::{Attachment, Order},
    ending::{Action, Ending, Facts},
    link::LinkEvent,
    session_lock::SessionLock,
    shell_session::Signals,
    task::SessionOutcome,
    transcript::{Transcript, progress},
};
use crate::runtime::{shrink, until};

/// Data on its way: sent and not acknowledged. Enough for 80 MB/s at a round trip of 50 ms.
pub(super) const WINDOW_BYTES: usize = 4 * 1024 * 1024;
/// Data that is handed to the data channel at once.
const PIECE_BYTES: usize = 64 * 1024;
/// With less room than this nothing is handed to the data channel while anything is on its way.
const LEAST_PIECE_BYTES: usize = 1024;
/// Frames that wait for the network. More would only make what comes behind them wait longer.
const MAX_WAITING_BYTES: usize = 256 * 1024;
/// Between two signs of life, for clients that want them.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// After this long without anything happening the session is idle, and gives memory back.
const REST_AFTER: Duration = Duration::from_secs(1);

/// What happened.
enum Happening {
    Link(LinkEvent),
    /// Connections moved data, or changed.
    Moved,
    Rest,
    Shutdown(String),
    Terminate,
    Timer,
    Transcript,
}

/// What a session is made of.
pub(super) struct Parts {
    pub(super) target: Arc<Target>,
    /// Connections at the same time.
    pub(super) connections: usize,
    pub(super) transcript: Option<Transcript>,
    /// Whether the session must not go on without its recording.
    pub(super) is_recording_required: bool,
    /// Held to the end.
    pub(super) _lock: Option<SessionLock>,
}

/// A session being served.
pub(super) struct PortSession {
    attachment: Attachment,
    parts: Parts,
    forward: Forward,
    /// It ended by itself.
    ended: bool,
    is_reading: bool,
    keep_alive_at: Option<Instant>,
    /// When the session is idle, unless something happens; `None` while it is.
    rest_at: Option<Instant>,
    ending: Ending,
}

impl PortSession {
    pub(super) fn new(attachment: Attachment, parts: Parts) -> Self {
        Self {
            attachment,
            parts,
            forward: Forward::Unknown,
            ended: false,
            is_reading: true,
            keep_alive_at: None,
            rest_at: None,
            ending: Ending::new(),
        }
    }

    /// Serves the session to its end.
    pub(super) async fn serve(mut self, signals: &mut Signals) -> SessionOutcome {
        if let Some(transcript) = &mut self.parts.transcript {
            transcript.begin_now();
        }
        loop {
            self.pump();
            self.record();
            while let Some(action) = self.next_action() {
                match action {
                    Action::Finish => return self.outcome(),
                    Action::Announce => self.announce().await,
                    Action::CompleteRecording => self.complete_recording(),
                    // there are no processes
                    Action::Signal(_) => {}
                }
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
        let traffic = self.forward.traffic();
        tracing::info!(
            connections = traffic.connections,
            in_bytes = traffic.in_bytes,
            out_bytes = traffic.out_bytes,
            "forwarding ended"
        );
        match self.attachment.into_order() {
            Some(Order::Failed(reason)) => SessionOutcome::failed(&reason),
            Some(Order::Shutdown(reason)) => SessionOutcome::stopped(&reason),
            Some(Order::Closed | Order::ClosedByEndpoint(_)) | None => SessionOutcome::success(None),
        }
    }

    async fn next_happening(&mut self, signals: &mut Signals) -> Happening {
        let (timer_at, rest_at) = (self.timer_at(), self.rest_at);
        let forwards = self.attachment.order().is_none() && !self.ended;
        let Self {
            attachment,
            forward,
            parts,
            ..
        } = self;
        // In any order: neither direction may starve the other.
        tokio::select! {
            _ = signals.order.recv() => Happening::Terminate,
            reason = signals.shutdown.wanted() => Happening::Shutdown(reason),
            event = attachment.link.next() => Happening::Link(event),
            () = progress(parts.transcript.as_mut()) => Happening::Transcript,
            () = poll_fn(|cx| forward.poll(cx)), if forwards => Happening::Moved,
            () = until(timer_at) => Happening::Timer,
            () = until(rest_at) => Happening::Rest,
        }
    }

    fn handle(&mut self, happening: Happening) {
        match happening {
            Happening::Link(event) => self.attachment.on_link(event),
            Happening::Moved => {}
            Happening::Rest => shrink(),
            Happening::Shutdown(reason) => self.attachment.end(Order::Shutdown(reason)),
            Happening::Terminate => self.attachment.end(Order::Closed),
            Happening::Timer => self.on_timer(),
            Happening::Transcript => self.on_transcript(),
        }
    }

    fn on_transcript(&mut self) {
        let failure = self.parts.transcript.as_ref().and_then(Transcript::failure);
        if let Some(error) = failure
            && self.parts.is_recording_required
        {
            let reason = format!("the session cannot be recorded: {error}");
            self.attachment.end(Order::Failed(reason));
        }
    }

    /// What connections did goes to the recording.
    fn record(&mut self) {
        let events = self.forward.take_log();
        if let Some(transcript) = &mut self.parts.transcript {
            for event in &events {
                transcript.note(event);
            }
        }
    }

    fn complete_recording(&mut self) {
        self.forward.log_end();
        self.record();
        let by_itself = "its connection ended";
        let reason = self.attachment.order().map_or(by_itself, Order::recorded);
        if let Some(transcript) = &mut self.parts.transcript {
            transcript.finish(None, Some(reason));
        }
    }

    fn on_timer(&mut self) {
        if self.is_reading {
            self.attachment.resend();
        }
        if let Some(due) = self.keep_alive_at.filter(|due| *due <= Instant::now()) {
            self.forward.keep_alive();
            self.keep_alive_at = Some(due + KEEP_ALIVE_INTERVAL);
        }
    }

    /// Everything that can be done without waiting.
    fn pump(&mut self) {
        loop {
            self.drain_channel();
            self.take_end();
            if !self.send_piece() {
                break;
            }
        }
        self.set_intake();
    }

    /// Takes the end that the connections have come to.
    fn take_end(&mut self) {
        match self.forward.end() {
            None => {}
            Some(Ok(())) => self.ended = true,
            Some(Err(reason)) => self.attachment.end(Order::Failed(reason)),
        }
    }

    /// Hands a piece of what the connections said to the data channel; false: there is none, or no room.
    fn send_piece(&mut self) -> bool {
        if self.attachment.order().is_some() {
            return false;
        }
        let now = self.attachment.now();
        let room = self.room();
        let channel = &mut self.attachment.channel;
        if let Some(multiplexed) = self.forward.unreached() {
            let told = room >= CONNECT_TO_PORT_ERROR.len()
                && channel
                    .send(now, PayloadType::Flag, &CONNECT_TO_PORT_ERROR)
                    .is_ok();
            if told {
                multiplexed.told_unreached();
            }
            return told;
        }
        let Some(piece) = self.forward.take_output(room.min(PIECE_BYTES)) else {
            return false;
        };
        if channel.send(now, PayloadType::Output, &piece).is_err() {
            // `room` is never more than the window takes; a lost byte must not pass unseen.
            self.attachment.end(Order::Failed(
                "data was taken that the data channel does not take".to_owned(),
            ));
        }
        true
    }

    /// Bytes that may be handed to the data channel.
    fn room(&self) -> usize {
        let room = self.attachment.channel.writable();
        let is_on_its_way = self.attachment.channel.unacknowledged() > 0;
        let is_jammed = room < LEAST_PIECE_BYTES || self.attachment.link.waiting_bytes() > MAX_WAITING_BYTES;
        if is_on_its_way && is_jammed { 0 } else { room }
    }

    /// Whether more of the client is taken. Stock clients know no window, so the network is what stops them: not
    /// reading it. But while our own window is full it is read, since it brings the acknowledgements.
    fn set_intake(&mut self) {
        let is_over = self.attachment.order().is_some() || self.ended;
        let takes = is_over || self.forward.takes_input();
        self.attachment.channel.set_ready(takes);
        let is_opening = matches!(self.forward, Forward::Unknown | Forward::Checking(..));
        self.is_reading = takes || is_opening || self.attachment.channel.writable() == 0;
        self.attachment.link.set_reading(self.is_reading);
    }

    fn next_action(&mut self) -> Option<Action> {
        let facts = self.facts();
        self.ending.advance(self.attachment.elapsed(), &facts)
    }

    fn facts(&self) -> Facts {
        Facts {
            shell_ended: self.ended,
            ordered: self.attachment.order().is_some(),
            urgent: self.attachment.order().is_some_and(Order::is_urgent),
            processes_left: false,
            output_ended: true,
            unacknowledged: self.attachment.unacknowledged(),
            progress_at: self.attachment.progress_at(),
            peer: self.attachment.peer(),
            recording_complete: self.parts.transcript.as_ref().is_none_or(Transcript::is_over),
        }
    }

    /// The stock agent says nothing at the end of a Port session. Ours must: the daemon, who reports every end, may be
    /// gone.
    async fn announce(&mut self) {
        let is_told = matches!(self.attachment.order(), Some(Order::ClosedByEndpoint(_)));
        if self.attachment.is_moorline && !is_told {
            self.attachment.say_terminating(None);
        }
        self.attachment.close().await;
    }

    /// When the data channel wants to send again. Not while the answers are not read.
    fn resend_at(&self) -> Option<Duration> {
        self.attachment.resend_at().filter(|_| self.is_reading)
    }

    /// When something is due though nothing happens.
    fn timer_at(&self) -> Option<Instant> {
        let end = self.ending.deadline(&self.facts());
        let first = [self.resend_at(), end].into_iter().flatten().min();
        let first = first.map(|first| self.attachment.instant(first));
        [first, self.keep_alive_at].into_iter().flatten().min()
    }
}
