//! Where groups are made: in one hierarchy that can end them, and in those that keep their limits.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::runtime::ResourceLimits;

use super::{
    group::group_name,
    hierarchy::{Hierarchy, hierarchies},
};

/// The group of the agent itself, beside the folder that groups are made in (`DelegateSubgroup=` of its unit).
const OWN_LEAF: &str = "daemon";

/// The controller of version 1 that can hold still.
const FREEZER: &str = "freezer";

/// A kind of limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Controller {
    Cpu,
    Memory,
    Pids,
}

impl Controller {
    pub(super) const ALL: [Self; 3] = [Self::Cpu, Self::Memory, Self::Pids];

    fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Memory => "memory",
            Self::Pids => "pids",
        }
    }

    fn is_wanted(self, limits: &ResourceLimits) -> bool {
        match self {
            Self::Cpu => limits.cpu.is_some(),
            Self::Memory => limits.memory.is_some(),
            Self::Pids => limits.tasks.is_some(),
        }
    }
}

/// A folder in one hierarchy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Place {
    pub(super) folder: PathBuf,
    pub(super) is_unified: bool,
    /// The limits that its groups keep.
    pub(super) controllers: Vec<Controller>,
}

/// All that a group has a folder in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct GroupPlaces {
    pub(super) places: Vec<Place>,
}

impl GroupPlaces {
    /// Looks, by really making groups, what can be had on this machine. `name` is that of the folder for the groups.
    /// `None`: nothing.
    pub(crate) fn find(name: &str, limits: &ResourceLimits) -> Option<Self> {
        Self::find_in(&hierarchies(), name, limits)
    }

    pub(super) fn find_in(hierarchies: &[Hierarchy], name: &str, limits: &ResourceLimits) -> Option<Self> {
        let mut wanted: Vec<Controller> = Controller::ALL.to_vec();
        wanted.retain(|controller| controller.is_wanted(limits));
        let mut places = Vec::new();
        let unified = hierarchies.iter().find(|found| found.controllers.is_none());
        if let Some(mut place) = unified.map(|unified| Place::unified(unified, name, &wanted))
            && let Some(_trial) = place.trial()
        {
            // as long as the trial is there, nobody who finds the folder empty removes it
            place.keep_what_is_there();
            wanted.retain(|controller| !place.controllers.contains(controller));
            places.push(place);
        }
        for controller in wanted {
            let legacy = hierarchies.iter().find(|found| found.has(controller.name()));
            let Some(place) = legacy.map(|legacy| Place::legacy(legacy, name, vec![controller])) else {
                continue;
            };
            // Several controllers may be mounted as one hierarchy.
            match places.iter_mut().find(|other| other.folder == place.folder) {
                Some(other) => other.controllers.push(controller),
                None if place.is_usable() => places.push(place),
                None => {}
            }
        }
        // Of version 1 the freezer holds still what is to be ended; any other hierarchy knows at least who is there.
        if !places.iter().any(|place| place.is_unified) {
            let freezer = hierarchies.iter().find(|found| found.has(FREEZER));
            let place = freezer.map(|freezer| Place::legacy(freezer, name, Vec::new()));
            places.splice(0..0, place.filter(Place::is_usable));
        }
        for place in &places {
            // Made again with the first group: a daemon that runs no command leaves nothing behind.
            fs::remove_dir(&place.folder).ok();
        }
        (!places.is_empty()).then_some(Self { places })
    }

    /// Where groups under that name can be on this machine, whatever limits they keep.
    pub(crate) fn folders_of(name: &str) -> Vec<PathBuf> {
        let hierarchies = hierarchies();
        let folder = |hierarchy: &Hierarchy| match hierarchy.controllers {
            None => Some(Place::unified(hierarchy, name, &[]).folder),
            Some(_) => {
                let mut controllers = Controller::ALL.map(Controller::name).into_iter().chain([FREEZER]);
                let is_ours = controllers.any(|controller| hierarchy.has(controller));
                is_ours.then(|| Place::legacy(hierarchy, name, Vec::new()).folder)
            }
        };
        hierarchies.iter().filter_map(folder).collect()
    }

    /// Where its groups are.
    #[cfg(test)]
    pub(crate) fn folders(&self) -> impl Iterator<Item = &Path> {
        self.places.iter().map(|place| place.folder.as_path())
    }

