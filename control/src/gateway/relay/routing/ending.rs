//! How a session ends: the node says so, the endpoint says so, or a side stays away (client-wire §8.7, §8.9).

use std::time::Duration;

use moorline_protocol::{
    message::{AgentMessage, AgentSessionState},
    time::Now,
};

use super::{Ending, Relay, RelayEvent, Side};

/// How long the end waits for the node's `agent_task_complete`, which may carry a text for the user.
const TASK_COMPLETE_WAIT: Duration = Duration::from_secs(2);
/// The same, when the text is known already: only whether it was a failure is not.
const REASONED_WAIT: Duration = Duration::from_millis(250);
/// How long an attached client may take to acknowledge the last output.
const DELIVERY_WAIT: Duration = Duration::from_secs(10);
/// How long the last output is kept for a client that is away: as long as our clients try to come back.
const ABSENT_DELIVERY_WAIT: Duration = Duration::from_secs(600);
/// How long a socket may take to accept `channel_closed`.
const CLOSE_WAIT: Duration = Duration::from_secs(5);

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Phase {
    Open,
    /// The node said that its command ended.
    Terminating {
        until: Duration,
        exit_code: Option<i32>,
        reason: String,
    },
    /// The client gets the rest of the output, then `channel_closed`.
    Delivering {
        until: Duration,
        ending: Ending,
    },
    /// `channel_closed` waits for the sockets.
    Closing {
        until: Duration,
        ending: Ending,
    },
    Ended,
}

impl Phase {
    /// Whether it matters that a side stays away.
    pub(super) fn waits_for_sides(&self) -> bool {
        matches!(self, Self::Open)
    }

    pub(super) fn next_timeout(&self) -> Option<Duration> {
        match self {
            Self::Terminating { until, .. }
            | Self::Delivering { until, .. }
            | Self::Closing { until, .. } => Some(*until),
            Self::Open | Self::Ended => None,
        }
    }
}

impl Relay {
    /// The endpoint ends the session: both sides are told, what is on its way to the client still goes out.
    pub(crate) fn end(&mut self, now: Now, ending: Ending) {
        if matches!(self.phase, Phase::Closing { .. } | Phase::Ended) {
            return;
        }
        let node = self.session.node.clone();
        let closed = self.composer.channel_closed(now, &node, &ending.reason, None);
        self.to_agent.push_other(closed);
        self.close_client(now, ending);
    }

    /// The node's `agent_task_complete` for this session, from its control channel.
    pub(crate) fn task_completed(&mut self, now: Now, mut ending: Ending) {
        let known = match &self.phase {
            Phase::Open => None,
            Phase::Terminating {
                exit_code, reason, ..
            } => {
                if ending.reason.is_empty() {
                    ending.reason.clone_from(reason);
                }
                *exit_code
            }
            Phase::Delivering { .. } | Phase::Closing { .. } | Phase::Ended => return,
        };
        ending.exit_code = ending.exit_code.or(known);
        self.deliver(now, ending);
    }

    pub(super) fn session_state(&mut self, now: Now, message: &AgentMessage) -> bool {
        let Ok(state) = serde_json::from_slice::<AgentSessionState>(&message.payload) else {
            return false;
        };
        if state.session_state == "Connected" {
            self.agent_said(now, state.moorline_client_id);
            return true;
        }
        if state.session_state == "Terminating" && self.phase == Phase::Open {
            let reason = state.moorline_reason.unwrap_or_default();
            let wait = if reason.is_empty() {
                TASK_COMPLETE_WAIT
            } else {
                REASONED_WAIT
            };
            self.phase = Phase::Terminating {
                until: now.monotonic + wait,
                exit_code: state.moorline_exit_code,
                reason,
            };
            self.events.push_back(RelayEvent::Terminating);
        }
        true
    }

    fn deliver(&mut self, now: Now, ending: Ending) {
        let wait = if self.client.is_some() {
            DELIVERY_WAIT
        } else {
            ABSENT_DELIVERY_WAIT
        };
        self.phase = Phase::Delivering {
            until: now.monotonic + wait,
            ending,
        };
        self.check_delivered(now);
    }

    /// Goes on to the close once the client has all output. Nothing is owed to a client that never came.
    pub(super) fn check_delivered(&mut self, now: Now) {
        let Phase::Delivering { until, ending } = &self.phase else {
            return;
        };
        let nobody = self.client_id.is_none();
        if self.to_client.is_delivered() || nobody || *until <= now.monotonic {
            let ending = ending.clone();
            self.close_client(now, ending);
        }
    }

    fn close_client(&mut self, now: Now, ending: Ending) {
        let destination = self.client_id.clone().unwrap_or_default();
        let closed = self
            .composer
            .channel_closed(now, &destination, &ending.reason, ending.exit_code);
        self.to_client.push_other(closed);
        self.phase = Phase::Closing {
            until: now.monotonic + CLOSE_WAIT,
            ending,
        };
    }

    pub(super) fn after_attach(&mut self, now: Now) {
        if let Phase::Delivering { until, .. } = &mut self.phase {
            *until = now.monotonic + DELIVERY_WAIT;
        }
        if let Phase::Closing { ending, .. } = &self.phase {
            // the socket that was told before is gone
            let ending = ending.clone();
            self.close_client(now, ending);
        }
        self.check_delivered(now);
    }

    pub(super) fn after_detach(&mut self, now: Now, side: Side) {
        if side == Side::Client
            && let Phase::Delivering { until, .. } = &mut self.phase
        {
            *until = now.monotonic + ABSENT_DELIVERY_WAIT;
        }
    }

    pub(super) fn check_deadlines(&mut self, now: Now) {
        self.gate.quiet_over(now);
        let due = |deadline: Option<Duration>| deadline.is_some_and(|at| at <= now.monotonic);
        match &self.phase {
            Phase::Open if due(self.agent_deadline) => {
                let never = !self.session.resumed && !self.agent_was_attached;
                let reason = if never {
                    "node did not answer"
                } else {
                    "connection to the node lost"
                };
                self.end(
                    now,
                    Ending {
                        reason: reason.to_owned(),
                        exit_code: None,
                        failed: never,
                    },
                );
            }
            Phase::Open if due(self.client_deadline) => {
                let reason = "no client connected to the session".to_owned();
                self.end(
                    now,
                    Ending {
                        reason,
                        exit_code: None,
                        failed: false,
                    },
                );
            }
            Phase::Terminating {
                until,
                exit_code,
                reason,
            } if *until <= now.monotonic => {
                let ending = Ending {
                    reason: reason.clone(),
                    exit_code: *exit_code,
                    failed: false,
                };
                self.deliver(now, ending);
            }
            Phase::Delivering { .. } => self.check_delivered(now),
            Phase::Closing { until, ending } if *until <= now.monotonic => {
                self.events.push_back(RelayEvent::Ended(ending.clone()));
                self.phase = Phase::Ended;
            }
            _ => {}
        }
    }

    /// `channel_closed` went out, or nobody is there to take it.
    pub(super) fn note_ended(&mut self) {
        if let Phase::Closing { ending, .. } = &self.phase
            && self.to_client.is_sent()
            && self.to_agent.is_sent()
        {
            self.events.push_back(RelayEvent::Ended(ending.clone()));
            self.phase = Phase::Ended;
        }
    }
}
