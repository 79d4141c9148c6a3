//! What a port session leads to: the node itself or a host that the node sees, and how it is dialled.
//!
//! A name is resolved, every address that it has is checked, and exactly the checked addresses are dialled; there is
//! no second look that could find another one.

use std::{
    fmt, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use moorline_protocol::document::member;
use moorline_transport::Lookup;
use serde_json::{Map, Value};
use tokio::{
    net::TcpStream,
    time::{Duration, timeout},
};

use super::policy::ForwardPolicy;
use crate::policy::{Destination, Refusal};

/// For a name server that does not answer.
const RESOLVE_LIMIT: Duration = Duration::from_secs(10);
/// For each address.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// Addresses of one name that are tried.
const MAX_ADDRESSES: usize = 8;
/// DNS names have 253 characters at most.
const MAX_HOST_BYTES: usize = 255;
/// `type` of a session whose client listens on a port.
const LOCAL_PORT_FORWARDING: &str = "LocalPortForwarding";

/// Why the properties of a session lead nowhere.
#[derive(Debug, thiserror::Error)]
pub(in crate::session) enum TargetError {
    #[error("portNumber {0:?} of the session is not a port: a number from 1 to 65535 is needed")]
    Port(String),
    #[error("host of the session has {0} characters, which no host name has")]
    Host(usize),
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum DialError {
    // as the stock agent says it
    #[error("Forwarding to IP address {0} is forbidden.")]
    Forbidden(IpAddr),
    #[error(transparent)]
    Refused(Refusal),
    #[error("the node finds no address of {host}: {source}")]
    Resolve { host: String, source: io::Error },
    #[error("{host} has no address")]
    NoAddress { host: String },
    #[error("{address}: {source}")]
    Connect { address: SocketAddr, source: io::Error },
}

impl DialError {
    /// Whether it is not to be reached, other than cannot be.
    pub(super) fn is_forbidden(&self) -> bool {
        matches!(self, Self::Forbidden(_) | Self::Refused(_))
    }
}

/// Where connections go.
#[derive(Debug)]
pub(in crate::session) struct Target {
    /// Empty: this node.
    host: String,
    port: u16,
    policy: ForwardPolicy,
    lookup: Lookup,
    /// The client listens on a port; otherwise its standard input and output are the connection.
    pub(super) is_local_forward: bool,
}

/// As it was asked for.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = if self.host.is_empty() {
            "localhost"
        } else {
            &self.host
        };
        match host.contains(':') {
            true => write!(f, "[{host}]:{}", self.port),
            false => write!(f, "{host}:{}", self.port),
        }
    }
}

impl Target {
    /// # Errors
    /// The properties name no port, or what cannot be a host.
    pub(in crate::session) fn new(
        properties: &Map<String, Value>,
        policy: ForwardPolicy,
    ) -> Result<Self, TargetError> {
        let port = text(properties, "portNumber");
        let host = text(properties, "host");
        if host.len() > MAX_HOST_BYTES {
            return Err(TargetError::Host(host.len()));
        }
        let number = port.trim().parse().ok().filter(|number| *number != 0);
        Ok(Self {
            host: plain_host(&host).to_owned(),
            port: number.ok_or(TargetError::Port(port))?,
            policy,
            lookup: Lookup::default(),
            is_local_forward: text(properties, "type") == LOCAL_PORT_FORWARDING,
        })
    }

