//! `ListTagsForResource`: the tags of one resource.
//!
//! AWS: API_ListTagsForResource. Deviations: resource types Document, ManagedInstance and Parameter only.

use moorline_ssm::tag::{ListTagsForResourceRequest, ListTagsForResourceResult};

use super::{refused, tagged, wire_tags};
use crate::{
    api::{ApiResult, RequestContext},
    store::TagRefusal,
};

pub(super) async fn list_tags_for_resource(
    cx: RequestContext,
    input: ListTagsForResourceRequest,
) -> ApiResult<ListTagsForResourceResult> {
    let id = input.resource_id.unwrap_or_default();
    let resource = tagged(&cx, input.resource_type.as_ref(), &id).await?;
    let tags = cx.app.store.tags(resource).await?;
    let tags = tags.ok_or_else(|| refused(TagRefusal::NoSuchResource, &id))?;
    Ok(ListTagsForResourceResult {
        tag_list: Some(wire_tags(tags)),
    })
}

#[cfg(test)]
mod tests {
    use moorline_ssm::{
        ErrorCode,
        tag::{ListTagsForResource, ResourceTypeForTagging, Tag},
    };

    use super::*;
    use crate::test_support::{TestApp, node_id};

    fn request(id: &str) -> ListTagsForResourceRequest {
        ListTagsForResourceRequest {
            resource_type: Some(ResourceTypeForTagging::ManagedInstance),
            resource_id: Some(id.to_owned()),
        }
    }

    #[tokio::test]
    async fn a_node_has_the_tags_of_its_activation() {
        let test = TestApp::new().await;
        let node = test.register_node(0, &[("env", "test")]).await;
        let tags = test
            .call::<ListTagsForResource>(request(node.as_str()))
            .await
            .unwrap()
            .tag_list;
        let tag = Tag {
            key: Some("env".to_owned()),
            value: Some("test".to_owned()),
        };
        assert_eq!(tags, Some(vec![tag]));
        let error = test
            .refuse::<ListTagsForResource>(request(node_id(9).as_str()))
            .await;
        assert_eq!(error.code, ErrorCode::InvalidResourceId);
    }
}
