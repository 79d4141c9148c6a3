//! Limits of the rule that allows a document, with those of the agent's settings.

use std::collections::BTreeSet;

use moorline_protocol::document::Digest;

use super::*;
use crate::{
    policy::{Asked, Facts, Policy, write_file},
    runtime::{GroupPlaces, MemoryMax},
};

/// A node whose rules let shell scripts and inner documents run within these limits; `None`, with the reason said,
/// where there are no control groups that keep them.
fn node(limits: &str, inner: &str) -> Option<Node> {
    let node = Node::new();
    let wanted = ResourceLimits {
        memory: Some(memory("32M")),
        tasks: Some(10),
        ..ResourceLimits::default()
    };
    let groups = GroupPlaces::find(&format!("moorline-test-rules-{}", std::process::id()), &wanted);
    if !GroupPlaces::lacking(groups.as_ref(), &wanted).is_empty() {
        println!("skipped: there are no control groups here, or none that keep limits");
        return None;
    }
    let rule = |name: &str, documents: &str, limits: &str| {
        format!(
            "[[rule]]\nname = \"{name}\"\neffect = \"allow\"\nfor = \"command\"\ndocuments = [\"{documents}\"]\n\
             limits = {{ {limits} }}\n"
        )
    };
    let policy = rule("inner", "file:*", inner) + &rule("small", "*", limits);
    write_file(&node.task.policy_folder, "10-rules.toml", &policy);
    Some(node)
}

fn memory(text: &str) -> MemoryMax {
    text.parse().unwrap()
}

const GREEDY: &str = "exec tail /dev/zero";

#[test]
fn a_step_keeps_the_limits_of_the_rule_that_allows_it_and_the_rule_is_named_when_one_killed_it() {
    let Some(node) = node("memory = \"32M\"", "tasks = 10") else {
        return;
    };
    let told = block_on(node.run(&one(GREEDY)));
    let step = told.steps.get("s").unwrap();
    assert_eq!((step.status, step.code), (ResultStatus::Failed, 137));
    let expected = format!(
        "the step has used the 32M that the node's owner allows it (limits.memory of rule \"small\" of {}, line 7)",
        node.task.policy_folder.join("10-rules.toml").display()
    );
    assert!(step.standard_error.contains(&expected), "{step:?}");
}

#[test]
fn the_stricter_one_of_rule_and_settings_counts() {
    for (of_settings, of_rule, by) in [
        ("32M", "1G", "(command.limits.memory)"),
        ("1G", "32M", "rule \"small\""),
    ] {
        let Some(mut node) = node(&format!("memory = \"{of_rule}\""), "tasks = 10") else {
            return;
        };
        node.task.limits.memory = Some(memory(of_settings));
        let told = block_on(node.run(&one(GREEDY)));
        let step = told.steps.get("s").unwrap();
        assert_eq!((step.status, step.code), (ResultStatus::Failed, 137));
        assert!(
            step.standard_error.contains("the 32M") && step.standard_error.contains(by),
            "{step:?}"
        );
    }
}

#[test]
fn a_document_in_a_document_keeps_the_limits_of_both_rules_and_the_outer_one_only_its_own() {
    let Some(node) = node("memory = \"32M\"", "tasks = 10, memory = \"1G\"") else {
        return;
    };
    let many = "for i in 1 2 3 4 5 6 7 8 9 10 11 12; do sleep 0.2 & done; wait; echo done";
    let inner = node.dir.path().join("inner");
    let steps = [
        script("many", json!({"runCommand": [many]})),
        script("greedy", json!({"runCommand": [GREEDY]})),
    ];
    node.write(&inner, &document(&steps).to_string());
    let outer = document(&[
        documents::nested("outer", &inner, json!({})),
        script("after", json!({"runCommand": [many]})),
    ]);
    let told = block_on(node.run(&outer));
    let outer = told.steps.get("outer").unwrap();
    for text in [
        "the 10 tasks that the node's owner allows it (limits.tasks of rule \"inner\"",
        "the 32M that the node's owner allows it (limits.memory of rule \"small\"",
    ] {
        assert!(outer.standard_error.contains(text), "{text}: {outer:?}");
    }
    let after = told.steps.get("after").unwrap();
    assert_eq!(
        (after.status, after.standard_error.as_str()),
        (ResultStatus::Success, ""),
        "{after:?}"
    );
}

#[test]
fn what_is_allowed_within_limits_only_is_refused_where_they_cannot_be_kept() {
    let node = Node::new();
    let rule = "[[rule]]\nname = \"small\"\neffect = \"allow\"\nfor = \"command\"\nlimits = { tasks = 10, cpu = \"50%\" }\n";
    write_file(&node.task.policy_folder, "10-rules.toml", rule);
    let facts = Facts {
        document: "d",
        digest: Digest::of(&json!({})),
        operator: None,
        asked: Asked::Command {
            actions: BTreeSet::new(),
        },
    };
    let policy = Policy::load(&node.task.policy_folder).unwrap();
    let grant = policy.permit(&facts, 0).unwrap();
    let nowhere = StepLimits::default().within_groups(&grant, |_| None);
    let refusal = nowhere.unwrap_err().to_string();
    for part in [
        "rule \"small\"",
        "line 1 allows it within limits that cannot be kept",
        "cpu, tasks",
    ] {
        assert!(refusal.contains(part), "{part}: {refusal}");
    }
}
