//! The limits of the control groups that this process is in, of either version.

use std::path::{Path, PathBuf};

use super::{Usage, read};

const ROOT: &str = "/sys/fs/cgroup";
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
    let groups = read("/proc/self/cgroup").unwrap_or_default();
    let Some((root, group)) = groups.lines().find_map(|line| place(line, controller)) else {
        return Vec::new();
    };
    let inside = Path::new(group.trim_start_matches('/'));
    inside
        .ancestors()
        .take(MAX_DEPTH)
        .map(|ancestor| root.join(ancestor))
        .collect()
}

/// `8:pids:/a` of version 1, `0::/a` of version 2.
fn place<'a>(line: &'a str, controller: &str) -> Option<(PathBuf, &'a str)> {
    let mut fields = line.splitn(3, ':');
    let (_, controllers, group) = (fields.next()?, fields.next()?, fields.next()?);
    if group.split('/').any(|part| part == "..") {
        return None;
    }
    match controllers {
        "" => Some((PathBuf::from(ROOT), group)),
        _ if controllers.split(',').any(|name| name == controller) => {
            Some((Path::new(ROOT).join(controller), group))
        }
        _ => None,
    }
}

fn number(path: &Path) -> Option<u64> {
    read(path)?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_found_in_either_version() {
        let found = |line| place(line, "pids").map(|(root, group)| (root.display().to_string(), group));
        assert_eq!(
            found("8:pids:/a/b"),
            Some(("/sys/fs/cgroup/pids".to_owned(), "/a/b"))
        );
        assert_eq!(
            found("3:cpu,pids:/"),
            Some(("/sys/fs/cgroup/pids".to_owned(), "/"))
        );
        assert_eq!(
            found("0::/system.slice"),
            Some((ROOT.to_owned(), "/system.slice"))
        );
        for other in ["4:memory:/a", "8:pids:/../x", "nonsense", ""] {
            assert_eq!(found(other), None, "{other}");
        }
    }

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
