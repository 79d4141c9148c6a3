//! Websockets to an endpoint.

use std::time::Duration;

use moorline_protocol::{
    message::MAX_FRAME_BYTES,
    sigv4::{self, Credentials, SignableRequest, SigningScope},
};
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::{
    WebSocketStream, client_async_with_config,
    tungstenite::{self, client::IntoClientRequest, http::HeaderValue, protocol::WebSocketConfig},
};

use crate::{DialError, Endpoint, Trust, dial::dial};

/// A websocket on TLS on TCP.
pub type WebSocket = WebSocketStream<TlsStream<TcpStream>>;

/// How long the upgrade may take.
const UPGRADE_TIMEOUT: Duration = Duration::from_secs(15);
/// The default of 128 KiB would be resident for each socket.
const READ_BUFFER_BYTES: usize = 4096;
/// What may wait for a slow peer before sends fail: the bound of memory for one socket.
const MAX_WRITE_BUFFER_BYTES: usize = 4 * 1024 * 1024;

/// Why no websocket stands.
#[derive(Debug, thiserror::Error)]
pub enum WebSocketError {
    #[error(transparent)]
    Dial(#[from] DialError),
    #[error("{endpoint} refused the websocket with HTTP status {status}: {body}")]
    Refused {
        endpoint: String,
        status: u16,
        body: String,
    },
    #[error("the websocket upgrade at {endpoint} failed")]
    Upgrade {
        endpoint: String,
        #[source]
        source: Box<tungstenite::Error>,
    },
    #[error("{endpoint} did not answer the websocket upgrade within {} s", UPGRADE_TIMEOUT.as_secs())]
    Timeout { endpoint: String },
}

/// Opens a websocket; with credentials the upgrade is signed for `ssmmessages` (agent-wire §3.1).
///
/// # Errors
/// No websocket stands; the reason names the endpoint.
pub async fn open_websocket(
    endpoint: &Endpoint,
    trust: &Trust,
    path_and_query: &str,
    signed: Option<(&Credentials, &str)>,
) -> Result<WebSocket, WebSocketError> {
    let url = format!("wss://{}{path_and_query}", endpoint.authority());
    let upgrade = |source: tungstenite::Error| WebSocketError::Upgrade {
        endpoint: endpoint.url(),
        source: Box::new(source),
    };
    let mut request = url.into_client_request().map_err(upgrade)?;
    if let Some((credentials, region)) = signed {
        for (name, value) in signature(endpoint, path_and_query, credentials, region) {
            let name: http::HeaderName = name.parse().map_err(|e| upgrade(http::Error::from(e).into()))?;
            let value = HeaderValue::from_str(&value).map_err(|e| upgrade(http::Error::from(e).into()))?;
            request.headers_mut().insert(name, value);
        }
    }
    let stream = dial(endpoint, trust).await?;
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(0)
        .max_write_buffer_size(MAX_WRITE_BUFFER_BYTES)
        .max_message_size(Some(MAX_FRAME_BYTES))
        .max_frame_size(Some(MAX_FRAME_BYTES));
    let opened = timeout(
        UPGRADE_TIMEOUT,
        client_async_with_config(request, stream, Some(config)),
    )
    .await
    .map_err(|_| WebSocketError::Timeout {
        endpoint: endpoint.url(),
    })?;
    match opened {
        Ok((socket, _)) => Ok(socket),
        Err(tungstenite::Error::Http(response)) => Err(WebSocketError::Refused {
            endpoint: endpoint.url(),
            status: response.status().as_u16(),
            body: String::from_utf8_lossy(response.body().as_deref().unwrap_or_default())
                .chars()
                .take(300)
                .collect(),
        }),
        Err(source) => Err(upgrade(source)),
    }
}

fn signature(
    endpoint: &Endpoint,
    path_and_query: &str,
    credentials: &Credentials,
    region: &str,
) -> Vec<(String, String)> {
    let authority = endpoint.authority();
    let headers = [("host", authority.as_str())];
    let request = SignableRequest {
        method: "GET",
        uri: path_and_query,
        headers: &headers,
        body: b"",
    };
    sigv4::sign(
        &request,
        &SigningScope {
            region,
            service: "ssmmessages",
            unix_millis: endpoint.unix_millis(),
        },
        credentials,
    )
}
