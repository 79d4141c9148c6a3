//! `moorline attach`: a living session goes on in this process, which takes it from the client that had it.

use std::{io::IsTerminal, sync::Arc};

use moorline_ssm::session::{ResumeSession, ResumeSessionRequest};

use crate::{
    EXIT_NO_SESSION, console,
    error::CliError,
    operator::Operator,
    pick_session,
    session_client::{Grant, Link, SessionClient},
    shell,
};

pub(crate) async fn execute(operator: Operator, session: Option<&str>) -> Result<u8, CliError> {
    let operator = Arc::new(operator);
    let session = pick_session::open(&operator, session).await?;
    let request = ResumeSessionRequest {
        session_id: Some(session.id.clone()),
    };
    let response = operator.call::<ResumeSession>(&request).await?;
    let (Some(token), Some(stream_url)) = (response.token_value, response.stream_url) else {
        console::note(&format!("session {} has ended", session.id));
        return Ok(EXIT_NO_SESSION);
    };
    let grant = Grant {
        session_id: session.id,
        token,
        stream_url,
    };
    let mut link = Link::new(
        Some(Arc::clone(&operator)),
        operator.trust().clone(),
        &grant.session_id,
    )
    .taking_over();
    if let Some(target) = &session.target {
        link = link.with_target(target);
    }
    let mut client = SessionClient::open(link, &grant).await?;
    if std::io::stdin().is_terminal() {
        shell::greet(&grant.session_id);
    }
    shell::serve(&operator, &grant.session_id, &mut client, shell::Had::TakenOver).await
}
