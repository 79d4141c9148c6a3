//! `GetDocument`: a document's content. Nodes read documents with it, too.
//!
//! AWS: API_GetDocument. JSON unless YAML is asked for; a document of the format asked for is given as it was stored,
//! with its comments, and one of the other format is converted.

use moorline_protocol::document::{TextFormat, write_yaml};
use moorline_ssm::{
    EpochSeconds, ErrorCode,
    document::{DocumentFormat, DocumentStatus, DocumentType, GetDocumentRequest, GetDocumentResult},
};

use super::{attachment, find};
use crate::{
    api::{ApiError, ApiResult, RequestContext},
    store::DocumentRow,
};

pub(super) async fn get_document(
    cx: RequestContext,
    input: GetDocumentRequest,
) -> ApiResult<GetDocumentResult> {
    let version_name = input.version_name.as_deref();
    let row = find(
        &cx,
        input.name.as_deref(),
        input.document_version.as_deref(),
        version_name,
    )
    .await?;
    let asked = match input.document_format {
        None | Some(DocumentFormat::Json) => TextFormat::Json,
        Some(DocumentFormat::Yaml) => TextFormat::Yaml,
        Some(other) => {
            let message = format!("DocumentFormat must be JSON or YAML, not {other}");
            return Err(ApiError::validation(message));
        }
    };
    let content = content_as(&row, asked)?;
    let attachments_content = attachment::contents(&cx, &row.name, row.version).await?;
    Ok(GetDocumentResult {
        name: Some(row.name),
        created_date: Some(EpochSeconds::from_millis(row.created_at)),
        display_name: row.display_name,
        version_name: row.version_name,
        document_version: Some(row.version.to_string()),
        status: Some(DocumentStatus::Active),
        content: Some(content),
        document_type: Some(DocumentType::from(row.document_type.as_str())),
        document_format: Some(DocumentFormat::from(asked.as_str())),
        attachments_content,
        ..Default::default()
    })
}

fn content_as(row: &DocumentRow, format: TextFormat) -> ApiResult<String> {
    if row.document_format == format.as_str() {
        return Ok(row.content.clone());
    }
    let unreadable = |error: &dyn std::fmt::Display| {
        let message = format!("document {} cannot be read: {error}", row.name);
        ApiError::new(ErrorCode::InvalidDocument, message)
    };
    let value = row.value().map_err(|error| unreadable(&error))?;
    match format {
        TextFormat::Json => serde_json::to_string_pretty(&value).map_err(|error| unreadable(&error)),
        TextFormat::Yaml => Ok(write_yaml(&value)),
    }
}

#[cfg(test)]
mod tests {
    use moorline_ssm::document::GetDocument;

    use super::*;
    use crate::{
        auth::Principal,
        test_support::{TestApp, node_id},
    };

    fn request() -> GetDocumentRequest {
        GetDocumentRequest {
            name: Some("AWS-RunShellScript".to_owned()),
            ..Default::default()
        }
    }

    async fn seeded() -> TestApp {
        let test = TestApp::new().await;
        test.app
            .store
            .seed_documents(&crate::api::built_in_documents(), 0)
            .await
            .unwrap();
        test
    }

    #[tokio::test]
    async fn a_document_that_means_nothing_on_linux_is_refused_with_what_to_take_instead() {
        let test = seeded().await;
        let input = GetDocumentRequest {
            name: Some("AWS-InstallApplication".to_owned()),
            ..Default::default()
        };
        let refused = test.refuse::<GetDocument>(input).await;
        assert_eq!(refused.code, ErrorCode::InvalidDocument);
        assert!(
            refused.message.contains("it is for Windows")
                && refused.message.contains("AWS-ConfigureAWSPackage"),
            "{}",
            refused.message
        );
    }

    #[tokio::test]
    async fn operators_and_nodes_get_the_content_in_every_spelling_of_its_version() {
        let test = seeded().await;
        for version in [None, Some("1"), Some("$DEFAULT"), Some("$LATEST")] {
            let input = GetDocumentRequest {
                document_version: version.map(str::to_owned),
                ..request()
            };
            let node = Principal::Node(node_id(0));
            let as_node = test.call_as::<GetDocument>(node, input.clone()).await.unwrap();
            assert_eq!(as_node, test.call::<GetDocument>(input).await.unwrap());
            assert!(as_node.content.unwrap().contains("aws:runShellScript"));
        }
    }

    #[tokio::test]
    async fn another_version_or_format_is_refused() {
        let test = seeded().await;
        let input = GetDocumentRequest {
            document_version: Some("2".to_owned()),
            ..request()
        };
        assert_eq!(
            test.refuse::<GetDocument>(input).await.code,
            ErrorCode::InvalidDocumentVersion
        );
        let input = GetDocumentRequest {
            document_format: Some(DocumentFormat::Text),
            ..request()
        };
        assert_eq!(
            test.refuse::<GetDocument>(input).await.code,
            ErrorCode::ValidationException
        );
        let input = GetDocumentRequest {
            name: Some("absent".to_owned()),
            ..Default::default()
        };
        assert_eq!(
            test.refuse::<GetDocument>(input).await.code,
            ErrorCode::InvalidDocument
        );
    }
}
