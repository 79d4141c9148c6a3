//! What operators and strangers did is in the audit log, and no change of it goes unnoticed.

use std::{fs, os::unix::fs::PermissionsExt as _};

use anyhow::{Context, Result, ensure};
use moorline_protocol::sigv4::Credentials;
use moorline_tests::{Cli, Endpoint, PATIENCE, Site, audit_keys, audit_records, raw_request, wait_for};
use serde_json::{Value, json};

fn is(record: &Value, member: &str, value: &str) -> bool {
    record[member] == value
}

#[tokio::test]
async fn a_command_leaves_who_sent_it_from_where_to_which_node_and_its_script() -> Result<()> {
    let site = Site::start().await?;
    let ran = site
        .cli()
        .run(&["run", "--node", site.node.id(), "--", "echo", "audited"])
        .await?;
    ran.success()?;
    let records = audit_records(&site.endpoint, &["--operation", "SendCommand"]).await?;
    let [accepted, call] = records.as_slice() else {
        anyhow::bail!("not two records: {records:?}");
    };
    ensure!(
        is(accepted, "event", "accepted") && is(call, "event", "call"),
        "{records:?}"
    );
    ensure!(
        is(call, "result", "ok") && is(call, "peer", "127.0.0.1"),
        "{call}"
    );
    ensure!(
        call["by"]["name"] == "admin" && call["by"]["type"] == "operator",
        "{call}"
    );
    ensure!(call["by"]["access_key"].is_string(), "{call}");
    ensure!(
        call["user_agent"]
            .as_str()
            .is_some_and(|agent| agent.starts_with("moorline/")),
        "{call}"
    );
    ensure!(call["nodes"] == json!([site.node.id()]), "{call}");
    ensure!(
        call["parameters"]["Parameters"]["commands"] == json!(["echo audited"]),
        "{call}"
    );
    let command = call["command"].as_str().context("no command id")?;
    let of_command = audit_records(&site.endpoint, &["--command", command]).await?;
    ensure!(of_command.contains(call), "{of_command:?}");
    for filter in [
        ["--node", site.node.id()],
        ["--operator", "admin"],
        ["--since", "1h"],
    ] {
        let found = audit_records(&site.endpoint, &filter).await?;
        ensure!(found.contains(call), "{filter:?}: {found:?}");
    }
    for filter in [["--operator", "nobody"], ["--result", "error"], ["--until", "1h"]] {
        let found = audit_records(&site.endpoint, &filter).await?;
        ensure!(!found.contains(call), "{filter:?}: {found:?}");
    }
    let shown = site
        .cli()
        .run(&["audit", "--command", command])
        .await?
        .success()?
        .stdout;
    ensure!(
        shown.contains("admin  from 127.0.0.1  ssm:SendCommand") && shown.contains("echo audited"),
        "{shown}"
    );
    Ok(())
}

#[tokio::test]
async fn a_session_leaves_its_start_its_client_and_its_end_and_no_token() -> Result<()> {
    let site = Site::start().await?;
    let mut terminal = site
        .cli()
        .at_terminal(&["shell", site.node.id(), "--reason", "ticket 4711"])?;
    terminal.send("echo on''ce; exit 3\n")?;
    ensure!(terminal.wait().await? == 3, "{}", terminal.text());
    let records = wait_for("the session's end in the audit log", PATIENCE, async || {
        let started =
            audit_records(&site.endpoint, &["--operation", "StartSession", "--result", "ok"]).await?;
        let session = started.first().and_then(|record| record["session"].as_str());
        let session = session.context("no session was started")?;
        let records = audit_records(&site.endpoint, &["--session", session]).await?;
        let has_ended = records.iter().any(|record| is(record, "event", "session-ended"));
        Ok(has_ended.then_some(records))
    })
    .await?;
    let events: Vec<&str> = records
        .iter()
        .filter_map(|record| record["event"].as_str())
        .collect();
    ensure!(
        events == ["call", "session-joined", "session-ended"],
        "{records:?}"
    );
    ensure!(
        records[0]["parameters"]["Reason"] == "ticket 4711",
        "{}",
        records[0]
    );
    ensure!(
        records[1]["by"]["name"] == "admin" && records[1]["peer"] == "127.0.0.1",
        "{}",
        records[1]
    );
    let end = &records[2];
    ensure!(
        end["details"]["exit_code"] == 3 && end["nodes"] == json!([site.node.id()]),
        "{end}"
    );
    ensure!(is(end, "result", "Terminated"), "{end}");
    // the channel's token stands in the answer that opened the session
    let log = fs::read_to_string(site.endpoint.state_dir().join("audit/00000001.jsonl"))?;
    ensure!(!log.contains("TokenValue"), "a token is in the log");
    Ok(())
}

