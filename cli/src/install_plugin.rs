//! `moorline install-plugin`: the name under which the AWS CLI finds us.

use std::{
    io,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use crate::{console, error::CliError};

const PLUGIN: &str = "session-manager-plugin";

/// Makes the symbolic link, unless it is there already.
pub(crate) fn execute(directory: Option<&Path>, json: bool) -> Result<u8, CliError> {
    let program = std::env::current_exe().map_err(|source| CliError::io("find this program", source))?;
    let directory = match directory {
        Some(directory) => directory.to_owned(),
        None => program.parent().map(Path::to_owned).unwrap_or_default(),
    };
    let link = install(&program, &directory)?;
    if json {
        console::print_json(&serde_json::json!({ "Link": link, "Program": program }))?;
    } else {
        console::print_line(&format!("{} -> {}", link.display(), program.display()))?;
        if !is_in_path(&directory) {
            console::note(&format!(
                "{} is not in PATH, so the AWS CLI will not find it there",
                directory.display()
            ));
        }
    }
    Ok(0)
}

fn install(program: &Path, directory: &Path) -> Result<PathBuf, CliError> {
    let link = directory.join(PLUGIN);
    match symlink(program, &link) {
        Ok(()) => Ok(link),
        Err(source) if source.kind() == io::ErrorKind::AlreadyExists => {
            if std::fs::read_link(&link).is_ok_and(|target| target == program) {
                return Ok(link);
            }
            // perhaps the stock plugin: not ours to replace
            Err(CliError::Usage(format!(
                "{} exists and is not a link to {}; remove it first, or give another directory",
                link.display(),
                program.display()
            )))
        }
        Err(source) => Err(CliError::io(format!("make the link {}", link.display()), source)),
    }
}

fn is_in_path(directory: &Path) -> bool {
    let canonical = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|entry| canonical(&entry) == canonical(directory))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_link_is_made_once_and_nothing_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let program = directory.path().join("moorline");
        let link = install(&program, directory.path()).unwrap();
        assert_eq!(std::fs::read_link(&link).unwrap(), program);
        assert_eq!(install(&program, directory.path()).unwrap(), link);
        let other = directory.path().join("other");
        assert!(install(&other, directory.path()).is_err());
        assert_eq!(std::fs::read_link(&link).unwrap(), program);
    }
}
