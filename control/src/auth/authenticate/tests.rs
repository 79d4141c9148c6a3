//! Signatures of operators, of nodes with role credentials, and of nodes with their registration key.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use moorline_protocol::sigv4::{Credentials, SigningScope, sign};
use serde_json::Value;

use super::*;
use crate::{
    auth::ROLE_CREDENTIALS_LIFETIME_MILLIS,
    store::{KeyRotation, NewNode},
    test_support::{FINGERPRINT, HOST, PUBLIC_KEY, TestApp},
};

const BODY: &[u8] = b"{}";
const MINUTE_MILLIS: u64 = 60 * 1000;

/// The head of a signed `POST /` with [`BODY`].
fn signed(credentials: &Credentials, unix_millis: u64) -> Parts {
    let headers = [("host", HOST), ("x-amz-target", "AmazonSSM.ListDocuments")];
    let request = SignableRequest {
        method: "POST",
        uri: "/",
        headers: &headers,
        body: BODY,
    };
    let scope = SigningScope {
        region: "eu-central-1",
        service: "ssm",
        unix_millis,
    };
    let added = sign(&request, &scope, credentials);
    let added = added.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    head("POST", "/", headers.into_iter().chain(added))
}

fn head<'a>(method: &str, uri: &str, headers: impl IntoIterator<Item = (&'a str, &'a str)>) -> Parts {
    let builder = http::Request::builder().method(method).uri(uri);
    let builder = headers
        .into_iter()
        .fold(builder, |builder, (name, value)| builder.header(name, value));
    builder.body(()).unwrap().into_parts().0
}

fn operator() -> Credentials {
    Credentials {
        access_key_id: "AKIAOPERATOR".to_owned(),
        secret_access_key: "secret".to_owned(),
        session_token: None,
    }
}

async fn with_operator() -> TestApp {
    let test = TestApp::new().await;
    test.add_access_key("AKIAOPERATOR", "secret").await;
    test
}

async fn refusal(test: &TestApp, parts: &Parts, body: &[u8]) -> AuthError {
    authenticate(&test.app, parts, body).await.unwrap_err()
}

#[tokio::test]
async fn an_operators_signature_makes_an_administrator_in_any_region() {
    let test = with_operator().await;
    let principal = authenticate(&test.app, &signed(&operator(), test.now()), BODY)
        .await
        .unwrap();
    assert_eq!(principal.arn(), "arn:moorline:iam:::user/admin");
}

#[tokio::test]
async fn a_signature_that_leaves_the_body_out_counts_only_where_the_body_proves_itself() {
    let test = with_operator().await;
    let headers = [("host", HOST), ("x-amz-content-sha256", "UNSIGNED-PAYLOAD")];
    let request = SignableRequest {
        method: "POST",
        uri: "/v1/transcript/s-1?offset=0",
        headers: &headers,
        body: BODY,
    };
    let scope = SigningScope {
        region: "eu-central-1",
        service: "ssmmessages",
        unix_millis: test.now(),
    };
    let added = sign(&request, &scope, &operator());
    let added = added.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let parts = head("POST", request.uri, headers.into_iter().chain(added));
    let error = refusal(&test, &parts, BODY).await;
    assert_eq!(
        error.to_string(),
        "signature is incomplete: the body is not signed"
    );
    authenticate_sealed(&test.app, &parts, b"any").await.unwrap();
}

#[tokio::test]
async fn a_request_without_signature_is_anonymous() {
    let test = with_operator().await;
    let principal = authenticate(&test.app, &head("POST", "/", [("host", HOST)]), BODY)
        .await
        .unwrap();
    assert_eq!(principal, Principal::Anonymous);
}

#[tokio::test]
async fn a_wrong_secret_another_body_and_an_unknown_key_are_refused() {
    let test = with_operator().await;
    let wrong = Credentials {
        secret_access_key: "Secret".to_owned(),
        ..operator()
    };
    let error = refusal(&test, &signed(&wrong, test.now()), BODY).await;
    assert_eq!(error.code(), ErrorCode::InvalidSignatureException);
    let error = refusal(&test, &signed(&operator(), test.now()), b"{\"a\":1}").await;
    assert_eq!(error.code(), ErrorCode::InvalidSignatureException);
    let unknown = Credentials {
        access_key_id: "AKIAUNKNOWN".to_owned(),
        ..operator()
    };
    let error = refusal(&test, &signed(&unknown, test.now()), BODY).await;
    assert_eq!(error.code(), ErrorCode::UnrecognizedClientException);
}

