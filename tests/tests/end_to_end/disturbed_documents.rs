//! Documents whose commands are disturbed on their way, with what must come of them all the same: `tests/documents/disturbed`.

use std::{fs, path::Path};

use anyhow::{Context, Result, bail, ensure};
use moorline_tests::{Cable, Endpoint, Node, PATIENCE, Site, is_root, wait_until};

use super::document_table::{Case, check_remote, files, send};

/// A machine that can be disturbed.
struct Bench {
    site: Site,
    cable: Cable,
    /// Is there when a reboot was asked for.
    asked: std::path::PathBuf,
}

impl Bench {
    async fn new() -> Result<Self> {
        let endpoint = Endpoint::start().await?;
        let cable = Cable::to(endpoint.address()).await?;
        let mut node = Node::register_through(&endpoint, &cable.url(), &[]).await?;
        let asked = node.dir().join("asked");
        node.configure(&format!(
            "[command]\nworkers = 1\nqueue = 10\nreboot_command = [\"touch\", {:?}]\n",
            asked.display().to_string()
        ))?;
        if is_root() {
            node.next_boot()?;
        }
        node.start().await?;
        Ok(Self {
            site: Site { node, endpoint },
            cable,
            asked,
        })
    }

    async fn disturb(&mut self, how: &str) -> Result<()> {
        match how {
            "cut" => {
                self.cable.cut();
                Ok(())
            }
            "kill-agent" => self.restart_agent().await,
            "kill-endpoint" => {
                self.site.endpoint.kill().await?;
                self.site.endpoint.start_again().await
            }
            "reboot" => {
                let asked = &self.asked;
                wait_until("the reboot to be asked for", async || Ok(asked.exists())).await?;
                self.site.reboot().await
            }
            other => bail!("nothing is disturbed by {other}"),
        }
    }

    async fn restart_agent(&mut self) -> Result<()> {
        self.site.node.kill_daemon().await?;
        self.site.node.start().await
    }

    async fn run(&mut self, case: &Case, number: usize) -> Result<()> {
        let release = case.dir().join("release");
        let is_pending = case.text("at") == Some("pending");
        let mut before = None;
        if is_pending {
            let script = format!("until [ -e {} ]; do sleep 0.05; done", release.display());
            let id = self.site.send(&script).await?;
            self.site.in_progress(&id).await?;
            before = Some(id);
        }
        let id = send(self.site.api(), self.site.node.id(), case, number).await?;
        let id = id.context("it is not to be refused")?;
        match case.text("at") {
            Some("sent") => {}
            Some("pending") => self.site.in_progress(&id).await?,
            Some("begun") => wait_for_file(&case.dir().join("begun")).await?,
            other => bail!("there is no state {other:?}"),
        }
        for how in case.list("disturb") {
            self.disturb(how).await?;
        }
        if is_pending {
            ensure!(!case.dir().join("runs").exists(), "it did not wait");
            fs::write(&release, "")?;
        }
        fs::write(case.dir().join("go"), "")?;
        check_remote(self.site.api(), self.site.node.id(), case, &id).await?;
        if let Some(before) = before {
            self.site.finished(&before).await?;
        }
        let runs = fs::read_to_string(case.dir().join("runs"))?.lines().count();
        ensure!(case.number("runs") == Some(runs as u64), "it ran {runs} times");
        Ok(())
    }
}

async fn wait_for_file(path: &Path) -> Result<()> {
    let what = format!("{} to be there", path.display());
    moorline_tests::wait_for(&what, PATIENCE, async || Ok(path.exists().then_some(()))).await
}

#[tokio::test]
async fn documents_run_as_often_as_the_table_says_whatever_is_killed_and_delivered_again() -> Result<()> {
    let mut bench = Bench::new().await?;
    let dir = tempfile::tempdir()?;
    let mut count = 0;
    for file in files("disturbed")? {
        for case in Case::read_all(&file, dir.path())? {
            if !is_root() && case.list("disturb").any(|how| how == "reboot") {
                println!(
                    "skipped: {}: another boot is made in a mount namespace, which takes root",
                    case.name()
                );
                continue;
            }
            bench
                .run(&case, count)
                .await
                .with_context(|| case.name().to_owned())?;
            count += 1;
        }
    }
    ensure!(count >= 7, "cases are missing");
    Ok(())
}