    /// As far as it is known without asking anybody.
    pub(in crate::session) fn destination(&self) -> Destination<'_> {
        let own = self.host.is_empty().then_some(IpAddr::V4(Ipv4Addr::LOCALHOST));
        Destination {
            host: &self.host,
            address: own.or_else(|| self.host.parse().ok()),
            port: self.port,
        }
    }

    /// Asks the policy about it, before anything is looked up.
    ///
    /// # Errors
    /// The session may lead there in no case.
    pub(in crate::session) fn foresee(&self) -> Result<(), Refusal> {
        self.policy.foresee(self.destination())
    }

    /// Whether the host is looked at before any connection: a session that may not lead anywhere fails at its start.
    pub(super) fn has_host(&self) -> bool {
        !self.host.is_empty()
    }

    /// The addresses, all of them allowed.
    ///
    /// # Errors
    /// There is none, or one of them is forbidden.
    pub(super) async fn addresses(&self) -> Result<Vec<SocketAddr>, DialError> {
        if self.host.is_empty() {
            return self.own_addresses();
        }
        let addresses = self.resolve().await?;
        for address in &addresses {
            self.check(address.ip())?;
        }
        Ok(addresses)
    }

    /// # Errors
    /// The address is forbidden by the settings, or refused by the policy.
    fn check(&self, address: IpAddr) -> Result<(), DialError> {
        if !self.policy.allows(address) {
            return Err(DialError::Forbidden(address));
        }
        let destination = Destination {
            address: Some(address),
            ..self.destination()
        };
        self.policy.permit(destination).map_err(DialError::Refused)
    }

    /// Of this node, as far as its owner allows them.
    fn own_addresses(&self) -> Result<Vec<SocketAddr>, DialError> {
        let (v4, v6) = (
            IpAddr::from(Ipv4Addr::LOCALHOST),
            IpAddr::from(Ipv6Addr::LOCALHOST),
        );
        let mut addresses = Vec::new();
        let mut refused = DialError::Forbidden(v4);
        for address in [v6, v4] {
            match self.check(address) {
                Ok(()) => addresses.insert(0, SocketAddr::new(address, self.port)),
                Err(error) => refused = error,
            }
        }
        if addresses.is_empty() {
            return Err(refused);
        }
        Ok(addresses)
    }

    async fn resolve(&self) -> Result<Vec<SocketAddr>, DialError> {
        let host = self.host.as_str();
        let failed = |source| DialError::Resolve {
            host: host.to_owned(),
            source,
        };
        let addresses = match timeout(RESOLVE_LIMIT, self.lookup.addresses(host, self.port)).await {
            Ok(found) => found.map_err(failed)?,
            Err(_) => return Err(failed(io::ErrorKind::TimedOut.into())),
        };
        if addresses.is_empty() {
            return Err(DialError::NoAddress {
                host: host.to_owned(),
            });
        }
        Ok(addresses)
    }

    /// Connects to the first address that takes the connection.
    ///
    /// # Errors
    /// None does, or one is forbidden.
    pub(super) async fn dial(&self) -> Result<TcpStream, DialError> {
        let mut last = DialError::NoAddress {
            host: self.host.clone(),
        };
        for address in self.addresses().await?.into_iter().take(MAX_ADDRESSES) {
            let connected = match timeout(CONNECT_LIMIT, TcpStream::connect(address)).await {
                Ok(connected) => connected,
                Err(_) => Err(io::ErrorKind::TimedOut.into()),
            };
            match connected {
                Ok(stream) => {
                    // what was typed does not wait for more
                    if let Err(error) = stream.set_nodelay(true) {
                        tracing::debug!(%error, "a connection holds small pieces back");
                    }
                    return Ok(stream);
                }
                Err(source) => last = DialError::Connect { address, source },
            }
        }
        Err(last)
    }
}

/// The properties as texts, which is what clients read.
pub(in crate::session) fn texts(properties: &Value) -> Map<String, Value> {
    let members = properties.as_object().into_iter().flatten();
    members
        .map(|(name, value)| (name.clone(), Value::String(as_text(value))))
        .collect()
}

fn text(properties: &Map<String, Value>, name: &str) -> String {
    member(properties, name).map(as_text).unwrap_or_default()
}

fn as_text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Without the dot that ends an absolute name where it ends an address, and without the brackets of a URL.
fn plain_host(host: &str) -> &str {
    let host = host.trim();
    let host = host
        .strip_prefix('[')
        .and_then(|inner| inner.strip_suffix(']'))
        .unwrap_or(host);
    match host.strip_suffix('.') {
        Some(bare) if bare.rsplit('.').next().is_some_and(starts_with_digit) => bare,
        _ => host,
    }
}

fn starts_with_digit(label: &str) -> bool {
    label.starts_with(|first: char| first.is_ascii_digit())
}

#[cfg(test)]
mod tests;
