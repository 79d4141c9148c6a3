//! Against an endpoint of our own: real TLS and websockets, `ResumeSession`, and the protocol crate's agent at the
//! other end. Only the relay between them is missing.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::{SinkExt, StreamExt};
use moorline_protocol::{
    channel::HandshakeOffer,
    message::{AgentMessage, ChannelClosed, MessageType, OpenDataChannel},
    sigv4::Credentials,
};
use moorline_transport::{Endpoint, Trust};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, rustls, server::TlsStream};
use tokio_tungstenite::{WebSocketStream, accept_async};

use super::*;
use crate::{operator::Operator, settings::Settings};

const SESSION: &str = "test-0123456789abcdef0";
const TOKEN: &str = "first";
const LIMIT: Duration = Duration::from_secs(60);

type Accepted = WebSocketStream<TlsStream<TcpStream>>;

struct TestEndpoint {
    api_url: String,
    stream_url: String,
    trust: Trust,
    /// Every connection, with its open message.
    opened: mpsc::Receiver<(Accepted, OpenDataChannel)>,
}

/// Makes an endpoint for one session whose `ResumeSession` gives a token `tokens` times, and then says that the
/// session is over.
async fn endpoint(tokens: usize) -> TestEndpoint {
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let key = rustls::pki_types::PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key.into())
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let api = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let streams = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let api_url = format!("https://{}", api.local_addr().unwrap());
    let stream_url = format!(
        "wss://{}/v1/data-channel/{SESSION}",
        streams.local_addr().unwrap()
    );
    tokio::spawn(answer_resumes(api, acceptor.clone(), tokens, stream_url.clone()));
    let (sender, opened) = mpsc::channel(8);
    tokio::spawn(async move {
        loop {
            let (tcp, _) = streams.accept().await.unwrap();
            let mut socket = accept_async(acceptor.accept(tcp).await.unwrap()).await.unwrap();
            let open = socket.next().await.unwrap().unwrap().into_text().unwrap();
            let open = serde_json::from_str(&open).unwrap();
            if sender.send((socket, open)).await.is_err() {
                return;
            }
        }
    });
    TestEndpoint {
        api_url,
        stream_url,
        trust: Trust::ca_pem(made.cert.pem().as_bytes(), "test".as_ref()).unwrap(),
        opened,
    }
}

