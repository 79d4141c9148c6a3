//! What a download may take of the node's disk.

use std::{
    fs::{self, File},
    io,
    os::{fd::AsFd, unix::fs::MetadataExt as _},
    path::Path,
    time::{Duration, Instant},
};

use crate::runtime::has_space;

/// Largest file or repository, and all objects of a folder together.
pub(super) const MOST_BYTES: u64 = 4 * 1024 * 1024 * 1024;
/// So much is let in wherever it fits: it may be what makes room on a full disk.
const SMALL_BYTES: u64 = 16 * 1024 * 1024;
/// What each file takes at least, also an empty one.
const LEAST_BYTES: u64 = 4096;
/// Between two looks at what a program brings.
const PAUSE: Duration = Duration::from_millis(100);

/// Whether the disk with this file has room for more of a download that has taken so much.
///
/// # Errors
/// It has not, or does not tell.
pub(super) fn check_disk(file: impl AsFd, taken: u64) -> io::Result<()> {
    if taken <= SMALL_BYTES || has_space(file, 0)? {
        return Ok(());
    }
    Err(io::Error::new(
        io::ErrorKind::StorageFull,
        "the disk is nearly full: a download leaves 256 MiB, or a tenth of a small disk, to others",
    ))
}

/// Whether what is below the directory, and the disk with it, is within these bounds. `what` is what is there.
///
/// # Errors
/// It is not, and how.
pub(super) async fn check(what: &str, directory: &Path) -> Result<(), String> {
    let looked_at = directory.to_owned();
    let look = move || {
        let taken = taken(&looked_at);
        // What is not there takes nothing.
        let disk = File::open(&looked_at).map_or(Ok(()), |file| check_disk(file, taken));
        (taken, disk)
    };
    let (taken, disk) = tokio::task::spawn_blocking(look)
        .await
        .map_err(|error| error.to_string())?;
    if taken > MOST_BYTES {
        return Err(format!(
            "{what} takes more than the 4 GiB that a download may take"
        ));
    }
    disk.map_err(|error| format!("{what} finds no room: {error}"))
}

/// Looks again and again, as long as that is so.
pub(super) async fn watch(what: &str, directory: &Path) -> String {
    loop {
        let began = Instant::now();
        if let Err(reason) = check(what, directory).await {
            return reason;
        }
        // Half of the time at most is work.
        tokio::time::sleep(PAUSE.max(began.elapsed())).await;
    }
}

/// Bytes of all below a directory while somebody changes it, as far as is needed to know that they are too many. No
/// link is followed.
fn taken(directory: &Path) -> u64 {
    let mut bytes = 0_u64;
    let mut waiting = vec![directory.to_owned()];
    while let Some(directory) = waiting.pop() {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            let Ok(metadata) = entry.metadata() else { continue };
            let size = metadata.len().max(metadata.blocks().saturating_mul(512));
            bytes = bytes.saturating_add(size.max(LEAST_BYTES));
            if bytes > MOST_BYTES {
                return bytes;
            }
            if metadata.is_dir() {
                waiting.push(entry.path());
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn everything_on_every_level_counts_and_no_link_leads_to_more() {
        let dir = tempfile::tempdir().unwrap();
        let (inside, outside) = (dir.path().join("inside"), dir.path().join("outside"));
        fs::create_dir_all(inside.join("a/b")).unwrap();
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("large"), [1; 100_000]).unwrap();
        symlink(&outside, inside.join("a/link")).unwrap();
        let before = taken(&inside);
        assert!((3 * LEAST_BYTES..100_000).contains(&before), "{before}");
        fs::write(inside.join("a/b/empty"), "").unwrap();
        assert_eq!(taken(&inside), before + LEAST_BYTES);
        fs::write(inside.join("a/b/large"), [1; 100_000]).unwrap();
        let after = taken(&inside) - before - LEAST_BYTES;
        assert!((100_000..200_000).contains(&after), "{after}");
        assert_eq!(taken(&dir.path().join("absent")), 0);
    }
}
