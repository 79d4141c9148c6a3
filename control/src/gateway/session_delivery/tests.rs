use moorline_protocol::document::SessionType;

use super::*;
use crate::{
    store::NewSession,
    test_support::{TestApp, node_id},
};

async fn insert(test: &TestApp, id: &str) -> SessionId {
    let new = NewSession {
        session_id: id.parse().unwrap(),
        node: node_id(1),
        owner: String::new(),
        document_name: String::new(),
        session_type: SessionType::StandardStream,
        reason: None,
        start_content: "{}".to_owned(),
        idle_timeout_millis: 60_000,
        max_duration_millis: None,
    };
    test.app.store.insert_session(&new, test.now()).await.unwrap();
    new.session_id
}

async fn end(test: &TestApp, session: &SessionId) {
    let status = SessionStatus::Terminated;
    let ended = test
        .app
        .store
        .end_session(session, status, "", None, test.now())
        .await;
    assert!(ended.unwrap());
}

async fn look(test: &TestApp, delivery: &mut SessionDelivery) -> Vec<MessageType> {
    let now = Now {
        monotonic: std::time::Duration::ZERO,
        unix_millis: test.now(),
    };
    let frames = delivery.due(&test.app, &node_id(1), now).await.unwrap();
    frames
        .iter()
        .map(|frame| AgentMessage::decode(frame).unwrap().message_type)
        .collect()
}

#[tokio::test]
async fn a_session_to_start_does_not_wait_behind_ended_ones() {
    let test = TestApp::new().await;
    for number in 0..300 {
        let session = insert(&test, &format!("ended-{number}")).await;
        end(&test, &session).await;
    }
    test.advance_millis(1000);
    insert(&test, "new").await;
    let told = look(&test, &mut SessionDelivery::default()).await;
    assert_eq!(told.first(), Some(&MessageType::InteractiveShell));
}

#[tokio::test]
async fn an_end_is_told_some_times_and_then_never_again() {
    let test = TestApp::new().await;
    let session = insert(&test, "ended").await;
    end(&test, &session).await;
    let mut delivery = SessionDelivery::default();
    for _ in 0..MOST_TELLINGS {
        assert_eq!(look(&test, &mut delivery).await, [MessageType::ChannelClosed]);
        assert_eq!(look(&test, &mut delivery).await, [], "not twice at once");
        test.advance_millis(TELL_AGAIN_MILLIS);
    }
    assert_eq!(look(&test, &mut delivery).await, []);
    // nor on the next connection
    assert_eq!(look(&test, &mut SessionDelivery::default()).await, []);
}
