//! `ListInstanceAssociations`: what an agent polls for its desired state.
//!
//! Not in the public API; agent-only. Deviations: there are no associations yet, so the list is empty.

use moorline_ssm::association::{ListInstanceAssociationsRequest, ListInstanceAssociationsResult};

use crate::api::{ApiResult, RequestContext, pagination::Listing};

pub(super) async fn list_instance_associations(
    cx: RequestContext,
    input: ListInstanceAssociationsRequest,
) -> ApiResult<ListInstanceAssociationsResult> {
    Listing::new(&cx, "ListInstanceAssociations", &input.instance_id)
        .position(input.next_token.as_deref())?;
    Ok(ListInstanceAssociationsResult {
        associations: Some(Vec::new()),
        next_token: None,
    })
}

#[cfg(test)]
mod tests {
    use moorline_ssm::{ErrorCode, association::ListInstanceAssociations};

    use super::*;
    use crate::{
        auth::Principal,
        test_support::{TestApp, node_id},
    };

    fn request() -> ListInstanceAssociationsRequest {
        ListInstanceAssociationsRequest {
            instance_id: Some(node_id(0).to_string()),
            ..Default::default()
        }
    }

    #[tokio::test]
    async fn a_node_gets_an_empty_list_for_itself_and_a_refusal_for_another() {
        let test = TestApp::new().await;
        let own = test
            .call_as::<ListInstanceAssociations>(Principal::Node(node_id(0)), request())
            .await;
        assert_eq!(own.unwrap().associations, Some(Vec::new()));
        let error = test
            .refuse_as::<ListInstanceAssociations>(Principal::Node(node_id(1)), request())
            .await;
        assert_eq!(error.code, ErrorCode::AccessDeniedException);
        let input = ListInstanceAssociationsRequest {
            next_token: Some("x".to_owned()),
            ..request()
        };
        assert_eq!(
            test.refuse::<ListInstanceAssociations>(input).await.code,
            ErrorCode::InvalidNextToken
        );
    }
}
