//! Replies on their way to the endpoint: each is sent, and sent again with the same id, until it is acknowledged.
//!
//! The journal is what lasts; this is only the memory of when to send what. It holds no payload. While the control
//! channel is down it does nothing at all.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use moorline_protocol::{
    message::{AgentMessage, MessageType},
    time::Now,
};
use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};
use uuid::Uuid;

use super::{
    journal::{JournalError, JournalThread, PendingReply},
    now_millis,
};

/// Replies that wait for their acknowledgement at the same time; more stay in the journal until some have it.
const WINDOW: usize = 1_000;
/// Payloads read from the journal at once; each has up to 120,000 bytes.
const BATCH: usize = 16;
const FIRST_RESEND: Duration = Duration::from_secs(2);
const LAST_RESEND: Duration = Duration::from_secs(60);
/// The control channel's queue is full, and is being drained.
const FULL_PAUSE: Duration = Duration::from_millis(200);

/// The schedule.
#[derive(Debug)]
pub(super) struct Outbox {
    journal: JournalThread,
    outgoing: mpsc::Sender<AgentMessage>,
    /// Whether the control channel stands.
    line: watch::Receiver<bool>,
    last_seen: i64,
    pending: BTreeMap<i64, Pending>,
    /// Nothing goes out before this.
    paused_until: Option<Instant>,
}

#[derive(Debug)]
struct Pending {
    message_id: Uuid,
    due: Instant,
    wait: Duration,
}

impl Outbox {
    pub(super) fn new(
        journal: JournalThread,
        outgoing: mpsc::Sender<AgentMessage>,
        line: watch::Receiver<bool>,
    ) -> Self {
        Self {
            journal,
            outgoing,
            line,
            last_seen: 0,
            pending: BTreeMap::new(),
            paused_until: None,
        }
    }

    /// Sends what the journal has not been asked for before.
    ///
    /// # Errors
    /// The journal cannot be read.
    pub(super) async fn send_new(&mut self) -> Result<(), JournalError> {
        self.paused_until = self.paused_until.filter(|until| *until > Instant::now());
        while self.pending.len() < WINDOW && !self.is_paused() {
            let after = self.last_seen;
            let replies = self
                .journal
                .call(move |journal| journal.replies_after(after, BATCH))
                .await?;
            let is_last = replies.len() < BATCH;
            for reply in replies {
                self.last_seen = reply.reply_id;
                let reply_id = reply.reply_id;
                let message_id = reply.message_id;
                let due = match self.send(reply) {
                    true => Instant::now() + FIRST_RESEND,
                    false => Instant::now() + FULL_PAUSE,
                };
                self.pending.insert(
                    reply_id,
                    Pending {
                        message_id,
                        due,
                        wait: FIRST_RESEND,
                    },
                );
            }
            if is_last {
                break;
            }
        }
        Ok(())
    }

    /// Sends again what is due.
    ///
    /// # Errors
    /// The journal cannot be read.
    pub(super) async fn send_due(&mut self) -> Result<(), JournalError> {
        let now = Instant::now();
        let due: Vec<i64> = self
            .pending
            .iter()
            .filter(|(_, pending)| pending.due <= now)
            .map(|(reply_id, _)| *reply_id)
            .collect();
        for reply_id in due {
            if self.is_paused() {
                break;
            }
            let found = self
                .journal
                .call(move |journal| journal.replies_after(reply_id - 1, 1))
                .await?;
            let Some(reply) = found.into_iter().find(|reply| reply.reply_id == reply_id) else {
                // Too old; the journal has dropped it.
                self.pending.remove(&reply_id);
                continue;
            };
            let is_sent = self.send(reply);
            if let Some(pending) = self.pending.get_mut(&reply_id).filter(|_| is_sent) {
                pending.wait = (pending.wait * 2).min(LAST_RESEND);
                pending.due = Instant::now() + pending.wait;
            }
        }
        Ok(())
    }

    /// A message that nobody waits for: if it does not get through, the endpoint asks again.
    pub(super) fn send_once(&self, message_type: MessageType, payload: String) {
        drop(
            self.outgoing
                .try_send(message(message_type, Uuid::new_v4(), payload)),
        );
    }

