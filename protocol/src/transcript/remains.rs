//! What a power cut, or a recorder that died, left of a recording on the node's disk: how much of it verifies, and how it
//! is closed behind that.

use crate::public_keys::PublicKey;

use super::{
    chain::Fault,
    header::{Header, RecordingId},
    line::{Code, Event, Line, SealLine, event_line},
    lines::{Cut, Lines},
    receive::{Position, Receiver},
    seal::{Sealer, seal_text},
    word::Time,
};

/// An event that tells the end has no more.
const MAX_END_BYTES: usize = 4096;

/// Reads what is left, in pieces that are cut anywhere. It holds one line at most.
#[derive(Debug)]
pub struct Survey {
    id: RecordingId,
    node: String,
    key: PublicKey,
    lines: Lines,
    /// Where it began.
    from: u64,
    /// Up to here whole lines are as they should be.
    good: u64,
    /// From the first seal on, or from the begin.
    receiver: Option<Receiver>,
    /// The last seal that is good.
    sealed: Option<Position>,
    time: Time,
    /// Whether events are encrypted, as far as that is known.
    is_encrypted: Option<bool>,
    has_ended: bool,
    is_foreign: bool,
    is_over: bool,
}

/// The part of a recording that verifies.
#[derive(Debug)]
pub struct Remains {
    /// Where it ends within the recording, in bytes.
    pub length: u64,
    /// Its events say how it ended.
    pub has_ended: bool,
    sealer: Option<Sealer>,
    time: Time,
    is_encrypted: Option<bool>,
}

impl Survey {
    /// Of a recording of this name, from its byte `from` on. `key` is the one that this node seals with.
    #[must_use]
    pub fn new(id: RecordingId, node: String, key: PublicKey, from: u64) -> Self {
        let receiver = (from == 0).then(|| Receiver::new(id.clone(), node.clone(), vec![key]));
        Self {
            id,
            node,
            key,
            lines: Lines::default(),
            from,
            good: from,
            receiver,
            sealed: None,
            time: Time::default(),
            is_encrypted: None,
            has_ended: false,
            is_foreign: false,
            is_over: false,
        }
    }

    /// Nothing that follows is looked at.
    #[must_use]
    pub const fn is_over(&self) -> bool {
        self.is_over
    }

    /// Reads what comes next.
    pub fn push(&mut self, mut bytes: &[u8]) {
        let mut lines = std::mem::take(&mut self.lines);
        while !self.is_over
            && let Some(cut) = lines.next(&mut bytes)
        {
            self.is_over = match cut {
                Cut::Line(line) => !self.line(line),
                Cut::Overlong { .. } => true,
            };
        }
        self.lines = lines;
    }

    /// What verifies. `None`: it is not sealed with this key, so nobody here can say.
    #[must_use]
    pub fn finish(self) -> Option<Remains> {
        if self.is_foreign {
            return None;
        }
        Some(Remains {
            length: self.good,
            has_ended: self.has_ended,
            sealer: self.receiver.map(Receiver::into_sealer),
            time: self.time,
            is_encrypted: self.is_encrypted,
        })
    }

    /// Whether it is as it should be.
    fn line(&mut self, line: &[u8]) -> bool {
        let is_good = match &mut self.receiver {
            Some(receiver) => {
                let mut sealed = None;
                let taken = receiver.push(line, |position| sealed = Some(position));
                self.sealed = sealed.or(self.sealed);
                match taken {
                    Ok(()) => true,
                    Err(refusal) => {
                        self.is_wrong(refusal.fault, line);
                        false
                    }
                }
            }
            None => self.line_before_a_seal(line),
        };
        if is_good {
            self.note(line);
            self.good += line.len() as u64;
        }
        is_good
    }

    /// Nothing is known of the chain here but what the first seal says.
    fn line_before_a_seal(&mut self, line: &[u8]) -> bool {
        match Line::parse(line) {
            Ok(Line::Event(_)) => true,
            Ok(Line::Seal(seal)) => self.first_seal(&seal, line),
            Ok(Line::Endpoint(_)) => false,
            // the rest of one that begins before
            Err(_) => self.good == self.from && !has_hole(line),
        }
    }

