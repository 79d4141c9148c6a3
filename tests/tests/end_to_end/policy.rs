//! The policy of the node's owner: what it refuses nobody runs, whatever the endpoint says.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use moorline_tests::{Aws, Endpoint, Forward, Node, PATIENCE, Site, WorkerKind, wait_until};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    time::timeout,
};

const NO_SHELL_SCRIPTS: &str = "[[rule]]\nname = \"no shell scripts\"\neffect = \"deny\"\nfor = \"command\"\n\
                                actions = [\"aws:runShellScript\"]\n";

async fn site(policy: &str) -> Result<Site> {
    let endpoint = Endpoint::start().await?;
    let mut node = Node::register(&endpoint, &[]).await?;
    node.set_policy(policy)?;
    node.start().await?;
    Ok(Site { node, endpoint })
}

#[tokio::test]
async fn a_refused_command_is_a_normal_result_that_names_the_rule() -> Result<()> {
    let site = site(NO_SHELL_SCRIPTS).await?;
    let mark = site.node.dir().join("ran");
    let command_id = site.send(&format!("touch {}", mark.display())).await?;
    let invocation = site.finished(&command_id).await?;
    let expected = "refused by the policy of this node's owner: rule \"no shell scripts\" of ";
    let output = invocation["StandardErrorContent"].as_str().unwrap_or_default();
    ensure!(
        invocation["Status"] == "Failed"
            && invocation["StatusDetails"] == "AccessDenied"
            && output.starts_with(expected)
            && output.ends_with("policy.d/10-test.toml, line 1"),
        "{invocation}"
    );
    ensure!(!mark.exists(), "the command ran");
    // it was refused before a worker was started
    ensure!(!site.node.state_dir().join("commands").exists());
    let listed = site
        .api()
        .call("ListCommands", json!({"CommandId": command_id}))
        .await?;
    let command = &listed["Commands"][0];
    // as AWS has it, it is no error of the command's, and the command has failed
    ensure!(
        command["Status"] == "Failed" && command["ErrorCount"] == 0 && command["CompletedCount"] == 1,
        "{listed}"
    );
    let ran = site
        .cli()
        .run(&["run", "--node", site.node.id(), "--", "true"])
        .await?
        .with_code(1)?;
    let shown = format!("{}{}", ran.stdout, ran.stderr);
    ensure!(shown.contains("rule \"no shell scripts\""), "{ran:?}");
    let words = ["explain", &command_id, site.node.id()];
    let explained = site.cli().run(&words).await?.success()?.stdout;
    for part in [
        "rule \"no shell scripts\" of ",
        "nothing ran there",
        "ended Failed (AccessDenied)",
    ] {
        ensure!(explained.contains(part), "{part}: {explained}");
    }
    ensure!(!explained.contains('\u{fffd}'), "{explained}");

    wait_until("the audit log to have the refusal", async || {
        let filter = [
            "audit",
            "--command",
            &command_id,
            "--result",
            "AccessDenied",
            "--json",
        ];
        let audit = site.cli().run(&filter).await?.success()?.stdout;
        let is_it = |line: &str| line.contains("command-ended") && line.contains(site.node.id());
        Ok(audit.lines().any(is_it))
    })
    .await?;

    // the owner changes the policy: it holds at once
    site.node.set_policy("")?;
    site.check_commands_work().await?;
    site.node
        .set_policy("[default]\ncommand = \"deny\"\nsesion = \"deny\"\n")?;
    let command_id = site.send("true").await?;
    let invocation = site.finished(&command_id).await?;
    let output = invocation["StandardErrorContent"].as_str().unwrap_or_default();
    for word in ["everything is refused", "10-test.toml", "line 3", "sesion"] {
        ensure!(output.contains(word), "{word}: {invocation}");
    }
    ensure!(invocation["StatusDetails"] == "AccessDenied", "{invocation}");
    Ok(())
}

