//! Polls that are answered late, since nothing is there to be answered and their agents ask again at once.

use std::time::Duration;

use tokio::{
    sync::{Semaphore, watch},
    time::timeout,
};

/// The stock agent gives up after 20 seconds, and polls again at once after a quick answer.
const HOLD: Duration = Duration::from_secs(15);
/// Refusals that are held at the same time: a fleet that was deregistered, and a small part of all connections.
const MOST_REFUSALS_HELD: usize = 1024;

/// Holds polls until their time is over or the process is asked to stop.
#[derive(Debug)]
pub(crate) struct LongPolls {
    refusals: Semaphore,
    stop: watch::Sender<bool>,
}

impl Default for LongPolls {
    fn default() -> Self {
        Self {
            refusals: Semaphore::new(MOST_REFUSALS_HELD),
            stop: watch::Sender::new(false),
        }
    }
}

impl LongPolls {
    /// Returns when an empty poll is to be answered.
    pub(crate) async fn hold(&self) {
        let mut stopping = self.stop.subscribe();
        let stopped = async { stopping.wait_for(|stop| *stop).await.is_ok() };
        // both ends of it are the same to the poll
        let _ended = timeout(HOLD, stopped).await;
    }

    /// Returns when a poll is to be refused: at once where too many wait, since anybody may cause refusals.
    pub(crate) async fn hold_refusal(&self) {
        if let Ok(_place) = self.refusals.try_acquire() {
            self.hold().await;
        }
    }

    /// Ends all polls, and those that come yet.
    pub(crate) fn stop(&self) {
        self.stop.send_replace(true);
    }

    #[cfg(test)]
    pub(crate) fn refusals_held(&self) -> usize {
        MOST_REFUSALS_HELD - self.refusals.available_permits()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{FutureExt as _, future::join_all};
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_poll_and_its_refusal_are_held_alike() {
        let polls = LongPolls::default();
        let start = Instant::now();
        polls.hold().await;
        assert_eq!(start.elapsed().as_secs(), HOLD.as_secs());
        polls.hold_refusal().await;
        assert_eq!(start.elapsed().as_secs(), 2 * HOLD.as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn refusals_take_a_bounded_number_of_places_and_give_them_back() {
        let polls = LongPolls::default();
        let mut held = Box::pin(join_all((0..MOST_REFUSALS_HELD).map(|_| polls.hold_refusal())));
        assert!(held.as_mut().now_or_never().is_none());
        assert!(polls.hold_refusal().now_or_never().is_some());
        assert!(polls.hold().now_or_never().is_none());
        held.await;
        assert!(polls.hold_refusal().now_or_never().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn no_poll_holds_the_end_of_the_process_up() {
        let polls = LongPolls::default();
        let mut held = Box::pin(polls.hold());
        assert!(held.as_mut().now_or_never().is_none());
        polls.stop();
        assert!(held.now_or_never().is_some());
        assert!(polls.hold().now_or_never().is_some());
    }
}
