//! `StartSession`: open a session on a managed node.
//!
//! AWS: API_StartSession. The node is told at once, so that its shell is up when the client comes. Deviations: a
//! target is a managed node's id and nothing else; a parameter that breaks its rule is a `ValidationException`; a
//! document is used in its default version, which no request can change, but the preferences in their latest one. A
//! key that the endpoint's KMS does not have is an `InvalidDocument`.

use moorline_protocol::{
    document::{
        DocumentError, PREFERENCES_DOCUMENT, SessionDocument, SessionPlan, SessionType, complete_session,
    },
    message::StartSessionContent,
    types::{InstanceId, SessionId},
};
use moorline_ssm::{
    ErrorCode,
    session::{StartSessionRequest, StartSessionResponse},
};
use serde_json::{Map, Value};
use uuid::Uuid;

use super::client_channel;
use crate::{
    api::{ApiError, ApiResult, RequestContext},
    auth::{KMS_ALIAS, Principal},
    engine::preferences::RUN_AS_TAG,
    log_lines::shown,
    store::{DocumentRow, NewSession, TaggedResource, VersionChoice},
};

/// A session id is `<user>-<17 hex digits>`, 96 characters at most.
const MAX_USER_LENGTH: usize = 64;

const MILLIS_PER_MINUTE: u64 = 60_000;

pub(super) async fn start_session(
    cx: RequestContext,
    input: StartSessionRequest,
) -> ApiResult<StartSessionResponse> {
    let target = input.target.as_deref().unwrap_or_default();
    let node = connected_node(&cx, target).await?;
    let prepared = Prepared::new(&cx, &input).await?;
    let session_id = new_session_id(&cx.principal)?;
    let new = prepared.session(
        &cx,
        node,
        session_id.clone(),
        (input.reason, input.moorline_signature),
    );
    cx.app.store.insert_session(&new, cx.now).await?;
    cx.app.routing.nudge(&new.node);
    tracing::info!(
        session = %session_id, node = %new.node, owner = new.owner, document = new.document_name, "session started"
    );
    let (token, url) = client_channel(&cx, &session_id);
    Ok(StartSessionResponse {
        session_id: Some(session_id.to_string()),
        token_value: Some(token),
        stream_url: Some(url),
    })
}

async fn connected_node(cx: &RequestContext, target: &str) -> ApiResult<InstanceId> {
    let unreachable = || {
        ApiError::new(
            ErrorCode::TargetNotConnected,
            format!("{target} is not connected."),
        )
    };
    let node: InstanceId = target.parse().map_err(|_| unreachable())?;
    if cx.app.store.node(&node).await?.is_none() || !cx.app.routing.is_connected(&node).await {
        return Err(unreachable());
    }
    Ok(node)
}

/// The document with its parameters.
struct Prepared {
    name: String,
    content: Value,
    parameters: Map<String, Value>,
    plan: SessionPlan,
    /// The user that the caller's sessions run as, if the plan wants that.
    run_as_user: String,
}

impl Prepared {
    async fn new(cx: &RequestContext, input: &StartSessionRequest) -> ApiResult<Self> {
        let given = input.document_name.as_deref().unwrap_or(PREFERENCES_DOCUMENT);
        let name = given.rsplit_once(":document/").map_or(given, |(_, name)| name);
        let row = row(cx, name).await?;
        if row.document_type != "Session" {
            return Err(invalid(format!(
                "document {name} is of type {}; StartSession takes documents of type Session",
                row.document_type
            )));
        }
        let (content, document) = parsed(&row)?;
        let empty = std::collections::BTreeMap::new();
        let parameters = document
            .parameters
            .resolve_lists(input.parameters.as_ref().unwrap_or(&empty))
            .map_err(|error| ApiError::validation(format!("document {name}: {error}")))?;
        let parameters = parameters.as_map().clone();
        let unusable = |error| unusable(name, &error);
        let mut names_key = name;
        let (content, document) = match preferences(cx, name).await? {
            None => (content, document),
            Some(preferences) => {
                let own = document.plan(&parameters).map_err(unusable)?;
                if own.kms_key_id.is_empty() {
                    names_key = PREFERENCES_DOCUMENT;
                }
                let own = document.resolved_inputs(&parameters).map_err(unusable)?;
                let content = complete_session(content, &own, document.session_type, &preferences);
                let document = SessionDocument::parse(&content).map_err(unusable)?;
                (content, document)
            }
        };
        let plan = document.plan(&parameters).map_err(unusable)?;
        check_key(cx, names_key, &plan)?;
        let run_as_user = match plan.run_as_enabled {
            true => run_as_user(cx).await?,
            false => String::new(),
        };
        Ok(Self {
            name: row.name,
            content,
            parameters,
            plan,
            run_as_user,
        })
    }

