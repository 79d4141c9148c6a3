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
        pagination::{Listing, limit},
    },
    store::{NodeColumn, NodeFilter, NodePosition, NodeRow},
};

const DEFAULT_PAGE: usize = 50;
/// Nodes looked at in one go when the store cannot tell who passes.
const BATCH: usize = 200;
/// Agents report every five minutes; after two reports missed a node without a channel counts as lost.
const REPORT_LIFETIME_MILLIS: u64 = 10 * 60 * 1000;

/// What is asked for: the store's part, and the part that depends on who is connected.
#[derive(Debug, Default)]
struct Filters {
    stored: Vec<NodeFilter>,
    statuses: Vec<Vec<String>>,
}

pub(super) async fn describe_instance_information(
    cx: RequestContext,
    input: DescribeInstanceInformationRequest,
) -> ApiResult<DescribeInstanceInformationResult> {
    let filters = Filters::parse(&input)?;
    let listing = Listing::new(&cx, "DescribeInstanceInformation", &filters);
    let after = listing.parsed_position(input.next_token.as_deref())?;
    let limit = limit(input.max_results, DEFAULT_PAGE);
    // One more than the page, to know whether there is another.
    let mut nodes = find(&cx, &filters, after, limit + 1).await?;
    let has_more = nodes.len() > limit;
    nodes.truncate(limit);
    let last = nodes.last().filter(|_| has_more);
    let next_token = last.map(|(node, _)| listing.token(&NodePosition::of(node).to_string()));
    let list = nodes
        .into_iter()
        .map(|(node, status)| information(node, status))
        .collect();
    Ok(DescribeInstanceInformationResult {
        instance_information_list: Some(list),
        next_token,
    })
}

async fn find(
    cx: &RequestContext,
    filters: &Filters,
    mut after: Option<NodePosition>,
    most: usize,
) -> ApiResult<Vec<(NodeRow, PingStatus)>> {
    let batch_size = if filters.statuses.is_empty() { most } else { BATCH };
    let mut found = Vec::new();
    loop {
        let batch = cx
            .app
            .store
            .find_nodes(&filters.stored, after.as_ref(), batch_size)
            .await?;
        let is_last = batch.len() < batch_size;
        after = batch.last().map(NodePosition::of);
        for node in batch {
            let status = ping_status(cx, &node).await;
            if filters
                .statuses
                .iter()
                .all(|wanted| wanted.iter().any(|one| one == status.as_str()))
            {
                found.push((node, status));
            }
            if found.len() == most {
                return Ok(found);
            }
        }
        if is_last {
            return Ok(found);
        }
    }
}

impl Filters {
    /// Both forms of filters; they mean the same.
    fn parse(input: &DescribeInstanceInformationRequest) -> ApiResult<Self> {
        let mut filters = Self::default();
        for filter in input.instance_information_filter_list.iter().flatten() {
            let key = filter.key.as_ref().map_or("", |key| key.as_str());
            filters.add(key, filter.value_set.clone().unwrap_or_default())?;
        }
        for filter in input.filters.iter().flatten() {
            let key = filter.key.as_deref().unwrap_or_default();
            filters.add(key, filter.values.clone().unwrap_or_default())?;
        }
        Ok(filters)
    }

    fn add(&mut self, key: &str, values: Vec<String>) -> ApiResult<()> {
        let filter = match key {
            "ActivationIds" => NodeFilter::Column(NodeColumn::ActivationId, values),
            "AgentVersion" => NodeFilter::Column(NodeColumn::AgentVersion, values),
            // No associations yet, so no node has such a status.
            "AssociationStatus" => NodeFilter::Never,
            "IamRole" => NodeFilter::Column(NodeColumn::IamRole, values),
            "InstanceIds" => {
                check_instance_ids(&values)?;
                NodeFilter::Column(NodeColumn::InstanceId, values)
            }
            "PingStatus" => {
                check_values(key, &values, PingStatus::VALUES)?;
                self.statuses.push(values);
                return Ok(());
            }
            "PlatformTypes" => {
                check_values(key, &values, PlatformType::VALUES)?;
                NodeFilter::Column(NodeColumn::PlatformType, values)
            }
            "ResourceType"
                if values
                    .iter()
                    .any(|value| value == ResourceType::ManagedInstance.as_str()) =>
            {
                return Ok(());
            }
            "ResourceType" => NodeFilter::Never,
            "tag-key" => NodeFilter::TagKey(values),
            key => match key.strip_prefix("tag:").filter(|tag| !tag.is_empty()) {
                Some(tag) => NodeFilter::Tag {
                    key: tag.to_owned(),
                    values,
                },
                None => {
                    let message = format!("there is no filter {key}");
                    return Err(ApiError::new(ErrorCode::InvalidFilterKey, message));
                }
            },
        };
        self.stored.push(filter);
        Ok(())
    }
}

fn check_values(key: &str, values: &[String], allowed: &[&str]) -> ApiResult<()> {
    match values.iter().find(|value| !allowed.contains(&value.as_str())) {
        None => Ok(()),
        Some(value) => {
            let message = format!("filter {key}: {value} is not one of {}", allowed.join(", "));
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
        moorline_policy: node.report.policy,
        ..Default::default()
    }
}

#[cfg(test)]
mod tests;
