use serde_json::{Map, Value, json};

use super::super::{CommandDocument, Platform, SessionDocument, Step};

const LINUX: Platform<'static> = Platform {
    platform_type: "Linux",
    handled_actions: &["aws:runShellScript", "aws:runPowerShellScript", "aws:runDocument"],
};

fn document(schema: &str, action: &str, inputs: &Value) -> Value {
    json!({
        "schemaVersion": schema,
        "parameters": {
            "Name": {"type": "String", "interpolationType": "ENV_VAR", "allowedPattern": "(?s)^.*$"},
            "Plain": {"type": "String", "default": "plain"},
        },
        "mainSteps": [{"action": action, "name": "a", "inputs": inputs}],
    })
}

fn plan(document: &Value, parameters: &Value) -> Step {
    let document = CommandDocument::parse(document).unwrap();
    document
        .plan(parameters.as_object().unwrap(), LINUX)
        .unwrap()
        .remove(0)
}

#[test]
fn a_script_refers_to_the_value_and_does_not_hold_it() {
    let inputs = json!({
        "runCommand": ["echo {{Name}} {{ Plain }}", "{{ Name }}"],
        "workingDirectory": "/srv/{{Name}}",
        "environment": {"OWN": "{{Name}}"},
    });
    let hostile = "x'; touch /tmp/owned; $(id) \"`id`\" $$";
    let step = plan(
        &document("2.2", "aws:runShellScript", &inputs),
        &json!({ "Name": hostile }),
    );
    let inputs = &step.inputs[0];
    assert_eq!(
        inputs["runCommand"],
        json!(["echo ${SSM_Name} plain", "${SSM_Name}"])
    );
    assert_eq!(step.environment, [("SSM_Name".to_owned(), hostile.to_owned())]);
    assert_eq!(inputs["environment"]["OWN"], hostile, "no shell reads it there");

    let inputs = json!({"runCommand": ["echo {{Name}}"]});
    let step = plan(
        &document("2.2", "aws:runPowerShellScript", &inputs),
        &json!({ "Name": "a" }),
    );
    assert_eq!(step.inputs[0]["runCommand"], json!(["echo ${env:SSM_Name}"]));
}

#[test]
fn no_byte_of_a_value_gets_into_the_text_of_a_script() {
    let inputs = json!({"runCommand": ["echo {{Name}}"]});
    let document = document("2.2", "aws:runShellScript", &inputs);
    for byte in 0..=255_u8 {
        let value = format!("a{}b", char::from(byte));
        let step = plan(&document, &json!({ "Name": value }));
        assert_eq!(
            step.inputs[0]["runCommand"],
            json!(["echo ${SSM_Name}"]),
            "{byte}"
        );
        assert_eq!(step.environment[0].1, value);
    }
}

#[test]
fn other_actions_get_the_value_and_no_variable() {
    let inputs = json!({"documentPath": "{{Name}}"});
    let step = plan(
        &document("2.2", "aws:runDocument", &inputs),
        &json!({ "Name": "a" }),
    );
    assert_eq!(step.inputs[0]["documentPath"], "a");
    assert!(step.environment.is_empty());
}

#[test]
fn a_null_default_sets_no_variable() {
    let mut content = document("2.2", "aws:runShellScript", &json!({"runCommand": ["true"]}));
    content["parameters"]["Name"] =
        json!({"type": "String", "interpolationType": "ENV_VAR", "default": null});
    assert!(plan(&content, &json!({})).environment.is_empty());
}

#[test]
fn what_cannot_be_kept_out_of_the_text_is_refused() {
    let inputs = json!({"runCommand": ["true"]});
    let error = |content: &Value| CommandDocument::parse(content).unwrap_err().to_string();
    assert!(error(&document("2.0", "aws:runShellScript", &inputs)).contains("needs schema version 2.2"));
    let mut content = document("2.2", "aws:runShellScript", &inputs);
    content["parameters"]["Name"] = json!({"type": "StringList", "interpolationType": "ENV_VAR"});
    assert!(error(&content).contains("not for a StringList"));
    content["parameters"]["Name"] = json!({"type": "String", "interpolationType": "env"});
    assert!(error(&content).contains("must be ENV_VAR"));
    let session = json!({"schemaVersion": "1.0", "sessionType": "InteractiveCommands", "parameters":
        {"Name": {"type": "String", "interpolationType": "ENV_VAR"}}});
    let error = SessionDocument::parse(&session).unwrap_err().to_string();
    assert!(error.contains("for command documents"), "{error}");
}

#[test]
fn values_that_a_document_gives_to_another_are_read_by_their_type() {
    let content = json!({
        "schemaVersion": "2.2",
        "parameters": {
            "text": {"type": "String", "maxChars": 4}, "list": {"type": "StringList", "maxItems": 2},
            "map": {"type": "StringMap"}, "number": {"type": "Integer"}, "flag": {"type": "Boolean"},
            "one": {"type": "String", "allowedValues": ["a", "b"]},
        },
        "mainSteps": [{"action": "aws:runShellScript", "name": "a", "inputs": {}}],
    });
    let definitions = CommandDocument::parse(&content).unwrap().parameters;
    let typed = |given: Value| definitions.typed_values(given.as_object().unwrap());
    let table = [
        (json!({"text": 5}), json!({"text": "5"})),
        (json!({"text": ["abc"]}), json!({"text": "abc"})),
        (json!({"text": null, "unknown": 1}), json!({})),
        (json!({"list": "a"}), json!({"list": ["a"]})),
        (json!({"list": "[\"a\",\"b\"]"}), json!({"list": ["a", "b"]})),
        (json!({"list": [1, "b"]}), json!({"list": ["1", "b"]})),
        (json!({"map": "{\"a\":1}"}), json!({"map": {"a": 1}})),
        (
            json!({"number": "7", "flag": "TRUE"}),
            json!({"flag": true, "number": 7}),
        ),
    ];
    for (given, expected) in table {
        assert_eq!(Value::Object(typed(given.clone()).unwrap()), expected, "{given}");
    }
    for (given, expected) in [
        (json!({"text": "abcde"}), "max chars"),
        (json!({"text": {"a": 1}}), "not a String"),
        (json!({"list": ["a", "b", "c"]}), "max item count"),
        (json!({"number": "x"}), "whole number"),
        (json!({"one": "c"}), "allowed list"),
    ] {
        let error = typed(given.clone()).unwrap_err().to_string();
        assert!(error.contains(expected), "{given}: {error}");
    }
    let _empty: Map<String, Value> = typed(json!({})).unwrap();
}
