//! What the node says of a Port session in the handshake, and which protocol follows from it (client-wire §5.1-5.2).

use std::path::PathBuf;

use moorline_protocol::channel::DataChannel;
use serde_json::Value;

use super::spec::Local;

/// Agents above this version multiplex.
const LAST_WITHOUT_MULTIPLEXING: [u64; 4] = [3, 0, 196, 0];
/// Agents up to this one close a multiplexer that is silent.
const LAST_WITH_KEEP_ALIVE: [u64; 4] = [3, 1, 1511, 0];

/// How the bytes of the session are to be understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    /// Those of one connection at a time.
    Basic,
    /// Those of many.
    Multiplexed { version: u32, keep_alive: bool },
}

/// Where the client's end of the connection is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    Stdio,
    Listen(Local),
}

impl Framing {
    pub(crate) fn of(channel: &DataChannel) -> Self {
        Self::from_versions(channel.peer_version().unwrap_or_default(), channel.mux_version())
    }

    fn from_versions(agent: &str, version: u32) -> Self {
        match four_numbers(agent) {
            Some(agent) if agent > LAST_WITHOUT_MULTIPLEXING => Self::Multiplexed {
                version,
                keep_alive: agent <= LAST_WITH_KEEP_ALIVE,
            },
            _ => Self::Basic,
        }
    }
}

impl Place {
    /// # Errors
    /// What is wrong with the properties.
    pub(crate) fn of(properties: &Value) -> Result<Self, String> {
        let text = |name| match properties.get(name) {
            Some(Value::String(text)) => text.clone(),
            Some(Value::Number(number)) => number.to_string(),
            _ => String::new(),
        };
        if text("type") != "LocalPortForwarding" {
            return Ok(Self::Stdio);
        }
        if text("localConnectionType") == "unix" {
            let path = text("localUnixSocket");
            if path.is_empty() {
                return Err("the session's document names no Unix socket (localUnixSocket)".to_owned());
            }
            return Ok(Self::Listen(Local::Unix(PathBuf::from(path))));
        }
        let port = text("localPortNumber");
        if port.is_empty() {
            return Ok(Self::Listen(Local::Loopback(0)));
        }
        let port = port
            .parse()
            .map_err(|_| format!("the session's localPortNumber {port:?} is no port"))?;
        Ok(Self::Listen(Local::Loopback(port)))
    }
}

/// Four numbers with dots: another text is no version that anything could follow from.
fn four_numbers(version: &str) -> Option<[u64; 4]> {
    let numbers: Vec<u64> = version
        .split('.')
        .map(|part| part.parse().ok())
        .collect::<Option<_>>()?;
    numbers.try_into().ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_framing_follows_from_the_agents_version() {
        let multiplexed = |keep_alive| Framing::Multiplexed {
            version: 1,
            keep_alive,
        };
        for (agent, expected) in [
            ("3.0.196.0", Framing::Basic),
            ("3.0.197.0", multiplexed(true)),
            ("3.1.1511.0", multiplexed(true)),
            ("3.1.1511.1", multiplexed(false)),
            ("3.3.3050.0", multiplexed(false)),
            ("10.0.0.0", multiplexed(false)),
            ("3.3.3050", Framing::Basic),
            ("3.3.3050.0.1", Framing::Basic),
            ("3.x.3050.0", Framing::Basic),
            ("", Framing::Basic),
        ] {
            assert_eq!(Framing::from_versions(agent, 1), expected, "{agent}");
        }
    }

    #[test]
    fn the_place_follows_from_the_properties() {
        let listen = |port| Ok(Place::Listen(Local::Loopback(port)));
        let forwarding = |more: &[(&str, Value)]| {
            let mut properties = json!({"portNumber": "80", "type": "LocalPortForwarding"});
            for (name, value) in more {
                properties[*name] = value.clone();
            }
            Place::of(&properties)
        };
        assert_eq!(Place::of(&json!({"portNumber": "22"})), Ok(Place::Stdio));
        assert_eq!(Place::of(&json!({"type": "Other"})), Ok(Place::Stdio));
        assert_eq!(Place::of(&Value::Null), Ok(Place::Stdio));
        assert_eq!(forwarding(&[]), listen(0));
        assert_eq!(forwarding(&[("localPortNumber", json!(""))]), listen(0));
        assert_eq!(forwarding(&[("localPortNumber", json!("8080"))]), listen(8080));
        assert_eq!(forwarding(&[("localPortNumber", json!(8080))]), listen(8080));
        assert!(forwarding(&[("localPortNumber", json!("65536"))]).is_err());
        let unix = ("localConnectionType", json!("unix"));
        assert!(forwarding(std::slice::from_ref(&unix)).is_err());
        assert_eq!(
            forwarding(&[unix, ("localUnixSocket", json!("/tmp/s"))]),
            Ok(Place::Listen(Local::Unix("/tmp/s".into())))
        );
    }
}
