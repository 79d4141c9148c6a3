use serde_json::{Map, json};

use super::*;

const LINUX: Platform<'_> = Platform {
    platform_type: "Linux",
    handled_actions: &["aws:runShellScript"],
};
const SCRIPT: &str = "aws:runShellScript";
const WINDOWS_ONLY: &str = "aws:psModule";
const UNKNOWN: &str = "aws:nope";

fn decision(schema: SchemaVersion, action: &str, precondition: &Value) -> Decision {
    let conditions = parse(Some(precondition)).unwrap();
    let parameters = json!({"Operation": "Install", "Flag": true, "same": "{{ same }}", "list": ["a"]});
    let candidate = Candidate {
        action,
        name: "b",
        conditions: &conditions,
    };
    let mut substitution = Substitution::new(parameters.as_object().unwrap());
    decide(schema, candidate, LINUX, &mut substitution).unwrap()
}

fn skip(text: &str) -> Decision {
    Decision::Skip(format!("{text} Step name: b"))
}

fn fail(text: &str) -> Decision {
    Decision::Fail(format!("{text} Step name: b"))
}

#[test]
fn the_decision_follows_the_table() {
    use SchemaVersion::{V1, V2_0, V2_2};
    let none = json!(null);
    let linux = json!({"StringEquals": ["platformType", "Linux"]});
    let windows = json!({"StringEquals": ["platformType", "Windows"]});
    let odd = json!({"StringLike": ["a", "b"]});
    let unknown = || {
        fail(
            "Plugin with name aws:nope is not supported by this version of ssm agent, please update to latest version.",
        )
    };
    let unsupported = |action| {
        skip(&format!(
            "Step execution skipped due to unsupported plugin: {action}."
        ))
    };
    let unsatisfied = || {
        skip(
            "Step execution skipped due to unsatisfied preconditions: '\"StringEquals\": [platformType, Windows]'.",
        )
    };
    let unrecognized = || {
        fail(
            "Unrecognized precondition(s): 'unrecognized operator: \"StringLike\"', please update agent to latest version.",
        )
    };
    let too_old = || fail("Precondition is not supported for document schema version prior to 2.2.");
    let not_found = || fail("Plugin with name aws:psModule not found.");
    let cases = [
        (V2_2, SCRIPT, &none, Decision::Run),
        (V2_2, WINDOWS_ONLY, &none, unsupported(WINDOWS_ONLY)),
        (V2_2, UNKNOWN, &none, unknown()),
        (V2_2, SCRIPT, &linux, Decision::Run),
        (V2_2, WINDOWS_ONLY, &linux, unsupported(WINDOWS_ONLY)),
        (V2_2, UNKNOWN, &linux, unknown()),
        (V2_2, SCRIPT, &windows, unsatisfied()),
        (V2_2, WINDOWS_ONLY, &windows, unsupported(WINDOWS_ONLY)),
        (V2_2, UNKNOWN, &windows, unsupported(UNKNOWN)),
        (V2_2, SCRIPT, &odd, unrecognized()),
        (V2_2, WINDOWS_ONLY, &odd, unsupported(WINDOWS_ONLY)),
        (V2_2, UNKNOWN, &odd, unknown()),
        (V2_0, SCRIPT, &none, Decision::Run),
        (V2_0, WINDOWS_ONLY, &none, not_found()),
        (V2_0, UNKNOWN, &none, unknown()),
        (V2_0, SCRIPT, &linux, too_old()),
        (V2_0, SCRIPT, &windows, too_old()),
        (V2_0, WINDOWS_ONLY, &windows, too_old()),
        (V2_0, UNKNOWN, &windows, unknown()),
        (V1, SCRIPT, &none, Decision::Run),
        (V1, WINDOWS_ONLY, &none, not_found()),
        (V1, UNKNOWN, &none, unknown()),
    ];
    for (schema, action, precondition, expected) in cases {
        assert_eq!(
            decision(schema, action, precondition),
            expected,
            "{schema:?} {action} {precondition}"
        );
    }
}

