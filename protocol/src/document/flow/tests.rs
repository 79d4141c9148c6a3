//! Step control, with real scripts' endings.

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::super::{CommandDocument, Platform};
use super::*;

/// Goes through a document whose steps end as told, and returns status and code of each.
fn go(inputs: &[Value], endings: &[Ending]) -> Vec<(ResultStatus, i64)> {
    outcomes(inputs, endings)
        .into_iter()
        .map(|outcome| (outcome.status, outcome.code))
        .collect()
}

fn outcomes(inputs: &[Value], endings: &[Ending]) -> Vec<StepOutcome> {
    let plan = steps(inputs);
    let mut flow = Flow::new(&plan);
    let mut endings = endings.iter();
    let mut outcomes = Vec::new();
    loop {
        match flow.next(None) {
            Next::Run(_) => {
                let ending = endings.next().cloned().unwrap_or(Ending::Exited(0));
                match flow.ran(ran(ending)) {
                    AfterRun::Outcome(outcome) => outcomes.push(outcome),
                    AfterRun::Reboot => {}
                }
            }
            Next::Settled(_, outcome) => outcomes.push(outcome),
            Next::Over(_) => return outcomes,
        }
    }
}

fn ran(ending: Ending) -> Ran {
    Ran {
        ending,
        stdout: "out".to_owned(),
        stderr: String::new(),
    }
}

fn steps(inputs: &[Value]) -> Vec<Step> {
    let steps: Vec<Value> = inputs
        .iter()
        .enumerate()
        .map(|(index, inputs)| {
            let mut inputs = inputs.clone();
            inputs["runCommand"] = json!(["true"]);
            json!({"action": "aws:runShellScript", "name": format!("s{index}"), "inputs": inputs})
        })
        .collect();
    let document = CommandDocument::parse(&json!({"schemaVersion": "2.2", "mainSteps": steps})).unwrap();
    let platform = Platform {
        platform_type: "Linux",
        handled_actions: &["aws:runShellScript"],
    };
    document.plan(&Map::new(), platform).unwrap()
}

#[test]
fn endings_become_statuses() {
    use ResultStatus::{Cancelled, Failed, Success, TimedOut};
    let table = [
        (Ending::Exited(0), Success, 0),
        (Ending::Exited(3), Failed, 3),
        (Ending::Exited(137), Failed, 137),
        (Ending::Exited(168), Success, 168),
        (Ending::Exited(169), Failed, 169),
        (Ending::Done, Success, 0),
        (Ending::Failed, Failed, 1),
        (Ending::Killed(9), Failed, -1),
        (Ending::NotStarted("no".to_owned()), Failed, 1),
        (Ending::Stopped(StopReason::Cancelled), Cancelled, 137),
        (Ending::Stopped(StopReason::TimedOut), TimedOut, 137),
        (Ending::Stopped(StopReason::Interrupted), Failed, 137),
    ];
    for (ending, status, code) in table {
        assert_eq!(
            go(&[json!({})], std::slice::from_ref(&ending)),
            [(status, code)],
            "{ending:?}"
        );
    }
}

#[test]
fn a_failed_step_does_not_stop_the_next_one_unless_told() {
    use ResultStatus::{Failed, Skipped, Success};
    let failed = [Ending::Exited(3)];
    let success = [Ending::Exited(0)];
    type Row<'a> = (&'a [Value], &'a [Ending], &'a [(ResultStatus, i64)]);
    let table: [Row<'_>; 7] = [
        (&[json!({}), json!({})], &failed, &[(Failed, 3), (Success, 0)]),
        (
            &[json!({"onFailure": "exit"}), json!({})],
            &failed,
            &[(Failed, 3), (Skipped, 0)],
        ),
        (
            &[json!({"onFailure": "exit"}), json!({})],
            &success,
            &[(Success, 0), (Success, 0)],
        ),
        (
            &[json!({"onFailure": "successAndExit"}), json!({})],
            &failed,
            &[(Success, 168), (Skipped, 0)],
        ),
        (
            &[json!({"onSuccess": "exit"}), json!({})],
            &success,
            &[(Success, 0), (Skipped, 0)],
        ),
        (
            &[
                json!({"onSuccess": "exit"}),
                json!({}),
                json!({"finallyStep": "true"}),
            ],
            &success,
            &[(Success, 0), (Skipped, 0), (Success, 0)],
        ),
        (
            &[json!({"onFailure": "exit"}), json!({})],
            &[Ending::Stopped(StopReason::TimedOut)],
            &[(ResultStatus::TimedOut, 137), (Success, 0)],
        ),
    ];
    for (inputs, endings, expected) in table {
        assert_eq!(go(inputs, endings), expected, "{inputs:?} {endings:?}");
    }
}

