//! One TCP connection with TLS.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    os::fd::AsFd,
    sync::Arc,
    time::Duration,
};

use nix::sys::socket::{setsockopt, sockopt};
use socket2::SockRef;
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::{Endpoint, Trust};

/// How long TCP and TLS may take to stand.
const DIAL_TIMEOUT: Duration = Duration::from_secs(15);
/// How long one of a name's addresses may take: a path that swallows packets must not hide the others.
const ADDRESS_TIMEOUT: Duration = Duration::from_secs(4);
/// Sent data that is not acknowledged for this long ends the connection, so that a silent loss of the path
/// (a NAT or a route that is gone) is noticed.
const USER_TIMEOUT: Duration = Duration::from_secs(30);

/// What waits in the kernel and is not yet on the network: what is written later should not wait behind megabytes.
const UNSENT_BYTES: u32 = 128 * 1024;

/// Why no connection stands.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    #[error("failed to connect to {endpoint}")]
    Connect {
        endpoint: String,
        #[source]
        source: io::Error,
    },
    #[error("failed to agree on TLS with {endpoint}")]
    Tls {
        endpoint: String,
        #[source]
        source: io::Error,
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

/// One TCP connection without TLS, for downloads whose author wants no more.
pub(crate) async fn dial_plain(endpoint: &Endpoint) -> Result<TcpStream, DialError> {
    match timeout(DIAL_TIMEOUT, reach(endpoint)).await {
        Ok(Ok(tcp)) => Ok(tcp),
        Ok(Err(source)) => Err(DialError::Connect {
            endpoint: endpoint.url(),
            source,
        }),
        Err(_) => Err(DialError::Timeout {
            endpoint: endpoint.url(),
        }),
    }
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
    SockRef::from(&tcp)
        .set_tcp_notsent_lowat(UNSENT_BYTES)
        .map_err(failed)?;
    let address = tcp.peer_addr().map_err(failed)?.ip();
    let tls = TlsConnector::from(Arc::clone(&trust.0))
        .connect(endpoint.server_name().clone(), tcp)
        .await
        .map_err(|source| DialError::Tls {
            endpoint: endpoint.url(),
            source,
        })?;
    // only who has proven to be the endpoint is worth remembering
    endpoint.addresses().worked(address);
    Ok(tls)
}

/// The address that worked a moment ago, else the first of the host that answers.
async fn reach(endpoint: &Endpoint) -> io::Result<TcpStream> {
    if let Ok(address) = endpoint.host().parse::<IpAddr>() {
        return reach_address(SocketAddr::new(address, endpoint.port())).await;
    }
    let known = endpoint.addresses();
    if let Some(address) = known.fresh() {
        match reach_address(SocketAddr::new(address, endpoint.port())).await {
            Ok(tcp) => return Ok(tcp),
            Err(error) => {
                tracing::debug!(%error, %address, "the address that worked does not");
                known.not_fresh();
            }
        }
    }
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in known.candidates(endpoint.host(), endpoint.port()).await? {
        match reach_address(address).await {
            Ok(tcp) => return Ok(tcp),
            Err(error) => last = error,
        }
    }
    Err(last)
}

async fn reach_address(address: SocketAddr) -> io::Result<TcpStream> {
    timeout(ADDRESS_TIMEOUT, TcpStream::connect(address))
        .await
        .unwrap_or_else(|_| {
            Err(io::Error::new(
                io::ErrorKind::TimedOut,
                format!("{address} does not answer"),
            ))
        })
}
