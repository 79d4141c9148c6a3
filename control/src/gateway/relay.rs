//! The relay of one session: one task that owns both sides' websockets and moves frames between them.
//!
//! What to do with a frame is decided in [`routing`], without I/O. Here is only the driver: one task per session, no
//! queue and no hand-over between reading one socket and writing the other.

mod composer;
mod lane;
mod link;
mod number_set;
mod routing;
mod session;

use std::{
    future::poll_fn,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use futures_util::{FutureExt as _, future::BoxFuture};
use moorline_protocol::time::Now;
use tokio::{
    sync::mpsc,
    time::{Instant, Sleep},
};

pub(super) use self::{
    composer::channel_closed,
    session::{Ending, Peer, RelayEvent, RelaySession, Side},
};
use self::{
    link::{Link, PING_INTERVAL},
    routing::Relay,
    session::{AnotherClient, Attached},
};
use super::{
    session_state::SessionState,
    socket::{self, CLOSE_MALFORMED, CLOSE_NORMAL, CLOSE_TRY_AGAIN, Socket},
};
use crate::app::Clock;

/// Orders waiting for a relay's task.
const ORDERS: usize = 8;
/// Frames moved from one side before the other side and the rest of the process have their turn.
const BURST: usize = 64;

/// What a relay is told from outside.
pub(super) enum Order {
    Attach {
        side: Side,
        peer: Peer,
        socket: Box<Socket>,
    },
    End(Ending),
    /// The node reported the end of its side.
    TaskCompleted(Ending),
}

/// How the rest of the gateway holds on to a relay.
#[derive(Debug, Clone)]
pub(super) struct RelayHandle {
    orders: mpsc::Sender<Order>,
    last_activity: Arc<AtomicU64>,
}

impl RelayHandle {
    /// `false`: the relay has ended.
    pub(super) async fn order(&self, order: Order) -> bool {
        self.orders.send(order).await.is_ok()
    }

    /// When the session was last used, by the steady clock in milliseconds.
    pub(super) fn last_activity(&self) -> u64 {
        self.last_activity.load(Ordering::Relaxed)
    }
}

/// Makes a relay; the future is its task, which ends with the session. It is boxed: each task that waits for a future has
/// room for it twice, and this one is there for as long as its session.
pub(super) fn new(
    clock: Clock,
    session: RelaySession,
    state: SessionState,
) -> (RelayHandle, BoxFuture<'static, ()>) {
    let (sender, orders) = mpsc::channel(ORDERS);
    let last_activity = Arc::new(AtomicU64::new(clock.steady_millis()));
    let handle = RelayHandle {
        orders: sender,
        last_activity: Arc::clone(&last_activity),
    };
    let origin = Instant::now();
    let now = Now {
        monotonic: Duration::ZERO,
        unix_millis: clock.unix_millis(),
    };
    let driver = Driver {
        relay: Relay::new(now, session, uuid::Uuid::new_v4().as_u128()),
        agent: None,
        client: None,
        orders,
        clock,
        origin,
        timer: Box::pin(tokio::time::sleep_until(origin + PING_INTERVAL)),
        last_activity,
        last_used: Duration::ZERO,
        state,
    };
    (handle, Box::new(driver).run().boxed())
}

struct Driver {
    relay: Relay,
    agent: Option<Link>,
    client: Option<Link>,
    orders: mpsc::Receiver<Order>,
    clock: Clock,
    origin: Instant,
    timer: Pin<Box<Sleep>>,
    last_activity: Arc<AtomicU64>,
    /// What `last_activity` was set for.
    last_used: Duration,
    state: SessionState,
}

enum Wake {
    Event(RelayEvent),
    Order(Order),
    /// Nobody holds on to this relay any more.
    Abandoned,
}

impl Driver {
    async fn run(mut self: Box<Self>) {
        loop {
            match poll_fn(|cx| self.poll(cx)).await {
                Wake::Event(RelayEvent::Ended(ending)) => {
                    self.finish(ending).await;
                    return;
                }
                Wake::Event(event) => self.state.record(event),
                Wake::Order(order) => self.obey(order),
                Wake::Abandoned => return,
            }
        }
    }

    fn now(&self) -> Now {
        Now {
            monotonic: self.origin.elapsed(),
            unix_millis: self.clock.unix_millis(),
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Wake> {
        loop {
            let now = self.now();
            let moved = self.poll_side(cx, now, Side::Agent) | self.poll_side(cx, now, Side::Client);
            let last_used = self.relay.last_activity();
            if last_used != self.last_used {
                self.last_used = last_used;
                let steady_millis = self.clock.steady_millis();
                self.last_activity.store(steady_millis, Ordering::Relaxed);
            }
            if let Some(event) = self.relay.poll_event() {
                return Poll::Ready(Wake::Event(event));
            }
            match self.orders.poll_recv(cx) {
                Poll::Ready(Some(order)) => return Poll::Ready(Wake::Order(order)),
                Poll::Ready(None) => return Poll::Ready(Wake::Abandoned),
                Poll::Pending => {}
            }
            let is_recorded = self.state.poll(cx).is_ready();
            if is_recorded && self.relay.awaits_record() {
                self.relay.client_recorded(now);
                continue;
            }
            if !moved && !self.poll_timer(cx, now) {
                return Poll::Pending;
            }
        }
    }

    /// Reads a side and sends to both. `true`: something was read, so look again.
    fn poll_side(&mut self, cx: &mut Context<'_>, now: Now, side: Side) -> bool {
        let mut moved = false;
        for _ in 0..BURST {
            if !self.relay.may_read(side) {
                break;
            }
            let Some(link) = self.link(side) else { break };
            match link.poll_receive(cx, now.monotonic) {
                Ok(Some(frame)) => {
                    if !self.relay.receive(now, side, frame) {
                        self.violated(now, side);
                    }
                    moved = true;
                }
                Ok(None) => break,
                Err(_) => {
                    self.lose(now, side);
                    break;
                }
            }
        }
        self.poll_send(cx, now, Side::Agent);
        self.poll_send(cx, now, Side::Client);
        moved
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, now: Now, side: Side) {
        let Self {
            relay, agent, client, ..
        } = self;
        let link = match side {
            Side::Agent => agent,
            Side::Client => client,
        };
        if let Some(link) = link
            && link.poll_send(cx, || relay.next_frame(now, side)).is_err()
        {
            self.lose(now, side);
        }
    }

    fn link(&mut self, side: Side) -> Option<&mut Link> {
        match side {
            Side::Agent => self.agent.as_mut(),
            Side::Client => self.client.as_mut(),
        }
    }

    fn violated(&mut self, now: Now, side: Side) {
        self.state.count_malformed();
        if self.link(side).is_none_or(Link::forgives) {
            return;
        }
        if let Some(link) = self.lose(now, side) {
            let reason = "too many frames that cannot be read";
            tokio::spawn(socket::close(link.socket, CLOSE_MALFORMED, reason));
        }
    }

    fn lose(&mut self, now: Now, side: Side) -> Option<Link> {
        let link = match side {
            Side::Agent => self.agent.take(),
            Side::Client => self.client.take(),
        };
        if link.is_some() {
            self.relay.detach(now, side);
        }
        link
    }

    /// `true`: a deadline has passed and was dealt with.
    fn poll_timer(&mut self, cx: &mut Context<'_>, now: Now) -> bool {
        let pings = [&self.agent, &self.client]
            .into_iter()
            .flatten()
            .map(Link::next_ping);
        let Some(next) = pings.chain(self.relay.next_timeout()).min() else {
            return false;
        };
        if next > now.monotonic {
            let at = self.origin + next;
            if self.timer.deadline() != at {
                self.timer.as_mut().reset(at);
            }
            if self.timer.as_mut().poll(cx).is_pending() {
                return false;
            }
            // it is due since the clock was read
            return true;
        }
        self.relay.timeout(now);
        for side in [Side::Agent, Side::Client] {
            let is_read = self.relay.may_read(side);
            if self
                .link(side)
                .is_some_and(|link| !link.keep_alive(now.monotonic, is_read))
            {
                self.lose(now, side);
            }
        }
        true
    }

    fn obey(&mut self, order: Order) {
        let now = self.now();
        match order {
            Order::Attach { side, peer, socket } => self.attach(now, side, peer, *socket),
            Order::End(ending) => self.relay.end(now, ending),
            Order::TaskCompleted(ending) => self.relay.task_completed(now, ending),
        }
    }

    fn attach(&mut self, now: Now, side: Side, peer: Peer, socket: Socket) {
        let client_id = (side == Side::Client).then(|| peer.client_id.clone());
        let operator = peer.operator.clone();
        let attached = match self.relay.attach(now, side, peer) {
            Ok(attached) => attached,
            Err(AnotherClient::NodeAway) => {
                let reason = AnotherClient::NodeAway.to_string();
                tokio::spawn(async move { socket::close(socket, CLOSE_TRY_AGAIN, &reason).await });
                return;
            }
            Err(refused) => {
                let frame = self.relay.refusal(now, refused);
                tokio::spawn(socket::refuse(socket, frame));
                return;
            }
        };
        if let Some(client_id) = client_id {
            self.state.client_is(client_id);
        }
        let link = Some(Link::new(socket, now.monotonic));
        let replaced = match side {
            Side::Agent => std::mem::replace(&mut self.agent, link),
            Side::Client => std::mem::replace(&mut self.client, link),
        };
        if let Attached::TookOver { .. } = &attached {
            self.state.taken_over_by(&operator);
        }
        match (replaced, attached) {
            (Some(replaced), Attached::TookOver { goodbye }) => {
                tokio::spawn(socket::refuse(replaced.socket, goodbye));
            }
            (Some(replaced), Attached::Alone) => {
                tokio::spawn(socket::close(
                    replaced.socket,
                    CLOSE_NORMAL,
                    "replaced by a newer connection",
                ));
            }
            (None, _) => {}
        }
    }

    async fn finish(mut self: Box<Self>, ending: Ending) {
        self.orders.close();
        if let Some(client) = self.client.take() {
            tokio::spawn(socket::linger_then_close(client.socket));
        }
        if let Some(agent) = self.agent.take() {
            tokio::spawn(socket::close(agent.socket, CLOSE_NORMAL, "the session has ended"));
        }
        self.state.finish(ending).await;
    }
}
