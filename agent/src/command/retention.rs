//! Directories of finished commands: bounded by age, number and bytes. And whether ages can be believed.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use tokio::time::Instant;

/// How much further than time itself the wall clock may move between two looks.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(600);
const MAX_AGE: Duration = Duration::from_secs(14 * 24 * 3600);
const MAX_COUNT: usize = 1_000;
const MAX_BYTES: u64 = 1024 * 1024 * 1024;
/// Directories below a command's own that are measured; documents may have made any number of them.
const MAX_MEASURED: usize = 10_000;

/// Both clocks as they were last seen. Ages are told by the wall clock, which is set while the daemon runs.
#[derive(Debug)]
pub(super) struct Clocks {
    monotonic: Instant,
    wall_millis: u64,
}

impl Clocks {
    pub(super) fn new(monotonic: Instant, wall_millis: u64) -> Self {
        Self {
            monotonic,
            wall_millis,
        }
    }

    /// Whether the wall clock was set forward since the last look: then what is young looks old.
    pub(super) fn have_leapt(&mut self, monotonic: Instant, wall_millis: u64) -> bool {
        let passed = monotonic.saturating_duration_since(self.monotonic);
        let told = Duration::from_millis(wall_millis.saturating_sub(self.wall_millis));
        *self = Self::new(monotonic, wall_millis);
        told > passed.saturating_add(CLOCK_TOLERANCE)
    }
}

/// What may stay.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) age: Duration,
    pub(super) count: usize,
    pub(super) bytes: u64,
}

impl Limits {
    /// Without regard to age: what to hold in between, when clocks have not been compared.
    pub(super) fn of_size() -> Self {
        Self {
            age: Duration::MAX,
            ..Self::default()
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            age: MAX_AGE,
            count: MAX_COUNT,
            bytes: MAX_BYTES,
        }
    }
}

/// Removes the oldest directories until the rest is within the limits. Those in `active` stay and do not count.
///
/// # Errors
/// The folder cannot be listed; a single directory that cannot be removed is left for the next time.
pub(super) fn prune(
    folder: &Path,
    active: &BTreeSet<String>,
    limits: Limits,
    now: SystemTime,
) -> std::io::Result<()> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    let mut directories: Vec<(SystemTime, PathBuf)> = entries
        .flatten()
        .filter(|entry| {
            entry
                .file_name()
                .to_str()
                .is_none_or(|name| !active.contains(name))
        })
        .filter_map(|entry| {
            let metadata = entry.metadata().ok()?;
            Some((
                metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH),
                entry.path(),
            ))
        })
        .collect();
    // Newest first: what comes after a limit is reached goes.
    directories.sort_by(|a, b| b.cmp(a));
    let mut bytes = 0_u64;
    for (index, (modified, path)) in directories.into_iter().enumerate() {
        bytes = bytes.saturating_add(measure(&path));
        let is_old = now.duration_since(modified).is_ok_and(|age| age > limits.age);
        let is_over = is_old || index >= limits.count || bytes > limits.bytes;
        if is_over && let Err(error) = fs::remove_dir_all(&path) {
            tracing::debug!(path = %path.display(), %error, "failed to remove an old command's files");
        }
    }
    Ok(())
}

/// Bytes of the files below a directory; symbolic links are not followed.
fn measure(directory: &Path) -> u64 {
    let mut bytes = 0_u64;
    let mut open = vec![directory.to_owned()];
    let mut measured = 0;
    while let Some(directory) = open.pop() {
        measured += 1;
        if measured > MAX_MEASURED {
            break;
        }
        for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
            let Ok(metadata) = entry.metadata() else { continue };
            if metadata.is_dir() {
                if open.len() < MAX_MEASURED {
                    open.push(entry.path());
                }
            } else {
                bytes = bytes.saturating_add(metadata.len());
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn make(folder: &Path, name: &str, age_days: u64, now: SystemTime) {
        let step = folder.join(name).join("step");
        fs::create_dir_all(&step).unwrap();
        let file = fs::File::create(step.join("stdout")).unwrap();
        file.set_len(1_000).unwrap();
        let modified = now - Duration::from_secs(age_days * 24 * 3600);
        fs::File::open(folder.join(name))
            .unwrap()
            .set_modified(modified)
            .unwrap();
    }

    fn left(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn the_oldest_go_first_by_age_number_and_bytes_and_active_ones_stay() {
        let now = SystemTime::now();
        let day = Duration::from_secs(24 * 3600);
        let table = [
            (Limits::default(), vec!["a", "b", "c", "running"]),
            (
                Limits {
                    age: 2 * day,
                    ..Limits::default()
                },
                vec!["a", "running"],
            ),
            (
                Limits {
                    count: 2,
                    ..Limits::default()
                },
                vec!["a", "b", "running"],
            ),
            (
                Limits {
                    bytes: 1_500,
                    ..Limits::default()
                },
                vec!["a", "running"],
            ),
        ];
        for (limits, expected) in table {
            let folder = tempfile::tempdir().unwrap();
            for (name, age) in [("a", 1), ("b", 3), ("c", 5), ("old", 20), ("running", 30)] {
                make(folder.path(), name, age, now);
            }
            prune(
                folder.path(),
                &BTreeSet::from(["running".to_owned()]),
                limits,
                now,
            )
            .unwrap();
            assert_eq!(left(folder.path()), expected, "{limits:?}");
        }
    }

    #[test]
    fn a_wall_clock_that_is_set_forward_is_noticed_once() {
        let hour = Duration::from_secs(3600);
        let start = Instant::now();
        let mut clocks = Clocks::new(start, 1_000);
        let looks = [
            (1, 3_601_000, false),
            (2, 3_601_000 + 100 * 24 * 3_600_000, true),
            (3, 3_601_000 + (100 * 24 + 1) * 3_600_000, false),
            (4, 1_000, false),
        ];
        for (hours, wall_millis, expected) in looks {
            assert_eq!(
                clocks.have_leapt(start + hour * hours, wall_millis),
                expected,
                "after {hours} hours"
            );
        }
    }

    #[test]
    fn a_folder_that_does_not_exist_is_nothing_to_prune() {
        prune(
            Path::new("/nowhere/at/all"),
            &BTreeSet::new(),
            Limits::default(),
            SystemTime::now(),
        )
        .unwrap();
    }
}
