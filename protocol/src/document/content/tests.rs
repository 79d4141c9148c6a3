use serde_json::json;

use super::*;

fn nested(levels: usize) -> Value {
    (0..levels).fold(json!(1), |inner, _| json!({ "a": inner }))
}

#[test]
fn a_member_is_found_without_regard_to_case_and_the_exact_name_wins() {
    let object = json!({"SOURCEType": 1, "sourceType": 2, "ı": 3, "none": null});
    let object = object.as_object().unwrap();
    assert_eq!(member(object, "sourceType"), Some(&json!(2)));
    assert_eq!(member(object, "sourcetype"), Some(&json!(1)));
    assert_eq!(member(object, "i"), None);
    assert_eq!(member(object, "none"), Some(&Value::Null));
    assert_eq!(present(object, "none"), None);
}

#[test]
fn content_of_64_levels_and_64_kib_is_the_most_that_is_read() {
    assert!(bounded(&nested(MAX_DEPTH - 1)).is_ok());
    let error = bounded(&nested(MAX_DEPTH)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "Unsupported document: nested deeper than 64 levels"
    );

    let frame = json!({ "a": "" }).to_string().len();
    assert!(bounded(&json!({ "a": "x".repeat(MAX_CONTENT_BYTES - frame) })).is_ok());
    let error = bounded(&json!({ "a": "x".repeat(MAX_CONTENT_BYTES - frame + 1) })).unwrap_err();
    assert_eq!(error.to_string(), "Unsupported document: larger than 65536 bytes");
}

#[test]
fn content_that_is_no_object_is_unsupported() {
    for content in [json!(null), json!("{}"), json!([]), json!(1)] {
        let error = bounded(&content).unwrap_err();
        assert_eq!(
            error.to_string(),
            "Unsupported document: the content must be an object"
        );
    }
}

#[test]
fn the_length_of_json_is_that_of_its_compact_text() {
    let value = json!({"a": ["é", 1.5, null, true], "b": {"c": "\n"}});
    let length = value.to_string().len();
    assert_eq!(json_bytes(&value, length), Some(length));
    assert_eq!(json_bytes(&value, length - 1), None);
}
