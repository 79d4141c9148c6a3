//! The unmodified session-manager-plugin and amazon-ssm-agent in every mix with ours, over our relay, for who has
//! them: `MOORLINE_STOCK_PLUGIN` names the directory of the one, `MOORLINE_STOCK_AGENT_DIR` that of the other.

use std::{
    net::SocketAddr,
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use moorline_tests::{
    Api, Aws, Cable, Cli, Endpoint, Node, PATIENCE, ReservedPort, StockProcess, Terminal, finished, is_root,
    send_script, skipped, wait_for, wait_until,
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use crate::stock_agent::wait_connected;

/// Directory of a real, unmodified stock agent (`amazon-ssm-agent` and its workers).
const STOCK_AGENT: &str = "MOORLINE_STOCK_AGENT_DIR";
/// Directory of a real, unmodified `session-manager-plugin`.
const STOCK_PLUGIN: &str = "MOORLINE_STOCK_PLUGIN";

/// Where plugins of before 1.2.804 have data keys made, whatever the environment says (client-wire §1.5).
const KMS_OF_AWS: &str = "kms.us-east-1.amazonaws.com";

/// Whose program it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Whose {
    Ours,
    Stock,
}

/// An endpoint with one node, and a client at it; each has a cable to it.
struct Mix {
    aws: Aws,
    of_client: Cable,
    of_node: Cable,
    node: String,
    process: Running,
    endpoint: Endpoint,
}

/// What serves as the node.
enum Running {
    Ours { _node: Box<Node> },
    Stock(Box<StockProcess>),
}

impl Mix {
    /// `None`: a stock peer that it needs is not at hand.
    async fn start(client: Whose, node: Whose) -> Result<Option<Self>> {
        let plugin = std::env::var_os(STOCK_PLUGIN).map(PathBuf::from);
        let agent = std::env::var_os(STOCK_AGENT).map(PathBuf::from);
        if (client == Whose::Stock && plugin.is_none()) || (node == Whose::Stock && agent.is_none()) {
            skipped("a stock peer is not at hand: MOORLINE_STOCK_PLUGIN, MOORLINE_STOCK_AGENT_DIR");
            return Ok(None);
        }
        let endpoint = Endpoint::start_named(&["localhost", "127.0.0.1", "::1", KMS_OF_AWS]).await?;
        let of_client = Cable::to(endpoint.address()).await?;
        let of_node = Cable::to(endpoint.address()).await?;
        let (id, process) = match (node, agent) {
            (Whose::Stock, Some(directory)) => {
                let (id, process) = stock_node(&endpoint, &of_node.url(), &directory).await?;
                (id, Running::Stock(Box::new(process)))
            }
            _ => {
                let mut ours = Node::register_through(&endpoint, &of_node.url(), &[]).await?;
                ours.start().await?;
                (
                    ours.id().to_owned(),
                    Running::Ours {
                        _node: Box::new(ours),
                    },
                )
            }
        };
        let aws = Aws::of(&endpoint)?.with("AWS_ENDPOINT_URL", &of_client.url());
        let aws = match (client, plugin) {
            (Whose::Stock, Some(directory)) => {
                let proxy = format!("http://127.0.0.1:{}", proxy_to(endpoint.address()).await?);
                aws.with_plugin(&directory)
                    .with("HTTPS_PROXY", &proxy)
                    .with("NO_PROXY", "127.0.0.1,localhost")
            }
            _ => aws,
        };
        Ok(Some(Self {
            aws,
            of_client,
            of_node,
            node: id,
            process,
            endpoint,
        }))
    }

    fn shell(&self) -> Result<Terminal> {
        self.aws.at_terminal(&["start-session", "--target", &self.node])
    }

    fn session(&self, document: &str, parameters: &Value) -> Result<Terminal> {
        let parameters = parameters.to_string();
        let document = ["--document-name", document, "--parameters", &parameters];
        let mut arguments = vec!["start-session", "--target", &self.node];
        arguments.extend(document);
        self.aws.at_terminal(&arguments)
    }
}

/// A proxy for HTTPS behind which every host is the endpoint; returns its port.
async fn proxy_to(endpoint: SocketAddr) -> Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let port = listener.local_addr()?.port();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n") {
                    request.push(client.read_u8().await?);
                }
                client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await?;
                let mut server = TcpStream::connect(endpoint).await?;
                tokio::io::copy_bidirectional(&mut client, &mut server).await
            });
        }
    });
    Ok(port)
}

