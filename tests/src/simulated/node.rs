//! One simulated node: registers, opens its control channel, and answers every job as our agent answers `true`.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use moorline_protocol::{
    message::{
        AdditionalInfo, AgentInfo, AgentJob, AgentJobAck, AgentJobReply, AgentMessage, MessageType,
        OpenControlChannel, ReplyContent, ResultStatus, StepReply, TOPIC_SEND_COMMAND,
    },
    sigv4::{Credentials, SignableRequest, sign_registration},
    time::Now,
};
use moorline_ssm::{
    Operation,
    node::{
        RegisterManagedInstance, RegisterManagedInstanceRequest, RequestManagedInstanceRoleToken,
        RequestManagedInstanceRoleTokenRequest,
    },
};
use moorline_transport::{ApiClient, WebSocket, open_websocket};
use serde::Serialize;
use tokio_tungstenite::tungstenite::Message;
use uuid::Uuid;

use super::keys::NodeKey;

/// The step of AWS-RunShellScript.
const STEP: &str = "aws:runShellScript";
const TIME: &str = "2026-11-22T06:08:52.893Z";

#[derive(Debug, Clone)]
pub(super) struct Activation {
    pub(super) id: String,
    pub(super) code: String,
}

/// A node whose control channel stands.
pub(super) struct SimulatedNode {
    socket: WebSocket,
}

impl SimulatedNode {
    pub(super) async fn open(client: &ApiClient, activation: &Activation, key: NodeKey) -> Result<Self> {
        let fingerprint = Uuid::new_v4().to_string();
        let input = RegisterManagedInstanceRequest {
            activation_code: Some(activation.code.clone()),
            activation_id: Some(activation.id.clone()),
            fingerprint: Some(fingerprint.clone()),
            public_key: Some(key.public.clone()),
            public_key_type: Some("Rsa".into()),
            ..Default::default()
        };
        let registered = client.call::<RegisterManagedInstance>(None, &input).await?;
        let id = registered.instance_id.context("no node id")?;
        let credentials = role_credentials(client, &id, &key, fingerprint).await?;
        let path = format!("/v1/control-channel/{id}");
        let token_value = channel_token(client, &credentials, &path).await?;
        let signed = Some((&credentials, client.region()));
        let query = format!("{path}?role=subscribe&stream=input");
        let http = client.http();
        let mut socket = open_websocket(http.endpoint(), http.trust(), &query, signed).await?;
        let open = OpenControlChannel {
            cookie: None,
            message_schema_version: "1.0".to_owned(),
            request_id: Uuid::new_v4().to_string(),
            token_value,
            agent_version: "3.3.0.0".to_owned(),
            platform_type: "linux".to_owned(),
            moorline_process_id: Some(Uuid::new_v4().to_string()),
            moorline_answers_policy: None,
        };
        let open = serde_json::to_string(&open)?;
        socket.send(Message::Text(open.into())).await?;
        Ok(Self { socket })
    }

    /// Answers jobs until the channel ends.
    pub(super) async fn run(mut self) -> Result<()> {
        loop {
            match self.socket.next().await {
                Some(Ok(Message::Binary(frame))) => {
                    let message = AgentMessage::decode(&frame)?;
                    if message.message_type == MessageType::AgentJob {
                        self.answer(&message).await?;
                    }
                }
                Some(Ok(Message::Close(close))) => bail!("closed: {close:?}"),
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(error.into()),
                None => bail!("the endpoint is gone"),
            }
        }
    }

    async fn answer(&mut self, message: &AgentMessage) -> Result<()> {
        let job: AgentJob = serde_json::from_slice(&message.payload)?;
        let ack = AgentJobAck {
            job_id: job.job_id.clone(),
            acknowledged_message_id: message.message_id.to_string(),
            created_date: TIME.to_owned(),
            status_code: "200".to_owned(),
            error_message: "Successful".to_owned(),
        };
        self.send(MessageType::AgentJobAck, &ack).await?;
        for (status, has_step) in [
            (ResultStatus::InProgress, false),
            (ResultStatus::InProgress, true),
            (ResultStatus::Success, true),
        ] {
            let reply = AgentJobReply {
                schema_version: 1,
                job_id: job.job_id.clone(),
                content: serde_json::to_string(&content(status, has_step)?)?,
                topic: TOPIC_SEND_COMMAND.to_owned(),
            };
            self.send(MessageType::AgentJobReply, &reply).await?;
        }
        Ok(())
    }

