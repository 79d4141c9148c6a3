//! Sessions by document: one command, with a terminal and without, and parameters with their rules.

use std::{process::Stdio, time::Duration};

use anyhow::{Context, Result, ensure};
use moorline_tests::{Aws, PATIENCE, Site, WorkerKind, wait_for, wait_until};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};
use tokio::{io::AsyncReadExt, time::timeout};

const NON_INTERACTIVE: &str = "AWS-StartNonInteractiveCommand";
/// What a session worker of a test build may take, with all that is on its way.
const MOST_WORKER_KIB: u64 = 64 * 1024;

/// `moorline shell NODE --document D --param …`
async fn run_document(site: &Site, document: &str, parameters: &[&str]) -> Result<moorline_tests::Finished> {
    let mut arguments = vec!["shell", site.node.id(), "--document", document];
    for parameter in parameters {
        arguments.extend(["--param", parameter]);
    }
    site.cli().run(&arguments).await
}

async fn create(site: &Site, name: &str, content: &Value) -> Result<()> {
    let input = json!({"Name": name, "DocumentType": "Session", "Content": content.to_string()});
    site.api().call("CreateDocument", input).await?;
    Ok(())
}

/// The newest session that has ended.
async fn last_session(site: &Site) -> Result<Value> {
    let sessions = site
        .api()
        .call("DescribeSessions", json!({"State": "History"}))
        .await?;
    Ok(sessions["Sessions"][0].clone())
}

#[tokio::test]
async fn every_kind_of_command_document_opens_through_the_aws_cli() -> Result<()> {
    let site = Site::start().await?;
    let aws = Aws::of(&site.endpoint)?;
    let start = ["start-session", "--target", site.node.id(), "--document-name"];

    let mut terminal = aws.at_terminal(&[&start[..], &["SSM-SessionManagerRunShell"]].concat())?;
    terminal.send("echo from-a-sh''ell; exit\n")?;
    terminal.expect("from-a-shell").await?;
    ensure!(terminal.wait().await? == 0, "{}", terminal.text());

    let parameters = r#"{"command":["stty size; echo done; exit 5"]}"#;
    let interactive = ["AWS-StartInteractiveCommand", "--parameters", parameters];
    let mut terminal = aws.at_terminal(&[&start[..], &interactive[..]].concat())?;
    terminal.expect("24 80").await?;
    terminal.expect("done").await?;
    ensure!(terminal.wait().await? == 0, "{}", terminal.text());

    let parameters = concat!(
        r#"{"command":["ls -d / /no-such-file"],"separateOutputStream":["true"],"#,
        r#""stdoutSeparatorPrefix":["OUT:"],"stderrSeparatorPrefix":["ERR:"]}"#
    );
    let non_interactive = [NON_INTERACTIVE, "--parameters", parameters];
    let ran = aws
        .ssm(&[&start[..], &non_interactive[..]].concat())
        .await?
        .success()?;
    // all on standard output, as the stock plugin has it
    for line in ["OUT:/\n", "ERR:ls: ", "EXIT_CODE: 2"] {
        ensure!(ran.stdout.contains(line), "{line:?} is not in {ran:?}");
    }
    site.node.wait_workers(WorkerKind::Session, 0).await?;
    Ok(())
}