/// A stock agent that is a node of an endpoint of its own.
pub(crate) struct StockNode(Mix);

impl StockNode {
    /// `None`: the stock agent is not at hand.
    pub(crate) async fn start() -> Result<Option<Self>> {
        Ok(Mix::start(Whose::Ours, Whose::Stock).await?.map(Self))
    }

    pub(crate) fn api(&self) -> &Api {
        self.0.endpoint.api()
    }

    pub(crate) fn cli(&self) -> Cli {
        Cli::of(&self.0.endpoint)
    }

    pub(crate) fn id(&self) -> &str {
        &self.0.node
    }

    /// See [`StockProcess::kill_agent`].
    pub(crate) fn kill_agent(&self) -> Result<()> {
        match &self.0.process {
            Running::Stock(process) => process.kill_agent(),
            Running::Ours { .. } => bail!("the node is one of ours"),
        }
    }
}

async fn stock_node(
    endpoint: &Endpoint,
    url: &str,
    directory: &std::path::Path,
) -> Result<(String, StockProcess)> {
    ensure!(is_root(), "the stock agent runs as root only");
    let script = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("stock_agent.sh");
    let input = json!({"IamRole": "r", "RegistrationLimit": 1});
    let activation = endpoint.api().call("CreateActivation", input).await?;
    let text = |name: &str| activation[name].as_str().context("CreateActivation");
    let activation = (text("ActivationId")?, text("ActivationCode")?);
    let process = StockProcess::start(&script, directory, endpoint, url, activation)?;
    let node = wait_for("the stock agent to come online", PATIENCE, async || {
        let nodes = endpoint.api().call("DescribeInstanceInformation", json!({}));
        let nodes = nodes.await?;
        let node = nodes["InstanceInformationList"][0]["InstanceId"].as_str();
        Ok(node.map(str::to_owned))
    })
    .await?;
    wait_connected(endpoint, &node).await?;
    Ok((node, process))
}

#[tokio::test]
async fn the_stock_agent_runs_a_command() -> Result<()> {
    let Some(mix) = Mix::start(Whose::Ours, Whose::Stock).await? else {
        return Ok(());
    };
    let api = mix.endpoint.api();
    let command = send_script(api, &mix.node, "echo from-the-stock-agent; exit 3").await?;
    let invocation = finished(api, &mix.node, &command).await?;
    ensure!(
        invocation["Status"] == "Failed" && invocation["ResponseCode"] == 3,
        "{invocation}"
    );
    ensure!(
        invocation["StandardOutputContent"] == "from-the-stock-agent\n",
        "{invocation}"
    );
    Ok(())
}

async fn shell(client: Whose, node: Whose) -> Result<()> {
    let Some(mix) = Mix::start(client, node).await? else {
        return Ok(());
    };
    let mut terminal = mix.shell()?;
    terminal.expect("Starting session with SessionId").await?;
    terminal.send("stty -echo; echo sum-$((40+2)); stty size\r")?;
    terminal.expect("sum-42").await?;
    terminal.expect("24 80").await?;
    terminal.send("seq 1 3000; echo all-''done\r")?;
    terminal.expect("all-done").await?;
    // the stock plugin leaves output processing on, so that each line ends with a second carriage return
    let shown = terminal.text().replace('\r', "");
    let lines: String = (1..=3000).map(|number| format!("{number}\n")).collect();
    ensure!(shown.contains(&lines), "lines are missing:\n{shown}");
    terminal.send("exit\r")?;
    terminal.expect("Exiting session").await?;
    ensure!(terminal.wait().await? == 0);
    Ok(())
}

/// Counts slowly enough that there is a middle to cut in.
const COUNT: &str = "stty -echo; i=0; while [ $i -lt 1500 ]; do i=$((i+1)); echo $i; \
                     [ $((i % 20)) = 0 ] && sleep 0.05; done; echo end-of-''count\r";

