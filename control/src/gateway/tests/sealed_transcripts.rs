//! Sealed recordings as nodes send them, good ones and others, and what an auditor gets of them with the API alone.

use moorline_protocol::{
    public_keys::{Keys, NodeKey, PublicKey},
    transcript::{Ending, Verdict, Verifier, Weaver},
};
use moorline_ssm::{
    node::{DeregisterManagedInstance, DeregisterManagedInstanceRequest},
    public_key::{GetPublicKeys, GetPublicKeysRequest, RegisterTranscriptKey, RegisterTranscriptKeyRequest},
    transcript::{
        GetTranscript, GetTranscriptRequest, ListCountersignatures, ListCountersignaturesRequest,
        TranscriptState,
    },
};

use super::{
    peer::Endpoint,
    transcripts::{ID, of_state, put, with_session},
};
use crate::{
    auth::Principal,
    gateway::at_rest,
    store::fixture::{Key, sealed_recording},
    test_support::node_id,
};

async fn register(endpoint: &Endpoint, index: u32, key: &Key) {
    let node = node_id(index);
    let request = RegisterTranscriptKeyRequest {
        instance_id: Some(node.to_string()),
        public_key: Some(key.public().to_base64()),
    };
    let by = Principal::Node(node);
    endpoint
        .test
        .call_as::<RegisterTranscriptKey>(by, request)
        .await
        .unwrap();
}

fn recording(endpoint: &Endpoint, key: &Key) -> Vec<u8> {
    sealed_recording(key, (endpoint.node().as_str(), ID), 3, false)
}

/// What an auditor says to what the API gives.
async fn verdict(endpoint: &Endpoint) -> Verdict {
    let test = &endpoint.test;
    let request = GetTranscriptRequest {
        session_id: Some(ID.to_owned()),
        ..GetTranscriptRequest::default()
    };
    let recording = test.call::<GetTranscript>(request).await.unwrap().data.unwrap();
    let request = ListCountersignaturesRequest {
        session_id: Some(ID.to_owned()),
        start_index: None,
    };
    let lines = test
        .call::<ListCountersignatures>(request)
        .await
        .unwrap()
        .lines
        .unwrap();
    let mut weaver = Weaver::new(lines.iter().map(|line| format!("{line}\n")));
    let mut woven = Vec::new();
    weaver.push(recording.as_bytes(), &mut woven);
    weaver.finish(&mut woven);
    let keys = test
        .call::<GetPublicKeys>(GetPublicKeysRequest::default())
        .await
        .unwrap();
    let key = |text: Option<String>| PublicKey::from_base64(&text.unwrap()).unwrap();
    let mut verifier = Verifier::new(Keys {
        endpoint: keys
            .endpoint
            .unwrap()
            .into_iter()
            .map(|one| key(one.public_key))
            .collect(),
        nodes: keys
            .nodes
            .unwrap()
            .into_iter()
            .map(|one| NodeKey {
                node: one.instance_id.unwrap().parse().unwrap(),
                key: key(one.public_key),
            })
            .collect(),
    });
    verifier.push(&woven);
    verifier.finish().verdict
}

#[tokio::test]
async fn a_flood_of_tiny_chunks_is_one_recording_with_few_signatures_and_verifies() {
    let endpoint = with_session().await;
    let key = Key::new(1);
    register(&endpoint, 1, &key).await;
    let bytes = recording(&endpoint, &key);
    for (at, piece) in bytes.chunks(5).enumerate() {
        assert_eq!(put(&endpoint, &format!("offset={}", at * 5), piece).await.0, 200);
    }
    let query = format!("offset={}&complete=true", bytes.len());
    assert_eq!(put(&endpoint, &query, b"").await.0, 200);
    assert_eq!(verdict(&endpoint).await, Verdict::Intact(Ending::Complete));
    at_rest::look(&endpoint.test.app).await;
    assert_eq!(
        verdict(&endpoint).await,
        Verdict::Intact(Ending::Complete),
        "compressed"
    );
    let path = endpoint.test.dir().join(format!("transcripts/{ID}.signatures"));
    let lines = std::fs::read_to_string(path).unwrap().lines().count();
    assert!(lines <= 4, "{lines} lines for 3 records");
}

#[tokio::test]
async fn a_node_that_was_deregistered_adds_nothing_to_its_recordings_a_second_later() {
    let endpoint = with_session().await;
    let key = Key::new(1);
    register(&endpoint, 1, &key).await;
    let bytes = recording(&endpoint, &key);
    let (begin, rest) = bytes.split_at(1000);
    assert_eq!(put(&endpoint, "offset=0", begin).await.0, 200);
    let request = DeregisterManagedInstanceRequest {
        instance_id: Some(endpoint.node().to_string()),
    };
    endpoint
        .test
        .call::<DeregisterManagedInstance>(request)
        .await
        .unwrap();
    endpoint.test.advance_millis(1000);
    let (status, told) = put(&endpoint, "offset=1000", rest).await;
    assert_eq!(status, 403, "{told}");
}

