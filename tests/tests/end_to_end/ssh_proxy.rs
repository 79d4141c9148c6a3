//! What goes over SSH goes over `moorline ssh-proxy`, with the real programs.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context, Result, ensure};
use moorline_tests::{PATIENCE, Site, SshServer, run};

/// A site whose node has an SSH server on its loopback address.
struct SshSite {
    site: Site,
    server: SshServer,
}

impl SshSite {
    /// `None`: this machine has no SSH server, or not these programs, which the test has said.
    async fn start(programs: &[&str]) -> Result<Option<Self>> {
        let site = Site::start().await?;
        let server = SshServer::start(site.endpoint.environment(), programs).await?;
        Ok(server.map(|server| Self { site, server }))
    }

    /// What ssh is told so that `node` is the node.
    fn options(&self) -> Result<Vec<String>> {
        let moorline = self.site.cli().command(&[])?.as_std().get_program().to_owned();
        let (moorline, node) = (Path::new(&moorline).display(), self.site.node.id());
        let key = self.server.key().display().to_string();
        let proxy = format!("ProxyCommand={moorline} ssh-proxy {node} {}", self.server.port());
        let settings = [
            &proxy,
            "StrictHostKeyChecking=no",
            "UserKnownHostsFile=/dev/null",
            "BatchMode=yes",
        ];
        let settings = settings.iter().flat_map(|setting| ["-o", setting]);
        let words = ["-q", "-i", &key].into_iter().chain(settings);
        Ok(words.map(str::to_owned).collect())
    }

    fn environment(&self) -> &BTreeMap<String, String> {
        self.site.endpoint.environment()
    }
}

#[tokio::test]
async fn the_real_ssh_copies_a_file_through_the_proxy() -> Result<()> {
    let Some(ssh) = SshSite::start(&["/usr/bin/scp"]).await? else {
        return Ok(());
    };
    let dir = ssh.site.node.dir();
    // the flag for long runs asks for the size that a person would try
    let megabytes = if std::env::var_os("MOORLINE_SOAK").is_some() {
        1024
    } else {
        64
    };
    let (original, copy) = (dir.join("original"), dir.join("copy"));
    let content: Vec<u8> = (0..megabytes * 1024 * 1024_u32)
        .map(|at| at.wrapping_mul(2_654_435_761).to_le_bytes()[2])
        .collect();
    fs::write(&original, &content)?;
    let options = ssh.options()?;
    let (source, target) = (
        original.display().to_string(),
        format!("root@node:{}", copy.display()),
    );
    let mut words: Vec<&str> = options.iter().map(String::as_str).collect();
    words.extend([source.as_str(), &target]);
    run("/usr/bin/scp", &words, ssh.environment(), None, 4 * PATIENCE)
        .await?
        .success()?;
    ensure!(fs::read(&copy)? == content, "the copy differs");
    Ok(())
}

/// A tree of files of many sizes; everything in it follows from the seed.
fn write_tree(root: &Path, seed: u32) -> Result<()> {
    for number in 0..200_u32 {
        let folder = root.join(format!("folder {}", number % 7));
        fs::create_dir_all(&folder)?;
        let length = (number * number * 37) % 200_000;
        let content: Vec<u8> = (0..length)
            .map(|at| (at ^ seed ^ number).wrapping_mul(2_654_435_761).to_le_bytes()[3])
            .collect();
        fs::write(folder.join(format!("file-{number}")), content)?;
    }
    std::os::unix::fs::symlink("folder 1/file-1", root.join("link"))?;
    Ok(())
}

#[tokio::test]
async fn the_real_rsync_copies_a_tree_both_ways_through_the_proxy() -> Result<()> {
    let Some(ssh) = SshSite::start(&["/usr/bin/rsync", "/usr/bin/ssh"]).await? else {
        return Ok(());
    };
    let dir = ssh.site.node.dir();
    let [original, there, back] = ["original", "there", "back"].map(|name| dir.join(name));
    fs::create_dir(&original)?;
    write_tree(&original, 1)?;
    // rsync splits the line at spaces, and takes words in quotes for one
    let options: Vec<String> = ssh.options()?.iter().map(|word| format!("'{word}'")).collect();
    let shell = format!("ssh {}", options.join(" "));
    let path = |path: &Path| format!("{}/", path.display());
    let remote = format!("root@node:{}", path(&there));
    let rsync = async |from: &str, to: &str| {
        let words = ["-a", "--checksum", "--stats", "-e", &shell, from, to];
        run("/usr/bin/rsync", &words, ssh.environment(), None, 2 * PATIENCE)
            .await?
            .success()
    };
    rsync(&path(&original), &remote).await?;
    rsync(&remote, &path(&back)).await?;
    let difference = ["-r", &path(&original), &path(&back)];
    let compared = run("diff", &difference, ssh.environment(), None, PATIENCE).await?;
    ensure!(compared.code == 0, "{compared:?}");
    // only what has changed is sent again
    fs::write(original.join("folder 3/file-3"), "changed")?;
    let again = rsync(&path(&original), &remote).await?;
    let transferred = again
        .stdout
        .lines()
        .find(|line| line.contains("files transferred"));
    let transferred = transferred.context("no statistics")?;
    ensure!(transferred.ends_with(": 1"), "{transferred}");
    Ok(())
}
