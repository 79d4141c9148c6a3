use proptest::prelude::*;
use serde_json::json;

use super::*;

const LINUX: Platform<'_> = Platform {
    platform_type: "Linux",
    handled_actions: &["aws:runShellScript", "aws:downloadContent"],
};

/// The shape of AWS-RunShellScript as it is published: schema 1.2, and the 2.2 form of the console's copy.
fn run_shell_script(schema: &str) -> Value {
    let inputs = json!({
        "runCommand": "{{ commands }}",
        "workingDirectory": "{{ workingDirectory }}",
        "timeoutSeconds": "{{ executionTimeout }}"
    });
    let mut document = json!({
        "schemaVersion": schema,
        "description": "Runs lines of a shell script.",
        "parameters": {
            "commands": {"type": "StringList", "description": "lines", "minItems": 1, "displayType": "textarea"},
            "workingDirectory": {"type": "String", "default": "", "description": "folder", "maxChars": 4096},
            "executionTimeout": {
                "type": "String", "default": "3600", "description": "seconds",
                "allowedPattern": "([1-9][0-9]{0,4})|(1[0-6][0-9]{4})|(17[0-1][0-9]{3})|(172[0-7][0-9]{2})|(172800)"
            }
        }
    });
    if schema == "1.2" {
        let mut properties = json!({"id": "0.aws:runShellScript"});
        properties
            .as_object_mut()
            .unwrap()
            .extend(inputs.as_object().unwrap().clone());
        document["runtimeConfig"] = json!({"aws:runShellScript": {"properties": [properties]}});
    } else {
        document["mainSteps"] = json!([{
            "action": "aws:runShellScript", "name": "runShellScript",
            "precondition": {"StringEquals": ["platformType", "Linux"]}, "inputs": inputs
        }]);
    }
    document
}

fn with_steps(schema: &str, steps: &Value) -> Value {
    json!({"schemaVersion": schema, "parameters": {"list": {"type": "StringList", "default": ["a", "b"]}}, "mainSteps": steps})
}

fn plan(document: &Value, parameters: &Value) -> Result<Vec<Step>, DocumentError> {
    CommandDocument::parse(document)?.plan(parameters.as_object().unwrap(), LINUX)
}

fn error(document: &Value) -> String {
    CommandDocument::parse(document).unwrap_err().to_string()
}

#[test]
fn the_shell_script_document_gives_the_same_inputs_in_both_schemas() {
    let parameters =
        json!({"commands": ["#!/bin/sh", "echo {{ commands }}"], "executionTimeout": "99999999"});
    for (schema, name, id) in [
        ("1.2", "aws:runShellScript", Some("0.aws:runShellScript")),
        ("2.2", "runShellScript", None),
    ] {
        let steps = plan(&run_shell_script(schema), &parameters).unwrap();
        let [step] = &steps[..] else { panic!("{steps:?}") };
        assert_eq!(
            (step.action.as_str(), step.name.as_str()),
            ("aws:runShellScript", name)
        );
        assert_eq!(step.decision, Decision::Run);
        assert_eq!(step.control, StepControl::default());
        let [inputs] = &step.inputs[..] else {
            panic!("{step:?}")
        };
        assert_eq!(inputs["runCommand"], json!(["#!/bin/sh", "echo {{ commands }}"]));
        assert_eq!(inputs["workingDirectory"], "");
        assert_eq!(inputs["timeoutSeconds"], "99999999");
        assert_eq!(inputs.get("id").and_then(Value::as_str), id);
    }
}

#[test]
fn a_parameter_that_breaks_its_pattern_stops_the_whole_document() {
    let parameters = json!({"commands": [], "executionTimeout": "x"});
    let error = plan(&run_shell_script("1.2"), &parameters).unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("parameter executionTimeout: parameter value /x/ does not match")
    );
    let error = plan(&run_shell_script("2.2"), &json!({})).unwrap_err();
    assert_eq!(
        error.to_string(),
        "parameter commands has no value and no default"
    );
}

