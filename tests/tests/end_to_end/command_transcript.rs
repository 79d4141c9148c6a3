//! What becomes of a command's recording: verified by others, held, deleted, and sent by nobody but its node.

use std::{fs, path::Path};

use anyhow::{Context, Result, bail, ensure};
use moorline_tests::{
    Cli, Endpoint, Finished, Node, Recording, Site, finished, is_root, python_program, send_script,
    wait_until,
};
use serde_json::json;
use tokio::process::Command;

/// A program that needs nothing but files: its exit code and what it printed.
async fn run(program: &mut Command) -> Result<(Option<i32>, String)> {
    let output = program.kill_on_drop(true).output().await?;
    let said = [output.stdout, output.stderr].concat();
    Ok((output.status.code(), String::from_utf8_lossy(&said).into_owned()))
}

/// A verifier that was written from the page on the format alone.
fn python_verifier(files: &[&str], keys: &str) -> Result<Command> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("verifier/verify_transcript.py");
    let mut python = Command::new(python_program("python3")?);
    python.arg(script).args(files).args(["--keys", keys]);
    Ok(python)
}

#[tokio::test]
async fn a_command_s_recording_is_verified_by_a_second_verifier_and_shown_by_a_stock_player_also_from_a_bundle()
-> Result<()> {
    let site = Site::start().await?;
    let id = site.send("echo evi''dence; echo to-errors >&2").await?;
    site.finished(&id).await?;
    let recording = Recording::of_command(&site.cli(), site.node.dir(), &id).await?;
    let folder = tempfile::tempdir()?;
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (file, keys, bundle) = (path("a.cast"), path("keys"), path("a.tar"));
    let cli = site.cli();
    let transcript = async |arguments: &[&str]| {
        let arguments = [&["transcript"], arguments].concat();
        cli.run(&arguments).await?.success()
    };
    // by the command's id, and by the recording's
    transcript(&["export", &id, "--out", &file]).await?;
    transcript(&["export", &recording.session, "--bundle", "--out", &bundle]).await?;
    transcript(&["keys", "--out", &keys]).await?;
    let (code, said) = run(Command::new("tar").args(["-xf", &bundle, "-C", &path("")])).await?;
    ensure!(code == Some(0), "{said}");
    let (bundled, bundled_keys) = (path("transcript/session.cast"), path("transcript/keys.json"));
    ensure!(
        fs::read(&bundled)? == fs::read(&file)?,
        "the bundle has another recording"
    );
    let auditor = Cli::without_endpoint();
    for (file, keys) in [(&file, &keys), (&bundled, &bundled_keys)] {
        let verify = ["transcript", "verify", file, "--keys", keys];
        let said = auditor.run(&verify).await?.success()?.stdout;
        ensure!(said.contains(&recording.session), "{said}");
        let (code, said) = run(&mut python_verifier(&[file], keys)?).await?;
        ensure!(code == Some(0), "{said}");
        let mut player = Command::new(python_program("asciinema")?);
        let (_, shown) = run(player.args(["cat", file]).env("LC_ALL", "C.UTF-8")).await?;
        ensure!(shown.contains("evidence\r\n"), "{shown:?}");
    }
    let page = fs::read_to_string(path("transcript/README.md"))?;
    ensure!(page.contains(&recording.session), "{page}");
    let audit = fs::read_to_string(path("transcript/audit.jsonl"))?;
    ensure!(
        audit.contains("SendCommand") && audit.lines().all(|line| line.contains(&id)),
        "{audit}"
    );

    let altered = fs::read_to_string(&file)?.replacen("evidence", "evidance", 1);
    fs::write(&file, altered)?;
    let verify = ["transcript", "verify", &file, "--keys", &keys];
    let said = auditor.run(&verify).await?.with_code(1)?.stdout;
    ensure!(said.contains("are not those that the node sealed"), "{said}");
    let (code, said) = run(&mut python_verifier(&[&file], &keys)?).await?;
    ensure!(code == Some(1), "{said}");
    Ok(())
}

