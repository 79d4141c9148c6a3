//! `DeleteActivation`: no machine registers with it any more; those that did stay.
//!
//! AWS: API_DeleteActivation.

use moorline_protocol::types::ActivationId;
use moorline_ssm::{
    ErrorCode,
    activation::{DeleteActivationRequest, DeleteActivationResult},
};

use crate::api::{ApiError, ApiResult, RequestContext};

pub(super) async fn delete_activation(
    cx: RequestContext,
    input: DeleteActivationRequest,
) -> ApiResult<DeleteActivationResult> {
    let id: ActivationId = input
        .activation_id
        .unwrap_or_default()
        .parse()
        .map_err(|error| ApiError::new(ErrorCode::InvalidActivationId, format!("{error}")))?;
    if !cx.app.store.delete_activation(&id).await? {
        return Err(ApiError::new(
            ErrorCode::InvalidActivation,
            format!("there is no activation {id}"),
        ));
    }
    tracing::info!(activation = %id, by = cx.principal.arn(), "activation deleted");
    Ok(DeleteActivationResult {})
}

#[cfg(test)]
mod tests {
    use moorline_ssm::activation::{
        CreateActivation, CreateActivationRequest, DeleteActivation, DescribeActivations,
    };

    use super::*;
    use crate::test_support::TestApp;

    #[tokio::test]
    async fn a_deleted_activation_is_gone_and_deleting_it_again_says_so() {
        let test = TestApp::new().await;
        let input = CreateActivationRequest {
            iam_role: Some("role".to_owned()),
            ..Default::default()
        };
        let activation_id = test.call::<CreateActivation>(input).await.unwrap().activation_id;
        let request = DeleteActivationRequest { activation_id };
        test.call::<DeleteActivation>(request.clone()).await.unwrap();
        let left = test
            .call::<DescribeActivations>(Default::default())
            .await
            .unwrap();
        assert_eq!(left.activation_list, Some(Vec::new()));
        assert_eq!(
            test.refuse::<DeleteActivation>(request).await.code,
            ErrorCode::InvalidActivation
        );
    }
}
