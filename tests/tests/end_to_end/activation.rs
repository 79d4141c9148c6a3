//! A machine becomes a managed node.

use std::{io::ErrorKind, path::Path};

use anyhow::{Context, Result, ensure};
use moorline_tests::{
    Cli, Endpoint, Node, Site, is_root, register_agent, register_at_terminal, skipped, wait_until,
};
use serde_json::{Value, json};

/// Id and code of an activation that our client makes with these words.
async fn create_activation(cli: &Cli, words: &[&str]) -> Result<(String, String)> {
    let create = [&["activation", "create", "--json"], words].concat();
    let created = cli.run(&create).await?.success()?.json()?;
    let text = |name: &str| Some(created[name].as_str()?.to_owned());
    let created = text("ActivationId").zip(text("ActivationCode"));
    created.context("the activation's JSON")
}

#[tokio::test]
async fn a_node_joins_with_an_activation_of_our_client_and_is_listed_with_its_tags() -> Result<()> {
    let endpoint = Endpoint::start().await?;
    let cli = Cli::of(&endpoint);
    let words = ["--tag", "Role=web", "--tag", "Stage=a=b", "--limit", "1"];
    let (id, code) = create_activation(&cli, &words).await?;
    let activation = (id.as_str(), code.as_str());
    let dir = tempfile::tempdir()?;
    let state_dir = dir.path().join("agent");
    let mut node = Node::register_with(&endpoint, &endpoint.url(), activation, dir, state_dir).await?;
    node.start().await?;

    let nodes = cli.run(&["nodes", "--json"]).await?.success()?.json()?;
    ensure!(nodes.as_array().is_some_and(|nodes| nodes.len() == 1), "{nodes}");
    let listed = &nodes[0];
    ensure!(listed["InstanceId"] == node.id(), "{listed}");
    ensure!(listed["PingStatus"] == "Online", "{listed}");
    ensure!(listed["PlatformType"] == "Linux", "{listed}");
    ensure!(
        listed["Tags"] == json!({"Role": "web", "Stage": "a=b"}),
        "{listed}"
    );
    let table = cli.run(&["nodes"]).await?.success()?.stdout;
    ensure!(table.contains(node.id()) && table.contains("Online"), "{table}");

    // the activation was for one node
    let second = tempfile::tempdir()?;
    let refused = register_agent(
        second.path(),
        &second.path().join("agent"),
        &endpoint.url(),
        &endpoint.ca(),
        activation,
    )
    .await?;
    ensure!(refused.code == 1, "{refused:?}");
    Ok(())
}

const CODE_PROMPT: &str = "activation code (what you type is not shown): ";

#[tokio::test]
async fn an_activation_code_is_asked_for_on_a_terminal_and_ends_with_its_line_and_is_not_shown() -> Result<()>
{
    let endpoint = Endpoint::start().await?;
    let (id, code) = create_activation(&Cli::of(&endpoint), &[]).await?;
    let dir = tempfile::tempdir()?;
    let mut terminal = register_at_terminal(dir.path(), "\"$@\"", &endpoint.url(), &endpoint.ca(), &id)?;
    terminal.expect(CODE_PROMPT).await?;
    terminal.send(&format!("{code}\n"))?;
    terminal.expect("\r\nregistered as mi-").await?;
    ensure!(terminal.wait().await? == 0);
    ensure!(!terminal.text().contains(&code), "{}", terminal.text());
    Ok(())
}

/// Says how the agent ended, and whether the terminal shows what is typed.
const SHOWS_ECHO: &str = "echo ended $?; stty -a | grep -ow -e '-*echo'";

#[tokio::test]
async fn a_terminal_shows_what_is_typed_again_however_the_asking_for_a_code_ended() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let ask = |script: &str| {
        let (url, id) = ("https://127.0.0.1:1", "12345678-1234-1234-1234-123456789012");
        register_at_terminal(dir.path(), script, url, Path::new("none"), id)
    };
    let (ctrl_c, ctrl_d, ctrl_z) = ("\x03", "\x04", "\x1a");
    let nothing = "no activation code was entered\r\n";
    for (keys, said, code) in [(ctrl_c, "", 130), (ctrl_d, nothing, 1), ("\n", nothing, 1)] {
        // Ctrl-C is the agent's alone
        let mut terminal = ask(&format!("trap : INT; \"$@\"; {SHOWS_ECHO}"))?;
        terminal.expect(CODE_PROMPT).await?;
        terminal.send(keys)?;
        terminal
            .expect(&format!("{said}ended {code}\r\necho\r\n"))
            .await?;
    }
    // with jobs, as an interactive shell has them
    let mut terminal = ask(&format!(
        "set -m; trap : INT; \"$@\"; {SHOWS_ECHO}; fg; {SHOWS_ECHO}"
    ))?;
    terminal.expect(CODE_PROMPT).await?;
    terminal.send(ctrl_z)?;
    terminal.expect("\r\necho\r\n").await?;
    terminal.expect(CODE_PROMPT).await?;
    terminal.send(ctrl_c)?;
    terminal.expect("ended 130\r\necho\r\n").await
}

