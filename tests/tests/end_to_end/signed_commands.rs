//! Nodes that run signed commands only, and an endpoint that is in the wrong hands.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use moorline_protocol::{
    document::Digest,
    signed_command::{Purpose, SignedCommand, SigningKey, Statement},
};
use moorline_tests::{
    Aws, Cli, Endpoint, Node, PATIENCE, SimulatedFleet, Site, WorkerKind, wait_for, wait_until,
};
use serde_json::{Value, json};
use tokio::time::timeout;

/// A node that runs what this key has signed and nothing else.
pub(crate) struct Fleet {
    pub(crate) site: Site,
    pub(crate) key: String,
}

impl Fleet {
    async fn start() -> Result<Self> {
        Self::with_signer("").await
    }

    /// What the signer may besides stands in these lines.
    pub(crate) async fn with_signer(more: &str) -> Result<Self> {
        let endpoint = Endpoint::start().await?;
        let mut node = Node::register(&endpoint, &[("Role", "signed")]).await?;
        let key = node.dir().join("operator.key");
        let key = key.to_str().context("a path")?.to_owned();
        let cli = Cli::of(&endpoint);
        let line = cli.run(&["key", "new", &key]).await?.success()?.stdout;
        node.set_policy(&format!(
            "require_signature = true\n[[signer]]\nname = \"ops\"\npublic_key = \"{}\"\n{more}",
            line.trim()
        ))?;
        node.start().await?;
        let site = Site { node, endpoint };
        Ok(Self { site, key })
    }

    /// Sends a signed command to a node that is away, and returns its id and the job that waits for the node.
    async fn send_signed(&mut self, script: &str) -> Result<(String, Value)> {
        self.site.node.stop_daemon().await?;
        let words = [
            "run",
            "--node",
            self.site.node.id(),
            "--detach",
            "--sign-with",
            &self.key,
            "--",
            script,
        ];
        let sent = self.site.cli().run(&words).await?.success()?;
        let command_id = sent.stdout.trim().to_owned();
        let job = self.forge(&command_id, &json!({})).await?;
        Ok((command_id, job))
    }

    /// An unsigned command for the node that is away, with members of its job changed by whoever has the endpoint.
    async fn send_forged(&mut self, members: &Value) -> Result<Value> {
        let command_id = self.site.send("true").await?;
        self.forge(&command_id, members).await?;
        self.site.node.start().await?;
        let invocation = self.site.finished(&command_id).await?;
        self.site.node.stop_daemon().await?;
        Ok(invocation)
    }

    async fn forge(&mut self, command_id: &str, members: &Value) -> Result<Value> {
        let endpoint = &mut self.site.endpoint;
        endpoint.stop().await?;
        let database = endpoint.state_dir().join("control.db");
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("python/forge_job.py");
        let members = members.to_string();
        let words = [database.to_str().context("a path")?, command_id, &members];
        let job = Aws::of(endpoint)?
            .python(&script, &words)
            .await?
            .success()?
            .stdout;
        endpoint.start_again().await?;
        Ok(serde_json::from_str(&job)?)
    }
}

/// Refused, and for this reason.
fn check_refused(invocation: &Value, reason: &str) -> Result<()> {
    let output = invocation["StandardErrorContent"].as_str().unwrap_or_default();
    ensure!(
        invocation["StatusDetails"] == "AccessDenied" && output.contains(reason),
        "{reason}: {invocation}"
    );
    Ok(())
}

