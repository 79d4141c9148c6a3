//! Managed nodes as the API describes them.

use moorline_ssm::node::{
    DescribeInstanceInformation, DescribeInstanceInformationRequest, InstanceInformation,
    InstanceInformationStringFilter,
};
use moorline_transport::CallError;

use crate::operator::Operator;

/// The most that the API gives at once.
const PAGE: i32 = 50;

/// All nodes that have all these tags.
///
/// # Errors
/// A page could not be had.
pub(crate) async fn list(
    operator: &Operator,
    tags: &[(String, String)],
) -> Result<Vec<InstanceInformation>, CallError> {
    let filters: Vec<_> = tags
        .iter()
        .map(|(key, value)| InstanceInformationStringFilter {
            key: Some(format!("tag:{key}")),
            values: Some(vec![value.clone()]),
        })
        .collect();
    let mut nodes = Vec::new();
    let mut next_token = None;
    loop {
        let request = DescribeInstanceInformationRequest {
            filters: (!filters.is_empty()).then(|| filters.clone()),
            max_results: Some(PAGE),
            next_token,
            ..Default::default()
        };
        let page = operator.call::<DescribeInstanceInformation>(&request).await?;
        nodes.extend(page.instance_information_list.unwrap_or_default());
        next_token = page.next_token.filter(|token| !token.is_empty());
        if next_token.is_none() {
            return Ok(nodes);
        }
    }
}
