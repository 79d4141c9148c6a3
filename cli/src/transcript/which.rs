//! Which transcript the user means: a session's by its id, a command's by the command's id and the node.

use moorline_protocol::{transcript::RecordingId, types::CommandId};
use moorline_ssm::transcript::ListTranscriptsRequest;

use super::list;
use crate::{arguments::Which, error::CliError, operator::Operator, pick};

/// The id of the transcript; the newest one's if nothing is said.
pub(super) async fn id(operator: &Operator, which: &Which) -> Result<String, CliError> {
    let Some(id) = &which.session else {
        return list::newest(operator).await;
    };
    if let Some(node) = &which.node {
        return Ok(format!("{id}.{}", pick::node(operator, node).await?));
    }
    if id.parse::<CommandId>().is_err() {
        return Ok(id.clone());
    }
    let found = of_command(operator, id).await?;
    match found.as_slice() {
        [] => Err(CliError::Transcript(format!(
            "there is no transcript of command {id}"
        ))),
        [only] => Ok(only.clone()),
        several => Err(CliError::Transcript(format!(
            "command {id} has {} transcripts; give one of them, or --node: {}",
            several.len(),
            several.join(" ")
        ))),
    }
}

/// The same with all parts of a command, where it went on after reboots; in their order.
pub(super) async fn parts(operator: &Operator, which: &Which) -> Result<Vec<String>, CliError> {
    let Some(command) = which
        .session
        .as_deref()
        .filter(|id| id.parse::<CommandId>().is_ok())
    else {
        return Ok(vec![id(operator, which).await?]);
    };
    let node = match &which.node {
        Some(node) => Some(pick::node(operator, node).await?),
        None => None,
    };
    let mut found: Vec<RecordingId> = of_command(operator, command)
        .await?
        .iter()
        .filter_map(|id| RecordingId::parse(id).ok())
        .filter(|id| (node.as_ref()).is_none_or(|node| id.part().0 == format!("{command}.{node}")))
        .collect();
    found.sort_by_key(|id| id.part().1);
    let is_one = found.windows(2).all(|two| match two {
        [one, other] => one.part().0 == other.part().0,
        _ => true,
    });
    if found.is_empty() || !is_one {
        // it says what is the matter
        return Ok(vec![id(operator, which).await?]);
    }
    Ok(found.iter().map(|id| id.as_str().to_owned()).collect())
}

async fn of_command(operator: &Operator, command: &str) -> Result<Vec<String>, CliError> {
    let request = ListTranscriptsRequest {
        command_id: Some(command.to_owned()),
        ..ListTranscriptsRequest::default()
    };
    let found = list::list(operator, request).await?;
    Ok(found
        .transcripts
        .into_iter()
        .filter_map(|transcript| transcript.session_id)
        .collect())
}
