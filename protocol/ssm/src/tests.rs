//! The shapes as peers see them: what is said of bad input, and bodies of real nodes.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::association::{InstanceAssociationSummary, UpdateInstanceAssociationStatus};
use crate::command::{CommandInvocationStatus, SendCommand, SendCommandRequest};
use crate::compliance::PutComplianceItems;
use crate::document::GetDocument;
use crate::inventory::PutInventory;
use crate::message_delivery::{GetMessages, Message, SendReply};
use crate::node::{
    DescribeInstanceInformation, PlatformType, RegisterManagedInstance, RequestManagedInstanceRoleToken,
    RequestManagedInstanceRoleTokenResult, UpdateInstanceInformation, UpdateManagedInstancePublicKey,
};
use crate::session::{DescribeSessions, StartSession, StartSessionRequest};
use crate::tag::AddTagsToResource;
use crate::transcript::{GetTranscript, ListTranscripts};
use crate::{Blob, EpochSeconds, ErrorCode, KNOWN_OPERATIONS, Operation, is_known_operation, validate};

/// What AWS would say of this body, or "" if it is fine.
fn complaint<O: Operation>(body: &str) -> String {
    let input = O::decode_input(body.as_bytes()).unwrap();
    validate(&input)
        .err()
        .map(|violations| violations.to_string())
        .unwrap_or_default()
}

#[track_caller]
fn check<O: Operation>(body: &str, expected: &str) {
    let expected = match expected {
        "" => String::new(),
        one => format!("1 validation error detected: {one}"),
    };
    assert_eq!(complaint::<O>(body), expected, "{body}");
}

#[test]
fn a_broken_constraint_is_told_in_the_words_of_aws() {
    check::<SendCommand>(
        r#"{"InstanceIds":["mi-0123456789abcdef0"]}"#,
        "Value null at 'documentName' failed to satisfy constraint: Member must not be null",
    );
    check::<SendCommand>(
        r#"{"DocumentName":null}"#,
        "Value null at 'documentName' failed to satisfy constraint: Member must not be null",
    );
    check::<SendCommand>(
        r#"{"DocumentName":"a b"}"#,
        "Value 'a b' at 'documentName' failed to satisfy constraint: Member must satisfy regular expression \
         pattern: ^[a-zA-Z0-9_\\-.:/]{3,128}$",
    );
    check::<SendCommand>(
        r#"{"DocumentName":"AWS-RunShellScript","TimeoutSeconds":29}"#,
        "Value '29' at 'timeoutSeconds' failed to satisfy constraint: Member must have value greater than or \
         equal to 30",
    );
    check::<StartSession>(
        r#"{"Target":""}"#,
        "Value '' at 'target' failed to satisfy constraint: Member must have length greater than or equal to 1",
    );
    check::<DescribeSessions>(
        r#"{"State":"Active","MaxResults":201}"#,
        "Value '201' at 'maxResults' failed to satisfy constraint: Member must have value less than or equal to \
         200",
    );
    check::<DescribeSessions>(
        r#"{"State":"Gone"}"#,
        "Value 'Gone' at 'state' failed to satisfy constraint: Member must satisfy enum value set: [Active, \
         History]",
    );
    check::<GetTranscript>(
        r#"{"SessionId":"alice-0123","Offset":-1}"#,
        "Value '-1' at 'offset' failed to satisfy constraint: Member must have value greater than or equal to 0",
    );
}

#[test]
fn a_list_of_scalars_is_shown_whole_and_one_of_structures_by_member() {
    check::<SendCommand>(
        r#"{"DocumentName":"AWS-RunShellScript","InstanceIds":["mi-0123456789abcdef0","web-1"]}"#,
        "Value '[mi-0123456789abcdef0, web-1]' at 'instanceIds' failed to satisfy constraint: Member must \
         satisfy constraint: [Member must satisfy regular expression pattern: \
         (^i-(\\w{8}|\\w{17})$)|(^mi-\\w{17}$)]",
    );
    check::<SendCommand>(
        r#"{"DocumentName":"AWS-RunShellScript","Targets":[{"Key":"tag:a"},{"Key":"é!"}]}"#,
        "Value 'é!' at 'targets.2.member.key' failed to satisfy constraint: Member must satisfy regular \
         expression pattern: ^[\\p{L}\\p{Z}\\p{N}_.:/=\\-@]*$|resource-groups:ResourceTypeFilters|\
         resource-groups:Name",
    );
    check::<AddTagsToResource>(
        r#"{"ResourceType":"ManagedInstance","ResourceId":"mi-0123456789abcdef0","Tags":[{"Key":"a"}]}"#,
        "Value null at 'tags.1.member.value' failed to satisfy constraint: Member must not be null",
    );
    check::<DescribeSessions>(
        r#"{"State":"Active","Filters":[]}"#,
        "Value '[]' at 'filters' failed to satisfy constraint: Member must have length greater than or equal to 1",
    );
    check::<PutComplianceItems>(
        r#"{"ResourceId":"mi-0123456789abcdef0","ResourceType":"ManagedInstance","ComplianceType":"Custom:Test",
            "ExecutionSummary":{"ExecutionTime":1},
            "Items":[{"Severity":"LOW","Status":"COMPLIANT","Details":{"":"x"}}]}"#,
        "Value '{=x}' at 'items.1.member.details' failed to satisfy constraint: Map keys must satisfy constraint: \
         [Member must have length less than or equal to 64, Member must have length greater than or equal to 1]",
    );
    check::<PutInventory>(
        r#"{"InstanceId":"mi-0123456789abcdef0","Items":[]}"#,
        "Value '[]' at 'items' failed to satisfy constraint: Member must have length greater than or equal to 1",
    );
}

