//! What commands come to on the unmodified amazon-ssm-agent, for who has it, where the documents of the table do not
//! say it: several steps, ends from outside, and an agent that is killed and started again.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use moorline_tests::{Api, finished, send_script, wait_until};
use serde_json::{Value, json};

use crate::stock_peers::StockNode;

/// Runs a document of the command's own, and returns the command's id.
async fn send(stock: &StockNode, name: &str, steps: &Value) -> Result<String> {
    let content = json!({"schemaVersion": "2.2", "description": name, "mainSteps": steps}).to_string();
    let document = json!({"Name": name, "DocumentType": "Command", "Content": content});
    stock.api().call("CreateDocument", document).await?;
    let sent = json!({"DocumentName": name, "InstanceIds": [stock.id()]});
    let sent = stock.api().call("SendCommand", sent).await?;
    let id = sent["Command"]["CommandId"].as_str().context("no id")?;
    Ok(id.to_owned())
}

fn step(name: &str, script: &str) -> Value {
    json!({"action": "aws:runShellScript", "name": name, "inputs": {"runCommand": [script]}})
}

/// Name, status and code of each step, in their order.
async fn steps(api: &Api, command: &str) -> Result<Vec<(String, String, i64)>> {
    let input = json!({"CommandId": command, "Details": true});
    let listed = api.call("ListCommandInvocations", input).await?;
    let plugins = listed["CommandInvocations"][0]["CommandPlugins"].as_array();
    let plugins = plugins.with_context(|| format!("no steps: {listed}"))?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    Ok(plugins
        .iter()
        .map(|step| {
            let code = step["ResponseCode"].as_i64().unwrap_or(i64::MIN);
            (text(&step["Name"]), text(&step["Status"]), code)
        })
        .collect())
}

async fn wait_file(path: &Path) -> Result<()> {
    wait_until("the script to have begun", async || Ok(path.exists())).await
}

#[tokio::test]
async fn several_steps_of_the_stock_agent_are_told_one_by_one() -> Result<()> {
    let Some(stock) = StockNode::start().await? else {
        return Ok(());
    };
    let skipped = json!({
        "action": "aws:runShellScript", "name": "elsewhere", "inputs": {"runCommand": ["echo never"]},
        "precondition": {"StringEquals": ["platformType", "Windows"]},
    });
    let all = json!([
        step("first", "echo one"),
        step("bad", "echo two >&2; exit 4"),
        skipped,
        step("last", "echo three")
    ]);
    let command = send(&stock, "Several", &all).await?;
    let invocation = finished(stock.api(), stock.id(), &command).await?;
    ensure!(invocation["Status"] == "Failed", "{invocation}");
    let expected = [
        ("first", "Success", 0),
        ("bad", "Failed", 4),
        ("elsewhere", "Success", 0),
        ("last", "Success", 0),
    ];
    let told = steps(stock.api(), &command).await?;
    let told: Vec<_> = told
        .iter()
        .map(|(name, status, code)| (name.as_str(), status.as_str(), *code))
        .collect();
    ensure!(told == expected, "{told:?}");
    for (name, output) in [("first", "one\n"), ("last", "three\n")] {
        let input = json!({"CommandId": command, "InstanceId": stock.id(), "PluginName": name});
        let told = stock.api().call("GetCommandInvocation", input).await?;
        ensure!(told["StandardOutputContent"] == output, "{told}");
    }
    Ok(())
}

#[tokio::test]
async fn the_stock_agent_is_told_to_cancel() -> Result<()> {
    let Some(stock) = StockNode::start().await? else {
        return Ok(());
    };
    let there = tempfile::tempdir()?;
    let (begun, second) = (there.path().join("begun"), there.path().join("second"));
    let all = json!([
        step(
            "long",
            &format!("echo before; touch {}; sleep 600", begun.display())
        ),
        step("next", &format!("touch {}", second.display())),
    ]);
    let command = send(&stock, "Long", &all).await?;
    wait_file(&begun).await?;
    stock
        .api()
        .call("CancelCommand", json!({"CommandId": command}))
        .await?;
    let invocation = finished(stock.api(), stock.id(), &command).await?;
    ensure!(invocation["Status"] == "Cancelled", "{invocation}");
    let listed = stock
        .api()
        .call("ListCommands", json!({"CommandId": command}))
        .await?;
    ensure!(listed["Commands"][0]["Status"] == "Cancelled", "{listed}");
    let told = steps(stock.api(), &command).await?;
    ensure!(told.first().is_some_and(|step| step.1 == "Cancelled"), "{told:?}");
    ensure!(!second.exists(), "the step behind the cancelled one ran");
    Ok(())
}

