//! An endpoint on a loopback port, and peers that speak to it frame by frame.

use std::{net::SocketAddr, sync::Arc};

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use moorline_protocol::{
    message::{AgentMessage, ChannelClosed, MessageType, PayloadType},
    sigv4::{Credentials, SignableRequest, SigningScope, sign},
    time::Now,
    types::InstanceId,
};
use serde::de::DeserializeOwned;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{Message, client::IntoClientRequest as _, protocol::CloseFrame},
};
use uuid::Uuid;

use crate::{
    api::built_in_documents,
    app::Routing,
    gateway::{Gateway, handle},
    test_support::{TestApp, node_id},
};

/// How long a peer waits for a frame that must come.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(20);

pub(super) struct Endpoint {
    pub(super) test: TestApp,
    pub(super) gateway: Arc<Gateway>,
    pub(super) address: SocketAddr,
}

impl Endpoint {
    /// With one registered node and the built-in documents.
    pub(super) async fn start() -> Self {
        let gateway = Arc::new(Gateway::new());
        let test = TestApp::over(Arc::clone(&gateway) as Arc<dyn Routing>).await;
        test.register_node(1, &[]).await;
        test.app
            .store
            .seed_documents(&built_in_documents(), test.now())
            .await
            .unwrap();
        let address = serve(&test, &gateway).await;
        Self {
            test,
            gateway,
            address,
        }
    }

    /// The process ends and starts again on another port: what is not in the store is gone.
    pub(super) async fn restart(&mut self) {
        let store = self.test.app.store.clone();
        let gateway = Arc::new(Gateway::new());
        let fresh = TestApp::over(Arc::clone(&gateway) as Arc<dyn Routing>).await;
        self.test.continue_with(fresh, store);
        self.address = serve(&self.test, &gateway).await;
        self.gateway = gateway;
    }

    /// The disk is nearly full from now on.
    pub(super) async fn without_room(&mut self) {
        self.test.fill_disk();
        self.address = serve(&self.test, &self.gateway).await;
    }

    pub(super) fn node(&self) -> InstanceId {
        node_id(1)
    }

    pub(super) fn credentials(&self, index: u32) -> Credentials {
        let role = self
            .test
            .app
            .keys
            .role_credentials(&node_id(index), 1, self.test.now());
        Credentials {
            access_key_id: role.access_key_id,
            secret_access_key: role.secret_access_key,
            session_token: Some(role.session_token),
        }
    }

    /// Status and body. `None`: unsigned.
    pub(super) async fn post(
        &self,
        path: &str,
        body: &[u8],
        credentials: Option<&Credentials>,
    ) -> (u16, String) {
        let mut head = format!(
            "POST {path} HTTP/1.1\r\nconnection: close\r\ncontent-length: {}\r\n",
            body.len()
        );
        for (name, value) in self.headers("POST", path, body, credentials) {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        let mut socket = TcpStream::connect(self.address).await.unwrap();
        socket.write_all(format!("{head}\r\n").as_bytes()).await.unwrap();
        // a refused body may not be read to its end
        let _refused = socket.write_all(body).await;
        let mut reply = Vec::new();
        let _closed = socket.read_to_end(&mut reply).await;
        let reply = String::from_utf8(reply).unwrap();
        let (head, body) = reply.split_once("\r\n\r\n").expect("a reply with a head");
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, body.to_owned())
    }

    pub(super) fn headers(
        &self,
        method: &str,
        path: &str,
        body: &[u8],
        credentials: Option<&Credentials>,
    ) -> Vec<(String, String)> {
        let host = self.address.to_string();
        let mut headers = vec![("host".to_owned(), host.clone())];
        if let Some(credentials) = credentials {
            let request = SignableRequest {
                method,
                uri: path,
                headers: &[("host", &host)],
                body,
            };
            let scope = SigningScope {
                region: "us-east-1",
                service: "ssmmessages",
                unix_millis: self.test.now(),
            };
            headers.extend(sign(&request, &scope, credentials));
        }
        headers
    }

    /// A token for a channel, as a node asks for it.
    pub(super) async fn token(&self, path: &str, index: u32) -> String {
        let (status, body) = self.post(path, b"{}", Some(&self.credentials(index))).await;
        assert_eq!(status, 201, "{body}");
        let (_, rest) = body.split_once("<TokenValue>").unwrap();
        rest.split_once("</TokenValue>").unwrap().0.to_owned()
    }

