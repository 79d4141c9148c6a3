//! The log under attack: every change of a small one is found.

use proptest::prelude::*;
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use serde_json::json;

use super::*;
use super::{line::sort, spelling::is_event};
use crate::public_keys::{Keys, PublicKey};

/// 2026-11-22T00:00:00Z.
const START: u64 = 1_795_305_600_000;

struct Endpoint {
    key: Ed25519KeyPair,
}

impl Endpoint {
    fn new(seed: u8) -> Self {
        Self {
            key: Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap(),
        }
    }

    fn public(&self) -> PublicKey {
        PublicKey(self.key.public_key().as_ref().try_into().unwrap())
    }

    fn keys(&self) -> Keys {
        Keys {
            endpoint: vec![self.public()],
            nodes: Vec::new(),
        }
    }

    fn checkpoint(&self, chain: &mut Chain, unix_millis: u64) -> String {
        let key = self.public().id();
        let sign = |text: &[u8]| self.key.sign(text).as_ref().try_into().unwrap();
        chain.checkpoint(unix_millis, Checkpoint { key, sign })
    }
}

fn call(text: &str) -> Event {
    let mut event = Event::new(
        EventKind::Call,
        Actor {
            kind: ActorKind::Operator,
            name: "alice".to_owned(),
            access_key: Some("AKIAALICE".to_owned()),
        },
    );
    event.peer = Some("192.0.2.7".to_owned());
    event.operation = Some("ssm:SendCommand".to_owned());
    let parameters = json!({"Parameters": {"commands": [text]}, "TimeoutSeconds": 30});
    event.parameters = parameters.as_object().cloned();
    event.result = Some("ok".to_owned());
    event
}

#[test]
fn a_time_has_one_spelling() {
    for millis in [0, 1, START, START + 1, 4_102_444_799_999, 253_000_000_000_123] {
        let time = Time::from_unix_millis(millis);
        assert_eq!(Time::parse(time.to_string().as_bytes()), Some(time));
    }
    for text in [
        "2026-11-22T00:00:60.000Z",
        "2026-11-22T24:00:00.000Z",
        "2026-02-30T00:00:00.000Z",
        "2026-11-22t00:00:00.000Z",
        "2026-11-22T00:00:00.000z",
        "2026-11-22T00:00:00.0000Z",
        "2026-11-22 00:00:00.000Z",
        "1969-12-31T23:59:59.999Z",
        "2026-11-22T00:00:00,000Z",
    ] {
        assert_eq!(Time::parse(text.as_bytes()), None, "{text}");
    }
}

/// Lines of a log: three events and a checkpoint, twice.
fn small_log(endpoint: &Endpoint, word: &str) -> Vec<String> {
    let mut chain = Chain::new();
    let mut lines = Vec::new();
    for round in 0..2 {
        for number in 0..3 {
            let text = format!("{word} {round} {number} \"é\u{1}\"");
            lines.push(chain.append(START + number, &call(&text)));
        }
        lines.push(endpoint.checkpoint(&mut chain, START + 900));
    }
    lines
}

fn verify(keys: &Keys, log: &[u8]) -> Outcome {
    let mut verifier = Verifier::new(keys);
    verifier.push(log);
    verifier.finish()
}

#[test]
fn a_log_reads_as_it_was_written_however_it_is_cut_into_pieces() {
    let endpoint = Endpoint::new(1);
    let log = small_log(&endpoint, "a").concat();
    let whole = verify(&endpoint.keys(), log.as_bytes());
    assert!(whole.is_intact(), "{whole:?}");
    assert_eq!((whole.events, whole.checkpoints), (6, 2));
    assert_eq!(whole.last.unwrap().0, 8);
    assert_eq!(
        whole.clock_went_back, 1,
        "the second round begins with the first's time"
    );
    for size in [1, 7, 300] {
        let keys = endpoint.keys();
        let mut verifier = Verifier::new(&keys);
        for piece in log.as_bytes().chunks(size) {
            verifier.push(piece);
        }
        assert_eq!(verifier.finish(), whole);
    }
}

