//! `kill -9` of one worker process.

use std::{
    io::{Read, Write},
    net::TcpListener,
    path::Path,
};

use anyhow::{Context, Result, ensure};
use moorline_tests::{PATIENCE, Site, Terminal, WorkerKind, kill_process, wait_for, wait_until};
use serde_json::json;

#[tokio::test]
async fn a_killed_command_worker_fails_its_command_and_no_other() -> Result<()> {
    let site = Site::start().await?;
    let (count, go) = (site.node.dir().join("count"), site.node.dir().join("go"));
    let victim = site
        .send(&format!("echo ran >> {}; sleep 1000", count.display()))
        .await?;
    let doomed = site.node.wait_workers(WorkerKind::Command, 1).await?;
    wait_until("the script to run", async || Ok(count.exists())).await?;
    let script = format!(
        "until [ -e {} ]; do sleep 0.05; done; echo unharmed",
        go.display()
    );
    let other = site.send(&script).await?;
    site.node.wait_workers(WorkerKind::Command, 2).await?;
    let mut terminal = site.cli().shell(site.node.id()).await?;

    kill_process(*doomed.first().context("no worker")?);
    let invocation = site.finished(&victim).await?;
    ensure!(invocation["Status"] == "Failed", "{invocation}");
    let told = format!(
        "{}{}",
        invocation["StandardErrorContent"], invocation["StandardOutputContent"]
    );
    ensure!(
        told.contains("unknown") || told.contains("killed") || told.contains("ended"),
        "{invocation}"
    );
    std::fs::File::create(&go)?;
    let invocation = site.finished(&other).await?;
    ensure!(invocation["Status"] == "Success", "{invocation}");
    terminal.send("echo shell-''unharmed\n")?;
    terminal.expect("shell-unharmed").await?;
    ensure!(std::fs::read_to_string(&count)? == "ran\n", "it was run again");
    Ok(())
}

#[tokio::test]
async fn a_command_whose_processes_all_died_is_told_as_unknown_and_not_run_again() -> Result<()> {
    let mut site = Site::start().await?;
    let count = site.node.dir().join("count");
    let command = site
        .send(&format!("echo ran >> {}; sleep 1000", count.display()))
        .await?;
    wait_until("the script to run", async || Ok(count.exists())).await?;
    // as when the power goes
    let processes = site.node.processes();
    site.node.kill_daemon().await?;
    processes.into_iter().for_each(kill_process);
    site.node.wait_offline().await?;
    site.node.start().await?;
    let invocation = site.finished(&command).await?;
    ensure!(invocation["Status"] == "Failed", "{invocation}");
    let told = format!(
        "{}{}",
        invocation["StandardErrorContent"], invocation["StandardOutputContent"]
    );
    ensure!(told.contains("unknown"), "{invocation}");
    ensure!(std::fs::read_to_string(&count)? == "ran\n", "it was run again");
    site.check_commands_work().await
}

#[tokio::test]
async fn what_a_killed_command_worker_had_of_a_download_is_not_left_where_it_was_to_be() -> Result<()> {
    let site = Site::start().await?;
    let destination = site.node.dir().join("destination");
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let url = format!("http://{}/file", listener.local_addr()?);
    let half = tokio::task::spawn_blocking(move || -> std::io::Result<_> {
        let (mut socket, _) = listener.accept()?;
        let _asked = socket.read(&mut [0; 4096])?;
        socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf of")?;
        // and no more, for as long as it is held
        Ok(socket)
    });
    let document = json!({"schemaVersion": "2.2", "mainSteps": [{"action": "aws:downloadContent", "name": "get",
        "inputs": {"sourceType": "HTTP", "sourceInfo": {"url": url, "allowInsecureDownload": true},
            "destinationPath": destination.join("file").display().to_string()}}]});
    let create = json!({"Name": "Half", "DocumentType": "Command", "Content": document.to_string()});
    site.api().call("CreateDocument", create).await?;
    let send = json!({"DocumentName": "Half", "InstanceIds": [site.node.id()]});
    let sent = site.api().call("SendCommand", send).await?;
    let command = sent["Command"]["CommandId"].as_str().context("no command")?;
    let connected = half.await??;
    // The download has its place before it asks.
    ensure!(destination.is_dir(), "there is no place for it yet");
    let worker = site.node.wait_workers(WorkerKind::Command, 1).await?;
    kill_process(*worker.first().context("no worker")?);
    let invocation = site.finished(command).await?;
    ensure!(invocation["Status"] == "Failed", "{invocation}");
    let left: Vec<_> = std::fs::read_dir(&destination)?.collect::<Result<_, _>>()?;
    ensure!(left.is_empty(), "{left:?}");
    drop(connected);
    Ok(())
}

