//! `UpdateDocumentDefaultVersion`: chooses the version that is used where a request names none.
//!
//! AWS: API_UpdateDocumentDefaultVersion. It has no effect on session preferences, whose latest version is used.

use moorline_ssm::{
    ErrorCode,
    document::{
        DocumentDefaultVersionDescription, UpdateDocumentDefaultVersionRequest,
        UpdateDocumentDefaultVersionResult,
    },
};

use super::{no_such_document, no_such_version};
use crate::api::{ApiError, ApiResult, RequestContext};

pub(super) async fn update_document_default_version(
    cx: RequestContext,
    input: UpdateDocumentDefaultVersionRequest,
) -> ApiResult<UpdateDocumentDefaultVersionResult> {
    let name = input.name.unwrap_or_default();
    let present = cx.app.store.document(&name).await?;
    let present = present.ok_or_else(|| no_such_document(&name))?;
    if present.is_built_in() {
        let message = format!("{name} comes with the endpoint and cannot be changed");
        return Err(ApiError::new(ErrorCode::InvalidDocument, message));
    }
    let asked = input.document_version.unwrap_or_default();
    let number = asked.parse().map_err(|_| no_such_version(&present, &asked))?;
    let changed = cx.app.store.set_default_version(&name, number).await?;
    let row = changed.map_err(|_| no_such_version(&present, &asked))?;
    Ok(UpdateDocumentDefaultVersionResult {
        description: Some(DocumentDefaultVersionDescription {
            name: Some(row.name),
            default_version: Some(row.version.to_string()),
            default_version_name: row.version_name,
        }),
    })
}
