//! Exit code 194, with a program in the place of `shutdown`.

use super::{documents::nested, *};

/// Asks for a reboot until the node has been rebooted so many times, and counts its runs.
fn until_rebooted(node: &Node, reboots: usize) -> Value {
    let counter = node.dir.path().join("runs");
    let counter = counter.display();
    json!(format!(
        "echo run >> {counter}; echo run $(wc -l < {counter}); [ $(wc -l < {counter}) -gt {reboots} ] || exit 194"
    ))
}

impl Node {
    /// As the daemon of the next boot does it: the worker of the last one is not among the living.
    pub(super) fn settle_in_next_boot(&self) -> crate::command::journal::Settled {
        self.in_journal("UPDATE command SET boot_id = 'the last one'");
        self.settle()
    }

    fn settle(&self) -> crate::command::journal::Settled {
        let mut journal = Journal::open(self.dir.path(), Opener::Daemon).unwrap();
        let endings = crate::command::journal::Endings {
            cancelled: |_: &Assignment| panic!("nobody cancelled"),
            lost: |_: &str, _: &[crate::command::journal::StepRecord]| panic!("nothing was lost"),
        };
        journal.settle("c1", now_millis(), |_| false, endings).unwrap()
    }

    pub(super) fn in_journal(&self, sql: &str) {
        let path = self.dir.path().join("journal.db");
        rusqlite::Connection::open(path)
            .unwrap()
            .execute(sql, ())
            .unwrap();
    }
}

#[test]
fn a_command_goes_on_after_the_reboots_that_it_asked_for() {
    use crate::command::journal::Settled;
    let node = Node::new();
    let marker = node.dir.path().join("first");
    let steps = [
        script(
            "first",
            json!({"runCommand": [format!("echo once >> {}", marker.display())]}),
        ),
        script("second", json!({"runCommand": [until_rebooted(&node, 2)]})),
        script("third", json!({"runCommand": ["echo third"]})),
    ];
    node.accept(&document(&steps), &json!({}));
    for _ in 0..2 {
        block_on(node.work());
        assert_eq!(
            node.settle(),
            Settled::AwaitsReboot { is_arranged: true },
            "in the same boot nothing goes on"
        );
        assert_eq!(node.told().ends, 0);
        assert_eq!(node.settle_in_next_boot(), Settled::Waiting);
    }
    block_on(node.work());
    let told = node.told();
    assert_eq!((told.status, told.ends), (ResultStatus::Success, 1));
    assert_eq!(
        std::fs::read_to_string(marker).unwrap(),
        "once\n",
        "a finished step runs once"
    );
    let second = told.steps.get("second").unwrap();
    assert_eq!(
        second.standard_output, "run 1\nrun 2\nrun 3\n",
        "what was written before is told too"
    );
    assert_eq!(told.steps.get("third").unwrap().standard_output, "third\n");
}

#[test]
fn without_a_reboot_the_step_fails_and_what_counts_on_it_does_not_run() {
    let table = [
        (vec![], "settings allow none"),
        (
            vec!["/nowhere/shutdown".to_owned()],
            "/nowhere/shutdown did not arrange it",
        ),
        (
            ["sh", "-c", "echo not today >&2; exit 3"]
                .map(str::to_owned)
                .to_vec(),
            "exit status: 3 not today",
        ),
    ];
    for (command, expected) in table {
        let mut node = Node::new();
        node.task.reboot_command = command;
        let steps = [
            script("a", json!({"runCommand": ["exit 194"]})),
            script("b", json!({"runCommand": ["true"]})),
        ];
        let told = block_on(node.run(&document(&steps)));
        assert_eq!((told.status, told.ends), (ResultStatus::Failed, 1));
        let step = told.steps.get("a").unwrap();
        assert_eq!(step.code, 194);
        assert!(step.standard_error.contains(expected), "{}", step.standard_error);
        assert_eq!(told.steps.get("b").unwrap().status, ResultStatus::Skipped);
    }
}

