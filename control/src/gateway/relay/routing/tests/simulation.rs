//! Ends and the relay between them, with connections that break on either side, an endpoint that restarts, clients
//! that take the session from each other, and frames that come twice or change places: every byte arrives once and in
//! order.

use std::{cell::Cell, collections::VecDeque};

use moorline_protocol::channel::{DataChannel, Event, Output, Role};
use proptest::prelude::{
    Just, ProptestConfig, Strategy, TestCaseError, prop_assert, prop_assert_eq, prop_oneof, proptest,
};

use super::*;
use crate::gateway::{
    relay::session::Attached,
    token::{TokenError, Used},
};

const STEP_MILLIS: u64 = 5;
const LATENCY_STEPS: u64 = 2;
const WINDOW: usize = 64 * 1024;
/// What a node shows to a client that takes over, of what was there; more if more was on its way.
const REPLAY_BYTES: usize = 5000;
/// How long a refused client waits before it tries again.
const RETRY_STEPS: u64 = 20;
const MAX_STEPS: u64 = 200_000;

#[derive(Debug, Clone, Copy)]
enum Accident {
    Cut(Side),
    Restart,
    TakeOver,
    /// Somebody shows a token that opened a channel of the session before.
    Replay,
}

thread_local! {
    /// What is left to chance while a case runs (xorshift); the case's seed sets it.
    static CHANCE: Cell<u64> = const { Cell::new(1) };
}

fn percent(chance: u64) -> bool {
    let mut state = CHANCE.get();
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    CHANCE.set(state);
    state % 100 < chance
}

/// Frames on their way, each with the step at which it arrives.
#[derive(Default)]
struct Road(VecDeque<(u64, Bytes)>);

impl Road {
    /// Of the stream and its acknowledgements some come twice, and some before the one before them; what says whose
    /// the stream is keeps its place.
    fn push(&mut self, step: u64, frame: Bytes) {
        let arrival = step + LATENCY_STEPS;
        let of_stream = is_of_stream(&frame);
        if of_stream && percent(5) {
            self.0.push_back((arrival, frame.clone()));
        }
        self.0.push_back((arrival, frame));
        if let [.., (_, before), (_, last)] = &mut *self.0.make_contiguous()
            && of_stream
            && is_of_stream(before)
            && percent(10)
        {
            std::mem::swap(before, last);
        }
    }

    fn arrived(&mut self, step: u64) -> Option<Bytes> {
        self.0.pop_front_if(|(at, _)| *at <= step).map(|(_, frame)| frame)
    }
}

fn is_of_stream(frame: &Bytes) -> bool {
    let message_type = AgentMessage::decode(frame).unwrap().message_type;
    matches!(
        message_type,
        MessageType::InputStreamData | MessageType::OutputStreamData | MessageType::Acknowledge
    )
}

/// One end with its websocket.
struct End {
    side: Side,
    peer: Peer,
    machine: DataChannel,
    up: Road,
    down: Road,
    back_at: Option<u64>,
    received: Vec<u8>,
    to_send: VecDeque<Vec<u8>>,
}

impl End {
    fn new(side: Side, peer: Peer, chunks: Vec<Vec<u8>>, step: u64) -> Self {
        Self {
            side,
            peer,
            machine: machine(side, 0),
            up: Road::default(),
            down: Road::default(),
            back_at: Some(step),
            received: Vec::new(),
            to_send: chunks.into(),
        }
    }

    fn is_connected(&self) -> bool {
        self.back_at.is_none()
    }

    /// The socket is gone; the relay may have let go of it itself.
    fn lose(&mut self, step: u64, away_steps: u64) {
        self.up.0.clear();
        self.down.0.clear();
        self.machine.disconnected();
        self.back_at = Some(step + away_steps);
    }

    fn cut(&mut self, relay: &mut Relay, step: u64, away_steps: u64) {
        if self.is_connected() {
            relay.detach(now(step), self.side);
        }
        self.lose(step, away_steps);
    }

    /// Sends one piece, if it has one and the window takes it, and returns it.
    fn send_piece(&mut self, now: Now) -> Option<Vec<u8>> {
        let chunk = self.to_send.front()?;
        self.machine.send(now, PayloadType::Output, chunk).ok()?;
        self.to_send.pop_front()
    }

    fn hear(&mut self, now: Now, step: u64) {
        while let Some(frame) = self.down.arrived(step) {
            self.machine.receive(now, &frame);
        }
        if self.machine.next_timeout().is_some_and(|at| at <= now.monotonic) {
            self.machine.timeout(now);
        }
    }