#[tokio::test]
async fn rules_know_who_sends_a_command() -> Result<()> {
    let rule = |pattern: &str| {
        format!(
            "[default]\ncommand = \"deny\"\n[[rule]]\nname = \"operators\"\neffect = \"allow\"\nfor = \"command\"\n\
             operators = [\"{pattern}\"]\n"
        )
    };
    let site = site(&rule("arn:moorline:iam:::user/admin")).await?;
    site.check_commands_work().await?;
    site.node
        .set_policy(&rule("arn:moorline:iam:::user/somebody-else"))?;
    let command_id = site.send("true").await?;
    let invocation = site.finished(&command_id).await?;
    ensure!(invocation["StatusDetails"] == "AccessDenied", "{invocation}");
    Ok(())
}

#[tokio::test]
async fn a_refused_session_ends_at_once_and_its_user_is_told_why() -> Result<()> {
    let rule = "[[rule]]\nname = \"no shells\"\neffect = \"deny\"\nfor = \"session\"\n";
    let site = site(&format!("{rule}session_types = [\"Standard_Stream\"]\n")).await?;
    let words = ["shell", site.node.id()];
    let refused = timeout(PATIENCE, site.cli().run_with_input(&words, b"exit 0\n")).await??;
    ensure!(
        refused.code != 0 && refused.stderr.contains("rule \"no shells\" of "),
        "{refused:?}"
    );
    // the daemon knew enough
    ensure!(site.node.workers(WorkerKind::Session).is_empty());

    // whose shell it is only the worker knows
    let own = nix::unistd::User::from_uid(nix::unistd::Uid::effective())?.context("no user")?;
    site.node
        .set_policy(&format!("{rule}users = [\"{}\"]\n", own.name))?;
    let refused = timeout(PATIENCE, site.cli().run_with_input(&words, b"exit 0\n")).await??;
    ensure!(
        refused.code != 0 && refused.stderr.contains("rule \"no shells\" of "),
        "{refused:?}"
    );
    site.node
        .set_policy(&format!("{rule}users = [\"nobody-here\"]\n"))?;
    site.cli().run_with_input(&words, b"exit 0\n").await?.success()?;
    Ok(())
}

