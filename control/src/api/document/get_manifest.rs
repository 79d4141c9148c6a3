//! `GetManifest`: the manifest of a package that AWS keeps outside of documents. Here every package is a document, and
//! that is what a stock agent looks for after this refusal (agent-wire §10.4).
//!
//! Not in the public API; agent-only.

use moorline_ssm::{
    ErrorCode,
    document::{GetManifestRequest, GetManifestResult},
};

use crate::api::{ApiError, ApiResult, RequestContext};

pub(super) async fn get_manifest(
    _cx: RequestContext,
    input: GetManifestRequest,
) -> ApiResult<GetManifestResult> {
    let name = input.package_name.unwrap_or_default();
    Err(ApiError::new(
        ErrorCode::ResourceNotFoundException,
        format!("packages are documents of type Package here; GetDocument has {name}, if it is there"),
    ))
}

#[cfg(test)]
mod tests {
    use moorline_ssm::document::GetManifest;

    use super::*;
    use crate::{
        auth::Principal,
        test_support::{TestApp, node_id},
    };

    #[tokio::test]
    async fn a_stock_agent_is_sent_to_the_package_document() {
        let test = TestApp::new().await;
        let input = GetManifestRequest {
            package_name: Some("Mine".to_owned()),
            package_version: Some("latest".to_owned()),
        };
        let node = Principal::Node(node_id(0));
        let error = test.refuse_as::<GetManifest>(node, input).await;
        assert_eq!(error.code, ErrorCode::ResourceNotFoundException);
    }
}