#[test]
fn exit_codes_168_and_169_end_the_document() {
    for code in [168, 169] {
        let results = go(&[json!({}), json!({})], &[Ending::Exited(code)]);
        assert_eq!(results.get(1), Some(&(ResultStatus::Skipped, 0)), "{code}");
    }
}

#[test]
fn texts_are_those_that_people_search_for() {
    let outcome = outcomes(&[json!({})], &[Ending::Exited(3)]).remove(0);
    assert_eq!(outcome.stderr, "failed to run commands: exit status 3");
    let outcome = outcomes(&[json!({})], &[Ending::Exited(168)]).remove(0);
    assert_eq!(
        outcome.text.as_deref(),
        Some(
            "out\nStep exited with code 168. Therefore, marking step as succeeded. \
             Further document steps will be skipped."
        )
    );
    let outcome = outcomes(&[json!({}), json!({})], &[Ending::Exited(169)]).remove(1);
    assert_eq!(
        outcome.text.as_deref(),
        Some(
            "Plugin with name aws:runShellScript and id s1 skipped due to prior step with an exit condition"
        )
    );
    let outcome = outcomes(&[json!({"onFailure": "exit"})], &[Ending::Exited(1)]).remove(0);
    let text = "\nStep was found to have onFailure property. Further document steps will be skipped.";
    assert!(outcome.stdout.ends_with(text) && outcome.stderr.ends_with(text));
}

