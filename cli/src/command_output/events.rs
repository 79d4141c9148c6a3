//! The output within a command's recording, as the steps wrote it.

use serde_json::Value;

use crate::{
    error::CliError,
    transcript::cast::{Cast, Line},
};

/// Which of its outputs a step wrote to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stream {
    Output,
    Errors,
}

impl Stream {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Output => "stdout",
            Self::Errors => "stderr",
        }
    }
}

/// Something that a recording tells of the output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Piece {
    Text {
        stream: Stream,
        /// Names of the steps that ran, each within the one before.
        steps: Vec<String>,
        text: String,
    },
    /// So many bytes are not in the recording: the node had no room for them.
    Gap(u64),
}

/// Reads a recording in pieces that are cut anywhere.
#[derive(Debug, Default)]
pub(crate) struct Events {
    cast: Cast,
    steps: Vec<String>,
    /// A line's end on a terminal, whose second half is to come.
    output_return: bool,
    errors_return: bool,
    has_exited: bool,
    has_ended: bool,
}

impl Events {
    /// # Errors
    /// It is no recording, or only its recipients can read it.
    pub(crate) fn push(&mut self, piece: &[u8]) -> Result<Vec<Piece>, CliError> {
        let mut pieces = Vec::new();
        for line in self.cast.push(piece) {
            let line = line?;
            if self
                .cast
                .header()
                .is_some_and(|header| header.origin.encryption.is_some())
            {
                return Err(CliError::Transcript(
                    "the recording is encrypted; its recipients read it with `moorline transcript text --identity`"
                        .to_owned(),
                ));
            }
            match line {
                Line::Output { data, .. } => self.text(Stream::Output, &data, &mut pieces),
                Line::Event { code: 'x', .. } => {
                    self.release(&mut pieces);
                    self.has_exited = true;
                }
                Line::Event { code: 'e', data, .. } => {
                    if let Ok(event) = serde_json::from_str::<Value>(&data) {
                        self.event(&event, &mut pieces);
                    }
                }
                Line::Event { .. } | Line::Size { .. } => {}
            }
        }
        Ok(pieces)
    }

    /// The command is over on the node. A recording that ends otherwise is followed by another, after a reboot.
    pub(crate) fn has_exited(&self) -> bool {
        self.has_exited
    }

    /// No output follows in this recording.
    pub(crate) fn has_ended(&self) -> bool {
        self.has_ended || self.has_exited
    }

    fn event(&mut self, event: &Value, pieces: &mut Vec<Piece>) {
        let text = |name: &str| event.get(name).and_then(Value::as_str);
        match text("event") {
            Some("stderr") => self.text(Stream::Errors, text("data").unwrap_or_default(), pieces),
            Some("gap") => {
                let bytes = event.get("bytes").and_then(Value::as_u64);
                pieces.push(Piece::Gap(bytes.unwrap_or(0)));
            }
            Some("step") => match (text("name"), text("status")) {
                (Some(name), None) => self.steps.push(name.to_owned()),
                // one that was skipped never began
                (Some(name), Some(_)) if self.steps.last().is_some_and(|last| last == name) => {
                    self.steps.pop();
                }
                _ => {}
            },
            Some("end") => {
                self.release(pieces);
                self.has_ended = true;
            }
            _ => {}
        }
    }

    /// What was held back is no line's end.
    fn release(&mut self, pieces: &mut Vec<Piece>) {
        let output = (Stream::Output, std::mem::take(&mut self.output_return));
        let errors = (Stream::Errors, std::mem::take(&mut self.errors_return));
        for (stream, _) in [output, errors].into_iter().filter(|(_, is_held)| *is_held) {
            pieces.push(Piece::Text {
                stream,
                steps: self.steps.clone(),
                text: "\r".to_owned(),
            });
        }
    }

    /// A recording has lines as a terminal shows them.
    fn text(&mut self, stream: Stream, shown: &str, pieces: &mut Vec<Piece>) {
        let held = match stream {
            Stream::Output => &mut self.output_return,
            Stream::Errors => &mut self.errors_return,
        };
        let mut whole = String::with_capacity(shown.len() + 1);
        if std::mem::take(held) {
            whole.push('\r');
        }
        whole.push_str(shown);
        if whole.ends_with('\r') {
            whole.pop();
            *held = true;
        }
        let text = whole.replace("\r\n", "\n");
        if !text.is_empty() {
            pieces.push(Piece::Text {
                stream,
                steps: self.steps.clone(),
                text,
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECORDING: &str = concat!(
        "{\"version\":2,\"width\":80,\"height\":24}\n",
        "[0,\"e\",\"{\\\"event\\\":\\\"step\\\",\\\"name\\\":\\\"one\\\"}\"]\n",
        "[0.1,\"o\",\"a\\r\\r\\nb\\r\"]\n",
        "[0.2,\"e\",\"{\\\"event\\\":\\\"stderr\\\",\\\"data\\\":\\\"wrong\\\\r\\\\n\\\"}\"]\n",
        "[0.3,\"o\",\"\\nc\"]\n",
        "[0.4,\"e\",\"{\\\"event\\\":\\\"gap\\\",\\\"bytes\\\":7}\"]\n",
        "[0.5,\"e\",\"{\\\"event\\\":\\\"step\\\",\\\"name\\\":\\\"one\\\",\\\"status\\\":\\\"Success\\\"}\"]\n",
        "[0.5,\"e\",\"{\\\"event\\\":\\\"step\\\",\\\"name\\\":\\\"two\\\",\\\"status\\\":\\\"Skipped\\\"}\"]\n",
        "[0.6,\"o\",\"d\\r\"]\n",
        "[0.7,\"x\",\"0\"]\n",
    );

    fn text(stream: Stream, steps: &[&str], text: &str) -> Piece {
        Piece::Text {
            stream,
            steps: steps.iter().map(|&step| step.to_owned()).collect(),
            text: text.to_owned(),
        }
    }

    #[test]
    fn output_is_as_the_steps_wrote_it_however_the_recording_is_cut() {
        for size in [1, 2, 7, 100, RECORDING.len()] {
            let mut events = Events::default();
            let mut pieces = Vec::new();
            for chunk in RECORDING.as_bytes().chunks(size) {
                assert!(!events.has_exited());
                pieces.extend(events.push(chunk).unwrap());
            }
            let expected = [
                text(Stream::Output, &["one"], "a\r\nb"),
                text(Stream::Errors, &["one"], "wrong\n"),
                text(Stream::Output, &["one"], "\nc"),
                Piece::Gap(7),
                text(Stream::Output, &[], "d"),
                text(Stream::Output, &[], "\r"),
            ];
            assert_eq!(pieces, expected, "by {size}");
            assert!(events.has_exited());
        }
    }

    #[test]
    fn a_recording_that_ends_without_an_exit_code_is_not_the_last() {
        let mut events = Events::default();
        events
            .push(b"{\"version\":2,\"width\":80,\"height\":24}\n")
            .unwrap();
        events
            .push(b"[1,\"e\",\"{\\\"event\\\":\\\"end\\\",\\\"reason\\\":\\\"reboot\\\"}\"]\n")
            .unwrap();
        assert!(events.has_ended() && !events.has_exited());
    }
}
