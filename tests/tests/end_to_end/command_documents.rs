//! Command documents of operators, in both formats, with the AWS CLI; documents in documents, reboots, and documents
//! without an endpoint.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use moorline_tests::{Aws, Node, Site, is_root, wait_until};
use serde_json::{Value, json};

const YAML: &str = "# greets
schemaVersion: '2.2'
description: Greets.
parameters:
  Name: {type: String}
  Safe: {type: String, interpolationType: ENV_VAR, default: nobody}
mainSteps:
- action: aws:runShellScript
  name: greet
  inputs:
    runCommand:
    - echo \"hello {{ Name }} and {{ Safe }}\"
";

fn write(path: &Path, text: &str) -> Result<()> {
    use std::io::Write;
    Ok(std::fs::File::create(path)?.write_all(text.as_bytes())?)
}

/// Runs a document on the node, and returns the invocation.
async fn run(site: &Site, document: &str, parameters: Value) -> Result<Value> {
    let input = json!({"DocumentName": document, "InstanceIds": [site.node.id()], "Parameters": parameters});
    let sent = site.api().call("SendCommand", input).await?;
    let command_id = sent["Command"]["CommandId"].as_str().context("no command")?;
    site.finished(command_id).await
}

/// One step of a command.
async fn step(site: &Site, invocation: &Value, name: &str) -> Result<Value> {
    let input =
        json!({"CommandId": invocation["CommandId"], "InstanceId": site.node.id(), "PluginName": name});
    site.api().call("GetCommandInvocation", input).await
}

