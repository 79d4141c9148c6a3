//! The stock agent as a node of our endpoint: by its captured half of the conversation, and, where the programs are
//! at hand, by itself.

use anyhow::{Context, Result, ensure};
use moorline_protocol::message::{
    AgentJob, AgentMessage, CancelCommandContent, InteractiveShell, MessageType, PayloadType,
    StartSessionContent,
};
use moorline_tests::{CapturedRun, Cli, Endpoint, StockAgent, finished, send_script, wait_until};
use serde_json::{Value, json};
use uuid::Uuid;

pub(crate) const REGISTER: &str = "AmazonSSM.RegisterManagedInstance";
pub(crate) const ROLE_TOKEN: &str = "AmazonSSM.RequestManagedInstanceRoleToken";
/// The job of run a whose messages are replayed: `echo hello; echo err >&2; id -u`.
const CAPTURED_JOB: &str = "3111a4e3-6ec3-40e8-91f5-edf409c6a1ae";
const CAPTURED_NODE: &str = "mi-0123456789abcdef0";

/// A POST for a channel token, as captured.
pub(crate) fn channel_post<'a>(
    run: &'a CapturedRun,
    kind: &str,
) -> Result<&'a moorline_tests::CapturedRequest> {
    let wanted = format!("/v1/{kind}-channel/");
    let mut requests = run.requests.iter();
    requests
        .find(|request| request.method == "POST" && request.uri.starts_with(&wanted))
        .with_context(|| format!("no captured POST to {wanted}"))
}

/// A captured message with texts of its payload replaced and an id of its own.
fn adapted(message: &AgentMessage, replaced: &[(&str, &str)]) -> Result<AgentMessage> {
    let mut payload = String::from_utf8(message.payload.to_vec())?;
    for (old, new) in replaced {
        payload = payload.replace(old, new);
    }
    let mut adapted = message.clone();
    adapted.payload = payload.into();
    adapted.message_id = Uuid::new_v4();
    Ok(adapted)
}

/// The captured messages of one type that belong to one job.
fn of_job<'a>(run: &'a CapturedRun, message_type: &'a MessageType, job: &'a str) -> Vec<&'a AgentMessage> {
    run.messages(CAPTURED_NODE)
        .filter(|message| {
            message.message_type == *message_type && String::from_utf8_lossy(&message.payload).contains(job)
        })
        .collect()
}

#[tokio::test]
async fn a_stock_agents_requests_are_served_in_the_order_of_its_start() -> Result<()> {
    let endpoint = Endpoint::start().await?;
    let run = CapturedRun::read("agent-run-a.jsonl")?;
    let mut agent = StockAgent::register(&endpoint, run.operation(REGISTER)?).await?;
    ensure!(
        agent.instance_id.starts_with("mi-") && agent.instance_id.len() >= 10,
        "{}",
        agent.instance_id
    );
    let token = agent.fetch_role_token(run.operation(ROLE_TOKEN)?).await?;
    // a missing one crashes the stock agent
    for member in [
        "AccessKeyId",
        "SecretAccessKey",
        "SessionToken",
        "TokenExpirationDate",
        "UpdateKeyPair",
    ] {
        ensure!(!token[member].is_null(), "the role token lacks {member}");
    }
    for request in &run.requests {
        let served = [
            "UpdateInstanceInformation",
            "ListInstanceAssociations",
            "PutInventory",
            "PutComplianceItems",
            "UpdateInstanceAssociationStatus",
        ];
        let Some(operation) = request
            .header("x-amz-target")
            .and_then(|target| target.strip_prefix("AmazonSSM."))
        else {
            continue;
        };
        if served.contains(&operation) {
            let answer = agent.replay(request).await?;
            // status of associations that this endpoint never gave out may be refused, in the service's form
            let known = operation != "UpdateInstanceAssociationStatus";
            ensure!(
                answer.status == 200 || (!known && answer.status == 400),
                "{operation}: {}",
                answer.text
            );
        }
    }
    let listed = endpoint
        .api()
        .call("DescribeInstanceInformation", json!({}))
        .await?;
    let node = &listed["InstanceInformationList"][0];
    ensure!(node["InstanceId"] == agent.instance_id.as_str(), "{listed}");
    ensure!(
        node["PlatformName"] == "Debian GNU/Linux" && node["PingStatus"] == "Online",
        "{listed}"
    );
    ensure!(node["AgentVersion"] == "3.3.0.0", "{listed}");
    Ok(())
}

