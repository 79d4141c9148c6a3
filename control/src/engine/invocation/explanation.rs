//! Why an invocation stands where it stands, as a sentence for the operator who asks.

use super::{Delivery, Invocation, Outcome, Stage};

/// What else than the invocation itself decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Circumstances {
    /// The node's control channel stands.
    pub(crate) is_connected: bool,
    /// Errors of the command so far.
    pub(crate) errors: u64,
    /// What `MaxErrors` and `MaxConcurrency` come to.
    pub(crate) max_errors: u64,
    pub(crate) max_concurrency: u64,
}

/// One or two sentences.
pub(crate) fn explain(invocation: &Invocation, around: &Circumstances) -> String {
    match invocation.stage {
        Stage::Pending if invocation.delivery == Delivery::Held => format!(
            "It waits for its turn: at most {} nodes may have the command at the same time (MaxConcurrency). Its \
             delivery time-out does not run yet.",
            around.max_concurrency
        ),
        Stage::Pending if invocation.cancel_requested => {
            "It was sent, then cancelled, and the node has confirmed neither.".to_owned()
        }
        Stage::Pending if !around.is_connected => {
            let sent = if invocation.delivery == Delivery::Sent {
                "It was sent, but the node has not confirmed it and is not connected."
            } else {
                "It was not sent yet: the node is not connected."
            };
            format!("{sent} The node gets it when it connects, until the delivery time-out.")
        }
        Stage::Pending if invocation.delivery == Delivery::Sent => {
            "It was sent, and the node has not confirmed it yet.".to_owned()
        }
        Stage::Pending => "It is about to be sent.".to_owned(),
        Stage::Delayed => {
            "The node has too much to do and refused it for now; it gets it again until the delivery time-out.".to_owned()
        }
        Stage::InProgress if invocation.cancel_requested => {
            "The node has it and is to cancel it; it has not reported the end yet.".to_owned()
        }
        Stage::InProgress => "The node has it and has not reported its end yet.".to_owned(),
        Stage::Settling(_) => {
            "The document has ended on the node; the result of a step is still on its way.".to_owned()
        }
        Stage::Ended(outcome) => explain_end(invocation, outcome, around),
    }
}

fn explain_end(invocation: &Invocation, outcome: Outcome, around: &Circumstances) -> String {
    let was_taken = invocation.delivery == Delivery::Taken;
    match outcome {
        Outcome::Success => "The node ran it: no step failed.".to_owned(),
        Outcome::AccessDenied => "The policy of the node's owner refused it: nothing ran there.".to_owned(),
        Outcome::Failed if was_taken => "The node took it, and it failed there.".to_owned(),
        Outcome::Failed => "The node refused it for good: nothing ran there.".to_owned(),
        Outcome::Cancelled if was_taken => "It was cancelled while the node had it.".to_owned(),
        Outcome::Cancelled => "It was cancelled before the node got it: nothing ran there.".to_owned(),
        Outcome::CancelUnconfirmed => {
            "It was cancelled after it had been sent, and the node never said that it had it: whether anything ran \
             is unknown."
                .to_owned()
        }
        Outcome::DeliveryTimedOut if invocation.times.sent_at.is_some() => {
            "The node refused it for now until the delivery time-out was over: nothing ran there.".to_owned()
        }
        Outcome::DeliveryTimedOut => {
            "The node was not connected until the delivery time-out was over: nothing ran there.".to_owned()
        }
        Outcome::DeliveryUnconfirmed => {
            "It was sent, and the node did not confirm it until the delivery time-out was over: whether anything \
             ran is unknown."
                .to_owned()
        }
        Outcome::ExecutionTimedOut => {
            "A step took longer than it may, and the node ended it.".to_owned()
        }
        Outcome::InvalidPlatform => "It was never sent: the document is not for the node's platform.".to_owned(),
        Outcome::ResultUnknown => {
            "The node had it and did not report its end in time: how it ended is unknown.".to_owned()
        }
        Outcome::Terminated => format!(
            "It was never sent: before it had its turn the command had {} errors, and {} are allowed (MaxErrors).",
            around.errors, around.max_errors
        ),
        Outcome::Undeliverable => "It was never sent: the node was deregistered before.".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use moorline_protocol::message::JobAckCode;
    use uuid::Uuid;

    use super::*;
    use crate::engine::invocation::Deadlines;

    const AROUND: Circumstances = Circumstances {
        is_connected: true,
        errors: 3,
        max_errors: 2,
        max_concurrency: 7,
    };
    const DEADLINES: Deadlines = Deadlines {
        delivery: 10_000,
        execution_millis: 1000,
    };

    fn accepted() -> Invocation {
        Invocation::accepted(1, DEADLINES)
    }

    #[test]
    fn what_has_not_ended_says_what_it_waits_for() {
        let away = Circumstances {
            is_connected: false,
            ..AROUND
        };
        let held = Invocation::held(1, DEADLINES);
        assert!(explain(&held, &AROUND).contains("at most 7 nodes"));
        assert!(explain(&accepted(), &AROUND).contains("about to be sent"));
        assert!(explain(&accepted(), &away).contains("not sent yet: the node is not connected"));
        let mut sent = accepted();
        sent.sent(Uuid::nil(), 2);
        assert!(explain(&sent, &AROUND).contains("has not confirmed it yet"));
        assert!(explain(&sent, &away).contains("It was sent, but"));
        let mut busy = sent.clone();
        busy.job_acknowledged(JobAckCode::ProcessorBufferFull, Some(Uuid::nil()), DEADLINES, 3);
        assert!(explain(&busy, &AROUND).contains("refused it for now"));
        let mut taken = sent.clone();
        taken.job_acknowledged(JobAckCode::Successful, Some(Uuid::nil()), DEADLINES, 3);
        assert!(explain(&taken, &AROUND).contains("has not reported its end"));
        taken.cancel(4);
        assert!(explain(&taken, &AROUND).contains("is to cancel it"));
        assert_eq!(
            (
                taken.times.sent_at,
                taken.times.taken_at,
                taken.times.cancel_requested_at
            ),
            (Some(2), Some(3), Some(4))
        );
    }

    #[test]
    fn every_end_has_a_sentence_that_says_whether_anything_ran() {
        for outcome in Outcome::ALL {
            let mut ended = accepted();
            ended.stage = Stage::Ended(outcome);
            let sentence = explain(&ended, &AROUND);
            let says = ["ran", "never sent", "had it", "the node ended it"];
            assert!(
                says.iter().any(|words| sentence.contains(words)),
                "{outcome:?}: {sentence}"
            );
            assert_eq!(
                sentence.contains("unknown"),
                outcome.details().contains("unknown"),
                "{outcome:?}: {sentence}"
            );
        }
        let mut terminated = Invocation::held(1, DEADLINES);
        terminated.terminate(2);
        assert!(explain(&terminated, &AROUND).contains("3 errors, and 2 are allowed"));
    }
}
