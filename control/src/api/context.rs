//! What a handler gets besides its input.

use std::sync::Arc;

use moorline_protocol::types::InstanceId;
use moorline_ssm::ErrorCode;

use super::{ApiError, ApiResult};
use crate::{app::App, audit::CallRecord, auth::Principal};

/// One request, authenticated and authorized.
#[derive(Debug, Clone)]
pub(crate) struct RequestContext {
    pub(crate) app: Arc<App>,
    pub(crate) principal: Principal,
    /// The `Host` the client used, with port: stream URLs point back to it.
    pub(crate) host: String,
    /// Milliseconds since the Unix epoch, read once.
    pub(crate) now: u64,
    /// What the audit log will have of this request.
    pub(crate) record: Arc<CallRecord>,
    pub(crate) request_id: String,
    /// The peer's address, for the record of registrations.
    pub(crate) peer: Option<std::net::IpAddr>,
}

impl RequestContext {
    /// The node that asks with its registration key.
    pub(crate) fn node_key(&self) -> ApiResult<&InstanceId> {
        match &self.principal {
            Principal::NodeKey(id) => Ok(id),
            other => Err(ApiError::new(
                ErrorCode::AccessDeniedException,
                format!(
                    "{} is not a managed node that signs with its registration key",
                    other.arn()
                ),
            )),
        }
    }
}
