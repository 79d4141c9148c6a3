//! The right of the default user to become root: a file that sudo includes, checked by sudo's own parser before it
//! is in force. A file that sudo does not understand would lock everybody out of it.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use tokio::time::Duration;

use super::tool::{ToolError, find, run};

/// The file in force.
const FILE: &str = "moorline-agent";
/// While it is being checked: sudo passes over names with a dot.
const UNCHECKED: &str = "moorline-agent.unchecked";
/// As sudo demands it of its files.
const MODE: u32 = 0o440;
const LIMIT: Duration = Duration::from_secs(10);

/// Why the right was not given.
#[derive(Debug, thiserror::Error)]
pub(super) enum GrantError {
    #[error("{0} does not exist: sudo is not installed, or does not read it")]
    NoFolder(PathBuf),
    #[error("{0} is there already and is left as it is")]
    Exists(PathBuf),
    #[error("this machine has no visudo to check the file with")]
    NoChecker,
    #[error("failed to write {path}")]
    Write { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Check(#[from] ToolError),
}

/// Lets the user become root without a password.
///
/// # Errors
/// It was not possible, and nothing is left behind.
pub(super) async fn grant(user: &str, folder: &Path) -> Result<(), GrantError> {
    if !folder.is_dir() {
        return Err(GrantError::NoFolder(folder.to_owned()));
    }
    let file = folder.join(FILE);
    if file.symlink_metadata().is_ok() {
        return Err(GrantError::Exists(file));
    }
    let visudo = find("visudo").ok_or(GrantError::NoChecker)?;
    let unchecked = folder.join(UNCHECKED);
    let granted = write_checked(user, &visudo, &unchecked, &file).await;
    if granted.is_err()
        && let Err(error) = fs::remove_file(&unchecked)
    {
        tracing::debug!(%error, "there was nothing to remove");
    }
    granted
}

async fn write_checked(user: &str, visudo: &Path, unchecked: &Path, file: &Path) -> Result<(), GrantError> {
    let failed = |source| GrantError::Write {
        path: unchecked.to_owned(),
        source,
    };
    write(user, unchecked).map_err(failed)?;
    run(
        visudo,
        ["-c".as_ref(), "-f".as_ref(), unchecked.as_os_str()],
        LIMIT,
    )
    .await?;
    fs::rename(unchecked, file).map_err(failed)
}

fn write(user: &str, path: &Path) -> io::Result<()> {
    // of a worker that was killed; the lock of the user's making is held
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(MODE)
        .open(path)?;
    // whatever the daemon's umask is
    file.set_permissions(fs::Permissions::from_mode(MODE))?;
    writeln!(
        file,
        "# Of the Moorline agent, when it made {user}. Remove it, and {user} stays without."
    )?;
    writeln!(file, "{user} ALL=(ALL) NOPASSWD:ALL")?;
    File::sync_all(&file)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let listed = fs::read_dir(folder).unwrap();
        listed
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect()
    }

    #[tokio::test]
    async fn a_right_is_given_once_it_was_checked_and_never_over_another_file() {
        if find("visudo").is_none() {
            println!("skipped: this machine has no visudo (package sudo)");
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(UNCHECKED), "left behind").unwrap();
        grant("ssm-user", folder.path()).await.unwrap();
        assert_eq!(names(folder.path()), [FILE]);
        let file = folder.path().join(FILE);
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o7777, MODE);
        let text = fs::read_to_string(&file).unwrap();
        assert!(text.starts_with('#') && text.ends_with("\nssm-user ALL=(ALL) NOPASSWD:ALL\n"));
        let again = grant("other", folder.path()).await;
        assert!(matches!(again, Err(GrantError::Exists(_))));
        assert_eq!(fs::read_to_string(&file).unwrap(), text);
    }

    #[tokio::test]
    async fn what_sudo_does_not_understand_is_not_left_behind() {
        if find("visudo").is_none() {
            println!("skipped: this machine has no visudo (package sudo)");
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let refused = grant("ALL = = (", folder.path()).await;
        assert!(matches!(
            refused,
            Err(GrantError::Check(ToolError::Refused { .. }))
        ));
        assert_eq!(names(folder.path()), [""; 0]);
        let gone = grant("ssm-user", &folder.path().join("gone")).await;
        assert!(matches!(gone, Err(GrantError::NoFolder(_))));
    }
}
