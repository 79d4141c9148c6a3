//! How the two ends come to one data key (client-wire §4.6): the client gets it from KMS, the agent has KMS decrypt it,
//! and a challenge shows that both have the same. Calls of KMS are the driver's; here is what to ask, and when.

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::STANDARD};

use super::{
    DataChannel, Event,
    encryption::{Cipher, DataKey, Encryption},
    handshake::{self, Handshake, PROBE_BYTES, WantedKey},
    outbound::json,
};
use crate::{
    message::{EncryptionChallenge, HandshakeResponse, PayloadType},
    time::Now,
};

impl DataChannel {
    /// Client role: the data key that [`Event::DataKeyWanted`] asks for, encrypted and in clear. One that comes when
    /// none is waited for any more is left.
    pub fn provide_data_key(&mut self, now: Now, ciphertext: &[u8], key: &DataKey) {
        self.now = now;
        let waiting = self.take_handshake(|handshake| matches!(handshake, Handshake::KeyWanted { .. }));
        let Some(Handshake::KeyWanted {
            session_type,
            mut response,
            challenge,
            ..
        }) = waiting
        else {
            return;
        };
        let result = handshake::encryption_result(ciphertext, challenge.as_deref());
        handshake::set_encryption_result(&mut response, Ok(result));
        self.encrypt_with(key);
        self.handshake = Handshake::Answered {
            session_type,
            may_challenge: true,
        };
        self.push(PayloadType::HandshakeResponse, json(&response));
        self.advance();
    }

    /// Agent role: the data key that [`Event::DecryptionWanted`] asks for.
    pub fn provide_decrypted_key(&mut self, now: Now, key: &DataKey) {
        self.now = now;
        let waiting = self.take_handshake(|handshake| matches!(handshake, Handshake::Decrypting { .. }));
        let Some(Handshake::Decrypting {
            began,
            session_type,
            key_id,
            ..
        }) = waiting
        else {
            return;
        };
        let mut probe = [0; PROBE_BYTES];
        let (left, right) = probe.split_at_mut(PROBE_BYTES / 2);
        left.copy_from_slice(&self.ids.draw::<{ PROBE_BYTES / 2 }>());
        right.copy_from_slice(&self.ids.draw::<{ PROBE_BYTES / 2 }>());
        self.encrypt_with(key);
        self.push_challenge(PayloadType::EncChallengeRequest, &probe);
        self.handshake = Handshake::Challenged {
            began,
            since: now.monotonic,
            session_type,
            key_id,
            probe,
        };
    }

    /// Either role: there will be no data key, and why. The handshake fails; a client tells its agent.
    pub fn refuse_data_key(&mut self, now: Now, why: &str) {
        self.now = now;
        let waits = |handshake: &Handshake| {
            matches!(
                handshake,
                Handshake::KeyWanted { .. } | Handshake::Decrypting { .. }
            )
        };
        match self.take_handshake(waits) {
            Some(Handshake::KeyWanted { mut response, .. }) => {
                let text = handshake::encryption_failure(why);
                handshake::set_encryption_result(&mut response, Err(text.clone()));
                self.push(PayloadType::HandshakeResponse, json(&response));
                self.fail_key_exchange(text);
            }
            Some(_) => self.fail_key_exchange(why.to_owned()),
            None => {}
        }
    }

    /// Client: the agent asked for encryption.
    pub(super) fn want_data_key(
        &mut self,
        key: WantedKey,
        session_type: String,
        response: HandshakeResponse,
    ) {
        self.handshake = Handshake::KeyWanted {
            since: self.now.monotonic,
            session_type,
            response,
            challenge: key.challenge.clone(),
        };
        self.events.push_back(Event::DataKeyWanted {
            key_id: key.key_id,
            challenge: key.challenge,
        });
    }

