//! `GetMessages`: a long poll that ends empty.
//!
//! Not in the public API; agent-only. Deviations: no message ever comes this way.

use moorline_ssm::message_delivery::{GetMessagesRequest, GetMessagesResult};

use crate::api::{ApiResult, RequestContext};

pub(super) async fn get_messages(
    cx: RequestContext,
    input: GetMessagesRequest,
) -> ApiResult<GetMessagesResult> {
    cx.app.polls.hold().await;
    Ok(GetMessagesResult {
        destination: input.destination,
        messages: Some(Vec::new()),
        messages_request_id: input.messages_request_id,
    })
}

#[cfg(test)]
mod tests {
    use moorline_ssm::{ErrorCode, message_delivery::GetMessages};

    use super::*;
    use crate::{
        auth::Principal,
        test_support::{TestApp, node_id},
    };

    fn request() -> GetMessagesRequest {
        GetMessagesRequest {
            destination: Some(node_id(0).to_string()),
            messages_request_id: Some("11111111-2222-3333-4444-555555555555".to_owned()),
            visibility_timeout_in_seconds: Some(10),
        }
    }

    #[tokio::test]
    async fn an_empty_poll_is_held_and_echoes_its_ids() {
        let test = TestApp::new().await;
        tokio::time::pause();
        let start = tokio::time::Instant::now();
        let reply = test
            .call_as::<GetMessages>(Principal::Node(node_id(0)), request())
            .await
            .unwrap();
        assert_eq!(start.elapsed().as_secs(), 15);
        assert_eq!(reply.destination, request().destination);
        assert_eq!(reply.messages_request_id, request().messages_request_id);
        assert_eq!(reply.messages, Some(Vec::new()));
    }

    #[tokio::test]
    async fn a_node_polls_for_itself_only() {
        let test = TestApp::new().await;
        let error = test
            .refuse_as::<GetMessages>(Principal::Node(node_id(1)), request())
            .await;
        assert_eq!(error.code, ErrorCode::AccessDeniedException);
    }
}
