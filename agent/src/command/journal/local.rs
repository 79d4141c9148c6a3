//! Commands of this machine itself, which no endpoint knows: their replies stay until their result is written.

use super::{Journal, JournalError, doing};

/// What the ids of such a command and of its job begin with. No id of an endpoint has this character.
pub(in crate::command) const LOCAL_MARK: &str = "drop+";
/// The same for SQLite.
pub(super) const LOCAL_GLOB: &str = "drop+*";

/// Found by an index of such replies alone, which these very words lead to: it is asked every two seconds.
const NEXT_END: &str = "SELECT reply_id, reply.command_id, job_id FROM reply JOIN command USING (command_id)
     WHERE reply_id > ?1 AND is_final AND reply.command_id GLOB 'drop+*' ORDER BY reply_id LIMIT 1";

/// A command that has ended, and whose result is not written yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::command) struct LocalEnd {
    /// Number of the reply that ends it.
    pub(in crate::command) reply_id: i64,
    pub(in crate::command) command_id: String,
    pub(in crate::command) job_id: String,
    /// Payloads in their order.
    pub(in crate::command) replies: Vec<String>,
}

impl Journal {
    /// The next command of this machine after that reply whose result is to be written.
    ///
    /// # Errors
    /// The journal cannot be read.
    pub(in crate::command) fn local_end(&self, after: i64) -> Result<Option<LocalEnd>, JournalError> {
        use rusqlite::OptionalExtension;
        let read = || {
            let found = self
                .connection
                .prepare_cached(NEXT_END)?
                .query_row([after], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
                .optional()?;
            let Some((reply_id, command_id, job_id)) = found else {
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
                reply_id,
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

#[cfg(test)]
mod tests {
    use rusqlite::StatementStatus;

    use super::{
        super::{Opener, tests::end},
        *,
    };

    #[test]
    fn ends_of_this_machine_are_found_one_after_another_whatever_waits_for_the_endpoint() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = Journal::open(dir.path(), Opener::Daemon).unwrap();
        journal
            .connection
            .pragma_update(None, "synchronous", "OFF")
            .unwrap();
        for number in 0..500 {
            end(&mut journal, &format!("c{number}"), 1);
        }
        let mut statement = journal.connection.prepare(NEXT_END).unwrap();
        assert!(!statement.exists([0]).unwrap());
        let steps = statement.get_status(StatementStatus::VmStep);
        assert!(steps < 100, "{steps}");
        drop(statement);
        for name in ["drop+a", "drop+b"] {
            end(&mut journal, name, 1);
        }
        let first = journal.local_end(0).unwrap().unwrap();
        let second = journal.local_end(first.reply_id).unwrap().unwrap();
        assert_eq!(
            (first.command_id.as_str(), second.command_id.as_str()),
            ("drop+a", "drop+b")
        );
        assert_eq!(journal.local_end(second.reply_id).unwrap(), None);
        journal.result_written("drop+a").unwrap();
        assert_eq!(journal.local_end(0).unwrap(), Some(second));
    }
}