#[test]
fn only_the_published_schema_versions_are_accepted() {
    for (schema, version) in [
        ("1.0", SchemaVersion::V1),
        ("1.2", SchemaVersion::V1),
        ("2.0", SchemaVersion::V2_0),
        ("2.0.1", SchemaVersion::V2_0),
        ("2.0.2", SchemaVersion::V2_0),
        ("2.0.3", SchemaVersion::V2_0),
        ("2.2", SchemaVersion::V2_2),
    ] {
        let document = CommandDocument::parse(&json!({
            "schemaVersion": schema, "description": "d",
            "runtimeConfig": {"aws:runShellScript": {}},
            "mainSteps": [{"action": "aws:runShellScript", "name": "a"}]
        }))
        .unwrap();
        assert_eq!(document.schema_version, version);
        assert_eq!(document.schema_text, schema);
        assert_eq!(document.description, "d");
        let name = if version == SchemaVersion::V1 {
            "aws:runShellScript"
        } else {
            "a"
        };
        assert_eq!(
            document.step_names().collect::<Vec<_>>(),
            [("aws:runShellScript", name)]
        );
    }
    for schema in ["1.1", "2.1", "0.3", "2.3", "", "2.2 "] {
        let text = error(&json!({"schemaVersion": schema, "mainSteps": []}));
        assert_eq!(
            text,
            format!(
                "Document with schema version {schema} is not supported by this version of ssm agent, please update to latest version"
            )
        );
    }
}

#[test]
fn names_of_members_are_matched_without_regard_to_case_and_unknown_ones_are_ignored() {
    let steps = plan(
        &json!({
            "SchemaVersion": "2.2", "PARAMETERS": {"a": {"Type": "String", "Default": "x"}}, "outputs": [], "files": 1,
            "MainSteps": [{
                "Action": "aws:downloadContent", "NAME": "get", "maxAttempts": 3, "onFailure": "Abort",
                "timeoutSeconds": 10, "isCritical": true,
                "Inputs": {"SourceType": "{{ a }}", "onFailure": "exit"},
                "PreCondition": {"StringEquals": ["platformType", "Windows"]}
            }]
        }),
        &json!({}),
    )
    .unwrap();
    let [step] = &steps[..] else { panic!("{steps:?}") };
    assert_eq!(member(&step.inputs[0], "sourceType"), Some(&json!("x")));
    assert_eq!(step.control.on_failure, Some(OnFailure::Exit));
    assert!(matches!(step.decision, Decision::Skip(_)));
}

#[test]
fn a_document_without_steps_has_an_unsupported_format() {
    for document in [
        json!({"schemaVersion": "2.2"}),
        json!({"schemaVersion": "2.2", "mainSteps": null}),
        json!({"schemaVersion": "2.2", "mainSteps": []}),
        json!({"schemaVersion": "2.2", "runtimeConfig": {"aws:runShellScript": {}}}),
        json!({"schemaVersion": "1.2", "runtimeConfig": {}}),
        json!({"schemaVersion": "1.2", "mainSteps": [{"action": "aws:runShellScript", "name": "a"}]}),
    ] {
        assert_eq!(error(&document), "Unsupported schema format", "{document}");
    }
}

#[test]
fn a_document_of_another_shape_says_what_is_wrong() {
    let named = |name: &str| with_steps("2.2", &json!([{"action": "a", "name": name}]));
    let no_path = "Unsupported document: the name of a step has at most 128 characters and is no path";
    let step = json!({"action": "a", "name": "n"});
    let cases = [
        (
            json!({"schemaVersion": ["2.2"]}),
            "Unsupported document: schemaVersion must be a text",
        ),
        (
            with_steps("2.2", &json!({})),
            "Unsupported document: mainSteps must be a list",
        ),
        (
            with_steps("2.2", &json!(["a"])),
            "Unsupported document: a step must be an object",
        ),
        (
            with_steps("2.2", &json!([{"name": "n"}])),
            "Unsupported document: a step has no action",
        ),
        (
            with_steps("2.2", &json!([{"action": "a"}])),
            "Unsupported document: a step has no name",
        ),
        (
            with_steps("2.2", &json!([{"action": 1}])),
            "Unsupported document: action must be a text",
        ),
        (
            with_steps("2.2", &json!([step, step])),
            "Unsupported document: two steps have the name n",
        ),
        (named("../x"), no_path),
        (named(".."), no_path),
        (named("a\u{0}"), no_path),
        (named(&"é".repeat(129)), no_path),
        (
            json!({"schemaVersion": "1.2", "runtimeConfig": []}),
            "Unsupported document: runtimeConfig must be an object",
        ),
        (
            json!({"schemaVersion": "1.2", "runtimeConfig": {"aws:x": null}}),
            "Unsupported document: aws:x of runtimeConfig must be an object",
        ),
    ];
    for (document, text) in cases {
        assert_eq!(error(&document), text, "{document}");
    }
    assert!(CommandDocument::parse(&named(&"é".repeat(128))).is_ok());
}

