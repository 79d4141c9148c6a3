use std::{
    io::Read,
    os::unix::process::{CommandExt, ExitStatusExt},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use super::*;
use crate::runtime::control_group::{
    Abandoned,
    hierarchy::{Hierarchy, hierarchies},
};

/// Places of one version, in a folder of this test's; `None`, with the reason said, where this machine has none.
fn places(name: &str, is_it: impl Fn(&Hierarchy) -> bool, limits: &ResourceLimits) -> Option<GroupPlaces> {
    let mut found = hierarchies();
    found.retain(is_it);
    let name = format!("moorline-test-{name}-{}", std::process::id());
    let places = GroupPlaces::find_in(&found, &name, limits);
    if places.is_none() {
        println!("skipped: no control group can be made here");
    }
    places
}

fn versions(name: &str) -> Vec<GroupPlaces> {
    let no_limits = ResourceLimits::default();
    let unified = places(
        &format!("{name}-2"),
        |found| found.controllers.is_none(),
        &no_limits,
    );
    let legacy = places(
        &format!("{name}-1"),
        |found| found.controllers.is_some(),
        &no_limits,
    );
    unified.into_iter().chain(legacy).collect()
}

fn start(group: &ControlGroup, script: &str) -> Child {
    let entrances = group.entrances().unwrap();
    let mut command = Command::new("sh");
    command
        .args(["-c", script])
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    #[expect(unsafe_code, reason = "only the child can enter the group")]
    // SAFETY: system calls only.
    unsafe {
        command.pre_exec(move || enter(&entrances));
    }
    command.spawn().unwrap()
}

fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < Duration::from_secs(20), "{what}");
        std::thread::yield_now();
    }
}

#[test]
fn everything_that_was_started_is_found_and_ended_whatever_session_it_gave_itself() {
    for places in versions("kill") {
        assert!(places.folders().all(|folder| !folder.exists()), "{places:?}");
        let group = ControlGroup::make(&places, &ResourceLimits::default(), 1).unwrap();
        assert!(group.is_empty());
        let deaf =
            "trap '' TERM; setsid sh -c 'trap \"\" TERM; (sleep 300 & wait) & echo; wait' & wait; sleep 300";
        let mut child = start(&group, deaf);
        let mut output = child.stdout.take().unwrap();
        output.read_exact(&mut [0]).unwrap();
        group.terminate();
        assert!(!group.is_empty() && !group.remove(), "{places:?}");
        group.kill();
        assert_eq!(child.wait().unwrap().signal(), Some(9), "{places:?}");
        // The end of the output comes when nobody holds it any more.
        assert_eq!(output.read(&mut [0]).unwrap(), 0);
        wait_until("the group to be empty", || group.is_empty());
        wait_until("the group to be removed", || group.remove());
        assert!(
            places.places.iter().all(|place| !place.folder.exists()),
            "{places:?}"
        );
    }
}

#[test]
fn processes_that_multiply_are_all_ended() {
    for places in versions("multiply") {
        let group = ControlGroup::make(&places, &ResourceLimits::default(), 1).unwrap();
        let mut child = start(&group, "echo; while :; do sleep 300 & sleep 0.001; done");
        let mut output = child.stdout.take().unwrap();
        output.read_exact(&mut [0]).unwrap();
        group.kill();
        child.wait().unwrap();
        wait_until("the group to be removed", || group.remove());
    }
}

#[test]
fn groups_that_a_script_makes_inside_are_ended_and_removed_with_it() {
    for places in versions("inside") {
        let group = ControlGroup::make(&places, &ResourceLimits::default(), 1).unwrap();
        let inside = group.folder.join("inside/deeper");
        fs::create_dir_all(&inside).unwrap();
        let script = format!("echo $$ > {}/cgroup.procs && echo && sleep 300", inside.display());
        let mut child = start(&group, &script);
        child.stdout.take().unwrap().read_exact(&mut [0]).unwrap();
        assert!(!group.is_empty());
        group.kill();
        child.wait().unwrap();
        wait_until("the group to be removed", || group.remove());
    }
}

