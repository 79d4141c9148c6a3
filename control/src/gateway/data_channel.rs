//! Either side of a session comes: its token decides which side, then the session's relay has the socket.

use std::{collections::hash_map::Entry, net::IpAddr, sync::Arc};

use moorline_protocol::{error_chain, message::OpenDataChannel, types::SessionId};

use super::{
    Gateway,
    relay::{self, Ending, Order, Peer, RelayHandle, RelaySession, Side},
    session_state::SessionState,
    socket::{self, CLOSE_FAILURE, CLOSE_POLICY, Socket},
};
use crate::{
    app::App,
    auth::ChannelGrant,
    server::Held,
    store::{SessionRow, SessionStatus},
};

/// A `ClientId` is a UUID, a session id, or a word.
const MAX_CLIENT_ID_BYTES: usize = 128;
/// Larger payloads gain nothing, and are what the relay counts its queues in.
const MAX_PAYLOAD_BYTES: u32 = 64 * 1024;

pub(super) async fn serve(
    app: Arc<App>,
    gateway: Arc<Gateway>,
    session: SessionId,
    mut socket: Socket,
    peer: IpAddr,
) {
    let side = match open(&app, &gateway, &session, &mut socket).await {
        Ok(opened) => opened,
        Err(reason) => {
            tracing::info!(%session, %peer, reason, "data channel refused");
            let path = format!("/v1/data-channel/{session}");
            app.audit
                .channel_refused(peer, &path, None, "AccessDeniedException", &reason);
            socket::close(socket, CLOSE_POLICY, &reason).await;
            return;
        }
    };
    let (side, who) = side;
    match app.store.session(&session).await {
        // its node said that it is over, and the endpoint was stopped before it could say so
        Ok(Some(row)) if row.ended_at.is_none() && row.agent_done && gateway.relay(&session).is_none() => {
            end_left_over(&app, &row).await;
            tell_end(&app, &row, side, socket).await;
        }
        Ok(Some(row)) if row.ended_at.is_none() => {
            if side == Side::Client {
                app.audit
                    .session_joined(&session, row.node.as_str(), &who.operator, peer);
            }
            attach(&app, &gateway, row, side, who, socket).await;
        }
        Ok(Some(row)) => tell_end(&app, &row, side, socket).await,
        Ok(None) => socket::close(socket, CLOSE_POLICY, "there is no such session").await,
        Err(error) => {
            tracing::error!(%session, error = %error_chain(&error), "failed to open a data channel");
            socket::close(socket, CLOSE_FAILURE, "internal failure").await;
        }
    }
}

/// A client is told in words for its user; an agent by the text that the stock one looks for.
async fn tell_end(app: &App, row: &SessionRow, side: Side, socket: Socket) {
    if side == Side::Agent {
        socket::close(socket, CLOSE_POLICY, "Session is already terminated").await;
        return;
    }
    let now = app.clock.unix_millis();
    let frame = relay::channel_closed(now, &row.session_id, &row.details, row.exit_code);
    socket::refuse(socket, frame).await;
}

async fn end_left_over(app: &App, row: &SessionRow) {
    let ended = app
        .end_session(&row.session_id, SessionStatus::Terminated, "", None)
        .await;
    if let Err(error) = ended {
        tracing::error!(session = %row.session_id, error = %error_chain(&error), "failed to end a session");
    }
}

/// Reads the open message. The error is the reason of the close.
async fn open(
    app: &App,
    gateway: &Gateway,
    session: &SessionId,
    socket: &mut Socket,
) -> Result<(Side, Peer), String> {
    let open: OpenDataChannel = socket::read_open(socket)
        .await
        .map_err(|error| error.to_string())?;
    let side_of = |grant: &ChannelGrant| match grant {
        ChannelGrant::AgentDataChannel { session: granted, .. } if granted == session => Some(Side::Agent),
        ChannelGrant::ClientDataChannel { session: granted, .. } if granted == session => Some(Side::Client),
        _ => None,
    };
    let grant = gateway
        .used_tokens
        .redeem(app, &open.token_value, |grant| side_of(grant).is_some())
        .map_err(|error| error.to_string())?;
    let side = side_of(&grant).ok_or("the token is for another channel")?;
    socket::trust(socket);
    if open.client_id.len() > MAX_CLIENT_ID_BYTES {
        return Err("the ClientId is too long".to_owned());
    }
    let peer = Peer {
        client_id: open.client_id,
        max_payload_bytes: open
            .moorline_max_payload_bytes
            .map(|bytes| bytes.min(MAX_PAYLOAD_BYTES)),
        takes_over: open.moorline_take_over == Some(true),
        operator: match grant {
            ChannelGrant::ClientDataChannel { operator, .. } => operator,
            _ => String::new(),
        },
    };
    Ok((side, peer))
}

async fn attach(
    app: &Arc<App>,
    gateway: &Arc<Gateway>,
    mut row: SessionRow,
    side: Side,
    peer: Peer,
    socket: Socket,
) {
    let session = row.session_id.clone();
    if let Ok(false) = app.store.is_registered(&row.node).await {
        "the node was deregistered".clone_into(&mut row.details);
        tell_end(app, &row, side, socket).await;
        return;
    }
    let first = side == Side::Agent && !row.agent_attached;
    let relay = relay_of(app, gateway, row);
    let order = Order::Attach {
        side,
        peer,
        socket: Box::new(socket),
    };
    // when the relay ended just now the peer's socket closes; it comes back and learns why
    let attached = relay.order(order).await;
    if attached
        && first
        && let Err(error) = app.store.session_agent_attached(&session).await
    {
        tracing::error!(%session, error = %error_chain(&error), "failed to record that a node joined its session");
    }
    // when it ended, with its node, before there was a relay, nobody told the relay
    if let Ok(Some(row)) = app.store.session(&session).await
        && row.ended_at.is_some()
    {
        let ending = Ending {
            reason: row.details,
            exit_code: row.exit_code,
            failed: row.status == SessionStatus::Failed,
        };
        gateway.end_relay(&session, ending).await;
    }
}

/// The session's relay, made when the first side comes; after a restart of the endpoint it knows nothing of what was
/// acknowledged, so it forwards everything and leaves it to the ends to recognise what they have.
fn relay_of(app: &Arc<App>, gateway: &Arc<Gateway>, row: SessionRow) -> RelayHandle {
    let session = row.session_id.clone();
    let mut relays = gateway.relays();
    let vacant = match relays.entry(session.clone()) {
        Entry::Occupied(present) => return present.get().clone(),
        Entry::Vacant(vacant) => vacant,
    };
    let node = row.node.clone();
    let known = RelaySession {
        session_id: session.to_string(),
        node: row.node.to_string(),
        session_type: row.session_type,
        resumed: row.agent_attached && row.status != SessionStatus::Connecting,
        client_id: row.client_id,
    };
    let state = SessionState::new(Arc::clone(app), session.clone(), node);
    let (handle, task) = relay::new(app.clock.clone(), known, state);
    vacant.insert(handle.clone());
    drop(relays);
    let running = Running {
        gateway: Arc::clone(gateway),
        session,
        _counted: app.metrics.gauge("moorline_sessions_relayed", &[]).hold(),
    };
    tokio::spawn(async move {
        let _running = running;
        task.await;
    });
    handle
}

/// A relay's place among the others, given up when its task ends, also when it ends by a panic.
struct Running {
    gateway: Arc<Gateway>,
    session: SessionId,
    _counted: Held,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.gateway.relays().remove(&self.session);
    }
}
