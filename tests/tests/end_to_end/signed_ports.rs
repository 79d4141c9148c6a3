//! Forwarded ports of nodes that open signed sessions only.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use moorline_protocol::{
    document::{Digest, PREFERENCES_DOCUMENT, SessionDocument, complete_session},
    signed_command::{Purpose, SignedCommand, SigningKey, Statement},
};
use moorline_tests::{Forward, PATIENCE, Site};
use serde_json::{Map, Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    task::JoinHandle,
    time::timeout,
};

use crate::signed_commands::{Fleet, begin_and_end, ensure_ended};

/// A server on the node that gives back what it gets, until it is dropped.
struct Echo {
    port: u16,
    serving: JoinHandle<std::io::Result<()>>,
}

impl Echo {
    async fn start() -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let port = listener.local_addr()?.port();
        let serving = tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await?;
                tokio::spawn(async move {
                    let (mut reader, mut writer) = stream.split();
                    tokio::io::copy(&mut reader, &mut writer).await
                });
            }
        });
        Ok(Self { port, serving })
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

#[tokio::test]
async fn ports_are_forwarded_by_signed_sessions_and_by_no_others() -> Result<()> {
    let fleet = Fleet::with_signer("sessions = true\n").await?;
    let (cli, node) = (fleet.site.cli(), fleet.site.node.id());
    let echo = Echo::start().await?;
    let (port, spec) = (echo.port.to_string(), format!("0:{}", echo.port));
    let strangers = fleet.site.node.dir().join("stranger.key");
    let strangers = strangers.to_str().context("a path")?;
    cli.run(&["key", "new", strangers]).await?.success()?;
    for words in [["forward", node, &spec], ["ssh-proxy", node, &port]] {
        for (signed, reason) in [
            (&[][..], "the session is not signed"),
            (
                &["--sign-with", strangers],
                "no signer of this policy signed the session",
            ),
        ] {
            let words = [&words[..], signed].concat();
            let refused = timeout(PATIENCE, cli.run_with_input(&words, b"hello\n")).await??;
            ensure!(
                refused.code != 0 && refused.stderr.contains(reason) && !refused.stdout.contains("hello"),
                "{words:?}: {refused:?}"
            );
        }
    }

    let signed = ["--sign-with", fleet.key.as_str()];
    let forward = Forward::start_with(&cli, node, &spec, &signed).await?;
    let mut stream = forward.connect().await?;
    stream.write_all(b"through a port").await?;
    let mut back = [0; 14];
    timeout(PATIENCE, stream.read_exact(&mut back)).await??;
    ensure!(&back == b"through a port", "{back:?}");

    let words = [&["ssh-proxy", node, &port, "--reason", "to look"], &signed[..]].concat();
    let ran = timeout(PATIENCE, cli.run_with_input(&words, b"through the proxy")).await??;
    ensure!(ran.code == 0 && ran.stdout == "through the proxy", "{ran:?}");
    Ok(())
}

#[tokio::test]
async fn a_signature_for_one_port_leads_to_no_other() -> Result<()> {
    const DOCUMENT: &str = "AWS-StartPortForwardingSession";
    let fleet = Fleet::with_signer("sessions = true\n").await?;
    let (site, echo) = (&fleet.site, Echo::start().await?);
    let port = echo.port.to_string();
    let key = SigningKey::read(&std::fs::read_to_string(&fleet.key)?)?;
    let content = fetched(site, DOCUMENT).await?;
    let document = SessionDocument::parse(&content)?;
    let given = [("portNumber".to_owned(), vec![port.clone()])].into();
    let parameters = document.parameters.resolve_lists(&given)?.as_map().clone();
    let preferences = SessionDocument::parse(&fetched(site, PREFERENCES_DOCUMENT).await?)?;
    let own = document.resolved_inputs(&parameters)?;
    let session_type = document.session_type;
    let sent = complete_session(content, &own, session_type, &preferences.plan(&Map::new())?);
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let statement = Statement {
        document_name: DOCUMENT.to_owned(),
        document: Digest::of(&sent),
        parameters: Digest::of_map(&parameters),
        nodes: [site.node.id().parse()?].into(),
        nonce: *uuid::Uuid::new_v4().as_bytes(),
        not_before: now,
        expires: now + 300,
        reason: None,
    };
    let token = SignedCommand::sign(statement, Purpose::Session, &key)?.token();
    let request = |document: &str, parameters: Value| {
        json!({"Target": site.node.id(), "DocumentName": document, "Parameters": parameters,
            "MoorlineSignature": token})
    };
    let remote = "AWS-StartPortForwardingSessionToRemoteHost";
    for (document, parameters, reason) in [
        (DOCUMENT, json!({"portNumber": ["22"]}), "for other parameters"),
        (
            remote,
            json!({"portNumber": [port], "host": ["127.0.0.1"]}),
            "for another document",
        ),
    ] {
        ensure_ended(site, &request(document, parameters), reason).await?;
    }
    let signed = request(DOCUMENT, json!({"portNumber": [port]}));
    begin_and_end(site, &signed).await?;
    ensure_ended(site, &signed, "has been begun before").await
}

async fn fetched(site: &Site, name: &str) -> Result<Value> {
    let got = site.api().call("GetDocument", json!({"Name": name})).await?;
    Ok(serde_json::from_str(got["Content"].as_str().context("content")?)?)
}
