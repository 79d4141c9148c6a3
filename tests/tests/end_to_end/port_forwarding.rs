//! Forwarded ports, by our command line: many connections, ends, refusals, other hosts, Unix sockets, and ssh's way.

use std::{process::Stdio, sync::Arc};

use anyhow::{Context, Result, ensure};
use moorline_tests::{Cable, Cli, Endpoint, Node, PATIENCE, Site, run, skipped, wait_until};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader, Lines},
    net::{TcpListener, TcpStream, UnixStream},
    process::{Child, ChildStderr, ChildStdout},
    time::timeout,
};

/// A running `moorline forward`.
struct Forward {
    _child: Child,
    address: String,
    remarks: Lines<BufReader<ChildStderr>>,
    _stdout: Lines<BufReader<ChildStdout>>,
}

impl Forward {
    async fn start(cli: &Cli, node: &str, spec: &str) -> Result<Self> {
        let mut child = cli
            .command(&["--json", "forward", node, spec])?
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let mut stdout = BufReader::new(child.stdout.take().context("stdout")?).lines();
        let remarks = BufReader::new(child.stderr.take().context("stderr")?).lines();
        let line = timeout(PATIENCE, stdout.next_line()).await??;
        let said: serde_json::Value = serde_json::from_str(&line.context("it ended")?)?;
        Ok(Self {
            address: said["Address"].as_str().context("no address")?.to_owned(),
            _child: child,
            remarks,
            _stdout: stdout,
        })
    }

    async fn connect(&self) -> Result<TcpStream> {
        Ok(TcpStream::connect(&self.address).await?)
    }

    /// Waits for a line that tells of this.
    async fn remark(&mut self, text: &str) -> Result<()> {
        loop {
            let line = timeout(PATIENCE, self.remarks.next_line()).await??;
            if line.context("it ended without a word")?.contains(text) {
                return Ok(());
            }
        }
    }
}

/// Gives back what it gets, and ends when the other side has.
async fn echo_server() -> Result<u16> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let port = listener.local_addr()?.port();
    tokio::spawn(async move {
        while let Ok((mut connection, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut from, mut to) = connection.split();
                let _ended = tokio::io::copy(&mut from, &mut to).await;
                let _gone = to.shutdown().await;
            });
        }
    });
    Ok(port)
}

/// Says everything, then that this was all, and gets all of it back.
async fn echo<S: AsyncRead + AsyncWrite + Send + 'static>(connection: S, length: usize) -> Result<()> {
    let (mut from, mut to) = tokio::io::split(connection);
    let sent: Arc<Vec<u8>> = Arc::new(
        (0..length)
            .map(|byte| u8::try_from(byte % 251).unwrap_or(0))
            .collect(),
    );
    let sending = Arc::clone(&sent);
    let writer = tokio::spawn(async move {
        to.write_all(&sending).await?;
        to.shutdown().await
    });
    let mut received = Vec::new();
    timeout(PATIENCE, from.read_to_end(&mut received)).await??;
    ensure!(
        received == *sent,
        "{} of {length} bytes came back",
        received.len()
    );
    writer.await??;
    Ok(())
}

#[tokio::test]
async fn a_hundred_connections_at_once_each_get_their_own_bytes() -> Result<()> {
    let site = Site::start().await?;
    let spec = format!("0:{}", echo_server().await?);
    let forward = Forward::start(&site.cli(), site.node.id(), &spec).await?;
    let mut connections = Vec::new();
    for index in 0..100_usize {
        connections.push(tokio::spawn(echo(forward.connect().await?, index * 997)));
    }
    for connection in connections {
        connection.await??;
    }
    echo(forward.connect().await?, 5_000_000).await
}

#[tokio::test]
async fn a_connection_that_nobody_reads_stops_no_other() -> Result<()> {
    let site = Site::start().await?;
    let spec = format!("0:{}", echo_server().await?);
    let forward = Forward::start(&site.cli(), site.node.id(), &spec).await?;
    let mut stuck = forward.connect().await?;
    let chunk = vec![7; 64 * 1024];
    // until nothing is taken any more: every buffer on the way is full
    while timeout(std::time::Duration::from_secs(1), stuck.write_all(&chunk))
        .await
        .is_ok()
    {}
    echo(forward.connect().await?, 3_000_000).await
}

#[tokio::test]
async fn a_refused_port_is_told_and_the_session_goes_on() -> Result<()> {
    let site = Site::start().await?;
    let free = TcpListener::bind(("127.0.0.1", 0)).await?.local_addr()?.port();
    let mut forward = Forward::start(&site.cli(), site.node.id(), &format!("0:{free}")).await?;
    let mut rest = Vec::new();
    let _reset = forward.connect().await?.read_to_end(&mut rest).await;
    forward.remark("port").await?;
    let listener = TcpListener::bind(("127.0.0.1", free)).await?;
    let accepting = tokio::spawn(async move { listener.accept().await });
    let _connection = forward.connect().await?;
    timeout(PATIENCE, accepting).await???;
    Ok(())
}

