//! `DescribeDocument`: what a document is, without its content.
//!
//! AWS: API_DescribeDocument.

use moorline_ssm::document::{DescribeDocumentRequest, DescribeDocumentResult};

use super::{description, find};
use crate::api::{ApiResult, RequestContext};

pub(super) async fn describe_document(
    cx: RequestContext,
    input: DescribeDocumentRequest,
) -> ApiResult<DescribeDocumentResult> {
    let version_name = input.version_name.as_deref();
    let row = find(
        &cx,
        input.name.as_deref(),
        input.document_version.as_deref(),
        version_name,
    )
    .await?;
    Ok(DescribeDocumentResult {
        document: Some(description(&cx, row).await?),
    })
}

#[cfg(test)]
mod tests {
    use moorline_ssm::{
        ErrorCode,
        document::{DescribeDocument, DocumentParameterType},
    };

    use super::*;
    use crate::test_support::TestApp;

    #[tokio::test]
    async fn a_built_in_document_is_described_by_name_and_by_arn() {
        let test = TestApp::new().await;
        test.app
            .store
            .seed_documents(&crate::api::built_in_documents(), 0)
            .await
            .unwrap();
        for name in [
            "AWS-RunShellScript",
            "arn:aws:ssm:us-east-1::document/AWS-RunShellScript",
        ] {
            let input = DescribeDocumentRequest {
                name: Some(name.to_owned()),
                ..Default::default()
            };
            let document = test
                .call::<DescribeDocument>(input)
                .await
                .unwrap()
                .document
                .unwrap();
            assert_eq!(document.owner.as_deref(), Some("Moorline"));
            let parameters = document.parameters.unwrap();
            let commands = parameters
                .iter()
                .find(|parameter| parameter.name.as_deref() == Some("commands"));
            assert_eq!(commands.unwrap().r#type, Some(DocumentParameterType::StringList));
        }
        let input = DescribeDocumentRequest {
            name: Some("absent".to_owned()),
            ..Default::default()
        };
        assert_eq!(
            test.refuse::<DescribeDocument>(input).await.code,
            ErrorCode::InvalidDocument
        );
    }
}
