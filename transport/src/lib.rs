//! The way to a control endpoint: TLS, HTTPS requests, websockets; used by the agent, the CLI and the tests.
//!
//! It is a folder of its own because agent and CLI need the same sockets and neither may know the other, while
//! `protocol` does no I/O. One dial path serves all traffic, so trust, timeouts and dead-peer detection are the
//! same for every request. For the same reason it has what both ask a user for who must not be seen to type it.

mod api;
mod channel;
mod clock;
mod dial;
mod download;
mod endpoint;
mod hidden_line;
mod http_client;
mod known_addresses;
mod lookup;
mod send_queue;
mod tls;
mod websocket;

pub use api::{ApiClient, CallError, ServiceError};
pub use channel::{ChannelError, ChannelRequest, open_channel};
pub use clock::unix_millis;
pub use dial::DialError;
pub use download::{Download, DownloadError, Progress};
pub use endpoint::{Endpoint, EndpointError, Service, Services};
pub use hidden_line::read_hidden_line;
pub use http_client::{HttpClient, HttpError, Response};
pub use known_addresses::NameLookup;
pub use lookup::Lookup;
pub use send_queue::SendQueue;
pub use tls::{TlsError, Trust};
pub use websocket::{WebSocket, WebSocketError, open_websocket};
