//! Bodies of requests, read within bounds.
//!
//! A signature is over the body, so the body must be here before its sender is known: whoever it is may make us hold
//! no more than a share of a bounded number of large bodies. Small ones, which nearly all are, wait for nobody.

use std::{net::IpAddr, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper::body::{Body, Incoming};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

use super::peer_share::PeerShares;

/// The largest body of all: a chunk of a transcript. A document has at most 64 KiB, parameters of a command add up
/// to more.
pub(crate) const MOST_BODY_BYTES: usize = 1024 * 1024;
/// What a connection may make us hold before it is known who it is from.
const SMALL_BODY_BYTES: usize = 16 * 1024;
/// Bodies larger than that at the same time; others wait for their turn to be read.
const MOST_LARGE_BODIES: usize = 64;
/// Of these, of one peer.
const MOST_LARGE_BODIES_OF_A_PEER: usize = 8;
/// For a body to arrive, waiting included.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// Why a body was not read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BodyError {
    #[error("the request's body broke off")]
    BrokeOff,
    #[error("the request's body took too long to arrive")]
    Late,
    #[error("the request's body has more than {0} bytes")]
    TooLarge(usize),
}

/// A body that was read. It keeps its place among the large ones: hold it until the request is dealt with.
#[derive(Debug)]
pub(crate) struct ReadBody {
    pub(crate) bytes: Bytes,
    _place: Option<Place>,
}

#[derive(Debug)]
struct Place {
    _of_peer: OwnedSemaphorePermit,
    _of_all: OwnedSemaphorePermit,
}

/// Reads the bodies of all requests.
#[derive(Debug)]
pub(crate) struct Bodies {
    large: Arc<Semaphore>,
    shares: PeerShares,
}

impl Default for Bodies {
    fn default() -> Self {
        Self {
            large: Arc::new(Semaphore::new(MOST_LARGE_BODIES)),
            shares: PeerShares::new(MOST_LARGE_BODIES_OF_A_PEER),
        }
    }
}

impl Bodies {
    /// Reads a body of at most `most` bytes.
    pub(crate) async fn read(
        &self,
        body: Incoming,
        most: usize,
        peer: IpAddr,
    ) -> Result<ReadBody, BodyError> {
        self.read_any(body, most, peer).await
    }

    /// How many large bodies are held now.
    #[cfg(test)]
    pub(crate) fn large_held(&self) -> usize {
        MOST_LARGE_BODIES - self.large.available_permits()
    }

    async fn read_any<B>(&self, body: B, most: usize, peer: IpAddr) -> Result<ReadBody, BodyError>
    where
        B: Body<Data = Bytes> + Unpin,
    {
        timeout(BODY_TIMEOUT, self.collect(body, most, peer))
            .await
            .unwrap_or(Err(BodyError::Late))
    }

    async fn collect<B>(&self, mut body: B, most: usize, peer: IpAddr) -> Result<ReadBody, BodyError>
    where
        B: Body<Data = Bytes> + Unpin,
    {
        let mut collected = BytesMut::new();
        let mut place = None;
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame.map_err(|_| BodyError::BrokeOff)?.into_data() else {
                continue;
            };
            let length = collected.len().saturating_add(data.len());
            if length > most {
                return Err(BodyError::TooLarge(most));
            }
            if length > SMALL_BODY_BYTES && place.is_none() {
                place = Some(self.place(peer).await);
                // at once, and not by doubling: a body of a transcript would be copied once more
                let rest = usize::try_from(body.size_hint().lower()).unwrap_or(most);
                collected.reserve(data.len().saturating_add(rest).min(most));
            }
            collected.extend_from_slice(&data);
        }
        Ok(ReadBody {
            bytes: collected.freeze(),
            _place: place,
        })
    }

    /// First among the peer's own, so that only those wait in the queue of all that may have a place there.
    async fn place(&self, peer: IpAddr) -> Place {
        let of_peer = self.shares.of(peer).acquire_owned().await;
        let of_all = Arc::clone(&self.large).acquire_owned().await;
        Place {
            _of_peer: of_peer.expect("the semaphore is never closed"),
            _of_all: of_all.expect("the semaphore is never closed"),
        }
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::Full;

    use super::*;

    const PEER: [u8; 4] = [192, 0, 2, 1];

    fn body(length: usize) -> Full<Bytes> {
        Full::new(Bytes::from(vec![b' '; length]))
    }

    #[tokio::test(start_paused = true)]
    async fn large_bodies_of_one_peer_wait_for_each_other_and_not_for_others() {
        let bodies = Bodies::default();
        let read = |length, peer: [u8; 4]| bodies.read_any(body(length), MOST_BODY_BYTES, peer.into());
        let mut held = Vec::new();
        for _ in 0..MOST_LARGE_BODIES_OF_A_PEER {
            held.push(read(MOST_BODY_BYTES, PEER).await.unwrap());
        }
        assert!(matches!(
            read(SMALL_BODY_BYTES + 1, PEER).await,
            Err(BodyError::Late)
        ));
        read(SMALL_BODY_BYTES, PEER).await.unwrap();
        read(MOST_BODY_BYTES, [192, 0, 2, 2]).await.unwrap();
        held.pop();
        read(MOST_BODY_BYTES, PEER).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn many_peers_together_have_a_bounded_number_of_large_bodies() {
        let bodies = Bodies::default();
        let read =
            |last: u8| bodies.read_any(body(MOST_BODY_BYTES), MOST_BODY_BYTES, [192, 0, 2, last].into());
        let mut held = Vec::new();
        for last in 0..u8::try_from(MOST_LARGE_BODIES).unwrap() {
            held.push(read(last).await.unwrap());
        }
        assert!(matches!(read(200).await, Err(BodyError::Late)));
        held.pop();
        read(200).await.unwrap();
    }

    #[tokio::test]
    async fn a_body_over_its_callers_limit_is_refused() {
        let read = Bodies::default().read_any(body(11), 10, PEER.into()).await;
        assert!(matches!(read, Err(BodyError::TooLarge(10))));
    }
}
