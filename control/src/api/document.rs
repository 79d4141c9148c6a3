//! Documents: what commands and sessions run.

mod built_in;
mod content;
mod create_document;
mod delete_document;
mod describe_document;
mod get_document;
mod list_documents;

pub(crate) use built_in::built_in_documents;

use moorline_ssm::{
    EpochSeconds, ErrorCode,
    document::{
        CreateDocument, DeleteDocument, DescribeDocument, DocumentDescription, DocumentFormat,
        DocumentHashType, DocumentStatus, DocumentType, GetDocument, ListDocuments,
    },
};

use super::{ApiError, ApiResult, RequestContext, Router, tag::wire_tags};
use crate::{auth::Resource, store::DocumentRow};

pub(super) fn routes(router: Router) -> Router {
    router
        .on::<CreateDocument, _, _>(
            |input| document(input.name.as_ref()),
            create_document::create_document,
        )
        .on::<DeleteDocument, _, _>(
            |input| document(input.name.as_ref()),
            delete_document::delete_document,
        )
        .on::<DescribeDocument, _, _>(
            |input| document(input.name.as_ref()),
            describe_document::describe_document,
        )
        .on::<GetDocument, _, _>(|input| document(input.name.as_ref()), get_document::get_document)
        .on::<ListDocuments, _, _>(|_| Resource::Any, list_documents::list_documents)
}

fn document(name: Option<&String>) -> Resource {
    Resource::Document(name.map(|name| plain_name(name).to_owned()).unwrap_or_default())
}

/// A document's name out of its ARN (`arn:aws:ssm:REGION:ACCOUNT:document/NAME`), or the name as it is.
fn plain_name(name_or_arn: &str) -> &str {
    name_or_arn.rsplit_once('/').map_or(name_or_arn, |(_, name)| name)
}

/// The document that a request names, in the version that it names.
async fn find(
    cx: &RequestContext,
    name: Option<&str>,
    version: Option<&str>,
    version_name: Option<&str>,
) -> ApiResult<DocumentRow> {
    let name = plain_name(name.unwrap_or_default());
    let row = cx
        .app
        .store
        .document(name)
        .await?
        .ok_or_else(|| no_such_document(name))?;
    // One version each: the default one is the latest.
    let is_version =
        matches!(version, None | Some("" | "$DEFAULT" | "$LATEST")) || version == Some(&row.version);
    let is_named = version_name.is_none() || version_name == row.version_name.as_deref();
    if is_version && is_named {
        return Ok(row);
    }
    let asked = version.or(version_name).unwrap_or_default();
    Err(ApiError::new(
        ErrorCode::InvalidDocumentVersion,
        format!(
            "document {name} has no version {asked}; its only version is {}",
            row.version
        ),
    ))
}

fn no_such_document(name: &str) -> ApiError {
    ApiError::new(ErrorCode::InvalidDocument, format!("there is no document {name}"))
}

/// A document as it is described.
fn description(row: DocumentRow) -> DocumentDescription {
    let details = content::Details::of(&row.document_type, &row.content);
    DocumentDescription {
        hash: Some(row.sha256),
        hash_type: Some(DocumentHashType::Sha256),
        name: Some(row.name),
        display_name: row.display_name,
        version_name: row.version_name,
        owner: Some(row.owner),
        created_date: Some(EpochSeconds::from_millis(row.created_at)),
        status: Some(DocumentStatus::Active),
        document_version: Some(row.version.clone()),
        description: row.description,
        parameters: Some(details.parameters),
        platform_types: Some(details.platforms),
        document_type: Some(DocumentType::from(row.document_type.as_str())),
        schema_version: Some(row.schema_version),
        latest_version: Some(row.version.clone()),
        default_version: Some(row.version),
        document_format: Some(DocumentFormat::from(row.document_format.as_str())),
        target_type: row.target_type,
        tags: Some(wire_tags(row.tags)),
        ..Default::default()
    }
}