#[test]
fn a_line_has_one_spelling() {
    let mut chain = Chain::new();
    assert_eq!(
        chain.append(START + 7, &call("date")),
        "{\"index\":1,\"previous\":\"0000000000000000000000000000000000000000000000000000000000000000\",\
         \"time\":\"2026-11-22T00:00:00.007Z\",\"event\":\"call\",\"by\":{\"type\":\"operator\",\"name\":\"alice\",\
         \"access_key\":\"AKIAALICE\"},\"peer\":\"192.0.2.7\",\"operation\":\"ssm:SendCommand\",\
         \"parameters\":{\"Parameters\":{\"commands\":[\"date\"]},\"TimeoutSeconds\":30},\"result\":\"ok\"}\n"
    );
    assert_eq!(
        Endpoint::new(1).checkpoint(&mut chain, START + 900),
        "{\"index\":2,\"previous\":\"e4e5c10e3b843056382a24214c1b554ccf442089ce71396f3f4e619741b948a8\",\
         \"time\":\"2026-11-22T00:00:00.900Z\",\"checkpoint\":\"34750f98bd59fcfc\",\"signature\":\"a7d3b1a82ea479175c478662a0958fe77ea0e77a3d929891af81dcd4be071dfa\
         95e70e3d27dace7e0fbe9b1b22c68e24f79942c08d08e2bccee25bfc2c7ab00b\"}\n"
    );
}

#[test]
fn every_flipped_bit_is_found_at_its_line_or_the_next() {
    let endpoint = Endpoint::new(1);
    let keys = endpoint.keys();
    let log = small_log(&endpoint, "a")[..4].concat().into_bytes();
    for index in 0..log.len() {
        let line = 1 + log[..index].iter().filter(|byte| **byte == b'\n').count() as u64;
        for bit in 0..8 {
            let mut altered = log.clone();
            altered[index] ^= 1 << bit;
            let outcome = verify(&keys, &altered);
            let place = outcome.findings.first().map(|finding| finding.line);
            assert!(
                place == Some(line) || place == Some(line + 1),
                "bit {bit} of byte {index} in line {line}: {outcome:?}"
            );
        }
    }
}

#[test]
fn a_log_that_is_cut_is_told_unless_it_ends_with_a_checkpoint() {
    let endpoint = Endpoint::new(1);
    let keys = endpoint.keys();
    let lines = small_log(&endpoint, "a");
    let log = lines.concat().into_bytes();
    let checkpoints = [lines[..4].concat().len(), log.len()];
    for length in 0..=log.len() {
        let outcome = verify(&keys, &log[..length]);
        assert_eq!(
            outcome.is_intact(),
            checkpoints.contains(&length),
            "{length}: {outcome:?}"
        );
    }
    let cut = verify(&keys, lines[..6].concat().as_bytes());
    let [finding] = cut.findings.try_into().unwrap();
    assert_eq!(
        finding.to_string(),
        "line 6: the log does not end with a checkpoint: nobody has signed what stands behind record 4"
    );
    assert_eq!(verify(&keys, b"").findings[0].fault, Fault::Empty);
}

#[test]
fn lines_that_are_removed_repeated_moved_or_spliced_are_found() {
    let endpoint = Endpoint::new(1);
    let keys = endpoint.keys();
    let (lines, other) = (small_log(&endpoint, "a"), small_log(&endpoint, "b"));
    let is_found = |what: &str, altered: &[String]| {
        assert!(!verify(&keys, altered.concat().as_bytes()).is_intact(), "{what}");
    };
    for at in 0..lines.len() {
        let mut altered = lines.clone();
        let line = altered.remove(at);
        // without the last checkpoint it does not end with one
        is_found(&format!("without line {at}"), &altered);
        for to in 0..altered.len() {
            if to != at {
                let mut moved = altered.clone();
                moved.insert(to, line.clone());
                is_found(&format!("line {at} moved to {to}"), &moved);
            }
        }
        let mut twice = lines.clone();
        twice.insert(at, lines[at].clone());
        is_found(&format!("line {at} twice"), &twice);
        let mut spliced = lines.clone();
        spliced[at].clone_from(&other[at]);
        is_found(&format!("line {at} of another log"), &spliced);
        if at > 0 {
            is_found(
                &format!("two logs joined at {at}"),
                &[&lines[..at], &other[at..]].concat(),
            );
        }
    }
    is_found("a log behind another", &[&lines[..], &other[..]].concat());
    is_found("the second half", &lines[4..]);
}

