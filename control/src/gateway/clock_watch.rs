//! The wall clock may be set while sessions and commands run, by an operator or by NTP after a start with a wrong time.
//! What has passed is measured by the steady clock, so that nothing ends early and nothing lasts for ever.

use std::collections::{HashMap, HashSet};

use moorline_protocol::types::SessionId;

use crate::{app::Clock, store::SessionRow};

/// Clocks drift apart a little, and a busy process reads them at different moments, in milliseconds.
const TOLERANCE_MILLIS: u64 = 5000;

/// How the two clocks stood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Reading {
    unix_millis: u64,
    steady_millis: u64,
}

impl Reading {
    fn of(clock: &Clock) -> Self {
        Self {
            unix_millis: clock.unix_millis(),
            steady_millis: clock.steady_millis(),
        }
    }
}

/// The wall clock was set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ClockStep {
    /// Forwards, or back.
    pub(super) millis: i64,
    /// Times between these two may have been noted by the clock as it is now.
    pub(super) between: (u64, u64),
    now: Reading,
}

/// Finds out that the wall clock was set.
#[derive(Debug)]
pub(super) struct ClockWatch(Reading);

impl ClockWatch {
    pub(super) fn new(clock: &Clock) -> Self {
        Self(Reading::of(clock))
    }

    /// Whether the clock was set since the last look. The same step is found until it is [`Self::settled`].
    pub(super) fn look(&mut self, clock: &Clock) -> Option<ClockStep> {
        let now = Reading::of(clock);
        let passed = now.steady_millis.saturating_sub(self.0.steady_millis);
        let expected = self.0.unix_millis.saturating_add(passed);
        if now.unix_millis.abs_diff(expected) <= TOLERANCE_MILLIS {
            self.0 = now;
            return None;
        }
        let distance = i64::try_from(now.unix_millis.abs_diff(expected)).unwrap_or(i64::MAX);
        let earliest = now.unix_millis.saturating_sub(passed + TOLERANCE_MILLIS);
        Some(ClockStep {
            millis: if now.unix_millis > expected {
                distance
            } else {
                -distance
            },
            between: (earliest, now.unix_millis),
            now,
        })
    }

    /// Everything goes by the clock as it was at this step.
    pub(super) fn settled(&mut self, step: ClockStep) {
        self.0 = step.now;
    }
}

/// How old open sessions are, and how long they are unused, in time that passed.
#[derive(Debug, Default)]
pub(super) struct SessionAges(HashMap<SessionId, FirstLook>);

#[derive(Debug)]
struct FirstLook {
    steady_millis: u64,
    age: u64,
    idle: u64,
}

/// In milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Age {
    pub(super) age: u64,
    /// Apart from what its relay knows.
    pub(super) idle: u64,
}

impl SessionAges {
    /// The wall clock is asked once, when a session is new here; `just_set`: it tells nothing now.
    pub(super) fn of(&mut self, session: &SessionRow, clock: &Clock, just_set: bool) -> Age {
        let now = Reading::of(clock);
        let since = |then: u64| match just_set {
            true => 0,
            false => now.unix_millis.saturating_sub(then),
        };
        let first = self
            .0
            .entry(session.session_id.clone())
            .or_insert_with(|| FirstLook {
                steady_millis: now.steady_millis,
                age: since(session.started_at),
                idle: since(session.last_activity_at),
            });
        let passed = now.steady_millis.saturating_sub(first.steady_millis);
        Age {
            age: first.age.saturating_add(passed),
            idle: first.idle.saturating_add(passed),
        }
    }

    pub(super) fn forget_others(&mut self, open: &[SessionRow]) {
        let open: HashSet<_> = open.iter().map(|session| &session.session_id).collect();
        self.0.retain(|session, _| open.contains(session));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_support::TestApp;

    #[tokio::test]
    async fn a_step_is_found_until_it_is_settled_and_the_passing_of_time_is_none() {
        let test = TestApp::new().await;
        let clock = &test.app.clock;
        let mut watch = ClockWatch::new(clock);
        test.advance_millis(3_600_000);
        assert_eq!(watch.look(clock), None);
        for millis in [86_400_000, -86_400_000] {
            test.step_clock(millis);
            test.advance_millis(1000);
            let step = watch.look(clock).unwrap();
            assert_eq!(step.millis, millis);
            assert_eq!(watch.look(clock), Some(step));
            watch.settled(step);
            assert_eq!(watch.look(clock), None);
        }
    }
}
