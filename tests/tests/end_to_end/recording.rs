//! What the node records, of every type of session, and what its owner may say about it.

use std::fs::File;

use anyhow::{Context, Result, ensure};
use moorline_tests::{Cable, Endpoint, Node, PATIENCE, Recording, Site};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    time::timeout,
};

/// A node whose owner has said this.
async fn site(settings: &str) -> Result<Site> {
    let endpoint = Endpoint::start().await?;
    let mut node = Node::register(&endpoint, &[("Role", "test")]).await?;
    node.configure(&format!("[session]\ncreate_user = false\n{settings}"))?;
    node.start().await?;
    Ok(Site { node, endpoint })
}

async fn create(site: &Site, name: &str, content: &Value) -> Result<()> {
    let input = json!({"Name": name, "DocumentType": "Session", "Content": content.to_string()});
    site.api().call("CreateDocument", input).await?;
    Ok(())
}

#[tokio::test]
async fn a_command_is_recorded_with_both_of_its_outputs_and_its_exit_code() -> Result<()> {
    let site = Site::start().await?;
    let content = json!({
        "schemaVersion": "1.0", "sessionType": "NonInteractiveCommands",
        "parameters": {"word": {"type": "String"}},
        "properties": {"linux": {
            "commands": "sh -c 'echo to-out {{ word }}; echo to-err >&2; exit 3'",
            "separateOutputStream": true,
        }},
    });
    create(&site, "Both", &content).await?;
    let arguments = [
        "shell",
        site.node.id(),
        "--document",
        "Both",
        "--param",
        "word=plain",
    ];
    let ran = site.cli().run(&arguments).await?;
    ensure!(ran.code == 3, "{ran:?}");
    let recording = Recording::newest(&site.cli(), site.node.dir()).await?;
    let about = &recording.header["moorline"];
    ensure!(
        about["kind"] == "NonInteractiveCommands" && about["document"] == "Both",
        "{about}"
    );
    ensure!(about["parameters"]["word"] == "plain", "{about}");
    ensure!(
        recording.texts("o").contains("to-out plain"),
        "{}",
        recording.text
    );
    let errors = recording.ours("stderr")?;
    ensure!(
        errors.iter().any(|event| event["data"] == "to-err\r\n"),
        "{errors:?}"
    );
    ensure!(recording.texts("x") == "3", "{}", recording.text);
    Ok(())
}

/// Output and recording leave the node over one link.
#[tokio::test]
async fn a_recording_takes_a_small_part_of_what_its_output_takes_of_the_link() -> Result<()> {
    let endpoint = Endpoint::start().await?;
    let cable = Cable::to(endpoint.address()).await?;
    let mut node = Node::register_through(&endpoint, &cable.url(), &[]).await?;
    node.configure("[session]\ncreate_user = false\n")?;
    node.start().await?;
    let site = Site { node, endpoint };
    let lines =
        "seq -f '2026-11-27T05:12:08Z INFO request answered path=/index.html status=200 id=%g' 1 30000";
    let before = cable.bytes();
    let (cli, typed) = (site.cli(), format!("{lines}; exit\n"));
    let words = ["shell", site.node.id()];
    let ran = timeout(PATIENCE * 2, cli.run_with_input(&words, typed.as_bytes())).await??;
    let shown = ran.success()?.stdout.len() as u64;
    ensure!(shown > 2_000_000, "{shown}");
    let recording = Recording::newest(&site.cli(), site.node.dir()).await?;
    ensure!(recording.texts("o").contains("id=30000"), "not all of it");
    let carried = cable.bytes() - before;
    // frames and acknowledgements are in it, too
    ensure!(
        carried < shown + shown / 2,
        "{carried} bytes for {shown} of output and their recording"
    );
    Ok(())
}

