//! Commands on their way over the control channel: jobs out, acknowledgements and replies in.
//!
//! The hub of control channels calls in here; everything that must survive a restart is in the store before the hub
//! goes on. A job that may have left is noted as sent first; a reply is stored before it is acknowledged.

#[cfg(test)]
pub(crate) mod fixture;
#[cfg(test)]
mod tests;
mod untold_ends;

use moorline_protocol::{
    message::{
        AgentJob, AgentJobAck, AgentJobReply, CancelCommandContent, JobAckCode, TOPIC_CANCEL_COMMAND,
        TOPIC_SEND_COMMAND,
    },
    types::{CommandId, InstanceId},
};
use tracing::{debug, info, warn};
use uuid::Uuid;

use super::rest::LATE_MILLIS;
use crate::{
    app::App,
    engine::{invocation::REDELIVERY_MILLIS, reply::Reply},
    log_lines::{shown, shown_line},
    store::{DUE_JOBS, DueJob, DueJobKind, Expired, OldCommand, StoreError},
};

/// Commands are kept this long after they were requested, in milliseconds: 30 days; and as long as their recordings may
/// still arrive.
const RETENTION_MILLIS: u64 = 30 * 24 * 60 * 60 * 1000;
/// A job that is due again is nudged this long; after that its node is not connected, and connecting finds it.
const NUDGE_WINDOW_MILLIS: u64 = 2 * REDELIVERY_MILLIS;

/// A job to be sent as `agent_job`, in a frame with this message id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OutgoingJob {
    pub(crate) job_id: String,
    pub(crate) message_id: Uuid,
    pub(crate) payload: AgentJob,
}

/// The jobs that are to be sent to this node now: never sent, or not answered for 5 seconds. They count as sent.
pub(crate) async fn due(app: &App, node: &InstanceId) -> Result<Vec<OutgoingJob>, StoreError> {
    let jobs = app
        .store
        .take_due_jobs(node, app.clock.unix_millis(), Uuid::new_v4)
        .await?;
    if jobs.len() >= DUE_JOBS {
        // there may be more: they get their own turn
        app.routing.nudge(node);
    }
    Ok(jobs.into_iter().map(|job| outgoing(app, node, job)).collect())
}

/// The node has a new control channel: what it left unanswered is due at once.
pub(crate) async fn on_connected(app: &App, node: &InstanceId) -> Result<(), StoreError> {
    app.store.resend_at_once(node, app.clock.unix_millis()).await
}

/// The node answered a job.
pub(crate) async fn acked(app: &App, node: &InstanceId, ack: &AgentJobAck) -> Result<(), StoreError> {
    let now = app.clock.unix_millis();
    let code = JobAckCode::from_status_code(&ack.status_code);
    let Some(id) = id_in_job(&ack.job_id, node) else {
        warn_of(
            app,
            node,
            (&ack.job_id, None),
            "acknowledgement of a job that is not this node's",
        );
        return Ok(());
    };
    if !matches!(code, JobAckCode::Successful | JobAckCode::DuplicateCommand)
        && let Some(held_back) = app.node_lines.refusals.admit(now)
    {
        let (job_id, code) = (shown(&ack.job_id), shown(&ack.status_code));
        info!(%node, %job_id, %code, held_back, "the node refused a job");
    }
    let message_id = ack.acknowledged_message_id.parse().ok();
    let answered = app
        .store
        .acknowledge_job(&id, node, (code, message_id), now)
        .await?;
    if let Some(recorded) = answered {
        return match recorded.has_ended {
            true => ended(app, &id, recorded.may_hold).await,
            false => Ok(()),
        };
    }
    match app.store.command_of_cancel(id.as_str(), node).await? {
        Some(command) => app
            .store
            .acknowledge_cancel(&command, node, code, now)
            .await
            .map(drop),
        None => {
            warn_of(
                app,
                node,
                (&ack.job_id, None),
                "acknowledgement of an unknown job",
            );
            Ok(())
        }
    }
}

/// The node reported on a job. After `Ok` the report is stored, or is of no use, and may be acknowledged.
pub(crate) async fn replied(
    app: &App,
    node: &InstanceId,
    message_id: Uuid,
    message: &AgentJobReply,
) -> Result<(), StoreError> {
    let now = app.clock.unix_millis();
    let Some(id) = id_in_job(&message.job_id, node) else {
        warn_of(
            app,
            node,
            (&message.job_id, Some(message_id)),
            "reply to a job that is not this node's",
        );
        return Ok(());
    };
    if message.topic.starts_with(TOPIC_CANCEL_COMMAND) {
        // the only reply to a cancel job, as good as its acknowledgement
        if let Some(command) = app.store.command_of_cancel(id.as_str(), node).await? {
            app.store
                .acknowledge_cancel(&command, node, JobAckCode::Successful, now)
                .await?;
        }
        return Ok(());
    }
    let reply = match Reply::parse(message) {
        Ok(reply) => reply,
        Err(error) => {
            // repeating it would not make it readable
            let what = format!("a reply cannot be read: {error}");
            warn_of(app, node, (&message.job_id, Some(message_id)), &what);
            app.metrics
                .counter("moorline_unreadable_replies_total", &[])
                .increment();
            app.store.note_unreadable_reply(&id, node).await?;
            return Ok(());
        }
    };
    let status = reply.document_status.as_str();
    match app.store.record_reply(&id, node, reply, now).await? {
        None => warn_of(
            app,
            node,
            (&message.job_id, Some(message_id)),
            "reply to an unknown command",
        ),
        Some(recorded) => {
            if !recorded.has_ended {
                debug!(%node, %message_id, command_id = %id, status, "reply");
                return Ok(());
            }
            info!(%node, command_id = %id, status, "command ended on node");
            ended(app, &id, recorded.may_hold).await?;
            let has_refused = app.store.has_refused_jobs(node).await?;
            if has_refused && app.store.resend_refused(node, now).await? {
                app.routing.nudge(node);
            }
        }
    }
    Ok(())
}

