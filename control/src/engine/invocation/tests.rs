use moorline_protocol::message::{ResultStatus, StepReply};

use super::*;

const START: u64 = 1_000_000;
const DEADLINES: Deadlines = Deadlines {
    delivery: START + 60_000,
    execution_millis: 3_600_000,
};

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|&name| name.to_owned()).collect()
}

pub(super) fn step(status: ResultStatus) -> StepReply {
    StepReply {
        status,
        code: 0,
        name: "aws:runShellScript".to_owned(),
        output: String::new(),
        start_date_time: String::new(),
        end_date_time: String::new(),
        output_s3_bucket_name: String::new(),
        output_s3_key_prefix: String::new(),
        step_name: String::new(),
        standard_output: String::new(),
        standard_error: String::new(),
    }
}

fn reply(made_at: i64, document_status: ResultStatus, steps: &[(&str, ResultStatus)]) -> Reply {
    let steps = steps
        .iter()
        .map(|&(name, status)| (name.to_owned(), step(status)))
        .collect();
    Reply {
        made_at,
        document_status,
        is_refused: false,
        trace: String::new(),
        steps,
    }
}

fn message(number: u128) -> Uuid {
    Uuid::from_u128(number)
}

fn accepted() -> Invocation {
    Invocation::accepted(START, DEADLINES)
}

fn sent() -> Invocation {
    let mut invocation = accepted();
    invocation.sent(message(1), START);
    invocation
}

fn taken() -> Invocation {
    let mut invocation = sent();
    invocation.job_acknowledged(JobAckCode::Successful, Some(message(1)), DEADLINES, START);
    invocation
}

#[test]
fn a_command_of_one_step_ends_with_its_final_reply() {
    let mut invocation = taken();
    assert_eq!(
        (invocation.status(), invocation.next_send_at),
        ("InProgress", None)
    );
    let steps = names(&["a"]);
    invocation.replied(&reply(1, ResultStatus::InProgress, &[]), &steps, DEADLINES, START);
    invocation.replied(
        &reply(2, ResultStatus::InProgress, &[("a", ResultStatus::Success)]),
        &steps,
        DEADLINES,
        START,
    );
    assert_eq!(invocation.status(), "InProgress");
    let last = reply(3, ResultStatus::Success, &[("a", ResultStatus::Success)]);
    invocation.replied(&last, &steps, DEADLINES, START + 5);
    assert_eq!(
        (invocation.status(), invocation.ended_at),
        ("Success", Some(START + 5))
    );
}

#[test]
fn every_answer_to_a_job_has_its_meaning() {
    use JobAckCode::*;
    let table = [
        (Successful, "InProgress", None),
        (DuplicateCommand, "InProgress", None),
        (ClosedProcessor, "Delayed", Some(START + REDELIVERY_MILLIS)),
        (ProcessorBufferFull, "Delayed", Some(START + REDELIVERY_MILLIS)),
        (UnexpectedDocumentType, "Failed", None),
        (ProcessorErrorCodeTranslationFailed, "Failed", None),
        (InvalidDocument, "Failed", None),
        (ContainerNotSupported, "Failed", None),
        (AgentJobMessageParseError, "Failed", None),
        (UnexpectedError, "Failed", None),
    ];
    for (code, status, next_send_at) in table {
        let mut invocation = sent();
        invocation.job_acknowledged(code, Some(message(1)), DEADLINES, START);
        assert_eq!(
            (invocation.status(), invocation.next_send_at),
            (status, next_send_at),
            "{code:?}"
        );
        assert_eq!(
            invocation.trace.is_empty(),
            status != "Failed",
            "{code:?}: {}",
            invocation.trace
        );
    }
}

#[test]
fn a_refusal_of_an_earlier_delivery_says_nothing_about_the_last_one() {
    let mut invocation = sent();
    invocation.sent(message(2), START + 5_000);
    invocation.job_acknowledged(
        JobAckCode::ProcessorBufferFull,
        Some(message(1)),
        DEADLINES,
        START + 5_001,
    );
    assert_eq!(invocation.delivery, Delivery::Sent);
    invocation.job_acknowledged(
        JobAckCode::ProcessorBufferFull,
        Some(message(2)),
        DEADLINES,
        START + 5_002,
    );
    assert_eq!(invocation.delivery, Delivery::Refused);
}

