//! How a data channel is reached, the first time and after a loss.

use std::{fmt, sync::Arc, time::Duration};

use futures_util::SinkExt;
use moorline_protocol::{channel::CLIENT_VERSION, message::OpenDataChannel, sigv4::Credentials};
use moorline_ssm::session::{ResumeSession, ResumeSessionRequest};
use moorline_transport::{Endpoint, Trust, WebSocket, WebSocketError, open_websocket};
use tokio::time::{Instant, sleep};
use tokio_tungstenite::tungstenite::Message;
use uuid::Uuid;

use super::{
    SessionError,
    data_key::{self, DataKeyError, MadeKey},
};
use crate::operator::{Operator, is_passing};

/// The largest payload that we take and send, in bytes.
pub(crate) const MAX_PAYLOAD_BYTES: usize = 32 * 1024;
const FIRST_BACKOFF: Duration = Duration::from_millis(200);
const LONGEST_BACKOFF: Duration = Duration::from_secs(10);
/// How long a lost connection is being restored: as long as endpoints keep a session without a client.
const PATIENCE: Duration = Duration::from_secs(600);

/// A session that was started or resumed, and the right to connect to it once.
pub(crate) struct Grant {
    pub(crate) session_id: String,
    pub(crate) token: String,
    pub(crate) stream_url: String,
}

impl fmt::Debug for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Grant")
            .field("session_id", &self.session_id)
            .field("stream_url", &self.stream_url)
            .finish_non_exhaustive()
    }
}

/// Everything that a connection to a session needs, the same for each.
#[derive(Debug, Clone)]
pub(crate) struct Link {
    /// Without one a session can be used, but not resumed.
    operator: Option<Arc<Operator>>,
    trust: Trust,
    session_id: String,
    /// The node, to which data keys are bound; unknown to some callers.
    target: Option<String>,
    /// The same for all connections of this process: so the endpoint knows that numbers go on.
    client_id: String,
    /// The session is another client's until the endpoint says that it is ours.
    takes_over: bool,
}

/// What became of a lost connection.
pub(super) enum Resumed {
    Connected(Box<WebSocket>),
    /// The session has ended.
    Over,
}

impl Link {
    pub(crate) fn new(operator: Option<Arc<Operator>>, trust: Trust, session_id: &str) -> Self {
        Self {
            operator,
            trust,
            session_id: session_id.to_owned(),
            target: None,
            client_id: Uuid::new_v4().to_string(),
            takes_over: false,
        }
    }

    /// The same, to a session that another client has.
    #[must_use]
    pub(crate) fn taking_over(mut self) -> Self {
        self.takes_over = true;
        self
    }

    pub(super) fn takes_over(&self) -> bool {
        self.takes_over
    }

    /// The session is ours: should another client take it, this one does not take it back.
    pub(super) fn has_taken_over(&mut self) {
        self.takes_over = false;
    }

    /// The same, to a session on this node: its plain id.
    #[must_use]
    pub(crate) fn with_target(mut self, target: &str) -> Self {
        self.target = Some(target.to_owned());
        self
    }

    /// Has a data key made for the session.
    pub(super) fn data_key(
        &self,
        key_id: String,
        challenge: Option<String>,
    ) -> impl Future<Output = Result<MadeKey, DataKeyError>> + use<> {
        let wanted = data_key::Wanted {
            key_id,
            session_id: self.session_id.clone(),
            target: self.target.clone(),
            challenge,
        };
        data_key::make(self.operator.clone(), wanted)
    }

    /// Opens the websocket and sends the open message.
    pub(super) async fn connect(&self, grant: &Grant) -> Result<WebSocket, SessionError> {
        let (endpoint, path) =
            Endpoint::parse_stream_url(&grant.stream_url).map_err(SessionError::StreamUrl)?;
        // AWS signs the upgrade since late 2025; a URL that is signed already is dialled as it is
        let operator = self.operator.as_deref().filter(|_| !path.contains("X-Amz-"));
        let signed: Option<(&Credentials, &str)> =
            operator.map(|operator| (operator.credentials(), operator.region()));
        let mut socket = open_websocket(&endpoint, &self.trust, &path, signed)
            .await
            .map_err(SessionError::Open)?;
        let open = OpenDataChannel {
            message_schema_version: "1.0".into(),
            request_id: Uuid::new_v4().to_string(),
            token_value: grant.token.clone(),
            client_id: self.client_id.clone(),
            client_version: Some(CLIENT_VERSION.to_owned()),
            client_instance_id: None,
            moorline_max_payload_bytes: u32::try_from(MAX_PAYLOAD_BYTES).ok(),
            moorline_take_over: self.takes_over.then_some(true),
        };
        let open = serde_json::to_string(&open).expect("the open message has only texts and numbers");
        socket
            .send(Message::text(open))
            .await
            .map_err(|source| SessionError::OpenMessage(Box::new(source)))?;
        Ok(socket)
    }

    /// Restores a lost connection: tries until it stands, the session turns out to be over, or patience ends.
    pub(super) async fn resume(self) -> Result<Resumed, SessionError> {
        let Some(operator) = self.operator.clone() else {
            return Err(SessionError::NoCredentials);
        };
        let since = Instant::now();
        let mut backoff = FIRST_BACKOFF;
        loop {
            // full jitter: after an endpoint's restart its clients do not all come at once
            sleep(backoff.mul_f64(random_fraction())).await;
            backoff = (backoff * 2).min(LONGEST_BACKOFF);
            let error = match self.resume_once(&operator).await {
                Ok(resumed) => return Ok(resumed),
                Err(error) => error,
            };
            if !is_worth_retrying(&error) {
                return Err(error);
            }
            if since.elapsed() > PATIENCE {
                return Err(SessionError::GaveUp {
                    limit: PATIENCE,
                    source: Box::new(error),
                });
            }
        }
    }

    async fn resume_once(&self, operator: &Operator) -> Result<Resumed, SessionError> {
        let request = ResumeSessionRequest {
            session_id: Some(self.session_id.clone()),
        };
        let response = operator.call::<ResumeSession>(&request).await?;
        let token = response.token_value.filter(|token| !token.is_empty());
        let (Some(token), Some(stream_url)) = (token, response.stream_url) else {
            return Ok(Resumed::Over);
        };
        let grant = Grant {
            session_id: self.session_id.clone(),
            token,
            stream_url,
        };
        let socket = self.connect(&grant).await?;
        Ok(Resumed::Connected(Box::new(socket)))
    }
}

fn is_worth_retrying(error: &SessionError) -> bool {
    match error {
        SessionError::Call(call) => is_passing(call),
        SessionError::Open(WebSocketError::Refused { status, .. }) => *status >= 500 || *status == 429,
        SessionError::Open(_) | SessionError::OpenMessage(_) => true,
        _ => false,
    }
}

/// Between 0 and 1.
fn random_fraction() -> f64 {
    let bytes = Uuid::new_v4().into_bytes();
    f64::from(u16::from_be_bytes([bytes[0], bytes[1]])) / f64::from(u16::MAX)
}
