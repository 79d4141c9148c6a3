use moorline_protocol::{
    message::{JobAckCode, ResultStatus, StepReply},
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
    store::{OldCommand, Store},
};

const START: u64 = 1_795_305_600_000;

fn node(index: usize) -> InstanceId {
    format!("mi-{index:017x}").parse().unwrap()
}

/// A command on this many nodes.
async fn accept(store: &Store, nodes: usize, now: u64) -> CommandId {
    accept_held(store, nodes, now, nodes, "0").await
}

/// A command on this many nodes, of which only the first `concurrency` have their turn.
async fn accept_held(
    store: &Store,
    nodes: usize,
    now: u64,
    concurrency: usize,
    max_errors: &str,
) -> CommandId {
    let command_id: CommandId = uuid::Uuid::new_v4().to_string().parse().unwrap();
    let deadlines = Deadlines {
        delivery: now + 60_000,
        execution_millis: 60_000,
    };
    let new = NewCommand {
        head: CommandHead {
            command_id: command_id.clone(),
            deadlines,
            delivery_millis: 60_000,
            step_names: vec!["shell".to_owned()],
            progress: Progress {
                tally: Tally {
                    targets: nodes as u64,
                    ..Tally::default()
                },
                started: false,
                cancel_requested: false,
                max_errors: max_errors.parse().unwrap(),
                max_concurrency: Limit::Count(concurrency as u64),
            },
        },
        requested_at: now,
        requester: "admin".to_owned(),
        document_name: "Test".to_owned(),
        request: SendCommandRequest::default(),
        job_content: "{}".to_owned(),
        taken_parameters: Vec::new(),
        uploads_output: false,
        invocations: (0..nodes)
            .map(|index| NewInvocation {
                instance_id: node(index),
                instance_name: String::new(),
                invocation: if index < concurrency {
                    Invocation::accepted(now, deadlines)
                } else {
                    Invocation::held(now, deadlines)
                },
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
        is_refused: false,
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
                store.record_reply(id, &node, success.clone(), START),
                store.record_reply(id, &node, failure.clone(), START),
                store.expire_invocations(late),
            );
            expired.unwrap();
            [one, two]
                .into_iter()
                .filter(|ended| ended.as_ref().unwrap().is_some_and(|recorded| recorded.has_ended))
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

/// Nodes whose invocations stand in this status.
async fn count_status(store: &Store, id: &CommandId, nodes: usize, status: &str) -> usize {
    let mut count = 0;
    for index in 0..nodes {
        let (row, _) = store.invocation(id, &node(index)).await.unwrap().unwrap();
        count += usize::from(row.invocation.status_details() == status);
    }
    count
}

#[tokio::test]
async fn never_more_invocations_are_on_their_way_than_the_command_allows() {
    const NODES: usize = 7;
    let store = Store::temporary().await;
    let id = accept_held(&store, NODES, START, 2, "0").await;
    let with_turn = async || store.commands_with_turn("").await.unwrap();
    assert_eq!(with_turn().await, (Vec::new(), None));
    let none: [InstanceId; 0] = [];
    assert_eq!(store.release_held(&id, START).await.unwrap(), none);
    let success = last_reply(ResultStatus::Success);
    for ended in 0..NODES {
        for index in 0..NODES {
            let due = store
                .take_due_jobs(&node(index), START, uuid::Uuid::new_v4)
                .await
                .unwrap();
            let has_turn = index < ended + 2;
            assert!(has_turn || due.is_empty(), "node {index} after {ended} ended");
        }
        store
            .record_reply(&id, &node(ended), success.clone(), START)
            .await
            .unwrap();
        let expected: Vec<InstanceId> = (ended + 2..NODES).map(node).take(1).collect();
        assert_eq!(with_turn().await.0.len(), expected.len());
        let released = store.release_held(&id, START).await.unwrap();
        assert_eq!(released, expected);
    }
    assert_eq!(
        store.command(&id).await.unwrap().unwrap().status().details,
        "Success"
    );
}

#[tokio::test]
async fn what_waits_for_its_turn_is_terminated_after_too_many_errors() {
    const NODES: usize = 5;
    let store = Store::temporary().await;
    let id = accept_held(&store, NODES, START, 1, "1").await;
    let failure = last_reply(ResultStatus::Failed);
    for index in 0..2 {
        store
            .record_reply(&id, &node(index), failure.clone(), START)
            .await
            .unwrap();
        store.release_held(&id, START).await.unwrap();
    }
    assert_eq!(count_status(&store, &id, NODES, "Terminated").await, 3);
    assert_eq!(
        store.command(&id).await.unwrap().unwrap().status().details,
        "Failed"
    );
    for index in 2..NODES {
        let due = store.take_due_jobs(&node(index), START, uuid::Uuid::new_v4).await;
        assert_eq!(due.unwrap(), []);
    }
}

#[tokio::test]
async fn the_time_of_a_held_invocation_begins_with_its_turn() {
    let store = Store::temporary().await;
    let id = accept_held(&store, 2, START, 1, "0").await;
    let late = START + 3_600_000;
    // the first was never delivered, which is no error of the command
    assert_eq!(store.expire_invocations(late).await.unwrap().changed, 1);
    assert_eq!(store.release_held(&id, late).await.unwrap(), [node(1)]);
    assert_eq!(store.expire_invocations(late + 59_000).await.unwrap().changed, 0);
    let jobs = store
        .take_due_jobs(&node(1), late + 59_000, uuid::Uuid::new_v4)
        .await
        .unwrap();
    assert_eq!(jobs.len(), 1);
    let success = JobAckCode::Successful;
    let message = Some(jobs[0].message_id);
    store
        .acknowledge_job(&id, &node(1), (success, message), late + 59_000)
        .await
        .unwrap();
    let (row, _) = store.invocation(&id, &node(1)).await.unwrap().unwrap();
    assert_eq!(row.invocation.deadline_at, Some(late + 60_000 + 60_000));
}

#[tokio::test]
async fn a_cancelled_command_gives_nobody_a_turn() {
    let store = Store::temporary().await;
    let id = accept_held(&store, 3, START, 1, "0").await;
    store.cancel_command(&id, None, "cancel", START).await.unwrap();
    assert!(store.release_held(&id, START).await.unwrap().is_empty());
    assert_eq!(count_status(&store, &id, 3, "Cancelled").await, 3);
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
    while store.expire_invocations(START + 60_000).await.unwrap().changed > 0 {}
    assert_eq!(
        store.command(&id).await.unwrap().unwrap().status().details,
        "DeliveryTimedOut"
    );
    let old = async || store.old_command(START + 1, START + 60_001).await.unwrap();
    let named = |is_whole| OldCommand {
        id: id.to_string(),
        is_whole,
    };
    for (cutoff, ended) in [(START, START + 60_001), (START + 1, START + 60_000)] {
        assert_eq!(store.old_command(cutoff, ended).await.unwrap(), None);
    }
    assert_eq!(old().await, Some(named(true)));
    assert!(!store.forget_command(id.as_str()).await.unwrap());
    assert_eq!(store.nodes_of_command(&id).await.unwrap().len(), 100);
    assert_eq!(old().await, Some(named(false)));
    assert!(store.forget_command(id.as_str()).await.unwrap());
    assert_eq!(old().await, None);
    let query = CommandQuery {
        limit: 10,
        ..CommandQuery::default()
    };
    assert_eq!(store.list_commands(&query).await.unwrap(), []);
}