#[tokio::test]
async fn an_agent_that_starts_tells_the_endpoint_its_key_once() -> Result<()> {
    let site = Site::start().await?;
    // its channel stands and its first health ping is answered, which both want the key to be known
    site.check_commands_work().await?;
    let told = audit_records(&site.endpoint, &["--operation", "RegisterTranscriptKey"]).await?;
    let events: Vec<&str> = told
        .iter()
        .filter_map(|record| record["event"].as_str())
        .collect();
    ensure!(events == ["accepted", "call"], "{told:?}");
    Ok(())
}

#[tokio::test]
async fn what_is_refused_is_recorded_and_a_flood_of_it_counted() -> Result<()> {
    let site = Site::start().await?;
    let stranger = site.api().with_credentials(Credentials {
        access_key_id: "AKIASTRANGER".to_owned(),
        secret_access_key: "guessed".to_owned(),
        session_token: None,
    });
    for _ in 0..30 {
        stranger.refusal("ListCommands", json!({})).await?;
    }
    let body = "POST /v1/control-channel/mi-00000000000000000 HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    let refused = raw_request(&site.endpoint, body.as_bytes()).await?;
    ensure!(refused.status == 403, "{}", refused.text);
    let refusals = ["--operator", "anonymous", "--result", "error"];
    let records = audit_records(&site.endpoint, &refusals).await?;
    let [call, channel] = records.as_slice() else {
        anyhow::bail!("not two records: {records:?}");
    };
    ensure!(call["by"]["access_key"] == "AKIASTRANGER", "{call}");
    ensure!(is(call, "result", "UnrecognizedClientException"), "{call}");
    ensure!(is(channel, "event", "channel-refused"), "{channel}");
    ensure!(
        is(channel, "operation", "/v1/control-channel/mi-00000000000000000"),
        "{channel}"
    );
    Ok(())
}

#[tokio::test]
async fn secrets_that_the_endpoint_gives_or_takes_are_not_in_the_log() -> Result<()> {
    let site = Site::start().await?;
    let made = site
        .api()
        .call("CreateActivation", json!({"IamRole": "r"}))
        .await?;
    let code = made["ActivationCode"].as_str().context("no activation code")?;
    // the node's own registration, with its code, and its credentials are in there as well
    let registered = audit_records(&site.endpoint, &["--operation", "RegisterManagedInstance"]).await?;
    let [registered] = registered.as_slice() else {
        anyhow::bail!("not one record: {registered:?}");
    };
    ensure!(
        registered["parameters"]["ActivationCode"] == "***",
        "{registered}"
    );
    ensure!(registered["nodes"] == json!([site.node.id()]), "{registered}");
    let dir = site.endpoint.state_dir().join("audit");
    let path = dir.join("00000001.jsonl");
    let log = fs::read_to_string(&path)?;
    ensure!(
        log.contains(made["ActivationId"].as_str().context("no id")?),
        "{log}"
    );
    for secret in [code, &site.api().credentials().secret_access_key] {
        ensure!(!log.contains(secret), "a secret is in the log");
    }
    let mode = |path| anyhow::Ok(fs::metadata(path)?.permissions().mode() & 0o777);
    ensure!(
        mode(&path)? == 0o600 && mode(&dir)? == 0o700,
        "others can read the log"
    );
    Ok(())
}

/// The chain of the endpoint and its keys, exported.
async fn export(endpoint: &Endpoint) -> Result<(String, String)> {
    let chain = endpoint.home().join("audit.chain").display().to_string();
    let keys = audit_keys(endpoint).await?.display().to_string();
    let exported = Cli::of(endpoint)
        .run(&["audit", "export", "--format", "chain", "--out", &chain])
        .await?;
    exported.success()?;
    Ok((chain, keys))
}

