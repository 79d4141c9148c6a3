//! Tags of managed nodes, documents and parameters.

mod add_tags_to_resource;
mod list_tags_for_resource;
mod remove_tags_from_resource;

use moorline_ssm::{
    ErrorCode,
    tag::{AddTagsToResource, ListTagsForResource, RemoveTagsFromResource, ResourceTypeForTagging, Tag},
};

use super::{ApiError, ApiResult, RequestContext, Router};
use crate::{
    auth::Resource,
    store::{TagRefusal, TaggedResource, Tags},
};

/// Tags that a resource can have.
pub(super) const MOST_TAGS: usize = 50;

pub(super) fn routes(router: Router) -> Router {
    router
        .on::<AddTagsToResource, _, _>(
            |input| resource(input.resource_type.as_ref(), input.resource_id.as_ref()),
            add_tags_to_resource::add_tags_to_resource,
        )
        .on::<ListTagsForResource, _, _>(
            |input| resource(input.resource_type.as_ref(), input.resource_id.as_ref()),
            list_tags_for_resource::list_tags_for_resource,
        )
        .on::<RemoveTagsFromResource, _, _>(
            |input| resource(input.resource_type.as_ref(), input.resource_id.as_ref()),
            remove_tags_from_resource::remove_tags_from_resource,
        )
}

fn resource(kind: Option<&ResourceTypeForTagging>, id: Option<&String>) -> Resource {
    let id = id.cloned().unwrap_or_default();
    match kind {
        Some(ResourceTypeForTagging::Document) => Resource::Document(id),
        Some(ResourceTypeForTagging::ManagedInstance) => Resource::Node(id),
        Some(ResourceTypeForTagging::Parameter) => Resource::Parameter(id),
        _ => Resource::Any,
    }
}

/// What the request names. Built-in documents are not the operator's to tag.
async fn tagged<'a>(
    cx: &RequestContext,
    kind: Option<&ResourceTypeForTagging>,
    id: &'a str,
) -> ApiResult<TaggedResource<'a>> {
    match kind {
        Some(ResourceTypeForTagging::ManagedInstance) => Ok(TaggedResource::Node(id)),
        Some(ResourceTypeForTagging::Parameter) => Ok(TaggedResource::Parameter(id)),
        Some(ResourceTypeForTagging::Document) => {
            let document = cx.app.store.document(id).await?;
            if document.is_some_and(|document| document.is_built_in()) {
                return Err(invalid_id(&format!(
                    "{id} is a built-in document, which has no tags of yours"
                )));
            }
            Ok(TaggedResource::Document(id))
        }
        other => {
            let kind = other.map_or("", ResourceTypeForTagging::as_str);
            let message = format!(
                "Moorline keeps no tags for resources of type {kind} yet: only Document, ManagedInstance, Parameter"
            );
            Err(ApiError::new(ErrorCode::InvalidResourceType, message))
        }
    }
}

fn invalid_id(message: &str) -> ApiError {
    ApiError::new(ErrorCode::InvalidResourceId, message)
}

fn refused(refusal: TagRefusal, id: &str) -> ApiError {
    match refusal {
        TagRefusal::NoSuchResource => invalid_id(&format!("there is no resource {id} of this type")),
        TagRefusal::TooMany => ApiError::new(
            ErrorCode::TooManyTagsError,
            format!("{id} would have more than {MOST_TAGS} tags; remove some first"),
        ),
    }
}

/// Tags of a request by key. `code` is what the operation answers to tags that break a rule the model does not have.
pub(super) fn checked_tags(tags: Option<&[Tag]>, code: ErrorCode) -> ApiResult<Tags> {
    let mut checked = Tags::new();
    for tag in tags.unwrap_or_default() {
        let (key, value) = (
            tag.key.clone().unwrap_or_default(),
            tag.value.clone().unwrap_or_default(),
        );
        if key.to_ascii_lowercase().starts_with("aws:") {
            return Err(ApiError::new(
                code,
                format!("tag key {key}: the prefix aws: is reserved"),
            ));
        }
        if let Some(key) = checked.insert(key.clone(), value).map(|_| key) {
            return Err(ApiError::new(code, format!("tag key {key} is given twice")));
        }
    }
    if checked.len() > MOST_TAGS {
        return Err(ApiError::new(
            code,
            format!("a resource has at most {MOST_TAGS} tags"),
        ));
    }
    Ok(checked)
}

/// Tags as replies have them.
pub(super) fn wire_tags(tags: Tags) -> Vec<Tag> {
    tags.into_iter()
        .map(|(key, value)| Tag {
            key: Some(key),
            value: Some(value),
        })
        .collect()
}