#[tokio::test]
async fn a_secret_parameter_is_in_no_recording_neither_as_parameter_nor_as_output() -> Result<()> {
    let site = Site::start().await?;
    let content = json!({
        "schemaVersion": "1.0", "sessionType": "InteractiveCommands",
        "parameters": {"word": {"type": "String", "noEcho": true}},
        "properties": {"linux": {"commands": "printf 'it is cor'; sleep 0.3; echo 'rect-horse, it was {{ word }}'"}},
    });
    create(&site, "Secret", &content).await?;
    let secret = "word=correct-horse";
    let mut terminal =
        site.cli()
            .at_terminal(&["shell", site.node.id(), "--document", "Secret", "--param", secret])?;
    terminal.expect("it was correct-horse").await?;
    terminal.wait().await?;
    let recording = Recording::newest(&site.cli(), site.node.dir()).await?;
    ensure!(!recording.text.contains("correct-horse"), "{}", recording.text);
    let about = &recording.header["moorline"];
    ensure!(
        about["kind"] == "InteractiveCommands" && about["parameters"]["word"] == "***",
        "{about}"
    );
    let shown = recording.texts("o");
    ensure!(shown.contains("it is ***, it was ***"), "{shown}");
    let masked = recording.ours("masked")?;
    let bytes: Vec<&Value> = masked.iter().map(|event| &event["bytes"]).collect();
    ensure!(bytes == [13, 13], "{masked:?}");
    Ok(())
}

#[tokio::test]
async fn a_forwarded_port_is_recorded_with_its_connections_and_none_of_what_went_over_them() -> Result<()> {
    let site = Site::start().await?;
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let port = listener.local_addr()?.port();
    let server = tokio::spawn(async move {
        let (mut connection, _) = listener.accept().await?;
        let mut said = [0; 6];
        connection.read_exact(&mut said).await?;
        connection.write_all(b"payload-back").await?;
        anyhow::Ok(())
    });
    let mut forward = site
        .cli()
        .command(&["--json", "forward", site.node.id(), &format!("0:{port}")])?
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    let mut lines = BufReader::new(forward.stdout.take().context("stdout")?).lines();
    let said = timeout(PATIENCE, lines.next_line()).await??.context("it ended")?;
    let said: Value = serde_json::from_str(&said)?;
    let address = said["Address"].as_str().context("no address")?;
    let mut connection = TcpStream::connect(address).await?;
    connection.write_all(b"secret").await?;
    let mut back = Vec::new();
    timeout(PATIENCE, connection.read_to_end(&mut back)).await??;
    ensure!(back == b"payload-back");
    drop(connection);
    server.await??;
    let pid = forward.id().context("it ended")?;
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(i32::try_from(pid)?),
        nix::sys::signal::Signal::SIGINT,
    )?;
    timeout(PATIENCE, forward.wait()).await??;

    let recording = Recording::newest(&site.cli(), site.node.dir()).await?;
    ensure!(
        recording.header["moorline"]["kind"] == "Port",
        "{}",
        recording.header
    );
    ensure!(
        !recording.text.contains("payload-back") && !recording.text.contains("secret"),
        "{}",
        recording.text
    );
    let (opened, closed) = (recording.ours("opened")?, recording.ours("closed")?);
    let expected = format!("127.0.0.1:{port}");
    ensure!(
        opened.len() == 1 && opened[0]["address"] == expected.as_str(),
        "{opened:?}"
    );
    ensure!(
        closed.len() == 1 && closed[0]["sent"] == 6 && closed[0]["received"] == 12,
        "{closed:?}"
    );
    ensure!(recording.ours("end")?.len() == 1, "{}", recording.text);
    Ok(())
}

#[tokio::test]
async fn input_is_recorded_where_it_is_echoed_and_counted_where_it_is_not() -> Result<()> {
    let site = site("[transcript]\ninput = true\n").await?;
    let mut terminal = site.cli().shell(site.node.id()).await?;
    let is_seen = site.node.dir().join("seen");
    // input counts as echoed if the terminal still does so just after: it is not to stop at once
    let script = format!(
        "stty echo; echo line-mo''de; read a; until [ -e {} ]; do sleep 0.05; done; stty -echo; echo echo-of''f; \
         read b; stty echo; echo than''ks",
        is_seen.display()
    );
    terminal.send(&format!("exec sh -c \"{script}\"\n"))?;
    terminal.expect("line-mode").await?;
    terminal.send("visible-words\n")?;
    terminal.expect("visible-words").await?;
    File::create(&is_seen)?;
    terminal.expect("echo-off").await?;
    terminal.send("hidden-words\n")?;
    terminal.expect("thanks").await?;
    terminal.wait().await?;
    let recording = Recording::newest(&site.cli(), site.node.dir()).await?;
    let typed = recording.texts("i");
    ensure!(
        typed.contains("visible-words\r") || typed.contains("visible-words\n"),
        "{typed:?}"
    );
    ensure!(!recording.text.contains("hidden-words"), "{}", recording.text);
    let masked = recording.ours("masked")?;
    ensure!(masked.iter().any(|event| event["bytes"] == 13), "{masked:?}");
    Ok(())
}

