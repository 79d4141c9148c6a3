//! What the gateway does by itself: time limits of sessions, redelivery, syncing of transcripts.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use super::{Gateway, command_delivery, relay::Ending};
use crate::{
    app::{App, Routing as _},
    store::{SessionRow, SessionStatus, StoreError},
};

/// Transcripts are synced, and commands looked after, this often.
const TICK: Duration = Duration::from_secs(1);
/// Sessions are looked at every so many ticks.
const SESSION_TICKS: u64 = 5;
/// How long neither side may come, after the start of the session or of the endpoint.
const ATTACH_TIMEOUT: Duration = Duration::from_secs(60);
/// The use of a session is written down when it is this much newer than what is stored, in milliseconds.
const USE_RESOLUTION_MILLIS: u64 = 30_000;

pub(super) async fn run(app: Weak<App>, gateway: Weak<Gateway>) {
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut count: u64 = 0;
    loop {
        ticks.tick().await;
        let (Some(app), Some(gateway)) = (app.upgrade(), gateway.upgrade()) else {
            return;
        };
        count += 1;
        report("sync transcripts", app.transcripts.sync().await);
        report("look after commands", command_delivery::sweep(&app).await);
        if count.is_multiple_of(SESSION_TICKS) {
            report("look after sessions", look_after_sessions(&app, &gateway).await);
        }
    }
}

fn report(doing: &'static str, done: Result<(), StoreError>) {
    if let Err(error) = done {
        tracing::error!(
            error = &error as &dyn std::error::Error,
            "failed to {doing}; it is tried again"
        );
    }
}

pub(super) async fn look_after_sessions(app: &Arc<App>, gateway: &Arc<Gateway>) -> Result<(), StoreError> {
    for session in app.store.orphaned_sessions().await? {
        let reason = "the node was deregistered".to_owned();
        end_session(app, gateway, &session, (SessionStatus::Terminated, reason)).await?;
    }
    let now = app.clock.unix_millis();
    for session in app.store.open_sessions().await? {
        let relay = gateway.relay(&session.session_id);
        let relay_activity = relay.as_ref().map_or(0, |relay| relay.last_activity());
        let last_activity = session.last_activity_at.max(relay_activity);
        let attached = relay.is_some();
        let waited_out = gateway.started_at.elapsed() >= ATTACH_TIMEOUT;
        if let Some(end) = overdue(&session, now, last_activity, attached, waited_out) {
            end_session(app, gateway, &session, end).await?;
        } else if last_activity >= session.last_activity_at + USE_RESOLUTION_MILLIS {
            app.store.session_used(&session.session_id, last_activity).await?;
        }
    }
    Ok(())
}

/// Whether a session must end now, and why.
fn overdue(
    session: &SessionRow,
    now: u64,
    last_activity: u64,
    attached: bool,
    waited_out: bool,
) -> Option<(SessionStatus, String)> {
    let age = now.saturating_sub(session.started_at);
    let minutes = |millis: u64| millis / 60_000;
    if let Some(limit) = session.max_duration_millis.filter(|limit| age >= *limit) {
        let text = format!(
            "the session reached its maximum duration of {} minutes",
            minutes(limit)
        );
        return Some((SessionStatus::Terminated, text));
    }
    let idle = now.saturating_sub(last_activity);
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
    let now = app.clock.unix_millis();
    app.store
        .end_session(&session.session_id, status, &reason, None, now)
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
