//! A Git repository, through the git program. GitHub is one like all others.
//!
//! Secrets reach git through its environment and our memory, never through its command line or a file.

mod commit;
mod private_key;

use std::{
    fs,
    path::{Component, Path, PathBuf},
    time::Duration,
};

use base64::Engine;
use moorline_protocol::document::Ending;
use serde_json::{Map, Value};
use tokio::process::Command;

use self::private_key::PrivateKey;
use super::{Destination, folder::Folder, make_private_directory, secret, switch, text};
use crate::command::step::{Outputs, StepContext, process, room, script::set_environment};

/// How long git may take.
const TIMEOUT: Duration = Duration::from_secs(3600);
/// What git may reach; its other transports run programs that a URL names.
const PROTOCOLS: &str = "https:http:ssh:git";
/// What takes room on the disk.
const WHAT: &str = "the repository";

/// Which repository, what of it, and as whom.
#[derive(Debug)]
pub(super) struct Repository<'a> {
    url: String,
    checkout: Checkout<'a>,
    /// Inside the repository; empty: all of it, with `.git`.
    path: &'a str,
    /// Name and password.
    user: Option<(&'a str, &'a str)>,
    private_key: &'a str,
    skips_host_key: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Checkout<'a> {
    Default,
    Branch(&'a str),
    Commit(&'a str),
}

/// Why nothing was downloaded.
pub(super) enum GitFailure {
    /// git ended so, and has said why.
    Ended(Ending),
    Reason(String),
}

impl<'a> Repository<'a> {
    pub(super) fn read(info: &'a Map<String, Value>) -> Result<Self, String> {
        let url = match text(info, "repository")? {
            "" => return Err("Git repository in SourceInfo must be specified".to_owned()),
            url => url.to_owned(),
        };
        let user = match (secret(info, "username")?, secret(info, "password")?) {
            ("", "") => None,
            both => Some(both),
        };
        if user.is_some() && !url.starts_with("https://") && !url.starts_with("http://") {
            return Err("username and password are for https repositories".to_owned());
        }
        Ok(Self {
            url,
            checkout: Checkout::read(text(info, "getOptions")?)?,
            path: "",
            user,
            private_key: secret(info, "privateSSHKey")?,
            skips_host_key: switch(info, "skipHostKeyChecking"),
        })
    }

    pub(super) fn read_github(info: &'a Map<String, Value>) -> Result<Self, String> {
        let part = |name: &str| match text(info, name)? {
            "" => Err(format!("{name} for GitHub SourceType must be specified")),
            text if text.contains(['/', '\\', '?', '#', '@', ':']) || text.starts_with('.') => {
                Err(format!("{name} {text:?} cannot be one of GitHub"))
            }
            text => Ok(text),
        };
        let (owner, repository) = (part("owner")?, part("repository")?);
        let token = secret(info, "tokenInfo")?;
        let path = text(info, "path")?;
        check_inside(path)?;
        Ok(Self {
            url: format!(
                "https://github.com/{owner}/{}.git",
                repository.trim_end_matches(".git")
            ),
            checkout: Checkout::read(text(info, "getOptions")?)?,
            path,
            user: (!token.is_empty()).then_some(("x-access-token", token)),
            private_key: "",
            skips_host_key: false,
        })
    }

    /// What git needs to know besides its command line.
    fn environment(&self, key: Option<&PrivateKey>) -> Vec<(String, String)> {
        let mut variables = vec![
            ("GIT_TERMINAL_PROMPT".to_owned(), "0".to_owned()),
            ("GIT_ALLOW_PROTOCOL".to_owned(), PROTOCOLS.to_owned()),
        ];
        let mut ssh = "ssh -o BatchMode=yes".to_owned();
        if let Some(key) = key {
            ssh.push_str(&format!(" -o IdentitiesOnly=yes -i {}", key.path()));
        }
        if self.skips_host_key {
            ssh.push_str(" -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null");
        }
        variables.push(("GIT_SSH_COMMAND".to_owned(), ssh));
        if let Some((name, password)) = self.user {
            let user = base64::engine::general_purpose::STANDARD.encode(format!("{name}:{password}"));
            let settings = [
                // For this repository only: a redirect to another host goes without it.
                (
                    format!("http.{}.extraHeader", self.url),
                    format!("Authorization: Basic {user}"),
                ),
                ("http.followRedirects".to_owned(), "false".to_owned()),
            ];
            variables.push(("GIT_CONFIG_COUNT".to_owned(), settings.len().to_string()));
            for (index, (key, value)) in settings.into_iter().enumerate() {
                variables.push((format!("GIT_CONFIG_KEY_{index}"), key));
                variables.push((format!("GIT_CONFIG_VALUE_{index}"), value));
            }
        }
        variables
    }
}

impl<'a> Checkout<'a> {
    fn read(options: &'a str) -> Result<Self, String> {
        let options = options.trim();
        if options.is_empty() {
            return Ok(Self::Default);
        }
        let is_name = |name: &str| {
            !name.is_empty() && !name.starts_with('-') && !name.contains(|char: char| char.is_whitespace())
        };
        match options.split_once(':') {
            Some(("branch", name)) if is_name(name) => Ok(Self::Branch(name)),
            Some(("commitID", id))
                if id.len() >= 4 && id.len() <= 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit()) =>
            {
                Ok(Self::Commit(id))
            }
            _ => Err("getOptions must be branch:NAME or commitID:ID".to_owned()),
        }
    }
}

