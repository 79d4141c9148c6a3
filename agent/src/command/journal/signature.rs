//! Signed commands and sessions, each of which runs once.

use super::{Journal, JournalError};
use crate::policy::Once;

/// After nobody accepts it any more a signature is remembered so much longer, in seconds: clocks are set back.
const MARGIN_SECONDS: u64 = 48 * 3600;

impl Journal {
    /// Notes that this command has the signature. False: another command had it before.
    ///
    /// # Errors
    /// The journal cannot be written; nothing may run for the signature.
    pub(in crate::command) fn spend(&mut self, once: &Once, command_id: &str) -> Result<bool, JournalError> {
        let forgotten_at = once.expires.saturating_add(MARGIN_SECONDS);
        self.write("note a signature in", |transaction| {
            transaction.execute(
                "INSERT INTO spent_signature (nonce, command_id, expires_at) VALUES (?1, ?2, ?3)
                 ON CONFLICT (nonce) DO NOTHING",
                (
                    &once.nonce,
                    command_id,
                    i64::try_from(forgotten_at).unwrap_or(i64::MAX),
                ),
            )?;
            transaction.query_row(
                "SELECT command_id = ?2 FROM spent_signature WHERE nonce = ?1",
                (&once.nonce, command_id),
                |row| row.get(0),
            )
        })
    }

    /// Notes that this session has the signature. False: it was noted before, for whatever.
    ///
    /// # Errors
    /// The journal cannot be written; nothing may run for the signature.
    pub(in crate::command) fn spend_on_session(
        &mut self,
        once: &Once,
        session_id: &str,
    ) -> Result<bool, JournalError> {
        let forgotten_at = once.expires.saturating_add(MARGIN_SECONDS);
        self.write("note a signature in", |transaction| {
            let noted = transaction.execute(
                "INSERT INTO spent_signature (nonce, command_id, expires_at) VALUES (?1, ?2, ?3)
                 ON CONFLICT (nonce) DO NOTHING",
                (
                    &once.nonce,
                    session_id,
                    i64::try_from(forgotten_at).unwrap_or(i64::MAX),
                ),
            )?;
            Ok(noted == 1)
        })
    }
}