#[tokio::test]
async fn a_parameter_that_breaks_its_rule_is_refused_by_name() -> Result<()> {
    let site = Site::start().await?;
    let content = json!({
        "schemaVersion": "1.0", "sessionType": "NonInteractiveCommands",
        "Parameters": {
            "word": {"Type": "String", "AllowedPattern": "^[a-z]+$", "minChars": 2, "maxChars": "4"},
            "choice": {"type": "String", "allowedValues": ["one", "two"], "default": "one"},
            "list": {"type": "StringList", "minItems": 1, "maxItems": 2, "default": ["x"]},
            "flag": {"type": "Boolean", "default": false},
            "number": {"type": "Integer", "default": 1},
        },
        "properties": {"linux": {
            "commands": "echo {{word}} {{ choice }} {{ list }} {{flag}} {{ number }}",
            "separateOutputStream": "{{ flag }}",
        }},
    });
    create(&site, "Rules", &content).await?;
    let good = run_document(&site, "Rules", &["word=abc", "list=a", "list=b", "flag=true"]).await?;
    // without a shell the quotes of a list's text are taken off by the splitting into words
    ensure!(
        good.code == 0 && good.stdout == "abc one [a,b] true 1\n",
        "{good:?}"
    );
    let refused: &[(&str, &[&str])] = &[
        ("word", &["word=abc1"]),
        ("word", &["word=a"]),
        ("word", &["word=abcde"]),
        ("word", &["word=ab", "word=cd"]),
        ("word", &["word={{ssm:x}}"]),
        ("word", &["choice=one"]),
        ("choice", &["word=abc", "choice=three"]),
        ("list", &["word=abc", "list=a", "list=b", "list=c"]),
        ("flag", &["word=abc", "flag=maybe"]),
        ("number", &["word=abc", "number=1.5"]),
        ("Word", &["word=abc", "Word=abc"]),
    ];
    for (name, parameters) in refused {
        let ran = run_document(&site, "Rules", parameters).await?.with_code(255)?;
        ensure!(
            ran.stderr.contains(&format!("parameter {name}")) && ran.stderr.contains("ValidationException"),
            "{parameters:?}: {ran:?}"
        );
    }
    let aws = Aws::of(&site.endpoint)?;
    let start = ["start-session", "--target", site.node.id(), "--document-name"];
    let wrong = [
        NON_INTERACTIVE,
        "--parameters",
        "command=id,stderrSeparatorPrefix=a!",
    ];
    let ran = aws.ssm(&[&start[..], &wrong[..]].concat()).await?;
    ensure!(
        ran.code != 0 && ran.stderr.contains("parameter stderrSeparatorPrefix"),
        "{ran:?}"
    );
    Ok(())
}

/// `docs/sessions.md` promises it.
#[tokio::test]
async fn what_a_user_fills_in_adds_no_second_command() -> Result<()> {
    let site = Site::start().await?;
    let content = json!({
        "schemaVersion": "1.0", "sessionType": "NonInteractiveCommands",
        "parameters": {"what": {"type": "String"}},
        "properties": {"linux": {"commands": "echo '{{ what }}' {{ what }}", "separateOutputStream": true}},
    });
    create(&site, "Unguarded", &content).await?;
    let ran = run_document(&site, "Unguarded", &["what=a; echo b > /x && $(id) | `id`"]).await?;
    let echoed = "a; echo b > /x && $(id) | `id`";
    ensure!(
        ran.code == 0 && ran.stdout == format!("{echoed} {echoed}\n"),
        "{ran:?}"
    );
    Ok(())
}

#[tokio::test]
async fn a_command_ends_with_its_exit_code_in_every_kind_of_session() -> Result<()> {
    let site = Site::start().await?;
    for (script, expected) in [("exit 0", 0), ("exit 7", 7), ("kill -TERM $$", 143)] {
        let separated = site
            .cli()
            .run(&["shell", site.node.id(), "--", "sh", "-c", script])
            .await?;
        ensure!(separated.code == expected, "{script}: {separated:?}");
        let command = format!("command=sh -c '{script}'");
        let collected = run_document(&site, NON_INTERACTIVE, &[&command]).await?;
        ensure!(collected.code == expected, "{script}: {collected:?}");
        let mut terminal = site
            .cli()
            .at_terminal(&["shell", site.node.id(), "--", "sh", "-c", script])?;
        ensure!(
            terminal.wait().await? == expected,
            "{script}: {}",
            terminal.text()
        );
    }
    let missing = site
        .cli()
        .run(&["shell", site.node.id(), "--", "no-such-program", "secret"])
        .await?
        .with_code(127)?;
    ensure!(
        missing.stderr.contains("failed to start no-such-program") && !missing.stderr.contains("secret"),
        "{missing:?}"
    );
    wait_until("the session to be history with its reason", async || {
        let session = last_session(&site).await?;
        Ok(session["Status"] == "Failed"
            && session["Details"]
                .as_str()
                .is_some_and(|text| text.contains("no-such-program")))
    })
    .await
}

