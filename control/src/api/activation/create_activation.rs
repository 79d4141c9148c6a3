//! `CreateActivation`: a code with which machines register as managed nodes.
//!
//! AWS: API_CreateActivation. Deviations: `IamRole` is kept and shown but gives nothing; `RegistrationMetadata` is
//! accepted and ignored.

use moorline_ssm::{
    EpochSeconds, ErrorCode,
    activation::{CreateActivationRequest, CreateActivationResult},
};

use super::code_hash;
use crate::{
    api::{ApiError, ApiResult, RequestContext, tag::checked_tags},
    auth::random_text,
    store::NewActivation,
};

/// Without letters and digits that are taken for each other when a code is read aloud. 32 letters make 100 bits.
const CODE_ALPHABET: &[u8] = b"ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz23456789";
/// The stock agent refuses shorter codes before it sends them.
const CODE_LENGTH: usize = 20;
const DEFAULT_LIFETIME_MILLIS: u64 = 24 * 60 * 60 * 1000;
const MOST_LIFETIME_MILLIS: u64 = 30 * 24 * 60 * 60 * 1000;

pub(super) async fn create_activation(
    cx: RequestContext,
    input: CreateActivationRequest,
) -> ApiResult<CreateActivationResult> {
    let in_a_day = cx.now.saturating_add(DEFAULT_LIFETIME_MILLIS);
    let expires_at = input.expiration_date.map_or(in_a_day, EpochSeconds::millis);
    if expires_at <= cx.now {
        return Err(ApiError::new(
            ErrorCode::InvalidParameters,
            "ExpirationDate is not in the future",
        ));
    }
    if expires_at > cx.now.saturating_add(MOST_LIFETIME_MILLIS) {
        return Err(ApiError::new(
            ErrorCode::InvalidParameters,
            "ExpirationDate is more than 30 days from now",
        ));
    }
    let id = uuid::Uuid::new_v4().to_string();
    let id = id.parse().map_err(ApiError::internal)?;
    let code = random_text(CODE_ALPHABET, CODE_LENGTH);
    let activation = NewActivation {
        code_hash: code_hash(&cx.app.keys, &id, &code),
        activation_id: id,
        iam_role: input.iam_role.unwrap_or_default(),
        description: input.description,
        default_instance_name: input.default_instance_name,
        registration_limit: input.registration_limit.map_or(1, i64::from),
        expires_at,
        tags: checked_tags(input.tags.as_deref(), ErrorCode::InvalidParameters)?,
    };
    cx.app.store.insert_activation(&activation, cx.now).await?;
    tracing::info!(activation = %activation.activation_id, by = cx.principal.arn(), "activation created");
    Ok(CreateActivationResult {
        activation_id: Some(activation.activation_id.to_string()),
        activation_code: Some(code),
    })
}

#[cfg(test)]
mod tests {
    use moorline_ssm::activation::{CreateActivation, DescribeActivations, Tag};

    use super::*;
    use crate::{
        auth::Principal,
        test_support::{TestApp, node_id},
    };

    fn request() -> CreateActivationRequest {
        CreateActivationRequest {
            iam_role: Some("service-role/x".to_owned()),
            ..Default::default()
        }
    }

    #[tokio::test]
    async fn an_activation_has_a_code_that_the_stock_agent_takes_and_that_is_not_stored() {
        let test = TestApp::new().await;
        let made = test.call::<CreateActivation>(request()).await.unwrap();
        let code = made.activation_code.unwrap();
        assert_eq!(code.len(), 20);
        assert_eq!(made.activation_id.unwrap().len(), 36);
        let rows: Vec<String> = sqlx::query_scalar("SELECT code_hash FROM activation")
            .fetch_all(&test.app.store.readers)
            .await
            .unwrap();
        assert_eq!(rows.len(), 1);
        assert!(!rows[0].contains(&code));
    }

    #[tokio::test]
    async fn an_activation_ends_after_a_day_and_serves_one_machine_unless_told_otherwise() {
        let test = TestApp::new().await;
        test.call::<CreateActivation>(request()).await.unwrap();
        let list = test
            .call::<DescribeActivations>(Default::default())
            .await
            .unwrap()
            .activation_list
            .unwrap();
        assert_eq!(list[0].registration_limit, Some(1));
        let day_later = EpochSeconds::from_millis(test.now() + DEFAULT_LIFETIME_MILLIS);
        assert_eq!(list[0].expiration_date, Some(day_later));
    }

    #[tokio::test]
    async fn an_expiration_in_the_past_or_beyond_thirty_days_is_refused() {
        let test = TestApp::new().await;
        for expires_at in [
            test.now() - 1000,
            test.now(),
            test.now() + MOST_LIFETIME_MILLIS + 1000,
        ] {
            let input = CreateActivationRequest {
                expiration_date: Some(EpochSeconds::from_millis(expires_at)),
                ..request()
            };
            assert_eq!(
                test.refuse::<CreateActivation>(input).await.code,
                ErrorCode::InvalidParameters
            );
        }
    }

    #[tokio::test]
    async fn a_missing_role_and_a_limit_out_of_range_are_named() {
        let test = TestApp::new().await;
        let error = test
            .refuse::<CreateActivation>(CreateActivationRequest::default())
            .await;
        assert_eq!(error.code, ErrorCode::ValidationException);
        assert!(error.message.contains("'iamRole'"), "{}", error.message);
        let input = CreateActivationRequest {
            registration_limit: Some(1001),
            ..request()
        };
        let error = test.refuse::<CreateActivation>(input).await;
        assert!(error.message.contains("'registrationLimit'"), "{}", error.message);
    }

    #[tokio::test]
    async fn a_reserved_tag_is_refused() {
        let test = TestApp::new().await;
        let tag = Tag {
            key: Some("aws:x".to_owned()),
            value: Some("y".to_owned()),
        };
        let input = CreateActivationRequest {
            tags: Some(vec![tag]),
            ..request()
        };
        assert_eq!(
            test.refuse::<CreateActivation>(input).await.code,
            ErrorCode::InvalidParameters
        );
    }

    #[tokio::test]
    async fn neither_a_node_nor_an_unsigned_request_makes_activations() {
        let test = TestApp::new().await;
        let refused = test
            .refuse_as::<CreateActivation>(Principal::Node(node_id(0)), request())
            .await;
        assert_eq!(refused.code, ErrorCode::AccessDeniedException);
        let refused = test
            .refuse_as::<CreateActivation>(Principal::Anonymous, request())
            .await;
        assert_eq!(refused.code, ErrorCode::MissingAuthenticationToken);
    }
}
