//! Steps in control groups: what they start ends with them, and keeps the limits of the node's owner.

use crate::runtime::{GroupPlaces, ProcessKey, remove_leftovers};

use super::*;

/// A node whose steps have control groups that keep these limits; `None`, with the reason said, where there are none.
fn node(name: &str, limits: ResourceLimits) -> Option<Node> {
    let mut node = Node::new();
    let name = format!("moorline-test-{name}-{}", std::process::id());
    let groups = GroupPlaces::find(&name, &limits);
    if groups.is_none() || !GroupPlaces::lacking(groups.as_ref(), &limits).is_empty() {
        println!("skipped: there are no control groups here, or none that keep limits");
        return None;
    }
    node.task.groups = groups;
    node.task.limits = limits;
    Some(node)
}

impl Node {
    /// Runs a document, and cancels it when its step has written a number into each file.
    fn cancel_at(&self, definition: &Value, files: &[&str]) -> Told {
        self.accept(definition, &json!({}));
        block_on(async {
            let cancel = async {
                while !files.iter().all(|file| self.pid(file).is_some()) {
                    sleep(Duration::from_millis(5)).await;
                }
                self.stop.send_replace(Some(StopReason::Cancelled));
            };
            tokio::join!(self.work(), cancel);
        });
        self.told()
    }

    fn pid(&self, file: &str) -> Option<i32> {
        let text = std::fs::read_to_string(self.dir.path().join(file)).ok()?;
        text.strip_suffix('\n')?.parse().ok()
    }

    fn has_groups(&self) -> bool {
        let groups = self.task.groups.as_ref().unwrap();
        groups.folders().any(|folder| folder.exists())
    }
}

fn lives(pid: Option<i32>) -> bool {
    pid.and_then(ProcessKey::of).is_some()
}

#[test]
fn a_cancellation_ends_what_left_the_process_group_and_forked_twice_and_is_deaf() {
    let Some(node) = node("deaf", ResourceLimits::default()) else {
        return;
    };
    let dir = node.dir.path().display();
    // The first leaves the session, the second has no parent either.
    let line = format!(
        "cd {dir}; trap '' TERM; setsid sh -c 'echo $$ > first; sleep 300; sleep 300' & \
         (setsid sh -c '(echo $$; sleep 300) > second & exec sleep 300' &) ; sleep 300; sleep 300"
    );
    let told = node.cancel_at(&one(&line), &["first", "second"]);
    assert_eq!(told.status, ResultStatus::Cancelled);
    assert!(!lives(node.pid("first")) && !lives(node.pid("second")));
    assert!(!node.has_groups(), "groups are left");
}

#[test]
fn a_cancellation_of_a_nested_document_ends_what_left_the_process_group() {
    let Some(node) = node("nested", ResourceLimits::default()) else {
        return;
    };
    let dir = node.dir.path();
    let line = format!(
        "cd {}; setsid sh -c 'echo $$ > first; exec sleep 300' & wait",
        dir.display()
    );
    let inner = dir.join("inner");
    node.write(&inner, &one(&line).to_string());
    let outer = document(&[documents::nested("outer", &inner, json!({}))]);
    let told = node.cancel_at(&outer, &["first"]);
    assert_eq!(told.status, ResultStatus::Cancelled);
    assert!(!lives(node.pid("first")) && !node.has_groups());
}

/// With control groups and without: what takes a moment to end has it, though the script itself ends at once.
#[test]
fn all_that_a_step_started_has_the_grace_and_not_its_script_alone() {
    let with = node("grace", ResourceLimits::default());
    let without = with.is_none().then(Node::new);
    let check = |node: Node| {
        let dir = node.dir.path();
        let line = format!(
            "cd {}; sh -c 'trap \"sleep 0.3; echo 1 > cleaned; exit\" TERM; echo $$ > child; \
             while :; do sleep 0.05; done' & wait",
            dir.display()
        );
        let told = node.cancel_at(&one(&line), &["child"]);
        assert_eq!(told.status, ResultStatus::Cancelled);
        assert_eq!(node.pid("cleaned"), Some(1));
        assert!(!lives(node.pid("child")));
    };
    with.into_iter().for_each(check);
    without.into_iter().for_each(check);
    check(Node::new());
}

#[test]
fn what_a_script_leaves_to_run_on_purpose_runs_on_in_its_group() {
    let Some(node) = node("daemon", ResourceLimits::default()) else {
        return;
    };
    let line = "setsid sleep 300 > /dev/null 2>&1 & echo $!";
    let told = block_on(node.run(&one(line)));
    let step = told.steps.get("s").unwrap();
    assert_eq!(step.status, ResultStatus::Success);
    let child: i32 = step.standard_output.trim().parse().unwrap();
    assert!(lives(Some(child)) && node.has_groups());
    let child = nix::unistd::Pid::from_raw(child);
    nix::sys::signal::kill(child, nix::sys::signal::Signal::SIGKILL).unwrap();
    // As long as its worker lives nobody else removes the group.
    let groups = node.task.groups.as_ref().unwrap();
    remove_leftovers(groups.folders());
    assert!(node.has_groups());
    for folder in groups.folders() {
        for entry in std::fs::read_dir(folder)
            .unwrap()
            .flatten()
            .filter(|entry| entry.path().is_dir())
        {
            let begun = std::time::Instant::now();
            while std::fs::remove_dir(entry.path()).is_err() {
                assert!(
                    begun.elapsed() < Duration::from_secs(20),
                    "{child} does not leave its group"
                );
                std::thread::yield_now();
            }
        }
        std::fs::remove_dir(folder).unwrap();
    }
}

#[test]
fn a_step_that_takes_more_memory_than_the_owner_allows_is_told_by_name() {
    let limits = ResourceLimits {
        memory: Some("32M".parse().unwrap()),
        ..ResourceLimits::default()
    };
    let Some(node) = node("memory", limits) else {
        return;
    };
    let steps = [
        script("greedy", json!({"runCommand": ["exec tail /dev/zero"]})),
        script("modest", json!({"runCommand": ["echo fits"]})),
    ];
    let told = block_on(node.run(&document(&steps)));
    let greedy = told.steps.get("greedy").unwrap();
    assert_eq!((greedy.status, greedy.code), (ResultStatus::Failed, 137));
    assert!(
        greedy
            .standard_error
            .contains("out of memory: the step has used the 32M")
            && greedy.standard_error.contains("command.limits.memory"),
        "{greedy:?}"
    );
    let modest = told.steps.get("modest").unwrap();
    assert_eq!(
        (modest.status, modest.standard_error.as_str()),
        (ResultStatus::Success, "")
    );
    assert!(!node.has_groups());
}

#[test]
fn a_step_that_starts_more_than_the_owner_allows_is_refused_the_rest_and_told() {
    let limits = ResourceLimits {
        tasks: Some(10),
        cpu: Some("50%".parse().unwrap()),
        ..ResourceLimits::default()
    };
    let Some(node) = node("tasks", limits) else { return };
    let line = "for i in 1 2 3 4 5 6 7 8 9 10 11 12; do sleep 0.2 & done; wait";
    let told = block_on(node.run(&one(line)));
    let step = told.steps.get("s").unwrap();
    assert!(
        step.standard_error
            .contains("too many processes: the step has run the 10 tasks"),
        "{step:?}"
    );
}