#[test]
fn a_stopped_document_starts_no_further_step() {
    let plan = steps(&[json!({}), json!({})]);
    let table = [
        (StopReason::Cancelled, ResultStatus::Cancelled),
        (StopReason::TimedOut, ResultStatus::Cancelled),
        (StopReason::Interrupted, ResultStatus::Failed),
    ];
    for (stop, status) in table {
        let mut flow = Flow::new(&plan);
        for position in 0..2 {
            match flow.next(Some(stop)) {
                Next::Settled(at, outcome) => {
                    assert_eq!((at, outcome.status, outcome.code), (position, status, 1));
                }
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(flow.next(Some(stop)), Next::Over(status));
    }
}

#[test]
fn a_step_that_asks_for_a_reboot_runs_again_and_the_rest_follows() {
    let plan = steps(&[json!({}), json!({}), json!({})]);
    let mut flow = Flow::new(&plan);
    assert_eq!(flow.next(None), Next::Run(0));
    assert!(matches!(flow.ran(ran(Ending::Exited(0))), AfterRun::Outcome(_)));
    assert_eq!(flow.next(None), Next::Run(1));
    assert_eq!(flow.ran(ran(Ending::Exited(194))), AfterRun::Reboot);
    // As the next worker finds it.
    let results = [StepResult {
        status: ResultStatus::Success,
        code: 0,
    }];
    let mut flow = Flow::resume(&plan, &results, 1);
    assert_eq!(flow.next(None), Next::Run(1));
    assert!(matches!(flow.ran(ran(Ending::Exited(0))), AfterRun::Outcome(_)));
    assert_eq!(flow.next(None), Next::Run(2));
    assert!(matches!(flow.ran(ran(Ending::Exited(0))), AfterRun::Outcome(_)));
    assert_eq!(flow.next(None), Next::Over(ResultStatus::Success));
}

#[test]
fn reboots_come_to_an_end() {
    let plan = steps(&[json!({}), json!({})]);
    let mut reboots = 0;
    let outcome = loop {
        let mut flow = Flow::resume(&plan, &[], reboots);
        match flow.ran(ran(Ending::Exited(194))) {
            AfterRun::Reboot => reboots += 1,
            AfterRun::Outcome(outcome) => {
                assert!(
                    matches!(flow.next(None), Next::Settled(1, _)),
                    "what counts on a reboot is skipped"
                );
                break outcome;
            }
        }
    };
    assert_eq!(
        (reboots, outcome.status, outcome.code),
        (MAX_REBOOTS, ResultStatus::Failed, 194)
    );
    assert!(outcome.stderr.contains("at most 15"), "{}", outcome.stderr);
    let mut flow = Flow::new(&plan);
    let outcome = flow.reboot_failed(ran(Ending::Exited(194)), "no shutdown here");
    assert_eq!((outcome.status, outcome.code), (ResultStatus::Failed, 194));
    assert!(outcome.stderr.ends_with("no shutdown here"));
    assert!(matches!(flow.next(None), Next::Settled(1, _)));
}

#[test]
fn the_document_takes_the_gravest_status_of_its_steps() {
    use ResultStatus::{Cancelled, Failed, Skipped, Success, TimedOut};
    let table: [(&[ResultStatus], ResultStatus); 6] = [
        (&[Success, Skipped], Success),
        (&[Skipped, Skipped], Success),
        (&[Success, Cancelled], Cancelled),
        (&[Cancelled, TimedOut], TimedOut),
        (&[TimedOut, Cancelled, Failed], Failed),
        (&[], Success),
    ];
    for (steps, expected) in table {
        assert_eq!(document_status(steps.iter().copied()), expected, "{steps:?}");
    }
}

fn ending() -> impl Strategy<Value = Ending> {
    prop_oneof![
        4 => Just(Ending::Exited(0)),
        2 => Just(Ending::Exited(3)),
        1 => Just(Ending::Exited(168)),
        1 => Just(Ending::Exited(169)),
        1 => Just(Ending::Exited(194)),
        1 => Just(Ending::Killed(9)),
        1 => Just(Ending::Stopped(StopReason::TimedOut)),
        1 => Just(Ending::Done),
        1 => Just(Ending::Failed),
    ]
}

fn control() -> impl Strategy<Value = Value> {
    prop_oneof![
        4 => Just(json!({})),
        1 => Just(json!({"onFailure": "exit"})),
        1 => Just(json!({"onFailure": "successAndExit"})),
        1 => Just(json!({"onSuccess": "exit"})),
        1 => Just(json!({"finallyStep": true})),
    ]
}

proptest! {
    /// A document that is interrupted behind any step and resumed from the saved results takes the same course.
    #[test]
    fn a_resumed_document_takes_the_course_of_one_that_was_never_interrupted(
        inputs in proptest::collection::vec(control(), 1..8),
        endings in proptest::collection::vec(ending(), 8),
    ) {
        let plan = steps(&inputs);
        let go = |is_interrupted: bool| {
            let mut flow = Flow::new(&plan);
            let mut results = Vec::new();
            let mut reboots = 0;
            let mut endings = endings.iter().cloned().chain(std::iter::repeat(Ending::Exited(0)));
            loop {
                if is_interrupted {
                    flow = Flow::resume(&plan, &results, reboots);
                }
                let outcome = match flow.next(None) {
                    Next::Over(status) => return (results, reboots, status),
                    Next::Settled(_, outcome) => outcome,
                    Next::Run(_) => match flow.ran(ran(endings.next().unwrap())) {
                        AfterRun::Outcome(outcome) => outcome,
                        AfterRun::Reboot => {
                            reboots += 1;
                            continue;
                        }
                    },
                };
                results.push(StepResult { status: outcome.status, code: outcome.code });
            }
        };
        prop_assert_eq!(go(true), go(false));
    }
}
