//! A note of the script that runs, for a daemon that finds its worker dead.

use std::{
    fs::{File, OpenOptions},
    io::{Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use nix::{
    sys::signal::{Signal, killpg},
    unistd::{Pid, getsid},
};
use serde::{Deserialize, Serialize};

use crate::{
    command::journal::ProcessRecord,
    runtime::{ControlGroup, ProcessKey},
};

/// A note is one short line, with a few paths of control groups.
const MAX_BYTES: u64 = 64 * 1024;

/// Where the note of a command's script is.
pub(super) fn path(run_directory: &Path) -> PathBuf {
    run_directory.join("script.json")
}

#[derive(Debug, Serialize, Deserialize)]
struct Note {
    /// Leader of the process group.
    script: ProcessRecord,
    /// Who started it; not in a note of an older release.
    #[serde(default)]
    worker: Option<ProcessRecord>,
    /// The worker's session, which all of the group are in.
    session: i32,
    /// All that the script has started, where there is such a thing.
    control_group: Option<ControlGroup>,
}

impl Note {
    fn of(pid: u32, control_group: Option<&ControlGroup>) -> Option<Self> {
        let script = ProcessRecord::of(pid)?;
        let session = getsid(Some(Pid::from_raw(script.key.pid))).ok()?.as_raw();
        Some(Self {
            script,
            worker: ProcessRecord::of_this_process(),
            session,
            control_group: control_group.cloned(),
        })
    }

    /// Whether the group still has a process. The leader has died with its worker, most likely, and what it started
    /// has not. A number is not given to a new process while it is that of a group.
    fn has_processes(&self) -> bool {
        if !self.script.is_of_this_boot() {
            return false;
        }
        let pid = self.script.key.pid;
        match ProcessKey::of(pid) {
            Some(key) => key == self.script.key,
            None => processes().any(|process| group_and_session(process) == Some((pid, self.session))),
        }
    }
}

fn processes() -> impl Iterator<Item = i32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// `None`: there is no such process, or it has ended.
fn group_and_session(pid: i32) -> Option<(i32, i32)> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut fields = fields.split(' ');
    if fields.next()? == "Z" {
        return None;
    }
    let group = fields.nth(1)?.parse().ok()?;
    Some((group, fields.next()?.parse().ok()?))
}

/// The note, for as long as the script runs.
#[derive(Debug)]
pub(super) struct ScriptRecord<'a> {
    path: &'a Path,
}

impl<'a> ScriptRecord<'a> {
    /// `None`: it cannot be written, and the script runs without.
    pub(super) fn write(path: &'a Path, pid: u32, control_group: Option<&ControlGroup>) -> Option<Self> {
        let text = serde_json::to_vec(&Note::of(pid, control_group)?).ok()?;
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

fn read(path: &Path) -> Option<Note> {
    let mut text = Vec::new();
    let file = File::open(path).ok()?;
    file.take(MAX_BYTES).read_to_end(&mut text).ok()?;
    serde_json::from_slice(&text).ok()
}

/// As [`end`], if the worker is dead that started the script.
pub(super) fn end_of_dead_worker(path: &Path) {
    let worker = read(path).and_then(|note| note.worker);
    if worker.is_some_and(|worker| !worker.is_alive()) {
        end(path);
    }
}

/// Kills what the noted script has started: its control group, and its process group if it still is the one that was
/// noted.
pub(super) fn end(path: &Path) {
    let Some(note) = read(path) else { return };
    if note.has_processes() {
        killpg(Pid::from_raw(note.script.key.pid), Signal::SIGKILL).ok();
    }
    if note.script.is_of_this_boot()
        && let Some(group) = &note.control_group
    {
        group.kill();
        // Or later, by whoever looks for leftovers.
        group.remove();
    }
    std::fs::remove_file(path).ok();
}

#[cfg(test)]
mod tests {
    use std::{
        os::unix::process::CommandExt,
        process::{Command, Stdio},
    };

    use super::*;

    #[test]
    fn a_script_that_outlived_its_worker_is_ended_and_no_other_process() {
        let dir = tempfile::tempdir().unwrap();
        let path = path(dir.path());
        let mut script = Command::new("sleep").arg("300").process_group(0).spawn().unwrap();
        let note = ScriptRecord::write(&path, script.id(), None).unwrap();
        // As if the worker had been killed.
        std::mem::forget(note);
        let mut other: Note = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        end(&path);
        assert_eq!(
            std::os::unix::process::ExitStatusExt::signal(&script.wait().unwrap()),
            Some(9)
        );
        assert!(!path.exists());

        let mut bystander = Command::new("sleep").arg("300").process_group(0).spawn().unwrap();
        other.script.key = ProcessKey {
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
    fn a_script_whose_worker_lives_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = path(dir.path());
        let mut script = Command::new("sleep").arg("300").process_group(0).spawn().unwrap();
        std::mem::forget(ScriptRecord::write(&path, script.id(), None).unwrap());
        end_of_dead_worker(&path);
        assert!(path.exists() && script.try_wait().unwrap().is_none());
        let mut note = read(&path).unwrap();
        note.worker.as_mut().unwrap().key.start_ticks = 1;
        std::fs::remove_file(&path).unwrap();
        let mut file = File::create(&path).unwrap();
        file.write_all(&serde_json::to_vec(&note).unwrap()).unwrap();
        end_of_dead_worker(&path);
        let status = script.wait().unwrap();
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9));
        assert!(!path.exists());
    }

    #[test]
    fn what_a_dead_script_has_left_in_its_group_is_ended() {
        let dir = tempfile::tempdir().unwrap();
        let path = path(dir.path());
        let mut script = Command::new("sh")
            .args(["-c", "sleep 300 & echo; wait"])
            .stdout(Stdio::piped())
            .process_group(0)
            .spawn()
            .unwrap();
        let mut output = script.stdout.take().unwrap();
        output.read_exact(&mut [0]).unwrap();
        std::mem::forget(ScriptRecord::write(&path, script.id(), None).unwrap());
        // As when its worker dies: the leader is killed, and it alone.
        script.kill().unwrap();
        script.wait().unwrap();
        end(&path);
        // The end of the output comes when nobody holds it any more.
        assert_eq!(output.read(&mut [0]).unwrap(), 0);
    }

    #[test]
    fn without_a_note_nothing_is_done() {
        end(Path::new("/nowhere/at/all"));
    }
}
