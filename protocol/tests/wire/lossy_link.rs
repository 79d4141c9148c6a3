//! Two ends of a data channel, connected by a network that loses, repeats, reorders and delays frames and that
//! breaks, in virtual time: everything arrives once and in order, and then there is silence.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use moorline_protocol::{
    channel::{DataChannel, DataKey, Event, HandshakeOffer, Output, Role},
    message::{AgentMessage, MessageType, PayloadType},
    time::Now,
};
use proptest::prelude::*;
use uuid::Uuid;

/// xorshift64*: the whole run depends on its seed.
#[derive(Debug)]
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 11
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }

    fn percent(&mut self, chance: u64) -> bool {
        self.below(100) < chance
    }

    fn millis(&mut self, bound: u64) -> Duration {
        Duration::from_micros(self.below(bound * 1000 + 1))
    }
}

/// How bad the network and the peers are. Chances in percent, times in milliseconds.
#[derive(Debug, Clone)]
struct Weather {
    seed: u64,
    loss: u64,
    duplication: u64,
    max_delay: u64,
    disconnects: u64,
    pauses: u64,
    not_ready: u64,
    handshake: bool,
    /// In the handshake, if there is one.
    encryption: bool,
    window: usize,
    max_payload: usize,
    agent_bytes: usize,
    client_bytes: usize,
}

#[derive(Debug, Clone)]
enum Happening {
    Arrive {
        at_agent: bool,
        connection: u64,
        frame: Bytes,
    },
    Disconnect,
    Reconnect,
    Pause,
    Start,
    Ready {
        at_agent: bool,
    },
    /// KMS answers.
    Key {
        at_agent: bool,
    },
}

struct End {
    machine: DataChannel,
    to_send: Vec<u8>,
    sent: usize,
    received: Vec<u8>,
    handshakes: usize,
    failed: bool,
    transmitted: usize,
}

struct World {
    weather: Weather,
    random: Random,
    time: Duration,
    agent: End,
    client: End,
    connection: u64,
    is_connected: bool,
    calendar: BTreeMap<(Duration, u64), Happening>,
    entries: u64,
}

impl World {
    fn new(weather: &Weather) -> Self {
        let mut random = Random(weather.seed | 1);
        let mut end = |role, bytes: usize| {
            let mut machine = DataChannel::new(role, [u8::from(role == Role::Agent); 32], weather.window);
            machine.set_max_payload(weather.max_payload);
            let to_send = (0..bytes)
                .map(|_| u8::try_from(random.below(256)).unwrap())
                .collect();
            End {
                machine,
                to_send,
                sent: 0,
                received: vec![],
                handshakes: 0,
                failed: false,
                transmitted: 0,
            }
        };
        let (agent, client) = (
            end(Role::Agent, weather.agent_bytes),
            end(Role::Client, weather.client_bytes),
        );
        let mut world = Self {
            weather: weather.clone(),
            random,
            time: Duration::from_secs(1),
            agent,
            client,
            connection: 0,
            is_connected: false,
            calendar: BTreeMap::new(),
            entries: 0,
        };
        world.plan(Duration::ZERO, Happening::Reconnect);
        for _ in 0..weather.disconnects {
            let after = world.random.millis(5000);
            world.plan(after, Happening::Disconnect);
        }
        for _ in 0..weather.pauses {
            let after = world.random.millis(5000);
            world.plan(after, Happening::Pause);
            let length = world.random.millis(500);
            world.plan(after + length, Happening::Start);
        }
        if weather.handshake {
            let now = world.now();
            let offer = HandshakeOffer {
                agent_version: "3.3.0.0".to_owned(),
                session_type: "Port".to_owned(),
                kms_key_id: weather.encryption.then(|| "key".to_owned()),
                ..HandshakeOffer::default()
            };
            world.agent.machine.start_handshake(now, offer);
        }
        world
    }

    fn now(&self) -> Now {
        let millis = u64::try_from(self.time.as_millis()).unwrap();
        Now {
            monotonic: self.time,
            unix_millis: 1_700_000_000_000 + millis,
        }
    }

    fn plan(&mut self, after: Duration, happening: Happening) {
        self.entries += 1;
        self.calendar.insert((self.time + after, self.entries), happening);
    }

    fn end(&mut self, is_agent: bool) -> &mut End {
        if is_agent {
            &mut self.agent
        } else {
            &mut self.client
        }
    }

