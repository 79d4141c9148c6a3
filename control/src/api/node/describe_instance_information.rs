//! `DescribeInstanceInformation`: the nodes, what they say about themselves, whether they are there.
//!
//! AWS: API_DescribeInstanceInformation. Deviations: a node is listed from its registration on, not only from its
//! first report; `IsLatestVersion` is always true, since the endpoint knows no versions of agents.

use moorline_ssm::{
    EpochSeconds, ErrorCode,
    node::{
        DescribeInstanceInformationRequest, DescribeInstanceInformationResult, InstanceInformation,
        PingStatus, PlatformType, ResourceType,
    },
};

use crate::{
    api::{
        ApiError, ApiResult, RequestContext,
        filters::{matches_tags, matches_value},
        pagination::{Listing, limit},
    },
    store::NodeRow,
};

const DEFAULT_PAGE: usize = 50;
/// Agents report every five minutes; after two reports missed a node without a channel counts as lost.
const REPORT_LIFETIME_MILLIS: u64 = 10 * 60 * 1000;

/// A filter of either form.
#[derive(Debug)]
struct Filter {
    key: String,
    values: Vec<String>,
}

pub(super) async fn describe_instance_information(
    cx: RequestContext,
    input: DescribeInstanceInformationRequest,
) -> ApiResult<DescribeInstanceInformationResult> {
    let filters = filters(&input)?;
    let mut nodes = Vec::new();
    for node in cx.app.store.nodes().await? {
        let status = ping_status(&cx, &node).await;
        if filters.iter().all(|filter| matches(filter, &node, &status)) {
            nodes.push((node, status));
        }
    }
    let (page, next_token) = Listing::new(&cx, "DescribeInstanceInformation", &filters).page(
        nodes,
        |(node, _)| format!("{:020} {}", node.registered_at, node.instance_id),
        input.next_token.as_deref(),
        limit(input.max_results, DEFAULT_PAGE),
    )?;
    let list = page
        .into_iter()
        .map(|(node, status)| information(node, status))
        .collect();
    Ok(DescribeInstanceInformationResult {
        instance_information_list: Some(list),
        next_token,
    })
}

fn filters(input: &DescribeInstanceInformationRequest) -> ApiResult<Vec<Filter>> {
    let older = input
        .instance_information_filter_list
        .iter()
        .flatten()
        .map(|filter| Filter {
            key: filter.key.as_ref().map_or("", |key| key.as_str()).to_owned(),
            values: filter.value_set.clone().unwrap_or_default(),
        });
    let newer = input.filters.iter().flatten().map(|filter| Filter {
        key: filter.key.clone().unwrap_or_default(),
        values: filter.values.clone().unwrap_or_default(),
    });
    let filters: Vec<Filter> = older.chain(newer).collect();
    filters.iter().try_for_each(check)?;
    Ok(filters)
}

fn check(filter: &Filter) -> ApiResult<()> {
    let allowed: &[&str] = match filter.key.as_str() {
        "ActivationIds" | "AgentVersion" | "AssociationStatus" | "IamRole" | "ResourceType" | "tag-key" => {
            return Ok(());
        }
        key if key.strip_prefix("tag:").is_some_and(|tag| !tag.is_empty()) => return Ok(()),
        "InstanceIds" => return check_instance_ids(&filter.values),
        "PingStatus" => PingStatus::VALUES,
        "PlatformTypes" => PlatformType::VALUES,
        key => {
            let message = format!("there is no filter {key}");
            return Err(ApiError::new(ErrorCode::InvalidFilterKey, message));
        }
    };
    match filter
        .values
        .iter()
        .find(|value| !allowed.contains(&value.as_str()))
    {
        None => Ok(()),
        Some(value) => {
            let message = format!(
                "filter {}: {value} is not one of {}",
                filter.key,
                allowed.join(", ")
            );
            Err(ApiError::new(
                ErrorCode::InvalidInstanceInformationFilterValue,
                message,
            ))
        }
    }
}

fn check_instance_ids(ids: &[String]) -> ApiResult<()> {
    let is_id = |id: &String| {
        let digits = id.strip_prefix("mi-").or_else(|| id.strip_prefix("i-"));
        digits.is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_hexdigit()))
    };
    match ids.iter().find(|id| !is_id(id)) {
        None => Ok(()),
        Some(id) => Err(ApiError::new(
            ErrorCode::InvalidInstanceId,
            format!("{id} is not the id of a managed node"),
        )),
    }
}

fn matches(filter: &Filter, node: &NodeRow, status: &PingStatus) -> bool {
    let values = &filter.values;
    match filter.key.as_str() {
        "ActivationIds" => matches_value(values, Some(&node.activation_id)),
        "AgentVersion" => matches_value(values, node.report.agent_version.as_deref()),
        // No associations yet, so no node has such a status.
        "AssociationStatus" => false,
        "IamRole" => matches_value(values, Some(&node.iam_role)),
        "InstanceIds" => matches_value(values, Some(node.instance_id.as_str())),
        "PingStatus" => matches_value(values, Some(status.as_str())),
        "PlatformTypes" => matches_value(values, node.report.platform_type.as_deref()),
        "ResourceType" => matches_value(values, Some(ResourceType::ManagedInstance.as_str())),
        key => matches_tags(key, values, &node.tags).unwrap_or(false),
    }
}

async fn ping_status(cx: &RequestContext, node: &NodeRow) -> PingStatus {
    let reported = node
        .last_ping_at
        .is_some_and(|last| cx.now.saturating_sub(last) < REPORT_LIFETIME_MILLIS);
    if cx.app.routing.is_connected(&node.instance_id).await || reported {
        PingStatus::Online
    } else {
        PingStatus::ConnectionLost
    }
}

fn information(node: NodeRow, status: PingStatus) -> InstanceInformation {
    InstanceInformation {
        instance_id: Some(node.instance_id.to_string()),
        ping_status: Some(status),
        last_ping_date_time: node.last_ping_at.map(EpochSeconds::from_millis),
        agent_version: node.report.agent_version,
        is_latest_version: Some(true),
        platform_type: node.report.platform_type.as_deref().map(PlatformType::from),
        platform_name: node.report.platform_name,
        platform_version: node.report.platform_version,
        activation_id: Some(node.activation_id),
        iam_role: Some(node.iam_role),
        registration_date: Some(EpochSeconds::from_millis(node.registered_at)),
        resource_type: Some(ResourceType::ManagedInstance),
        name: node.name,
        ip_address: node.report.ip_address,
        computer_name: node.report.computer_name,
        ..Default::default()
    }
}

#[cfg(test)]
mod tests;
