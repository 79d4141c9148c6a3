use std::path::Path;

use moorline_protocol::transcript::{DataKey, Encryption, RecordingId, RecordingKind};
use serde_json::{Map, json};

use super::*;
use crate::{
    config::TranscriptConfig,
    identity::{CredentialSupply, NodeKey, Registration},
    recording::{About, Deliverer, SpoolLimits},
};

const NODE: &str = "mi-0123456789abcdef0";

/// A recording that nobody takes, on a disk that takes nothing of it.
fn without_room(dir: &Path) -> Transcript {
    transcript(dir, false)
}

fn about() -> About {
    About {
        id: RecordingId::parse("me-0abc").unwrap(),
        node: NODE.to_owned(),
        kind: RecordingKind::Port,
        document: "AWS-StartPortForwardingSession".to_owned(),
        document_version: None,
        operator: None,
        reason: None,
        user: None,
        parameters: Map::new(),
        command: String::new(),
        follows: None,
        unix_secs: 0,
    }
}

fn transcript(dir: &Path, is_strict: bool) -> Transcript {
    let key = NodeKey::generate().unwrap();
    let file = json!({
        "format": 1, "instance_id": NODE, "region": "us-east-1", "home": "Aws", "fingerprint_salt": "",
        "private_key": key.private_key, "public_key": key.public_key,
    });
    std::fs::write(dir.join("registration.json"), file.to_string()).unwrap();
    let registration = Arc::new(Registration::load(dir).unwrap());
    let place = TranscriptPlace::new(registration, Arc::new(CredentialSupply::new(None)));
    let config = TranscriptConfig {
        spool_mib: 0,
        ..TranscriptConfig::default()
    };
    let path = "/v1/transcript/me-0abc".to_owned();
    let spool = Spool::new(
        dir,
        ("me-0abc", path.clone()),
        Deliverer::Worker,
        SpoolLimits::new(&config),
    );
    let place = (Arc::new(place), path, is_strict);
    Transcript::new(place, Recorder::new(about(), None), spool, Instant::now())
}

/// Its events, as far as it has any room for them.
fn events(transcript: &mut Transcript) -> Vec<Value> {
    transcript.pack();
    let (_, parts) = transcript.shipment.not_durable();
    let bytes = parts.map(Packed::plain).collect::<Vec<_>>().concat();
    let text = String::from_utf8(bytes).unwrap();
    let events = text
        .lines()
        .skip(1)
        .map(|line| serde_json::from_str(line).unwrap());
    events.collect()
}

#[tokio::test]
async fn what_is_no_output_and_has_no_room_is_missing_in_a_gap_as_well() {
    let dir = tempfile::tempdir().unwrap();
    let mut transcript = without_room(dir.path());
    let mut state = 1_u64;
    let mut noted = 0;
    while !transcript.has_no_room() {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let event = json!({"event": "opened", "address": format!("{state:016x}").repeat(20)});
        transcript.note(&event);
        noted += 1;
    }
    let missed = json!({"event": "opened", "address": "10.0.0.1:22"});
    transcript.note(&missed);
    transcript.input(b"typed");
    transcript.masked(7);
    transcript.resize(Size { cols: 100, rows: 30 });
    transcript.finish(None, Some("its connection ended"));
    let events = events(&mut transcript);
    let texts = |code: &str| -> Vec<String> {
        let of_code = events.iter().filter(|event| event[1] == code);
        of_code
            .map(|event| event[2].as_str().unwrap().to_owned())
            .collect()
    };
    let ours: Vec<Value> = texts("e")
        .iter()
        .map(|text| serde_json::from_str(text).unwrap())
        .collect();
    let gap = missed.to_string().len() + 5 + 7;
    assert_eq!(ours.len(), noted + 2);
    assert_eq!(
        (&ours[noted]["event"], &ours[noted]["bytes"]),
        (&json!("gap"), &json!(gap))
    );
    assert_eq!(ours[noted + 1]["event"], "end");
    assert_eq!(texts("r"), ["100x30"]);
}

/// The endpoint was killed between its write and its sync: it has the output, and may lose it.
#[tokio::test]
async fn in_strict_mode_output_waits_for_the_disk_also_where_an_answer_was_lost() {
    let dir = tempfile::tempdir().unwrap();
    let mut transcript = transcript(dir.path(), true);
    let answer = |transcript: &mut Transcript, status: u16, body: Value| {
        transcript.sending = None;
        let (headers, body) = (Default::default(), body.to_string().into());
        transcript.answered(Ok(Response {
            status,
            headers,
            body,
        }));
    };
    transcript.output(3, b"abc");
    transcript.send();
    let first = transcript.shipment.next_offset();
    answer(&mut transcript, 409, json!({"Length": first}));
    assert_eq!(transcript.confirmed_output(), 0);
    assert!(
        transcript.ask_at.is_some_and(|at| at <= Instant::now()),
        "somebody waits to see it"
    );
    transcript.output(2, b"de");
    transcript.send();
    let second = transcript.shipment.next_offset();
    answer(&mut transcript, 200, json!({"Length": second, "Durable": second}));
    assert_eq!(transcript.confirmed_output(), 5);
}

/// What was said after the request that is repeated is in memory only.
#[tokio::test]
async fn in_strict_mode_a_repeated_request_shows_nothing_of_what_is_encrypted_later() {
    let dir = tempfile::tempdir().unwrap();
    let mut transcript = transcript(dir.path(), true);
    let about = about();
    let header = Encryption {
        recipients: vec!["age1example".to_owned()],
        key: "AAAA".to_owned(),
    };
    transcript.recorder = Recorder::new(about, None).encrypted(&DataKey::new([9; 32]), header);
    transcript.output(3, b"abc");
    transcript.send();
    transcript.sending = None;
    transcript.answered(Ok(Response {
        status: 503,
        headers: Default::default(),
        body: Default::default(),
    }));
    transcript.output(2, b"de");
    transcript.send();
    let sent = transcript.shipment.next_offset();
    let body = json!({"Length": sent, "Durable": sent}).to_string().into();
    transcript.sending = None;
    transcript.answered(Ok(Response {
        status: 200,
        headers: Default::default(),
        body,
    }));
    assert_eq!(transcript.confirmed_output(), 3);
}
