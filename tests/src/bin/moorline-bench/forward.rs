//! A forwarded port: how much goes through it, and how soon a small answer comes while much goes through beside it.

use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use moorline_tests::{Cli, Endpoint, Forward, Node};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};

use crate::{
    report::{Bound, Report},
    tls_relay,
};

const TRANSFERS: usize = 5;
const TRANSFER_BYTES: usize = 256 * 1024 * 1024;
const PINGS: usize = 200;
/// Nothing measured here takes longer.
const LIMIT: Duration = Duration::from_secs(60);
/// What a connection wants of the server: as many bytes as there are, or each byte back.
const BULK: u8 = b'b';
const ECHO: u8 = b'e';

pub(crate) async fn forward(report: &mut Report, endpoint: &Endpoint, node: &Node) -> Result<()> {
    let down = "forwarded port, from the node through the endpoint to our CLI (median)";
    let share = "the same, as part of what a bare TLS relay between the same ends moves (median)";
    let beside = "answer of a forwarded port while another connection takes all it gets (p99)";
    if !report.wants(down) && !report.wants(share) && !report.wants(beside) {
        return Ok(());
    }
    let server = serve().await?;
    let forward = Forward::start(&Cli::of(endpoint), node.id(), &format!("0:{server}")).await?;
    let port = forward.port().parse()?;
    if report.wants(down) || report.wants(share) {
        let relay = tls_relay::start(server).await?;
        let (mut samples, mut shares) = (Vec::new(), Vec::new());
        for _ in 0..TRANSFERS {
            // by turns, so that both meet the same machine
            let bare = transfer(relay).await?;
            let ours = transfer(port).await?;
            samples.push(ours);
            shares.push(100.0 * ours / bare);
        }
        report.row(down, "MB/s", Bound::AtLeast(100.0), 0.5, samples);
        report.row(share, "%", Bound::AtLeast(50.0), 0.5, shares);
    }
    if report.wants(beside) {
        let samples = timeout(LIMIT, pings_beside_bulk(port)).await??;
        report.row(beside, "ms", Bound::AtMost(100.0), 0.99, samples);
    }
    Ok(())
}

async fn serve() -> Result<u16> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let port = listener.local_addr()?.port();
    tokio::spawn(async move {
        while let Ok((connection, _)) = listener.accept().await {
            tokio::spawn(answer(connection));
        }
    });
    Ok(port)
}

async fn answer(mut connection: TcpStream) -> Result<()> {
    let mut wanted = [0];
    connection.read_exact(&mut wanted).await?;
    match wanted[0] {
        BULK => {
            let chunk = vec![0x5a; 256 * 1024];
            loop {
                connection.write_all(&chunk).await?;
            }
        }
        ECHO => {
            connection.set_nodelay(true)?;
            let (mut from, mut to) = connection.split();
            tokio::io::copy(&mut from, &mut to).await?;
            Ok(())
        }
        other => bail!("{other} means nothing"),
    }
}

async fn transfer(port: u16) -> Result<f64> {
    let mut connection = TcpStream::connect(("127.0.0.1", port)).await?;
    connection.write_all(&[BULK]).await?;
    let mut buffer = vec![0; 256 * 1024];
    // the first bytes wait for the connection on the node
    let mut total = connection.read(&mut buffer).await?;
    let began = Instant::now();
    while total < TRANSFER_BYTES {
        let length = timeout(LIMIT, connection.read(&mut buffer)).await??;
        ensure!(length > 0, "it ended after {total} bytes");
        total += length;
    }
    #[expect(clippy::cast_precision_loss, reason = "a size below 2^52")]
    let megabytes = total as f64 / 1e6;
    Ok(megabytes / began.elapsed().as_secs_f64())
}

async fn pings_beside_bulk(port: u16) -> Result<Vec<f64>> {
    let mut bulk = TcpStream::connect(("127.0.0.1", port)).await?;
    bulk.write_all(&[BULK]).await?;
    let reading = tokio::spawn(async move {
        let mut buffer = vec![0; 256 * 1024];
        while let Ok(1..) = bulk.read(&mut buffer).await {}
    });
    let mut connection = TcpStream::connect(("127.0.0.1", port)).await?;
    connection.set_nodelay(true)?;
    connection.write_all(&[ECHO]).await?;
    let mut samples = Vec::new();
    let mut answer = [0];
    for _ in 0..PINGS {
        let began = Instant::now();
        connection.write_all(b"p").await?;
        connection.read_exact(&mut answer).await?;
        samples.push(began.elapsed().as_secs_f64() * 1000.0);
    }
    reading.abort();
    Ok(samples)
}
