//! What the daemon knows about its node, shared by its capabilities.

use std::{path::PathBuf, sync::Arc};

use moorline_protocol::{sigv4::Credentials, types::InstanceId};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::{config::Config, identity::Registration};

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
    pub(crate) platform: Platform,
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
