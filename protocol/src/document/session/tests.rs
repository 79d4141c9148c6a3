use std::collections::BTreeMap;

use serde_json::json;

use super::*;
use crate::document::ParameterError;

/// As published (client-wire §7.5).
const HOST: &str = "^[^,$^&\\(\\)!;'\"<>\\`{}\\[\\]\\|#=]{3,}$";
const PORT: &str =
    "^([1-9]|[1-9][0-9]{1,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])$";

fn remote_port() -> Value {
    json!({
        "schemaVersion": "1.0", "description": "Forward to a host behind the node", "sessionType": "Port",
        "parameters": {
            "portNumber": {"type": "String", "description": "port", "allowedPattern": PORT, "default": "80"},
            "localPortNumber": {"type": "String", "allowedPattern": "^[0-9]{1,5}$", "default": "0"},
            "host": {"type": "String", "description": "host", "allowedPattern": HOST, "default": "localhost"}
        },
        "properties": {
            "portNumber": "{{ portNumber }}", "type": "LocalPortForwarding",
            "localPortNumber": "{{ localPortNumber }}", "host": "{{ host }}"
        }
    })
}

fn non_interactive() -> Value {
    let separator = json!({"type": "String", "allowedPattern": "^[0-9a-zA-Z\r\n_:-]{0,30}$", "default": ""});
    json!({
        "schemaVersion": "1.0", "sessionType": "NonInteractiveCommands",
        "parameters": {
            "command": {"type": "String"},
            "separateOutputStream": {"type": "String", "allowedValues": ["true", "false"], "default": "false"},
            "stdoutSeparatorPrefix": separator,
            "stderrSeparatorPrefix": separator
        },
        "properties": {"linux": {
            "commands": "{{ command }}", "runAsElevated": false,
            "separateOutputStream": "{{ separateOutputStream }}",
            "stdoutSeparatorPrefix": "{{ stdoutSeparatorPrefix }}",
            "stderrSeparatorPrefix": "{{ stderrSeparatorPrefix }}"
        }}
    })
}

fn preferences(inputs: &Value) -> Value {
    json!({"schemaVersion": "1.0", "sessionType": "Standard_Stream", "inputs": inputs})
}

fn plan(document: &Value, parameters: &Value) -> Result<SessionPlan, DocumentError> {
    SessionDocument::parse(document)?.plan(parameters.as_object().unwrap())
}

fn with_inputs(inputs: &Value) -> Result<SessionPlan, String> {
    plan(&preferences(inputs), &json!({})).map_err(|error| error.to_string())
}

#[test]
fn the_full_preferences_document_gives_the_defaults() {
    let plan = with_inputs(&json!({
        "s3BucketName": "", "s3KeyPrefix": "", "s3EncryptionEnabled": true, "cloudWatchLogGroupName": "",
        "cloudWatchEncryptionEnabled": true, "cloudWatchStreamingEnabled": false, "kmsKeyId": "",
        "runAsEnabled": false, "runAsDefaultUser": "", "idleSessionTimeout": "", "maxSessionDuration": "",
        "shellProfile": {"windows": "", "linux": ""}
    }))
    .unwrap();
    let expected = SessionPlan {
        session_type: SessionType::StandardStream,
        run_as_enabled: false,
        run_as_default_user: String::new(),
        shell_profile_linux: String::new(),
        kms_key_id: String::new(),
        idle_session_timeout_minutes: 20,
        max_session_duration_minutes: None,
        properties: Value::Null,
    };
    assert_eq!(plan, expected);
    for inputs in [json!({}), json!(null)] {
        assert_eq!(with_inputs(&inputs).unwrap(), expected);
    }
}

#[test]
fn every_preference_is_read_without_regard_to_case() {
    let plan = with_inputs(&json!({
        "KmsKeyId": "alias/k", "RunAsEnabled": "True", "runasdefaultuser": "jo", "IDLESessionTimeout": 60,
        "maxSessionDuration": "1440", "ShellProfile": {"Linux": "exec bash\ncd", "windows": null}
    }))
    .unwrap();
    assert_eq!(plan.kms_key_id, "alias/k");
    assert!(plan.run_as_enabled);
    assert_eq!(plan.run_as_default_user, "jo");
    assert_eq!(plan.shell_profile_linux, "exec bash\ncd");
    assert_eq!(plan.idle_session_timeout_minutes, 60);
    assert_eq!(plan.max_session_duration_minutes, Some(1440));
}

#[test]
fn a_boolean_is_a_boolean_its_text_or_null() {
    for (value, expected) in [
        (json!(true), Some(true)),
        (json!("true"), Some(true)),
        (json!(false), Some(false)),
        (json!("FALSE"), Some(false)),
        (json!(""), Some(false)),
        (json!(null), Some(false)),
        (json!("yes"), None),
        (json!("{{ unknown }}"), None),
        (json!(1), None),
    ] {
        let result = with_inputs(&json!({ "runAsEnabled": value }));
        match expected {
            Some(expected) => assert_eq!(result.unwrap().run_as_enabled, expected, "{value}"),
            None => assert_eq!(
                result.unwrap_err(),
                "Unsupported document: runAsEnabled must be true or false",
                "{value}"
            ),
        }
    }
}

