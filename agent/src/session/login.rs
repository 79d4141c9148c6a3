//! Whose shell it is (documents.md §6.3).
//!
//! The endpoint may name a user when the session document turns RunAs on; otherwise the node's owner decides. Nobody
//! becomes root by RunAs, and an agent that is not root serves its own user only.
//!
//! A default user who does not exist is made. Where that fails (nothing can be written, nothing can be started) and
//! the owner named none, the shell is root's, but only if the user would have been given root's rights anyway: a
//! machine in that state wants to be repaired. Likewise where the user database does not work: who is in neither it
//! nor `/etc/passwd` is not made, and RunAs stays refused.

use std::path::{Path, PathBuf};

use moorline_protocol::error_chain;
use nix::unistd::{Gid, Uid, User};

use super::default_user::{self, CreateError};
use crate::{config::SessionConfig, runtime::user_database};

/// The usual user of sessions.
const SSM_USER: &str = "ssm-user";

/// Why nobody can be found whose shell it could be. The texts of RunAs begin as those of the stock agent.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum LoginError {
    #[error("failed to start pty since RunAs user {0} does not exist")]
    RunAsUserMissing(String),
    #[error(
        "please set the RunAs default user: runAsDefaultUser of the session's document or of the session preferences, or the caller's tag SSMSessionRunAs"
    )]
    RunAsUserUnset,
    #[error("the agent must run as root to use RunAs")]
    RunAsNeedsRoot,
    #[error("invalid uid and gid: RunAs names root, as whom no session runs")]
    RunAsRoot,
    #[error("the agent must run as root to run a command as root (runAsElevated)")]
    ElevatedNeedsRoot,
    #[error(
        "session.default_user of this node's settings is {0}, who does not exist; create the user or correct the setting"
    )]
    DefaultUserMissing(String),
    #[error(
        "session.default_user of this node's settings is {0}, and only an agent that runs as root can start its shell"
    )]
    DefaultUserNeedsRoot(String),
    #[error(
        "the default user {user} does not exist and could not be made; create the user, or name another one as session.default_user of this node's settings"
    )]
    DefaultUserNotMade {
        user: String,
        #[source]
        source: CreateError,
    },
}

/// What the session and the node's settings say about the user.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct UserRequest<'a> {
    pub(super) run_as_enabled: bool,
    /// Of the principal who starts the session; goes before the document's default.
    pub(super) run_as_user: &'a str,
    pub(super) run_as_default_user: &'a str,
    /// `runAsElevated` of a command session.
    pub(super) elevated: bool,
    /// The node owner's setting; empty: none.
    pub(super) default_user: &'a str,
}

/// Whose shell it is, and what the operator should know about that.
#[derive(Debug)]
pub(super) struct Login {
    pub(super) user: LoginUser,
    pub(super) notice: Option<String>,
}

/// The user of a shell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LoginUser {
    pub(super) name: String,
    pub(super) uid: Uid,
    pub(super) gid: Gid,
    pub(super) home: PathBuf,
    pub(super) shell: PathBuf,
    /// `None`: the process is this user already, nothing is changed.
    pub(super) groups: Option<Vec<Gid>>,
}

/// Who it shall be.
#[derive(Debug, PartialEq, Eq)]
enum Choice<'a> {
    Own,
    Named(User),
    /// The default user, who does not exist.
    Absent(&'a str),
}

impl LoginUser {
    /// Finds the user in this machine's user database (which may ask the network), or makes the default user.
    ///
    /// # Errors
    /// The chosen user does not exist, or this process may not become that user.
    pub(super) async fn resolve(
        request: &UserRequest<'_>,
        settings: &SessionConfig,
        state_dir: &Path,
    ) -> Result<Login, LoginError> {
        let (user, notice) = match choose(request, Uid::effective(), user_database::user_by_name)? {
            Choice::Own => (Self::own(), None),
            Choice::Named(user) => {
                if settings.create_user && !request.run_as_enabled {
                    default_user::wait_until_made(state_dir).await;
                }
                (Self::of(user), None)
            }
            Choice::Absent(name) => {
                let made = match (settings.create_user, user_database::trouble()) {
                    (true, None) => default_user::create(name, settings.sudo, state_dir).await,
                    (true, Some(trouble)) => Err(CreateError::Database(trouble)),
                    (false, _) => Err(CreateError::Off),
                };
                match made {
                    Ok(user) => (Self::of(user), None),
                    Err(error) => {
                        let notice = instead_of_absent(request, settings, name, error)?;
                        (Self::own(), notice)
                    }
                }
            }
        };
        Ok(Login { user, notice })
    }

