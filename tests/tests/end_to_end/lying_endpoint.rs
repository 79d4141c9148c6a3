//! An endpoint in the wrong hands, and the operator who signs: it answers as it likes, and gets nothing signed that was
//! not asked for.

use std::{
    fs::File,
    io::Write as _,
    path::Path,
    sync::{Arc, Mutex},
};

use anyhow::{Context, Result, ensure};
use moorline_protocol::signed_command::SignedCommand;
use moorline_tests::Cli;
use rustls::pki_types::PrivatePkcs8KeyDer;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

const NODE: &str = "mi-0123456789abcdef0";

/// Gives for every document that it is asked for the same one, under a name of its own choice, and keeps what it is
/// asked; it goes with its handle.
struct LyingEndpoint {
    cli: Cli,
    calls: Arc<Mutex<Vec<Call>>>,
    serving: JoinHandle<Result<()>>,
    dir: tempfile::TempDir,
}

/// An operation and its input.
type Call = (String, Value);

impl LyingEndpoint {
    async fn start(name: &str, content: &Value) -> Result<Self> {
        let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()])?;
        let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key.into())?;
        let dir = tempfile::tempdir()?;
        let authority = dir.path().join("ca.pem");
        File::create(&authority)?.write_all(made.cert.pem().as_bytes())?;
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let cli = Cli::without_endpoint()
            .through(&format!("https://{}", listener.local_addr()?))
            .with("AWS_CA_BUNDLE", path(&authority)?)
            .with("AWS_ACCESS_KEY_ID", "an-id")
            .with("AWS_SECRET_ACCESS_KEY", "a-secret")
            .with("AWS_DEFAULT_REGION", "us-east-1");
        let document = json!({"Name": name, "Content": content.to_string()});
        let calls = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&calls);
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let serving = tokio::spawn(async move {
            loop {
                let (tcp, _) = listener.accept().await?;
                let mut tls = acceptor.accept(tcp).await?;
                let call = read(&mut tls).await?;
                let (status, body) = match call.0.as_str() {
                    "GetDocument" => ("200 OK", document.to_string()),
                    _ => ("400 Bad Request", r#"{"__type": "Enough"}"#.to_owned()),
                };
                noted.lock().expect("no test panics with it").push(call);
                let length = body.len();
                let answer = format!(
                    "HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
                );
                tls.write_all(answer.as_bytes()).await?;
                tls.shutdown().await?;
            }
        });
        Ok(Self {
            cli,
            calls,
            serving,
            dir,
        })
    }

    /// Runs `moorline` with a key to sign with, and returns what it said and what was asked of the endpoint.
    async fn asked(&self, words: &[&str]) -> Result<(String, Vec<Call>)> {
        let key = self.dir.path().join(format!("{}.key", words[0]));
        self.cli.run(&["key", "new", path(&key)?]).await?.success()?;
        let (command, rest) = words.split_first().context("a command")?;
        let words = [&[*command, "--sign-with", path(&key)?], rest].concat();
        let ran = self.cli.run(&words).await?;
        ensure!(ran.code != 0, "{ran:?}");
        let calls = std::mem::take(&mut *self.calls.lock().expect("no test panics with it"));
        Ok((ran.stderr, calls))
    }
}

impl Drop for LyingEndpoint {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

fn path(path: &Path) -> Result<&str> {
    path.to_str().context("a path")
}

async fn read(tls: &mut TlsStream<TcpStream>) -> Result<Call> {
    let mut request = Vec::new();
    loop {
        ensure!(tls.read_buf(&mut request).await? > 0, "half a request");
        let text = String::from_utf8_lossy(&request);
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            continue;
        };
        let header = |name: &str| {
            let mut lines = head.lines().filter_map(|line| line.split_once(": "));
            lines.find_map(|(header, value)| header.eq_ignore_ascii_case(name).then(|| value.to_owned()))
        };
        if let Ok(input) = serde_json::from_str(body) {
            let target = header("x-amz-target").context("an operation")?;
            let (_, operation) = target.split_once('.').context("an operation")?;
            return Ok((operation.to_owned(), input));
        }
    }
}

#[tokio::test]
async fn an_endpoint_that_gives_another_document_than_was_asked_for_gets_nothing_signed() -> Result<()> {
    let content = json!({"schemaVersion": "2.2", "mainSteps": [{"action": "aws:runShellScript", "name": "s",
        "inputs": {"runCommand": ["true"]}}]});
    for (words, asked) in [
        (&["run", "--node", NODE, "--document", "Mine"][..], "Mine"),
        (&["run", "--node", NODE, "--", "true"], "AWS-RunShellScript"),
        (
            &["shell", NODE, "--document", "arn:aws:ssm:r:1:document/Mine"],
            "Mine",
        ),
        (&["shell", NODE], "SSM-SessionManagerRunShell"),
        (&["forward", NODE, "0:80"], "AWS-StartPortForwardingSession"),
        (&["ssh-proxy", NODE, "22"], "AWS-StartSSHSession"),
    ] {
        let endpoint = LyingEndpoint::start("Other", &content).await?;
        let (said, calls) = endpoint.asked(words).await?;
        let told = format!("asked for the document {asked} and gave Other: nothing is signed");
        ensure!(said.contains(&told), "{words:?}: {said}");
        ensure!(
            calls.iter().all(|(operation, _)| operation == "GetDocument"),
            "{calls:?}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn a_document_that_is_named_by_its_arn_is_signed_under_its_name() -> Result<()> {
    let content = json!({"schemaVersion": "2.2", "mainSteps": [{"action": "aws:runShellScript", "name": "s",
        "inputs": {"runCommand": ["true"]}}]});
    let endpoint = LyingEndpoint::start("Mine", &content).await?;
    let words = [
        "run",
        "--node",
        NODE,
        "--document",
        "arn:aws:ssm:r:1:document/Mine",
    ];
    let (said, calls) = endpoint.asked(&words).await?;
    let sent = calls.iter().find(|(operation, _)| operation == "SendCommand");
    let (_, input) = sent.with_context(|| said.clone())?;
    let token = input["MoorlineSignature"].as_str().context("a signature")?;
    let signed = SignedCommand::parse(token)?;
    ensure!(signed.statement().document_name == "Mine", "{signed:?}");
    Ok(())
}
