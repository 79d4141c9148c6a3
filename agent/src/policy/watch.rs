//! Noticing that the owner has changed the policy.

use std::{io, os::fd::OwnedFd, path::Path, time::Duration};

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use tokio::{io::unix::AsyncFd, time::sleep};

use super::{Fingerprint, fingerprint};

/// Editors and package managers write a file in several steps.
const SETTLE: Duration = Duration::from_millis(200);

/// Until the policy has another fingerprint than this. For ever where the folder cannot be watched.
pub(crate) async fn until_other_than(folder: &Path, known: &Fingerprint) {
    loop {
        // Before the look, so that no change falls between the two.
        let watch = watch(folder);
        if fingerprint(folder) != *known {
            return;
        }
        let happened = match watch {
            Ok(watch) => watch.readable().await.map(drop),
            Err(error) => Err(error),
        };
        if let Err(error) = happened {
            tracing::debug!(%error, "the policy's folder cannot be watched: the next ping tells of a change");
            std::future::pending::<()>().await;
        }
        sleep(SETTLE).await;
    }
}

/// Becomes readable when something happens in the folder; if it is not there, in the nearest one above that is.
fn watch(folder: &Path) -> io::Result<AsyncFd<OwnedFd>> {
    let flags = AddWatchFlags::IN_CLOSE_WRITE
        | AddWatchFlags::IN_CREATE
        | AddWatchFlags::IN_MOVE
        | AddWatchFlags::IN_DELETE
        | AddWatchFlags::IN_ATTRIB
        | AddWatchFlags::IN_DELETE_SELF
        | AddWatchFlags::IN_MOVE_SELF
        | AddWatchFlags::IN_ONLYDIR;
    let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
    let mut added = Err(io::ErrorKind::NotFound.into());
    for folder in folder.ancestors() {
        added = inotify.add_watch(folder, flags).map_err(io::Error::from);
        if !matches!(&added, Err(error) if error.kind() == io::ErrorKind::NotFound) {
            break;
        }
    }
    added?;
    let inotify = OwnedFd::from(inotify);
    #[expect(unsafe_code, reason = "the descriptor must stay open while it is watched")]
    // SAFETY: an OwnedFd has one descriptor for its whole life, and the result owns it.
    let watched = unsafe { AsyncFd::register(inotify) };
    Ok(watched?)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tokio::time::timeout;

    use super::*;
    use crate::policy::write_file;

    /// A change is seen however it is made: the folder comes, files are written, renamed, closed to the agent, removed.
    #[tokio::test]
    async fn every_change_of_the_policy_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("etc/policy.d");
        let file = folder.join("a.toml");
        let mode =
            |mode| fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
        let changes: [&dyn Fn(); 7] = [
            &|| write_file(&folder, "a.toml", ""),
            &|| write_file(&folder, "a.toml", "[default]\ncommand = \"deny\"\n"),
            &|| mode(0o666),
            &|| mode(0o644),
            &|| fs::rename(&file, folder.join("b.toml")).unwrap(),
            &|| fs::remove_file(folder.join("b.toml")).unwrap(),
            &|| write_file(&folder, "c.toml", ""),
        ];
        for (number, change) in changes.into_iter().enumerate() {
            let known = fingerprint(&folder);
            let noticed = until_other_than(&folder, &known);
            tokio::pin!(noticed);
            assert!(
                timeout(Duration::from_millis(1), &mut noticed).await.is_err(),
                "{number}: nothing has changed"
            );
            change();
            let in_time = timeout(Duration::from_secs(20), noticed).await;
            assert!(in_time.is_ok(), "{number} was not noticed");
        }
    }
}