#[tokio::test]
async fn a_wrong_clock_is_named_as_the_reason_with_both_times() {
    let test = with_operator().await;
    let error = refusal(&test, &signed(&operator(), test.now() - 16 * MINUTE_MILLIS), BODY).await;
    assert_eq!(error.code(), ErrorCode::InvalidSignatureException);
    let text = error.to_string();
    let expected = "Signature expired: 20261121T234400Z is now earlier than 20261121T234500Z (20261122T000000Z - 15 min.)";
    assert!(text.starts_with(expected), "{text}");
    let text = refusal(&test, &signed(&operator(), test.now() + 16 * MINUTE_MILLIS), BODY)
        .await
        .to_string();
    assert!(
        text.starts_with("Signature not yet current: 20261122T001600Z is still later than"),
        "{text}"
    );
    assert!(
        authenticate(
            &test.app,
            &signed(&operator(), test.now() - 14 * MINUTE_MILLIS),
            BODY
        )
        .await
        .is_ok()
    );
}

#[tokio::test]
async fn a_header_that_is_not_text_is_named() {
    let test = with_operator().await;
    let mut parts = signed(&operator(), test.now());
    parts
        .headers
        .insert("x-odd", http::HeaderValue::from_bytes(b"\xff").unwrap());
    let error = refusal(&test, &parts, BODY).await;
    assert_eq!(error.code(), ErrorCode::IncompleteSignature);
    assert!(error.to_string().contains("x-odd"));
}

async fn role(test: &TestApp, node: &InstanceId) -> Credentials {
    let generation = test
        .app
        .store
        .node(node)
        .await
        .unwrap()
        .unwrap()
        .credential_generation;
    let issued = test.app.keys.role_credentials(node, generation, test.now());
    Credentials {
        access_key_id: issued.access_key_id,
        secret_access_key: issued.secret_access_key,
        session_token: Some(issued.session_token),
    }
}

#[tokio::test]
async fn role_credentials_survive_a_restart_of_the_endpoint() {
    let test = TestApp::new().await;
    let node = test.register_node(0, &[]).await;
    let credentials = role(&test, &node).await;
    let test = test.restarted().await;
    let principal = authenticate(&test.app, &signed(&credentials, test.now()), BODY)
        .await
        .unwrap();
    assert_eq!(principal, Principal::Node(node));
}

#[tokio::test]
async fn role_credentials_end_after_their_hour() {
    let test = TestApp::new().await;
    let node = test.register_node(0, &[]).await;
    let credentials = role(&test, &node).await;
    test.advance_millis(ROLE_CREDENTIALS_LIFETIME_MILLIS - 1);
    assert!(
        authenticate(&test.app, &signed(&credentials, test.now()), BODY)
            .await
            .is_ok()
    );
    test.advance_millis(1);
    let error = refusal(&test, &signed(&credentials, test.now()), BODY).await;
    assert_eq!(error.code(), ErrorCode::ExpiredTokenException);
}

#[tokio::test]
async fn role_credentials_end_with_their_generation_and_with_their_node() {
    let test = TestApp::new().await;
    let node = test.register_node(0, &[]).await;
    let credentials = role(&test, &node).await;
    sqlx::query("UPDATE node SET credential_generation = credential_generation + 1")
        .execute(&test.app.store.writer)
        .await
        .unwrap();
    let error = refusal(&test, &signed(&credentials, test.now()), BODY).await;
    assert_eq!(error.code(), ErrorCode::ExpiredTokenException);
    let gone = test.app.store.deregister_node(&node, "", test.now()).await;
    assert_eq!(gone.unwrap(), Some(vec![]));
    let error = refusal(&test, &signed(&credentials, test.now()), BODY).await;
    assert_eq!(error.code(), ErrorCode::AccessDeniedException);
}

#[tokio::test]
async fn a_token_under_another_access_key_or_secret_is_refused() {
    let test = TestApp::new().await;
    let node = test.register_node(0, &[]).await;
    let (first, second) = (role(&test, &node).await, role(&test, &node).await);
    let mixed = Credentials {
        session_token: second.session_token.clone(),
        ..first.clone()
    };
    let error = refusal(&test, &signed(&mixed, test.now()), BODY).await;
    assert_eq!(error.code(), ErrorCode::UnrecognizedClientException);
    let mixed = Credentials {
        secret_access_key: second.secret_access_key,
        ..first.clone()
    };
    let error = refusal(&test, &signed(&mixed, test.now()), BODY).await;
    assert_eq!(error.code(), ErrorCode::InvalidSignatureException);
    let made_up = Credentials {
        session_token: Some("token".to_owned()),
        ..first
    };
    let error = refusal(&test, &signed(&made_up, test.now()), BODY).await;
    assert_eq!(error.code(), ErrorCode::UnrecognizedClientException);
}

