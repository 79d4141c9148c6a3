//! Whatever arrives in whatever order, an invocation ends once, and what the node did decides how.

use moorline_protocol::message::ResultStatus;
use proptest::prelude::*;

use super::{tests::step, *};

const START: u64 = 1_000_000;
const DEADLINES: Deadlines = Deadlines {
    delivery: START + 3_600_000,
    execution_millis: 3_600_000,
};

/// Something that happens to an invocation.
#[derive(Debug, Clone)]
enum Event {
    Sent(u128),
    Acknowledged(JobAckCode, u128),
    Cancel,
    CancelSent,
    CancelAcknowledged(JobAckCode),
    Replied(Reply),
    Released,
    Terminated,
    TimePassed(u64),
    NodeLeft,
}

fn apply(invocation: &mut Invocation, event: &Event, step_names: &[String]) {
    match event {
        Event::Sent(id) => invocation.sent(Uuid::from_u128(*id), START),
        Event::Acknowledged(code, id) => {
            invocation.job_acknowledged(*code, Some(Uuid::from_u128(*id)), DEADLINES, START);
        }
        Event::Cancel => invocation.cancel(START),
        Event::CancelSent => invocation.cancel_sent(START),
        Event::CancelAcknowledged(code) => invocation.cancel_acknowledged(*code, START),
        Event::Replied(reply) => {
            invocation.replied(reply, step_names, DEADLINES, START);
        }
        Event::Released => invocation.release(START, 3_600_000),
        Event::Terminated => invocation.terminate(START),
        Event::TimePassed(now) => {
            invocation.time_passed(*now);
        }
        Event::NodeLeft => invocation.node_left(START),
    }
}

fn step_names(steps: usize) -> Vec<String> {
    (0..steps).map(|number| format!("step{number}")).collect()
}

fn reply(made_at: i64, document_status: ResultStatus, steps: Vec<(String, ResultStatus)>) -> Event {
    let steps = steps
        .into_iter()
        .map(|(name, status)| (name, step(status)))
        .collect();
    Event::Replied(Reply {
        made_at,
        document_status,
        is_refused: false,
        trace: String::new(),
        steps,
    })
}

/// What a node sends for a document (agent-wire §6.5), and how that ends.
fn run_of_a_node(steps: &[ResultStatus]) -> (Vec<Event>, Outcome) {
    let any = |wanted| steps.contains(&wanted);
    let document = if any(ResultStatus::Failed) {
        (ResultStatus::Failed, Outcome::Failed)
    } else if any(ResultStatus::TimedOut) {
        (ResultStatus::TimedOut, Outcome::ExecutionTimedOut)
    } else if any(ResultStatus::Cancelled) {
        (ResultStatus::Cancelled, Outcome::Cancelled)
    } else {
        (ResultStatus::Success, Outcome::Success)
    };
    let mut events = vec![
        Event::Acknowledged(JobAckCode::Successful, 1),
        reply(0, ResultStatus::InProgress, Vec::new()),
    ];
    for ((name, status), made_at) in step_names(steps.len()).into_iter().zip(steps).zip(1..) {
        events.push(reply(made_at, ResultStatus::InProgress, vec![(name, *status)]));
    }
    let last = match steps {
        [only] => vec![("step0".to_owned(), *only)],
        _ => Vec::new(),
    };
    events.push(reply(100, document.0, last));
    (events, document.1)
}

fn final_status() -> impl Strategy<Value = ResultStatus> {
    prop::sample::select(vec![
        ResultStatus::Success,
        ResultStatus::Failed,
        ResultStatus::Cancelled,
        ResultStatus::TimedOut,
        ResultStatus::Skipped,
    ])
}

/// All messages of one run, some of them twice, in any order, with cancellations between.
fn shuffled_run() -> impl Strategy<Value = (usize, Vec<Event>, Outcome)> {
    let steps = prop::collection::vec(final_status(), 1..5);
    (
        steps,
        prop::collection::vec(any::<prop::sample::Index>(), 0..12),
        0..3_usize,
    )
        .prop_flat_map(|(steps, again, cancellations)| {
            let (mut events, outcome) = run_of_a_node(&steps);
            let repeated: Vec<_> = again.iter().map(|index| index.get(&events).clone()).collect();
            events.extend(repeated);
            for _ in 0..cancellations {
                events.push(Event::Cancel);
                events.push(Event::CancelAcknowledged(JobAckCode::Successful));
            }
            (Just(steps.len()), Just(events).prop_shuffle(), Just(outcome))
        })
}

