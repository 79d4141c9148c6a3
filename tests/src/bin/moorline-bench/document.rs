//! Documents: their planning, and what a step costs that prints without end.

use std::{fs, time::Instant};

use anyhow::{Context, Result, ensure};
use moorline_protocol::document::{CommandDocument, MAX_CONTENT_BYTES, Platform, read_text, write_yaml};
use moorline_tests::{Endpoint, Node, WorkerKind, finished, send_script, wait_until};
use serde_json::{Map, Value, json};

use crate::{
    footprint::{REST, memory, peak_memory},
    report::{Bound, Report},
};

const PLANS: usize = 200;
const PRINTED: u64 = 1_000_000_000;

/// As large as a document may be, with parameters in each of its steps.
fn large() -> Result<String> {
    let parameters: Map<String, Value> = (0..20)
        .map(|number| {
            (
                format!("P{number}"),
                json!({"type": "String", "default": "value", "allowedPattern": "^[a-z]*$"}),
            )
        })
        .collect();
    let step = |number: usize| {
        json!({"action": "aws:runShellScript", "name": format!("step-{number}"),
            "precondition": {"StringEquals": ["platformType", "Linux"]},
            "inputs": {"timeoutSeconds": "60", "runCommand": [
                format!("echo {{{{ P{} }}}} and {{{{P{}}}}}", number % 20, (number + 1) % 20), "true # a line of a script"]}})
    };
    let mut steps = Vec::new();
    let mut text = String::new();
    loop {
        steps.push(step(steps.len()));
        let longer =
            json!({"schemaVersion": "2.2", "parameters": parameters, "mainSteps": steps}).to_string();
        if longer.len() > MAX_CONTENT_BYTES {
            break;
        }
        text = longer;
    }
    ensure!(
        MAX_CONTENT_BYTES - text.len() < 1000,
        "the document has {} bytes",
        text.len()
    );
    Ok(text)
}

/// From the text to the steps that run.
pub(crate) fn planning(report: &mut Report) -> Result<()> {
    let what = "planning of a document of 64 KiB, from JSON";
    let yaml = "planning of a document of 64 KiB, from YAML";
    if !(report.wants(what) || report.wants(yaml)) {
        return Ok(());
    }
    let platform = Platform {
        platform_type: "Linux",
        handled_actions: &["aws:runShellScript"],
    };
    let text = large()?;
    let plan = |text: &str| -> Result<f64> {
        let began = Instant::now();
        let document = CommandDocument::parse(&read_text(text)?)?;
        let steps = document.plan(&Map::new(), platform)?;
        let took = began.elapsed();
        ensure!(!steps.is_empty());
        Ok(took.as_secs_f64() * 1000.0)
    };
    let samples = (0..PLANS).map(|_| plan(&text)).collect::<Result<_>>()?;
    report.row(what, "ms", Bound::AtMost(2.0), 0.5, samples);
    let text = write_yaml(&read_text(&text)?);
    let samples = (0..PLANS).map(|_| plan(&text)).collect::<Result<_>>()?;
    report.row(yaml, "ms", Bound::AtMost(2.0), 0.5, samples);
    Ok(())
}

/// A worker while its script waits, and both processes after a script has printed a gigabyte.
pub(crate) async fn memory_of_steps(report: &mut Report, endpoint: &Endpoint, node: &Node) -> Result<()> {
    let idle = "worker of a command, resident";
    let worker = "worker whose step has printed 1 GB, resident at most";
    let daemon = "agent daemon beside it, resident";
    if !(report.wants(idle) || report.wants(worker) || report.wants(daemon)) {
        return Ok(());
    }
    let (done, go) = (node.dir().join("done"), node.dir().join("go"));
    let wait = format!(
        "touch {}; until [ -e {} ]; do sleep 0.02; done",
        done.display(),
        go.display()
    );
    for (script, is_bulk) in [
        (wait.clone(), false),
        (
            format!("head -c {PRINTED} /dev/zero | tr '\\0' x; {wait}; printf THE-END"),
            true,
        ),
    ] {
        let command = send_script(endpoint.api(), node.id(), &script).await?;
        wait_until("the script to wait", async || Ok(done.exists())).await?;
        let workers = node.wait_workers(WorkerKind::Command, 1).await?;
        let pid = *workers.first().context("no worker")?;
        let daemon_pid = node.daemon_pid().context("the daemon does not run")?;
        // as sessions, a command that takes its time gives back what its start needed
        tokio::time::sleep(REST).await;
        match is_bulk {
            false => report.row(idle, "MB", Bound::AtMost(6.0), 0.5, vec![memory(pid)?.resident]),
            true => {
                report.row(worker, "MB", Bound::AtMost(12.0), 0.5, vec![peak_memory(pid)?]);
                report.row(
                    daemon,
                    "MB",
                    Bound::AtMost(12.0),
                    0.5,
                    vec![memory(daemon_pid)?.resident],
                );
            }
        }
        fs::File::create(&go)?;
        let ended = finished(endpoint.api(), node.id(), &command).await?;
        let output = ended["StandardOutputContent"].as_str().unwrap_or_default();
        ensure!(
            ended["Status"] == "Success" && (!is_bulk || output.ends_with("xTHE-END")),
            "the end of the output is not what was printed: {ended}"
        );
        fs::remove_file(&go)?;
        fs::remove_file(&done)?;
    }
    Ok(())
}
