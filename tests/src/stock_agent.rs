//! The other agent of this protocol, by script: a node that holds its own key and says what the stock agent was seen
//! to say, header by header and frame by frame. Tests of bad input use the same node to say what no agent would.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use moorline_protocol::{
    message::{AgentMessage, MessageType, OpenControlChannel, OpenDataChannel},
    sigv4::{Credentials, SignableRequest, SigningScope, sign, sign_registration},
    time::Now,
};
use moorline_transport::{WebSocket, open_websocket};
use ring::{
    rand::SystemRandom,
    signature::{RSA_PSS_SHA256, RsaKeyPair},
};
use rsa::{
    RsaPrivateKey, RsaPublicKey,
    pkcs8::{EncodePrivateKey, EncodePublicKey},
};
use serde_json::{Value, json};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use uuid::Uuid;

use crate::{
    Api, CapturedRequest, Endpoint, RawResponse, raw_request,
    wait::{PATIENCE, epoch},
};

/// What the captured runs call their node.
const CAPTURED_NODE: &str = "mi-0123456789abcdef0";
/// The scope's region in the captured runs; the endpoint takes any.
const REGION: &str = "us-east-1";

/// A node's key, in place of a registered machine.
#[derive(Debug)]
pub struct NodeIdentity {
    key: RsaKeyPair,
    /// Base64 of DER SubjectPublicKeyInfo.
    pub public_key: String,
    pub fingerprint: String,
}

impl NodeIdentity {
    /// Makes a new key.
    ///
    /// # Errors
    /// The key cannot be made.
    pub fn generate() -> Result<Self> {
        let private = RsaPrivateKey::new(&mut rsa::rand_core::OsRng, 2048)?;
        let private_der = private.to_pkcs8_der()?;
        let public_der = RsaPublicKey::from(&private).to_public_key_der()?;
        Ok(Self {
            key: RsaKeyPair::from_pkcs8(private_der.as_bytes())?,
            public_key: STANDARD.encode(public_der.as_bytes()),
            fingerprint: Uuid::new_v4().to_string(),
        })
    }

    fn sign_pss(&self, text: &[u8]) -> Result<Vec<u8>> {
        let mut signature = vec![0; self.key.public().modulus_len()];
        self.key
            .sign(&RSA_PSS_SHA256, &SystemRandom::new(), text, &mut signature)?;
        Ok(signature)
    }
}

/// A registered node without an agent.
#[derive(Debug)]
pub struct StockAgent<'a> {
    endpoint: &'a Endpoint,
    pub identity: NodeIdentity,
    pub instance_id: String,
    /// Empty until the role token is fetched.
    pub credentials: Credentials,
}

impl<'a> StockAgent<'a> {
    /// Registers with an activation of its own, as the captured run did.
    ///
    /// # Errors
    /// The endpoint refuses.
    pub async fn register(endpoint: &'a Endpoint, captured: &CapturedRequest) -> Result<Self> {
        let input = json!({"IamRole": "moorline-node", "RegistrationLimit": 1});
        let activation = endpoint.api().call("CreateActivation", input).await?;
        let identity = NodeIdentity::generate()?;
        let mut body: Value = serde_json::from_slice(&captured.body)?;
        body["ActivationCode"] = activation["ActivationCode"].clone();
        body["ActivationId"] = activation["ActivationId"].clone();
        body["Fingerprint"] = identity.fingerprint.as_str().into();
        body["PublicKey"] = identity.public_key.as_str().into();
        let mut agent = Self {
            endpoint,
            identity,
            instance_id: String::new(),
            credentials: Credentials {
                access_key_id: String::new(),
                secret_access_key: String::new(),
                session_token: None,
            },
        };
        let answer = agent
            .send(captured, "/", body.to_string().into_bytes(), Vec::new())
            .await?;
        ensure!(
            answer.status == 200,
            "the registration was refused: {}",
            answer.text
        );
        agent.instance_id = text_of(&answer.json()?, "InstanceId")?;
        Ok(agent)
    }