#[tokio::test]
async fn an_export_verifies_without_the_endpoint_and_any_change_of_it_is_named() -> Result<()> {
    let mut site = Site::start().await?;
    site.check_commands_work().await?;
    let (chain, keys) = export(&site.endpoint).await?;
    let cli = site.cli().with("AWS_ENDPOINT_URL", "https://127.0.0.1:1");
    site.endpoint.kill().await?;
    let verified = cli.run(&["audit", "verify", &chain, "--keys", &keys]).await?;
    ensure!(
        verified.code == 0 && verified.stdout.contains(": intact: "),
        "{verified:?}"
    );

    let log = fs::read_to_string(&chain)?;
    let altered = log.replacen("echo still-here", "echo stilt-here", 1);
    ensure!(altered != log, "the command is not in the log");
    let line = 1 + log
        .lines()
        .position(|line| line.contains("echo still-here"))
        .context("no line")?;
    fs::write(&chain, altered)?;
    let verified = cli.run(&["audit", "verify", &chain, "--keys", &keys]).await?;
    let place = format!("line {}: ", line + 1);
    ensure!(
        verified.code == 1 && verified.stdout.contains(&place),
        "{verified:?}"
    );

    // up to the command: any other line may be a checkpoint, which is made when nothing has come for a while
    let half: String = log.lines().take(line).map(|line| format!("{line}\n")).collect();
    fs::write(&chain, half)?;
    let verified = cli
        .run(&["audit", "verify", &chain, "--keys", &keys, "--json"])
        .await?;
    ensure!(verified.code == 1, "{verified:?}");
    ensure!(
        verified.json()?["Findings"]
            .to_string()
            .contains("does not end with a checkpoint"),
        "{verified:?}"
    );

    for (file, keys) in [
        (&keys, &keys),
        (&chain, &chain),
        (&"/nonexistent".to_owned(), &keys),
    ] {
        let verified = cli.run(&["audit", "verify", file, "--keys", keys]).await?;
        ensure!(
            verified.code == 2 && verified.stdout.contains("unreadable"),
            "{verified:?}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn an_endpoint_that_is_stopped_signs_its_log_to_the_end() -> Result<()> {
    let mut endpoint = Endpoint::start().await?;
    let keys = audit_keys(&endpoint).await?.display().to_string();
    endpoint
        .api()
        .call("CreateActivation", json!({"IamRole": "r"}))
        .await?;
    endpoint.stop().await?;
    let path = endpoint.state_dir().join("audit/00000001.jsonl");
    let log = fs::read_to_string(&path)?;
    let [.., stopped, checkpoint] = log.lines().collect::<Vec<_>>()[..] else {
        anyhow::bail!("{log}");
    };
    ensure!(
        stopped.contains("\"event\":\"log-stopped\"") && checkpoint.contains("\"checkpoint\""),
        "{log}"
    );
    let words = ["audit", "verify", &path.display().to_string(), "--keys", &keys];
    let verified = Cli::of(&endpoint).run(&words).await?;
    ensure!(verified.code == 0, "{verified:?}");
    Ok(())
}

#[tokio::test]
async fn exports_for_other_programs_hold_the_same_calls() -> Result<()> {
    let site = Site::start().await?;
    site.check_commands_work().await?;
    site.api()
        .refusal("StartSession", json!({"Target": "mi-00000000000000000"}))
        .await?;
    let cli = site.cli();
    let out = site.endpoint.home().join("export");
    let path = out.display().to_string();
    let export = async |format: &str| -> Result<String> {
        let words = [
            "audit",
            "export",
            "--format",
            format,
            "--out",
            &path,
            "--operator",
            "admin",
        ];
        cli.run(&words).await?.success()?;
        Ok(fs::read_to_string(&out)?)
    };
    let lines = export("jsonl").await?;
    let calls = lines
        .lines()
        .map(serde_json::from_str)
        .collect::<Result<Vec<Value>, _>>()?;
    let sent = calls
        .iter()
        .find(|call| is(call, "operation", "ssm:SendCommand") && is(call, "event", "call"));
    let sent = sent.context("the command is not there")?;

    let trail: Value = serde_json::from_str(&export("cloudtrail").await?)?;
    let records = trail["Records"].as_array().context("no records")?;
    let of = |name: &str| {
        let named: Vec<&Value> = records
            .iter()
            .filter(|record| is(record, "eventName", name))
            .collect();
        named
    };
    let [record] = of("SendCommand")
        .try_into()
        .map_err(|_| anyhow::anyhow!("not one SendCommand: {trail}"))?;
    let [refused] = of("StartSession")
        .try_into()
        .map_err(|_| anyhow::anyhow!("not one StartSession: {trail}"))?;
    for (member, expected) in [
        ("eventSource", json!("ssm.amazonaws.com")),
        ("eventType", json!("AwsApiCall")),
        ("eventCategory", json!("Management")),
        ("sourceIPAddress", json!("127.0.0.1")),
        ("readOnly", json!(false)),
        ("requestID", sent["request_id"].clone()),
        ("awsRegion", json!("us-east-1")),
    ] {
        ensure!(record[member] == expected, "{member}: {record}");
    }
    ensure!(record["userIdentity"]["userName"] == "admin", "{record}");
    ensure!(
        record["requestParameters"]["parameters"]["commands"] == json!(["echo still-here"]),
        "{record}"
    );
    ensure!(
        record["responseElements"]["command"]["commandId"] == sent["command"],
        "{record}"
    );
    ensure!(record.get("errorCode").is_none(), "{record}");
    ensure!(is(refused, "errorCode", "TargetNotConnected"), "{refused}");
    let chain = cli
        .run(&[
            "audit",
            "export",
            "--format",
            "chain",
            "--out",
            &path,
            "--node",
            "mi-00000000000000000",
        ])
        .await?;
    ensure!(
        chain.code == 64 && chain.stderr.contains("leave the filters out"),
        "{chain:?}"
    );
    Ok(())
}

#[tokio::test]
async fn the_log_is_followed_while_it_grows() -> Result<()> {
    let site = Site::start().await?;
    let mut terminal = site
        .cli()
        .at_terminal(&["audit", "--follow", "--operation", "TagOperator"])?;
    site.cli()
        .run(&["operator", "tag", "admin", "a=first"])
        .await?
        .success()?;
    terminal.expect("first").await?;
    site.cli()
        .run(&["operator", "tag", "admin", "a=second"])
        .await?
        .success()?;
    terminal.expect("second").await?;
    Ok(())
}
