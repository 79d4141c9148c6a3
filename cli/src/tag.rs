//! `moorline tag`: the tags of a node.

use std::collections::BTreeMap;

use moorline_ssm::tag::{
    AddTagsToResource, AddTagsToResourceRequest, ListTagsForResource, ListTagsForResourceRequest,
    RemoveTagsFromResource, RemoveTagsFromResourceRequest, ResourceTypeForTagging, Tag,
};
use moorline_transport::CallError;

use crate::{
    arguments::TagCommand,
    console::{self, one_line},
    error::CliError,
    operator::Operator,
    pick,
};

pub(crate) async fn execute(operator: &Operator, command: TagCommand, json: bool) -> Result<u8, CliError> {
    let resource_type = Some(ResourceTypeForTagging::ManagedInstance);
    let id = match command {
        TagCommand::Add { node, tags } => {
            let id = pick::node(operator, &node).await?;
            let tags = tags.into_iter().map(|(key, value)| Tag {
                key: Some(key),
                value: Some(value),
            });
            let request = AddTagsToResourceRequest {
                resource_type,
                resource_id: Some(id.clone()),
                tags: Some(tags.collect()),
            };
            operator.call::<AddTagsToResource>(&request).await?;
            id
        }
        TagCommand::Remove { node, keys } => {
            let id = pick::node(operator, &node).await?;
            // K=V is what `add` takes: the value is of no matter here
            let keys = keys
                .iter()
                .map(|key| key.split_once('=').map_or(key.as_str(), |pair| pair.0));
            let request = RemoveTagsFromResourceRequest {
                resource_type,
                resource_id: Some(id.clone()),
                tag_keys: Some(keys.map(str::to_owned).collect()),
            };
            operator.call::<RemoveTagsFromResource>(&request).await?;
            id
        }
        TagCommand::List { node } => pick::node(operator, &node).await?,
    };
    let tags = of_node(operator, &id).await?;
    if json {
        console::print_json(&tags)?;
    } else {
        for (key, value) in &tags {
            console::print_line(&one_line(&format!("{key}={value}")))?;
        }
    }
    Ok(0)
}

/// The tags of one node.
///
/// # Errors
/// The endpoint did not tell them.
pub(crate) async fn of_node(operator: &Operator, id: &str) -> Result<BTreeMap<String, String>, CallError> {
    let request = ListTagsForResourceRequest {
        resource_type: Some(ResourceTypeForTagging::ManagedInstance),
        resource_id: Some(id.to_owned()),
    };
    let result = operator.call::<ListTagsForResource>(&request).await?;
    Ok(map(result.tag_list.as_deref().unwrap_or_default()))
}

/// Tags as a map: a key occurs once.
pub(crate) fn map(tags: &[Tag]) -> BTreeMap<String, String> {
    tags.iter()
        .filter_map(|tag| Some((tag.key.clone()?, tag.value.clone().unwrap_or_default())))
        .collect()
}