/// The stock agent's request for role credentials, as captured: head, body, time.
fn captured() -> (Parts, Vec<u8>, u64) {
    let run = include_str!("../../../../tests/data/vectors/agent-run-a.jsonl");
    let mut lines = run
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap());
    let wanted = "AmazonSSM.RequestManagedInstanceRoleToken";
    let request = lines
        .find(|line| line["headers"].to_string().contains(wanted))
        .unwrap();
    let headers = request["headers"].as_array().unwrap().iter();
    let headers = headers.map(|pair| (pair[0].as_str().unwrap(), pair[1].as_str().unwrap()));
    let parts = head("POST", request["uri"].as_str().unwrap(), headers);
    let body = STANDARD.decode(request["body"].as_str().unwrap()).unwrap();
    let signed_at: jiff::Timestamp = "2026-11-22T07:36:43Z".parse().unwrap();
    (parts, body, signed_at.as_millisecond().unsigned_abs())
}

async fn with_captured_node(public_key: &str) -> (TestApp, InstanceId) {
    let test = TestApp::new().await;
    test.set_millis(captured().2);
    let new = NewNode {
        instance_id: "mi-0123456789abcdef0".parse().unwrap(),
        fingerprint: FINGERPRINT.to_owned(),
        public_key: public_key.to_owned(),
        registered_from: None,
    };
    test.register(new, &[]).await;
    (test, "mi-0123456789abcdef0".parse().unwrap())
}

#[tokio::test]
async fn the_stock_agents_registration_signature_proves_its_node() {
    let (test, node) = with_captured_node(PUBLIC_KEY.trim()).await;
    let (parts, body, _) = captured();
    let principal = authenticate(&test.app, &parts, &body).await.unwrap();
    assert_eq!(principal, Principal::NodeKey(node.clone()));
    let error = refusal(&test, &parts, b"{\"Fingerprint\":\"another\"}").await;
    assert_eq!(error.code(), ErrorCode::InvalidSignatureException);
    let gone = test.app.store.deregister_node(&node, "", test.now()).await;
    assert_eq!(gone.unwrap(), Some(vec![]));
    let error = refusal(&test, &parts, &body).await;
    assert_eq!(error.code(), ErrorCode::AccessDeniedException);
}

#[tokio::test]
async fn the_old_key_is_good_until_the_new_one_was_seen() {
    let (parts, body, _) = captured();
    let (test, node) = with_captured_node(PUBLIC_KEY.trim()).await;
    let rotated = test
        .app
        .store
        .rotate_public_key(&node, "a key that the node failed to save")
        .await;
    assert_eq!(rotated.unwrap(), KeyRotation::Done);
    assert!(authenticate(&test.app, &parts, &body).await.is_ok());
    let row = test.app.store.node(&node).await.unwrap().unwrap();
    assert!(row.previous_public_key.is_some());

    let (test, node) = with_captured_node("the key before").await;
    let rotated = test.app.store.rotate_public_key(&node, PUBLIC_KEY.trim()).await;
    assert_eq!(rotated.unwrap(), KeyRotation::Done);
    assert!(authenticate(&test.app, &parts, &body).await.is_ok());
    let row = test.app.store.node(&node).await.unwrap().unwrap();
    assert_eq!(row.previous_public_key, None);
}

#[tokio::test]
async fn credentials_of_the_old_key_end_when_the_new_one_was_seen_and_not_before_or_again() {
    let (parts, body, _) = captured();
    let (test, node) = with_captured_node("the key before").await;
    let before = role(&test, &node).await;
    let rotated = test.app.store.rotate_public_key(&node, PUBLIC_KEY.trim()).await;
    assert_eq!(rotated.unwrap(), KeyRotation::Done);
    assert!(
        authenticate(&test.app, &signed(&before, test.now()), BODY)
            .await
            .is_ok()
    );
    assert!(authenticate(&test.app, &parts, &body).await.is_ok());
    let error = refusal(&test, &signed(&before, test.now()), BODY).await;
    assert_eq!(error.code(), ErrorCode::ExpiredTokenException);
    let after = role(&test, &node).await;
    test.app.store.forget_previous_key(&node).await.unwrap();
    assert!(authenticate(&test.app, &parts, &body).await.is_ok());
    assert!(
        authenticate(&test.app, &signed(&after, test.now()), BODY)
            .await
            .is_ok()
    );
}