#[tokio::test]
async fn a_node_that_forges_is_refused_with_the_reason_and_what_was_good_verifies_as_cut() {
    let (key, other) = (Key::new(1), Key::new(2));
    for what in [
        "a flipped bit",
        "a record once more",
        "another node's key",
        "a line without end",
    ] {
        let endpoint = with_session().await;
        register(&endpoint, 1, &key).await;
        register(&endpoint, 2, &other).await;
        let mut bytes = recording(&endpoint, &key);
        let seals: Vec<usize> = bytes
            .windows(9)
            .enumerate()
            .filter(|(_, text)| text.starts_with(b",\"s\",\"s"))
            .map(|(at, _)| at)
            .collect();
        let end_of = |seal: usize| seal + bytes[seal..].iter().position(|byte| *byte == b'\n').unwrap() + 1;
        let one = end_of(seals[0]);
        match what {
            "a flipped bit" => bytes[one + 20] ^= 1,
            "a record once more" => bytes = [&bytes[..one], &bytes[one - 300..one]].concat(),
            "another node's key" => {
                let foreign = recording(&endpoint, &other);
                bytes = [&bytes[..one], &foreign[foreign.len() - bytes.len() + one..]].concat();
            }
            _ => bytes = [&bytes[..one], &[b'x'; 9 * 1024 * 1024]].concat(),
        }
        assert_eq!(put(&endpoint, "offset=0", &bytes[..one]).await.0, 200, "{what}");
        let mut at = one;
        let mut answer = (200, String::new());
        while answer.0 == 200 && at < bytes.len() {
            let piece = &bytes[at..bytes.len().min(at + 1024 * 1024)];
            answer = put(&endpoint, &format!("offset={at}"), piece).await;
            at += piece.len();
        }
        assert_eq!(answer.0, 400, "{what}: {answer:?}");
        assert!(
            answer.1.contains("is refused and was closed: "),
            "{what}: {answer:?}"
        );
        assert_eq!(verdict(&endpoint).await, Verdict::Intact(Ending::Cut), "{what}");
        assert_eq!(of_state(&endpoint, TranscriptState::Cut).await.len(), 1, "{what}");
        let app = &endpoint.test.app;
        let kept = app
            .transcripts
            .length(&ID.parse().unwrap())
            .await
            .unwrap()
            .unwrap();
        let query = format!("offset={kept}");
        assert_eq!(put(&endpoint, &query, b"x").await.0, 410, "{what}");
    }
}

#[tokio::test]
async fn a_node_ends_what_its_dead_workers_recorded_and_nobody_else_s() {
    let endpoint = with_session().await;
    let key = Key::new(1);
    register(&endpoint, 1, &key).await;
    let bytes = recording(&endpoint, &key);
    // half a line is all that came of the last record
    let sent = &bytes[..bytes.len() - 30];
    assert_eq!(put(&endpoint, "offset=0", sent).await.0, 200);
    let open = async |index: u32, node: u32| {
        let path = format!("/v1/open-transcripts/{}", node_id(node));
        endpoint
            .post(&path, b"", Some(&endpoint.credentials(index)))
            .await
    };
    let mine = format!("{{\"Paths\":[\"/v1/transcript/{ID}\"]}}");
    assert_eq!(open(1, 1).await, (200, mine));
    assert_eq!(open(2, 2).await, (200, "{\"Paths\":[]}".to_owned()));
    assert_eq!(open(2, 1).await.0, 403, "another node's");
    let path = format!("/v1/transcript/{ID}?offset={}&cut=true", sent.len());
    let other = endpoint.credentials(2);
    assert_eq!(endpoint.post(&path, b"", Some(&other)).await.0, 403);
    let conflict = (409, format!("{{\"Length\":{}}}", sent.len()));
    assert_eq!(put(&endpoint, "offset=0&cut=true", b"").await, conflict);
    let query = format!("offset={}&cut=true", sent.len());
    assert_eq!(put(&endpoint, &query, b"").await.0, 200);
    assert_eq!(verdict(&endpoint).await, Verdict::Intact(Ending::Cut));
    assert_eq!(of_state(&endpoint, TranscriptState::Cut).await.len(), 1);
    assert_eq!(open(1, 1).await, (200, "{\"Paths\":[]}".to_owned()));
    let kept = endpoint.test.app.transcripts.length(&ID.parse().unwrap()).await;
    let kept = kept.unwrap().unwrap();
    // said once more, since the answer was lost
    assert_eq!(
        put(&endpoint, &format!("offset={kept}&cut=true"), b"").await.0,
        200
    );
    assert_eq!(put(&endpoint, &format!("offset={kept}"), b"x").await.0, 410);
}