#[tokio::test]
async fn a_node_that_asks_for_signatures_runs_what_is_signed_and_nothing_else() -> Result<()> {
    let fleet = Fleet::start().await?;
    let (site, key) = (&fleet.site, fleet.key.as_str());
    for target in [["--node", site.node.id()], ["--tag", "Role=signed"]] {
        let words = [
            &["run"],
            &target[..],
            &["--sign-with", key, "--", "echo", "signed"],
        ]
        .concat();
        let ran = site.cli().run(&words).await?.success()?;
        ensure!(
            format!("{}{}", ran.stdout, ran.stderr).contains("signed"),
            "{ran:?}"
        );
    }
    let command_id = site.send("true").await?;
    check_refused(&site.finished(&command_id).await?, "the command is not signed")?;
    // another operator's key
    let other = site.node.dir().join("other.key");
    let other = other.to_str().context("a path")?;
    site.cli().run(&["key", "new", other]).await?.success()?;
    let words = [
        "run",
        "--node",
        site.node.id(),
        "--sign-with",
        other,
        "--",
        "true",
    ];
    let ran = site.cli().run(&words).await?.with_code(1)?;
    let shown = format!("{}{}", ran.stdout, ran.stderr);
    ensure!(
        shown.contains("no signer of this policy signed the command"),
        "{ran:?}"
    );
    // a key is never overwritten
    let again = site.cli().run(&["key", "new", other]).await?;
    ensure!(again.code != 0 && again.stderr.contains("exists"), "{again:?}");
    // and no signer may sign sessions here
    let words = ["shell", site.node.id()];
    let refused = timeout(PATIENCE, site.cli().run_with_input(&words, b"exit 0\n")).await??;
    ensure!(
        refused.code != 0
            && refused
                .stderr
                .contains("no signer of this policy may sign sessions"),
        "{refused:?}"
    );
    Ok(())
}

#[tokio::test]
async fn each_wave_of_a_roll_out_and_its_probe_are_signed() -> Result<()> {
    let fleet = Fleet::start().await?;
    let waves = [
        "run",
        "--tag",
        "Role=signed",
        "--wave",
        "all=all",
        "--health-command",
        "true",
        "--heartbeat-grace",
        "1s",
        "--yes",
    ];
    let (unsigned, key) = (["--", "true"], ["--sign-with", fleet.key.as_str(), "--", "true"]);
    fleet
        .site
        .cli()
        .run(&[&waves[..], &key].concat())
        .await?
        .success()?;
    let ran = fleet
        .site
        .cli()
        .run(&[&waves[..], &unsigned].concat())
        .await?
        .with_code(64)?;
    ensure!(
        ran.stdout
            .contains("1 node is left out, where the owner refuses it")
            && ran.stderr.contains("no wave has a node: nothing is sent"),
        "{ran:?}"
    );
    Ok(())
}

#[tokio::test]
async fn a_signed_wave_has_fifty_nodes_at_most_and_of_a_larger_one_nothing_is_sent() -> Result<()> {
    let endpoint = Endpoint::start().await?;
    let mut fleet = SimulatedFleet::connect(&endpoint, 51).await?;
    let cli = Cli::of(&endpoint);
    let dir = tempfile::tempdir()?;
    let key = dir.path().join("operator.key");
    let key = key.to_str().context("a path")?;
    cli.run(&["key", "new", key]).await?.success()?;
    let (name, value) = SimulatedFleet::TAG;
    let tag = format!("{name}={value}");
    let roll_out = async |more: &[&str]| {
        let words = [
            "run",
            "--tag",
            &tag,
            "--max-concurrency",
            "100%",
            "--heartbeat-grace",
            "1s",
            "--yes",
        ];
        cli.run(&[&words[..], more, &["--", "true"]].concat()).await
    };
    let commands = async || {
        let listed = endpoint.api().call("ListCommands", json!({})).await?;
        let commands = listed["Commands"].as_array().context("no commands")?;
        let targets = commands
            .iter()
            .filter_map(|command| command["TargetCount"].as_u64());
        let mut targets: Vec<u64> = targets.collect();
        targets.sort_unstable();
        anyhow::Ok(targets)
    };
    let refused = roll_out(&["--wave", "all=all", "--sign-with", key])
        .await?
        .with_code(64)?;
    ensure!(
        refused
            .stderr
            .contains("wave all has 51 nodes, and a signature is for 50 at most: make smaller waves"),
        "{refused:?}"
    );
    ensure!(commands().await?.is_empty(), "something was sent");
    roll_out(&["--wave", "most=50,rest=all", "--sign-with", key])
        .await?
        .success()?;
    ensure!(commands().await? == [1, 50], "{:?}", commands().await?);
    // It is the signature's limit.
    roll_out(&["--wave", "all=all"]).await?.success()?;
    ensure!(commands().await? == [1, 50, 51], "{:?}", commands().await?);
    fleet.check_connected()
}

