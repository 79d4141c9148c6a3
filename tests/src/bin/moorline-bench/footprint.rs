//! What it weighs: binaries, memory, the time to come online.

use std::{fs, time::Duration, time::Instant};

use anyhow::{Context, Result, bail};
use moorline_ssm::node::{
    DescribeInstanceInformation, DescribeInstanceInformationRequest, GetConnectionStatus,
    GetConnectionStatusRequest,
};
use moorline_tests::{CapturedRun, Endpoint, Node, StockAgent, WorkerKind};
use moorline_transport::ApiClient;

use crate::{
    client::{Session, api},
    report::{Bound, Report},
};

const STARTS: usize = 10;
/// Simulated agents, each with a control channel of its own over TLS.
const AGENTS: usize = 300;
const FIRST_AGENTS: usize = 30;
/// Sessions of one node, each a worker there.
const SESSIONS: usize = 60;
const FIRST_SESSIONS: usize = 10;
/// An agent at rest: nothing but pings for this long.
pub(crate) const REST: Duration = Duration::from_secs(5);

/// The packaged agent lies beside our own profile's folder.
pub(crate) fn binary_size(report: &mut Report) -> Result<()> {
    let what = "agent binary in the packaging profile";
    if !report.wants(what) {
        return Ok(());
    }
    let here = std::env::current_exe()?;
    let path = here
        .ancestors()
        .nth(2)
        .context("no target directory")?
        .join("dist/moorline-agent");
    match fs::metadata(&path) {
        Ok(metadata) => report.row(
            what,
            "MB",
            Bound::AtMost(10.0),
            0.5,
            vec![megabytes(metadata.len())],
        ),
        Err(_) => report.missing(
            what,
            "build it with `cargo build --profile dist -p moorline-agent`",
        ),
    }
    Ok(())
}

