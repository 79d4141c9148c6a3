//! The side of a session that faces its peer: connection, stream, and what the client says.

use std::sync::Arc;

use moorline_protocol::{
    channel::{DataKey, Event, Output},
    message::{AgentSessionState, PayloadType, TerminalSize},
};

use super::{Order, ShellSession};
use crate::session::{
    channel_opening::MAX_PAYLOAD_BYTES,
    data_key::{DataKeyError, SealedKey},
    link::LinkEvent,
    program_io::Input,
    recorder::Size,
};

/// Input that the program has not taken. With more, the client is left to send it again.
pub(super) const MAX_TYPED_BYTES: usize = 64 * 1024;
/// Nobody has a larger terminal, and programs allocate by it.
const MAX_TERMINAL_SIDE: u32 = 4096;
/// `Flag` payload by which a client ends the session (agent-wire §5).
const FLAG_TERMINATE_SESSION: [u8; 4] = 2_u32.to_be_bytes();

impl ShellSession {
    pub(super) fn on_link(&mut self, event: LinkEvent) {
        let now = self.now();
        let channel = &mut self.parts.channel;
        match event {
            LinkEvent::Opened => {
                channel.connected(now);
                self.paused = false;
                // The stock agent says this once; ours may have been restarted and repeats cost nothing.
                if !self.connected_before || self.parts.is_moorline {
                    self.send_state("Connected", None);
                }
                self.connected_before = true;
                if !std::mem::replace(&mut self.handshake_begun, true)
                    && let Some(offer) = self.parts.handshake.clone()
                {
                    self.parts.channel.start_handshake(now, offer);
                }
            }
            LinkEvent::Frame(frame) => {
                self.paused = false;
                channel.receive(now, &frame);
            }
            LinkEvent::Lost => channel.disconnected(),
            LinkEvent::Ended => {
                tracing::info!("the endpoint ended the session while it was not connected");
                channel.disconnected();
                self.end(Order::ClosedByEndpoint);
            }
            LinkEvent::GivenUp(reason) => {
                channel.disconnected();
                self.end(Order::Failed(reason));
            }
        }
    }

    pub(super) fn send_state(&mut self, state: &str, exit_code: Option<i32>) {
        let state = AgentSessionState {
            schema_version: 1,
            session_state: state.to_owned(),
            session_id: self.parts.session_id.to_string(),
            moorline_exit_code: exit_code.filter(|_| self.parts.is_moorline),
            moorline_reason: self
                .order
                .as_ref()
                .and_then(Order::reason)
                .filter(|_| self.parts.is_moorline && state == "Terminating")
                .map(str::to_owned),
            moorline_client_id: (self.parts.is_moorline && state == "Connected")
                .then(|| self.client_id.clone()),
        };
        self.parts.channel.send_session_state(self.now(), &state);
    }

    /// Does what the state machine of the stream wants done, until it wants nothing.
    pub(super) fn drain_channel(&mut self) {
        while let Some(output) = self.parts.channel.poll() {
            match output {
                Output::Transmit(frame) => self.parts.link.send(frame),
                Output::Event(event) => self.on_event(event),
            }
        }
        let unacknowledged = self.parts.channel.unacknowledged();
        if unacknowledged < self.unacknowledged {
            self.progress_at = self.started.elapsed();
        }
        self.unacknowledged = unacknowledged;
    }

    fn on_event(&mut self, event: Event) {
        match event {
            Event::Data {
                payload_type,
                payload,
            } => self.on_input(payload_type, &payload),
            Event::Paused => self.paused = true,
            Event::Started(start) => {
                self.paused = false;
                if self.parts.is_moorline {
                    self.serve_client(&start);
                }
                if let Some(bytes) = start.moorline_max_payload_bytes {
                    let bytes = bytes.clamp(1024, MAX_PAYLOAD_BYTES);
                    self.parts.channel.set_max_payload(bytes as usize);
                }
                self.replay_if_due();
            }
            Event::Closed(closed) => {
                tracing::info!(reason = closed.output, "the endpoint ended the session");
                self.end(Order::ClosedByEndpoint);
            }
            Event::HandshakeComplete { .. } => {
                self.is_handshaking = false;
                self.launch();
                self.replay_if_due();
            }
            Event::DecryptionWanted {
                key_id,
                ciphertext,
                challenge,
            } => {
                let sealed = SealedKey {
                    key_id,
                    ciphertext,
                    challenge,
                };
                let service = Arc::clone(&self.parts.key_service);
                self.decryption = Some(Box::pin(service.decrypt(sealed)));
            }
            Event::HandshakeFailed(reason) | Event::EncryptionBroken(reason) => {
                self.decryption = None;
                self.end(Order::Failed(reason));
            }
            Event::PeerMisbehaved(error) => tracing::debug!(%error, "frame dropped"),
            // Not in this role.
            Event::DataKeyWanted { .. } | Event::SessionState(_) => {}
        }
    }

    pub(super) fn on_data_key(&mut self, result: Result<DataKey, DataKeyError>) {
        self.decryption = None;
        let now = self.now();
        match result {
            Ok(key) => self.parts.channel.provide_decrypted_key(now, &key),
            Err(error) => {
                let reason = format!("{:#}", anyhow::Error::from(error));
                self.parts.channel.refuse_data_key(now, &reason);
            }
        }
    }

    fn on_input(&mut self, payload_type: PayloadType, payload: &[u8]) {
        match payload_type {
            PayloadType::Output if !self.output_ended => match self.parts.io.input(payload) {
                Input::Typed(typed) => {
                    self.typed.extend(typed);
                    if self.typed.len() >= MAX_TYPED_BYTES {
                        self.parts.channel.set_ready(false);
                    }
                }
                Input::Signals(signals) => {
                    for signal in signals {
                        self.parts.process.interrupt(signal);
                    }
                }
            },
            PayloadType::Size => self.on_size(payload),
            PayloadType::Flag if payload == FLAG_TERMINATE_SESSION => self.end(Order::Closed),
            other => tracing::debug!(payload_type = ?other, "input of this type means nothing to a shell"),
        }
    }

    fn on_size(&mut self, payload: &[u8]) {
        let Ok(wanted) = serde_json::from_slice::<TerminalSize>(payload) else {
            tracing::debug!("a terminal size cannot be read");
            return;
        };
        let side = |wanted: u32| u16::try_from(wanted.clamp(1, MAX_TERMINAL_SIDE)).unwrap_or(u16::MAX);
        let size = Size {
            cols: side(wanted.cols),
            rows: side(wanted.rows),
        };
        let repaints = std::mem::take(&mut self.repaints);
        if size == self.size {
            if repaints {
                self.parts.io.repaint();
            }
            return;
        }
        if let Err(error) = self.parts.io.resize(size) {
            tracing::debug!(%error, "the terminal was not resized");
            return;
        }
        self.size = size;
        if let Some(transcript) = &mut self.parts.transcript {
            transcript.resize(size);
        }
    }
}
