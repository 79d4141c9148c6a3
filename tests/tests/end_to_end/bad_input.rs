//! What no sound peer sends: refused at the right side with a clear word, and nobody else notices.

use anyhow::{Context, Result, ensure};
use moorline_protocol::{message::MessageType, sigv4::Credentials};
use moorline_tests::{
    CapturedRequest, CapturedRun, Endpoint, Node, PATIENCE, Site, StockAgent, StockChannel, register_agent,
    wait_for, wait_until,
};
use serde_json::json;

const REGISTER: &str = "AmazonSSM.RegisterManagedInstance";
const ROLE_TOKEN: &str = "AmazonSSM.RequestManagedInstanceRoleToken";
/// Beyond what a clock may be off.
const SKEW_MILLIS: i64 = 16 * 60 * 1000;

fn channel_post<'a>(run: &'a CapturedRun, kind: &str) -> Result<&'a CapturedRequest> {
    let wanted = format!("/v1/{kind}-channel/");
    let mut requests = run.requests.iter();
    let found = requests.find(|request| request.method == "POST" && request.uri.starts_with(&wanted));
    found.context("no captured POST")
}

#[tokio::test]
async fn malformed_frames_of_a_node_cost_nobody_their_connection() -> Result<()> {
    let mut site = Site::start().await?;
    let run = CapturedRun::read("agent-run-a.jsonl")?;
    let mut agent = StockAgent::register(&site.endpoint, run.operation(REGISTER)?).await?;
    agent.fetch_role_token(run.operation(ROLE_TOKEN)?).await?;
    let mut channel = agent.open_control_channel(channel_post(&run, "control")?).await?;
    let good = run
        .messages("mi-0123456789abcdef0")
        .next()
        .context("no captured message")?
        .encode();
    let cut = |length: usize| good.get(..length).unwrap_or_default().to_vec();
    let changed = |at: usize, bytes: &[u8]| {
        let mut frame = good.to_vec();
        frame.splice(at..at + bytes.len(), bytes.iter().copied());
        frame
    };
    let malformed = [
        Vec::new(),
        vec![0; 3],
        cut(119),
        cut(130),
        changed(0, &u32::MAX.to_be_bytes()),
        changed(0, &0_u32.to_be_bytes()),
        changed(4, &[0xff; 32]),
        changed(48, &(-1_i64).to_be_bytes()),
        changed(116, &u32::MAX.to_be_bytes()),
    ];
    for frame in malformed {
        channel.send_bytes(frame).await?;
    }
    for payload in [
        json!(null),
        json!({"jobId": 7}),
        json!({"schemaVersion": 1, "jobId": "x", "content": "{", "topic": ""}),
    ] {
        for message_type in [
            MessageType::AgentJobAck,
            MessageType::AgentJobReply,
            MessageType::AgentTaskComplete,
        ] {
            channel.send_json(message_type, &payload).await?;
        }
    }
    channel.send_text("text after the open message").await?;
    // the same channel still takes work
    let node = agent.instance_id.clone();
    wait_connected(&site.endpoint, &node).await?;
    moorline_tests::send_script(site.api(), &node, "true").await?;
    channel.receive(&MessageType::AgentJob).await?;
    site.check_commands_work().await?;
    site.endpoint.check_alive()
}

#[tokio::test]
async fn an_oversize_message_ends_its_own_connection_only() -> Result<()> {
    let mut site = Site::start().await?;
    let run = CapturedRun::read("agent-run-a.jsonl")?;
    let mut agent = StockAgent::register(&site.endpoint, run.operation(REGISTER)?).await?;
    agent.fetch_role_token(run.operation(ROLE_TOKEN)?).await?;
    let post = channel_post(&run, "control")?;
    let mut channel = agent.open_control_channel(post).await?;
    // the endpoint may close while this is still being written
    let _broken_off = channel.send_bytes(vec![b'x'; 3 * 1024 * 1024]).await;
    channel.closed().await?;
    let _channel = agent.open_control_channel(post).await?;
    wait_connected(&site.endpoint, &agent.instance_id).await?;

    let answer = site
        .api()
        .post("AmazonSSM.SendCommand", vec![b'x'; 20 * 1024 * 1024])
        .await;
    if let Ok(answer) = answer {
        ensure!((400..500).contains(&answer.status), "{answer:?}");
    }
    site.check_commands_work().await?;
    site.endpoint.check_alive()
}

