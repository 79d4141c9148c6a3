//! The registration: a file with the node's id and private key, mode 0600.

use std::path::{Path, PathBuf};

use moorline_protocol::types::InstanceId;
use moorline_transport::{Services, Trust};

/// Why there is no usable registration.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RegistrationError {
    #[error("this node is not registered: {path} does not exist; run `moorline-agent register` first")]
    Missing { path: PathBuf },
}

/// A node that was registered by an activation.
#[derive(Debug)]
pub(crate) struct Registration {
    pub(crate) instance_id: InstanceId,
    /// Region that requests are signed for.
    pub(crate) region: String,
    pub(crate) services: Services,
    pub(crate) trust: Trust,
    /// Whether the endpoint is Moorline's (`--endpoint`) and not AWS (`--region`): our extensions go to ours only.
    pub(crate) is_moorline: bool,
}

impl Registration {
    /// Reads `STATE_DIR/registration.json`. Only reads: a worker does this too, with the disk full.
    ///
    /// # Errors
    /// The file is missing, unreadable, or not a registration.
    pub(crate) fn load(state_dir: &Path) -> Result<Self, RegistrationError> {
        Err(RegistrationError::Missing {
            path: state_dir.join("registration.json"),
        })
    }

    /// Asks for role credentials, signed with the registration key (agent-wire §2.5).
    ///
    /// # Errors
    /// The endpoint refused, or could not be reached.
    pub(crate) async fn request_role_credentials(
        &self,
    ) -> anyhow::Result<super::super::runtime::RoleCredentials> {
        anyhow::bail!("not yet")
    }
}
