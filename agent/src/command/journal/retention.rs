//! What the journal forgets, and when.

use std::{collections::BTreeSet, time::Duration};

use super::{Journal, JournalError, doing, millis};

/// Ended commands are remembered at least this long, and replies about their steps offered: the life of a delivery.
/// A command whose end the endpoint has not acknowledged is remembered until it has, for it may be told again.
pub(in crate::command) const MEMORY: Duration = Duration::from_secs(48 * 3600);
/// A final reply that nobody acknowledges is offered this long: an endpoint that is away for weeks still learns how
/// every command ended.
const FINAL_MEMORY: Duration = Duration::from_secs(30 * 24 * 3600);
/// Rows removed in one transaction, so that a worker never waits long for its turn.
const BATCH: u32 = 100;

impl Journal {
    /// Removes one batch of what is too old. True: there may be more.
    ///
    /// # Errors
    /// The journal cannot be written.
    pub(in crate::command) fn forget(&mut self, now: u64) -> Result<bool, JournalError> {
        let before = before(now, MEMORY);
        let (replies, commands) = self.write_relaxed("remove old commands from", |transaction| {
            let replies = transaction.execute(
                "DELETE FROM reply WHERE reply_id IN
                     (SELECT reply_id FROM reply WHERE created_at < iif(is_final, ?1, ?2) LIMIT ?3)",
                (self::before(now, FINAL_MEMORY), before, BATCH),
            )?;
            let commands = transaction.execute(
                "DELETE FROM command WHERE command_id IN
                     (SELECT command_id FROM command WHERE state = 'finished' AND finished_at < ?1
                          AND command_id NOT IN (SELECT command_id FROM reply) LIMIT ?2)",
                (before, BATCH),
            )?;
            transaction.execute(
                "DELETE FROM spent_signature WHERE nonce IN
                     (SELECT nonce FROM spent_signature WHERE expires_at < ?1 LIMIT ?2)",
                (millis(now / 1000), BATCH),
            )?;
            Ok((replies, commands))
        })?;
        if replies > 0 {
            tracing::warn!(
                replies,
                "the endpoint has not acknowledged replies for too long; they are dropped"
            );
        }
        Ok(replies.max(commands) >= BATCH as usize)
    }

    /// Commands whose files are in use.
    ///
    /// # Errors
    /// The journal cannot be read.
    pub(in crate::command) fn active(&self) -> Result<BTreeSet<String>, JournalError> {
        let read = || {
            let mut statement = self
                .connection
                .prepare("SELECT command_id FROM command WHERE state <> 'finished'")?;
            statement
                .query_map([], |row| row.get(0))?
                .collect::<rusqlite::Result<_>>()
        };
        read().map_err(doing("read"))
    }
}

/// What was made earlier than this is older than `memory`.
fn before(now: u64, memory: Duration) -> i64 {
    millis(now.saturating_sub(u64::try_from(memory.as_millis()).unwrap_or(u64::MAX)))
}
