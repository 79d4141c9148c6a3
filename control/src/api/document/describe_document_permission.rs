//! `DescribeDocumentPermission`: with which accounts a document is shared.
//!
//! AWS: API_DescribeDocumentPermission.

use moorline_ssm::document::{
    AccountSharingInfo, DescribeDocumentPermissionRequest, DescribeDocumentPermissionResponse,
};

use super::no_such_document;
use crate::api::{
    ApiResult, RequestContext,
    pagination::{Listing, limit},
};

const DEFAULT_PAGE: usize = 50;

pub(super) async fn describe_document_permission(
    cx: RequestContext,
    input: DescribeDocumentPermissionRequest,
) -> ApiResult<DescribeDocumentPermissionResponse> {
    let name = input.name.unwrap_or_default();
    if cx.app.store.document(&name).await?.is_none() {
        return Err(no_such_document(&name));
    }
    let shares = cx.app.store.document_shares(&name).await?;
    let (page, next_token) = Listing::new(&cx, "DescribeDocumentPermission", &name).page(
        shares,
        |share| share.account_id.clone(),
        input.next_token.as_deref(),
        limit(input.max_results, DEFAULT_PAGE),
    )?;
    Ok(DescribeDocumentPermissionResponse {
        account_ids: Some(page.iter().map(|share| share.account_id.clone()).collect()),
        account_sharing_info_list: Some(
            page.into_iter()
                .map(|share| AccountSharingInfo {
                    account_id: Some(share.account_id),
                    shared_document_version: share.version,
                })
                .collect(),
        ),
        next_token,
    })
}
