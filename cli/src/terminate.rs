//! `moorline terminate`: a session ends, whoever uses it.

use std::time::Duration;

use moorline_ssm::session::{Session, TerminateSession, TerminateSessionRequest};
use serde::Serialize;
use tokio::time::{Instant, sleep};

use crate::{
    console,
    error::CliError,
    operator::Operator,
    pick_session::{self, PickSessionError},
    sessions::Listed,
};

/// Between two looks whether it has ended.
const PAUSE: Duration = Duration::from_millis(200);
/// How long the endpoint may take to show that it has.
const PATIENCE: Duration = Duration::from_secs(10);

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
    let ended = async || Ok(pick_session::ended(operator, &id).await?);
    until_ended(&id, ended).await
}

/// Asks until the session is among those that have ended.
async fn until_ended(
    id: &str,
    ended: impl AsyncFn() -> Result<Option<Session>, CliError>,
) -> Result<Session, CliError> {
    let begun = Instant::now();
    loop {
        if let Some(ended) = ended().await? {
            return Ok(ended);
        }
        if begun.elapsed() >= PATIENCE {
            return Err(CliError::NotSeenToEnd {
                id: id.to_owned(),
                patience: PATIENCE,
            });
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_end_that_is_not_shown_is_not_waited_for_for_ever() {
        let error = until_ended("admin-1", async || Ok(None)).await.unwrap_err();
        let expected = "the endpoint took the end of session admin-1, and has not shown it within 10 s";
        assert_eq!(error.to_string(), expected);
        let shown = until_ended("admin-1", async || Ok(Some(Session::default()))).await;
        assert_eq!(shown.unwrap(), Session::default());
    }
}
