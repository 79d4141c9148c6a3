//! Signed sessions: what a node gets to begin one, signed for that node alone.

use std::path::PathBuf;

use clap::Args;
use jiff::Timestamp;
use moorline_protocol::{
    document::{Digest, PREFERENCES_DOCUMENT, SessionDocument, complete_session},
    signed_command::{Purpose, SignedCommand, Statement},
};
use moorline_ssm::session::StartSessionRequest;
use serde_json::{Map, Value};
use uuid::Uuid;

use super::{fetched, plain_name, read_key};
use crate::{console, error::CliError, operator::Operator};

/// How long a node takes to begin the session, at most; how long it lasts does not depend on it.
const LIFE_SECONDS: u64 = 300;
/// The version of the preferences that sessions use.
const LATEST: &str = "$LATEST";

/// Of everything that opens a session.
#[derive(Debug, Args)]
pub(crate) struct SessionSignOptions {
    /// Sign the session with this private key of OpenSSH (ssh-ed25519, without a passphrase), for nodes whose owner
    /// asks for that
    #[arg(long, value_name = "FILE")]
    pub(crate) sign_with: Option<PathBuf>,
}

/// The request with a signature over what its node gets for it, if one is asked for.
///
/// # Errors
/// The key or the document cannot be had, or what they make together cannot be signed.
pub(crate) async fn sign_session(
    operator: &Operator,
    request: StartSessionRequest,
    options: &SessionSignOptions,
) -> Result<StartSessionRequest, CliError> {
    let Some(path) = &options.sign_with else {
        return Ok(request);
    };
    let key = read_key(path)?;
    let target = request.target.clone().unwrap_or_default();
    let (name, content, parameters) = as_sent(operator, &request).await?;
    let refused = |error: &dyn std::fmt::Display| CliError::Usage(error.to_string());
    let node = target.parse().map_err(|error| refused(&error))?;
    let now = Timestamp::now().as_second().cast_unsigned();
    let document = Digest::of(&content);
    let statement = Statement {
        document_name: name.clone(),
        document,
        parameters: Digest::of_map(&parameters),
        nodes: [node].into(),
        nonce: Uuid::new_v4().into_bytes(),
        not_before: now,
        expires: now + LIFE_SECONDS,
        reason: request.reason.clone(),
    };
    let signed = SignedCommand::sign(statement, Purpose::Session, &key).map_err(|error| refused(&error))?;
    console::note(&format!("signed a session with {name} ({document}) on {target}"));
    Ok(StartSessionRequest {
        moorline_signature: Some(signed.token()),
        ..request
    })
}

/// Name, content and parameters as the endpoint makes them of the request: with the preferences.
async fn as_sent(
    operator: &Operator,
    request: &StartSessionRequest,
) -> Result<(String, Value, Map<String, Value>), CliError> {
    let name = plain_name(request.document_name.as_deref().unwrap_or(PREFERENCES_DOCUMENT));
    let refused = |error: &dyn std::fmt::Display| CliError::Usage(format!("document {name}: {error}"));
    let version = (name == PREFERENCES_DOCUMENT).then(|| LATEST.to_owned());
    let content = fetched(operator, name, version).await?;
    let document = SessionDocument::parse(&content).map_err(|error| refused(&error))?;
    let given = request.parameters.clone().unwrap_or_default();
    let parameters = document.parameters.resolve_lists(&given);
    let parameters = parameters.map_err(|error| refused(&error))?.as_map().clone();
    if name == PREFERENCES_DOCUMENT {
        return Ok((name.to_owned(), content, parameters));
    }
    let preferences = fetched(operator, PREFERENCES_DOCUMENT, Some(LATEST.to_owned())).await?;
    let preferences = SessionDocument::parse(&preferences)
        .and_then(|preferences| preferences.plan(&Map::new()))
        .map_err(|error| refused(&error))?;
    let own = document
        .resolved_inputs(&parameters)
        .map_err(|error| refused(&error))?;
    let content = complete_session(content, &own, document.session_type, &preferences);
    Ok((name.to_owned(), content, parameters))
}