#[test]
fn a_log_that_was_chained_anew_or_signed_by_somebody_else_is_found() {
    let (endpoint, forger) = (Endpoint::new(1), Endpoint::new(2));
    let forged = small_log(&forger, "a").concat();
    let outcome = verify(&endpoint.keys(), forged.as_bytes());
    assert_eq!(outcome.findings[0].line, 4);
    assert_eq!(outcome.findings[0].fault, Fault::UnknownKey(forger.public().id()));
    // the same with the right key's name
    let (own, other) = (endpoint.public().id(), forger.public().id());
    let mut chain = Chain::new();
    let event = chain.append(START, &call("a"));
    let sign = |text: &[u8]| forger.key.sign(text).as_ref().try_into().unwrap();
    let line = chain.checkpoint(START, Checkpoint { key: own, sign });
    let outcome = verify(&endpoint.keys(), (event + &line).as_bytes());
    assert_eq!(outcome.findings[0].fault, Fault::Signature(own));
    assert_ne!(own, other);
}

#[test]
fn other_spellings_of_a_line_are_refused() {
    let endpoint = Endpoint::new(1);
    let mut chain = Chain::new();
    let line = chain.append(START, &call("date"));
    assert!(Line::parse(line.as_bytes()).is_ok());
    for (this, that) in [
        ("\"index\":1", "\"index\":01"),
        ("\"index\":1", "\"index\":+1"),
        ("\"index\":1", "\"index\": 1"),
        ("\"index\":1", "\"index\":1.0"),
        (".000Z", ".0000Z"),
        ("00:00.000Z", "00:00+00:00"),
        ("2026-11-22T", "2026-11-31T"),
        ("2026-11-22T", "2026-11-22t"),
        ("date", "\\u0064ate"),
        ("30}", "30.0}"),
        ("30}", "3e1}"),
        ("30}", "30,\"TimeoutSeconds\":30}"),
        ("\"result\"", "\"by\":{\"type\":\"anonymous\"},\"result\""),
        ("\"operator\"", "\"god\""),
        ("\"event\":\"call\",", ""),
        ("}\n", "} \n"),
        ("}\n", "}\r\n"),
        ("}\n", "}{}\n"),
    ] {
        let altered = line.replacen(this, that, 1);
        assert_ne!(altered, line, "{this}");
        assert!(Line::parse(altered.as_bytes()).is_err(), "{altered}");
    }
    let checkpoint = endpoint.checkpoint(&mut chain, START);
    for (this, that) in [
        ("\"}\n", "\",\"event\":\"call\"}\n"),
        ("34750f98bd59fcfc", "34750F98BD59FCFC"),
        ("\"}\n", "0\"}\n"),
    ] {
        let altered = checkpoint.replacen(this, that, 1);
        assert_ne!(altered, checkpoint, "{this}");
        assert!(Line::parse(altered.as_bytes()).is_err(), "{altered}");
    }
    let long = "x".repeat(MAX_LINE_BYTES) + "\n";
    assert_eq!(Line::parse(long.as_bytes()), Err(FormError::TooLong));
}

#[test]
fn a_line_without_end_costs_bounded_memory_and_one_finding() {
    let keys = Endpoint::new(1).keys();
    let mut verifier = Verifier::new(&keys);
    for _ in 0..64 {
        verifier.push(&[b'x'; 64 * 1024]);
    }
    verifier.push(b"\nx\n");
    let outcome = verifier.finish();
    let lines: Vec<u64> = outcome.findings.iter().map(|finding| finding.line).collect();
    assert_eq!(lines, [1, 2, 2]);
    assert!(outcome.is_no_log);
}

