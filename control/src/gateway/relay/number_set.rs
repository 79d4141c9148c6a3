//! A set of sequence numbers that stays small: acknowledged numbers are nearly one interval.

use std::collections::BTreeMap;

/// Intervals kept at most. Beyond it the lowest are forgotten: a forgotten number is forwarded once more, which a
/// receiver answers itself.
const MAX_INTERVALS: usize = 4096;

/// Disjoint closed intervals, by their first number.
#[derive(Debug, Default)]
pub(super) struct NumberSet {
    intervals: BTreeMap<i64, i64>,
}

impl NumberSet {
    pub(super) fn contains(&self, number: i64) -> bool {
        self.intervals
            .range(..=number)
            .next_back()
            .is_some_and(|(_, last)| number <= *last)
    }

    pub(super) fn insert(&mut self, number: i64) {
        if self.contains(number) {
            return;
        }
        let mut first = number;
        let mut last = number;
        if let Some((before, end)) = self.intervals.range(..number).next_back().map(|(s, e)| (*s, *e))
            && end.checked_add(1) == Some(number)
        {
            first = before;
        }
        if let Some(after) = number.checked_add(1)
            && let Some(end) = self.intervals.remove(&after)
        {
            last = end;
        }
        self.intervals.insert(first, last);
        if self.intervals.len() > MAX_INTERVALS {
            self.intervals.pop_first();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::{any, proptest};

    use super::*;

    #[test]
    fn numbers_in_order_are_one_interval() {
        let mut set = NumberSet::default();
        (0..100_000).for_each(|n| set.insert(n));
        assert_eq!(set.intervals.len(), 1);
        assert!(set.contains(0) && set.contains(99_999));
        assert!(!set.contains(100_000) && !set.contains(-1));
    }

    #[test]
    fn the_number_of_intervals_is_bounded() {
        let mut set = NumberSet::default();
        (0..100_000).for_each(|n| set.insert(n * 2));
        assert_eq!(set.intervals.len(), MAX_INTERVALS);
        assert!(set.contains(199_998));
        assert!(!set.contains(0));
    }

    #[test]
    fn the_highest_number_is_no_special_case() {
        let mut set = NumberSet::default();
        set.insert(i64::MAX);
        set.insert(i64::MAX - 1);
        assert!(set.contains(i64::MAX));
        assert_eq!(set.intervals.len(), 1);
    }

    proptest! {
        #[test]
        fn it_agrees_with_a_plain_set(numbers in proptest::collection::vec(0_i64..64, 0..200), probe in any::<u8>()) {
            let mut set = NumberSet::default();
            let mut plain = BTreeSet::new();
            for number in numbers {
                set.insert(number);
                plain.insert(number);
            }
            let probe = i64::from(probe);
            assert_eq!(set.contains(probe), plain.contains(&probe));
        }
    }
}
