//! A client's multiplexer against ours, with real connections behind it and nothing but memory between them.

use std::{collections::VecDeque, future::poll_fn};

use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    time::{Duration, timeout},
};

use super::*;
use crate::{
    config::ForwardConfig,
    session::port_session::{ForwardPolicy, texts},
};

const PATIENCE: Duration = Duration::from_secs(20);

struct Pair {
    node: Multiplexed,
    client: Mux,
    events: VecDeque<MuxEvent>,
}

async fn listen() -> (TcpListener, u16) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

impl Pair {
    fn new(port: u16, version: u32, limit: usize) -> Self {
        let properties = json!({"portNumber": port, "type": "LocalPortForwarding"});
        let policy = ForwardPolicy::new(&ForwardConfig::default()).unwrap();
        let target = Arc::new(Target::new(&texts(&properties), policy).unwrap());
        Self {
            node: Multiplexed::new(target, version, limit),
            client: Mux::new(Side::Opens, version),
            events: VecDeque::new(),
        }
    }

    /// Carries what both sides have to say, in small pieces.
    fn carry(&mut self) {
        loop {
            let mut carried = false;
            if self.node.takes_input()
                && let Some(said) = self.client.transmit(3000)
            {
                self.node.input(&said).unwrap();
                carried = true;
            }
            if self.client.may_receive()
                && let Some(said) = self.node.take_output(3000)
            {
                self.client.receive(&said).unwrap();
                carried = true;
            }
            if !carried {
                break;
            }
        }
        self.events
            .extend(std::iter::from_fn(|| self.client.poll_event()));
    }

    /// Goes on until something is so.
    async fn until(&mut self, mut is_so: impl FnMut(&mut Self) -> bool) {
        loop {
            self.carry();
            if is_so(self) {
                self.carry();
                return;
            }
            self.carry();
            timeout(PATIENCE, poll_fn(|cx| self.node.poll(cx)))
                .await
                .expect("nothing moves");
        }
    }

    /// Goes on while something else is done.
    async fn during<T>(&mut self, other: impl Future<Output = T>) -> T {
        let mut other = std::pin::pin!(other);
        loop {
            self.carry();
            tokio::select! {
                done = &mut other => return done,
                () = poll_fn(|cx| self.node.poll(cx)) => {}
                () = tokio::time::sleep(PATIENCE) => panic!("nothing moves"),
            }
        }
    }

    fn saw(&mut self, event: MuxEvent) -> bool {
        self.events.contains(&event)
    }
}

fn everything(client: &mut Mux, id: StreamId, into: &mut Vec<u8>) {
    while let Some(data) = client.read(id, usize::MAX) {
        into.extend_from_slice(&data);
    }
}

#[tokio::test]
async fn a_hundred_connections_carry_their_own_bytes_at_the_same_time() {
    for version in [1, 2] {
        let (listener, port) = listen().await;
        tokio::spawn(async move {
            while let Ok((mut connection, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut from, mut to) = connection.split();
                    tokio::io::copy(&mut from, &mut to).await.unwrap();
                });
            }
        });
        let mut pair = Pair::new(port, version, 512);
        let streams: Vec<_> = (0..100).map(|_| pair.client.open().unwrap()).collect();
        let sent: Vec<Vec<u8>> = (0..100_u8)
            .map(|n| vec![n; 40_000 + usize::from(n) * 100])
            .collect();
        let (mut at, mut received) = (vec![0; 100], vec![Vec::new(); 100]);
        pair.until(|pair| {
            for (n, id) in streams.iter().enumerate() {
                at[n] += pair.client.write(*id, &sent[n][at[n]..]);
                everything(&mut pair.client, *id, &mut received[n]);
            }
            received
                .iter()
                .zip(&sent)
                .all(|(got, sent)| got.len() == sent.len())
        })
        .await;
        assert_eq!(received, sent);
        assert_eq!(pair.node.traffic.connections, 100);
        for id in &streams {
            pair.client.finish(*id);
        }
        pair.until(|pair| pair.node.connections.is_empty()).await;
    }
}

#[tokio::test]
async fn a_question_that_ends_is_answered_when_its_end_has_been_seen() {
    let (listener, port) = listen().await;
    let mut pair = Pair::new(port, 2, 512);
    let id = pair.client.open().unwrap();
    pair.client.write(id, b"question");
    pair.client.finish(id);
    let (mut connection, _) = pair.during(listener.accept()).await.unwrap();
    let mut question = String::new();
    pair.during(connection.read_to_string(&mut question))
        .await
        .unwrap();
    assert_eq!(question, "question");
    connection.write_all(b"answer").await.unwrap();
    drop(connection);
    let mut answer = Vec::new();
    pair.until(|pair| {
        everything(&mut pair.client, id, &mut answer);
        pair.saw(MuxEvent::Closed(id))
    })
    .await;
    assert_eq!(answer, b"answer");
    assert!(pair.node.connections.is_empty());
}