#[tokio::test]
async fn a_command_s_recording_is_held_and_deleted_as_a_session_s_and_the_audit_log_has_both() -> Result<()> {
    let site = Site::start().await?;
    let id = site.send("echo evidence").await?;
    site.finished(&id).await?;
    let recording = Recording::of_command(&site.cli(), site.node.dir(), &id).await?;
    let name = recording.session;
    let cli = site.cli();
    let by_node = [id.as_str(), "--node", site.node.id()];
    let hold = [&["transcript", "hold"], &by_node[..], &["--reason", "case 4711"]].concat();
    cli.run(&hold).await?.success()?;
    let delete = [
        &["transcript", "delete"],
        &by_node[..],
        &["--reason", "asked for"],
    ]
    .concat();
    let refused = cli.run(&delete).await?;
    ensure!(
        refused.code != 0 && refused.stderr.contains("is held by"),
        "{refused:?}"
    );
    let held = cli
        .run(&["transcript", "list", "--held", "--json"])
        .await?
        .success()?
        .json()?;
    ensure!(
        held[0]["SessionId"] == name && held[0]["HoldReason"] == "case 4711",
        "{held}"
    );
    let release = [&["transcript", "hold"], &by_node[..], &["--release"]].concat();
    cli.run(&release).await?.success()?;
    cli.run(&delete).await?.success()?;
    let deleted = ["transcript", "list", "--state", "deleted", "--json"];
    let deleted = cli.run(&deleted).await?.success()?.json()?;
    let tombstone = &deleted[0];
    ensure!(
        tombstone["SessionId"] == name
            && tombstone["CommandId"] == id
            && tombstone["DeleteReason"] == "asked for",
        "{deleted}"
    );
    ensure!(
        tombstone["Sha256"].as_str().is_some_and(|hash| hash.len() == 64),
        "{deleted}"
    );
    let folder = site.endpoint.state_dir().join("transcripts");
    wait_until("its files to be gone", async || {
        Ok(fs::read_dir(&folder)?.next().is_none())
    })
    .await?;
    let audit = cli.run(&["audit", "--json"]).await?.success()?.stdout;
    for operation in ["moorline:PutTranscriptLegalHold", "moorline:DeleteTranscript"] {
        let of_it = |line: &&str| line.contains(operation) && line.contains(&name);
        ensure!(audit.lines().any(|line| of_it(&line)), "{operation}: {audit}");
    }
    let refusal = |line: &&str| line.contains("moorline:DeleteTranscript") && line.contains("is held by");
    ensure!(audit.lines().any(|line| refusal(&line)), "{audit}");
    Ok(())
}

#[tokio::test]
async fn a_node_that_sends_to_another_node_s_recording_is_refused_and_the_audit_log_has_it() -> Result<()> {
    let endpoint = Endpoint::start().await?;
    let mut victim = Node::register(&endpoint, &[]).await?;
    victim.start().await?;
    let mut other = Node::register(&endpoint, &[]).await?;
    other.start().await?;
    let site = Site {
        node: victim,
        endpoint,
    };
    let go = site.node.dir().join("go");
    let script = format!(
        "echo begun; until [ -e {} ]; do sleep 0.05; done; echo over",
        go.display()
    );
    let id = site.send(&script).await?;
    let name = format!("{id}.{}", site.node.id());
    let cast = site.endpoint.state_dir().join(format!("transcripts/{name}.cast"));
    wait_until("output to arrive at the endpoint", async || {
        Ok(fs::read_to_string(&cast).is_ok_and(|text| text.contains("begun")))
    })
    .await?;
    // as its root user can: its agent sends what it finds there
    let spool = other.state_dir().join("spool");
    fs::create_dir_all(&spool)?;
    let path = format!("/v1/transcript/{name}");
    let first = json!({"path": path, "offset": fs::metadata(&cast)?.len(), "deliverer": "Daemon"});
    fs::write(
        spool.join("new"),
        format!("{first}\n[9.000000,\"o\",\"forged\"]\n"),
    )?;
    fs::rename(spool.join("new"), spool.join(format!("{name}.whole")))?;
    // it looks when a command of its own records
    let sent = send_script(site.api(), other.id(), "true").await?;
    finished(site.api(), other.id(), &sent).await?;
    let filter = ["audit", "--result", "AccessDeniedException", "--json"];
    wait_until("the refusal to be in the audit log", async || {
        let audit = site.cli().run(&filter).await?.success()?.stdout;
        let refused = |line: &&str| line.contains("channel-refused") && line.contains(&path);
        Ok(audit.lines().any(|line| refused(&line)))
    })
    .await?;
    fs::File::create(&go)?;
    site.finished(&id).await?;
    let recording = Recording::of_command(&site.cli(), site.node.dir(), &id).await?;
    let shown = recording.texts("o");
    ensure!(
        shown.contains("over") && !recording.text.contains("forged"),
        "{shown}"
    );
    Ok(())
}

