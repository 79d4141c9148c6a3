//! A session changes its client, whatever else happens meanwhile.

use super::*;
use crate::gateway::relay::session::Attached;

fn taking(client_id: &str) -> Peer {
    Peer {
        takes_over: true,
        operator: "eve".to_owned(),
        ..ours(client_id)
    }
}

/// Both sides of ours, the session used by client `a`.
fn used_by_a(session_type: SessionType) -> Bench {
    let mut bench = Bench::new(session_type);
    bench.attach(Side::Agent, ours("")).unwrap();
    bench.receive(Side::Agent, &serves(""));
    bench.attach(Side::Client, ours("a")).unwrap();
    bench.receive(Side::Agent, &output(0, "$ "));
    bench.receive(Side::Client, &input(0, "typed by a"));
    bench.drain(Side::Agent);
    bench.drain(Side::Client);
    bench.events();
    bench
}

fn goodbye(attached: Attached) -> ChannelClosed {
    let Attached::TookOver { goodbye } = attached else {
        panic!("nobody had it before");
    };
    serde_json::from_slice(&AgentMessage::decode(&goodbye).unwrap().payload).unwrap()
}

fn asked(frames: &[AgentMessage]) -> StartPublication {
    assert_eq!(frames.len(), 1, "{frames:?}");
    assert_eq!(frames[0].message_type, MessageType::StartPublication);
    serde_json::from_slice(&frames[0].payload).unwrap()
}

fn wanted(client_id: &str) -> StartPublication {
    StartPublication {
        moorline_max_payload_bytes: Some(32_768),
        moorline_client_id: Some(client_id.to_owned()),
        moorline_take_over: true,
    }
}

#[test]
fn a_new_client_gets_a_stream_of_its_own_and_the_old_one_the_reason() {
    let mut bench = used_by_a(SessionType::StandardStream);
    let closed = goodbye(bench.attach(Side::Client, taking("b")).unwrap());
    assert_eq!(
        closed.output,
        "the session was taken over by another client (eve)"
    );
    assert_eq!(bench.events(), [RelayEvent::TakenOver]);
    assert_eq!(bench.types(Side::Agent), [""; 0], "it is not on disk yet");
    assert!(bench.relay.awaits_record());
    bench.relay.client_recorded(at(0));
    assert_eq!(asked(&bench.drain(Side::Agent)), wanted("b"));

    // what is on its way, of the old stream and for the new one
    bench.receive(Side::Agent, &output(1, "for a"));
    bench.receive(Side::Agent, &ack_of(&input(0, "typed by a")));
    bench.receive(Side::Client, &input(0, "typed by b"));
    assert_eq!(
        (bench.types(Side::Agent).len(), bench.types(Side::Client).len()),
        (0, 0)
    );

    bench.receive(Side::Agent, &serves("b"));
    assert_eq!(
        bench.types(Side::Agent),
        ["start_publication", "input_stream_data"]
    );
    let scrollback = output(0, "what was there");
    bench.receive(Side::Agent, &scrollback);
    let to_client = bench.drain(Side::Client);
    assert_eq!(to_client[0].message_type, MessageType::StartPublication);
    assert_eq!(&to_client[1..], std::slice::from_ref(&scrollback));
    bench.receive(Side::Client, &ack_of(&scrollback));
    assert_eq!(bench.drain(Side::Agent), [ack_of(&scrollback)]);
    assert_eq!(bench.events(), [RelayEvent::Connected]);
    assert_eq!(
        bench.attach(Side::Client, ours("a")),
        Err(AnotherClient::Holds),
        "the old client does not come back by itself"
    );
}

#[test]
fn an_agent_that_was_cut_off_is_asked_again_unless_it_has_understood() {
    for understood in [false, true] {
        let mut bench = used_by_a(SessionType::StandardStream);
        bench.attach(Side::Client, taking("b")).unwrap();
        bench.relay.client_recorded(at(0));
        bench.drain(Side::Agent);
        bench.detach(Side::Agent);
        bench.receive(Side::Client, &input(0, "typed by b"));
        bench.attach(Side::Agent, ours("")).unwrap();
        assert_eq!(
            bench.types(Side::Agent),
            [""; 0],
            "it has not said whom it serves"
        );
        bench.receive(Side::Agent, &serves(if understood { "b" } else { "a" }));
        if !understood {
            assert_eq!(asked(&bench.drain(Side::Agent)), wanted("b"));
            bench.receive(Side::Agent, &serves("b"));
        }
        assert_eq!(
            bench.types(Side::Agent),
            ["start_publication", "input_stream_data"]
        );
    }
}

