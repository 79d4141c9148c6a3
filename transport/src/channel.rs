//! Opening a channel of a node: a signed POST gives a token, then a signed websocket is opened at the same path
//! (agent-wire §4.1, §8.1). The caller sends the open message.

use bytes::Bytes;
use moorline_protocol::sigv4::{self, Credentials, SignableRequest, SigningScope, UNSIGNED_PAYLOAD};
use uuid::Uuid;

use crate::{Endpoint, HttpClient, HttpError, Trust, WebSocket, WebSocketError, open_websocket};

/// Why no channel stands.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    #[error("failed to request a channel token")]
    Http(#[source] HttpError),
    #[error("{endpoint} refused a channel token with HTTP status {status}: {text}")]
    Refused {
        endpoint: String,
        status: u16,
        text: String,
    },
    #[error("the answer of {endpoint} holds no channel token")]
    NoToken { endpoint: String },
    #[error(transparent)]
    WebSocket(#[from] WebSocketError),
}

/// What a channel is opened with.
#[derive(Debug, Clone, Copy)]
pub struct ChannelRequest<'a> {
    pub endpoint: &'a Endpoint,
    pub trust: &'a Trust,
    pub credentials: &'a Credentials,
    pub region: &'a str,
    /// `/v1/control-channel/<node>` or `/v1/data-channel/<session>`.
    pub path: &'a str,
    /// Query of the websocket.
    pub query: &'a str,
    /// Members of the POST's body beside version and request id.
    pub client_id: Option<&'a str>,
}

/// Gets a token and opens the websocket; returns both.
///
/// # Errors
/// Either was refused or not reached.
pub async fn open_channel(request: &ChannelRequest<'_>) -> Result<(String, WebSocket), ChannelError> {
    let token = request_token(request).await?;
    let path_and_query = format!("{}?{}", request.path, request.query);
    let signed = Some((request.credentials, request.region));
    let socket = open_websocket(request.endpoint, request.trust, &path_and_query, signed).await?;
    Ok((token, socket))
}

async fn request_token(request: &ChannelRequest<'_>) -> Result<String, ChannelError> {
    let mut body = serde_json::json!({
        "MessageSchemaVersion": "1.0",
        "RequestId": Uuid::new_v4().to_string(),
    });
    if let Some(client_id) = request.client_id {
        body["ClientId"] = client_id.into();
    }
    let response = signed_post(
        request,
        request.path,
        "application/json",
        Bytes::from(body.to_string()),
    )
    .await
    .map_err(ChannelError::Http)?;
    let text = String::from_utf8_lossy(&response.body);
    // Exactly 201, as the stock agent has it.
    if response.status != 201 {
        return Err(ChannelError::Refused {
            endpoint: request.endpoint.url(),
            status: response.status,
            text: text.chars().take(300).collect(),
        });
    }
    token_value(&text).ok_or_else(|| ChannelError::NoToken {
        endpoint: request.endpoint.url(),
    })
}

/// One POST signed for `ssmmessages`, on a connection of its own.
async fn signed_post(
    request: &ChannelRequest<'_>,
    uri: &str,
    content_type: &str,
    body: Bytes,
) -> Result<crate::Response, HttpError> {
    let client = HttpClient::new(request.endpoint.clone(), request.trust.clone());
    client
        .signed_post(request.credentials, request.region, uri, content_type, body)
        .await
}

impl HttpClient {
    /// A POST signed for the `ssmmessages` plane (agent-wire §3.1).
    ///
    /// # Errors
    /// As [`HttpClient::request`].
    pub async fn signed_post(
        &self,
        credentials: &Credentials,
        region: &str,
        uri: &str,
        content_type: &str,
        body: Bytes,
    ) -> Result<crate::Response, HttpError> {
        let none = [];
        self.signed_post_with((credentials, region), uri, content_type, &none, body)
            .await
    }

    /// The same, its signature over everything but the body: for a body that proves itself to who receives it. TLS keeps
    /// it whole on the way.
    ///
    /// # Errors
    /// As [`HttpClient::request`].
    pub async fn post_sealed(
        &self,
        credentials: &Credentials,
        region: &str,
        uri: &str,
        content_type: &str,
        body: Bytes,
    ) -> Result<crate::Response, HttpError> {
        let unsigned = [("x-amz-content-sha256", UNSIGNED_PAYLOAD)];
        self.signed_post_with((credentials, region), uri, content_type, &unsigned, body)
            .await
    }

    async fn signed_post_with(
        &self,
        (credentials, region): (&Credentials, &str),
        uri: &str,
        content_type: &str,
        more_headers: &[(&str, &str)],
        body: Bytes,
    ) -> Result<crate::Response, HttpError> {
        let authority = self.endpoint().authority();
        let sign = |unix_millis| {
            let mut headers = vec![("content-type", content_type), ("host", authority.as_str())];
            headers.extend_from_slice(more_headers);
            let signable = SignableRequest {
                method: "POST",
                uri,
                headers: &headers,
                body: &body,
            };
            let scope = SigningScope {
                region,
                service: "ssmmessages",
                unix_millis,
            };
            let mut signed = sigv4::sign(&signable, &scope, credentials);
            let own = headers.iter();
            signed.extend(own.map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
            Ok(signed)
        };
        self.request_signed("POST", uri, &body, sign).await
    }
}

/// The text of the `TokenValue` element; the root's name is irrelevant and the five entities are undone.
fn token_value(xml: &str) -> Option<String> {
    let (_, rest) = xml.split_once("<TokenValue>")?;
    let (text, _) = rest.split_once("</TokenValue>")?;
    let undone = text
        .replace("&lt;", "<")
        .replace("&gt;", ">")
        .replace("&quot;", "\"")
        .replace("&apos;", "'")
        .replace("&amp;", "&");
    Some(undone.trim().to_owned()).filter(|token| !token.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_token_is_found_under_any_root_and_unescaped_once() {
        let xml =
            "<R><MessageSchemaVersion>1.0</MessageSchemaVersion><TokenValue> a&amp;lt;b= </TokenValue></R>";
        assert_eq!(token_value(xml).as_deref(), Some("a&lt;b="));
        assert_eq!(token_value("<R><TokenValue></TokenValue></R>"), None);
        assert_eq!(token_value("<R><TokenValue>x"), None);
    }
}