#[test]
fn limits_hold_for_all_of_a_group_together_and_what_they_did_is_known() {
    let limits = ResourceLimits {
        cpu: Some("50%".parse().unwrap()),
        memory: Some("32M".parse().unwrap()),
        tasks: Some(8),
    };
    let Some(places) = places("limits", |_| true, &limits) else {
        return;
    };
    if !GroupPlaces::lacking(Some(&places), &limits).is_empty() {
        println!("skipped: no limits can be kept here");
        return;
    }
    let group = ControlGroup::make(&places, &limits, 1).unwrap();
    assert_eq!(group.exceeded(), Exceeded::default());
    let mut child = start(&group, "for i in 1 2 3 4 5 6 7 8 9; do sleep 300 & done; wait");
    wait_until("the limit of tasks to be met", || group.exceeded().tasks > 0);
    group.kill();
    child.wait().unwrap();
    wait_until("the group to be removed", || group.remove());
    let group = ControlGroup::make(&places, &limits, 2).unwrap();
    let mut child = start(&group, "tail /dev/zero & wait");
    wait_until("the limit of memory to be met", || group.exceeded().memory > 0);
    group.kill();
    child.wait().unwrap();
    let quota = |file: &str| {
        let read = |folder: &PathBuf| fs::read_to_string(folder.join(file)).ok();
        group.folders().find_map(read)
    };
    let quota = quota("cpu.max").or_else(|| quota("cpu.cfs_quota_us"));
    assert!(quota.unwrap().starts_with("50000"));
    wait_until("the group to be removed", || group.remove());
}

#[test]
fn what_a_worker_left_that_is_gone_is_removed_and_that_of_others_is_not() {
    for places in versions("leftovers") {
        let group = ControlGroup::make(&places, &ResourceLimits::default(), 1).unwrap();
        let folder = &places.places[0].folder;
        // of a process that cannot be there, and of nobody
        let (dead, foreign) = (folder.join("1-1-1"), folder.join("foreign"));
        fs::create_dir(&dead).unwrap();
        fs::create_dir(&foreign).unwrap();
        remove_leftovers(places.folders());
        assert!(!dead.exists() && foreign.exists() && group.folder.exists());
        fs::remove_dir(foreign).unwrap();
        assert!(group.remove() && !folder.exists());
    }
}

#[test]
fn what_agents_left_that_never_came_again_is_removed_and_what_anybody_uses_is_not() {
    for places in versions("abandoned") {
        let own: Vec<PathBuf> = places.folders().map(Path::to_owned).collect();
        let prefix = own[0].file_name().unwrap().to_str().unwrap();
        let beside = |name: &str| own[0].with_file_name(format!("{prefix}-{name}"));
        let (gone, none, used) = (beside("gone"), beside("none"), beside("used"));
        // of processes that cannot be there, and of this one
        let (dead, inside) = (gone.join("1-1-1"), gone.join("1-1-1/inside"));
        let (late, entered) = (used.join("1-1-2"), used.join("1-1-3"));
        let living = used.join(group_name(7).unwrap());
        for folder in [&own[0], &none, &inside, &entered, &living] {
            fs::create_dir_all(folder).unwrap();
        }
        let abandoned = Abandoned::find(&own, prefix);
        assert!(dead.exists() && none.exists(), "one look is not enough");
        // made since, as by a worker that cannot be seen from here
        fs::create_dir(&late).unwrap();
        let group = ControlGroup {
            folder: entered.clone(),
            limiting: Vec::new(),
        };
        let mut child = start(&group, "echo; sleep 300");
        child.stdout.take().unwrap().read_exact(&mut [0]).unwrap();
        abandoned.remove();
        assert!(!gone.exists() && !none.exists());
        assert!(late.exists() && entered.exists() && living.exists() && own[0].exists());
        group.kill();
        child.wait().unwrap();
        wait_until("the group to be removed", || group.remove());
        for folder in [&late, &living, &used, &own[0]] {
            fs::remove_dir(folder).unwrap();
        }
    }
}
