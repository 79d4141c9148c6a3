//! Two ends and the relay between them, with connections that break on either side and an endpoint that restarts:
//! every byte arrives once and in order.

use std::collections::VecDeque;

use moorline_protocol::channel::{DataChannel, Event, Output, Role};
use proptest::prelude::{Just, ProptestConfig, Strategy, prop_assert_eq, prop_oneof, proptest};

use super::*;

const STEP_MILLIS: u64 = 5;
const LATENCY_STEPS: u64 = 2;
const WINDOW: usize = 64 * 1024;

#[derive(Debug, Clone, Copy)]
enum Accident {
    Cut(Side),
    Restart,
}

/// One end with its websocket.
struct End {
    side: Side,
    machine: DataChannel,
    /// Towards the relay and from it, each with the step at which it arrives.
    up: VecDeque<(u64, Bytes)>,
    down: VecDeque<(u64, Bytes)>,
    back_at: Option<u64>,
    received: Vec<u8>,
    to_send: VecDeque<Vec<u8>>,
}

impl End {
    fn new(side: Side, role: Role, chunks: Vec<Vec<u8>>) -> Self {
        Self {
            side,
            machine: DataChannel::new(role, [u8::from(side == Side::Agent); 32], WINDOW),
            up: VecDeque::new(),
            down: VecDeque::new(),
            back_at: Some(0),
            received: Vec::new(),
            to_send: chunks.into(),
        }
    }

    fn cut(&mut self, relay: &mut Relay, step: u64, away_steps: u64) {
        self.up.clear();
        self.down.clear();
        self.machine.disconnected();
        relay.detach(now(step), self.side);
        self.back_at = Some(step + away_steps);
    }

    fn step(&mut self, relay: &mut Relay, step: u64) {
        let now = now(step);
        if self.back_at.is_some_and(|at| at <= step) {
            self.back_at = None;
            let peer = Peer {
                client_id: "c".to_owned(),
                max_payload_bytes: Some(4096),
                takes_over: false,
                operator: String::new(),
            };
            relay.attach(now, self.side, peer).unwrap();
            self.machine.connected(now);
            if self.side == Side::Agent {
                let state = serves("c");
                assert!(relay.receive(now, Side::Agent, state.encode()));
            }
        }
        while self.down.front().is_some_and(|(at, _)| *at <= step) {
            let (_, frame) = self.down.pop_front().unwrap();
            self.machine.receive(now, &frame);
        }
        if self.machine.next_timeout().is_some_and(|at| at <= now.monotonic) {
            self.machine.timeout(now);
        }
        if let Some(chunk) = self.to_send.front()
            && self.machine.send(now, PayloadType::Output, chunk).is_ok()
        {
            self.to_send.pop_front();
        }
        while let Some(output) = self.machine.poll() {
            match output {
                Output::Transmit(frame) => self.up.push_back((step + LATENCY_STEPS, frame)),
                Output::Event(Event::Data { payload, .. }) => self.received.extend_from_slice(&payload),
                Output::Event(Event::Started(start)) => {
                    if let Some(bytes) = start.moorline_max_payload_bytes {
                        self.machine.set_max_payload(usize::try_from(bytes).unwrap());
                    }
                }
                Output::Event(_) => {}
            }
        }
        if self.back_at.is_none() {
            while relay.may_read(self.side) && self.up.front().is_some_and(|(at, _)| *at <= step) {
                let (_, frame) = self.up.pop_front().unwrap();
                assert!(relay.receive(now, self.side, frame));
            }
            while let Some(frame) = relay.next_frame(now, self.side) {
                self.down.push_back((step + LATENCY_STEPS, frame));
            }
        }
    }

    fn is_done(&self) -> bool {
        self.to_send.is_empty() && self.machine.unacknowledged() == 0
    }
}

fn now(step: u64) -> Now {
    at(step * STEP_MILLIS)
}

fn chunks(count: usize, seed: usize) -> Vec<Vec<u8>> {
    let byte = |i: usize| u8::try_from((i * 31 + i / 251 + seed) % 251).unwrap();
    (0..count)
        .map(|chunk| (0..1500 + chunk % 3000).map(|i| byte(i + chunk * 7)).collect())
        .collect()
}

fn accidents() -> impl Strategy<Value = Vec<(u64, u64, Accident)>> {
    let accident = prop_oneof![
        3 => Just(Accident::Cut(Side::Agent)),
        3 => Just(Accident::Cut(Side::Client)),
        1 => Just(Accident::Restart),
    ];
    proptest::collection::vec((1_u64..400, 0_u64..300, accident), 0..12)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
    #[test]
    fn every_byte_arrives_once_whatever_breaks(accidents in accidents(), output in 1_usize..200, input in 1_usize..60) {
        let (output, input) = (chunks(output, 1), chunks(input, 2));
        let mut relay = Relay::new(at(0), session(SessionType::StandardStream), 1);
        let mut agent = End::new(Side::Agent, Role::Agent, output.clone());
        let mut client = End::new(Side::Client, Role::Client, input.clone());
        let mut accidents: VecDeque<_> = accidents.into();
        let mut next_accident = accidents.front().map(|(gap, _, _)| *gap);
        for step in 0..200_000 {
            if next_accident == Some(step) {
                let (_, away, accident) = accidents.pop_front().unwrap();
                match accident {
                    Accident::Cut(Side::Agent) => agent.cut(&mut relay, step, away),
                    Accident::Cut(Side::Client) => client.cut(&mut relay, step, away),
                    Accident::Restart => {
                        agent.cut(&mut relay, step, away);
                        client.cut(&mut relay, step, away / 2);
                        let resumed = RelaySession {
                            resumed: true,
                            client_id: Some("c".to_owned()),
                            ..session(SessionType::StandardStream)
                        };
                        relay = Relay::new(now(step), resumed, u128::from(step) << 64);
                    }
                }
                next_accident = accidents.front().map(|(gap, _, _)| step + *gap);
            }
            if relay.next_timeout().is_some_and(|at| at <= now(step).monotonic) {
                relay.timeout(now(step));
            }
            agent.step(&mut relay, step);
            client.step(&mut relay, step);
            if next_accident.is_none() && agent.is_done() && client.is_done() {
                break;
            }
        }
        prop_assert_eq!(client.received, output.concat());
        prop_assert_eq!(agent.received, input.concat());
    }
}
