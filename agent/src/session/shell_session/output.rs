//! The way out: what the program says, to the recording and to the client.

use bytes::Bytes;
use moorline_protocol::message::PayloadType;

use super::{Order, Parts, ShellSession};
use crate::session::{program_io::ProgramIo, pty::PtyError, shell_start::OnTerminal};

impl ShellSession {
    pub(super) fn end_output(&mut self) {
        self.output_ended = true;
        self.typed.clear();
        if let Some(transcript) = &mut self.parts.transcript {
            transcript.end_output();
        }
    }

    /// Records it, and sends it unless nobody sees it any more.
    pub(super) fn show(&mut self, payload_type: PayloadType, shown: &[u8]) {
        self.attachment.note_progress();
        let Parts { io, transcript, .. } = &mut self.parts;
        if let Some(transcript) = transcript {
            let recorded = io.for_recording(shown);
            match payload_type {
                PayloadType::StdErr => transcript.errors(shown.len(), &recorded),
                _ => transcript.output(shown.len(), &recorded),
            }
            if transcript.is_strict() && !transcript.is_over() && self.attachment.order().is_none() {
                return self.gate.push(payload_type, Bytes::copy_from_slice(shown));
            }
        }
        self.pass(payload_type, shown);
    }

    fn pass(&mut self, payload_type: PayloadType, shown: &[u8]) {
        let sent = self.send_output(payload_type, shown);
        let at_risk = self.attachment.channel.unacknowledged();
        for piece in sent {
            self.scrollback.push(piece, at_risk);
        }
    }

    /// The endpoint took something of the recording, or will take nothing.
    pub(super) fn on_transcript(&mut self) {
        let Some(transcript) = &self.parts.transcript else {
            return;
        };
        let confirmed = transcript.confirmed_output();
        let failure = transcript.failure().map(ToString::to_string);
        while let Some((payload_type, shown)) = self.gate.next(confirmed) {
            self.attachment.note_progress();
            self.pass(payload_type, &shown);
        }
        match failure {
            Some(error) if self.parts.is_recording_required => {
                let reason = format!("the session cannot be recorded: {error}");
                self.attachment.end(Order::Failed(reason));
            }
            Some(error) if self.parts.io.is_terminal() => {
                let notice = format!("\r\nmoorline: this session is not recorded any more: {error}\r\n");
                self.pass(PayloadType::Output, notice.as_bytes());
            }
            Some(_) | None => {}
        }
    }

    /// This much of what was typed has gone to the program. Only what a terminal echoed, before and after, is recorded
    /// as it is: anything else may be a password.
    pub(super) fn record_typed(&mut self, length: usize) {
        if !self.parts.records_input || length == 0 {
            return;
        }
        let is_echoed = self.is_echoing && self.parts.io.is_echoing();
        let Parts { transcript, .. } = &mut self.parts;
        let Some(transcript) = transcript else { return };
        if is_echoed {
            let typed: Vec<u8> = self.typed.iter().take(length).copied().collect();
            transcript.input(&typed);
        } else {
            transcript.masked(length);
        }
    }

    /// Returns what was sent: nothing once nobody sees it any more.
    pub(super) fn send_output(&mut self, payload_type: PayloadType, shown: &[u8]) -> Vec<Bytes> {
        if self.attachment.order().is_some() {
            return Vec::new();
        }
        let now = self.attachment.now();
        self.attachment
            .channel
            .send(now, payload_type, shown)
            .unwrap_or_else(|_full| {
                // `room` is never more than the window takes; a lost byte must not pass unseen.
                self.attachment.end(Order::Failed(
                    "output was read that the data channel does not take".to_owned(),
                ));
                Vec::new()
            })
    }

    /// The client can follow the program: it is started, if it waited for that and the session is not to end already.
    pub(super) fn launch(&mut self) {
        if self.attachment.order().is_some() {
            return;
        }
        if let Some(launching) = self.parts.process.launch() {
            self.launching = Some(launching);
        }
        self.launched();
    }

    /// The start on a terminal has come to its end.
    pub(super) fn on_terminal(&mut self, outcome: Result<OnTerminal, PtyError>) {
        self.launching = None;
        let outcome = outcome.map(|OnTerminal { pty, shell, record }| {
            self.parts.io = ProgramIo::Terminal(pty);
            self.parts.record = record;
            shell
        });
        self.parts.process.started(outcome);
        // what the client said of it before there was one
        if let Err(error) = self.parts.io.resize(self.size) {
            tracing::debug!(%error, "the terminal was not resized");
        }
        self.launched();
    }

    fn launched(&mut self) {
        self.exit_code = self.parts.process.exit_code();
        if let Some(not_started) = self.parts.process.not_started() {
            let text = format!("{}\n", not_started.reason);
            self.show(PayloadType::StdErr, text.as_bytes());
        }
    }

    /// Once, behind all output, where the session has a payload for it (agent-wire §8.5).
    pub(super) fn tell_exit_code(&mut self) {
        let Some(exit_code) = self.exit_code else { return };
        if self.exit_code_told || self.attachment.order().is_some() || !self.parts.io.tells_exit_code() {
            return;
        }
        let text = format!("EXIT_CODE: {exit_code}");
        let sent =
            self.attachment
                .channel
                .send(self.attachment.now(), PayloadType::ExitCode, text.as_bytes());
        self.exit_code_told = sent.is_ok();
    }
}
