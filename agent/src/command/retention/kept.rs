//! Which of the finished commands keep their files: the newest, within three limits. No files are touched here.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    time::{Duration, SystemTime},
};

use crate::config::CommandConfig;

const DAY_SECONDS: u64 = 24 * 3600;
const MIB: u64 = 1024 * 1024;

/// What may stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Limits {
    pub(super) age: Duration,
    pub(super) count: usize,
    pub(super) bytes: u64,
}

impl Limits {
    pub(super) fn of(config: &CommandConfig) -> Self {
        let number = |setting: usize| u64::try_from(setting).unwrap_or(u64::MAX);
        Self {
            age: Duration::from_secs(number(config.keep_days).saturating_mul(DAY_SECONDS)),
            count: config.keep_count,
            bytes: number(config.keep_mib).saturating_mul(MIB),
        }
    }

    /// Without regard to age: what to hold when the clock is not believed.
    pub(super) fn of_size(self) -> Self {
        Self {
            age: Duration::MAX,
            ..self
        }
    }
}

/// One directory: when it was last changed, and its name. The order is that of age.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Directory {
    pub(super) modified: SystemTime,
    pub(super) name: OsString,
}

/// Bytes of the directories that were measured.
pub(super) type Sizes = BTreeMap<Directory, u64>;

/// The directories that stay, of all that have been offered. Never more than the limit of their number, so memory does
/// not depend on how many there are.
#[derive(Debug)]
pub(super) struct Kept {
    limits: Limits,
    now: SystemTime,
    newest: BTreeSet<Directory>,
}

impl Kept {
    pub(super) fn new(limits: Limits, now: SystemTime) -> Self {
        Self {
            limits,
            now,
            newest: BTreeSet::new(),
        }
    }

    /// Takes a directory in, and names the one that has to go for it: itself, or the oldest.
    pub(super) fn offer(&mut self, directory: Directory) -> Option<Directory> {
        let age = self.now.duration_since(directory.modified);
        if age.is_ok_and(|age| age > self.limits.age) {
            return Some(directory);
        }
        self.newest.insert(directory);
        match self.newest.len() > self.limits.count {
            true => self.newest.pop_first(),
            false => None,
        }
    }

    /// Finds out what all of them take, newest first, and gives up, oldest first, those that together with all newer
    /// ones are over the limit. What is `known` of one is believed, else `measure` gives its bytes; where it gives
    /// none, there is no answer.
    pub(super) fn weigh(
        mut self,
        known: &Sizes,
        mut measure: impl FnMut(&Directory) -> Option<u64>,
    ) -> Option<(Sizes, Vec<Directory>)> {
        let mut total = 0_u64;
        let mut staying = Sizes::new();
        while let Some(directory) = self.newest.pop_last() {
            let bytes = match known.get(&directory) {
                Some(bytes) => *bytes,
                None => measure(&directory)?,
            };
            total = total.saturating_add(bytes);
            if total > self.limits.bytes {
                let going = self.newest.into_iter().chain([directory]);
                return Some((staying, going.collect()));
            }
            staying.insert(directory, bytes);
        }
        Some((staying, Vec::new()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: u64 = 1_000_000_000;

    fn at(seconds: u64, name: &str) -> Directory {
        Directory {
            modified: SystemTime::UNIX_EPOCH + Duration::from_secs(seconds),
            name: name.into(),
        }
    }

    /// Names of what stays and of what goes, each in order of names.
    fn decide(limits: Limits, directories: &[(u64, String, u64)]) -> (Vec<String>, Vec<String>) {
        let text = |directory: &Directory| directory.name.to_str().unwrap().to_owned();
        let mut kept = Kept::new(limits, SystemTime::UNIX_EPOCH + Duration::from_secs(NOW));
        let mut going = Vec::new();
        for (modified, name, _) in directories {
            going.extend(kept.offer(at(*modified, name)));
        }
        let bytes = |asked: &Directory| {
            let found = directories
                .iter()
                .find(|(_, name, _)| asked.name == name.as_str());
            found.map(|(_, _, bytes)| *bytes)
        };
        let (staying, over) = kept.weigh(&Sizes::new(), bytes).unwrap();
        going.extend(over);
        let mut going: Vec<String> = going.iter().map(text).collect();
        let mut staying: Vec<String> = staying.keys().map(text).collect();
        going.sort();
        staying.sort();
        (staying, going)
    }

    proptest! {
        /// Against the definition: sorted by age, what comes after a limit is reached goes.
        #[test]
        fn the_newest_stay_within_all_limits_in_whatever_order_they_are_found(
            found in prop::collection::vec((NOW - 50..NOW + 5, 0_u64..10), 0..40),
            age in 0_u64..60,
            count in 0_usize..50,
            bytes in 0_u64..200,
        ) {
            let directories: Vec<(u64, String, u64)> = found
                .into_iter()
                .enumerate()
                .map(|(number, (modified, bytes))| (modified, format!("c{number:02}"), bytes))
                .collect();
            let limits = Limits { age: Duration::from_secs(age), count, bytes };
            let mut sorted = directories.clone();
            sorted.sort_by(|a, b| (b.0, &b.1).cmp(&(a.0, &a.1)));
            let mut total = 0;
            let mut expected = (Vec::new(), Vec::new());
            for (position, (modified, name, bytes)) in sorted.into_iter().enumerate() {
                total += bytes;
                let is_old = NOW.saturating_sub(modified) > age;
                match is_old || position >= count || total > limits.bytes {
                    true => expected.1.push(name),
                    false => expected.0.push(name),
                }
            }
            expected.0.sort();
            expected.1.sort();
            prop_assert_eq!(decide(limits, &directories), expected);
        }
    }

    #[test]
    fn what_was_measured_before_is_not_measured_again() {
        let limits = Limits {
            age: Duration::MAX,
            count: 10,
            bytes: 100,
        };
        let offer = || {
            let mut kept = Kept::new(limits, SystemTime::UNIX_EPOCH);
            assert_eq!(kept.offer(at(1, "a")), None);
            assert_eq!(kept.offer(at(2, "b")), None);
            kept
        };
        let (sizes, _) = offer().weigh(&Sizes::new(), |_| Some(7)).unwrap();
        let known = Sizes::from([(at(1, "a"), 7), (at(2, "b"), 7)]);
        assert_eq!(sizes, known);
        // Changed since, so it is another: that one is asked for.
        let mut kept = offer();
        kept.offer(at(3, "c"));
        let mut asked = Vec::new();
        kept.weigh(&known, |directory| {
            asked.push(directory.clone());
            Some(1)
        })
        .unwrap();
        assert_eq!(asked, [at(3, "c")]);
        assert_eq!(offer().weigh(&Sizes::new(), |_| None), None);
    }
}