#[tokio::test]
async fn a_stock_agents_empty_poll_is_held_and_answered() -> Result<()> {
    let endpoint = Endpoint::start().await?;
    let run = CapturedRun::read("agent-run-a.jsonl")?;
    let mut agent = StockAgent::register(&endpoint, run.operation(REGISTER)?).await?;
    agent.fetch_role_token(run.operation(ROLE_TOKEN)?).await?;
    let poll = run.operation("EC2WindowsMessageDeliveryService.GetMessages")?;
    let answer = agent.replay(poll).await?;
    ensure!(answer.status == 200, "{}", answer.text);
    let asked: Value = serde_json::from_slice(&poll.body)?;
    let answer = answer.json()?;
    ensure!(
        answer["Messages"] == json!([]) && answer["Destination"] == agent.instance_id.as_str(),
        "{answer}"
    );
    ensure!(
        answer["MessagesRequestId"] == asked["MessagesRequestId"],
        "{answer}"
    );
    Ok(())
}

#[tokio::test]
async fn a_stock_agent_rotates_its_key() -> Result<()> {
    use moorline_tests::NodeIdentity;
    let endpoint = Endpoint::start().await?;
    let run = CapturedRun::read("agent-run-a.jsonl")?;
    let mut agent = StockAgent::register(&endpoint, run.operation(REGISTER)?).await?;
    let mut next = NodeIdentity::generate()?;
    next.fingerprint.clone_from(&agent.identity.fingerprint);
    let body = json!({"NewPublicKey": next.public_key, "NewPublicKeyType": "Rsa"});
    let rotate = run.operation("AmazonSSM.UpdateManagedInstancePublicKey")?;
    let answer = agent
        .send_registration_signed(rotate, body.to_string().into_bytes(), 0)
        .await?;
    ensure!(answer.status == 200, "{}", answer.text);
    agent.identity = next;
    agent.fetch_role_token(run.operation(ROLE_TOKEN)?).await?;
    Ok(())
}

#[tokio::test]
async fn a_stock_agent_runs_a_command_as_captured() -> Result<()> {
    let endpoint = Endpoint::start().await?;
    let run = CapturedRun::read("agent-run-a.jsonl")?;
    let mut agent = StockAgent::register(&endpoint, run.operation(REGISTER)?).await?;
    agent.fetch_role_token(run.operation(ROLE_TOKEN)?).await?;
    agent
        .replay(run.operation("AmazonSSM.UpdateInstanceInformation")?)
        .await?;
    let mut channel = agent.open_control_channel(channel_post(&run, "control")?).await?;
    wait_connected(&endpoint, &agent.instance_id).await?;

    // the captured job's document: its step has the name that the captured replies use
    let content = json!({
        "schemaVersion": "2.2",
        "parameters": {"commands": {"type": "StringList"}},
        "mainSteps": [{
            "action": "aws:runShellScript", "name": "runShellScript", "inputs": {"runCommand": "{{ commands }}"},
        }],
    });
    let document = json!({"Name": "Captured", "DocumentType": "Command", "Content": content.to_string()});
    endpoint.api().call("CreateDocument", document).await?;
    let input = json!({
        "DocumentName": "Captured",
        "InstanceIds": [agent.instance_id],
        "Parameters": {"commands": ["echo hello; echo err >&2; id -u"]},
    });
    let sent = endpoint.api().call("SendCommand", input).await?;
    let command = sent["Command"]["CommandId"].as_str().context("no command")?;
    let frame = channel.receive(&MessageType::AgentJob).await?;
    let job: AgentJob = serde_json::from_slice(&frame.payload)?;
    ensure!(job.topic.starts_with("aws.ssm.sendCommand"), "{}", job.topic);
    ensure!(
        job.job_id == format!("aws.ssm.{command}.{}", agent.instance_id),
        "{}",
        job.job_id
    );
    let content: Value = serde_json::from_str(&job.content)?;
    ensure!(
        content["CloudWatchOutputEnabled"].is_string(),
        "a boolean makes the stock agent refuse the job"
    );
    ensure!(content["DocumentContent"]["mainSteps"].is_array(), "{content}");

    let ack = *of_job(&run, &MessageType::AgentJobAck, CAPTURED_JOB)
        .first()
        .context("no captured ack")?;
    let captured: Value = serde_json::from_slice(&ack.payload)?;
    let captured_id = captured["acknowledgedMessageId"].as_str().context("no id")?;
    let frame_id = frame.message_id.to_string();
    let job_id = job.job_id.as_str();
    channel
        .send(&adapted(
            ack,
            &[(captured_id, &frame_id), (CAPTURED_JOB, job_id)],
        )?)
        .await?;
    // in progress, the step, the end; and once more the end before the step, as the stock agent may send them
    let replies = of_job(&run, &MessageType::AgentJobReply, CAPTURED_JOB);
    ensure!(replies.len() == 3, "{} captured replies", replies.len());
    for index in [0, 2, 1] {
        let reply = adapted(replies[index], &[(CAPTURED_JOB, job_id)])?;
        channel.send(&reply).await?;
        let ack = channel.receive(&MessageType::AgentJobReplyAck).await?;
        let ack: Value = serde_json::from_slice(&ack.payload)?;
        ensure!(
            ack["acknowledgedMessageId"] == reply.message_id.to_string(),
            "{ack}"
        );
    }
    let invocation = finished(endpoint.api(), &agent.instance_id, command).await?;
    ensure!(invocation["Status"] == "Success", "{invocation}");
    ensure!(
        invocation["StandardOutputContent"] == "hello\n0\n",
        "{invocation}"
    );
    ensure!(invocation["StandardErrorContent"] == "err\n", "{invocation}");
    Ok(())
}

