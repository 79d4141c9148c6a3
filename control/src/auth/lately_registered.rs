//! Nodes that were found registered a moment ago. A recording at full speed comes in hundreds of pieces a second, and the
//! question to the database would cost as much as the piece.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use moorline_protocol::types::InstanceId;

/// So long an answer of the database counts.
const COUNTS_MILLIS: u64 = 1000;
/// More are forgotten, and asked for again.
const MOST_NODES: usize = 1024;

/// What the database said lately.
#[derive(Debug, Default)]
pub(crate) struct LatelyRegistered(Mutex<BTreeMap<InstanceId, Said>>);

#[derive(Debug)]
struct Said {
    generation: i64,
    at: u64,
}

impl LatelyRegistered {
    /// Which credentials of the node are the valid ones, if that was asked within the last second.
    pub(super) fn generation(&self, node: &InstanceId, now: u64) -> Option<i64> {
        let said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Said { generation, at } = said.get(node)?;
        // a clock that was set back makes nothing count longer
        (*at..*at + COUNTS_MILLIS).contains(&now).then_some(*generation)
    }

    pub(super) fn note(&self, node: &InstanceId, generation: i64, at: u64) {
        let mut said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if said.len() >= MOST_NODES {
            said.clear();
        }
        said.insert(node.clone(), Said { generation, at });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_support::node_id;

    #[test]
    fn an_answer_counts_for_a_second_whatever_the_clock_does_and_few_are_kept() {
        let lately = LatelyRegistered::default();
        let node = node_id(0);
        lately.note(&node, 7, 5000);
        let known = [4999, 5000, 5999, 6000].map(|now| lately.generation(&node, now));
        assert_eq!(known, [None, Some(7), Some(7), None]);
        for index in 1..3000 {
            lately.note(&node_id(index), 1, 5000);
        }
        assert!(lately.0.lock().unwrap().len() <= MOST_NODES);
        assert_eq!(lately.generation(&node_id(2999), 5000), Some(1));
    }
}
