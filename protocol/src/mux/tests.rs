use proptest::prelude::*;

use super::*;

/// Everything that waits to be sent.
fn output(mux: &mut Mux) -> Vec<u8> {
    std::iter::from_fn(|| mux.transmit(64 * 1024))
        .flat_map(|bytes| bytes.to_vec())
        .collect()
}

fn all_events(mux: &mut Mux) -> Vec<MuxEvent> {
    std::iter::from_fn(|| mux.poll_event()).collect()
}

/// Without those of room, which come with every frame.
fn events(mux: &mut Mux) -> Vec<MuxEvent> {
    let is_of_room = |event: &MuxEvent| matches!(event, MuxEvent::Writable(_));
    let events = all_events(mux).into_iter();
    events.filter(|event| !is_of_room(event)).collect()
}

/// Carries what waits, both ways, until nothing does.
fn exchange(client: &mut Mux, agent: &mut Mux) {
    while client.has_output() || agent.has_output() {
        agent.receive(&output(client)).unwrap();
        client.receive(&output(agent)).unwrap();
    }
}

fn pair(version: u32) -> (Mux, Mux) {
    (Mux::new(Side::Opens, version), Mux::new(Side::Accepts, version))
}

/// A stream that both sides know.
fn opened(client: &mut Mux, agent: &mut Mux) -> StreamId {
    let id = client.open().unwrap();
    exchange(client, agent);
    assert!(events(agent).contains(&MuxEvent::Opened(id)));
    id
}

fn everything(mux: &mut Mux, id: StreamId) -> Vec<u8> {
    std::iter::from_fn(|| mux.read(id, 10_000))
        .flat_map(|bytes| bytes.to_vec())
        .collect()
}

#[test]
fn the_bytes_are_those_that_the_stock_peers_send() {
    let mut client = Mux::new(Side::Opens, 1);
    let id = client.open().unwrap();
    assert_eq!(client.write(id, b"hello\n"), 6);
    client.finish(id);
    client.keep_alive();
    let expected: Vec<u8> = [
        &[1, 0, 0, 0, 3, 0, 0, 0][..],
        &[1, 2, 6, 0, 3, 0, 0, 0],
        b"hello\n",
        &[1, 1, 0, 0, 3, 0, 0, 0],
    ]
    .concat();
    assert_eq!(output(&mut client), expected);
    client.keep_alive();
    assert_eq!(output(&mut client), [1, 3, 0, 0, 0, 0, 0, 0]);
    assert_eq!(client.open().map(|id| id.to_string()).as_deref(), Some("5"));
}

#[test]
fn frames_of_version_2_say_what_was_consumed_and_what_is_left() {
    let (mut client, mut agent) = pair(2);
    let id = opened(&mut client, &mut agent);
    client.write(id, b"abc");
    agent.receive(&output(&mut client)).unwrap();
    assert_eq!(agent.read(id, 10).as_deref(), Some(&b"abc"[..]));
    let window = (2_u32 * 1024 * 1024).to_le_bytes();
    let expected: Vec<u8> = [&[2, 4, 8, 0, 3, 0, 0, 0, 3, 0, 0, 0][..], &window].concat();
    assert_eq!(output(&mut agent), expected);
    agent.reset(id);
    assert_eq!(output(&mut agent), [2, 5, 0, 0, 3, 0, 0, 0]);
}

#[test]
fn what_is_no_frame_ends_the_multiplexer() {
    for (version, bytes, error) in [
        (1, [2, 0, 0, 0, 3, 0, 0, 0], MuxError::Version(2)),
        (2, [1, 0, 0, 0, 3, 0, 0, 0], MuxError::Version(1)),
        (1, [1, 9, 0, 0, 3, 0, 0, 0], MuxError::Command(9)),
        (1, [1, 4, 8, 0, 3, 0, 0, 0], MuxError::Command(4)),
        (1, [1, 5, 0, 0, 3, 0, 0, 0], MuxError::Command(5)),
        (
            1,
            [1, 0, 1, 0, 3, 0, 0, 0],
            MuxError::Length {
                command: 0,
                length: 1,
            },
        ),
        (
            2,
            [2, 4, 7, 0, 3, 0, 0, 0],
            MuxError::Length {
                command: 4,
                length: 7,
            },
        ),
    ] {
        let mut mux = Mux::new(Side::Accepts, version);
        assert_eq!(mux.receive(&bytes), Err(error));
        let open = [u8::try_from(version).unwrap(), 0, 0, 0, 5, 0, 0, 0];
        assert_eq!(mux.receive(&open), Ok(()), "nothing is read any more");
        assert_eq!(events(&mut mux), []);
    }
}

