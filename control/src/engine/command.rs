//! One command over all its nodes: the roll-up of its invocations, and how long its document may run.

use moorline_protocol::document::{CommandDocument, Step};

use super::{invocation::Outcome, rate_control::Limit};

/// How many invocations of a command ended how. Kept by the store, one addition per ended invocation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Tally {
    pub(crate) targets: u64,
    pub(crate) succeeded: u64,
    pub(crate) failed: u64,
    pub(crate) execution_timed_out: u64,
    pub(crate) delivery_timed_out: u64,
    pub(crate) cancelled: u64,
    /// Ended without being a success or an error: the node may not run it, the platform does not fit, the node is gone.
    pub(crate) impossible: u64,
    /// Never sent, since there were too many errors before.
    pub(crate) terminated: u64,
}

impl Tally {
    pub(crate) fn add(&mut self, outcome: Outcome) {
        let counter = match outcome {
            Outcome::Success => &mut self.succeeded,
            Outcome::Failed => &mut self.failed,
            Outcome::ExecutionTimedOut | Outcome::ResultUnknown => &mut self.execution_timed_out,
            Outcome::DeliveryTimedOut | Outcome::DeliveryUnconfirmed => &mut self.delivery_timed_out,
            Outcome::Cancelled | Outcome::CancelUnconfirmed => &mut self.cancelled,
            Outcome::AccessDenied | Outcome::InvalidPlatform | Outcome::Undeliverable => &mut self.impossible,
            Outcome::Terminated => &mut self.terminated,
        };
        *counter += 1;
    }

    /// `CompletedCount`: invocations in a final state.
    pub(crate) fn completed(&self) -> u64 {
        let without_result = self.delivery_timed_out + self.cancelled + self.impossible + self.terminated;
        self.succeeded + self.errors() + without_result
    }

    /// `ErrorCount`: failed, or not done in time.
    pub(crate) fn errors(&self) -> u64 {
        self.failed + self.execution_timed_out
    }
}

/// What else than the tally decides a command's status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Progress {
    pub(crate) tally: Tally,
    /// Whether any node took the command.
    pub(crate) started: bool,
    /// Whether the whole command was cancelled.
    pub(crate) cancel_requested: bool,
    pub(crate) max_errors: Limit,
    pub(crate) max_concurrency: Limit,
}

/// What becomes of the invocations of a command that wait for their turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    /// So many have it.
    Release(u64),
    /// None will ever have it: the errors are more than the command may have.
    Terminate,
    /// As many are on their way as may be.
    Wait,
}

/// Whether invocations of the command can have to wait for their turn.
pub(crate) fn may_hold(progress: &Progress) -> bool {
    progress.max_concurrency.of(progress.tally.targets) < progress.tally.targets
}

/// Whose turn it is, when `held` invocations wait. A limit of none at all still lets one go at a time: the command
/// would never end.
pub(crate) fn turn(progress: &Progress, held: u64) -> Turn {
    let tally = &progress.tally;
    if held == 0 {
        return Turn::Wait;
    }
    if tally.errors() > progress.max_errors.of(tally.targets) {
        return Turn::Terminate;
    }
    let on_their_way = tally.targets.saturating_sub(tally.completed() + held);
    let most = progress.max_concurrency.of(tally.targets).max(1);
    match most.saturating_sub(on_their_way).min(held) {
        0 => Turn::Wait,
        free => Turn::Release(free),
    }
}

/// `Status` and `StatusDetails` of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CommandStatus {
    pub(crate) status: &'static str,
    pub(crate) details: &'static str,
}

/// Values of `Status` that nothing follows.
pub(crate) const FINAL_COMMAND_STATUSES: [&str; 4] = ["Success", "Cancelled", "Failed", "TimedOut"];

/// The status of a command follows from its invocations.
pub(crate) fn command_status(progress: &Progress) -> CommandStatus {
    let tally = &progress.tally;
    let (status, details) = if tally.targets == 0 {
        ("Success", "NoInstancesInTag")
    } else if tally.completed() < tally.targets {
        match (
            progress.cancel_requested,
            progress.started || tally.completed() > 0,
        ) {
            (true, _) => ("Cancelling", "Cancelling"),
            (false, true) => ("InProgress", "InProgress"),
            (false, false) => ("Pending", "Pending"),
        }
    } else if tally.succeeded == tally.targets {
        ("Success", "Success")
    } else if tally.cancelled > 0 {
        ("Cancelled", "Cancelled")
    } else if tally.terminated > 0 {
        ("Failed", "Failed")
    } else if tally.errors() + tally.delivery_timed_out <= progress.max_errors.of(tally.targets)
        && tally.impossible == 0
    {
        ("Failed", "Incomplete")
    } else if tally.failed + tally.impossible > 0 {
        ("Failed", "Failed")
    } else if tally.execution_timed_out > 0 {
        ("TimedOut", "ExecutionTimedOut")
    } else {
        ("TimedOut", "DeliveryTimedOut")
    };
    CommandStatus { status, details }
}

/// Whether any step of the document can run on such a node. Of actions that nobody knows the node must decide.
pub(crate) fn runs_on(document: &CommandDocument, platform_type: &str) -> bool {
    document.step_names().any(|(action, _)| match action {
        "aws:applications" | "aws:cloudWatch" | "aws:psModule" => platform_type == "Windows",
        "aws:runShellScript" => platform_type != "Windows",
        _ => true,
    })
}

