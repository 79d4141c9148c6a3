//! How a session ends, as decisions without a clock, a process or a socket.
//!
//! The processes on the terminal go first (hang up, terminate, kill, each with a grace), then what they wrote is
//! delivered, then the recording is completed, then the end is announced. Every wait has a limit. Where time is short,
//! as before the machine goes down, the end is announced first: it must not wait for a program that stays.

use std::time::Duration;

use nix::sys::signal::Signal;

/// Between two signals, each rougher than the one before.
const GRACE: Duration = Duration::from_secs(2);
/// Processes are not reported when they end, since they are not our children.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// A terminal that somebody outside the session keeps open shows no end, only silence.
const SILENCE: Duration = Duration::from_millis(250);
/// Without an acknowledgement for this long the client is taken to be gone.
const ACKNOWLEDGE_PATIENCE: Duration = Duration::from_secs(2);
/// The client is known to be away and may come back for the rest: our clients try for ten minutes.
const PAUSED_PATIENCE: Duration = Duration::from_secs(600);
/// The endpoint is away; it comes back after a restart.
const AWAY_PATIENCE: Duration = Duration::from_secs(600);
/// However slowly it goes on.
const DELIVERY_LIMIT: Duration = Duration::from_secs(900);
/// How long the announcement waits for the recording, so that whoever sees the end finds it complete.
const RECORDING_PATIENCE: Duration = Duration::from_secs(2);
/// How long a recording is kept for an endpoint that does not take it.
const RECORDING_LIMIT: Duration = Duration::from_secs(300);

/// Who can receive output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Peer {
    Attached,
    /// The endpoint is connected, its client is not.
    Paused,
    /// The endpoint is not connected.
    Away,
}

/// What is known about the session at one moment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Facts {
    pub(super) shell_ended: bool,
    /// The session was ordered to end.
    pub(super) ordered: bool,
    /// And its user is to be told before anything else, while there is a network.
    pub(super) urgent: bool,
    pub(super) processes_left: bool,
    /// The terminal is at its end.
    pub(super) output_ended: bool,
    /// Output that is not acknowledged.
    pub(super) unacknowledged: usize,
    /// When output was last read, or an acknowledgement last came.
    pub(super) progress_at: Duration,
    pub(super) peer: Peer,
    pub(super) recording_complete: bool,
}

/// What is to be done now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    Signal(Signal),
    /// Nothing is read from the terminal any more; complete the recording.
    CompleteRecording,
    /// Tell the peer, unless it gave the order, and close the channel.
    Announce,
    Finish,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Running,
    /// This signal was sent.
    Signalled(Signal),
    Delivering,
    Recording,
    Announced,
}

/// The state of the end.
#[derive(Debug)]
pub(super) struct Ending {
    stage: Stage,
    since: Duration,
    /// When delivery began.
    delivering_since: Duration,
    /// When to look for processes again.
    look_at: Duration,
    announced: bool,
}

impl Ending {
    pub(super) fn new() -> Self {
        Self {
            stage: Stage::Running,
            since: Duration::ZERO,
            delivering_since: Duration::ZERO,
            look_at: Duration::ZERO,
            announced: false,
        }
    }

    /// Whether processes must be looked for before [`Self::advance`]; otherwise what was last found still counts.
    pub(super) fn looks_for_processes(&mut self, now: Duration, shell_ended: bool, ordered: bool) -> bool {
        let due = match self.stage {
            Stage::Running => shell_ended || ordered,
            Stage::Signalled(_) => now >= self.look_at,
            Stage::Delivering | Stage::Recording | Stage::Announced => false,
        };
        if due {
            self.look_at = now.saturating_add(LOOK_AGAIN);
        }
        due
    }

    /// Whether the terminal is still read.
    pub(super) fn reads_output(&self) -> bool {
        matches!(
            self.stage,
            Stage::Running | Stage::Signalled(_) | Stage::Delivering
        )
    }

    /// The next thing to do, until `None`.
    pub(super) fn advance(&mut self, now: Duration, facts: &Facts) -> Option<Action> {
        let in_stage = now.saturating_sub(self.since);
        // one that cannot be told now may be there again at the end
        if facts.urgent && !self.announced && facts.peer != Peer::Away {
            self.announced = true;
            return Some(Action::Announce);
        }
        match self.stage {
            Stage::Running if !facts.shell_ended && !facts.ordered => None,
            Stage::Running if facts.processes_left => Some(self.signal(now, Signal::SIGHUP)),
            Stage::Signalled(_) if facts.processes_left && in_stage < GRACE => None,
            Stage::Signalled(Signal::SIGHUP) if facts.processes_left => {
                Some(self.signal(now, Signal::SIGTERM))
            }
            Stage::Signalled(Signal::SIGTERM) if facts.processes_left => {
                Some(self.signal(now, Signal::SIGKILL))
            }
            Stage::Running | Stage::Signalled(_) => {
                self.enter(now, Stage::Delivering);
                self.delivering_since = now;
                self.advance(now, facts)
            }
            Stage::Delivering if self.may_deliver(now, facts) => None,
            Stage::Delivering => {
                self.enter(now, Stage::Recording);
                Some(Action::CompleteRecording)
            }
            Stage::Recording if !facts.recording_complete && in_stage < RECORDING_PATIENCE => None,
            Stage::Recording => {
                self.enter(now, Stage::Announced);
                match std::mem::replace(&mut self.announced, true) {
                    true => self.advance(now, facts),
                    false => Some(Action::Announce),
                }
            }
            Stage::Announced if !facts.recording_complete && in_stage < RECORDING_LIMIT => None,
            Stage::Announced => Some(Action::Finish),
        }
    }

    /// When [`Self::advance`] is due though nothing happened.
    pub(super) fn deadline(&self, facts: &Facts) -> Option<Duration> {
        match self.stage {
            Stage::Running => None,
            Stage::Signalled(_) => Some(self.look_at),
            Stage::Delivering => Some(self.delivery_deadline(facts)),
            Stage::Recording => Some(self.since.saturating_add(RECORDING_PATIENCE)),
            Stage::Announced => Some(self.since.saturating_add(RECORDING_LIMIT)),
        }
    }

    fn may_deliver(&self, now: Duration, facts: &Facts) -> bool {
        let done = facts.output_ended && (facts.unacknowledged == 0 || facts.ordered);
        !done && now < self.delivery_deadline(facts)
    }

    fn delivery_deadline(&self, facts: &Facts) -> Duration {
        let patience = match facts.peer {
            // Everything was acknowledged, or nobody waits for it: only an open terminal keeps us here.
            _ if facts.unacknowledged == 0 || facts.ordered => SILENCE,
            Peer::Attached => ACKNOWLEDGE_PATIENCE,
            Peer::Paused => PAUSED_PATIENCE,
            Peer::Away => AWAY_PATIENCE,
        };
        let quiet_since = facts.progress_at.max(self.delivering_since);
        let limit = self.delivering_since.saturating_add(DELIVERY_LIMIT);
        quiet_since.saturating_add(patience).min(limit)
    }

    fn signal(&mut self, now: Duration, signal: Signal) -> Action {
        self.enter(now, Stage::Signalled(signal));
        Action::Signal(signal)
    }

    fn enter(&mut self, now: Duration, stage: Stage) {
        self.stage = stage;
        self.since = now;
    }
}

#[cfg(test)]
mod tests;