    fn of(user: User) -> Self {
        if user.uid == Uid::effective() {
            return Self::from_user(user, None);
        }
        let groups = user_database::groups_of(&user);
        Self::from_user(user, Some(groups))
    }

    /// The user this process runs as, who may be missing in the user database of a container.
    pub(super) fn own() -> Self {
        let uid = Uid::effective();
        match user_database::user_by_id(uid) {
            Some(user) => Self::from_user(user, None),
            None => Self {
                name: match uid.is_root() {
                    true => "root".to_owned(),
                    false => uid.to_string(),
                },
                uid,
                gid: Gid::effective(),
                home: std::env::var_os("HOME").map_or_else(|| PathBuf::from("/"), PathBuf::from),
                shell: PathBuf::from("/bin/sh"),
                groups: None,
            },
        }
    }

    fn from_user(user: User, groups: Option<Vec<Gid>>) -> Self {
        // An empty shell in the user database means this one (passwd(5)).
        let shell = if user.shell.as_os_str().is_empty() {
            PathBuf::from("/bin/sh")
        } else {
            user.shell
        };
        Self {
            name: user.name,
            uid: user.uid,
            gid: user.gid,
            home: user.dir,
            shell,
            groups,
        }
    }
}

/// The group that owns terminals, if this machine has one.
pub(super) fn tty_group() -> Option<Gid> {
    user_database::group_by_name("tty")
}

/// Whether root's shell may stand in for that of a default user who could not be made, and what is said about it.
fn instead_of_absent(
    request: &UserRequest<'_>,
    settings: &SessionConfig,
    name: &str,
    error: CreateError,
) -> Result<Option<String>, LoginError> {
    let is_named = !request.default_user.is_empty();
    if is_named && error == CreateError::Off {
        return Err(LoginError::DefaultUserMissing(name.to_owned()));
    }
    if is_named || !settings.sudo {
        return Err(LoginError::DefaultUserNotMade {
            user: name.to_owned(),
            source: error,
        });
    }
    if error == CreateError::Off {
        return Ok(None);
    }
    let reason = error_chain(&error);
    tracing::warn!(user = name, reason, "the default user could not be made");
    Ok(Some(format!(
        "the default user {name} could not be made, this shell is root's: {reason}"
    )))
}

fn choose<'a>(
    request: &UserRequest<'a>,
    own: Uid,
    lookup: impl Fn(&str) -> Option<User>,
) -> Result<Choice<'a>, LoginError> {
    if request.elevated {
        return match own.is_root() {
            true => Ok(Choice::Own),
            false => Err(LoginError::ElevatedNeedsRoot),
        };
    }
    if request.run_as_enabled {
        return choose_run_as(request, own, lookup);
    }
    if !request.default_user.is_empty() {
        let name = request.default_user;
        return match lookup(name) {
            Some(user) if own.is_root() || user.uid == own => Ok(Choice::Named(user)),
            Some(_) => Err(LoginError::DefaultUserNeedsRoot(name.to_owned())),
            None if own.is_root() => Ok(Choice::Absent(name)),
            None => Err(LoginError::DefaultUserMissing(name.to_owned())),
        };
    }
    if !own.is_root() {
        return Ok(Choice::Own);
    }
    Ok(match lookup(SSM_USER) {
        Some(user) => Choice::Named(user),
        None => Choice::Absent(SSM_USER),
    })
}

