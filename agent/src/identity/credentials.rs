//! Role credentials, renewed at half of their life (agent-wire §2.6).

use std::{sync::Arc, time::Duration};

use moorline_protocol::error_chain;
use tokio::{
    sync::{Notify, watch},
    time::sleep,
};

use super::Registration;
use crate::runtime::{Backoff, RoleCredentials, random_u32};

/// The first pause after a failure; later ones double up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// Between two looks at the wall clock.
const LONGEST_STEP: Duration = Duration::from_secs(60);
/// A node whose right is repaired is online within this time.
const LONGEST_PAUSE: Duration = Duration::from_secs(120);

/// Requests credentials for as long as anyone watches, and publishes each set. Failures are logged and tried again,
/// for ever: a late repair of the endpoint or of the registration must bring the node back by itself. `rejected` says
/// that the endpoint did not take the present set.
pub(crate) async fn keep_fresh(
    registration: Arc<Registration>,
    publish: watch::Sender<Option<RoleCredentials>>,
    rejected: Arc<Notify>,
) {
    let mut backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
    loop {
        match registration.request_role_credentials().await {
            Ok(credentials) => {
                let renew_at = half_of_life(credentials.expires_at, registration.endpoint_millis());
                publish.send_replace(Some(credentials));
                tokio::select! {
                    () = publish.closed() => return,
                    () = until(&registration, renew_at) => backoff.reset(),
                    // The set is of no use, but an endpoint that refuses every set must not be asked in a tight loop.
                    () = rejected.notified() => sleep(backoff.next(random_u32())).await,
                }
            }
            Err(error) => {
                let pause = backoff.next(random_u32());
                let error = error_chain(&error);
                tracing::warn!("no role credentials, next attempt in {pause:.1?}: {error}");
                tokio::select! {
                    () = publish.closed() => return,
                    () = sleep(pause) => {}
                }
            }
        }
    }
}

/// Waits for a time of the endpoint's clock, in short steps: the monotonic clock stands still while a machine is suspended.
async fn until(registration: &Registration, unix_millis_due: u64) {
    loop {
        let left = Duration::from_millis(unix_millis_due.saturating_sub(registration.endpoint_millis()));
        if left.is_zero() {
            return;
        }
        sleep(left.min(LONGEST_STEP)).await;
    }
}

/// The middle between now and the end, but never so near that a short life makes a tight loop.
fn half_of_life(expires_at: u64, now: u64) -> u64 {
    let half = expires_at.saturating_sub(now) / 2;
    now + half.max(u64::try_from(FIRST_PAUSE.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_renewed_at_half_of_their_life_and_never_in_a_tight_loop() {
        assert_eq!(half_of_life(3_600_000, 0), 1_800_000);
        assert_eq!(half_of_life(1000, 5000), 6000);
    }
}