#[test]
fn a_refusal_after_a_reply_is_ignored() {
    let mut invocation = sent();
    invocation.replied(
        &reply(1, ResultStatus::InProgress, &[]),
        &names(&["a"]),
        DEADLINES,
        START,
    );
    invocation.job_acknowledged(JobAckCode::UnexpectedError, Some(message(1)), DEADLINES, START);
    assert_eq!(invocation.status(), "InProgress");
}

#[test]
fn what_time_makes_of_an_invocation_depends_on_what_is_known() {
    let refused = || {
        let mut invocation = sent();
        invocation.job_acknowledged(JobAckCode::ClosedProcessor, Some(message(1)), DEADLINES, START);
        invocation
    };
    let cancelling = |mut invocation: Invocation| {
        invocation.cancel(START);
        invocation
    };
    let result = START + 60_000 + 3_600_000;
    let table = [
        (accepted(), DEADLINES.delivery, Outcome::DeliveryTimedOut),
        (refused(), DEADLINES.delivery, Outcome::DeliveryTimedOut),
        (sent(), DEADLINES.delivery, Outcome::DeliveryUnconfirmed),
        (taken(), result, Outcome::ResultUnknown),
        (cancelling(sent()), DEADLINES.delivery, Outcome::CancelUnconfirmed),
        (cancelling(taken()), result, Outcome::ResultUnknown),
    ];
    for (mut invocation, deadline, outcome) in table {
        assert!(!invocation.time_passed(deadline - 1), "{outcome:?}");
        assert_eq!(invocation.outcome(), None, "{outcome:?}");
        assert!(invocation.time_passed(deadline), "{outcome:?}");
        assert_eq!(invocation.outcome(), Some(outcome));
        assert!(!invocation.time_passed(u64::MAX), "{outcome:?}");
    }
}

#[test]
fn a_cancelled_command_that_was_not_sent_ends_at_once() {
    let mut unsent = accepted();
    unsent.cancel(START);
    assert_eq!((unsent.status(), unsent.next_send_at), ("Cancelled", None));

    let mut refused = sent();
    refused.job_acknowledged(
        JobAckCode::ProcessorBufferFull,
        Some(message(1)),
        DEADLINES,
        START,
    );
    refused.cancel(START);
    assert_eq!((refused.status(), refused.next_send_at), ("Cancelled", None));

    // the refusal comes after the cancellation
    let mut crossing = sent();
    crossing.cancel(START);
    assert_eq!(crossing.status(), "Cancelling");
    crossing.job_acknowledged(
        JobAckCode::ProcessorBufferFull,
        Some(message(1)),
        DEADLINES,
        START,
    );
    assert_eq!(
        (crossing.status(), crossing.cancel_next_send_at),
        ("Cancelled", None)
    );
}

#[test]
fn a_cancel_job_is_sent_until_the_node_answers_and_the_end_comes_as_a_reply() {
    let mut invocation = taken();
    invocation.cancel(START);
    assert_eq!(
        (invocation.status(), invocation.cancel_next_send_at),
        ("Cancelling", Some(START))
    );
    invocation.cancel_sent(START);
    assert_eq!(invocation.cancel_next_send_at, Some(START + REDELIVERY_MILLIS));
    invocation.cancel_acknowledged(JobAckCode::ProcessorBufferFull, START + 10);
    assert_eq!(
        invocation.cancel_next_send_at,
        Some(START + 10 + REDELIVERY_MILLIS)
    );
    invocation.cancel_acknowledged(JobAckCode::Successful, START + 20);
    assert_eq!(
        (invocation.status(), invocation.cancel_next_send_at),
        ("Cancelling", None)
    );
    let last = reply(1, ResultStatus::Cancelled, &[("a", ResultStatus::Cancelled)]);
    invocation.replied(&last, &names(&["a"]), DEADLINES, START + 30);
    assert_eq!(invocation.status(), "Cancelled");
}

#[test]
fn a_node_that_confirms_the_cancellation_of_a_job_it_never_had_is_not_waited_for_long() {
    let mut invocation = sent();
    let deadlines = Deadlines {
        delivery: START + 7_200_000,
        ..DEADLINES
    };
    invocation.deadline_at = Some(deadlines.delivery);
    invocation.cancel(START);
    invocation.cancel_acknowledged(JobAckCode::Successful, START);
    assert!(invocation.time_passed(START + CANCEL_SILENCE_MILLIS));
    assert_eq!(invocation.outcome(), Some(Outcome::CancelUnconfirmed));
}

