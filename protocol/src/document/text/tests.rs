use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::MAX_DEPTH;
use super::*;

fn yaml(text: &str) -> Value {
    TextFormat::Yaml
        .read(text)
        .unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn refusal(text: &str) -> String {
    match TextFormat::Yaml.read(text) {
        Ok(value) => panic!("{text}: {value}"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn a_document_reads_the_same_in_json_and_yaml() {
    let text = "---\nschemaVersion: '2.2'\nparameters:\n  commands: {type: StringList, minItems: 1}\nmainSteps:\n\
                - action: aws:runShellScript\n  name: x\n  inputs:\n    timeoutSeconds: 60\n    runCommand:\n\
                \x20   - |\n      #!/bin/bash\n      echo \"a: b\"\n    - '{{ commands }}'\n";
    let expected = json!({
        "schemaVersion": "2.2",
        "parameters": {"commands": {"type": "StringList", "minItems": 1}},
        "mainSteps": [{
            "action": "aws:runShellScript", "name": "x",
            "inputs": {"timeoutSeconds": 60, "runCommand": ["#!/bin/bash\necho \"a: b\"\n", "{{ commands }}"]}
        }]
    });
    assert_eq!(yaml(text), expected);
    assert_eq!(read_text(text).unwrap(), expected);
    assert_eq!(read_text(&expected.to_string()).unwrap(), expected);
    assert_eq!(yaml(&expected.to_string()), expected, "JSON is YAML");
}

#[test]
fn a_scalar_that_would_change_its_text_stays_a_text() {
    let table = [
        ("60", json!(60)),
        ("-1", json!(-1)),
        ("2.2", json!(2.2)),
        ("true", json!(true)),
        ("False", json!(false)),
        ("~", json!(null)),
        ("yes", json!("yes")),
        ("on", json!("on")),
        ("0777", json!("0777")),
        ("1.10", json!("1.10")),
        ("1e3", json!("1e3")),
        ("0x1f", json!("0x1f")),
        (".inf", json!(".inf")),
        ("+5", json!("+5")),
        ("'60'", json!("60")),
        ("!!str 60", json!("60")),
        ("2026-11-22", json!("2026-11-22")),
    ];
    for (text, expected) in table {
        assert_eq!(yaml(&format!("a: {text}")), json!({ "a": expected }), "{text}");
    }
}

#[test]
fn aliases_repeat_what_they_name() {
    assert_eq!(
        yaml("a: &x [1, {b: c}]\nd: *x"),
        json!({"a": [1, {"b": "c"}], "d": [1, {"b": "c"}]})
    );
}

#[test]
fn a_bomb_of_aliases_is_refused_in_bounded_memory() {
    let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..20 {
        let below = format!("*a{}, ", level - 1).repeat(10);
        text.push_str(&format!("a{level}: &a{level} [{below}]\n"));
    }
    assert!(refusal(&text).contains("aliases"), "{}", refusal(&text));
    let texts = format!("a: &a {}\nb: [{}]", "x".repeat(60_000), "*a, ".repeat(10));
    assert!(refusal(&texts).contains("aliases"));
    assert!(refusal("a: &a [*a]").contains("inside"));
    assert!(TextFormat::Yaml.read("a: *nothing").is_err());
}

#[test]
fn depth_is_bounded_in_every_style() {
    let levels = MAX_DEPTH - 2;
    let flow = |levels: usize| format!("a: {}x{}", "[".repeat(levels), "]".repeat(levels));
    yaml(&flow(levels));
    assert!(refusal(&flow(levels + 1)).contains("deeper"));
    for opening in ["[", "{", "- ", "? ", "a: [", "- [{"] {
        assert!(
            TextFormat::Yaml.read(&opening.repeat(20_000)).is_err(),
            "{opening}"
        );
    }
    let anchors = format!(
        "a: &a {}x{}\nb: {}*a{}",
        "[".repeat(40),
        "]".repeat(40),
        "[".repeat(40),
        "]".repeat(40)
    );
    assert!(refusal(&anchors).contains("deeper"));
}

#[test]
fn what_programs_understand_differently_is_refused() {
    let table = [
        ("a: 1\na: 2", "a is given twice"),
        ("a: &x {b: c}\nd:\n  <<: *x", "merge"),
        ("a: !Ref x", "tag"),
        ("a: !!python/object x", "tag"),
        ("a\n---\nb", "more than one document"),
        ("? [a]\n: b", "name of a member"),
        ("", "no document"),
        ("a: [", "not YAML"),
        ("a: \"\\q\"", "not YAML"),
    ];
    for (text, expected) in table {
        let refusal = refusal(text);
        assert!(refusal.contains(expected), "{text}: {refusal}");
    }
    let large = format!("a: {}", "x".repeat(MAX_TEXT_BYTES));
    assert!(refusal(&large).contains("bytes"));
    assert!(TextFormat::Json.read(&large).is_err());
}

#[test]
fn what_is_neither_is_told_as_what_it_looks_like() {
    let reason = |text| read_text(text).unwrap_err().to_string();
    assert!(reason("{\"a\": 1,,}").contains("not JSON"));
    assert!(reason("a: [").contains("not YAML"));
}

#[test]
fn yaml_is_written_for_people() {
    let value = json!({
        "schemaVersion": "2.2", "empty": {}, "list": [], "yes": "no",
        "mainSteps": [{"name": "x", "inputs": {"runCommand": ["echo a\necho b\n", "a b", 1]}}]
    });
    let expected = "schemaVersion: \"2.2\"\nempty: {}\nlist: []\n\"yes\": \"no\"\nmainSteps:\n  - name: x\n    inputs:\n      \
                    runCommand:\n        - |\n          echo a\n          echo b\n        - \"a b\"\n        - 1\n";
    assert_eq!(write_yaml(&value), expected);
    assert_eq!(yaml(&write_yaml(&value)), value);
}

fn values() -> impl Strategy<Value = Value> {
    let texts = prop_oneof![
        any::<String>(),
        "[ -~\n]{0,40}",
        proptest::collection::vec(0_u8..=127, 0..20).prop_map(|bytes| String::from_utf8(bytes).unwrap()),
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        texts.prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 64, 6, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            proptest::collection::btree_map(".{0,12}", inner, 0..6)
                .prop_map(|members| members.into_iter().filter(|(name, _)| name != "<<").collect()),
        ]
    })
}

proptest! {
    #[test]
    fn what_is_written_as_yaml_is_read_as_the_same_value(value in values()) {
        let text = write_yaml(&value);
        prop_assert_eq!(TextFormat::Yaml.read(&text).map_err(|error| error.to_string()), Ok(value), "{}", text);
    }

    #[test]
    fn no_text_makes_the_reader_panic(text in "[\\[\\]{}:,&*!|>'\"%@`#?~<\\- \n\ta-c0-9.]{0,200}") {
        let _read = read_text(&text);
    }
}
