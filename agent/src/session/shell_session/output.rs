//! The way out: what the program says, to the recording and to the client.

use moorline_protocol::message::PayloadType;

use super::{Order, Parts, ShellSession};

impl ShellSession {
    pub(super) fn end_output(&mut self) {
        self.output_ended = true;
        self.typed.clear();
    }

    /// Records it, and sends it unless nobody sees it any more.
    pub(super) fn show(&mut self, payload_type: PayloadType, shown: &[u8]) {
        let now = self.now();
        self.progress_at = now.monotonic;
        let Parts { io, transcript, .. } = &mut self.parts;
        if let Some(transcript) = transcript {
            transcript.output(&io.for_recording(shown));
        }
        self.send_output(payload_type, shown);
        let at_risk = self.parts.channel.unacknowledged();
        self.scrollback.push(shown, at_risk);
    }

    pub(super) fn send_output(&mut self, payload_type: PayloadType, shown: &[u8]) {
        let now = self.now();
        if self.order.is_none() && self.parts.channel.send(now, payload_type, shown).is_err() {
            // `room` is never more than the window takes; a lost byte must not pass unseen.
            self.end(Order::Failed(
                "output was read that the data channel does not take".to_owned(),
            ));
        }
    }

    /// The client can follow the program: it is started, if it waited for that and the session is not to end already.
    pub(super) fn launch(&mut self) {
        if self.order.is_some() {
            return;
        }
        self.parts.process.launch();
        self.exit_code = self.parts.process.exit_code();
        if let Some(not_started) = self.parts.process.not_started() {
            let text = format!("{}\n", not_started.reason);
            self.show(PayloadType::StdErr, text.as_bytes());
        }
    }

    /// Once, behind all output, where the session has a payload for it (agent-wire §8.5).
    pub(super) fn tell_exit_code(&mut self) {
        let Some(exit_code) = self.exit_code else { return };
        if self.exit_code_told || self.order.is_some() || !self.parts.io.tells_exit_code() {
            return;
        }
        let text = format!("EXIT_CODE: {exit_code}");
        let sent = self
            .parts
            .channel
            .send(self.now(), PayloadType::ExitCode, text.as_bytes());
        self.exit_code_told = sent.is_ok();
    }
}