#[test]
fn several_violations_are_counted_and_bounded() {
    assert_eq!(
        complaint::<RegisterManagedInstance>("{}"),
        "2 validation errors detected: Value null at 'fingerprint' failed to satisfy constraint: Member must not \
         be null; Value null at 'publicKey' failed to satisfy constraint: Member must not be null"
    );
    let tags = vec!["{}"; 1000].join(",");
    let many = complaint::<AddTagsToResource>(&format!(r#"{{"Tags":[{tags}]}}"#));
    assert!(many.starts_with("10 validation errors detected: "), "{many}");
}

#[test]
fn secrets_and_long_values_are_not_quoted() {
    let fingerprint = "f76d924d-858a-42d9-abcb-91c779f69427";
    check::<RegisterManagedInstance>(
        &format!(r#"{{"ActivationCode":"short","Fingerprint":"{fingerprint}","PublicKey":"MIIB"}}"#),
        "Value '***' at 'activationCode' failed to satisfy constraint: Member must have length greater than or \
         equal to 20",
    );
    let long = "é".repeat(500);
    let text = complaint::<StartSession>(&format!(r#"{{"Target":"{long}"}}"#));
    assert!(
        text.contains(&format!("Value '{}...' at 'target'", "é".repeat(128))),
        "{text}"
    );
}

#[test]
fn lengths_count_characters_and_classes_are_ascii() {
    check::<StartSession>(&format!(r#"{{"Target":"{}"}}"#, "é".repeat(400)), "");
    assert_ne!(
        complaint::<SendCommand>(r#"{"DocumentName":"x12","InstanceIds":["i-ééééeeee"]}"#),
        ""
    );
    assert_ne!(complaint::<SendCommand>("{\"DocumentName\":\"document\\n\"}"), "");
}

/// Bodies that an unmodified agent has sent.
#[test]
fn what_a_stock_agent_sends_is_valid_and_survives_a_round_trip() {
    const KEY: &str = "MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAr+m3xeJu4IkjV5GGvcKR19VTDBQGmzFq+M443dWh/jtZEYC\
        nHV2hcy+qG1sNz5BcsY1tUxYBLb9F2FgnQ6KKFwnRMtXhP49aG9ZldCKfCOt0Rz+Yb4n/vrWPBO8JXUv/LAHWLviPLdy7Zx0oKISel5VnV3te/i\
        +inLbyl7hlIt8nPvyNNGhsN1bEGUdk3natqICsQDywIRolzZY9A2hwilm4oJoWVTIm+MH5ROR+JVA8fxYlAaUFv2IhjWfzr9jTt962XNfCnlfc2a\
        RMH1zVZjYVTcErqRxT6Uq9H/UsrwOiG9789cCLVDZ+VYbZx9fo86aQfEdPGcyyBg06GMQn2QIDAQAB";
    stock::<RegisterManagedInstance>(&format!(
        r#"{{"ActivationCode":"01234567890123456789","ActivationId":"00000000-0000-0000-0000-000000000000",
             "Fingerprint":"f76d924d-858a-42d9-abcb-91c779f69427","PublicKey":"{KEY}","PublicKeyType":"Rsa"}}"#
    ));
    stock::<RequestManagedInstanceRoleToken>(r#"{"Fingerprint":"f76d924d-858a-42d9-abcb-91c779f69427"}"#);
    stock::<UpdateManagedInstancePublicKey>(&format!(
        r#"{{"NewPublicKey":"{KEY}","NewPublicKeyType":"Rsa"}}"#
    ));
    stock::<UpdateInstanceInformation>(
        r#"{"AgentName":"amazon-ssm-agent","AgentStatus":"Active","AgentVersion":"3.3.0.0","AvailabilityZone":"",
            "AvailabilityZoneId":"","ComputerName":"node-1","IPAddress":"127.0.0.1",
            "InstanceId":"mi-0123456789abcdef0","PlatformName":"Debian GNU/Linux","PlatformType":"Linux",
            "PlatformVersion":"12","SSMConnectionChannel":""}"#,
    );
    stock::<UpdateInstanceInformation>(
        r#"{"AgentName":"amazon-ssm-agent","AgentVersion":"3.3.0.0","InstanceId":"mi-0123456789abcdef0",
            "PlatformType":"Linux"}"#,
    );
    stock::<GetMessages>(
        r#"{"Destination":"mi-0123456789abcdef0","MessagesRequestId":"45f1605f-f51d-41c5-bc66-17f482ad6345",
            "VisibilityTimeoutInSeconds":10}"#,
    );
    stock::<crate::association::ListInstanceAssociations>(
        r#"{"InstanceId":"mi-0123456789abcdef0","MaxResults":20}"#,
    );
    stock::<GetDocument>(r#"{"DocumentVersion":"1","Name":"AWS-GatherSoftwareInventory"}"#);
    stock::<UpdateInstanceAssociationStatus>(
        r#"{"AssociationId":"11111111-2222-3333-4444-555555555555",
            "ExecutionResult":{"ErrorCode":"","ExecutionDate":1795333022.771,
              "ExecutionSummary":"1 out of 1 plugin processed, 1 success, 0 failed, 0 timedout, 0 skipped. ",
              "Status":"Success"},
            "InstanceId":"mi-0123456789abcdef0"}"#,
    );
    stock::<PutComplianceItems>(
        r#"{"ComplianceType":"Association",
            "ExecutionSummary":{"ExecutionId":"","ExecutionTime":1795333022.772,"ExecutionType":""},
            "ItemContentHash":"1wF6C/IsObh7OyxHbqGPRg==",
            "Items":[{"Details":{"DocumentName":"AWS-GatherSoftwareInventory","DocumentVersion":"1"},
              "Id":"11111111-2222-3333-4444-555555555555","Severity":"UNSPECIFIED","Status":"COMPLIANT","Title":""}],
            "ResourceId":"mi-0123456789abcdef0","ResourceType":"ManagedInstance"}"#,
    );
    stock::<PutInventory>(
        r#"{"InstanceId":"mi-0123456789abcdef0","Items":[
            {"TypeName":"AWS:InstanceDetailedInformation","SchemaVersion":"1.0","CaptureTime":"2026-11-22T06:35:35Z",
             "ContentHash":"HV5sbAJNDGBU8sDb04q2vg==","Content":[{"CPUModel":"x","CPUSpeedMHz":"","CPUs":"2"}]},
            {"TypeName":"AWS:Application","SchemaVersion":"1.1","CaptureTime":"2026-11-22T06:35:35Z",
             "ContentHash":"N6YlnMDB2uKZp4Zkid/wvQ=="}]}"#,
    );
}

#[track_caller]
fn stock<O: Operation>(body: &str) {
    check::<O>(body, "");
    let input = O::decode_input(body.as_bytes()).unwrap();
    let again: Value = serde_json::from_slice(&O::encode_input(&input)).unwrap();
    assert_eq!(again, serde_json::from_str::<Value>(body).unwrap());
}

#[test]
fn wire_names_are_those_of_the_model() {
    let input = DescribeInstanceInformation::decode_input(
        br#"{"InstanceInformationFilterList":[{"key":"PingStatus","valueSet":["Online"]}],"Surprise":1}"#,
    )
    .unwrap();
    let filter = &input.instance_information_filter_list.as_ref().unwrap()[0];
    assert_eq!(
        filter.value_set.as_deref(),
        Some(["Online".to_owned()].as_slice())
    );
    let body = DescribeInstanceInformation::encode_input(&input);
    let expected = r#"{"InstanceInformationFilterList":[{"key":"PingStatus","valueSet":["Online"]}]}"#;
    assert_eq!(String::from_utf8(body).unwrap(), expected);
}

#[test]
fn an_unknown_enumeration_value_is_kept() {
    let status: CommandInvocationStatus = serde_json::from_str(r#""Pondering""#).unwrap();
    assert_eq!(status, CommandInvocationStatus::Unknown("Pondering".to_owned()));
    assert_eq!(serde_json::to_string(&status).unwrap(), r#""Pondering""#);
    assert_eq!("Linux".parse::<PlatformType>().unwrap(), PlatformType::Linux);
    assert_eq!(PlatformType::VALUES, ["Windows", "Linux", "MacOS"]);
}

#[test]
fn debug_shows_no_secrets() {
    let token = RequestManagedInstanceRoleTokenResult {
        access_key_id: Some("ASIAPROBE0000000001".to_owned()),
        secret_access_key: Some("sesame".to_owned()),
        ..Default::default()
    };
    let shown = format!("{token:?}");
    assert!(
        shown.contains("ASIAPROBE0000000001") && shown.contains("secret_access_key: Some(***)"),
        "{shown}"
    );
    assert!(shown.contains("session_token: None"), "{shown}");

    let parameters = BTreeMap::from([("commands".to_owned(), vec!["sesame".to_owned()])]);
    let secrets = [
        format!(
            "{:?}",
            SendCommandRequest {
                parameters: Some(parameters.clone()),
                ..Default::default()
            }
        ),
        format!(
            "{:?}",
            StartSessionRequest {
                parameters: Some(parameters.clone()),
                ..Default::default()
            }
        ),
        format!(
            "{:?}",
            InstanceAssociationSummary {
                parameters: Some(parameters),
                ..Default::default()
            }
        ),
        format!(
            "{:?}",
            Message {
                payload: Some("sesame".to_owned()),
                ..Default::default()
            }
        ),
    ];
    for shown in secrets {
        assert!(
            shown.contains("Some(***)") && !shown.contains("sesame"),
            "{shown}"
        );
    }
}

#[test]
fn times_are_numbers_or_texts() {
    let time = |json: &str| {
        serde_json::from_str::<EpochSeconds>(json)
            .map(EpochSeconds::millis)
            .ok()
    };
    assert_eq!(time("1795328262"), Some(1_795_328_262_000));
    assert_eq!(time("1795328262.502"), Some(1_795_328_262_502));
    assert_eq!(time(r#""2026-11-22T06:17:42.502Z""#), Some(1_795_328_262_502));
    assert_eq!(time("-1"), Some(0));
    assert_eq!(time(r#""yesterday""#), None);
    let json = |millis: u64| serde_json::to_string(&EpochSeconds::from(millis)).unwrap();
    assert_eq!(json(1_795_328_262_000), "1795328262");
    assert_eq!(json(1_795_328_262_502), "1795328262.502");
}

#[test]
fn blobs_are_base64() {
    let blob: Blob = serde_json::from_str(r#""AAEC""#).unwrap();
    assert_eq!(blob, Blob(vec![0, 1, 2]));
    assert_eq!(serde_json::to_string(&blob).unwrap(), r#""AAEC""#);
}

#[test]
fn a_wrong_type_is_an_error_that_names_the_place() {
    let error = SendCommand::decode_input(br#"{"DocumentName":3}"#).unwrap_err();
    assert_eq!(
        error.to_string(),
        "invalid type: integer `3`, expected a string at line 1 column 17"
    );
}

#[test]
fn an_absent_body_is_an_empty_structure() {
    assert!(ListTranscripts::decode_input(b"").is_ok());
    assert_eq!(
        SendReply::encode_output(&SendReply::decode_output(b"").unwrap()),
        b"{}"
    );
}

#[test]
fn known_operations_include_those_that_are_not_generated() {
    assert!(is_known_operation("AmazonSSM", "SendCommand"));
    assert!(is_known_operation("AmazonSSM", "StartAutomationExecution"));
    assert!(is_known_operation(
        "EC2WindowsMessageDeliveryService",
        "GetEndpoint"
    ));
    assert!(!is_known_operation("AmazonSSM", "SendCommands"));
    assert!(!is_known_operation("Moorline", "SendCommand"));
    assert!(KNOWN_OPERATIONS.iter().all(|(_, names)| names.is_sorted()));
}

#[test]
fn error_codes_have_names_and_faults() {
    assert_eq!(
        ErrorCode::ServiceUnavailable.as_str(),
        "ServiceUnavailableException"
    );
    assert_eq!(
        ErrorCode::from_name("InvalidDocument"),
        Some(ErrorCode::InvalidDocument)
    );
    assert_eq!(ErrorCode::from_name("Nonsense"), None);
    assert!(ErrorCode::InternalServerError.is_fault());
    assert!(!ErrorCode::InvalidDocument.is_fault());
    assert!(SendCommand::ERRORS.contains(&ErrorCode::InvalidDocument));
}
