//! The endpoint's front door over real TLS on loopback: good requests, and peers that misbehave.

use futures_util::SinkExt as _;
use moorline_protocol::sigv4::{Credentials, SignableRequest, SigningScope, sign};
use rcgen::KeyPair;
use rustls::{ClientConfig, RootCertStore, crypto::ring::default_provider, pki_types::CertificateDer};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};
use tokio_rustls::TlsConnector;
use tokio_tungstenite::tungstenite::Message;

use super::*;
use crate::{
    app::Clock,
    auth::{ChannelGrant, ROLE_CREDENTIALS_LIFETIME_MILLIS},
    server::{
        certificate::{Authority, ServerCertificate},
        listener::Listener,
    },
    test_support::TestApp,
};

const HOST: &str = "localhost";

struct Endpoint {
    test: TestApp,
    address: SocketAddr,
    connector: TlsConnector,
    stop: watch::Sender<bool>,
    serving: tokio::task::JoinHandle<()>,
}

impl Endpoint {
    async fn start() -> Self {
        Self::start_with(256).await
    }

    /// With so many connections of one address that have not shown who they are from.
    async fn start_with(newcomers: usize) -> Self {
        let test = TestApp::new().await;
        test.add_access_key("AKIAOPERATOR", "secret").await;
        let authority = Authority::new(KeyPair::generate().unwrap()).unwrap();
        let mut roots = RootCertStore::empty();
        let mut pem = authority.certificate_pem().unwrap();
        pem.retain(|c| c != '\n');
        let base64 = pem.split("-----").nth(2).unwrap();
        let der = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, base64).unwrap();
        roots.add(CertificateDer::from(der)).unwrap();
        // The client checks the certificate against the real clock.
        let clock = Clock::system();
        let certificate = ServerCertificate::issue(authority, vec![HOST.to_owned()], &clock).unwrap();
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let service = Arc::new(Service::new(
            Arc::clone(&test.app),
            Arc::new(Gateway::new()),
            address,
        ));
        let (stop, stopping) = watch::channel(false);
        let listener = Listener::new(
            socket,
            certificate.tls_settings().unwrap(),
            service,
            stopping.clone(),
        )
        .with_newcomers(newcomers);
        let serving = tokio::spawn(async move {
            let (mut tasks, mut stopping) = (JoinSet::new(), stopping);
            tokio::select! {
                () = listener.run(&mut tasks) => {}
                _ = stopping.changed() => {}
            }
            while tasks.join_next().await.is_some() {}
        });
        let client = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        Self {
            test,
            address,
            connector: TlsConnector::from(Arc::new(client)),
            stop,
            serving,
        }
    }

    async fn connect(&self) -> tokio_rustls::client::TlsStream<TcpStream> {
        let tcp = TcpStream::connect(self.address).await.unwrap();
        self.connector
            .connect(HOST.try_into().unwrap(), tcp)
            .await
            .unwrap()
    }

    /// Sends bytes, and reads until the peer closes. A reset after the answer is no error of ours to test.
    async fn exchange(&self, request: &[u8]) -> String {
        let mut tls = self.connect().await;
        let mut reply = Vec::new();
        let _sent = tls.write_all(request).await;
        let _read = tls.read_to_end(&mut reply).await;
        String::from_utf8(reply).unwrap()
    }

    /// The head of an operator's signed call, but for what says where its body ends.
    fn signed(&self, target: &str, body: &[u8]) -> String {
        self.signed_by(&operator(), target, body)
    }

    fn signed_by(&self, credentials: &Credentials, target: &str, body: &[u8]) -> String {
        let headers = [("host", HOST), ("x-amz-target", target)];
        let request = SignableRequest {
            method: "POST",
            uri: "/",
            headers: &headers,
            body,
        };
        let unix_millis = self.test.now();
        let scope = SigningScope {
            region: "us-east-1",
            service: "ssm",
            unix_millis,
        };
        let added = sign(&request, &scope, credentials);
        let added = added.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let lines = headers
            .into_iter()
            .chain(added)
            .map(|(name, value)| format!("{name}: {value}\r\n"));
        format!(
            "POST / HTTP/1.1\r\nconnection: close\r\n{}",
            lines.collect::<String>()
        )
    }

    async fn call(&self, target: &str, body: &str) -> String {
        self.call_by(&operator(), target, body).await
    }

    async fn call_by(&self, credentials: &Credentials, target: &str, body: &str) -> String {
        let head = self.signed_by(credentials, target, body.as_bytes());
        self.exchange(format!("{head}content-length: {}\r\n\r\n{body}", body.len()).as_bytes())
            .await
    }
}

