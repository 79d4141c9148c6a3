//! Replies on their way: from the journal to the endpoint, and out of it when they are acknowledged.

use rusqlite::OptionalExtension;
use uuid::Uuid;

use super::{Journal, JournalError, doing, local::LOCAL_GLOB, number};

/// A reply that has not been acknowledged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::command) struct PendingReply {
    pub(in crate::command) reply_id: i64,
    pub(in crate::command) message_id: Uuid,
    pub(in crate::command) payload: String,
}

impl Journal {
    /// The next replies to the endpoint after `after`, in the order they were made.
    ///
    /// # Errors
    /// The journal cannot be read.
    pub(in crate::command) fn replies_after(
        &self,
        after: i64,
        limit: usize,
    ) -> Result<Vec<PendingReply>, JournalError> {
        let read = |connection: &rusqlite::Connection| {
            let mut statement = connection.prepare_cached(
                "SELECT reply_id, message_id, payload FROM reply
                 WHERE reply_id > ?1 AND command_id NOT GLOB ?3 ORDER BY reply_id LIMIT ?2",
            )?;
            let rows = statement.query_map((after, number(limit), LOCAL_GLOB), |row| {
                let message_id: String = row.get(1)?;
                Ok((row.get(0)?, message_id, row.get(2)?))
            })?;
            rows.collect::<rusqlite::Result<Vec<(i64, String, String)>>>()
        };
        let rows = read(&self.connection).map_err(doing("read replies from"))?;
        rows.into_iter()
            .map(|(reply_id, message_id, payload)| {
                let message_id = Uuid::parse_str(&message_id)
                    .map_err(|_| JournalError::Content { what: "a message id" })?;
                Ok(PendingReply {
                    reply_id,
                    message_id,
                    payload,
                })
            })
            .collect()
    }

    /// The reply is with the endpoint, which is what the whole journal is for. Returns its number; a repeated or
    /// unknown acknowledgement changes nothing.
    ///
    /// # Errors
    /// The journal cannot be written.
    pub(in crate::command) fn acknowledge(&mut self, message_id: Uuid) -> Result<Option<i64>, JournalError> {
        // If this is lost, the reply is sent again with the same id.
        self.write_relaxed("acknowledge a reply in", |transaction| {
            transaction
                .prepare_cached("DELETE FROM reply WHERE message_id = ?1 RETURNING reply_id")?
                .query_row([message_id.to_string()], |row| row.get(0))
                .optional()
        })
    }
}
