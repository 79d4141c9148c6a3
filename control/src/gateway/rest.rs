//! The signed POSTs of nodes: a token for a channel, a chunk of a transcript, which of them are open (agent-wire §4.1, §8.1).

use std::{net::IpAddr, sync::Arc};

use bytes::Bytes;
use http::{Request, StatusCode};
use hyper::body::Incoming;
use moorline_protocol::{
    transcript::{BadBlocks, Blocks, Ending},
    types::{InstanceId, SessionId, TranscriptId},
};

use super::{
    Answer, Route,
    answer::{self, Refusal},
};
use crate::{
    app::App,
    auth::{ChannelGrant, Principal, Resource, authenticate, authenticate_sealed, authorize},
    server::MOST_BODY_BYTES,
    store::{Appended, Chunk, ChunkBody, Recorded, Sender, SessionRow, StoreError, TranscriptState},
};

/// A request for a channel is a few dozen bytes.
const MAX_REQUEST_BYTES: usize = 16 * 1024;
/// The largest chunk of a transcript (docs/deviations.md).
const MAX_CHUNK_BYTES: usize = MOST_BODY_BYTES;
/// How long an open recording is waited for, after it began and what it is of ended: its node may be away.
pub(super) const LATE_MILLIS: u64 = 7 * 24 * 60 * 60 * 1000;

pub(super) async fn answer(
    app: &Arc<App>,
    route: Route,
    request: Request<Incoming>,
    peer: IpAddr,
) -> Result<Answer, Refusal> {
    let (parts, body) = request.into_parts();
    let limit = match route {
        Route::Transcript(_) => MAX_CHUNK_BYTES,
        Route::ControlChannel(_) | Route::DataChannel(_) | Route::OpenTranscripts(_) => MAX_REQUEST_BYTES,
    };
    let body = app.bodies.read(body, limit, peer).await?;
    let principal = match route {
        // the node's seals prove it, and hashing it twice is most of what taking it costs
        Route::Transcript(_) => authenticate_sealed(app, &parts, &body.bytes).await?,
        Route::ControlChannel(_) | Route::DataChannel(_) | Route::OpenTranscripts(_) => {
            authenticate(app, &parts, &body.bytes).await?
        }
    };
    let Principal::Node(node) = &principal else {
        return Err(Refusal::access_denied(
            "only a managed node with role credentials may do this",
        ));
    };
    match route {
        Route::ControlChannel(wanted) => {
            let resource = Resource::Node(wanted.to_string());
            authorize(&principal, "ssmmessages:CreateControlChannel", &resource)?;
            let grant = ChannelGrant::ControlChannel { node: wanted };
            let token = app.keys.channel_token(&grant, app.clock.unix_millis());
            Ok(answer::token("CreateControlChannelOutput", &token))
        }
        Route::DataChannel(session) => {
            let row = session_of(app, &principal, "ssmmessages:CreateDataChannel", &session).await?;
            if row.ended_at.is_some() {
                return Err(Refusal::session_terminated());
            }
            let grant = ChannelGrant::AgentDataChannel {
                node: node.clone(),
                session,
            };
            let token = app.keys.channel_token(&grant, app.clock.unix_millis());
            Ok(answer::token("CreateDataChannelOutput", &token))
        }
        Route::Transcript(id) => {
            let query = Query::parse(parts.uri.query().unwrap_or_default())?;
            if query.ending.is_none() {
                let chunk = query.chunk(&id, body.bytes.clone())?;
                let now = app.clock.unix_millis();
                // its chain in memory says whose it is and that it is open: four questions less to the database
                if let Some(appended) = app.transcripts.append_to_known(&id, node, chunk, now).await? {
                    return answer_to(app, (&id, node), (appended, now)).await;
                }
            }
            let recorded = app.store.recorded(&id).await?;
            let recorded = recorded.ok_or_else(|| Refusal::nothing_to_record(&id))?;
            let resource = Resource::Node(recorded.node.to_string());
            authorize(&principal, "moorline:PutTranscript", &resource)?;
            match query.ending {
                Some(Ending::Cut) => end_early(app, &recorded, query.offset).await,
                _ => store_chunk(app, &recorded, query.chunk(&id, body.bytes.clone())?).await,
            }
        }
        Route::OpenTranscripts(wanted) => {
            let resource = Resource::Node(wanted.to_string());
            authorize(&principal, "moorline:ListOpenTranscripts", &resource)?;
            Ok(answer::open_transcripts(
                &app.store.open_transcripts(&wanted).await?,
            ))
        }
    }
}

