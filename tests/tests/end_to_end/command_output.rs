//! Output of commands: live, and all of it.

use std::{collections::BTreeMap, fs, path::Path, process::Stdio};

use anyhow::{Context, Result, ensure};
use base64::{Engine, prelude::BASE64_STANDARD};
use moorline_tests::{Node, PATIENCE, Recording, Site, python_program, wait_for};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::Command,
    time::timeout,
};

#[tokio::test]
async fn output_is_shown_while_the_command_runs() -> Result<()> {
    let site = Site::start().await?;
    let go_on = site.node.dir().join("go-on");
    let script = format!(
        "echo first; echo wrong >&2; while [ ! -e {} ]; do sleep 0.05; done; printf last",
        go_on.display()
    );
    let mut command = site
        .cli()
        .command(&["run", "--node", site.node.id(), "--", &script])?;
    command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let mut child = command.spawn()?;
    let mut stdout = BufReader::new(child.stdout.take().context("no stdout")?).lines();
    let mut stderr = BufReader::new(child.stderr.take().context("no stderr")?).lines();
    let first = timeout(PATIENCE, stdout.next_line()).await??;
    ensure!(first.as_deref() == Some("first"), "{first:?}");
    let wrong = timeout(PATIENCE, stderr.next_line()).await??;
    ensure!(wrong.as_deref() == Some("wrong"), "{wrong:?}");
    fs::write(&go_on, "")?;
    let last = timeout(PATIENCE, stdout.next_line()).await??;
    ensure!(last.as_deref() == Some("last"), "{last:?}");
    ensure!(timeout(PATIENCE, stdout.next_line()).await??.is_none());
    ensure!(timeout(PATIENCE, child.wait()).await??.success());
    Ok(())
}

#[tokio::test]
async fn lines_of_several_nodes_come_whole_in_order_and_with_their_node() -> Result<()> {
    const LINES: usize = 20_000;
    let site = Site::start().await?;
    let mut second = Node::register(&site.endpoint, &[("Role", "test")]).await?;
    second.start().await?;
    // long enough to be followed, in pieces that end within lines
    let script = format!("sleep 0.6; seq -f 'the line %.0f of many' {LINES}; sleep 0.6; echo end");
    let ran = site
        .cli()
        .run(&["run", "--tag", "Role=test", "--", &script])
        .await?
        .success()?;
    let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
    for line in ran.stdout.lines() {
        let (node, text) = line.split_once(" | ").context("a line without node")?;
        let count = seen.entry(node).or_default();
        *count += 1;
        let expected = match *count {
            number if number <= LINES => format!("the line {number} of many"),
            _ => "end".to_owned(),
        };
        ensure!(text == expected, "line {count} of {node} is {text:?}");
    }
    let expected = [site.node.id(), second.id()].map(|node| (node, LINES + 1));
    ensure!(seen == BTreeMap::from(expected), "{seen:?}");
    Ok(())
}

#[tokio::test]
async fn all_of_an_output_is_had_long_after_the_command_with_both_streams_apart() -> Result<()> {
    let site = Site::start().await?;
    let script = "seq 300000; seq -f 'e%.0f' 1000 >&2; printf 'no\\r\\nend\\r'";
    let id = site.send(script).await?;
    site.finished(&id).await?;
    let expected: String = (1..=300_000)
        .map(|number| format!("{number}\n"))
        .collect::<String>()
        + "no\r\nend\r";
    let ran = wait_for("the recording to be whole", PATIENCE, async || {
        let ran = site.cli().run(&["output", &id, site.node.id()]).await?;
        Ok((ran.code == 0 && ran.stdout.len() >= expected.len() - 1).then_some(ran))
    })
    .await?;
    // what is held back to be a line's end at last is none
    ensure!(
        ran.stdout == expected,
        "{} bytes: {:?}",
        ran.stdout.len(),
        ran.stdout.get(ran.stdout.len() - 20..)
    );
    ensure!(ran.stderr.lines().count() == 1000, "{}", ran.stderr);
    let of_step = site
        .cli()
        .run(&["output", &id, "--step", "no-such-step"])
        .await?
        .success()?;
    ensure!(
        of_step.stdout.is_empty() && of_step.stderr.is_empty(),
        "{of_step:?}"
    );
    // which `run` shows without being asked for it, when it cannot show all
    let ran = site
        .cli()
        .run(&["run", "--node", site.node.id(), "--", "seq 20000"])
        .await?
        .success()?;
    ensure!(
        ran.stdout.ends_with("20000\n")
            && (ran.stdout.lines().count() == 20_000 || ran.stderr.contains("moorline output")),
        "{}",
        ran.stderr
    );
    Ok(())
}

