//! A websocket of a node or a client: its limits, its open message, its end.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use moorline_protocol::message::MAX_FRAME_BYTES;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Message, Utf8Bytes,
        protocol::{CloseFrame, Role, WebSocketConfig, frame::coding::CloseCode},
    },
};

use crate::server::Newcomer;

pub(super) type Socket = WebSocketStream<Wire<TokioIo<Upgraded>>>;

/// How long the first message may take.
const OPEN_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a peer may take to answer a close.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
/// An open message is some hundred bytes.
const MAX_OPEN_BYTES: usize = 16 * 1024;
/// What a peer may send before its token is redeemed: the open message, its header, pings.
const MAX_BYTES_BEFORE_TRUST: usize = 2 * MAX_OPEN_BYTES;
/// A close frame's reason has 123 bytes at most.
const MAX_REASON_BYTES: usize = 123;

/// A second node with the same registration (docs/deviations.md).
pub(super) const CLOSE_COPIED_KEY: u16 = 4409;
pub(super) const CLOSE_NORMAL: u16 = 1000;
/// It is worth trying again.
pub(super) const CLOSE_TRY_AGAIN: u16 = 1013;
pub(super) const CLOSE_MALFORMED: u16 = 1007;
pub(super) const CLOSE_POLICY: u16 = 1008;
pub(super) const CLOSE_FAILURE: u16 = 1011;

/// The read buffer is resident memory of every channel, so it is small; a write is sent at once, and one that cannot
/// be is bounded.
pub(super) async fn from_upgraded(upgraded: Upgraded, newcomer: Option<Newcomer>) -> Socket {
    let config = WebSocketConfig::default()
        .read_buffer_size(4096)
        .write_buffer_size(0)
        .max_write_buffer_size(2 * MAX_FRAME_BYTES)
        .max_message_size(Some(MAX_FRAME_BYTES))
        .max_frame_size(Some(MAX_FRAME_BYTES));
    let wire = Wire::new(TokioIo::new(upgraded), newcomer);
    WebSocketStream::from_raw_socket(wire, Role::Server, Some(config)).await
}

/// The peer's token was redeemed: it may send frames of full size, and is no newcomer any more.
pub(super) fn trust(socket: &mut Socket) {
    socket.get_mut().trust();
}

/// The connection under a websocket. Until the peer is trusted it lets few bytes through, whatever length the frames
/// claim to have, so that nobody makes us hold frames by not ending them.
#[derive(Debug)]
pub(super) struct Wire<S> {
    stream: S,
    /// How many bytes may still be read. `None`: any number.
    allowance: Option<usize>,
    newcomer: Option<Newcomer>,
}

impl<S> Wire<S> {
    fn new(stream: S, newcomer: Option<Newcomer>) -> Self {
        Self {
            stream,
            allowance: Some(MAX_BYTES_BEFORE_TRUST),
            newcomer,
        }
    }

    fn trust(&mut self) {
        self.allowance = None;
        if let Some(newcomer) = self.newcomer.take() {
            newcomer.is_proven();
        }
    }

    fn is_used_up(&self) -> bool {
        self.allowance == Some(0)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Wire<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Some(allowance) = self.allowance else {
            return Pin::new(&mut self.stream).poll_read(cx, buffer);
        };
        if allowance == 0 {
            let error = "too much came before the open message was complete";
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, error)));
        }
        let mut part = ReadBuf::new(buffer.initialize_unfilled_to(allowance.min(buffer.remaining())));
        let read = Pin::new(&mut self.stream).poll_read(cx, &mut part);
        let length = part.filled().len();
        buffer.advance(length);
        self.allowance = Some(allowance.saturating_sub(length));
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Wire<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Why a channel was not opened; the text is the reason of the close frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum OpenError {
    #[error("the peer went away before it sent the open message")]
    Gone,
    #[error("no open message within 10 seconds")]
    Late,
    #[error("the open message cannot be read")]
    Malformed,
}

/// The first message: TEXT, with the token. Pings may come before it.
pub(super) async fn read_open<T: DeserializeOwned>(socket: &mut Socket) -> Result<T, OpenError> {
    let first = tokio::time::timeout(OPEN_TIMEOUT, async {
        loop {
            match socket.next().await {
                Some(Ok(Message::Text(text))) => return Ok(text),
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                Some(Ok(_)) => return Err(OpenError::Malformed),
                Some(Err(_)) if socket.get_ref().is_used_up() => return Err(OpenError::Malformed),
                Some(Err(_)) | None => return Err(OpenError::Gone),
            }
        }
    });
    let text = first.await.map_err(|_| OpenError::Late)??;
    if text.len() > MAX_OPEN_BYTES {
        return Err(OpenError::Malformed);
    }
    serde_json::from_str(&text).map_err(|_| OpenError::Malformed)
}

/// Says goodbye and waits a moment for the answer.
pub(super) async fn close(mut socket: Socket, code: u16, reason: &str) {
    let end = reason.floor_char_boundary(MAX_REASON_BYTES);
    let reason = reason.get(..end).unwrap_or_default();
    let frame = CloseFrame {
        code: CloseCode::from(code),
        reason: Utf8Bytes::from(reason),
    };
    let goodbye = async {
        if socket.send(Message::Close(Some(frame))).await.is_ok() {
            while let Some(Ok(_)) = socket.next().await {}
        }
    };
    // a peer that does not answer in time is dropped without
    let _timed_out = tokio::time::timeout(CLOSE_TIMEOUT, goodbye).await.is_err();
}

/// Tells a client why it gets no channel, as its user will see it, and closes.
pub(super) async fn refuse(mut socket: Socket, channel_closed: Bytes) {
    let told = tokio::time::timeout(CLOSE_TIMEOUT, socket.send(Message::Binary(channel_closed))).await;
    if let Ok(Ok(())) = told {
        linger_then_close(socket).await;
    }
}

/// The client was told that its session ended: it may go first, then the socket is closed.
pub(super) async fn linger_then_close(mut socket: Socket) {
    let left = tokio::time::timeout(CLOSE_TIMEOUT, async {
        while let Some(Ok(_)) = socket.next().await {}
    });
    if left.await.is_err() {
        close(socket, CLOSE_NORMAL, "the session has ended").await;
    }
}