#[tokio::test]
async fn ports_are_forwarded_where_the_policy_lets_them_lead() -> Result<()> {
    let open = TcpListener::bind(("127.0.0.1", 0)).await?;
    let closed = TcpListener::bind(("127.0.0.1", 0)).await?;
    let (port, other) = (open.local_addr()?.port(), closed.local_addr()?.port());
    let rule = |targets: &str| {
        format!(
            "[default]\nsession = \"deny\"\n[[rule]]\nname = \"database\"\neffect = \"allow\"\nfor = \"session\"\n\
             forward = [\"{targets}:{port}\"]\n"
        )
    };
    for (targets, host) in [
        ("localhost", ""),
        ("127.0.0.0/8", "localhost:"),
        ("127.0.0.1", ""),
    ] {
        let site = site(&rule(targets)).await?;
        let spec = format!("0:{host}{port}");
        let forward = Forward::start(&site.cli(), site.node.id(), &spec).await?;
        let mut connection = forward.connect().await?;
        connection.write_all(b"x").await?;
        let (mut server, _) = timeout(PATIENCE, open.accept()).await??;
        let mut got = [0];
        timeout(PATIENCE, server.read_exact(&mut got)).await??;
        ensure!(got == *b"x");
        let spec = format!("0:{host}{other}");
        let words = ["forward", site.node.id(), &spec];
        let refused = timeout(PATIENCE, site.cli().run(&words)).await??;
        ensure!(
            refused.code != 0 && refused.stderr.contains("no rule allows it"),
            "{targets}: {refused:?}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn what_a_captured_endpoint_forges_is_judged_by_its_content() -> Result<()> {
    let endpoint = Endpoint::start().await?;
    let mut node = Node::register(&endpoint, &[]).await?;
    let got = endpoint
        .api()
        .call(
            "GetDocument",
            json!({"Name": "AWS-RunShellScript", "DocumentFormat": "YAML"}),
        )
        .await?;
    let file = node.dir().join("document.yaml");
    std::io::Write::write_all(
        &mut std::fs::File::create(&file)?,
        got["Content"].as_str().unwrap_or_default().as_bytes(),
    )?;
    let file = file.to_str().context("a path")?.to_owned();
    let digest = node.agent("policy", &["digest", &file]).await?.success()?.stdout;
    node.set_policy(&format!(
        "[default]\ncommand = \"deny\"\n[[rule]]\nname = \"known\"\neffect = \"allow\"\nfor = \"command\"\n\
         sha256 = [\"{}\"]\n",
        digest.trim()
    ))?;
    node.start().await?;
    let mut site = Site { node, endpoint };
    site.check_commands_work().await?;

    // under the same name, and whoever is said to send it
    let mark = site.node.dir().join("ran");
    site.node.stop_daemon().await?;
    let command_id = site.send("true").await?;
    let document = json!({"schemaVersion": "2.2", "mainSteps": [{"action": "aws:runShellScript", "name": "s",
        "inputs": {"runCommand": [format!("touch {}", mark.display())]}}]});
    let forged =
        json!({"DocumentContent": document, "Parameters": {}, "MoorlineOperator": "arn:aws:iam::1:root"});
    forge(&mut site.endpoint, &command_id, &forged).await?;
    site.node.start().await?;
    let invocation = site.finished(&command_id).await?;
    ensure!(invocation["StatusDetails"] == "AccessDenied", "{invocation}");
    ensure!(!mark.exists(), "the forged command ran");
    site.check_commands_work().await
}

/// Does what somebody who has the endpoint could do: changes members of a job that its node has not got yet.
async fn forge(endpoint: &mut Endpoint, command_id: &str, members: &Value) -> Result<()> {
    endpoint.stop().await?;
    let database = endpoint.state_dir().join("control.db");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("python/forge_job.py");
    let members = members.to_string();
    let database = database.to_str().context("a path")?;
    let words = [database, command_id, members.as_str()];
    Aws::of(endpoint)?.python(&script, &words).await?.success()?;
    endpoint.start_again().await
}

#[tokio::test]
async fn the_endpoint_shows_which_policy_a_node_has() -> Result<()> {
    let site = site(NO_SHELL_SCRIPTS).await?;
    let policies = async |site: &Site| -> Result<String> {
        let listed = site.cli().run(&["--json", "nodes"]).await?.success()?.stdout;
        let nodes: Value = serde_json::from_str(&listed)?;
        Ok(nodes[0]["Policy"].as_str().unwrap_or_default().to_owned())
    };
    let shown = site.node.agent("policy", &["show"]).await?.success()?.stdout;
    let fingerprint = shown
        .lines()
        .last()
        .unwrap_or_default()
        .replace("fingerprint: ", "");
    ensure!(
        fingerprint.len() == 64 && shown.starts_with("deny  command rule \"no shell scripts\" of "),
        "{shown}"
    );
    wait_until("the endpoint to know the policy", async || {
        Ok(policies(&site).await? == fingerprint)
    })
    .await?;
    let table = site.cli().run(&["nodes"]).await?.success()?.stdout;
    let beginning: String = fingerprint.chars().take(12).collect();
    ensure!(table.contains(&beginning), "{table}");
    // without a restart, and long before the next ping is due
    for (policy, expected) in [("nonsense", "unusable"), ("", "")] {
        site.node.set_policy(policy)?;
        wait_until("the endpoint to know of the change", async || {
            let policy = policies(&site).await?;
            Ok(match expected {
                "" => policy.len() == 64 && policy != fingerprint,
                expected => policy == expected,
            })
        })
        .await?;
    }
    Ok(())
}

#[tokio::test]
async fn the_owner_can_ask_what_the_policy_would_say() -> Result<()> {
    let site = site(NO_SHELL_SCRIPTS).await?;
    let file = site.node.dir().join("d.json");
    let document = json!({"schemaVersion": "2.2", "parameters": {"what": {"type": "String"}}, "mainSteps": [
        {"action": "aws:runShellScript", "name": "s", "inputs": {"runCommand": ["{{ what }}"]},
         "precondition": {"StringEquals": ["{{ what }}", "run"]}}]});
    std::io::Write::write_all(
        &mut std::fs::File::create(&file)?,
        document.to_string().as_bytes(),
    )?;
    let file = file.to_str().context("a path")?;
    let check = async |words: &[&str]| site.node.agent("policy", &[&["check"], words].concat()).await;
    let refused = check(&["--document", file, "--parameters", "what=run"])
        .await?
        .with_code(1)?;
    ensure!(
        refused
            .stdout
            .starts_with("refused: rule \"no shell scripts\" of "),
        "{refused:?}"
    );
    let allowed = check(&["--document", file, "--parameters", "what=not"])
        .await?
        .success()?;
    ensure!(
        allowed.stdout.starts_with("allowed: no rule holds"),
        "{allowed:?}"
    );
    site.node.set_policy(
        "[[rule]]\nname = \"root\"\neffect = \"deny\"\nfor = \"session\"\nusers = [\"root\"]\n",
    )?;
    let shell = ["--session-type", "Standard_Stream"];
    check(&shell).await?.with_code(2)?;
    check(&[&shell[..], &["--user", "root"]].concat())
        .await?
        .with_code(1)?;
    check(&[&shell[..], &["--user", "ops"]].concat())
        .await?
        .success()?;
    check(&["--session-type", "Port", "--port", "22"])
        .await?
        .success()?;
    Ok(())
}

#[tokio::test]
async fn the_owner_can_ask_what_would_be_refused_for_want_of_a_signature() -> Result<()> {
    let signer = |name: &str, more: &str| {
        let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOpKbGPinFIKvvVQexMuxfmVR3auvr57kkIe6mkURtIs";
        format!("[[signer]]\nname = \"{name}\"\npublic_key = \"{key}\"\n{more}\n")
    };
    let rule =
        "[[rule]]\nname = \"no ports\"\neffect = \"deny\"\nfor = \"session\"\nsession_types = [\"Port\"]\n";
    let site = site(&format!(
        "require_signature = true\n{}{}{rule}",
        signer("patching", "documents = [\"Patch*\"]"),
        signer("ops", "documents = [\"Mine\", \"Shell\"]\nsessions = true"),
    ))
    .await?;
    let document = |name: &str, action: &str| {
        let file = site.node.dir().join(name);
        let inputs = json!({"runCommand": ["true"], "name": "p", "action": "Install"});
        let text =
            json!({"schemaVersion": "2.2", "mainSteps": [{"action": action, "name": "s", "inputs": inputs}]});
        std::io::Write::write_all(&mut std::fs::File::create(&file)?, text.to_string().as_bytes())?;
        Ok::<_, anyhow::Error>(file.to_str().context("a path")?.to_owned())
    };
    let script = document("script.json", "aws:runShellScript")?;
    let package = document("package.json", "aws:configurePackage")?;
    let (shell, port) = (
        ["--session-type", "Standard_Stream", "--name", "Shell"],
        ["--session-type", "Port", "--port", "22", "--name", "Shell"],
    );
    let mine = ["--document", &script, "--name", "Mine"];
    let other = ["--document", &script, "--name", "Other"];
    for (question, signed_by, code, expected) in [
        (
            &mine[..],
            "",
            1,
            "the command is not signed; who may sign it: ops",
        ),
        (&mine, "ops", 0, "allowed: no rule holds"),
        (&mine, "patching", 1, "signer \"patching\" may not sign Mine"),
        (&mine, "nobody", 1, "there is no signer \"nobody\""),
        (
            &other,
            "",
            1,
            "no signer of this policy may sign a command with \"Other\"",
        ),
        (
            &["--document", &package, "--name", "Mine"],
            "ops",
            1,
            "aws:configurePackage runs programs of the endpoint",
        ),
        (&shell, "", 1, "the session is not signed; who may sign it: ops"),
        (&shell, "ops", 0, "allowed: no rule holds"),
        (&shell, "patching", 1, "may not sign sessions"),
        (&port, "ops", 1, "rule \"no ports\""),
    ] {
        let signed = ["--signed-by", signed_by];
        let signed = if signed_by.is_empty() { &[][..] } else { &signed };
        let words = [&["check"], question, signed].concat();
        let said = site.node.agent("policy", &words).await?.with_code(code)?.stdout;
        ensure!(said.contains(expected), "{words:?}: {said}");
    }
    Ok(())
}