#[tokio::test]
async fn what_a_killed_command_worker_leaves_is_ended_wherever_it_went() -> Result<()> {
    if !Path::new("/sys/fs/cgroup").is_dir() || !moorline_tests::is_root() {
        println!("skipped: what left its process group is found by control groups, which take root");
        return Ok(());
    }
    let mut site = Site::start().await?;
    let pids = site.node.dir().join("pids");
    let script = format!(
        "setsid sh -c 'trap \"\" TERM HUP; (sleep 1000 & echo $$ $! > {0}.new; mv {0}.new {0}; wait)' & sleep 1000",
        pids.display()
    );
    let left = async |site: &Site| -> Result<Vec<i32>> {
        let command = site.send(&script).await?;
        wait_until("the script to run", async || Ok(pids.exists())).await?;
        let worker = site.node.wait_workers(WorkerKind::Command, 1).await?;
        let text = std::fs::read_to_string(&pids)?;
        std::fs::remove_file(&pids)?;
        let left = text
            .split_whitespace()
            .map(str::parse)
            .collect::<Result<Vec<i32>, _>>()?;
        ensure!(left.len() == 2, "{text:?}");
        kill_process(*worker.first().context("no worker")?);
        drop(command);
        Ok(left)
    };
    // by the daemon that started it
    all_ended(&left(&site).await?).await?;
    // by the next one
    let daemon = site.node.daemon_pid().context("no daemon")?;
    let stopped = nix::unistd::Pid::from_raw(daemon);
    let command = site.send(&script).await?;
    wait_until("the script to run", async || Ok(pids.exists())).await?;
    nix::sys::signal::kill(stopped, nix::sys::signal::Signal::SIGSTOP)?;
    let worker = site.node.wait_workers(WorkerKind::Command, 1).await?;
    kill_process(*worker.first().context("no worker")?);
    site.node.kill_daemon().await?;
    site.node.start().await?;
    let text = std::fs::read_to_string(&pids)?;
    let left = text
        .split_whitespace()
        .map(str::parse)
        .collect::<Result<Vec<i32>, _>>()?;
    all_ended(&left).await?;
    let invocation = site.finished(&command).await?;
    ensure!(invocation["Status"] == "Failed", "{invocation}");
    Ok(())
}

#[tokio::test]
async fn what_a_killed_run_document_leaves_is_ended_by_the_next_one() -> Result<()> {
    if !Path::new("/sys/fs/cgroup").is_dir() || !moorline_tests::is_root() {
        println!("skipped: what left its process group is found by control groups, which take root");
        return Ok(());
    }
    let site = Site::start().await?;
    let dir = site.node.dir();
    let pids = dir.join("pids");
    let document = |name: &str, line: &str| {
        let file = dir.join(name);
        let text = serde_json::json!({"schemaVersion": "2.2", "mainSteps": [{"action": "aws:runShellScript",
            "name": "s", "inputs": {"runCommand": [line]}}]});
        std::fs::write(&file, text.to_string())?;
        Ok::<_, anyhow::Error>(file.display().to_string())
    };
    let script = format!(
        "worker=$(cut -d' ' -f4 /proc/$PPID/stat); setsid sh -c \"trap '' TERM HUP; echo $worker \\$\\$ > {0}.new; mv {0}.new {0}; sleep 1000\" & wait",
        pids.display()
    );
    let (long, short) = (document("long.json", &script)?, document("short.json", "true")?);
    let long = [long.as_str()];
    let running = site.node.agent("run-document", &long);
    let killing = async {
        wait_until("the script to run", async || Ok(pids.exists())).await?;
        let text = std::fs::read_to_string(&pids)?;
        let pids = text.split_whitespace().map(str::parse);
        let pids = pids.collect::<Result<Vec<i32>, _>>()?;
        let [worker, left] = pids[..] else {
            anyhow::bail!("{text:?}")
        };
        let program = std::fs::read_link(format!("/proc/{worker}/exe"))?;
        ensure!(program.ends_with("moorline-agent"), "{program:?}");
        kill_process(worker);
        Ok(left)
    };
    let (killed, left) = tokio::join!(running, killing);
    let left = left?;
    // its output is held open by what it left, or it is told as killed
    drop(killed);
    ensure!(Path::new(&format!("/proc/{left}")).exists(), "nothing was left");
    site.node.agent("run-document", &[&short]).await?.success()?;
    all_ended(&[left]).await
}

