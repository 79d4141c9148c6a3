//! Recordings, chunk by chunk.

use moorline_ssm::transcript::{
    GetTranscript, GetTranscriptRequest, ListTranscripts, ListTranscriptsRequest,
};

use super::peer::Endpoint;
use crate::{gateway::sweep::forget_sessions, store::NewSession};

const ID: &str = "admin-0123456789abcdef0";

async fn with_session() -> Endpoint {
    let endpoint = Endpoint::start().await;
    endpoint.test.register_node(2, &[]).await;
    let new = NewSession {
        session_id: ID.parse().unwrap(),
        node: endpoint.node(),
        owner: "arn:moorline:iam:::user/admin".to_owned(),
        document_name: "SSM-SessionManagerRunShell".to_owned(),
        session_type: moorline_protocol::document::SessionType::StandardStream,
        reason: None,
        start_content: "{}".to_owned(),
        idle_timeout_millis: 60_000,
        max_duration_millis: None,
    };
    endpoint
        .test
        .app
        .store
        .insert_session(&new, endpoint.test.now())
        .await
        .unwrap();
    endpoint
}

async fn put(endpoint: &Endpoint, query: &str, chunk: &[u8]) -> (u16, String) {
    let path = format!("/v1/transcript/{ID}?{query}");
    endpoint.post(&path, chunk, Some(&endpoint.credentials(1))).await
}

async fn get(endpoint: &Endpoint, offset: i64, max_bytes: Option<i32>) -> (String, i64, bool) {
    let request = GetTranscriptRequest {
        session_id: Some(ID.to_owned()),
        offset: Some(offset),
        max_bytes,
        ..GetTranscriptRequest::default()
    };
    let piece = endpoint.test.call::<GetTranscript>(request).await.unwrap();
    (
        piece.data.unwrap(),
        piece.next_offset.unwrap(),
        piece.complete.unwrap(),
    )
}