fn operator() -> Credentials {
    Credentials {
        access_key_id: "AKIAOPERATOR".to_owned(),
        secret_access_key: "secret".to_owned(),
        session_token: None,
    }
}

#[tokio::test]
async fn a_signed_call_is_answered_with_a_request_id() {
    let endpoint = Endpoint::start().await;
    let reply = endpoint.call("AmazonSSM.DescribeInstanceInformation", "{}").await;
    assert!(reply.starts_with("HTTP/1.1 200 OK"), "{reply}");
    assert!(
        reply.contains("x-amzn-requestid: ") && reply.contains(CONTENT_TYPE),
        "{reply}"
    );
    assert!(reply.ends_with("{\"InstanceInformationList\":[]}"), "{reply}");
}

#[tokio::test]
async fn a_chunked_body_is_read_as_the_stock_agent_sends_it() {
    let endpoint = Endpoint::start().await;
    let head = endpoint.signed("AmazonSSM.ListDocuments", b"{}");
    let request = format!("{head}transfer-encoding: chunked\r\n\r\n1\r\n{{\r\n1\r\n}}\r\n0\r\n\r\n");
    let reply = endpoint.exchange(request.as_bytes()).await;
    assert!(reply.starts_with("HTTP/1.1 200 OK"), "{reply}");
}

