//! Versions of documents, through all operations that know them.

use moorline_ssm::document::{
    AttachmentsSource, AttachmentsSourceKey, CreateDocument, CreateDocumentRequest, DeleteDocument,
    DeleteDocumentRequest, DescribeDocument, DescribeDocumentRequest, DocumentDescription, GetDocument,
    GetDocumentRequest, ListDocumentVersions, ListDocumentVersionsRequest, UpdateDocument,
    UpdateDocumentDefaultVersion, UpdateDocumentDefaultVersionRequest, UpdateDocumentRequest,
};

use super::*;
use crate::{store::Upload, test_support::TestApp};

const NAME: &str = "mine";

fn content(minutes: u32) -> String {
    format!(
        r#"{{"schemaVersion":"1.0","sessionType":"Standard_Stream","inputs":{{"idleSessionTimeout":{minutes}}}}}"#
    )
}

/// With a document whose first version has the name `one`.
async fn endpoint() -> TestApp {
    let test = TestApp::new().await;
    test.app
        .store
        .seed_documents(&built_in_documents(), test.now())
        .await
        .unwrap();
    let input = CreateDocumentRequest {
        name: Some(NAME.to_owned()),
        document_type: Some(DocumentType::Session),
        version_name: Some("one".to_owned()),
        content: Some(content(1)),
        ..Default::default()
    };
    test.call::<CreateDocument>(input).await.unwrap();
    test
}

fn update(minutes: u32, version: Option<&str>) -> UpdateDocumentRequest {
    UpdateDocumentRequest {
        name: Some(NAME.to_owned()),
        content: Some(content(minutes)),
        document_version: version.map(str::to_owned),
        ..Default::default()
    }
}

async fn updated(test: &TestApp, input: UpdateDocumentRequest) -> DocumentDescription {
    let made = test.call::<UpdateDocument>(input).await.unwrap();
    made.document_description.unwrap()
}

async fn got(test: &TestApp, version: Option<&str>, version_name: Option<&str>) -> Result<String, ErrorCode> {
    let input = GetDocumentRequest {
        name: Some(NAME.to_owned()),
        document_version: version.map(str::to_owned),
        version_name: version_name.map(str::to_owned),
        ..Default::default()
    };
    let got = test.call::<GetDocument>(input).await;
    got.map(|got| got.content.unwrap()).map_err(|error| error.code)
}

async fn make_default(test: &TestApp, name: &str, version: &str) -> ApiResult<Option<String>> {
    let input = UpdateDocumentDefaultVersionRequest {
        name: Some(name.to_owned()),
        document_version: Some(version.to_owned()),
    };
    let changed = test.call::<UpdateDocumentDefaultVersion>(input).await?;
    Ok(changed.description.unwrap().default_version)
}

async fn delete(test: &TestApp, version: Option<&str>) -> Result<(), ErrorCode> {
    let input = DeleteDocumentRequest {
        name: Some(NAME.to_owned()),
        document_version: version.map(str::to_owned),
        ..Default::default()
    };
    let deleted = test.call::<DeleteDocument>(input).await;
    deleted.map(drop).map_err(|error| error.code)
}

#[tokio::test]
async fn an_update_adds_a_version_and_the_default_one_stays() {
    let test = endpoint().await;
    let made = updated(&test, update(2, Some("$LATEST"))).await;
    assert_eq!(made.document_version.as_deref(), Some("2"));
    assert_eq!(made.latest_version.as_deref(), Some("2"));
    assert_eq!(made.default_version.as_deref(), Some("1"));
    for (version, minutes) in [
        (None, 1),
        (Some("$DEFAULT"), 1),
        (Some("1"), 1),
        (Some("2"), 2),
        (Some("$LATEST"), 2),
    ] {
        assert_eq!(
            got(&test, version, None).await,
            Ok(content(minutes)),
            "{version:?}"
        );
    }
    assert_eq!(got(&test, None, Some("one")).await, Ok(content(1)));
    assert_eq!(got(&test, Some("1"), Some("one")).await, Ok(content(1)));
    for (version, name) in [(Some("3"), None), (None, Some("two")), (Some("2"), Some("one"))] {
        let missing = got(&test, version, name).await;
        assert_eq!(
            missing,
            Err(ErrorCode::InvalidDocumentVersion),
            "{version:?} {name:?}"
        );
    }
}

#[tokio::test]
async fn an_update_must_know_the_latest_version_and_bring_something_new() {
    let test = endpoint().await;
    updated(&test, update(2, Some("1"))).await;
    let refused = async |input: UpdateDocumentRequest| test.refuse::<UpdateDocument>(input).await.code;
    for stale in [Some("1"), Some("$DEFAULT"), None, Some("9")] {
        let code = refused(update(3, stale)).await;
        assert_eq!(code, ErrorCode::InvalidDocumentVersion, "{stale:?}");
    }
    assert_eq!(
        refused(update(2, Some("2"))).await,
        ErrorCode::DuplicateDocumentContent
    );
    let taken = UpdateDocumentRequest {
        version_name: Some("one".to_owned()),
        ..update(3, Some("2"))
    };
    assert_eq!(refused(taken).await, ErrorCode::DuplicateDocumentVersionName);
    assert_eq!(
        refused(update(61, Some("2"))).await,
        ErrorCode::InvalidDocumentContent
    );
    let absent = UpdateDocumentRequest {
        name: Some("absent".to_owned()),
        ..update(3, None)
    };
    assert_eq!(refused(absent).await, ErrorCode::InvalidDocument);
    // back to what was before is a change
    let made = updated(&test, update(1, Some("$LATEST"))).await;
    assert_eq!(made.document_version.as_deref(), Some("3"));
}