#[test]
fn a_precondition_compares_two_texts_of_which_one_depends_on_the_run() {
    let identical = "operator's arguments can't be identical";
    let count = "operator accepts exactly 2 arguments";
    let store = "operator's arguments can't contain SSM parameters";
    let secure = "operator's arguments can't contain secure SSM parameters";
    let platform = "the second argument for the platformType variable can't contain document parameters";
    let constant = "at least one of operator's arguments must contain a valid document parameter";
    let cases = [
        (json!(["platformType", "linux"]), Ok(true)),
        (json!(["LINUX", "platformType"]), Ok(true)),
        (json!(["MacOS", "platformType"]), Ok(false)),
        (json!(["platformType", "{{ Operation }}"]), Err(platform)),
        (json!(["platformType", "{{ unknown }}"]), Ok(false)),
        (json!(["platformtype", "Linux"]), Err(constant)),
        (json!(["{{ Operation }}", "Install"]), Ok(true)),
        (json!(["Install", "{{Operation}}"]), Ok(true)),
        (json!(["{{ Operation }}", "install"]), Ok(false)),
        (json!(["do {{ Operation }}", "do Install"]), Ok(true)),
        (json!(["{{ Flag }}", "true"]), Ok(true)),
        (json!(["{{ list }}", "[\"a\"]"]), Ok(true)),
        (json!(["{{ unknown }}", "Install"]), Err(constant)),
        // Its value is its own token: the text does not change.
        (json!(["{{ same }}", "x"]), Err(constant)),
        (json!(["a", "b"]), Err(constant)),
        (json!(["a", "a"]), Err(identical)),
        (json!(["{{ Operation }}", "{{ Operation }}"]), Err(identical)),
        (json!(["{{ ssm:a }}", "platformType"]), Err(store)),
        (json!(["{{ssm-secure:a}}", "{{ Operation }}"]), Err(secure)),
        (json!(["{{ssm-secure:a}}", "{{ssm:b}}"]), Err(store)),
        (json!([]), Err(count)),
        (json!(["a"]), Err(count)),
        (json!(["platformType", "Linux", "Linux"]), Err(count)),
    ];
    for (arguments, expected) in cases {
        let expected = match expected {
            Ok(true) => Decision::Run,
            Ok(false) => {
                let first = arguments[0].as_str().unwrap();
                let second = arguments[1].as_str().unwrap();
                skip(&format!(
                    "Step execution skipped due to unsatisfied preconditions: '\"StringEquals\": [{first}, {second}]'."
                ))
            }
            Err(reason) => fail(&format!(
                "Unrecognized precondition(s): '\"StringEquals\": {reason}', please update agent to latest version."
            )),
        };
        let precondition = json!({ "StringEquals": arguments });
        assert_eq!(
            decision(SchemaVersion::V2_2, SCRIPT, &precondition),
            expected,
            "{arguments}"
        );
    }
}

#[test]
fn several_operators_have_to_hold_together_and_their_texts_are_joined() {
    let precondition = json!({"X": [], "Y": ["a"]});
    assert_eq!(
        decision(SchemaVersion::V2_2, SCRIPT, &precondition),
        fail(
            "Unrecognized precondition(s): 'unrecognized operator: \"X\", unrecognized operator: \"Y\"', please update agent to latest version."
        )
    );
    let precondition = json!({"StringEquals": ["platformType", "Windows"], "X": []});
    assert_eq!(
        decision(SchemaVersion::V2_2, SCRIPT, &precondition),
        skip(
            "Step execution skipped due to unsatisfied preconditions: '\"StringEquals\": [platformType, Windows], unrecognized operator: \"X\"'."
        )
    );
}

#[test]
fn an_empty_precondition_is_none_and_another_shape_is_malformed() {
    assert_eq!(parse(None).unwrap(), []);
    for none in [json!(null), json!({})] {
        assert_eq!(decision(SchemaVersion::V2_0, SCRIPT, &none), Decision::Run);
    }
    for shape in [
        json!([]),
        json!("a"),
        json!({"StringEquals": "a"}),
        json!({"StringEquals": [1, 2]}),
    ] {
        let error = parse(Some(&shape)).unwrap_err();
        assert_eq!(
            error.to_string(),
            "Unsupported document: precondition must be an object of lists of texts"
        );
    }
}

#[test]
fn an_action_with_a_handler_here_runs_though_the_stock_agent_does_not_know_it() {
    let platform = Platform {
        handled_actions: &["moorline:probe"],
        ..LINUX
    };
    let candidate = Candidate {
        action: "moorline:probe",
        name: "b",
        conditions: &[],
    };
    for schema in [SchemaVersion::V1, SchemaVersion::V2_2] {
        let parameters = Map::new();
        let mut substitution = Substitution::new(&parameters);
        assert_eq!(
            decide(schema, candidate, platform, &mut substitution),
            Ok(Decision::Run)
        );
    }
}
