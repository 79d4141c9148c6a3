//! Work that has time: in slices, each followed by a rest.

use std::{
    sync::mpsc::{Receiver, RecvTimeoutError},
    time::{Duration, Instant},
};

/// Works this long at a time; one system call that takes longer cannot be cut.
const SLICE: Duration = Duration::from_millis(20);
/// The longest rest, behind such a call on a disk that is slow.
const MAX_REST: Duration = Duration::from_secs(1);

/// Half of the time at most is work, so that half of the disk's is everybody else's.
#[derive(Debug)]
pub(super) struct Pace {
    bell: Receiver<()>,
    slice_began: Instant,
    /// The bell was rung, and what it is for has not been done yet.
    pub(super) is_rung: bool,
    is_over: bool,
}

impl Pace {
    /// `bell` is listened to at every rest. With its last sender everything ends.
    pub(super) fn new(bell: Receiver<()>) -> Self {
        Self {
            bell,
            slice_began: Instant::now(),
            is_rung: false,
            is_over: false,
        }
    }

    /// Between two small pieces of work: rests when it is time to. False: leave.
    #[must_use]
    pub(super) fn goes_on(&mut self) -> bool {
        let worked = self.slice_began.elapsed();
        if worked >= SLICE {
            let end = Instant::now() + worked.min(MAX_REST);
            while !self.is_over && self.listen(end) {}
            self.slice_began = Instant::now();
        }
        !self.is_over
    }

    /// Waits for the time, or for the bell if that is earlier. False: leave.
    #[must_use]
    pub(super) fn wait(&mut self, until: Instant, until_rung: Instant) -> bool {
        loop {
            let end = if self.is_rung {
                until.min(until_rung)
            } else {
                until
            };
            if self.is_over || !self.listen(end) {
                self.slice_began = Instant::now();
                return !self.is_over;
            }
        }
    }

    /// False: the time has come.
    fn listen(&mut self, end: Instant) -> bool {
        match self
            .bell
            .recv_timeout(end.saturating_duration_since(Instant::now()))
        {
            Ok(()) => self.is_rung = true,
            Err(RecvTimeoutError::Timeout) => return false,
            Err(RecvTimeoutError::Disconnected) => self.is_over = true,
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::sync_channel;

    use super::*;

    #[test]
    fn half_of_the_time_is_rest() {
        let (_sender, bell) = sync_channel(1);
        let mut pace = Pace::new(bell);
        let began = Instant::now();
        let mut worked = Duration::ZERO;
        while worked < 5 * SLICE {
            let slice = Instant::now();
            while slice.elapsed() < SLICE {
                std::hint::spin_loop();
            }
            worked += slice.elapsed();
            assert!(pace.goes_on());
        }
        assert!(
            began.elapsed() >= 2 * worked,
            "{:?} of {worked:?}",
            began.elapsed()
        );
    }

    #[test]
    fn a_bell_that_is_rung_in_a_rest_is_not_forgotten_and_ends_a_wait() {
        let (sender, bell) = sync_channel(1);
        let mut pace = Pace::new(bell);
        sender.send(()).unwrap();
        pace.slice_began -= SLICE;
        assert!(pace.goes_on());
        assert!(pace.is_rung);
        let hour = Instant::now() + Duration::from_secs(3600);
        assert!(pace.wait(hour, Instant::now()));
        // Also one that is rung while it waits.
        pace.is_rung = false;
        sender.send(()).unwrap();
        assert!(pace.wait(hour, Instant::now()));
        assert!(pace.is_rung);
    }

    #[test]
    fn who_is_left_alone_leaves() {
        let (sender, bell) = sync_channel(1);
        let mut pace = Pace::new(bell);
        drop(sender);
        let hour = Instant::now() + Duration::from_secs(3600);
        assert!(!pace.wait(hour, hour));
        assert!(!pace.goes_on());
    }
}
