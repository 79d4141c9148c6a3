use super::*;

const RUNNING: Facts = Facts {
    shell_ended: false,
    ordered: false,
    urgent: false,
    processes_left: true,
    output_ended: false,
    unacknowledged: 0,
    progress_at: Duration::ZERO,
    peer: Peer::Attached,
    recording_complete: false,
};

/// The shell ended and left nothing; everything was delivered and recorded.
const ENDED: Facts = Facts {
    shell_ended: true,
    processes_left: false,
    output_ended: true,
    recording_complete: true,
    ..RUNNING
};

fn actions(ending: &mut Ending, now: Duration, facts: &Facts) -> Vec<Action> {
    std::iter::from_fn(|| {
        let action = ending.advance(now, facts)?;
        Some(action)
    })
    .take_while(|action| *action != Action::Finish)
    .collect()
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Goes from deadline to deadline with facts that do not change, and returns what was done when.
fn timeline(facts: &Facts) -> Vec<(Duration, Action)> {
    let mut ending = Ending::new();
    let mut now = Duration::ZERO;
    let mut done = Vec::new();
    loop {
        ending.looks_for_processes(now, facts.shell_ended, facts.ordered);
        while let Some(action) = ending.advance(now, facts) {
            done.push((now, action));
            if action == Action::Finish {
                return done;
            }
        }
        let next = ending
            .deadline(facts)
            .expect("an end that began has a next deadline");
        assert!(next > now, "stuck at {now:?} after {done:?}");
        now = next;
    }
}

#[test]
fn a_running_session_waits_for_nothing() {
    let mut ending = Ending::new();
    assert_eq!(ending.advance(seconds(1), &RUNNING), None);
    assert_eq!(ending.deadline(&RUNNING), None);
    assert!(!ending.looks_for_processes(seconds(1), false, false));
    assert!(ending.reads_output());
}

#[test]
fn an_ordinary_exit_ends_at_once() {
    let at_once = [Action::CompleteRecording, Action::Announce, Action::Finish];
    assert_eq!(timeline(&ENDED), at_once.map(|action| (Duration::ZERO, action)));
}

#[test]
fn processes_that_stay_are_hung_up_on_then_terminated_then_killed() {
    let stubborn = Facts {
        processes_left: true,
        ..ENDED
    };
    assert_eq!(
        timeline(&stubborn),
        [
            (seconds(0), Action::Signal(Signal::SIGHUP)),
            (seconds(2), Action::Signal(Signal::SIGTERM)),
            (seconds(4), Action::Signal(Signal::SIGKILL)),
            (seconds(6), Action::CompleteRecording),
            (seconds(6), Action::Announce),
            (seconds(6), Action::Finish),
        ]
    );
}

#[test]
fn an_urgent_end_is_announced_before_anything_is_waited_for_and_only_once() {
    let urgent = Facts {
        ordered: true,
        urgent: true,
        unacknowledged: 9,
        ..RUNNING
    };
    let done = timeline(&urgent);
    assert_eq!(
        done.first_chunk(),
        Some(&[
            (seconds(0), Action::Announce),
            (seconds(0), Action::Signal(Signal::SIGHUP)),
            (seconds(2), Action::Signal(Signal::SIGTERM)),
            (seconds(4), Action::Signal(Signal::SIGKILL)),
        ])
    );
    assert!(
        !done[1..].iter().any(|(_, action)| *action == Action::Announce),
        "{done:?}"
    );
}

#[test]
fn an_urgent_end_that_nobody_can_be_told_is_announced_at_the_end() {
    let urgent = Facts {
        ordered: true,
        urgent: true,
        peer: Peer::Away,
        ..ENDED
    };
    let at_once = [Action::CompleteRecording, Action::Announce, Action::Finish];
    assert_eq!(timeline(&urgent), at_once.map(|action| (Duration::ZERO, action)));
}

#[test]
fn no_rougher_signal_follows_once_all_are_gone() {
    let mut ending = Ending::new();
    let left = Facts {
        ordered: true,
        ..RUNNING
    };
    assert_eq!(
        actions(&mut ending, seconds(1), &left),
        [Action::Signal(Signal::SIGHUP)]
    );
    let gone = Facts {
        ordered: true,
        ..ENDED
    };
    assert_eq!(
        actions(&mut ending, seconds(1), &gone),
        [Action::CompleteRecording, Action::Announce]
    );
}

#[test]
fn output_is_read_until_its_end_before_the_recording_is_completed() {
    let mut ending = Ending::new();
    let open = Facts {
        output_ended: false,
        ..ENDED
    };
    assert_eq!(actions(&mut ending, seconds(1), &open), []);
    assert!(ending.reads_output());
    actions(&mut ending, seconds(1), &ENDED);
    assert!(!ending.reads_output());
}

#[test]
fn a_terminal_that_a_daemon_keeps_open_is_left_after_a_silence() {
    let open = Facts {
        output_ended: false,
        ..ENDED
    };
    assert_eq!(
        timeline(&open).first(),
        Some(&(SILENCE, Action::CompleteRecording))
    );
}

#[test]
fn what_is_not_acknowledged_waits_as_long_as_the_peer_may_still_take_it() {
    for (peer, patience) in [
        (Peer::Attached, ACKNOWLEDGE_PATIENCE),
        (Peer::Paused, PAUSED_PATIENCE),
        (Peer::Away, AWAY_PATIENCE),
    ] {
        let waiting = Facts {
            unacknowledged: 9,
            peer,
            ..ENDED
        };
        assert_eq!(
            timeline(&waiting).first(),
            Some(&(patience, Action::CompleteRecording)),
            "{peer:?}"
        );
    }
}

#[test]
fn acknowledgements_that_keep_coming_extend_the_wait_up_to_a_limit() {
    let mut ending = Ending::new();
    let mut now = Duration::ZERO;
    let completed = loop {
        let going_on = Facts {
            unacknowledged: 9,
            progress_at: now,
            ..ENDED
        };
        if ending.advance(now, &going_on) == Some(Action::CompleteRecording) {
            break now;
        }
        now += seconds(1);
    };
    assert_eq!(completed, DELIVERY_LIMIT);
}

#[test]
fn after_an_order_nobody_waits_for_acknowledgements() {
    let ordered = Facts {
        ordered: true,
        unacknowledged: 9,
        ..ENDED
    };
    assert_eq!(
        timeline(&ordered).first(),
        Some(&(Duration::ZERO, Action::CompleteRecording))
    );
}

#[test]
fn the_end_is_announced_before_a_recording_that_the_endpoint_does_not_take() {
    let stuck = Facts {
        recording_complete: false,
        ..ENDED
    };
    assert_eq!(
        timeline(&stuck),
        [
            (seconds(0), Action::CompleteRecording),
            (RECORDING_PATIENCE, Action::Announce),
            (RECORDING_PATIENCE + RECORDING_LIMIT, Action::Finish),
        ]
    );
}

#[test]
fn processes_are_looked_for_now_and_then_and_not_all_the_time() {
    let mut ending = Ending::new();
    let left = Facts {
        ordered: true,
        ..RUNNING
    };
    assert!(ending.looks_for_processes(seconds(1), false, true));
    ending.advance(seconds(1), &left);
    assert!(!ending.looks_for_processes(seconds(1), false, true));
    assert!(ending.looks_for_processes(seconds(1) + LOOK_AGAIN, false, true));
}
