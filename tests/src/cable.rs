//! A network cable between a program and the endpoint: a TCP relay that can be cut, pulled out, or held still.
//! TLS passes through, since the endpoint's certificate names the address and not the port.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::Result;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
    sync::watch,
    task::JoinHandle,
};

/// What the cable does to those who use it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Condition {
    /// A connection lives as long as the number with which it began.
    cuts: u64,
    /// Bytes stand still; nobody is told.
    stalled: bool,
    /// New connections are closed at once.
    unplugged: bool,
    /// Added to each piece of data, each way.
    delay: Duration,
    /// Where the target sees new connections come from.
    source: Ipv4Addr,
}

/// Counters that tests look at.
#[derive(Debug, Default)]
struct Counters {
    standing: AtomicUsize,
    bytes: AtomicU64,
}

/// One end is at [`Cable::url`], the other at the endpoint.
#[derive(Debug)]
pub struct Cable {
    address: SocketAddr,
    condition: watch::Sender<Condition>,
    counters: Arc<Counters>,
    accepting: JoinHandle<()>,
}

impl Cable {
    /// Lays a cable to `target`.
    ///
    /// # Errors
    /// No port could be had.
    pub async fn to(target: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let (condition, seen) = watch::channel(Condition {
            cuts: 0,
            stalled: false,
            unplugged: false,
            delay: Duration::ZERO,
            source: Ipv4Addr::LOCALHOST,
        });
        let counters = Arc::new(Counters::default());
        let shared = Arc::clone(&counters);
        let accepting = tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                // what it is like now: it may be cut or unplugged before the connection is carried
                let born = *seen.borrow();
                if !born.unplugged {
                    tokio::spawn(carry(near, target, (born, seen.clone()), Arc::clone(&shared)));
                }
            }
        });
        Ok(Self {
            address,
            condition,
            counters,
            accepting,
        })
    }

    pub fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// The near end.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends every connection that stands; new ones may be made.
    pub fn cut(&self) {
        self.condition.send_modify(|condition| condition.cuts += 1);
    }

    /// Ends every connection and lets no new one through.
    pub fn unplug(&self) {
        self.condition.send_modify(|condition| {
            condition.cuts += 1;
            condition.unplugged = true;
        });
    }

    /// The opposite of [`Self::unplug`].
    pub fn plug_in(&self) {
        self.condition
            .send_modify(|condition| condition.unplugged = false);
    }

    /// Holds back every byte, without a word to either side, or lets them go.
    pub fn stall(&self, stalled: bool) {
        self.condition
            .send_modify(|condition| condition.stalled = stalled);
    }

    /// Adds a delay to everything, each way.
    pub fn delay(&self, delay: Duration) {
        self.condition.send_modify(|condition| condition.delay = delay);
    }

    /// The user goes to another network: every connection ends, and new ones come from another address.
    pub fn move_to(&self, source: Ipv4Addr) {
        self.condition.send_modify(|condition| {
            condition.cuts += 1;
            condition.source = source;
        });
    }

    /// Connections that stand.
    pub fn connections(&self) -> usize {
        self.counters.standing.load(Ordering::SeqCst)
    }

    /// Bytes carried so far, both ways.
    pub fn bytes(&self) -> u64 {
        self.counters.bytes.load(Ordering::SeqCst)
    }
}

impl Drop for Cable {
    fn drop(&mut self) {
        self.cut();
        self.accepting.abort();
    }
}

async fn carry(
    near: TcpStream,
    target: SocketAddr,
    (born, seen): (Condition, watch::Receiver<Condition>),
    counters: Arc<Counters>,
) {
    let Ok(far) = connect_from(born.source, target).await else {
        return;
    };
    // keystrokes: neither side waits for a full segment
    if near.set_nodelay(true).is_err() || far.set_nodelay(true).is_err() {
        return;
    }
    counters.standing.fetch_add(1, Ordering::SeqCst);
    let (near_reader, near_writer) = near.into_split();
    let (far_reader, far_writer) = far.into_split();
    let mut cut = seen.clone();
    tokio::select! {
        // either direction's end ends both: whoever half-closed is done with the connection
        () = pump(near_reader, far_writer, seen.clone(), &counters) => {}
        () = pump(far_reader, near_writer, seen, &counters) => {}
        _ = cut.wait_for(|condition| condition.cuts != born.cuts) => {}
    }
    counters.standing.fetch_sub(1, Ordering::SeqCst);
}

async fn connect_from(source: Ipv4Addr, target: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((source, 0).into())?;
    socket.connect(target).await
}

async fn pump(
    mut from: impl AsyncReadExt + Unpin,
    mut to: impl AsyncWriteExt + Unpin,
    mut seen: watch::Receiver<Condition>,
    counters: &Counters,
) {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let Ok(length @ 1..) = from.read(&mut buffer).await else {
            return;
        };
        let Ok(condition) = seen
            .wait_for(|condition| !condition.stalled)
            .await
            .map(|now| *now)
        else {
            return;
        };
        if !condition.delay.is_zero() {
            tokio::time::sleep(condition.delay).await;
        }
        let piece = buffer.get(..length).unwrap_or_default();
        if to.write_all(piece).await.is_err() {
            return;
        }
        counters.bytes.fetch_add(length as u64, Ordering::SeqCst);
    }
}
