//! One group: made, entered, limited, ended, removed.

use std::{
    fs::{self, File, OpenOptions},
    io,
    path::{Path, PathBuf},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::{Pid, write},
};
use serde::{Deserialize, Serialize};

use crate::runtime::{ProcessKey, ResourceLimits};

use super::place::{Controller, GroupPlaces, Place};

/// The period of a limit of processor time, in microseconds: the kernel's default.
const CPU_PERIOD: u64 = 100_000;
/// How deep groups that a script has made inside its own are looked at.
pub(super) const MAX_DEPTH: usize = 16;
/// Rounds of killing without the kernel's help: processes may be born faster than they are found.
const KILL_ROUNDS: usize = 100;
/// Attempts to make a group in a folder that others remove when they find it empty.
const MAKE_ROUNDS: usize = 10;

/// A group of processes, by its folder in each hierarchy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ControlGroup {
    /// Where it can be ended.
    folder: PathBuf,
    /// Where its limits are kept.
    limiting: Vec<PathBuf>,
}

/// What a group's limits have done to it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Exceeded {
    /// Processes that the kernel has killed for memory.
    pub(crate) memory: u64,
    /// Processes and threads that could not be started.
    pub(crate) tasks: u64,
}

impl ControlGroup {
    /// Makes a group of this process's, with limits as far as these places keep them.
    ///
    /// # Errors
    /// It cannot be made, or a limit that is kept here cannot be set.
    pub(crate) fn make(places: &GroupPlaces, limits: &ResourceLimits, number: u64) -> io::Result<Self> {
        let name = group_name(number).ok_or_else(|| io::Error::other("/proc is not mounted"))?;
        let folders: Vec<PathBuf> = places
            .places
            .iter()
            .map(|place| place.folder.join(&name))
            .collect();
        let mut made = folders.iter().cloned();
        let folder = made.next().ok_or(io::ErrorKind::NotFound)?;
        // From here on it removes what has been made when something fails.
        let group = Self {
            folder,
            limiting: made.collect(),
        };
        for (place, folder) in places.places.iter().zip(&folders) {
            let made = make_in(place, folder).and_then(|()| limit(place, folder, limits));
            if let Err(error) = made {
                group.remove();
                return Err(error);
            }
        }
        Ok(group)
    }

    /// What a new process writes `0` into to enter the group ([`enter`]).
    ///
    /// # Errors
    /// The group is gone, or not ours.
    pub(crate) fn entrances(&self) -> io::Result<Vec<File>> {
        let open = |folder: &PathBuf| OpenOptions::new().write(true).open(folder.join("cgroup.procs"));
        self.folders().map(open).collect()
    }

    fn folders(&self) -> impl Iterator<Item = &PathBuf> {
        std::iter::once(&self.folder).chain(&self.limiting)
    }

    /// Whether no process is in it.
    pub(crate) fn is_empty(&self) -> bool {
        processes(&self.folder).is_empty()
    }

    /// Asks every process to end.
    pub(crate) fn terminate(&self) {
        signal(&processes(&self.folder), Signal::SIGTERM);
    }

    /// Kills every process, and all that they start meanwhile.
    pub(crate) fn kill(&self) {
        // Version 2, since Linux 5.14: at once, whatever happens.
        if fs::write(self.folder.join("cgroup.kill"), "1").is_ok() {
            return;
        }
        for _ in 0..KILL_ROUNDS {
            // What stands still starts nothing.
            self.freeze(true);
            let found = processes(&self.folder);
            signal(&found, Signal::SIGKILL);
            self.freeze(false);
            if found.is_empty() {
                return;
            }
        }
    }

    fn freeze(&self, is_frozen: bool) {
        let (unified, legacy) = match is_frozen {
            true => ("1", "FROZEN"),
            false => ("0", "THAWED"),
        };
        // Of these files a group has at most one.
        for (file, state) in [("cgroup.freeze", unified), ("freezer.state", legacy)] {
            let path = self.folder.join(file);
            if path.exists() {
                fs::write(path, state).ok();
            }
        }
    }

    /// What its limits have done so far.
    pub(crate) fn exceeded(&self) -> Exceeded {
        let largest = |file: &str, name: &str| {
            let count = |folder: &PathBuf| number(&folder.join(file), name);
            self.folders().filter_map(count).max().unwrap_or(0)
        };
        Exceeded {
            memory: largest("memory.events", "oom_kill").max(largest("memory.oom_control", "oom_kill")),
            tasks: largest("pids.events", "max"),
        }
    }

    /// Removes the group; false while it has processes. The folder of all groups goes with the last of them.
    pub(crate) fn remove(&self) -> bool {
        let mut is_removed = true;
        for folder in self.folders() {
            is_removed &= remove(folder, MAX_DEPTH);
            folder.parent().map(fs::remove_dir);
        }
        is_removed
    }
}

