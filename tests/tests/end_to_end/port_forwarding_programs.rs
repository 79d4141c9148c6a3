//! Real servers and their own clients, with a forwarded port between them.

use std::{
    fs,
    os::unix::fs::chown,
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::{Context, Result, ensure};
use moorline_tests::{
    Aws, Finished, Forward, PATIENCE, ReservedPort, Site, is_root, run, skipped, wait_until,
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::{Pid, User},
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    process::{Child, Command},
    task::JoinSet,
    time::timeout,
};

async fn wait_for_server(port: u16) -> Result<()> {
    wait_until("the server to listen", async || {
        Ok(TcpStream::connect(("127.0.0.1", port)).await.is_ok())
    })
    .await
}

/// The folder of PostgreSQL's server, wherever distributions have it.
fn postgres_programs() -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten();
    let versions = versions.map(|version| version.path().join("bin"));
    let mut places = versions.chain(["/usr/local/bin", "/usr/bin"].map(PathBuf::from));
    places.find(|place| {
        ["initdb", "postgres"]
            .iter()
            .all(|name| place.join(name).is_file())
    })
}

/// A database server with a cluster of its own. It refuses to run as root.
struct Postgres {
    server: Child,
    port: ReservedPort,
    _place: TempDir,
}

impl Postgres {
    async fn start(programs: &Path) -> Result<Self> {
        let place = tempfile::tempdir()?;
        let cluster = place.path().join("cluster");
        let command = |program: &str| -> Result<Command> {
            let mut command = Command::new(programs.join(program));
            command.current_dir("/").stdin(Stdio::null());
            command.stdout(Stdio::null()).stderr(Stdio::null());
            if is_root() {
                let user = User::from_name("nobody")?.context("there is no nobody")?;
                chown(place.path(), Some(user.uid.as_raw()), Some(user.gid.as_raw()))?;
                command.uid(user.uid.as_raw()).gid(user.gid.as_raw());
            }
            Ok(command)
        };
        let made = command("initdb")?
            .args([
                "--username=postgres",
                "--auth=trust",
                "--encoding=UTF8",
                "--no-sync",
            ])
            .arg("--no-locale")
            .arg("--pgdata")
            .arg(&cluster)
            .status();
        ensure!(timeout(4 * PATIENCE, made).await??.success(), "initdb failed");
        let port = ReservedPort::new()?;
        let server = command("postgres")?
            .arg("-D")
            .arg(&cluster)
            .args([
                "-F",
                "-h",
                "127.0.0.1",
                "-p",
                &port.number().to_string(),
                "-k",
                "",
            ])
            .kill_on_drop(true)
            .spawn()?;
        let postgres = Self {
            server,
            port,
            _place: place,
        };
        wait_until("PostgreSQL to answer", async || {
            Ok(psql(&postgres.port.number().to_string(), "select 1").await?.code == 0)
        })
        .await?;
        Ok(postgres)
    }

    /// In order: only so does it give back what it has of the machine's shared memory.
    async fn stop(mut self) -> Result<()> {
        let pid = self.server.id().context("it has ended by itself")?;
        kill(Pid::from_raw(i32::try_from(pid)?), Signal::SIGINT)?;
        timeout(PATIENCE, self.server.wait()).await??;
        Ok(())
    }
}

async fn psql(port: &str, query: &str) -> Result<Finished> {
    let words = [
        "-X",
        "-q",
        "-A",
        "-t",
        "-v",
        "ON_ERROR_STOP=1",
        "-h",
        "127.0.0.1",
        "-U",
        "postgres",
        "-p",
        port,
        "-c",
        query,
    ];
    let environment = [("PATH".to_owned(), std::env::var("PATH")?)].into();
    run("psql", &words, &environment, None, 4 * PATIENCE).await
}