#[test]
fn the_two_times_are_whole_minutes_within_their_ranges() {
    for value in [json!(1), json!("1"), json!(60), json!("60")] {
        assert!(
            with_inputs(&json!({ "idleSessionTimeout": value })).is_ok(),
            "{value}"
        );
    }
    for value in [
        json!(0),
        json!("61"),
        json!("x"),
        json!(" 5"),
        json!(1.5),
        json!(-1),
        json!([]),
        json!(true),
    ] {
        assert_eq!(
            with_inputs(&json!({ "idleSessionTimeout": value })).unwrap_err(),
            "Unsupported document: idleSessionTimeout must be a whole number of minutes from 1 to 60",
            "{value}"
        );
    }
    for (value, expected) in [
        (json!("1"), Some(1)),
        (json!(1440), Some(1440)),
        (json!(null), None),
    ] {
        let plan = with_inputs(&json!({ "maxSessionDuration": value })).unwrap();
        assert_eq!(plan.max_session_duration_minutes, expected);
    }
    assert_eq!(
        with_inputs(&json!({"maxSessionDuration": 1441})).unwrap_err(),
        "Unsupported document: maxSessionDuration must be a whole number of minutes from 1 to 1440"
    );
}

#[test]
fn properties_of_a_port_are_filled_in_with_plain_texts() {
    let expected = json!({
        "portNumber": "5432", "type": "LocalPortForwarding", "localPortNumber": "0", "host": "db.internal"
    });
    // A list of one text is what StartSession has; both forms mean the same.
    for parameters in [
        json!({"portNumber": "5432", "host": "db.internal", "unknown": "x"}),
        json!({"portNumber": ["5432"], "host": ["db.internal"]}),
    ] {
        let plan = plan(&remote_port(), &parameters).unwrap();
        assert_eq!(plan.session_type, SessionType::Port);
        assert_eq!(plan.properties, expected);
        assert_eq!(plan.idle_session_timeout_minutes, DEFAULT_IDLE_MINUTES);
    }
    let error = plan(&remote_port(), &json!({"host": "a`id`"})).unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("parameter host: parameter value /a`id`/ does not match"),
        "{error}"
    );
}

#[test]
fn the_values_that_the_endpoint_resolves_are_those_the_node_plans_with() {
    let document = SessionDocument::parse(&non_interactive()).unwrap();
    let given: BTreeMap<_, _> = [
        ("command".to_owned(), vec!["ls '$$'".to_owned()]),
        ("separateOutputStream".to_owned(), vec!["true".to_owned()]),
        ("stdoutSeparatorPrefix".to_owned(), vec!["OUT\n".to_owned()]),
    ]
    .into();
    let parameters = document.parameters.resolve_lists(&given).unwrap();
    let plan = document.plan(parameters.as_map()).unwrap();
    assert_eq!(
        plan.properties,
        json!({"linux": {
            "commands": "ls '$$'", "runAsElevated": false, "separateOutputStream": "true",
            "stdoutSeparatorPrefix": "OUT\n", "stderrSeparatorPrefix": ""
        }})
    );
    assert_eq!(
        document.parameters.resolve_lists(&BTreeMap::new()),
        Err(ParameterError::Missing("command".to_owned()))
    );
    for (name, text) in [
        ("separateOutputStream", "maybe"),
        ("stderrSeparatorPrefix", "a b"),
    ] {
        let mut given = given.clone();
        given.insert(name.to_owned(), vec![text.to_owned()]);
        assert!(document.parameters.resolve_lists(&given).is_err(), "{name}");
    }
}

/// A command that a pattern guards would otherwise be run with what no node ever looks up.
#[test]
fn a_reference_to_the_parameter_store_keeps_the_rules_like_any_text() {
    let document = json!({
        "schemaVersion": "1.0", "sessionType": "InteractiveCommands",
        "parameters": {
            "service": {"type": "String", "allowedPattern": "^[a-z]+$"},
            "count": {"type": "Integer", "default": 1},
            "note": {"type": "String", "maxChars": 3, "default": ""}
        },
        "properties": {"linux": {"commands": "systemctl status {{ service }} -n {{ count }} # {{ note }}"}}
    });
    let document = SessionDocument::parse(&document).unwrap();
    let refused = |name: &str| {
        let mut given: BTreeMap<_, _> = [("service".to_owned(), vec!["ssh".to_owned()])].into();
        given.insert(name.to_owned(), vec!["{{ssm:x}}".to_owned()]);
        document.parameters.resolve_lists(&given).unwrap_err().to_string()
    };
    for name in ["service", "count", "note"] {
        assert!(
            refused(name).starts_with(&format!("parameter {name}: ")),
            "{}",
            refused(name)
        );
    }
    let given = json!({"service": "{{ssm:x}}"});
    assert!(document.plan(given.as_object().unwrap()).is_err());
}

