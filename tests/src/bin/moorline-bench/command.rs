//! Run Command: from the call to a terminal status in the API.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use moorline_ssm::command::{
    GetCommandInvocation, GetCommandInvocationRequest, SendCommand, SendCommandRequest,
};
use moorline_tests::{Endpoint, Node};

use crate::{
    client::api,
    report::{Bound, Report},
};

const COMMANDS: usize = 200;

pub(crate) async fn round_trip(report: &mut Report, endpoint: &Endpoint, node: &Node) -> Result<()> {
    let what = "SendCommand of `true` to terminal status in the API";
    if !(report.wants(what) || report.wants("commands of a node")) {
        return Ok(());
    }
    let client = api(endpoint);
    let credentials = Some(endpoint.api().credentials());
    let mut samples = Vec::new();
    for _ in 0..COMMANDS {
        let began = Instant::now();
        let input = SendCommandRequest {
            document_name: Some("AWS-RunShellScript".to_owned()),
            instance_ids: Some(vec![node.id().to_owned()]),
            parameters: Some([("commands".to_owned(), vec!["true".to_owned()])].into()),
            ..Default::default()
        };
        let sent = client.call::<SendCommand>(credentials, &input).await?;
        let command_id = sent
            .command
            .and_then(|command| command.command_id)
            .context("no command id")?;
        let ask = GetCommandInvocationRequest {
            command_id: Some(command_id),
            instance_id: Some(node.id().to_owned()),
            ..Default::default()
        };
        loop {
            let state = client.call::<GetCommandInvocation>(credentials, &ask).await?;
            let status = state.status.context("no status")?;
            if !matches!(status.as_str(), "Pending" | "InProgress" | "Delayed") {
                ensure!(
                    status.as_str() == "Success",
                    "the command ended {}",
                    status.as_str()
                );
                break;
            }
            // What a careful poller does: the endpoint's cores are ours too.
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
        samples.push(began.elapsed().as_secs_f64() * 1000.0);
    }
    #[expect(clippy::cast_precision_loss, reason = "some hundred commands")]
    let rate = samples.len() as f64 * 1000.0 / samples.iter().sum::<f64>();
    report.row(
        "commands of a node, one after another",
        "/s",
        Bound::AtLeast(20.0),
        0.5,
        vec![rate],
    );
    report.row(
        &format!("{what} (median)"),
        "ms",
        Bound::AtMost(30.0),
        0.5,
        samples.clone(),
    );
    report.row(
        &format!("{what} (p99)"),
        "ms",
        Bound::AtMost(100.0),
        0.99,
        samples,
    );
    Ok(())
}