    /// `RequestManagedInstanceRoleToken`, signed with the node's key and sent in chunks; keeps the credentials and
    /// returns the whole answer.
    ///
    /// # Errors
    /// The endpoint refuses.
    pub async fn fetch_role_token(&mut self, captured: &CapturedRequest) -> Result<Value> {
        let body = json!({"Fingerprint": self.identity.fingerprint}).to_string();
        let answer = self
            .send_registration_signed(captured, body.into_bytes(), 0)
            .await?;
        ensure!(
            answer.status == 200,
            "the role token was refused: {}",
            answer.text
        );
        let answer = answer.json()?;
        self.credentials = Credentials {
            access_key_id: text_of(&answer, "AccessKeyId")?,
            secret_access_key: text_of(&answer, "SecretAccessKey")?,
            session_token: Some(text_of(&answer, "SessionToken")?),
        };
        Ok(answer)
    }

    /// A call signed with the node's RSA key, with a clock that is off by `skew_millis`.
    ///
    /// # Errors
    /// No answer came.
    pub async fn send_registration_signed(
        &self,
        captured: &CapturedRequest,
        body: Vec<u8>,
        skew_millis: i64,
    ) -> Result<RawResponse> {
        let host = self.endpoint.address().to_string();
        let headers = signable(captured, &host, body.len());
        let borrowed = borrow(&headers);
        let request = SignableRequest {
            method: "POST",
            uri: "/",
            headers: &borrowed,
            body: &body,
        };
        let now = epoch().saturating_add_signed(skew_millis);
        let signed = sign_registration(&request, &self.instance_id, REGION, now, |text| {
            self.identity.sign_pss(text)
        })?;
        self.send(captured, "/", body, signed).await
    }

    /// A captured call, made by this node: its id and its role's signature in place of the captured ones.
    ///
    /// # Errors
    /// No answer came.
    pub async fn replay(&self, captured: &CapturedRequest) -> Result<RawResponse> {
        let body = String::from_utf8(captured.body.clone())?.replace(CAPTURED_NODE, &self.instance_id);
        let uri = captured.uri.replace(CAPTURED_NODE, &self.instance_id);
        self.replay_with(captured, &uri, body.into_bytes()).await
    }

    /// A captured call with another path and body.
    ///
    /// # Errors
    /// No answer came.
    pub async fn replay_with(
        &self,
        captured: &CapturedRequest,
        uri: &str,
        body: Vec<u8>,
    ) -> Result<RawResponse> {
        let host = self.endpoint.address().to_string();
        let headers = signable(captured, &host, body.len());
        let borrowed = borrow(&headers);
        let request = SignableRequest {
            method: &captured.method,
            uri,
            headers: &borrowed,
            body: &body,
        };
        let scope = SigningScope {
            region: REGION,
            service: service_of(captured),
            unix_millis: epoch(),
        };
        let signed = sign(&request, &scope, &self.credentials);
        self.send(captured, uri, body, signed).await
    }