#[tokio::test]
async fn an_output_whose_recording_is_gone_says_so_and_what_is_left() -> Result<()> {
    let site = Site::start().await?;
    let id = site.send("echo it").await?;
    site.finished(&id).await?;
    Recording::of_command(&site.cli(), site.node.dir(), &id).await?;
    let recording = format!("{id}.{}", site.node.id());
    let deleted = ["transcript", "delete", &recording, "--reason", "a test"];
    site.cli().run(&deleted).await?.success()?;
    let none = site.cli().run(&["output", &id]).await?.with_code(1)?;
    ensure!(none.stderr.contains("get-command-invocation"), "{none:?}");
    Ok(())
}

#[tokio::test]
async fn output_that_is_no_text_is_had_byte_for_byte() -> Result<()> {
    let site = Site::start().await?;
    let script = "cat /bin/ls; printf '\\377\\303' >&2; printf '\\251\\r\\n\\0\\r' >&2";
    let id = site.send(script).await?;
    site.finished(&id).await?;
    Recording::of_command(&site.cli(), site.node.dir(), &id).await?;
    let output = async |more: &[&str]| -> Result<std::process::Output> {
        let mut command = site.cli().command(&[&["output", &id], more].concat())?;
        Ok(timeout(PATIENCE, command.output()).await??)
    };
    let had = output(&[]).await?;
    ensure!(had.status.success(), "{had:?}");
    ensure!(had.stdout == fs::read("/bin/ls")?, "{} bytes", had.stdout.len());
    ensure!(had.stderr == b"\xff\xc3\xa9\r\n\0\r", "{:?}", had.stderr);
    // each piece that is no text has its bytes as well
    let lines = output(&["--json"]).await?.stdout;
    let mut whole = Vec::new();
    for line in String::from_utf8(lines)?.lines() {
        let piece: serde_json::Value = serde_json::from_str(line)?;
        if piece["Stream"] == "stdout" {
            match piece["Base64"].as_str() {
                Some(bytes) => whole.extend(BASE64_STANDARD.decode(bytes)?),
                None => whole.extend(piece["Text"].as_str().context("no text")?.as_bytes()),
            }
        }
    }
    ensure!(whole == fs::read("/bin/ls")?, "{} bytes", whole.len());
    // and the recording is as sound as any
    let dir = tempfile::tempdir()?;
    let (file, keys) = (dir.path().join("a.cast"), dir.path().join("keys.json"));
    let (file, keys) = (file.to_string_lossy(), keys.to_string_lossy());
    let recording = format!("{id}.{}", site.node.id());
    let cli = site.cli();
    cli.run(&["transcript", "export", &recording, "--out", &file])
        .await?
        .success()?;
    cli.run(&["transcript", "keys", "--out", &keys])
        .await?
        .success()?;
    cli.run(&["transcript", "verify", &file, "--keys", &keys])
        .await?
        .success()?;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("verifier/verify_transcript.py");
    let mut python = Command::new(python_program("python3")?);
    python.arg(script).args([&*file, "--keys", &*keys]);
    let verified = timeout(PATIENCE, python.output()).await??;
    ensure!(verified.status.success(), "{verified:?}");
    Ok(())
}

#[tokio::test]
async fn what_is_no_command_id_is_told_in_a_line() -> Result<()> {
    let site = Site::start().await?;
    for arguments in [&["output", "web-1"][..], &["explain", "web-1", site.node.id()]] {
        let refused = site.cli().run(arguments).await?;
        ensure!(refused.code == 1 || refused.code == 64, "{refused:?}");
        ensure!(refused.stderr.lines().count() == 1, "{refused:?}");
        ensure!(
            refused
                .stderr
                .contains("\"web-1\" is no command id; `moorline run`"),
            "{refused:?}"
        );
    }
    Ok(())
}