    /// What the machine wants to be done, up to the next event.
    fn poll(&mut self, step: u64) -> Option<Event> {
        while let Some(output) = self.machine.poll() {
            match output {
                Output::Transmit(frame) => self.up.push(step, frame),
                Output::Event(event) => return Some(event),
            }
        }
        None
    }

    fn heed(&mut self, start: &StartPublication) {
        if let Some(bytes) = start.moorline_max_payload_bytes {
            self.machine.set_max_payload(usize::try_from(bytes).unwrap());
        }
    }

    fn exchange(&mut self, relay: &mut Relay, step: u64) {
        let now = now(step);
        if !self.is_connected() {
            return;
        }
        while relay.may_read(self.side)
            && let Some(frame) = self.up.arrived(step)
        {
            assert!(relay.receive(now, self.side, frame));
        }
        while let Some(frame) = relay.next_frame(now, self.side) {
            self.down.push(step, frame);
        }
    }

    fn is_done(&self) -> bool {
        self.to_send.is_empty() && self.machine.unacknowledged() == 0
    }
}

/// A stream that nothing was said on.
fn machine(side: Side, number: u8) -> DataChannel {
    let role = match side {
        Side::Agent => Role::Agent,
        Side::Client => Role::Client,
    };
    DataChannel::new(role, [u8::from(side == Side::Agent) + 2 * number; 32], WINDOW)
}

/// The node: a program that shows what it has to show, and takes what is typed.
struct Node {
    end: End,
    streams: u8,
    serves: String,
    shown: Vec<u8>,
    /// What the program got, by client.
    typed: Vec<(String, Vec<u8>)>,
}

impl Node {
    fn new(chunks: Vec<Vec<u8>>) -> Self {
        Self {
            end: End::new(Side::Agent, ours(""), chunks, 0),
            streams: 0,
            serves: String::new(),
            shown: Vec::new(),
            typed: Vec::new(),
        }
    }

    fn step(&mut self, relay: &mut Relay, step: u64) {
        let now = now(step);
        if self.end.back_at.is_some_and(|at| at <= step) {
            self.end.back_at = None;
            relay.attach(now, Side::Agent, self.end.peer.clone()).unwrap();
            self.end.machine.connected(now);
            self.say_whom_it_serves(now);
        }
        self.end.hear(now, step);
        if let Some(piece) = self.end.send_piece(now) {
            self.shown.extend(piece);
        }
        while let Some(event) = self.end.poll(step) {
            match event {
                Event::Data { payload, .. } => match self.typed.last_mut() {
                    Some((client, typed)) if *client == self.serves => typed.extend_from_slice(&payload),
                    _ => self.typed.push((self.serves.clone(), payload.to_vec())),
                },
                Event::Started(start) => {
                    self.serve_client(now, &start);
                    self.end.heed(&start);
                }
                _ => {}
            }
        }
        self.end.exchange(relay, step);
    }

    /// As the session worker does.
    fn serve_client(&mut self, now: Now, start: &StartPublication) {
        let client_id = start
            .moorline_client_id
            .as_ref()
            .expect("a relay of ours says it");
        if self.serves == *client_id {
            return;
        }
        let is_first = self.serves.is_empty() && !start.moorline_take_over;
        self.serves.clone_from(client_id);
        if is_first {
            return;
        }
        self.streams += 1;
        let at_risk = self.end.machine.unacknowledged();
        self.end.machine = machine(Side::Agent, self.streams);
        self.end.machine.connected(now);
        self.say_whom_it_serves(now);
        let tail = self.shown.len().saturating_sub(REPLAY_BYTES.max(at_risk));
        if let Some(replay) = self.shown.get(tail..).filter(|replay| !replay.is_empty()) {
            self.end.machine.send(now, PayloadType::Output, replay).unwrap();
        }
    }

    fn say_whom_it_serves(&mut self, now: Now) {
        let state = serde_json::from_slice(&serves(&self.serves).payload).unwrap();
        self.end.machine.send_session_state(now, &state);
    }
}

/// A client process.
struct Client {
    end: End,
    typed: Vec<u8>,
    has_ended: bool,
}

impl Client {
    fn new(number: usize, pieces: usize, step: u64) -> Self {
        let client_id = format!("c{number}");
        let chunks = chunks(pieces, u8::try_from(number + 1).unwrap());
        let peer = Peer {
            takes_over: number > 0,
            max_payload_bytes: Some(4096),
            ..ours(&client_id)
        };
        Self {
            typed: chunks.concat(),
            end: End::new(Side::Client, peer, chunks, step),
            has_ended: false,
        }
    }

    fn id(&self) -> &str {
        &self.end.peer.client_id
    }

    fn is_here(&self) -> bool {
        !self.has_ended && self.end.is_connected()
    }