/// Each number comes once and in order, though both connections are lost in the middle.
async fn cut(client: Whose, node: Whose) -> Result<()> {
    let Some(mix) = Mix::start(client, node).await? else {
        return Ok(());
    };
    let mut terminal = mix.shell()?;
    terminal.expect("Starting session with SessionId").await?;
    terminal.send(COUNT)?;
    for (mark, cable) in [
        ("\n200\r", &mix.of_client),
        ("\n500\r", &mix.of_node),
        ("\n800\r", &mix.of_client),
        ("\n1100\r", &mix.of_node),
    ] {
        terminal.expect(mark).await?;
        cable.cut();
    }
    terminal
        .expect_within("end-of-count", Duration::from_secs(120))
        .await?;
    check_count(&terminal.text())?;
    terminal.send("exit\r")?;
    terminal.expect("Exiting session").await?;
    ensure!(terminal.wait().await? == 0);
    Ok(())
}

/// The same when it is the endpoint that dies, and another serves its state.
async fn killed_endpoint(client: Whose, node: Whose) -> Result<()> {
    let Some(mut mix) = Mix::start(client, node).await? else {
        return Ok(());
    };
    let mut terminal = mix.shell()?;
    terminal.expect("Starting session with SessionId").await?;
    terminal.send(COUNT)?;
    for mark in ["\n300\r", "\n900\r"] {
        terminal.expect(mark).await?;
        mix.endpoint.kill().await?;
        mix.endpoint.start_again().await?;
    }
    terminal
        .expect_within("end-of-count", Duration::from_secs(120))
        .await?;
    check_count(&terminal.text())?;
    terminal.send("exit\r")?;
    terminal.expect("Exiting session").await?;
    ensure!(terminal.wait().await? == 0);
    Ok(())
}

/// Ours says between the lines that it lost the connection; a shell's own controls may stand before the first.
fn check_count(shown: &str) -> Result<()> {
    let numbers: Vec<u32> = shown
        .lines()
        .filter_map(|line| line.trim().parse().ok())
        .filter(|number| *number > 1)
        .collect();
    ensure!(
        numbers == (2..=1500).collect::<Vec<u32>>(),
        "lines are lost or doubled:\n{shown}"
    );
    Ok(())
}

/// The endpoint pauses an agent five seconds after its client has gone, and starts it when the client is back.
#[tokio::test]
async fn the_stock_agent_loses_nothing_while_our_plugin_is_away() -> Result<()> {
    let Some(mix) = Mix::start(Whose::Ours, Whose::Stock).await? else {
        return Ok(());
    };
    let there = tempfile::tempdir()?;
    // the shell is not root's
    std::fs::set_permissions(there.path(), std::fs::Permissions::from_mode(0o777))?;
    let late = there.path().join("late");
    let mut terminal = mix.shell()?;
    terminal.expect("Starting session with SessionId").await?;
    terminal.send(&format!(
        "stty -echo; echo be''gun; sleep 10; touch {}; seq 1 20000; echo end-of-''seq\r",
        late.display()
    ))?;
    terminal.expect("begun").await?;
    mix.of_client.unplug();
    wait_for("output of a paused agent", PATIENCE, async || {
        Ok(late.exists().then_some(()))
    })
    .await?;
    mix.of_client.plug_in();
    terminal.expect("end-of-seq").await?;
    let shown = terminal.text();
    let numbers: Vec<u32> = shown
        .lines()
        .filter_map(|line| line.trim().parse().ok())
        .collect();
    ensure!(
        numbers == (1..=20_000).collect::<Vec<u32>>(),
        "lines are lost or doubled"
    );
    terminal.send("exit\r")?;
    terminal.expect("Exiting session").await?;
    ensure!(terminal.wait().await? == 0);
    Ok(())
}