#[test]
fn a_command_that_is_cancelled_while_it_waits_for_a_reboot_ends_after_it() {
    let node = Node::new();
    let steps = [
        script("a", json!({"runCommand": [until_rebooted(&node, 1)]})),
        script("b", json!({"runCommand": ["true"]})),
    ];
    node.accept(&document(&steps), &json!({}));
    block_on(node.work());
    let mut journal = Journal::open(node.dir.path(), Opener::Daemon).unwrap();
    let cancelled = journal.cancel("c1", false, now_millis(), |_| panic!("it has begun"));
    assert!(matches!(
        cancelled.unwrap(),
        crate::command::journal::CancelOutcome::Marked(_)
    ));
    drop(journal);
    node.settle_in_next_boot();
    block_on(node.work());
    let told = node.told();
    assert_eq!((told.status, told.ends), (ResultStatus::Cancelled, 1));
    assert_eq!(told.steps.get("a").unwrap().status, ResultStatus::Cancelled);
}

#[test]
fn a_nested_document_goes_on_inside_after_a_reboot() {
    let node = Node::new();
    let marker = node.dir.path().join("first");
    let inner = document(&[
        script(
            "first",
            json!({"runCommand": [format!("echo once >> {}", marker.display())]}),
        ),
        script("second", json!({"runCommand": [until_rebooted(&node, 1)]})),
    ]);
    let path = node.dir.path().join("inner.json");
    node.write(&path, &inner.to_string());
    let outer = document(&[
        nested("outer", &path, json!({})),
        script("after", json!({"runCommand": ["true"]})),
    ]);
    node.accept(&outer, &json!({}));
    block_on(node.work());
    assert_eq!(node.told().ends, 0);
    node.settle_in_next_boot();
    block_on(node.work());
    let told = node.told();
    assert_eq!((told.status, told.ends), (ResultStatus::Success, 1));
    assert_eq!(std::fs::read_to_string(marker).unwrap(), "once\n");
    let outer = &told.steps.get("outer").unwrap().standard_output;
    assert!(outer.contains("--- second ---\nrun 1\nrun 2\n"), "{outer}");
}

#[test]
fn a_nested_document_that_changed_over_the_reboot_runs_no_step_again() {
    let node = Node::new();
    let marker = node.dir.path().join("first");
    let first = script(
        "first",
        json!({"runCommand": [format!("echo once >> {}", marker.display())]}),
    );
    let reboots = script("reboots", json!({"runCommand": ["exit 194"]}));
    let path = node.dir.path().join("inner.json");
    node.write(&path, &document(&[first.clone(), reboots.clone()]).to_string());
    node.accept(&document(&[nested("outer", &path, json!({}))]), &json!({}));
    block_on(node.work());
    let another = script("more", json!({"runCommand": ["true"]}));
    node.write(&path, &document(&[first, reboots, another]).to_string());
    node.settle_in_next_boot();
    block_on(node.work());
    let told = node.told();
    assert_eq!((told.status, told.ends), (ResultStatus::Failed, 1));
    let outer = told.steps.get("outer").unwrap();
    assert!(outer.standard_error.contains("another than it was"), "{outer:?}");
    assert_eq!(std::fs::read_to_string(marker).unwrap(), "once\n");
}

#[test]
fn without_a_note_of_what_has_run_inside_there_is_no_reboot() {
    let node = Node::new();
    // in the way of the note
    let directory = node.dir.path().join("commands/c1/0-outer");
    std::fs::create_dir_all(directory.join("document.json.new")).unwrap();
    let path = node.dir.path().join("inner.json");
    let inner = document(&[
        script("first", json!({"runCommand": ["echo first"]})),
        script("reboots", json!({"runCommand": ["exit 194"]})),
    ]);
    node.write(&path, &inner.to_string());
    let told = block_on(node.run(&document(&[nested("outer", &path, json!({}))])));
    assert_eq!((told.status, told.ends), (ResultStatus::Failed, 1));
    let outer = told.steps.get("outer").unwrap();
    assert!(
        outer
            .standard_error
            .contains("the step reboots asks for a reboot"),
        "{outer:?}"
    );
    assert!(outer.standard_error.contains("not rebooted"), "{outer:?}");
}
