//! `TerminateSession`: end a session on both sides. Ending it again does nothing.
//!
//! AWS: API_TerminateSession. Every administrator may; the log tells who ended whose.

use moorline_ssm::session::{TerminateSessionRequest, TerminateSessionResponse};

use super::find;
use crate::{
    api::{ApiError, ApiResult, RequestContext},
    store::SessionStatus,
};

pub(super) async fn terminate_session(
    cx: RequestContext,
    input: TerminateSessionRequest,
) -> ApiResult<TerminateSessionResponse> {
    let id = input.session_id.as_deref();
    let Some(session) = find(&cx, id).await? else {
        let message = format!("there is no session {}", id.unwrap_or_default());
        return Err(ApiError::validation(message));
    };
    let id = session.session_id;
    let by = cx.principal.arn();
    // a client that ends its own session is not waiting for the reason
    let reason = format!("terminated by {}", cx.principal.name());
    cx.record.is_about_nodes([session.node.as_str()]);
    if cx
        .app
        .end_session(&id, SessionStatus::Terminated, &reason, None)
        .await?
    {
        cx.app.routing.end_session(&id, &reason).await;
        cx.app.routing.nudge(&session.node);
        tracing::info!(
            session = %id, owner = session.owner, by, "session terminated"
        );
    }
    Ok(TerminateSessionResponse {
        session_id: Some(id.to_string()),
    })
}
