//! The reboot that a step asks for by exit code 194.

use std::{process::Stdio, time::Duration};

use tokio::{io::AsyncReadExt, process::Command, time::timeout};

/// How long the program may take to arrange the reboot.
const PATIENCE: Duration = Duration::from_secs(60);
/// What it says is shown when it fails.
const MAX_SAID_BYTES: u64 = 2_000;

/// Has the node rebooted by the owner's command. The program only arranges it: it is to return before the machine
/// goes down.
///
/// # Errors
/// There will be no reboot; the text says why.
pub(super) async fn reboot(command: &[String]) -> Result<(), String> {
    let Some((program, arguments)) = command.split_first() else {
        return Err(
            "the step asks for a reboot, and this node's settings allow none (command.reboot_command)"
                .to_owned(),
        );
    };
    let failed =
        |reason: String| format!("the step asks for a reboot, and {program} did not arrange it: {reason}");
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| failed(error.to_string()))?;
    let ended = timeout(PATIENCE, async {
        let mut said = Vec::new();
        if let Some(stderr) = child.stderr.take() {
            // Without its words the exit status still says enough.
            drop(stderr.take(MAX_SAID_BYTES).read_to_end(&mut said).await);
        }
        (child.wait().await, said)
    });
    match ended.await {
        Ok((Ok(status), _)) if status.success() => Ok(()),
        Ok((Ok(status), said)) => Err(failed(format!(
            "{status} {}",
            String::from_utf8_lossy(&said).trim()
        ))),
        Ok((Err(error), _)) => Err(failed(error.to_string())),
        Err(_) => Err(failed(format!("it did not end within {} s", PATIENCE.as_secs()))),
    }
}