    pub(super) async fn dial(&self, path: &str, credentials: Option<&Credentials>) -> Peer {
        let headers = self.headers("GET", path, b"", credentials);
        self.dial_with(path, &headers)
            .await
            .expect("the upgrade is granted")
    }

    /// The error is the status of a refused upgrade.
    pub(super) async fn dial_with(&self, path: &str, headers: &[(String, String)]) -> Result<Peer, u16> {
        let mut request = format!("ws://{}{path}", self.address)
            .into_client_request()
            .unwrap();
        for (name, value) in headers {
            let name: http::HeaderName = name.parse().unwrap();
            request.headers_mut().insert(name, value.parse().unwrap());
        }
        let socket = TcpStream::connect(self.address).await.unwrap();
        match client_async(request, socket).await {
            Ok((socket, _)) => Ok(Peer { socket, sent: 0 }),
            Err(tokio_tungstenite::tungstenite::Error::Http(reply)) => Err(reply.status().as_u16()),
            Err(other) => panic!("{other}"),
        }
    }

    /// Node 1's control channel, open.
    pub(super) async fn control_channel(&self, process_id: Option<&str>) -> Peer {
        let path = format!("/v1/control-channel/{}", self.node());
        let token = self.token(&path, 1).await;
        let query = format!("{path}?role=subscribe&stream=input");
        let mut peer = self.dial(&query, Some(&self.credentials(1))).await;
        let mut open = serde_json::json!({
            "Cookie": null, "MessageSchemaVersion": "1.0", "RequestId": "r", "TokenValue": token,
            "AgentVersion": "3.3.0.0", "PlatformType": "linux",
        });
        if let Some(id) = process_id {
            open["MoorlineProcessId"] = id.into();
        }
        peer.send_text(&open.to_string()).await;
        peer
    }

    /// Node 1's side of a session, open.
    pub(super) async fn agent_side(&self, session: &str) -> Peer {
        let path = format!("/v1/data-channel/{session}");
        let token = self.token(&path, 1).await;
        let query = format!("{path}?role=publish_subscribe");
        let mut peer = self.dial(&query, Some(&self.credentials(1))).await;
        let open = serde_json::json!({
            "MessageSchemaVersion": "1.0", "RequestId": "r", "TokenValue": token,
            "ClientInstanceId": self.node().to_string(), "ClientId": "",
        });
        peer.send_text(&open.to_string()).await;
        peer
    }

    /// The client's side of a session.
    pub(super) async fn client_side(&self, session: &str, token: &str, client_id: &str) -> Peer {
        let mut peer = self
            .dial(
                &format!("/v1/data-channel/{session}?role=publish_subscribe"),
                None,
            )
            .await;
        let open = serde_json::json!({
            "MessageSchemaVersion": "1.0", "RequestId": "r", "TokenValue": token, "ClientId": client_id,
            "ClientVersion": "1.2.764.0",
        });
        peer.send_text(&open.to_string()).await;
        peer
    }

    /// Waits until the node's control channel is admitted.
    pub(super) async fn until_connected(&self) {
        let connected = async {
            while !self.gateway.is_connected(&self.node()).await {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, connected)
            .await
            .expect("the node is connected");
    }
}

async fn serve(test: &TestApp, gateway: &Arc<Gateway>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (app, gateway) = (Arc::clone(&test.app), Arc::clone(gateway));
    tokio::spawn(async move {
        while let Ok((socket, peer)) = listener.accept().await {
            let (app, gateway) = (Arc::clone(&app), Arc::clone(&gateway));
            let answer = service_fn(move |request| {
                let (app, gateway) = (Arc::clone(&app), Arc::clone(&gateway));
                async move { Ok::<_, std::convert::Infallible>(handle(&app, &gateway, request, peer.ip()).await) }
            });
            let http = hyper::server::conn::http1::Builder::new();
            tokio::spawn(
                http.serve_connection(TokioIo::new(socket), answer)
                    .with_upgrades(),
            );
        }
    });
    address
}

/// One websocket, driven frame by frame.
pub(super) struct Peer {
    socket: WebSocketStream<TcpStream>,
    sent: i64,
}

impl Peer {
    pub(super) async fn send_text(&mut self, text: &str) {
        self.socket.send(Message::text(text)).await.unwrap();
    }

