use proptest::prelude::*;
use serde_json::json;

use super::*;

fn replaced(value: &Value) -> Value {
    let parameters = json!({
        "text": "a b", "empty": "", "list": ["a", "<b>"], "map": {"k": [1, null]}, "number": 7, "on": true,
        "none": null, "money": "$$5 $$$ $1", "token": "{{ text }}", "brace": "{{", "A1": "upper"
    });
    Substitution::new(parameters.as_object().unwrap())
        .value(value)
        .unwrap()
}

#[test]
fn a_text_that_is_one_token_becomes_the_value_with_its_type() {
    for (text, value) in [
        ("{{ text }}", json!("a b")),
        ("{{list}}", json!(["a", "<b>"])),
        ("{{\tmap\r\n}}", json!({"k": [1, null]})),
        ("{{number }}", json!(7)),
        ("{{ on}}", json!(true)),
        ("{{none}}", Value::Null),
        // Nothing is shortened here.
        ("{{money}}", json!("$$5 $$$ $1")),
    ] {
        assert_eq!(replaced(&json!(text)), value, "{text}");
    }
}

#[test]
fn a_token_inside_other_text_becomes_text() {
    for (text, result) in [
        (" {{ text }}", " a b"),
        ("{{text}}{{number}}", "a b7"),
        ("x {{list}} y", r#"x ["a","<b>"] y"#),
        ("x{{ map }}", r#"x{"k":[1,null]}"#),
        ("{{on}}.{{none}}.{{empty}}.", "true.null.."),
        ("{{money}}!", "$5 $$ $1!"),
        ("{{A1}} {{a1}}", "upper {{a1}}"),
        ("{{{text}}}", "{a b}"),
        ("{{ {{text}} }}", "{{ a b }}"),
    ] {
        assert_eq!(replaced(&json!(text)), json!(result), "{text}");
    }
}

#[test]
fn what_is_no_token_of_a_known_parameter_stays() {
    for text in [
        "{{ unknown }}",
        "x {{unknown}}",
        "{{ te xt }}",
        "{{text}",
        "{ {text}}",
        "{{\u{a0}text}}",
        "{{}}",
        "$$",
        "{{ssm:text}}",
        "{{ text.k }}",
        "",
    ] {
        assert_eq!(replaced(&json!(text)), json!(text));
    }
}

#[test]
fn tokens_are_replaced_in_elements_and_member_values_but_not_in_names() {
    assert_eq!(
        replaced(&json!({"{{text}}": ["{{number}}", {"a": "{{list}}"}, 1, null]})),
        json!({"{{text}}": [7, {"a": ["a", "<b>"]}, 1, null]})
    );
}

#[test]
fn inserted_text_is_not_scanned_again() {
    assert_eq!(
        replaced(&json!("{{token}} {{token}}")),
        json!("{{ text }} {{ text }}")
    );
    assert_eq!(replaced(&json!("{{brace}}text}}")), json!("{{text}}"));
}

#[test]
fn a_small_document_cannot_grow_without_limit() {
    let parameters = json!({ "big": "x".repeat(1024) });
    let parameters = parameters.as_object().unwrap();
    let embedded = |count: usize| Substitution::new(parameters).value(&json!(["{{big}}".repeat(count)]));
    assert!(embedded(1024).is_ok());
    let error = embedded(1025).unwrap_err();
    assert_eq!(
        error.to_string(),
        "Unsupported document: the parameters insert more than 1048576 bytes"
    );
    assert!(
        Substitution::new(parameters)
            .value(&json!(vec!["{{big}}"; 1000]))
            .is_ok()
    );
    assert!(
        Substitution::new(parameters)
            .value(&json!(vec!["{{big}}"; 1024]))
            .is_err()
    );
}

proptest! {
    #[test]
    fn substitution_is_a_single_pass(parts in proptest::collection::vec("[a-c{}$ ]{0,6}", 2..6), value in "[a-c{} ]{0,12}") {
        // Tokens of the text itself may not be known.
        let text = parts.join("{{ p }}");
        let parameters = json!({ "p": value });
        let result = Substitution::new(parameters.as_object().unwrap()).value(&json!(text)).unwrap();
        let expected = if text == "{{ p }}" { json!(value) } else { json!(parts.join(&value)) };
        prop_assert_eq!(result, expected);
    }

    #[test]
    fn without_parameters_nothing_changes(text in "[a-c{} ]{0,24}") {
        let value = json!([text]);
        prop_assert_eq!(Substitution::new(&Map::new()).value(&value).unwrap(), value);
    }
}