    /// Agent: the client has answered that it has a data key.
    pub(super) fn want_decryption(
        &mut self,
        began: Duration,
        session_type: String,
        key: WantedKey,
        response: &HandshakeResponse,
    ) {
        let Some((ciphertext, acknowledged)) = handshake::data_key_of(response) else {
            return self.fail_key_exchange(
                "The client has sent no data key, and the session must be encrypted.".to_owned(),
            );
        };
        self.handshake = Handshake::Decrypting {
            began,
            since: self.now.monotonic,
            session_type,
            key_id: key.key_id.clone(),
        };
        self.events.push_back(Event::DecryptionWanted {
            key_id: key.key_id,
            ciphertext,
            // older clients do not know of the challenge, and did not bind the key to it
            challenge: key.challenge.filter(|_| acknowledged),
        });
    }

    /// Client: proves that it has both keys. Once, and before there is any data: otherwise whoever carries the frames
    /// could have output encrypted as input.
    pub(super) fn on_challenge(&mut self, payload: &[u8]) {
        let Handshake::Answered { may_challenge, .. } = &mut self.handshake else {
            return;
        };
        if !std::mem::take(may_challenge) {
            return;
        }
        match self.open_challenge(payload) {
            Some(probe) => self.push_challenge(PayloadType::EncChallengeResponse, &probe),
            None => self.fail_key_exchange(
                "The encryption challenge of the node cannot be decrypted: its key is another one."
                    .to_owned(),
            ),
        }
    }

    /// Agent: the client's proof.
    pub(super) fn on_challenge_answer(&mut self, payload: &[u8]) {
        let waiting = self.take_handshake(|handshake| matches!(handshake, Handshake::Challenged { .. }));
        let Some(Handshake::Challenged {
            began,
            session_type,
            key_id,
            probe,
            ..
        }) = waiting
        else {
            return;
        };
        if self.open_challenge(payload).is_some_and(|answer| answer == probe) {
            let message = format!("This session is encrypted end to end with key {key_id}.");
            self.complete_handshake(began, session_type, message);
        } else {
            self.fail_key_exchange(
                "The client failed the encryption challenge: its key is another one.".to_owned(),
            );
        }
    }

    /// A wait has taken too long.
    pub(super) fn handshake_overdue(&mut self) {
        let text = self.handshake.overdue();
        match self.handshake {
            Handshake::KeyWanted { .. } => self.refuse_data_key(self.now, text),
            Handshake::Decrypting { .. } | Handshake::Challenged { .. } => {
                self.fail_key_exchange(text.to_owned());
            }
            _ => self.fail_handshake(text.to_owned()),
        }
    }

    /// Ends the use of an encrypted session: what is not as the other end sealed it must be neither shown nor passed
    /// over.
    pub(super) fn break_encryption(&mut self, text: &str) {
        self.encryption = Encryption::Broken;
        self.handshake = Handshake::Failed;
        // not through `report`, which may drop it; it comes once
        self.events.push_back(Event::EncryptionBroken(text.to_owned()));
    }

    fn fail_key_exchange(&mut self, text: String) {
        self.encryption = Encryption::Broken;
        self.handshake = Handshake::Failed;
        self.events.push_back(Event::HandshakeFailed(text));
    }

    /// The handshake as it stands, if it is this one; whoever takes it says how it goes on.
    fn take_handshake(&mut self, is_wanted: impl Fn(&Handshake) -> bool) -> Option<Handshake> {
        is_wanted(&self.handshake).then(|| std::mem::replace(&mut self.handshake, Handshake::Failed))
    }

    fn encrypt_with(&mut self, key: &DataKey) {
        let cipher = Cipher::new(self.role, key, self.ids.draw());
        self.encryption = Encryption::On(Box::new(cipher));
    }

    fn push_challenge(&mut self, payload_type: PayloadType, probe: &[u8]) {
        if let Encryption::On(cipher) = &mut self.encryption {
            let challenge = STANDARD.encode(cipher.seal(probe));
            self.push(payload_type, json(&EncryptionChallenge { challenge }));
        }
    }

    fn open_challenge(&self, payload: &[u8]) -> Option<Vec<u8>> {
        let Encryption::On(cipher) = &self.encryption else {
            return None;
        };
        let sent: EncryptionChallenge = serde_json::from_slice(payload).ok()?;
        let probe = cipher.open(&STANDARD.decode(sent.challenge).ok()?)?;
        (probe.len() == PROBE_BYTES).then_some(probe)
    }
}
