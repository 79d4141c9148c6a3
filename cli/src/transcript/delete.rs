//! `moorline transcript delete`.

use moorline_ssm::transcript::{DeleteTranscript, DeleteTranscriptRequest};

use crate::{error::CliError, operator::Operator};

/// Says nothing: it is done, or there is an error.
pub(super) async fn delete(
    operator: &Operator,
    session: String,
    reason: Option<String>,
) -> Result<(), CliError> {
    let request = DeleteTranscriptRequest {
        session_id: Some(session),
        reason,
    };
    operator.call::<DeleteTranscript>(&request).await?;
    Ok(())
}
