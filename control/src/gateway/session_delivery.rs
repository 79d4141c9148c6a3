//! Sessions on their way over a control channel: `interactive_shell` and `channel_closed` out, `agent_task_complete`
//! in (agent-wire §6.9, §6.10). None of the first two is acknowledged, so what counts is what the store says.

use std::collections::BTreeMap;

use bytes::Bytes;
use moorline_protocol::{
    message::{
        AgentMessage, AgentTaskAcknowledge, AgentTaskComplete, ChannelClosed, InteractiveShell, MessageType,
    },
    time::Now,
    types::{InstanceId, SessionId},
};
use uuid::Uuid;

use super::{
    Gateway,
    control_channel::json,
    relay::{Ending, Order},
    wall_time,
};
use crate::{
    app::App,
    engine::reply::cut,
    store::{AgentEnd, SessionDue, SessionStatus, StoreError},
};

/// How often the end of a session is told on one connection, and then no more; a node that knows nothing of it never
/// answers.
const MOST_TELLINGS: u32 = 12;
/// What is kept of a node's words about an end, which lists of sessions show.
const DETAILS_BYTES: usize = 1024;
/// Ends are told again after this time.
const TELL_AGAIN_MILLIS: u64 = 5000;

/// What this connection was told already.
#[derive(Debug, Default)]
pub(super) struct SessionDelivery {
    /// Only sessions that are still due: the rest is forgotten at each look.
    told: BTreeMap<SessionId, Told>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Told {
    started: bool,
    ended: u32,
    /// When its end was told last, by the steady clock.
    ended_at: Option<u64>,
}

impl SessionDelivery {
    /// Frames to send now.
    pub(super) async fn due(
        &mut self,
        app: &App,
        node: &InstanceId,
        now: Now,
    ) -> Result<Vec<Bytes>, StoreError> {
        let due = app.store.sessions_due(node, now.unix_millis).await?;
        let mut told = BTreeMap::new();
        let mut frames = Vec::new();
        for session in due {
            let (SessionDue::Start { session_id, .. } | SessionDue::End { session_id }) = &session;
            let mut so_far = self.told.get(session_id).copied().unwrap_or_default();
            let steady_millis = app.clock.steady_millis();
            if so_far.is_told_enough(steady_millis) {
                // a node that never heard of it does not answer; others wait for this place
                app.store.session_told(session_id).await?;
                continue;
            }
            frames.extend(so_far.tell(node, &session, now, steady_millis));
            told.insert(session_id.clone(), so_far);
        }
        self.told = told;
        Ok(frames)
    }

    /// The node's side of a session is over. Returns the acknowledgement.
    pub(super) async fn completed(
        &mut self,
        app: &App,
        gateway: &Gateway,
        node: &InstanceId,
        now: Now,
        (message, complete): (&AgentMessage, &AgentTaskComplete),
    ) -> Result<Bytes, StoreError> {
        if let Ok(session) = complete.task_id.parse::<SessionId>() {
            // on disk before the acknowledgement: the node forgets its session with it
            let end = agent_end(complete);
            if app.store.session_agent_done(&session, node, &end).await? {
                self.told.remove(&session);
                end_session(app, gateway, &session, end).await?;
            }
        }
        let payload = json(&AgentTaskAcknowledge {
            schema_version: 1,
            message_id: message.message_id.to_string(),
            task_id: complete.task_id.clone(),
            topic: complete.topic.clone(),
        });
        let acknowledge = MessageType::AgentTaskAcknowledge;
        Ok(AgentMessage::control(acknowledge, Uuid::new_v4(), now, 0, payload).encode())
    }
}

fn agent_end(complete: &AgentTaskComplete) -> AgentEnd {
    let failed = complete.final_task_status == "Failed";
    AgentEnd {
        status: if failed {
            SessionStatus::Failed
        } else {
            SessionStatus::Terminated
        },
        details: cut(complete.output.clone(), DETAILS_BYTES),
        exit_code: complete.moorline_exit_code,
    }
}

/// The relay delivers what is left, tells the client and ends the session; without one there is nobody to tell.
async fn end_session(
    app: &App,
    gateway: &Gateway,
    session: &SessionId,
    end: AgentEnd,
) -> Result<(), StoreError> {
    let ending = Ending {
        reason: end.details.clone(),
        exit_code: end.exit_code,
        failed: end.status == SessionStatus::Failed,
    };
    if let Some(relay) = gateway.relay(session)
        && relay.order(Order::TaskCompleted(ending.clone())).await
    {
        return Ok(());
    }
    app.end_session(session, end.status, &end.details, end.exit_code)
        .await?;
    // its client may have come while this was written, and have found nothing of it
    gateway.end_relay(session, ending).await;
    Ok(())
}

impl Told {
    fn was_told_recently(&self, steady_millis: u64) -> bool {
        let passed = |then: u64| steady_millis.saturating_sub(then);
        self.ended_at.is_some_and(|then| passed(then) < TELL_AGAIN_MILLIS)
    }

    fn is_told_enough(&self, steady_millis: u64) -> bool {
        self.ended >= MOST_TELLINGS && !self.was_told_recently(steady_millis)
    }

    fn tell(&mut self, node: &InstanceId, due: &SessionDue, now: Now, steady_millis: u64) -> Option<Bytes> {
        match due {
            SessionDue::Start { .. } if self.started => None,
            SessionDue::Start { session_id, content } => {
                self.started = true;
                Some(interactive_shell(session_id, content, now))
            }
            SessionDue::End { session_id } => {
                if self.was_told_recently(steady_millis) {
                    return None;
                }
                self.ended += 1;
                self.ended_at = Some(steady_millis);
                Some(channel_closed(node, session_id, now))
            }
        }
    }
}

fn interactive_shell(session: &SessionId, content: &str, now: Now) -> Bytes {
    let payload = json(&InteractiveShell {
        content: content.to_owned(),
        task_id: session.to_string(),
        topic: "aws.ssm.startSession".to_owned(),
        schema_version: 1,
    });
    AgentMessage::control(MessageType::InteractiveShell, Uuid::new_v4(), now, 0, payload).encode()
}

fn channel_closed(node: &InstanceId, session: &SessionId, now: Now) -> Bytes {
    let payload = json(&ChannelClosed {
        message_schema_version: "1.0".to_owned(),
        message_id: Uuid::new_v4().to_string(),
        created_date: wall_time(now.unix_millis),
        destination_id: node.to_string(),
        session_id: session.to_string(),
        message_type: "channel_closed".to_owned(),
        schema_version: 1,
        output: String::new(),
        moorline_exit_code: None,
    });
    AgentMessage::control(MessageType::ChannelClosed, Uuid::new_v4(), now, 0, payload).encode()
}

#[cfg(test)]
mod tests;