#[tokio::test]
async fn malformed_frames_on_a_data_channel_leave_the_session_alone() -> Result<()> {
    let site = Site::start().await?;
    let mut terminal = site.cli().shell(site.node.id()).await?;
    let run = CapturedRun::read("agent-run-a.jsonl")?;
    let mut agent = StockAgent::register(&site.endpoint, run.operation(REGISTER)?).await?;
    agent.fetch_role_token(run.operation(ROLE_TOKEN)?).await?;
    let sessions = site
        .api()
        .call("DescribeSessions", json!({"State": "Active"}))
        .await?;
    let session = sessions["Sessions"][0]["SessionId"]
        .as_str()
        .context("no session")?;
    let path = format!("/v1/data-channel/{session}");
    // another node has no business with this session
    let refused = agent
        .channel_token(channel_post(&run, "data")?, &path, Some(""))
        .await;
    ensure!(refused.is_err(), "another node got a token of the session");
    let query = format!("{path}?role=publish_subscribe");
    ensure!(
        agent.dial(&query).await.is_err(),
        "another node reached the session"
    );
    // and nobody without a token
    for open in [
        "",
        "{}",
        "[]",
        "{\"TokenValue\":\"\"}",
        "{\"TokenValue\":\"guess\",\"MessageSchemaVersion\":\"1.0\"}",
    ] {
        let mut channel = StockChannel::dial_unsigned(site.api(), &query).await?;
        channel.send_text(open).await?;
        ensure!(channel.closed().await?.is_some(), "no close code for {open:?}");
    }
    let mut channel = StockChannel::dial_unsigned(site.api(), &query).await?;
    channel.send_bytes(vec![0xff; 5000]).await?;
    channel.closed().await?;
    terminal.send("echo unharmed-$((1+1))\n")?;
    terminal.expect("unharmed-2").await?;
    Ok(())
}

#[tokio::test]
async fn an_unexpected_client_message_is_dropped_and_the_session_goes_on() -> Result<()> {
    let site = Site::start().await?;
    let started = site
        .api()
        .call("StartSession", json!({"Target": site.node.id()}))
        .await?;
    let text = |name: &str| started[name].as_str().context("StartSession");
    let (_, path) = moorline_transport::Endpoint::parse_stream_url(text("StreamUrl")?)?;
    let mut client = StockChannel::dial_unsigned(site.api(), &path).await?;
    let open = json!({
        "MessageSchemaVersion": "1.0", "RequestId": uuid::Uuid::new_v4().to_string(), "TokenValue": text("TokenValue")?,
        "ClientId": uuid::Uuid::new_v4().to_string(), "ClientVersion": "1.2.0.0",
    });
    client.send_text(&open.to_string()).await?;
    client.send_bytes(vec![0; 10]).await?;
    client.send_json(MessageType::AgentJob, &json!({})).await?;
    client
        .send_json(MessageType::Unknown("no_such_type".to_owned()), &json!({}))
        .await?;
    client
        .send_json(
            MessageType::Acknowledge,
            &json!({"AcknowledgedMessageSequenceNumber": "x"}),
        )
        .await?;
    client.send_text("later text").await?;
    client.receive(&MessageType::OutputStreamData).await?;
    // used once, the token is worth nothing
    let mut second = StockChannel::dial_unsigned(site.api(), &path).await?;
    second.send_text(&open.to_string()).await?;
    second.closed().await?;
    client.receive(&MessageType::OutputStreamData).await?;
    Ok(())
}

