//! What the owner's policy refuses does not run, whatever the daemon thought of it.

use super::*;
use crate::policy::write_file;

fn put_policy(node: &Node, text: &str) {
    write_file(&node.task.policy_folder, "10-rules.toml", text);
}

const NO_SHELL: &str = "[[rule]]\nname = \"no shell\"\neffect = \"deny\"\nfor = \"command\"\nactions = [\"aws:runShellScript\"]\n";

#[test]
fn a_refused_command_runs_nothing_and_names_the_rule() {
    let node = Node::new();
    put_policy(&node, NO_SHELL);
    let mark = node.dir.path().join("ran");
    let line = format!("touch {}", mark.display());
    let steps = ["a", "b"].map(|name| script(name, json!({"runCommand": [line]})));
    let told = block_on(node.run(&document(&steps)));
    assert_eq!((told.status, told.ends), (ResultStatus::Failed, 1));
    assert!(told.is_refused);
    let expected = format!(
        "refused by the policy of this node's owner: rule \"no shell\" of {}, line 1",
        node.task.policy_folder.join("10-rules.toml").display()
    );
    assert_eq!(told.trace, expected);
    for name in ["a", "b"] {
        let step = told.steps.get(name).unwrap();
        assert_eq!((step.status, step.code), (ResultStatus::Failed, 1));
        assert_eq!(step.standard_error, expected);
    }
    assert!(!mark.exists());
}

#[test]
fn a_step_that_would_not_run_here_needs_no_leave() {
    let node = Node::new();
    put_policy(
        &node,
        "default.command = \"deny\"\n[[rule]]\nname = \"r\"\neffect = \"allow\"\nfor = \"command\"\n\
         actions = [\"aws:runShellScript\"]\n",
    );
    let windows = json!({"action": "aws:runPowerShellScript", "name": "w", "inputs": {"runCommand": ["exit"]},
        "precondition": {"StringEquals": ["platformType", "Windows"]}});
    let told = block_on(node.run(&document(&[
        windows,
        script("s", json!({"runCommand": ["true"]})),
    ])));
    assert_eq!(told.status, ResultStatus::Success);
}

#[test]
fn a_policy_that_cannot_be_read_refuses_every_command() {
    let node = Node::new();
    put_policy(&node, "[default]\ncomand = \"deny\"\n");
    let told = block_on(node.run(&one("true")));
    assert!(told.is_refused && told.status == ResultStatus::Failed);
    for word in ["everything is refused", "10-rules.toml", "line 2", "comand"] {
        assert!(told.trace.contains(word), "{}", told.trace);
    }
}

#[test]
fn after_a_reboot_the_policy_is_asked_again_and_what_ran_before_stays() {
    let node = Node::new();
    let steps = [
        script("first", json!({"runCommand": ["true"]})),
        script("reboots", json!({"runCommand": ["exit 194"]})),
        script("last", json!({"runCommand": ["echo never"]})),
    ];
    node.accept(&document(&steps), &json!({}));
    block_on(node.work());
    put_policy(&node, NO_SHELL);
    node.settle_in_next_boot();
    block_on(node.work());
    let told = node.told();
    assert_eq!((told.status, told.ends), (ResultStatus::Failed, 1));
    assert!(!told.is_refused, "some of it has run");
    let status = |name: &str| told.steps.get(name).unwrap().status;
    assert_eq!(status("first"), ResultStatus::Success);
    assert_eq!(status("reboots"), ResultStatus::Failed);
    let last = told.steps.get("last").unwrap();
    assert!(last.output.contains("rule \"no shell\""), "{last:?}");
}

#[test]
fn a_document_in_a_document_is_asked_about_by_its_own_name_and_actions() {
    let node = Node::new();
    let inner = document(&[script("inner", json!({"runCommand": ["echo inner"]}))]);
    let file = node.dir.path().join("inner.json");
    std::io::Write::write_all(
        &mut std::fs::File::create(&file).unwrap(),
        inner.to_string().as_bytes(),
    )
    .unwrap();
    let outer = document(&[json!({"action": "aws:runDocument", "name": "outer",
        "inputs": {"documentType": "LocalPath", "documentPath": file}})]);
    let rule = |name: &str, effect: &str, condition: String| {
        format!("[[rule]]\nname = \"{name}\"\neffect = \"{effect}\"\nfor = \"command\"\n{condition}\n")
    };
    let outer_only = format!(
        "default.command = \"deny\"\n{}",
        rule("outer", "allow", "actions = [\"aws:runDocument\"]".to_owned())
    );
    put_policy(&node, &outer_only);
    let told = block_on(node.run(&outer));
    let step = told.steps.get("outer").unwrap();
    assert_eq!((told.status, told.is_refused), (ResultStatus::Failed, false));
    assert!(
        step.standard_error.contains("default.command = \"deny\""),
        "{step:?}"
    );
    assert!(!step.standard_output.contains("inner"));

    let by_name = rule(
        "inner",
        "allow",
        format!("documents = [\"file:{}\"]", file.display()),
    );
    let by_hash = format!(
        "sha256 = [\"{}\"]",
        moorline_protocol::document::Digest::of(&inner)
    );
    for allowed in [by_name, rule("inner", "allow", by_hash)] {
        put_policy(&node, &format!("{outer_only}{allowed}"));
        node.in_journal("DELETE FROM command");
        let told = block_on(node.run(&outer));
        assert_eq!(told.status, ResultStatus::Success, "{told:?}");
    }
}

#[test]
fn a_file_is_known_to_the_policy_by_where_it_is_and_not_by_what_a_step_calls_it() {
    let node = Node::new();
    let dir = node.dir.path().canonicalize().unwrap();
    let inner = document(&[script("inner", json!({"runCommand": ["echo ran"]}))]).to_string();
    let other = dir.join("other/a.json");
    let approved = dir.join("approved/a.json");
    for path in [&other, &approved] {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        node.write(path, &inner);
    }
    std::os::unix::fs::symlink(&other, dir.join("approved/link.json")).unwrap();
    std::os::unix::fs::symlink(dir.join("other"), dir.join("approved/folder")).unwrap();
    put_policy(
        &node,
        &format!(
            "default.command = \"deny\"\n[[rule]]\nname = \"a\"\neffect = \"allow\"\nfor = \"command\"\n\
             actions = [\"aws:runDocument\"]\n[[rule]]\nname = \"b\"\neffect = \"allow\"\nfor = \"command\"\n\
             documents = [\"file:{}/*\"]\n",
            dir.join("approved").display()
        ),
    );
    let relative = format!("../../..{}", other.display());
    let cases = [
        (approved.display().to_string(), true),
        (dir.join("other/../approved/a.json").display().to_string(), true),
        (dir.join("approved/../other/a.json").display().to_string(), false),
        (dir.join("approved/link.json").display().to_string(), false),
        (dir.join("approved/folder/a.json").display().to_string(), false),
        (relative, false),
    ];
    for (path, expected) in cases {
        let step = json!({"action": "aws:runDocument", "name": "outer",
            "inputs": {"documentType": "LocalPath", "documentPath": path}});
        let told = block_on(node.run(&document(&[step])));
        let is_run = told.status == ResultStatus::Success;
        assert_eq!(is_run, expected, "{path}: {told:?}");
        node.in_journal("DELETE FROM command");
        node.in_journal("DELETE FROM reply");
        std::fs::remove_dir_all(dir.join("commands")).unwrap();
    }
}