#[tokio::test]
async fn what_was_sent_before_the_end_arrives_at_a_connection_that_is_still_being_made() {
    let (listener, port) = listen().await;
    for version in [1, 2] {
        let mut pair = Pair::new(port, version, 512);
        let id = pair.client.open().unwrap();
        pair.client.write(id, b"last words");
        pair.client.finish(id);
        pair.carry();
        let (mut connection, _) = pair.during(listener.accept()).await.unwrap();
        let mut words = String::new();
        pair.during(connection.read_to_string(&mut words)).await.unwrap();
        assert_eq!(words, "last words", "version {version}");
    }
}

#[tokio::test]
async fn a_port_that_takes_no_connection_is_told_for_each_stream() {
    let (listener, port) = listen().await;
    drop(listener);
    for (version, end) in [(1, true), (2, false)] {
        let mut pair = Pair::new(port, version, 512);
        let id = pair.client.open().unwrap();
        pair.until(|pair| pair.node.has_unreached()).await;
        pair.until(|pair| {
            pair.saw(if end {
                MuxEvent::Finished(id)
            } else {
                MuxEvent::Reset(id)
            })
        })
        .await;
        pair.node.told_unreached();
        assert!(!pair.node.has_unreached() && pair.node.failure().is_none());
    }
}

#[tokio::test]
async fn more_connections_than_the_owner_allows_are_refused_and_the_others_live() {
    let (listener, port) = listen().await;
    let mut pair = Pair::new(port, 2, 1);
    let first = pair.client.open().unwrap();
    let second = pair.client.open().unwrap();
    pair.until(|pair| pair.saw(MuxEvent::Reset(second))).await;
    let (mut connection, _) = pair.during(listener.accept()).await.unwrap();
    connection.write_all(b"here").await.unwrap();
    pair.until(|pair| pair.client.read(first, 9).is_some()).await;
}

/// Frames as a client of its own making sends them (agent-wire §8.5).
fn frame(command: u8, id: u32, data: &[u8]) -> Vec<u8> {
    let length = u16::try_from(data.len()).unwrap();
    let [l0, l1] = length.to_le_bytes();
    let [i0, i1, i2, i3] = id.to_le_bytes();
    [&[2, command, l0, l1, i0, i1, i2, i3], data].concat()
}

const OPEN: u8 = 0;
const UPDATE: u8 = 4;

#[tokio::test]
async fn the_connection_after_the_512th_is_refused_and_told_and_the_others_live() {
    let (listener, port) = listen().await;
    let mut pair = Pair::new(port, 2, 512);
    let (mut streams, mut accepted) = (Vec::new(), Vec::new());
    for _ in 0..512 {
        streams.push(pair.client.open().unwrap());
        accepted.push(pair.during(listener.accept()).await.unwrap().0);
    }
    assert_eq!(pair.client.open(), None);
    pair.node.input(&frame(OPEN, 5001, &[])).unwrap();
    assert!(pair.node.has_unreached());
    pair.node.told_unreached();
    assert!(!pair.node.has_unreached() && pair.node.failure().is_none());
    for connection in &mut accepted {
        connection.write_all(b"here").await.unwrap();
    }
    let mut answers = 0;
    pair.until(|pair| {
        let read = streams.iter().filter_map(|id| pair.client.read(*id, 9));
        answers += read.map(|data| data.len()).sum::<usize>();
        answers == 512 * 4
    })
    .await;
}

#[tokio::test]
async fn a_client_that_gives_huge_windows_and_reads_nothing_makes_little_be_kept() {
    let (listener, port) = listen().await;
    tokio::spawn(async move {
        while let Ok((mut connection, _)) = listener.accept().await {
            tokio::spawn(async move { while connection.write_all(&[7; 64 * 1024]).await.is_ok() {} });
        }
    });
    let mut pair = Pair::new(port, 2, 512);
    let ids = (0..200).map(|number| 2 * number + 3);
    let window = [0_u32.to_le_bytes(), u32::MAX.to_le_bytes()].concat();
    for id in ids {
        pair.node.input(&frame(OPEN, id, &[])).unwrap();
        pair.node.input(&frame(UPDATE, id, &window)).unwrap();
    }
    // until nothing more is taken of any connection, though every one of them has more; what the listener's full queue
    // dropped, the kernel tries again after a second
    let moves = async |pair: &mut Pair| {
        let moved = timeout(Duration::from_millis(500), poll_fn(|cx| pair.node.poll(cx))).await;
        moved.is_ok()
    };
    let all_connect = async { while moves(&mut pair).await || pair.node.traffic.connections < 200 {} };
    timeout(Duration::from_secs(60), all_connect).await.unwrap();
    let kept = pair.node.traffic.out_bytes;
    assert!((1_000_000..4_194_304).contains(&kept), "{kept} bytes");
}