    /// The endpoint has a reply.
    ///
    /// # Errors
    /// The journal cannot be written; the reply may be sent once more after a restart.
    pub(super) async fn acknowledge(&mut self, message_id: Uuid) -> Result<(), JournalError> {
        self.pending.retain(|_, pending| pending.message_id != message_id);
        self.journal
            .call(move |journal| journal.acknowledge(message_id))
            .await?;
        Ok(())
    }

    /// The control channel stands again: what the endpoint has not acknowledged is due now.
    pub(super) fn connected(&mut self) {
        let now = Instant::now();
        self.paused_until = None;
        for pending in self.pending.values_mut() {
            pending.due = now;
            pending.wait = FIRST_RESEND;
        }
    }

    /// When there is something to do next.
    pub(super) fn next_due(&self) -> Option<Instant> {
        if !self.is_connected() {
            return None;
        }
        // After a pause there may be new ones as well.
        self.paused_until
            .or_else(|| self.pending.values().map(|pending| pending.due).min())
    }

    /// The journal cannot be read now.
    pub(super) fn pause(&mut self) {
        self.paused_until = Some(Instant::now() + LAST_RESEND);
    }

    fn is_paused(&self) -> bool {
        !self.is_connected() || self.paused_until.is_some_and(|until| until > Instant::now())
    }

    fn is_connected(&self) -> bool {
        *self.line.borrow()
    }

    fn send(&mut self, reply: PendingReply) -> bool {
        let message = message(MessageType::AgentJobReply, reply.message_id, reply.payload);
        let is_sent = self.outgoing.try_send(message).is_ok();
        if !is_sent {
            self.paused_until = Some(Instant::now() + FULL_PAUSE);
        }
        is_sent
    }
}

fn message(message_type: MessageType, message_id: Uuid, payload: String) -> AgentMessage {
    // Only the wall clock goes into a message.
    let now = Now {
        monotonic: Duration::ZERO,
        unix_millis: now_millis(),
    };
    AgentMessage::control(message_type, message_id, now, 0, Bytes::from(payload))
}

#[cfg(test)]
mod tests {
    use moorline_protocol::message::ResultStatus;

    use super::*;
    use crate::command::journal::{Conclusion, NewReply};

    /// A command that has ended with one reply.
    async fn end_one(journal: &JournalThread, command_id: &'static str) -> Uuid {
        let message_id = Uuid::new_v4();
        let ended = move |journal: &mut crate::command::journal::Journal| {
            journal.accept(command_id, "j", "{}", 1)?;
            journal.abandon(command_id, 1, |_| Conclusion {
                status: ResultStatus::Failed,
                replies: vec![NewReply {
                    message_id,
                    is_final: true,
                    payload: "{}".to_owned(),
                }],
            })
        };
        assert!(journal.call(ended).await.unwrap());
        message_id
    }

    #[tokio::test]
    async fn while_the_channel_is_down_nothing_is_sent_and_then_everything_once() {
        let dir = tempfile::tempdir().unwrap();
        let journal = JournalThread::start(dir.path().to_owned());
        let (sender, mut sent) = mpsc::channel(8);
        let (line, standing) = watch::channel(false);
        let mut outbox = Outbox::new(journal.clone(), sender, standing);
        let mut expected = Vec::new();
        for command_id in ["before", "between"] {
            expected.push(end_one(&journal, command_id).await);
            // Even what would be due is not.
            outbox.connected();
            outbox.send_new().await.unwrap();
            outbox.send_due().await.unwrap();
            assert_eq!(outbox.next_due(), None);
            assert!(sent.try_recv().is_err());

            line.send_replace(true);
            outbox.connected();
            outbox.send_new().await.unwrap();
            outbox.send_due().await.unwrap();
            let mut told = Vec::new();
            while let Ok(message) = sent.try_recv() {
                told.push(message.message_id);
            }
            told.sort();
            expected.sort();
            assert_eq!(told, expected);
            assert!(outbox.next_due().is_some());
            line.send_replace(false);
        }
    }
}
