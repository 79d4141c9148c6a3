//! Sealed recordings for tests, as a node makes them.

use moorline_protocol::{
    public_keys::PublicKey,
    transcript::{Code, Header, Origin, RecordingId, RecordingKind, Sealer, Time, event_line},
};
use ring::signature::{Ed25519KeyPair, KeyPair as _};

/// A node's key: the same for the same number.
pub(crate) struct Key(Ed25519KeyPair);

impl Key {
    pub(crate) fn new(seed: u8) -> Self {
        Self(Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap())
    }

    pub(crate) fn public(&self) -> PublicKey {
        PublicKey(self.0.public_key().as_ref().try_into().unwrap())
    }

    pub(crate) fn sign(&self, text: &[u8]) -> [u8; 64] {
        self.0.sign(text).as_ref().try_into().unwrap()
    }
}

/// A recording of so many records, sealed with `key`; without its last seal if `is_cut`.
pub(crate) fn sealed_recording(key: &Key, (node, id): (&str, &str), records: u64, is_cut: bool) -> Vec<u8> {
    let id = RecordingId::parse(id).unwrap();
    let header = Header {
        width: 80,
        height: 24,
        timestamp: Some(1),
        title: None,
        command: None,
        origin: Origin {
            id: id.clone(),
            node: node.to_owned(),
            node_key: key.public().id(),
            kind: RecordingKind::StandardStream,
            document: None,
            document_version: None,
            operator: None,
            reason: None,
            user: None,
            parameters: None,
            follows: None,
            encryption: None,
        },
    };
    let mut sealer = Sealer::new(id);
    let mut bytes = header.to_line().into_bytes();
    sealer.push(&bytes);
    for record in 1..=records {
        let time = Time::from_micros(record * 1_000_000);
        for text in ["one\r\n", "two é\r\n"] {
            let line = event_line(time, Code::Output, text);
            sealer.push(line.as_bytes());
            bytes.extend_from_slice(line.as_bytes());
        }
        if record < records || !is_cut {
            let seal = sealer.seal(time, record * 1000, |text| key.sign(text)).unwrap();
            bytes.extend_from_slice(seal.as_bytes());
        }
    }
    bytes
}
