//! The limits of the control groups that this process is in, of either version.

use std::path::{Path, PathBuf};

use super::{Usage, read};
use crate::runtime::hierarchies;

/// How deep groups are looked at.
const MAX_DEPTH: usize = 32;

/// Each limit of processes that holds for this one.
pub(super) fn processes_of_groups() -> Vec<Usage> {
    folders("pids")
        .iter()
        .filter_map(|folder| {
            Some(Usage {
                used: number(&folder.join("pids.current"))?,
                limit: number(&folder.join("pids.max"))?,
            })
        })
        .collect()
}

/// Each limit of memory that holds for this process. What is only the cache of files is free.
pub(super) fn memory_of_groups() -> Vec<Usage> {
    folders("memory")
        .iter()
        .filter_map(|folder| memory(folder))
        .collect()
}

fn memory(folder: &Path) -> Option<Usage> {
    let either = |new: &str, old: &str| number(&folder.join(new)).or_else(|| number(&folder.join(old)));
    let limit = either("memory.max", "memory.limit_in_bytes")?;
    let used = either("memory.current", "memory.usage_in_bytes")?;
    let stat = read(folder.join("memory.stat")).unwrap_or_default();
    let cache = ["total_inactive_file ", "inactive_file "]
        .iter()
        .find_map(|name| stat.lines().find_map(|line| line.strip_prefix(name)))
        .and_then(|bytes| bytes.parse().ok())
        .unwrap_or(0);
    Some(Usage {
        used: used.saturating_sub(cache),
        limit,
    })
}

/// The group's folder and those above it. A group without a limit has `max`, or no such file.
fn folders(controller: &str) -> Vec<PathBuf> {
    let found = hierarchies();
    let legacy = found.iter().find(|hierarchy| hierarchy.has(controller));
    let unified = || found.iter().find(|hierarchy| hierarchy.controllers.is_none());
    let Some(hierarchy) = legacy.or_else(unified) else {
        return Vec::new();
    };
    let ancestors = hierarchy.own.ancestors().take(MAX_DEPTH);
    ancestors
        .take_while(|folder| folder.starts_with(&hierarchy.mount))
        .map(Path::to_owned)
        .collect()
}

fn number(path: &Path) -> Option<u64> {
    read(path)?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_of_either_version_counts_without_the_cache() {
        let write = |files: &[(&str, &str)]| {
            let dir = tempfile::tempdir().unwrap();
            for (name, text) in files {
                std::fs::write(dir.path().join(name), text).unwrap();
            }
            memory(dir.path())
        };
        let expected = Some(Usage { used: 60, limit: 100 });
        let new = [
            ("memory.max", "100\n"),
            ("memory.current", "80\n"),
            ("memory.stat", "anon 5\ninactive_file 20\n"),
        ];
        assert_eq!(write(&new), expected);
        let old = [
            ("memory.limit_in_bytes", "100\n"),
            ("memory.usage_in_bytes", "60\n"),
        ];
        assert_eq!(write(&old), expected);
        assert_eq!(write(&[("memory.max", "max\n"), ("memory.current", "1\n")]), None);
    }
}
