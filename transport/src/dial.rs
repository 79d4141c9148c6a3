//! One TCP connection with TLS.

use std::{os::fd::AsFd, sync::Arc, time::Duration};

use nix::sys::socket::{setsockopt, sockopt};
use tokio::{
    net::{TcpStream, lookup_host},
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::{Endpoint, Trust};

/// How long TCP and TLS may take to stand.
const DIAL_TIMEOUT: Duration = Duration::from_secs(15);
/// How long one of a name's addresses may take: a path that swallows packets must not hide the others.
const ADDRESS_TIMEOUT: Duration = Duration::from_secs(4);
/// Sent data that is not acknowledged for this long ends the connection, so that a silent loss of the path
/// (a NAT or a route that is gone) is noticed.
const USER_TIMEOUT: Duration = Duration::from_secs(30);

/// Why no connection stands.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    #[error("failed to connect to {endpoint}")]
    Connect {
        endpoint: String,
        #[source]
        source: std::io::Error,
    },
    #[error("failed to agree on TLS with {endpoint}")]
    Tls {
        endpoint: String,
        #[source]
        source: std::io::Error,
    },
    #[error("{endpoint} did not answer within {} s", DIAL_TIMEOUT.as_secs())]
    Timeout { endpoint: String },
}

pub(crate) async fn dial(endpoint: &Endpoint, trust: &Trust) -> Result<TlsStream<TcpStream>, DialError> {
    timeout(DIAL_TIMEOUT, connect(endpoint, trust))
        .await
        .unwrap_or_else(|_| {
            Err(DialError::Timeout {
                endpoint: endpoint.url(),
            })
        })
}

async fn connect(endpoint: &Endpoint, trust: &Trust) -> Result<TlsStream<TcpStream>, DialError> {
    let failed = |source| DialError::Connect {
        endpoint: endpoint.url(),
        source,
    };
    let tcp = reach(endpoint).await.map_err(failed)?;
    tcp.set_nodelay(true).map_err(failed)?;
    let user_timeout_ms = u32::try_from(USER_TIMEOUT.as_millis()).unwrap_or(u32::MAX);
    setsockopt(&tcp.as_fd(), sockopt::TcpUserTimeout, &user_timeout_ms).map_err(|e| failed(e.into()))?;
    TlsConnector::from(Arc::clone(&trust.0))
        .connect(endpoint.server_name().clone(), tcp)
        .await
        .map_err(|source| DialError::Tls {
            endpoint: endpoint.url(),
            source,
        })
}

/// The first address of the host that answers.
async fn reach(endpoint: &Endpoint) -> std::io::Result<TcpStream> {
    let mut last = std::io::Error::new(std::io::ErrorKind::NotFound, "the name has no address");
    for address in lookup_host((endpoint.host(), endpoint.port())).await? {
        match timeout(ADDRESS_TIMEOUT, TcpStream::connect(address)).await {
            Ok(Ok(tcp)) => return Ok(tcp),
            Ok(Err(error)) => last = error,
            Err(_) => {
                last =
                    std::io::Error::new(std::io::ErrorKind::TimedOut, format!("{address} does not answer"));
            }
        }
    }
    Err(last)
}
