//! `CreateDocument`: stores a document, after it was parsed as the agent will parse it.
//!
//! AWS: API_CreateDocument. Deviations: types Command, Package, Policy and Session; no required documents.

use moorline_ssm::{
    ErrorCode,
    document::{CreateDocumentRequest, CreateDocumentResult, DocumentType},
};

use super::{content::invalid, description, given::Given, is_replaceable, no_such_document};
use crate::{
    api::{ApiError, ApiResult, RequestContext, tag::checked_tags},
    store::NewDocument,
};

/// AWS's default quota for an account.
const MOST_DOCUMENTS: i64 = 500;
/// Names of the service's own documents begin with these, in any case.
const RESERVED_PREFIXES: [&str; 4] = ["amazon", "amzn", "aws-", "aws:"];

pub(super) async fn create_document(
    cx: RequestContext,
    input: CreateDocumentRequest,
) -> ApiResult<CreateDocumentResult> {
    let name = input.name.unwrap_or_default();
    check_name(&name)?;
    if input.requires.is_some_and(|requires| !requires.is_empty()) {
        return Err(invalid(
            "Moorline does not know required documents yet".to_owned(),
        ));
    }
    let document_type = document_type(input.document_type)?;
    let given = Given {
        attachments: input.attachments,
        content: input.content,
        display_name: input.display_name,
        format: input.document_format,
        target_type: input.target_type,
        version_name: input.version_name,
    };
    let version = given.checked(&cx, &name, document_type).await?;
    if cx.app.store.operator_document_count().await? >= MOST_DOCUMENTS {
        let message = format!("there are {MOST_DOCUMENTS} documents already; delete some first");
        return Err(ApiError::new(ErrorCode::DocumentLimitExceeded, message));
    }
    let new = NewDocument {
        document_type: document_type.to_owned(),
        owner: cx.principal.arn(),
        tags: checked_tags(input.tags.as_deref(), ErrorCode::ValidationException)?,
        version,
        name,
    };
    let over_built_in = is_replaceable(&new.name);
    if !cx.app.store.insert_document(&new, over_built_in, cx.now).await? {
        let message = format!("there is a document {} already", new.name);
        return Err(ApiError::new(ErrorCode::DocumentAlreadyExists, message));
    }
    let row = cx
        .app
        .store
        .document(&new.name)
        .await?
        .ok_or_else(|| no_such_document(&new.name))?;
    Ok(CreateDocumentResult {
        document_description: Some(description(&cx, row).await?),
    })
}

fn check_name(name: &str) -> ApiResult<()> {
    let lower = name.to_ascii_lowercase();
    match RESERVED_PREFIXES.iter().find(|prefix| lower.starts_with(*prefix)) {
        None => Ok(()),
        Some(prefix) => Err(ApiError::validation(format!(
            "Name: {name} begins with {prefix}, which is reserved"
        ))),
    }
}

