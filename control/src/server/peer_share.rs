//! What one peer may hold of something that all peers share, before it is known who it is.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Shares that nobody uses are forgotten when there are this many.
const MOST_KEPT: usize = 1024;

/// A share of the same size for every address. Hosts get whole /64 networks of IPv6, so that is one peer.
#[derive(Debug)]
pub(super) struct PeerShares {
    size: usize,
    shares: Mutex<HashMap<IpAddr, Arc<Semaphore>>>,
}

impl PeerShares {
    pub(super) fn new(size: usize) -> Self {
        Self {
            size,
            shares: Mutex::default(),
        }
    }

    /// The peer's share. It is remembered for as long as a permit of it is held.
    pub(super) fn of(&self, peer: IpAddr) -> Arc<Semaphore> {
        let mut shares = self.shares.lock().unwrap_or_else(PoisonError::into_inner);
        if shares.len() >= MOST_KEPT {
            shares.retain(|_, share| Arc::strong_count(share) > 1);
        }
        let share = shares
            .entry(group(peer))
            .or_insert_with(|| Arc::new(Semaphore::new(self.size)));
        Arc::clone(share)
    }
}

fn group(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}

/// A connection whose peer has not proven who it is: it takes up one of its address's places until it has. Travels
/// with the connection's requests and, through an upgrade, with its channel.
#[derive(Debug, Clone)]
pub(crate) struct Newcomer(Arc<Mutex<Option<OwnedSemaphorePermit>>>);

impl Newcomer {
    pub(super) fn new(place: OwnedSemaphorePermit) -> Self {
        Self(Arc::new(Mutex::new(Some(place))))
    }

    /// The peer has shown a good signature or a good token.
    pub(crate) fn is_proven(&self) {
        drop(self.0.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_one_addresss_or_one_networks() {
        let shares = PeerShares::new(1);
        let take = |peer: &str| shares.of(peer.parse().unwrap()).try_acquire_owned().ok();
        let _held = [take("192.0.2.1").unwrap(), take("2001:db8::1").unwrap()];
        assert!(take("192.0.2.1").is_none());
        assert!(take("::ffff:192.0.2.1").is_none());
        assert!(take("2001:db8::2").is_none());
        assert!(take("192.0.2.2").is_some());
        assert!(take("2001:db8:0:1::1").is_some());
    }

    #[test]
    fn shares_that_nobody_uses_are_forgotten_and_others_are_not() {
        let shares = PeerShares::new(1);
        let held = shares.of([192, 0, 2, 1].into()).try_acquire_owned().unwrap();
        for index in 0..4096_u32 {
            shares.of(std::net::Ipv4Addr::from(index).into());
        }
        assert!(shares.shares.lock().unwrap().len() <= MOST_KEPT);
        assert!(shares.of([192, 0, 2, 1].into()).try_acquire_owned().is_err());
        drop(held);
        assert!(shares.of([192, 0, 2, 1].into()).try_acquire_owned().is_ok());
    }

    #[test]
    fn a_proven_peer_gives_its_place_back_while_its_connection_stands() {
        let shares = PeerShares::new(1);
        let take = || shares.of([192, 0, 2, 1].into()).try_acquire_owned();
        let newcomer = Newcomer::new(take().unwrap());
        assert!(take().is_err());
        newcomer.is_proven();
        assert!(take().is_ok());
    }
}