fn any_code() -> impl Strategy<Value = JobAckCode> {
    prop::sample::select(vec![
        JobAckCode::Successful,
        JobAckCode::DuplicateCommand,
        JobAckCode::ClosedProcessor,
        JobAckCode::ProcessorBufferFull,
        JobAckCode::InvalidDocument,
        JobAckCode::UnexpectedError,
    ])
}

fn any_event() -> impl Strategy<Value = Event> {
    let any_status = prop_oneof![
        final_status(),
        Just(ResultStatus::InProgress),
        Just(ResultStatus::SuccessAndReboot),
        Just(ResultStatus::NotStarted),
    ];
    let steps = prop::collection::vec((0..6_usize, any_status.clone()), 0..4);
    prop_oneof![
        (0..3_u128).prop_map(Event::Sent),
        (any_code(), 0..3_u128).prop_map(|(code, id)| Event::Acknowledged(code, id)),
        Just(Event::Cancel),
        Just(Event::CancelSent),
        any_code().prop_map(Event::CancelAcknowledged),
        (0..50_i64, any_status, steps).prop_map(|(made_at, document, steps)| {
            let steps = steps
                .into_iter()
                .map(|(number, status)| (format!("step{number}"), status));
            reply(made_at, document, steps.collect())
        }),
        (START..START + 20_000_000).prop_map(Event::TimePassed),
        Just(Event::Released),
        Just(Event::Terminated),
        Just(Event::NodeLeft),
    ]
}

/// What holds between any two events.
fn check_step(before: &Invocation, after: &Invocation) {
    if let Some(outcome) = before.outcome() {
        assert_eq!(after.outcome(), Some(outcome), "an end stays");
        assert_eq!(after.ended_at, before.ended_at, "and when it was");
    }
    assert_eq!(
        after.outcome().is_none() && after.delivery != Delivery::Held,
        after.deadline_at.is_some(),
        "what is open and not held has a deadline"
    );
    assert_eq!(after.outcome().is_some(), after.ended_at.is_some());
    let is_held = after.delivery == Delivery::Held;
    if after.outcome().is_some() || after.cancel_requested || after.delivery == Delivery::Taken || is_held {
        assert_eq!(
            after.next_send_at, None,
            "what ended, is cancelled, was taken or is held is not sent"
        );
    }
    assert!(after.steps.len() <= 3, "results are bounded");
    for (name, rank) in &before.steps {
        assert!(
            after.steps.get(name).is_some_and(|now| now >= rank),
            "no result is replaced by an older one"
        );
    }
}

proptest! {
    #[test]
    fn any_order_and_repetition_of_a_nodes_messages_gives_the_same_final_state(
        (steps, events, outcome) in shuffled_run()
    ) {
        let names = step_names(steps);
        let mut invocation = Invocation::accepted(START, DEADLINES);
        apply(&mut invocation, &Event::Sent(1), &names);
        let mut ends = 0;
        for event in &events {
            let before = invocation.outcome();
            apply(&mut invocation, event, &names);
            ends += usize::from(before.is_none() && invocation.outcome().is_some());
        }
        prop_assert_eq!(invocation.outcome(), Some(outcome));
        prop_assert_eq!(ends, 1);
        prop_assert_eq!(invocation.steps.len(), steps);
        prop_assert!(invocation.steps.values().all(|rank| rank.is_final));
    }

    #[test]
    fn whatever_happens_an_invocation_ends_at_most_once_and_time_ends_it(
        is_held in any::<bool>(),
        events in prop::collection::vec(any_event(), 0..40)
    ) {
        let names = step_names(3);
        let mut invocation = if is_held {
            Invocation::held(START, DEADLINES)
        } else {
            Invocation::accepted(START, DEADLINES)
        };
        for event in &events {
            let before = invocation.clone();
            // the store sends only what is due
            let is_due = match event {
                Event::Sent(_) => before.next_send_at.is_some(),
                Event::CancelSent => before.cancel_next_send_at.is_some(),
                _ => true,
            };
            if is_due {
                apply(&mut invocation, event, &names);
                check_step(&before, &invocation);
            }
        }
        // time begins with the turn, which comes or never will
        invocation.release(START, 3_600_000);
        invocation.time_passed(u64::MAX);
        prop_assert!(invocation.outcome().is_some());
    }
}
