//! `DeleteDocument`: removes an operator's document, or one version of it.
//!
//! AWS: API_DeleteDocument. With a version only that one is removed, which may not be the default one. Deviation: where
//! an operator's document stood over a built-in one (session preferences), the built-in one is back afterwards.

use moorline_ssm::{
    ErrorCode,
    document::{DeleteDocumentRequest, DeleteDocumentResult},
};

use super::{built_in::built_in_document, find, no_such_document};
use crate::{
    api::{ApiError, ApiResult, RequestContext},
    store::{DocumentRow, VersionChoice, VersionRefusal},
};

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
    let (version, version_name) = (input.document_version.as_deref(), input.version_name.as_deref());
    if version.or(version_name).is_some() {
        return delete_version(&cx, &row, version, version_name).await;
    }
    if !cx.app.store.delete_document(&name).await? {
        return Err(no_such_document(&name));
    }
    if let Some(built_in) = built_in_document(&name) {
        cx.app.store.seed_documents(&[built_in], cx.now).await?;
    }
    Ok(DeleteDocumentResult {})
}

async fn delete_version(
    cx: &RequestContext,
    document: &DocumentRow,
    version: Option<&str>,
    version_name: Option<&str>,
) -> ApiResult<DeleteDocumentResult> {
    let refused = |message: String| ApiError::new(ErrorCode::InvalidDocumentOperation, message);
    let name = &document.name;
    // This operation's model has no word for a version that is not there.
    let row = find(cx, Some(name), version, version_name).await;
    let row = row.map_err(|error| match error.code {
        ErrorCode::InvalidDocumentVersion => refused(error.message),
        _ => error,
    })?;
    let number = row.version;
    match cx
        .app
        .store
        .delete_version(name, VersionChoice::Number(number))
        .await?
    {
        Ok(()) => Ok(DeleteDocumentResult {}),
        Err(VersionRefusal::NoSuchVersion) => Err(refused(format!(
            "document {name} has no version {number} any more"
        ))),
        Err(VersionRefusal::IsDefault) => Err(refused(format!(
            "version {number} of document {name} is its default version; make another one the default first, or \
             delete the document"
        ))),
    }
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
