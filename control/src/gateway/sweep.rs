//! What the gateway does by itself: time limits of sessions, redelivery, syncing of transcripts.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use moorline_protocol::{error_chain, types::TranscriptId};
use tokio::time::Instant;

use super::{
    Gateway, at_rest,
    clock_watch::{Age, ClockStep, ClockWatch},
    command_delivery,
    relay::Ending,
    rest::{self, LATE_MILLIS},
};
use crate::{
    app::{App, Routing as _},
    store::{SessionRow, SessionStatus, StoreError},
};

/// Transcripts are synced, and commands looked after, this often.
const TICK: Duration = Duration::from_secs(1);
/// What each node's recordings take of the disk is counted every so many ticks, beginning with the first.
const SHARE_TICKS: u64 = 60;
/// Sessions are looked at every so many.
const SESSION_TICKS: u64 = 5;
/// Attachments at every so many.
const ATTACHMENT_TICKS: u64 = 60 * 60;
/// How long neither side may come, after the start of the session or of the endpoint.
const ATTACH_TIMEOUT: Duration = Duration::from_secs(60);
/// The use of a session is written down when it is this much newer than what is stored, in milliseconds.
const USE_RESOLUTION_MILLIS: u64 = 30_000;
/// Sessions that have ended are kept this long, in milliseconds: 90 days. Their transcripts have a time of their own.
const RETENTION_MILLIS: u64 = 90 * 24 * 60 * 60 * 1000;
/// Nothing is deleted, and no recording given up, until the clock went undisturbed for this time: one that is wrong makes
/// all history old.
const UNDISTURBED: Duration = Duration::from_secs(60 * 60);

pub(super) async fn run(app: Weak<App>, gateway: Weak<Gateway>) {
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut count: u64 = 0;
    let mut watch = None;
    let mut undisturbed_since = Instant::now();
    let mut closed_up_to = None;
    loop {
        ticks.tick().await;
        let (Some(app), Some(gateway)) = (app.upgrade(), gateway.upgrade()) else {
            return;
        };
        if count.is_multiple_of(SHARE_TICKS) {
            report(
                "count what transcripts take of the disk",
                app.transcripts.count_shares(&app.store).await,
            );
        }
        count += 1;
        report(
            "sync transcripts",
            app.transcripts.sync(app.clock.unix_millis()).await,
        );
        let watch = watch.get_or_insert_with(|| ClockWatch::new(&app.clock));
        if let Some(step) = watch.look(&app.clock) {
            let settled = settle(&app, &gateway, step).await;
            if settled.is_ok() {
                watch.settled(step);
            }
            report("follow the clock, which was set", settled);
            undisturbed_since = Instant::now();
            continue;
        }
        report("look after commands", command_delivery::sweep(&app).await);
        let is_clock_trusted = undisturbed_since.elapsed() >= UNDISTURBED;
        if is_clock_trusted {
            report(
                "delete old commands",
                command_delivery::forget_command(&app).await,
            );
        }
        if count.is_multiple_of(SESSION_TICKS) {
            report("look after parameters", notify_of_parameters(&app).await);
            report("look after sessions", look_after_sessions(&app, &gateway).await);
            app.tell_ends_of_sessions().await;
            if is_clock_trusted {
                report(
                    "close transcripts that were left open",
                    close_transcripts(&app, &mut closed_up_to).await,
                );
                report("delete old sessions", forget_sessions(&app).await);
                report("delete expired parameters", delete_expired_parameters(&app).await);
                report("delete old transcripts", at_rest::expire(&app).await);
                if count.is_multiple_of(ATTACHMENT_TICKS) {
                    report(
                        "delete attachments of no document",
                        delete_attachments(&app).await,
                    );
                }
            }
        }
    }
}

fn report(doing: &'static str, done: Result<(), StoreError>) {
    if let Err(error) = done {
        tracing::error!(
            error = %error_chain(&error),
            "failed to {doing}; it is tried again"
        );
    }
}

/// Recordings whose node did not come back in time to say that they are whole, a bounded part at a time: those that
/// cannot be closed hold none behind them up.
pub(super) async fn close_transcripts(
    app: &App,
    behind: &mut Option<TranscriptId>,
) -> Result<(), StoreError> {
    let cutoff = app.clock.unix_millis().saturating_sub(LATE_MILLIS);
    let (open, next) = app.store.transcripts_left_open(cutoff, behind.as_ref()).await?;
    *behind = next;
    let mut closed = Ok(());
    for (node, id) in open {
        // one whose file is damaged keeps no other waiting
        closed = closed.and(rest::cut(app, &node, &id).await);
    }
    closed
}

/// A bounded part at a time.
pub(super) async fn forget_sessions(app: &App) -> Result<(), StoreError> {
    let cutoff = app.clock.unix_millis().saturating_sub(RETENTION_MILLIS);
    let sessions = app.store.sessions_ended_before(cutoff).await?;
    // together, so that they wait for the disk once
    let recorded = sessions.iter().map(|session| {
        app.audit
            .session_deleted(session, "it ended more than 90 days ago")
    });
    let recorded = futures_util::future::join_all(recorded).await;
    for (session, recorded) in sessions.iter().zip(recorded) {
        // the log of the process says why it is not
        if recorded.is_ok() {
            app.store.forget_session(session).await?;
        }
    }
    Ok(())
}