    /// Moves time to the next thing that happens. `false`: nothing ever will.
    fn step(&mut self) -> bool {
        let planned = self.calendar.first_key_value().map(|((time, _), _)| *time);
        let timers = [
            self.agent.machine.next_timeout(),
            self.client.machine.next_timeout(),
        ];
        let next_timer = timers.into_iter().flatten().min();
        let Some(next) = planned.into_iter().chain(next_timer).min() else {
            return false;
        };
        self.time = self.time.max(next);
        let now = self.now();
        if planned == Some(next) {
            let (_, happening) = self.calendar.pop_first().unwrap();
            self.happen(happening);
        } else {
            for end in [&mut self.agent, &mut self.client] {
                if end.machine.next_timeout().is_some_and(|due| due <= now.monotonic) {
                    end.machine.timeout(now);
                    assert!(
                        end.machine.next_timeout().is_none_or(|due| due > now.monotonic),
                        "a timer that has run is due again"
                    );
                }
            }
        }
        self.settle(true);
        self.settle(false);
        true
    }

    fn happen(&mut self, happening: Happening) {
        let now = self.now();
        match happening {
            Happening::Arrive {
                at_agent,
                connection,
                frame,
            } => {
                if connection == self.connection && self.is_connected {
                    self.end(at_agent).machine.receive(now, &frame);
                }
            }
            Happening::Disconnect => {
                self.is_connected = false;
                self.agent.machine.disconnected();
                self.client.machine.disconnected();
                let after = self.random.millis(2000);
                self.plan(after, Happening::Reconnect);
            }
            Happening::Reconnect => {
                self.connection += 1;
                self.is_connected = true;
                self.agent.machine.connected(now);
                self.client.machine.connected(now);
            }
            Happening::Pause => self.tell_agent(MessageType::PausePublication),
            Happening::Start => self.tell_agent(MessageType::StartPublication),
            Happening::Ready { at_agent } => self.end(at_agent).machine.set_ready(true),
            Happening::Key { at_agent } => {
                let key = DataKey::from_slice(&[9; DataKey::BYTES]).unwrap();
                let machine = &mut self.end(at_agent).machine;
                if at_agent {
                    machine.provide_decrypted_key(now, &key);
                } else {
                    machine.provide_data_key(now, b"sealed", &key);
                }
            }
        }
    }

    /// The relay between the ends has a word with the agent.
    fn tell_agent(&mut self, message_type: MessageType) {
        let now = self.now();
        if self.is_connected {
            let message = AgentMessage::control(message_type, Uuid::nil(), now, 3, Bytes::new());
            self.agent.machine.receive(now, &message.encode());
        }
    }

    /// Drains one end, and lets it send what it can.
    fn settle(&mut self, is_agent: bool) {
        loop {
            while let Some(output) = self.end(is_agent).machine.poll() {
                match output {
                    Output::Transmit(frame) => self.carry(is_agent, &frame),
                    Output::Event(event) => self.take(is_agent, event),
                }
            }
            let (now, wish) = (self.now(), usize::try_from(1 + self.random.below(4000)).unwrap());
            // a client cannot know of a handshake before it begins: its driver waits for the session's type
            let waits = self.weather.handshake && self.client.handshakes == 0;
            if waits && !is_agent {
                return;
            }
            let end = self.end(is_agent);
            let size = wish.min(end.machine.writable()).min(end.to_send.len() - end.sent);
            if size == 0 {
                return;
            }
            let data = &end.to_send[end.sent..end.sent + size];
            end.machine.send(now, PayloadType::Output, data).unwrap();
            end.sent += size;
        }
    }

    fn carry(&mut self, from_agent: bool, frame: &Bytes) {
        assert!(self.is_connected, "sent without a connection");
        self.end(from_agent).transmitted += 1;
        let copies = 1 + u64::from(self.random.percent(self.weather.duplication));
        for _ in 0..copies {
            if !self.random.percent(self.weather.loss) {
                let after = self.random.millis(self.weather.max_delay);
                let (at_agent, connection, frame) = (!from_agent, self.connection, frame.clone());
                self.plan(
                    after,
                    Happening::Arrive {
                        at_agent,
                        connection,
                        frame,
                    },
                );
            }
        }
    }

