//! The preferences document and the caller's tag, as they show in what the node gets.

use moorline_ssm::{
    document::{UpdateDocument, UpdateDocumentRequest},
    operator::{Tag, TagOperator, TagOperatorRequest},
};
use serde_json::{Value, json};

use super::*;

const PREFERENCES: &str = "SSM-SessionManagerRunShell";

fn content(session_type: &str, inputs: &Value) -> String {
    json!({"schemaVersion": "1.0", "sessionType": session_type, "inputs": inputs}).to_string()
}

async fn prefer(test: &TestApp, inputs: &Value) {
    let update = UpdateDocumentRequest {
        name: Some(PREFERENCES.to_owned()),
        content: Some(content("Standard_Stream", inputs)),
        document_version: Some("$LATEST".to_owned()),
        ..UpdateDocumentRequest::default()
    };
    test.call::<UpdateDocument>(update).await.unwrap();
}

fn of(document: Option<&str>, parameters: &[(&str, &str)]) -> StartSessionRequest {
    let parameters = parameters
        .iter()
        .map(|(name, value)| ((*name).to_owned(), vec![(*value).to_owned()]));
    StartSessionRequest {
        document_name: document.map(str::to_owned),
        parameters: Some(parameters.collect()),
        ..request()
    }
}

/// What the node gets for a session, with its two time limits in minutes.
async fn started(
    test: &TestApp,
    document: Option<&str>,
    parameters: &[(&str, &str)],
) -> (Value, u64, Option<u64>) {
    let id = test
        .call::<StartSession>(of(document, parameters))
        .await
        .unwrap()
        .session_id
        .unwrap();
    let row = test
        .app
        .store
        .session(&id.parse().unwrap())
        .await
        .unwrap()
        .unwrap();
    let minutes = |millis: u64| millis / 60_000;
    (
        serde_json::from_str(&row.start_content).unwrap(),
        minutes(row.idle_timeout_millis),
        row.max_duration_millis.map(minutes),
    )
}

async fn tag(test: &TestApp, user: &str) {
    test.add_access_key("AKIATEST", "secret").await;
    let tag = Tag {
        key: Some("SSMSessionRunAs".to_owned()),
        value: Some(user.to_owned()),
    };
    let request = TagOperatorRequest {
        user_name: Some("admin".to_owned()),
        tags: Some(vec![tag]),
    };
    test.call::<TagOperator>(request).await.unwrap();
}

#[tokio::test]
async fn updated_preferences_take_effect_with_the_next_session() {
    let test = endpoint().await;
    let (_, idle, longest) = started(&test, None, &[]).await;
    assert_eq!((idle, longest), (20, None));
    let inputs =
        json!({"idleSessionTimeout": 7, "maxSessionDuration": "90", "shellProfile": {"linux": "cd /"}});
    prefer(&test, &inputs).await;
    for name in [None, Some(PREFERENCES)] {
        let (content, idle, longest) = started(&test, name, &[]).await;
        assert_eq!((idle, longest), (7, Some(90)));
        assert_eq!(content["DocumentContent"]["inputs"], inputs);
    }
}

#[tokio::test]
async fn sessions_of_other_documents_take_the_preferences_over() {
    let test = endpoint().await;
    let inputs = json!({
        "runAsEnabled": true, "runAsDefaultUser": "ops", "idleSessionTimeout": "7", "maxSessionDuration": "90",
        "shellProfile": {"linux": "cd /"},
    });
    prefer(&test, &inputs).await;
    let command = [("command", "id")];
    let (content, idle, longest) = started(&test, Some("AWS-StartInteractiveCommand"), &command).await;
    assert_eq!((idle, longest), (7, Some(90)));
    assert_eq!(
        content["DocumentContent"]["inputs"],
        json!({"runAsEnabled": true, "runAsDefaultUser": "ops", "idleSessionTimeout": "7", "maxSessionDuration": "90"})
    );
    let (content, idle, longest) = started(&test, Some("AWS-StartSSHSession"), &[]).await;
    assert_eq!((idle, longest), (7, Some(90)));
    assert_eq!(content["DocumentContent"]["inputs"].get("runAsEnabled"), None);
    let own = CreateDocumentRequest {
        name: Some("Own-Limits".to_owned()),
        content: Some(content_of_own_limits()),
        document_type: Some(DocumentType::Session),
        ..CreateDocumentRequest::default()
    };
    test.call::<CreateDocument>(own).await.unwrap();
    let (content, idle, longest) = started(&test, Some("Own-Limits"), &[]).await;
    assert_eq!((idle, longest), (30, Some(90)));
    assert_eq!(content["DocumentContent"]["inputs"]["runAsEnabled"], false);
}

fn content_of_own_limits() -> String {
    content(
        "InteractiveCommands",
        &json!({"idleSessionTimeout": "30", "maxSessionDuration": "", "runAsEnabled": false}),
    )
}

#[tokio::test]
async fn a_session_with_a_key_that_there_is_not_is_refused_with_the_document_that_names_it() {
    let test = endpoint().await;
    let own = CreateDocumentRequest {
        name: Some("Own-Key".to_owned()),
        content: Some(content("Standard_Stream", &json!({"kmsKeyId": "alias/own"}))),
        document_type: Some(DocumentType::Session),
        ..CreateDocumentRequest::default()
    };
    test.call::<CreateDocument>(own).await.unwrap();
    prefer(&test, &json!({"kmsKeyId": "alias/typo"})).await;
    let command = [("command", "id")];
    for (document, parameters, named, key) in [
        (None, &[][..], PREFERENCES, "alias/typo"),
        (
            Some("AWS-StartInteractiveCommand"),
            &command,
            PREFERENCES,
            "alias/typo",
        ),
        (Some("Own-Key"), &[], "Own-Key", "alias/own"),
    ] {
        let refused = test.refuse::<StartSession>(of(document, parameters)).await;
        assert_eq!(refused.code, ErrorCode::InvalidDocument);
        for told in [&format!("document {named} "), key, "alias/moorline"] {
            assert!(refused.message.contains(told), "{}", refused.message);
        }
    }
    // a port is not encrypted, and a key that is there is taken
    started(&test, Some("AWS-StartSSHSession"), &[]).await;
    prefer(&test, &json!({"kmsKeyId": "alias/moorline"})).await;
    started(&test, None, &[]).await;
}

#[tokio::test]
async fn the_callers_tag_names_the_user_where_run_as_is_on() {
    let test = endpoint().await;
    tag(&test, "deploy").await;
    let user = |content: &Value| content["RunAsUser"].as_str().unwrap().to_owned();
    let (content, ..) = started(&test, None, &[]).await;
    assert_eq!(user(&content), "", "RunAs is off");
    prefer(&test, &json!({"runAsEnabled": true})).await;
    let (content, ..) = started(&test, None, &[]).await;
    assert_eq!(user(&content), "deploy");
    let command = [("command", "id")];
    let (content, ..) = started(&test, Some("AWS-StartInteractiveCommand"), &command).await;
    assert_eq!(user(&content), "deploy");
}
