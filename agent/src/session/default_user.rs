//! Makes the default user of sessions at need: with the first session, and only one who does not exist.
//!
//! The machine's own tool does it, so that quotas, skeleton files and shadow entries are what its owner expects. Who
//! was there before is left as found, sudo rights included: what an administrator took away stays away.

mod sudo_right;
mod tool;

use std::{
    fs::File,
    path::{Path, PathBuf},
};

use moorline_protocol::error_chain;
use nix::{
    fcntl::{Flock, FlockArg},
    unistd::User,
};
use tokio::time::{Duration, Instant, sleep};

use self::tool::{ToolError, find, run};
use crate::runtime::user_database;

/// As the tools of sudo and shadow know it.
const SUDOERS_FOLDER: &str = "/etc/sudoers.d";
/// For the tool, and for another session that is making the user.
const LIMIT: Duration = Duration::from_secs(10);
/// How often it is looked whether the other session is done.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Why there is no such user now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum CreateError {
    #[error("session.create_user of this node's settings is off")]
    Off,
    #[error("{0:?} is no name that every tool takes: use small letters, digits, _ and -, at most 32")]
    Name(String),
    #[error("this machine has neither useradd nor adduser")]
    NoTool,
    #[error(transparent)]
    Tool(#[from] ToolError),
    #[error("{0}")]
    Database(String),
    #[error("the tool says that it was done, and nobody of that name is found")]
    NotFound,
    #[error("another session has been making the user for {} seconds", LIMIT.as_secs())]
    Busy,
}

/// Makes the user, unless another session has done so meanwhile.
///
/// # Errors
/// There is no such user afterwards.
pub(super) async fn create(name: &str, may_sudo: bool, state_dir: &Path) -> Result<User, CreateError> {
    if !is_portable(name) {
        return Err(CreateError::Name(name.to_owned()));
    }
    let _lock = lock(state_dir, FlockArg::LockExclusiveNonblock, LIMIT).await?;
    if let Some(user) = known(name) {
        return Ok(user);
    }
    let made = run_tool(name).await;
    // A home that finds no room is a failure of the tool, and yet the user is there.
    let user = match (known(name), made) {
        (Some(user), _) => user,
        (None, Err(error)) => return Err(error),
        (None, Ok(())) => return Err(CreateError::NotFound),
    };
    tracing::info!(user = name, uid = user.uid.as_raw(), "default user made");
    if may_sudo && let Err(error) = sudo_right::grant(name, Path::new(SUDOERS_FOLDER)).await {
        let reason = error_chain(&error);
        tracing::warn!(user = name, reason, "the default user gets no right to use sudo");
    }
    Ok(user)
}

/// Waits while another session is making the user, who is found before there is a home, or a right to use sudo.
pub(super) async fn wait_until_made(state_dir: &Path) {
    match lock(state_dir, FlockArg::LockSharedNonblock, LIMIT).await {
        Ok(lock) => drop(lock),
        Err(error) => tracing::warn!(%error, "the default user may not be whole"),
    }
}

/// What both tools, sudoers and every user database take without quoting.
fn is_portable(name: &str) -> bool {
    let mut bytes = name.bytes();
    name.len() <= 32
        && bytes.next().is_some_and(|b| b.is_ascii_lowercase() || b == b'_')
        && bytes.all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'_' | b'-'))
}

fn known(name: &str) -> Option<User> {
    user_database::user_by_name(name)
}

/// One worker at a time makes users. The lock is on the directory, so that it takes no disk write; where it cannot be had at all
/// the tools' own locks must do.
async fn lock(state_dir: &Path, kind: FlockArg, limit: Duration) -> Result<Option<Flock<File>>, CreateError> {
    let mut folder = match File::open(state_dir) {
        Ok(folder) => folder,
        Err(error) => {
            tracing::debug!(%error, "the making of the default user is not locked");
            return Ok(None);
        }
    };
    let deadline = Instant::now() + limit;
    loop {
        folder = match Flock::lock(folder, kind) {
            Ok(lock) => return Ok(Some(lock)),
            Err((_, _)) if Instant::now() >= deadline => return Err(CreateError::Busy),
            Err((folder, _)) => folder,
        };
        sleep(LOOK_AGAIN).await;
    }
}

/// `useradd` of shadow where there is one; what else is called `adduser` is BusyBox's.
async fn run_tool(name: &str) -> Result<(), CreateError> {
    let shell = login_shell();
    let shell = shell.as_os_str();
    if let Some(useradd) = find("useradd") {
        run(
            &useradd,
            ["-m".as_ref(), "-s".as_ref(), shell, name.as_ref()],
            LIMIT,
        )
        .await?;
    } else if let Some(adduser) = find("adduser") {
        run(
            &adduser,
            ["-D".as_ref(), "-s".as_ref(), shell, name.as_ref()],
            LIMIT,
        )
        .await?;
    } else {
        return Err(CreateError::NoTool);
    }
    Ok(())
}

fn login_shell() -> PathBuf {
    ["/bin/bash", "/usr/bin/bash"]
        .into_iter()
        .map(PathBuf::from)
        .find(|shell| shell.is_file())
        .unwrap_or_else(|| PathBuf::from("/bin/sh"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_need_no_quoting_are_made() {
        for good in ["ssm-user", "_ops", "a1", &"u".repeat(32)] {
            assert!(is_portable(good), "{good}");
        }
        for bad in ["", "1a", "-x", "Ops", "a b", "a,b", "a%", "é", &"u".repeat(33)] {
            assert!(!is_portable(bad), "{bad}");
        }
    }

    #[tokio::test]
    async fn one_session_at_a_time_makes_a_user_and_none_waits_for_ever() {
        let dir = tempfile::tempdir().unwrap();
        let soon = Duration::from_millis(100);
        let try_lock = async |kind| lock(dir.path(), kind, soon).await;
        let (alone, with_others) = (FlockArg::LockExclusiveNonblock, FlockArg::LockSharedNonblock);
        let held = try_lock(alone).await.unwrap();
        assert!(held.is_some());
        for kind in [alone, with_others] {
            assert!(matches!(try_lock(kind).await, Err(CreateError::Busy)));
        }
        drop(held);
        let held = try_lock(with_others).await.unwrap();
        assert!(try_lock(with_others).await.unwrap().is_some());
        drop(held);
        assert!(try_lock(alone).await.unwrap().is_some());
        assert!(
            lock(&dir.path().join("gone"), alone, soon)
                .await
                .unwrap()
                .is_none()
        );
    }
}
