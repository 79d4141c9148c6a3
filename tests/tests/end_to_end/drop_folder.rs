//! Documents that a node's owner puts into its folder: on a machine without an endpoint, and beside one.

use std::{
    fs,
    io::Write,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use moorline_tests::{PATIENCE, Site, wait_for, wait_until};
use serde_json::{Value, json};

/// A node with a folder.
struct Host {
    site: Site,
    folder: PathBuf,
}

impl Host {
    /// The daemon is not started.
    async fn new() -> Result<Self> {
        let mut site = Site::start().await?;
        site.node.kill_daemon().await?;
        let folder = site.node.dir().join("drop");
        fs::DirBuilder::new().mode(0o700).create(&folder)?;
        let settings = format!(
            "[command]\nreboot_command = []\n[local]\ndrop_folder = {:?}\n",
            folder.display().to_string()
        );
        site.node.configure(&settings)?;
        Ok(Self { site, folder })
    }

    /// Puts a file there whole, as the page says.
    fn put(&self, name: &str, text: &str) -> Result<()> {
        let hidden = self.folder.join(format!(".{name}"));
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&hidden)?;
        file.write_all(text.as_bytes())?;
        Ok(fs::rename(&hidden, self.folder.join(name))?)
    }

    async fn result(&self, name: &str) -> Result<Value> {
        let path = self.folder.join(format!("{name}.result.json"));
        wait_for(
            &format!("the result of {name}"),
            PATIENCE,
            async || match fs::read_to_string(&path) {
                Ok(text) => Ok(Some(serde_json::from_str(&text)?)),
                Err(_) => Ok(None),
            },
        )
        .await
    }
}

fn document(line: &str) -> String {
    let steps = json!([
        {"action": "aws:runShellScript", "name": "first", "inputs": {"runCommand": [line]}},
        {"action": "aws:runShellScript", "name": "second", "inputs": {"runCommand": ["echo '{{ Word }}' >&2; exit 3"]}},
    ]);
    let parameters = json!({"Word": {"type": "String", "default": "none"}});
    json!({"schemaVersion": "2.2", "parameters": parameters, "mainSteps": steps}).to_string()
}

#[tokio::test]
async fn documents_wait_on_the_disk_and_not_in_the_daemons_memory() -> Result<()> {
    const MOST_KIB: u64 = 96 * 1024;
    let mut host = Host::new().await?;
    let settings = fs::read_to_string(host.site.node.state_dir().join("agent.toml"))?;
    let settings = settings.replace("[command]\n", "[command]\nworkers = 1\nqueue = 200\n");
    host.site.node.configure(&settings)?;
    let parameters = json!({"Word": "x".repeat(1_000_000)}).to_string();
    for number in 100..200 {
        host.put(&format!("d{number}.parameters.json"), &parameters)?;
        host.put(&format!("d{number}.json"), &document("sleep 1000"))?;
    }
    host.site.node.start().await?;
    // a hundred megabytes, each of which is on the disk before the next
    wait_for("the documents to be accepted", 3 * PATIENCE, async || {
        let is_empty = fs::read_dir(&host.folder)?.next().is_none();
        Ok(is_empty.then_some(()))
    })
    .await?;
    let daemon = host.site.node.daemon_pid().context("no daemon")?;
    let status = fs::read_to_string(format!("/proc/{daemon}/status"))?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let peak = peak.and_then(|peak| peak.trim().strip_suffix(" kB"));
    let peak: u64 = peak.context("no peak")?.parse()?;
    ensure!(peak < MOST_KIB, "the daemon's memory was {peak} KiB");
    Ok(())
}

