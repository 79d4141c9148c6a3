//! `DeleteDocument`: removes an operator's document.
//!
//! AWS: API_DeleteDocument. Deviations: a document has one version, so naming it deletes the document. Where an
//! operator's document stood over a built-in one (shell preferences), the built-in one is back afterwards.

use moorline_ssm::{
    ErrorCode,
    document::{DeleteDocumentRequest, DeleteDocumentResult},
};

use super::{built_in::built_in_document, no_such_document};
use crate::api::{ApiError, ApiResult, RequestContext};

pub(super) async fn delete_document(
    cx: RequestContext,
    input: DeleteDocumentRequest,
) -> ApiResult<DeleteDocumentResult> {
    let name = input.name.unwrap_or_default();
    let row = cx
        .app
        .store
        .document(&name)
        .await?
        .ok_or_else(|| no_such_document(&name))?;
    if row.is_built_in() {
        let message = format!("{name} comes with the endpoint and cannot be deleted");
        return Err(ApiError::new(ErrorCode::InvalidDocumentOperation, message));
    }
    let is_version = input
        .document_version
        .is_none_or(|version| version == row.version);
    let is_named = input.version_name.is_none() || input.version_name == row.version_name;
    if !(is_version && is_named) {
        let message = format!(
            "document {name} has no such version; its only version is {}",
            row.version
        );
        return Err(ApiError::new(ErrorCode::InvalidDocumentOperation, message));
    }
    if !cx.app.store.delete_document(&name).await? {
        return Err(no_such_document(&name));
    }
    if let Some(built_in) = built_in_document(&name) {
        cx.app.store.seed_documents(&[built_in], cx.now).await?;
    }
    Ok(DeleteDocumentResult {})
}

#[cfg(test)]
mod tests {
    use moorline_ssm::document::{CreateDocument, CreateDocumentRequest, DeleteDocument, DocumentType};

    use super::*;
    use crate::test_support::TestApp;

    const PREFERENCES: &str = r#"{"schemaVersion":"1.0","sessionType":"Standard_Stream","inputs":{}}"#;

    fn request(name: &str) -> DeleteDocumentRequest {
        DeleteDocumentRequest {
            name: Some(name.to_owned()),
            ..Default::default()
        }
    }

    async fn with_document(name: &str) -> TestApp {
        let test = TestApp::new().await;
        test.app
            .store
            .seed_documents(&crate::api::built_in_documents(), 0)
            .await
            .unwrap();
        let input = CreateDocumentRequest {
            name: Some(name.to_owned()),
            document_type: Some(DocumentType::Session),
            content: Some(PREFERENCES.to_owned()),
            ..Default::default()
        };
        test.call::<CreateDocument>(input).await.unwrap();
        test
    }

    #[tokio::test]
    async fn a_deleted_document_is_gone() {
        let test = with_document("mine").await;
        let wrong = DeleteDocumentRequest {
            document_version: Some("2".to_owned()),
            ..request("mine")
        };
        assert_eq!(
            test.refuse::<DeleteDocument>(wrong).await.code,
            ErrorCode::InvalidDocumentOperation
        );
        test.call::<DeleteDocument>(request("mine")).await.unwrap();
        assert_eq!(
            test.refuse::<DeleteDocument>(request("mine")).await.code,
            ErrorCode::InvalidDocument
        );
    }

    #[tokio::test]
    async fn a_built_in_document_stays_and_comes_back_from_under_an_operators_one() {
        let test = with_document("SSM-SessionManagerRunShell").await;
        test.call::<DeleteDocument>(request("SSM-SessionManagerRunShell"))
            .await
            .unwrap();
        for name in ["SSM-SessionManagerRunShell", "AWS-RunShellScript"] {
            let error = test.refuse::<DeleteDocument>(request(name)).await;
            assert_eq!(error.code, ErrorCode::InvalidDocumentOperation);
        }
    }
}
