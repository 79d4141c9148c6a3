//! A network that is away for longer than anybody waits for an answer, and one that comes back as another.

use std::{net::Ipv4Addr, time::Duration};

use anyhow::{Result, ensure};
use moorline_tests::{Cable, Cli, Endpoint, Node, Terminal, wait_until};
use tokio::time::{Instant, sleep_until};

use crate::connection_cut::{COUNTED_LINES, cabled, check_counted, count_slowly};

/// How long the network is away. `MOORLINE_SOAK` multiplies it, up to what sessions are promised to survive.
const LOSS: Duration = Duration::from_secs(15);
const LONGEST_LOSS: Duration = Duration::from_secs(240);
/// Lines that the counting sessions write in a second, at most.
const LINES_PER_SECOND: u32 = 20;

/// What is typed keeps count of itself: a line that comes twice, or out of its turn, says so.
const NEXT: &str = "n=0; next() { n=$((n+1)); [ $n = $1 ] || echo out-of-order-$1; }\n";

/// What happens to a network.
#[derive(Debug, Clone, Copy)]
enum Loss {
    /// Connections end, and new ones are refused.
    Unplugged,
    /// Nobody is told anything.
    Silent,
}

impl Loss {
    fn begin(self, cable: &Cable) {
        match self {
            Self::Unplugged => cable.unplug(),
            Self::Silent => cable.stall(true),
        }
    }

    fn end(self, cable: &Cable) {
        match self {
            Self::Unplugged => cable.plug_in(),
            Self::Silent => cable.stall(false),
        }
    }
}

/// A session one side of which will lose its network.
struct Doomed {
    loss: Loss,
    cable: Cable,
    terminal: Terminal,
    /// Of the session alone, where its node is the side.
    _node: Option<Node>,
}

async fn doomed_client(endpoint: &Endpoint, node: &Node, loss: Loss) -> Result<Doomed> {
    let cable = Cable::to(endpoint.address()).await?;
    let terminal = Cli::of(endpoint).through(&cable.url()).shell(node.id()).await?;
    Ok(Doomed {
        loss,
        cable,
        terminal,
        _node: None,
    })
}

async fn doomed_node(endpoint: &Endpoint, loss: Loss) -> Result<Doomed> {
    let cable = Cable::to(endpoint.address()).await?;
    let mut node = Node::register_through(endpoint, &cable.url(), &[]).await?;
    node.start().await?;
    let terminal = Cli::of(endpoint).shell(node.id()).await?;
    Ok(Doomed {
        loss,
        cable,
        terminal,
        _node: Some(node),
    })
}

#[tokio::test]
async fn a_network_that_is_away_on_either_side_costs_no_byte_and_types_nothing_twice() -> Result<()> {
    let soak = std::env::var("MOORLINE_SOAK")
        .ok()
        .and_then(|soak| soak.parse().ok());
    let away = (LOSS * soak.unwrap_or(1)).min(LONGEST_LOSS);
    let endpoint = Endpoint::start().await?;
    let mut node = Node::register(&endpoint, &[]).await?;
    node.start().await?;
    let mut sessions = [
        doomed_client(&endpoint, &node, Loss::Unplugged).await?,
        doomed_client(&endpoint, &node, Loss::Silent).await?,
        doomed_node(&endpoint, Loss::Unplugged).await?,
        doomed_node(&endpoint, Loss::Silent).await?,
    ];
    // there is output before the loss, all the time, and after it
    let lines = (u32::try_from(away.as_secs())? + 4) * LINES_PER_SECOND;
    let pause = 1.0 / f64::from(LINES_PER_SECOND);
    let count = format!("i=0; while [ $i -lt {lines} ]; do i=$((i+1)); echo $i; sleep {pause}; done");
    for session in &mut sessions {
        session
            .terminal
            .send(&format!("{NEXT}{count}; echo end-of-''count\n"))?;
    }
    for session in &mut sessions {
        session.terminal.expect("\r\n10\r\n").await?;
        session.loss.begin(&session.cable);
        (1..=5).try_for_each(|number| session.terminal.send(&format!("next {number}\n")))?;
    }
    // the time that passes is what is tested
    sleep_until(Instant::now() + away).await;
    for session in &mut sessions {
        (6..=10).try_for_each(|number| session.terminal.send(&format!("next {number}\n")))?;
        session.loss.end(&session.cable);
    }
    for session in &mut sessions {
        check_counted(&mut session.terminal, lines).await?;
        session.terminal.send("echo count-is-$n; exit 12\n")?;
        session.terminal.expect("count-is-10").await?;
        let text = session.terminal.text();
        ensure!(!text.contains("out-of-order"), "{:?}: {text}", session.loss);
        ensure!(session.terminal.wait().await? == 12, "{:?}: {text}", session.loss);
    }
    Ok(())
}

#[tokio::test]
async fn a_session_follows_its_client_and_its_node_to_other_addresses() -> Result<()> {
    let site = cabled().await?;
    let mut terminal = site.cli.shell(site.node.id()).await?;
    terminal.send(NEXT)?;
    count_slowly(&mut terminal)?;
    for (number, mark) in (1..=4).zip([200, 500, 800, 1100]) {
        terminal.expect(&format!("\r\n{mark}\r\n")).await?;
        site.of_client.move_to(Ipv4Addr::new(127, 0, 1, number));
        site.of_node.move_to(Ipv4Addr::new(127, 0, 2, number));
        terminal.send(&format!("next {number}\n"))?;
    }
    check_counted(&mut terminal, COUNTED_LINES).await?;
    terminal.send("echo count-is-$n; exit 13\n")?;
    terminal.expect("count-is-4").await?;
    ensure!(!terminal.text().contains("out-of-order"), "{}", terminal.text());
    ensure!(terminal.wait().await? == 13, "{}", terminal.text());
    // the node's control channel comes back after a pause
    wait_until("the cables to be used", async || {
        Ok(site.of_client.connections() + site.of_node.connections() > 0)
    })
    .await
}
