//! Operations of the capability `session`.

mod describe_sessions;
mod resume_session;
mod start_session;
mod terminate_session;

#[cfg(test)]
mod tests;

use moorline_ssm::session as shapes;

use super::{RequestContext, Router};
use crate::{
    auth::{ChannelGrant, Resource},
    store::SessionRow,
};

/// A token has room for 300 characters.
const MAX_OPERATOR_BYTES: usize = 64;

pub(super) fn routes(router: Router) -> Router {
    router
        .on::<shapes::DescribeSessions, _, _>(|_| Resource::Any, describe_sessions::describe_sessions)
        .on::<shapes::ResumeSession, _, _>(
            |input| session_resource(input.session_id.as_deref()),
            resume_session::resume_session,
        )
        .on::<shapes::StartSession, _, _>(
            |input| Resource::Node(input.target.clone().unwrap_or_default()),
            start_session::start_session,
        )
        .on::<shapes::TerminateSession, _, _>(
            |input| session_resource(input.session_id.as_deref()),
            terminate_session::terminate_session,
        )
}

fn session_resource(id: Option<&str>) -> Resource {
    Resource::Session(id.unwrap_or_default().to_owned())
}

/// The session of this id, if there is one; an id that breaks the grammar names none.
async fn find(cx: &RequestContext, id: Option<&str>) -> super::ApiResult<Option<SessionRow>> {
    match id.unwrap_or_default().parse() {
        Ok(id) => Ok(cx.app.store.session(&id).await?),
        Err(_) => Ok(None),
    }
}

/// What opens the client side: a token for a short time, and where to.
fn client_channel(cx: &RequestContext, session: &moorline_protocol::types::SessionId) -> (String, String) {
    let mut operator = cx.principal.name();
    operator.truncate(operator.floor_char_boundary(MAX_OPERATOR_BYTES));
    let grant = ChannelGrant::ClientDataChannel {
        session: session.clone(),
        operator,
    };
    let token = cx.app.keys.channel_token(&grant, cx.now);
    let url = format!(
        "wss://{}/v1/data-channel/{session}?role=publish_subscribe",
        cx.host
    );
    (token, url)
}
