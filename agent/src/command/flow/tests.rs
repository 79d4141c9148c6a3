//! Step control, with real scripts' endings.

use moorline_protocol::document::{CommandDocument, Platform};
use serde_json::{Map, Value, json};

use super::*;

/// Goes through a document whose steps end as told, and returns status and code of each.
fn go(inputs: &[Value], endings: &[Ending]) -> Vec<(ResultStatus, i64)> {
    outcomes(inputs, endings)
        .into_iter()
        .map(|outcome| (outcome.status, outcome.code))
        .collect()
}

fn outcomes(inputs: &[Value], endings: &[Ending]) -> Vec<StepOutcome> {
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
    let plan = document.plan(&Map::new(), platform).unwrap();
    let mut flow = Flow::default();
    let mut endings = endings.iter();
    plan.iter()
        .map(|step| {
            let outcome = flow.outcome_without_run(step, None).unwrap_or_else(|| {
                let ending = endings.next().cloned().unwrap_or(Ending::Exited(0));
                flow.outcome(Ran {
                    ending,
                    stdout: "out".to_owned(),
                    stderr: String::new(),
                })
            });
            flow.conclude(step, outcome)
        })
        .collect()
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
        (Ending::Exited(194), Failed, 194),
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
fn exit_codes_168_169_and_194_end_the_document() {
    for code in [168, 169, 194] {
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
fn a_cancelled_command_starts_no_further_step() {
    let document = json!({"schemaVersion": "2.2", "mainSteps": [
        {"action": "aws:runShellScript", "name": "a", "inputs": {"runCommand": ["true"]}}]});
    let document = CommandDocument::parse(&document).unwrap();
    let platform = Platform {
        platform_type: "Linux",
        handled_actions: &["aws:runShellScript"],
    };
    let plan = document.plan(&Map::new(), platform).unwrap();
    let step = plan.first().unwrap();
    let outcome = Flow::default()
        .outcome_without_run(step, Some(StopReason::Cancelled))
        .unwrap();
    assert_eq!((outcome.status, outcome.code), (ResultStatus::Cancelled, 1));
    let outcome = Flow::default()
        .outcome_without_run(step, Some(StopReason::Interrupted))
        .unwrap();
    assert_eq!((outcome.status, outcome.code), (ResultStatus::Failed, 1));
}