    async fn send(&mut self, message_type: MessageType, payload: &impl Serialize) -> Result<()> {
        let now = Now {
            monotonic: Duration::ZERO,
            unix_millis: crate::epoch(),
        };
        let payload = Bytes::from(serde_json::to_vec(payload)?);
        let message = AgentMessage::control(message_type, Uuid::new_v4(), now, 0, payload);
        Ok(self.socket.send(Message::Binary(message.encode())).await?)
    }
}

fn content(status: ResultStatus, has_step: bool) -> Result<ReplyContent> {
    let step = StepReply {
        status: ResultStatus::Success,
        code: 0,
        name: STEP.to_owned(),
        output: String::new(),
        start_date_time: TIME.to_owned(),
        end_date_time: TIME.to_owned(),
        output_s3_bucket_name: String::new(),
        output_s3_key_prefix: String::new(),
        step_name: String::new(),
        standard_output: String::new(),
        standard_error: String::new(),
    };
    let step = serde_json::to_value(step)?;
    Ok(ReplyContent {
        additional_info: AdditionalInfo {
            agent: AgentInfo {
                lang: "en-US".to_owned(),
                name: "amazon-ssm-agent".to_owned(),
                os: "linux".to_owned(),
                osver: "1".to_owned(),
                ver: "3.3.0.0".to_owned(),
            },
            date_time: TIME.to_owned(),
            run_id: String::new(),
            runtime_status_counts: has_step.then(|| BTreeMap::from([("Success".to_owned(), 1)])),
        },
        document_status: status,
        document_trace_output: String::new(),
        runtime_status: has_step.then(|| [(STEP.to_owned(), step)].into_iter().collect()),
        moorline_refused: None,
    })
}

async fn role_credentials(
    client: &ApiClient,
    id: &str,
    key: &NodeKey,
    fingerprint: String,
) -> Result<Credentials> {
    let input = RequestManagedInstanceRoleTokenRequest {
        fingerprint: Some(fingerprint),
    };
    let body = Bytes::from(RequestManagedInstanceRoleToken::encode_input(&input));
    let authority = client.http().endpoint().authority();
    let target = format!("AmazonSSM.{}", RequestManagedInstanceRoleToken::NAME);
    let sign = |now| {
        let headers = [
            ("host", authority.as_str()),
            ("content-type", "application/x-amz-json-1.1"),
            ("x-amz-target", target.as_str()),
        ];
        let request = SignableRequest {
            method: "POST",
            uri: "/",
            headers: &headers,
            body: &body,
        };
        let signed = sign_registration(&request, id, client.region(), now, |text| key.sign_pss(text))?;
        let mut all: Vec<(String, String)> = headers
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        all.extend(signed);
        anyhow::Ok(all)
    };
    let given = client
        .post::<RequestManagedInstanceRoleToken, _>(&body, sign)
        .await?;
    Ok(Credentials {
        access_key_id: given.access_key_id.context("no access key")?,
        secret_access_key: given.secret_access_key.context("no secret")?,
        session_token: given.session_token,
    })
}

/// On the connection that the client keeps: a handshake each would be most of the preparation.
async fn channel_token(client: &ApiClient, credentials: &Credentials, path: &str) -> Result<String> {
    let body = serde_json::json!({"MessageSchemaVersion": "1.0", "RequestId": Uuid::new_v4().to_string()});
    let answer = client
        .http()
        .signed_post(
            credentials,
            client.region(),
            path,
            "application/json",
            Bytes::from(body.to_string()),
        )
        .await?;
    let text = String::from_utf8_lossy(&answer.body);
    let token = text
        .split_once("<TokenValue>")
        .and_then(|(_, rest)| rest.split_once("</TokenValue>"));
    let (token, _) = token.with_context(|| format!("no channel token: {text}"))?;
    Ok(token.to_owned())
}