    fn session(
        self,
        cx: &RequestContext,
        node: InstanceId,
        session_id: SessionId,
        (reason, signature): (Option<String>, Option<String>),
    ) -> NewSession {
        let owner = cx.principal.arn();
        let content = StartSessionContent {
            document_name: self.name.clone(),
            document_content: self.content,
            session_id: session_id.to_string(),
            parameters: self.parameters,
            run_as_user: self.run_as_user,
            session_owner: owner.clone(),
            moorline_reason: reason.clone(),
            moorline_signature: signature,
            moorline_transcript_path: Some(format!("/v1/transcript/{session_id}")),
        };
        let minutes = |minutes: u32| u64::from(minutes) * MILLIS_PER_MINUTE;
        NewSession {
            session_id,
            node,
            owner,
            document_name: self.name,
            session_type: self.plan.session_type,
            reason,
            start_content: serde_json::to_string(&content)
                .expect("a structure of texts and JSON values can be written"),
            idle_timeout_millis: minutes(self.plan.idle_session_timeout_minutes),
            max_duration_millis: self.plan.max_session_duration_minutes.map(minutes),
        }
    }
}

/// The document in its default version. Preferences take effect when they are updated: they are used in the latest one.
async fn row(cx: &RequestContext, name: &str) -> ApiResult<DocumentRow> {
    let choice = match name {
        PREFERENCES_DOCUMENT => VersionChoice::Latest,
        _ => VersionChoice::Default,
    };
    let row = cx.app.store.document_version(name, choice).await?;
    row.ok_or_else(|| invalid(format!("there is no document {name}")))
}

fn parsed(row: &DocumentRow) -> ApiResult<(Value, SessionDocument)> {
    let name = &row.name;
    let content = row
        .value()
        .map_err(|error| invalid(format!("document {name} cannot be read: {error}")))?;
    let document = SessionDocument::parse(&content).map_err(|error| unusable(name, &error))?;
    Ok((content, document))
}

/// What a session with another document takes over; `None` when the document itself holds the preferences.
async fn preferences(cx: &RequestContext, name: &str) -> ApiResult<Option<SessionPlan>> {
    if name == PREFERENCES_DOCUMENT {
        return Ok(None);
    }
    let (_, document) = parsed(&row(cx, PREFERENCES_DOCUMENT).await?)?;
    let plan = document.plan(&Map::new());
    plan.map(Some)
        .map_err(|error| unusable(PREFERENCES_DOCUMENT, &error))
}

/// With a key that there is not every client would fail in its handshake, and say less about it.
fn check_key(cx: &RequestContext, document: &str, plan: &SessionPlan) -> ApiResult<()> {
    let key = &plan.kms_key_id;
    if key.is_empty() || plan.session_type == SessionType::Port || cx.app.kms.has(key) {
        return Ok(());
    }
    Err(invalid(format!(
        "document {document} names kmsKeyId {}, and the endpoint has no key of that name; update the document with \
         {KMS_ALIAS} or the id of a key in the endpoint's key file",
        shown(key)
    )))
}

/// The user whom the caller's tag names. Without one the node decides by the document.
async fn run_as_user(cx: &RequestContext) -> ApiResult<String> {
    let Principal::Administrator { user_name, .. } = &cx.principal else {
        return Ok(String::new());
    };
    let tags = cx.app.store.tags(TaggedResource::Operator(user_name)).await?;
    let user = tags.unwrap_or_default().remove(RUN_AS_TAG);
    Ok(user.unwrap_or_default())
}

fn invalid(message: String) -> ApiError {
    ApiError::new(ErrorCode::InvalidDocument, message)
}

fn unusable(name: &str, error: &DocumentError) -> ApiError {
    invalid(format!("document {name} cannot be used: {error}"))
}

/// Never used again: the stock plugin makes a socket file of that name (client-wire §1.4).
fn new_session_id(principal: &Principal) -> ApiResult<SessionId> {
    let user = match principal {
        Principal::Administrator { user_name, .. } => user_name.as_str(),
        Principal::Anonymous | Principal::Node(_) | Principal::NodeKey(_) => "session",
    };
    let is_kept = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let user: String = user
        .chars()
        .filter(is_kept)
        .skip_while(|c| *c == '.')
        .take(MAX_USER_LENGTH)
        .collect();
    let mut hex = Uuid::new_v4().simple().to_string();
    hex.truncate(17);
    format!("{user}-{hex}").parse().map_err(ApiError::internal)
}