fn document_type(asked: Option<DocumentType>) -> ApiResult<&'static str> {
    match asked {
        None | Some(DocumentType::Command) => Ok("Command"),
        Some(DocumentType::Package) => Ok("Package"),
        Some(DocumentType::Policy) => Ok("Policy"),
        Some(DocumentType::Session) => Ok("Session"),
        Some(other) => Err(invalid(format!(
            "Moorline does not run documents of type {other} yet"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use moorline_ssm::document::{
        AttachmentsSource, CreateDocument, DocumentFormat, DocumentStatus, PlatformType, Tag,
    };

    use super::*;
    use crate::{
        api::document::content::{MOST_CONTENT_BYTES, sha256_hex},
        auth::Principal,
        test_support::{TestApp, node_id},
    };

    const CONTENT: &str = r#"{"schemaVersion":"2.2","description":"says hello",
        "parameters":{"who":{"type":"String","description":"whom","default":"world"}},
        "mainSteps":[{"action":"aws:runShellScript","name":"hello","inputs":{"runCommand":["echo {{ who }}"]}}]}"#;

    fn request() -> CreateDocumentRequest {
        CreateDocumentRequest {
            name: Some("hello".to_owned()),
            content: Some(CONTENT.to_owned()),
            ..Default::default()
        }
    }

    async fn refuse(input: CreateDocumentRequest) -> ErrorCode {
        TestApp::new().await.refuse::<CreateDocument>(input).await.code
    }

    #[tokio::test]
    async fn a_created_document_is_described_with_parameters_platforms_and_hash() {
        let test = TestApp::new().await;
        let tag = Tag {
            key: Some("team".to_owned()),
            value: Some("a".to_owned()),
        };
        let input = CreateDocumentRequest {
            tags: Some(vec![tag.clone()]),
            ..request()
        };
        let made = test
            .call::<CreateDocument>(input)
            .await
            .unwrap()
            .document_description
            .unwrap();
        assert_eq!(made.status, Some(DocumentStatus::Active));
        assert_eq!(made.schema_version.as_deref(), Some("2.2"));
        assert_eq!(made.document_version.as_deref(), Some("1"));
        assert_eq!(made.hash.unwrap(), sha256_hex(CONTENT.as_bytes()));
        assert_eq!(
            made.platform_types,
            Some(vec![PlatformType::Linux, PlatformType::MacOS])
        );
        assert_eq!(
            made.parameters.unwrap()[0].default_value.as_deref(),
            Some("world")
        );
        assert_eq!(made.tags, Some(vec![tag]));
    }

    #[tokio::test]
    async fn a_name_that_is_taken_is_refused() {
        let test = TestApp::new().await;
        test.call::<CreateDocument>(request()).await.unwrap();
        assert_eq!(
            test.refuse::<CreateDocument>(request()).await.code,
            ErrorCode::DocumentAlreadyExists
        );
    }

    #[tokio::test]
    async fn patterns_that_would_take_much_memory_are_refused() {
        let parameters: Vec<String> = (0..200)
            .map(|number| format!(r#""p{number}":{{"type":"String","allowedPattern":"^\\p{{L}}{{1,80}}$"}}"#))
            .collect();
        let content = format!(
            r#"{{"schemaVersion":"2.2","parameters":{{{}}},"mainSteps":[{{"action":"aws:runShellScript","name":"s",
            "inputs":{{"runCommand":["true"]}}}}]}}"#,
            parameters.join(",")
        );
        let input = CreateDocumentRequest {
            content: Some(content),
            ..request()
        };
        let error = TestApp::new().await.refuse::<CreateDocument>(input).await;
        assert_eq!(error.code, ErrorCode::InvalidDocumentContent);
        assert!(
            error
                .message
                .contains("cannot be used: compiled, it takes too much memory"),
            "{error}"
        );
    }

    #[tokio::test]
    async fn content_that_no_agent_runs_is_refused_with_its_reason() {
        let with = |content: &str| CreateDocumentRequest {
            content: Some(content.to_owned()),
            ..request()
        };
        assert_eq!(
            refuse(with("schemaVersion: '2.2'\nmainSteps: []")).await,
            ErrorCode::InvalidDocumentContent
        );
        assert_eq!(
            refuse(with(r#"{"schemaVersion":"2.2"}"#)).await,
            ErrorCode::InvalidDocumentContent
        );
        let newer = CONTENT.replace("2.2", "9.9");
        assert_eq!(
            refuse(with(&newer)).await,
            ErrorCode::InvalidDocumentSchemaVersion
        );
        let large = format!("{CONTENT}{}", " ".repeat(MOST_CONTENT_BYTES));
        assert_eq!(refuse(with(&large)).await, ErrorCode::MaxDocumentSizeExceeded);
    }

    #[tokio::test]
    async fn what_is_not_supported_yet_is_refused_not_ignored() {
        let yaml = CreateDocumentRequest {
            document_format: Some(DocumentFormat::Text),
            ..request()
        };
        assert_eq!(refuse(yaml).await, ErrorCode::InvalidDocumentContent);
        let automation = CreateDocumentRequest {
            document_type: Some(DocumentType::Automation),
            ..request()
        };
        assert_eq!(refuse(automation).await, ErrorCode::InvalidDocumentContent);
        let attachments = CreateDocumentRequest {
            attachments: Some(vec![AttachmentsSource::default()]),
            ..request()
        };
        assert_eq!(refuse(attachments).await, ErrorCode::InvalidDocumentContent);
    }

    #[tokio::test]
    async fn a_reserved_name_is_refused_but_shell_preferences_are_the_operators() {
        let test = TestApp::new().await;
        test.app
            .store
            .seed_documents(&crate::api::built_in_documents(), 0)
            .await
            .unwrap();
        let input = CreateDocumentRequest {
            name: Some("AWS-Mine".to_owned()),
            ..request()
        };
        assert_eq!(
            test.refuse::<CreateDocument>(input).await.code,
            ErrorCode::ValidationException
        );
        let preferences = r#"{"schemaVersion":"1.0","sessionType":"Standard_Stream","inputs":{}}"#;
        let input = CreateDocumentRequest {
            name: Some("SSM-SessionManagerRunShell".to_owned()),
            document_type: Some(DocumentType::Session),
            content: Some(preferences.to_owned()),
            ..Default::default()
        };
        test.call::<CreateDocument>(input.clone()).await.unwrap();
        let error = test.refuse::<CreateDocument>(input).await;
        assert_eq!(error.code, ErrorCode::DocumentAlreadyExists);
        test.app
            .store
            .seed_documents(&crate::api::built_in_documents(), 0)
            .await
            .unwrap();
        let kept = test
            .app
            .store
            .document("SSM-SessionManagerRunShell")
            .await
            .unwrap()
            .unwrap();
        assert_eq!(kept.content, preferences);
    }

    #[tokio::test]
    async fn preferences_that_no_session_could_use_are_refused_with_the_member_that_is_wrong() {
        let test = TestApp::new().await;
        let with = |inputs: &str| {
            format!(r#"{{"schemaVersion":"1.0","sessionType":"Standard_Stream","inputs":{{{inputs}}}}}"#)
        };
        let refused = [
            ("idleSessionTimeout", with(r#""idleSessionTimeout":"61""#)),
            ("maxSessionDuration", with(r#""MaxSessionDuration":0"#)),
            ("runAsEnabled", with(r#""runAsEnabled":"yes""#)),
            ("runAsDefaultUser", with(r#""runAsDefaultUser":"-x""#)),
            ("runAsDefaultUser", with(r#""runAsDefaultUser":"{{user}}""#)),
            ("kmsKeyId", with(r#""kmsKeyId":"{{key}}""#)),
            ("shellProfile", with(r#""shellProfile":"cd""#)),
            ("sessionType", r#"{"schemaVersion":"1.0","sessionType":"Port"}"#.to_owned()),
            (
                "user",
                r#"{"schemaVersion":"1.0","sessionType":"Standard_Stream","parameters":{"user":{"type":"String"}}}"#
                    .to_owned(),
            ),
        ];
        for (member, content) in refused {
            let input = CreateDocumentRequest {
                name: Some("SSM-SessionManagerRunShell".to_owned()),
                document_type: Some(DocumentType::Session),
                content: Some(content.clone()),
                ..Default::default()
            };
            let error = test.refuse::<CreateDocument>(input).await;
            assert_eq!(error.code, ErrorCode::InvalidDocumentContent, "{content}");
            assert!(error.message.contains(member), "{content}: {error}");
        }
        let command = CreateDocumentRequest {
            name: Some("SSM-SessionManagerRunShell".to_owned()),
            ..request()
        };
        let error = test.refuse::<CreateDocument>(command).await;
        assert!(error.message.starts_with("DocumentType"), "{error}");
    }

    #[tokio::test]
    async fn a_node_creates_no_documents() {
        let test = TestApp::new().await;
        let error = test
            .refuse_as::<CreateDocument>(Principal::Node(node_id(0)), request())
            .await;
        assert_eq!(error.code, ErrorCode::AccessDeniedException);
    }
}
