//! A key for ssh that no disk ever has: it is in the memory of this process, and goes with it however that ends.

use std::{
    fs::{File, Permissions},
    io,
    os::{fd::AsRawFd as _, unix::fs::PermissionsExt as _},
};

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
        Ok(Self(file))
    }

    /// Where ssh finds it while this lives. It closes what it inherits, and so reads what this process has.
    pub(super) fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd())
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_program_that_is_given_nothing_reads_the_key_while_it_lives() {
        let key = PrivateKey::new("the key").unwrap();
        let path = key.path();
        let read = |path: &str| Command::new("cat").arg(path).output().unwrap();
        for _ in 0..2 {
            assert_eq!(read(&path).stdout, b"the key\n");
        }
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        drop(key);
        assert_ne!(read(&path).stdout, b"the key\n");
    }
}