#[tokio::test]
async fn the_two_outputs_stay_apart_or_keep_their_order() -> Result<()> {
    let site = Site::start().await?;
    let script = "for i in 1 2 3; do echo out$i; echo err$i >&2; done";
    let apart = site.cli().run(&["shell", site.node.id(), "--", script]).await?;
    ensure!(apart.stdout == "out1\nout2\nout3\n", "{apart:?}");
    ensure!(apart.stderr == "err1\nerr2\nerr3\n", "{apart:?}");
    let command = format!("command=sh -c '{script}'");
    let together = run_document(&site, NON_INTERACTIVE, &[&command]).await?;
    ensure!(
        together.stdout == "out1\nerr1\nout2\nerr2\nout3\nerr3\n",
        "{together:?}"
    );
    // what was not for the program is left to others
    let read = site
        .cli()
        .run_with_input(&["shell", site.node.id(), "--", "cat", "-"], b"not for you\n")
        .await?;
    ensure!(read.code == 0 && read.stdout.is_empty(), "{read:?}");
    // and a recording has it as well
    wait_until("the recording of both outputs in order", async || {
        let sessions = site.api().call("DescribeSessions", json!({"State": "History"}));
        let sessions = sessions.await?["Sessions"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        for session in sessions {
            let id = session["SessionId"].as_str().context("a session without an id")?;
            let text = site.cli().run(&["transcript", "text", "--no-time", id]).await?;
            if text.stdout.contains("out1\nerr1\nout2\nerr2\nout3\nerr3\n") {
                return Ok(true);
            }
        }
        Ok(false)
    })
    .await?;
    Ok(())
}

#[tokio::test]
async fn ten_megabytes_arrive_whole_and_are_not_held_in_memory() -> Result<()> {
    let site = Site::start().await?;
    let mut client = site
        .cli()
        .command(&["shell", site.node.id(), "--", "seq", "-w", "1", "1250000"])?
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let mut stdout = client.stdout.take().context("it has a standard output")?;
    let worker = site.node.wait_workers(WorkerKind::Session, 1).await?;
    let worker = worker.first().copied().context("one worker")?;
    let (mut received, mut peak) = (Vec::new(), 0);
    let mut buffer = vec![0; 256 * 1024];
    loop {
        let length = timeout(PATIENCE, stdout.read(&mut buffer)).await??;
        if length == 0 {
            break;
        }
        received.extend_from_slice(buffer.get(..length).unwrap_or_default());
        peak = peak.max(peak_memory_kib(worker).unwrap_or(0));
    }
    ensure!(client.wait().await?.success());
    let expected: String = (1..=1_250_000).map(|number| format!("{number:07}\n")).collect();
    ensure!(received.len() == 10_000_000, "{} bytes came", received.len());
    ensure!(received == expected.as_bytes(), "what came is not what was sent");
    ensure!((1..MOST_WORKER_KIB).contains(&peak), "the worker took {peak} KiB");
    Ok(())
}

fn peak_memory_kib(pid: i32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[tokio::test]
async fn control_c_reaches_a_program_with_and_without_a_terminal() -> Result<()> {
    let site = Site::start().await?;
    let script = "trap \"echo interrupted; exit 9\" INT; tty; echo waiting; while :; do sleep 0.05; done";
    let command = format!("command=sh -c '{script}'");
    let arguments = [
        "shell",
        site.node.id(),
        "--document",
        NON_INTERACTIVE,
        "--param",
        &command,
    ];
    let mut terminal = site.cli().at_terminal(&arguments)?;
    terminal.expect("not a tty\r\nwaiting\r\n").await?;
    terminal.send("\x03")?;
    terminal.expect("interrupted\r\n").await?;
    ensure!(terminal.wait().await? == 9, "{}", terminal.text());

    let mut terminal = site
        .cli()
        .at_terminal(&["shell", site.node.id(), "--", "sh", "-c", script])?;
    terminal.expect("/dev/pts/").await?;
    terminal.expect("waiting\r\n").await?;
    terminal.send("\x03")?;
    terminal.expect("interrupted\r\n").await?;
    ensure!(terminal.wait().await? == 9, "{}", terminal.text());

    let aws = Aws::of(&site.endpoint)?;
    let parameters = json!({"command": [format!("sh -c '{script}'")], "separateOutputStream": ["true"]});
    let parameters = parameters.to_string();
    let mut terminal = aws.at_terminal(&[
        "start-session",
        "--target",
        site.node.id(),
        "--document-name",
        NON_INTERACTIVE,
        "--parameters",
        &parameters,
    ])?;
    terminal.expect("waiting").await?;
    terminal.send("\x03")?;
    terminal.expect("interrupted").await?;
    terminal.expect("EXIT_CODE: 9").await?;
    ensure!(terminal.wait().await? == 0, "{}", terminal.text());

    // who wants to leave can, whatever the program does with its signals
    let deaf = "command=sh -c 'trap \"\" INT; echo waiting; while :; do sleep 0.05; done'";
    let arguments = [
        "shell",
        site.node.id(),
        "--document",
        NON_INTERACTIVE,
        "--param",
        deaf,
    ];
    let mut terminal = site.cli().at_terminal(&arguments)?;
    terminal.expect("waiting").await?;
    terminal.send("\x03\n~.\n")?;
    terminal.wait().await?;
    site.node.wait_workers(WorkerKind::Session, 0).await?;
    Ok(())
}

/// A zombie is not.
fn is_alive(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ")
        .is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

#[tokio::test]
async fn a_child_that_keeps_the_output_open_does_not_hold_the_session() -> Result<()> {
    let site = Site::start().await?;
    let script = "sleep 1000 & echo $! done; exit 3";
    let ran = site
        .cli()
        .run(&["shell", site.node.id(), "--", script])
        .await?
        .with_code(3)?;
    let child: i32 = ran.stdout.split(' ').next().unwrap_or_default().parse()?;
    ensure!(!is_alive(child), "the child of a session outlives it");
    // a daemon has left the session; its descriptor is still the session's
    let script = "exec 3>&1; echo $(setsid -f sh -c 'echo $$; exec sleep 1000 1>&3'); exit 4";
    let ran = site.cli().run(&["shell", site.node.id(), "--", script]).await?;
    let daemon: i32 = ran.stdout.trim().parse()?;
    let _gone = kill(Pid::from_raw(daemon), Signal::SIGKILL);
    ensure!(ran.code == 4, "{ran:?}");
    site.node.wait_workers(WorkerKind::Session, 0).await?;
    Ok(())
}

#[tokio::test]
async fn a_command_that_nobody_follows_is_not_run() -> Result<()> {
    let site = Site::start().await?;
    let proof = site.node.dir().join("it-ran");
    let input = json!({
        "Target": site.node.id(),
        "DocumentName": NON_INTERACTIVE,
        "Parameters": {"command": [format!("touch {}", proof.display())]},
    });
    site.api().call("StartSession", input).await?;
    site.node.wait_workers(WorkerKind::Session, 1).await?;
    // the handshake has 15 seconds
    wait_for("the session to fail", Duration::from_secs(60), async || {
        let session = last_session(&site).await?;
        let told = session["Details"]
            .as_str()
            .is_some_and(|text| text.contains("Handshake timed out"));
        Ok((session["Status"] == "Failed" && told).then_some(()))
    })
    .await?;
    site.node.wait_workers(WorkerKind::Session, 0).await?;
    ensure!(!proof.exists(), "a command ran that nobody asked to follow");
    Ok(())
}