#[tokio::test]
async fn a_captured_endpoint_can_drop_signed_commands_and_change_nothing() -> Result<()> {
    let mut fleet = Fleet::start().await?;
    let mark = fleet.site.node.dir().join("ran");
    let script = format!("echo ran >> {}", mark.display());
    let (command_id, signed) = fleet.send_signed(&script).await?;
    let count = || std::fs::read_to_string(&mark).map_or(0, |text| text.lines().count());
    let signature = signed["MoorlineSignature"].clone();
    ensure!(signature.is_string(), "{signed}");

    // the signature with something else
    let content = json!({"schemaVersion": "2.2", "mainSteps": [{"action": "aws:runShellScript", "name": "s",
        "inputs": {"runCommand": [script]}}]});
    let other_document =
        json!({"DocumentContent": content, "Parameters": {}, "MoorlineSignature": signature});
    let invocation = fleet.send_forged(&other_document).await?;
    check_refused(&invocation, "the signature is for another document")?;
    let mut parameters = signed["Parameters"].clone();
    parameters["commands"] = json!([format!("{script}; {script}")]);
    let other_parameters = json!({"Parameters": parameters, "MoorlineSignature": signature});
    let invocation = fleet.send_forged(&other_parameters).await?;
    check_refused(&invocation, "the signature is for other parameters")?;
    // without it
    let stripped = json!({"Parameters": signed["Parameters"], "MoorlineSignature": null});
    let invocation = fleet.send_forged(&stripped).await?;
    check_refused(&invocation, "the command is not signed")?;
    let garbled = json!({"Parameters": signed["Parameters"], "MoorlineSignature": "v0"});
    let invocation = fleet.send_forged(&garbled).await?;
    check_refused(&invocation, "it is no signed command")?;

    // all of it, unchanged: that is the operator's command, and only it has run, once
    fleet.site.node.start().await?;
    let invocation = fleet.site.finished(&command_id).await?;
    ensure!(invocation["Status"] == "Success" && count() == 1, "{invocation}");
    fleet.site.node.stop_daemon().await?;
    let replayed = json!({"Parameters": signed["Parameters"], "MoorlineSignature": signature});
    let invocation = fleet.send_forged(&replayed).await?;
    check_refused(&invocation, "the signed command has been run before")?;
    ensure!(count() == 1, "it ran again");
    Ok(())
}

#[tokio::test]
async fn a_signature_for_other_nodes_or_another_time_is_good_for_nothing() -> Result<()> {
    let mut fleet = Fleet::start().await?;
    let (_, job) = fleet.send_signed("true").await?;
    let key = SigningKey::read(&std::fs::read_to_string(&fleet.key)?)?;
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)?
        .as_secs();
    let parameters = job["Parameters"].as_object().context("parameters")?;
    let sign = |node: &str, not_before: u64, expires: u64| -> Result<Value> {
        let statement = Statement {
            document_name: "AWS-RunShellScript".to_owned(),
            document: Digest::of(&job["DocumentContent"]),
            parameters: Digest::of_map(parameters),
            nodes: [node.parse()?].into(),
            nonce: *uuid::Uuid::new_v4().as_bytes(),
            not_before,
            expires,
            reason: None,
        };
        Ok(SignedCommand::sign(statement, Purpose::Command, &key)?
            .token()
            .into())
    };
    let own = fleet.site.node.id().to_owned();
    for (signature, reason) in [
        (sign("mi-0123456789abcdef0", now, now + 600)?, "for other nodes"),
        (sign(&own, now - 1200, now - 600)?, "has expired"),
        (sign(&own, now + 1200, now + 1800)?, "is not good yet"),
    ] {
        let members = json!({"Parameters": parameters, "MoorlineSignature": signature});
        check_refused(&fleet.send_forged(&members).await?, reason)?;
    }
    let members = json!({"Parameters": parameters, "MoorlineSignature": sign(&own, now, now + 600)?});
    let invocation = fleet.send_forged(&members).await?;
    ensure!(invocation["Status"] == "Success", "{invocation}");
    Ok(())
}

