//! The state directory's file system is full: exactly when an operator needs a shell.

use std::{
    io::{Read, Write},
    net::TcpListener,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use moorline_tests::{
    Endpoint, Node, PATIENCE, Recording, Site, WorkerKind, finished, is_root, run, send_script,
};
use serde_json::json;

/// A file system of a few megabytes and 200 files, mounted for one test.
struct SmallDisk {
    path: PathBuf,
}

impl SmallDisk {
    async fn mount(path: &Path, megabytes: u32) -> Result<Self> {
        std::fs::create_dir(path)?;
        let path_text = path.display().to_string();
        let options = format!("size={megabytes}m,nr_inodes=200,mode=700");
        let arguments = ["-t", "tmpfs", "-o", &options, "moorline-test", &path_text];
        run("mount", &arguments, &Default::default(), None, PATIENCE)
            .await?
            .success()?;
        Ok(Self {
            path: path.to_owned(),
        })
    }

    /// Writes until not one byte and not one file more fits.
    fn fill(&self) -> Result<()> {
        let mut file = std::fs::File::create(self.path.join("filler"))?;
        let mut fill_bytes = || {
            for size in [64 * 1024, 4096, 512, 1] {
                while file.write_all(&vec![0; size]).is_ok() {}
            }
        };
        fill_bytes();
        std::fs::create_dir(self.path.join("fillers"))?;
        for number in 0.. {
            if std::fs::File::create(self.path.join("fillers").join(number.to_string())).is_err() {
                break;
            }
        }
        // what the agent has given back meanwhile
        fill_bytes();
        Ok(())
    }

    fn free(&self) -> Result<()> {
        std::fs::remove_dir_all(self.path.join("fillers"))?;
        Ok(std::fs::remove_file(self.path.join("filler"))?)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // lazily: a worker may still have its directory there
        let _unmounted = nix::mount::umount2(&self.path, nix::mount::MntFlags::MNT_DETACH);
    }
}

/// A node whose state lies on a small disk. The node goes before the disk.
struct FullSite {
    node: Node,
    disk: SmallDisk,
    endpoint: Endpoint,
}

async fn start() -> Result<FullSite> {
    let endpoint = Endpoint::start().await?;
    let dir = tempfile::tempdir()?;
    let state_dir = dir.path().join("agent");
    let disk = SmallDisk::mount(&state_dir, 2).await?;
    let url = endpoint.url();
    let mut node = Node::register_in(&endpoint, &url, &[], dir, state_dir).await?;
    node.start().await?;
    Ok(FullSite { node, disk, endpoint })
}

#[tokio::test]
async fn a_session_opens_on_a_full_disk_and_says_why_it_may_be_needed() -> Result<()> {
    if !is_root() {
        return Ok(()); // only root can mount; what an ordinary user can see is in the test below
    }
    let site = start().await?;
    site.disk.fill()?;
    let cli = moorline_tests::Cli::of(&site.endpoint);
    let mut terminal = cli.shell(site.node.id()).await?;
    terminal.send(&format!(
        "rm {}/filler && echo cleaned-''up; exit 7\n",
        site.disk.path.display()
    ))?;
    terminal.expect("cleaned-up").await?;
    ensure!(terminal.wait().await? == 7, "{}", terminal.text());
    Ok(())
}

#[tokio::test]
async fn a_daemon_that_starts_on_a_full_disk_serves_sessions() -> Result<()> {
    if !is_root() {
        return Ok(());
    }
    let mut site = start().await?;
    site.node.kill_daemon().await?;
    site.disk.fill()?;
    site.node.start().await?;
    let cli = moorline_tests::Cli::of(&site.endpoint);
    let mut terminal = cli.shell(site.node.id()).await?;
    terminal.send("echo open-''anyway; exit\n")?;
    terminal.expect("open-anyway").await?;
    terminal.wait().await?;
    Ok(())
}

#[tokio::test]
async fn a_command_for_a_full_disk_is_not_lost() -> Result<()> {
    if !is_root() {
        return Ok(());
    }
    let site = start().await?;
    site.disk.fill()?;
    let count = site.node.dir().join("count");
    let api = site.endpoint.api();
    let command = send_script(
        api,
        site.node.id(),
        &format!("echo ran >> {}; echo done", count.display()),
    )
    .await?;
    // refused for now, and told so, or run from memory: but neither lost nor guessed
    let input = json!({"CommandId": command, "InstanceId": site.node.id()});
    let early = moorline_tests::wait_for("a final status", Duration::from_secs(8), async || {
        let invocation = api.call("GetCommandInvocation", input.clone()).await?;
        Ok((invocation["Status"] == "Success" || invocation["Status"] == "Failed").then_some(invocation))
    })
    .await;
    site.disk.free()?;
    let invocation = match early {
        Ok(invocation) => invocation,
        Err(_) => finished(api, site.node.id(), &command).await?,
    };
    ensure!(invocation["Status"] == "Success", "{invocation}");
    ensure!(invocation["StandardOutputContent"] == "done\n", "{invocation}");
    ensure!(
        std::fs::read_to_string(&count)? == "ran\n",
        "it did not run exactly once"
    );
    Ok(())
}

#[tokio::test]
async fn a_result_that_could_not_be_written_down_is_told_as_unknown_or_delivered_later() -> Result<()> {
    if !is_root() {
        return Ok(());
    }
    let site = start().await?;
    let (started, go) = (site.node.dir().join("started"), site.node.dir().join("go"));
    let script = format!(
        "echo ran >> {started}; until [ -e {go} ]; do sleep 0.05; done; echo done",
        started = started.display(),
        go = go.display()
    );
    let api = site.endpoint.api();
    let command = send_script(api, site.node.id(), &script).await?;
    moorline_tests::wait_until("the script to run", async || Ok(started.exists())).await?;
    site.disk.fill()?;
    std::fs::File::create(&go)?;
    let worker_gone = site.node.wait_workers(WorkerKind::Command, 0);
    // a worker may wait for space, which then comes
    if tokio::time::timeout(Duration::from_secs(5), worker_gone)
        .await
        .is_err()
    {
        site.disk.free()?;
    }
    let invocation = finished(api, site.node.id(), &command).await?;
    let status = invocation["Status"].as_str().context("no status")?;
    ensure!(matches!(status, "Success" | "Failed"), "{invocation}");
    ensure!(
        std::fs::read_to_string(&started)? == "ran\n",
        "it did not run exactly once"
    );
    Ok(())
}

#[tokio::test]
async fn the_end_of_a_recording_that_the_disk_does_not_take_is_kept_and_arrives() -> Result<()> {
    if !is_root() {
        return Ok(());
    }
    let endpoint = Endpoint::start().await?;
    let mut node = Node::register(&endpoint, &[]).await?;
    // for recordings alone: the journal has room
    let spool = SmallDisk::mount(&node.state_dir().join("spool"), 2).await?;
    node.start().await?;
    let site = Site { node, endpoint };
    let go = site.node.dir().join("go");
    // less than waits in memory, and more than room is kept for
    let script = format!(
        "echo begun; until [ -e {} ]; do sleep 0.05; done; seq -f 'line %06.0f of those that the disk does not take' 12000",
        go.display()
    );
    let id = site.send(&script).await?;
    let cast = format!("transcripts/{id}.{}.cast", site.node.id());
    let cast = site.endpoint.state_dir().join(cast);
    moorline_tests::wait_until("output to arrive at the endpoint", async || {
        Ok(std::fs::read_to_string(&cast).is_ok_and(|text| text.contains("begun")))
    })
    .await?;
    spool.fill()?;
    std::fs::File::create(&go)?;
    let invocation = site.finished(&id).await?;
    ensure!(invocation["Status"] == "Success", "{invocation}");
    let recording = Recording::of_command(&site.cli(), site.node.dir(), &id).await?;
    let shown = recording.texts("o");
    let lines = shown.matches("of those that the disk does not take").count();
    ensure!(lines == 12_000, "{lines} lines");
    ensure!(recording.ours("gap")?.is_empty(), "there is a gap");
    ensure!(recording.texts("x") == "0", "the end is not recorded");
    site.node.wait_workers(WorkerKind::Command, 0).await?;
    // so that the node goes before the disk
    drop(site);
    drop(spool);
    Ok(())
}

#[tokio::test]
async fn what_a_full_disk_and_the_memory_do_not_take_is_a_signed_gap() -> Result<()> {
    if !is_root() {
        return Ok(());
    }
    let endpoint = Endpoint::start().await?;
    let mut node = Node::register(&endpoint, &[]).await?;
    let spool = SmallDisk::mount(&node.state_dir().join("spool"), 2).await?;
    node.start().await?;
    let site = Site { node, endpoint };
    let go = site.node.dir().join("go");
    let script = format!(
        "echo begun; until [ -e {} ]; do sleep 0.05; done; seq -f 'line %09.0f of those that nothing takes' 100000",
        go.display()
    );
    let id = site.send(&script).await?;
    let cast = format!("transcripts/{id}.{}.cast", site.node.id());
    let cast = site.endpoint.state_dir().join(cast);
    moorline_tests::wait_until("output to arrive at the endpoint", async || {
        Ok(std::fs::read_to_string(&cast).is_ok_and(|text| text.contains("begun")))
    })
    .await?;
    spool.fill()?;
    std::fs::File::create(&go)?;
    site.finished(&id).await?;
    let recording = Recording::of_command(&site.cli(), site.node.dir(), &id).await?;
    let gaps = recording.ours("gap")?;
    let missing: u64 = gaps.iter().filter_map(|gap| gap["bytes"].as_u64()).sum();
    let recorded = recording.texts("o").replace("\r\n", "\n").len() as u64;
    let written = 6 + 100_000 * "line 000000001 of those that nothing takes\n".len() as u64;
    ensure!(
        missing > 0 && recorded + missing == written,
        "{recorded} and {missing} of {written}"
    );
    ensure!(recording.texts("x") == "0", "the end is not recorded");
    drop(site);
    drop(spool);
    Ok(())
}

#[tokio::test]
async fn a_download_leaves_room_on_the_disk_for_others() -> Result<()> {
    if !is_root() {
        return Ok(());
    }
    let endpoint = Endpoint::start().await?;
    let dir = tempfile::tempdir()?;
    let state_dir = dir.path().join("agent");
    let disk = SmallDisk::mount(&state_dir, 64).await?;
    let mut node = Node::register_in(&endpoint, &endpoint.url(), &[], dir, state_dir).await?;
    let bin = node.dir().join("bin");
    std::fs::create_dir(&bin)?;
    // In git's place: what it brings has no end.
    let endless = "#!/bin/sh\nfor clone; do :; done\nmkdir -p \"$clone\"\n\
                   while :; do head -c 1M /dev/zero >> \"$clone/pack\"; sleep 0.02; done\n";
    std::fs::write(bin.join("git"), endless)?;
    std::fs::set_permissions(bin.join("git"), std::fs::Permissions::from_mode(0o755))?;
    node.set_environment("PATH", &format!("{}:/usr/bin:/bin", bin.display()));
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let url = format!("http://{}/file", listener.local_addr()?);
    // So does what a server sends.
    let served = std::thread::spawn(move || -> std::io::Result<()> {
        let (mut socket, _) = listener.accept()?;
        let _asked = socket.read(&mut [0; 4096])?;
        socket.write_all(b"HTTP/1.1 200 OK\r\n\r\n")?;
        while socket.write_all(&[b'x'; 64 * 1024]).is_ok() {}
        Ok(())
    });
    for (source, info) in [
        ("Git", json!({"repository": "https://git.example/endless"})),
        ("HTTP", json!({"url": url, "allowInsecureDownload": true})),
    ] {
        let document = json!({"schemaVersion": "2.2", "mainSteps": [{"action": "aws:downloadContent", "name": "get",
            "inputs": {"sourceType": source, "sourceInfo": info}}]});
        let path = node.dir().join("document.json");
        std::fs::write(&path, document.to_string())?;
        let refused = node.agent("run-document", &[&path.display().to_string()]).await?;
        let refused = format!("{:?}", refused.with_code(1)?);
        ensure!(
            refused.contains(
                "the disk is nearly full: a download leaves 256 MiB, or a tenth of a small disk, to others"
            ),
            "{source}: {refused}"
        );
        let space = nix::sys::statvfs::statvfs(&disk.path)?;
        let used = (space.blocks() - space.blocks_free()) * space.fragment_size();
        ensure!(used < 4 * 1024 * 1024, "{source}: {used} bytes are left behind");
    }
    ensure!(matches!(served.join(), Ok(Ok(()))), "the server was not asked");
    // so that the node goes before the disk
    drop(node);
    drop(disk);
    Ok(())
}

#[tokio::test]
async fn a_state_directory_that_may_not_be_written_costs_no_session() -> Result<()> {
    let site = Site::start().await?;
    std::fs::set_permissions(site.node.state_dir(), std::fs::Permissions::from_mode(0o500))?;
    let mut terminal = site.cli().shell(site.node.id()).await?;
    terminal.send("echo open-''anyway; exit\n")?;
    terminal.expect("open-anyway").await?;
    terminal.wait().await?;
    std::fs::set_permissions(site.node.state_dir(), std::fs::Permissions::from_mode(0o700))?;
    Ok(())
}
