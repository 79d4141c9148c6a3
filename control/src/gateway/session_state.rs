//! Writes what a relay learns about its session into the store, without making the relay wait for the disk.

use std::{
    sync::Arc,
    task::{Context, Poll},
};

use futures_util::future::BoxFuture;
use moorline_protocol::{
    error_chain,
    types::{InstanceId, SessionId},
};

use super::relay::{Ending, RelayEvent};
use crate::{
    app::App,
    store::{SessionStatus, StoreError},
};

/// The session's row, as one relay writes it. Only the newest status matters, so no more than one waits.
pub(super) struct SessionState {
    app: Arc<App>,
    session: SessionId,
    node: InstanceId,
    client_id: Option<String>,
    next: Option<SessionStatus>,
    writing: Option<BoxFuture<'static, Result<(), StoreError>>>,
}

impl SessionState {
    pub(super) fn new(app: Arc<App>, session: SessionId, node: InstanceId) -> Self {
        Self {
            app,
            session,
            node,
            client_id: None,
            next: None,
            writing: None,
        }
    }

    pub(super) fn client_is(&mut self, client_id: String) {
        self.client_id = Some(client_id);
    }

    pub(super) fn taken_over_by(&self, operator: &str) {
        tracing::warn!(session = %self.session, by = operator, "a session was taken over by another client");
        self.app
            .audit
            .session_taken_over(&self.session, self.node.as_str(), operator);
    }

    pub(super) fn count_malformed(&self) {
        let metrics = &self.app.metrics;
        metrics
            .counter("moorline_malformed_frames_total", &[("channel", "data")])
            .increment();
    }

    pub(super) fn record(&mut self, event: RelayEvent) {
        self.next = Some(match event {
            RelayEvent::Connected => SessionStatus::Connected,
            // until the node serves the new client
            RelayEvent::Disconnected | RelayEvent::TakenOver => SessionStatus::Disconnected,
            RelayEvent::Terminating => SessionStatus::Terminating,
            RelayEvent::Ended(_) => return,
        });
    }

    /// Goes on with the writing. `Ready`: nothing is left to write.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            if let Some(writing) = &mut self.writing {
                let Poll::Ready(written) = writing.as_mut().poll(cx) else {
                    return Poll::Pending;
                };
                self.writing = None;
                if let Err(error) = written {
                    tracing::error!(session = %self.session, error = %error_chain(&error), "failed to record a session's status");
                }
            }
            let Some(status) = self.next.take() else {
                return Poll::Ready(());
            };
            let (app, session, client_id) = (
                Arc::clone(&self.app),
                self.session.clone(),
                self.client_id.clone(),
            );
            self.writing = Some(Box::pin(async move {
                app.store
                    .session_moved(&session, status, client_id.as_deref())
                    .await
            }));
        }
    }

    /// The last word. The relay's task waits for it, nobody else does.
    pub(super) async fn finish(mut self, ending: Ending) {
        std::future::poll_fn(|cx| self.poll(cx)).await;
        let status = if ending.failed {
            SessionStatus::Failed
        } else {
            SessionStatus::Terminated
        };
        let ended = self
            .app
            .end_session(&self.session, status, &ending.reason, ending.exit_code)
            .await;
        // those who watch it are told of its end with its recording
        self.app.transcripts.has_changed();
        match ended {
            Ok(true) => tracing::info!(session = %self.session, reason = ending.reason, "session ended"),
            Ok(false) => {}
            Err(error) => {
                tracing::error!(session = %self.session, error = %error_chain(&error), "failed to record the end of a session");
            }
        }
    }
}