/// Another operator's word ends it at both ends, and its user reads by whom.
async fn terminated(client: Whose, node: Whose) -> Result<()> {
    let Some(mix) = Mix::start(client, node).await? else {
        return Ok(());
    };
    let there = tempfile::tempdir()?;
    // the shell is not root's
    std::fs::set_permissions(there.path(), std::fs::Permissions::from_mode(0o777))?;
    let pipe = there.path().join("pipe");
    let mut terminal = mix.shell()?;
    terminal.expect("Starting session with SessionId").await?;
    terminal.send(&format!("mkfifo -m 666 {0}; read line <> {0}\r", pipe.display()))?;
    wait_until("the shell to wait", async || Ok(has_reader(&pipe))).await?;
    let shown = terminal.text();
    let session = shown
        .split_once("SessionId: ")
        .and_then(|(_, rest)| rest.split_whitespace().next())
        .context("no session was told")?;
    let ended = Cli::of(&mix.endpoint).run(&["terminate", session]).await?;
    ended.success()?;
    terminal.expect("terminated by admin").await?;
    ensure!(terminal.wait().await? == 0);
    wait_until("the shell to end", async || Ok(!has_reader(&pipe))).await
}

/// Whether a process has it open to read from.
fn has_reader(pipe: &std::path::Path) -> bool {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).custom_flags(nix::libc::O_NONBLOCK);
    options.open(pipe).is_ok()
}

async fn command_without_terminal(client: Whose, node: Whose) -> Result<()> {
    let Some(mix) = Mix::start(client, node).await? else {
        return Ok(());
    };
    let parameters = json!({
        "command": ["sh -c 'echo out; echo err >&2; exit 3'"],
        "separateOutputStream": ["true"],
        "stdoutSeparatorPrefix": ["O:"],
        "stderrSeparatorPrefix": ["E:"],
    });
    let mut terminal = mix.session("AWS-StartNonInteractiveCommand", &parameters)?;
    terminal.expect("Exiting session").await?;
    ensure!(terminal.wait().await? == 0);
    let shown = terminal.text();
    for expected in ["O:out", "E:err", "EXIT_CODE: 3"] {
        ensure!(shown.contains(expected), "{expected} is missing:\n{shown}");
    }
    if client == Whose::Ours {
        let words = ["shell", &mix.node, "--", "echo out; echo err >&2; exit 3"];
        let ran = Cli::of(&mix.endpoint).run(&words).await?;
        ensure!(
            (ran.code, ran.stdout.as_str(), ran.stderr.as_str()) == (3, "out\n", "err\n"),
            "{ran:?}"
        );
    }
    Ok(())
}

/// Gives back what it gets, until the other side has said everything.
async fn echo_server() -> Result<u16> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let port = listener.local_addr()?.port();
    tokio::spawn(async move {
        while let Ok((mut connection, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut from, mut to) = connection.split();
                let _ended = tokio::io::copy(&mut from, &mut to).await;
            });
        }
    });
    Ok(port)
}

/// Sends `length` bytes, and gets them back.
async fn echo(port: u16, length: usize) -> Result<()> {
    let connection = TcpStream::connect(("127.0.0.1", port)).await?;
    let (mut from, mut to) = connection.into_split();
    let sent: Arc<Vec<u8>> = Arc::new(
        (0..length)
            .map(|byte| u8::try_from(byte % 251).unwrap_or(0))
            .collect(),
    );
    let sending = Arc::clone(&sent);
    let writer = tokio::spawn(async move {
        let written = to.write_all(&sending).await;
        (written, to)
    });
    let mut received = vec![0; length];
    from.read_exact(&mut received).await?;
    ensure!(received == *sent, "other bytes came back");
    let (written, _to) = writer.await?;
    written?;
    Ok(())
}

/// The local port, once the client takes connections.
async fn opened_port(terminal: &mut Terminal) -> Result<u16> {
    terminal.expect("Waiting for connections...").await?;
    let text = terminal.text();
    let opened = text
        .split_once("Port ")
        .and_then(|(_, rest)| rest.split_once(" opened"));
    let (port, _) = opened.context("no port was told")?;
    Ok(port.parse()?)
}

async fn forwarded_port(client: Whose, node: Whose) -> Result<()> {
    let Some(mix) = Mix::start(client, node).await? else {
        return Ok(());
    };
    let remote = echo_server().await?.to_string();
    let parameters = json!({"portNumber": [remote], "localPortNumber": ["0"]});
    let mut terminal = mix.session("AWS-StartPortForwardingSession", &parameters)?;
    let port = opened_port(&mut terminal).await?;
    let connections = [1, 1024, 200_000, 10, 50_000].map(|length| tokio::spawn(echo(port, length)));
    for connection in connections {
        connection.await??;
    }
    terminal.send("\u{3}")?;
    terminal.expect("Exiting session").await?;
    ensure!(terminal.wait().await? == 0);
    Ok(())
}

