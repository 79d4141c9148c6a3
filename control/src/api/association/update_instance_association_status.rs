//! `UpdateInstanceAssociationStatus`: an agent's report on an association.
//!
//! Not in the public API; agent-only. Deviations: there are no associations yet, so every report is about one that
//! does not exist.

use moorline_ssm::{
    ErrorCode,
    association::{UpdateInstanceAssociationStatusRequest, UpdateInstanceAssociationStatusResult},
};

use crate::api::{ApiError, ApiResult, RequestContext};

pub(super) async fn update_instance_association_status(
    _cx: RequestContext,
    input: UpdateInstanceAssociationStatusRequest,
) -> ApiResult<UpdateInstanceAssociationStatusResult> {
    let id = input.association_id.unwrap_or_default();
    Err(ApiError::new(
        ErrorCode::AssociationDoesNotExist,
        format!("there is no association {id}"),
    ))
}

#[cfg(test)]
mod tests {
    use moorline_ssm::association::{InstanceAssociationExecutionResult, UpdateInstanceAssociationStatus};

    use super::*;
    use crate::{
        auth::Principal,
        test_support::{TestApp, node_id},
    };

    #[tokio::test]
    async fn a_report_on_an_association_that_is_not_there_says_so() {
        let test = TestApp::new().await;
        let input = UpdateInstanceAssociationStatusRequest {
            association_id: Some("11111111-2222-3333-4444-555555555555".to_owned()),
            instance_id: Some(node_id(0).to_string()),
            execution_result: Some(InstanceAssociationExecutionResult {
                status: Some("Success".to_owned()),
                ..Default::default()
            }),
            ..Default::default()
        };
        let node = Principal::Node(node_id(0));
        let error = test
            .refuse_as::<UpdateInstanceAssociationStatus>(node, input)
            .await;
        assert_eq!(error.code, ErrorCode::AssociationDoesNotExist);
    }
}
