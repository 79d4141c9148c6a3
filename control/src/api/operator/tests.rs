//! Operators and their tags, in-process.

use moorline_ssm::ErrorCode;
use moorline_ssm::operator::{
    ListOperators, ListOperatorsRequest, Operator, Tag, TagOperator, TagOperatorRequest, UntagOperator,
    UntagOperatorRequest,
};

use crate::{
    auth::Principal,
    test_support::{TestApp, node_id},
};

fn tag(user_name: &str, key: &str, value: &str) -> TagOperatorRequest {
    let tag = Tag {
        key: Some(key.to_owned()),
        value: Some(value.to_owned()),
    };
    TagOperatorRequest {
        user_name: Some(user_name.to_owned()),
        tags: Some(vec![tag]),
    }
}

async fn listed(test: &TestApp) -> Vec<Operator> {
    let listed = test.call::<ListOperators>(ListOperatorsRequest::default()).await;
    listed.unwrap().operators.unwrap()
}

#[tokio::test]
async fn an_operator_is_listed_with_keys_and_tags_and_without_secrets() {
    let test = TestApp::new().await;
    test.add_access_key("AKIAONE", "the secret").await;
    test.add_access_key("AKIATWO", "the secret").await;
    test.call::<TagOperator>(tag("admin", "SSMSessionRunAs", "ops"))
        .await
        .unwrap();
    test.call::<TagOperator>(tag("admin", "team", "db"))
        .await
        .unwrap();
    let operators = listed(&test).await;
    assert_eq!(operators.len(), 1);
    assert_eq!(operators[0].user_name.as_deref(), Some("admin"));
    assert_eq!(
        operators[0].access_key_ids.as_deref(),
        Some(&["AKIAONE".to_owned(), "AKIATWO".to_owned()][..])
    );
    assert_eq!(operators[0].tags.as_ref().unwrap().len(), 2);
    assert!(!format!("{operators:?}").contains("secret"));
    let untag = UntagOperatorRequest {
        user_name: Some("admin".to_owned()),
        tag_keys: Some(vec!["SSMSessionRunAs".to_owned(), "absent".to_owned()]),
    };
    test.call::<UntagOperator>(untag).await.unwrap();
    assert_eq!(listed(&test).await[0].tags, tag("admin", "team", "db").tags);
}

#[tokio::test]
async fn a_tag_for_run_as_must_be_a_users_name() {
    let test = TestApp::new().await;
    test.add_access_key("AKIAONE", "the secret").await;
    for user in ["", "-root", "a:b", "a/b", "a b"] {
        let error = test
            .refuse::<TagOperator>(tag("admin", "SSMSessionRunAs", user))
            .await;
        assert_eq!(error.code, ErrorCode::ValidationException, "{user:?}");
        assert!(error.message.contains("SSMSessionRunAs"), "{error}");
    }
    assert_eq!(listed(&test).await[0].tags, Some(Vec::new()));
}

#[tokio::test]
async fn only_an_administrator_tags_and_only_operators_that_there_are() {
    let test = TestApp::new().await;
    let request = tag("nobody", "team", "a");
    let error = test.refuse::<TagOperator>(request.clone()).await;
    assert_eq!(error.code, ErrorCode::DoesNotExistException);
    let node = Principal::Node(node_id(0));
    let error = test.refuse_as::<TagOperator>(node.clone(), request).await;
    assert_eq!(error.code, ErrorCode::AccessDeniedException);
    let error = test
        .refuse_as::<ListOperators>(node, ListOperatorsRequest::default())
        .await;
    assert_eq!(error.code, ErrorCode::AccessDeniedException);
}