/// More connections than either end has threads for, to a port that the node reaches by a name.
async fn forwarded_port_of_a_name(client: Whose, node: Whose) -> Result<()> {
    let Some(mix) = Mix::start(client, node).await? else {
        return Ok(());
    };
    let remote = echo_server().await?.to_string();
    let parameters = json!({"host": ["localhost"], "portNumber": [remote], "localPortNumber": ["0"]});
    let mut terminal = mix.session("AWS-StartPortForwardingSessionToRemoteHost", &parameters)?;
    let port = opened_port(&mut terminal).await?;
    let connections: Vec<_> = (1..=40)
        .map(|number| tokio::spawn(echo(port, number * 1000)))
        .collect();
    for connection in connections {
        connection.await??;
    }
    terminal.send("\u{3}")?;
    terminal.expect("Exiting session").await?;
    ensure!(terminal.wait().await? == 0);
    Ok(())
}

async fn refused_port(client: Whose, node: Whose) -> Result<()> {
    let Some(mix) = Mix::start(client, node).await? else {
        return Ok(());
    };
    let free = ReservedPort::new()?;
    let parameters = json!({"portNumber": [free.number().to_string()]});
    let mut terminal = mix.session("AWS-StartPortForwardingSession", &parameters)?;
    let port = opened_port(&mut terminal).await?;
    let connected = TcpStream::connect(("127.0.0.1", port)).await;
    terminal.expect("Connection to destination port failed").await?;
    let mut rest = Vec::new();
    // an end of either kind, perhaps already when it is made
    if let Ok(mut connection) = connected {
        let _reset = connection.read_to_end(&mut rest).await;
    }
    ensure!(rest.is_empty());
    terminal.send("\u{3}")?;
    ensure!(terminal.wait().await? == 0);
    Ok(())
}

/// A document's own command at the terminal, with a parameter, told of the window's sizes and typed to.
async fn interactive_command(client: Whose, node: Whose) -> Result<()> {
    let Some(mix) = Mix::start(client, node).await? else {
        return Ok(());
    };
    // the stock agent has no handshake for these, and without one the stock plugin tells no size before it is shown
    // something
    let commands = "echo begun; until [ \"$(stty size)\" = '24 80' ]; do sleep 0.1; done; echo first-{{ word }}; \
                    until [ \"$(stty size)\" = '33 101' ]; do sleep 0.1; done; echo second-{{ word }}; \
                    read line; echo \"got-$line as $(id -un)\"; exit 7";
    let content = json!({
        "schemaVersion": "1.0",
        "description": "a command that looks at its window",
        "sessionType": "InteractiveCommands",
        "parameters": {"word": {"type": "String", "allowedPattern": "^[a-z]+$", "default": "none"}},
        "properties": {"linux": {"commands": commands, "runAsElevated": true}},
    });
    let document = json!({"Name": "Window", "DocumentType": "Session", "Content": content.to_string()});
    mix.endpoint.api().call("CreateDocument", document).await?;
    let mut terminal = mix.session("Window", &json!({"word": ["size"]}))?;
    terminal.expect("first-size").await?;
    terminal.resize(101, 33)?;
    terminal.expect("second-size").await?;
    terminal.send("typed\r")?;
    terminal.expect("got-typed as root").await?;
    terminal.expect("Exiting session").await?;
    ensure!(terminal.wait().await? == 0);
    Ok(())
}

