//! What `moorline` writes into files, where the disk is full or it is killed in the middle.

use std::{
    fs::{self, OpenOptions},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use anyhow::{Result, ensure};
use moorline_tests::{Cli, Recording, Site};
use nix::fcntl::OFlag;
use tokio::process::Command;

/// `moorline ARGUMENTS` that may write this many blocks of 512 bytes into a file. A write too many kills it.
fn limited(cli: &Cli, blocks: u32, arguments: &[&str]) -> Result<Command> {
    limited_by(cli, &format!("ulimit -f {blocks}; exec \"$@\""), arguments)
}

/// The same, and a write too many fails, as on a full disk.
fn starved(cli: &Cli, blocks: u32, arguments: &[&str]) -> Result<Command> {
    let script = format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$@\"");
    limited_by(cli, &script, arguments)
}

fn limited_by(cli: &Cli, script: &str, arguments: &[&str]) -> Result<Command> {
    let command = cli.command(arguments)?;
    let inner = command.as_std();
    let environment = inner.get_envs().filter_map(|(name, value)| Some((name, value?)));
    let mut shell = Command::new("sh");
    shell.args(["-c", script, "sh"]).arg(inner.get_program());
    shell
        .args(inner.get_args())
        .env_clear()
        .envs(environment)
        .kill_on_drop(true);
    Ok(shell)
}

/// Every file of a folder with what it holds.
fn files(folder: &Path) -> Result<Vec<(String, Vec<u8>)>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        files.push((
            entry.file_name().to_string_lossy().into_owned(),
            fs::read(entry.path())?,
        ));
    }
    files.sort();
    Ok(files)
}

/// Whether a kill leaves a hidden file: one without a name, which goes by itself, is not to be had here.
fn leaves_hidden(folder: &Path) -> bool {
    let mut options = OpenOptions::new();
    options.write(true).custom_flags(OFlag::O_TMPFILE.bits());
    options.open(folder).is_err()
}

#[tokio::test]
async fn a_full_disk_or_a_kill_costs_no_file_that_was_there() -> Result<()> {
    let site = Site::start().await?;
    site.check_commands_work().await?;
    let (folder, scratch) = (tempfile::tempdir()?, tempfile::tempdir()?);
    let session = Recording::newest(&site.cli(), scratch.path()).await?.session;
    fs::write(scratch.path().join("install.sh"), "true\n")?;
    let package = scratch.path().display().to_string();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (out, into) = (path("out"), path(""));
    for name in ["out", "manifest.json", "1.0.zip"] {
        fs::write(folder.path().join(name), "older")?;
    }

    let export = ["transcript", "export", &session, "--out", &out];
    let audit = |format| ["audit", "export", "--format", format, "--out", &out];
    let build = ["package", "build", &package, "--version", "1.0", "--out", &into];
    let platforms: Vec<String> = (10..60)
        .map(|number| format!("--platform=ubuntu/{number}"))
        .collect();
    let platforms: Vec<&str> = platforms.iter().map(String::as_str).collect();
    let cases = [
        (0, export.to_vec()),
        (0, [&export[..], &["--bundle"]].concat()),
        (0, vec!["transcript", "keys", "--out", &out]),
        (0, audit("chain").to_vec()),
        (0, audit("jsonl").to_vec()),
        (0, audit("cloudtrail").to_vec()),
        (0, build.to_vec()),
        // room for the archive, and none for its manifest
        (1, [&build[..], &platforms].concat()),
    ];
    let cli = site.cli();
    let leaves_hidden = leaves_hidden(folder.path());
    for (blocks, arguments) in &cases {
        let kept = || {
            let mut files = files(folder.path())?;
            files.retain(|(name, _)| *blocks == 0 || name != "1.0.zip");
            files.retain(|(name, _)| !leaves_hidden || !name.starts_with(".moorline-"));
            anyhow::Ok(files)
        };
        let before = kept()?;
        let killed = limited(&cli, *blocks, arguments)?.output().await?;
        ensure!(killed.status.code().is_none(), "{arguments:?}: {killed:?}");
        let full = starved(&cli, *blocks, arguments)?.output().await?;
        let said = String::from_utf8_lossy(&full.stderr);
        ensure!(
            full.status.code() == Some(1) && said.contains("File too large"),
            "{arguments:?}: {full:?}"
        );
        let after = kept()?;
        ensure!(before == after, "{arguments:?}: {after:?}");
    }
    let shown = cli
        .run(&["transcript", "keys", "--out", "/dev/stdout"])
        .await?
        .success()?;
    ensure!(shown.stdout.contains("nodes"), "{shown:?}");
    Ok(())
}
