//! What carries a session's bytes, once it is known what its client can do.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use moorline_protocol::mux::MuxError;
use serde_json::Value;

use super::{
    basic::Basic,
    client_version::{multiplexes, wants_keep_alive},
    multiplexed::Multiplexed,
    socket::Traffic,
    target::{DialError, Target},
};

type Check = Pin<Box<dyn Future<Output = Result<(), DialError>> + Send>>;

/// The session's way.
pub(super) enum Forward {
    /// The client has not yet said what it can do.
    Unknown,
    Basic(Box<Basic>),
    /// Whether the host may be reached at all. Nothing is opened before.
    Checking(Check, Box<Multiplexed>),
    Multiplexed(Box<Multiplexed>),
}

impl Forward {
    /// For a client of this version, which has agreed on a version of multiplexing.
    pub(super) fn new(target: &Arc<Target>, client: &str, mux_version: u32, limit: usize) -> Self {
        if !target.is_local_forward || !multiplexes(client) {
            return Self::Basic(Box::new(Basic::new(Arc::clone(target))));
        }
        let multiplexed = Box::new(Multiplexed::new(Arc::clone(target), mux_version, limit));
        if !target.has_host() {
            return Self::Multiplexed(multiplexed);
        }
        let target = Arc::clone(target);
        let check = Box::pin(async move { target.addresses().await.map(drop) });
        Self::Checking(check, multiplexed)
    }

    /// Whether a client of this version must hear something every 10 s.
    pub(super) fn is_kept_alive(&self, client: &str, mux_version: u32) -> bool {
        let is_multiplexed = matches!(self, Self::Checking(..) | Self::Multiplexed(_));
        is_multiplexed && mux_version == 1 && wants_keep_alive(client)
    }

    /// Whether the client may send.
    pub(super) fn takes_input(&self) -> bool {
        match self {
            Self::Unknown => true, // it is thrown away
            Self::Checking(..) => false,
            Self::Basic(basic) => basic.takes_input(),
            Self::Multiplexed(multiplexed) => multiplexed.takes_input(),
        }
    }

    /// # Errors
    /// The client does not speak the protocol.
    pub(super) fn input(&mut self, data: &[u8]) -> Result<(), MuxError> {
        match self {
            Self::Unknown => Ok(()),
            Self::Basic(basic) => {
                basic.input(data);
                Ok(())
            }
            Self::Checking(_, multiplexed) | Self::Multiplexed(multiplexed) => multiplexed.input(data),
        }
    }

    pub(super) fn disconnect(&mut self) {
        match self {
            Self::Basic(basic) => basic.disconnect(),
            Self::Unknown | Self::Checking(..) | Self::Multiplexed(_) => {}
        }
    }

    pub(super) fn take_output(&mut self, max: usize) -> Option<Bytes> {
        match self {
            Self::Unknown | Self::Checking(..) => None,
            Self::Basic(basic) => basic.take_output(max),
            Self::Multiplexed(multiplexed) => multiplexed.take_output(max),
        }
    }

    pub(super) fn keep_alive(&mut self) {
        if let Self::Multiplexed(multiplexed) = self {
            multiplexed.keep_alive();
        }
    }

    /// The streams that the client must be told were not connected, one at a time.
    pub(super) fn unreached(&mut self) -> Option<&mut Multiplexed> {
        match self {
            Self::Multiplexed(multiplexed) if multiplexed.has_unreached() => Some(multiplexed),
            _ => None,
        }
    }

    /// How the session ends by itself, once it does.
    pub(super) fn end(&mut self) -> Option<Result<(), String>> {
        match self {
            Self::Unknown => None,
            Self::Basic(basic) => basic.end(),
            Self::Checking(_, multiplexed) | Self::Multiplexed(multiplexed) => multiplexed.failure().map(Err),
        }
    }

    /// What connections did since this was last asked.
    pub(super) fn take_log(&mut self) -> Vec<Value> {
        match self {
            Self::Unknown => Vec::new(),
            Self::Basic(basic) => basic.log.take(),
            Self::Checking(_, multiplexed) | Self::Multiplexed(multiplexed) => multiplexed.log.take(),
        }
    }

    /// The session is over, and its connections with it.
    pub(super) fn log_end(&mut self) {
        match self {
            Self::Unknown => {}
            Self::Basic(basic) => basic.log_end(None),
            Self::Checking(_, multiplexed) | Self::Multiplexed(multiplexed) => multiplexed.log_end(),
        }
    }

    pub(super) fn traffic(&self) -> Traffic {
        match self {
            Self::Unknown => Traffic::default(),
            Self::Basic(basic) => basic.traffic,
            Self::Checking(_, multiplexed) | Self::Multiplexed(multiplexed) => multiplexed.traffic,
        }
    }

    /// Moves what can be moved; ready when something was.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self {
            Self::Unknown => Poll::Pending,
            Self::Basic(basic) => basic.poll(cx),
            Self::Multiplexed(multiplexed) => multiplexed.poll(cx),
            Self::Checking(check, multiplexed) => {
                let Poll::Ready(checked) = check.as_mut().poll(cx) else {
                    return Poll::Pending;
                };
                if let Err(error) = checked {
                    multiplexed.fail(error.to_string());
                }
                if let Self::Checking(_, multiplexed) = std::mem::replace(self, Self::Unknown) {
                    *self = Self::Multiplexed(multiplexed);
                }
                Poll::Ready(())
            }
        }
    }
}