#[tokio::test]
async fn a_client_that_does_not_read_stops_only_its_own_connection() {
    let (listener, port) = listen().await;
    let mut pair = Pair::new(port, 2, 512);
    let bulk = pair.client.open().unwrap();
    let (mut flood, _) = pair.during(listener.accept()).await.unwrap();
    let flooding = tokio::spawn(async move { flood.write_all(&vec![7; 20_000_000]).await });
    let other = pair.client.open().unwrap();
    let (mut echo, _) = pair.during(listener.accept()).await.unwrap();
    tokio::spawn(async move {
        let (mut from, mut to) = echo.split();
        tokio::io::copy(&mut from, &mut to).await.unwrap();
    });
    for _ in 0..50 {
        pair.client.write(other, b"ping");
        pair.until(|pair| pair.client.read(other, 99).is_some()).await;
    }
    assert!(!flooding.is_finished());
    let out = pair.node.traffic.out_bytes;
    assert!(
        out < 3_000_000,
        "{out} bytes were taken for a client that reads none"
    );
    let mut received = 0;
    pair.until(|pair| {
        while let Some(data) = pair.client.read(bulk, usize::MAX) {
            received += data.len();
        }
        received == 20_000_000
    })
    .await;
    flooding.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_connection_that_takes_nothing_stops_its_client_and_not_the_others() {
    let (listener, port) = listen().await;
    let mut pair = Pair::new(port, 2, 512);
    let bulk = pair.client.open().unwrap();
    let (mut stuck, _) = pair.during(listener.accept()).await.unwrap();
    let other = pair.client.open().unwrap();
    let (mut talk, _) = pair.during(listener.accept()).await.unwrap();
    let mut written = 0;
    for _ in 0..3000 {
        written += pair.client.write(bulk, &[1; 10_000]);
        pair.carry();
        pair.client.write(other, b"x");
        let mut byte = [0];
        pair.during(talk.read_exact(&mut byte)).await.unwrap();
    }
    assert!(written < 20_000_000, "{written}");
    let reading = tokio::spawn(async move {
        let mut all = Vec::new();
        stuck.read_to_end(&mut all).await.unwrap();
        all.len()
    });
    pair.client.finish(bulk);
    pair.until(|_| reading.is_finished()).await;
    assert_eq!(reading.await.unwrap(), written);
}

#[tokio::test]
async fn a_connection_that_breaks_is_no_end_for_the_client_and_the_reverse() {
    let (listener, port) = listen().await;
    let mut pair = Pair::new(port, 2, 512);
    let id = pair.client.open().unwrap();
    let (connection, _) = pair.during(listener.accept()).await.unwrap();
    connection.set_zero_linger().unwrap();
    drop(connection);
    pair.until(|pair| pair.saw(MuxEvent::Reset(id))).await;
    assert!(!pair.saw(MuxEvent::Finished(id)));

    let id = pair.client.open().unwrap();
    let (mut connection, _) = pair.during(listener.accept()).await.unwrap();
    // only a connection that stands can be broken
    connection.write_all(b"x").await.unwrap();
    pair.until(|pair| pair.client.read(id, 1).is_some()).await;
    pair.client.reset(id);
    let read = pair.during(connection.read(&mut [0; 9])).await;
    assert_eq!(read.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn a_forbidden_host_ends_the_session() {
    let properties = json!({"portNumber": "80", "host": "169.254.169.254", "type": "LocalPortForwarding"});
    let policy = ForwardPolicy::new(&ForwardConfig::default()).unwrap();
    let target = Arc::new(Target::new(&texts(&properties), policy).unwrap());
    let mut pair = Pair::new(1, 1, 512);
    pair.node = Multiplexed::new(target, 1, 512);
    pair.client.open().unwrap();
    let mut failure = None;
    pair.until(|pair| {
        failure = pair.node.failure();
        failure.is_some()
    })
    .await;
    assert_eq!(
        failure.as_deref(),
        Some("Forwarding to IP address 169.254.169.254 is forbidden.")
    );
}
