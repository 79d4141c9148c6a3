//! Sessions that are taken over or watched while things go wrong.

use std::{
    ops::RangeInclusive,
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use moorline_tests::{PATIENCE, Site, Terminal, wait_until};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    process::{Child, ChildStdin},
    time::{sleep, timeout},
};

use crate::connection_cut::{COUNTED_LINES, cabled, check_counted, count_slowly};

const TAKEN_OVER: i32 = 255;

/// A client without a terminal, so that it can be fed and read as fast as it goes.
fn piped(site: &Site) -> Result<(Child, ChildStdin)> {
    let mut child = site
        .cli()
        .command(&["shell", site.node.id()])?
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let input = child.stdin.take().context("it has a standard input")?;
    Ok((child, input))
}

/// The end of a client whose session was taken: it says so.
async fn told_of_the_take_over(client: Child) -> Result<()> {
    let ended = timeout(PATIENCE, client.wait_with_output()).await??;
    let said = String::from_utf8_lossy(&ended.stderr);
    ensure!(
        ended.status.code() == Some(TAKEN_OVER),
        "{}: {said}",
        ended.status
    );
    ensure!(said.contains("taken over"), "{said}");
    Ok(())
}

#[tokio::test]
async fn a_client_that_floods_the_program_loses_the_session_without_a_gap_in_what_was_typed() -> Result<()> {
    let site = Site::start().await?;
    let typed = site.node.dir().join("typed");
    let (client, mut input) = piped(&site)?;
    input
        .write_all(format!("stty -echo; echo rea''dy; cat > {}\n", typed.display()).as_bytes())
        .await?;
    let lines =
        |numbers: RangeInclusive<usize>| -> String { numbers.map(|number| format!("{number}\n")).collect() };
    let flooding = tokio::spawn(async move {
        let mut last = 0;
        // until nobody takes it any more
        while input
            .write_all(lines(last + 1..=last + 1000).as_bytes())
            .await
            .is_ok()
        {
            last += 1000;
        }
    });
    let written = || std::fs::read(&typed).unwrap_or_default();
    wait_until("the flood to arrive", async || Ok(written().len() > 100_000)).await?;
    let mut other = site.cli().at_terminal(&["attach"])?;
    told_of_the_take_over(client).await?;
    timeout(PATIENCE, flooding).await??;
    // from here on its keys are the session's
    other.expect("cat >").await?;
    // ends the line that the other may have begun
    other.send("\nmi''ne\n\u{4}")?;
    other.send("echo ended-$((1+1)); exit 3\n")?;
    other.expect("ended-2").await?;
    ensure!(other.wait().await? == 3, "{}", other.text());
    let written = String::from_utf8(written())?;
    let (of_flood, rest) = written
        .split_once("\nmi''ne\n")
        .context("what the new client typed did not arrive")?;
    ensure!(rest.is_empty(), "{rest:?}");
    ensure!(
        lines(1..=of_flood.lines().count() + 1).starts_with(of_flood),
        "the flood has a gap: it ends with {:?}",
        of_flood.lines().last()
    );
    Ok(())
}

#[tokio::test]
async fn who_takes_a_flooding_program_over_sees_its_output_without_a_gap() -> Result<()> {
    const LAST: u32 = 300_000;
    let site = Site::start().await?;
    let (mut client, mut input) = piped(&site)?;
    input
        .write_all(format!("stty -echo; seq 1 {LAST}; echo end-of-''flood\n").as_bytes())
        .await?;
    let mut output = client.stdout.take().context("it has a standard output")?;
    let mut piece = vec![0; 64 * 1024];
    let mut seen = 0;
    while seen < 200_000 {
        seen += timeout(PATIENCE, output.read(&mut piece)).await??;
    }
    let mut other = site.cli().at_terminal(&["attach"])?;
    let drained = tokio::spawn(async move { tokio::io::copy(&mut output, &mut tokio::io::sink()).await });
    told_of_the_take_over(client).await?;
    drained.await??;
    other.expect("end-of-flood").await?;
    let text = other.text();
    let (flood, _) = text.split_once("end-of-flood").unwrap_or_default();
    let numbers: Vec<u32> = flood.lines().filter_map(|line| line.parse().ok()).collect();
    ensure!(numbers.last() == Some(&LAST), "it ends with {:?}", numbers.last());
    // the first line that is shown may be cut
    for pair in numbers.get(1..).unwrap_or_default().windows(2) {
        ensure!(pair[1] == pair[0] + 1, "after {} came {}", pair[0], pair[1]);
    }
    other.send("exit 4\n")?;
    ensure!(other.wait().await? == 4);
    Ok(())
}

/// Types numbered lines; the session itself notices one that is lost, doubled or out of its turn.
fn type_next(terminal: &mut Terminal, typed: &mut u32, count: u32) -> Result<()> {
    for _ in 0..count {
        *typed += 1;
        terminal.send(&format!("next {typed}\n"))?;
    }
    terminal.send(&format!("echo typed-''{typed}\n"))
}