#[tokio::test]
async fn a_document_that_the_endpoint_hands_out_needs_a_rule_that_knows_it() -> Result<()> {
    let fleet = Fleet::start().await?;
    let site = &fleet.site;
    let create = async |name: &str, content: &Value| {
        let input = json!({"Name": name, "DocumentType": "Command", "DocumentFormat": "JSON",
            "Content": content.to_string()});
        site.api().call("CreateDocument", input).await
    };
    let inner = json!({"schemaVersion": "2.2", "mainSteps": [{"action": "aws:runShellScript", "name": "inner",
        "inputs": {"runCommand": ["echo inner"]}}]});
    let outer = json!({"schemaVersion": "2.2", "mainSteps": [{"action": "aws:runDocument", "name": "outer",
        "inputs": {"documentType": "SSMDocument", "documentPath": "Inner"}}]});
    create("Inner", &inner).await?;
    create("Outer", &outer).await?;
    let file = site.node.dir().join("outer.json");
    std::io::Write::write_all(&mut std::fs::File::create(&file)?, outer.to_string().as_bytes())?;
    let words = [
        "run",
        "--node",
        site.node.id(),
        "--document",
        "Outer",
        "--sign-with",
        &fleet.key,
        "--sign-document",
        file.to_str().context("a path")?,
    ];
    let ran = site.cli().run(&words).await?.with_code(1)?;
    let shown = format!("{}{}", ran.stdout, ran.stderr);
    let digest = Digest::of(&inner).to_string();
    ensure!(
        shown.contains("no rule that allows has the sha256") && shown.contains(&digest),
        "{ran:?}"
    );
    let policy = std::fs::read_to_string(site.node.state_dir().join("policy.d/10-test.toml"))?;
    site.node.set_policy(&format!(
        "{policy}[[rule]]\nname = \"inner\"\neffect = \"allow\"\nfor = \"command\"\nsha256 = [\"{digest}\"]\n"
    ))?;
    site.cli().run(&words).await?.success()?;
    // what the endpoint calls by that name is not what the operator has
    std::io::Write::write_all(&mut std::fs::File::create(&file)?, inner.to_string().as_bytes())?;
    let refused = site.cli().run(&words).await?.with_code(64)?;
    ensure!(refused.stderr.contains("nothing is signed"), "{refused:?}");
    Ok(())
}

#[tokio::test]
async fn a_signed_session_opens_and_an_unsigned_one_does_not() -> Result<()> {
    let fleet = Fleet::with_signer("sessions = true\n").await?;
    let (site, node) = (&fleet.site, fleet.site.node.id());
    for words in [vec!["shell", node], vec!["shell", node, "--", "true"]] {
        let refused = timeout(PATIENCE, site.cli().run_with_input(&words, b"exit 0\n")).await??;
        ensure!(
            refused.code != 0 && refused.stderr.contains("the session is not signed"),
            "{refused:?}"
        );
    }
    let key = fleet.key.as_str();
    for words in [
        vec!["shell", node, "--reason", "to look", "--sign-with", key],
        vec!["shell", node, "--sign-with", key, "--", "sh", "-c", "exit 7"],
    ] {
        let ran = timeout(PATIENCE, site.cli().run_with_input(&words, b"exit 7\n")).await??;
        ensure!(ran.code == 7, "{ran:?}");
    }
    Ok(())
}

