//! What happens over and over becomes one record at once, and one a minute that says how often: a log that anyone can
//! fill is of no use, and neither is one that says nothing of an attack.

use std::{collections::BTreeMap, time::Duration};

use moorline_protocol::audit::Event;

/// How long the same is counted before that is recorded.
pub(super) const WINDOW: Duration = Duration::from_secs(60);
/// Different things that are counted at a time; what comes beyond is counted together.
const MOST_KEYS: usize = 4096;

/// What is the same.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key(pub(super) String);

#[derive(Debug)]
struct Counted {
    /// Milliseconds of the steady clock.
    began_at: u64,
    repeats: u64,
    /// Without what differs from one time to the next.
    event: Event,
}

/// What was recorded within the last minute, and how often it came again.
#[derive(Debug, Default)]
pub(super) struct Repeats {
    counted: BTreeMap<Key, Counted>,
}

impl Repeats {
    /// Gives the event back if it is to be recorded now. `steady_millis` never goes back.
    pub(super) fn admit(&mut self, key: Key, event: Event, steady_millis: u64) -> Option<Event> {
        let key = if self.counted.len() < MOST_KEYS || self.counted.contains_key(&key) {
            key
        } else {
            Key(String::new())
        };
        if let Some(counted) = self.counted.get_mut(&key) {
            counted.repeats += 1;
            return None;
        }
        let is_rest = key.0.is_empty();
        let counted = Counted {
            began_at: steady_millis,
            repeats: 0,
            event: without_particulars(event.clone(), is_rest),
        };
        self.counted.insert(key, counted);
        Some(event)
    }

    /// What came again and was counted for a minute; at the end of the process (`is_end`) all of it. What did not come
    /// again is forgotten.
    pub(super) fn due(&mut self, steady_millis: u64, is_end: bool) -> Vec<Event> {
        let mut due = Vec::new();
        let window = u64::try_from(WINDOW.as_millis()).unwrap_or(u64::MAX);
        self.counted.retain(|_, counted| {
            if !is_end && steady_millis.saturating_sub(counted.began_at) < window {
                return true;
            }
            if counted.repeats == 0 {
                return false;
            }
            let mut event = counted.event.clone();
            event.count = Some(std::mem::take(&mut counted.repeats));
            counted.began_at = steady_millis;
            due.push(event);
            true
        });
        due
    }

    /// Whether anything is counted, so that [`Self::due`] must be asked again.
    pub(super) fn is_empty(&self) -> bool {
        self.counted.is_empty()
    }
}

fn without_particulars(event: Event, is_rest: bool) -> Event {
    let mut event = Event {
        parameters: None,
        request_id: None,
        details: None,
        ..event
    };
    if is_rest {
        event.peer = None;
        event.user_agent = None;
        event.operation = None;
        event.nodes.clear();
        event.session = None;
        event.command = None;
        event.message =
            Some("several callers and operations, of which there were too many to count each".to_owned());
    }
    event
}

#[cfg(test)]
mod tests {
    use moorline_protocol::audit::{Actor, EventKind};

    use super::*;

    fn event(name: &str) -> Event {
        let mut event = Event::new(EventKind::Call, Actor::endpoint());
        event.operation = Some(name.to_owned());
        event.request_id = Some("id".to_owned());
        event
    }

    fn key(number: usize) -> Key {
        Key(format!("key {number}"))
    }

    #[test]
    fn the_first_is_recorded_at_once_and_the_others_once_a_minute() {
        let mut repeats = Repeats::default();
        assert_eq!(repeats.admit(key(1), event("a"), 0), Some(event("a")));
        for millis in 1..1000 {
            assert_eq!(repeats.admit(key(1), event("a"), millis), None);
        }
        assert!(repeats.due(59_999, false).is_empty());
        let [counted] = repeats.due(60_000, false).try_into().unwrap();
        assert_eq!((counted.count, counted.request_id), (Some(999), None));
        // it goes on: one record a minute
        assert_eq!(repeats.admit(key(1), event("a"), 60_001), None);
        assert!(repeats.due(119_999, false).is_empty());
        assert_eq!(repeats.due(120_000, false).len(), 1);
        // and stops
        assert!(repeats.due(180_000, false).is_empty());
        assert!(repeats.is_empty());
        assert_eq!(repeats.admit(key(1), event("a"), 180_001), Some(event("a")));
    }

    proptest::proptest! {
        /// Whatever comes when: each is recorded itself or counted in a record, once.
        #[test]
        fn nothing_is_lost_and_nothing_counted_twice(
            comings in proptest::collection::vec((0_usize..5, 0_u64..90_000), 0..200),
        ) {
            let (mut repeats, mut now) = (Repeats::default(), 0);
            let mut told = BTreeMap::new();
            let mut came = BTreeMap::new();
            let mut tell = |event: Event| {
                *told.entry(event.operation.unwrap()).or_insert(0) += event.count.unwrap_or(1);
            };
            for (number, pause) in comings {
                now += pause;
                let name = format!("operation {number}");
                *came.entry(name.clone()).or_insert(0) += 1;
                repeats.due(now, false).into_iter().for_each(&mut tell);
                repeats.admit(key(number), event(&name), now).into_iter().for_each(&mut tell);
            }
            repeats.due(now, true).into_iter().for_each(&mut tell);
            proptest::prop_assert_eq!(told, came);
        }
    }

    #[test]
    fn at_the_end_everything_that_was_counted_is_told() {
        let mut repeats = Repeats::default();
        for number in [1, 2, 2] {
            repeats.admit(key(number), event("a"), 0);
        }
        let [counted] = repeats.due(1, true).try_into().unwrap();
        assert_eq!(counted.count, Some(1));
    }

    #[test]
    fn more_kinds_than_can_be_counted_are_counted_together() {
        let mut repeats = Repeats::default();
        let recorded =
            (0..3 * MOST_KEYS).filter(|number| repeats.admit(key(*number), event("a"), 0).is_some());
        assert_eq!(recorded.count(), MOST_KEYS + 1);
        assert_eq!(repeats.counted.len(), MOST_KEYS + 1);
        let [rest] = repeats.due(60_000, false).try_into().unwrap();
        let others = u64::try_from(2 * MOST_KEYS - 1).unwrap();
        assert_eq!((rest.count, rest.operation), (Some(others), None));
    }
}