#[tokio::test]
async fn signatures_that_are_wrong_or_of_another_time_are_refused_by_name() -> Result<()> {
    let site = Site::start().await?;
    let list = async |api: &moorline_tests::Api| api.refusal("ListCommands", json!({})).await;
    let good = site.api().credentials().clone();
    let wrong = Credentials {
        secret_access_key: "x".repeat(40),
        ..good.clone()
    };
    let refusal = list(&site.api().with_credentials(wrong)).await?;
    ensure!(
        refusal.code == "InvalidSignatureException" && refusal.status == 400,
        "{refusal:?}"
    );
    let unknown = Credentials {
        access_key_id: "AKIAIOSFODNN7EXAMPLE".to_owned(),
        ..good.clone()
    };
    let refusal = list(&site.api().with_credentials(unknown)).await?;
    ensure!(refusal.code == "UnrecognizedClientException", "{refusal:?}");
    for skew in [-SKEW_MILLIS, SKEW_MILLIS] {
        let refusal = list(&site.api().with_skew(skew)).await?;
        ensure!(refusal.code == "InvalidSignatureException", "{refusal:?}");
        ensure!(
            refusal.message.contains("expired") || refusal.message.contains("current"),
            "{refusal:?}"
        );
    }
    // a clock that is a little off is no reason
    site.api()
        .with_skew(SKEW_MILLIS / 2)
        .call("ListCommands", json!({}))
        .await?;
    site.check_commands_work().await
}

