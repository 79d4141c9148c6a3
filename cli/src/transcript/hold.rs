//! `moorline transcript hold`.

use moorline_ssm::transcript::{
    PutTranscriptLegalHold, PutTranscriptLegalHoldRequest, PutTranscriptLegalHoldResponse,
};

use super::which;
use crate::{
    arguments::HoldOptions,
    console::{self, one_line},
    error::CliError,
    operator::Operator,
};

/// Holds a session's, or all parts of a command's. Says nothing: it is done, or there is an error; unless somebody holds
/// it already.
pub(super) async fn put(operator: &Operator, options: HoldOptions) -> Result<(), CliError> {
    for part in which::parts(operator, &options.named.into()).await? {
        let request = PutTranscriptLegalHoldRequest {
            session_id: Some(part),
            held: Some(!options.release),
            reason: options.reason.clone(),
        };
        let answer = operator.call::<PutTranscriptLegalHold>(&request).await?;
        if let Some(note) = held_already(answer) {
            console::note(&note);
        }
    }
    Ok(())
}

fn held_already(answer: PutTranscriptLegalHoldResponse) -> Option<String> {
    let by = answer.held_by?;
    let since = answer.held_date.and_then(console::timestamp);
    let reason = answer
        .hold_reason
        .map(|reason| format!(" ({})", one_line(&reason)));
    Some(format!(
        "it is held already, by {} since {}{}; that stays until it is released",
        one_line(&by),
        since.unwrap_or_default(),
        reason.unwrap_or_default(),
    ))
}

#[cfg(test)]
mod tests {
    use moorline_ssm::EpochSeconds;

    use super::*;

    #[test]
    fn who_comes_second_is_told_who_holds_it_since_when_and_why() {
        let held = PutTranscriptLegalHoldResponse {
            held_by: Some("arn:moorline:iam:::user/admin".to_owned()),
            held_date: Some(EpochSeconds::from_millis(1_795_305_600_000)),
            hold_reason: Some("case\u{1b} 12".to_owned()),
        };
        assert_eq!(
            held_already(held).as_deref(),
            Some(
                "it is held already, by arn:moorline:iam:::user/admin since 2026-11-22T00:00:00.000Z (case\u{fffd} 12); \
                 that stays until it is released"
            )
        );
        assert_eq!(held_already(PutTranscriptLegalHoldResponse::default()), None);
    }
}
