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
        let removed = self.write_relaxed("remove old commands from", |transaction| {
            let mut removed = [0; 4];
            for (removed, (statement, before)) in removed.iter_mut().zip(batches(now)) {
                *removed = transaction.execute(statement, (before, BATCH))?;
            }
            Ok(removed)
        })?;
        let [steps, ends, ..] = removed;
        if steps + ends > 0 {
            tracing::warn!(
                replies = steps + ends,
                "the endpoint has not acknowledged replies for too long; they are dropped"
            );
        }
        Ok(removed.iter().any(|removed| *removed >= BATCH as usize))
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

/// What removes one batch each, and of what is older than when: replies about steps, final ones, signatures, commands.
/// Each finds its rows by an index that has no others, but for commands of the last days that were signed: a round costs
/// what it removes, whatever waits.
fn batches(now: u64) -> [(&'static str, i64); 4] {
    [
        (
            "DELETE FROM reply WHERE reply_id IN
                 (SELECT reply_id FROM reply WHERE is_final = 0 AND created_at < ?1 LIMIT ?2)",
            before(now, MEMORY),
        ),
        (
            "DELETE FROM reply WHERE reply_id IN
                 (SELECT reply_id FROM reply WHERE is_final = 1 AND created_at < ?1 LIMIT ?2)",
            before(now, FINAL_MEMORY),
        ),
        (
            "DELETE FROM spent_signature WHERE nonce IN
                 (SELECT nonce FROM spent_signature WHERE expires_at < ?1 LIMIT ?2)",
            millis(now / 1000),
        ),
        // one whose signature is remembered has it still: it would be the same command, and run again
        (
            "DELETE FROM command WHERE command_id IN
                 (SELECT command_id FROM command
                  WHERE state = 'finished' AND waiting_replies = 0 AND finished_at < ?1
                      AND NOT EXISTS (SELECT 1 FROM spent_signature AS own
                          WHERE own.command_id = command.command_id) LIMIT ?2)",
            before(now, MEMORY),
        ),
    ]
}

/// What was made earlier than this is older than `memory`.
fn before(now: u64, memory: Duration) -> i64 {
    millis(now.saturating_sub(u64::try_from(memory.as_millis()).unwrap_or(u64::MAX)))
}

#[cfg(test)]
mod tests {
    use rusqlite::{Connection, StatementStatus};

    use super::{
        super::{FILE_NAME, MIGRATIONS, Opener, tests::end},
        *,
    };

    const NOW: u64 = 1_795_333_005_107;
    /// Three days before that.
    const THEN: u64 = NOW - 3 * 24 * 3600 * 1000;

    /// What SQLite does for one batch of each, beside so many commands that wait for their acknowledgement.
    fn cost(waiting: usize) -> i32 {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = Journal::open(dir.path(), Opener::Daemon).unwrap();
        journal
            .connection
            .pragma_update(None, "synchronous", "OFF")
            .unwrap();
        for number in 0..waiting {
            end(&mut journal, &format!("w{number}"), THEN);
            let once = crate::policy::Once {
                nonce: number.to_string(),
                expires: NOW / 1000,
            };
            journal.spend(&once, "w").unwrap();
        }
        journal
            .connection
            .execute("DELETE FROM reply WHERE is_final = 0", [])
            .unwrap();
        for number in 0..3 {
            end(&mut journal, &format!("t{number}"), THEN);
        }
        journal
            .connection
            .execute("DELETE FROM reply WHERE is_final AND command_id GLOB 't*'", [])
            .unwrap();
        let mut steps = 0;
        for ((statement, before), expected) in batches(NOW).into_iter().zip([3, 0, 0, 3]) {
            let mut statement = journal.connection.prepare(statement).unwrap();
            assert_eq!(statement.execute((before, BATCH)).unwrap(), expected);
            steps += statement.get_status(StatementStatus::VmStep);
        }
        steps
    }

    #[test]
    fn forgetting_costs_what_is_forgotten_whatever_waits() {
        let (few, many) = (cost(10), cost(1_000));
        assert!(many < few + few / 2, "{few} steps beside 10, {many} beside 1000");
    }

    #[test]
    fn what_the_last_release_left_is_forgotten_when_it_has_been_told() {
        let dir = tempfile::tempdir().unwrap();
        let mut old = Connection::open(dir.path().join(FILE_NAME)).unwrap();
        MIGRATIONS.to_version(&mut old, 4).unwrap();
        old.execute_batch(
            "INSERT INTO command (command_id, job_id, state, accepted_at, finished_at)
                 VALUES ('told', 'j', 'finished', 1, 1), ('waits', 'j', 'finished', 1, 1);
             INSERT INTO reply (message_id, command_id, is_final, payload, created_at)
                 VALUES ('00000000-0000-0000-0000-000000000001', 'waits', 1, '{}', 1795333005107)",
        )
        .unwrap();
        let mut journal = Journal::open(dir.path(), Opener::Daemon).unwrap();
        journal.forget(NOW).unwrap();
        assert!(!journal.is_known("told").unwrap());
        assert!(journal.is_known("waits").unwrap());
        // As a worker of that release does it, which knows nothing of the count.
        old.execute("DELETE FROM reply", []).unwrap();
        journal.forget(NOW).unwrap();
        assert!(!journal.is_known("waits").unwrap());
    }
}
