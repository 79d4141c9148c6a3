//! Groups of nodes: ours, in place of AWS's resource groups. `resource-groups:Name` of a command's targets names them.

#[cfg(test)]
mod tests;

use moorline_ssm::{
    EpochSeconds, ErrorCode,
    command::Target,
    node_group::{
        DeleteNodeGroup, DeleteNodeGroupRequest, DeleteNodeGroupResponse, ListNodeGroups,
        ListNodeGroupsRequest, ListNodeGroupsResponse, NodeGroup, PutNodeGroup, PutNodeGroupRequest,
        PutNodeGroupResponse,
    },
};

use super::{ApiError, ApiResult, RequestContext, Router, pagination};
use crate::{auth::Resource, engine::target::Criterion, store::NodeGroupRow};

const DEFAULT_PAGE: usize = 50;

pub(super) fn routes(router: Router) -> Router {
    router
        .on::<DeleteNodeGroup, _, _>(|_| Resource::Any, delete_node_group)
        .on::<ListNodeGroups, _, _>(|_| Resource::Any, list_node_groups)
        .on::<PutNodeGroup, _, _>(|_| Resource::Any, put_node_group)
}

/// `PutNodeGroup`: a group is a query over tags, and has at least one.
async fn put_node_group(cx: RequestContext, input: PutNodeGroupRequest) -> ApiResult<PutNodeGroupResponse> {
    let targets = input.targets.unwrap_or_default();
    if targets.is_empty() {
        return Err(ApiError::validation("a group needs a target: tag:KEY or tag-key"));
    }
    by_tag(&targets)?;
    let group = NodeGroupRow {
        name: input.name.unwrap_or_default(),
        targets,
        updated_at: cx.now,
    };
    cx.app.store.put_node_group(&group).await?;
    Ok(PutNodeGroupResponse {})
}

/// `DeleteNodeGroup`: commands that were sent to it stay.
async fn delete_node_group(
    cx: RequestContext,
    input: DeleteNodeGroupRequest,
) -> ApiResult<DeleteNodeGroupResponse> {
    let name = input.name.unwrap_or_default();
    if cx.app.store.delete_node_group(&name).await? {
        return Ok(DeleteNodeGroupResponse {});
    }
    let message = format!("there is no group of nodes {name}");
    Err(ApiError::new(ErrorCode::DoesNotExistException, message))
}

async fn list_node_groups(
    cx: RequestContext,
    input: ListNodeGroupsRequest,
) -> ApiResult<ListNodeGroupsResponse> {
    let rows = cx.app.store.node_groups().await?;
    let (page, next_token) = pagination::Listing::new(&cx, "ListNodeGroups", &()).page(
        rows,
        |row| row.name.clone(),
        input.next_token.as_deref(),
        pagination::limit(input.max_results, DEFAULT_PAGE),
    )?;
    let groups = page.into_iter().map(|row| NodeGroup {
        name: Some(row.name),
        targets: Some(row.targets),
        updated_date: Some(EpochSeconds::from_millis(row.updated_at)),
    });
    Ok(ListNodeGroupsResponse {
        groups: Some(groups.collect()),
        next_token,
    })
}

/// What a node must meet to be in the group: tags alone.
fn by_tag(targets: &[Target]) -> ApiResult<Vec<Criterion>> {
    let criteria = targets.iter().map(|target| {
        let key = target.key.as_deref().unwrap_or_default();
        let values = target.values.as_deref().unwrap_or_default();
        let criterion = Criterion::parse(key, values)
            .map_err(|error| ApiError::validation(format!("Targets: {error}")))?;
        match criterion {
            Criterion::Tag { .. } | Criterion::TagKey(_) => Ok(criterion),
            Criterion::Nodes(_) | Criterion::Groups(_) => Err(ApiError::validation(format!(
                "Targets: a group is of nodes by their tags: tag:KEY or tag-key, and not {key}"
            ))),
        }
    });
    criteria.collect()
}

/// The groups of a target `resource-groups:Name`, as what a node must meet in one of them.
pub(super) async fn criterion(cx: &RequestContext, names: &[String]) -> ApiResult<Criterion> {
    let mut groups = Vec::with_capacity(names.len());
    for name in names {
        let group = cx.app.store.node_group(name).await?;
        let group = group.ok_or_else(|| {
            ApiError::validation(format!(
                "Targets: there is no group of nodes {name}; `moorline group list` lists them"
            ))
        })?;
        groups.push((group.name, by_tag(&group.targets)?));
    }
    if groups.is_empty() {
        return Err(ApiError::validation(
            "Targets: resource-groups:Name has no values",
        ));
    }
    Ok(Criterion::Groups(groups))
}