#[test]
fn a_value_is_not_scanned_again_and_unknown_names_stay() {
    let document = json!({
        "schemaVersion": "1.0", "sessionType": "NonInteractiveCommands",
        "PARAMETERS": {
            "a": {"TYPE": "String"}, "b": {"type": "String", "Default": "B"},
            "n": {"type": "Integer", "default": 3}, "on": {"type": "Boolean", "default": "true"}
        },
        "Properties": {"Linux": {"Commands": "x {{a}} {{ b }} {{ n }} {{c}}", "RunAsElevated": "{{ on }}"}}
    });
    let plan = plan(&document, &json!({"a": "{{ b }}"})).unwrap();
    assert_eq!(
        plan.properties,
        json!({"Linux": {"Commands": "x {{ b }} B 3 {{c}}", "RunAsElevated": "true"}})
    );
}

#[test]
fn preferences_may_come_from_parameters() {
    let document = json!({
        "schemaVersion": "1.0", "sessionType": "InteractiveCommands",
        "parameters": {
            "kms": {"type": "String", "default": ""},
            "elevated": {"type": "Boolean", "default": true},
            "minutes": {"type": "String", "default": "5"},
            "lines": {"type": "StringList", "default": ["a", "b"]},
            "username": {"type": "String", "allowedPattern": "^[a-zA-Z0-9\\_.@-]*$", "minChars": 1, "maxChars": 256}
        },
        "inputs": {"kmsKeyId": "{{kms}}", "runAsEnabled": "{{ elevated }}", "idleSessionTimeout": "{{minutes}}"},
        "properties": {"Linux": {"commands": "passwd {{username}}"}, "macos": {"commands": "{{ lines }}"}}
    });
    let plan = plan(&document, &json!({"username": "jo"})).unwrap();
    assert_eq!(plan.session_type.as_str(), "InteractiveCommands");
    assert!(plan.run_as_enabled);
    assert_eq!(plan.idle_session_timeout_minutes, 5);
    assert_eq!(plan.properties["Linux"]["commands"], "passwd jo");
    assert_eq!(plan.properties["macos"]["commands"], json!(["a", "b"]));
}

#[test]
fn every_session_type_is_known_by_its_exact_name() {
    for name in [
        "Standard_Stream",
        "InteractiveCommands",
        "NonInteractiveCommands",
        "Port",
    ] {
        let document = SessionDocument::parse(&json!({"schemaVersion": "1.0", "sessionType": name})).unwrap();
        assert_eq!(document.session_type.as_str(), name);
    }
}

#[test]
fn a_session_document_that_cannot_run_says_why() {
    let cases = [
        (
            json!({"schemaVersion": "2.2", "sessionType": "Port"}),
            "Document with schema version 2.2 is not supported by this version of ssm agent, please update to latest version",
        ),
        (
            json!({"schemaVersion": "1.0"}),
            "Unsupported document: unknown session type \"\"",
        ),
        (
            json!({"schemaVersion": "1.0", "sessionType": "port"}),
            "Unsupported document: unknown session type \"port\"",
        ),
        (
            preferences(&json!([])),
            "Unsupported document: inputs must be an object",
        ),
        (
            json!({"schemaVersion": "1.0", "sessionType": "Port", "properties": "x"}),
            "Unsupported document: properties must be an object",
        ),
        (
            preferences(&json!({"shellProfile": "bash"})),
            "Unsupported document: shellProfile must be an object",
        ),
        (
            preferences(&json!({"kmsKeyId": 1})),
            "Unsupported document: kmsKeyId must be a text",
        ),
    ];
    for (document, text) in cases {
        assert_eq!(
            plan(&document, &json!({})).unwrap_err().to_string(),
            text,
            "{document}"
        );
    }
}

#[test]
fn inputs_are_checked_before_the_parameters_are_there() {
    let with = |inputs: Value| {
        let document = json!({
            "schemaVersion": "1.0", "sessionType": "Standard_Stream", "inputs": inputs,
            "parameters": {"minutes": {"type": "String"}}
        });
        SessionDocument::parse(&document).unwrap()
    };
    let waiting = with(json!({"maxSessionDuration": "{{ minutes }}", "idleSessionTimeout": "5"}));
    assert_eq!(waiting.check_inputs().unwrap().idle_session_timeout_minutes, 5);
    let wrong = with(json!({"maxSessionDuration": "{{ minutes }}", "idleSessionTimeout": "61"}));
    let error = wrong.check_inputs().unwrap_err().to_string();
    assert!(error.contains("idleSessionTimeout"), "{error}");
    let minutes = json!({"minutes": ["7"]});
    let inputs = waiting.resolved_inputs(minutes.as_object().unwrap()).unwrap();
    assert_eq!(
        Value::from(inputs),
        json!({"maxSessionDuration": "7", "idleSessionTimeout": "5"})
    );
}
