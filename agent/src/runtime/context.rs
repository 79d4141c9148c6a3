//! What the daemon knows about its node, shared by its capabilities.

use std::{
    path::PathBuf,
    sync::{Arc, atomic::AtomicBool},
};

use moorline_protocol::{sigv4::Credentials, types::InstanceId};
use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex, Notify, watch};

use crate::{config::Config, identity::Registration};

/// Version told to peers: four numbers, since they compare them (client-wire §5.2: above 3.1.1511.0).
pub(crate) const AGENT_VERSION: &str = "3.3.4000.0";

/// Credentials of the node's role, and when they end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RoleCredentials {
    pub(crate) credentials: Credentials,
    /// Milliseconds since the Unix epoch.
    pub(crate) expires_at: u64,
}

/// Shared by the daemon's tasks; made once, after the registration was read.
#[derive(Debug)]
pub(crate) struct NodeContext {
    pub(crate) config: Config,
    pub(crate) state_dir: PathBuf,
    pub(crate) registration: Arc<Registration>,
    /// `None` until the first role token came.
    pub(crate) credentials: watch::Receiver<Option<RoleCredentials>>,
    /// Told when the endpoint did not take these credentials: they are renewed at once.
    pub(crate) credentials_rejected: Arc<Notify>,
    pub(crate) platform: Platform,
    /// Whether the endpoint knows the key that seals transcripts: what it does not know it would refuse.
    pub(crate) seals: Arc<AtomicBool>,
    /// Held while the endpoint is told of that key.
    pub(crate) key_teller: Mutex<()>,
}

impl NodeContext {
    pub(crate) fn instance_id(&self) -> &InstanceId {
        &self.registration.instance_id
    }
}

/// The operating system as it is reported (documents.md §1.19).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Platform {
    /// `Debian GNU/Linux`
    pub(crate) name: String,
    /// `12`
    pub(crate) version: String,
}

impl Platform {
    /// Reads `/etc/os-release` (or its place in /usr/lib); what cannot be read is empty.
    pub(crate) fn detect() -> Self {
        let text = ["/etc/os-release", "/usr/lib/os-release"]
            .iter()
            .find_map(|path| std::fs::read_to_string(path).ok())
            .unwrap_or_default();
        Self::from_os_release(&text)
    }

    fn from_os_release(text: &str) -> Self {
        let value = |key: &str| {
            text.lines()
                .find_map(|line| line.strip_prefix(key)?.strip_prefix('='))
                .map(|value| value.trim().trim_matches(['"', '\'']).to_owned())
                .unwrap_or_default()
        };
        Self {
            name: value("NAME"),
            version: value("VERSION_ID"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_platform_is_read_from_os_release_with_and_without_quotes() {
        let platform =
            Platform::from_os_release("PRETTY_NAME=\"x\"\nNAME=\"Debian GNU/Linux\"\nVERSION_ID='12'\n");
        assert_eq!(
            (platform.name.as_str(), platform.version.as_str()),
            ("Debian GNU/Linux", "12")
        );
        assert_eq!(Platform::from_os_release("NAME=Fedora").name, "Fedora");
        assert_eq!(Platform::from_os_release("").version, "");
    }
}
