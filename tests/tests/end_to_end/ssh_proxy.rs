//! What goes over SSH goes over `moorline ssh-proxy`, with the real programs.

use std::{collections::BTreeMap, fs, path::Path, process::Stdio};

use anyhow::{Context, Result, ensure};
use moorline_tests::{PATIENCE, Site, is_root, run, skipped, wait_until};
use tokio::{
    net::{TcpListener, TcpStream},
    process::{Child, Command},
};

/// Whether there are these programs, and root to run the server; if not, the reason is said.
fn is_possible(programs: &[&str]) -> bool {
    let server = ["/usr/sbin/sshd", "/usr/bin/ssh-keygen"];
    let mut all = server.iter().chain(programs);
    let missing = all.find(|program| !Path::new(program).exists());
    match missing {
        Some(program) => skipped(&format!("there is no {program}")),
        None if !is_root() => skipped("only root can run an SSH server"),
        None => return true,
    }
    false
}

/// A site whose node has an SSH server on its loopback address, and a user with a key for it.
struct SshSite {
    site: Site,
    port: u16,
    /// Its state goes before the site does.
    server: Child,
}

impl SshSite {
    async fn start() -> Result<Self> {
        let site = Site::start().await?;
        let dir = site.node.dir();
        for key in ["host", "user"] {
            let path = dir.join(key).display().to_string();
            let words = ["-q", "-t", "ed25519", "-N", "", "-f", &path];
            run(
                "/usr/bin/ssh-keygen",
                &words,
                site.endpoint.environment(),
                None,
                PATIENCE,
            )
            .await?
            .success()?;
        }
        let port = TcpListener::bind(("127.0.0.1", 0)).await?.local_addr()?.port();
        let config = dir.join("sshd_config");
        let place = dir.display();
        fs::write(
            &config,
            format!(
                "ListenAddress 127.0.0.1\nPort {port}\nHostKey {place}/host\nPidFile none\nStrictModes no\n\
                 AuthorizedKeysFile {place}/user.pub\nUsePAM no\nSubsystem sftp internal-sftp\n"
            ),
        )?;
        fs::create_dir_all("/run/sshd")?;
        let server = Command::new("/usr/sbin/sshd")
            .args(["-D", "-e", "-f", &config.display().to_string()])
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()?;
        wait_until("the SSH server to listen", async || {
            Ok(TcpStream::connect(("127.0.0.1", port)).await.is_ok())
        })
        .await?;
        Ok(Self { site, port, server })
    }

    /// What ssh is told so that `node` is the node.
    fn options(&self) -> Result<Vec<String>> {
        let moorline = self.site.cli().command(&[])?.as_std().get_program().to_owned();
        let (moorline, node) = (Path::new(&moorline).display(), self.site.node.id());
        let key = self.site.node.dir().join("user").display().to_string();
        let proxy = format!("ProxyCommand={moorline} ssh-proxy {node} {}", self.port);
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
    if !is_possible(&["/usr/bin/scp"]) {
        return Ok(());
    }
    let mut ssh = SshSite::start().await?;
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
    ssh.server.kill().await?;
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
    if !is_possible(&["/usr/bin/rsync", "/usr/bin/ssh"]) {
        return Ok(());
    }
    let mut ssh = SshSite::start().await?;
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
    ssh.server.kill().await?;
    Ok(())
}
