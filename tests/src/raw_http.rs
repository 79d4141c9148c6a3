//! One HTTP request written byte by byte: the stock agent's headers in its order, chunked bodies, and what no client
//! library would send.

use std::sync::Arc;

use anyhow::{Context, Result};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::TlsConnector;

use crate::{Endpoint, wait::PATIENCE};

/// An answer.
#[derive(Debug, Clone)]
pub struct RawResponse {
    pub status: u16,
    /// Head and body as they came.
    pub text: String,
}

impl RawResponse {
    /// The body, when it is JSON.
    ///
    /// # Errors
    /// It is not.
    pub fn json(&self) -> Result<serde_json::Value> {
        let (_, body) = self
            .text
            .split_once("\r\n\r\n")
            .context("the answer has no body")?;
        serde_json::from_str(body).with_context(|| format!("the answer is not JSON: {}", self.text))
    }
}

/// Writes `request` on a new TLS connection and reads until the endpoint closes it. The request should say
/// `Connection: close`.
///
/// # Errors
/// No answer came.
pub async fn raw_request(endpoint: &Endpoint, request: &[u8]) -> Result<RawResponse> {
    let exchange = async {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(endpoint.ca())?)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let address = endpoint.address();
        let tcp = TcpStream::connect(address).await?;
        let name = ServerName::from(address.ip());
        let mut stream = TlsConnector::from(Arc::new(config)).connect(name, tcp).await?;
        stream.write_all(request).await?;
        stream.flush().await?;
        let mut answer = Vec::new();
        // an endpoint may close without TLS's own farewell: what came before counts
        if let Err(error) = stream.read_to_end(&mut answer).await
            && answer.is_empty()
        {
            return Err(error.into());
        }
        let text = String::from_utf8_lossy(&answer).into_owned();
        let status = text.split(' ').nth(1).and_then(|status| status.parse().ok());
        Ok(RawResponse {
            status: status.with_context(|| format!("this is no HTTP answer: {text:?}"))?,
            text,
        })
    };
    timeout(PATIENCE, exchange)
        .await
        .context("the endpoint did not answer")?
}
