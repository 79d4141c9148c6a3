//! A cut, a stalled or a missing connection on either side of the endpoint.

use std::{process::Stdio, time::Duration};

use anyhow::{Context, Result, ensure};
use moorline_tests::{Cable, Cli, Endpoint, Node, PATIENCE, Terminal, WorkerKind, wait_for, wait_until};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    time::timeout,
};

/// Lines of the counting sessions.
pub(crate) const COUNTED_LINES: u32 = 1500;

/// Lets the shell count to [`COUNTED_LINES`] slowly enough that there is a middle to cut in.
pub(crate) fn count_slowly(terminal: &mut Terminal) -> Result<()> {
    let script = format!(
        "i=0; while [ $i -lt {COUNTED_LINES} ]; do i=$((i+1)); echo $i; [ $((i % 20)) = 0 ] && sleep 0.05; done; echo end-of-''count\n"
    );
    terminal.send(&script)
}

/// Waits for the end of the count, and checks that each number came once and in order.
pub(crate) async fn check_counted(terminal: &mut Terminal, lines: u32) -> Result<()> {
    terminal
        .expect_within("end-of-count", Duration::from_secs(120))
        .await?;
    let text = terminal.text();
    let (_, output) = text
        .split_once("\r\n1\r\n")
        .context("it did not begin to count")?;
    let (output, _) = output.split_once("end-of-count").unwrap_or_default();
    let mut expected = 2;
    for line in output.lines() {
        ensure!(
            line == expected.to_string(),
            "after {} came {line:?}",
            expected - 1
        );
        expected += 1;
    }
    ensure!(expected == lines + 1, "it ended after {}", expected - 1);
    Ok(())
}

/// An endpoint, and a node and an operator who reach it by a cable each.
pub(crate) struct Cabled {
    pub(crate) cli: Cli,
    pub(crate) node: Node,
    pub(crate) of_client: Cable,
    pub(crate) of_node: Cable,
    pub(crate) endpoint: Endpoint,
}

pub(crate) async fn cabled() -> Result<Cabled> {
    let endpoint = Endpoint::start().await?;
    let of_node = Cable::to(endpoint.address()).await?;
    let of_client = Cable::to(endpoint.address()).await?;
    let mut node = Node::register_through(&endpoint, &of_node.url(), &[]).await?;
    node.start().await?;
    Ok(Cabled {
        cli: Cli::of(&endpoint).through(&of_client.url()),
        node,
        of_client,
        of_node,
        endpoint,
    })
}

#[tokio::test]
async fn a_session_survives_cuts_at_the_client() -> Result<()> {
    let site = cabled().await?;
    let mut terminal = site.cli.shell(site.node.id()).await?;
    ensure!(
        site.of_client.connections() > 0,
        "the session does not use the cable"
    );
    count_slowly(&mut terminal)?;
    for mark in ["\r\n200\r\n", "\r\n600\r\n", "\r\n1000\r\n"] {
        terminal.expect(mark).await?;
        site.of_client.cut();
    }
    check_counted(&mut terminal, COUNTED_LINES).await?;
    terminal.send("exit 5\n")?;
    ensure!(terminal.wait().await? == 5, "{}", terminal.text());
    Ok(())
}

/// Its exit code is a message as well, and its program does not run twice.
#[tokio::test]
async fn a_command_without_a_terminal_survives_cuts_on_both_sides() -> Result<()> {
    let site = cabled().await?;
    let script = format!(
        "i=0; while [ $i -lt {COUNTED_LINES} ]; do i=$((i+1)); echo $i; [ $((i % 20)) = 0 ] && sleep 0.05; done; exit 5"
    );
    let mut client = site
        .cli
        .command(&["shell", site.node.id(), "--", &script])?
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    let mut lines = BufReader::new(client.stdout.take().context("it has a standard output")?).lines();
    for expected in 1..=COUNTED_LINES {
        let line = timeout(PATIENCE, lines.next_line()).await??;
        ensure!(line == Some(expected.to_string()), "{line:?} came for {expected}");
        match expected {
            200 | 600 | 1400 => {
                site.of_client.cut();
            }
            400 | 1000 | 1401 => {
                site.of_node.cut();
            }
            _ => {}
        }
    }
    let status = timeout(PATIENCE, client.wait()).await??;
    ensure!(status.code() == Some(5), "{status}");
    site.node.wait_workers(WorkerKind::Session, 0).await?;
    Ok(())
}

#[tokio::test]
async fn a_session_survives_cuts_at_the_node() -> Result<()> {
    let site = cabled().await?;
    let mut terminal = site.cli.shell(site.node.id()).await?;
    count_slowly(&mut terminal)?;
    for mark in ["\r\n200\r\n", "\r\n600\r\n", "\r\n1000\r\n"] {
        terminal.expect(mark).await?;
        site.of_node.cut();
    }
    check_counted(&mut terminal, COUNTED_LINES).await?;
    terminal.send("exit 5\n")?;
    ensure!(terminal.wait().await? == 5, "{}", terminal.text());
    let expected: Vec<String> = (1..=COUNTED_LINES).map(|number| number.to_string()).collect();
    wait_until("the whole transcript", async || {
        let text = site
            .cli
            .run(&["transcript", "text", "--no-time"])
            .await?
            .success()?
            .stdout;
        let counted: Vec<&str> = text.lines().filter(|line| line.parse::<u32>().is_ok()).collect();
        ensure!(
            counted == expected,
            "{} lines are in the transcript",
            counted.len()
        );
        Ok(true)
    })
    .await
}