/// The client has a data key made by our endpoint's KMS, the node has it decrypted there, and neither loses its place
/// when the connections are lost.
async fn encrypted_shell(client: Whose, node: Whose) -> Result<()> {
    let Some(mix) = Mix::start(client, node).await? else {
        return Ok(());
    };
    let content = json!({
        "schemaVersion": "1.0",
        "description": "an encrypted shell",
        "sessionType": "Standard_Stream",
        "inputs": {"kmsKeyId": "alias/moorline"},
    });
    let document = json!({"Name": "Encrypted", "DocumentType": "Session", "Content": content.to_string()});
    mix.endpoint.api().call("CreateDocument", document).await?;
    let mut terminal = mix.session("Encrypted", &json!({}))?;
    terminal.expect("This session is encrypted").await?;
    terminal.send(COUNT)?;
    for (mark, cable) in [("\n300\r", &mix.of_client), ("\n800\r", &mix.of_node)] {
        terminal.expect(mark).await?;
        cable.cut();
    }
    terminal
        .expect_within("end-of-count", Duration::from_secs(120))
        .await?;
    check_count(&terminal.text())?;
    terminal.send("exit\r")?;
    terminal.expect("Exiting session").await?;
    ensure!(terminal.wait().await? == 0);
    Ok(())
}

macro_rules! every_mix {
    ($($name:ident: $what:ident $client:ident $node:ident;)*) => {
        $(
            #[tokio::test]
            async fn $name() -> Result<()> {
                $what(Whose::$client, Whose::$node).await
            }
        )*
    };
}

every_mix! {
    the_stock_plugin_opens_a_shell_on_our_node: shell Stock Ours;
    our_plugin_opens_a_shell_on_the_stock_agent: shell Ours Stock;
    the_stock_plugin_opens_a_shell_on_the_stock_agent: shell Stock Stock;
    the_stock_plugin_survives_cuts_with_our_node: cut Stock Ours;
    our_plugin_survives_cuts_with_the_stock_agent: cut Ours Stock;
    the_stock_plugin_survives_cuts_with_the_stock_agent: cut Stock Stock;
    the_stock_plugin_survives_a_killed_endpoint_with_our_node: killed_endpoint Stock Ours;
    our_plugin_survives_a_killed_endpoint_with_the_stock_agent: killed_endpoint Ours Stock;
    the_stock_plugin_survives_a_killed_endpoint_with_the_stock_agent: killed_endpoint Stock Stock;
    the_stock_plugin_hears_who_terminated_its_shell_on_our_node: terminated Stock Ours;
    our_plugin_hears_who_terminated_its_shell_on_the_stock_agent: terminated Ours Stock;
    the_stock_plugin_hears_who_terminated_its_shell_on_the_stock_agent: terminated Stock Stock;
    the_stock_plugin_runs_a_command_without_terminal_on_our_node: command_without_terminal Stock Ours;
    our_plugin_runs_a_command_without_terminal_on_the_stock_agent: command_without_terminal Ours Stock;
    the_stock_plugin_runs_a_command_without_terminal_on_the_stock_agent: command_without_terminal Stock Stock;
    the_stock_plugin_forwards_a_port_of_our_node: forwarded_port Stock Ours;
    our_plugin_forwards_a_port_of_the_stock_agent: forwarded_port Ours Stock;
    the_stock_plugin_forwards_a_port_of_the_stock_agent: forwarded_port Stock Stock;
    the_stock_plugin_forwards_a_port_of_a_name_that_our_node_knows: forwarded_port_of_a_name Stock Ours;
    our_plugin_forwards_a_port_of_a_name_that_the_stock_agent_knows: forwarded_port_of_a_name Ours Stock;
    the_stock_plugin_forwards_a_port_of_a_name_that_the_stock_agent_knows: forwarded_port_of_a_name Stock Stock;
    the_stock_plugin_hears_of_a_port_that_our_node_cannot_reach: refused_port Stock Ours;
    our_plugin_hears_of_a_port_that_the_stock_agent_cannot_reach: refused_port Ours Stock;
    the_stock_plugin_tells_an_interactive_command_on_our_node_of_its_window: interactive_command Stock Ours;
    our_plugin_tells_an_interactive_command_on_the_stock_agent_of_its_window: interactive_command Ours Stock;
    the_stock_plugin_tells_an_interactive_command_on_the_stock_agent_of_its_window: interactive_command Stock Stock;
    the_stock_plugin_shares_a_key_of_our_endpoint_with_our_node: encrypted_shell Stock Ours;
    our_plugin_shares_a_key_of_our_endpoint_with_the_stock_agent: encrypted_shell Ours Stock;
    the_stock_plugin_shares_a_key_of_our_endpoint_with_the_stock_agent: encrypted_shell Stock Stock;
}
