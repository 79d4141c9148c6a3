//! Reads the captured runs in `tests/data/vectors`.

use std::{fs, path::Path};

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use serde_json::Value;

pub(crate) const RUNS: [&str; 2] = ["agent-run-a.jsonl", "agent-run-b.jsonl"];

/// One request of the agent.
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) uri: String,
    pub(crate) headers: Vec<(String, String)>,
    /// `None`: too long to have been kept.
    pub(crate) body: Option<Vec<u8>>,
}

impl Request {
    pub(crate) fn header(&self, wanted: &str) -> Option<&str> {
        let found = self
            .headers
            .iter()
            .find(|(name, _)| name.eq_ignore_ascii_case(wanted));
        found.map(|(_, value)| value.as_str())
    }
}

/// One websocket message.
pub(crate) struct Frame {
    pub(crate) channel: String,
    pub(crate) to_agent: bool,
    pub(crate) is_binary: bool,
    /// Seconds since the service started.
    pub(crate) time: f64,
    pub(crate) bytes: Bytes,
}

fn lines(run: &str) -> Vec<Value> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data/vectors");
    let text = fs::read_to_string(folder.join(run)).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

pub(crate) fn requests(run: &str) -> Vec<Request> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let is_request = |line: &&Value| line["kind"] == "http";
    lines(run)
        .iter()
        .filter(is_request)
        .map(|line| Request {
            method: text(&line["method"]),
            uri: text(&line["uri"]),
            headers: line["headers"]
                .as_array()
                .unwrap()
                .iter()
                .map(|header| (text(&header[0]), text(&header[1])))
                .collect(),
            body: line["body"].as_str().map(|body| STANDARD.decode(body).unwrap()),
        })
        .collect()
}

pub(crate) fn frames(run: &str) -> Vec<Frame> {
    let is_frame = |line: &&Value| line["kind"] == "frame";
    lines(run)
        .iter()
        .filter(is_frame)
        .map(|line| Frame {
            channel: line["channel"].as_str().unwrap().to_owned(),
            to_agent: line["to"] == "agent",
            is_binary: line["opcode"] == 2,
            time: line["t"].as_f64().unwrap(),
            bytes: unhex(line["hex"].as_str().unwrap()),
        })
        .collect()
}

fn unhex(hex: &str) -> Bytes {
    let digit = |b: &u8| u8::try_from(char::from(*b).to_digit(16).unwrap()).unwrap();
    hex.as_bytes()
        .chunks(2)
        .map(|pair| digit(&pair[0]) << 4 | digit(&pair[1]))
        .collect()
}