#[tokio::test]
async fn a_session_survives_when_both_sides_are_cut_at_once() -> Result<()> {
    let site = cabled().await?;
    let mut terminal = site.cli.shell(site.node.id()).await?;
    count_slowly(&mut terminal)?;
    for mark in ["\r\n300\r\n", "\r\n900\r\n"] {
        terminal.expect(mark).await?;
        site.of_node.cut();
        site.of_client.cut();
    }
    check_counted(&mut terminal, COUNTED_LINES).await?;
    Ok(())
}

#[tokio::test]
async fn a_flood_of_output_survives_cuts() -> Result<()> {
    const LINES: u32 = 100_000;
    let site = cabled().await?;
    let mut terminal = site.cli.shell(site.node.id()).await?;
    terminal.send(&format!("seq 1 {LINES}; echo end-of-''count\n"))?;
    for (mark, cable) in [
        ("\r\n1000\r\n", &site.of_client),
        ("\r\n30000\r\n", &site.of_node),
        ("\r\n60000\r\n", &site.of_client),
    ] {
        terminal.expect(mark).await?;
        cable.cut();
    }
    check_counted(&mut terminal, LINES).await
}

#[tokio::test]
async fn what_is_typed_while_the_client_is_cut_off_arrives_once() -> Result<()> {
    let site = cabled().await?;
    let mut terminal = site.cli.shell(site.node.id()).await?;
    site.of_client.unplug();
    for number in 1..=20 {
        terminal.send(&format!("echo typed-{number}-$((1+1))\n"))?;
    }
    site.of_client.plug_in();
    terminal.expect("typed-20-2").await?;
    let text = terminal.text();
    for number in 1..=20 {
        let line = format!("typed-{number}-2\r\n");
        ensure!(
            text.matches(&line).count() == 1 || number == 20,
            "{line:?}: {text:?}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn a_session_survives_a_path_that_stands_still() -> Result<()> {
    let site = cabled().await?;
    let mut terminal = site.cli.shell(site.node.id()).await?;
    site.of_node.stall(true);
    terminal.send("echo held-''back\n")?;
    ensure!(
        terminal
            .expect_within("held-back", Duration::from_secs(3))
            .await
            .is_err(),
        "nothing was held back"
    );
    site.of_node.stall(false);
    terminal.expect("held-back").await?;
    ensure!(
        terminal.text().matches("held-back").count() == 1,
        "{}",
        terminal.text()
    );
    // and a long way
    site.of_client.delay(Duration::from_millis(200));
    terminal.send("echo far-''away; exit 2\n")?;
    terminal.expect("far-away").await?;
    ensure!(terminal.wait().await? == 2);
    Ok(())
}

#[tokio::test]
async fn a_result_waits_until_the_node_is_plugged_in_again() -> Result<()> {
    let site = cabled().await?;
    let api = site.endpoint.api();
    let go = site.node.dir().join("go");
    let script = format!("until [ -e {} ]; do sleep 0.05; done; echo kept", go.display());
    let command = moorline_tests::send_script(api, site.node.id(), &script).await?;
    site.node.wait_workers(WorkerKind::Command, 1).await?;
    site.of_node.unplug();
    std::fs::File::create(&go)?;
    site.node.wait_workers(WorkerKind::Command, 0).await?;
    wait_until("the endpoint to notice", async || {
        let status = api
            .call(
                "GetConnectionStatus",
                serde_json::json!({"Target": site.node.id()}),
            )
            .await?;
        Ok(status["Status"] == "notconnected")
    })
    .await?;
    site.of_node.plug_in();
    let invocation = moorline_tests::finished(api, site.node.id(), &command).await?;
    ensure!(invocation["StandardOutputContent"] == "kept\n", "{invocation}");
    Ok(())
}

#[tokio::test]
async fn commands_run_once_however_often_their_nodes_connection_is_cut() -> Result<()> {
    let site = cabled().await?;
    let api = site.endpoint.api();
    let count = site.node.dir().join("count");
    let mut commands = Vec::new();
    for number in 0..12 {
        // between delivery and acknowledgement, between result and acknowledgement: the byte count says when
        let carried = site.of_node.bytes();
        let script = format!("echo {number} >> {}", count.display());
        commands.push(moorline_tests::send_script(api, site.node.id(), &script).await?);
        let until = carried + 400 * number;
        let soon = Duration::from_secs(1);
        let _at_the_latest_then = wait_for("bytes on the cable", soon, async || {
            Ok((site.of_node.bytes() >= until).then_some(()))
        })
        .await;
        site.of_node.cut();
    }
    for command in &commands {
        let invocation = moorline_tests::finished(api, site.node.id(), command).await?;
        ensure!(invocation["Status"] == "Success", "{invocation}");
    }
    let text = std::fs::read_to_string(&count)?;
    let mut ran: Vec<u32> = text.lines().map(str::parse).collect::<Result<_, _>>()?;
    ran.sort_unstable();
    ensure!(ran == (0..12).collect::<Vec<_>>(), "{ran:?}");
    Ok(())
}

#[tokio::test]
async fn a_client_that_dies_leaves_a_session_that_can_be_terminated() -> Result<()> {
    let site = cabled().await?;
    let mut terminal = site.cli.shell(site.node.id()).await?;
    terminal.kill().await?;
    let api = site.endpoint.api();
    let sessions = api
        .call("DescribeSessions", serde_json::json!({"State": "Active"}))
        .await?;
    let session = sessions["Sessions"][0]["SessionId"]
        .as_str()
        .context("no session")?;
    api.call("TerminateSession", serde_json::json!({"SessionId": session}))
        .await?;
    site.node.wait_workers(WorkerKind::Session, 0).await?;
    Ok(())
}