#[tokio::test]
async fn a_stock_agents_command_is_cancelled_by_a_job_of_its_own() -> Result<()> {
    let endpoint = Endpoint::start().await?;
    let run = CapturedRun::read("agent-run-a.jsonl")?;
    let mut agent = StockAgent::register(&endpoint, run.operation(REGISTER)?).await?;
    agent.fetch_role_token(run.operation(ROLE_TOKEN)?).await?;
    let mut channel = agent.open_control_channel(channel_post(&run, "control")?).await?;
    wait_connected(&endpoint, &agent.instance_id).await?;
    let command = send_script(endpoint.api(), &agent.instance_id, "sleep 100").await?;
    let acknowledge = async |channel: &mut moorline_tests::StockChannel| -> Result<AgentJob> {
        let frame = channel.receive(&MessageType::AgentJob).await?;
        let job: AgentJob = serde_json::from_slice(&frame.payload)?;
        let ack = json!({
            "jobId": job.job_id, "acknowledgedMessageId": frame.message_id.to_string(),
            "createdDate": "2026-11-22T06:08:44.801Z", "statusCode": "200", "errorMessage": "Successful",
        });
        channel.send_json(MessageType::AgentJobAck, &ack).await?;
        Ok(job)
    };
    let job = acknowledge(&mut channel).await?;
    endpoint
        .api()
        .call("CancelCommand", json!({"CommandId": command}))
        .await?;
    let cancel = acknowledge(&mut channel).await?;
    ensure!(
        cancel.topic.starts_with("aws.ssm.cancelCommand") && cancel.job_id != job.job_id,
        "{cancel:?}"
    );
    let content: CancelCommandContent = serde_json::from_str(&cancel.content)?;
    ensure!(content.cancel_message_id == job.job_id, "{content:?}");
    // the captured end of a cancelled command
    let captured_job = "aws.ssm.6300bcbe-168d-4792-a890-9a864796f657.mi-0123456789abcdef0";
    for reply in of_job(&run, &MessageType::AgentJobReply, captured_job) {
        channel
            .send(&adapted(reply, &[(captured_job, &job.job_id)])?)
            .await?;
    }
    let invocation = finished(endpoint.api(), &agent.instance_id, &command).await?;
    ensure!(
        invocation["Status"] == "Cancelled" && invocation["ResponseCode"] == 137,
        "{invocation}"
    );
    Ok(())
}