/// A path of the repository must not lead out of it.
fn check_inside(path: &str) -> Result<(), String> {
    let is_inside = Path::new(path).components().all(|component| {
        matches!(
            component,
            Component::Normal(_) | Component::CurDir | Component::RootDir
        )
    });
    if is_inside {
        Ok(())
    } else {
        Err(format!("path {path:?} leads out of the repository"))
    }
}

/// Clones the repository, and moves what was asked for to its destination.
pub(super) async fn download(
    repository: &Repository<'_>,
    destination: &Destination,
    directory: &Path,
    context: &mut StepContext<'_>,
    outputs: &mut Outputs,
) -> Result<PathBuf, GitFailure> {
    let clone = directory.join("clone");
    let reason = |error: std::io::Error| GitFailure::Reason(format!("failed to prepare the clone: {error}"));
    remove(&clone).map_err(reason)?;
    make_private_directory(directory).map_err(reason)?;
    let key = match repository.private_key {
        "" => None,
        text => Some(PrivateKey::new(text).map_err(reason)?),
    };
    let environment = repository.environment(key.as_ref());
    let cloned = clone_repository(repository, &clone, &environment, context, outputs).await;
    // It may have come between two looks.
    let cloned = match cloned {
        Ok(()) => room::check(WHAT, &clone).await.map_err(GitFailure::Reason),
        failed => failed,
    };
    let target = &destination.path;
    let moved = cloned.and_then(|()| {
        place(&clone, repository.path, destination)
            .map_err(|error| GitFailure::Reason(format!("failed to write {}: {error}", target.display())))
    });
    // What was not moved is not wanted any more; it goes with the command's directory at the latest.
    drop(remove(&clone));
    moved?;
    Ok(target.clone())
}

async fn clone_repository(
    repository: &Repository<'_>,
    clone: &Path,
    environment: &[(String, String)],
    context: &mut StepContext<'_>,
    outputs: &mut Outputs,
) -> Result<(), GitFailure> {
    let mut command = Command::new("git");
    command.args(["clone", "--quiet"]);
    match repository.checkout {
        Checkout::Default => {
            command.args(["--depth", "1"]);
        }
        Checkout::Branch(name) => {
            command.args(["--depth", "1", "--branch", name]);
        }
        Checkout::Commit(_) => {
            command.arg("--no-checkout");
        }
    }
    command.arg("--").arg(&repository.url).arg(clone);
    git(command, clone, environment, context, outputs).await?;
    if let Checkout::Commit(id) = repository.checkout {
        let id = commit::find(id, clone, environment, context).await?;
        let mut command = Command::new("git");
        command.arg("-C").arg(clone);
        // A branch may even be called like a whole id, and would come first; none is called so with what follows it.
        command.args(["checkout", "--quiet", "--detach", &format!("{id}^0"), "--"]);
        git(command, clone, environment, context, outputs).await?;
    }
    Ok(())
}

/// Runs git, and ends it when the clone becomes too large.
async fn git(
    mut command: Command,
    clone: &Path,
    environment: &[(String, String)],
    context: &mut StepContext<'_>,
    outputs: &mut Outputs,
) -> Result<(), GitFailure> {
    set_environment(&mut command, environment, &[], context);
    let mut refusal = None;
    let too_much = async { refusal = Some(room::watch(WHAT, clone).await) };
    let ending = process::run_until(too_much, command, TIMEOUT, context, outputs).await;
    if let Some(reason) = refusal {
        return Err(GitFailure::Reason(reason));
    }
    match ending {
        Ending::Exited(0) => Ok(()),
        Ending::Exited(code) => Err(GitFailure::Reason(format!("git ended with exit status {code}"))),
        Ending::NotStarted(reason) => Err(GitFailure::Reason(format!("git cannot be started: {reason}"))),
        other => Err(GitFailure::Ended(other)),
    }
}

fn remove(path: &Path) -> std::io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Moves the content of the clone, or one path of it.
fn place(clone: &Path, path: &str, destination: &Destination) -> std::io::Result<()> {
    let wanted = path.trim_start_matches('/');
    if wanted.is_empty() {
        return move_content(clone, &destination.folder()?);
    }
    let source = clone.join(wanted);
    // A link of the repository may lead anywhere.
    let real = source.canonicalize()?;
    if !real.starts_with(clone.canonicalize()?) {
        return Err(std::io::Error::other(format!(
            "{path} leads out of the repository"
        )));
    }
    if real.is_dir() {
        return move_content(&real, &destination.folder()?);
    }
    let (folder, name) = destination.file(source.file_name().unwrap_or_default())?;
    folder.take(&real, &name)
}

/// Moves everything in a directory into another one, over what is there.
fn move_content(from: &Path, to: &Folder) -> std::io::Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (path, name, kind) = (entry.path(), entry.file_name(), entry.file_type()?);
        if kind.is_dir() {
            move_content(&path, &to.child(&name)?)?;
        } else if kind.is_symlink() {
            to.create_link(&name, &fs::read_link(&path)?)?;
        } else {
            to.take(&path, &name)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
