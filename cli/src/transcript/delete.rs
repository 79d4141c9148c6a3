//! `moorline transcript delete`.

use moorline_ssm::transcript::{DeleteTranscript, DeleteTranscriptRequest};

use super::which;
use crate::{arguments::Which, error::CliError, operator::Operator};

/// Deletes a session's, or all parts of a command's. Says nothing: it is done, or there is an error.
pub(super) async fn delete(
    operator: &Operator,
    which: &Which,
    reason: Option<String>,
) -> Result<(), CliError> {
    for part in which::parts(operator, which).await? {
        let request = DeleteTranscriptRequest {
            session_id: Some(part),
            reason: reason.clone(),
        };
        operator.call::<DeleteTranscript>(&request).await?;
    }
    Ok(())
}
