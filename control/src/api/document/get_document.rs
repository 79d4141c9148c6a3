//! `GetDocument`: a document's content. Nodes read documents with it, too.
//!
//! AWS: API_GetDocument. Deviations: no conversion between formats.

use moorline_ssm::{
    EpochSeconds,
    document::{DocumentFormat, DocumentStatus, DocumentType, GetDocumentRequest, GetDocumentResult},
};

use super::find;
use crate::api::{ApiError, ApiResult, RequestContext};

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
    let asked = input.document_format.map(|format| format.to_string());
    if asked.is_some_and(|asked| asked != row.document_format) {
        let message = format!(
            "DocumentFormat: Moorline gives {} as {} only",
            row.name, row.document_format
        );
        return Err(ApiError::validation(message));
    }
    Ok(GetDocumentResult {
        name: Some(row.name),
        created_date: Some(EpochSeconds::from_millis(row.created_at)),
        display_name: row.display_name,
        version_name: row.version_name,
        document_version: Some(row.version.to_string()),
        status: Some(DocumentStatus::Active),
        content: Some(row.content),
        document_type: Some(DocumentType::from(row.document_type.as_str())),
        document_format: Some(DocumentFormat::from(row.document_format.as_str())),
        ..Default::default()
    })
}

#[cfg(test)]
mod tests {
    use moorline_ssm::{ErrorCode, document::GetDocument};

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
            document_format: Some(DocumentFormat::Yaml),
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
