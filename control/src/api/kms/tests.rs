use std::collections::BTreeMap;

use moorline_protocol::{
    channel::encryption_context,
    document::SessionType,
    types::{InstanceId, SessionId},
};
use moorline_ssm::{
    Blob, ErrorCode,
    kms::{
        DataKeySpec, Decrypt, DecryptRequest, EncryptionAlgorithmSpec, GenerateDataKey,
        GenerateDataKeyRequest, GenerateDataKeyResponse, RecipientInfo,
    },
};

use crate::{
    auth::Principal,
    store::{NewSession, SessionStatus},
    test_support::{TestApp, administrator},
};

const ALIAS: &str = "alias/moorline";

/// An endpoint with two nodes, and an open session on the first.
struct Fixture {
    test: TestApp,
    node: InstanceId,
    other: InstanceId,
    session: SessionId,
}

impl Fixture {
    async fn new() -> Self {
        let test = TestApp::new().await;
        let node = test.register_node(0, &[]).await;
        let other = test.register_node(1, &[]).await;
        let session = open_session(&test, "admin-00000000000000001", &node).await;
        Self {
            test,
            node,
            other,
            session,
        }
    }

    fn context(&self) -> BTreeMap<String, String> {
        encryption_context(self.session.as_str(), self.node.as_str(), Some("c2FsdA=="))
    }

    async fn data_key(&self, context: &BTreeMap<String, String>) -> GenerateDataKeyResponse {
        let request = GenerateDataKeyRequest {
            key_id: Some(ALIAS.to_owned()),
            encryption_context: Some(context.clone()),
            number_of_bytes: Some(64),
            ..GenerateDataKeyRequest::default()
        };
        self.test.call::<GenerateDataKey>(request).await.unwrap()
    }

    async fn refusal(&self, principal: Principal, request: DecryptRequest) -> ErrorCode {
        self.test.refuse_as::<Decrypt>(principal, request).await.code
    }
}

async fn open_session(test: &TestApp, id: &str, node: &InstanceId) -> SessionId {
    let session_id: SessionId = id.parse().unwrap();
    let new = NewSession {
        session_id: session_id.clone(),
        node: node.clone(),
        owner: administrator().arn(),
        document_name: "Encrypted".to_owned(),
        session_type: SessionType::StandardStream,
        reason: None,
        start_content: "{}".to_owned(),
        idle_timeout_millis: 60_000,
        max_duration_millis: None,
    };
    test.app.store.insert_session(&new, test.now()).await.unwrap();
    session_id
}

fn decrypt(sealed: &GenerateDataKeyResponse, context: BTreeMap<String, String>) -> DecryptRequest {
    DecryptRequest {
        ciphertext_blob: sealed.ciphertext_blob.clone(),
        encryption_context: Some(context),
        key_id: Some(ALIAS.to_owned()),
        ..DecryptRequest::default()
    }
}

#[tokio::test]
async fn the_node_of_a_session_gets_its_data_key() {
    let fixture = Fixture::new().await;
    let made = fixture.data_key(&fixture.context()).await;
    let plaintext = made.plaintext.clone().unwrap();
    assert_eq!(plaintext.0.len(), 64);
    assert!(
        made.key_id
            .as_ref()
            .unwrap()
            .starts_with("arn:moorline:kms:::key/")
    );
    let node = Principal::Node(fixture.node.clone());
    let request = decrypt(&made, fixture.context());
    let opened = fixture.test.call_as::<Decrypt>(node, request).await.unwrap();
    assert_eq!((opened.plaintext, opened.key_id), (Some(plaintext), made.key_id));
}

#[tokio::test]
async fn nobody_else_gets_a_sessions_data_key() {
    let fixture = Fixture::new().await;
    let made = fixture.data_key(&fixture.context()).await;
    let node = || Principal::Node(fixture.node.clone());
    let request = || decrypt(&made, fixture.context());
    for principal in [
        administrator(),
        Principal::Node(fixture.other.clone()),
        Principal::NodeKey(fixture.node.clone()),
    ] {
        assert_eq!(
            fixture.refusal(principal, request()).await,
            ErrorCode::AccessDeniedException
        );
    }
    let code = fixture.refusal(Principal::Anonymous, request()).await;
    assert_eq!(code, ErrorCode::MissingAuthenticationToken);

    // nor the node itself for a session of another node, or for none
    let foreign = open_session(&fixture.test, "admin-00000000000000002", &fixture.other).await;
    for session in [foreign.as_str(), "admin-00000000000000003", "?"] {
        let context = encryption_context(session, fixture.node.as_str(), None);
        let made = fixture.data_key(&context).await;
        let code = fixture.refusal(node(), decrypt(&made, context)).await;
        assert_eq!(code, ErrorCode::AccessDeniedException, "{session}");
    }
    let unbound = fixture.data_key(&BTreeMap::new()).await;
    let code = fixture.refusal(node(), decrypt(&unbound, BTreeMap::new())).await;
    assert_eq!(code, ErrorCode::AccessDeniedException);

    // a context that the key was not made for opens nothing
    let mut renamed = fixture.context();
    renamed.remove("aws:ssm:RandomChallenge");
    for context in [
        renamed,
        encryption_context(fixture.session.as_str(), fixture.node.as_str(), Some("other")),
    ] {
        let code = fixture.refusal(node(), decrypt(&made, context)).await;
        assert_eq!(code, ErrorCode::InvalidCiphertextException);
    }
    let code = fixture
        .refusal(administrator(), decrypt(&made, BTreeMap::new()))
        .await;
    assert_eq!(code, ErrorCode::InvalidCiphertextException);

    // and none once the session has ended
    let now = fixture.test.now();
    let store = &fixture.test.app.store;
    let ended = store
        .end_session(&fixture.session, SessionStatus::Terminated, "", None, now)
        .await;
    assert!(ended.unwrap());
    assert_eq!(
        fixture.refusal(node(), request()).await,
        ErrorCode::AccessDeniedException
    );
}