#[tokio::test]
async fn a_captured_endpoint_opens_no_session_with_what_it_has_seen() -> Result<()> {
    const DOCUMENT: &str = "SSM-SessionManagerRunShell";
    let fleet = Fleet::with_signer("sessions = true\n").await?;
    let (site, own) = (&fleet.site, fleet.site.node.id());
    let key = SigningKey::read(&std::fs::read_to_string(&fleet.key)?)?;
    let input = json!({"Name": DOCUMENT, "DocumentVersion": "$LATEST"});
    let document = site.api().call("GetDocument", input).await?;
    let content: Value = serde_json::from_str(document["Content"].as_str().context("content")?)?;
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)?
        .as_secs();
    let statement = Statement {
        document_name: DOCUMENT.to_owned(),
        document: Digest::of(&content),
        parameters: Digest::of(&json!({})),
        nodes: [own.parse()?].into(),
        nonce: *uuid::Uuid::new_v4().as_bytes(),
        not_before: now,
        expires: now + 300,
        reason: None,
    };
    let sign = |statement: Statement, purpose| -> Result<String> {
        Ok(SignedCommand::sign(statement, purpose, &key)?.token())
    };
    let other = Digest::of(&json!({"other": true}));
    let refused = [
        (
            sign(statement.clone(), Purpose::Command)?,
            "no signer of this policy signed the session",
        ),
        (
            sign(
                Statement {
                    nodes: ["mi-0123456789abcdef0".parse()?].into(),
                    ..statement.clone()
                },
                Purpose::Session,
            )?,
            "for other nodes",
        ),
        (
            sign(
                Statement {
                    document: other,
                    ..statement.clone()
                },
                Purpose::Session,
            )?,
            "for another document",
        ),
        (
            sign(
                Statement {
                    parameters: other,
                    ..statement.clone()
                },
                Purpose::Session,
            )?,
            "for other parameters",
        ),
        (
            sign(
                Statement {
                    reason: Some("x".into()),
                    ..statement.clone()
                },
                Purpose::Session,
            )?,
            "for another reason",
        ),
        (
            sign(
                Statement {
                    not_before: now - 600,
                    expires: now - 300,
                    ..statement.clone()
                },
                Purpose::Session,
            )?,
            "has expired",
        ),
        ("v0".to_owned(), "it is no signed command"),
    ];
    for (token, reason) in refused {
        ensure_ended(site, &shell(site, &token), reason).await?;
    }
    // unchanged it opens one, and no second one
    let token = sign(statement, Purpose::Session)?;
    begin_and_end(site, &shell(site, &token)).await?;
    ensure_ended(site, &shell(site, &token), "has been begun before").await
}

/// The request for a shell with this signature.
fn shell(site: &Site, token: &str) -> Value {
    json!({"Target": site.node.id(), "MoorlineSignature": token})
}

/// A session begins, and is ended.
pub(crate) async fn begin_and_end(site: &Site, request: &Value) -> Result<()> {
    let started = site.api().call("StartSession", request.clone()).await?;
    let session = started["SessionId"].as_str().context("an id")?;
    // a worker that is ended before it has begun the session has not spent its signature
    wait_until("the signed session to begin", async || {
        let log = site.node.log();
        let is_it = |line: &str| line.contains("session started") && line.contains(session);
        Ok(log.lines().any(is_it))
    })
    .await?;
    site.api()
        .call("TerminateSession", json!({"SessionId": session}))
        .await?;
    wait_until("its end", async || {
        Ok(site.node.workers(WorkerKind::Session).is_empty())
    })
    .await?;
    Ok(())
}

/// A session ends at once, for this reason.
pub(crate) async fn ensure_ended(site: &Site, request: &Value, reason: &str) -> Result<()> {
    let started = site.api().call("StartSession", request.clone()).await?;
    let id = &started["SessionId"];
    let details = wait_for("the end of the session", PATIENCE, async || {
        let listed = site
            .api()
            .call("DescribeSessions", json!({"State": "History"}))
            .await?;
        let mut sessions = listed["Sessions"].as_array().into_iter().flatten();
        Ok(sessions.find(|session| session["SessionId"] == *id).cloned())
    })
    .await?;
    ensure!(
        details["Details"]
            .as_str()
            .is_some_and(|text| text.contains(reason)),
        "{reason}: {details}"
    );
    Ok(())
}