/// The session, if this node may act on it.
async fn session_of(
    app: &App,
    principal: &Principal,
    action: &str,
    session: &SessionId,
) -> Result<SessionRow, Refusal> {
    let row = app
        .store
        .session(session)
        .await?
        .ok_or_else(Refusal::no_such_session)?;
    authorize(principal, action, &Resource::Node(row.node.to_string()))?;
    Ok(row)
}

/// The node says that what made this recording is gone, and that it has sent all that there is of it.
async fn end_early(app: &App, recorded: &Recorded, offset: u64) -> Result<Answer, Refusal> {
    let Recorded { id, node, .. } = recorded;
    let length = app.transcripts.length(id).await?.unwrap_or(0);
    if length != offset {
        return Ok(answer::length(StatusCode::CONFLICT, length));
    }
    if !app.store.transcript_is_closed(id).await? {
        cut(app, node, id).await?;
    }
    Ok(answer::length(StatusCode::OK, length))
}

/// Closes a recording whose end did not come, and will not.
pub(super) async fn cut(app: &App, node: &InstanceId, id: &TranscriptId) -> Result<(), StoreError> {
    let now = app.clock.unix_millis();
    let sender = Sender {
        node: node.to_string(),
        keys: app.store.transcript_keys(node).await?,
    };
    let state = app.transcripts.give_up(id, sender, now).await?;
    app.store.transcript_closed(id, state, now).await?;
    app.transcripts.has_come_to_rest();
    app.transcripts.has_changed();
    Ok(())
}

async fn store_chunk(app: &App, recorded: &Recorded, chunk: Chunk) -> Result<Answer, Refusal> {
    let Recorded { id, node, .. } = recorded;
    let (offset, added, is_last) = (chunk.offset, chunk.body.len() as u64, chunk.is_last);
    let now = app.clock.unix_millis();
    // whatever the time is, which may be wrong: what is known may be recorded until that is closed
    let is_closed = app.store.transcript_is_closed(id).await?;
    if chunk.offset == 0 && !is_closed {
        app.store.transcript_started(recorded, now).await?;
    }
    let sender = Sender {
        node: node.to_string(),
        keys: app.store.transcript_keys(node).await?,
    };
    let appended = app
        .transcripts
        .append(id, sender, chunk, (is_closed, now))
        .await?;
    match appended {
        Appended::Stored(length, state) if is_last => {
            app.store.transcript_closed(id, state, now).await?;
            app.transcripts.has_come_to_rest();
            app.transcripts.has_changed();
            Ok(answer::stored(length, length))
        }
        // a node whose answer was lost says once more that it is whole: that is so, or it learns that its last bytes came
        Appended::Closed(_)
            if is_last
                && let Some(length) = app.transcripts.length(id).await?
                && offset.checked_add(added) == Some(length) =>
        {
            match added {
                0 => Ok(answer::stored(length, length)),
                _ => Ok(answer::length(StatusCode::CONFLICT, length)),
            }
        }
        appended => answer_to(app, (id, node), (appended, now)).await,
    }
}

