use serde_json::json;

use super::*;

fn refusal(inputs: &Value) -> String {
    let inputs = inputs.as_object().unwrap();
    let info = match source_info(inputs) {
        Ok(info) => info,
        Err(reason) => return reason,
    };
    match source(inputs, &info, &S3Config::default(), "us-east-1") {
        Ok(_) => String::new(),
        Err(reason) => reason,
    }
}

#[test]
fn inputs_are_read_in_both_spellings_and_what_is_missing_is_named() {
    let git = json!({"repository": "https://h/a"});
    let table = [
        (json!({"sourceType": "Git", "sourceInfo": git}), ""),
        (json!({"SourceType": "Git", "SourceInfo": git.to_string()}), ""),
        (
            json!({"sourceType": "Git", "sourceInfo": "repository: https://h/a"}),
            "",
        ),
        (
            json!({"sourceType": "HTTP", "sourceInfo": {"url": "https://h/a"}}),
            "",
        ),
        (
            json!({"sourceType": "S3", "sourceInfo": {"path": "s3://bucket/a"}}),
            "",
        ),
        (
            json!({"sourceType": "S3", "sourceInfo": {"Path": ""}}),
            "S3 source path in SourceInfo must be specified",
        ),
        (json!({"sourceType": "Git"}), "SourceInfo must be specified"),
        (
            json!({"sourceType": "Git", "sourceInfo": ""}),
            "SourceInfo must be specified",
        ),
        (json!({"sourceInfo": git}), "SourceType must be specified"),
        (
            json!({"sourceType": "FTP", "sourceInfo": git}),
            "Unsupported source type",
        ),
        (
            json!({"sourceType": "SSMDocument", "sourceInfo": {}}),
            "SSM Document name in SourceInfo must be specified",
        ),
        (
            json!({"sourceType": "HTTP", "sourceInfo": {"url": 5}}),
            "url in SourceInfo must be a text",
        ),
        (
            json!({"sourceType": "HTTP", "sourceInfo": {"url": "https://h", "authMethod": "Digest"}}),
            "authMethod Digest is not known here: it must be None or Basic",
        ),
    ];
    for (inputs, expected) in table {
        assert_eq!(refusal(&inputs), expected, "{inputs}");
    }
}