fn choose_run_as<'a>(
    request: &UserRequest<'_>,
    own: Uid,
    lookup: impl Fn(&str) -> Option<User>,
) -> Result<Choice<'a>, LoginError> {
    let name = [request.run_as_user, request.run_as_default_user]
        .into_iter()
        .find(|name| !name.trim().is_empty())
        .ok_or(LoginError::RunAsUserUnset)?;
    if !own.is_root() {
        return Err(LoginError::RunAsNeedsRoot);
    }
    let user = lookup(name).ok_or_else(|| LoginError::RunAsUserMissing(name.to_owned()))?;
    if user.uid.is_root() {
        return Err(LoginError::RunAsRoot);
    }
    Ok(Choice::Named(user))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOT: Uid = Uid::from_raw(0);
    const ORDINARY: Uid = Uid::from_raw(1000);

    fn user(name: &str, uid: u32) -> User {
        User {
            name: name.to_owned(),
            uid: Uid::from_raw(uid),
            gid: Gid::from_raw(uid),
            ..User::from_uid(ROOT).unwrap().unwrap()
        }
    }

    fn database(name: &str) -> Option<User> {
        let users = [("root", 0), ("toor", 0), ("deploy", 1001), ("me", 1000)];
        users
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(name, uid)| user(name, *uid))
    }

    fn chosen(request: UserRequest<'_>, own: Uid) -> Result<String, LoginError> {
        choose(&request, own, database).map(|choice| match choice {
            Choice::Own => "(own)".to_owned(),
            Choice::Named(user) => user.name,
            Choice::Absent(name) => format!("(absent {name})"),
        })
    }

    fn run_as<'a>(run_as_user: &'a str, run_as_default_user: &'a str) -> UserRequest<'a> {
        UserRequest {
            run_as_enabled: true,
            run_as_user,
            run_as_default_user,
            ..UserRequest::default()
        }
    }

    #[test]
    fn run_as_takes_the_principals_user_before_the_documents() {
        assert_eq!(chosen(run_as("deploy", "me"), ROOT).unwrap(), "deploy");
        assert_eq!(chosen(run_as("", "me"), ROOT).unwrap(), "me");
    }

    #[test]
    fn run_as_refuses_root_strangers_and_an_agent_that_is_not_root() {
        let refused = |request, own| chosen(request, own).unwrap_err();
        assert_eq!(refused(run_as("", ""), ROOT), LoginError::RunAsUserUnset);
        assert_eq!(
            refused(run_as("nobody-here", ""), ROOT).to_string(),
            "failed to start pty since RunAs user nobody-here does not exist"
        );
        assert_eq!(
            refused(run_as("root", ""), ROOT).to_string(),
            "invalid uid and gid: RunAs names root, as whom no session runs"
        );
        assert_eq!(refused(run_as("toor", ""), ROOT), LoginError::RunAsRoot);
        assert_eq!(refused(run_as("me", ""), ORDINARY), LoginError::RunAsNeedsRoot);
    }

    #[test]
    fn without_run_as_the_owners_setting_decides_then_ssm_user_then_the_agents_own_user() {
        let setting = |default_user| UserRequest {
            default_user,
            run_as_user: "deploy",
            ..UserRequest::default()
        };
        assert_eq!(chosen(setting("me"), ROOT).unwrap(), "me");
        assert_eq!(chosen(setting("me"), ORDINARY).unwrap(), "me");
        assert!(matches!(
            chosen(setting("deploy"), ORDINARY),
            Err(LoginError::DefaultUserNeedsRoot(_))
        ));
        assert!(matches!(
            chosen(setting("gone"), ORDINARY),
            Err(LoginError::DefaultUserMissing(_))
        ));
        assert_eq!(chosen(setting("gone"), ROOT).unwrap(), "(absent gone)");
        assert_eq!(chosen(setting(""), ROOT).unwrap(), "(absent ssm-user)");
        assert_eq!(chosen(setting(""), ORDINARY).unwrap(), "(own)");
        let with_ssm_user = |name: &str| (name == SSM_USER).then(|| user(SSM_USER, 1002));
        let choice = choose(&setting(""), ROOT, with_ssm_user).unwrap();
        assert_eq!(choice, Choice::Named(user(SSM_USER, 1002)));
        assert_eq!(choose(&setting(""), ORDINARY, with_ssm_user), Ok(Choice::Own));
    }

    #[test]
    fn an_elevated_command_runs_as_root_or_not_at_all() {
        let elevated = UserRequest {
            elevated: true,
            default_user: "me",
            ..UserRequest::default()
        };
        assert_eq!(chosen(elevated, ROOT).unwrap(), "(own)");
        assert_eq!(chosen(elevated, ORDINARY), Err(LoginError::ElevatedNeedsRoot));
    }

    #[test]
    fn root_stands_in_only_for_a_user_who_would_have_had_roots_rights() {
        let unnamed = UserRequest::default();
        let named = UserRequest {
            default_user: "ops",
            ..UserRequest::default()
        };
        let no_sudo = SessionConfig {
            sudo: false,
            ..SessionConfig::default()
        };
        let sudo = SessionConfig::default();
        let instead = |request, settings, error| instead_of_absent(request, settings, "ops", error);
        let notice = instead(&unnamed, &sudo, CreateError::NoTool).unwrap().unwrap();
        assert!(
            notice.contains("root's") && notice.contains("neither useradd"),
            "{notice}"
        );
        assert_eq!(instead(&unnamed, &sudo, CreateError::Off), Ok(None));
        for error in [CreateError::Off, CreateError::NoTool] {
            let refused = instead(&unnamed, &no_sudo, error.clone());
            assert!(matches!(refused, Err(LoginError::DefaultUserNotMade { .. })));
            assert!(instead(&named, &sudo, error).is_err());
        }
    }

    #[test]
    fn this_process_finds_its_own_user() {
        let user = LoginUser::own();
        assert!(user.shell.is_absolute());
        if !Uid::effective().is_root() {
            assert_eq!((user.uid, user.groups), (Uid::effective(), None));
        }
    }
}
