//! What every request and every channel shares.

use std::{fmt, sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use moorline_protocol::{
    error_chain,
    message::PolicyAnswer,
    types::{InstanceId, SessionId},
};

use crate::{
    audit::{self, AuditLog},
    auth::{EndpointSigningKey, KmsKeys, LatelyRegistered, MasterKey},
    log_lines::NodeLines,
    server::{Bodies, LongPolls, Metrics},
    store::{AttachmentFiles, OutputStore, S3Source, SessionStatus, Store, StoreError},
};

/// What time it is; functions, so that tests can move time.
#[derive(Clone)]
pub(crate) struct Clock {
    unix_millis: Arc<dyn Fn() -> u64 + Send + Sync>,
    steady_millis: Arc<dyn Fn() -> u64 + Send + Sync>,
}

impl Clock {
    pub(crate) fn system() -> Self {
        let start = std::time::Instant::now();
        Self {
            unix_millis: Arc::new(|| {
                let since_epoch = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
                since_epoch.map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX))
            }),
            steady_millis: Arc::new(move || u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX)),
        }
    }

    /// Both clocks go alike.
    #[cfg(test)]
    pub(crate) fn from_fn(read: impl Fn() -> u64 + Send + Sync + 'static) -> Self {
        let read = Arc::new(read);
        Self {
            unix_millis: Arc::clone(&read) as Arc<_>,
            steady_millis: read,
        }
    }

    /// With a wall clock that can be set.
    #[cfg(test)]
    pub(crate) fn from_fns(
        unix_millis: impl Fn() -> u64 + Send + Sync + 'static,
        steady_millis: impl Fn() -> u64 + Send + Sync + 'static,
    ) -> Self {
        Self {
            unix_millis: Arc::new(unix_millis),
            steady_millis: Arc::new(steady_millis),
        }
    }

    /// Wall clock, in milliseconds since the Unix epoch. It may be set, forwards and back.
    pub(crate) fn unix_millis(&self) -> u64 {
        (self.unix_millis)()
    }

    /// Milliseconds since some moment of this process, for measuring what passes within it.
    pub(crate) fn steady_millis(&self) -> u64 {
        (self.steady_millis)()
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Clock({})", self.unix_millis())
    }
}

/// How long a node may take to answer a question.
pub(crate) const QUESTION_PATIENCE: Duration = Duration::from_secs(5);

/// Why it is not known what a node's policy says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotAnswered {
    #[error("not connected")]
    Offline,
    #[error("its agent cannot be asked: it knows no such question")]
    Unable,
    #[error("too many questions wait for its answer")]
    Busy,
    #[error("it has not answered within {} s", QUESTION_PATIENCE.as_secs())]
    Silent,
}

/// Where a node's channels end. In this process today; in a cluster on any replica, so no handler may assume.
///
/// A nudge carries no data: whoever holds the node's control channel looks into the store. A lost nudge costs
/// latency (the periodic look finds the same work), never correctness.
pub(crate) trait Routing: Send + Sync + fmt::Debug {
    /// Whether the node's control channel stands.
    fn is_connected<'a>(&'a self, node: &'a InstanceId) -> BoxFuture<'a, bool>;
    /// Asks the node what its owner's policy would make of a command, by the content of its job. `Err`: it is not known,
    /// and this is why. It takes [`QUESTION_PATIENCE`] at most.
    fn ask_policy<'a>(
        &'a self,
        node: &'a InstanceId,
        content: &'a Arc<str>,
    ) -> BoxFuture<'a, Result<PolicyAnswer, NotAnswered>>;
    /// There is something for this node in the store: jobs, sessions to start, sessions to end.
    fn nudge(&self, node: &InstanceId);
    /// End the session's channels on both sides; the reason is shown to the client, empty for a normal end.
    fn end_session<'a>(&'a self, session: &'a SessionId, reason: &'a str) -> BoxFuture<'a, ()>;
    /// The node was deregistered: close its control channel.
    fn disconnect<'a>(&'a self, node: &'a InstanceId, reason: &'a str) -> BoxFuture<'a, ()>;
}

/// Shared by everything; cheap to clone behind its `Arc`.
#[derive(Debug)]
pub(crate) struct App {
    /// The bytes of documents' attachments.
    pub(crate) attachments: AttachmentFiles,
    /// Where requests may have them read from; `None`: they are uploaded.
    pub(crate) attachment_source: Option<S3Source>,
    pub(crate) audit: AuditLog,
    pub(crate) bodies: Bodies,
    pub(crate) clock: Clock,
    pub(crate) keys: MasterKey,
    pub(crate) kms: KmsKeys,
    pub(crate) lately_registered: LatelyRegistered,
    pub(crate) metrics: Metrics,
    pub(crate) node_lines: NodeLines,
    /// Where output of commands is brought, if they name a bucket; `None`: nowhere.
    pub(crate) output_store: Option<Arc<OutputStore>>,
    /// Of agents that ask for messages by the older way.
    pub(crate) polls: LongPolls,
    /// Region that clients sign for; any is accepted, this one is told to nodes.
    pub(crate) region: String,
    pub(crate) routing: Arc<dyn Routing>,
    /// What the endpoint signs its audit log and received transcripts with.
    pub(crate) signing_key: Arc<EndpointSigningKey>,
    pub(crate) store: Store,
    /// How long transcripts are kept after they were closed; `None`: for ever.
    pub(crate) transcript_retention_millis: Option<u64>,
    /// Where recorded transcripts are.
    pub(crate) transcripts: crate::store::TranscriptFiles,
}

impl App {
    /// Ends a session in the store, with its record in the audit log. `false`: it had ended before, or never was.
    ///
    /// # Errors
    /// The store failed.
    pub(crate) async fn end_session(
        &self,
        session: &SessionId,
        status: SessionStatus,
        details: &str,
        exit_code: Option<i32>,
    ) -> Result<bool, StoreError> {
        let now = self.clock.unix_millis();
        let has_ended = self
            .store
            .end_session(session, status, details, exit_code, now)
            .await?;
        if has_ended {
            self.tell_ends_of_sessions().await;
        }
        Ok(has_ended)
    }

    /// Has the audit log have the ends of sessions that the store has. What cannot be told now is told later.
    pub(crate) async fn tell_ends_of_sessions(&self) {
        if let Err(error) = audit::tell_ends_of_sessions(self).await {
            tracing::error!(
                error = %error_chain(&error),
                "failed to tell the audit log of sessions that have ended; it is tried again"
            );
        }
    }
}
