//! `moorline transcript delete`.

use moorline_ssm::transcript::{DeleteTranscript, DeleteTranscriptRequest};

use super::which;
use crate::{arguments::Which, error::CliError, operator::Operator};

/// Says nothing: it is done, or there is an error.
pub(super) async fn delete(
    operator: &Operator,
    which: &Which,
    reason: Option<String>,
) -> Result<(), CliError> {
    let request = DeleteTranscriptRequest {
        session_id: Some(which::id(operator, which).await?),
        reason,
    };
    operator.call::<DeleteTranscript>(&request).await?;
    Ok(())
}
