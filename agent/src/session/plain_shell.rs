//! The shell of a machine that is not well: what can be executed, without what could hang or be refused on the way.

use std::{
    ffi::OsString,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use super::program::Program;

/// In the place of a shell that is gone, in this order.
const SHELLS: [&str; 4] = ["/bin/sh", "/usr/bin/sh", "/bin/busybox", "/usr/bin/busybox"];

/// Makes a login shell a plain one that reads no profiles: they start programs, for which there may be no process,
/// and programs may ask for users, which may hang.
pub(super) fn simplify(program: &mut Program) {
    if let Some(shell) = SHELLS.iter().map(Path::new).find(|shell| is_executable(shell)) {
        program.path = shell.to_owned();
        program.name = OsString::from("sh");
    }
}

/// Puts another shell in the place of one that cannot be executed, and says so.
pub(super) fn replace_missing(program: &mut Program) -> Option<String> {
    replace(program, &SHELLS.map(PathBuf::from))
}

fn replace(program: &mut Program, shells: &[PathBuf]) -> Option<String> {
    if is_executable(&program.path) {
        return None;
    }
    let shell = shells.iter().find(|shell| is_executable(shell))?;
    let text = format!(
        "{} cannot be executed, this shell is {}",
        program.path.display(),
        shell.display()
    );
    let is_login = program.name.as_encoded_bytes().starts_with(b"-");
    program.name = OsString::from(if is_login { "-sh" } else { "sh" });
    program.path = shell.clone();
    Some(text)
}

fn is_executable(path: &Path) -> bool {
    path.metadata()
        .is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::{super::environment::Environment, *};

    fn program(path: &str, name: &str) -> Program {
        Program {
            path: PathBuf::from(path),
            name: OsString::from(name),
            arguments: Vec::new(),
            input: None,
            environment: Environment::default(),
        }
    }

    #[test]
    fn a_shell_that_is_gone_has_a_substitute_and_another_has_none() {
        let mut zsh = program("/usr/bin/no-such-zsh", "-zsh");
        let text = replace_missing(&mut zsh).unwrap();
        assert!(text.contains("no-such-zsh") && text.contains("/bin/sh"), "{text}");
        assert_eq!((zsh.path, zsh.name), (PathBuf::from("/bin/sh"), "-sh".into()));
        assert_eq!(replace_missing(&mut program("/bin/sh", "-sh")), None);
        // not a program
        assert!(replace_missing(&mut program("/etc/passwd", "x")).is_some());
        assert_eq!(
            replace(&mut program("/nowhere", "sh"), &[PathBuf::from("/etc")]),
            None
        );
    }

    #[test]
    fn a_plain_shell_is_no_login_shell() {
        let mut bash = program("/bin/bash", "-bash");
        simplify(&mut bash);
        assert_eq!((bash.path, bash.name), (PathBuf::from("/bin/sh"), "sh".into()));
    }
}
