//! A recording that is the same in every run, with all that an alteration is judged by.

use std::ops::Range;

use moorline_protocol::{
    public_keys::{Keys, NodeKey, PublicKey},
    transcript::{
        Code, Countersigner, Ending, Header, Origin, Receiver, RecordingId, RecordingKind, Sealer, Time,
        Weaver, event_line,
    },
};
use ring::signature::{Ed25519KeyPair, KeyPair};

const NODE: &str = "mi-0123456789abcdef0";
const BEGAN: u64 = 1_795_000_000_000;

/// A key that is the same in every run.
struct Signer(Ed25519KeyPair);

impl Signer {
    fn new(seed: u8) -> Self {
        Self(Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap())
    }

    fn public(&self) -> PublicKey {
        PublicKey(self.0.public_key().as_ref().try_into().unwrap())
    }

    fn sign(&self, text: &[u8]) -> [u8; 64] {
        self.0.sign(text).as_ref().try_into().unwrap()
    }
}

/// What verifies [`Recording`]s.
pub(crate) fn keys() -> Keys {
    keys_of(1, 2)
}

/// Keys of these seeds.
pub(crate) fn keys_of(node: u8, endpoint: u8) -> Keys {
    Keys {
        endpoint: vec![Signer::new(endpoint).public()],
        nodes: vec![NodeKey {
            node: NODE.parse().unwrap(),
            key: Signer::new(node).public(),
        }],
    }
}

/// A line of an export.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Event,
    Seal,
    Endpoint,
}

/// An export, and what each of its lines is.
pub(crate) struct Recording {
    pub(crate) lines: Vec<Vec<u8>>,
    /// Of each line: what, and in or behind which record.
    pub(crate) roles: Vec<(Role, u64)>,
}

