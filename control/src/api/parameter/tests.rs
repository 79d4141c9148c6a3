use moorline_ssm::{
    command::{SendCommand, SendCommandRequest},
    parameter::*,
    tag::{ListTagsForResource, ListTagsForResourceRequest, ResourceTypeForTagging, Tag},
};
use sqlx::Row as _;

use super::*;
use crate::{
    auth::Principal,
    test_support::{START_MILLIS, TestApp},
};

const SECRET: &str = "correct horse battery staple";

fn put(name: &str, parameter_type: ParameterType, value: &str) -> PutParameterRequest {
    PutParameterRequest {
        name: Some(name.to_owned()),
        r#type: Some(parameter_type),
        value: Some(value.to_owned()),
        ..PutParameterRequest::default()
    }
}

fn again(name: &str, value: &str) -> PutParameterRequest {
    PutParameterRequest {
        name: Some(name.to_owned()),
        value: Some(value.to_owned()),
        overwrite: Some(true),
        ..PutParameterRequest::default()
    }
}

async fn put_string(test: &TestApp, name: &str, value: &str) {
    test.call::<PutParameter>(put(name, ParameterType::String, value))
        .await
        .unwrap();
}

fn get(name: &str) -> GetParameterRequest {
    GetParameterRequest {
        name: Some(name.to_owned()),
        with_decryption: Some(true),
    }
}

async fn value(test: &TestApp, name: &str) -> Option<String> {
    let got = test.call::<GetParameter>(get(name)).await.unwrap();
    got.parameter.unwrap().value
}

fn label(name: &str, version: Option<i64>, labels: &[&str]) -> LabelParameterVersionRequest {
    LabelParameterVersionRequest {
        name: Some(name.to_owned()),
        parameter_version: version,
        labels: Some(labels.iter().map(|label| (*label).to_owned()).collect()),
    }
}

fn names(parameters: Option<Vec<Parameter>>) -> Vec<String> {
    parameters
        .unwrap()
        .into_iter()
        .map(|one| one.name.unwrap())
        .collect()
}

async fn by_path(test: &TestApp, path: &str, recursive: bool) -> Vec<String> {
    let input = GetParametersByPathRequest {
        path: Some(path.to_owned()),
        recursive: Some(recursive),
        ..GetParametersByPathRequest::default()
    };
    names(test.call::<GetParametersByPath>(input).await.unwrap().parameters)
}

fn filter(key: &str, option: Option<&str>, values: &[&str]) -> ParameterStringFilter {
    ParameterStringFilter {
        key: Some(key.to_owned()),
        option: option.map(str::to_owned),
        values: Some(values.iter().map(|value| (*value).to_owned()).collect()),
    }
}

fn described(filters: Vec<ParameterStringFilter>) -> DescribeParametersRequest {
    DescribeParametersRequest {
        parameter_filters: Some(filters),
        ..DescribeParametersRequest::default()
    }
}

async fn count(test: &TestApp, filters: Vec<ParameterStringFilter>) -> usize {
    let found = test.call::<DescribeParameters>(described(filters)).await.unwrap();
    found.parameters.unwrap().len()
}