/// Removes from these folders the groups of workers that are gone, as far as nothing lives in them.
pub(crate) fn remove_leftovers(folders: impl IntoIterator<Item = impl AsRef<Path>>) {
    for folder in folders {
        let folder = folder.as_ref();
        let listed = fs::read_dir(folder).into_iter().flatten().flatten();
        for entry in listed {
            if entry.file_name().to_str().is_some_and(is_left) {
                remove(&entry.path(), MAX_DEPTH);
            }
        }
        fs::remove_dir(folder).ok();
    }
}

/// Puts the calling process into the group. It makes system calls only: for between fork and exec.
///
/// # Errors
/// The kernel's.
pub(crate) fn enter(entrances: &[File]) -> io::Result<()> {
    for entrance in entrances {
        write(entrance, b"0")?;
    }
    Ok(())
}

/// `PID-START-NUMBER`: whose it is says whether it is in use, whatever else is forgotten. `None` without `/proc`.
pub(super) fn group_name(number: u64) -> Option<String> {
    let own = i32::try_from(std::process::id()).ok().and_then(ProcessKey::of)?;
    Some(format!("{}-{}-{number}", own.pid, own.start_ticks))
}

/// Whether the worker is gone whose group has this name.
pub(super) fn is_left(name: &str) -> bool {
    owner(name).is_some_and(|owner| !owner.is_alive())
}

fn owner(name: &str) -> Option<ProcessKey> {
    let mut fields = name.split('-');
    let (pid, start) = (fields.next()?, fields.next()?);
    Some(ProcessKey {
        pid: pid.parse().ok()?,
        start_ticks: start.parse().ok()?,
    })
}

fn make_in(place: &Place, folder: &Path) -> io::Result<()> {
    let mut made = Err(io::ErrorKind::NotFound.into());
    for _ in 0..MAKE_ROUNDS {
        place.prepare()?;
        made = fs::create_dir(folder);
        if !matches!(&made, Err(error) if error.kind() == io::ErrorKind::NotFound) {
            break;
        }
    }
    made
}

/// Sets the limits that this place keeps.
fn limit(place: &Place, folder: &Path, limits: &ResourceLimits) -> io::Result<()> {
    let set = |file: &str, value: String| {
        let path = folder.join(file);
        fs::write(&path, &value).map_err(|error| {
            io::Error::new(
                error.kind(),
                format!("{} does not take {value}: {error}", path.display()),
            )
        })
    };
    for controller in &place.controllers {
        match controller {
            Controller::Cpu => {
                let Some(quota) = limits.cpu.map(|cpu| cpu.micros_in(CPU_PERIOD)) else {
                    continue;
                };
                match place.is_unified {
                    true => set("cpu.max", format!("{quota} {CPU_PERIOD}"))?,
                    false => {
                        set("cpu.cfs_period_us", CPU_PERIOD.to_string())?;
                        set("cpu.cfs_quota_us", quota.to_string())?;
                    }
                }
            }
            Controller::Memory => {
                let Some(bytes) = limits.memory.map(|memory| memory.bytes().to_string()) else {
                    continue;
                };
                match place.is_unified {
                    true => set("memory.max", bytes)?,
                    false => set("memory.limit_in_bytes", bytes)?,
                }
            }
            Controller::Pids => {
                let Some(tasks) = limits.tasks else { continue };
                set("pids.max", tasks.to_string())?;
            }
        }
    }
    Ok(())
}

/// Those of the group and of the groups inside it.
pub(super) fn processes(folder: &Path) -> Vec<Pid> {
    let mut found = Vec::new();
    visit(folder, MAX_DEPTH, &mut |folder| {
        let listed = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
        let pids = listed.lines().filter_map(|line| line.parse().ok());
        // 0 is a process of another namespace, and would mean our own group
        found.extend(pids.filter(|pid| *pid > 0).map(Pid::from_raw));
    });
    found
}

fn signal(processes: &[Pid], signal: Signal) {
    for pid in processes {
        // Gone meanwhile: that is what was wanted.
        kill(*pid, signal).ok();
        if signal == Signal::SIGTERM {
            // a stopped one would sleep through it
            kill(*pid, Signal::SIGCONT).ok();
        }
    }
}

pub(super) fn remove(folder: &Path, depth: usize) -> bool {
    visit(folder, depth, &mut |folder| {
        fs::remove_dir(folder).ok();
    });
    !folder.exists()
}

/// Groups inside first.
fn visit(folder: &Path, depth: usize, act: &mut impl FnMut(&Path)) {
    if depth > 0 {
        let inside = fs::read_dir(folder).into_iter().flatten().flatten();
        for entry in inside.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
            visit(&entry.path(), depth - 1, act);
        }
    }
    act(folder);
}

/// The number after a name, in a file of such lines.
fn number(file: &Path, name: &str) -> Option<u64> {
    let text = fs::read_to_string(file).ok()?;
    let value = |line: &str| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok();
    text.lines().find_map(value)
}

#[cfg(test)]
mod tests;
