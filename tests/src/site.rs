//! The smallest whole: an endpoint, one node, an operator.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::{Api, Cli, Endpoint, Node, wait::wait_for};

/// How long a command may take to its final status: an agent that was cut off comes back after a pause of up to two
/// minutes.
const COMMAND_PATIENCE: Duration = Duration::from_secs(240);

/// An endpoint and a node that is connected. The node goes first.
#[derive(Debug)]
pub struct Site {
    pub node: Node,
    pub endpoint: Endpoint,
}

impl Site {
    /// Starts both.
    ///
    /// # Errors
    /// One does not come up.
    pub async fn start() -> Result<Self> {
        let endpoint = Endpoint::start().await?;
        let mut node = Node::register(&endpoint, &[("Role", "test")]).await?;
        node.start().await?;
        Ok(Self { node, endpoint })
    }

    pub fn cli(&self) -> Cli {
        Cli::of(&self.endpoint)
    }

    pub fn api(&self) -> &Api {
        self.endpoint.api()
    }

    /// Sends a shell script to the node and returns the command's id.
    ///
    /// # Errors
    /// The endpoint refuses.
    pub async fn send(&self, script: &str) -> Result<String> {
        send_script(self.api(), self.node.id(), script).await
    }

    /// Starts the node again in a boot of the test's own. Where it is to reboot, it runs this instead. Takes root.
    ///
    /// # Errors
    /// It does not come up.
    pub async fn reboot_by(&mut self, command: &[&str]) -> Result<()> {
        self.node.kill_daemon().await?;
        self.node
            .configure(&format!("[command]\nreboot_command = {command:?}\n"))?;
        self.node.next_boot()?;
        self.node.start().await
    }

    /// The node goes down, and up again in the next boot; behind [`Self::reboot_by`].
    ///
    /// # Errors
    /// It does not come up.
    pub async fn reboot(&mut self) -> Result<()> {
        self.node.kill_daemon().await?;
        self.node.next_boot()?;
        self.node.start().await
    }

    /// Waits for the final status of a command on the node, and returns the invocation.
    ///
    /// # Errors
    /// It has none in time.
    pub async fn finished(&self, command_id: &str) -> Result<Value> {
        finished(self.api(), self.node.id(), command_id).await
    }

    /// Waits until the node runs the command.
    ///
    /// # Errors
    /// It does not.
    pub async fn in_progress(&self, command_id: &str) -> Result<()> {
        let what = format!("command {command_id} to be in progress");
        wait_for(&what, COMMAND_PATIENCE, async || {
            let invocation = invocation(self.api(), self.node.id(), command_id).await?;
            Ok((invocation["Status"] == "InProgress").then_some(()))
        })
        .await
    }

    /// Shows that commands work: the way to see that what a test did harmed nobody else.
    ///
    /// # Errors
    /// They do not.
    pub async fn check_commands_work(&self) -> Result<()> {
        let command_id = self.send("echo still-here").await?;
        let invocation = self.finished(&command_id).await?;
        ensure!(
            invocation["Status"] == "Success" && invocation["StandardOutputContent"] == "still-here\n",
            "{invocation}"
        );
        Ok(())
    }
}

/// Sends a shell script to a node and returns the command's id.
///
/// # Errors
/// The endpoint refuses.
pub async fn send_script(api: &Api, node: &str, script: &str) -> Result<String> {
    let input = json!({
        "DocumentName": "AWS-RunShellScript",
        "InstanceIds": [node],
        "Parameters": {"commands": [script]},
    });
    let output = api.call("SendCommand", input).await?;
    let command_id = output["Command"]["CommandId"].as_str();
    Ok(command_id
        .context("SendCommand's answer names no command")?
        .to_owned())
}

/// One look at an invocation.
async fn invocation(api: &Api, node: &str, command_id: &str) -> Result<Value> {
    let input = json!({"CommandId": command_id, "InstanceId": node});
    api.call("GetCommandInvocation", input).await
}

/// Waits for the final status of a command on a node, and returns the invocation.
///
/// # Errors
/// It has none in time.
pub async fn finished(api: &Api, node: &str, command_id: &str) -> Result<Value> {
    let what = format!("command {command_id} to end");
    wait_for(&what, COMMAND_PATIENCE, async || {
        let invocation = invocation(api, node, command_id).await?;
        let is_final = matches!(
            invocation["Status"].as_str(),
            Some("Success" | "Failed" | "Cancelled" | "TimedOut")
        );
        Ok(is_final.then_some(invocation))
    })
    .await
}
