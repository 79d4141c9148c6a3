//! `moorline sessions`: who is on which node.

use jiff::Timestamp;
use moorline_ssm::session::{Session, SessionFilter, SessionFilterKey, SessionState};
use serde::Serialize;

use crate::{
    arguments::SessionsOptions,
    console::{self, one_line},
    error::CliError,
    operator::Operator,
    pick, pick_session,
};

/// A session as scripts read it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Listed {
    session_id: String,
    target: Option<String>,
    status: Option<String>,
    start_date: Option<String>,
    end_date: Option<String>,
    document_name: Option<String>,
    owner: Option<String>,
    reason: Option<String>,
    details: Option<String>,
}

pub(crate) async fn execute(
    operator: &Operator,
    options: &SessionsOptions,
    json: bool,
) -> Result<u8, CliError> {
    let filters = match &options.node {
        Some(node) => Some(vec![SessionFilter {
            key: Some(SessionFilterKey::Target),
            value: Some(pick::node(operator, node).await?),
        }]),
        None => None,
    };
    let state = if options.history {
        SessionState::History
    } else {
        SessionState::Active
    };
    let mut sessions = pick_session::list(operator, state, filters).await?;
    sessions.sort_by_key(|session| std::cmp::Reverse(session.start_date.map_or(0, |time| time.millis())));
    if json {
        console::print_json(&sessions.iter().map(Listed::from).collect::<Vec<_>>())?;
        return Ok(0);
    }
    let now = Timestamp::now();
    let mut table = console::table(&[
        "SESSION", "NODE", "STATUS", "STARTED", "OWNER", "DOCUMENT", "REASON",
    ]);
    for session in &sessions {
        let started = session
            .start_date
            .map_or_else(|| "-".to_owned(), |time| console::ago(time, now));
        let row = Listed::from(session);
        let text = |value: &Option<String>| one_line(value.as_deref().unwrap_or("-"));
        table.add_row([
            row.session_id.clone(),
            text(&row.target),
            text(&row.status),
            started,
            text(&row.owner),
            text(&row.document_name),
            text(&row.reason),
        ]);
    }
    console::print_table(&table)?;
    Ok(0)
}

impl From<&Session> for Listed {
    fn from(session: &Session) -> Self {
        Self {
            session_id: session.session_id.clone().unwrap_or_default(),
            target: session.target.clone(),
            status: session.status.as_ref().map(ToString::to_string),
            start_date: session.start_date.and_then(console::timestamp),
            end_date: session.end_date.and_then(console::timestamp),
            document_name: session.document_name.clone(),
            owner: session.owner.clone(),
            reason: session.reason.clone(),
            details: session.details.clone(),
        }
    }
}
