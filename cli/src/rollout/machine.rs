//! What a roll-out does next, from what has happened alone: no call, no clock.
//!
//! Wave after wave is sent, and after each one its health is asked for, if that is wanted. When the last is through its
//! nodes are watched for a while longer. Too many failures, a node whose heartbeat is lost, a failed probe, a call that
//! fails or the user end it: nothing is sent after that.

use std::collections::{BTreeMap, BTreeSet};

use super::wave::Wave;
use crate::counted::{agreeing, counted};

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Action {
    /// Run the command on the nodes of this wave.
    Send(usize),
    /// Ask the nodes of this wave for their health.
    Probe(usize),
    /// All waves are through: see whether their nodes stay connected.
    Watch,
    /// All waves are through, and nothing is wrong.
    Finish,
    Halt(Halt),
}

/// What has happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Event {
    /// The command has ended on every node of the wave: the nodes where it did not succeed, with their status.
    WaveEnded {
        failed: BTreeMap<String, String>,
    },
    /// Every node of the wave was probed: the nodes that are not well, with their status.
    ProbeEnded {
        failed: BTreeMap<String, String>,
    },
    /// The nodes were watched for as long as they are to be, and none is lost.
    Watched,
    /// These nodes of a wave that was sent are gone.
    HeartbeatsLost(BTreeSet<String>),
    /// The endpoint refused something, or was out of reach for too long.
    CallFailed(String),
    Interrupted,
}

/// Why a roll-out ended early, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Halt {
    /// `None`: after the last one.
    pub(super) wave: Option<String>,
    pub(super) cause: Cause,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Cause {
    /// More nodes failed, over all waves, than may.
    Errors {
        errors: usize,
        allowed: usize,
        failed: BTreeMap<String, String>,
    },
    HeartbeatsLost(BTreeSet<String>),
    Probe {
        failed: BTreeMap<String, String>,
    },
    CallFailed(String),
    Interrupted,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Running(usize),
    Probing(usize),
    Watching,
    Over,
}

/// A roll-out under way.
#[derive(Debug)]
pub(super) struct Machine {
    waves: Vec<Wave>,
    has_probe: bool,
    allowed_errors: usize,
    errors: usize,
    phase: Phase,
}

impl Machine {
    /// Begins: returns the first thing to do. Waves without nodes are left out.
    pub(super) fn begin(waves: Vec<Wave>, has_probe: bool, allowed_errors: usize) -> (Self, Action) {
        let mut machine = Self {
            waves,
            has_probe,
            allowed_errors,
            errors: 0,
            phase: Phase::Over,
        };
        let action = machine.enter(0);
        (machine, action)
    }

    pub(super) fn waves(&self) -> &[Wave] {
        &self.waves
    }

    /// How many more nodes may fail.
    pub(super) fn errors_left(&self) -> usize {
        self.allowed_errors.saturating_sub(self.errors)
    }

    /// Takes what has happened; `None`: go on with what is under way.
    pub(super) fn on(&mut self, event: Event) -> Option<Action> {
        match (self.phase, event) {
            (Phase::Over, _) => None,
            (Phase::Running(wave), Event::WaveEnded { failed }) => {
                self.errors += failed.len();
                if self.errors > self.allowed_errors {
                    return Some(self.halt(Cause::Errors {
                        errors: self.errors,
                        allowed: self.allowed_errors,
                        failed,
                    }));
                }
                if self.has_probe {
                    self.phase = Phase::Probing(wave);
                    return Some(Action::Probe(wave));
                }
                Some(self.enter(wave + 1))
            }
            (Phase::Probing(wave), Event::ProbeEnded { failed }) if failed.is_empty() => {
                Some(self.enter(wave + 1))
            }
            (Phase::Probing(_), Event::ProbeEnded { failed }) => Some(self.halt(Cause::Probe { failed })),
            (Phase::Watching, Event::Watched) => {
                self.phase = Phase::Over;
                Some(Action::Finish)
            }
            (_, Event::HeartbeatsLost(nodes)) if !nodes.is_empty() => {
                Some(self.halt(Cause::HeartbeatsLost(nodes)))
            }
            (_, Event::CallFailed(why)) => Some(self.halt(Cause::CallFailed(why))),
            (_, Event::Interrupted) => Some(self.halt(Cause::Interrupted)),
            // too late, or of something else
            (Phase::Running(_), Event::ProbeEnded { .. } | Event::Watched)
            | (Phase::Probing(_), Event::WaveEnded { .. } | Event::Watched)
            | (Phase::Watching, Event::WaveEnded { .. } | Event::ProbeEnded { .. })
            | (_, Event::HeartbeatsLost(_)) => None,
        }
    }

    fn enter(&mut self, from: usize) -> Action {
        let has_nodes = |wave: &usize| self.waves.get(*wave).is_some_and(|wave| !wave.nodes.is_empty());
        let (phase, action) = match (from..self.waves.len()).find(has_nodes) {
            Some(wave) => (Phase::Running(wave), Action::Send(wave)),
            None if (0..from).any(|wave| has_nodes(&wave)) => (Phase::Watching, Action::Watch),
            None => (Phase::Over, Action::Finish),
        };
        self.phase = phase;
        action
    }