proptest! {
    /// Whatever is written in whatever rhythm, by however many processes one after the other, verifies.
    #[test]
    fn what_the_chain_writes_verifies(
        texts in proptest::collection::vec((".{0,40}", any::<bool>(), any::<bool>(), 0..u64::MAX), 1..30),
    ) {
        let endpoint = Endpoint::new(1);
        let mut chain = Chain::new();
        let mut log = String::new();
        for (text, checkpoint, restart, millis) in texts {
            let mut line = chain.append(millis, &call(&text));
            log += &line;
            if checkpoint {
                prop_assert!(chain.is_unsigned());
                line = endpoint.checkpoint(&mut chain, millis);
                log += &line;
            }
            if restart {
                let again = Chain::behind(line.as_bytes()).unwrap();
                prop_assert_eq!((again.index(), again.is_unsigned()), (chain.index(), chain.is_unsigned()));
                chain = again;
            }
        }
        log += &endpoint.checkpoint(&mut chain, START);
        let outcome = verify(&endpoint.keys(), log.as_bytes());
        prop_assert!(outcome.is_intact(), "{:?}", outcome);
    }

    /// No text makes an event that reads differently from what was written.
    #[test]
    fn an_event_reads_as_it_was_written(text in ".*", name in ".*", count in any::<u64>()) {
        let mut event = call(&text);
        event.by.name = name;
        event.count = Some(count);
        let line = Chain::new().append(START, &event);
        let Ok(Line { body: Body::Event(read), .. }) = Line::parse(line.as_bytes()) else {
            panic!("{line}");
        };
        prop_assert_eq!(*read, event);
    }

    /// Whatever becomes of a line: the verifier's look at it and the reader's say the same, and what the first look
    /// takes for an event is one that would be written so.
    #[test]
    fn an_event_that_is_not_read_is_judged_as_one_that_is(
        text in "[a\u{7f}é\"\\\\\\x00-\\x1f]{0,12}",
        count in any::<u64>(),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), prop::sample::select(ALTERATIONS)), 0..3),
    ) {
        let mut line = Chain::new().append(START, &full(&text, count));
        for (at, other) in changes {
            let places: Vec<usize> = line.char_indices().map(|(place, _)| place).collect();
            let place = places[at.index(places.len())];
            let end = places.iter().find(|after| **after > place).copied().unwrap_or(line.len());
            line.replace_range(place..end, other);
        }
        let read = Line::parse(line.as_bytes());
        let sorted = sort(line.as_bytes());
        prop_assert_eq!(read.as_ref().err(), sorted.as_ref().err());
        let event = line.find("\"event\"").and_then(|at| line.get(at..)?.strip_suffix('\n'));
        if event.is_some_and(is_event) && sorted.is_ok() {
            let Ok(Line { body: Body::Event(event), time, .. }) = read else { panic!("{line}") };
            let again = Chain::new().append(time.unix_millis(), &event);
            let members = |line: &str| line.split_once("\"event\"").map(|(_, members)| members.to_owned());
            prop_assert_eq!(members(&again), members(&line));
        }
    }
}

/// What a character of a line becomes.
const ALTERATIONS: &[&str] = &[
    "", "0", "1", ".", "e", "-", " ", "\"", "\\", "\\u0001", "\\n", ",", ":", "{", "}", "[]", "null", "true",
    "é", "a", "\"a\":1,", ",\"z\":1",
];

/// Every member of an event.
fn full(text: &str, count: u64) -> Event {
    let mut event = call(text);
    event.user_agent = Some(text.to_owned());
    event.read_only = Some(false);
    event.nodes = vec!["mi-1".to_owned(), text.to_owned()];
    event.session = Some("s-1".to_owned());
    event.command = Some(text.to_owned());
    event.message = Some(text.to_owned());
    event.request_id = Some("r-1".to_owned());
    event.count = Some(count);
    event.details = json!({text: [null, true, {"a": count, "b": {}}, []], "c": -1})
        .as_object()
        .cloned();
    event
}

#[test]
fn what_the_chain_writes_is_known_at_the_first_look() {
    for event in [
        Event::new(EventKind::LogStarted, Actor::endpoint()),
        call("date; echo \"€\" \\ \t\n"),
    ] {
        let line = Chain::new().append(START, &event);
        let (_, members) = line.trim_end().split_once("Z\",").unwrap();
        assert!(is_event(members), "{line}");
    }
    for other in [
        r#""event":"call","by":{"type":"node","name":""}}"#,
        r#""event":"call","by":{"type":"node"},"nodes":[]}"#,
        r#""event":"call","by":{"type":"node"},"count":1.0}"#,
        r#""event":"call","by":{"type":"node"},"details":{"a":1,"a":1}}"#,
        r#""event":"call","by":{"type":"node"},"details":{"a":01}}"#,
        r#""event":"call","by":{"type":"node"},"message":"\u0061"}"#,
        r#""event":"call","by":{"type":"node"},"message":"a"}}"#,
    ] {
        assert!(!is_event(other), "{other}");
    }
}
