use ring::signature::{Ed25519KeyPair, KeyPair};

use super::{verify::Verdict, *};
use crate::public_keys::{Keys, NodeKey, PublicKey};

mod golden;
mod output;
mod properties;
mod refusals;
mod remains;

/// A key that is the same in every run.
pub(super) struct Signer(Ed25519KeyPair);

impl Signer {
    pub(super) fn new(seed: u8) -> Self {
        Self(Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap())
    }

    pub(super) fn public(&self) -> PublicKey {
        PublicKey(self.0.public_key().as_ref().try_into().unwrap())
    }

    pub(super) fn sign(&self, text: &[u8]) -> [u8; 64] {
        self.0.sign(text).as_ref().try_into().unwrap()
    }
}

/// A node, an endpoint, and a recording between them.
pub(super) struct Site {
    pub(super) node: Signer,
    pub(super) endpoint: Signer,
    pub(super) id: RecordingId,
}

pub(super) const NODE: &str = "mi-0123456789abcdef0";
pub(super) const BEGAN: u64 = 1_795_000_000_000;

impl Site {
    pub(super) fn new() -> Self {
        Self {
            node: Signer::new(1),
            endpoint: Signer::new(2),
            id: RecordingId::parse("alice-0a1b2c3d4e5f60718").unwrap(),
        }
    }

    pub(super) fn keys(&self) -> Keys {
        Keys {
            endpoint: vec![self.endpoint.public()],
            nodes: vec![NodeKey {
                node: NODE.parse().unwrap(),
                key: self.node.public(),
            }],
        }
    }

    pub(super) fn header(&self) -> Header {
        Header {
            width: 80,
            height: 24,
            timestamp: Some(BEGAN / 1000),
            title: None,
            command: None,
            origin: Origin {
                id: self.id.clone(),
                node: NODE.to_owned(),
                node_key: self.node.public().id(),
                kind: RecordingKind::StandardStream,
                document: Some("SSM-SessionManagerRunShell".to_owned()),
                document_version: None,
                operator: Some("arn:aws:iam::123456789012:user/alice".to_owned()),
                reason: None,
                user: Some("ssm-user".to_owned()),
                parameters: None,
                follows: None,
                encryption: None,
            },
        }
    }

    /// The recording of these records; the last is not sealed if it `is_cut`.
    pub(super) fn recording(&self, records: &[Vec<String>], is_cut: bool) -> Vec<u8> {
        let mut sealer = Sealer::new(self.id.clone());
        let mut recording = Vec::new();
        for (index, lines) in records.iter().enumerate() {
            let at = index as u64;
            let header = (index == 0).then(|| self.header().to_line());
            for line in header.iter().chain(lines) {
                sealer.push(line.as_bytes());
                recording.extend_from_slice(line.as_bytes());
            }
            if !(is_cut && index + 1 == records.len()) {
                let time = Time::from_micros(at * 1_000_000 + 999_999);
                let seal = sealer.seal(time, BEGAN + at * 1000, |text| self.node.sign(text));
                recording.extend_from_slice(seal.unwrap_or_default().as_bytes());
            }
        }
        recording
    }

    pub(super) fn receiver(&self) -> Receiver {
        Receiver::new(self.id.clone(), NODE.to_owned(), vec![self.node.public()])
    }

    /// What the endpoint signs of it when it arrives in pieces of this size, the close included.
    pub(super) fn countersignatures(&self, recording: &[u8], size: usize, ending: Ending) -> Vec<String> {
        let mut countersigner = Countersigner::new(self.id.clone(), self.endpoint.public().id(), 0, None);
        let mut receiver = self.receiver();
        let mut lines = Vec::new();
        let mut millis = BEGAN;
        for piece in recording.chunks(size) {
            let mut taken = None;
            receiver.push(piece, |position| taken = Some(position)).unwrap();
            millis += 10;
            lines.extend(
                taken.map(|at| countersigner.countersign(&at, millis, |text| self.endpoint.sign(text))),
            );
        }
        let end = receiver.end().unwrap();
        lines.push(countersigner.close(&end, millis, ending, |text| self.endpoint.sign(text)));
        lines
    }

    pub(super) fn verify(&self, export: &[u8], size: usize) -> Outcome {
        let mut verifier = Verifier::new(self.keys());
        export.chunks(size).for_each(|piece| verifier.push(piece));
        verifier.finish()
    }
}

pub(super) fn weave(recording: &[u8], lines: &[String], size: usize) -> Vec<u8> {
    let mut weaver = Weaver::new(lines.iter().cloned());
    let mut export = Vec::new();
    recording
        .chunks(size)
        .for_each(|piece| weaver.push(piece, &mut export));
    weaver.finish(&mut export);
    export
}

pub(super) fn output(micros: u64, text: &str) -> String {
    event_line(Time::from_micros(micros), Code::Output, text)
}

#[test]
fn what_was_recorded_and_countersigned_is_intact() {
    let site = Site::new();
    let records = [
        vec![output(0, "$ "), output(500_000, "ls\r\n")],
        vec![output(1_000_000, "\u{1b}[1mfile\u{1b}[0m \u{1F600}\r\n")],
    ];
    let recording = site.recording(&records, false);
    let lines = site.countersignatures(&recording, 1, Ending::Complete);
    assert_eq!(lines.len(), 3, "{lines:?}");
    let export = weave(&recording, &lines, 7);
    let outcome = site.verify(&export, export.len());
    assert_eq!(outcome.verdict, Verdict::Intact(Ending::Complete), "{outcome:?}");
    assert_eq!((outcome.records, outcome.length), (2, recording.len() as u64));
    assert_eq!(outcome.remarks, []);
}

#[test]
fn a_recording_whose_node_lost_its_power_is_intact_and_cut() {
    let site = Site::new();
    for records in [
        vec![vec![output(0, "$ ")], vec![output(1_000_000, "lost")]],
        vec![vec![output(0, "all that there is")]],
        vec![vec![]],
    ] {
        let recording = site.recording(&records, true);
        let lines = site.countersignatures(&recording, 100_000, Ending::Cut);
        let outcome = site.verify(&weave(&recording, &lines, 3), 5);
        assert_eq!(outcome.verdict, Verdict::Intact(Ending::Cut), "{outcome:?}");
    }
}

#[test]
fn a_receiver_does_not_keep_the_memory_of_a_long_line() {
    let site = Site::new();
    let records = [vec![output(0, &"x".repeat(5_000_000))], vec![output(1, "y")]];
    let recording = site.recording(&records, false);
    let mut receiver = site.receiver();
    let mut most = 0;
    for piece in recording.chunks(300_000) {
        receiver.push(piece, |_| ()).unwrap();
        most = most.max(receiver.held_bytes());
    }
    assert!(most >= 4_500_000, "it holds the line until it is whole: {most}");
    assert!(receiver.held_bytes() <= 16 * 1024, "{}", receiver.held_bytes());
}
