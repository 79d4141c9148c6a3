//! A fleet of simulated nodes, each with a control channel of its own over TLS: how long a command for all of them takes.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use moorline_ssm::command::{
    Command, ListCommands, ListCommandsRequest, SendCommand, SendCommandRequest, Target,
};
use moorline_tests::{Endpoint, SimulatedFleet};
use moorline_transport::ApiClient;

use crate::{
    client::api,
    footprint,
    report::{Bound, Report},
};

/// Between two looks at a command.
const PAUSE: Duration = Duration::from_millis(5);
/// Nothing measured here takes longer.
const LIMIT: Duration = Duration::from_secs(300);

/// Commands that a fleet runs, one after the other.
const RUNS: usize = 5;

pub(crate) async fn fleet(report: &mut Report) -> Result<()> {
    for (nodes, first, all) in [(1000, Some(200.0), 2000.0), (10_000, None, 20_000.0)] {
        let what = format!("command to a fleet of {nodes} simulated nodes");
        let memory = format!("control endpoint with a fleet of {nodes}, most memory");
        if report.wants(&what) || report.wants(&memory) {
            let measured = measure(nodes).await?;
            if let Some(first) = first {
                let row = format!("{what}, first result");
                report.row(&row, "ms", Bound::AtMost(first), 0.5, measured.first_result);
            }
            let row = format!("{what}, all results");
            report.row(&row, "ms", Bound::AtMost(all), 0.5, measured.all_results);
            report.row(&memory, "MB", Bound::AtMost(700.0), 0.5, vec![measured.memory]);
        }
    }
    Ok(())
}

/// Times in milliseconds from the call of `SendCommand`, memory in megabytes.
struct Measured {
    first_result: Vec<f64>,
    all_results: Vec<f64>,
    memory: f64,
}

async fn measure(count: usize) -> Result<Measured> {
    let mut endpoint = Endpoint::start().await?;
    let pid = endpoint.pid().context("the endpoint does not run")?;
    let client = api(&endpoint);
    let mut fleet = SimulatedFleet::connect(&endpoint, count).await?;
    let mut measured = Measured {
        first_result: Vec::new(),
        all_results: Vec::new(),
        memory: 0.0,
    };
    for _ in 0..RUNS {
        let (first, all) = run_once(&endpoint, &client, count).await?;
        measured.first_result.push(first);
        measured.all_results.push(all);
        fleet.check_connected()?;
    }
    measured.memory = footprint::peak_memory(pid)?;
    endpoint.check_alive()?;
    Ok(measured)
}

/// One command to all: when the first result was in the API, and when the last was, in milliseconds.
async fn run_once(endpoint: &Endpoint, client: &ApiClient, count: usize) -> Result<(f64, f64)> {
    let credentials = Some(endpoint.api().credentials());
    let began = Instant::now();
    let input = SendCommandRequest {
        document_name: Some("AWS-RunShellScript".to_owned()),
        targets: Some(vec![Target {
            key: Some(format!("tag:{}", SimulatedFleet::TAG.0)),
            values: Some(vec![SimulatedFleet::TAG.1.to_owned()]),
        }]),
        parameters: Some([("commands".to_owned(), vec!["true".to_owned()])].into()),
        max_concurrency: Some("100%".to_owned()),
        ..Default::default()
    };
    let sent = client.call::<SendCommand>(credentials, &input).await?;
    let sent = sent.command.context("no command")?;
    ensure!(
        sent.target_count == Some(i32::try_from(count)?),
        "the command has {:?} targets",
        sent.target_count
    );
    let mut first = None;
    loop {
        let command = look(endpoint, client, &sent).await?;
        let elapsed = began.elapsed().as_secs_f64() * 1000.0;
        if command.completed_count.is_some_and(|completed| completed > 0) {
            first.get_or_insert(elapsed);
        }
        if command.completed_count == sent.target_count {
            let status = command.status.context("no status")?;
            ensure!(
                status.as_str() == "Success",
                "the command ended {}",
                status.as_str()
            );
            return Ok((first.unwrap_or(elapsed), elapsed));
        }
        ensure!(
            began.elapsed() < LIMIT,
            "{:?} of {count} nodes have ended",
            command.completed_count
        );
        tokio::time::sleep(PAUSE).await;
    }
}

async fn look(endpoint: &Endpoint, client: &ApiClient, sent: &Command) -> Result<Command> {
    let ask = ListCommandsRequest {
        command_id: sent.command_id.clone(),
        ..Default::default()
    };
    let listed = client
        .call::<ListCommands>(Some(endpoint.api().credentials()), &ask)
        .await?;
    listed.commands.into_iter().flatten().next().context("no command")
}