#[test]
fn a_document_has_at_most_1000_steps() {
    let steps = |count: usize| {
        let steps: Vec<_> = (0..count)
            .map(|index| json!({"action": "a", "name": index.to_string()}))
            .collect();
        with_steps("2.0", &json!(steps))
    };
    assert_eq!(
        CommandDocument::parse(&steps(MAX_STEPS))
            .unwrap()
            .step_names()
            .count(),
        MAX_STEPS
    );
    assert_eq!(
        error(&steps(MAX_STEPS + 1)),
        "Unsupported document: more than 1000 steps"
    );
}

#[test]
fn properties_of_schema_1_are_an_object_a_list_or_a_parameter() {
    let document = |properties: Value| {
        json!({
            "schemaVersion": "1.0",
            "parameters": {
                "maps": {"type": "MapList", "default": [{"id": "x"}, {"id": "y"}]},
                "text": {"type": "String", "default": "{}"}
            },
            "runtimeConfig": {"aws:runShellScript": {"settings": {"a": 1}, "Properties": properties}}
        })
    };
    for (properties, expected) in [
        (json!({"id": "x"}), json!([{"id": "x"}])),
        (
            json!([{"id": "x"}, {"id": "{{ text }}"}]),
            json!([{"id": "x"}, {"id": "{}"}]),
        ),
        (json!("{{ maps }}"), json!([{"id": "x"}, {"id": "y"}])),
        (json!(null), json!([{}])),
    ] {
        let steps = plan(&document(properties.clone()), &json!({})).unwrap();
        assert_eq!(json!(steps[0].inputs), expected, "{properties}");
        assert_eq!(steps[0].decision, Decision::Run);
    }
    let steps = plan(&document(json!("{{ text }}")), &json!({})).unwrap();
    assert_eq!(steps[0].inputs, []);
    assert_eq!(
        steps[0].decision,
        Decision::Fail(
            "Invalid format in plugin properties \"{}\";\nerror the inputs must be an object".to_owned()
        )
    );
}

#[test]
fn inputs_of_another_shape_fail_a_step_that_would_run_and_leave_the_others() {
    let steps = plan(
        &with_steps(
            "2.2",
            &json!([
                {"action": "aws:runShellScript", "name": "a", "inputs": [{}]},
                {"action": "aws:psModule", "name": "b", "inputs": "x"},
                {"action": "aws:runShellScript", "name": "c"}
            ]),
        ),
        &json!({}),
    )
    .unwrap();
    assert!(
        matches!(&steps[0].decision, Decision::Fail(text) if text.starts_with("Invalid format in plugin"))
    );
    assert_eq!(
        steps[1].decision,
        Decision::Skip(
            "Step execution skipped due to unsupported plugin: aws:psModule. Step name: b".to_owned()
        )
    );
    assert_eq!(
        (&steps[2].decision, &steps[2].inputs),
        (&Decision::Run, &vec![Map::new()])
    );
}

#[test]
fn a_list_parameter_as_an_element_of_run_command_is_flattened_for_scripts_only() {
    let inputs = json!({"RunCommand": ["set -e", "{{ list }}", "echo {{list}}"], "other": ["{{ list }}"]});
    let steps = plan(
        &with_steps(
            "2.2",
            &json!([
                {"action": "aws:runShellScript", "name": "a", "inputs": inputs},
                {"action": "aws:downloadContent", "name": "b", "inputs": inputs}
            ]),
        ),
        &json!({}),
    )
    .unwrap();
    let embedded = r#"echo ["a","b"]"#;
    assert_eq!(
        steps[0].inputs[0]["RunCommand"],
        json!(["set -e", "a", "b", embedded])
    );
    assert_eq!(steps[0].inputs[0]["other"], json!([["a", "b"]]));
    assert_eq!(
        steps[1].inputs[0]["RunCommand"],
        json!(["set -e", ["a", "b"], embedded])
    );
}

#[test]
fn a_document_for_two_platforms_runs_one_half_and_skips_the_other() {
    let document = |schema| {
        with_steps(
            schema,
            &json!([
                {"action": "aws:runPowerShellScript", "name": "w", "inputs": {},
                 "precondition": {"StringEquals": ["platformType", "Windows"]}},
                {"action": "aws:runShellScript", "name": "l", "inputs": {},
                 "precondition": {"StringEquals": ["platformType", "Linux"]}}
            ]),
        )
    };
    let decisions = |schema| -> Vec<_> {
        let platform = Platform {
            handled_actions: &["aws:runPowerShellScript", "aws:runShellScript"],
            ..LINUX
        };
        let document = CommandDocument::parse(&document(schema)).unwrap();
        let steps = document.plan(&Map::new(), platform).unwrap();
        steps.into_iter().map(|step| step.decision).collect()
    };
    assert!(matches!(
        &decisions("2.2")[..],
        [Decision::Skip(_), Decision::Run]
    ));
    assert!(matches!(
        &decisions("2.0")[..],
        [Decision::Fail(_), Decision::Fail(_)]
    ));
}