/// Whoever asks for the session while the endpoint is away is refused, and asks again.
async fn attach_patiently(site: &Site, first: Terminal, shows: &str) -> Result<Terminal> {
    let mut client = first;
    let begun = Instant::now();
    while begun.elapsed() < PATIENCE {
        if client.expect(shows).await.is_ok() {
            return Ok(client);
        }
        client.wait().await?;
        client = site.cli().at_terminal(&["attach"])?;
    }
    bail!("no client got the session: {}", client.text())
}

#[tokio::test]
async fn a_take_over_and_a_killed_endpoint_lose_and_repeat_nothing_whatever_comes_first() -> Result<()> {
    let mut site = Site::start().await?;
    let mut terminal = site.cli().at_terminal(&["shell", site.node.id()])?;
    terminal
        .send("stty -echo; PS1=; n=0; next() { n=$((n+1)); [ $n = $1 ] || echo out-of-''order-$1; }\n")?;
    let mut typed = 0;
    // before the request, before it is answered, before the node knows, and after
    for millis in [0, 8, 16, 30, 60] {
        type_next(&mut terminal, &mut typed, 5)?;
        terminal.expect(&format!("typed-{typed}")).await?;
        let other = site.cli().at_terminal(&["attach"])?;
        // the moment of the kill is what differs
        sleep(Duration::from_millis(millis)).await;
        site.endpoint.kill().await?;
        site.endpoint.start_again().await?;
        let mut other = attach_patiently(&site, other, &format!("typed-{typed}")).await?;
        ensure!(terminal.wait().await? == TAKEN_OVER, "{}", terminal.text());
        type_next(&mut other, &mut typed, 5)?;
        other.expect(&format!("typed-{typed}")).await?;
        ensure!(
            !other.text().contains("out-of-order"),
            "after {millis} ms: {}",
            other.text()
        );
        terminal = other;
    }
    terminal.send("echo count-is-$n; exit 14\n")?;
    terminal.expect(&format!("count-is-{typed}")).await?;
    ensure!(terminal.wait().await? == 14, "{}", terminal.text());
    Ok(())
}

#[tokio::test]
async fn an_encrypted_session_is_taken_over_with_a_key_of_its_own() -> Result<()> {
    const DOCUMENT: &str = "EncryptedShell";
    let mut site = Site::start().await?;
    let content = json!({
        "schemaVersion": "1.0",
        "sessionType": "Standard_Stream",
        "inputs": {"kmsKeyId": "alias/moorline"},
    });
    let input = json!({"Name": DOCUMENT, "DocumentType": "Session", "Content": content.to_string()});
    site.api().call("CreateDocument", input).await?;
    let mut terminal = site
        .cli()
        .at_terminal(&["shell", site.node.id(), "--document", DOCUMENT])?;
    terminal.expect("encrypted end to end").await?;
    terminal.send("stty -echo; place=kept; echo first-$((1+1))\n")?;
    terminal.expect("first-2").await?;

    let mut other = site.cli().at_terminal(&["attach"])?;
    other.expect("encrypted end to end").await?;
    other.expect("first-2").await?;
    terminal.expect("taken over").await?;
    ensure!(terminal.wait().await? == TAKEN_OVER, "{}", terminal.text());
    other.send("echo $place-$((2+2))\n")?;
    other.expect("kept-4").await?;
    // and the new key outlives the endpoint
    site.endpoint.kill().await?;
    site.endpoint.start_again().await?;
    other.send("echo third-$((3+3)); exit 5\n")?;
    other.expect("third-6").await?;
    ensure!(other.wait().await? == 5, "{}", other.text());
    Ok(())
}

#[tokio::test]
async fn who_watches_misses_and_repeats_nothing_when_connections_are_cut_and_the_endpoint_is_killed()
-> Result<()> {
    let mut site = cabled().await?;
    let mut terminal = site.cli.shell(site.node.id()).await?;
    let mut watcher = site.cli.at_terminal(&["watch"])?;
    watcher.expect("ready").await?;
    count_slowly(&mut terminal)?;
    watcher.expect("\r\n200\r\n").await?;
    site.of_client.cut();
    watcher.expect("\r\n500\r\n").await?;
    site.of_node.cut();
    site.of_client.cut();
    watcher.expect("\r\n800\r\n").await?;
    site.endpoint.kill().await?;
    site.endpoint.start_again().await?;
    check_counted(&mut watcher, COUNTED_LINES).await?;
    terminal.send("exit 6\n")?;
    ensure!(terminal.wait().await? == 6, "{}", terminal.text());
    watcher.expect("the session has ended").await?;
    ensure!(watcher.wait().await? == 0, "{}", watcher.text());
    Ok(())
}