pub(crate) async fn start_to_online(report: &mut Report, endpoint: &Endpoint, node: &mut Node) -> Result<()> {
    let what = "agent start to online (median)";
    let client = api(endpoint);
    let mut samples = Vec::new();
    for run in 0..STARTS {
        if run > 0 {
            node.kill_daemon().await?;
            node.wait_offline().await?;
        }
        let began = Instant::now();
        node.launch()?;
        while !is_online(&client, endpoint, node.id()).await? {
            if began.elapsed() > Duration::from_secs(20) {
                bail!("the node does not come online: {}", node.log());
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        samples.push(began.elapsed().as_secs_f64() * 1000.0);
        if !report.wants(what) {
            return Ok(());
        }
    }
    report.row(what, "ms", Bound::AtMost(300.0), 0.5, samples);
    Ok(())
}

/// Its control channel stands, and it is listed as online.
async fn is_online(client: &ApiClient, endpoint: &Endpoint, node: &str) -> Result<bool> {
    let credentials = Some(endpoint.api().credentials());
    let ask = GetConnectionStatusRequest {
        target: Some(node.to_owned()),
    };
    let channel = client.call::<GetConnectionStatus>(credentials, &ask).await?;
    if channel.status.is_none_or(|status| status.as_str() != "connected") {
        return Ok(false);
    }
    let listed = client
        .call::<DescribeInstanceInformation>(credentials, &DescribeInstanceInformationRequest::default())
        .await?;
    Ok(listed
        .instance_information_list
        .into_iter()
        .flatten()
        .any(|known| {
            known.instance_id.as_deref() == Some(node)
                && known
                    .ping_status
                    .is_some_and(|status| status.as_str() == "Online")
        }))
}

pub(crate) async fn idle_memory(report: &mut Report, endpoint: &Endpoint, node: &Node) -> Result<()> {
    let daemon = "agent daemon idle, resident";
    let worker = "worker of an idle session, resident";
    let private = "worker of an idle session, private";
    if !(report.wants(daemon) || report.wants(worker) || report.wants(private)) {
        return Ok(());
    }
    let client = api(endpoint);
    // Two of them: what both have of the program's text is no cost of either.
    let mut sessions = Vec::new();
    for _ in 0..2 {
        let mut session = Session::start(&client, endpoint, node.id(), "sh").await?;
        session.output().await?;
        sessions.push(session);
    }
    tokio::time::sleep(REST).await;
    let pid = node.daemon_pid().context("the daemon does not run")?;
    report.row(
        daemon,
        "MB",
        Bound::AtMost(10.0),
        0.5,
        vec![memory(pid)?.resident],
    );
    let workers = node.wait_workers(WorkerKind::Session, sessions.len()).await?;
    let of_workers = workers.into_iter().map(memory).collect::<Result<Vec<_>>>()?;
    let each = |part: fn(&Memory) -> f64| of_workers.iter().map(part).collect();
    report.row(
        worker,
        "MB",
        Bound::AtMost(6.0),
        1.0,
        each(|memory| memory.resident),
    );
    report.row(
        private,
        "MB",
        Bound::AtMost(2.0),
        1.0,
        each(|memory| memory.private),
    );
    for session in sessions {
        session.end(&client, endpoint).await?;
    }
    Ok(())
}

pub(crate) async fn memory_per_idle_agent(report: &mut Report) -> Result<()> {
    let what = "control endpoint, memory per idle agent";
    if !report.wants(what) {
        return Ok(());
    }
    let endpoint = Endpoint::start().await?;
    let pid = endpoint.pid().context("the endpoint does not run")?;
    let captured = CapturedRun::read("agent-run-a.jsonl")?;
    let mut agents = Vec::new();
    for _ in 0..FIRST_AGENTS + AGENTS {
        let mut agent = StockAgent::register(
            &endpoint,
            captured.operation("AmazonSSM.RegisterManagedInstance")?,
        )
        .await?;
        agent
            .fetch_role_token(captured.operation("AmazonSSM.RequestManagedInstanceRoleToken")?)
            .await?;
        agents.push(agent);
    }
    let post = captured
        .requests
        .iter()
        .find(|request| request.method == "POST" && request.uri.starts_with("/v1/control-channel/"))
        .context("the captured run has no control channel")?;
    let mut channels = Vec::new();
    let mut before = 0.0;
    for (index, agent) in agents.iter().enumerate() {
        // The first channels pay for what all share.
        if index == FIRST_AGENTS {
            tokio::time::sleep(REST).await;
            before = memory(pid)?.resident;
        }
        channels.push(agent.open_control_channel(post).await?);
    }
    tokio::time::sleep(REST).await;
    let after = memory(pid)?.resident;
    #[expect(clippy::cast_precision_loss, reason = "some hundred agents")]
    let each = (after - before) * 1e6 / 1024.0 / AGENTS as f64;
    report.row(what, "KB", Bound::AtMost(40.0), 0.5, vec![each]);
    drop(channels);
    Ok(())
}

pub(crate) async fn memory_per_idle_session(
    report: &mut Report,
    endpoint: &Endpoint,
    node: &Node,
) -> Result<()> {
    let what = "control endpoint, memory per open idle session";
    if !report.wants(what) {
        return Ok(());
    }
    let pid = endpoint.pid().context("the endpoint does not run")?;
    let client = api(endpoint);
    let mut sessions = Vec::new();
    let mut before = 0.0;
    for index in 0..FIRST_SESSIONS + SESSIONS {
        if index == FIRST_SESSIONS {
            tokio::time::sleep(REST).await;
            before = memory(pid)?.resident;
        }
        let mut session = Session::start(&client, endpoint, node.id(), "sh").await?;
        session.output().await?;
        sessions.push(session);
    }
    tokio::time::sleep(REST).await;
    let after = memory(pid)?.resident;
    #[expect(clippy::cast_precision_loss, reason = "some dozen sessions")]
    let each = (after - before) * 1e6 / 1024.0 / SESSIONS as f64;
    report.row(what, "KB", Bound::AtMost(100.0), 0.5, vec![each]);
    for session in sessions {
        session.end(&client, endpoint).await?;
    }
    Ok(())
}

/// The most that the process ever had, in megabytes.
pub(crate) fn peak_memory(pid: i32) -> Result<f64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).context("the process is gone")?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kilobytes: f64 = line
        .and_then(|rest| rest.split_whitespace().next()?.parse().ok())
        .context("no VmHWM")?;
    Ok(kilobytes * 1024.0 / 1e6)
}

pub(crate) struct Memory {
    /// Megabytes.
    pub(crate) resident: f64,
    /// Megabytes that no other process shares.
    private: f64,
}

pub(crate) fn memory(pid: i32) -> Result<Memory> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).context("the process is gone")?;
    let kilobytes = |name: &str| -> f64 {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|rest| {
            rest.trim_start_matches(':')
                .split_whitespace()
                .next()?
                .parse()
                .ok()
        })
        .unwrap_or(0.0)
    };
    Ok(Memory {
        resident: kilobytes("Rss") * 1024.0 / 1e6,
        private: (kilobytes("Private_Clean") + kilobytes("Private_Dirty")) * 1024.0 / 1e6,
    })
}

fn megabytes(bytes: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "a size below 2^52")]
    let bytes = bytes as f64;
    bytes / 1e6
}