async fn check_runs(host: &Host) -> Result<()> {
    host.put("job.parameters.json", r#"{"Word": "given"}"#)?;
    host.put("job.json", &document("echo one; test -n \"$SSM_COMMAND_ID\""))?;
    host.put("bad.yaml", "schemaVersion: '7'\nmainSteps: []\n")?;
    let result = host.result("job").await?;
    let step = |number: usize| &result["steps"][number];
    ensure!(
        result["status"] == "Failed"
            && step(0)["name"] == "first"
            && step(0)["status"] == "Success"
            && step(0)["standardOutput"] == "one\n"
            && step(1)["code"] == 3
            && step(1)["standardError"]
                .as_str()
                .is_some_and(|text| text.starts_with("given\n")),
        "{result}"
    );
    let refused = host.result("bad").await?;
    ensure!(
        refused["status"] == "Failed"
            && refused["reason"]
                .as_str()
                .is_some_and(|reason| reason.contains('7')),
        "{refused}"
    );
    // a refused file gets its other name when its result is there
    wait_until("nothing else to be in the folder", async || {
        let mut left: Vec<String> = fs::read_dir(&host.folder)?
            .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
            .collect::<Result<_>>()?;
        left.sort();
        ensure!(
            left == ["bad.result.json", "bad.yaml.refused", "job.result.json"],
            "{left:?}"
        );
        Ok(true)
    })
    .await
}

#[tokio::test]
async fn a_machine_that_is_registered_nowhere_runs_what_its_owner_puts_into_the_folder() -> Result<()> {
    let mut host = Host::new().await?;
    fs::remove_file(host.site.node.state_dir().join("registration.json"))?;
    host.site.endpoint.kill().await?;
    host.site.node.launch()?;
    check_runs(&host).await
}

#[tokio::test]
async fn without_its_endpoint_a_node_runs_what_is_in_the_folder_and_tells_the_endpoint_nothing_of_it()
-> Result<()> {
    let mut host = Host::new().await?;
    host.site.endpoint.kill().await?;
    host.site.node.launch()?;
    check_runs(&host).await?;
    host.site.endpoint.start_again().await?;
    host.site.node.wait_online().await?;
    host.site.check_commands_work().await?;
    let listed = host.site.api().call("ListCommands", json!({})).await?;
    ensure!(
        listed["Commands"]
            .as_array()
            .is_some_and(|commands| commands.len() == 1),
        "{listed}"
    );
    ensure!(
        !host.site.endpoint.log().contains("drop+"),
        "the endpoint was told"
    );
    Ok(())
}

#[tokio::test]
async fn a_document_of_the_folder_is_run_once_whenever_the_daemon_is_killed() -> Result<()> {
    let mut host = Host::new().await?;
    let runs = |host: &Host, number: u64| -> usize {
        let path = host.site.node.dir().join(format!("runs-{number}"));
        fs::read_to_string(path).map_or(0, |text| text.lines().count())
    };
    for number in 0..12_u64 {
        let path = host.site.node.dir().join(format!("runs-{number}"));
        host.put(
            &format!("n{number}.json"),
            &document(&format!("echo run >> {}", path.display())),
        )?;
    }
    // Killed when so many have been taken, or have run, until all have their result.
    for done in [0, 0, 1, 2, 4, 6, 8, 10, 12] {
        host.site.node.launch()?;
        let mut seen = 0;
        wait_until("some to be taken", async || {
            seen += 1;
            let taken = (0..12)
                .filter(|number| !host.folder.join(format!("n{number}.json")).exists())
                .count();
            Ok(taken >= done && (done > 0 || seen > 2))
        })
        .await?;
        host.site.node.kill_daemon().await?;
    }
    host.site.node.launch()?;
    for number in 0..12 {
        host.result(&format!("n{number}")).await?;
        ensure!(
            runs(&host, number) == 1,
            "{number} was run {} times",
            runs(&host, number)
        );
    }
    Ok(())
}

#[tokio::test]
async fn a_folder_that_others_may_write_to_runs_nothing_and_the_log_says_so() -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let mut host = Host::new().await?;
    let marker = host.site.node.dir().join("ran");
    host.put("job.json", &document(&format!("touch {}", marker.display())))?;
    set_mode(&host.folder, 0o777)?;
    host.site.node.start().await?;
    wait_until("the log to say so", async || {
        Ok(host.site.node.log().contains("others may write to it"))
    })
    .await?;
    host.site.check_commands_work().await?;
    ensure!(!marker.exists());
    set_mode(&host.folder, 0o700)?;
    host.result("job").await?;
    ensure!(marker.exists());
    return Ok(());

    fn set_mode(path: &Path, mode: u32) -> Result<()> {
        Ok(fs::set_permissions(path, fs::Permissions::from_mode(mode))?)
    }
}
