//! The addresses of an endpoint: looked up where that works, remembered for when it does not.
//!
//! A machine whose DNS is gone needs its operator more than any other, and its agent has been at the endpoint's
//! address before. TLS proves the endpoint by its name wherever the address came from, so a wrong one costs time and
//! nothing else.
//!
//! There is never more than one lookup, however long it hangs, and a machine that gives no thread for one has
//! remembered addresses still.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::time::timeout;

use crate::Lookup;

/// Addresses that are remembered.
const MAX_REMEMBERED: usize = 8;
/// An address that worked is used again for this long without asking, as from a resolver's cache.
const FRESH: Duration = Duration::from_secs(60);
/// What a lookup may take when there is another way. A resolver that lost one packet answers within 5 s.
const LIMIT: Duration = Duration::from_secs(6);

/// How looking the name up went last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NameLookup {
    /// Not tried, or not needed: the endpoint is named by its address.
    Untried,
    Works,
    Fails,
}

/// What is known about one host.
#[derive(Debug)]
pub(crate) struct KnownAddresses {
    state: Mutex<State>,
    lookup: Lookup,
}

#[derive(Debug)]
struct State {
    /// The one that worked last is the first.
    remembered: Vec<IpAddr>,
    fresh_until: Option<Instant>,
    last: NameLookup,
}

impl KnownAddresses {
    pub(crate) fn new() -> Self {
        Self {
            state: Mutex::new(State {
                remembered: Vec::new(),
                fresh_until: None,
                last: NameLookup::Untried,
            }),
            lookup: Lookup::default(),
        }
    }

    /// Those that were told or that worked, best first.
    pub(crate) fn remembered(&self) -> Vec<IpAddr> {
        self.lock().remembered.clone()
    }

    /// Addresses that worked for somebody else. They come after what this process knows itself.
    pub(crate) fn remember(&self, addresses: &[IpAddr]) {
        let mut state = self.lock();
        for address in addresses {
            if state.remembered.len() < MAX_REMEMBERED && !state.remembered.contains(address) {
                state.remembered.push(*address);
            }
        }
    }

    /// This one works now.
    pub(crate) fn worked(&self, address: IpAddr) {
        let mut state = self.lock();
        state.remembered.retain(|known| *known != address);
        state.remembered.insert(0, address);
        state.remembered.truncate(MAX_REMEMBERED);
        state.fresh_until = Some(Instant::now() + FRESH);
    }

    /// The address that worked a moment ago.
    pub(crate) fn fresh(&self) -> Option<IpAddr> {
        let state = self.lock();
        let is_fresh = state.fresh_until.is_some_and(|until| Instant::now() < until);
        state.remembered.first().copied().filter(|_| is_fresh)
    }

    /// It did not work again.
    pub(crate) fn not_fresh(&self) {
        self.lock().fresh_until = None;
    }

    pub(crate) fn last_lookup(&self) -> NameLookup {
        self.lock().last
    }

    pub(crate) fn set_last_lookup(&self, last: NameLookup) {
        self.lock().last = last;
    }

    /// Where the host may be: as looked up, else as remembered.
    ///
    /// # Errors
    /// The name cannot be looked up and nothing is remembered.
    pub(crate) async fn candidates(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        let remembered = self.remembered();
        let answer = if remembered.is_empty() {
            self.look_up(host, port).await
        } else {
            timeout(LIMIT, self.look_up(host, port))
                .await
                .unwrap_or_else(|_| Err(format!("no answer within {} s", LIMIT.as_secs())))
        };
        self.set_last_lookup(match answer {
            Ok(_) => NameLookup::Works,
            Err(_) => NameLookup::Fails,
        });
        match answer {
            Ok(addresses) => Ok(addresses),
            Err(reason) if remembered.is_empty() => Err(io::Error::other(format!(
                "the name {host} cannot be looked up: {reason}"
            ))),
            Err(reason) => {
                tracing::warn!(
                    host,
                    reason,
                    "the name cannot be looked up, known addresses are used"
                );
                Ok(remembered
                    .into_iter()
                    .map(|address| SocketAddr::new(address, port))
                    .collect())
            }
        }
    }

    /// Asks now, for the answer's sake.
    pub(crate) async fn check(&self, host: &str, port: u16, limit: Duration) {
        if let Ok(answer) = timeout(limit, self.look_up(host, port)).await {
            self.set_last_lookup(match answer {
                Ok(_) => NameLookup::Works,
                Err(_) => NameLookup::Fails,
            });
        }
    }

    async fn look_up(&self, host: &str, port: u16) -> Result<Vec<SocketAddr>, String> {
        let answer = self.lookup.addresses(host, port).await;
        answer.map_err(|error| error.to_string())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn the_address_that_worked_last_is_the_first_and_few_are_kept() {
        let known = KnownAddresses::new();
        assert_eq!(known.fresh(), None);
        known.remember(&[ip("10.0.0.1"), ip("10.0.0.2"), ip("10.0.0.1")]);
        assert_eq!(known.fresh(), None);
        known.worked(ip("10.0.0.2"));
        assert_eq!(known.remembered(), [ip("10.0.0.2"), ip("10.0.0.1")]);
        assert_eq!(known.fresh(), Some(ip("10.0.0.2")));
        known.not_fresh();
        assert_eq!(known.fresh(), None);
        for last in 0..20 {
            known.worked(IpAddr::from([10, 0, 1, last]));
            known.remember(&[IpAddr::from([10, 0, 2, last])]);
        }
        assert_eq!(known.remembered().len(), MAX_REMEMBERED);
        assert_eq!(known.remembered().first(), Some(&ip("10.0.1.19")));
    }

    #[tokio::test]
    async fn what_cannot_be_looked_up_is_where_it_was() {
        let known = KnownAddresses::new();
        let nowhere = "no-such-host.invalid";
        assert!(known.candidates(nowhere, 443).await.is_err());
        known.remember(&[ip("10.0.0.1")]);
        let candidates = known.candidates(nowhere, 443).await.unwrap();
        assert_eq!(candidates, ["10.0.0.1:443".parse().unwrap()]);
        assert_eq!(known.last_lookup(), NameLookup::Fails);
    }

    #[tokio::test]
    async fn a_name_that_can_be_looked_up_is_where_the_answer_says() {
        let known = KnownAddresses::new();
        known.remember(&[ip("10.0.0.1")]);
        let candidates = known.candidates("localhost", 443).await.unwrap();
        assert!(candidates.iter().all(|address| address.ip().is_loopback()));
        assert!(!candidates.is_empty());
        assert_eq!(known.last_lookup(), NameLookup::Works);
    }
}
