//! The commit that a document means by `commitID`: the one whose id is or begins so, and nothing else that is called so.
//!
//! Whoever may push to a repository may call a branch or a tag like an id, and most of git takes a name before an id.
//! What is asked here knows no names.

use std::path::Path;

use tokio::process::Command;

use super::{GitFailure, git};
use crate::command::{
    recording::CommandRecording,
    step::{Outputs, StepContext},
};

/// Objects with ids that begin alike, above which it is not sought which of them are commits.
const MOST_ALIKE: usize = 300;

/// The whole id.
///
/// # Errors
/// There is none in the clone, or more than one.
pub(super) async fn find(
    id: &str,
    clone: &Path,
    environment: &[(String, String)],
    context: &mut StepContext<'_>,
) -> Result<String, GitFailure> {
    let begin = id.to_ascii_lowercase();
    let is_meant = |found: &String| found.starts_with(&begin) && is_whole(found);
    let mut command = in_clone(clone);
    command.args(["rev-parse", &format!("--disambiguate={begin}")]);
    let mut objects = ask(command, clone, environment, context).await?;
    objects.retain(is_meant);
    if objects.len() > MOST_ALIKE {
        return Err(several(id));
    }
    let mut commits = Vec::new();
    if !objects.is_empty() {
        let mut command = in_clone(clone);
        // Of other objects it tells nothing, or nothing but how it is used; of a tag its commit, which is another id.
        command
            .args(["rev-list", "--no-walk=unsorted"])
            .args(&objects)
            .arg("--");
        match ask(command, clone, environment, context).await {
            Ok(found) => commits = found,
            Err(GitFailure::Reason(_)) => {}
            Err(ended) => return Err(ended),
        }
    }
    commits.retain(is_meant);
    commits.sort();
    commits.dedup();
    match commits.as_slice() {
        [commit] => Ok(commit.clone()),
        [] => Err(GitFailure::Reason(format!(
            "the repository has no commit whose id is or begins with {id}"
        ))),
        _ => Err(several(id)),
    }
}

fn several(id: &str) -> GitFailure {
    GitFailure::Reason(format!(
        "{id} is the begin of several ids; give more of the commit's"
    ))
}

fn is_whole(id: &str) -> bool {
    matches!(id.len(), 40 | 64) && id.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn in_clone(clone: &Path) -> Command {
    let mut command = Command::new("git");
    command.arg("-C").arg(clone);
    command
}

/// What git answers, line by line; it is shown to nobody.
async fn ask(
    command: Command,
    clone: &Path,
    environment: &[(String, String)],
    context: &mut StepContext<'_>,
) -> Result<Vec<String>, GitFailure> {
    let mut answer = Outputs::new(&[], &context.allowance, &CommandRecording::default());
    git(command, clone, environment, context, &mut answer).await?;
    let (lines, _) = answer.end();
    Ok(lines.lines().map(str::to_owned).collect())
}
