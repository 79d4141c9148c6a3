use moorline_protocol::{
    message::{ResultStatus, StepReply},
    types::{CommandId, InstanceId},
};
use moorline_ssm::command::SendCommandRequest;

use super::{CommandHead, CommandQuery, InvocationQuery, ListFilters, NewCommand, NewInvocation};
use crate::{
    engine::{
        command::{Progress, Tally},
        invocation::{Deadlines, Invocation},
        rate_control::Limit,
        reply::Reply,
    },
    store::Store,
};

const START: u64 = 1_795_305_600_000;

fn node(index: usize) -> InstanceId {
    format!("mi-{index:017x}").parse().unwrap()
}

/// A command on this many nodes.
async fn accept(store: &Store, nodes: usize, now: u64) -> CommandId {
    let command_id: CommandId = uuid::Uuid::new_v4().to_string().parse().unwrap();
    let deadlines = Deadlines {
        delivery: now + 60_000,
        execution_millis: 60_000,
    };
    let new = NewCommand {
        head: CommandHead {
            command_id: command_id.clone(),
            deadlines,
            step_names: vec!["shell".to_owned()],
            progress: Progress {
                tally: Tally {
                    targets: nodes as u64,
                    ..Tally::default()
                },
                started: false,
                cancel_requested: false,
                max_errors: Limit::DEFAULT_ERRORS,
            },
        },
        requested_at: now,
        requester: "admin".to_owned(),
        document_name: "Test".to_owned(),
        request: SendCommandRequest::default(),
        job_content: "{}".to_owned(),
        invocations: (0..nodes)
            .map(|index| NewInvocation {
                instance_id: node(index),
                instance_name: String::new(),
                invocation: Invocation::accepted(now, deadlines),
            })
            .collect(),
    };
    store.insert_command(&new).await.unwrap();
    command_id
}

fn last_reply(status: ResultStatus) -> Reply {
    let step = StepReply {
        status,
        code: 0,
        name: "aws:runShellScript".to_owned(),
        output: String::new(),
        start_date_time: String::new(),
        end_date_time: String::new(),
        output_s3_bucket_name: String::new(),
        output_s3_key_prefix: String::new(),
        step_name: String::new(),
        standard_output: "x".repeat(24_000),
        standard_error: String::new(),
    };
    Reply {
        made_at: 1,
        document_status: status,
        trace: String::new(),
        steps: vec![("shell".to_owned(), step)],
    }
}

#[tokio::test]
async fn a_command_may_have_more_nodes_than_one_statement_takes() {
    let store = Store::temporary().await;
    let nodes = 2 * super::INSERT_ROWS + 1;
    let id = accept(&store, nodes, START).await;
    assert_eq!(store.nodes_of_command(&id).await.unwrap().len(), nodes);
    assert_eq!(
        store.command(&id).await.unwrap().unwrap().status().status,
        "Pending"
    );
}

#[tokio::test]
async fn replies_and_time_outs_that_race_end_each_invocation_once() {
    const NODES: usize = 20;
    let store = Store::temporary().await;
    let id = accept(&store, NODES, START).await;
    let success = last_reply(ResultStatus::Success);
    let failure = last_reply(ResultStatus::Failed);
    let late = START + 120_000;
    let races = (0..NODES).map(|index| {
        let (store, id, success, failure) = (&store, &id, &success, &failure);
        async move {
            let node = node(index);
            let (one, two, expired) = tokio::join!(
                store.record_reply(id, &node, success, START),
                store.record_reply(id, &node, failure, START),
                store.expire_invocations(late),
            );
            expired.unwrap();
            [one, two]
                .into_iter()
                .filter(|ended| ended.as_ref().unwrap() == &Some(true))
                .count()
        }
    });
    let ended_by_reply: usize = futures_util::future::join_all(races).await.into_iter().sum();
    let command = store.command(&id).await.unwrap().unwrap();
    let tally = command.head.progress.tally;
    assert_eq!(tally.completed(), NODES as u64, "{tally:?}");
    let by_reply = tally.succeeded + tally.failed;
    assert_eq!(by_reply, ended_by_reply as u64, "{tally:?}");
}

#[tokio::test]
async fn a_node_that_left_gets_nothing_and_its_invocations_end() {
    let store = Store::temporary().await;
    let id = accept(&store, 2, START).await;
    let mut writer = store.writer.acquire().await.unwrap();
    super::end_invocations_of_node(&mut writer, &node(0), START)
        .await
        .unwrap();
    drop(writer);
    assert_eq!(
        store
            .take_due_jobs(&node(0), START, uuid::Uuid::new_v4)
            .await
            .unwrap(),
        []
    );
    let (row, _) = store.invocation(&id, &node(0)).await.unwrap().unwrap();
    assert_eq!(row.invocation.status_details(), "Undeliverable");
    let (other, _) = store.invocation(&id, &node(1)).await.unwrap().unwrap();
    assert_eq!(other.invocation.status(), "Pending");
}

#[tokio::test]
async fn pages_of_invocations_neither_skip_nor_repeat() {
    let store = Store::temporary().await;
    for _ in 0..3 {
        accept(&store, 4, START).await;
    }
    accept(&store, 2, START + 1).await;
    let mut seen = Vec::new();
    let mut after = None;
    loop {
        let query = InvocationQuery {
            filters: ListFilters::default(),
            after,
            limit: 3,
        };
        let page = store.list_invocations(&query, false).await.unwrap();
        let Some((last, _, _)) = page.last() else { break };
        after = Some(super::InvocationCursor {
            requested_at: last.requested_at,
            command_id: last.command_id.to_string(),
            instance_id: last.instance_id.to_string(),
        });
        seen.extend(
            page.into_iter()
                .map(|(row, _, _)| (row.requested_at, row.command_id, row.instance_id)),
        );
    }
    assert_eq!(seen.len(), 14);
    assert_eq!(seen[0].0, START + 1, "newest first");
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), 14);
}

#[tokio::test]
async fn a_large_old_command_is_forgotten_in_parts() {
    let store = Store::temporary().await;
    let id = accept(&store, 600, START).await;
    while store.expire_invocations(START + 60_000).await.unwrap() > 0 {}
    assert_eq!(
        store.command(&id).await.unwrap().unwrap().status().details,
        "DeliveryTimedOut"
    );
    assert!(store.forget_commands(START + 1).await.unwrap());
    assert_eq!(store.nodes_of_command(&id).await.unwrap().len(), 100);
    assert!(store.forget_commands(START + 1).await.unwrap());
    assert!(!store.forget_commands(START + 1).await.unwrap());
    let query = CommandQuery {
        limit: 10,
        ..CommandQuery::default()
    };
    assert_eq!(store.list_commands(&query).await.unwrap(), []);
}
