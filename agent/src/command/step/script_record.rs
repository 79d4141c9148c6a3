//! A note of the script that runs, for a daemon that finds its worker dead.

use std::{
    fs::{File, OpenOptions},
    io::{Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};

use crate::command::journal::ProcessRecord;

/// A note is one short line.
const MAX_BYTES: u64 = 1024;

/// Where the note of a command's script is.
pub(super) fn path(run_directory: &Path) -> PathBuf {
    run_directory.join("script.json")
}

/// The note, for as long as the script runs.
#[derive(Debug)]
pub(super) struct ScriptRecord<'a> {
    path: &'a Path,
}

impl<'a> ScriptRecord<'a> {
    /// `None`: it cannot be written, and the script runs without.
    pub(super) fn write(path: &'a Path, pid: u32) -> Option<Self> {
        let text = serde_json::to_vec(&ProcessRecord::of(pid)?).ok()?;
        let mut file = OpenOptions::new()
            .create(true)
            .write(true)
            .truncate(true)
            .mode(0o600)
            .open(path)
            .ok()?;
        file.write_all(&text).ok()?;
        Some(Self { path })
    }
}

impl Drop for ScriptRecord<'_> {
    fn drop(&mut self) {
        // A note of a process that has ended does no harm.
        std::fs::remove_file(self.path).ok();
    }
}

/// Kills the noted script with its process group, if it still is the process that was noted.
pub(super) fn end(path: &Path) {
    let mut text = Vec::new();
    let Ok(file) = File::open(path) else { return };
    if file.take(MAX_BYTES).read_to_end(&mut text).is_err() {
        return;
    }
    let Ok(script) = serde_json::from_slice::<ProcessRecord>(&text) else {
        return;
    };
    if script.is_alive() {
        killpg(Pid::from_raw(script.key.pid), Signal::SIGKILL).ok();
    }
    std::fs::remove_file(path).ok();
}

#[cfg(test)]
mod tests {
    use std::{os::unix::process::CommandExt, process::Command};

    use super::*;

    #[test]
    fn a_script_that_outlived_its_worker_is_ended_and_no_other_process() {
        let dir = tempfile::tempdir().unwrap();
        let path = path(dir.path());
        let mut script = Command::new("sleep").arg("300").process_group(0).spawn().unwrap();
        let note = ScriptRecord::write(&path, script.id()).unwrap();
        // As if the worker had been killed.
        std::mem::forget(note);
        let mut other: ProcessRecord = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        end(&path);
        assert_eq!(
            std::os::unix::process::ExitStatusExt::signal(&script.wait().unwrap()),
            Some(9)
        );
        assert!(!path.exists());

        let mut bystander = Command::new("sleep").arg("300").process_group(0).spawn().unwrap();
        other.key = crate::runtime::ProcessKey {
            pid: i32::try_from(bystander.id()).unwrap(),
            start_ticks: 1,
        };
        OpenOptions::new()
            .create(true)
            .write(true)
            .truncate(true)
            .open(&path)
            .unwrap()
            .write_all(&serde_json::to_vec(&other).unwrap())
            .unwrap();
        end(&path);
        assert!(bystander.try_wait().unwrap().is_none());
        bystander.kill().unwrap();
        bystander.wait().unwrap();
    }

    #[test]
    fn without_a_note_nothing_is_done() {
        end(Path::new("/nowhere/at/all"));
    }
}
