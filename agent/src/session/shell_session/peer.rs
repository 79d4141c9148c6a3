//! What the peer of a shell says, and what is made of it.

use std::sync::Arc;

use moorline_protocol::{
    channel::DataKey,
    error_chain,
    message::{PayloadType, TerminalSize},
};

use super::ShellSession;
use crate::{
    recording::Size,
    session::{attachment::Heard, data_key::DataKeyError, program_io::Input},
};

/// Input that the program has not taken. With more, the client is left to send it again.
pub(super) const MAX_TYPED_BYTES: usize = 64 * 1024;
/// Nobody has a larger terminal, and programs allocate by it.
const MAX_TERMINAL_SIDE: u32 = 4096;

impl ShellSession {
    /// Does what the state machine of the stream wants done, until it wants nothing.
    pub(super) fn drain_channel(&mut self) {
        while let Some(heard) = self.attachment.poll() {
            self.on_heard(heard);
        }
    }

    fn on_heard(&mut self, heard: Heard) {
        match heard {
            Heard::Data {
                payload_type,
                payload,
            } => self.on_input(payload_type, &payload),
            Heard::Started(start) => {
                if self.attachment.is_moorline {
                    self.serve_client(&start);
                }
                // of the stream that is for this client
                self.attachment.agree_on_payload(&start);
                self.replay_if_due();
            }
            Heard::HandshakeComplete => {
                self.is_handshaking = false;
                self.launch();
                self.replay_if_due();
            }
            Heard::DecryptionWanted(sealed) => {
                let service = Arc::clone(&self.parts.key_service);
                self.decryption = Some(Box::pin(service.decrypt(sealed)));
            }
            Heard::Broken => self.decryption = None,
        }
    }

    pub(super) fn on_data_key(&mut self, result: Result<DataKey, DataKeyError>) {
        self.decryption = None;
        let now = self.attachment.now();
        match result {
            Ok(key) => self.attachment.channel.provide_decrypted_key(now, &key),
            Err(error) => {
                let reason = error_chain(&error);
                self.attachment.channel.refuse_data_key(now, &reason);
            }
        }
    }

    fn on_input(&mut self, payload_type: PayloadType, payload: &[u8]) {
        match payload_type {
            PayloadType::Output if !self.output_ended => match self.parts.io.input(payload) {
                Input::Typed(typed) => {
                    self.typed.extend(typed);
                    if self.typed.len() >= MAX_TYPED_BYTES {
                        self.attachment.channel.set_ready(false);
                    }
                }
                Input::Signals(signals) => {
                    for signal in signals {
                        self.parts.process.interrupt(signal);
                    }
                }
            },
            PayloadType::Size => self.on_size(payload),
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