    /// Writes a request with the captured headers in their order, where `replaced` has no other value for one.
    async fn send(
        &self,
        captured: &CapturedRequest,
        uri: &str,
        body: Vec<u8>,
        replaced: Vec<(String, String)>,
    ) -> Result<RawResponse> {
        let host = self.endpoint.address().to_string();
        let mut text = format!("{} {uri} HTTP/1.1\r\n", captured.method);
        let mut chunked = false;
        for (name, captured_value) in &captured.headers {
            let new = replaced
                .iter()
                .find(|(other, _)| other.eq_ignore_ascii_case(name));
            let value = match (name.to_ascii_lowercase().as_str(), new) {
                ("host", _) => host.clone(),
                ("content-length", _) => body.len().to_string(),
                (_, Some((_, value))) => value.clone(),
                _ => captured_value.clone(),
            };
            chunked |= name.eq_ignore_ascii_case("transfer-encoding");
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        text.push_str("Connection: close\r\n\r\n");
        let mut request = text.into_bytes();
        if chunked {
            // two chunks, so that they must be put together
            let (first, second) = body.split_at(body.len() / 2);
            for chunk in [first, second, &[]] {
                request.extend(format!("{:x}\r\n", chunk.len()).bytes());
                request.extend(chunk);
                request.extend(b"\r\n");
            }
        } else {
            request.extend(body);
        }
        raw_request(self.endpoint, &request).await
    }

    /// Opens the control channel: token by the captured POST, websocket, open message in the captured form.
    ///
    /// # Errors
    /// The endpoint refuses.
    pub async fn open_control_channel(&self, captured_post: &CapturedRequest) -> Result<StockChannel> {
        self.open_control_channel_saying(captured_post, None).await
    }

    /// As [`Self::open_control_channel`], of an agent that says whether it answers questions about its owner's policy.
    ///
    /// # Errors
    /// The endpoint refuses.
    pub async fn open_control_channel_saying(
        &self,
        captured_post: &CapturedRequest,
        answers_policy: Option<bool>,
    ) -> Result<StockChannel> {
        let path = format!("/v1/control-channel/{}", self.instance_id);
        let token_value = self.channel_token(captured_post, &path, None).await?;
        let open = OpenControlChannel {
            cookie: None,
            message_schema_version: "1.0".to_owned(),
            request_id: Uuid::new_v4().to_string(),
            token_value,
            agent_version: "3.3.0.0".to_owned(),
            platform_type: "linux".to_owned(),
            moorline_process_id: None,
            moorline_answers_policy: answers_policy,
        };
        let mut channel = self.dial(&format!("{path}?role=subscribe&stream=input")).await?;
        channel.send_text(&serde_json::to_string(&open)?).await?;
        Ok(channel)
    }

    /// Opens a session's data channel on the node's side.
    ///
    /// # Errors
    /// The endpoint refuses.
    pub async fn open_data_channel(
        &self,
        captured_post: &CapturedRequest,
        session: &str,
    ) -> Result<StockChannel> {
        let path = format!("/v1/data-channel/{session}");
        let token_value = self.channel_token(captured_post, &path, Some("")).await?;
        let open = OpenDataChannel {
            message_schema_version: "1.0".into(),
            request_id: Uuid::new_v4().to_string(),
            token_value,
            client_id: String::new(),
            client_version: None,
            client_instance_id: Some(self.instance_id.clone()),
            moorline_max_payload_bytes: None,
            moorline_take_over: None,
        };
        let mut channel = self.dial(&format!("{path}?role=publish_subscribe")).await?;
        channel.send_text(&serde_json::to_string(&open)?).await?;
        Ok(channel)
    }

    /// Opens a websocket signed by this node, and sends nothing.
    ///
    /// # Errors
    /// The endpoint refuses.
    pub async fn dial(&self, path_and_query: &str) -> Result<StockChannel> {
        let api = self.endpoint.api();
        let signed = Some((&self.credentials, REGION));
        let socket = open_websocket(api.host(), api.trust(), path_and_query, signed).await?;
        Ok(StockChannel { socket })
    }

    /// The token for a channel: status 201 exactly, and XML.
    ///
    /// # Errors
    /// The endpoint refuses.
    pub async fn channel_token(
        &self,
        captured_post: &CapturedRequest,
        path: &str,
        client_id: Option<&str>,
    ) -> Result<String> {
        let mut body = json!({"MessageSchemaVersion": "1.0", "RequestId": Uuid::new_v4().to_string()});
        if let Some(client_id) = client_id {
            body["ClientId"] = client_id.into();
        }
        let answer = self
            .replay_with(captured_post, path, body.to_string().into_bytes())
            .await?;
        ensure!(answer.status == 201, "no channel token: {}", answer.text);
        let token = answer
            .text
            .split_once("<TokenValue>")
            .and_then(|(_, rest)| rest.split_once("</TokenValue>"));
        let (token, _) = token.with_context(|| format!("no token in {}", answer.text))?;
        Ok(token.to_owned())
    }
}

/// A channel of the scripted node.
#[derive(Debug)]
pub struct StockChannel {
    socket: WebSocket,
}

impl StockChannel {
    /// Opens a websocket as a session's client does: unsigned, with nothing sent yet.
    ///
    /// # Errors
    /// The endpoint refuses.
    pub async fn dial_unsigned(api: &Api, path_and_query: &str) -> Result<Self> {
        let socket = open_websocket(api.host(), api.trust(), path_and_query, None).await?;
        Ok(Self { socket })
    }

    /// Sends a TEXT message.
    ///
    /// # Errors
    /// The channel is gone.
    pub async fn send_text(&mut self, text: &str) -> Result<()> {
        Ok(self.socket.send(Message::Text(text.into())).await?)
    }