/// Runs a command that asks for two reboots, and gets them; its id.
async fn rebooted_twice(site: &mut Site) -> Result<String> {
    let dir = site.node.dir().to_owned();
    let (asked, runs) = (dir.join("asked"), dir.join("runs"));
    site.reboot_by(&["touch", &asked.display().to_string()]).await?;
    let line = format!(
        "echo run >> {0}; echo run-$(wc -l < {0}); [ $(wc -l < {0}) -gt 2 ] || exit 194",
        runs.display()
    );
    let id = site.send(&line).await?;
    for _ in 0..2 {
        wait_until("the reboot to be asked for", async || Ok(asked.exists())).await?;
        fs::remove_file(&asked)?;
        site.reboot().await?;
    }
    let invocation = site.finished(&id).await?;
    ensure!(invocation["Status"] == "Success", "{invocation}");
    Ok(id)
}

/// Whoever leaves `--out` out looks at it.
#[tokio::test]
async fn an_export_to_a_terminal_has_no_control_character_of_what_was_recorded() -> Result<()> {
    let site = Site::start().await?;
    // what JSON does not have to escape: the terminal's other way to begin a sequence, and delete
    let id = site.send(r"printf 'be\302\23331mgun\177\n'").await?;
    site.finished(&id).await?;
    let recording = Recording::of_command(&site.cli(), site.node.dir(), &id).await?;
    let obeyed = ['\u{9b}', '\u{7f}'];
    ensure!(recording.text.contains(obeyed), "{}", recording.text);
    let mut terminal = site
        .cli()
        .at_terminal(&["transcript", "export", &recording.session])?;
    ensure!(terminal.wait().await? == 0, "{}", terminal.text());
    let shown = terminal.text();
    ensure!(shown.contains("close ") && !shown.contains(obeyed), "{shown:?}");
    Ok(())
}

#[tokio::test]
async fn a_hold_and_a_deletion_of_a_command_are_of_all_parts_around_its_reboots() -> Result<()> {
    if !is_root() {
        println!("skipped: another boot is made in a mount namespace, which takes root");
        return Ok(());
    }
    let mut site = Site::start().await?;
    let id = rebooted_twice(&mut site).await?;
    let cli = site.cli();
    let listed = async |more: &[&str]| -> Result<usize> {
        let list = [&["transcript", "list", "--command", &id, "--json"], more].concat();
        let listed = cli.run(&list).await?.success()?.json()?;
        Ok(listed.as_array().context("no list")?.len())
    };
    wait_until("all parts to be whole", async || {
        Ok(listed(&["--state", "complete"]).await? == 3)
    })
    .await?;
    let transcript = async |what: &[&str]| -> Result<Finished> {
        let on_node = ["--node", site.node.id()];
        cli.run(&[&["transcript"], what, &[id.as_str()], &on_node].concat())
            .await
    };
    transcript(&["hold", "--reason", "case 4711"]).await?.success()?;
    ensure!(listed(&["--held"]).await? == 3, "a part is not held");
    let refused = transcript(&["delete"]).await?;
    ensure!(refused.code == 1, "{refused:?}");
    transcript(&["hold", "--release"]).await?.success()?;
    transcript(&["delete"]).await?.success()?;
    let left = (listed(&[]).await?, listed(&["--state", "deleted"]).await?);
    ensure!(left == (0, 3), "{left:?}");
    Ok(())
}