    fn step(&mut self, relay: &mut Relay, step: u64) {
        let now = now(step);
        self.end.hear(now, step);
        // as ours: it would be typed twice, were the session lost to another client before it is known to be ours
        if !self.end.peer.takes_over {
            self.end.send_piece(now);
        }
        while let Some(event) = self.end.poll(step) {
            match event {
                Event::Data { payload, .. } => self.end.received.extend_from_slice(&payload),
                Event::Started(start) => {
                    // it is ours now: should another client take it, this one does not take it back
                    self.end.peer.takes_over = false;
                    self.end.heed(&start);
                }
                _ => {}
            }
        }
        self.end.exchange(relay, step);
    }
}

/// All that lives between two restarts of the endpoint, and what is on its disk.
struct World {
    relay: Relay,
    node: Node,
    clients: Vec<Client>,
    on_disk: Option<String>,
    /// When the disk will have the present client.
    recorded_at: Option<u64>,
    /// Each connection of a client takes a token, by its number.
    tokens: Used,
    tokens_made: u8,
}

impl World {
    fn new(output: usize, input: usize) -> Self {
        Self {
            relay: Relay::new(at(0), session(SessionType::StandardStream), 1),
            node: Node::new(chunks(output, 0)),
            clients: vec![Client::new(0, input, 0)],
            on_disk: None,
            recorded_at: None,
            tokens: Used::default(),
            tokens_made: 0,
        }
    }

    fn happen(&mut self, accident: Accident, step: u64, away: u64) {
        match accident {
            Accident::Cut(Side::Agent) => self.node.end.cut(&mut self.relay, step, away),
            Accident::Cut(Side::Client) => self.cut_clients(step, away),
            Accident::TakeOver => {
                let (number, pieces) = (self.clients.len(), usize::try_from(away % 40).unwrap() + 1);
                self.clients.push(Client::new(number, pieces, step));
            }
            Accident::Replay => {
                for stolen in 0..self.tokens_made {
                    assert_eq!(self.redeem(stolen, step), Err(TokenError::Used));
                }
            }
            Accident::Restart => {
                self.node.end.cut(&mut self.relay, step, away);
                self.cut_clients(step, away / 2);
                let resumed = RelaySession {
                    resumed: true,
                    client_id: self.on_disk.clone(),
                    ..session(SessionType::StandardStream)
                };
                self.relay = Relay::new(now(step), resumed, u128::from(step) << 64);
                self.recorded_at = None;
                // used tokens are kept in memory only
                (self.tokens, self.tokens_made) = (Used::default(), 0);
            }
        }
    }

    fn cut_clients(&mut self, step: u64, away: u64) {
        for client in self.clients.iter_mut().filter(|client| !client.has_ended) {
            client.end.cut(&mut self.relay, step, away);
        }
    }

    fn step(&mut self, step: u64) {
        let now = now(step);
        if self.relay.next_timeout().is_some_and(|at| at <= now.monotonic) {
            self.relay.timeout(now);
        }
        if self.recorded_at.is_some_and(|at| at <= step) {
            self.recorded_at = None;
            self.on_disk = self.holder().map(str::to_owned);
            self.relay.client_recorded(now);
        }
        self.node.step(&mut self.relay, step);
        for index in 0..self.clients.len() {
            if self.clients[index].end.back_at.is_some_and(|at| at <= step) {
                self.attach(index, step);
            }
            if !self.clients[index].has_ended {
                self.clients[index].step(&mut self.relay, step);
            }
        }
    }

    fn redeem(&mut self, token: u8, step: u64) -> Result<(), TokenError> {
        let millis = u64::try_from(now(step).monotonic.as_millis()).unwrap();
        self.tokens.remember(millis, [token; 16], [0; 16])
    }

    fn attach(&mut self, index: usize, step: u64) {
        if let Some(next) = self.tokens_made.checked_add(1) {
            assert_eq!(self.redeem(self.tokens_made, step), Ok(()));
            self.tokens_made = next;
        }
        let peer = self.clients[index].end.peer.clone();
        match self.relay.attach(now(step), Side::Client, peer) {
            Ok(attached) => {
                self.replace_others(index, step, &attached);
                let client = &mut self.clients[index];
                client.end.back_at = None;
                client.end.machine.connected(now(step));
                if attached == Attached::Alone {
                    self.on_disk = Some(client.id().to_owned());
                } else {
                    self.recorded_at = Some(step + 3);
                }
            }
            Err(AnotherClient::NodeAway) => self.clients[index].end.back_at = Some(step + RETRY_STEPS),
            Err(AnotherClient::Holds) => self.end_client(index),
            Err(refused) => panic!("{refused}"),
        }
    }

