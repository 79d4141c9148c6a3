//! Waiting for a condition, level-triggered: it is looked at again and again, so no edge can be missed.

use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};

/// How long a condition that must come about may take. Far more than it needs: the machine may be busy.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// Between two looks at a condition.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// Waits until `condition` gives something. An error of the condition means "not yet": a program that is restarting
/// refuses connections. The last one is told when time is up.
///
/// # Errors
/// The condition did not come about in time.
pub async fn wait_for<T>(
    what: &str,
    limit: Duration,
    mut condition: impl AsyncFnMut() -> Result<Option<T>>,
) -> Result<T> {
    let started = Instant::now();
    loop {
        let last = match condition().await {
            Ok(Some(value)) => return Ok(value),
            Ok(None) => None,
            Err(error) => Some(error),
        };
        if started.elapsed() >= limit {
            let late = format!("waited {limit:?} in vain for: {what}");
            return Err(match last {
                Some(error) => error.context(late),
                None => anyhow!(late),
            });
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

/// Waits until `condition` holds, with [`PATIENCE`].
///
/// # Errors
/// As [`wait_for`].
pub async fn wait_until(what: &str, mut condition: impl AsyncFnMut() -> Result<bool>) -> Result<()> {
    wait_for(what, PATIENCE, async || Ok(condition().await?.then_some(()))).await
}

/// Milliseconds since 1970.
pub fn epoch() -> u64 {
    let since_epoch = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since_epoch.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
