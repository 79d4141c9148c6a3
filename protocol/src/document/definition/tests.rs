use serde_json::json;

use super::*;

fn error(parameters: &Value) -> String {
    Definitions::parse(Some(parameters)).unwrap_err().to_string()
}

#[test]
fn every_field_of_a_definition_is_read_without_regard_to_case() {
    let definitions = Definitions::parse(Some(&json!({
        "Name": {
            "TYPE": "StringList", "Description": "d", "DEFAULT": ["a"], "allowedvalues": ["a", 1],
            "AllowedPattern": "^a", "minchars": 1, "maxChars": "4096", "MinItems": 2, "maxItems": 3,
            "displayType": "textarea", "unknown": {}
        }
    })))
    .unwrap();
    let expected = Definition {
        parameter_type: ParameterType::StringList,
        description: "d".to_owned(),
        default: Some(json!(["a"])),
        allowed_values: vec![json!("a"), json!(1)],
        allowed_pattern: Some(AllowedPattern::new("^a").unwrap()),
        min_chars: Some(1),
        max_chars: Some(4096),
        min_items: Some(2),
        max_items: Some(3),
        is_secret: false,
        interpolation: Interpolation::Text,
    };
    assert_eq!(definitions.iter().collect::<Vec<_>>(), [("Name", &expected)]);
}

#[test]
fn a_parameter_whose_name_is_not_letters_and_digits_is_dropped() {
    let definitions = Definitions::parse(Some(&json!({
        "a1": {"type": "String"}, "a_b": {"type": "String"}, "a-b": 7, "": {}, "é": {}, "a b": {"type": "?"}
    })))
    .unwrap();
    assert_eq!(
        definitions.iter().map(|(name, _)| name).collect::<Vec<_>>(),
        ["a1"]
    );
}

#[test]
fn a_limit_that_cannot_be_read_limits_nothing() {
    let definitions = Definitions::parse(Some(&json!({
        "a": {"type": "String", "minChars": "x", "maxChars": -1, "minItems": 1.5, "maxItems": null}
    })))
    .unwrap();
    let (_, definition) = definitions.iter().next().unwrap();
    assert_eq!(
        [
            definition.min_chars,
            definition.max_chars,
            definition.min_items,
            definition.max_items
        ],
        [None; 4]
    );
}

#[test]
fn missing_and_null_parameters_are_none_and_a_null_default_is_kept() {
    assert_eq!(Definitions::parse(None).unwrap(), Definitions::default());
    assert_eq!(
        Definitions::parse(Some(&Value::Null)).unwrap(),
        Definitions::default()
    );
    let definitions = Definitions::parse(Some(&json!({"a": {"default": null}, "b": {}}))).unwrap();
    assert_eq!(definitions.by_name["a"].default, Some(Value::Null));
    assert_eq!(definitions.by_name["b"].default, None);
    assert_eq!(definitions.by_name["b"].parameter_type, ParameterType::String);
}

#[test]
fn a_definition_that_cannot_be_used_is_named() {
    let cases = [
        (json!([]), "Unsupported document: parameters must be an object"),
        (
            json!({"p": 1}),
            "Unsupported document: parameter p must be an object",
        ),
        (
            json!({"p": {"type": "Map"}}),
            "Unsupported document: parameter p has the unknown type Map",
        ),
        (
            json!({"p": {"type": 1}}),
            "Unsupported document: type of parameter p must be a text",
        ),
        (
            json!({"p": {"type": "String", "allowedPattern": 1}}),
            "Unsupported document: allowedPattern of parameter p must be a text",
        ),
        (
            json!({"p": {"type": "String", "allowedValues": "a"}}),
            "Unsupported document: allowedValues of parameter p must be a list",
        ),
    ];
    for (parameters, text) in cases {
        assert_eq!(error(&parameters), text);
    }
    let text = error(&json!({"p": {"type": "String", "allowedPattern": "(?!a)"}}));
    assert!(
        text.starts_with("parameter p: the allowed pattern /(?!a)/ cannot be used: look-around"),
        "{text}"
    );

    let letters = json!({"type": "String", "allowedPattern": r"^\p{L}{1,80}$"});
    let many: Map<String, Value> = (0..MAX_PARAMETERS)
        .map(|index| (format!("p{index}"), letters.clone()))
        .collect();
    let text = error(&many.into());
    assert!(
        text.ends_with("cannot be used: compiled, it takes too much memory: all patterns of a document together may take 16 MiB"),
        "{text}"
    );
    let many: Map<String, Value> = (0..=MAX_PARAMETERS)
        .map(|index| (format!("p{index}"), json!({})))
        .collect();
    assert_eq!(
        error(&many.into()),
        "Unsupported document: more than 200 parameters"
    );
}
