//! From an HTTP request to a websocket: who may upgrade, and the 101.

use std::{net::IpAddr, sync::Arc};

use bytes::Bytes;
use http::{Request, header};
use http_body_util::Full;
use hyper::body::Incoming;
use moorline_protocol::types::{InstanceId, SessionId};
use tokio_tungstenite::tungstenite::handshake::server::create_response_with_body;

use super::{
    Answer, Gateway,
    answer::Refusal,
    control_channel, data_channel,
    socket::{self, Socket},
};
use crate::{
    app::App,
    auth::{Principal, Resource, authenticate, authorize},
    server::Newcomer,
};

/// Opens the websocket of a node's control channel. The token in the first message proves the right to it; a
/// signature, which the stock agent makes, is checked when there is one.
pub(super) async fn control_channel(
    app: &Arc<App>,
    gateway: &Arc<Gateway>,
    node: InstanceId,
    mut request: Request<Incoming>,
    peer: IpAddr,
) -> Result<Answer, Refusal> {
    let answer = switch_protocols(&request)?;
    if let Some(principal) = signed_by(app, &request).await? {
        authorize(
            &principal,
            "ssmmessages:OpenControlChannel",
            &Resource::Node(node.to_string()),
        )?;
    }
    spawn(
        app,
        gateway,
        &mut request,
        move |app, gateway, socket| async move {
            control_channel::serve(app, gateway, node, socket, peer).await;
        },
    );
    Ok(answer)
}

/// Opens the websocket of either side of a session. Clients sign, or send a bearer token, or nothing
/// (client-wire §1.7); the token in the first message decides.
pub(super) async fn data_channel(
    app: &Arc<App>,
    gateway: &Arc<Gateway>,
    session: SessionId,
    mut request: Request<Incoming>,
    peer: IpAddr,
) -> Result<Answer, Refusal> {
    let answer = switch_protocols(&request)?;
    if let Some(principal) = signed_by(app, &request).await? {
        let resource = match &principal {
            Principal::Node(_) => {
                let row = app
                    .store
                    .session(&session)
                    .await?
                    .ok_or_else(Refusal::no_such_session)?;
                Resource::Node(row.node.to_string())
            }
            _ => Resource::Session(session.to_string()),
        };
        authorize(&principal, "ssmmessages:OpenDataChannel", &resource)?;
    }
    spawn(
        app,
        gateway,
        &mut request,
        move |app, gateway, socket| async move {
            data_channel::serve(app, gateway, session, socket, peer).await;
        },
    );
    Ok(answer)
}

/// `None`: there is no signature.
async fn signed_by(app: &Arc<App>, request: &Request<Incoming>) -> Result<Option<Principal>, Refusal> {
    let bearer = request
        .headers()
        .get(header::AUTHORIZATION)
        .is_some_and(|value| !value.as_bytes().starts_with(b"AWS4-"));
    if bearer {
        return Ok(None);
    }
    let (parts, ()) = parts_of(request).into_parts();
    match authenticate(app, &parts, &[]).await? {
        Principal::Anonymous => Ok(None),
        principal => Ok(Some(principal)),
    }
}

/// The head of the request, which the signature is over; its body belongs to the upgrade.
fn parts_of(request: &Request<Incoming>) -> Request<()> {
    let mut copy = Request::new(());
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.version_mut() = request.version();
    *copy.headers_mut() = request.headers().clone();
    copy
}

fn switch_protocols(request: &Request<Incoming>) -> Result<Answer, Refusal> {
    create_response_with_body(request, Full::<Bytes>::default)
        .map_err(|error| Refusal::bad_request(format!("not a websocket upgrade: {error}")))
}

fn spawn<F, Fut>(app: &Arc<App>, gateway: &Arc<Gateway>, request: &mut Request<Incoming>, serve: F)
where
    F: FnOnce(Arc<App>, Arc<Gateway>, Socket) -> Fut + Send + 'static,
    Fut: Future<Output = ()> + Send,
{
    let newcomer = request.extensions().get::<Newcomer>().cloned();
    let upgrade = hyper::upgrade::on(request);
    let (app, gateway) = (Arc::clone(app), Arc::clone(gateway));
    tokio::spawn(async move {
        // an error here: the peer went away before the answer
        if let Ok(upgraded) = upgrade.await {
            serve(app, gateway, socket::from_upgraded(upgraded, newcomer).await).await;
        }
    });
}
