//! How many messages a pair of machines carries. A measurement, not a test of the build at hand:
//! `cargo test --release -p moorline-protocol --test wire throughput -- --ignored --nocapture`.

use std::time::{Duration, Instant};

use moorline_protocol::{
    channel::{DataChannel, Event, Output, Role},
    message::PayloadType,
    time::Now,
};

const NOW: Now = Now {
    monotonic: Duration::from_secs(1),
    unix_millis: 1_700_000_000_000,
};

/// Moves what one end wants to send to the other. Returns the stream messages handed out.
fn carry(from: &mut DataChannel, to: &mut DataChannel) -> usize {
    let mut count = 0;
    while let Some(output) = from.poll() {
        match output {
            Output::Transmit(frame) => to.receive(NOW, &frame),
            Output::Event(event) => count += usize::from(matches!(event, Event::Data { .. })),
        }
    }
    count
}

#[test]
#[ignore = "a measurement"]
fn throughput() {
    const MESSAGES: usize = 300_000;
    let mut agent = DataChannel::new(Role::Agent, [1; 32], 4 << 20);
    let mut client = DataChannel::new(Role::Client, [2; 32], 4 << 20);
    agent.connected(NOW);
    client.connected(NOW);
    let data = [b'x'; 64 * 1024];
    #[expect(clippy::disallowed_methods, reason = "what is measured is real time")]
    let start = Instant::now();
    let mut received = 0;
    while received < MESSAGES {
        while agent.writable() >= data.len() {
            agent.send(NOW, PayloadType::Output, &data).unwrap();
        }
        carry(&mut agent, &mut client);
        received += carry(&mut client, &mut agent);
    }
    let rate = f64::from(u32::try_from(received).unwrap()) / start.elapsed().as_secs_f64();
    println!("{rate:.0} messages a second, each encoded, decoded and acknowledged");
    assert!(rate > 100_000.0);
}
