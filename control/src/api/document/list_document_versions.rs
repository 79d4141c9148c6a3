//! `ListDocumentVersions`: the versions of a document, the newest first.
//!
//! AWS: API_ListDocumentVersions.

use moorline_ssm::{
    EpochSeconds,
    document::{
        DocumentFormat, DocumentStatus, DocumentVersionInfo, ListDocumentVersionsRequest,
        ListDocumentVersionsResult,
    },
};

use super::no_such_document;
use crate::{
    api::{
        ApiResult, RequestContext,
        pagination::{Listing, limit},
    },
    store::VersionRow,
};

const DEFAULT_PAGE: usize = 50;

pub(super) async fn list_document_versions(
    cx: RequestContext,
    input: ListDocumentVersionsRequest,
) -> ApiResult<ListDocumentVersionsResult> {
    let name = input.name.unwrap_or_default();
    let rows = cx.app.store.document_versions(&name).await?;
    if rows.is_empty() {
        return Err(no_such_document(&name));
    }
    let (page, next_token) = Listing::new(&cx, "ListDocumentVersions", &name).page(
        rows,
        // positions grow from the newest on
        |row| format!("{:019}", i64::MAX - row.version),
        input.next_token.as_deref(),
        limit(input.max_results, DEFAULT_PAGE),
    )?;
    Ok(ListDocumentVersionsResult {
        document_versions: Some(page.into_iter().map(|row| shape(&name, row)).collect()),
        next_token,
    })
}

fn shape(name: &str, row: VersionRow) -> DocumentVersionInfo {
    DocumentVersionInfo {
        name: Some(name.to_owned()),
        is_default_version: Some(row.is_default),
        display_name: row.display_name,
        document_version: Some(row.version.to_string()),
        version_name: row.version_name,
        created_date: Some(EpochSeconds::from_millis(row.created_at)),
        document_format: Some(DocumentFormat::from(row.document_format.as_str())),
        status: Some(DocumentStatus::Active),
        ..Default::default()
    }
}
