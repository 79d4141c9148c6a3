//! `AcknowledgeMessage`, `FailMessage`, `SendReply`: what an agent says about messages of `GetMessages`.
//!
//! Not in the public API; agent-only. Deviations: no message ever comes that way, so there is nothing to settle; an
//! agent that was moved here from another endpoint may still have replies, which are taken and dropped.

use moorline_ssm::message_delivery::{
    AcknowledgeMessageRequest, AcknowledgeMessageResult, FailMessageRequest, FailMessageResult,
    SendReplyRequest, SendReplyResult,
};

use crate::api::{ApiResult, RequestContext};

pub(super) async fn acknowledge_message(
    _cx: RequestContext,
    _input: AcknowledgeMessageRequest,
) -> ApiResult<AcknowledgeMessageResult> {
    Ok(AcknowledgeMessageResult {})
}

pub(super) async fn fail_message(
    _cx: RequestContext,
    _input: FailMessageRequest,
) -> ApiResult<FailMessageResult> {
    Ok(FailMessageResult {})
}

pub(super) async fn send_reply(_cx: RequestContext, _input: SendReplyRequest) -> ApiResult<SendReplyResult> {
    Ok(SendReplyResult {})
}

#[cfg(test)]
mod tests {
    use moorline_ssm::{ErrorCode, message_delivery::AcknowledgeMessage};

    use super::*;
    use crate::{
        auth::Principal,
        test_support::{TestApp, node_id},
    };

    #[tokio::test]
    async fn a_node_may_settle_and_an_unsigned_request_may_not() {
        let test = TestApp::new().await;
        let input = AcknowledgeMessageRequest {
            message_id: Some("aws.ssm.11111111.mi-1".to_owned()),
        };
        let node = Principal::Node(node_id(0));
        test.call_as::<AcknowledgeMessage>(node, input.clone())
            .await
            .unwrap();
        let error = test
            .refuse_as::<AcknowledgeMessage>(Principal::Anonymous, input)
            .await;
        assert_eq!(error.code, ErrorCode::MissingAuthenticationToken);
    }
}
