//! The power of a node, or of the endpoint, is cut at any moment, and everything is killed in between: what was promised
//! stands, and nothing happens twice.

mod commands;
mod packages;
mod promises;

use anyhow::{Context, Result};
use moorline_tests::{CrashDisk, Dice, Endpoint, Node, skipped, wait_for};
use std::time::Duration;

/// A node and an endpoint, each with a disk of its own whose power can be cut. Who uses a disk goes before it.
pub(crate) struct PowerSite {
    node: Node,
    endpoint: Endpoint,
    node_disk: CrashDisk,
    endpoint_disk: CrashDisk,
}

/// When something happens to a disk's users.
#[derive(Debug, Clone, Copy)]
enum Moment {
    AfterMillis(u64),
    /// After so many changes and syncs of the disk.
    AfterChanges(u64),
}

impl Moment {
    fn random(dice: &mut Dice) -> Self {
        if dice.below(3) == 0 {
            Self::AfterMillis(dice.below(400))
        } else {
            Self::AfterChanges(1 + dice.below(120))
        }
    }

    /// Waits for it; a disk that nobody changes is frozen in the end all the same.
    async fn come(self, disk: &CrashDisk) {
        match self {
            Self::AfterMillis(millis) => tokio::time::sleep(Duration::from_millis(millis)).await,
            Self::AfterChanges(changes) => {
                disk.cut_in(changes);
                let frozen = wait_for("the cut", Duration::from_secs(1), async || {
                    Ok(disk.is_frozen().then_some(()))
                });
                drop(frozen.await);
            }
        }
        disk.freeze();
    }
}

impl PowerSite {
    /// Starts both. `None`: this machine has no such disks, which the test has said.
    async fn start() -> Result<Option<Self>> {
        if let Some(why) = CrashDisk::missing() {
            skipped(why);
            return Ok(None);
        }
        let (node_disk, endpoint_disk) = (CrashDisk::mount()?, CrashDisk::mount()?);
        let endpoint = Endpoint::start_in(&endpoint_disk.path().join("control")).await?;
        let dir = tempfile::tempdir()?;
        let state_dir = node_disk.path().join("agent");
        let url = endpoint.url();
        let mut node = Node::register_in(&endpoint, &url, &[], dir, state_dir).await?;
        node.configure("[command]\nreboot_command = [\"true\"]\n")?;
        node.next_boot()?;
        node.start().await?;
        Ok(Some(Self {
            node,
            endpoint,
            node_disk,
            endpoint_disk,
        }))
    }

    /// The node's power goes, and comes back; the daemon starts.
    async fn cut_node(&mut self, dice: &mut Dice) -> Result<()> {
        self.node.lose_power(&self.node_disk).await?;
        self.node_disk.on_again(dice)?;
        self.node.next_boot()?;
        self.node.launch()
    }

    /// The endpoint's power goes, and comes back; it starts.
    async fn cut_endpoint(&mut self, dice: &mut Dice) -> Result<()> {
        self.endpoint.lose_power(&self.endpoint_disk).await?;
        self.endpoint_disk.on_again(dice)?;
        let started = self.endpoint.start_again().await;
        started.context("the endpoint does not start after a power cut")
    }
}
