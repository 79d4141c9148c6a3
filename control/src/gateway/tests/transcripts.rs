//! Recordings, chunk by chunk.

use moorline_protocol::transcript::{Blocks, MAX_BLOCK_BYTES};
use moorline_ssm::ErrorCode;
use moorline_ssm::audit::{ListAuditRecords, ListAuditRecordsRequest};
use moorline_ssm::transcript::{
    DeleteTranscript, DeleteTranscriptRequest, GetTranscript, GetTranscriptRequest, ListTranscripts,
    ListTranscriptsRequest, PutTranscriptLegalHold, PutTranscriptLegalHoldRequest,
    PutTranscriptLegalHoldResponse, Transcript, TranscriptState,
};

use super::{
    peer::Endpoint,
    retention::{new_session, recorded},
};
use crate::{
    auth::Principal,
    gateway::{
        at_rest,
        sweep::{close_transcripts, forget_sessions},
    },
    store::{Place, Recorded},
    test_support::{CapturedLog, administrator},
};

const DAY_MILLIS: u64 = 86_400_000;

pub(super) const ID: &str = "admin-0123456789abcdef0";

pub(super) async fn with_session() -> Endpoint {
    let endpoint = Endpoint::start().await;
    endpoint.test.register_node(2, &[]).await;
    let new = new_session(&ID.parse().unwrap(), &endpoint.node());
    endpoint
        .test
        .app
        .store
        .insert_session(&new, endpoint.test.now())
        .await
        .unwrap();
    endpoint
}

