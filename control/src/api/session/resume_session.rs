//! `ResumeSession`: a new token after a lost connection.
//!
//! AWS: API_ResumeSession. For a session that has ended there is a token as well: the first and last frame on that
//! channel tells why, and the exit code (client-wire §8.7). Every administrator may; the log tells who took whose.

use moorline_ssm::{
    ErrorCode,
    session::{ResumeSessionRequest, ResumeSessionResponse},
};

use super::{client_channel, find};
use crate::api::{ApiError, ApiResult, RequestContext};

pub(super) async fn resume_session(
    cx: RequestContext,
    input: ResumeSessionRequest,
) -> ApiResult<ResumeSessionResponse> {
    let id = input.session_id.as_deref();
    let Some(session) = find(&cx, id).await? else {
        let message = format!("there is no session {}", id.unwrap_or_default());
        return Err(ApiError::new(ErrorCode::DoesNotExistException, message));
    };
    cx.record.is_about_nodes([session.node.as_str()]);
    let by = cx.principal.arn();
    if by != session.owner && session.ended_at.is_none() {
        tracing::warn!(
            session = %session.session_id, owner = session.owner, by, "an administrator joins another's session"
        );
    }
    let (token, url) = client_channel(&cx, &session.session_id);
    Ok(ResumeSessionResponse {
        session_id: Some(session.session_id.to_string()),
        token_value: Some(token),
        stream_url: Some(url),
    })
}