#[tokio::test]
async fn no_spelling_of_a_metadata_address_is_forwarded_to() -> Result<()> {
    let site = Site::start().await?;
    for host in [
        "169.254.169.254",
        "2852039166",
        "0xa9fea9fe",
        "::ffff:169.254.169.254",
    ] {
        let spec = match host.contains(':') {
            true => format!("0:[{host}]:80"),
            false => format!("0:{host}:80"),
        };
        let words = ["forward", site.node.id(), &spec];
        let refused = timeout(PATIENCE, site.cli().run(&words)).await??.with_code(255)?;
        ensure!(refused.stderr.contains("is forbidden"), "{host}: {refused:?}");
    }
    Ok(())
}

#[tokio::test]
async fn a_unix_socket_leads_to_a_port_of_another_host() -> Result<()> {
    let site = Site::start().await?;
    let socket = site.node.dir().join("forward.sock");
    let spec = format!("{}:127.0.0.1:{}", socket.display(), echo_server().await?);
    let mut forwarder = site
        .cli()
        .command(&["forward", site.node.id(), &spec])?
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    wait_until("the socket to be there", async || Ok(socket.exists())).await?;
    echo(UnixStream::connect(&socket).await?, 300_000).await?;
    forwarder.kill().await?;
    Ok(())
}

#[tokio::test]
async fn connections_outlive_cuts_on_both_sides() -> Result<()> {
    let endpoint = Endpoint::start().await?;
    let of_node = Cable::to(endpoint.address()).await?;
    let of_client = Cable::to(endpoint.address()).await?;
    let mut node = Node::register_through(&endpoint, &of_node.url(), &[]).await?;
    node.start().await?;
    let spec = format!("0:{}", echo_server().await?);
    let cli = Cli::of(&endpoint).through(&of_client.url());
    let forward = Forward::start(&cli, node.id(), &spec).await?;
    let mut connection = forward.connect().await?;
    for cable in [&of_client, &of_node, &of_client, &of_node] {
        let mut back = vec![0; 100_000];
        connection.write_all(&vec![9; 100_000]).await?;
        cable.cut();
        timeout(PATIENCE, connection.read_exact(&mut back)).await??;
        ensure!(back == vec![9; 100_000]);
    }
    echo(connection, 1000).await
}

#[tokio::test]
async fn the_real_ssh_copies_a_file_through_the_proxy() -> Result<()> {
    let programs = ["/usr/sbin/sshd", "/usr/bin/scp", "/usr/bin/ssh-keygen"];
    if !moorline_tests::is_root()
        || programs
            .iter()
            .any(|program| !std::path::Path::new(program).exists())
    {
        skipped("an SSH server and client are needed, and root to run the server");
        return Ok(());
    }
    let site = Site::start().await?;
    let dir = site.node.dir();
    let environment = site.endpoint.environment();
    for key in ["host", "user"] {
        let path = dir.join(key).display().to_string();
        let words = ["-q", "-t", "ed25519", "-N", "", "-f", &path];
        run("/usr/bin/ssh-keygen", &words, environment, None, PATIENCE)
            .await?
            .success()?;
    }
    let port = TcpListener::bind(("127.0.0.1", 0)).await?.local_addr()?.port();
    let config = dir.join("sshd_config");
    let place = dir.display();
    std::fs::write(
        &config,
        format!(
            "ListenAddress 127.0.0.1\nPort {port}\nHostKey {place}/host\nPidFile none\nStrictModes no\n\
             AuthorizedKeysFile {place}/user.pub\nUsePAM no\nSubsystem sftp internal-sftp\n"
        ),
    )?;
    std::fs::create_dir_all("/run/sshd")?;
    let config = config.display().to_string();
    let mut server = tokio::process::Command::new("/usr/sbin/sshd")
        .args(["-D", "-e", "-f", &config])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    wait_until("the SSH server to listen", async || {
        Ok(TcpStream::connect(("127.0.0.1", port)).await.is_ok())
    })
    .await?;
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
    std::fs::write(&original, &content)?;
    let moorline = site.cli().command(&[])?.as_std().get_program().to_owned();
    let proxy = format!(
        "ProxyCommand={} ssh-proxy {} {port}",
        std::path::Path::new(&moorline).display(),
        site.node.id()
    );
    let (key, target) = (
        dir.join("user").display().to_string(),
        format!("root@node:{}", copy.display()),
    );
    let source = original.display().to_string();
    let words = [
        "-q",
        "-i",
        &key,
        "-o",
        &proxy,
        "-o",
        "StrictHostKeyChecking=no",
        "-o",
        "UserKnownHostsFile=/dev/null",
        "-o",
        "BatchMode=yes",
        &source,
        &target,
    ];
    run("/usr/bin/scp", &words, environment, None, 4 * PATIENCE)
        .await?
        .success()?;
    ensure!(std::fs::read(&copy)? == content, "the copy differs");
    server.kill().await?;
    Ok(())
}