    fn first_seal(&mut self, seal: &SealLine, line: &[u8]) -> bool {
        let text = seal_text(&self.id, &seal.unsigned());
        if !self.key.has_signed(text.as_bytes(), &seal.signature.0) {
            self.is_foreign = true;
            return false;
        }
        let position = Position {
            time: seal.time,
            record: seal.record,
            hash: seal.hash,
            length: self.good + line.len() as u64,
            node_key: self.key.id(),
        };
        self.receiver = Some(self.resumed(&position));
        self.sealed = Some(position);
        true
    }

    fn is_wrong(&mut self, fault: Fault, line: &[u8]) {
        match fault {
            // events before it are whole lines, which stay
            Fault::Form(_) | Fault::Overlong | Fault::TooLong | Fault::CountersignedByNode => {}
            Fault::Header(_) => self.is_foreign = !has_hole(line),
            Fault::UnknownNodeKey | Fault::OtherRecording => self.is_foreign = true,
            // nobody can say of which of the events before it
            _ => {
                self.good = self.sealed.map_or(self.from, |position| position.length);
                self.receiver = self.sealed.map(|position| self.resumed(&position));
                self.has_ended = false;
            }
        }
    }

    fn resumed(&self, position: &Position) -> Receiver {
        Receiver::resume(self.id.clone(), self.node.clone(), vec![self.key], position)
    }

    fn note(&mut self, line: &[u8]) {
        if self.from == 0 && self.good == 0 {
            let header = Header::parse(line).ok();
            self.is_encrypted = header.map(|header| header.origin.encryption.is_some());
            return;
        }
        match Line::parse(line) {
            Ok(Line::Event(event)) => {
                self.time = event.time;
                self.is_encrypted = Some(event.code == Some(Code::Encrypted));
                self.has_ended = is_end(&event, line);
            }
            Ok(Line::Seal(seal)) => self.time = seal.time,
            Ok(Line::Endpoint(_)) | Err(_) => {}
        }
    }
}

impl Remains {
    /// The lines that close it, sealed: that `lost` bytes of the recording stood behind it (0: none), and that its end was
    /// not recorded. Empty where the node cannot seal it, since the chain before is not here; where events are encrypted,
    /// whose key is gone with the recorder, only the seal of what has none.
    #[must_use]
    pub fn closing(self, lost: u64, unix_millis: u64, sign: impl FnOnce(&[u8]) -> [u8; 64]) -> String {
        let Some(mut sealer) = self.sealer else {
            return String::new();
        };
        let mut lines = String::new();
        if self.is_encrypted == Some(false) {
            let mut event = |event: serde_json::Value| {
                lines += &event_line(self.time, Code::Ours, &event.to_string());
            };
            if lost > 0 {
                let reason = "they were damaged on the node's disk: it lost its power";
                event(serde_json::json!({"event": "gap", "bytes": lost, "reason": reason}));
            }
            if !self.has_ended {
                let reason = "what recorded this was killed, or its node lost its power";
                event(serde_json::json!({"event": "end", "reason": reason, "cut": true}));
            }
        }
        sealer.push(lines.as_bytes());
        if let Some(seal) = sealer.seal(self.time, unix_millis, sign) {
            lines += &seal;
        }
        lines
    }
}

/// What was not on the disk reads as zeros, of which a line has none.
fn has_hole(line: &[u8]) -> bool {
    line.contains(&0)
}

fn is_end(event: &Event<'_>, line: &[u8]) -> bool {
    let is_candidate = event.code == Some(Code::Ours) && line.len() <= MAX_END_BYTES;
    is_candidate
        && serde_json::from_str(&event.text())
            .is_ok_and(|event: serde_json::Value| event.get("event").is_some_and(|name| name == "end"))
}