#[tokio::test]
async fn the_stock_agent_ends_a_step_at_its_time_out() -> Result<()> {
    let Some(stock) = StockNode::start().await? else {
        return Ok(());
    };
    let input = json!({
        "DocumentName": "AWS-RunShellScript",
        "InstanceIds": [stock.id()],
        "Parameters": {"commands": ["echo before; sleep 600"], "executionTimeout": ["5"]},
    });
    let sent = stock.api().call("SendCommand", input).await?;
    let command = sent["Command"]["CommandId"].as_str().context("no id")?;
    let invocation = finished(stock.api(), stock.id(), command).await?;
    ensure!(
        invocation["Status"] == "TimedOut" && invocation["StatusDetails"] == "ExecutionTimedOut",
        "{invocation}"
    );
    ensure!(invocation["StandardOutputContent"] == "before\n", "{invocation}");
    Ok(())
}

#[tokio::test]
async fn a_command_outlives_the_stock_agent_that_is_killed_in_its_middle() -> Result<()> {
    let Some(stock) = StockNode::start().await? else {
        return Ok(());
    };
    let there = tempfile::tempdir()?;
    let [begun, go_on, runs] = ["begun", "go-on", "runs"].map(|name| there.path().join(name));
    let script = format!(
        "echo before; echo x >> {}; touch {}; until [ -e {} ]; do sleep 0.1; done; echo behind; exit 6",
        runs.display(),
        begun.display(),
        go_on.display()
    );
    let command = send_script(stock.api(), stock.id(), &script).await?;
    wait_file(&begun).await?;
    stock.kill_agent()?;
    // it ends while no agent is there to hear of it
    std::fs::write(&go_on, "")?;
    let invocation = finished(stock.api(), stock.id(), &command).await?;
    ensure!(
        invocation["Status"] == "Failed" && invocation["ResponseCode"] == 6,
        "{invocation}"
    );
    ensure!(
        invocation["StandardOutputContent"] == "before\nbehind\n",
        "{invocation}"
    );
    ensure!(std::fs::read_to_string(&runs)? == "x\n", "the script ran again");
    let command = send_script(stock.api(), stock.id(), "echo again").await?;
    let invocation = finished(stock.api(), stock.id(), &command).await?;
    ensure!(invocation["StandardOutputContent"] == "again\n", "{invocation}");
    Ok(())
}

#[tokio::test]
async fn the_stock_agent_installs_a_package_with_its_variables() -> Result<()> {
    let Some(stock) = StockNode::start().await? else {
        return Ok(());
    };
    let folder = tempfile::tempdir()?;
    std::fs::write(
        folder.path().join("install.sh"),
        "echo \"greets: $SSM_GREETING\"\n",
    )?;
    std::fs::write(
        folder.path().join("uninstall.sh"),
        "echo \"leaves: $SSM_GREETING\"\n",
    )?;
    let folder = folder.path().display().to_string();
    let publish = [
        "package",
        "publish",
        &folder,
        "--name",
        "Greeter",
        "--version",
        "1.0",
    ];
    stock.cli().run(&publish).await?.success()?;
    for (action, greeting) in [("Install", "greets: a $$ 'b'"), ("Uninstall", "leaves: a $$ 'b'")] {
        let input = json!({
            "DocumentName": "AWS-ConfigureAWSPackage",
            "InstanceIds": [stock.id()],
            "Parameters": {
                "action": [action],
                "name": ["Greeter"],
                "additionalArguments": [r#"{"SSM_GREETING": "a $$ 'b'"}"#],
            },
        });
        let sent = stock.api().call("SendCommand", input).await?;
        let command = sent["Command"]["CommandId"].as_str().context("no id")?;
        let invocation = finished(stock.api(), stock.id(), command).await?;
        let output = invocation["StandardOutputContent"].as_str().unwrap_or_default();
        ensure!(
            invocation["Status"] == "Success" && output.lines().any(|line| line == greeting),
            "{invocation}"
        );
    }
    Ok(())
}