#[tokio::test]
async fn errors_name_their_type_in_header_and_body() {
    let endpoint = Endpoint::start().await;
    for (target, body, code, text) in [
        (
            "AmazonSSM.ListDocuments",
            "{",
            "SerializationException",
            "cannot be read",
        ),
        (
            "AmazonSSM.CreateMaintenanceWindow",
            "{}",
            "UnknownOperationException",
            "does not implement",
        ),
        (
            "AmazonSSM.GetPrameter",
            "{}",
            "UnknownOperationException",
            "there is no operation GetPrameter",
        ),
        ("", "{}", "UnknownOperationException", "X-Amz-Target"),
        (
            "AmazonSSM.CreateActivation",
            "{}",
            "ValidationException",
            "'iamRole'",
        ),
        (
            "AmazonSSM.GetDocument",
            "{\"Name\":\"absent\"}",
            "InvalidDocument",
            "absent",
        ),
    ] {
        let reply = endpoint.call(target, body).await;
        assert!(reply.starts_with("HTTP/1.1 400 "), "{reply}");
        assert!(
            reply.contains(&format!("x-amzn-errortype: {code}\r\n")),
            "{reply}"
        );
        assert!(
            reply.contains(&format!("\"__type\":\"{code}\"")) && reply.contains(text),
            "{reply}"
        );
    }
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_without_being_read() {
    let endpoint = Endpoint::start().await;
    let head = endpoint.signed("AmazonSSM.ListDocuments", b"{}");
    let body = " ".repeat(MOST_BODY_BYTES + 1);
    let reply = endpoint
        .exchange(format!("{head}content-length: {}\r\n\r\n{body}", body.len()).as_bytes())
        .await;
    assert!(reply.starts_with("HTTP/1.1 413 "), "{reply}");
    // One byte less is only refused for what it is.
    let body = " ".repeat(MOST_BODY_BYTES);
    let reply = endpoint
        .exchange(format!("{head}content-length: {}\r\n\r\n{body}", body.len()).as_bytes())
        .await;
    assert!(reply.contains("InvalidSignatureException"), "{reply}");
}

#[tokio::test]
async fn what_is_no_request_of_ours_harms_nobody_else() {
    let endpoint = Endpoint::start().await;
    let mut plain = TcpStream::connect(endpoint.address).await.unwrap();
    plain.write_all(b"GET /healthz HTTP/1.1\r\n\r\n").await.unwrap();
    let mut ignored = Vec::new();
    let _closed = plain.read_to_end(&mut ignored).await;
    let reply = endpoint.exchange(b"\x00\xff not http\r\n\r\n").await;
    assert!(reply.is_empty() || reply.starts_with("HTTP/1.1 400"), "{reply}");
    let many = (0..4000)
        .map(|index| format!("x-{index}: 0123456789\r\n"))
        .collect::<String>();
    let reply = endpoint
        .exchange(format!("GET / HTTP/1.1\r\n{many}\r\n").as_bytes())
        .await;
    assert!(reply.is_empty() || reply.starts_with("HTTP/1.1 431"), "{reply}");
    let reply = endpoint
        .exchange(b"DELETE /elsewhere HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        .await;
    assert!(reply.starts_with("HTTP/1.1 404"), "{reply}");
    let reply = endpoint
        .exchange(b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        .await;
    assert!(
        reply.starts_with("HTTP/1.1 200") && reply.ends_with("ok\n"),
        "{reply}"
    );
    let reply = endpoint
        .exchange(b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        .await;
    assert!(reply.contains("moorline_connections 1"), "{reply}");
}

#[tokio::test]
async fn a_request_under_way_is_answered_after_the_process_was_asked_to_stop() {
    let endpoint = Endpoint::start().await;
    let mut tls = endpoint.connect().await;
    let head = endpoint.signed("AmazonSSM.ListDocuments", b"{}");
    tls.write_all(format!("{head}content-length: 2\r\n\r\n{{").as_bytes())
        .await
        .unwrap();
    // The first half must have been read, or the connection would count as idle.
    let counted = || {
        endpoint
            .test
            .app
            .metrics
            .render()
            .contains("moorline_requests_under_way 1")
    };
    while !counted() {
        tokio::task::yield_now().await;
    }
    endpoint.stop.send(true).unwrap();
    tls.write_all(b"}").await.unwrap();
    let mut reply = Vec::new();
    let _read = tls.read_to_end(&mut reply).await;
    assert!(reply.starts_with(b"HTTP/1.1 200 OK"));
    endpoint.serving.await.unwrap();
}

/// What a node may still sign with that the endpoint does not know, or not any more.
fn of_no_node(endpoint: &Endpoint, issued_at: u64) -> Credentials {
    let node = crate::test_support::node_id(9);
    let issued = endpoint.test.app.keys.role_credentials(&node, 1, issued_at);
    Credentials {
        access_key_id: issued.access_key_id,
        secret_access_key: issued.secret_access_key,
        session_token: Some(issued.session_token),
    }
}

#[tokio::test]
async fn a_poll_of_a_node_that_is_not_known_any_more_is_refused_when_it_ends_and_not_before() {
    let endpoint = Endpoint::start().await;
    let now = endpoint.test.now();
    let deregistered = of_no_node(&endpoint, now);
    let late = of_no_node(&endpoint, now - ROLE_CREDENTIALS_LIFETIME_MILLIS);
    let body = r#"{"Destination":"mi-00000000000000009","MessagesRequestId":"0123456789abcdef"}"#;
    let target = "EC2WindowsMessageDeliveryService.GetMessages";
    let polls = async {
        tokio::join!(
            endpoint.call_by(&deregistered, target, body),
            endpoint.call_by(&late, target, body),
        )
    };
    let end = async {
        while endpoint.test.app.polls.refusals_held() < 2 {
            tokio::task::yield_now().await;
        }
        // whoever asks for anything else is told at once
        let told = endpoint
            .call_by(&deregistered, "AmazonSSM.ListInstanceAssociations", "{}")
            .await;
        assert!(told.contains("AccessDeniedException"), "{told}");
        endpoint.test.app.polls.stop();
    };
    let both = timeout(Duration::from_secs(10), async { tokio::join!(polls, end) });
    let ((deregistered, late), ()) = both.await.expect("the polls are held and then refused");
    assert!(deregistered.contains("AccessDeniedException"), "{deregistered}");
    assert!(late.contains("ExpiredTokenException"), "{late}");
}

#[tokio::test]
async fn large_bodies_on_the_channel_paths_take_places_too() {
    let endpoint = Endpoint::start().await;
    let mut connections = Vec::new();
    let paths = [
        "/v1/transcript/admin-0123456789abcdef0",
        "/v1/transcript/admin-0123456789abcdef1",
        "/",
    ];
    for path in paths {
        let mut tls = endpoint.connect().await;
        let half = " ".repeat(20 * 1024);
        let head = format!("POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: 40960\r\n\r\n{half}");
        tls.write_all(head.as_bytes()).await.unwrap();
        connections.push(tls);
    }
    let held = |count| {
        let bodies = &endpoint.test.app.bodies;
        timeout(Duration::from_secs(20), async move {
            while bodies.large_held() != count {
                tokio::task::yield_now().await;
            }
        })
    };
    held(paths.len()).await.expect("every large body takes a place");
    drop(connections);
    held(0).await.expect("the places are given back");
}

/// Whether the endpoint speaks with one more connection.
async fn is_let_in(endpoint: &Endpoint) -> bool {
    let tcp = TcpStream::connect(endpoint.address).await.unwrap();
    endpoint
        .connector
        .connect(HOST.try_into().unwrap(), tcp)
        .await
        .is_ok()
}

#[tokio::test]
async fn an_address_has_a_bounded_number_of_connections_that_show_no_signature() {
    let endpoint = Endpoint::start_with(2).await;
    let _silent = endpoint.connect().await;
    let mut known = endpoint.connect().await;
    assert!(!is_let_in(&endpoint).await);
    let head = endpoint.signed("AmazonSSM.ListDocuments", b"{}");
    let request = format!(
        "{}content-length: 2\r\n\r\n{{}}",
        head.replace("connection: close\r\n", "")
    );
    known.write_all(request.as_bytes()).await.unwrap();
    let mut start = [0; 15];
    known.read_exact(&mut start).await.unwrap();
    assert_eq!(&start, b"HTTP/1.1 200 OK");
    // It stays open, and counts no longer.
    let _newer = endpoint.connect().await;
    assert!(!is_let_in(&endpoint).await);
}

#[tokio::test]
async fn a_channel_counts_as_a_newcomer_until_its_token_is_redeemed() {
    let endpoint = Endpoint::start_with(1).await;
    let node = endpoint.test.register_node(1, &[]).await;
    let url = format!("wss://{HOST}/v1/control-channel/{node}");
    let tls = endpoint.connect().await;
    let (mut channel, _) = tokio_tungstenite::client_async(url, tls).await.unwrap();
    assert!(!is_let_in(&endpoint).await);
    let grant = ChannelGrant::ControlChannel { node };
    let token = endpoint.test.app.keys.channel_token(&grant, endpoint.test.now());
    let open = serde_json::json!({
        "MessageSchemaVersion": "1.0", "RequestId": "r", "TokenValue": token,
        "AgentVersion": "1", "PlatformType": "linux",
    });
    channel.send(Message::text(open.to_string())).await.unwrap();
    let admitted = async {
        while !is_let_in(&endpoint).await {
            tokio::task::yield_now().await;
        }
    };
    timeout(Duration::from_secs(20), admitted)
        .await
        .expect("the channel gives its place back");
}

#[tokio::test]
async fn a_connection_that_asks_for_nothing_is_closed_before_one_that_did() {
    let endpoint = Endpoint::start().await;
    let mut silent = endpoint.connect().await;
    let mut speaking = endpoint.connect().await;
    speaking
        .write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .unwrap();
    let mut byte = [0];
    while byte != *b"k" {
        speaking.read_exact(&mut byte).await.unwrap();
    }
    tokio::time::pause();
    let ended = timeout(Duration::from_secs(20), silent.read(&mut byte)).await;
    assert!(matches!(ended, Ok(Ok(0) | Err(_))), "{ended:?}");
    let mut rest = Vec::new();
    assert!(
        timeout(Duration::from_secs(20), speaking.read_to_end(&mut rest))
            .await
            .is_err()
    );
}

#[tokio::test]
async fn metrics_are_for_this_machine_and_for_administrators() {
    let test = TestApp::new().await;
    test.add_access_key("AKIAOPERATOR", "secret").await;
    let node = test.register_node(1, &[]).await;
    let of_node = test.app.keys.role_credentials(&node, 1, test.now());
    let credentials = |id: &str, secret: &str, token: Option<String>| Credentials {
        access_key_id: id.to_owned(),
        secret_access_key: secret.to_owned(),
        session_token: token,
    };
    let of_node = credentials(
        &of_node.access_key_id,
        &of_node.secret_access_key,
        Some(of_node.session_token.clone()),
    );
    let head = |credentials: Option<Credentials>| {
        let mut request = Request::get("/metrics").header("host", HOST);
        if let Some(credentials) = credentials {
            let signable = SignableRequest {
                method: "GET",
                uri: "/metrics",
                headers: &[("host", HOST)],
                body: b"",
            };
            let scope = SigningScope {
                region: "us-east-1",
                service: "ssm",
                unix_millis: test.now(),
            };
            for (name, value) in sign(&signable, &scope, &credentials) {
                request = request.header(name.as_str(), value.as_str());
            }
        }
        request.body(()).unwrap().into_parts().0
    };
    let elsewhere: IpAddr = [192, 0, 2, 1].into();
    let operator = credentials("AKIAOPERATOR", "secret", None);
    let wrong = credentials("AKIAOPERATOR", "guess", None);
    for (signed_by, peer, expected) in [
        (None, [127, 0, 0, 1].into(), true),
        (None, "::ffff:127.0.0.1".parse().unwrap(), true),
        (None, elsewhere, false),
        (Some(wrong), elsewhere, false),
        (Some(of_node), elsewhere, false),
        (Some(operator), elsewhere, true),
    ] {
        assert_eq!(may_see_metrics(&test.app, &head(signed_by), peer).await, expected);
    }
}

#[test]
fn a_host_that_cannot_stand_in_a_url_is_not_used() {
    let read = |value: &'static str| {
        let mut headers = http::HeaderMap::new();
        headers.insert(header::HOST, HeaderValue::from_static(value));
        host(&headers)
    };
    assert_eq!(read("[::1]:8443").as_deref(), Some("[::1]:8443"));
    assert_eq!(read("a.test/path"), None);
    assert_eq!(read("a b"), None);
    assert_eq!(read(""), None);
}