/// Files of versions that were deleted, and such as were uploaded and not attached.
pub(super) async fn delete_attachments(app: &App) -> Result<(), StoreError> {
    let now = app.clock.unix_millis();
    // What is attached after this was claimed, and is young.
    let used = app.store.attached_files().await?;
    app.attachments.remove_unused(used, now).await
}

/// What has expired is given out no more; here it leaves the disk as well, a bounded part at a time.
pub(super) async fn delete_expired_parameters(app: &App) -> Result<(), StoreError> {
    let now = app.clock.unix_millis();
    let expired = app.store.expired_parameters(now).await?;
    // together, so that they wait for the disk once
    let recorded = expired
        .iter()
        .map(|name| app.audit.parameter_deleted(name, "its policy had it expire"));
    let recorded = futures_util::future::join_all(recorded).await;
    for (name, recorded) in expired.iter().zip(recorded) {
        // the log of the process says why it is not
        if recorded.is_ok() && app.store.delete_expired_parameter(name, now).await? {
            tracing::info!(name, "deleted a parameter that had expired");
        }
    }
    Ok(())
}

/// The notifications that policies of parameters ask for: lines of the log, which whoever watches it can act on.
pub(super) async fn notify_of_parameters(app: &App) -> Result<(), StoreError> {
    for due in app
        .store
        .take_due_parameter_policies(app.clock.unix_millis())
        .await?
    {
        tracing::warn!(
            name = due.name,
            policy = due.policy_type,
            text = due.policy_text,
            "a policy of a parameter is due"
        );
    }
    Ok(())
}

/// The wall clock was set: nothing is decided by it now, and what waits for a time of the old one is moved.
pub(super) async fn settle(app: &App, gateway: &Gateway, step: ClockStep) -> Result<(), StoreError> {
    tracing::warn!(
        millis = step.millis,
        "the clock of this machine was set; deadlines are moved with it"
    );
    let open = app.store.open_sessions().await?;
    app.store.move_deadlines(step.millis, step.between).await?;
    let mut ages = gateway.session_ages();
    for session in &open {
        ages.of(session, &app.clock, true);
    }
    Ok(())
}

pub(super) async fn look_after_sessions(app: &Arc<App>, gateway: &Arc<Gateway>) -> Result<(), StoreError> {
    for session in app.store.orphaned_sessions().await? {
        let reason = "the node was deregistered".to_owned();
        end_session(app, gateway, &session, (SessionStatus::Terminated, reason)).await?;
    }
    let open = app.store.open_sessions().await?;
    gateway.session_ages().forget_others(&open);
    for session in open {
        let relay = gateway.relay(&session.session_id);
        let Age { age, mut idle } = gateway.session_ages().of(&session, &app.clock, false);
        if let Some(relay) = &relay {
            idle = idle.min(app.clock.steady_millis().saturating_sub(relay.last_activity()));
        }
        let attached = relay.is_some();
        let waited_out = gateway.started_at.elapsed() >= ATTACH_TIMEOUT;
        let last_activity = app.clock.unix_millis().saturating_sub(idle);
        if let Some(end) = overdue(&session, Age { age, idle }, attached, waited_out) {
            end_session(app, gateway, &session, end).await?;
        } else if last_activity >= session.last_activity_at.saturating_add(USE_RESOLUTION_MILLIS) {
            app.store.session_used(&session.session_id, last_activity).await?;
        }
    }
    Ok(())
}

/// Whether a session must end now, and why.
fn overdue(
    session: &SessionRow,
    Age { age, idle }: Age,
    attached: bool,
    waited_out: bool,
) -> Option<(SessionStatus, String)> {
    let minutes = |millis: u64| millis / 60_000;
    if let Some(limit) = session.max_duration_millis.filter(|limit| age >= *limit) {
        let text = format!(
            "the session reached its maximum duration of {} minutes",
            minutes(limit)
        );
        return Some((SessionStatus::Terminated, text));
    }
    if idle >= session.idle_timeout_millis {
        let text = format!(
            "the session was not used for {} minutes",
            minutes(session.idle_timeout_millis)
        );
        return Some((SessionStatus::Terminated, text));
    }
    // the endpoint was stopped between the node's report and the end
    if session.agent_done && !attached {
        return Some((SessionStatus::Terminated, String::new()));
    }
    // with a relay the relay watches over its sides
    if attached || u128::from(age) < ATTACH_TIMEOUT.as_millis() || !waited_out {
        return None;
    }
    Some(if session.agent_attached {
        (
            SessionStatus::Terminated,
            "connection to the node lost".to_owned(),
        )
    } else {
        (SessionStatus::Failed, "node did not answer".to_owned())
    })
}

async fn end_session(
    app: &App,
    gateway: &Gateway,
    session: &SessionRow,
    (status, reason): (SessionStatus, String),
) -> Result<(), StoreError> {
    app.end_session(&session.session_id, status, &reason, None)
        .await?;
    let failed = status == SessionStatus::Failed;
    gateway
        .end_relay(
            &session.session_id,
            Ending {
                reason,
                exit_code: None,
                failed,
            },
        )
        .await;
    gateway.nudge(&session.node);
    Ok(())
}
