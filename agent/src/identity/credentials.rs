//! Role credentials, renewed at half of their life (agent-wire §2.6).

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::{sync::watch, time::sleep};

use super::Registration;
use crate::runtime::{Backoff, RoleCredentials, random_u32};

/// The first pause after a failure; later ones double up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// A node whose right is repaired is online within this time.
const LONGEST_PAUSE: Duration = Duration::from_secs(120);

/// Requests credentials for as long as anyone watches, and publishes each set. Failures are logged and tried again,
/// for ever: a late repair of the endpoint or of the registration must bring the node back by itself.
pub(crate) async fn keep_fresh(
    registration: Arc<Registration>,
    publish: watch::Sender<Option<RoleCredentials>>,
) {
    let mut backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
    loop {
        let pause = match registration.request_role_credentials().await {
            Ok(credentials) => {
                backoff.reset();
                let pause = half_of_life(credentials.expires_at, unix_millis());
                publish.send_replace(Some(credentials));
                pause
            }
            Err(error) => {
                let pause = backoff.next(random_u32());
                let error = anyhow::Error::from(error);
                tracing::warn!("no role credentials, next attempt in {pause:.1?}: {error:#}");
                pause
            }
        };
        tokio::select! {
            () = publish.closed() => return,
            () = sleep(pause) => {}
        }
    }
}

fn half_of_life(expires_at: u64, now: u64) -> Duration {
    Duration::from_millis(expires_at.saturating_sub(now) / 2).max(FIRST_PAUSE)
}

fn unix_millis() -> u64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_renewed_at_half_of_their_life_and_never_in_a_tight_loop() {
        assert_eq!(half_of_life(3_600_000, 0), Duration::from_secs(1800));
        assert_eq!(half_of_life(1000, 5000), FIRST_PAUSE);
    }
}