    fn take(&mut self, at_agent: bool, event: Event) {
        match event {
            Event::Data {
                payload_type,
                payload,
            } => {
                assert_eq!(payload_type, PayloadType::Output);
                assert!(payload.len() <= self.weather.max_payload);
                self.end(at_agent).received.extend_from_slice(&payload);
                if self.random.percent(self.weather.not_ready) {
                    self.end(at_agent).machine.set_ready(false);
                    let after = self.random.millis(700);
                    self.plan(after, Happening::Ready { at_agent });
                }
            }
            Event::HandshakeComplete { session_type, .. } => {
                assert_eq!(session_type, "Port");
                self.end(at_agent).handshakes += 1;
            }
            Event::HandshakeFailed(_) => self.end(at_agent).failed = true,
            Event::DataKeyWanted { .. } | Event::DecryptionWanted { .. } => {
                let after = self.random.millis(500);
                self.plan(after, Happening::Key { at_agent });
            }
            Event::Paused | Event::Started(_) => assert!(at_agent),
            Event::Closed(_)
            | Event::EncryptionBroken(_)
            | Event::SessionState(_)
            | Event::PeerMisbehaved(_) => panic!("{event:?}"),
        }
    }

    /// Runs to the end, which must come.
    fn run(&mut self) {
        for _ in 0..200_000 {
            if !self.step() {
                return;
            }
            if self.agent.failed {
                return; // the network was too bad for 15 s
            }
            for end in [&self.agent, &self.client] {
                assert!(end.machine.unacknowledged() <= self.weather.window);
            }
        }
        panic!("no silence after {:?}", self.time);
    }
}

fn check(weather: &Weather) -> World {
    let mut world = World::new(weather);
    world.run();
    if world.agent.failed {
        assert!(weather.handshake && world.time >= Duration::from_secs(16));
        return world;
    }
    assert!(world.client.received == world.agent.to_send, "output differs");
    assert!(world.agent.received == world.client.to_send, "input differs");
    for end in [&world.agent, &world.client] {
        assert_eq!(end.machine.unacknowledged(), 0);
        assert_eq!(end.handshakes, usize::from(weather.handshake));
        assert_eq!(
            end.machine.is_encrypted(),
            weather.handshake && weather.encryption
        );
    }
    world
}

fn any_weather() -> impl Strategy<Value = Weather> {
    let link = (any::<u64>(), 0..40_u64, 0..30_u64, 0..600_u64, 0..6_u64);
    let peers = (0..4_u64, 0..20_u64, any::<bool>(), any::<bool>());
    let load = (
        1024..40_000_usize,
        4..1500_usize,
        0..30_000_usize,
        0..15_000_usize,
    );
    (link, peers, load).prop_map(|(link, peers, load)| {
        let (seed, loss, duplication, max_delay, disconnects) = link;
        let (pauses, not_ready, handshake, encryption) = peers;
        let (window, max_payload, agent_bytes, client_bytes) = load;
        // small payloads are many messages, and a lost one costs up to a second of virtual time
        let scale = |bytes: usize| bytes.min(max_payload * 400);
        Weather {
            seed,
            loss,
            duplication,
            max_delay,
            disconnects,
            pauses,
            not_ready,
            handshake,
            encryption,
            window,
            max_payload,
            agent_bytes: scale(agent_bytes),
            client_bytes: scale(client_bytes),
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn everything_arrives_once_and_in_order(weather in any_weather()) {
        check(&weather);
    }
}

const FAIR: Weather = Weather {
    seed: 1,
    loss: 0,
    duplication: 0,
    max_delay: 0,
    disconnects: 0,
    pauses: 0,
    not_ready: 0,
    handshake: false,
    encryption: false,
    window: 64 * 1024,
    max_payload: 1024,
    agent_bytes: 100_000,
    client_bytes: 100_000,
};

/// On a good network each message is sent once, and acknowledged once.
#[test]
fn a_good_network_carries_nothing_twice() {
    let world = check(&FAIR);
    let messages = |end: &End| end.received.len().div_ceil(1024);
    for end in [&world.agent, &world.client] {
        // random cuts of the source make more messages, but never twice as many
        assert!(
            end.transmitted < 3 * (messages(&world.agent) + messages(&world.client)),
            "{}",
            end.transmitted
        );
    }
    assert_eq!(world.time, Duration::from_secs(1));
}

/// After a break everything unacknowledged goes out at once, not one message for each timer.
#[test]
fn a_broken_connection_costs_no_timers() {
    let weather = Weather {
        max_delay: 20,
        disconnects: 5,
        agent_bytes: 300_000,
        ..FAIR
    };
    let world = check(&weather);
    assert!(world.time < Duration::from_secs(20), "{:?}", world.time);
}
