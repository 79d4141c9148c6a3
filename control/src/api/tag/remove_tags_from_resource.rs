//! `RemoveTagsFromResource`: removes the tags that are there; others are no error.
//!
//! AWS: API_RemoveTagsFromResource. Deviations: resource types Document, ManagedInstance and Parameter only.

use moorline_ssm::tag::{RemoveTagsFromResourceRequest, RemoveTagsFromResourceResult};

use super::{refused, tagged};
use crate::api::{ApiResult, RequestContext};

pub(super) async fn remove_tags_from_resource(
    cx: RequestContext,
    input: RemoveTagsFromResourceRequest,
) -> ApiResult<RemoveTagsFromResourceResult> {
    let id = input.resource_id.unwrap_or_default();
    let resource = tagged(&cx, input.resource_type.as_ref(), &id).await?;
    let removed = cx
        .app
        .store
        .remove_tags(resource, &input.tag_keys.unwrap_or_default())
        .await?;
    removed.map_err(|refusal| refused(refusal, &id))?;
    Ok(RemoveTagsFromResourceResult {})
}

#[cfg(test)]
mod tests {
    use moorline_ssm::{
        ErrorCode,
        tag::{RemoveTagsFromResource, ResourceTypeForTagging},
    };

    use super::*;
    use crate::test_support::{TestApp, node_id};

    fn request(id: &str, keys: &[&str]) -> RemoveTagsFromResourceRequest {
        RemoveTagsFromResourceRequest {
            resource_type: Some(ResourceTypeForTagging::ManagedInstance),
            resource_id: Some(id.to_owned()),
            tag_keys: Some(keys.iter().map(|key| (*key).to_owned()).collect()),
        }
    }

    #[tokio::test]
    async fn only_the_named_tags_go() {
        let test = TestApp::new().await;
        let node = test.register_node(0, &[("a", "1"), ("b", "2")]).await;
        test.call::<RemoveTagsFromResource>(request(node.as_str(), &["a", "absent"]))
            .await
            .unwrap();
        let tags = test.app.store.node(&node).await.unwrap().unwrap().tags;
        assert_eq!(tags.into_keys().collect::<Vec<_>>(), ["b"]);
        let error = test
            .refuse::<RemoveTagsFromResource>(request(node_id(9).as_str(), &["a"]))
            .await;
        assert_eq!(error.code, ErrorCode::InvalidResourceId);
    }
}