/// What became of a chunk that more may follow.
async fn answer_to(
    app: &App,
    (id, node): (&TranscriptId, &InstanceId),
    (appended, now): (Appended, u64),
) -> Result<Answer, Refusal> {
    match appended {
        Appended::Stored(length, _) => {
            app.transcripts.has_changed();
            Ok(answer::stored(length, app.transcripts.durable(id).min(length)))
        }
        Appended::Garbled(what) => Err(garbled(id, what)),
        Appended::WrongOffset(length) => Ok(answer::length(StatusCode::CONFLICT, length)),
        Appended::TooLong(length) => Err(Refusal::too_large(format!(
            "the transcript {id} has {length} bytes; more are not kept"
        ))),
        Appended::Closed(length) => Err(Refusal::new(
            StatusCode::GONE,
            "ValidationException",
            format!("the transcript {id} is closed with {length} bytes; nothing is added to it"),
        )),
        Appended::Broken(reason) => {
            tracing::error!(%id, %node, reason, "a transcript is not as its node sealed it; it was closed");
            let broken = "moorline_transcripts_broken_total";
            app.metrics.counter(broken, &[]).increment();
            app.store.transcript_closed(id, TranscriptState::Cut, now).await?;
            app.transcripts.has_come_to_rest();
            app.transcripts.has_changed();
            Err(Refusal::bad_request(format!(
                "the transcript {id} is refused and was closed: {reason}"
            )))
        }
        Appended::OverShare => {
            if let Some(held_back) = app.node_lines.over_share.admit(now) {
                let what =
                    "the node has more than its share of the disk; a chunk of a transcript was refused";
                tracing::warn!(%id, %node, held_back, "{what}");
            }
            let refused = "moorline_transcript_chunks_over_share_total";
            app.metrics.counter(refused, &[]).increment();
            Err(Refusal::new(
                StatusCode::INSUFFICIENT_STORAGE,
                "InternalServerError",
                "the recordings of this node have their share of the endpoint's disk; send this again later",
            ))
        }
        Appended::NoRoom => {
            if let Some(held_back) = app.node_lines.without_room.admit(now) {
                tracing::warn!(%id, held_back, "the disk is nearly full; a chunk of a transcript was refused");
            }
            let refused = "moorline_transcript_chunks_without_room_total";
            app.metrics.counter(refused, &[]).increment();
            Err(Refusal::new(
                StatusCode::INSUFFICIENT_STORAGE,
                "InternalServerError",
                "the disk of the endpoint is nearly full; send this again later",
            ))
        }
    }
}

fn garbled(id: &TranscriptId, what: BadBlocks) -> Refusal {
    Refusal::bad_request(format!("the bytes for {id} are damaged: {what}"))
}

/// What a node says of the bytes that it sends: `offset=N[&complete=true|&cut=true][&durable=true][&blocks=true]`.
#[derive(Debug)]
struct Query {
    offset: u64,
    /// Nothing follows.
    ending: Option<Ending>,
    is_durable: bool,
    /// Not the bytes themselves.
    are_blocks: bool,
}

impl Query {
    fn parse(query: &str) -> Result<Self, Refusal> {
        let (mut offset, mut ending, mut is_durable, mut are_blocks) = (None, None, false, false);
        for pair in query.split('&') {
            match pair.split_once('=') {
                Some(("offset", value)) => offset = value.parse().ok(),
                Some(("complete", "true")) => ending = Some(Ending::Complete),
                Some(("cut", "true")) => ending = Some(Ending::Cut),
                Some(("durable", value)) => is_durable = value == "true",
                Some(("blocks", value)) => are_blocks = value == "true",
                _ => {}
            }
        }
        let offset = offset.ok_or_else(|| Refusal::bad_request("offset is missing or not a number"))?;
        Ok(Self {
            offset,
            ending,
            is_durable,
            are_blocks,
        })
    }

    fn chunk(&self, id: &TranscriptId, bytes: Bytes) -> Result<Chunk, Refusal> {
        let body = match self.are_blocks {
            true => ChunkBody::Blocks(Blocks::parse(bytes).map_err(|what| garbled(id, what))?),
            false => ChunkBody::Plain(bytes),
        };
        Ok(Chunk {
            offset: self.offset,
            body,
            is_last: self.ending.is_some(),
            is_durable: self.is_durable,
        })
    }
}