/// The longest that the steps may run, by their own time-outs (documents.md §1.15), in seconds.
pub(crate) fn execution_seconds(steps: &[Step]) -> u64 {
    let step_seconds = |step: &Step| match step.inputs.as_slice() {
        [] => STEP_TIMEOUT_SECONDS,
        sets => sets
            .iter()
            .map(|inputs| timeout_seconds(inputs.get("timeoutSeconds")))
            .sum(),
    };
    steps.iter().map(step_seconds).sum()
}

const STEP_TIMEOUT_SECONDS: u64 = 3600;

/// As the node reads it: anything outside 5..=172800 means the default.
fn timeout_seconds(stated: Option<&serde_json::Value>) -> u64 {
    let seconds = match stated {
        Some(serde_json::Value::String(text)) => {
            text.split('.').next().and_then(|whole| whole.trim().parse().ok())
        }
        Some(value) => value.as_u64(),
        None => None,
    };
    seconds
        .filter(|seconds| (5..=172_800).contains(seconds))
        .unwrap_or(STEP_TIMEOUT_SECONDS)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn progress(targets: u64, outcomes: &[Outcome]) -> Progress {
        let mut tally = Tally {
            targets,
            ..Tally::default()
        };
        outcomes.iter().for_each(|outcome| tally.add(*outcome));
        Progress {
            tally,
            started: false,
            cancel_requested: false,
            max_errors: Limit::DEFAULT_ERRORS,
            max_concurrency: Limit::DEFAULT_CONCURRENCY,
        }
    }

    #[test]
    fn a_turn_comes_when_others_have_ended_and_never_after_too_many_errors() {
        use Outcome::{DeliveryTimedOut, Failed, Success, Undeliverable};
        let two = Limit::Count(2);
        for (outcomes, held, max_concurrency, max_errors, expected) in [
            (&[][..], 8, two, "0", Turn::Wait),
            (&[Success], 8, two, "0", Turn::Release(1)),
            (&[Success, Success], 8, two, "0", Turn::Release(2)),
            (&[Success; 9], 1, two, "0", Turn::Release(1)),
            (&[Success; 10], 0, two, "0", Turn::Wait),
            (&[Failed], 8, two, "0", Turn::Terminate),
            (&[Failed], 8, two, "1", Turn::Release(1)),
            (&[Failed], 8, two, "10%", Turn::Release(1)),
            (&[Failed, Failed], 8, two, "10%", Turn::Terminate),
            (&[DeliveryTimedOut, Undeliverable], 8, two, "0", Turn::Release(2)),
            (&[], 10, Limit::Count(0), "0", Turn::Release(1)),
            (&[], 10, Limit::Percent(50), "0", Turn::Release(5)),
            (&[Success], 9, Limit::Percent(5), "0", Turn::Release(1)),
        ] {
            let progress = Progress {
                max_concurrency,
                max_errors: max_errors.parse().unwrap(),
                ..progress(10, outcomes)
            };
            assert_eq!(turn(&progress, held), expected, "{outcomes:?}, {held} held");
        }
    }

    #[test]
    fn the_status_of_a_command_follows_from_its_invocations() {
        use Outcome::*;
        let table: &[(u64, &[Outcome], &str, &str)] = &[
            (0, &[], "Success", "NoInstancesInTag"),
            (2, &[], "Pending", "Pending"),
            (2, &[Success], "InProgress", "InProgress"),
            (2, &[Success, Success], "Success", "Success"),
            (2, &[Success, Failed], "Failed", "Failed"),
            (2, &[Failed, ExecutionTimedOut], "Failed", "Failed"),
            (2, &[Success, ExecutionTimedOut], "TimedOut", "ExecutionTimedOut"),
            (1, &[ResultUnknown], "TimedOut", "ExecutionTimedOut"),
            (2, &[Success, DeliveryTimedOut], "TimedOut", "DeliveryTimedOut"),
            (1, &[DeliveryUnconfirmed], "TimedOut", "DeliveryTimedOut"),
            (3, &[Success, Failed, Cancelled], "Cancelled", "Cancelled"),
            (1, &[CancelUnconfirmed], "Cancelled", "Cancelled"),
            (1, &[InvalidPlatform], "Failed", "Failed"),
            (1, &[Undeliverable], "Failed", "Failed"),
            (3, &[Success, Failed, Terminated], "Failed", "Failed"),
        ];
        for (targets, outcomes, status, details) in table {
            let is = command_status(&progress(*targets, outcomes));
            assert_eq!(
                (is.status, is.details),
                (*status, *details),
                "{outcomes:?} of {targets}"
            );
        }
    }

    #[test]
    fn errors_within_max_errors_leave_a_command_incomplete() {
        let mut some = progress(3, &[Outcome::Success, Outcome::Success, Outcome::Failed]);
        some.max_errors = Limit::Count(1);
        assert_eq!(command_status(&some).details, "Incomplete");
    }

    #[test]
    fn a_cancelled_command_is_cancelling_until_its_last_node_has_ended() {
        let mut some = progress(2, &[Outcome::Cancelled]);
        some.cancel_requested = true;
        assert_eq!(command_status(&some).status, "Cancelling");
        some.tally.add(Outcome::Success);
        assert_eq!(command_status(&some).status, "Cancelled");
    }

    #[test]
    fn a_timeout_outside_its_range_means_the_default() {
        use serde_json::json;
        for (stated, expected) in [
            (json!("60"), 60),
            (json!(60), 60),
            (json!("7.9"), 7),
            (json!(4), 3600),
            (json!("172801"), 3600),
            (json!("soon"), 3600),
            (json!(null), 3600),
        ] {
            assert_eq!(timeout_seconds(Some(&stated)), expected, "{stated}");
        }
    }
}
