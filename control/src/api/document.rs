//! Documents: what commands and sessions run.

mod attachment;
mod built_in;
mod content;
mod create_document;
mod delete_document;
mod describe_document;
mod describe_document_permission;
mod get_document;
mod get_manifest;
mod given;
mod list_document_versions;
mod list_documents;
mod modify_document_permission;
mod put_attachment;
mod update_document;
mod update_document_default_version;

#[cfg(test)]
mod tests;

pub(crate) use built_in::built_in_documents;

use moorline_protocol::document::PREFERENCES_DOCUMENT;
use moorline_ssm::{
    EpochSeconds, ErrorCode,
    document::{
        CreateDocument, DeleteDocument, DescribeDocument, DescribeDocumentPermission, DocumentDescription,
        DocumentFormat, DocumentHashType, DocumentStatus, DocumentType, GetDocument, GetManifest,
        ListDocumentVersions, ListDocuments, ModifyDocumentPermission, PutAttachment, UpdateDocument,
        UpdateDocumentDefaultVersion,
    },
};

use super::{ApiError, ApiResult, RequestContext, Router, tag::wire_tags};
use crate::{
    auth::Resource,
    store::{DocumentRow, VersionChoice},
};

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
        .on::<DescribeDocumentPermission, _, _>(
            |input| document(input.name.as_ref()),
            describe_document_permission::describe_document_permission,
        )
        .on::<ModifyDocumentPermission, _, _>(
            |input| document(input.name.as_ref()),
            modify_document_permission::modify_document_permission,
        )
        .on::<GetDocument, _, _>(|input| document(input.name.as_ref()), get_document::get_document)
        .on::<GetManifest, _, _>(|_| Resource::Any, get_manifest::get_manifest)
        .on::<ListDocumentVersions, _, _>(
            |input| document(input.name.as_ref()),
            list_document_versions::list_document_versions,
        )
        .on::<ListDocuments, _, _>(|_| Resource::Any, list_documents::list_documents)
        .on::<PutAttachment, _, _>(|_| Resource::Any, put_attachment::put_attachment)
        .on::<UpdateDocument, _, _>(
            |input| document(input.name.as_ref()),
            update_document::update_document,
        )
        .on::<UpdateDocumentDefaultVersion, _, _>(
            |input| document(input.name.as_ref()),
            update_document_default_version::update_document_default_version,
        )
}

fn document(name: Option<&String>) -> Resource {
    Resource::Document(name.map(|name| plain_name(name).to_owned()).unwrap_or_default())
}

/// A document's name out of its ARN (`arn:aws:ssm:REGION:ACCOUNT:document/NAME`), or the name as it is.
fn plain_name(name_or_arn: &str) -> &str {
    name_or_arn.rsplit_once('/').map_or(name_or_arn, |(_, name)| name)
}

/// The document that a request names, in the version that it names.
pub(super) async fn find(
    cx: &RequestContext,
    name: Option<&str>,
    version: Option<&str>,
    version_name: Option<&str>,
) -> ApiResult<DocumentRow> {
    let name = plain_name(name.unwrap_or_default());
    let found = match choice(version, version_name) {
        Some(choice) => cx.app.store.document_version(name, choice).await?,
        None => None,
    };
    let is_named = |row: &DocumentRow| version_name.is_none() || version_name == row.version_name.as_deref();
    if let Some(row) = found.filter(is_named) {
        return Ok(row);
    }
    let document = cx.app.store.document(name).await?;
    let document = document.ok_or_else(|| no_such_document(name))?;
    let asked = version.or(version_name).unwrap_or_default();
    Err(no_such_version(&document, asked))
}

/// The version that `DocumentVersion` or `VersionName` ask for. `None`: there can be no such version.
fn choice<'a>(version: Option<&str>, version_name: Option<&'a str>) -> Option<VersionChoice<'a>> {
    match (version, version_name) {
        (None | Some(""), Some(version_name)) => Some(VersionChoice::Named(version_name)),
        (None | Some("" | "$DEFAULT"), _) => Some(VersionChoice::Default),
        (Some("$LATEST"), _) => Some(VersionChoice::Latest),
        (Some(number), _) => number.parse().ok().map(VersionChoice::Number),
    }
}

fn no_such_version(document: &DocumentRow, asked: &str) -> ApiError {
    let DocumentRow {
        name,
        latest_version,
        default_version,
        ..
    } = document;
    ApiError::new(
        ErrorCode::InvalidDocumentVersion,
        format!(
            "document {name} has no version {asked}; its latest version is {latest_version}, its default version \
             {default_version}"
        ),
    )
}

/// Whether a built-in document is the operators' own to replace: the session preferences, of which the built-in ones
/// only fill the gap. All others are refused by name.
fn is_replaceable(name: &str) -> bool {
    name == PREFERENCES_DOCUMENT
}

fn no_such_document(name: &str) -> ApiError {
    let message = match built_in::is_for_windows(name) {
        false => format!("there is no document {name}"),
        true => format!(
            "there is no document {name} here: at AWS it is for Windows, and means nothing on Linux; \
             AWS-ConfigureAWSPackage installs packages, and AWS-RunShellScript runs what the system has"
        ),
    };
    ApiError::new(ErrorCode::InvalidDocument, message)
}

/// A document as it is described.
async fn description(cx: &RequestContext, row: DocumentRow) -> ApiResult<DocumentDescription> {
    let details = content::Details::of(&row);
    Ok(DocumentDescription {
        attachments_information: attachment::informations(cx, &row.name, row.version).await?,
        hash: Some(row.sha256),
        hash_type: Some(DocumentHashType::Sha256),
        name: Some(row.name),
        display_name: row.display_name,
        version_name: row.version_name,
        owner: Some(row.owner),
        created_date: Some(EpochSeconds::from_millis(row.created_at)),
        status: Some(DocumentStatus::Active),
        // The only free text that clients show with a description.
        status_information: Some(details.warnings)
            .filter(|warnings| !warnings.is_empty())
            .map(|warnings| format!("Warning: {}", warnings.join("; "))),
        document_version: Some(row.version.to_string()),
        description: row.description,
        parameters: Some(details.parameters),
        platform_types: Some(details.platforms),
        document_type: Some(DocumentType::from(row.document_type.as_str())),
        schema_version: Some(row.schema_version),
        latest_version: Some(row.latest_version.to_string()),
        default_version: Some(row.default_version.to_string()),
        document_format: Some(DocumentFormat::from(row.document_format.as_str())),
        target_type: row.target_type,
        tags: Some(wire_tags(row.tags)),
        ..Default::default()
    })
}