#[test]
fn data_goes_both_ways_and_each_end_is_told_once() {
    for version in [1, 2] {
        let (mut client, mut agent) = pair(version);
        let id = opened(&mut client, &mut agent);
        client.write(id, b"question");
        exchange(&mut client, &mut agent);
        assert_eq!(events(&mut agent), [MuxEvent::Readable(id)]);
        assert_eq!(agent.read(id, 4).as_deref(), Some(&b"ques"[..]));
        assert_eq!(events(&mut agent), [MuxEvent::Readable(id)], "there is more");
        assert_eq!(agent.read(id, 40).as_deref(), Some(&b"tion"[..]));
        agent.write(id, b"answer");
        agent.finish(id);
        exchange(&mut client, &mut agent);
        assert_eq!(
            events(&mut client),
            [MuxEvent::Readable(id), MuxEvent::Finished(id)]
        );
        assert_eq!(client.read(id, 40).as_deref(), Some(&b"answer"[..]));
        client.finish(id);
        exchange(&mut client, &mut agent);
        assert_eq!(events(&mut client), [MuxEvent::Closed(id)]);
        assert_eq!(events(&mut agent), [MuxEvent::Finished(id), MuxEvent::Closed(id)]);
    }
}

#[test]
fn one_direction_may_end_before_the_other_in_version_2() {
    let (mut client, mut agent) = pair(2);
    let id = opened(&mut client, &mut agent);
    client.write(id, b"all I have");
    client.finish(id);
    exchange(&mut client, &mut agent);
    assert_eq!(everything(&mut agent, id), b"all I have");
    assert_eq!(agent.write(id, b"the answer"), 10);
    agent.finish(id);
    exchange(&mut client, &mut agent);
    assert_eq!(everything(&mut client, id), b"the answer");
    assert!(events(&mut client).contains(&MuxEvent::Closed(id)));
    assert!(events(&mut agent).contains(&MuxEvent::Closed(id)));
}

#[test]
fn the_end_of_one_direction_is_that_of_both_in_version_1() {
    let (mut client, mut agent) = pair(1);
    let id = opened(&mut client, &mut agent);
    client.finish(id);
    agent.write(id, b"too late");
    exchange(&mut client, &mut agent);
    assert_eq!(agent.writable(id), 0);
    assert!(events(&mut agent).contains(&MuxEvent::Closed(id)));
    client.read(id, 100);
    assert!(events(&mut client).contains(&MuxEvent::Closed(id)));
}

#[test]
fn a_stream_that_is_left_disappears_on_both_sides() {
    for version in [1, 2] {
        let (mut client, mut agent) = pair(version);
        let id = opened(&mut client, &mut agent);
        client.write(id, &[7; 1000]);
        exchange(&mut client, &mut agent);
        agent.reset(id);
        assert_eq!(events(&mut agent), [], "who leaves knows it");
        client.write(id, b"more");
        exchange(&mut client, &mut agent);
        let heard = events(&mut client);
        if version == 2 {
            assert_eq!(heard, [MuxEvent::Reset(id)]);
        } else {
            assert_eq!(heard, [MuxEvent::Finished(id), MuxEvent::Closed(id)]);
        }
        assert!(client.streams.is_empty() && agent.streams.is_empty());
        assert_eq!(agent.unread, 0);
    }
}

