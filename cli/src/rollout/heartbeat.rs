//! Which nodes are gone: those that were not connected for longer than a pause in the network explains.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// What was seen of the nodes of a roll-out; times are of any steady clock.
#[derive(Debug)]
pub(super) struct Heartbeats {
    grace: Duration,
    missing_since: BTreeMap<String, Duration>,
}

impl Heartbeats {
    /// A node may be away for as long as `grace`.
    pub(super) fn new(grace: Duration) -> Self {
        Self {
            grace,
            missing_since: BTreeMap::new(),
        }
    }

    /// A look found these nodes away. Returns those that are lost.
    pub(super) fn looked(&mut self, now: Duration, away: &BTreeSet<String>) -> BTreeSet<String> {
        self.missing_since.retain(|node, _| away.contains(node));
        for node in away {
            self.missing_since.entry(node.clone()).or_insert(now);
        }
        self.missing_since
            .iter()
            .filter(|(_, since)| now.saturating_sub(**since) >= self.grace)
            .map(|(node, _)| node.clone())
            .collect()
    }

    /// The endpoint itself was away, so that no node could be connected: all begin anew.
    pub(super) fn endpoint_was_away(&mut self) {
        self.missing_since.clear();
    }

    /// Whether a node is away and may still come back.
    pub(super) fn waits(&self) -> bool {
        !self.missing_since.is_empty()
    }

    /// The nodes of which that is so.
    pub(super) fn missing(&self) -> BTreeSet<String> {
        self.missing_since.keys().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(number: u64) -> Duration {
        Duration::from_secs(number)
    }

    #[test]
    fn a_node_is_lost_when_it_stays_away() {
        let mut heartbeats = Heartbeats::new(seconds(10));
        let (a, both) = (
            BTreeSet::from(["a".to_owned()]),
            BTreeSet::from(["a".to_owned(), "b".to_owned()]),
        );
        let none = BTreeSet::new();
        assert_eq!(heartbeats.looked(seconds(0), &a), none);
        assert!(heartbeats.waits());
        assert_eq!(heartbeats.missing(), a);
        assert_eq!(heartbeats.looked(seconds(5), &both), none);
        assert_eq!(heartbeats.looked(seconds(10), &both), a);
        assert_eq!(heartbeats.looked(seconds(11), &none), none, "it came back");
        assert!(!heartbeats.waits());
        assert_eq!(heartbeats.looked(seconds(12), &a), none);
        heartbeats.endpoint_was_away();
        assert_eq!(heartbeats.looked(seconds(30), &a), none);
        assert_eq!(heartbeats.looked(seconds(40), &a), a);
    }
}