#[tokio::test]
async fn a_nodes_own_signature_is_checked_like_any_other() -> Result<()> {
    let endpoint = Endpoint::start().await?;
    let run = CapturedRun::read("agent-run-a.jsonl")?;
    let mut agent = StockAgent::register(&endpoint, run.operation(REGISTER)?).await?;
    let captured = run.operation(ROLE_TOKEN)?;
    let body = json!({"Fingerprint": agent.identity.fingerprint})
        .to_string()
        .into_bytes();
    let late = agent
        .send_registration_signed(captured, body.clone(), SKEW_MILLIS)
        .await?;
    ensure!(
        late.status == 400 && late.text.contains("InvalidSignatureException"),
        "{}",
        late.text
    );
    // another key
    let own = std::mem::replace(&mut agent.identity, moorline_tests::NodeIdentity::generate()?);
    let forged = agent.send_registration_signed(captured, body, 0).await?;
    ensure!(
        forged.status == 400 && forged.text.contains("InvalidSignatureException"),
        "{}",
        forged.text
    );
    agent.identity = own;
    // another machine with the right key
    let body = json!({"Fingerprint": uuid::Uuid::new_v4().to_string()})
        .to_string()
        .into_bytes();
    let moved = agent.send_registration_signed(captured, body, 0).await?;
    ensure!(
        moved.status == 400 && moved.text.contains("MachineFingerprintDoesNotMatch"),
        "{}",
        moved.text
    );
    agent.fetch_role_token(captured).await?;
    // a node's role is for itself alone
    let node = endpoint.api().with_credentials(agent.credentials.clone());
    for (operation, input) in [
        ("ListCommands", json!({})),
        (
            "SendCommand",
            json!({"DocumentName": "AWS-RunShellScript", "InstanceIds": [agent.instance_id]}),
        ),
        ("CreateActivation", json!({"IamRole": "r"})),
    ] {
        let refusal = node.refusal(operation, input).await?;
        ensure!(
            refusal.code == "AccessDeniedException",
            "{operation}: {refusal:?}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn expired_unknown_and_used_up_activations_register_nobody() -> Result<()> {
    let endpoint = Endpoint::start().await?;
    let create = async |input| endpoint.api().call("CreateActivation", input).await;
    let register = async |id: &str, code: &str| -> Result<moorline_tests::Finished> {
        let dir = tempfile::tempdir()?;
        let state_dir = dir.path().join("agent");
        let outcome = register_agent(
            dir.path(),
            &state_dir,
            &endpoint.url(),
            &endpoint.ca(),
            (id, code),
        )
        .await?;
        ensure!(outcome.code != 0 || state_dir.exists(), "{outcome:?}");
        Ok(outcome)
    };
    let expires = moorline_tests::epoch() / 1000 + 6;
    let short = create(json!({"IamRole": "r", "ExpirationDate": expires})).await?;
    let once = create(json!({"IamRole": "r", "RegistrationLimit": 1})).await?;
    let texts = |activation: &serde_json::Value| -> Result<(String, String)> {
        let text = |name: &str| {
            activation[name]
                .as_str()
                .map(str::to_owned)
                .context("CreateActivation")
        };
        Ok((text("ActivationId")?, text("ActivationCode")?))
    };
    let (id, code) = texts(&once)?;
    register(&id, &code).await?.success()?;
    let used_up = register(&id, &code).await?.with_code(1)?;
    ensure!(
        used_up.stderr.contains("RegistrationLimitExceeded") || used_up.stderr.contains("limit"),
        "{used_up:?}"
    );
    let wrong_code = register(&id, "0123456789012345678901234").await?.with_code(1)?;
    ensure!(wrong_code.stderr.contains("InvalidActivation"), "{wrong_code:?}");
    // an unknown id and a wrong code are told alike, so that ids cannot be guessed
    let unknown = register("00000000-0000-4000-8000-000000000000", &code)
        .await?
        .with_code(1)?;
    ensure!(unknown.stderr.contains("InvalidActivation"), "{unknown:?}");
    let (id, code) = texts(&short)?;
    wait_until("the activation to expire", async || {
        Ok(moorline_tests::epoch() / 1000 > expires)
    })
    .await?;
    let expired = register(&id, &code).await?.with_code(1)?;
    ensure!(expired.stderr.contains("ActivationExpired"), "{expired:?}");
    ensure!(!expired.stderr.contains(&code), "the code is in a message");
    ensure!(!endpoint.log().contains(&code), "the code is in the log");
    Ok(())
}

#[tokio::test]
async fn a_second_node_with_a_copied_key_is_refused_and_reported() -> Result<()> {
    let mut site = Site::start().await?;
    let mut copy = Node::copy_of(&site.node)?;
    copy.launch()?;
    wait_for("the copy to be told why it is refused", PATIENCE, async || {
        copy.check_alive()?;
        Ok(copy
            .log()
            .contains("another node is connected with this registration")
            .then_some(()))
    })
    .await?;
    ensure!(
        site.endpoint
            .log()
            .contains("a second machine uses this node's registration"),
        "the endpoint does not log it"
    );
    let metrics = site.endpoint.metrics().await?;
    let counted = metrics
        .lines()
        .any(|line| line.starts_with("moorline_copied_keys_total ") && !line.ends_with(" 0"));
    ensure!(counted, "{metrics}");
    // the first is unharmed, and its work is not done twice
    let count = site.node.dir().join("count");
    let command = site.send(&format!("echo once >> {}", count.display())).await?;
    let invocation = site.finished(&command).await?;
    ensure!(invocation["Status"] == "Success", "{invocation}");
    ensure!(std::fs::read_to_string(&count)? == "once\n");
    let status = copy.agent("status", &["--json"]).await?.json()?;
    ensure!(status["Connected"] == false, "{status}");
    // once the first is gone, the other may be the node: a restored backup is no copy
    site.node.kill_daemon().await?;
    copy.wait_online().await
}

#[tokio::test]
async fn documents_of_an_unknown_schema_and_parameters_against_their_pattern_are_refused() -> Result<()> {
    let site = Site::start().await?;
    let step =
        json!({"action": "aws:runShellScript", "name": "s", "inputs": {"runCommand": ["echo {{ P }}"]}});
    let document = |schema: &str| {
        json!({
            "schemaVersion": schema,
            "parameters": {"P": {"type": "String", "allowedPattern": "^[a-z]{2,4}$"}},
            "mainSteps": [step],
        })
        .to_string()
    };
    let create = |content: String| json!({"Name": "Doc", "DocumentType": "Command", "Content": content});
    let refusal = site
        .api()
        .refusal("CreateDocument", create(document("7.0")))
        .await?;
    ensure!(
        refusal.code == "InvalidDocumentSchemaVersion" && refusal.message.contains("7.0"),
        "{refusal:?}"
    );
    for content in [
        "",
        "{",
        "[]",
        "{}",
        "\u{0}",
        "{\"schemaVersion\":\"2.2\",\"mainSteps\":[]}",
    ] {
        let refusal = site
            .api()
            .refusal("CreateDocument", create(content.to_owned()))
            .await?;
        ensure!(
            matches!(
                refusal.code.as_str(),
                "InvalidDocumentContent" | "InvalidDocumentSchemaVersion" | "ValidationException"
            ),
            "{content:?}: {refusal:?}"
        );
    }
    site.api().call("CreateDocument", create(document("2.2"))).await?;
    let send = |value: &str| json!({"DocumentName": "Doc", "InstanceIds": [site.node.id()], "Parameters": {"P": [value]}});
    for bad in ["x", "toolong", "AB", "ab\n", "ab; reboot", ""] {
        let refusal = site.api().refusal("SendCommand", send(bad)).await?;
        ensure!(
            refusal.code == "InvalidParameters" && refusal.message.contains('P'),
            "{bad:?}: {refusal:?}"
        );
    }
    let sent = site.api().call("SendCommand", send("abc")).await?;
    let command = sent["Command"]["CommandId"].as_str().context("no command")?;
    let invocation = site.finished(command).await?;
    ensure!(invocation["StandardOutputContent"] == "abc\n", "{invocation}");
    Ok(())
}

#[tokio::test]
async fn a_request_that_is_not_json_or_not_an_operation_is_answered_in_the_services_form() -> Result<()> {
    let endpoint = Endpoint::start().await?;
    let refusal = async |target: &str, body: &str| -> Result<moorline_transport::ServiceError> {
        let answer = endpoint.api().post(target, body.as_bytes().to_vec()).await?;
        Ok(moorline_transport::ServiceError::read(&answer))
    };
    let unknown = refusal("AmazonSSM.NoSuchOperation", "{}").await?;
    ensure!(
        unknown.code == "UnknownOperationException" && unknown.status == 400,
        "{unknown:?}"
    );
    let unknown = refusal("Nonsense", "{}").await?;
    ensure!(unknown.code == "UnknownOperationException", "{unknown:?}");
    let malformed = refusal("AmazonSSM.SendCommand", "{\"DocumentName\":").await?;
    ensure!(malformed.code == "SerializationException", "{malformed:?}");
    let wrong_type = refusal("AmazonSSM.SendCommand", "{\"DocumentName\":[1]}").await?;
    ensure!(wrong_type.code == "SerializationException", "{wrong_type:?}");
    let invalid = refusal("AmazonSSM.SendCommand", "{\"InstanceIds\":[\"nonsense\"]}").await?;
    ensure!(
        invalid.code == "ValidationException" && invalid.message.contains("documentName"),
        "{invalid:?}"
    );
    ensure!(invalid.message.contains("instanceIds"), "{invalid:?}");
    Ok(())
}

async fn wait_connected(endpoint: &Endpoint, node: &str) -> Result<()> {
    wait_until("the scripted agent to be connected", async || {
        let status = endpoint
            .api()
            .call("GetConnectionStatus", json!({"Target": node}))
            .await?;
        Ok(status["Status"] == "connected")
    })
    .await
}