#[tokio::test]
async fn a_stock_agent_serves_a_session_of_our_client() -> Result<()> {
    let endpoint = Endpoint::start().await?;
    let run = CapturedRun::read("agent-run-a.jsonl")?;
    let mut agent = StockAgent::register(&endpoint, run.operation(REGISTER)?).await?;
    agent.fetch_role_token(run.operation(ROLE_TOKEN)?).await?;
    agent
        .replay(run.operation("AmazonSSM.UpdateInstanceInformation")?)
        .await?;
    let mut control = agent.open_control_channel(channel_post(&run, "control")?).await?;
    wait_connected(&endpoint, &agent.instance_id).await?;

    let mut terminal = Cli::of(&endpoint).at_terminal(&["shell", &agent.instance_id])?;
    let start = control.receive(&MessageType::InteractiveShell).await?;
    let start: InteractiveShell = serde_json::from_slice(&start.payload)?;
    let content: StartSessionContent = serde_json::from_str(&start.content)?;
    ensure!(
        content.document_content["sessionType"] == "Standard_Stream",
        "{content:?}"
    );
    ensure!(content.document_content["schemaVersion"] == "1.0", "{content:?}");
    let session = content.session_id;

    let mut data = agent
        .open_data_channel(channel_post(&run, "data")?, &session)
        .await?;
    let state = |state: &str| json!({"SchemaVersion": 1, "SessionState": state, "SessionId": session});
    data.send_json(MessageType::AgentSessionState, &state("Connected"))
        .await?;
    // the size comes first, and again until it is acknowledged: the stock agent is not ready at once
    let first = data.receive(&MessageType::InputStreamData).await?;
    ensure!(
        first.payload_type == PayloadType::Size && first.sequence_number == 0,
        "{first:?}"
    );
    let repeated = data.receive(&MessageType::InputStreamData).await?;
    ensure!(repeated.message_id == first.message_id, "{repeated:?}");
    acknowledge_input(&mut data, &first).await?;

    // chunks in the stock form; the second one is lost on the way and repeated after the third
    let output = |sequence_number: i64, text: &str| AgentMessage {
        message_type: MessageType::OutputStreamData,
        schema_version: 1,
        created_date: moorline_tests::epoch(),
        sequence_number,
        flags: u64::from(sequence_number == 0),
        message_id: Uuid::new_v4(),
        payload_type: PayloadType::Output,
        payload: text.to_owned().into(),
    };
    let chunks = ["one ", "two ", "three\r\n"].map(str::to_owned);
    for index in [0, 2, 1] {
        data.send(&output(index, &chunks[usize::try_from(index)?]))
            .await?;
    }
    terminal.expect("one two three").await?;
    for _ in 0..3 {
        data.receive(&MessageType::Acknowledge).await?;
    }
    terminal.send("x")?;
    let mut typed = data.receive(&MessageType::InputStreamData).await?;
    while typed.sequence_number == 0 {
        typed = data.receive(&MessageType::InputStreamData).await?;
    }
    ensure!(
        typed.payload.as_ref() == b"x" && typed.sequence_number == 1,
        "{typed:?}"
    );
    acknowledge_input(&mut data, &typed).await?;

    data.send_json(MessageType::AgentSessionState, &state("Terminating"))
        .await?;
    drop(data);
    let complete = json!({
        "SchemaVersion": 1, "TaskId": session, "Topic": "agent_task_complete", "FinalTaskStatus": "Success",
        "IsRoutingFailure": false, "AwsAccountId": "", "InstanceId": agent.instance_id, "Output": "",
        "S3Bucket": "", "S3UrlSuffix": "", "CwlGroup": "", "CwlStream": "", "RetryNumber": 1,
    });
    let id = control
        .send_json(MessageType::AgentTaskComplete, &complete)
        .await?;
    let acknowledged = control.receive(&MessageType::AgentTaskAcknowledge).await?;
    let acknowledged: Value = serde_json::from_slice(&acknowledged.payload)?;
    ensure!(acknowledged["MessageId"] == id.to_string(), "{acknowledged}");
    // a stock agent tells no exit code
    ensure!(terminal.wait().await? == 0, "{}", terminal.text());
    Ok(())
}

#[tokio::test]
async fn a_job_that_nobody_acknowledges_is_delivered_again() -> Result<()> {
    let endpoint = Endpoint::start().await?;
    let run = CapturedRun::read("agent-run-a.jsonl")?;
    let mut agent = StockAgent::register(&endpoint, run.operation(REGISTER)?).await?;
    agent.fetch_role_token(run.operation(ROLE_TOKEN)?).await?;
    let post = channel_post(&run, "control")?;
    let mut channel = agent.open_control_channel(post).await?;
    wait_connected(&endpoint, &agent.instance_id).await?;
    send_script(endpoint.api(), &agent.instance_id, "true").await?;
    let first = channel.receive(&MessageType::AgentJob).await?;
    // on the same channel, after some seconds, and at once on a new one
    let second = channel.receive(&MessageType::AgentJob).await?;
    drop(channel);
    let mut channel = agent.open_control_channel(post).await?;
    let third = channel.receive(&MessageType::AgentJob).await?;
    let job = |message: &AgentMessage| -> Result<String> {
        let job: AgentJob = serde_json::from_slice(&message.payload)?;
        Ok(job.job_id)
    };
    ensure!(job(&first)? == job(&second)? && job(&first)? == job(&third)?);
    Ok(())
}

pub(crate) async fn wait_connected(endpoint: &Endpoint, node: &str) -> Result<()> {
    wait_until("the scripted agent to be connected", async || {
        let status = endpoint
            .api()
            .call("GetConnectionStatus", json!({"Target": node}))
            .await?;
        Ok(status["Status"] == "connected")
    })
    .await
}

async fn acknowledge_input(data: &mut moorline_tests::StockChannel, message: &AgentMessage) -> Result<()> {
    let payload = json!({
        "AcknowledgedMessageType": "input_stream_data",
        "AcknowledgedMessageId": message.message_id.to_string(),
        "AcknowledgedMessageSequenceNumber": message.sequence_number,
        "IsSequentialMessage": true,
    });
    data.send_json(MessageType::Acknowledge, &payload).await?;
    Ok(())
}