#[tokio::test]
async fn the_default_version_is_chosen_and_others_can_be_deleted() {
    let test = endpoint().await;
    updated(&test, update(2, Some("$LATEST"))).await;
    let error = make_default(&test, NAME, "3").await.unwrap_err();
    assert_eq!(error.code, ErrorCode::InvalidDocumentVersion);
    assert_eq!(
        delete(&test, Some("1")).await,
        Err(ErrorCode::InvalidDocumentOperation)
    );
    assert_eq!(
        make_default(&test, NAME, "2").await.unwrap().as_deref(),
        Some("2")
    );
    assert_eq!(got(&test, None, None).await, Ok(content(2)));
    assert_eq!(delete(&test, Some("1")).await, Ok(()));
    assert_eq!(
        got(&test, Some("1"), None).await,
        Err(ErrorCode::InvalidDocumentVersion)
    );
    assert_eq!(delete(&test, None).await, Ok(()));
    assert_eq!(got(&test, None, None).await, Err(ErrorCode::InvalidDocument));
}

#[tokio::test]
async fn versions_are_listed_in_pages_with_the_newest_first() {
    let test = endpoint().await;
    for minutes in 2..=11 {
        updated(&test, update(minutes, Some("$LATEST"))).await;
    }
    let (mut seen, mut next_token) = (Vec::new(), None);
    loop {
        let input = ListDocumentVersionsRequest {
            name: Some(NAME.to_owned()),
            max_results: Some(4),
            next_token,
        };
        let page = test.call::<ListDocumentVersions>(input).await.unwrap();
        seen.extend(page.document_versions.unwrap());
        next_token = page.next_token;
        if next_token.is_none() {
            break;
        }
    }
    let numbers: Vec<String> = seen
        .iter()
        .filter_map(|one| one.document_version.clone())
        .collect();
    let expected: Vec<String> = (1..=11).rev().map(|number: u32| number.to_string()).collect();
    assert_eq!(numbers, expected);
    let defaults = seen.iter().filter(|one| one.is_default_version == Some(true));
    let defaults: Vec<_> = defaults.map(|one| one.version_name.as_deref()).collect();
    assert_eq!(defaults, [Some("one")]);
}

#[tokio::test]
async fn of_the_built_in_documents_only_the_preferences_are_changed_and_no_start_undoes_that() {
    let test = endpoint().await;
    for name in ["AWS-RunShellScript", "AWS-StartSSHSession"] {
        let input = UpdateDocumentRequest {
            name: Some(name.to_owned()),
            ..update(2, Some("$LATEST"))
        };
        let error = test.refuse::<UpdateDocument>(input).await;
        assert_eq!(error.code, ErrorCode::InvalidDocumentOperation);
        let error = make_default(&test, name, "1").await.unwrap_err();
        assert_eq!(error.code, ErrorCode::InvalidDocument);
    }
    let input = UpdateDocumentRequest {
        name: Some(PREFERENCES_DOCUMENT.to_owned()),
        ..update(2, Some("$LATEST"))
    };
    let made = updated(&test, input).await;
    assert_eq!(made.owner.as_deref(), Some("arn:moorline:iam:::user/admin"));
    let mut newer = built_in_documents();
    for document in &mut newer {
        document.version.content.push('\n');
        document.version.sha256.push('0');
    }
    test.app.store.seed_documents(&newer, test.now()).await.unwrap();
    let input = DescribeDocumentRequest {
        name: Some(PREFERENCES_DOCUMENT.to_owned()),
        document_version: Some("$LATEST".to_owned()),
        ..Default::default()
    };
    let kept = test
        .call::<DescribeDocument>(input)
        .await
        .unwrap()
        .document
        .unwrap();
    assert_eq!((kept.hash, kept.owner), (made.hash, made.owner));
}

#[tokio::test]
async fn a_file_of_another_version_is_kept_for_the_new_one_when_that_version_goes_meanwhile() {
    const SUM: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    const DAY_MILLIS: u64 = 24 * 60 * 60 * 1000;
    let test = endpoint().await;
    let attachments = &test.app.attachments;
    let upload = Upload {
        by: "me",
        sha256: SUM,
        size: 3,
    };
    attachments.put(upload, 0, "abc".into()).await.unwrap();
    let with = |minutes, reference: &str| UpdateDocumentRequest {
        attachments: Some(vec![AttachmentsSource {
            key: Some(AttachmentsSourceKey::AttachmentReference),
            values: Some(vec![reference.to_owned()]),
            name: Some("1.0.zip".to_owned()),
        }]),
        ..update(minutes, Some("$LATEST"))
    };
    updated(&test, with(2, &format!("sha256:{SUM}"))).await;
    test.advance_millis(2 * DAY_MILLIS);
    updated(&test, with(3, "mine/2/1.0.zip")).await;
    // as a look finds it that came between the two: no version has it, and the new one is not stored yet
    let used = std::collections::BTreeSet::new();
    attachments.remove_unused(used, test.now()).await.unwrap();
    assert!(attachments.path_of(SUM).is_file());
}
