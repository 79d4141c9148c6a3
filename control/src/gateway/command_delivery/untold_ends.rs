//! Ends of commands on their way from the store to the audit log: each is there once, whenever the endpoint dies.

use std::collections::BTreeSet;

use moorline_protocol::error_chain;

use crate::{
    app::App,
    store::{StoreError, UntoldEnd},
};

/// Most turns of one call: the sweep has more to do, however fast commands end.
const MOST_TURNS: usize = 16;

/// Tells the audit log what it does not have, a bounded part at a time. One task does, or a line would be there twice.
pub(super) async fn tell(app: &App) -> Result<(), StoreError> {
    for _ in 0..MOST_TURNS {
        let ends = app.store.take_untold_ends(app.audit.segment()).await?;
        let Some(there) = in_the_log(app, &ends).await else {
            return Ok(());
        };
        let (mut told, untold): (Vec<_>, Vec<_>) = ends.into_iter().partition(|end| {
            let (command, node) = (end.command_id.to_string(), end.instance_id.to_string());
            there.contains(&(command, node))
        });
        // together, so that they wait for the disk once
        let recorded = untold.iter().map(|end| {
            app.audit
                .command_ended(&end.command_id, &end.instance_id, &end.details)
        });
        let recorded = futures_util::future::join_all(recorded).await;
        let is_recorded = recorded.iter().all(Result::is_ok);
        let recorded = untold.into_iter().zip(recorded);
        told.extend(recorded.filter_map(|(end, recorded)| recorded.is_ok().then_some(end)));
        if told.is_empty() {
            return Ok(());
        }
        app.store.ends_told(&told).await?;
        // the log of the process says why; it is tried again
        if !is_recorded {
            break;
        }
    }
    Ok(())
}

/// Those of which the log has a line, though nobody came to note that. `None`: it cannot be read.
async fn in_the_log(app: &App, ends: &[UntoldEnd]) -> Option<BTreeSet<(String, String)>> {
    let Some(segment) = ends.iter().filter_map(|end| end.segment).min() else {
        return Some(BTreeSet::new());
    };
    let found = app.audit.ended_commands(segment.min(app.audit.segment())).await;
    found
        .inspect_err(|error| {
            tracing::error!(
                error = %error_chain(error),
                "failed to look which ends of commands the audit log has; it is tried again"
            );
        })
        .ok()
}
