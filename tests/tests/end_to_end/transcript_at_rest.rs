//! What becomes of recordings that are finished.

use std::{collections::BTreeSet, path::Path};

use anyhow::{Context, Result, ensure};
use moorline_tests::{Cli, Endpoint, Node, PATIENCE, S3Server, finished, send_script, wait_for};
use serde_json::Value;

/// An endpoint whose finished recordings go to this place of the store, and its node.
async fn start_with(store: &S3Server, place: &str) -> Result<(Endpoint, Node)> {
    let credentials = store.credentials()?.to_string_lossy().into_owned();
    let endpoint = Endpoint::start_serving(&[
        "--transcript-store",
        place,
        "--transcript-store-endpoint",
        store.url(),
        "--transcript-store-credentials",
        &credentials,
    ])
    .await?;
    let mut node = Node::register(&endpoint, &[]).await?;
    node.start().await?;
    Ok((endpoint, node))
}

/// Runs a shell that shows `text`, to its end; the session.
async fn record(cli: &Cli, node: &Node, text: &str) -> Result<String> {
    let known = listed(cli, &[]).await?.len();
    let mut terminal = cli.at_terminal(&["shell", node.id()])?;
    terminal.send(&format!("printf '%s%s\\n' {text} -shown; exit\n"))?;
    terminal.expect(&format!("{text}-shown")).await?;
    terminal.wait().await?;
    wait_for("the transcript to be complete", PATIENCE, async || {
        let listed = listed(cli, &["--state", "complete"]).await?;
        let newest = listed.first().filter(|_| listed.len() > known);
        Ok(newest.and_then(|newest| newest["SessionId"].as_str().map(str::to_owned)))
    })
    .await
}

async fn listed(cli: &Cli, filter: &[&str]) -> Result<Vec<Value>> {
    let arguments = [&["transcript", "list", "--json"], filter].concat();
    let listed = cli.run(&arguments).await?.success()?.json()?;
    Ok(listed.as_array().context("no list")?.clone())
}

fn ids(listed: &[Value]) -> Vec<&str> {
    listed
        .iter()
        .filter_map(|one| one["SessionId"].as_str())
        .collect()
}

/// The files of a recording in the state directory, by their endings.
fn files(endpoint: &Endpoint, session: &str) -> Result<Vec<String>> {
    let mut endings = Vec::new();
    for entry in std::fs::read_dir(endpoint.state_dir().join("transcripts"))? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        endings.extend(name.strip_prefix(session).map(str::to_owned));
    }
    endings.sort();
    Ok(endings)
}

async fn become_files(endpoint: &Endpoint, session: &str, expected: &[&str]) -> Result<()> {
    let what = format!("the files of {session} to be {expected:?}");
    wait_for(&what, PATIENCE, async || {
        Ok((files(endpoint, session)? == expected).then_some(()))
    })
    .await
}

/// The list as it is shown.
async fn table(cli: &Cli, filter: &[&str]) -> Result<String> {
    let list = [&["transcript", "list"], filter].concat();
    Ok(cli.run(&list).await?.success()?.stdout)
}

/// Got of the exported file as docs/transcripts-at-rest.md says.
async fn hash_of_export(dir: &Path) -> Result<String> {
    let output = tokio::process::Command::new("sh")
        .args(["-c", "grep -av '^\\[[0-9.]*,\"c\",' a.cast | sha256sum"])
        .current_dir(dir)
        .output()
        .await?;
    let line = String::from_utf8(output.stdout)?;
    Ok(line.split(' ').next().unwrap_or_default().to_owned())
}

/// An export verifies, and has the text.
async fn verifies(cli: &Cli, dir: &Path, session: &str, text: &str) -> Result<()> {
    let (file, keys) = (dir.join("a.cast"), dir.join("keys.json"));
    let (file, keys) = (file.to_string_lossy(), keys.to_string_lossy());
    cli.run(&["transcript", "export", session, "--out", &file])
        .await?
        .success()?;
    cli.run(&["transcript", "keys", "--out", &keys])
        .await?
        .success()?;
    cli.run(&["transcript", "verify", &file, "--keys", &keys])
        .await?
        .success()?;
    let shown = cli.run(&["transcript", "text", session]).await?.success()?.stdout;
    ensure!(shown.contains(&format!("{text}-shown")), "{shown:?}");
    Ok(())
}