    /// Which of the limits no group keeps here, by the names of their settings.
    pub(crate) fn lacking(places: Option<&Self>, limits: &ResourceLimits) -> Vec<&'static str> {
        let kept = |controller: &Controller| {
            let mut places = places.iter().flat_map(|places| &places.places);
            places.any(|place| place.controllers.contains(controller))
        };
        Controller::ALL
            .into_iter()
            .filter(|controller| controller.is_wanted(limits) && !kept(controller))
            .map(|controller| match controller {
                Controller::Cpu => "cpu",
                Controller::Memory => "memory",
                Controller::Pids => "tasks",
            })
            .collect()
    }
}

impl Place {
    fn unified(hierarchy: &Hierarchy, name: &str, wanted: &[Controller]) -> Self {
        let own = &hierarchy.own;
        let above = own
            .parent()
            .filter(|_| own.file_name().is_some_and(|leaf| leaf == OWN_LEAF));
        let base = above.unwrap_or(own);
        // The kernel would let some controllers into a group that has processes, and then no further process into the
        // group: a unit's next start would fail as long as a step runs. Of all groups only the root's is without a type.
        let may_limit = above.is_some() || !own.join("cgroup.type").exists();
        Self {
            folder: base.join(name),
            is_unified: true,
            controllers: if may_limit { wanted.to_vec() } else { Vec::new() },
        }
    }

    fn legacy(hierarchy: &Hierarchy, name: &str, controllers: Vec<Controller>) -> Self {
        Self {
            folder: hierarchy.own.join(name),
            is_unified: false,
            controllers,
        }
    }

    /// Makes the folder, and lets its groups have limits as far as the kernel does. It may have been removed by whoever
    /// found it empty.
    pub(super) fn prepare(&self) -> io::Result<()> {
        make(&self.folder)?;
        if self.is_unified {
            let above = self.folder.parent();
            for folder in above.into_iter().chain([self.folder.as_path()]) {
                for controller in &self.controllers {
                    // Refused where the group above has processes of its own, or has not got the controller itself.
                    fs::write(
                        folder.join("cgroup.subtree_control"),
                        format!("+{}", controller.name()),
                    )
                    .ok();
                }
            }
        }
        Ok(())
    }

    fn is_usable(&self) -> bool {
        self.trial().is_some()
    }

    /// A group, if one can be made here and entered.
    fn trial(&self) -> Option<Trial> {
        let folder = group_name(0).map(|name| self.folder.join(name))?;
        self.prepare().ok()?;
        make(&folder).ok()?;
        let trial = Trial(folder);
        let mut options = fs::OpenOptions::new();
        let entrance = options.write(true).open(trial.0.join("cgroup.procs"));
        entrance.is_ok().then_some(trial)
    }

    fn keep_what_is_there(&mut self) {
        let enabled = fs::read_to_string(self.folder.join("cgroup.subtree_control")).unwrap_or_default();
        let is_enabled =
            |controller: &Controller| enabled.split_whitespace().any(|name| name == controller.name());
        self.controllers.retain(is_enabled);
    }
}

/// A group that is removed when it goes out of use.
struct Trial(PathBuf);

impl Drop for Trial {
    fn drop(&mut self) {
        fs::remove_dir(&self.0).ok();
    }
}

/// A group's folder, which may be there.
fn make(folder: &Path) -> io::Result<()> {
    match fs::create_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_that_holds_the_daemon_itself_gets_no_limits_that_would_keep_the_next_one_out() {
        let dir = tempfile::tempdir().unwrap();
        let mount = dir.path();
        let unit = mount.join("unit");
        fs::create_dir_all(unit.join("daemon")).unwrap();
        for group in [&unit, &unit.join("daemon")] {
            fs::File::create(group.join("cgroup.type")).unwrap();
        }
        let place = |own: &Path| {
            let hierarchy = Hierarchy {
                controllers: None,
                mount: mount.to_owned(),
                own: own.to_owned(),
            };
            Place::unified(&hierarchy, "steps", &Controller::ALL)
        };
        let table = [
            (unit.join("daemon"), unit.join("steps"), 3),
            (unit.clone(), unit.join("steps"), 0),
            (mount.to_owned(), mount.join("steps"), 3),
        ];
        for (own, folder, limits) in table {
            let place = place(&own);
            assert_eq!(
                (place.folder, place.controllers.len()),
                (folder, limits),
                "{own:?}"
            );
        }
    }
}