    /// Whoever had the session hears that it is gone, or just loses the connection.
    fn replace_others(&mut self, index: usize, step: u64, attached: &Attached) {
        for other in 0..self.clients.len() {
            if other == index || !self.clients[other].is_here() {
                continue;
            }
            let is_told = *attached != Attached::Alone && percent(70);
            self.clients[other].end.lose(step, RETRY_STEPS);
            if is_told {
                self.end_client(other);
            }
        }
    }

    fn end_client(&mut self, index: usize) {
        self.clients[index].end.back_at = None;
        self.clients[index].has_ended = true;
    }

    /// Whose the session is.
    fn holder(&self) -> Option<&str> {
        self.clients
            .iter()
            .find(|client| client.is_here())
            .map(Client::id)
    }

    fn is_done(&self) -> bool {
        let mut living = self.clients.iter().filter(|client| !client.has_ended);
        let last = living.next();
        living.next().is_none()
            && self.node.end.is_done()
            && last.is_some_and(|client| client.end.is_done() && self.node.serves == client.id())
    }

    fn check(&self, output: &[u8]) -> Result<(), TestCaseError> {
        let last = self
            .clients
            .iter()
            .find(|client| !client.has_ended)
            .expect("somebody has the session");
        prop_assert!(
            output.ends_with(&last.end.received),
            "the last client's output has a gap"
        );
        prop_assert_eq!(&self.node.shown, output);
        if self.clients.len() == 1 {
            prop_assert_eq!(last.end.received.len(), output.len());
        }
        for client in &self.clients {
            prop_assert!(
                is_part(&client.end.received, output),
                "the output of {} has a gap",
                client.id()
            );
            let typed: Vec<u8> = self.typed_by(client.id()).concat();
            prop_assert!(
                client.typed.starts_with(&typed),
                "a gap in what {} typed",
                client.id()
            );
            prop_assert!(
                self.typed_by(client.id()).len() <= 1,
                "{} typed again later",
                client.id()
            );
        }
        prop_assert_eq!(self.typed_by(last.id()).concat(), last.typed.clone());
        Ok(())
    }

    fn typed_by(&self, client_id: &str) -> Vec<&[u8]> {
        let typed = self.node.typed.iter();
        typed
            .filter(|(client, _)| client == client_id)
            .map(|(_, typed)| typed.as_slice())
            .collect()
    }
}

/// Whether this stands somewhere in the text, whose every eight bytes are found there once.
fn is_part(part: &[u8], text: &[u8]) -> bool {
    let begin = part.get(..part.len().min(8)).unwrap_or_default();
    let mut places = (0..=text.len() - begin.len()).filter(|at| text[*at..].starts_with(begin));
    places.any(|at| text[at..].starts_with(part))
}

fn now(step: u64) -> Now {
    at(step * STEP_MILLIS)
}

/// Pieces of text in which each four bytes tell their place and whose it is.
fn chunks(count: usize, whose: u8) -> Vec<Vec<u8>> {
    let mut words = (0_u32..).map(|word| (u32::from(whose) << 24 | word).to_be_bytes());
    (0..count)
        .map(|chunk| words.by_ref().take(350 + chunk % 700).flatten().collect())
        .collect()
}

fn accidents() -> impl Strategy<Value = Vec<(u64, u64, Accident)>> {
    let accident = prop_oneof![
        3 => Just(Accident::Cut(Side::Agent)),
        3 => Just(Accident::Cut(Side::Client)),
        1 => Just(Accident::Restart),
        3 => Just(Accident::TakeOver),
        1 => Just(Accident::Replay),
    ];
    proptest::collection::vec((1_u64..400, 0_u64..300, accident), 0..14)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
    #[test]
    fn every_byte_arrives_once_whatever_breaks_and_whoever_takes_over(
        accidents in accidents(),
        output in 1_usize..200,
        input in 1_usize..60,
        seed in 1_u64..,
    ) {
        CHANCE.set(seed);
        let mut world = World::new(output, input);
        let mut accidents: VecDeque<_> = accidents.into();
        let mut next_accident = accidents.front().map(|(gap, _, _)| *gap);
        let mut step = 0;
        while next_accident.is_some() || !world.is_done() {
            prop_assert!(step < MAX_STEPS, "it stands still");
            if next_accident == Some(step) {
                let (_, away, accident) = accidents.pop_front().unwrap();
                world.happen(accident, step, away);
                next_accident = accidents.front().map(|(gap, _, _)| step + *gap);
            }
            world.step(step);
            step += 1;
        }
        world.check(&chunks(output, 0).concat())?;
    }
}