    fn halt(&mut self, cause: Cause) -> Action {
        let wave = match self.phase {
            Phase::Running(wave) | Phase::Probing(wave) => self.waves.get(wave).map(|wave| wave.name.clone()),
            Phase::Watching | Phase::Over => None,
        };
        self.phase = Phase::Over;
        Action::Halt(Halt { wave, cause })
    }
}

/// Why, for the user.
impl std::fmt::Display for Halt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.wave {
            Some(wave) => write!(f, "wave {wave}: ")?,
            None => f.write_str("after the last wave: ")?,
        }
        match &self.cause {
            Cause::Errors {
                errors,
                allowed,
                failed,
            } => {
                // those that failed are what is to be looked at, and not those that were spared for it
                let (stopped, failed): (BTreeMap<_, _>, BTreeMap<_, _>) = failed
                    .clone()
                    .into_iter()
                    .partition(|(_, status)| status == TERMINATED);
                write!(
                    f,
                    "the command failed on {}, and {allowed} {} allowed: {}",
                    counted(errors.saturating_sub(stopped.len()), "node"),
                    agreeing(*allowed, "is", "are"),
                    listed(&failed)
                )?;
                match stopped.len() {
                    0 => Ok(()),
                    spared => write!(f, "; on {} it was not begun", counted(spared, "other")),
                }
            }
            Cause::HeartbeatsLost(nodes) => {
                let nodes: BTreeMap<_, _> = nodes
                    .iter()
                    .map(|node| (node.clone(), "not connected".to_owned()))
                    .collect();
                write!(f, "lost the heartbeat of {}", listed(&nodes))
            }
            Cause::Probe { failed } => write!(f, "the health probe failed on {}", listed(failed)),
            Cause::CallFailed(why) => f.write_str(why),
            Cause::Interrupted => f.write_str("interrupted by the user"),
        }
    }
}

/// How an invocation ends that had not had its turn when there were too many errors.
const TERMINATED: &str = "Terminated";
/// Nodes that are named in a reason.
const MOST_NAMED: usize = 10;

