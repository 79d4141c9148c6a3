//! What a port forwarded by nothing but TLS and copying would do: a node's end and a client's end, each with one TLS
//! connection to a relay between them that knows no protocol.

use std::sync::Arc;

use anyhow::{Context, Result};
use rcgen::generate_simple_self_signed;
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    pki_types::{PrivatePkcs8KeyDer, ServerName},
};
use tokio::{
    io::copy_bidirectional_with_sizes,
    net::{TcpListener, TcpStream},
};
use tokio_rustls::{TlsAcceptor, TlsConnector};

const NAME: &str = "relay.test";
/// What is copied at once: as large as a frame of ours.
const PIECE_BYTES: usize = 32 * 1024;

/// The local port from which connections lead to `server`. It serves as long as the process lives.
pub(crate) async fn start(server: u16) -> Result<u16> {
    let made = generate_simple_self_signed(vec![NAME.to_owned()])?;
    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key.into())?;
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone())?;
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connector = TlsConnector::from(Arc::new(config));

    let relay = TcpListener::bind(("127.0.0.1", 0)).await?;
    let relay_port = relay.local_addr()?.port();
    let local = TcpListener::bind(("127.0.0.1", 0)).await?;
    let port = local.local_addr()?.port();
    tokio::spawn(async move {
        while let Ok((client, _)) = local.accept().await {
            let Ok(of_client) = TcpStream::connect(("127.0.0.1", relay_port)).await else {
                return;
            };
            let Ok((at_relay, _)) = relay.accept().await else {
                return;
            };
            let Ok(of_node) = TcpStream::connect(("127.0.0.1", relay_port)).await else {
                return;
            };
            let Ok((also_at_relay, _)) = relay.accept().await else {
                return;
            };
            tokio::spawn(pass_on(acceptor.clone(), at_relay, also_at_relay));
            tokio::spawn(carry(connector.clone(), of_client, client));
            let connector = connector.clone();
            tokio::spawn(async move {
                let to_server = TcpStream::connect(("127.0.0.1", server)).await?;
                carry(connector, of_node, to_server).await
            });
        }
    });
    Ok(port)
}

/// The relay: one TLS connection's bytes are the other's.
async fn pass_on(acceptor: TlsAcceptor, one: TcpStream, other: TcpStream) -> Result<()> {
    let (one, other) = tokio::try_join!(acceptor.accept(one), acceptor.accept(other))?;
    let (mut one, mut other) = (one, other);
    copy_bidirectional_with_sizes(&mut one, &mut other, PIECE_BYTES, PIECE_BYTES).await?;
    Ok(())
}

/// One end: what is plain here is TLS there.
async fn carry(connector: TlsConnector, to_relay: TcpStream, mut plain: TcpStream) -> Result<()> {
    let name = ServerName::try_from(NAME).context("the relay's name")?;
    let mut tls = connector.connect(name, to_relay).await?;
    copy_bidirectional_with_sizes(&mut tls, &mut plain, PIECE_BYTES, PIECE_BYTES).await?;
    Ok(())
}
