//! Which transcript the user means: a session's by its id, a command's by the command's id and the node.

use moorline_protocol::types::CommandId;
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
    let request = ListTranscriptsRequest {
        command_id: Some(id.clone()),
        ..ListTranscriptsRequest::default()
    };
    let found: Vec<String> = list::list(operator, request)
        .await?
        .into_iter()
        .filter_map(|transcript| transcript.session_id)
        .collect();
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
