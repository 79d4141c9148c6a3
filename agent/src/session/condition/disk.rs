//! The file systems that a machine cannot do without.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use nix::sys::statvfs::{FsFlags, statvfs};

use super::{Usage, read};

/// Where programs of every machine write.
const PLACES: [&str; 5] = ["/", "/etc", "/var", "/tmp", "/run"];
/// A server may be behind these, and asking it may hang.
const REMOTE: [&str; 11] = [
    "nfs", "cifs", "smb", "fuse", "ceph", "gluster", "9p", "afs", "lustre", "autofs", "virtiofs",
];
const MIB: u64 = 1024 * 1024;

/// One file system.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Disk {
    /// Where it is mounted.
    path: PathBuf,
    bytes: Usage,
    /// Files that it has and could have; 0 where it has no such limit.
    files: Usage,
    is_read_only: bool,
}

impl Disk {
    /// What is wrong with it.
    pub(super) fn text(&self) -> Option<String> {
        let path = self.path.display();
        if self.is_read_only {
            return Some(format!("{path} is mounted read-only"));
        }
        let (bytes, files) = (self.bytes, self.files);
        if bytes.limit > 0 && (bytes.free() == 0 || bytes.free() < (bytes.limit / 100).min(100 * MIB)) {
            return Some(format!("{path} is full ({} KiB free)", bytes.free() / 1024));
        }
        if files.limit > 0 && (files.free() == 0 || files.free() < (files.limit / 1000).min(1000)) {
            return Some(format!("{path} is full ({} files more)", files.free()));
        }
        None
    }
}

/// The file systems of the usual places and of the state directory, each once.
pub(super) fn look(state_dir: &Path) -> Vec<Disk> {
    let mounts = read("/proc/self/mountinfo").unwrap_or_default();
    let mounts: Vec<(&str, &str)> = mounts.lines().filter_map(mount).collect();
    let mut found = BTreeMap::new();
    for place in PLACES.iter().map(Path::new).chain([state_dir]) {
        // the last of those that are mounted over each other is the one that is seen
        let holds = |(point, _): &&(&str, &str)| place.starts_with(point);
        let seen = mounts.iter().filter(holds).max_by_key(|(point, _)| point.len());
        if let Some((point, kind)) = seen
            && !REMOTE.iter().any(|remote| kind.starts_with(remote))
        {
            found.entry(*point).or_insert_with(|| ask(Path::new(point)));
        }
    }
    let is_read_only = |disk: &Disk| disk.is_read_only;
    let mut disks: Vec<Disk> = found.into_values().flatten().collect();
    // A root that nobody writes to is the plan of some machines, if what is written has another place.
    let root_is_used = disks.iter().filter(|disk| is_read_only(disk)).count() > 1
        || !["/var", "/etc"]
            .iter()
            .all(|place| disks.iter().any(|disk| disk.path == Path::new(place)));
    disks.retain(|disk| disk.path != Path::new("/") || !disk.is_read_only || root_is_used);
    disks
}

fn ask(point: &Path) -> Option<Disk> {
    let answer = statvfs(point).ok()?;
    let usage = |limit: u64, free: u64| Usage {
        used: limit.saturating_sub(free),
        limit,
    };
    let size = answer.fragment_size();
    Some(Disk {
        path: point.to_owned(),
        bytes: usage(
            answer.blocks().saturating_mul(size),
            answer.blocks_available().saturating_mul(size),
        ),
        files: usage(answer.files(), answer.files_available()),
        is_read_only: answer.flags().contains(FsFlags::ST_RDONLY),
    })
}

/// Mount point and kind of a line of `mountinfo`: the fifth field, and the first behind the hyphen.
fn mount(line: &str) -> Option<(&str, &str)> {
    let (before, behind) = line.split_once(" - ")?;
    Some((before.split(' ').nth(4)?, behind.split(' ').next()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk(bytes: (u64, u64), files: (u64, u64)) -> Disk {
        let usage = |(free, limit): (u64, u64)| Usage {
            used: limit - free,
            limit,
        };
        Disk {
            path: PathBuf::from("/var"),
            bytes: usage(bytes),
            files: usage(files),
            is_read_only: false,
        }
    }

    #[test]
    fn a_disk_is_full_when_bytes_or_files_are() {
        let text = |bytes, files| disk(bytes, files).text();
        assert_eq!(
            text((0, 2 * MIB), (100, 200)).unwrap(),
            "/var is full (0 KiB free)"
        );
        assert_eq!(
            text((MIB, 2 * MIB), (0, 200)).unwrap(),
            "/var is full (0 files more)"
        );
        assert_eq!(text((MIB, 2 * MIB), (100, 200)), None);
        // a file system that makes files as it needs them, and one that has no size
        assert_eq!(text((MIB, 2 * MIB), (0, 0)), None);
        assert_eq!(text((0, 0), (0, 0)), None);
        // a large disk with some room, and one with too little
        assert_eq!(text((200 * MIB, 1_000_000 * MIB), (100, 200)), None);
        assert!(text((50 * MIB, 1_000_000 * MIB), (100, 200)).is_some());
    }

    #[test]
    fn a_read_only_disk_is_told_as_that() {
        let mut full = disk((0, 1), (0, 1));
        full.is_read_only = true;
        assert_eq!(full.text().unwrap(), "/var is mounted read-only");
    }

    #[test]
    fn a_line_of_mounts_is_read_with_and_without_its_optional_fields() {
        let plain = "22 1 254:0 / / rw,relatime - ext4 /dev/vda rw";
        let shared = "40 22 0:30 / /mnt/x rw,nosuid shared:1 master:2 - nfs4 server:/x rw";
        assert_eq!(mount(plain), Some(("/", "ext4")));
        assert_eq!(mount(shared), Some(("/mnt/x", "nfs4")));
        assert_eq!(mount(""), None);
    }
}