async fn answer_resumes(api: TcpListener, acceptor: TlsAcceptor, tokens: usize, stream_url: String) {
    let calls = AtomicUsize::new(0);
    loop {
        let (tcp, _) = api.accept().await.unwrap();
        let mut tls = acceptor.accept(tcp).await.unwrap();
        let mut request = Vec::new();
        while !request.ends_with(b"}") {
            assert_ne!(tls.read_buf(&mut request).await.unwrap(), 0);
        }
        let call = calls.fetch_add(1, Ordering::Relaxed);
        let body = if call < tokens {
            format!(r#"{{"SessionId":"{SESSION}","TokenValue":"resumed-{call}","StreamUrl":"{stream_url}"}}"#)
        } else {
            format!(r#"{{"SessionId":"{SESSION}"}}"#)
        };
        let head = format!(
            "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
            body.len()
        );
        tls.write_all((head + &body).as_bytes()).await.unwrap();
        tls.shutdown().await.unwrap();
    }
}

impl TestEndpoint {
    async fn client(&self) -> SessionClient {
        self.client_with(|link| link).await
    }

    async fn client_with(&self, kind: impl FnOnce(Link) -> Link) -> SessionClient {
        let operator = Operator::new(Settings {
            endpoint: Endpoint::parse(&self.api_url).unwrap(),
            kms_endpoint: Endpoint::parse(&self.api_url).unwrap(),
            region: "local".to_owned(),
            credentials: Credentials {
                access_key_id: "AKIA".to_owned(),
                secret_access_key: "secret".to_owned(),
                session_token: None,
            },
            trust: self.trust.clone(),
        });
        let link = Link::new(Some(Arc::new(operator)), self.trust.clone(), SESSION);
        let grant = Grant {
            session_id: SESSION.to_owned(),
            token: TOKEN.to_owned(),
            stream_url: self.stream_url.clone(),
        };
        SessionClient::open(kind(link), &grant).await.unwrap()
    }

    async fn accept(&mut self) -> (Accepted, OpenDataChannel) {
        timeout(LIMIT, self.opened.recv()).await.unwrap().unwrap()
    }
}

/// The node's end, over one connection after another.
struct Node {
    channel: DataChannel,
    origin: Instant,
    input: Vec<u8>,
}

impl Node {
    fn new() -> Self {
        let mut channel = DataChannel::new(Role::Agent, seed(), WINDOW_BYTES);
        channel.set_max_payload(MAX_PAYLOAD_BYTES);
        Self {
            channel,
            origin: Instant::now(),
            input: Vec::new(),
        }
    }

    fn now(&self) -> Now {
        Now {
            monotonic: self.origin.elapsed(),
            unix_millis: 1_700_000_000_000,
        }
    }

    async fn flush(&mut self, socket: &mut Accepted) -> Result<(), tokio_tungstenite::tungstenite::Error> {
        while let Some(output) = self.channel.poll() {
            match output {
                Output::Transmit(frame) => socket.feed(Message::Binary(frame)).await?,
                Output::Event(Event::Data {
                    payload_type: PayloadType::Output,
                    payload,
                }) => self.input.extend_from_slice(&payload),
                Output::Event(_) => {}
            }
        }
        socket.flush().await
    }

    /// Sends all of `output`, and reads until it is acknowledged, or until `until` bytes of it were sent.
    async fn send(&mut self, socket: &mut Accepted, output: &mut &[u8], until: usize) {
        let mut sent = 0;
        while sent < until && (!output.is_empty() || self.channel.unacknowledged() > 0) {
            let now = self.now();
            self.channel.timeout(now);
            let piece = self.channel.writable().min(output.len()).min(MAX_PAYLOAD_BYTES);
            if piece > 0 {
                let (head, rest) = output.split_at(piece);
                self.channel.send(now, PayloadType::Output, head).unwrap();
                *output = rest;
                sent += piece;
            }
            self.flush(socket).await.unwrap();
            if piece == 0 {
                self.read(socket).await;
            }
        }
    }

    async fn read(&mut self, socket: &mut Accepted) {
        let message = timeout(LIMIT, socket.next()).await.unwrap();
        if let Some(Ok(Message::Binary(frame))) = message {
            let now = self.now();
            self.channel.receive(now, &frame);
        }
        self.flush(socket).await.unwrap();
    }

    async fn close(&mut self, socket: &mut Accepted, exit_code: i32) {
        let closed = ChannelClosed {
            message_schema_version: "1.0".to_owned(),
            message_id: Uuid::new_v4().to_string(),
            created_date: "2024-01-01T00:00:00.000Z".to_owned(),
            destination_id: "client".to_owned(),
            session_id: SESSION.to_owned(),
            message_type: "channel_closed".to_owned(),
            schema_version: 1,
            output: String::new(),
            moorline_exit_code: Some(exit_code),
        };
        let payload = serde_json::to_vec(&closed).unwrap().into();
        let message =
            AgentMessage::control(MessageType::ChannelClosed, Uuid::new_v4(), self.now(), 3, payload);
        socket.send(Message::Binary(message.encode())).await.unwrap();
    }
}

/// What a user sees of a session until its end.
#[derive(Default)]
struct Seen {
    output: Vec<u8>,
    lost: usize,
    restored: usize,
}

async fn watch(client: &mut SessionClient) -> (Seen, SessionEvent) {
    let mut seen = Seen::default();
    loop {
        match timeout(LIMIT, client.next(true)).await.unwrap() {
            SessionEvent::Data { payload, .. } => seen.output.extend_from_slice(&payload),
            SessionEvent::Lost(_) => seen.lost += 1,
            SessionEvent::Restored => seen.restored += 1,
            SessionEvent::InputTaken | SessionEvent::Type(_) | SessionEvent::Message(_) => {}
            end => return (seen, end),
        }
    }
}

fn numbered(lines: usize) -> Vec<u8> {
    (0..lines)
        .flat_map(|number| format!("{number:015}\n").into_bytes())
        .collect()
}

#[tokio::test]
async fn keys_go_out_and_output_and_exit_code_come_back() {
    let mut endpoint = endpoint(0).await;
    let mut client = endpoint.client().await;
    let (mut socket, open) = endpoint.accept().await;
    assert_eq!(open.token_value, TOKEN);
    assert_eq!(open.moorline_max_payload_bytes, Some(32_768));
    client.write(PayloadType::Output, Bytes::from_static(b"exit 7\r"));
    let node = tokio::spawn(async move {
        let mut node = Node::new();
        let now = node.now();
        node.channel.connected(now);
        node.send(&mut socket, &mut &b"$ "[..], usize::MAX).await;
        while !node.input.ends_with(b"\r") {
            node.read(&mut socket).await;
        }
        node.close(&mut socket, 7).await;
        node.input
    });
    let (seen, end) = watch(&mut client).await;
    assert_eq!(seen.output, b"$ ");
    assert!(
        matches!(
            end,
            SessionEvent::Closed {
                exit_code: Some(7),
                ..
            }
        ),
        "{end:?}"
    );
    assert_eq!(node.await.unwrap(), b"exit 7\r");
}

#[tokio::test]
async fn no_byte_is_lost_or_doubled_when_connections_break() {
    const CUTS: usize = 4;
    let mut endpoint = endpoint(CUTS).await;
    let mut client = endpoint.client().await;
    let expected = numbered(200_000);
    let output = expected.clone();
    let node = tokio::spawn(async move {
        let mut node = Node::new();
        let mut rest = &*output;
        let mut client_ids = Vec::new();
        for connection in 0..=CUTS {
            let (mut socket, open) = endpoint.accept().await;
            client_ids.push(open.client_id);
            let token = connection
                .checked_sub(1)
                .map_or_else(|| TOKEN.to_owned(), |n| format!("resumed-{n}"));
            assert_eq!(open.token_value, token);
            let now = node.now();
            node.channel.connected(now);
            if connection < CUTS {
                node.send(&mut socket, &mut rest, 500_000).await;
                node.channel.disconnected();
                drop(socket);
            } else {
                node.send(&mut socket, &mut rest, usize::MAX).await;
                while node.input.len() < 100_000 {
                    node.read(&mut socket).await;
                }
                node.close(&mut socket, 0).await;
            }
        }
        client_ids.dedup();
        assert_eq!(client_ids.len(), 1, "the same process has the same client id");
        node.input
    });
    let typed: Vec<u8> = numbered(6_250);
    client.write(PayloadType::Output, typed.clone().into());
    let (seen, end) = watch(&mut client).await;
    assert!(
        matches!(
            end,
            SessionEvent::Closed {
                exit_code: Some(0),
                ..
            }
        ),
        "{end:?}"
    );
    assert!(
        seen.output == expected,
        "{} of {} bytes",
        seen.output.len(),
        expected.len()
    );
    assert_eq!((seen.lost, seen.restored), (CUTS, CUTS));
    assert!(node.await.unwrap() == typed);
}

#[tokio::test]
async fn who_takes_a_session_over_types_nothing_before_it_is_theirs() {
    let mut endpoint = endpoint(0).await;
    let mut client = endpoint.client_with(Link::taking_over).await;
    let (mut socket, open) = endpoint.accept().await;
    assert_eq!(open.moorline_take_over, Some(true));
    client.write(PayloadType::Output, Bytes::from_static(b"typed"));
    assert!(client.ready_at > Instant::now() + Duration::from_secs(3600));
    let start = AgentMessage::control(
        MessageType::StartPublication,
        Uuid::new_v4(),
        Node::new().now(),
        3,
        Bytes::from_static(b"{}"),
    );
    socket.send(Message::Binary(start.encode())).await.unwrap();
    let frame = async {
        loop {
            tokio::select! {
                _ = client.next(true) => {}
                frame = socket.next() => return frame.unwrap().unwrap(),
            }
        }
    };
    let frame = timeout(LIMIT, frame).await.unwrap();
    let typed = AgentMessage::decode(&frame.into_data()).unwrap();
    assert_eq!(typed.payload, "typed");
}

#[tokio::test]
async fn a_session_that_ended_meanwhile_is_over() {
    let mut endpoint = endpoint(0).await;
    let mut client = endpoint.client().await;
    drop(endpoint.accept().await);
    let (seen, end) = watch(&mut client).await;
    assert_eq!(seen.lost, 1);
    assert!(matches!(end, SessionEvent::Expired), "{end:?}");
}

#[tokio::test]
async fn an_endpoint_that_takes_no_token_is_not_asked_for_ever() {
    let mut endpoint = endpoint(usize::MAX).await;
    let mut client = endpoint.client().await;
    let refusals = tokio::spawn(async move {
        let mut refusals = 0;
        while let Ok(Some((mut socket, _))) = timeout(LIMIT, endpoint.opened.recv()).await {
            refusals += 1;
            socket.close(None).await.unwrap();
            if refusals == MAX_BARREN_CONNECTIONS {
                break;
            }
        }
        refusals
    });
    let (_, end) = watch(&mut client).await;
    assert!(
        matches!(end, SessionEvent::Failed(SessionError::Barren { .. })),
        "{end:?}"
    );
    assert_eq!(refusals.await.unwrap(), MAX_BARREN_CONNECTIONS);
}

#[tokio::test]
async fn a_terminal_without_room_holds_back_the_node() {
    let mut endpoint = endpoint(0).await;
    let mut client = endpoint.client().await;
    let (mut socket, _) = endpoint.accept().await;
    let output = numbered(1_000_000);
    let total = output.len();
    let (progress, mut written) = tokio::sync::watch::channel(0);
    tokio::spawn(async move {
        let mut node = Node::new();
        let now = node.now();
        node.channel.connected(now);
        let mut rest = &*output;
        while !rest.is_empty() || node.channel.unacknowledged() > 0 {
            node.send(&mut socket, &mut rest, MAX_PAYLOAD_BYTES).await;
            progress.send_replace(total - rest.len());
        }
        node.close(&mut socket, 0).await;
    });
    // without room no data comes, and the node gets no further than its window
    let event = timeout(Duration::from_millis(300), client.next(false)).await;
    assert!(event.is_err(), "{event:?}");
    let stuck_at = *written.borrow_and_update();
    assert!(stuck_at < 2 * WINDOW_BYTES, "{stuck_at}");
    let (seen, end) = watch(&mut client).await;
    assert_eq!(seen.output.len(), total);
    assert_eq!(seen.lost, 0);
    assert!(matches!(end, SessionEvent::Closed { .. }), "{end:?}");
}

/// More than the kernel takes for a peer that does not read: the rest waits in the client.
fn congest(client: &mut SessionClient) {
    for _ in 0..32 {
        let filler = AgentMessage::control(
            MessageType::from_name("filler"),
            Uuid::new_v4(),
            client.now(),
            0,
            Bytes::from(vec![0; 1024 * 1024]),
        );
        client.to_send.push(Message::Binary(filler.encode()));
    }
}

#[tokio::test]
async fn what_still_waits_to_be_sent_is_not_repeated() {
    let mut endpoint = endpoint(0).await;
    let mut client = endpoint.client().await;
    let (_socket, _) = endpoint.accept().await;
    congest(&mut client);
    let now = client.now();
    client.channel.send(now, PayloadType::Output, b"ls\r").unwrap();
    client.drain();
    let mut waiting = Vec::new();
    for _ in 0..2 {
        // many times as long as the state machine waits for an acknowledgement
        let event = timeout(Duration::from_millis(1500), client.next(true)).await;
        assert!(event.is_err(), "{event:?}");
        waiting.push(client.to_send.bytes());
    }
    assert!(
        waiting[0] > 1024 * 1024 && waiting[0] == waiting[1],
        "{waiting:?}"
    );
}

#[tokio::test]
async fn what_is_typed_goes_behind_little_that_waits_for_a_slow_network() {
    let mut endpoint = endpoint(0).await;
    let mut client = endpoint.client().await;
    let (mut socket, _) = endpoint.accept().await;
    client.is_ready = true;
    let mut most = 0;
    // until the network takes nothing more
    while client.takes_input() {
        client.write(PayloadType::Output, Bytes::from(vec![0; INPUT_PIECE_BYTES]));
        let _taken = timeout(Duration::from_millis(300), client.next(true)).await;
        most = most.max(client.to_send.bytes());
    }
    assert!(
        most > 0 && most < MAX_AHEAD_BYTES + 2 * INPUT_PIECE_BYTES,
        "{most}"
    );
    // and it goes on as soon as the network does
    let reading = tokio::spawn(async move { while socket.next().await.is_some() {} });
    let event = timeout(LIMIT, client.next(true)).await.unwrap();
    assert!(matches!(event, SessionEvent::InputTaken), "{event:?}");
    reading.abort();
}

/// The front end asked for room before it waits: nothing else may wake it, where a program echoes nothing.
#[tokio::test]
async fn input_that_goes_out_at_once_is_told_as_taken() {
    let mut endpoint = endpoint(0).await;
    let mut client = endpoint.client().await;
    let (_socket, _) = endpoint.accept().await;
    client.is_ready = true;
    for _ in 0..3 {
        client.write(PayloadType::Output, Bytes::from_static(b"quiet\r"));
        assert!(!client.takes_input());
        let event = timeout(LIMIT, client.next(true)).await.unwrap();
        assert!(matches!(event, SessionEvent::InputTaken), "{event:?}");
        assert!(client.takes_input());
    }
}

#[tokio::test]
async fn nothing_is_read_while_too_much_waits_to_be_sent() {
    let mut endpoint = endpoint(0).await;
    let mut client = endpoint.client().await;
    let (mut socket, _) = endpoint.accept().await;
    congest(&mut client);
    let mut node = Node::new();
    let now = node.now();
    node.channel.connected(now);
    node.channel.send(now, PayloadType::Output, b"$ ").unwrap();
    node.flush(&mut socket).await.unwrap();
    let event = timeout(Duration::from_millis(500), client.next(true)).await;
    assert!(event.is_err(), "{event:?}");
    let reader = tokio::spawn(async move { while let Some(Ok(_)) = socket.next().await {} });
    let event = timeout(LIMIT, client.next(true)).await.unwrap();
    assert!(matches!(event, SessionEvent::Data { .. }), "{event:?}");
    reader.abort();
}

/// A front end waits for it before it reads on; a shell that reads a password puts nothing out that would wake it.
#[tokio::test]
async fn each_piece_of_input_is_said_to_be_taken_though_no_output_comes() {
    let mut endpoint = endpoint(0).await;
    let mut client = endpoint.client().await;
    let (_socket, _) = endpoint.accept().await;
    client.is_ready = true;
    for _ in 0..3 {
        assert!(client.takes_input());
        client.write(PayloadType::Output, Bytes::from_static(b"x"));
        let event = timeout(LIMIT, client.next(true)).await.unwrap();
        assert!(matches!(event, SessionEvent::InputTaken), "{event:?}");
    }
}

#[tokio::test]
async fn a_port_session_is_recognised() {
    let mut endpoint = endpoint(0).await;
    let mut client = endpoint.client().await;
    let (mut socket, _) = endpoint.accept().await;
    tokio::spawn(async move {
        let mut node = Node::new();
        let now = node.now();
        node.channel.connected(now);
        let offer = HandshakeOffer {
            agent_version: "3.3.0.0".to_owned(),
            session_type: "Port".to_owned(),
            properties: serde_json::json!({ "portNumber": "22" }),
            ..HandshakeOffer::default()
        };
        node.channel.start_handshake(now, offer);
        node.send(&mut socket, &mut &[][..], usize::MAX).await;
        node.read(&mut socket).await;
        std::future::pending::<()>().await;
    });
    timeout(LIMIT, client.settle()).await.unwrap();
    assert_eq!(client.session_type(), Some("Port"));
    assert_eq!(client.channel().session_properties()["portNumber"], "22");
    // what came meanwhile still comes
    let event = timeout(LIMIT, client.next(true)).await.unwrap();
    assert!(
        matches!(&event, SessionEvent::Type(name) if name == "Port"),
        "{event:?}"
    );
}