/// The node has said how a command ended there, and that is stored.
async fn ended(app: &App, command: &CommandId, may_hold: bool) -> Result<(), StoreError> {
    count_ended_by_nodes(app, 1);
    match may_hold {
        true => release(app, command).await,
        false => Ok(()),
    }
}

fn count_ended_by_nodes(app: &App, number: usize) {
    if let Some(store) = &app.output_store {
        store.has_work();
    }
    app.metrics
        .counter("moorline_invocations_ended_total", &[("by", "node")])
        .add(number as u64);
}

/// Lets those invocations of a command go that have their turn.
async fn release(app: &App, command: &CommandId) -> Result<(), StoreError> {
    let now = app.clock.unix_millis();
    for node in app.store.release_held(command, now).await? {
        app.routing.nudge(&node);
    }
    Ok(())
}

/// Called each second by one task: time-outs, ends for the audit log, turns, jobs to be sent again.
pub(crate) async fn sweep(app: &App) -> Result<(), StoreError> {
    let now = app.clock.unix_millis();
    let Expired { changed, told } = app.store.expire_invocations(now).await?;
    if told > 0 {
        count_ended_by_nodes(app, told);
    }
    let silent = changed - told;
    if silent > 0 {
        info!(ended = silent, "invocations ran out of time");
        app.metrics
            .counter("moorline_invocations_ended_total", &[("by", "deadline")])
            .add(silent as u64);
    }
    let told = untold_ends::tell(app).await;
    // all of them, a part at a time: those that nothing happens on hold no other up
    let mut behind = Some(String::new());
    while let Some(last) = behind {
        let (commands, next) = app.store.commands_with_turn(&last).await?;
        for command in commands {
            release(app, &command).await?;
        }
        behind = next;
    }
    let window = (now.saturating_sub(NUDGE_WINDOW_MILLIS), now);
    let mut behind = String::new();
    loop {
        let nodes = app.store.nodes_to_resend(window, &behind).await?;
        let Some(last) = nodes.last() else { return told };
        behind = last.to_string();
        for node in &nodes {
            app.routing.nudge(node);
        }
    }
}

/// Deletes what is old, one command or a part of it at a time. It is in the audit log before anything of it goes; a crash
/// behind that records it twice.
pub(crate) async fn forget_command(app: &App) -> Result<(), StoreError> {
    let now = app.clock.unix_millis();
    let (cutoff, ended) = (
        now.saturating_sub(RETENTION_MILLIS),
        now.saturating_sub(LATE_MILLIS),
    );
    let Some(OldCommand { id, is_whole }) = app.store.old_command(cutoff, ended).await? else {
        return Ok(());
    };
    if is_whole {
        let recorded = app
            .audit
            .command_deleted(&id, "it was sent more than 30 days ago");
        // the log of the process says why it is not
        if recorded.await.is_err() {
            return Ok(());
        }
    }
    app.store.forget_command(&id).await.map(drop)
}

fn outgoing(app: &App, node: &InstanceId, job: DueJob) -> OutgoingJob {
    let command_job_id = job_id(job.command_id.as_str(), node);
    let (job_id, topic, content) = match job.kind {
        DueJobKind::Send { content } => (command_job_id, TOPIC_SEND_COMMAND, content),
        DueJobKind::Cancel { cancel_id } => {
            let content = CancelCommandContent {
                cancel_message_id: command_job_id,
            };
            let content = serde_json::to_string(&content).expect("a structure of one text can be written");
            (job_id(&cancel_id, node), TOPIC_CANCEL_COMMAND, content)
        }
    };
    let payload = AgentJob {
        content,
        job_id: job_id.clone(),
        topic: format!("{topic}.{}.{node}", app.region),
        schema_version: 1,
    };
    OutgoingJob {
        job_id,
        message_id: job.message_id,
        payload,
    }
}

fn job_id(id: &str, node: &InstanceId) -> String {
    format!("aws.ssm.{id}.{node}")
}

/// The UUID in a job id that was made for this node.
fn id_in_job(job_id: &str, node: &InstanceId) -> Option<CommandId> {
    let id = job_id
        .strip_prefix("aws.ssm.")?
        .strip_suffix(node.as_str())?
        .strip_suffix('.')?;
    id.parse().ok()
}

/// Tells of what a node says of jobs, which it may say as often as it likes.
fn warn_of(app: &App, node: &InstanceId, (job_id, message_id): (&str, Option<Uuid>), what: &str) {
    if let Some(held_back) = app.node_lines.answers.admit(app.clock.unix_millis()) {
        let message_id = message_id.map(tracing::field::display);
        warn!(%node, message_id, job_id = %shown(job_id), held_back, "{}", shown_line(what));
    }
}
