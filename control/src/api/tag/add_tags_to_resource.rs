//! `AddTagsToResource`: adds tags or changes their values, all or none.
//!
//! AWS: API_AddTagsToResource. Deviations: resource types Document, ManagedInstance and Parameter only.

use moorline_ssm::{
    ErrorCode,
    tag::{AddTagsToResourceRequest, AddTagsToResourceResult},
};

use super::{MOST_TAGS, checked_tags, refused, tagged};
use crate::api::{ApiResult, RequestContext};

pub(super) async fn add_tags_to_resource(
    cx: RequestContext,
    input: AddTagsToResourceRequest,
) -> ApiResult<AddTagsToResourceResult> {
    let id = input.resource_id.unwrap_or_default();
    let resource = tagged(&cx, input.resource_type.as_ref(), &id).await?;
    let tags = checked_tags(input.tags.as_deref(), ErrorCode::ValidationException)?;
    let added = cx.app.store.add_tags(resource, &tags, MOST_TAGS).await?;
    added.map_err(|refusal| refused(refusal, &id))?;
    Ok(AddTagsToResourceResult {})
}

#[cfg(test)]
mod tests {
    use moorline_ssm::tag::{AddTagsToResource, ResourceTypeForTagging, Tag};

    use super::*;
    use crate::{
        auth::Principal,
        test_support::{TestApp, node_id},
    };

    fn request(id: &str, keys: std::ops::Range<usize>) -> AddTagsToResourceRequest {
        let tag = |key: usize| Tag {
            key: Some(format!("k{key}")),
            value: Some("v".to_owned()),
        };
        AddTagsToResourceRequest {
            resource_type: Some(ResourceTypeForTagging::ManagedInstance),
            resource_id: Some(id.to_owned()),
            tags: Some(keys.map(tag).collect()),
        }
    }

    #[tokio::test]
    async fn the_fifty_first_tag_is_refused_and_changes_nothing() {
        let test = TestApp::new().await;
        let node = test.register_node(0, &[]).await;
        test.call::<AddTagsToResource>(request(node.as_str(), 0..50))
            .await
            .unwrap();
        test.call::<AddTagsToResource>(request(node.as_str(), 0..10))
            .await
            .unwrap();
        let error = test
            .refuse::<AddTagsToResource>(request(node.as_str(), 45..51))
            .await;
        assert_eq!(error.code, ErrorCode::TooManyTagsError);
        assert_eq!(test.app.store.node(&node).await.unwrap().unwrap().tags.len(), 50);
    }

    #[tokio::test]
    async fn a_resource_that_is_not_there_or_not_tagged_here_is_named() {
        let test = TestApp::new().await;
        let error = test
            .refuse::<AddTagsToResource>(request(node_id(9).as_str(), 0..1))
            .await;
        assert_eq!(error.code, ErrorCode::InvalidResourceId);
        let mut input = request("x", 0..1);
        input.resource_type = Some(ResourceTypeForTagging::PatchBaseline);
        assert_eq!(
            test.refuse::<AddTagsToResource>(input).await.code,
            ErrorCode::InvalidResourceType
        );
        let mut input = request("AWS-RunShellScript", 0..1);
        input.resource_type = Some(ResourceTypeForTagging::Document);
        assert_eq!(
            test.refuse::<AddTagsToResource>(input).await.code,
            ErrorCode::InvalidResourceId
        );
    }

    #[tokio::test]
    async fn a_node_does_not_tag_itself() {
        let test = TestApp::new().await;
        let node = test.register_node(0, &[]).await;
        let input = request(node.as_str(), 0..1);
        let error = test
            .refuse_as::<AddTagsToResource>(Principal::Node(node), input)
            .await;
        assert_eq!(error.code, ErrorCode::AccessDeniedException);
    }
}
