//! What a handler gets besides its input.

use std::sync::Arc;

use crate::{app::App, auth::Principal};

/// One request, authenticated and authorized.
#[derive(Debug, Clone)]
pub(crate) struct RequestContext {
    pub(crate) app: Arc<App>,
    pub(crate) principal: Principal,
    /// The `Host` the client used, with port: stream URLs point back to it.
    pub(crate) host: String,
    /// Milliseconds since the Unix epoch, read once.
    pub(crate) now: u64,
    pub(crate) request_id: String,
    /// The peer's address, for the record of registrations.
    pub(crate) peer: Option<std::net::IpAddr>,
}