#[test]
fn a_stream_that_nobody_reads_stops_no_other_in_version_2() {
    let (mut client, mut agent) = pair(2);
    let stuck = opened(&mut client, &mut agent);
    let other = opened(&mut client, &mut agent);
    let mut sent = 0;
    while client.writable(stuck) > 0 {
        sent += client.write(stuck, &[1; 4096]);
        exchange(&mut client, &mut agent);
    }
    assert_eq!(sent, 64 * 1024, "its window");
    for _ in 0..100 {
        assert_eq!(client.write(other, &[2; 4096]), 4096);
        exchange(&mut client, &mut agent);
        assert_eq!(everything(&mut agent, other), [2; 4096]);
        exchange(&mut client, &mut agent);
    }
    events(&mut client);
    assert_eq!(everything(&mut agent, stuck).len(), sent);
    exchange(&mut client, &mut agent);
    assert!(all_events(&mut client).contains(&MuxEvent::Writable(stuck)));
}

#[test]
fn unread_data_stops_the_stream_of_version_1_at_its_bound() {
    let (mut client, mut agent) = pair(1);
    let id = opened(&mut client, &mut agent);
    let mut received = 0;
    while agent.may_receive() {
        received += client.write(id, &[1; 10_000]);
        exchange(&mut client, &mut agent);
    }
    assert!(received < MAX_UNREAD_BYTES[0] + 20_000, "{received}");
    agent.read(id, 20_000);
    assert!(agent.may_receive());
}

fn update(id: StreamId, window: u32) -> Vec<u8> {
    [
        &header(2, frame::UPDATE, 8, id)[..],
        &0_u32.to_le_bytes(),
        &window.to_le_bytes(),
    ]
    .concat()
}

fn waiting(mux: &Mux) -> usize {
    mux.streams.values().map(|stream| stream.outgoing.len()).sum()
}

#[test]
fn a_client_that_gives_huge_windows_and_takes_nothing_makes_little_wait() {
    let mut agent = Mux::new(Side::Accepts, 2);
    let ids: Vec<StreamId> = (0..512).map(|number| StreamId(2 * number + 3)).collect();
    // the first ones come when there is memory for much, the others when there is for little
    for id in &ids {
        agent.receive(&header(2, frame::OPEN, 0, *id)).unwrap();
        agent.receive(&update(*id, u32::MAX)).unwrap();
        while agent.write(*id, &[1; 64 * 1024]) > 0 {}
    }
    assert_eq!(waiting(&agent), agent.waiting);
    assert!(agent.waiting <= 4 * 1024 * 1024, "{}", agent.waiting);
    all_events(&mut agent);
    // what waits goes out, and whoever writes is told
    while agent.has_output() {
        agent.transmit(64 * 1024);
    }
    assert_eq!(agent.waiting, 0);
    let told = all_events(&mut agent);
    assert!(ids.iter().all(|id| told.contains(&MuxEvent::Writable(*id))));
}

#[test]
fn a_client_that_sends_what_nobody_takes_fills_little() {
    let (mut client, mut agent) = pair(2);
    let ids: Vec<_> = (0..MAX_STREAMS).map(|_| client.open().unwrap()).collect();
    for id in &ids {
        while agent.may_receive() && client.write(*id, &[1; 64 * 1024]) > 0 {
            exchange(&mut client, &mut agent);
        }
    }
    assert!(!agent.may_receive(), "so many fill it");
    assert!(
        agent.unread <= MAX_UNREAD_BYTES[1] + 1024 * 1024,
        "{}",
        agent.unread
    );
    while agent.read(ids[0], 64 * 1024).is_some() {}
    assert!(agent.may_receive(), "and it goes on when one is read");
}

#[test]
fn all_windows_together_stay_within_the_memory_for_them() {
    let (mut client, mut agent) = pair(2);
    for streams in 1..=8_u32 {
        let id = opened(&mut client, &mut agent);
        let mut sent = 0;
        while sent < 1024 * 1024 {
            sent += client.write(id, &[1; 64 * 1024]);
            exchange(&mut client, &mut agent);
            while agent.read(id, usize::MAX).is_some() {}
            exchange(&mut client, &mut agent);
        }
        let promised: u32 = agent.streams.values().map(Stream::promised).sum();
        let shared = 4 * 1024 * 1024 + 64 * 1024 * streams;
        assert!(promised <= shared, "{promised} of {shared}");
    }
}

