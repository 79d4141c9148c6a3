//! Commands of this machine itself, which no endpoint knows: their replies stay until their result is written.

use super::{Journal, JournalError, doing};

/// What the ids of such a command and of its job begin with. No id of an endpoint has this character.
pub(in crate::command) const LOCAL_MARK: &str = "drop+";
/// The same for SQLite.
pub(super) const LOCAL_GLOB: &str = "drop+*";

/// A command that has ended, and whose result is not written yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::command) struct LocalEnd {
    pub(in crate::command) command_id: String,
    pub(in crate::command) job_id: String,
    /// Payloads in their order.
    pub(in crate::command) replies: Vec<String>,
}

impl Journal {
    /// The next command of this machine whose result is to be written.
    ///
    /// # Errors
    /// The journal cannot be read.
    pub(in crate::command) fn local_end(&self) -> Result<Option<LocalEnd>, JournalError> {
        use rusqlite::OptionalExtension;
        let read = || {
            let found = self
                .connection
                .prepare_cached(
                    "SELECT reply.command_id, job_id FROM reply JOIN command USING (command_id)
                     WHERE reply.command_id GLOB ?1 AND is_final ORDER BY reply_id LIMIT 1",
                )?
                .query_row([LOCAL_GLOB], |row| Ok((row.get(0)?, row.get(1)?)))
                .optional()?;
            let Some((command_id, job_id)) = found else {
                return Ok(None);
            };
            let command_id: String = command_id;
            let mut statement = self
                .connection
                .prepare_cached("SELECT payload FROM reply WHERE command_id = ?1 ORDER BY reply_id")?;
            let replies = statement
                .query_map([&command_id], |row| row.get(0))?
                .collect::<rusqlite::Result<_>>()?;
            Ok(Some(LocalEnd {
                command_id,
                job_id,
                replies,
            }))
        };
        read().map_err(doing("read"))
    }

    /// The result is written.
    ///
    /// # Errors
    /// The journal cannot be written; the same result is written again.
    pub(in crate::command) fn result_written(&mut self, command_id: &str) -> Result<(), JournalError> {
        self.write_relaxed("note a result in", |transaction| {
            transaction.execute("DELETE FROM reply WHERE command_id = ?1", [command_id])?;
            Ok(())
        })
    }
}
