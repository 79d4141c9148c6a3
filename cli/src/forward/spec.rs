//! What `moorline forward` is asked for: `LOCAL:PORT` or `LOCAL:HOST:PORT`.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

/// Where local programs connect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Local {
    /// A port, 0 for any free one, of both loopback addresses.
    Loopback(u16),
    /// A port of one address.
    Address(IpAddr, u16),
    Unix(PathBuf),
}

/// What is forwarded where to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Spec {
    pub(crate) local: Local,
    /// As the node sees it; none: the node itself.
    pub(crate) host: Option<String>,
    pub(crate) port: u16,
}

impl fmt::Display for Local {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Loopback(port) => write!(f, "port {port}"),
            Self::Address(address, port) => write!(f, "{}", SocketAddr::new(*address, *port)),
            Self::Unix(path) => write!(f, "the Unix socket {}", path.display()),
        }
    }
}

const FORMS: &str = "it must be LOCAL:PORT or LOCAL:HOST:PORT, where LOCAL is a port, ADDRESS:PORT or the path of a Unix socket";

impl Spec {
    /// # Errors
    /// What is wrong with it, for the user.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let parts = split(text).ok_or(FORMS)?;
        let (local, remote) = match *parts.as_slice() {
            [path, ref remote @ ..] if path.contains('/') => (Local::Unix(PathBuf::from(path)), remote),
            [port, ref remote @ ..] if is_number(port) => (Local::Loopback(local_port(port)?), remote),
            [address, port, ref remote @ ..] if is_number(port) => {
                (at_address(address, local_port(port)?)?, remote)
            }
            _ => return Err(FORMS.to_owned()),
        };
        let (host, port) = match *remote {
            [port] => (None, port),
            ["", _] => return Err("the host is empty".to_owned()),
            [host, port] => (Some(host.to_owned()), port),
            _ => return Err(FORMS.to_owned()),
        };
        let port = local_port(port)?;
        if port == 0 {
            return Err("the remote port must be from 1 to 65535".to_owned());
        }
        Ok(Self { local, host, port })
    }
}

fn at_address(address: &str, port: u16) -> Result<Local, String> {
    if address == "localhost" {
        return Ok(Local::Loopback(port));
    }
    address
        .parse()
        .map(|address| Local::Address(address, port))
        .map_err(|_| {
            format!("{address:?} is no address of this machine; write 127.0.0.1 or [::1], for example")
        })
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn local_port(text: &str) -> Result<u16, String> {
    text.parse()
        .map_err(|_| format!("{text:?} is no port; a port is a number up to 65535"))
}

/// The parts between colons. Those in brackets, as of an IPv6 address, are one part without them.
fn split(text: &str) -> Option<Vec<&str>> {
    let mut parts = Vec::new();
    let mut rest = text;
    loop {
        let after = if let Some(inner) = rest.strip_prefix('[') {
            let (part, after) = inner.split_once(']')?;
            parts.push(part);
            if after.is_empty() {
                return Some(parts);
            }
            after.strip_prefix(':')?
        } else {
            let Some((part, after)) = rest.split_once(':') else {
                parts.push(rest);
                return Some(parts);
            };
            parts.push(part);
            after
        };
        rest = after;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_is_read() {
        let loopback = |port| Local::Loopback(port);
        let address = |text: &str, port| Local::Address(text.parse().unwrap(), port);
        for (text, local, host, port) in [
            ("8080:80", loopback(8080), None, 80),
            ("0:80", loopback(0), None, 80),
            ("localhost:8080:80", loopback(8080), None, 80),
            ("5432:db.internal:5432", loopback(5432), Some("db.internal"), 5432),
            ("5432:10.0.0.7:5432", loopback(5432), Some("10.0.0.7"), 5432),
            (
                "5432:[2001:db8::7]:5432",
                loopback(5432),
                Some("2001:db8::7"),
                5432,
            ),
            ("127.0.0.2:8080:80", address("127.0.0.2", 8080), None, 80),
            ("[::1]:0:80", address("::1", 0), None, 80),
            ("0.0.0.0:1:h:2", address("0.0.0.0", 1), Some("h"), 2),
            ("[::1]:1:[::2]:2", address("::1", 1), Some("::2"), 2),
            (
                "/run/db.sock:5432",
                Local::Unix("/run/db.sock".into()),
                None,
                5432,
            ),
            ("./s:h:1", Local::Unix("./s".into()), Some("h"), 1),
        ] {
            let expected = Spec {
                local,
                host: host.map(str::to_owned),
                port,
            };
            assert_eq!(Spec::parse(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_form_is_refused() {
        for text in [
            "",
            "80",
            ":80",
            "80:",
            "80:0",
            "80:65536",
            "65536:80",
            "a:80",
            "a:1:80",
            "1:2:3:4:5",
            "1::80",
            "::1:80:80",
            "[::1:80:80",
            "[::1]80:80",
            "/s",
            "1:h:x",
        ] {
            assert!(Spec::parse(text).is_err(), "{text}");
        }
    }
}