#[test]
fn a_peer_that_exceeds_a_window_is_not_believed() {
    let (mut client, mut agent) = pair(2);
    let id = opened(&mut client, &mut agent);
    let mut frame = header(2, frame::DATA, u16::MAX, id).to_vec();
    frame.extend([0; 65_535]);
    agent.receive(&frame).unwrap();
    let more = [&header(2, frame::DATA, 2, id)[..], &[0; 2]].concat();
    assert_eq!(agent.receive(&more), Err(MuxError::WindowExceeded(id)));
}

#[test]
fn there_are_so_many_streams_and_no_more() {
    for version in [1, 2] {
        let (mut client, mut agent) = pair(version);
        for _ in 0..MAX_STREAMS {
            client.open().unwrap();
        }
        assert_eq!(client.open(), None);
        exchange(&mut client, &mut agent);
        assert_eq!(events(&mut agent).len(), MAX_STREAMS);
        let version = u8::try_from(version).unwrap();
        agent
            .receive(&header(version, frame::OPEN, 0, StreamId(100_001)))
            .unwrap();
        let refused = StreamId(100_001);
        assert_eq!(events(&mut agent), [MuxEvent::Refused(refused)]);
        client.receive(&output(&mut agent)).unwrap();
        // the others live
        let id = StreamId(3);
        client.write(id, b"on");
        exchange(&mut client, &mut agent);
        assert_eq!(agent.unread(id), b"on");
    }
}

#[test]
fn a_peer_that_only_asks_is_given_up() {
    let mut agent = Mux::new(Side::Accepts, 1);
    let opens = (0..10_000_u32).map(|number| header(1, frame::OPEN, 0, StreamId(2 * number + 3)));
    let asked = opens.map(|frame| agent.receive(&frame)).find(Result::is_err);
    assert_eq!(asked, Some(Err(MuxError::TooManyFrames)));
    assert!(agent.control.len() <= MAX_CONTROL);
}

#[test]
fn a_stream_with_much_to_send_holds_up_no_other_for_long() {
    let (mut client, mut agent) = pair(1);
    let (bulk, interactive) = (client.open().unwrap(), client.open().unwrap());
    exchange(&mut client, &mut agent);
    client.write(bulk, &[0; SEND_TEST_BYTES]);
    client.transmit(1024);
    client.write(interactive, b"key");
    let before: usize = std::iter::from_fn(|| client.transmit(4 * 1024))
        .take_while(|bytes| !bytes.windows(3).any(|window| window == b"key"))
        .map(|bytes| bytes.len())
        .sum();
    assert!(before <= 2 * TURN_BYTES, "{before} bytes came first");
}

const SEND_TEST_BYTES: usize = 200 * 1024;

#[test]
fn frames_fit_what_the_channel_takes() {
    for most in [9, 16, 100, 1024, 32 * 1024] {
        let (mut client, mut agent) = pair(1);
        let id = client.open().unwrap();
        let data: Vec<u8> = (0..5000_u32).flat_map(u32::to_le_bytes).collect();
        client.write(id, &data);
        client.finish(id);
        let mut guard = 0;
        while client.has_output() {
            if let Some(bytes) = client.transmit(most) {
                assert!(bytes.len() <= most.max(24), "{} of {most}", bytes.len());
                agent.receive(&bytes).unwrap();
            }
            guard += 1;
            if guard > 100_000 {
                assert!(most < 16, "only so little room keeps all back");
                break;
            }
        }
        if most >= 16 {
            assert_eq!(everything(&mut agent, id), data);
        }
    }
}

/// What a driver may do.
#[derive(Debug, Clone)]
enum Step {
    Open,
    Write(prop::sample::Index, usize),
    Read(prop::sample::Index, usize),
    Finish(prop::sample::Index),
    /// Carry so many bytes, in pieces of this size.
    Carry(usize, usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        1 => Just(Step::Open),
        4 => (any::<prop::sample::Index>(), 0..80_000_usize).prop_map(|(i, n)| Step::Write(i, n)),
        4 => (any::<prop::sample::Index>(), 0..80_000_usize).prop_map(|(i, n)| Step::Read(i, n)),
        1 => any::<prop::sample::Index>().prop_map(Step::Finish),
        4 => (1..200_000_usize, 1..5000_usize).prop_map(|(n, size)| Step::Carry(n, size)),
    ]
}