#[tokio::test]
async fn a_real_postgresql_answers_and_copies_many_megabytes_through_a_forwarded_port() -> Result<()> {
    let Some(programs) = postgres_programs() else {
        skipped("there is no PostgreSQL server");
        return Ok(());
    };
    let environment = [("PATH".to_owned(), std::env::var("PATH")?)].into();
    if run("psql", &["--version"], &environment, None, PATIENCE)
        .await
        .is_err()
    {
        skipped("there is no psql");
        return Ok(());
    }
    let postgres = Postgres::start(&programs).await?;
    let site = Site::start().await?;
    let spec = format!("0:{}", postgres.port.number());
    let forward = Forward::start(&site.cli(), site.node.id(), &spec).await?;
    let far = forward.port();

    let long = "select string_agg(md5(i::text), '') from generate_series(1, 500000) i";
    let answer = psql(far, long).await?.success()?.stdout;
    ensure!(answer.trim_end().len() == 16_000_000, "{} bytes", answer.len());
    let near = psql(
        &postgres.port.number().to_string(),
        &format!("select md5(({long}))"),
    )
    .await?;
    let through = psql(far, &format!("select md5('{}')", "x".repeat(60_000))).await?;
    ensure!(through.success()?.stdout.trim_end().len() == 32);

    let dir = site.node.dir();
    let (original, copy) = (dir.join("rows"), dir.join("rows-back"));
    let rows: String = (0..400_000_u32)
        .map(|row| {
            format!(
                "{row}\t{:x}\n",
                u64::from(row).wrapping_mul(0x9e37_79b9_7f4a_7c15)
            )
        })
        .collect();
    fs::write(&original, &rows)?;
    psql(far, "create table rows (number int, text text)")
        .await?
        .success()?;
    let copy_in = format!("\\copy rows from '{}'", original.display());
    psql(far, &copy_in).await?.success()?;
    let copy_out = format!(
        "\\copy (select * from rows order by number) to '{}'",
        copy.display()
    );
    psql(far, &copy_out).await?.success()?;
    ensure!(fs::read_to_string(&copy)? == rows, "the rows came back changed");
    // the server says the same of both answers: what it hashed, and what came through
    fs::write(&original, answer.trim_end())?;
    psql(far, "create table long (text text)").await?.success()?;
    psql(far, &format!("\\copy long from '{}'", original.display()))
        .await?
        .success()?;
    let far_hash = psql(far, "select md5(text) from long").await?.success()?.stdout;
    ensure!(
        far_hash == near.success()?.stdout,
        "the answer came through changed"
    );

    drop(forward);
    postgres.stop().await
}

#[tokio::test]
async fn a_real_redis_keeps_what_its_own_client_says_through_a_forwarded_port() -> Result<()> {
    let site = Site::start().await?;
    let aws = Aws::of(&site.endpoint)?;
    let Some(program) = aws.tool("redis-server") else {
        skipped("there is no Redis server");
        return Ok(());
    };
    let reserved = ReservedPort::new()?;
    let port = reserved.number();
    let _server = Command::new(program)
        .args(["--bind", "127.0.0.1", "--port", &port.to_string()])
        .args(["--save", "", "--dir"])
        .arg(site.node.dir())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    wait_for_server(port).await?;
    let forward = Forward::start(&site.cli(), site.node.id(), &format!("0:{port}")).await?;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("python/with_redis.py");
    let ran = aws.python(&script, &[forward.port()]).await?;
    ensure!(ran.success()?.stdout.ends_with("all checks passed\n"));
    Ok(())
}

#[tokio::test]
async fn a_real_http_server_answers_a_hundred_connections_at_once_through_a_forwarded_port() -> Result<()> {
    let site = Site::start().await?;
    let pages = site.node.dir().join("pages");
    fs::create_dir(&pages)?;
    let page = |number: usize| vec![u8::try_from(number).unwrap_or(0); 1000 + number * 2_003];
    for number in 0..100 {
        fs::write(pages.join(number.to_string()), page(number))?;
    }
    let reserved = ReservedPort::new()?;
    let port = reserved.number();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("python/serve_pages.py");
    let _server = Command::new("python3")
        .arg(script)
        .arg(port.to_string())
        .arg(&pages)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    wait_for_server(port).await?;
    let forward = Forward::start(&site.cli(), site.node.id(), &format!("0:{port}")).await?;
    // all of them stand before the first one asks
    let mut connections = Vec::new();
    for _ in 0..100 {
        connections.push(forward.connect().await?);
    }
    let mut gets = JoinSet::new();
    for (number, mut connection) in connections.into_iter().enumerate() {
        gets.spawn(async move {
            let request = format!("GET /{number} HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n");
            connection.write_all(request.as_bytes()).await?;
            let mut answer = Vec::new();
            timeout(PATIENCE, connection.read_to_end(&mut answer)).await??;
            Ok::<_, anyhow::Error>((number, answer))
        });
    }
    while let Some(got) = gets.join_next().await {
        let (number, answer) = got??;
        let wanted = page(number);
        let head = answer.len().saturating_sub(wanted.len());
        ensure!(answer.starts_with(b"HTTP/1.0 200 OK\r\n"), "page {number}");
        ensure!(answer.get(head..) == Some(&wanted), "page {number} came changed");
    }
    Ok(())
}