#[tokio::test]
async fn a_document_in_yaml_is_kept_as_it_was_written_and_given_in_both_formats() -> Result<()> {
    let site = Site::start().await?;
    let aws = Aws::of(&site.endpoint)?;
    let ssm = async |arguments: &[&str]| aws.ssm(arguments).await?.success()?.json();
    let create = ["create-document", "--name", "Greet", "--document-type", "Command"];
    let created = ssm(&[&create[..], &["--document-format", "YAML", "--content", YAML]].concat()).await?;
    let described = &created["DocumentDescription"];
    ensure!(
        described["DocumentFormat"] == "YAML" && described["SchemaVersion"] == "2.2",
        "{created}"
    );
    let warning = described["StatusInformation"].as_str().unwrap_or_default();
    ensure!(
        warning.contains("parameter Name") && !warning.contains("parameter Safe"),
        "only an open parameter is told: {created}"
    );
    let get = ["get-document", "--name", "Greet"];
    let as_written = ssm(&[&get[..], &["--document-format", "YAML"]].concat()).await?;
    ensure!(as_written["Content"] == YAML, "{as_written}");
    let as_json = ssm(&get).await?;
    ensure!(as_json["DocumentFormat"] == "JSON", "{as_json}");
    let content: Value = serde_json::from_str(as_json["Content"].as_str().context("no content")?)?;
    ensure!(content["mainSteps"][0]["name"] == "greet", "{content}");
    let yaml = [
        "get-document",
        "--name",
        "AWS-RunShellScript",
        "--document-format",
        "YAML",
    ];
    let shell = ssm(&yaml).await?;
    let shell = shell["Content"].as_str().context("no content")?.to_owned();
    ensure!(shell.contains("runCommand: \"{{ commands }}\"\n"), "{shell}");
    let again = [
        "create-document",
        "--name",
        "Shell",
        "--document-type",
        "Command",
        "--document-format",
        "YAML",
    ];
    ssm(&[&again[..], &["--content", &shell]].concat()).await?;

    let hostile = "x$(id)`id`'";
    let invocation = run(&site, "Greet", json!({"Name": ["you"], "Safe": [hostile]})).await?;
    let expected = format!("hello you and {hostile}\n");
    ensure!(
        invocation["StandardOutputContent"] == expected.as_str(),
        "{invocation}"
    );
    let invocation = run(&site, "Shell", json!({"commands": ["echo a", "echo b"]})).await?;
    ensure!(invocation["StandardOutputContent"] == "a\nb\n", "{invocation}");

    let refused = [
        "schemaVersion: '2.2'\nschemaVersion: '2.2'",
        "a: &a [*a]",
        "a: !!python/object x",
        "{\"schemaVersion\":\"2.2\",,}",
    ];
    for content in refused {
        let arguments = [
            "create-document",
            "--name",
            "Bad",
            "--document-format",
            "YAML",
            "--content",
            content,
        ];
        let refused = aws.ssm(&arguments).await?;
        ensure!(
            refused.code != 0 && refused.stderr.contains("InvalidDocumentContent"),
            "{content}: {refused:?}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn a_document_of_the_endpoint_runs_inside_another() -> Result<()> {
    let site = Site::start().await?;
    let create =
        json!({"Name": "Greet", "DocumentType": "Command", "DocumentFormat": "YAML", "Content": YAML});
    site.api().call("CreateDocument", create).await?;
    let parameters = json!({
        "sourceType": ["SSMDocument"], "sourceInfo": [r#"{"name": "Greet"}"#],
        "documentParameters": [r#"{"Name": "inner"}"#],
    });
    let invocation = run(&site, "AWS-RunDocument", parameters).await?;
    ensure!(invocation["Status"] == "Success", "{invocation}");
    let inner = step(&site, &invocation, "runDocument").await?;
    ensure!(
        inner["StandardOutputContent"] == "hello inner and nobody\n",
        "{inner}"
    );

    let outer = json!({"schemaVersion": "2.2", "mainSteps": [
        {"action": "aws:runDocument", "name": "first", "inputs": {
            "documentType": "SSMDocument", "documentPath": "Greet:1", "documentParameters": "Name: '{{ x }}'"}},
        {"action": "aws:runDocument", "name": "second", "inputs": {
            "documentType": "SSMDocument", "documentPath": "Absent"}},
    ]});
    let create = json!({"Name": "Outer", "DocumentType": "Command", "Content": outer.to_string()});
    site.api().call("CreateDocument", create).await?;
    let invocation = run(&site, "Outer", json!({})).await?;
    let first = step(&site, &invocation, "first").await?;
    ensure!(
        first["StandardOutputContent"] == "hello {{ x }} and nobody\n",
        "{first}"
    );
    let second = step(&site, &invocation, "second").await?;
    let error = second["StandardErrorContent"].as_str().unwrap_or_default();
    ensure!(
        second["Status"] == "Failed" && error.contains("there is no document Absent"),
        "{second}"
    );
    site.check_commands_work().await
}

#[tokio::test]
async fn actions_that_this_agent_leaves_to_others_say_so() -> Result<()> {
    let site = Site::start().await?;
    let invocation = run(&site, "AWS-UpdateSSMAgent", json!({})).await?;
    ensure!(invocation["Status"] == "Success", "{invocation}");
    let output = invocation["StandardOutputContent"].as_str().unwrap_or_default();
    ensure!(output.contains("package manager"), "{invocation}");
    let invocation = run(&site, "AWS-RefreshAssociation", json!({})).await?;
    ensure!(invocation["Status"] == "Success", "{invocation}");
    Ok(())
}

#[tokio::test]
async fn a_command_goes_on_in_the_boot_after_the_one_that_it_asked_for() -> Result<()> {
    if !is_root() {
        println!("skipped: another boot is made in a mount namespace, which takes root");
        return Ok(());
    }
    let mut site = Site::start().await?;
    let dir = site.node.dir().to_owned();
    let (asked, runs) = (dir.join("asked"), dir.join("runs"));
    site.reboot_by(&["touch", &asked.display().to_string()]).await?;
    let line = format!(
        "echo run >> {0}; cat {0}; [ $(wc -l < {0}) -gt 1 ] || exit 194",
        runs.display()
    );
    let command_id = site.send(&line).await?;
    wait_until("the reboot to be asked for", async || Ok(asked.exists())).await?;

    // As long as the node has not gone down nothing goes on, and nothing else begins.
    let behind = site.send("echo behind").await?;
    site.node.kill_daemon().await?;
    site.node.start().await?;
    ensure!(
        std::fs::read_to_string(&runs)? == "run\n",
        "it went on in the same boot"
    );
    site.reboot().await?;
    let invocation = site.finished(&command_id).await?;
    ensure!(
        invocation["Status"] == "Success" && invocation["StandardOutputContent"] == "run\nrun\nrun\n",
        "{invocation}"
    );
    let behind = site.finished(&behind).await?;
    ensure!(behind["Status"] == "Success", "{behind}");
    Ok(())
}

#[tokio::test]
async fn a_document_is_planned_and_run_without_an_endpoint() -> Result<()> {
    let site = Site::start().await?;
    let Site { node, endpoint, .. } = &site;
    let file = endpoint.home().join("greet.yaml");
    write(&file, YAML)?;
    let file = file.display().to_string();
    let agent = async |arguments: &[&str]| node.agent("run-document", arguments).await;
    let planned = agent(&[&file, "--plan", "--parameters", "Name=you"])
        .await?
        .success()?;
    for expected in [
        "decision: run",
        "hello you and ${SSM_Safe}",
        "SSM_Safe: nobody",
        "parameter Name",
    ] {
        ensure!(planned.stdout.contains(expected), "{expected}: {planned:?}");
    }
    ensure!(
        !planned.stdout.contains("=== greet"),
        "a plan runs nothing: {planned:?}"
    );
    let ran = agent(&[&file, "--parameters", r#"{"Name": "you"}"#])
        .await?
        .success()?;
    ensure!(
        ran.stdout.contains("Success, code 0\nhello you and nobody\n"),
        "{ran:?}"
    );
    let refused = agent(&[&file]).await?.with_code(1)?;
    ensure!(
        refused.stderr.contains("parameter Name has no value"),
        "{refused:?}"
    );

    let failing = endpoint.home().join("failing.json");
    let content = json!({"schemaVersion": "2.2", "mainSteps": [
        {"action": "aws:runShellScript", "name": "a", "inputs": {"runCommand": ["exit 3"], "onFailure": "exit"}},
        {"action": "aws:runShellScript", "name": "b", "inputs": {"runCommand": ["echo never"]}},
        {"action": "aws:runShellScript", "name": "c", "inputs": {"runCommand": ["exit 194"], "finallyStep": true}},
    ]});
    write(&failing, &content.to_string())?;
    let ran = agent(&[&failing.display().to_string()]).await?.with_code(1)?;
    for expected in [
        "a (aws:runShellScript): Failed, code 3",
        "b (aws:runShellScript): Skipped",
        "reboot, and run it again",
    ] {
        ensure!(ran.stdout.contains(expected), "{expected}: {ran:?}");
    }
    Ok(())
}

#[tokio::test]
async fn a_node_that_is_not_registered_runs_documents_too() -> Result<()> {
    let site = Site::start().await?;
    let other = Node::register(&site.endpoint, &[]).await?;
    std::fs::remove_file(other.state_dir().join("registration.json"))?;
    let file = other.dir().join("greet.yaml");
    write(&file, YAML)?;
    let file = file.display().to_string();
    let ran = other
        .agent("run-document", &[&file, "--parameters", "Name: me"])
        .await?
        .success()?;
    ensure!(ran.stdout.contains("hello me and nobody\n"), "{ran:?}");
    Ok(())
}

#[tokio::test]
async fn a_script_runs_where_no_file_may_be_executed() -> Result<()> {
    if !is_root() {
        println!("skipped: a mount takes root");
        return Ok(());
    }
    let mut site = Site::start().await?;
    site.node.kill_daemon().await?;
    let script = site.node.dir().join("noexec.sh");
    write(
        &script,
        "mkdir -p \"$SPECIAL\" && mount -t tmpfs -o noexec none \"$SPECIAL\" && exec \"$@\"\n",
    )?;
    let commands = site.node.state_dir().join("commands");
    site.node.isolate(&script, &commands.display().to_string());
    site.node.start().await?;
    for (lines, expected) in [
        (json!(["echo from $0", "exit 0"]), "/_script.sh\n"),
        (json!(["#!/usr/bin/env python3", "print(6 * 7)"]), "42\n"),
        (
            json!(["#!/bin/sh -e", "echo first", "false", "echo never"]),
            "first\n",
        ),
    ] {
        let invocation = run(&site, "AWS-RunShellScript", json!({ "commands": lines })).await?;
        let output = invocation["StandardOutputContent"].as_str().unwrap_or_default();
        ensure!(output.ends_with(expected), "{invocation}");
    }
    Ok(())
}