#[tokio::test]
async fn a_worker_that_is_killed_while_it_asks_for_a_reboot_has_one_all_the_same() -> Result<()> {
    if !moorline_tests::is_root() {
        println!("skipped: another boot is made in a mount namespace, which takes root");
        return Ok(());
    }
    let mut site = Site::start().await?;
    let dir = site.node.dir().to_owned();
    let (asked, runs) = (dir.join("asked"), dir.join("runs"));
    // the worker, which asks first, dies of it
    let reboot = format!(
        "[ -e {0} ] && exec touch {1}; touch {0}; kill -9 $PPID",
        dir.join("first").display(),
        asked.display()
    );
    site.reboot_by(&["sh", "-c", &reboot]).await?;
    let script = format!(
        "echo run >> {0}; [ $(wc -l < {0}) -gt 1 ] || exit 194",
        runs.display()
    );
    let command = site.send(&script).await?;
    wait_until("the reboot to be asked for", async || Ok(asked.exists())).await?;
    ensure!(
        std::fs::read_to_string(&runs)? == "run\n",
        "it went on without a reboot"
    );
    site.reboot().await?;
    let invocation = site.finished(&command).await?;
    ensure!(invocation["Status"] == "Success", "{invocation}");
    Ok(())
}

#[tokio::test]
async fn a_killed_session_worker_ends_its_session_and_no_other() -> Result<()> {
    let site = Site::start().await?;
    let mut first = site.cli().shell(site.node.id()).await?;
    let doomed = site.node.wait_workers(WorkerKind::Session, 1).await?;
    let mut second = site.cli().shell(site.node.id()).await?;
    site.node.wait_workers(WorkerKind::Session, 2).await?;
    let command = site.send("sleep 1; echo unharmed").await?;
    kill_process(*doomed.first().context("no worker")?);
    // the client is told, and does not hang
    ensure!(first.wait().await? != 0, "{}", first.text());
    second.send("echo still-''here; exit 3\n")?;
    second.expect("still-here").await?;
    ensure!(second.wait().await? == 3);
    let invocation = site.finished(&command).await?;
    ensure!(
        invocation["StandardOutputContent"] == "unharmed\n",
        "{invocation}"
    );
    Ok(())
}

/// A job that has left the terminal for a session of its own, deaf to all that can be refused, with a child that threw
/// its environment away. Returns both.
async fn leavers(terminal: &mut Terminal, dir: &Path) -> Result<Vec<i32>> {
    let pids = dir.join("pids");
    let script = format!(
        "setsid sh -c 'trap \"\" HUP TERM; env -i sleep 1000 & echo $$ $! > {}.new; mv {0}.new {0}; wait' \
         > /dev/null 2>&1 < /dev/null &\n",
        pids.display()
    );
    terminal.send(&script)?;
    wait_for("the job to run", PATIENCE, async || {
        let pids = std::fs::read_to_string(&pids)?;
        Ok(Some(
            pids.split_whitespace()
                .map(str::parse)
                .collect::<Result<_, _>>()?,
        ))
    })
    .await
}

async fn all_ended(pids: &[i32]) -> Result<()> {
    wait_until("the session's processes to end", async || {
        Ok(!pids
            .iter()
            .any(|pid| Path::new(&format!("/proc/{pid}/exe")).exists()))
    })
    .await
}

#[tokio::test]
async fn what_a_killed_session_worker_leaves_is_ended_by_the_daemon() -> Result<()> {
    let site = Site::start().await?;
    let mut terminal = site.cli().shell(site.node.id()).await?;
    let pids = leavers(&mut terminal, site.node.dir()).await?;
    let doomed = site.node.wait_workers(WorkerKind::Session, 1).await?;
    let mut other = site.cli().shell(site.node.id()).await?;
    let others = leavers(&mut other, site.endpoint.home()).await?;
    doomed.into_iter().for_each(kill_process);
    ensure!(terminal.wait().await? != 0);
    all_ended(&pids).await?;
    ensure!(
        others
            .iter()
            .all(|pid| Path::new(&format!("/proc/{pid}")).exists()),
        "another session's job went too"
    );
    other.send("exit 3\n")?;
    ensure!(other.wait().await? == 3);
    all_ended(&others).await
}

#[tokio::test]
async fn what_a_session_worker_leaves_that_nobody_watched_is_ended_with_its_session() -> Result<()> {
    let mut site = Site::start().await?;
    let mut terminal = site.cli().shell(site.node.id()).await?;
    let pids = leavers(&mut terminal, site.node.dir()).await?;
    let workers = site.node.wait_workers(WorkerKind::Session, 1).await?;
    site.node.kill_daemon().await?;
    workers.into_iter().for_each(kill_process);
    site.node.start().await?;
    terminal.send("\r~.")?;
    terminal.wait().await?;
    all_ended(&pids).await
}
