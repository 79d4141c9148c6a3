use std::future::poll_fn;

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

async fn listen() -> (TcpListener, u16) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

fn basic(port: u16, kind: &str) -> Basic {
    let properties = json!({"portNumber": port, "type": kind});
    let policy = ForwardPolicy::new(&ForwardConfig::default()).unwrap();
    Basic::new(Arc::new(Target::new(&texts(&properties), policy).unwrap()))
}

async fn until(basic: &mut Basic, mut is_so: impl FnMut(&mut Basic) -> bool) {
    while !is_so(basic) {
        timeout(PATIENCE, poll_fn(|cx| basic.poll(cx)))
            .await
            .expect("nothing moves");
    }
}

async fn during<T>(basic: &mut Basic, other: impl Future<Output = T>) -> T {
    let mut other = std::pin::pin!(other);
    loop {
        tokio::select! {
            done = &mut other => return done,
            () = poll_fn(|cx| basic.poll(cx)) => {}
            () = tokio::time::sleep(PATIENCE) => panic!("nothing moves"),
        }
    }
}

async fn said(basic: &mut Basic, expected: &[u8]) {
    let mut got = Vec::new();
    until(basic, |basic| {
        while let Some(piece) = basic.take_output(3) {
            got.extend_from_slice(&piece);
        }
        got.len() >= expected.len()
    })
    .await;
    assert_eq!(got, expected);
}

#[tokio::test]
async fn input_waits_for_the_connection_and_bytes_go_both_ways() {
    let (listener, port) = listen().await;
    let mut basic = basic(port, "");
    assert!(!basic.takes_input());
    let (mut connection, _) = during(&mut basic, listener.accept()).await.unwrap();
    until(&mut basic, |basic| basic.takes_input()).await;
    basic.input(b"ab");
    basic.input(b"cd");
    let mut read = [0; 4];
    during(&mut basic, connection.read_exact(&mut read))
        .await
        .unwrap();
    assert_eq!(&read, b"abcd");
    connection.write_all(b"hello").await.unwrap();
    said(&mut basic, b"hello").await;
    assert_eq!((basic.traffic.in_bytes, basic.traffic.out_bytes), (4, 5));
}

#[tokio::test]
async fn a_closed_port_fails_the_session_with_the_stock_text() {
    let (listener, port) = listen().await;
    drop(listener);
    for kind in ["", "LocalPortForwarding"] {
        let mut basic = basic(port, kind);
        let mut end = None;
        until(&mut basic, |basic| {
            end = basic.end();
            end.is_some()
        })
        .await;
        let reason = end.unwrap().unwrap_err();
        assert!(
            reason.starts_with("Unable to connect to specified port: ") && reason.contains("refused"),
            "{reason}"
        );
    }
}

#[tokio::test]
async fn the_end_of_the_only_connection_ends_the_session_after_its_last_bytes() {
    let (listener, port) = listen().await;
    let mut basic = basic(port, "");
    let (mut connection, _) = during(&mut basic, listener.accept()).await.unwrap();
    connection.write_all(b"bye").await.unwrap();
    drop(connection);
    until(&mut basic, |basic| !basic.output.is_empty()).await;
    assert_eq!(basic.end(), None);
    assert_eq!(basic.take_output(9).unwrap(), "bye");
    let mut end = None;
    until(&mut basic, |basic| {
        end = basic.end();
        end.is_some()
    })
    .await;
    assert_eq!(end, Some(Ok(())));
}

#[tokio::test]
async fn a_listening_client_gets_a_connection_for_each_of_its_programs() {
    let (listener, port) = listen().await;
    let mut basic = basic(port, "LocalPortForwarding");
    let (mut first, _) = during(&mut basic, listener.accept()).await.unwrap();
    // the end of a program, and the next one at once behind it
    basic.input(b"one");
    basic.disconnect();
    basic.disconnect();
    basic.input(b"two");
    let mut read = String::new();
    during(&mut basic, first.read_to_string(&mut read)).await.unwrap();
    assert_eq!(read, "one");
    let (mut second, _) = during(&mut basic, listener.accept()).await.unwrap();
    let mut two = [0; 3];
    during(&mut basic, second.read_exact(&mut two)).await.unwrap();
    assert_eq!(&two, b"two");
    // the other end closes: the next byte gets a new connection
    drop(second);
    until(&mut basic, |basic| matches!(basic.state, State::Idle)).await;
    basic.input(b"three");
    let (_third, _) = during(&mut basic, listener.accept()).await.unwrap();
    assert_eq!(basic.end(), None);
}

#[tokio::test]
async fn a_connection_that_takes_nothing_stops_the_client() {
    let (listener, port) = listen().await;
    let mut basic = basic(port, "");
    let (mut connection, _) = during(&mut basic, listener.accept()).await.unwrap();
    until(&mut basic, |basic| basic.takes_input()).await;
    let mut sent = 0;
    loop {
        while basic.takes_input() {
            basic.input(&[1; 10_000]);
            sent += 10_000;
        }
        let polled = poll_fn(|cx| Poll::Ready(basic.poll(cx))).await;
        if polled.is_pending() && !basic.takes_input() {
            break;
        }
    }
    assert!(basic.input_bytes <= MAX_INPUT_BYTES + 10_000);
    basic.disconnect();
    let mut read = Vec::new();
    during(&mut basic, connection.read_to_end(&mut read))
        .await
        .unwrap();
    assert_eq!(read.len(), sent);
}
