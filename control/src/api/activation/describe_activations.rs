//! `DescribeActivations`: the activations that there are.
//!
//! AWS: API_DescribeActivations.

use moorline_ssm::{
    EpochSeconds,
    activation::{
        Activation, DescribeActivationsFilter, DescribeActivationsFilterKeys, DescribeActivationsRequest,
        DescribeActivationsResult,
    },
};

use crate::{
    api::{
        ApiResult, RequestContext,
        filters::matches_value,
        pagination::{Listing, limit},
        tag::wire_tags,
    },
    store::ActivationRow,
};

const DEFAULT_PAGE: usize = 50;

pub(super) async fn describe_activations(
    cx: RequestContext,
    input: DescribeActivationsRequest,
) -> ApiResult<DescribeActivationsResult> {
    let filters = input.filters.unwrap_or_default();
    let mut rows = cx.app.store.activations().await?;
    rows.retain(|row| filters.iter().all(|filter| matches(filter, row)));
    let (page, next_token) = Listing::new(&cx, "DescribeActivations", &filters).page(
        rows,
        |row| format!("{:020} {}", row.created_at, row.activation_id),
        input.next_token.as_deref(),
        limit(input.max_results, DEFAULT_PAGE),
    )?;
    let list = page.into_iter().map(|row| activation(row, cx.now)).collect();
    Ok(DescribeActivationsResult {
        activation_list: Some(list),
        next_token,
    })
}

fn matches(filter: &DescribeActivationsFilter, row: &ActivationRow) -> bool {
    let values = filter.filter_values.as_deref().unwrap_or_default();
    let actual = match &filter.filter_key {
        Some(DescribeActivationsFilterKeys::ActivationIds) => Some(row.activation_id.as_str()),
        Some(DescribeActivationsFilterKeys::DefaultInstanceName) => row.default_instance_name.as_deref(),
        Some(DescribeActivationsFilterKeys::IamRole) => Some(row.iam_role.as_str()),
        // Validation lets no other key through.
        Some(DescribeActivationsFilterKeys::Unknown(_)) | None => return true,
    };
    matches_value(values, actual)
}

fn activation(row: ActivationRow, now: u64) -> Activation {
    let count = |number: i64| i32::try_from(number).unwrap_or(i32::MAX);
    Activation {
        activation_id: Some(row.activation_id),
        description: row.description,
        default_instance_name: row.default_instance_name,
        iam_role: Some(row.iam_role),
        registration_limit: Some(count(row.registration_limit)),
        registrations_count: Some(count(row.registrations_count)),
        expiration_date: Some(EpochSeconds::from_millis(row.expires_at)),
        expired: Some(now >= row.expires_at),
        created_date: Some(EpochSeconds::from_millis(row.created_at)),
        tags: Some(wire_tags(row.tags)),
    }
}

#[cfg(test)]
mod tests {
    use moorline_ssm::{
        ErrorCode,
        activation::{CreateActivation, CreateActivationRequest, DescribeActivations},
    };

    use super::*;
    use crate::test_support::TestApp;

    async fn with_three() -> TestApp {
        let test = TestApp::new().await;
        for role in ["a", "b", "b"] {
            test.advance_millis(1000);
            let input = CreateActivationRequest {
                iam_role: Some(role.to_owned()),
                ..Default::default()
            };
            test.call::<CreateActivation>(input).await.unwrap();
        }
        test
    }

    fn by_role(role: &str) -> Vec<DescribeActivationsFilter> {
        vec![DescribeActivationsFilter {
            filter_key: Some(DescribeActivationsFilterKeys::IamRole),
            filter_values: Some(vec![role.to_owned()]),
        }]
    }

    #[tokio::test]
    async fn pages_of_one_show_every_activation_in_the_order_of_creation() {
        let test = with_three().await;
        let (mut roles, mut next_token) = (Vec::new(), None);
        loop {
            let input = DescribeActivationsRequest {
                max_results: Some(1),
                next_token,
                ..Default::default()
            };
            let page = test.call::<DescribeActivations>(input).await.unwrap();
            roles.extend(
                page.activation_list
                    .unwrap()
                    .into_iter()
                    .map(|one| one.iam_role.unwrap()),
            );
            next_token = page.next_token;
            if next_token.is_none() {
                break;
            }
        }
        assert_eq!(roles, ["a", "b", "b"]);
    }

    #[tokio::test]
    async fn a_filter_selects_and_its_token_is_good_for_no_other_filter() {
        let test = with_three().await;
        let input = DescribeActivationsRequest {
            filters: Some(by_role("b")),
            max_results: Some(1),
            ..Default::default()
        };
        let page = test.call::<DescribeActivations>(input).await.unwrap();
        assert_eq!(page.activation_list.unwrap().len(), 1);
        let input = DescribeActivationsRequest {
            filters: Some(by_role("a")),
            next_token: page.next_token,
            ..Default::default()
        };
        assert_eq!(
            test.refuse::<DescribeActivations>(input).await.code,
            ErrorCode::InvalidNextToken
        );
    }

    #[tokio::test]
    async fn an_activation_is_shown_as_expired_from_its_last_moment_on() {
        let test = with_three().await;
        test.advance_millis(25 * 60 * 60 * 1000);
        let list = test
            .call::<DescribeActivations>(Default::default())
            .await
            .unwrap()
            .activation_list
            .unwrap();
        assert!(list.iter().all(|activation| activation.expired == Some(true)));
    }
}