#[tokio::test]
async fn nodes_make_no_data_keys() {
    let fixture = Fixture::new().await;
    let request = GenerateDataKeyRequest {
        key_id: Some(ALIAS.to_owned()),
        number_of_bytes: Some(64),
        encryption_context: Some(fixture.context()),
        ..GenerateDataKeyRequest::default()
    };
    let node = Principal::Node(fixture.node.clone());
    let refused = fixture.test.refuse_as::<GenerateDataKey>(node, request).await;
    assert_eq!(refused.code, ErrorCode::AccessDeniedException);
}

#[tokio::test]
async fn an_administrator_opens_what_belongs_to_no_session() {
    let fixture = Fixture::new().await;
    let context = BTreeMap::from([("purpose".to_owned(), "test".to_owned())]);
    let made = fixture.data_key(&context).await;
    let mut request = decrypt(&made, context);
    request.key_id = None;
    let opened = fixture.test.call::<Decrypt>(request.clone()).await.unwrap();
    assert_eq!(opened.plaintext, made.plaintext);
    request.key_id = made.key_id;
    assert!(fixture.test.call::<Decrypt>(request).await.is_ok());
}

#[tokio::test]
async fn a_data_key_has_the_length_that_was_asked_for() {
    let test = TestApp::new().await;
    let request = |number_of_bytes, key_spec| GenerateDataKeyRequest {
        key_id: Some(ALIAS.to_owned()),
        number_of_bytes,
        key_spec,
        ..GenerateDataKeyRequest::default()
    };
    for (bytes, spec, length) in [
        (Some(1), None, 1),
        (Some(1024), None, 1024),
        (None, Some(DataKeySpec::Aes128), 16),
        (None, Some(DataKeySpec::Aes256), 32),
    ] {
        let made = test.call::<GenerateDataKey>(request(bytes, spec)).await.unwrap();
        assert_eq!(made.plaintext.unwrap().0.len(), length);
    }
    for (bytes, spec) in [
        (None, None),
        (Some(32), Some(DataKeySpec::Aes256)),
        (Some(0), None),
        (Some(1025), None),
        (None, Some(DataKeySpec::Unknown("AES_512".to_owned()))),
    ] {
        let refused = test.refuse::<GenerateDataKey>(request(bytes, spec)).await;
        assert_eq!(refused.code, ErrorCode::ValidationException);
    }
}

#[tokio::test]
async fn keys_and_requests_that_are_not_ours_are_refused_by_name() {
    let fixture = Fixture::new().await;
    let made = fixture.data_key(&BTreeMap::new()).await;
    let good = decrypt(&made, BTreeMap::new());
    let with = |change: fn(&mut DecryptRequest)| {
        let mut request = good.clone();
        change(&mut request);
        request
    };
    for (request, code) in [
        (
            with(|r| r.key_id = Some("alias/other".to_owned())),
            ErrorCode::NotFoundException,
        ),
        (with(|r| r.ciphertext_blob = None), ErrorCode::ValidationException),
        (
            with(|r| r.ciphertext_blob = Some(Blob(vec![1; 60]))),
            ErrorCode::InvalidCiphertextException,
        ),
        (
            with(|r| r.dry_run = Some(true)),
            ErrorCode::DryRunOperationException,
        ),
        (
            with(|r| r.recipient = Some(RecipientInfo::default())),
            ErrorCode::ValidationException,
        ),
        (
            with(|r| r.encryption_algorithm = Some(EncryptionAlgorithmSpec::RsaesOaepSha256)),
            ErrorCode::InvalidKeyUsageException,
        ),
    ] {
        assert_eq!(fixture.refusal(administrator(), request).await, code);
    }
    let unknown = GenerateDataKeyRequest {
        key_id: Some("alias/other\n".to_owned()),
        number_of_bytes: Some(64),
        ..GenerateDataKeyRequest::default()
    };
    let refused = fixture.test.refuse::<GenerateDataKey>(unknown).await;
    assert_eq!(refused.code, ErrorCode::NotFoundException);
    assert_eq!(refused.message, "Key 'alias/other\\n' does not exist");
}