#[test]
fn step_control_is_read_with_its_case_from_texts_and_booleans() {
    let exit = StepControl {
        on_failure: Some(OnFailure::Exit),
        ..StepControl::default()
    };
    let success_and_exit = StepControl {
        on_failure: Some(OnFailure::SuccessAndExit),
        ..StepControl::default()
    };
    let on_success = StepControl {
        exit_on_success: true,
        ..StepControl::default()
    };
    let finally = StepControl {
        finally: true,
        ..StepControl::default()
    };
    let none = StepControl::default();
    for (inputs, expected) in [
        (json!({"onFailure": "exit"}), exit),
        (json!({"onFailure": "successAndExit"}), success_and_exit),
        (json!({"onFailure": "Exit"}), none),
        (json!({"OnFailure": "exit"}), none),
        (json!({"onSuccess": "exit"}), on_success),
        (json!({"onSuccess": "successAndExit"}), none),
        (json!({"onSuccess": true}), none),
        (json!({"finallyStep": true}), finally),
        (json!({"finallyStep": "true"}), finally),
        (json!({"finallyStep": "yes"}), none),
    ] {
        let steps = json!([{"action": "aws:runShellScript", "name": "a", "inputs": inputs}]);
        assert_eq!(
            plan(&with_steps("2.2", &steps), &json!({})).unwrap()[0].control,
            expected,
            "{inputs}"
        );
    }
}

#[test]
fn only_the_last_step_is_the_final_one() {
    let step = |name| json!({"action": "aws:runShellScript", "name": name, "inputs": {"finallyStep": true}});
    let steps = plan(&with_steps("2.2", &json!([step("a"), step("b")])), &json!({})).unwrap();
    assert_eq!(
        steps.iter().map(|step| step.control.finally).collect::<Vec<_>>(),
        [false, true]
    );
    assert_eq!(
        steps[1].skipped_after_exit(),
        "Plugin with name aws:runShellScript and id b skipped due to prior step with an exit condition"
    );
}

/// Any value, with the names and texts that a document gives a meaning.
fn value() -> impl Strategy<Value = Value> {
    let word = prop::sample::select(vec![
        "schemaVersion",
        "1.2",
        "2.0",
        "2.2",
        "1.0",
        "parameters",
        "mainSteps",
        "runtimeConfig",
        "properties",
        "action",
        "name",
        "inputs",
        "precondition",
        "StringEquals",
        "platformType",
        "aws:runShellScript",
        "type",
        "String",
        "StringList",
        "default",
        "allowedPattern",
        "runCommand",
        "{{ a }}",
        "x {{a}}",
        "a",
        "",
        "[a",
        "sessionType",
        "Standard_Stream",
        "Port",
        "shellProfile",
        "idleSessionTimeout",
    ]);
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        word.clone().prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 48, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((word.clone(), inner), 0..6).prop_map(|members| members
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value))
                .collect::<Map<_, _>>()
                .into()),
        ]
    })
}

proptest! {
    #[test]
    fn no_value_makes_parse_or_plan_panic(content in value(), given in value()) {
        let empty = Map::new();
        let given = given.as_object().unwrap_or(&empty);
        if let Ok(document) = CommandDocument::parse(&content) {
            let _plan = document.plan(given, LINUX);
        }
        if let Ok(document) = crate::document::SessionDocument::parse(&content) {
            let _plan = document.plan(given);
        }
    }

    #[test]
    fn no_member_of_a_document_makes_parse_or_plan_panic(
        schema in prop::sample::select(vec!["1.0", "1.2", "2.0", "2.2"]),
        parameter in value(), step in value(), inputs in value(), precondition in value(), given in value(),
    ) {
        let content = json!({
            "schemaVersion": schema,
            "parameters": {"a": {"type": "String", "default": parameter}},
            "runtimeConfig": {"aws:runShellScript": {"properties": inputs}},
            "mainSteps": [
                {"action": "aws:runShellScript", "name": "s", "inputs": inputs, "precondition": precondition},
                step
            ]
        });
        if let Ok(document) = CommandDocument::parse(&content) {
            let steps = document.plan(json!({ "a": given }).as_object().unwrap(), LINUX).unwrap();
            prop_assert_eq!(steps.len(), document.step_names().count());
            for step in steps {
                prop_assert!(step.decision != Decision::Run || !step.inputs.is_empty() || schema.starts_with('1'));
            }
        }
    }
}
