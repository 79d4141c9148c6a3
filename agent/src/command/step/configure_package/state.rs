//! Packages on the node's disk: `STATE_DIR/packages/NAME` has what is known of a package, a lock, and a directory for
//! each version that is installed or about to be.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use ring::digest;

use super::installer::{Record, Version};
use crate::runtime::make_private_directory;

const RECORD: &str = "state.json";
const LOCK: &str = "lock";
/// A record is a few hundred bytes.
const MAX_RECORD_BYTES: u64 = 64 * 1024;
const MAX_NAME_BYTES: usize = 128;

/// Why nothing is done with a package.
#[derive(Debug, thiserror::Error)]
pub(super) enum StateError {
    #[error("another command is doing something with this package; try again when it has ended")]
    Busy,
    #[error("failed to {doing} {}", path.display())]
    File {
        doing: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{} is not a record of a package; remove the directory that it is in to forget the package", .0.display())]
    Malformed(PathBuf),
}

/// A package, which nobody else works on while this lives.
#[derive(Debug)]
pub(super) struct PackageState {
    directory: PathBuf,
    lock: File,
}

impl PackageState {
    /// Takes the package. The lock ends with its process, however that ends.
    pub(super) fn take(state_dir: &Path, name: &str) -> Result<Self, StateError> {
        let directory = state_dir.join("packages").join(directory_name(name));
        make_private_directory(&directory).map_err(failed("make", &directory))?;
        let path = directory.join(LOCK);
        let lock = OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(&path)
            .map_err(failed("open", &path))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { directory, lock }),
            Err(TryLockError::WouldBlock) => Err(StateError::Busy),
            Err(TryLockError::Error(source)) => Err(failed("lock", &path)(source)),
        }
    }

    /// The package stays taken while this or `self` lives: for work that goes on when nobody awaits it any more.
    pub(super) fn hold(&self) -> Result<File, StateError> {
        self.lock
            .try_clone()
            .map_err(failed("hold the lock of", &self.directory))
    }

    /// What is known of it; nothing, when it was never here.
    pub(super) fn record(&self) -> Result<Record, StateError> {
        let path = self.directory.join(RECORD);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Record::default()),
            Err(error) => return Err(failed("open", &path)(error)),
        };
        let mut text = Vec::new();
        file.take(MAX_RECORD_BYTES)
            .read_to_end(&mut text)
            .map_err(failed("read", &path))?;
        serde_json::from_slice(&text).map_err(|_| StateError::Malformed(path))
    }

    /// On disk when this returns.
    pub(super) fn store(&self, record: &Record) -> Result<(), StateError> {
        let path = self.directory.join(RECORD);
        let temporary = self.directory.join("state.json.new");
        let write = || -> io::Result<()> {
            let mut file = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(&temporary)?;
            file.write_all(&serde_json::to_vec(record)?)?;
            file.sync_all()?;
            fs::rename(&temporary, &path)?;
            File::open(&self.directory)?.sync_all()
        };
        write().map_err(failed("write", &path))
    }

    /// Where a version's files are, or will be.
    pub(super) fn version_directory(&self, sha256: &str) -> PathBuf {
        self.directory.join(sha256)
    }

    /// A file for its archive, which goes with the process at the latest: it has no name.
    pub(super) fn archive(&self) -> Result<File, StateError> {
        let path = self.directory.join("package.zip");
        // Whoever was killed before it lost its name has left it.
        drop(fs::remove_file(&path));
        let archive = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .map_err(failed("make", &path))?;
        fs::remove_file(&path).map_err(failed("remove", &path))?;
        Ok(archive)
    }

    /// Removes the versions that are not among these, and whatever else was left.
    pub(super) fn keep_only(&self, versions: &[&Version]) {
        let is_kept = |name: &str| {
            matches!(name, RECORD | LOCK) || versions.iter().any(|version| version.sha256 == name)
        };
        for entry in fs::read_dir(&self.directory).into_iter().flatten().flatten() {
            let path = entry.path();
            if entry.file_name().to_str().is_some_and(is_kept) {
                continue;
            }
            let removed = match entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                true => fs::remove_dir_all(&path),
                false => fs::remove_file(&path),
            };
            if let Err(error) = removed {
                tracing::warn!(%error, path = %path.display(), "what a package left was not removed");
            }
        }
    }
}

fn failed(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StateError {
    let path = path.to_owned();
    move |source| StateError::File { doing, path, source }
}

/// The name, or what stands for one that could mean another place.
fn directory_name(name: &str) -> String {
    let is_plain = !name.is_empty()
        && name.len() <= MAX_NAME_BYTES
        && !name.starts_with(['.', '_'])
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'));
    if is_plain {
        return name.to_owned();
    }
    let hash = digest::digest(&digest::SHA256, name.as_bytes());
    let hash: String = hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("_{hash}")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    #[test]
    fn a_package_has_one_worker_and_one_directory() {
        let dir = tempfile::tempdir().unwrap();
        let first = PackageState::take(dir.path(), "Mine").unwrap();
        assert!(matches!(
            PackageState::take(dir.path(), "Mine"),
            Err(StateError::Busy)
        ));
        PackageState::take(dir.path(), "Other").unwrap();
        let held = first.hold().unwrap();
        drop(first);
        assert!(matches!(
            PackageState::take(dir.path(), "Mine"),
            Err(StateError::Busy)
        ));
        drop(held);
        PackageState::take(dir.path(), "Mine").unwrap();
        for name in ["..", "a/../../b", "", "_x", ".x", &"x".repeat(200)] {
            let directory = directory_name(name);
            assert!(directory.starts_with('_') && directory.len() == 65, "{directory}");
        }
    }

    #[test]
    fn what_is_known_is_stored_and_what_is_not_needed_goes() {
        let dir = tempfile::tempdir().unwrap();
        let state = PackageState::take(dir.path(), "Mine").unwrap();
        assert_eq!(state.record().unwrap(), Record::default());
        let version = Version {
            name: "1".to_owned(),
            sha256: "aa".to_owned(),
        };
        let record = Record {
            installed: Some(version.clone()),
            ..Record::default()
        };
        state.store(&record).unwrap();
        for name in ["aa", "bb", "cc.new"] {
            fs::create_dir(state.directory.join(name)).unwrap();
        }
        File::create(state.directory.join("package.zip")).unwrap();
        let archive = state.archive().unwrap();
        assert_eq!(archive.metadata().unwrap().nlink(), 0);
        state.keep_only(&[&version]);
        let mut left: Vec<_> = fs::read_dir(&state.directory)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        left.sort();
        assert_eq!(left, ["aa", "lock", "state.json"]);
        assert_eq!(state.record().unwrap(), record);
        File::create(state.directory.join(RECORD)).unwrap();
        assert!(matches!(state.record(), Err(StateError::Malformed(_))));
    }
}