#[tokio::test]
async fn the_parts_of_a_command_around_its_reboots_are_one_and_none_is_left_out_swapped_or_replayed()
-> Result<()> {
    if !is_root() {
        println!("skipped: another boot is made in a mount namespace, which takes root");
        return Ok(());
    }
    let mut site = Site::start().await?;
    let id = rebooted_twice(&mut site).await?;
    let cli = site.cli();
    let list = [
        "transcript",
        "list",
        "--command",
        &id,
        "--state",
        "complete",
        "--json",
    ];
    wait_until("all parts to be whole", async || {
        let listed = cli.run(&list).await?.success()?.json()?;
        Ok(listed.as_array().is_some_and(|parts| parts.len() == 3))
    })
    .await?;
    let folder = tempfile::tempdir()?;
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (keys, bundle) = (path("keys"), path("a.tar"));
    cli.run(&["transcript", "keys", "--out", &keys])
        .await?
        .success()?;
    let export = ["transcript", "export", &id, "--bundle", "--out", &bundle];
    cli.run(&export).await?.success()?;
    let (code, said) = run(Command::new("tar").args(["-xf", &bundle, "-C", &path("")])).await?;
    ensure!(code == Some(0), "{said}");
    let first = format!("{id}.{}", site.node.id());
    let mut parts = Vec::new();
    for (number, end) in [(1, ""), (2, ".2"), (3, ".3")] {
        let name = format!("{first}{end}");
        let file = path(&format!("part{end}"));
        let export = ["transcript", "export", &name, "--out", &file];
        cli.run(&export).await?.success()?;
        let bundled = path(&format!("transcript/session{end}.cast"));
        ensure!(
            fs::read(&bundled)? == fs::read(&file)?,
            "the bundle has another part {number}"
        );
        let text = cli.run(&["transcript", "text", &name]).await?.success()?.stdout;
        ensure!(text.contains(&format!("run-{number}")), "{text}");
        parts.push(file);
    }
    let output = cli.run(&["output", &id]).await?.success()?.stdout;
    ensure!(output == "run-1\nrun-2\nrun-3\n", "{output}");

    // another command's parts, to be passed off as these
    let other = site.send("echo something else").await?;
    site.finished(&other).await?;
    let other = Recording::of_command(&cli, site.node.dir(), &other).await?;
    let foreign = path("foreign");
    fs::write(&foreign, other.text)?;
    let [one, two, three] = parts.as_slice() else {
        bail!("{} parts", parts.len())
    };
    let table: [(&[&String], i32, &str); 9] = [
        (&[one, two, three], 0, "intact"),
        (&[three, one, two], 0, "intact"),
        (&[one, two, three, &foreign], 0, "intact"),
        (&[two, three], 1, "part 1, which it follows, is not there"),
        (&[one, three], 1, "part 2, which it follows, is not there"),
        (&[one, two], 1, "part 3, in which it goes on, is not there"),
        (&[one, two, two, three], 1, "part 2 is there twice"),
        (
            &[one, &foreign, three],
            1,
            "part 2, in which it goes on, is not there",
        ),
        (&[two], 0, "it is one part of a command"),
    ];
    for (files, expected, what) in table {
        let files: Vec<&str> = files.iter().map(|file| file.as_str()).collect();
        let arguments = [&["transcript", "verify"], &files[..], &["--keys", &keys]].concat();
        let verified = Cli::without_endpoint().run(&arguments).await?;
        ensure!(
            verified.code == expected && verified.stdout.contains(what),
            "{files:?}: {verified:?}"
        );
        let (code, said) = run(&mut python_verifier(&files, &keys)?).await?;
        ensure!(code == Some(expected), "{files:?}: {said}");
    }
    Ok(())
}
