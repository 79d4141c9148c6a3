//! `moorline terminate`: a session ends, whoever uses it.

use std::time::Duration;

use moorline_ssm::session::{Session, TerminateSession, TerminateSessionRequest};
use serde::Serialize;
use tokio::time::sleep;

use crate::{
    console,
    error::CliError,
    operator::Operator,
    pick_session::{self, PickSessionError},
    sessions::Listed,
};

/// Between two looks whether it has ended.
const PAUSE: Duration = Duration::from_millis(200);

/// The session as scripts read it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Terminated {
    #[serde(flatten)]
    session: Listed,
    /// Before it was to be ended.
    had_ended: bool,
}

pub(crate) async fn execute(operator: &Operator, session: &str, json: bool) -> Result<u8, CliError> {
    let (session, had_ended) = match pick_session::open(operator, Some(session)).await {
        Ok(open) => (terminate(operator, open.id).await?, false),
        Err(unknown @ PickSessionError::Unknown { .. }) => {
            let ended = pick_session::ended(operator, session).await?;
            (ended.ok_or(unknown)?, true)
        }
        Err(error) => return Err(error.into()),
    };
    if json {
        let session = Listed::from(&session);
        console::print_json(&Terminated { session, had_ended })?;
    } else {
        console::print_line(&told(&session, had_ended))?;
    }
    Ok(0)
}

/// Ends it, and waits until the endpoint has it among those that have ended.
async fn terminate(operator: &Operator, id: String) -> Result<Session, CliError> {
    let request = TerminateSessionRequest {
        session_id: Some(id.clone()),
    };
    operator.call::<TerminateSession>(&request).await?;
    loop {
        if let Some(ended) = pick_session::ended(operator, &id).await? {
            return Ok(ended);
        }
        sleep(PAUSE).await;
    }
}

fn told(session: &Session, had_ended: bool) -> String {
    let text = |value: &Option<String>| console::one_line(value.as_deref().unwrap_or_default());
    let details = text(&session.details);
    let how = match (had_ended, details.is_empty()) {
        (false, _) => "was terminated".to_owned(),
        (true, true) => "had ended before".to_owned(),
        (true, false) => format!("had ended before: {details}"),
    };
    format!(
        "session {} on {} {how}",
        text(&session.session_id),
        text(&session.target)
    )
}
