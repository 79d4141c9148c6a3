//! Forwarded ports, by our command line: many connections, ends, refusals, other hosts, Unix sockets.

use std::{process::Stdio, sync::Arc};

use anyhow::{Result, ensure};
use moorline_tests::{Cable, Cli, Endpoint, Forward, Node, PATIENCE, ReservedPort, Site, wait_until};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, UnixStream},
    time::timeout,
};

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
    let free = ReservedPort::new()?;
    let spec = format!("0:{}", free.number());
    let mut forward = Forward::start(&site.cli(), site.node.id(), &spec).await?;
    let mut rest = Vec::new();
    // it may be reset already when it is made
    if let Ok(mut connection) = forward.connect().await {
        let _reset = connection.read_to_end(&mut rest).await;
    }
    ensure!(rest.is_empty(), "{rest:?}");
    forward.remark("port").await?;
    let listener = free.listen()?;
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
async fn the_connection_after_the_512th_is_refused_with_a_reason_and_the_others_live() -> Result<()> {
    let site = Site::start().await?;
    let spec = format!("0:{}", echo_server().await?);
    let mut forward = Forward::start(&site.cli(), site.node.id(), &spec).await?;
    // this process has both ends of each connection; the programs have one, and the limit that they were started with
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most)?;
    let mut connections = Vec::new();
    for _ in 0..512 {
        let mut connection = forward.connect().await?;
        connection.write_all(b"x").await?;
        let mut back = [0];
        timeout(PATIENCE, connection.read_exact(&mut back)).await??;
        connections.push(connection);
    }
    let mut rest = Vec::new();
    // it may be gone before it is known here to be there
    if let Ok(mut refused) = forward.connect().await {
        let refused = timeout(PATIENCE, refused.read_to_end(&mut rest)).await?;
        ensure!(refused.is_err() || rest.is_empty(), "{rest:?}");
    }
    forward.remark("there are as many as a session can carry").await?;
    for connection in &mut connections {
        connection.write_all(b"y").await?;
        let mut back = [0];
        timeout(PATIENCE, connection.read_exact(&mut back)).await??;
        ensure!(back == *b"y");
    }
    // and there is room again when one has gone
    connections.pop();
    wait_until("a connection to be carried again", async || {
        let Ok(mut connection) = forward.connect().await else {
            return Ok(false);
        };
        let mut back = [0];
        let carried =
            connection.write_all(b"z").await.is_ok() && connection.read_exact(&mut back).await.is_ok();
        Ok(carried)
    })
    .await
}