    /// The open message of either side of a session.
    pub(super) async fn open_data_channel(&mut self, token: &str, client_id: &str) {
        let open = serde_json::json!({
            "MessageSchemaVersion": "1.0", "RequestId": "r", "TokenValue": token, "ClientId": client_id,
        });
        self.send_text(&open.to_string()).await;
    }

    /// What is no frame, or not all of one.
    pub(super) async fn send_bytes(&mut self, bytes: &[u8]) {
        self.socket.get_mut().write_all(bytes).await.unwrap();
    }

    pub(super) async fn send_raw(&mut self, frame: &'static [u8]) {
        self.socket
            .send(Message::Binary(Bytes::from_static(frame)))
            .await
            .unwrap();
    }

    pub(super) async fn send(&mut self, message: &AgentMessage) {
        self.socket.send(Message::Binary(message.encode())).await.unwrap();
    }

    /// A control message.
    pub(super) async fn say(
        &mut self,
        message_type: MessageType,
        payload: serde_json::Value,
    ) -> AgentMessage {
        let payload = Bytes::from(payload.to_string());
        let message = AgentMessage::control(message_type, Uuid::new_v4(), clock(), 0, payload);
        self.send(&message).await;
        message
    }

    /// The next message of the stream.
    pub(super) async fn stream(&mut self, message_type: MessageType, text: &str) -> AgentMessage {
        let payload = Bytes::copy_from_slice(text.as_bytes());
        let mut message = AgentMessage::control(message_type, Uuid::new_v4(), clock(), 0, payload);
        message.payload_type = PayloadType::Output;
        message.sequence_number = self.sent;
        self.sent += 1;
        self.send(&message).await;
        message
    }

    pub(super) async fn acknowledge(&mut self, message: &AgentMessage) {
        let payload = serde_json::json!({
            "AcknowledgedMessageType": message.message_type.as_str(),
            "AcknowledgedMessageId": message.message_id.to_string(),
            "AcknowledgedMessageSequenceNumber": message.sequence_number,
            "IsSequentialMessage": true,
        });
        self.say(MessageType::Acknowledge, payload).await;
    }

    async fn next(&mut self) -> Option<Message> {
        let next = tokio::time::timeout(PATIENCE, self.socket.next()).await;
        next.expect("a frame or the end").and_then(Result::ok)
    }

    /// The next message, whatever it is. Nothing is lost when the future is dropped.
    pub(super) async fn next_message(&mut self) -> AgentMessage {
        loop {
            match self.next().await {
                Some(Message::Binary(frame)) => return AgentMessage::decode(&frame).unwrap(),
                Some(Message::Ping(_) | Message::Pong(_)) => {}
                other => panic!("{other:?} came instead of a message"),
            }
        }
    }

    /// The next message of this type; others are passed over.
    pub(super) async fn expect(&mut self, message_type: MessageType) -> AgentMessage {
        loop {
            let message = self.next_message().await;
            if message.message_type == message_type {
                return message;
            }
        }
    }

    pub(super) async fn expect_payload<T: DeserializeOwned>(&mut self, message_type: MessageType) -> T {
        let message = self.expect(message_type).await;
        serde_json::from_slice(&message.payload).unwrap()
    }

    pub(super) async fn expect_closed(&mut self) -> ChannelClosed {
        self.expect_payload(MessageType::ChannelClosed).await
    }

    /// Code and reason of the close frame that comes next, apart from pings and messages.
    pub(super) async fn close_reason(&mut self) -> (u16, String) {
        loop {
            match self.next().await {
                Some(Message::Close(Some(CloseFrame { code, reason }))) => {
                    return (code.into(), reason.to_string());
                }
                Some(_) => {}
                None => panic!("the connection ended without a close"),
            }
        }
    }

    /// A pong comes: the other end still serves this channel.
    pub(super) async fn is_served(&mut self) {
        self.socket
            .send(Message::Ping(Bytes::from_static(b"still there?")))
            .await
            .unwrap();
        while !matches!(self.next().await.expect("a pong"), Message::Pong(_)) {}
    }
}

fn clock() -> Now {
    Now {
        monotonic: std::time::Duration::ZERO,
        unix_millis: 1,
    }
}
