//! The accept loop: TLS, then HTTP/1.1 with upgrades; every wait and every buffer bounded.

use std::{convert::Infallible, net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use futures_util::FutureExt as _;
use http::Request;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use rustls::ServerConfig;
use socket2::SockRef;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Notify, OwnedSemaphorePermit, Semaphore, watch},
    task::JoinSet,
    time::timeout,
};
use tokio_rustls::TlsAcceptor;

use super::{
    Gauge,
    peer_share::{Newcomer, PeerShares},
    request::Service,
    socket::Socket,
};

/// Connections at the same time, websockets included. More wait in the kernel's queue.
const MOST_CONNECTIONS: usize = 20_000;
/// File descriptors that are not connections: store, transcripts, log.
const OTHER_DESCRIPTORS: u64 = 128;
/// Of these, one address may have this part while it is not known who they are from; but
const NEWCOMERS_PART: usize = 16;
/// as many as this always: a thousand nodes behind one address that all come back at once show their signatures
/// within moments, and who has does not count any more.
const LEAST_NEWCOMERS: usize = 256;
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// For the head of a connection's first request.
const FIRST_HEAD_TIMEOUT: Duration = Duration::from_secs(15);
/// For a request's head; also how long an idle connection is kept for the next request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(75);
/// Session tokens make long headers, but not as long as this.
const MOST_HEAD_BYTES: usize = 32 * 1024;
/// What a peer that reads slowly can make us hold.
const TLS_WRITE_BUFFER_BYTES: usize = 64 * 1024;
/// After a failed accept (no descriptors left), so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// What may wait in the kernel for a peer's network.
const UNSENT_BYTES: u32 = 128 * 1024;

/// The one port of the endpoint.
pub(super) struct Listener {
    socket: TcpListener,
    acceptor: TlsAcceptor,
    service: Arc<Service>,
    stopping: watch::Receiver<bool>,
    places: Arc<Semaphore>,
    newcomers: PeerShares,
    connections: Gauge,
}

impl Listener {
    pub(super) fn new(
        socket: TcpListener,
        tls: ServerConfig,
        service: Arc<Service>,
        stopping: watch::Receiver<bool>,
    ) -> Self {
        let connections = service.app.metrics.gauge("moorline_connections", &[]);
        let allowed = allowed_connections();
        Self {
            socket,
            acceptor: TlsAcceptor::from(Arc::new(tls)),
            service,
            stopping,
            places: Arc::new(Semaphore::new(allowed)),
            newcomers: PeerShares::new(LEAST_NEWCOMERS.max(allowed / NEWCOMERS_PART)),
            connections,
        }
    }

    #[cfg(test)]
    pub(super) fn with_newcomers(self, most: usize) -> Self {
        let newcomers = PeerShares::new(most);
        Self { newcomers, ..self }
    }

    /// Accepts for ever. Connections run in `tasks`; upgraded ones leave it.
    pub(super) async fn run(&self, tasks: &mut JoinSet<()>) {
        loop {
            tokio::select! {
                // What a connection held is freed when it ends, not when the next one comes.
                Some(_) = tasks.join_next() => {}
                (place, tcp, peer) = self.accept() => {
                    if let Some(newcomer) = self.admit(peer) {
                        tasks.spawn(self.connection(place, tcp, peer, newcomer));
                    }
                }
            }
        }
    }

