//! Which session the user means: its id, what it begins with, or the only one there is.

use moorline_ssm::{
    operator::{ListOperators, ListOperatorsRequest},
    session::{
        DescribeSessions, DescribeSessionsRequest, Session, SessionFilter, SessionFilterKey, SessionState,
    },
};
use moorline_transport::CallError;

use crate::{console::one_line, operator::Operator};

/// Sessions and operators of one answer.
const PAGE: i32 = 200;

/// Why there is no such session.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PickSessionError {
    #[error(transparent)]
    Call(#[from] CallError),
    #[error("no open session has an id that begins with {begin:?}")]
    Unknown { begin: String },
    #[error("you have no open session; `moorline sessions` lists those of everybody")]
    None,
    #[error("which one? {}", sessions.join(", "))]
    Several { sessions: Vec<String> },
}

/// A session that has not ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OpenSession {
    pub(crate) id: String,
    pub(crate) target: Option<String>,
}

/// The open session whose id begins so; without a begin, the caller's own, if it is the only one.
///
/// # Errors
/// There is none, or there are several.
pub(crate) async fn open(operator: &Operator, begin: Option<&str>) -> Result<OpenSession, PickSessionError> {
    let sessions = list(operator, SessionState::Active, None).await?;
    match begin {
        Some(begin) => choose(
            &sessions,
            |session| id(session).starts_with(begin),
            |session| id(session) == begin,
        )
        .ok_or_else(|| PickSessionError::Unknown {
            begin: begin.to_owned(),
        })?,
        None => {
            let me = own_name(operator).await?;
            let end = format!("/{}", me.unwrap_or_default());
            let is_mine = |session: &Session| session.owner.as_ref().is_some_and(|arn| arn.ends_with(&end));
            choose(&sessions, is_mine, |_| false).ok_or(PickSessionError::None)?
        }
    }
}

/// The session with this id, if it has ended.
///
/// # Errors
/// The endpoint does not tell.
pub(crate) async fn ended(operator: &Operator, id: &str) -> Result<Option<Session>, CallError> {
    let filter = SessionFilter {
        key: Some(SessionFilterKey::SessionId),
        value: Some(id.to_owned()),
    };
    let ended = list(operator, SessionState::History, Some(vec![filter])).await?;
    Ok(ended.into_iter().next())
}

/// Of those that fit, the one that fits exactly or the only one. `None`: none fits.
fn choose(
    sessions: &[Session],
    fits: impl Fn(&Session) -> bool,
    is_exact: impl Fn(&Session) -> bool,
) -> Option<Result<OpenSession, PickSessionError>> {
    let fitting: Vec<&Session> = sessions.iter().filter(|session| fits(session)).collect();
    let exact = fitting.iter().find(|session| is_exact(session));
    match (
        exact.or_else(|| fitting.first()),
        exact.is_some() || fitting.len() == 1,
    ) {
        (None, _) => None,
        (Some(session), true) => Some(Ok(OpenSession {
            id: id(session).to_owned(),
            target: session.target.clone(),
        })),
        (Some(_), false) => Some(Err(PickSessionError::Several {
            sessions: fitting.iter().map(|session| shown(session)).collect(),
        })),
    }
}

fn id(session: &Session) -> &str {
    session.session_id.as_deref().unwrap_or_default()
}

fn shown(session: &Session) -> String {
    let target = one_line(session.target.as_deref().unwrap_or("-"));
    format!("{} on {target}", id(session))
}

/// The user whose access key we have.
async fn own_name(operator: &Operator) -> Result<Option<String>, CallError> {
    let mut next_token = None;
    loop {
        let request = ListOperatorsRequest {
            max_results: Some(PAGE),
            next_token,
        };
        let page = operator.call::<ListOperators>(&request).await?;
        let ours = &operator.credentials().access_key_id;
        let me = page.operators.unwrap_or_default().into_iter().find(|listed| {
            listed
                .access_key_ids
                .as_ref()
                .is_some_and(|ids| ids.iter().any(|id| id == ours))
        });
        next_token = page.next_token.filter(|token| !token.is_empty());
        if me.is_some() || next_token.is_none() {
            return Ok(me.and_then(|me| me.user_name));
        }
    }
}

/// All sessions in this state.
pub(crate) async fn list(
    operator: &Operator,
    state: SessionState,
    filters: Option<Vec<SessionFilter>>,
) -> Result<Vec<Session>, CallError> {
    let mut sessions: Vec<Session> = Vec::new();
    let mut next_token = None;
    loop {
        let request = DescribeSessionsRequest {
            state: Some(state.clone()),
            max_results: Some(PAGE),
            next_token,
            filters: filters.clone(),
        };
        let page = operator.call::<DescribeSessions>(&request).await?;
        sessions.extend(page.sessions.unwrap_or_default());
        next_token = page.next_token.filter(|token| !token.is_empty());
        if next_token.is_none() {
            return Ok(sessions);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sessions(ids: &[&str]) -> Vec<Session> {
        ids.iter()
            .map(|id| Session {
                session_id: Some((*id).to_owned()),
                target: Some("mi-1".to_owned()),
                ..Session::default()
            })
            .collect()
    }

    #[test]
    fn a_begin_is_enough_where_only_one_fits() {
        let sessions = sessions(&["admin-1a", "admin-1ab", "eve-2"]);
        let pick = |begin: &str| {
            choose(
                &sessions,
                |session| id(session).starts_with(begin),
                |session| id(session) == begin,
            )
        };
        assert_eq!(pick("eve").unwrap().unwrap().id, "eve-2");
        assert_eq!(pick("admin-1a").unwrap().unwrap().id, "admin-1a", "the whole id");
        let several = pick("admin").unwrap().unwrap_err().to_string();
        assert_eq!(several, "which one? admin-1a on mi-1, admin-1ab on mi-1");
        assert!(pick("x").is_none());
    }
}