#[tokio::test]
async fn what_is_pasted_for_a_code_and_is_no_single_whole_line_is_refused_and_reaches_no_shell() -> Result<()>
{
    let dir = tempfile::tempdir()?;
    let (url, id) = ("https://127.0.0.1:1", "12345678-1234-1234-1234-123456789012");
    let script = "\"$@\"; echo ended $?; read -r rest; echo \"the shell got $rest\"";
    let too_long = format!("{}\n", "x".repeat(5000));
    for (pasted, said) in [
        ("BEGIN\nsecond\nthird\n", "more than one line"),
        ("BEGIN\nwithout an end", "more than one line"),
        (&too_long, "longer than a terminal gives"),
    ] {
        let mut terminal = register_at_terminal(dir.path(), script, url, Path::new("none"), id)?;
        terminal.expect(CODE_PROMPT).await?;
        terminal.send(pasted)?;
        terminal.expect(said).await?;
        terminal.expect("--activation-code-file").await?;
        terminal.expect("ended 1\r\n").await?;
        terminal.send("mine\n")?;
        terminal.expect("the shell got mine\r\n").await?;
    }
    Ok(())
}

#[tokio::test]
async fn the_status_of_an_agent_says_whether_it_is_connected() -> Result<()> {
    let mut site = Site::start().await?;
    // the endpoint may see the channel before the daemon has written that it stands
    wait_until("the status to say that it is connected", async || {
        let status = site.node.agent("status", &["--json"]).await?.success()?.json()?;
        ensure!(status["InstanceId"] == site.node.id(), "{status}");
        ensure!(
            status["Connected"] == true && status["Running"] == true,
            "{status}"
        );
        Ok(true)
    })
    .await?;
    let text = site.node.agent("status", &[]).await?.success()?.stdout;
    ensure!(
        text.contains(site.node.id()) && text.contains("connected"),
        "{text}"
    );

    site.node.kill_daemon().await?;
    let status = site
        .node
        .agent("status", &["--json"])
        .await?
        .with_code(1)?
        .json()?;
    ensure!(
        status["Running"] == false && status["Connected"] == false,
        "{status}"
    );
    Ok(())
}

#[tokio::test]
async fn the_private_key_and_the_administrators_secret_are_readable_by_their_owner_only() -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let site = Site::start().await?;
    let mut seen = 0;
    for directory in [site.node.state_dir(), site.endpoint.state_dir()] {
        for entry in std::fs::read_dir(directory)? {
            let entry = entry?;
            let metadata = match entry.metadata() {
                // a file on its way to its name
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                metadata => metadata?,
            };
            let is_public = entry
                .path()
                .extension()
                .is_some_and(|extension| extension == "pem");
            if metadata.is_file() && !is_public {
                let mode = metadata.permissions().mode() & 0o077;
                ensure!(
                    mode == 0,
                    "{} has mode {mode:o} for others",
                    entry.path().display()
                );
                seen += 1;
            }
        }
    }
    ensure!(seen >= 4, "only {seen} files were found");
    Ok(())
}

