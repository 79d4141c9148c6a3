//! A key for ssh that no disk ever has: it is in memory, and goes with this process and git however they end.

use std::{
    fs::{File, Permissions},
    io,
    os::{fd::AsRawFd as _, unix::fs::PermissionsExt as _},
};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};

use crate::runtime::memory_file;

#[derive(Debug)]
pub(super) struct PrivateKey(File);

impl PrivateKey {
    pub(super) fn new(text: &str) -> io::Result<Self> {
        let mut text = text.to_owned();
        // ssh does not take a key whose last line has no end.
        if !text.ends_with('\n') {
            text.push('\n');
        }
        let file = memory_file(c"key", text.as_bytes())?;
        // Nor one that others could read, if they found it.
        file.set_permissions(Permissions::from_mode(0o600))?;
        // git has it as well: see `path`
        fcntl(&file, FcntlArg::F_SETFD(FdFlag::empty()))?;
        Ok(Self(file))
    }

    /// Where ssh finds it, for the shell by which git starts it. It closes what it inherits, and so reads what git has:
    /// nobody may look into this process (`runtime/closed_memory.rs`), and in a container root is no exception.
    pub(super) fn path(&self) -> String {
        format!("/proc/$PPID/fd/{}", self.0.as_raw_fd())
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_program_that_is_given_nothing_reads_the_key_of_the_one_that_started_its_shell() {
        let key = PrivateKey::new("the key").unwrap();
        let number = key.0.as_raw_fd();
        // as git does: a shell that becomes ssh, which closes what it inherits
        let inner = format!("exec cat {} {number}<&-", key.path());
        let read = || {
            Command::new("sh")
                .args(["-c", "sh -c \"$1\"; true", "git", &inner])
                .output()
                .unwrap()
        };
        for _ in 0..2 {
            assert_eq!(
                String::from_utf8_lossy(&read().stdout),
                "the key\n",
                "{:?}",
                read()
            );
        }
        let mode = key.0.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        drop(key);
        assert_ne!(read().stdout, b"the key\n");
    }
}
