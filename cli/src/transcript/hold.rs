//! `moorline transcript hold`.

use moorline_ssm::transcript::{PutTranscriptLegalHold, PutTranscriptLegalHoldRequest};

use super::which;
use crate::{arguments::HoldOptions, error::CliError, operator::Operator};

/// Says nothing: it is done, or there is an error.
pub(super) async fn put(operator: &Operator, options: HoldOptions) -> Result<(), CliError> {
    let request = PutTranscriptLegalHoldRequest {
        session_id: Some(which::id(operator, &options.named.into()).await?),
        held: Some(!options.release),
        reason: options.reason,
    };
    operator.call::<PutTranscriptLegalHold>(&request).await?;
    Ok(())
}