#[tokio::test]
async fn in_strict_mode_nothing_is_shown_that_the_endpoint_has_not_on_its_disk() -> Result<()> {
    let site = site("[transcript]\nstrict = true\n").await?;
    let mut terminal = site.cli().shell(site.node.id()).await?;
    for round in 0..20 {
        terminal.send(&format!("echo round-''{round}-shown\n"))?;
        let text = format!("round-{round}-shown");
        terminal.expect(&text).await?;
        let mut recorded = String::new();
        for entry in std::fs::read_dir(site.endpoint.state_dir().join("transcripts"))? {
            recorded.push_str(&String::from_utf8_lossy(&std::fs::read(entry?.path())?));
        }
        ensure!(
            recorded.contains(&text),
            "{text} was shown and is not in {recorded}"
        );
    }
    terminal.send("exit 4\n")?;
    ensure!(terminal.wait().await? == 4, "{}", terminal.text());
    let recording = Recording::newest(&site.cli(), site.node.dir()).await?;
    ensure!(recording.texts("o").contains("round-19-shown"));
    Ok(())
}

#[tokio::test]
async fn a_recording_for_recipients_is_verified_by_all_and_read_by_them_alone() -> Result<()> {
    let identity = age::x25519::Identity::generate();
    let settings = format!("[transcript]\nrecipients = [\"{}\"]\n", identity.to_public());
    let site = site(&settings).await?;
    let ran = site
        .cli()
        .run(&["shell", site.node.id(), "--", "echo for-few-''eyes"])
        .await?;
    ensure!(ran.stdout.contains("for-few-eyes"), "{ran:?}");
    let recording = Recording::newest(&site.cli(), site.node.dir()).await?;
    ensure!(!recording.text.contains("for-few"), "{}", recording.text);
    let header = &recording.header;
    ensure!(
        header["command"].is_null() && header["title"].is_null(),
        "{header}"
    );
    ensure!(header["moorline"]["parameters"].is_null(), "{header}");
    let key_file = site.node.dir().join("identity");
    let secret = age::secrecy::ExposeSecret::expose_secret(&identity.to_string()).to_owned();
    std::fs::write(&key_file, secret)?;
    let key_file = key_file.display().to_string();
    let text = site
        .cli()
        .run(&["transcript", "text", &recording.session, "--identity", &key_file])
        .await?
        .success()?
        .stdout;
    ensure!(text.contains("for-few-eyes"), "{text}");
    Ok(())
}

#[tokio::test]
async fn a_session_that_cannot_be_recorded_says_so_or_is_refused_as_the_owner_wants() -> Result<()> {
    let recipient = age::x25519::Identity::generate().to_public();
    for (policy, opens) in [("open", true), ("refuse", false)] {
        let settings = format!("[transcript]\nrequired = \"{policy}\"\nrecipients = [\"{recipient}\"]\n");
        let site = site(&settings).await?;
        std::fs::write(site.node.state_dir().join("transcript.key"), "damaged")?;
        let mut terminal = site.cli().at_terminal(&["shell", site.node.id()])?;
        if opens {
            terminal.expect("this session is not recorded").await?;
            terminal.send("echo it-''works; exit\n")?;
            terminal.expect("it-works").await?;
        } else {
            terminal.expect("cannot be recorded").await?;
        }
        terminal.wait().await?;
    }
    Ok(())
}