pub(super) async fn put(endpoint: &Endpoint, query: &str, chunk: &[u8]) -> (u16, String) {
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
async fn of_a_chunk_in_blocks_all_is_stored_as_it_was_or_nothing() {
    let endpoint = with_session().await;
    let piece = format!("{{}}\n[0,\"o\",\"{}\"]\n", "x".repeat(200_000));
    let blocks = Blocks::new(piece.as_bytes()).blocks().to_vec();
    let damaged_at = |at: usize| {
        let mut damaged = blocks.clone();
        damaged[at] ^= 0xff;
        damaged
    };
    for damaged in [
        damaged_at(0),
        damaged_at(8),
        blocks[1..].to_vec(),
        blocks[..blocks.len() - 1].to_vec(),
    ] {
        assert_eq!(put(&endpoint, "offset=0&blocks=true", &damaged).await.0, 400);
    }
    // the blocks before the damaged one are good
    let begin_of_last = blocks.len() - Blocks::new(&piece.as_bytes()[3 * MAX_BLOCK_BYTES..]).held_bytes();
    assert_eq!(
        put(&endpoint, "offset=0&blocks=true", &damaged_at(begin_of_last + 8))
            .await
            .0,
        400
    );
    let (status, text) = put(&endpoint, "offset=0&blocks=true", &blocks).await;
    assert_eq!(status, 200, "{text}");
    assert_eq!(
        put(&endpoint, &format!("offset={}&complete=true", piece.len()), b"")
            .await
            .0,
        200
    );
    assert_eq!(
        get(&endpoint, 0, None).await,
        (piece.clone(), i64::try_from(piece.len()).unwrap(), true)
    );
}

#[tokio::test]
async fn a_repeated_chunk_is_stored_once() {
    let endpoint = with_session().await;
    assert_eq!(
        put(&endpoint, "offset=0", b"{}\n[0,").await,
        (200, r#"{"Length":6,"Durable":0,"BlockBytes":8388608}"#.to_owned())
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
    assert_eq!(
        put(&endpoint, "offset=6&durable=true", "\"é\"]\n".as_bytes()).await,
        (
            200,
            r#"{"Length":12,"Durable":12,"BlockBytes":8388608}"#.to_owned()
        )
    );
    assert_eq!(
        get(&endpoint, 3, None).await,
        ("[0,\"é\"]\n".to_owned(), 12, false)
    );
    assert_eq!(get(&endpoint, 12, None).await, (String::new(), 12, false));
    assert_eq!(
        put(&endpoint, "offset=12&complete=true", b"").await,
        (
            200,
            r#"{"Length":12,"Durable":12,"BlockBytes":8388608}"#.to_owned()
        )
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
    assert_eq!(refused.code, ErrorCode::DoesNotExistException);
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
async fn a_recording_that_its_node_does_not_go_on_with_is_closed_a_week_after_its_session() {
    let endpoint = with_session().await;
    let app = &endpoint.test.app;
    end(&endpoint).await;
    assert_eq!(put(&endpoint, "offset=0", b"{}\n").await.0, 200);
    endpoint.test.advance_millis(7 * DAY_MILLIS - 60_000);
    close_transcripts(app, &mut None).await.unwrap();
    assert_eq!(put(&endpoint, "offset=3", b"[1]\n").await.0, 200);
    endpoint.test.advance_millis(2 * 60_000);
    close_transcripts(app, &mut None).await.unwrap();
    assert_eq!(put(&endpoint, "offset=7", b"[2]\n").await.0, 410);
    assert_eq!(put(&endpoint, "offset=7&complete=true", b"").await.0, 200);
}

#[tokio::test]
async fn a_recording_of_a_known_session_is_taken_whatever_the_clock_says() {
    let endpoint = with_session().await;
    let app = &endpoint.test.app;
    end(&endpoint).await;
    endpoint.test.step_clock(i64::try_from(60 * DAY_MILLIS).unwrap());
    assert_eq!(put(&endpoint, "offset=0", b"{}\n").await.0, 200);
    close_transcripts(app, &mut None).await.unwrap();
    assert_eq!(put(&endpoint, "offset=3", b"[1]\n").await.0, 200);
    assert_eq!(put(&endpoint, "offset=7&complete=true", b"").await.0, 200);
    assert_eq!(get(&endpoint, 0, None).await, ("{}\n[1]\n".to_owned(), 7, true));
}

#[tokio::test]
async fn of_a_session_that_is_forgotten_no_recording_is_taken() {
    let endpoint = with_session().await;
    end(&endpoint).await;
    endpoint.test.advance_millis(91 * DAY_MILLIS);
    forget_sessions(&endpoint.test.app).await.unwrap();
    assert_eq!(put(&endpoint, "offset=0", b"{}\n").await.0, 404);
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
async fn what_a_node_has_of_the_disk_is_counted_wherever_its_recording_is() {
    let endpoint = with_session().await;
    let app = &endpoint.test.app;
    let share = async || {
        app.transcripts.count_shares(&app.store).await.unwrap();
        app.transcripts.share_of(endpoint.node().as_str())
    };
    assert_eq!(share().await, 0);
    let piece = format!("{{}}\n[0,\"o\",\"{}\"]\n", "x".repeat(5000));
    assert_eq!(put(&endpoint, "offset=0", piece.as_bytes()).await.0, 200);
    let length = u64::try_from(piece.len()).unwrap();
    assert_eq!(share().await, length);
    let query = format!("offset={length}&complete=true");
    assert_eq!(put(&endpoint, &query, b"").await.0, 200);
    at_rest::look(app).await;
    let packed = endpoint.test.dir().join(format!("transcripts/{ID}.cast.zst"));
    let packed = std::fs::metadata(packed).unwrap().len();
    assert!(packed < length);
    assert_eq!(share().await, packed);
    endpoint.test.call::<DeleteTranscript>(delete()).await.unwrap();
    at_rest::look(app).await;
    assert_eq!(share().await, 0);
}

#[tokio::test]
async fn an_ended_session_is_forgotten_after_ninety_days_and_its_transcript_keeps_what_a_list_shows() {
    let endpoint = with_session().await;
    assert_eq!(put(&endpoint, "offset=0&complete=true", b"{}\n").await.0, 200);
    let app = &endpoint.test.app;
    let id = ID.parse().unwrap();
    endpoint.test.advance_millis(91 * DAY_MILLIS);
    forget_sessions(app).await.unwrap();
    let is_known = async || app.store.session(&id).await.unwrap().is_some();
    assert!(is_known().await, "one that has not ended stays");

    end(&endpoint).await;
    endpoint.test.advance_millis(89 * DAY_MILLIS);
    forget_sessions(app).await.unwrap();
    assert!(is_known().await);
    endpoint.test.advance_millis(2 * DAY_MILLIS);
    forget_sessions(app).await.unwrap();
    assert!(!is_known().await);
    let listed = list(&endpoint, ListTranscriptsRequest::default()).await;
    assert_eq!(listed[0].owner.as_deref(), Some("arn:moorline:iam:::user/admin"));
    assert!(listed[0].end_date.is_some());
    assert_eq!(get(&endpoint, 0, None).await, ("{}\n".to_owned(), 3, true));
}

async fn end(endpoint: &Endpoint) {
    let status = crate::store::SessionStatus::Terminated;
    let (store, now) = (&endpoint.test.app.store, endpoint.test.now());
    let ended = store
        .end_session(&ID.parse().unwrap(), status, "", None, now)
        .await;
    assert!(ended.unwrap());
}

async fn list(endpoint: &Endpoint, request: ListTranscriptsRequest) -> Vec<Transcript> {
    let listed = endpoint.test.call::<ListTranscripts>(request).await.unwrap();
    assert_eq!(listed.next_token, None);
    listed.transcripts.unwrap()
}

pub(super) async fn of_state(endpoint: &Endpoint, state: TranscriptState) -> Vec<Transcript> {
    let request = ListTranscriptsRequest {
        state: Some(state),
        ..ListTranscriptsRequest::default()
    };
    list(endpoint, request).await
}

fn recorded_as(endpoint: &Endpoint, id: &str) -> Recorded {
    Recorded {
        id: id.parse().unwrap(),
        node: endpoint.node(),
        command: None,
        owner: administrator().arn(),
        document_name: "SSM-SessionManagerRunShell".to_owned(),
    }
}

#[tokio::test]
async fn a_recording_in_a_store_that_the_settings_do_not_name_any_more_is_not_told_as_missing() {
    let endpoint = with_session().await;
    let store = &endpoint.test.app.store;
    let recorded = recorded_as(&endpoint, ID);
    let now = endpoint.test.now();
    store.transcript_started(&recorded, now).await.unwrap();
    store.transcript_moved(&recorded.id, Place::Store).await.unwrap();
    let get = GetTranscriptRequest {
        session_id: Some(ID.to_owned()),
        ..GetTranscriptRequest::default()
    };
    let refused = endpoint.test.refuse::<GetTranscript>(get).await;
    assert_eq!(refused.code, ErrorCode::ServiceUnavailable);
    assert!(refused.message.contains("--transcript-store"), "{refused}");
    let request = ListTranscriptsRequest {
        contains: Some("drop".to_owned()),
        ..ListTranscriptsRequest::default()
    };
    let listed = endpoint.test.call::<ListTranscripts>(request).await.unwrap();
    assert_eq!(listed.not_searched, Some(vec![ID.to_owned()]));
}

#[tokio::test]
async fn a_recording_that_cannot_be_searched_is_named_and_keeps_no_other_from_being_found() {
    let endpoint = with_session().await;
    let store = &endpoint.test.app.store;
    let transcripts = endpoint.test.dir().join("transcripts");
    for id in [ID, "admin-0123456789abcdef1", "admin-0123456789abcdef2"] {
        let recorded = recorded_as(&endpoint, id);
        store
            .transcript_started(&recorded, endpoint.test.now())
            .await
            .unwrap();
        std::fs::create_dir_all(&transcripts).unwrap();
        std::fs::write(
            transcripts.join(format!("{id}.cast")),
            b"{}\n[0.000000,\"o\",\"drop table\"]\n",
        )
        .unwrap();
    }
    let damaged = "admin-0123456789abcdef1";
    std::fs::remove_file(transcripts.join(format!("{damaged}.cast"))).unwrap();
    std::fs::write(transcripts.join(format!("{damaged}.cast.zst")), b"no table").unwrap();
    let request = ListTranscriptsRequest {
        contains: Some("drop".to_owned()),
        ..ListTranscriptsRequest::default()
    };
    let listed = endpoint.test.call::<ListTranscripts>(request).await.unwrap();
    let ids = listed.transcripts.unwrap().into_iter();
    let ids: Vec<_> = ids.filter_map(|transcript| transcript.session_id).collect();
    assert_eq!(ids, ["admin-0123456789abcdef2", ID]);
    assert_eq!(listed.not_searched, Some(vec![damaged.to_owned()]));
}

fn delete() -> DeleteTranscriptRequest {
    DeleteTranscriptRequest {
        session_id: Some(ID.to_owned()),
        reason: Some("a customer asked".to_owned()),
    }
}

fn hold(is_held: bool) -> PutTranscriptLegalHoldRequest {
    PutTranscriptLegalHoldRequest {
        session_id: Some(ID.to_owned()),
        held: Some(is_held),
        reason: is_held.then(|| "case 12".to_owned()),
    }
}

fn asked() -> GetTranscriptRequest {
    GetTranscriptRequest {
        session_id: Some(ID.to_owned()),
        ..GetTranscriptRequest::default()
    }
}

/// Where the files of the recording are.
fn files(endpoint: &Endpoint) -> Vec<String> {
    let dir = std::fs::read_dir(endpoint.test.dir().join("transcripts")).unwrap();
    let mut names: Vec<String> = dir
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[tokio::test]
async fn a_finished_recording_is_compressed_and_is_read_as_before() {
    let endpoint = with_session().await;
    let app = &endpoint.test.app;
    assert_eq!(
        put(&endpoint, "offset=0", b"{}\n[0,\"o\",\"one\"]\n").await.0,
        200
    );
    at_rest::look(app).await;
    assert_eq!(
        files(&endpoint),
        [format!("{ID}.cast")],
        "one that grows stays as it is"
    );
    assert_eq!(
        put(&endpoint, "offset=15&complete=true", b"[1,\"o\",\"two\"]\n")
            .await
            .0,
        409
    );
    let length = app
        .transcripts
        .length(&ID.parse().unwrap())
        .await
        .unwrap()
        .unwrap();
    let query = format!("offset={length}&complete=true");
    assert_eq!(put(&endpoint, &query, b"[1,\"o\",\"two\"]\n").await.0, 200);
    let before = get(&endpoint, 0, None).await;
    // twice: what was done is not done again
    for _ in 0..2 {
        at_rest::look(app).await;
        assert_eq!(files(&endpoint), [format!("{ID}.cast.zst")]);
        assert_eq!(get(&endpoint, 0, None).await, before);
        assert_eq!(get(&endpoint, 3, Some(4)).await.0, "[0,\"");
    }
    // a node that missed the answer says the end once more, and no other byte comes behind it
    let end = before.1;
    assert_eq!(
        put(&endpoint, &format!("offset={end}&complete=true"), b"")
            .await
            .0,
        200
    );
    assert_eq!(put(&endpoint, &format!("offset={end}"), b"x").await.0, 410);
    assert_eq!(put(&endpoint, "offset=0", b"x").await.0, 410);
    assert_eq!(files(&endpoint), [format!("{ID}.cast.zst")]);
}

#[tokio::test]
async fn a_node_that_missed_the_answer_to_its_end_learns_of_it_also_when_the_recording_is_compressed() {
    let endpoint = with_session().await;
    let chunk = b"{}\n[0,\"o\",\"one\"]\n";
    assert_eq!(put(&endpoint, "offset=0&complete=true", chunk).await.0, 200);
    at_rest::look(&endpoint.test.app).await;
    assert_eq!(files(&endpoint), [format!("{ID}.cast.zst")]);
    let length = chunk.len();
    assert_eq!(
        put(&endpoint, "offset=0&complete=true", chunk).await,
        (409, format!("{{\"Length\":{length}}}"))
    );
    let end = format!("offset={length}&complete=true");
    assert_eq!(put(&endpoint, &end, b"").await.0, 200);
    // what would make it longer is no end that is said once more
    let longer = [chunk, &b"x"[..]].concat();
    assert_eq!(put(&endpoint, "offset=0&complete=true", &longer).await.0, 410);
    assert_eq!(files(&endpoint), [format!("{ID}.cast.zst")]);
}

#[tokio::test]
async fn a_crash_between_any_two_steps_of_compressing_loses_nothing() {
    let endpoint = with_session().await;
    let app = &endpoint.test.app;
    assert_eq!(put(&endpoint, "offset=0&complete=true", b"{}\n").await.0, 200);
    let dir = endpoint.test.dir().join("transcripts");
    let (plain, packed) = (dir.join(format!("{ID}.cast")), dir.join(format!("{ID}.cast.zst")));
    // half a file is left; both are left; the row was not written
    std::fs::write(dir.join(format!("{ID}.cast.zst.part")), b"half").unwrap();
    let content = app.transcripts.pack(&ID.parse().unwrap()).await.unwrap();
    std::fs::write(&plain, b"{}\n").unwrap();
    assert_eq!(app.transcripts.pack(&ID.parse().unwrap()).await.unwrap(), content);
    assert!(!plain.exists() && packed.exists());
    at_rest::look(app).await;
    let listed = list(&endpoint, ListTranscriptsRequest::default()).await;
    let hash = content.unwrap().content.hash.to_string();
    assert_eq!(
        (listed[0].sha256.clone(), listed[0].length_bytes),
        (Some(hash), Some(3))
    );
    assert_eq!(get(&endpoint, 0, None).await.0, "{}\n");
    assert_eq!(files(&endpoint), [format!("{ID}.cast.zst")]);
}

#[tokio::test]
async fn a_deleted_transcript_leaves_who_when_why_length_and_hash() {
    let endpoint = with_session().await;
    let app = &endpoint.test.app;
    assert_eq!(put(&endpoint, "offset=0", b"{}\n").await.0, 200);
    let refused = endpoint.test.refuse::<DeleteTranscript>(delete()).await;
    assert!(refused.message.contains("is not complete"), "{}", refused.message);
    assert_eq!(put(&endpoint, "offset=3&complete=true", b"").await.0, 200);
    endpoint.test.call::<DeleteTranscript>(delete()).await.unwrap();
    let refused = endpoint.test.refuse::<GetTranscript>(asked()).await;
    assert!(refused.message.contains("was deleted by"), "{}", refused.message);
    endpoint.test.refuse::<DeleteTranscript>(delete()).await;
    endpoint.test.refuse::<PutTranscriptLegalHold>(hold(true)).await;
    at_rest::look(app).await;
    assert_eq!(files(&endpoint), [""; 0], "nothing of it is left");
    assert!(
        list(&endpoint, ListTranscriptsRequest::default())
            .await
            .is_empty()
    );
    let [tombstone] = &of_state(&endpoint, TranscriptState::Deleted).await[..] else {
        panic!("no tombstone");
    };
    assert_eq!(
        tombstone.deleted_by.as_deref(),
        Some(administrator().arn().as_str())
    );
    assert_eq!(tombstone.delete_reason.as_deref(), Some("a customer asked"));
    assert_eq!(
        tombstone.deleted_date.map(|time| time.millis()),
        Some(endpoint.test.now())
    );
    let hash = "ca3d163bab055381827226140568f3bef7eaac187cebd76878e0b63e9e442356";
    assert_eq!(
        (tombstone.sha256.as_deref(), tombstone.length_bytes),
        (Some(hash), Some(3))
    );
    assert_eq!(
        put(&endpoint, "offset=0", b"x").await.0,
        410,
        "it does not come back"
    );
    assert_eq!(files(&endpoint), [""; 0]);
}

#[tokio::test]
async fn chunks_that_find_no_room_do_not_fill_the_log() {
    let mut endpoint = with_session().await;
    endpoint.without_room().await;
    let log = CapturedLog::begin();
    for _ in 0..20 {
        assert_eq!(put(&endpoint, "offset=0", b"{}\n").await.0, 507);
    }
    let lines = log.lines_with("a chunk of a transcript was refused");
    assert_eq!(lines.len(), 5, "{lines:#?}");
    endpoint.test.advance_millis(1000);
    assert_eq!(put(&endpoint, "offset=0", b"{}\n").await.0, 507);
    let lines = log.lines_with("a chunk of a transcript was refused");
    assert!(lines.last().unwrap().contains("held_back=15"), "{lines:#?}");
}

#[tokio::test]
async fn the_audit_log_has_length_and_hash_of_what_an_operator_deleted() {
    for is_packed in [false, true] {
        let endpoint = with_session().await;
        assert_eq!(put(&endpoint, "offset=0&complete=true", b"{}\n").await.0, 200);
        if is_packed {
            at_rest::look(&endpoint.test.app).await;
        }
        endpoint.test.call::<DeleteTranscript>(delete()).await.unwrap();
        endpoint.test.refuse::<DeleteTranscript>(delete()).await;
        let records = recorded(&endpoint.test, "call").await.into_iter();
        let [done, refused] = records
            .filter(|line| line.contains("moorline:DeleteTranscript"))
            .collect::<Vec<_>>()
            .try_into()
            .unwrap();
        let details = r#""details":{"length":3,"sha256":"ca3d163bab055381827226140568f3bef7eaac187cebd76878e0b63e9e442356"}"#;
        assert!(done.contains(details), "{done}");
        assert!(!refused.contains("details"), "{refused}");
    }
}

#[tokio::test]
async fn a_transcript_can_be_deleted_from_a_disk_that_is_nearly_full_unless_somebody_holds_it() {
    let mut endpoint = with_session().await;
    assert_eq!(put(&endpoint, "offset=0&complete=true", b"{}\n").await.0, 200);
    endpoint.without_room().await;
    let app = &endpoint.test.app;
    at_rest::look(app).await;
    let test = &endpoint.test;
    test.call::<PutTranscriptLegalHold>(hold(true)).await.unwrap();
    let refused = test.refuse::<DeleteTranscript>(delete()).await;
    assert!(refused.message.contains("is held by"), "{}", refused.message);
    at_rest::look(app).await;
    assert_eq!(get(&endpoint, 0, None).await.0, "{}\n");
    test.call::<PutTranscriptLegalHold>(hold(false)).await.unwrap();
    test.call::<DeleteTranscript>(delete()).await.unwrap();
    at_rest::look(app).await;
    assert_eq!(files(&endpoint), [""; 0]);
    let [tombstone] = of_state(&endpoint, TranscriptState::Deleted)
        .await
        .try_into()
        .unwrap();
    let hash = "ca3d163bab055381827226140568f3bef7eaac187cebd76878e0b63e9e442356";
    assert_eq!(
        (tombstone.sha256.as_deref(), tombstone.length_bytes),
        (Some(hash), Some(3))
    );
}

#[tokio::test]
async fn a_transcript_whose_disk_was_away_can_be_deleted_when_it_is_back() {
    let endpoint = with_session().await;
    assert_eq!(put(&endpoint, "offset=0&complete=true", b"{}\n").await.0, 200);
    let (there, away) = (
        endpoint.test.dir().join("transcripts"),
        endpoint.test.dir().join("away"),
    );
    std::fs::rename(&there, &away).unwrap();
    at_rest::look(&endpoint.test.app).await;
    std::fs::rename(&away, &there).unwrap();
    assert_eq!(get(&endpoint, 0, None).await.0, "{}\n");
    endpoint.test.call::<DeleteTranscript>(delete()).await.unwrap();
    at_rest::look(&endpoint.test.app).await;
    assert_eq!(files(&endpoint), [""; 0]);
    assert_eq!(of_state(&endpoint, TranscriptState::Deleted).await.len(), 1);
}

#[tokio::test]
async fn who_holds_a_transcript_first_holds_it_until_it_is_released() {
    let endpoint = with_session().await;
    let test = &endpoint.test;
    assert_eq!(put(&endpoint, "offset=0&complete=true", b"{}\n").await.0, 200);
    let first = hold(true);
    let since = test.now();
    let answer = test.call::<PutTranscriptLegalHold>(first).await.unwrap();
    assert_eq!(answer, PutTranscriptLegalHoldResponse::default());
    test.advance_millis(DAY_MILLIS);
    let second = PutTranscriptLegalHoldRequest {
        reason: Some("case 13".to_owned()),
        ..hold(true)
    };
    let colleague = Principal::Administrator {
        access_key_id: "AKIACOLLEAGUE".to_owned(),
        user_name: "colleague".to_owned(),
    };
    let answer = test
        .call_as::<PutTranscriptLegalHold>(colleague, second)
        .await
        .unwrap();
    let held = ListTranscriptsRequest {
        held: Some(true),
        ..ListTranscriptsRequest::default()
    };
    let [listed] = list(&endpoint, held).await.try_into().unwrap();
    let holder = administrator().arn();
    assert_eq!(listed.held_by.as_deref(), Some(holder.as_str()));
    assert_eq!(listed.held_date.map(|date| date.millis()), Some(since));
    assert_eq!(listed.hold_reason.as_deref(), Some("case 12"));
    assert_eq!(
        (answer.held_by.as_deref(), answer.hold_reason.as_deref()),
        (Some(holder.as_str()), Some("case 12"))
    );
    assert_eq!(answer.held_date.map(|date| date.millis()), Some(since));
    let log = test
        .call::<ListAuditRecords>(ListAuditRecordsRequest::default())
        .await
        .unwrap();
    let is_hold =
        |line: &&String| line.contains("PutTranscriptLegalHold") && line.contains("\"event\":\"call\"");
    let holds: Vec<String> = log.records.unwrap().iter().filter(is_hold).cloned().collect();
    let [one, other] = &holds[..] else {
        panic!("{holds:?}")
    };
    assert!(one.contains("case 12") && other.contains("case 13"), "{holds:?}");
    assert!(other.contains("colleague"), "{other}");
}

#[tokio::test]
async fn age_deletes_a_transcript_and_a_legal_hold_keeps_it_from_everybody() {
    let endpoint = with_session().await;
    let app = &endpoint.test.app;
    assert_eq!(put(&endpoint, "offset=0&complete=true", b"{}\n").await.0, 200);
    at_rest::look(app).await;
    endpoint
        .test
        .call::<PutTranscriptLegalHold>(hold(true))
        .await
        .unwrap();
    endpoint.test.advance_millis(91 * DAY_MILLIS);
    at_rest::expire(app).await.unwrap();
    let refused = endpoint.test.refuse::<DeleteTranscript>(delete()).await;
    assert!(refused.message.contains("is held by"), "{}", refused.message);
    let held = ListTranscriptsRequest {
        held: Some(true),
        ..ListTranscriptsRequest::default()
    };
    let listed = list(&endpoint, held.clone()).await;
    assert_eq!(listed[0].hold_reason.as_deref(), Some("case 12"));
    assert_eq!(get(&endpoint, 0, None).await.0, "{}\n");

    endpoint
        .test
        .call::<PutTranscriptLegalHold>(hold(false))
        .await
        .unwrap();
    assert!(list(&endpoint, held).await.is_empty());
    at_rest::expire(app).await.unwrap();
    at_rest::look(app).await;
    assert_eq!(files(&endpoint), [""; 0]);
    let deleted = of_state(&endpoint, TranscriptState::Deleted).await;
    assert_eq!(deleted[0].deleted_by.as_deref(), Some("retention"));
    // for ten years
    endpoint.test.advance_millis(3649 * DAY_MILLIS);
    at_rest::expire(app).await.unwrap();
    assert_eq!(of_state(&endpoint, TranscriptState::Deleted).await.len(), 1);
    endpoint.test.advance_millis(2 * DAY_MILLIS);
    at_rest::expire(app).await.unwrap();
    assert!(of_state(&endpoint, TranscriptState::Deleted).await.is_empty());
}

#[tokio::test]
async fn transcripts_are_found_by_who_what_when_state_and_text() {
    let endpoint = with_session().await;
    let cast =
        b"{\"version\":2}\n[0.000001,\"o\",\"rm -rf /srv/\"]\n[0.000002,\"o\",\"\\u001b[1mData\\r\\n\"]\n";
    assert_eq!(put(&endpoint, "offset=0", cast).await.0, 200);
    let now = endpoint.test.now();
    let at = |millis| Some(moorline_ssm::EpochSeconds::from_millis(millis));
    let some = |text: &str| Some(text.to_owned());
    type Filter<'a> = &'a dyn Fn(&mut ListTranscriptsRequest);
    let table: [(Filter<'_>, usize); 14] = [
        (&|wanted| wanted.owner = some("admin"), 1),
        (&|wanted| wanted.owner = some("arn:moorline:iam:::user/admin"), 1),
        (&|wanted| wanted.owner = some("min"), 0),
        (&|wanted| wanted.owner = some("%"), 0),
        (
            &|wanted| wanted.document_name = some("SSM-SessionManagerRunShell"),
            1,
        ),
        (&|wanted| wanted.document_name = some("Other"), 0),
        (&|wanted| wanted.started_after = at(now), 1),
        (&|wanted| wanted.started_after = at(now + 1), 0),
        (&|wanted| wanted.started_before = at(now), 0),
        (&|wanted| wanted.state = Some(TranscriptState::Running), 1),
        (&|wanted| wanted.state = Some(TranscriptState::NotVerified), 0),
        (&|wanted| wanted.held = Some(false), 1),
        (&|wanted| wanted.contains = some("/SRV/data"), 1),
        (&|wanted| wanted.contains = some("database"), 0),
    ];
    for (number, (filter, found)) in table.iter().enumerate() {
        let mut request = ListTranscriptsRequest::default();
        filter(&mut request);
        assert_eq!(list(&endpoint, request).await.len(), *found, "filter {number}");
    }
    let query = format!("offset={}&complete=true", cast.len());
    assert_eq!(put(&endpoint, &query, b"").await.0, 200);
    at_rest::look(&endpoint.test.app).await;
    let packed = ListTranscriptsRequest {
        contains: some("/SRV/data"),
        ..ListTranscriptsRequest::default()
    };
    assert_eq!(list(&endpoint, packed).await.len(), 1, "compressed");
    assert_eq!(
        of_state(&endpoint, TranscriptState::NotVerified).await.len(),
        1,
        "nobody sealed it"
    );
    assert!(of_state(&endpoint, TranscriptState::Running).await.is_empty());
}
