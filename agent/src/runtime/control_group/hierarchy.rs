//! The hierarchies of control groups that this machine has, and where this process is in each.

use std::path::{Component, Path, PathBuf};

/// One mounted hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Hierarchy {
    /// Of version 1 its controllers. `None`: version 2, whose files say what it controls.
    pub(crate) controllers: Option<Vec<String>>,
    /// Where it is mounted.
    pub(crate) mount: PathBuf,
    /// The folder of the group that this process is in: `mount`, or below it.
    pub(crate) own: PathBuf,
}

impl Hierarchy {
    /// Whether it is of version 1 and has this controller.
    pub(crate) fn has(&self, controller: &str) -> bool {
        let mut controllers = self.controllers.iter().flatten();
        controllers.any(|name| name == controller)
    }
}

/// Those of this process; none where `/proc` is not mounted.
pub(crate) fn hierarchies() -> Vec<Hierarchy> {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    parse(&read("/proc/self/mountinfo"), &read("/proc/self/cgroup"))
}

/// From the texts of `/proc/self/mountinfo` and `/proc/self/cgroup`.
fn parse(mounts: &str, groups: &str) -> Vec<Hierarchy> {
    let mut found: Vec<Hierarchy> = Vec::new();
    for hierarchy in mounts.lines().filter_map(|mount| hierarchy(mount, groups)) {
        // mounted in two places it is one
        if found
            .iter()
            .all(|other| other.controllers != hierarchy.controllers)
        {
            found.push(hierarchy);
        }
    }
    found
}

/// `31 23 0:28 ROOT MOUNT OPTIONS … - TYPE SOURCE OPTIONS`
fn hierarchy(mount: &str, groups: &str) -> Option<Hierarchy> {
    let (place, kind) = mount.split_once(" - ")?;
    let mut place = place.split(' ').skip(3);
    let (root, mount) = (place.next()?, Path::new(place.next()?));
    let mut kind = kind.split(' ');
    let (kind, options) = (kind.next()?, kind.nth(1)?);
    let (controllers, group) = match kind {
        "cgroup2" => (None, group_of(groups, str::is_empty)?.1),
        "cgroup" => {
            let is_mounted = |name: &str| options.split(',').any(|option| option == name);
            let (controllers, group) = group_of(groups, |names| names.split(',').all(is_mounted))?;
            let controllers = controllers.split(',').map(str::to_owned).collect();
            (Some(controllers), group)
        }
        _ => return None,
    };
    // In a container the mount may show a part of the hierarchy only, which the group is in.
    let inside = Path::new(group).strip_prefix(root).ok()?;
    let is_plain = inside
        .components()
        .all(|part| matches!(part, Component::Normal(_)));
    is_plain.then(|| Hierarchy {
        controllers,
        mount: mount.to_owned(),
        own: inside
            .components()
            .fold(mount.to_owned(), |folder, part| folder.join(part)),
    })
}

/// Controllers and group of the line `8:CONTROLLERS:GROUP` that is looked for; version 2 has no controllers there.
fn group_of(groups: &str, is_it: impl Fn(&str) -> bool) -> Option<(&str, &str)> {
    groups.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, group) = (fields.next()?, fields.next()?);
        is_it(controllers).then_some((controllers, group))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own(mounts: &str, groups: &str) -> Vec<String> {
        parse(mounts, groups)
            .iter()
            .map(|found| found.own.display().to_string())
            .collect()
    }

    const UNIFIED: &str = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";

    #[test]
    fn a_group_is_found_in_either_version() {
        let unit = "0::/system.slice/moorline-agent.service/daemon\n";
        let expected = "/sys/fs/cgroup/system.slice/moorline-agent.service/daemon";
        assert_eq!(own(UNIFIED, unit), [expected]);
        assert_eq!(own(UNIFIED, "0::/\n"), ["/sys/fs/cgroup"]);
        let mounts = "33 31 0:29 / /c/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
                      34 31 0:30 / /c/systemd rw - cgroup cgroup rw,xattr,name=systemd\n\
                      35 31 0:31 / /c/unified rw - cgroup2 cgroup2 rw\n";
        let groups = "4:cpu,cpuacct:/a\n2:name=systemd:/b\n0::/c d\n";
        assert_eq!(
            own(mounts, groups),
            ["/c/cpu,cpuacct/a", "/c/systemd/b", "/c/unified/c d"]
        );
        let found = parse(mounts, groups);
        assert!(found[0].has("cpuacct") && !found[1].has("cpu") && !found[2].has(""));
    }

    #[test]
    fn what_a_container_does_not_see_of_its_groups_is_not_taken_for_them() {
        let mount = "30 23 0:26 /docker/1 /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n";
        assert_eq!(own(mount, "8:pids:/docker/1/x\n"), ["/sys/fs/cgroup/pids/x"]);
        for hidden in [
            "8:pids:/docker/2\n",
            "8:pids:/docker/1/../2\n",
            "8:cpu:/docker/1\n",
            "",
            "8\n",
        ] {
            assert!(own(mount, hidden).is_empty(), "{hidden}");
        }
        assert!(own("nonsense\n\n- cgroup2\n30 23 0:26 / /x rw - cgroup2\n", "0::/\n").is_empty());
        // the group is above the namespace's root
        assert!(own(UNIFIED, "0::/../x\n").is_empty());
    }

    #[test]
    fn this_machine_can_be_looked_at() {
        for found in hierarchies() {
            assert!(found.own.starts_with(&found.mount), "{found:?}");
        }
    }
}