#[tokio::test]
async fn a_parameter_has_versions_and_each_is_found_by_number_and_label() {
    let test = TestApp::new().await;
    put_string(&test, "/app/color", "red").await;
    let error = test
        .refuse::<PutParameter>(put("/app/color", ParameterType::String, "x"))
        .await;
    assert_eq!(error.code, ErrorCode::ParameterAlreadyExists);
    let done = test
        .call::<PutParameter>(again("/app/color", "green"))
        .await
        .unwrap();
    assert_eq!(
        (done.version, done.tier),
        (Some(2), Some(ParameterTier::Standard))
    );
    test.call::<LabelParameterVersion>(label("/app/color", Some(1), &["prod"]))
        .await
        .unwrap();
    assert_eq!(value(&test, "/app/color").await.as_deref(), Some("green"));
    assert_eq!(value(&test, "/app/color:1").await.as_deref(), Some("red"));
    let labelled = test
        .call::<GetParameter>(get("/app/color:prod"))
        .await
        .unwrap()
        .parameter
        .unwrap();
    assert_eq!(labelled.selector.as_deref(), Some(":prod"));
    assert_eq!(labelled.version, Some(1));
    let arn = labelled.arn.unwrap();
    assert_eq!(arn, "arn:moorline:ssm:::parameter/app/color");
    assert_eq!(value(&test, &format!("{arn}:1")).await.as_deref(), Some("red"));
    for (name, code) in [
        ("/app/other", ErrorCode::ParameterNotFound),
        ("/app/other:1", ErrorCode::ParameterNotFound),
        ("/app/color:9", ErrorCode::ParameterVersionNotFound),
        ("/app/color:none", ErrorCode::ParameterVersionNotFound),
        ("/app/color:1:2", ErrorCode::ValidationException),
    ] {
        assert_eq!(test.refuse::<GetParameter>(get(name)).await.code, code, "{name}");
    }
    let many = GetParametersRequest {
        names: Some(
            ["/app/color:1", "/no", "/app/color:x"]
                .map(str::to_owned)
                .to_vec(),
        ),
        with_decryption: None,
    };
    let many = test.call::<GetParameters>(many).await.unwrap();
    assert_eq!(names(many.parameters), ["/app/color"]);
    assert_eq!(many.invalid_parameters.unwrap(), ["/no", "/app/color:x"]);
}

#[tokio::test]
async fn a_secure_string_is_sealed_at_rest_and_opens_only_as_the_version_that_it_is() {
    let test = TestApp::new().await;
    for request in [
        put("/app/secret", ParameterType::SecureString, SECRET),
        again("/app/secret", "another secret"),
    ] {
        test.call::<PutParameter>(request).await.unwrap();
    }
    assert_eq!(value(&test, "/app/secret:1").await.as_deref(), Some(SECRET));
    let sealed = test
        .call::<GetParameter>(GetParameterRequest {
            with_decryption: None,
            ..get("/app/secret:1")
        })
        .await
        .unwrap()
        .parameter
        .unwrap();
    assert_ne!(sealed.value.as_deref(), Some(SECRET));
    assert!(!format!("{sealed:?}").contains(&sealed.value.unwrap()));
    let rows = sqlx::query("SELECT value FROM parameter_version")
        .fetch_all(&test.app.store.readers)
        .await
        .unwrap();
    for row in &rows {
        assert!(!row.get::<String, _>("value").contains("secret"));
    }
    // whoever can write the database moves the old value to the new version
    sqlx::query(
        "UPDATE parameter_version SET value = (SELECT value FROM parameter_version WHERE version = 1) WHERE version = 2",
    )
    .execute(&test.app.store.writer)
    .await
    .unwrap();
    let error = test.refuse::<GetParameter>(get("/app/secret")).await;
    assert_eq!(error.code, ErrorCode::InvalidKeyId);
    let mut strange = put("/app/other", ParameterType::SecureString, SECRET);
    strange.key_id = Some("alias/none".to_owned());
    let error = test.refuse::<PutParameter>(strange.clone()).await;
    assert_eq!(error.code, ErrorCode::InvalidKeyId);
    assert!(!error.message.contains(SECRET));
    strange.key_id = Some("alias/aws/ssm".to_owned());
    test.call::<PutParameter>(strange).await.unwrap();
}

