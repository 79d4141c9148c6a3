use proptest::prelude::*;
use serde_json::json;

use super::*;

fn definitions(parameters: &Value) -> Definitions {
    Definitions::parse(Some(parameters)).unwrap()
}

fn one(definition: &Value) -> Definitions {
    definitions(&json!({ "p": definition }))
}

fn lists(definition: &Value, texts: &[&str]) -> Result<Value, String> {
    let given = [(
        "p".to_owned(),
        texts.iter().map(|text| (*text).to_owned()).collect(),
    )]
    .into();
    match one(definition).resolve_lists(&given) {
        Ok(parameters) => Ok(parameters.as_map()["p"].clone()),
        Err(error) => Err(error.to_string()),
    }
}

fn values(definition: &Value, value: &Value) -> Result<Value, String> {
    let given = json!({ "p": value, "unknown": 1 });
    match one(definition).resolve_values(given.as_object().unwrap()) {
        Ok(parameters) => {
            assert_eq!(parameters.as_map().len(), 1);
            Ok(parameters.as_map()["p"].clone())
        }
        Err(error) => Err(error.to_string()),
    }
}

#[test]
fn texts_of_the_api_become_values_of_the_type() {
    let cases: &[(&str, &[&str], Value)] = &[
        ("String", &["a"], json!("a")),
        ("String", &[""], json!("")),
        ("StringList", &["a", "b"], json!(["a", "b"])),
        ("StringList", &[], json!([])),
        ("StringMap", &[r#"{"a": [1]}"#], json!({"a": [1]})),
        ("Boolean", &["true"], json!(true)),
        ("Boolean", &["False"], json!(false)),
        ("Integer", &["-7"], json!(-7)),
        ("Integer", &["2147483647"], json!(2_147_483_647)),
        ("MapList", &[r#"[{"a":1},{}]"#], json!([{"a": 1}, {}])),
        ("MapList", &[r#"{"a":1}"#], json!([{"a": 1}])),
        ("MapList", &[r#"{"a":1}"#, "{}"], json!([{"a": 1}, {}])),
        ("MapList", &[], json!([])),
        // Known only on the node.
        ("Integer", &["{{ssm:/count}}"], json!("{{ssm:/count}}")),
        ("StringMap", &["{{ ssm:map:3 }}"], json!("{{ ssm:map:3 }}")),
    ];
    for (parameter_type, texts, value) in cases {
        assert_eq!(
            lists(&json!({ "type": parameter_type }), texts).as_ref(),
            Ok(value),
            "{parameter_type} {texts:?}"
        );
    }
}

#[test]
fn texts_that_do_not_fit_the_type_are_refused() {
    let cases: &[(&str, &[&str], &str)] = &[
        (
            "String",
            &[],
            "parameter p: a String takes exactly one value, not 0",
        ),
        (
            "String",
            &["a", "b"],
            "parameter p: a String takes exactly one value, not 2",
        ),
        (
            "Boolean",
            &["1"],
            "parameter p: parameter value /1/ is not true or false",
        ),
        (
            "Integer",
            &["1.0"],
            "parameter p: parameter value /1.0/ is not a whole number of 32 bits",
        ),
        (
            "Integer",
            &["2147483648"],
            "parameter p: parameter value /2147483648/ is not a whole number of 32 bits",
        ),
        (
            "StringMap",
            &["[]"],
            "parameter p: parameter value /[]/ is not a JSON object",
        ),
        (
            "MapList",
            &["[1]"],
            "parameter p: parameter value /[1]/ is not a JSON list of objects",
        ),
        (
            "MapList",
            &["{}", "x"],
            "parameter p: parameter value /x/ is not a JSON object",
        ),
    ];
    for (parameter_type, texts, text) in cases {
        assert_eq!(
            lists(&json!({ "type": parameter_type }), texts).unwrap_err(),
            *text,
            "{parameter_type} {texts:?}"
        );
    }
}

fn check(cases: &[(Value, &[&str], Option<&str>)]) {
    for (definition, texts, rule) in cases {
        let result = lists(definition, texts);
        match rule {
            None => assert!(result.is_ok(), "{definition} {texts:?} {result:?}"),
            Some(rule) => assert_eq!(
                result.unwrap_err(),
                format!("parameter p: {rule}"),
                "{definition}"
            ),
        }
    }
}

#[test]
fn every_rule_of_a_definition_is_checked_for_the_api() {
    let cases: &[(Value, &[&str], Option<&str>)] = &[
        (
            json!({"type": "String", "allowedValues": ["a", "b"]}),
            &["b"],
            None,
        ),
        (
            json!({"type": "String", "allowedValues": ["a", "b"]}),
            &["c"],
            Some("parameter value /c/ is not in the allowed list [a b]"),
        ),
        (
            json!({"type": "Integer", "allowedValues": [5, "6"]}),
            &["6"],
            None,
        ),
        (
            json!({"type": "Integer", "allowedValues": [5, "6"]}),
            &["7"],
            Some("parameter value /7/ is not in the allowed list [5 6]"),
        ),
        (
            json!({"type": "StringList", "allowedValues": ["a"]}),
            &["a", "b"],
            Some("parameter value /b/ is not in the allowed list [a]"),
        ),
        (
            json!({"type": "StringMap", "allowedValues": [{"a": 1}]}),
            &[r#"{ "a": 1 }"#],
            None,
        ),
        // Limits of length count bytes.
        (
            json!({"type": "String", "minChars": 2, "maxChars": 4}),
            &["éé"],
            None,
        ),
        (
            json!({"type": "String", "minChars": 3}),
            &["é"],
            Some("parameter value /é/ is less than the min char limit /3/"),
        ),
        (
            json!({"type": "String", "maxChars": "3"}),
            &["éé"],
            Some("parameter value /éé/ is exceeding the max chars /3/"),
        ),
        (
            json!({"type": "StringList", "maxChars": 1}),
            &["a", "bb"],
            Some("parameter value /bb/ is exceeding the max chars /1/"),
        ),
        (json!({"type": "Integer", "maxChars": 1}), &["22"], None),
        (
            json!({"type": "StringList", "minItems": 1}),
            &[],
            Some("parameter list length /0/ is less the min item count"),
        ),
        (
            json!({"type": "StringList", "maxItems": 1}),
            &["a", "b"],
            Some("parameter list length /2/ has exceeded the max item count"),
        ),
        (
            json!({"type": "StringMap", "minItems": 2}),
            &[r#"{"a":1}"#],
            Some("parameter list length /1/ is less the min item count"),
        ),
        (
            json!({"type": "String", "minItems": 9, "maxItems": 0}),
            &["a"],
            None,
        ),
    ];
    check(cases);
}

#[test]
fn what_is_told_of_a_secret_that_breaks_a_rule_does_not_quote_it() {
    let pin = json!({"type": "String", "noEcho": true, "allowedPattern": "^[0-9]{4}$"});
    let number = json!({"type": "Integer", "noEcho": true});
    let told = [
        lists(&pin, &["hunter2"]),
        values(&pin, &json!("hunter2")),
        lists(&number, &["hunter2"]),
    ];
    for told in told {
        let told = told.unwrap_err();
        assert!(
            told.contains('p') && told.contains("secret") && !told.contains("hunter2"),
            "{told}"
        );
    }
    assert_eq!(lists(&pin, &["4711"]), Ok(json!("4711")));
}

#[test]
fn a_pattern_is_searched_in_a_text_in_each_element_and_in_json_text() {
    let cases: &[(Value, &[&str], Option<&str>)] = &[
        (json!({"type": "String", "allowedPattern": "b"}), &["abc"], None),
        (
            json!({"type": "String", "allowedPattern": "^b"}),
            &["abc"],
            Some("parameter value /abc/ does not match the allowed pattern /^b/"),
        ),
        (
            json!({"type": "StringList", "allowedPattern": "^b"}),
            &["b", "c"],
            Some("parameter value /c/ does not match the allowed pattern /^b/"),
        ),
        (
            json!({"type": "Integer", "allowedPattern": "^[0-9]$"}),
            &["5"],
            None,
        ),
        (
            json!({"type": "StringMap", "allowedPattern": "^$"}),
            &[r#"{ "a": 1 }"#],
            Some(r#"parameter value /{"a":1}/ does not match the allowed pattern /^$/"#),
        ),
    ];
    check(cases);
}

#[test]
fn a_value_with_a_store_reference_skips_the_rules_but_text_around_it_has_to_match_the_pattern() {
    let definition =
        json!({"type": "String", "allowedValues": ["a"], "maxChars": 1, "allowedPattern": "^[a-z-]+$"});
    for reference in ["{{ssm:a/b_c.d-e}}", "{{  ssm:name:7  }}", "{{ssm:a}}{{ssm:b}}"] {
        assert_eq!(lists(&definition, &[reference]), Ok(json!(reference)));
        assert_eq!(values(&definition, &json!(reference)), Ok(json!(reference)));
    }
    for text in [
        "{{ssm:a}}; reboot",
        "{{ssm:a;b}}",
        "{{\tssm:a}}",
        "{{ssm-secure:a}}",
        "{{ssm:}}",
        "{{ssm:a}}\n",
    ] {
        assert!(lists(&definition, &[text]).is_err(), "{text:?}");
        assert!(values(&definition, &json!(text)).is_err(), "{text:?}");
    }
    let list = json!({"type": "StringList", "maxItems": 1, "allowedPattern": "^a"});
    assert_eq!(lists(&list, &["{{ssm:a}}", "ab"]), Ok(json!(["{{ssm:a}}", "ab"])));
    assert!(lists(&list, &["{{ssm:a}}", "b"]).is_err());
}

#[test]
fn an_unknown_name_is_refused_by_the_endpoint_and_dropped_on_the_node() {
    let given = [("x".to_owned(), vec!["1".to_owned()])].into();
    let error = definitions(&json!({"p": {"default": "d"}}))
        .resolve_lists(&given)
        .unwrap_err();
    assert_eq!(error, ParameterError::Undefined("x".to_owned()));
    assert_eq!(error.to_string(), "parameter x is not defined in the document");
    assert_eq!(values(&json!({"type": "String"}), &json!("v")), Ok(json!("v")));
}

#[test]
fn a_missing_value_takes_the_default_which_has_to_match_the_pattern() {
    let resolve = |definition: &Value| {
        let definitions = one(definition);
        let from_lists = definitions.resolve_lists(&BTreeMap::new());
        assert_eq!(from_lists, definitions.resolve_values(&Map::new()));
        match from_lists {
            Ok(parameters) => Ok(parameters.as_map()["p"].clone()),
            Err(error) => Err(error.to_string()),
        }
    };
    assert_eq!(
        resolve(&json!({"type": "String", "default": "d"})),
        Ok(json!("d"))
    );
    assert_eq!(
        resolve(&json!({"type": "StringList", "default": ["a"]})),
        Ok(json!(["a"]))
    );
    assert_eq!(
        resolve(&json!({"type": "String", "default": null})),
        Ok(Value::Null)
    );
    // The author's own value is not measured.
    assert_eq!(
        resolve(&json!({"type": "String", "default": "", "minChars": 1})),
        Ok(json!(""))
    );
    assert_eq!(
        resolve(&json!({"type": "String"})),
        Err("parameter p has no value and no default".to_owned())
    );
    assert_eq!(
        resolve(&json!({"type": "String", "default": "", "allowedPattern": "a"})),
        Err("parameter p: parameter value // does not match the allowed pattern /a/".to_owned())
    );
    assert_eq!(
        resolve(&json!({"type": "String", "default": null, "allowedPattern": "a"})),
        Err("parameter p: invalid parameter type null with parameter value null".to_owned())
    );
}

#[test]
fn the_node_checks_patterns_only_and_keeps_the_type_it_gets() {
    let definition =
        json!({"type": "String", "allowedValues": ["a"], "maxChars": 1, "allowedPattern": "^[a-z0-9]+$"});
    assert_eq!(values(&definition, &json!("abc")), Ok(json!("abc")));
    assert_eq!(values(&definition, &json!(["abc", 7])), Ok(json!(["abc", 7])));
    assert_eq!(
        values(&definition, &json!(["abc", "A"])).unwrap_err(),
        "parameter p: parameter value /A/ does not match the allowed pattern /^[a-z0-9]+$/"
    );
}

#[test]
fn an_error_shows_only_the_start_of_a_long_value() {
    let text = lists(
        &json!({"type": "String", "maxChars": 1}),
        &["é".repeat(60_000).as_str()],
    )
    .unwrap_err();
    assert!(text.chars().count() < 400, "{}", text.len());
    assert!(text.contains("é…/"));
}

proptest! {
    #[test]
    fn a_resolved_value_always_satisfies_the_allowed_pattern(
        texts in proptest::collection::vec("[a-c{}:sm ]{0,9}", 0..4),
        given in any::<bool>(),
        is_list in any::<bool>(),
        default in proptest::option::of("[a-c]{0,3}"),
    ) {
        let parameter_type = if is_list { "StringList" } else { "String" };
        let mut definition = json!({"type": parameter_type, "allowedPattern": "^a|c$"});
        if let Some(default) = default {
            definition["default"] = default.into();
        }
        let typed = if is_list { json!(texts) } else { json!(texts.first()) };
        let mut lists = BTreeMap::new();
        let mut values = Map::new();
        if given {
            lists.insert("p".to_owned(), texts);
            values.insert("p".to_owned(), typed);
        }
        let definitions = one(&definition);
        let resolved = [definitions.resolve_lists(&lists), definitions.resolve_values(&values)];
        for parameters in resolved.into_iter().flatten() {
            for element in elements(&parameters.as_map()["p"]) {
                let text = element.as_str().unwrap();
                let is_match = text.starts_with('a') || text.ends_with('c');
                let is_reference = text.starts_with("{{") && text.contains("ssm:") && text.ends_with("}}");
                prop_assert!(is_match || is_reference, "{text:?}");
            }
        }
    }
}