#[tokio::test]
async fn the_agent_listens_on_no_socket() -> Result<()> {
    if !is_root() {
        skipped("only root sees which sockets the agent's processes have");
        return Ok(());
    }
    let site = Site::start().await?;
    site.check_commands_work().await?;
    let shell = site.cli().shell(site.node.id()).await?;
    let mut seen = 0;
    for pid in site.node.processes() {
        // the command's worker may end just now
        let Ok(descriptors) = std::fs::read_dir(format!("/proc/{pid}/fd")) else {
            continue;
        };
        let sockets = descriptors
            .flatten()
            .filter_map(|entry| std::fs::read_link(entry.path()).ok())
            .filter_map(|target| {
                let inode = target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?;
                Some(inode.to_owned())
            })
            .collect::<Vec<_>>();
        for table in ["tcp", "tcp6"] {
            let table = std::fs::read_to_string(format!("/proc/net/{table}"))?;
            for line in table.lines().skip(1) {
                let fields: Vec<&str> = line.split_whitespace().collect();
                let listens = fields.get(3) == Some(&"0A");
                let ours = fields
                    .get(9)
                    .is_some_and(|inode| sockets.iter().any(|socket| socket == inode));
                ensure!(!(listens && ours), "process {pid} listens: {line}");
            }
        }
        seen += 1;
    }
    ensure!(
        seen >= 2,
        "daemon and session worker were not looked at: {seen} processes"
    );
    drop(shell);
    Ok(())
}

#[tokio::test]
async fn a_mistyped_setting_is_an_error_that_names_file_and_line() -> Result<()> {
    let endpoint = Endpoint::start().await?;
    let mut node = Node::register(&endpoint, &[]).await?;
    let drop_ins = node.state_dir().join("conf.d");
    std::fs::create_dir(&drop_ins)?;
    std::fs::write(node.state_dir().join("agent.toml"), "[command]\nworkers = 3\n")?;
    node.agent("run", &["--check-config"]).await?.success()?;
    std::fs::write(
        drop_ins.join("50-typo.toml"),
        "[command]\nworkers = 2\nwrokers = 4\n",
    )?;
    for arguments in [&["--check-config"][..], &[]] {
        // 64: no restart can help
        let refused = node.agent("run", arguments).await?.with_code(64)?;
        ensure!(
            refused.stderr.contains("50-typo.toml")
                && refused.stderr.contains("line 3")
                && refused.stderr.contains("wrokers"),
            "{refused:?}"
        );
    }
    std::fs::remove_file(drop_ins.join("50-typo.toml"))?;
    node.start().await?;
    // one daemon per registration
    let second = node.agent("run", &[]).await?.with_code(1)?;
    ensure!(
        second.stderr.contains("another moorline-agent is running"),
        "{second:?}"
    );
    node.check_alive()
}

#[tokio::test]
async fn nobody_trusts_an_endpoint_of_another_ca() -> Result<()> {
    let (endpoint, other) = (Endpoint::start().await?, Endpoint::start().await?);
    let ca = other.ca().display().to_string();
    let cli = Cli::of(&endpoint)
        .with("AWS_CA_BUNDLE", &ca)
        .with("SSL_CERT_FILE", &ca);
    let refused = cli.run(&["nodes"]).await?;
    ensure!(
        refused.code != 0 && refused.stderr.contains("certificate"),
        "{refused:?}"
    );
    let dir = tempfile::tempdir()?;
    let (id, code) = create_activation(&Cli::of(&endpoint), &[]).await?;
    let activation = (id.as_str(), code.as_str());
    let state_dir = dir.path().join("agent");
    let refused = register_agent(dir.path(), &state_dir, &endpoint.url(), &other.ca(), activation).await?;
    ensure!(
        refused.code == 1 && refused.stderr.contains("certificate"),
        "{refused:?}"
    );
    // nothing was sent that could be used up
    register_agent(
        dir.path(),
        &state_dir,
        &endpoint.url(),
        &endpoint.ca(),
        activation,
    )
    .await?
    .success()?;
    Ok(())
}

#[tokio::test]
async fn a_deregistered_node_is_gone_and_does_not_come_back() -> Result<()> {
    let mut site = Site::start().await?;
    let node = json!({"InstanceId": site.node.id()});
    site.api().call("DeregisterManagedInstance", node).await?;
    site.node.wait_offline().await?;
    let nodes: Value = site.api().call("DescribeInstanceInformation", json!({})).await?;
    ensure!(nodes["InstanceInformationList"] == json!([]), "{nodes}");
    let input = json!({
        "DocumentName": "AWS-RunShellScript",
        "InstanceIds": [site.node.id()],
        "Parameters": {"commands": ["true"]},
    });
    let refusal = site.api().refusal("SendCommand", input).await?;
    ensure!(refusal.code == "InvalidInstanceId", "{refusal:?}");
    // it may be registered again, so the agent waits instead of ending
    site.node.check_alive()
}