#[tokio::test]
async fn a_request_that_breaks_a_rule_is_refused_with_the_errors_of_aws() {
    let test = TestApp::new().await;
    put_string(&test, "plain", "x").await;
    let string = |name: &str| put(name, ParameterType::String, "x");
    let with = |change: fn(&mut PutParameterRequest)| {
        let mut request = string("new");
        change(&mut request);
        request
    };
    let cases = [
        (string("/aws/x"), ErrorCode::AccessDeniedException),
        (string("ssm-x"), ErrorCode::ValidationException),
        (string("a/b"), ErrorCode::ValidationException),
        (
            string(&"/x".repeat(16)),
            ErrorCode::HierarchyLevelLimitExceededException,
        ),
        (
            with(|it| it.value = Some(String::new())),
            ErrorCode::ValidationException,
        ),
        (
            with(|it| it.value = Some("x".repeat(4097))),
            ErrorCode::ValidationException,
        ),
        (
            with(|it| {
                it.value = Some("x".repeat(8193));
                it.tier = Some(ParameterTier::IntelligentTiering);
            }),
            ErrorCode::ValidationException,
        ),
        (with(|it| it.r#type = None), ErrorCode::ValidationException),
        (
            with(|it| it.data_type = Some("aws:ec2:image".to_owned())),
            ErrorCode::ValidationException,
        ),
        (
            with(|it| it.key_id = Some("alias/moorline".to_owned())),
            ErrorCode::ValidationException,
        ),
        (
            with(|it| it.allowed_pattern = Some("(?=x)".to_owned())),
            ErrorCode::InvalidAllowedPatternException,
        ),
        (
            with(|it| it.allowed_pattern = Some("^y$".to_owned())),
            ErrorCode::ParameterPatternMismatchException,
        ),
        (
            with(|it| it.policies = Some("[{\"Type\":\"x\"}]".to_owned())),
            ErrorCode::InvalidPolicyTypeException,
        ),
        (
            with(|it| {
                it.overwrite = Some(true);
                it.tags = Some(vec![Tag {
                    key: Some("a".to_owned()),
                    value: Some("b".to_owned()),
                }]);
            }),
            ErrorCode::ValidationException,
        ),
    ];
    for (request, code) in cases {
        let shown = format!("{request:?}");
        assert_eq!(test.refuse::<PutParameter>(request).await.code, code, "{shown}");
    }
    let mut other_type = put("plain", ParameterType::SecureString, "x");
    other_type.overwrite = Some(true);
    let error = test.refuse::<PutParameter>(other_type).await;
    assert_eq!(error.code, ErrorCode::HierarchyTypeMismatchException);
    assert_eq!(count(&test, Vec::new()).await, 1);
}

#[tokio::test]
async fn a_pattern_goes_on_to_guard_the_versions_that_follow() {
    let test = TestApp::new().await;
    let mut request = put("digits", ParameterType::String, "12");
    request.allowed_pattern = Some(r"^\d+$".to_owned());
    test.call::<PutParameter>(request).await.unwrap();
    let error = test.refuse::<PutParameter>(again("digits", "x")).await;
    assert_eq!(error.code, ErrorCode::ParameterPatternMismatchException);
    test.call::<PutParameter>(again("digits", "3")).await.unwrap();
}

#[tokio::test]
async fn a_large_value_makes_a_parameter_advanced_and_there_is_no_way_back() {
    let test = TestApp::new().await;
    let mut request = put("large", ParameterType::String, &"x".repeat(4097));
    request.tier = Some(ParameterTier::IntelligentTiering);
    let done = test.call::<PutParameter>(request).await.unwrap();
    assert_eq!(done.tier, Some(ParameterTier::Advanced));
    let mut request = again("large", "x");
    request.tier = Some(ParameterTier::Standard);
    assert_eq!(
        test.refuse::<PutParameter>(request).await.code,
        ErrorCode::ValidationException
    );
    let done = test.call::<PutParameter>(again("large", "x")).await.unwrap();
    assert_eq!(done.tier, Some(ParameterTier::Advanced));
}

#[tokio::test]
async fn a_hundred_versions_are_kept_and_a_label_holds_the_oldest() {
    let test = TestApp::new().await;
    put_string(&test, "many", "1").await;
    for version in 2..=101 {
        test.call::<PutParameter>(again("many", &version.to_string()))
            .await
            .unwrap();
    }
    assert_eq!(
        test.refuse::<GetParameter>(get("many:1")).await.code,
        ErrorCode::ParameterVersionNotFound
    );
    test.call::<LabelParameterVersion>(label("many", Some(2), &["kept"]))
        .await
        .unwrap();
    let error = test.refuse::<PutParameter>(again("many", "x")).await;
    assert_eq!(error.code, ErrorCode::ParameterMaxVersionLimitExceeded);
    test.call::<LabelParameterVersion>(label("many", None, &["kept"]))
        .await
        .unwrap();
    test.call::<PutParameter>(again("many", "x")).await.unwrap();
    let (mut versions, mut next_token) = (Vec::new(), None);
    loop {
        let page = GetParameterHistoryRequest {
            name: Some("many".to_owned()),
            max_results: Some(33),
            next_token,
            with_decryption: None,
        };
        let page = test.call::<GetParameterHistory>(page).await.unwrap();
        versions.extend(
            page.parameters
                .unwrap()
                .into_iter()
                .map(|one| one.version.unwrap()),
        );
        next_token = page.next_token;
        if next_token.is_none() {
            break;
        }
    }
    assert_eq!(versions, (3..=102).collect::<Vec<i64>>());
}

#[tokio::test]
async fn labels_are_ten_move_and_go() {
    let test = TestApp::new().await;
    put_string(&test, "p", "1").await;
    test.call::<PutParameter>(again("p", "2")).await.unwrap();
    let ten: Vec<String> = (0..10).map(|number| format!("l{number}")).collect();
    let ten: Vec<&str> = ten.iter().map(String::as_str).collect();
    test.call::<LabelParameterVersion>(label("p", Some(1), &ten))
        .await
        .unwrap();
    let error = test
        .refuse::<LabelParameterVersion>(label("p", Some(1), &["more"]))
        .await;
    assert_eq!(error.code, ErrorCode::ParameterVersionLabelLimitExceeded);
    let done = test
        .call::<LabelParameterVersion>(label("p", None, &["l0", "1x", "aws-x"]))
        .await
        .unwrap();
    assert_eq!(done.parameter_version, Some(2));
    assert_eq!(done.invalid_labels.unwrap(), ["1x", "aws-x"]);
    assert_eq!(value(&test, "p:l0").await.as_deref(), Some("2"));
    let unlabel = |version| UnlabelParameterVersionRequest {
        name: Some("p".to_owned()),
        parameter_version: Some(version),
        labels: Some(vec!["l0".to_owned(), "l1".to_owned()]),
    };
    let done = test.call::<UnlabelParameterVersion>(unlabel(1)).await.unwrap();
    assert_eq!(done.removed_labels.unwrap(), ["l1"]);
    assert_eq!(done.invalid_labels.unwrap(), ["l0"]);
    let error = test.refuse::<UnlabelParameterVersion>(unlabel(7)).await;
    assert_eq!(error.code, ErrorCode::ParameterVersionNotFound);
}

#[tokio::test]
async fn a_hierarchy_is_listed_by_level_and_in_pages() {
    let test = TestApp::new().await;
    for name in ["top", "/app", "/app/a", "/app/b", "/app/b/c", "/apple/x"] {
        put_string(&test, name, "x").await;
    }
    assert_eq!(by_path(&test, "/app", false).await, ["/app/a", "/app/b"]);
    assert_eq!(
        by_path(&test, "/app/", true).await,
        ["/app/a", "/app/b", "/app/b/c"]
    );
    assert_eq!(by_path(&test, "/", false).await, ["/app", "top"]);
    assert_eq!(by_path(&test, "/", true).await.len(), 6);
    let wrong = GetParametersByPathRequest {
        path: Some("app".to_owned()),
        ..GetParametersByPathRequest::default()
    };
    let error = test.refuse::<GetParametersByPath>(wrong).await;
    assert_eq!(error.code, ErrorCode::ValidationException);
    let page = |next_token| GetParametersByPathRequest {
        path: Some("/app".to_owned()),
        recursive: Some(true),
        max_results: Some(2),
        next_token,
        ..GetParametersByPathRequest::default()
    };
    let first = test.call::<GetParametersByPath>(page(None)).await.unwrap();
    assert_eq!(names(first.parameters), ["/app/a", "/app/b"]);
    let token = first.next_token.unwrap();
    let second = test
        .call::<GetParametersByPath>(page(Some(token.clone())))
        .await
        .unwrap();
    assert_eq!(
        (names(second.parameters), second.next_token),
        (vec!["/app/b/c".to_owned()], None)
    );
    let mut other = page(Some(token.clone()));
    other.recursive = None;
    for input in [other, page(Some(format!("{token}AAAA")))] {
        let error = test.refuse::<GetParametersByPath>(input).await;
        assert_eq!(error.code, ErrorCode::InvalidNextToken);
    }
}

#[tokio::test]
async fn filters_select_and_wrong_ones_are_named() {
    let test = TestApp::new().await;
    let mut tagged = put("/a/x", ParameterType::String, "1");
    tagged.tags = Some(vec![Tag {
        key: Some("env".to_owned()),
        value: Some("prod".to_owned()),
    }]);
    test.call::<PutParameter>(tagged).await.unwrap();
    for (name, kind) in [
        ("/a/b/y", ParameterType::SecureString),
        ("/z", ParameterType::StringList),
    ] {
        test.call::<PutParameter>(put(name, kind, "v")).await.unwrap();
    }
    for (key, option, values, found) in [
        ("Name", None, &["/a/x"][..], 1),
        ("Name", Some("BeginsWith"), &["/a"], 2),
        ("Name", Some("Contains"), &["y", "z"], 2),
        ("Type", None, &["SecureString", "StringList"], 2),
        ("KeyId", None, &["alias/moorline"], 1),
        ("Path", None, &["/a"], 1),
        ("Path", Some("Recursive"), &["/a"], 2),
        ("Tier", None, &["Standard"], 3),
        ("DataType", None, &["text"], 3),
        ("tag:env", None, &["prod"], 1),
    ] {
        assert_eq!(
            count(&test, vec![filter(key, option, values)]).await,
            found,
            "{key} {option:?}"
        );
    }
    for (wrong, code) in [
        (vec![filter("Label", None, &["x"])], ErrorCode::InvalidFilterKey),
        (
            vec![filter("Name", None, &["x"]), filter("Name", None, &["y"])],
            ErrorCode::InvalidFilterKey,
        ),
        (
            vec![filter("Type", Some("Contains"), &["x"])],
            ErrorCode::InvalidFilterOption,
        ),
        (
            vec![filter("Path", Some("Equals"), &["/x"])],
            ErrorCode::InvalidFilterOption,
        ),
        (vec![filter("Type", None, &["x"])], ErrorCode::InvalidFilterValue),
        (
            vec![filter("Nonsense", None, &["x"])],
            ErrorCode::ValidationException,
        ),
    ] {
        let shown = format!("{wrong:?}");
        assert_eq!(
            test.refuse::<DescribeParameters>(described(wrong)).await.code,
            code,
            "{shown}"
        );
    }
    test.call::<LabelParameterVersion>(label("/a/x", None, &["live"]))
        .await
        .unwrap();
    let input = GetParametersByPathRequest {
        path: Some("/".to_owned()),
        recursive: Some(true),
        parameter_filters: Some(vec![filter("Label", None, &["live"])]),
        ..GetParametersByPathRequest::default()
    };
    assert_eq!(
        names(test.call::<GetParametersByPath>(input).await.unwrap().parameters),
        ["/a/x"]
    );
}

#[tokio::test]
async fn tags_of_a_parameter_go_with_it() {
    let test = TestApp::new().await;
    let mut tagged = put("t", ParameterType::String, "1");
    tagged.tags = Some(vec![Tag {
        key: Some("env".to_owned()),
        value: Some("prod".to_owned()),
    }]);
    test.call::<PutParameter>(tagged).await.unwrap();
    let list = ListTagsForResourceRequest {
        resource_type: Some(ResourceTypeForTagging::Parameter),
        resource_id: Some("t".to_owned()),
    };
    let tags = test.call::<ListTagsForResource>(list.clone()).await.unwrap();
    assert_eq!(tags.tag_list.unwrap().len(), 1);
    let delete = |names: &[&str]| DeleteParametersRequest {
        names: Some(names.iter().map(|name| (*name).to_owned()).collect()),
    };
    let done = test
        .call::<DeleteParameters>(delete(&["t", "t:1", "no"]))
        .await
        .unwrap();
    assert_eq!(done.deleted_parameters.unwrap(), ["t"]);
    assert_eq!(done.invalid_parameters.unwrap(), ["t:1", "no"]);
    let error = test.refuse::<ListTagsForResource>(list).await;
    assert_eq!(error.code, ErrorCode::InvalidResourceId);
    put_string(&test, "t", "again").await;
    let again = test
        .call::<GetParameter>(get("t"))
        .await
        .unwrap()
        .parameter
        .unwrap();
    assert_eq!(again.version, Some(1));
}

#[tokio::test]
async fn an_expired_parameter_is_not_given_out_and_leaves_the_disk() {
    let test = TestApp::new().await;
    let timestamp = jiff::Timestamp::from_millisecond(i64::try_from(START_MILLIS).unwrap() + 60_000).unwrap();
    let policies =
        format!(r#"[{{"Type":"Expiration","Version":"1.0","Attributes":{{"Timestamp":"{timestamp}"}}}}]"#);
    let mut request = put("brief", ParameterType::SecureString, SECRET);
    request.policies = Some(policies);
    assert_eq!(
        test.refuse::<PutParameter>(request.clone()).await.code,
        ErrorCode::ValidationException
    );
    request.tier = Some(ParameterTier::Advanced);
    test.call::<PutParameter>(request).await.unwrap();
    // a version that says nothing of policies keeps them
    test.call::<PutParameter>(again("brief", "changed"))
        .await
        .unwrap();
    let found = test
        .call::<DescribeParameters>(described(Vec::new()))
        .await
        .unwrap();
    let policies = found.parameters.unwrap().remove(0).policies.unwrap();
    assert_eq!(policies[0].policy_status.as_deref(), Some("Pending"));
    test.advance_millis(60_000);
    assert_eq!(
        test.refuse::<GetParameter>(get("brief")).await.code,
        ErrorCode::ParameterNotFound
    );
    assert_eq!(count(&test, Vec::new()).await, 0);
    assert!(by_path(&test, "/", true).await.is_empty());
    let due = test
        .app
        .store
        .take_due_parameter_policies(test.now())
        .await
        .unwrap();
    assert_eq!((due.len(), due[0].name.as_str()), (1, "brief"));
    assert!(
        test.app
            .store
            .take_due_parameter_policies(test.now())
            .await
            .unwrap()
            .is_empty()
    );
    let store = &test.app.store;
    assert_eq!(store.expired_parameters(test.now()).await.unwrap(), ["brief"]);
    assert!(store.delete_expired_parameter("brief", test.now()).await.unwrap());
    put_string(&test, "brief", "new").await;
    assert_eq!(value(&test, "brief:1").await.as_deref(), Some("new"));
}

fn send(node: &str, command: &str) -> SendCommandRequest {
    SendCommandRequest {
        document_name: Some("AWS-RunShellScript".to_owned()),
        instance_ids: Some(vec![node.to_owned()]),
        parameters: Some([("commands".to_owned(), vec![command.to_owned()])].into()),
        ..SendCommandRequest::default()
    }
}

async fn with_node() -> (TestApp, moorline_protocol::types::InstanceId) {
    let test = TestApp::new().await;
    let documents = crate::api::built_in_documents();
    test.app.store.seed_documents(&documents, 0).await.unwrap();
    let node = test.register_node(0, &[]).await;
    (test, node)
}

#[tokio::test]
async fn a_command_is_sent_with_the_values_of_that_moment() {
    let (test, node) = with_node().await;
    put_string(&test, "/motd", "hello {{ssm:/other}}").await;
    test.call::<PutParameter>(put("lines", ParameterType::StringList, "echo a,echo b"))
        .await
        .unwrap();
    test.call::<SendCommand>(send(node.as_str(), "echo {{ ssm:/motd:1 }}"))
        .await
        .unwrap();
    test.call::<SendCommand>(send(node.as_str(), "{{ssm:lines}}"))
        .await
        .unwrap();
    let rows = sqlx::query(
        "SELECT c.job_content, p.name, p.version FROM command c JOIN command_parameter p ON p.command_id = c.command_id \
         ORDER BY p.name",
    )
    .fetch_all(&test.app.store.readers)
    .await
    .unwrap();
    let shown: Vec<(String, i64)> = rows
        .iter()
        .map(|row| (row.get("name"), row.get("version")))
        .collect();
    assert_eq!(shown, [("/motd".to_owned(), 1), ("lines".to_owned(), 1)]);
    assert!(
        rows[0]
            .get::<String, _>("job_content")
            .contains(r#""commands":["echo hello {{ssm:/other}}"]"#)
    );
    assert!(
        rows[1]
            .get::<String, _>("job_content")
            .contains(r#""commands":["echo a","echo b"]"#)
    );
    test.call::<PutParameter>(put("/secret", ParameterType::SecureString, SECRET))
        .await
        .unwrap();
    for (command, says) in [
        ("echo {{ssm:/none}}", "Input contains invalid parameters [/none]"),
        (
            "echo {{ssm:/secret}}",
            "Parameters [/secret] of type SecureString are not supported",
        ),
        ("echo {{ssm:lines}}", "cannot be used as a String"),
        (
            "echo {{ssm-secure:/motd}}",
            "is used for a non-secure type String",
        ),
    ] {
        let error = test.refuse::<SendCommand>(send(node.as_str(), command)).await;
        assert_eq!(error.code, ErrorCode::InvalidParameters, "{command}");
        assert!(error.message.contains(says), "{}", error.message);
    }
}

#[tokio::test]
async fn a_node_reads_what_an_open_command_of_its_own_names_and_nothing_else() {
    let (test, node) = with_node().await;
    let other = test.register_node(1, &[]).await;
    for name in ["/db/password", "/db/other"] {
        test.call::<PutParameter>(put(name, ParameterType::SecureString, SECRET))
            .await
            .unwrap();
    }
    let as_node = |id: &moorline_protocol::types::InstanceId| Principal::Node(id.clone());
    let denied = ErrorCode::AccessDeniedException;
    assert_eq!(
        test.refuse_as::<GetParameter>(as_node(&node), get("/db/password"))
            .await
            .code,
        denied
    );
    let command = "use \"{{ssm-secure:/db/password}}\"";
    test.call::<SendCommand>(send(node.as_str(), command))
        .await
        .unwrap();
    let got = test
        .call_as::<GetParameter>(as_node(&node), get("/db/password"))
        .await
        .unwrap();
    assert_eq!(got.parameter.unwrap().value.as_deref(), Some(SECRET));
    assert_eq!(
        test.refuse_as::<GetParameter>(as_node(&node), get("/db/other"))
            .await
            .code,
        denied
    );
    assert_eq!(
        test.refuse_as::<GetParameter>(as_node(&other), get("/db/password"))
            .await
            .code,
        denied
    );
    let put = put("/db/password", ParameterType::SecureString, "x");
    assert_eq!(
        test.refuse_as::<PutParameter>(as_node(&node), put).await.code,
        denied
    );
    let list = described(Vec::new());
    assert_eq!(
        test.refuse_as::<DescribeParameters>(as_node(&node), list)
            .await
            .code,
        denied
    );
    sqlx::query("UPDATE invocation SET ended_at = 1")
        .execute(&test.app.store.writer)
        .await
        .unwrap();
    assert_eq!(
        test.refuse_as::<GetParameter>(as_node(&node), get("/db/password"))
            .await
            .code,
        denied
    );
}

#[tokio::test]
async fn a_node_reads_a_secret_in_the_version_that_its_command_names_and_in_no_other() {
    let (test, node) = with_node().await;
    for (value, overwrite) in [("old", false), (SECRET, true)] {
        let input = PutParameterRequest {
            overwrite: Some(overwrite),
            ..put("/db/password", ParameterType::SecureString, value)
        };
        test.call::<PutParameter>(input).await.unwrap();
    }
    let read = async |name: &str| {
        let read = test.call_as::<GetParameter>(Principal::Node(node.clone()), get(name));
        read.await
            .map(|got| got.parameter.unwrap().value.unwrap())
            .map_err(|error| error.code)
    };
    let denied = Err(ErrorCode::AccessDeniedException);
    let latest = "{{ssm-secure:/db/password}}";
    test.call::<SendCommand>(send(node.as_str(), latest))
        .await
        .unwrap();
    assert_eq!(read("/db/password").await.as_deref(), Ok(SECRET));
    assert_eq!(read("/db/password:1").await, denied);
    let first = "{{ssm-secure:/db/password:1}}";
    test.call::<SendCommand>(send(node.as_str(), first))
        .await
        .unwrap();
    assert_eq!(read("/db/password:1").await.as_deref(), Ok("old"));
    assert_eq!(read("/db/password:2").await, denied);
}