fn listed(nodes: &BTreeMap<String, String>) -> String {
    let named: Vec<String> = nodes
        .iter()
        .take(MOST_NAMED)
        .map(|(node, status)| format!("{node} ({status})"))
        .collect();
    let more = nodes.len().saturating_sub(MOST_NAMED);
    let more = if more > 0 {
        format!(" and {more} more")
    } else {
        String::new()
    };
    format!("{}{more}", named.join(", "))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn wave(name: &str, nodes: &[&str]) -> Wave {
        Wave {
            name: name.to_owned(),
            nodes: nodes.iter().map(|&node| node.to_owned()).collect(),
        }
    }

    fn failed(nodes: &[&str]) -> BTreeMap<String, String> {
        nodes
            .iter()
            .map(|&node| (node.to_owned(), "Failed".to_owned()))
            .collect()
    }

    #[test]
    fn waves_follow_each_other_with_a_probe_between_them() {
        let waves = vec![wave("one", &["a"]), wave("empty", &[]), wave("two", &["b", "c"])];
        let (mut machine, first) = Machine::begin(waves, true, 0);
        assert_eq!(first, Action::Send(0));
        let well = || failed(&[]);
        assert_eq!(
            machine.on(Event::ProbeEnded { failed: well() }),
            None,
            "not asked for"
        );
        assert_eq!(
            machine.on(Event::WaveEnded { failed: well() }),
            Some(Action::Probe(0))
        );
        assert_eq!(
            machine.on(Event::ProbeEnded { failed: well() }),
            Some(Action::Send(2))
        );
        assert_eq!(
            machine.on(Event::WaveEnded { failed: well() }),
            Some(Action::Probe(2))
        );
        assert_eq!(
            machine.on(Event::ProbeEnded { failed: well() }),
            Some(Action::Watch)
        );
        assert_eq!(
            machine.on(Event::ProbeEnded { failed: well() }),
            None,
            "it is through"
        );
        assert_eq!(machine.on(Event::Watched), Some(Action::Finish));
        assert_eq!(machine.on(Event::Interrupted), None, "it is over");
    }

    #[test]
    fn a_halt_says_why() {
        let begin = || Machine::begin(vec![wave("one", &["a", "b"]), wave("two", &["c"])], true, 1).0;
        let halted = |machine: &mut Machine, event| match machine.on(event) {
            Some(Action::Halt(halt)) => halt.to_string(),
            other => panic!("{other:?}"),
        };
        assert_eq!(
            halted(
                &mut begin(),
                Event::WaveEnded {
                    failed: failed(&["a", "b"])
                }
            ),
            "wave one: the command failed on 2 nodes, and 1 is allowed: a (Failed), b (Failed)"
        );
        let mut some = failed(&["b"]);
        some.insert("a".to_owned(), TERMINATED.to_owned());
        let mut none_may = Machine::begin(vec![wave("one", &["a", "b"])], true, 0).0;
        assert_eq!(
            halted(&mut none_may, Event::WaveEnded { failed: some }),
            "wave one: the command failed on 1 node, and 0 are allowed: b (Failed); on 1 other it was not begun"
        );
        assert_eq!(
            halted(
                &mut begin(),
                Event::HeartbeatsLost(BTreeSet::from(["b".to_owned()]))
            ),
            "wave one: lost the heartbeat of b (not connected)"
        );
        let mut probing = begin();
        assert_eq!(
            probing.on(Event::WaveEnded {
                failed: failed(&["a"])
            }),
            Some(Action::Probe(0))
        );
        assert_eq!(probing.errors_left(), 0);
        assert_eq!(
            halted(
                &mut probing,
                Event::ProbeEnded {
                    failed: failed(&["b"])
                }
            ),
            "wave one: the health probe failed on b (Failed)"
        );
        assert_eq!(
            halted(&mut begin(), Event::Interrupted),
            "wave one: interrupted by the user"
        );
        assert_eq!(
            halted(&mut begin(), Event::CallFailed("refused".to_owned())),
            "wave one: refused"
        );
        let watching = || {
            let mut machine = Machine::begin(vec![wave("one", &["a"])], false, 0).0;
            let ended = machine.on(Event::WaveEnded { failed: failed(&[]) });
            assert_eq!(ended, Some(Action::Watch));
            machine
        };
        assert_eq!(
            halted(
                &mut watching(),
                Event::HeartbeatsLost(BTreeSet::from(["a".to_owned()]))
            ),
            "after the last wave: lost the heartbeat of a (not connected)"
        );
        assert_eq!(
            halted(&mut watching(), Event::Interrupted),
            "after the last wave: interrupted by the user"
        );
    }

    fn event() -> impl Strategy<Value = Event> {
        let failures = || proptest::collection::btree_map("[a-f]", Just("Failed".to_owned()), 0..3);
        prop_oneof![
            4 => failures().prop_map(|failed| Event::WaveEnded { failed }),
            4 => failures().prop_map(|failed| Event::ProbeEnded { failed }),
            1 => proptest::collection::btree_set("[a-f]", 0..2).prop_map(Event::HeartbeatsLost),
            2 => Just(Event::Watched),
            1 => Just(Event::CallFailed("refused".to_owned())),
            1 => Just(Event::Interrupted),
        ]
    }

    proptest! {
        /// Whatever happens in whatever order: waves go out once and in order, each only after the one before it ended
        /// within the errors and its probe went well, and nothing follows a halt or the end.
        #[test]
        fn no_wave_goes_out_before_the_one_before_it_is_well(
            sizes in proptest::collection::vec(0..4_usize, 0..5),
            has_probe in any::<bool>(),
            allowed in 0..4_usize,
            events in proptest::collection::vec(event(), 0..24),
        ) {
            let waves: Vec<Wave> = sizes
                .iter()
                .enumerate()
                .map(|(number, size)| Wave {
                    name: format!("w{number}"),
                    nodes: (0..*size).map(|node| format!("{number}-{node}")).collect(),
                })
                .collect();
            let (mut machine, mut last) = Machine::begin(waves, has_probe, allowed);
            let (mut sent, mut errors) = (Vec::new(), 0);
            if let Action::Send(wave) = last {
                sent.push(wave);
            }
            for event in events {
                let action = machine.on(event.clone());
                let is_over = matches!(last, Action::Halt(_) | Action::Finish);
                prop_assert!(!is_over || action.is_none(), "{:?} after the end", action);
                let Some(action) = action else { continue };
                if let (Action::Send(_), Event::WaveEnded { failed }) = (&last, &event) {
                    errors += failed.len();
                }
                match &action {
                    Action::Send(wave) => {
                        prop_assert!(sent.iter().all(|before| before < wave), "again or out of order");
                        prop_assert!(errors <= allowed);
                        let fits = if has_probe {
                            matches!((&last, &event), (Action::Probe(_), Event::ProbeEnded { failed }) if failed.is_empty())
                        } else {
                            matches!((&last, &event), (Action::Send(_), Event::WaveEnded { .. }))
                        };
                        prop_assert!(fits, "{:?} after {:?} and {:?}", action, last, event);
                        sent.push(*wave);
                    }
                    Action::Probe(wave) => prop_assert_eq!(&last, &Action::Send(*wave)),
                    Action::Halt(halt) => prop_assert!(!halt.to_string().is_empty()),
                    Action::Finish => prop_assert_eq!((&last, &event), (&Action::Watch, &Event::Watched)),
                    Action::Watch => {
                        prop_assert!(errors <= allowed);
                        let wanted = sizes.iter().filter(|size| **size > 0).count();
                        prop_assert_eq!(sent.len(), wanted, "a wave was left out");
                    }
                }
                last = action;
            }
        }
    }
}
