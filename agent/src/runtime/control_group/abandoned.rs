//! Groups of agents that were killed and never started again. Each agent looks after its own; after these nobody does, so
//! an agent that starts removes what is beside its own.
//!
//! It must be nobody's who lives. What has a process the kernel keeps; a group whose worker lives has its name; and the
//! moment between the making of a group and its first process is short, also where its worker is in a container and cannot
//! be seen from here. So a group has to be empty at two looks, with time between them.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::group::{MAX_DEPTH, is_left, processes, remove};

/// Folders and groups that one look takes in; the next agent's start goes on.
const MAX_FOUND: usize = 1_000;

/// What the first look has found.
#[derive(Debug, Default)]
pub(crate) struct Abandoned {
    groups: Vec<PathBuf>,
    /// That such groups are in, or none at all.
    folders: Vec<PathBuf>,
}

impl Abandoned {
    /// Looks beside these folders for others whose names begin so.
    pub(crate) fn find(own: &[PathBuf], prefix: &str) -> Self {
        let is_named_so = |path: &PathBuf| {
            let name = path.file_name().and_then(|name| name.to_str());
            name.is_some_and(|name| name.starts_with(prefix))
        };
        let beside = own.iter().filter_map(|folder| folder.parent()).flat_map(inside);
        let folders: Vec<PathBuf> = beside
            .filter(|path| is_named_so(path) && !own.contains(path))
            .take(MAX_FOUND)
            .collect();
        let groups = folders.iter().flat_map(|folder| inside(folder));
        let groups = groups.filter(|group| is_abandoned(group)).take(MAX_FOUND);
        Self {
            groups: groups.collect(),
            folders,
        }
    }

    /// The second look: what still is so goes, and the folders that are empty then.
    pub(crate) fn remove(self) {
        for group in self.groups.iter().filter(|group| is_abandoned(group)) {
            remove(group, MAX_DEPTH);
        }
        for folder in self.folders {
            // The kernel refuses it while a group is there, and whoever needs it makes it again.
            fs::remove_dir(folder).ok();
        }
    }
}

/// The groups right inside a folder.
fn inside(folder: &Path) -> impl Iterator<Item = PathBuf> {
    let listed = fs::read_dir(folder).into_iter().flatten().flatten();
    listed
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
}

fn is_abandoned(group: &Path) -> bool {
    let name = group.file_name().and_then(|name| name.to_str());
    name.is_some_and(is_left) && processes(group).is_empty()
}