#[test]
fn the_end_of_a_document_waits_a_little_for_a_step_that_it_overtook() {
    let steps = names(&["a", "b"]);
    let mut invocation = taken();
    let first = reply(1, ResultStatus::InProgress, &[("a", ResultStatus::Success)]);
    invocation.replied(&first, &steps, DEADLINES, START);
    invocation.replied(&reply(3, ResultStatus::Success, &[]), &steps, DEADLINES, START);
    assert_eq!(invocation.status(), "InProgress");

    let mut complete = invocation.clone();
    let second = reply(2, ResultStatus::InProgress, &[("b", ResultStatus::Success)]);
    complete.replied(&second, &steps, DEADLINES, START + 1);
    assert_eq!(complete.status(), "Success");

    assert!(invocation.time_passed(START + SETTLING_MILLIS));
    assert_eq!(invocation.status(), "Success");
    assert_eq!(invocation.replied(&second, &steps, DEADLINES, START + 9_000), [0]);
    assert_eq!((invocation.status(), invocation.steps.len()), ("Success", 2));
}

#[test]
fn a_reboot_is_not_an_end() {
    let steps = names(&["a"]);
    let mut invocation = taken();
    let reboot = reply(
        1,
        ResultStatus::SuccessAndReboot,
        &[("a", ResultStatus::SuccessAndReboot)],
    );
    invocation.replied(&reboot, &steps, DEADLINES, START);
    assert_eq!(invocation.status(), "InProgress");
    let last = reply(2, ResultStatus::Success, &[("a", ResultStatus::Success)]);
    invocation.replied(&last, &steps, DEADLINES, START);
    assert_eq!(invocation.status(), "Success");
}

#[test]
fn a_result_after_an_unknown_end_is_noted_but_changes_nothing() {
    let mut invocation = taken();
    invocation.time_passed(u64::MAX);
    let last = reply(1, ResultStatus::Success, &[("a", ResultStatus::Success)]);
    assert_eq!(invocation.replied(&last, &names(&["a"]), DEADLINES, START), [0]);
    invocation.replied(&last, &names(&["a"]), DEADLINES, START);
    assert_eq!(invocation.outcome(), Some(Outcome::ResultUnknown));
    assert_eq!(invocation.trace, "reported later: Success");
}

#[test]
fn a_final_result_stays_after_the_end_whatever_the_node_says_later() {
    let steps = names(&["a"]);
    let mut invocation = taken();
    let last = reply(1, ResultStatus::Success, &[("a", ResultStatus::Success)]);
    assert_eq!(invocation.replied(&last, &steps, DEADLINES, START), [0]);
    assert_eq!(invocation.outcome(), Some(Outcome::Success));
    let later = reply(2, ResultStatus::Failed, &[("a", ResultStatus::Failed)]);
    assert_eq!(invocation.replied(&later, &steps, DEADLINES, START), [0_usize; 0]);

    // one that was missing at the end still comes
    let mut unknown = taken();
    assert!(unknown.time_passed(DEADLINES.delivery + DEADLINES.execution_millis));
    assert_eq!(unknown.replied(&last, &steps, DEADLINES, START), [0]);
}

#[test]
fn a_node_cannot_store_more_results_than_the_document_has_steps() {
    let mut invocation = taken();
    let flood: Vec<String> = (0..1_000).map(|number| format!("step{number}")).collect();
    let flood: Vec<_> = flood
        .iter()
        .map(|name| (name.as_str(), ResultStatus::Success))
        .collect();
    let flood = reply(1, ResultStatus::InProgress, &flood);
    assert_eq!(
        invocation
            .replied(&flood, &names(&["a", "b"]), DEADLINES, START)
            .len(),
        2
    );
    assert_eq!(invocation.steps.len(), 2);
}

#[test]
fn a_node_that_lives_is_granted_the_time_of_its_steps() {
    let steps = names(&["a", "b"]);
    let mut invocation = taken();
    let late = START + 3_500_000;
    let first = reply(1, ResultStatus::InProgress, &[("a", ResultStatus::Success)]);
    invocation.replied(&first, &steps, DEADLINES, late);
    assert_eq!(invocation.deadline_at, Some(late + DEADLINES.execution_millis));
}

#[test]
fn deregistration_ends_what_is_open() {
    let mut unsent = accepted();
    unsent.node_left(START);
    assert_eq!(unsent.outcome(), Some(Outcome::Undeliverable));
    let mut running = taken();
    running.node_left(START);
    assert_eq!(running.outcome(), Some(Outcome::ResultUnknown));
}

#[test]
fn details_fit_the_models_hundred_characters() {
    for outcome in Outcome::ALL {
        assert!(outcome.details().len() <= 100, "{outcome:?}");
    }
}