impl Recording {
    /// Four records, of which the endpoint countersigned 1, 2 and 4; if it is cut, with events behind them.
    pub(crate) fn new(id: &str, is_cut: bool) -> Self {
        let event = |record: u64, event: u64| {
            let time = Time::from_micros(record * 1_000_000 + event * 1000);
            event_line(time, Code::Output, &format!("{id} {record}.{event}\r\n"))
        };
        let records: Vec<Vec<String>> = (1..=4)
            .map(|record| vec![event(record, 0), event(record, 1)])
            .collect();
        let last = event_line(Time::from_micros(5_000_000), Code::Ours, r#"{"event":"gap"}"#);
        Self::of(&export(&header(id), &records, is_cut.then_some(&last)))
    }

    /// Of a command: steps, what they wrote to either output, bytes that are no text, a secret, a gap, how it ended.
    pub(crate) fn of_command() -> Self {
        let mut header = header("5e6f7a8b-0000-4000-8000-000000000001.mi-0123456789abcdef0");
        header.origin.kind = RecordingKind::Command;
        header.origin.document = Some("AWS-RunShellScript".to_owned());
        let mut parameters = serde_json::Map::new();
        parameters.insert("commands".to_owned(), serde_json::json!(["ls", "***"]));
        header.origin.parameters = Some(parameters);
        let event = |record: u64, code: Code, text: &str| {
            event_line(Time::from_micros(record * 1_000_000), code, text)
        };
        let records = vec![
            vec![
                event(1, Code::Marker, "shell (aws:runShellScript)"),
                event(
                    1,
                    Code::Ours,
                    r#"{"event":"step","name":"shell","action":"aws:runShellScript"}"#,
                ),
            ],
            vec![
                event(2, Code::Ours, r#"{"event":"replaced","bytes":"ff"}"#),
                event(2, Code::Output, "\u{fffd} a\r\n"),
                event(2, Code::Ours, r#"{"event":"masked","bytes":7}"#),
            ],
            vec![
                event(3, Code::Ours, r#"{"event":"stderr","data":"no\r\n"}"#),
                event(
                    3,
                    Code::Ours,
                    r#"{"event":"gap","bytes":5,"reason":"there was no room for it"}"#,
                ),
            ],
            vec![
                event(
                    4,
                    Code::Ours,
                    r#"{"event":"step","name":"shell","status":"Failed","code":1}"#,
                ),
                event(4, Code::Exit, "1"),
                event(4, Code::Ours, r#"{"event":"end","reason":"Failed"}"#),
            ],
        ];
        Self::of(&export(&header, &records, None))
    }

    fn of(export: &[u8]) -> Self {
        let lines: Vec<Vec<u8>> = export
            .split_inclusive(|byte| *byte == b'\n')
            .map(<[u8]>::to_vec)
            .collect();
        let mut sealed = 0;
        let mut is_open = false;
        let roles = lines.iter().map(|line| {
            let is = |code: &str| String::from_utf8_lossy(line).contains(&format!(",\"{code}\",\""));
            if is("s") {
                sealed += 1;
                is_open = false;
                (Role::Seal, sealed)
            } else if is("c") {
                (Role::Endpoint, sealed + u64::from(is_open))
            } else {
                is_open = true;
                (Role::Event, sealed + 1)
            }
        });
        Self {
            roles: roles.collect(),
            lines,
        }
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.lines.concat()
    }

    /// The lines of a record, with what stands directly behind it.
    pub(crate) fn record(&self, record: u64) -> Range<usize> {
        let is_in = |(_, of): &(Role, u64)| *of == record;
        let begin = self.roles.iter().position(is_in).unwrap();
        let is_close = |line: &[u8]| String::from_utf8_lossy(line).contains("\"close ");
        let end = (begin..self.lines.len())
            .find(|at| !is_in(&self.roles[*at]) || is_close(&self.lines[*at]))
            .unwrap_or(self.lines.len());
        begin..end
    }
}

/// The export of these records, of which the third was not countersigned when it came; with a tail the node did not come
/// back to seal it.
pub(crate) fn export(header: &Header, records: &[Vec<String>], tail: Option<&String>) -> Vec<u8> {
    let (node, endpoint) = (Signer::new(1), Signer::new(2));
    let id = &header.origin.id;
    let mut sealer = Sealer::new(id.clone());
    let mut receiver = Receiver::new(id.clone(), NODE.to_owned(), vec![node.public()]);
    let mut countersigner = Countersigner::new(id.clone(), endpoint.public().id(), 0, None);
    let mut recording = Vec::new();
    let mut signatures = Vec::new();
    for (record, events) in (1..).zip(records) {
        let header = if record == 1 {
            header.to_line()
        } else {
            String::new()
        };
        let mut lines = header + &events.concat();
        sealer.push(lines.as_bytes());
        let time = Time::from_micros(record * 1_000_000 + 999_999);
        let seal = sealer.seal(time, BEGAN + record * 1000, |text| node.sign(text));
        lines.push_str(&seal.unwrap());
        let mut taken = None;
        receiver
            .push(lines.as_bytes(), |position| taken = Some(position))
            .unwrap();
        recording.extend_from_slice(lines.as_bytes());
        if record != 3 {
            let millis = BEGAN + record * 1000 + 5;
            signatures.push(countersigner.countersign(&taken.unwrap(), millis, |text| endpoint.sign(text)));
        }
    }
    if let Some(tail) = tail {
        receiver.push(tail.as_bytes(), |_| ()).unwrap();
        recording.extend_from_slice(tail.as_bytes());
    }
    let ending = if tail.is_some() {
        Ending::Cut
    } else {
        Ending::Complete
    };
    let end = receiver.end().unwrap();
    signatures.push(countersigner.close(&end, BEGAN + 9000, ending, |text| endpoint.sign(text)));
    let mut export = Vec::new();
    let mut weaver = Weaver::new(signatures);
    weaver.push(&recording, &mut export);
    weaver.finish(&mut export);
    export
}

/// The header of a recording of this name.
pub(crate) fn header(id: &str) -> Header {
    Header {
        width: 80,
        height: 24,
        timestamp: Some(BEGAN / 1000),
        title: None,
        command: None,
        origin: Origin {
            id: RecordingId::parse(id).unwrap(),
            node: NODE.to_owned(),
            node_key: Signer::new(1).public().id(),
            kind: RecordingKind::StandardStream,
            document: None,
            document_version: None,
            operator: Some("alice".to_owned()),
            reason: None,
            user: None,
            parameters: None,
            follows: None,
            encryption: None,
        },
    }
}