/// One direction of the wire: bytes under way.
fn carry(from: &mut Mux, to: &mut Mux, most: usize, size: usize) {
    let mut carried = 0;
    while carried < most && to.may_receive() {
        let Some(bytes) = from.transmit(size.max(32)) else {
            break;
        };
        for piece in bytes.chunks(size) {
            to.receive(piece).unwrap();
        }
        carried += bytes.len();
    }
}

proptest! {
    /// Whatever the order of opening, writing, reading, ending and carrying: each byte arrives once and in order, the
    /// memory is bounded, and when both sides go on, everything ends.
    #[test]
    fn every_byte_of_every_stream_arrives_once_and_in_order(
        version in 1..=2_u32,
        steps in prop::collection::vec(step(), 1..120),
    ) {
        let (mut client, mut agent) = pair(version);
        let mut streams: Vec<StreamId> = Vec::new();
        let mut written: BTreeMap<StreamId, usize> = BTreeMap::new();
        let mut read: BTreeMap<StreamId, usize> = BTreeMap::new();
        let byte = |id: StreamId, at: usize| u8::try_from((at * 7 + id.0 as usize) % 251).unwrap();
        let mut take = |agent: &mut Mux, id: StreamId, most: usize| {
            while let Some(data) = agent.read(id, most) {
                let at = read.entry(id).or_default();
                for (offset, value) in data.iter().enumerate() {
                    assert_eq!(*value, byte(id, *at + offset));
                }
                *at += data.len();
                if most < 80_001 { break }
            }
        };
        for step in &steps {
            match step {
                Step::Open => streams.extend(client.open()),
                Step::Write(index, length) if !streams.is_empty() => {
                    let id = *index.get(&streams);
                    let at = written.entry(id).or_default();
                    let data: Vec<u8> = (0..*length).map(|offset| byte(id, *at + offset)).collect();
                    *at += client.write(id, &data);
                }
                Step::Read(index, length) if !streams.is_empty() => {
                    take(&mut agent, *index.get(&streams), *length);
                }
                Step::Finish(index) if !streams.is_empty() => client.finish(*index.get(&streams)),
                Step::Carry(most, size) => {
                    carry(&mut client, &mut agent, *most, *size);
                    carry(&mut agent, &mut client, *most, *size);
                }
                _ => {}
            }
            let bound = match version {
                1 => MAX_UNREAD_BYTES[0] + 5000,
                _ => 4 * 1024 * 1024 + streams.len() * 64 * 1024,
            };
            prop_assert!(agent.unread <= bound);
            prop_assert_eq!(waiting(&client), client.waiting);
        }
        for id in &streams {
            client.finish(*id);
        }
        let mut rounds = 0;
        loop {
            carry(&mut client, &mut agent, usize::MAX, 1000);
            for id in &streams {
                take(&mut agent, *id, 80_001);
                agent.finish(*id);
            }
            carry(&mut agent, &mut client, usize::MAX, 1000);
            if !client.has_output() && !agent.has_output() && agent.unread == 0 {
                break;
            }
            rounds += 1;
            prop_assert!(rounds < 10_000, "it goes on for ever");
        }
        for id in &streams {
            let sent = written.get(id).copied().unwrap_or_default();
            prop_assert_eq!(read.get(id).copied().unwrap_or_default(), sent);
        }
        prop_assert!(client.streams.is_empty() && agent.streams.is_empty());
    }

    /// Whatever a peer sends: no panic, and no more memory than the bounds.
    #[test]
    fn any_bytes_are_survived(
        version in 1..=2_u32,
        bytes in prop::collection::vec(any::<u8>(), 0..2000),
        frames in prop::collection::vec((0..7_u8, 0..20_u16, 0..9_u32), 0..60),
    ) {
        let mut mux = Mux::new(Side::Accepts, version);
        let version = u8::try_from(version).unwrap();
        for (command, length, id) in frames {
            let mut frame = header(version, command, length, StreamId(id)).to_vec();
            frame.extend(vec![command; usize::from(length)]);
            if mux.receive(&frame).is_err() {
                break;
            }
            while let Some(event) = mux.poll_event() {
                mux.read(event.stream(), 5);
                mux.write(event.stream(), b"answer");
            }
            output(&mut mux);
        }
        let _malformed = mux.receive(&bytes);
        output(&mut mux);
    }
}