#[tokio::test]
async fn a_repeated_chunk_is_stored_once() {
    let endpoint = with_session().await;
    assert_eq!(
        put(&endpoint, "offset=0", b"{}\n[0,").await,
        (200, r#"{"Length":6}"#.to_owned())
    );
    assert_eq!(
        put(&endpoint, "offset=0", b"{}\n[0,").await,
        (409, r#"{"Length":6}"#.to_owned())
    );
    assert_eq!(
        put(&endpoint, "offset=7", b"x").await,
        (409, r#"{"Length":6}"#.to_owned())
    );
    assert_eq!(
        get(&endpoint, 0, None).await,
        ("{}\n".to_owned(), 3, false),
        "whole lines while it grows"
    );
    assert_eq!(put(&endpoint, "offset=6", "\"é\"]\n".as_bytes()).await.0, 200);
    assert_eq!(
        get(&endpoint, 3, None).await,
        ("[0,\"é\"]\n".to_owned(), 12, false)
    );
    assert_eq!(get(&endpoint, 12, None).await, (String::new(), 12, false));
    assert_eq!(
        put(&endpoint, "offset=12&complete=true", b"").await,
        (200, r#"{"Length":12}"#.to_owned())
    );
    assert_eq!(get(&endpoint, 12, None).await, (String::new(), 12, true));
    assert_eq!(get(&endpoint, 0, Some(4)).await, ("{}\n".to_owned(), 3, false));
    let refused = GetTranscriptRequest {
        session_id: Some(ID.to_owned()),
        offset: Some(13),
        max_bytes: None,
        ..GetTranscriptRequest::default()
    };
    endpoint.test.refuse::<GetTranscript>(refused).await;
    endpoint
        .test
        .app
        .transcripts
        .sync(endpoint.test.now())
        .await
        .unwrap();
}

#[tokio::test]
async fn only_the_sessions_own_node_writes_its_transcript() {
    let endpoint = with_session().await;
    let path = format!("/v1/transcript/{ID}?offset=0");
    for credentials in [Some(endpoint.credentials(2)), None] {
        assert_eq!(endpoint.post(&path, b"x", credentials.as_ref()).await.0, 403);
    }
    let path = "/v1/transcript/unknown-session?offset=0";
    assert_eq!(
        endpoint.post(path, b"x", Some(&endpoint.credentials(1))).await.0,
        404
    );
    assert_eq!(put(&endpoint, "offset=x", b"x").await.0, 400);
    assert_eq!(put(&endpoint, "", b"x").await.0, 400);
    let large = vec![b'x'; 1024 * 1024 + 1];
    assert_eq!(put(&endpoint, "offset=0", &large).await.0, 413);
    let missing = GetTranscriptRequest {
        session_id: Some(ID.to_owned()),
        offset: None,
        max_bytes: None,
        ..GetTranscriptRequest::default()
    };
    let refused = endpoint.test.refuse::<GetTranscript>(missing).await;
    assert_eq!(refused.code, moorline_ssm::ErrorCode::DoesNotExistException);
}

#[tokio::test]
async fn transcripts_are_listed_by_node_with_length_and_state() {
    let endpoint = with_session().await;
    assert_eq!(put(&endpoint, "offset=0&complete=true", b"{}\n").await.0, 200);
    for (target, found) in [
        (Some(endpoint.node().to_string()), 1),
        (Some("mi-0".to_owned()), 0),
        (None, 1),
    ] {
        let request = ListTranscriptsRequest {
            target,
            ..ListTranscriptsRequest::default()
        };
        let listed = endpoint
            .test
            .call::<ListTranscripts>(request)
            .await
            .unwrap()
            .transcripts
            .unwrap();
        assert_eq!(listed.len(), found);
        for transcript in listed {
            assert_eq!(transcript.session_id.as_deref(), Some(ID));
            assert_eq!(
                (transcript.length_bytes, transcript.complete),
                (Some(3), Some(true))
            );
            assert_eq!(
                transcript.document_name.as_deref(),
                Some("SSM-SessionManagerRunShell")
            );
        }
    }
}

#[tokio::test]
async fn nothing_is_added_to_a_recording_that_is_complete() {
    let endpoint = with_session().await;
    assert_eq!(put(&endpoint, "offset=0", b"{}\n").await.0, 200);
    assert_eq!(put(&endpoint, "offset=3&complete=true", b"[1]\n").await.0, 200);
    let (status, text) = put(&endpoint, "offset=7", b"[2]\n").await;
    assert_eq!(status, 410);
    assert!(text.contains("is closed with 7 bytes"), "{text}");
    assert_eq!(get(&endpoint, 0, None).await, ("{}\n[1]\n".to_owned(), 7, true));
    // a node that missed the answer to its last chunk finds out, and may say the end again
    assert_eq!(put(&endpoint, "offset=3&complete=true", b"[1]\n").await.0, 409);
    assert_eq!(put(&endpoint, "offset=7&complete=true", b"").await.0, 200);
}

#[tokio::test]
async fn a_recording_may_follow_its_session_for_a_week() {
    let endpoint = with_session().await;
    let store = &endpoint.test.app.store;
    let status = crate::store::SessionStatus::Terminated;
    let id = ID.parse().unwrap();
    let ended = store
        .end_session(&id, status, "", None, endpoint.test.now())
        .await;
    assert!(ended.unwrap());
    endpoint.test.advance_millis(7 * 86_400_000 - 60_000);
    assert_eq!(put(&endpoint, "offset=0", b"{}\n").await.0, 200);
    endpoint.test.advance_millis(2 * 60_000);
    assert_eq!(put(&endpoint, "offset=3", b"[1]\n").await.0, 410);
    assert_eq!(put(&endpoint, "offset=3&complete=true", b"").await.0, 200);
}

#[tokio::test]
async fn a_node_is_asked_to_wait_with_its_recording_while_the_disk_is_nearly_full() {
    let mut endpoint = with_session().await;
    endpoint.without_room().await;
    let (status, text) = put(&endpoint, "offset=0", b"{}\n").await;
    assert_eq!(status, 507);
    assert!(text.contains("nearly full"), "{text}");
}

#[tokio::test]
async fn an_ended_session_is_forgotten_with_its_recording_after_ninety_days() {
    const DAY_MILLIS: u64 = 86_400_000;
    let endpoint = with_session().await;
    assert_eq!(put(&endpoint, "offset=0&complete=true", b"{}\n").await.0, 200);
    let app = &endpoint.test.app;
    let id = ID.parse().unwrap();
    endpoint.test.advance_millis(91 * DAY_MILLIS);
    forget_sessions(app).await.unwrap();
    let is_known = async || app.store.session(&id).await.unwrap().is_some();
    assert!(is_known().await, "one that has not ended stays");

    let status = crate::store::SessionStatus::Terminated;
    let ended = app
        .store
        .end_session(&id, status, "", None, endpoint.test.now())
        .await;
    assert!(ended.unwrap());
    endpoint.test.advance_millis(89 * DAY_MILLIS);
    forget_sessions(app).await.unwrap();
    assert!(is_known().await);
    assert_eq!(app.transcripts.length(&id).await.unwrap(), Some(3));
    endpoint.test.advance_millis(2 * DAY_MILLIS);
    forget_sessions(app).await.unwrap();
    assert!(!is_known().await);
    assert!(!app.store.transcript_is_closed(&id).await.unwrap());
    assert_eq!(app.transcripts.length(&id).await.unwrap(), None);
}