#[test]
fn after_a_restart_of_the_endpoint_the_client_on_disk_is_the_one_to_serve() {
    for (serves_now, asks) in [("a", true), ("b", false), ("", true)] {
        let resumed = RelaySession {
            resumed: true,
            client_id: Some("b".to_owned()),
            ..session(SessionType::StandardStream)
        };
        let mut bench = Bench {
            relay: Relay::new(at(0), resumed, 1),
            millis: 0,
        };
        bench.attach(Side::Client, ours("b")).unwrap();
        bench.receive(Side::Client, &input(0, "typed by b"));
        bench.attach(Side::Agent, ours("")).unwrap();
        assert_eq!(bench.types(Side::Agent), [""; 0]);
        bench.receive(Side::Agent, &serves(serves_now));
        if asks {
            assert_eq!(asked(&bench.drain(Side::Agent)), wanted("b"));
            bench.receive(Side::Agent, &output(9, "for a"));
            bench.receive(Side::Agent, &serves("b"));
        }
        assert_eq!(
            bench.types(Side::Agent),
            ["start_publication", "input_stream_data"]
        );
        assert_eq!(bench.types(Side::Client), ["start_publication"]);
    }
}

#[test]
fn of_two_that_take_over_the_later_one_has_it() {
    let mut bench = used_by_a(SessionType::InteractiveCommands);
    bench.attach(Side::Client, taking("b")).unwrap();
    bench.attach(Side::Client, taking("c")).unwrap();
    bench.relay.client_recorded(at(0));
    bench.receive(Side::Agent, &serves("b"));
    bench.receive(Side::Agent, &output(0, "for b"));
    bench.receive(Side::Agent, &serves("c"));
    bench.receive(Side::Agent, &output(0, "for c"));
    let shown: Vec<_> = bench
        .drain(Side::Client)
        .into_iter()
        .map(|frame| frame.payload)
        .collect();
    assert!(!shown.contains(&Bytes::from_static(b"for b")), "{shown:?}");
    assert!(shown.contains(&Bytes::from_static(b"for c")), "{shown:?}");
}

#[test]
fn what_cannot_be_taken_over_is_refused_with_the_reason() {
    for session_type in [SessionType::Port, SessionType::NonInteractiveCommands] {
        let mut bench = used_by_a(session_type);
        assert_eq!(
            bench.attach(Side::Client, taking("b")),
            Err(AnotherClient::NotAShell(session_type.as_str()))
        );
    }
    let mut stock_agent = Bench::attached(SessionType::StandardStream, ours("a"));
    stock_agent.receive(Side::Client, &input(0, "x"));
    assert_eq!(
        stock_agent.attach(Side::Client, taking("b")),
        Err(AnotherClient::StockAgent)
    );
    let mut unknown = Bench::new(SessionType::StandardStream);
    unknown.attach(Side::Client, ours("a")).unwrap();
    unknown.receive(Side::Client, &input(0, "x"));
    assert_eq!(
        unknown.attach(Side::Client, taking("b")),
        Err(AnotherClient::NodeAway)
    );
}

/// It begins a stream for the first on hearing of it; what it then has said to that one would pass for the second's.
#[test]
fn the_first_client_of_which_the_agent_was_told_is_not_replaced_without_a_take_over() {
    let mut bench = Bench::new(SessionType::StandardStream);
    bench.attach(Side::Agent, ours("")).unwrap();
    bench.receive(Side::Agent, &serves(""));
    bench.attach(Side::Client, ours("a")).unwrap();
    assert_eq!(bench.types(Side::Agent), ["start_publication"]);
    assert_eq!(bench.attach(Side::Client, ours("b")), Err(AnotherClient::Holds));
    goodbye(bench.attach(Side::Client, taking("c")).unwrap());
    bench.receive(Side::Agent, &output(0, "for a"));
    bench.relay.client_recorded(at(0));
    assert_eq!(asked(&bench.drain(Side::Agent)), wanted("c"));
    bench.receive(Side::Agent, &serves("c"));
    bench.receive(Side::Agent, &output(0, "for c"));
    assert_eq!(bench.drain(Side::Client).last().unwrap().payload, "for c");
}

/// An agent of ours whose first start, with the name of its client, was lost with the endpoint.
#[test]
fn a_first_client_that_was_forgotten_is_replaced_without_being_asked() {
    let mut bench = Bench::new(SessionType::StandardStream);
    bench.attach(Side::Agent, ours("")).unwrap();
    bench.receive(Side::Agent, &serves("a"));
    bench.receive(Side::Agent, &output(5, "for a"));
    bench.attach(Side::Client, ours("b")).unwrap();
    assert_eq!(asked(&bench.drain(Side::Agent)), wanted("b"));
    bench.receive(Side::Agent, &serves("b"));
    bench.receive(Side::Agent, &output(0, "for b"));
    let to_client = bench.drain(Side::Client);
    assert_eq!(to_client.last().unwrap().payload, "for b");
    assert_eq!(to_client.len(), 2);
}
