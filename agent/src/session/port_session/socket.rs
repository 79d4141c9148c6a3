//! A TCP connection of a session, polled.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

use super::target::{DialError, Target};

/// What is read at once.
pub(super) const READ_BYTES: usize = 64 * 1024;

/// A connection that is being made.
pub(super) type Dialling = Pin<Box<dyn Future<Output = Result<TcpStream, DialError>> + Send>>;

pub(super) fn dial(target: &Arc<Target>) -> Dialling {
    let target = Arc::clone(target);
    Box::pin(async move { target.dial().await })
}

/// Bytes that were moved.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Traffic {
    pub(super) connections: u64,
    /// From the client, to what is forwarded to.
    pub(super) in_bytes: u64,
    pub(super) out_bytes: u64,
}

impl Traffic {
    pub(super) fn add_in(&mut self, bytes: usize) {
        self.in_bytes = self.in_bytes.saturating_add(bytes as u64);
    }

    pub(super) fn add_out(&mut self, bytes: usize) {
        self.out_bytes = self.out_bytes.saturating_add(bytes as u64);
    }
}

impl std::ops::AddAssign for Traffic {
    fn add_assign(&mut self, more: Self) {
        self.connections = self.connections.saturating_add(more.connections);
        self.in_bytes = self.in_bytes.saturating_add(more.in_bytes);
        self.out_bytes = self.out_bytes.saturating_add(more.out_bytes);
    }
}

impl std::ops::Sub for Traffic {
    type Output = Self;

    /// What came after `before`.
    fn sub(self, before: Self) -> Self {
        Self {
            connections: self.connections.saturating_sub(before.connections),
            in_bytes: self.in_bytes.saturating_sub(before.in_bytes),
            out_bytes: self.out_bytes.saturating_sub(before.out_bytes),
        }
    }
}

/// Zero bytes are the end.
pub(super) fn poll_read(
    stream: &mut TcpStream,
    cx: &mut Context<'_>,
    into: &mut [u8],
) -> Poll<io::Result<usize>> {
    let mut buffer = ReadBuf::new(into);
    ready!(Pin::new(stream).poll_read(cx, &mut buffer))?;
    Poll::Ready(Ok(buffer.filled().len()))
}

pub(super) fn poll_write(
    stream: &mut TcpStream,
    cx: &mut Context<'_>,
    data: &[u8],
) -> Poll<io::Result<usize>> {
    Pin::new(stream).poll_write(cx, data)
}

/// Nothing more is written. TCP needs no wait for that.
pub(super) fn shut_down(stream: &mut TcpStream, cx: &mut Context<'_>) {
    if let Poll::Ready(Err(error)) = Pin::new(stream).poll_shutdown(cx) {
        tracing::debug!(%error, "a connection was gone before its end was told");
    }
}

/// Closes a connection so that its peer does not take it for complete.
pub(super) fn abort(stream: &TcpStream) {
    if let Err(error) = stream.set_zero_linger() {
        tracing::debug!(%error, "a connection ends as if it were complete");
    }
}
