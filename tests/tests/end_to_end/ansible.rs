//! Real playbooks, from a real git server, with Ansible itself.

use std::{fs, path::Path};

use anyhow::{Context, Result, ensure};
use moorline_tests::{Aws, GitServer, Site, skipped};
use serde_json::{Value, json};

const PLAYBOOK: &str = "- hosts: all
  gather_facts: false
  roles: [greeter]
  tasks:
    - name: A second task
      ansible.builtin.debug: {msg: \"target is {{ target }}\"}
";
const ROLE: &str = "- name: Write the greeting
  ansible.builtin.template: {src: greeting.j2, dest: \"{{ target }}\", mode: '0640'}
";
const BROKEN: &str = "- hosts: all
  gather_facts: false
  tasks:
    - ansible.builtin.command: /bin/false
";

/// Runs a playbook of the server's repository on the node.
async fn apply(site: &Site, git: &GitServer, playbook: &str, more: Value) -> Result<Value> {
    let info = json!({"repository": git.url()}).to_string();
    let mut parameters = json!({
        "SourceType": ["Git"], "SourceInfo": [info], "InstallDependencies": ["False"], "PlaybookFile": [playbook],
    });
    if let (Some(parameters), Value::Object(more)) = (parameters.as_object_mut(), more) {
        parameters.extend(more);
    }
    let input = json!({
        "DocumentName": "AWS-ApplyAnsiblePlaybooks", "InstanceIds": [site.node.id()], "Parameters": parameters,
    });
    let sent = site.api().call("SendCommand", input).await?;
    let command_id = sent["Command"]["CommandId"].as_str().context("no command")?;
    site.finished(command_id).await?;
    let step = json!({"CommandId": command_id, "InstanceId": site.node.id(), "PluginName": "runShellScript"});
    site.api().call("GetCommandInvocation", step).await
}

#[tokio::test]
async fn playbooks_from_a_git_server_are_applied_checked_and_their_failures_told() -> Result<()> {
    let mut site = Site::start().await?;
    let Some(ansible) = Aws::of(&site.endpoint)?.tool("ansible-playbook") else {
        skipped("there is no Ansible in the environment of the real clients: it needs Python 3.11");
        return Ok(());
    };
    let files = [
        ("site/greet.yml", PLAYBOOK),
        ("site/roles/greeter/tasks/main.yml", ROLE),
        ("site/roles/greeter/templates/greeting.j2", "hello {{ word }}\n"),
        ("broken.yaml", BROKEN),
    ];
    let Some(git) = GitServer::start(&files).await? else {
        return Ok(());
    };
    site.node.stop_daemon().await?;
    let folder = ansible.parent().unwrap_or_else(|| Path::new("/"));
    site.node
        .set_environment("PATH", &format!("{}:/usr/bin:/bin", folder.display()));
    site.node.start().await?;
    let target = site.node.dir().join("greeting");
    let variables = format!("target={} word=there", target.display());
    let told = |step: &Value| {
        step["StandardOutputContent"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    };

    let check = json!({"ExtraVariables": [variables], "Check": ["True"]});
    let checked = apply(&site, &git, "site/greet.yml", check).await?;
    ensure!(
        checked["Status"] == "Success" && told(&checked).contains("changed=1") && !target.exists(),
        "{checked}"
    );
    for (changed, verbose) in [(1, "-v"), (0, "-vv")] {
        let given = json!({"ExtraVariables": [variables], "Verbose": [verbose]});
        let applied = apply(&site, &git, "site/greet.yml", given).await?;
        ensure!(
            applied["Status"] == "Success"
                && told(&applied).contains(&format!("changed={changed}"))
                && told(&applied).contains(&format!("target is {}", target.display())),
            "{applied}"
        );
        ensure!(fs::read_to_string(&target)? == "hello there\n");
    }
    let failed = apply(&site, &git, "broken.yaml", json!({})).await?;
    ensure!(
        failed["Status"] == "Failed" && failed["ResponseCode"] == 2 && told(&failed).contains("failed=1"),
        "{failed}"
    );
    let absent = apply(&site, &git, "absent.yml", json!({})).await?;
    let error = absent["StandardErrorContent"].as_str().unwrap_or_default();
    ensure!(
        absent["Status"] == "Failed" && error.contains("there is no playbook absent.yml"),
        "{absent}"
    );
    Ok(())
}