    /// Waits for a free place, then for a peer. Dropped half-way it loses nothing.
    async fn accept(&self) -> (OwnedSemaphorePermit, TcpStream, SocketAddr) {
        loop {
            let place = Arc::clone(&self.places).acquire_owned().await;
            let place = place.expect("the semaphore is never closed");
            match self.socket.accept().await {
                Ok((tcp, peer)) => return (place, tcp, peer),
                Err(error) => {
                    tracing::warn!(%error, "failed to accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// `None`: too many connections of this address have not shown who they are from.
    fn admit(&self, peer: SocketAddr) -> Option<Newcomer> {
        let place = self.newcomers.of(peer.ip()).try_acquire_owned();
        if place.is_err() {
            tracing::debug!(%peer, "connection refused: too many from its address that show no signature");
            let metrics = &self.service.app.metrics;
            metrics
                .counter("moorline_connections_refused_total", &[])
                .increment();
        }
        place.ok().map(Newcomer::new)
    }

    fn connection(
        &self,
        place: OwnedSemaphorePermit,
        tcp: TcpStream,
        peer: SocketAddr,
        newcomer: Newcomer,
    ) -> impl Future<Output = ()> + Send + 'static {
        let (acceptor, service) = (self.acceptor.clone(), Arc::clone(&self.service));
        let (stopping, counted) = (self.stopping.clone(), self.connections.hold());
        async move {
            if let Some(mut tls) = handshake(&acceptor, tcp, peer).await {
                tls.get_mut().1.set_buffer_limit(Some(TLS_WRITE_BUFFER_BYTES));
                let socket = Socket {
                    tls,
                    _place: place,
                    _counted: counted,
                };
                serve_connection(socket, (peer, newcomer), service, stopping).await;
            }
        }
    }
}

/// The process's own limit of descriptors, raised as far as it may be.
fn allowed_connections() -> usize {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else {
        return MOST_CONNECTIONS;
    };
    let wanted = hard.min(MOST_CONNECTIONS as u64 + OTHER_DESCRIPTORS);
    let limit = if wanted > soft && setrlimit(Resource::RLIMIT_NOFILE, wanted, hard).is_ok() {
        wanted
    } else {
        soft
    };
    let allowed = usize::try_from(limit.saturating_sub(OTHER_DESCRIPTORS)).unwrap_or(MOST_CONNECTIONS);
    allowed.clamp(1, MOST_CONNECTIONS)
}

async fn handshake(
    acceptor: &TlsAcceptor,
    tcp: TcpStream,
    peer: SocketAddr,
) -> Option<tokio_rustls::server::TlsStream<TcpStream>> {
    // A keystroke is a small packet, and waits for no other.
    if let Err(error) = tcp.set_nodelay(true) {
        tracing::debug!(%error, %peer, "failed to set TCP_NODELAY");
    }
    // and waits not behind megabytes that are with the kernel and not yet on the network
    if let Err(error) = SockRef::from(&tcp).set_tcp_notsent_lowat(UNSENT_BYTES) {
        tracing::debug!(%error, %peer, "failed to set TCP_NOTSENT_LOWAT");
    }
    match timeout(HANDSHAKE_TIMEOUT, acceptor.accept(tcp)).await {
        Ok(Ok(tls)) => Some(tls),
        Ok(Err(error)) => {
            tracing::debug!(%error, %peer, "TLS handshake failed");
            None
        }
        Err(_) => {
            tracing::debug!(%peer, "TLS handshake took too long");
            None
        }
    }
}

async fn serve_connection(
    socket: Socket,
    (peer, newcomer): (SocketAddr, Newcomer),
    service: Arc<Service>,
    mut stopping: watch::Receiver<bool>,
) {
    let first_head = Arc::new(Notify::new());
    let has_come = Arc::clone(&first_head);
    let answer = service_fn(move |mut request: Request<Incoming>| {
        has_come.notify_one();
        request.extensions_mut().insert(newcomer.clone());
        let service = Arc::clone(&service);
        // boxed: hyper keeps the room for it while the connection waits for its next request
        let answer = async move { Ok::<_, Infallible>(service.answer(request, peer.ip()).await) };
        answer.boxed()
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MOST_HEAD_BYTES)
        .serve_connection(TokioIo::new(socket), answer)
        .with_upgrades();
    let mut connection = pin!(connection);
    // The guard that the channel gives must not live across an await.
    let asked_to_stop = async { stopping.wait_for(|stop| *stop).await.is_ok() };
    let late = async {
        if timeout(FIRST_HEAD_TIMEOUT, first_head.notified()).await.is_ok() {
            std::future::pending::<()>().await;
        }
    };
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = late => {
            tracing::debug!(%peer, "connection closed: its first request took too long");
            return;
        }
        _ = asked_to_stop => {
            // The request under way is answered; the next one goes to whoever comes after us.
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        tracing::debug!(%error, %peer, "connection ended");
    }
}
