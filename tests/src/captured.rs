//! What a real stock agent was seen to send (`tests/data/vectors`).

use std::path::Path;

use anyhow::{Context, Result};
use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use moorline_protocol::message::AgentMessage;
use serde_json::Value;

/// One request of the agent.
#[derive(Debug, Clone)]
pub struct CapturedRequest {
    pub method: String,
    pub uri: String,
    /// In the order sent, names as sent.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl CapturedRequest {
    fn read(line: &Value) -> Option<Self> {
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let headers = line["headers"].as_array()?.iter();
        Some(Self {
            method: text(&line["method"])?,
            uri: text(&line["uri"])?,
            headers: headers
                .filter_map(|pair| Some((text(&pair[0])?, text(&pair[1])?)))
                .collect(),
            // larger ones were not kept
            body: STANDARD.decode(line["body"].as_str()?).ok()?,
        })
    }

    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut found = self
            .headers
            .iter()
            .filter(|(other, _)| other.eq_ignore_ascii_case(name));
        found.next().map(|(_, value)| value.as_str())
    }
}

/// One run: its requests, and the messages of the agent by channel, in the order seen.
#[derive(Debug, Clone)]
pub struct CapturedRun {
    pub requests: Vec<CapturedRequest>,
    messages: Vec<(String, AgentMessage)>,
}

impl CapturedRun {
    /// Reads `agent-run-a.jsonl` or `agent-run-b.jsonl`.
    ///
    /// # Errors
    /// The file is not what its README says.
    pub fn read(name: &str) -> Result<Self> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("data/vectors")
            .join(name);
        let text =
            std::fs::read_to_string(&path).with_context(|| format!("failed to read {}", path.display()))?;
        let mut run = Self {
            requests: Vec::new(),
            messages: Vec::new(),
        };
        for line in text.lines() {
            let line: Value = serde_json::from_str(line)?;
            if line["kind"] == "http" {
                run.requests.extend(CapturedRequest::read(&line));
            } else if line["to"] == "server" && line["opcode"] == 2 {
                let frame = unhex(line["hex"].as_str().context("a frame without hex")?)?;
                let channel = line["channel"].as_str().context("a frame without a channel")?;
                let message = AgentMessage::decode(&Bytes::from(frame))?;
                run.messages.push((channel.to_owned(), message));
            }
        }
        Ok(run)
    }

    /// The first request with this operation, such as `AmazonSSM.RegisterManagedInstance`.
    ///
    /// # Errors
    /// There is none.
    pub fn operation(&self, target: &str) -> Result<&CapturedRequest> {
        let mut requests = self.requests.iter();
        requests
            .find(|request| request.header("x-amz-target") == Some(target))
            .with_context(|| format!("no captured request has the target {target}"))
    }

    /// What the agent sent on a channel whose path ends so.
    pub fn messages<'a>(&'a self, channel: &'a str) -> impl Iterator<Item = &'a AgentMessage> {
        let messages = self.messages.iter();
        messages
            .filter(move |(path, _)| path.ends_with(channel))
            .map(|(_, message)| message)
    }
}

fn unhex(text: &str) -> Result<Vec<u8>> {
    (0..text.len())
        .step_by(2)
        .map(|at| Ok(u8::from_str_radix(text.get(at..at + 2).context("odd hex")?, 16)?))
        .collect()
}
