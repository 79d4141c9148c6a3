//! `UpdateDocument`: adds a version to a document. The default version stays what it is, but session preferences take
//! effect at once: sessions use the latest version of those.
//!
//! AWS: API_UpdateDocument. `DocumentVersion` says which version the caller changed; it must be the latest. Deviations:
//! as those of CreateDocument; content counts as duplicate when it is that of the latest version.

use moorline_ssm::{
    ErrorCode,
    document::{UpdateDocumentRequest, UpdateDocumentResult},
};

use super::{choice, description, given::Given, is_replaceable, no_such_document, no_such_version};
use crate::{
    api::{ApiError, ApiResult, RequestContext},
    store::{DocumentRow, Update, UpdateRefusal},
};

/// AWS's quota for a document.
const MOST_VERSIONS: i64 = 1000;

pub(super) async fn update_document(
    cx: RequestContext,
    input: UpdateDocumentRequest,
) -> ApiResult<UpdateDocumentResult> {
    let name = input.name.unwrap_or_default();
    let present = cx.app.store.document(&name).await?;
    let present = present.ok_or_else(|| no_such_document(&name))?;
    if present.is_built_in() && !is_replaceable(&name) {
        let message = format!(
            "{name} comes with the endpoint and cannot be changed; create a document of another name from it"
        );
        return Err(ApiError::new(ErrorCode::InvalidDocumentOperation, message));
    }
    let asked = input.document_version.as_deref().unwrap_or_default();
    let over = choice(Some(asked), None).ok_or_else(|| no_such_version(&present, asked))?;
    let given = Given {
        attachments: input.attachments,
        content: input.content,
        display_name: input.display_name,
        format: input.document_format,
        target_type: input.target_type,
        version_name: input.version_name,
    };
    let update = Update {
        name: &name,
        document_type: &present.document_type,
        over,
        version: given.checked(&cx, &name, &present.document_type).await?,
        owner: cx.principal.arn(),
        limit: MOST_VERSIONS,
    };
    let updated = cx.app.store.update_document(&update, cx.now).await?;
    let row = updated.map_err(|refusal| refused(refusal, &present, &update, asked))?;
    tracing::info!(
        document = name,
        version = row.version,
        by = cx.principal.arn(),
        "document updated"
    );
    Ok(UpdateDocumentResult {
        document_description: Some(description(&cx, row).await?),
    })
}

fn refused(refusal: UpdateRefusal, present: &DocumentRow, update: &Update<'_>, asked: &str) -> ApiError {
    let DocumentRow {
        name, latest_version, ..
    } = present;
    let asked = if asked.is_empty() { "$DEFAULT" } else { asked };
    match refusal {
        UpdateRefusal::NoSuchDocument => no_such_document(name),
        UpdateRefusal::OtherType => ApiError::new(
            ErrorCode::InvalidDocumentOperation,
            format!("document {name} was replaced meanwhile by one of another type; look at it again"),
        ),
        UpdateRefusal::NotTheLatest => ApiError::new(
            ErrorCode::InvalidDocumentVersion,
            format!(
                "DocumentVersion: {asked} is not the latest version of document {name}, which is {latest_version}; \
                 give that or $LATEST"
            ),
        ),
        UpdateRefusal::SameContent => ApiError::new(
            ErrorCode::DuplicateDocumentContent,
            format!("the content is that of the latest version of document {name}"),
        ),
        UpdateRefusal::NameTaken => ApiError::new(
            ErrorCode::DuplicateDocumentVersionName,
            format!(
                "document {name} has a version with the name {} already",
                update.version.version_name.as_deref().unwrap_or_default()
            ),
        ),
        UpdateRefusal::TooMany => ApiError::new(
            ErrorCode::DocumentVersionLimitExceeded,
            format!(
                "document {name} has {MOST_VERSIONS} versions, the most that are kept; delete old ones first"
            ),
        ),
    }
}
