//! A node that starts with the files of very many old commands.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context, Result, ensure};
use moorline_tests::{Cli, Endpoint, Node, finished, send_script, wait_for};

/// Old commands; with `MOORLINE_SOAK` as many as are promised. They are removed with what others leave of the machine,
/// which beside other tests can be as little as twenty a second.
const DIRECTORIES: usize = 6_000;
const DIRECTORIES_OF_SOAK: usize = 500_000;
/// What `command.keep_count` is by default.
const KEPT: usize = 1_000;
/// How long it may take in all. The agent rests for half of that.
const LIMIT: Duration = Duration::from_secs(600);
/// From its start until a shell answers. It has an endpoint on the same machine, which is busy with other tests; a daemon
/// that was busy with the directories would keep it waiting for minutes.
const SESSION_LIMIT: Duration = Duration::from_secs(30);

#[tokio::test]
async fn many_old_run_directories_are_soon_under_the_limit_and_disturb_no_session() -> Result<()> {
    let count = match std::env::var_os("MOORLINE_SOAK") {
        Some(_) => DIRECTORIES_OF_SOAK,
        None => DIRECTORIES,
    };
    let endpoint = Endpoint::start().await?;
    let mut node = Node::register(&endpoint, &[]).await?;
    let folder = node.state_dir().join("commands");
    make(&folder, count)?;
    let began = Instant::now();
    node.start().await?;
    let cli = Cli::of(&endpoint);
    let mut slowest = [Duration::ZERO; 2];
    let (mut memory, mut ran) = (0, 0);
    // It opens sessions and runs commands all the while.
    wait_for("only the newest to be left", LIMIT, async || {
        let asked = Instant::now();
        let mut terminal = cli.shell(node.id()).await?;
        terminal.send("echo it-''answers; exit\n")?;
        terminal.expect("it-answers").await?;
        slowest[0] = slowest[0].max(asked.elapsed());
        terminal.wait().await?;
        let asked = Instant::now();
        let command = send_script(endpoint.api(), node.id(), "echo it-runs").await?;
        let ended = finished(endpoint.api(), node.id(), &command).await?;
        ensure!(ended["StandardOutputContent"] == "it-runs\n", "{ended}");
        slowest[1] = slowest[1].max(asked.elapsed());
        ran += 1;
        memory = memory.max(resident(node.daemon_pid().context("a daemon")?)?);
        // What runs, or has ended just now, may come on top.
        Ok((fs::read_dir(&folder)?.count() <= KEPT + 2).then_some(()))
    })
    .await?;
    println!(
        "{count} directories: under the limit {:?} after the start; slowest session {:?}, slowest command {:?}; \
         daemon at most {memory} KiB",
        began.elapsed(),
        slowest[0],
        slowest[1],
    );
    ensure!(slowest[0] < SESSION_LIMIT, "a session took {:?}", slowest[0]);
    // The newest ones are what is left, beside those that ran meanwhile.
    let newest = KEPT.saturating_sub(ran);
    for number in [0, newest / 2].into_iter().filter(|_| newest > 1) {
        ensure!(folder.join(name(number)).exists(), "{number}");
    }
    for number in [KEPT, count / 2, count - 1] {
        ensure!(!folder.join(name(number)).exists(), "{number}");
    }
    Ok(())
}

fn name(number: usize) -> String {
    format!("{number:08}-0000-4000-8000-000000000000")
}

/// Files as commands leave them, each a second older than the one before.
fn make(folder: &Path, count: usize) -> Result<()> {
    let now = SystemTime::now();
    for number in 0..count {
        let directory = folder.join(name(number));
        let step = directory.join("0-aws_runShellScript");
        fs::create_dir_all(&step)?;
        fs::write(step.join("stdout"), "some output\n")?;
        fs::write(step.join("stderr"), "")?;
        let age = Duration::from_secs(u64::try_from(number)?);
        fs::File::open(&directory)?.set_modified(now - age)?;
    }
    Ok(())
}

/// KiB.
fn resident(pid: i32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|line| line.split_ascii_whitespace().next());
    Ok(number.context("VmRSS")?.parse()?)
}