    /// Sends a BINARY message of any bytes.
    ///
    /// # Errors
    /// The channel is gone.
    pub async fn send_bytes(&mut self, bytes: Vec<u8>) -> Result<()> {
        Ok(self.socket.send(Message::Binary(bytes.into())).await?)
    }

    /// Sends a message as it is.
    ///
    /// # Errors
    /// The channel is gone.
    pub async fn send(&mut self, message: &AgentMessage) -> Result<()> {
        Ok(self.socket.send(Message::Binary(message.encode())).await?)
    }

    /// Sends a control message of this type with a JSON payload.
    ///
    /// # Errors
    /// The channel is gone.
    pub async fn send_json(&mut self, message_type: MessageType, payload: &Value) -> Result<Uuid> {
        let now = Now {
            monotonic: Duration::ZERO,
            unix_millis: epoch(),
        };
        let id = Uuid::new_v4();
        let payload = Bytes::from(payload.to_string());
        self.send(&AgentMessage::control(message_type, id, now, 0, payload))
            .await?;
        Ok(id)
    }

    /// The next message of this type; others are passed over.
    ///
    /// # Errors
    /// None comes, or the channel is closed.
    pub async fn receive(&mut self, message_type: &MessageType) -> Result<AgentMessage> {
        let wanted = async {
            loop {
                let message = self.next().await?;
                if message.message_type == *message_type {
                    return Ok(message);
                }
            }
        };
        let waited = timeout(PATIENCE, wanted).await;
        waited.with_context(|| format!("no {} came", message_type.as_str()))?
    }

    /// The next message, whatever it is.
    ///
    /// # Errors
    /// There is none.
    pub async fn receive_any(&mut self) -> Result<AgentMessage> {
        let waited = timeout(PATIENCE, self.next()).await;
        waited.context("no message came")?
    }

    async fn next(&mut self) -> Result<AgentMessage> {
        loop {
            match self.socket.next().await {
                Some(Ok(Message::Binary(frame))) => return Ok(AgentMessage::decode(&frame)?),
                Some(Ok(Message::Close(close))) => bail!("the endpoint closed the channel: {close:?}"),
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(error.into()),
                None => bail!("the endpoint is gone"),
            }
        }
    }

    /// Waits until the endpoint closes the channel; the close code and reason, when it gave them.
    ///
    /// # Errors
    /// It does not.
    pub async fn closed(&mut self) -> Result<Option<(u16, String)>> {
        let end = async {
            loop {
                match self.socket.next().await {
                    Some(Ok(Message::Close(Some(close)))) => {
                        return Some((u16::from(close.code), close.reason.to_string()));
                    }
                    Some(Ok(Message::Close(None)) | Err(_)) | None => return None,
                    Some(Ok(_)) => {}
                }
            }
        };
        timeout(PATIENCE, end)
            .await
            .context("the endpoint did not close the channel")
    }
}

/// The headers that the captured request signed, with the values that this one has.
fn signable(captured: &CapturedRequest, host: &str, length: usize) -> Vec<(String, String)> {
    let authorization = captured.header("authorization").unwrap_or_default();
    let signed = authorization
        .split_once("SignedHeaders=")
        .and_then(|(_, rest)| rest.split(',').next())
        .unwrap_or("content-type;host;x-amz-target");
    let value = |name: &str| match name {
        "host" => Some(host.to_owned()),
        "content-length" => Some(length.to_string()),
        _ => captured.header(name).map(str::to_owned),
    };
    signed
        .split(';')
        .filter_map(|name| Some((name.to_owned(), value(name)?)))
        .collect()
}

fn borrow(headers: &[(String, String)]) -> Vec<(&str, &str)> {
    let pairs = headers.iter();
    pairs
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect()
}

/// The service of the captured signature's scope.
fn service_of(captured: &CapturedRequest) -> &str {
    let authorization = captured.header("authorization").unwrap_or_default();
    authorization.split('/').nth(3).unwrap_or("ssm")
}

fn text_of(answer: &Value, name: &str) -> Result<String> {
    let text = answer[name].as_str().map(str::to_owned);
    text.with_context(|| format!("the answer lacks {name}: {answer}"))
}
