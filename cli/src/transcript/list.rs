//! `moorline transcript list`.

use jiff::Timestamp;
use moorline_ssm::transcript::{ListTranscripts, ListTranscriptsRequest, Transcript};
use serde::Serialize;

use crate::{
    arguments::TranscriptFilter,
    console::{self, one_line},
    error::CliError,
    operator::Operator,
    pick,
};

const PAGE: i32 = 50;

/// A transcript as scripts read it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Listed {
    session_id: String,
    target: Option<String>,
    owner: Option<String>,
    document_name: Option<String>,
    start_date: Option<String>,
    end_date: Option<String>,
    length_bytes: i64,
    complete: bool,
}

pub(super) async fn show(operator: &Operator, filter: &TranscriptFilter, json: bool) -> Result<(), CliError> {
    let target = match &filter.node {
        Some(node) => Some(pick::node(operator, node).await?),
        None => None,
    };
    let transcripts: Vec<Listed> = list(operator, target)
        .await?
        .into_iter()
        .filter(|transcript| is_wanted(transcript, filter))
        .map(Listed::from)
        .collect();
    if json {
        return console::print_json(&transcripts);
    }
    let mut table = console::table(&[
        "SESSION", "NODE", "OWNER", "DOCUMENT", "STARTED", "BYTES", "COMPLETE",
    ]);
    for transcript in &transcripts {
        let text = |value: &Option<String>| one_line(value.as_deref().unwrap_or("-"));
        table.add_row([
            transcript.session_id.clone(),
            text(&transcript.target),
            text(&transcript.owner),
            text(&transcript.document_name),
            text(&transcript.start_date),
            transcript.length_bytes.to_string(),
            if transcript.complete { "yes" } else { "no" }.to_owned(),
        ]);
    }
    console::print_table(&table)
}

/// The id of the newest.
pub(super) async fn newest(operator: &Operator) -> Result<String, CliError> {
    let newest = list(operator, None).await?.into_iter().next();
    newest
        .and_then(|transcript| transcript.session_id)
        .ok_or_else(|| CliError::Transcript("there is no transcript yet".to_owned()))
}

/// All transcripts, newest first.
async fn list(operator: &Operator, target: Option<String>) -> Result<Vec<Transcript>, CliError> {
    let mut transcripts: Vec<Transcript> = Vec::new();
    let mut next_token = None;
    loop {
        let request = ListTranscriptsRequest {
            target: target.clone(),
            max_results: Some(PAGE),
            next_token,
        };
        let page = operator.call::<ListTranscripts>(&request).await?;
        transcripts.extend(page.transcripts.unwrap_or_default());
        next_token = page.next_token.filter(|token| !token.is_empty());
        if next_token.is_none() {
            break;
        }
    }
    transcripts.sort_by_key(|t| std::cmp::Reverse(t.start_date.map_or(0, |time| time.millis())));
    Ok(transcripts)
}

fn is_wanted(transcript: &Transcript, filter: &TranscriptFilter) -> bool {
    // an operator is named as the endpoint does, by ARN, or by the last part of it
    let owner = transcript.owner.as_deref().unwrap_or_default();
    let is_owner = |wanted: &String| owner == wanted || owner.rsplit('/').next() == Some(wanted);
    let document = transcript.document_name.as_deref();
    let started = transcript
        .start_date
        .and_then(|time| i64::try_from(time.millis()).ok())
        .and_then(|millis| Timestamp::from_millisecond(millis).ok());
    filter.operator.as_ref().is_none_or(is_owner)
        && filter
            .document
            .as_deref()
            .is_none_or(|wanted| document == Some(wanted))
        && filter
            .since
            .is_none_or(|since| started.is_some_and(|started| started >= since))
        && filter
            .until
            .is_none_or(|until| started.is_some_and(|started| started < until))
}

impl From<Transcript> for Listed {
    fn from(transcript: Transcript) -> Self {
        Self {
            session_id: transcript.session_id.unwrap_or_default(),
            target: transcript.target,
            owner: transcript.owner,
            document_name: transcript.document_name,
            start_date: transcript.start_date.and_then(console::timestamp),
            end_date: transcript.end_date.and_then(console::timestamp),
            length_bytes: transcript.length_bytes.unwrap_or(0),
            complete: transcript.complete.unwrap_or(false),
        }
    }
}

#[cfg(test)]
mod tests {
    use moorline_ssm::EpochSeconds;

    use super::*;

    #[test]
    fn a_filter_keeps_what_it_names() {
        let transcript = Transcript {
            owner: Some("arn:aws:iam::123456789012:user/alice".to_owned()),
            document_name: Some("Doc".to_owned()),
            start_date: Some(EpochSeconds(1000.0)),
            ..Transcript::default()
        };
        let at = |seconds| Some(Timestamp::from_second(seconds).unwrap());
        let none = TranscriptFilter::default();
        for (filter, expected) in [
            (none.clone(), true),
            (
                TranscriptFilter {
                    operator: Some("alice".to_owned()),
                    ..none.clone()
                },
                true,
            ),
            (
                TranscriptFilter {
                    operator: Some("lice".to_owned()),
                    ..none.clone()
                },
                false,
            ),
            (
                TranscriptFilter {
                    document: Some("Doc".to_owned()),
                    ..none.clone()
                },
                true,
            ),
            (
                TranscriptFilter {
                    document: Some("Do".to_owned()),
                    ..none.clone()
                },
                false,
            ),
            (
                TranscriptFilter {
                    since: at(1000),
                    until: at(1001),
                    ..none.clone()
                },
                true,
            ),
            (
                TranscriptFilter {
                    since: at(1001),
                    ..none.clone()
                },
                false,
            ),
            (
                TranscriptFilter {
                    until: at(1000),
                    ..none
                },
                false,
            ),
        ] {
            assert_eq!(is_wanted(&transcript, &filter), expected, "{filter:?}");
        }
    }
}
