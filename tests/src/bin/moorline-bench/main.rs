//! Measures every bound that the README promises, with real processes on loopback, and prints bound and measurement
//! side by side. A bound that fails ends the run with exit code 1.

mod client;
mod command;
mod document;
mod fleet;
mod footprint;
mod forward;
mod recording;
mod report;
mod session;
mod tls_relay;
mod verify;

use std::process::ExitCode;

use anyhow::Result;
use moorline_tests::{Endpoint, Node};

use report::Report;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<ExitCode> {
    let only: Vec<String> = std::env::args().skip(1).collect();
    let mut report = Report::new(only);
    footprint::binary_size(&mut report)?;
    verify::verify(&mut report).await?;
    verify::verify_audit(&mut report).await?;
    document::planning(&mut report)?;
    {
        let mut endpoint = Endpoint::start().await?;
        let mut node = Node::register(&endpoint, &[]).await?;
        footprint::start_to_online(&mut report, &endpoint, &mut node).await?;
        footprint::idle_memory(&mut report, &endpoint, &node).await?;
        command::round_trip(&mut report, &endpoint, &node).await?;
        document::memory_of_steps(&mut report, &endpoint, &node).await?;
        session::first_prompt(&mut report, &endpoint, &node).await?;
        session::keystroke(&mut report, &endpoint, &node).await?;
        session::throughput(&mut report, &endpoint, &node).await?;
        recording::cost(&mut report, &endpoint, &node).await?;
        recording::cost_of_command(&mut report, &endpoint, &node).await?;
        recording::strict(&mut report, &endpoint).await?;
        recording::long_output(&mut report, &endpoint, &node).await?;
        forward::forward(&mut report, &endpoint, &node).await?;
        footprint::memory_per_idle_session(&mut report, &endpoint, &node).await?;
        endpoint.check_alive()?;
    }
    footprint::memory_per_idle_agent(&mut report).await?;
    fleet::fleet(&mut report).await?;
    Ok(report.finish())
}