#[tokio::test]
async fn finished_transcripts_go_to_an_s3_server_and_are_read_verified_searched_and_deleted_there()
-> Result<()> {
    let mut store = S3Server::start("transcripts").await?;
    let (mut endpoint, node) = start_with(&store, "s3://transcripts/of/us").await?;
    let cli = Cli::of(&endpoint);
    let dir = tempfile::tempdir()?;

    let first = record(&cli, &node, "green-apples").await?;
    become_files(&endpoint, &first, &[".signatures"]).await?;
    let object = |ending: &str| format!("of/us/{first}{ending}");
    ensure!(store.objects().await? == [object(".cast.zst"), object(".signatures")]);
    verifies(&cli, dir.path(), &first, "green-apples").await?;
    let found = listed(&cli, &["--contains", "Green-Apples-shown"]).await?;
    ensure!(ids(&found) == [first.as_str()], "{found:?}");
    ensure!(
        found[0]["Sha256"].as_str().is_some_and(|hash| hash.len() == 64),
        "{found:?}"
    );
    ensure!(
        found[0]["Sha256"] == hash_of_export(dir.path()).await?,
        "{found:?}"
    );

    endpoint.kill().await?;
    endpoint.start_again().await?;
    verifies(&cli, dir.path(), &first, "green-apples").await?;

    cli.run(&["transcript", "hold", &first, "--reason", "case 12"])
        .await?
        .success()?;
    ensure!(ids(&listed(&cli, &["--held"]).await?) == [first.as_str()]);
    let held = "Complete, held by arn:moorline:iam:::user/admin since 2";
    ensure!(table(&cli, &["--held"]).await?.contains(held));
    let refused = cli.run(&["transcript", "delete", &first]).await?;
    ensure!(
        refused.code != 0 && refused.stderr.contains("is held by"),
        "{refused:?}"
    );
    cli.run(&["transcript", "hold", &first, "--release"])
        .await?
        .success()?;
    cli.run(&["transcript", "delete", &first, "--reason", "it was asked for"])
        .await?
        .success()?;
    become_files(&endpoint, &first, &[]).await?;
    wait_for("the objects to go", PATIENCE, async || {
        Ok(store.objects().await?.is_empty().then_some(()))
    })
    .await?;
    let tombstones = listed(&cli, &["--state", "deleted"]).await?;
    let shown = table(&cli, &["--state", "deleted"]).await?;
    let by = "Deleted by arn:moorline:iam:::user/admin on 2";
    ensure!(
        shown.contains(by) && shown.contains("Z: it was asked for\n"),
        "{shown}"
    );
    ensure!(
        ids(&tombstones) == [first.as_str()] && tombstones[0]["DeleteReason"] == "it was asked for",
        "{tombstones:?}"
    );

    // with the store away what is there cannot be read, and says so
    let away = record(&cli, &node, "blue-plums").await?;
    become_files(&endpoint, &away, &[".signatures"]).await?;
    store.kill().await?;
    let refused = cli.run(&["transcript", "text", &away]).await?;
    ensure!(
        refused.code != 0 && refused.stderr.contains("the object store"),
        "{refused:?}"
    );
    // what is finished stays here, and is there for everybody
    let second = record(&cli, &node, "red-pears").await?;
    become_files(&endpoint, &second, &[".cast.zst", ".signatures"]).await?;
    verifies(&cli, dir.path(), &second, "red-pears").await?;
    // why, the log says once
    let line = wait_for("the line of the log", PATIENCE, async || {
        let log = endpoint.log();
        Ok(log
            .lines()
            .find(|line| line.contains("a transcript stays where it is"))
            .map(str::to_owned))
    })
    .await?;
    for told in [
        "Error performing PUT",
        "error sending request",
        "Connection refused",
    ] {
        ensure!(line.matches(told).count() == 1, "{told}: {line}");
    }
    // and it keeps nobody from what is here
    let looked = cli
        .run(&["transcript", "list", "--json", "--contains", "shown"])
        .await?
        .with_code(1)?;
    ensure!(
        looked.stderr.contains(&format!("{away} was not searched")),
        "{looked:?}"
    );
    ensure!(looked.stdout.contains(&second), "{looked:?}");
    Ok(())
}

#[tokio::test]
async fn a_long_recording_reaches_the_store_in_parts_though_the_endpoint_is_killed_at_every_step()
-> Result<()> {
    let store = S3Server::start("transcripts").await?;
    let (mut endpoint, node) = start_with(&store, "s3://transcripts").await?;
    let cli = Cli::of(&endpoint);
    let dir = tempfile::tempdir()?;
    // compressed it is longer than two parts of an upload, which have 8 MiB each
    let script = "head -c 18000000 /dev/urandom | base64; printf '%s%s\\n' plum -shown";
    let command = send_script(endpoint.api(), node.id(), script).await?;
    finished(endpoint.api(), node.id(), &command).await?;
    let recording = format!("{command}.{}", node.id());
    let at_rest = [".signatures"];
    // killed in each state of its files once; the last is the one at rest
    let mut seen = BTreeSet::from([vec![".cast".to_owned(), ".signatures".to_owned()]]);
    let is_at_rest = |seen: &BTreeSet<Vec<String>>| seen.iter().any(|files| *files == at_rest);
    while !is_at_rest(&seen) {
        let now = wait_for("another state", PATIENCE, async || {
            let now = files(&endpoint, &recording)?;
            Ok((!seen.contains(&now)).then_some(now))
        })
        .await?;
        seen.insert(now);
        endpoint.kill().await?;
        endpoint.start_again().await?;
    }
    ensure!(seen.len() > 2, "it was never caught at work: {seen:?}");
    become_files(&endpoint, &recording, &at_rest).await?;
    let objects = [".cast.zst", ".signatures"].map(|ending| format!("{recording}{ending}"));
    ensure!(store.objects().await? == objects, "{:?}", store.objects().await?);
    verifies(&cli, dir.path(), &recording, "plum").await
}
