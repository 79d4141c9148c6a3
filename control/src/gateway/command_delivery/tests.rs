use std::sync::Arc;

use moorline_protocol::message::{CancelCommandContent, JobAckCode, SendCommandContent};
use moorline_ssm::audit::{ListAuditRecords, ListAuditRecordsRequest};
use moorline_ssm::command::{
    CancelCommand, CancelCommandRequest, ListCommandInvocations, ListCommandInvocationsRequest, ListCommands,
    ListCommandsRequest, SendCommandRequest,
};

use super::fixture::{Fleet, ONE_STEP, TWO_STEPS, request};
use crate::{
    audit::AuditLog,
    engine::invocation::{REDELIVERY_MILLIS, SETTLING_MILLIS},
    gateway::clock_watch::ClockWatch,
    server::Metrics,
    test_support::{CapturedLog, START_MILLIS, node_id},
};

const SUCCESS: (&str, &str, i64, &str) = ("shell", "Success", 0, "hello\n");

async fn cancel(fleet: &Fleet, command: &moorline_ssm::command::Command) {
    let request = CancelCommandRequest {
        command_id: command.command_id.clone(),
        instance_ids: None,
    };
    fleet.endpoint.call::<CancelCommand>(request).await.unwrap();
}

#[tokio::test]
async fn a_command_goes_to_its_node_and_comes_back_with_its_output() {
    let fleet = Fleet::new().await;
    let node = fleet.node(1).await;
    let command = fleet.send(ONE_STEP, &[&node]).await;
    assert_eq!(fleet.routing_calls(), [format!("nudge {node}")]);

    let job = fleet.due_job(&node).await;
    let command_id = command.command_id.clone().unwrap();
    assert_eq!(job.job_id, format!("aws.ssm.{command_id}.{node}"));
    assert_eq!(job.payload.topic, format!("aws.ssm.sendCommand.us-east-1.{node}"));
    let content: SendCommandContent = serde_json::from_str(&job.payload.content).unwrap();
    assert_eq!(content.command_id, command_id);
    assert_eq!(content.cloud_watch_output_enabled, "false");
    assert_eq!(content.parameters["commands"], serde_json::json!(["true"]));
    assert!(content.document_content["mainSteps"].is_array());

    fleet.ack(&node, &job, "200").await;
    assert_eq!(fleet.status(&command, &node).await, "InProgress");
    assert_eq!(
        fleet.command(&command).await.status.unwrap().as_str(),
        "InProgress"
    );
    fleet.reply(&node, &job, "InProgress", &[]).await;
    fleet.reply(&node, &job, "InProgress", &[SUCCESS]).await;
    fleet.reply(&node, &job, "Success", &[SUCCESS]).await;

    let invocation = fleet.invocation(&command, &node).await;
    assert_eq!(invocation.status.unwrap().as_str(), "Success");
    assert_eq!(invocation.response_code, Some(0));
    assert_eq!(invocation.standard_output_content.as_deref(), Some("hello\n"));
    assert_eq!(invocation.plugin_name.as_deref(), Some("shell"));
    assert_eq!(
        invocation.execution_start_date_time.as_deref(),
        Some("2026-11-22T00:00:01.000Z")
    );
    assert_eq!(invocation.execution_elapsed_time.as_deref(), Some("PT0.05S"));
    let command = fleet.command(&command).await;
    assert_eq!(command.status.unwrap().as_str(), "Success");
    assert_eq!(
        (command.target_count, command.completed_count),
        (Some(1), Some(1))
    );
}

#[tokio::test]
async fn an_unanswered_job_is_sent_again_after_five_seconds_with_the_same_job_id() {
    let fleet = Fleet::new().await;
    let node = fleet.node(1).await;
    fleet.send(ONE_STEP, &[&node]).await;
    let first = fleet.due_job(&node).await;
    assert_eq!(fleet.due(&node).await, []);
    fleet.endpoint.advance_millis(4_999);
    assert_eq!(fleet.due(&node).await, []);
    fleet.endpoint.advance_millis(1);
    fleet.routing_calls();
    fleet.sweep().await;
    assert_eq!(fleet.routing_calls(), [format!("nudge {node}")]);
    let second = fleet.due_job(&node).await;
    assert_eq!(second.job_id, first.job_id);
    fleet.ack(&node, &second, "51405").await;
    fleet.endpoint.advance_millis(10_000);
    assert_eq!(fleet.due(&node).await, []);
}

#[tokio::test]
async fn a_new_control_channel_gets_unanswered_jobs_at_once() {
    let fleet = Fleet::new().await;
    let node = fleet.node(1).await;
    fleet.send(ONE_STEP, &[&node]).await;
    let first = fleet.due_job(&node).await;
    super::on_connected(&fleet.endpoint.app, &node).await.unwrap();
    assert_eq!(fleet.due_job(&node).await.job_id, first.job_id);
}

#[tokio::test]
async fn a_node_that_was_never_reached_times_out_and_gets_nothing_later() {
    let fleet = Fleet::new().await;
    let node = fleet.node(1).await;
    let mut request = request(ONE_STEP, &[&node]);
    request.timeout_seconds = Some(30);
    let command = fleet.send_as(request).await;
    fleet.endpoint.advance_millis(30_000);
    assert_eq!(fleet.due(&node).await, [], "too late, even before the sweep");
    fleet.sweep().await;
    let invocation = fleet.invocation(&command, &node).await;
    assert_eq!(invocation.status.unwrap().as_str(), "TimedOut");
    assert_eq!(invocation.status_details.as_deref(), Some("DeliveryTimedOut"));
    let command = fleet.command(&command).await;
    assert_eq!(command.status_details.as_deref(), Some("DeliveryTimedOut"));
    assert_eq!(
        (command.delivery_timed_out_count, command.error_count),
        (Some(1), Some(0))
    );
    assert_eq!(fleet.due(&node).await, []);
}

#[tokio::test]
async fn a_node_that_vanished_leaves_an_unknown_outcome_and_its_late_output_is_kept() {
    let fleet = Fleet::new().await;
    let node = fleet.node(1).await;
    let command = fleet.send(ONE_STEP, &[&node]).await;
    let job = fleet.due_job(&node).await;
    fleet.ack(&node, &job, "200").await;
    fleet.endpoint.advance_millis((3600 + 60) * 1000);
    fleet.sweep().await;
    let unknown = fleet.invocation(&command, &node).await;
    assert_eq!(unknown.status.unwrap().as_str(), "TimedOut");
    assert!(unknown.status_details.unwrap().contains("unknown"));
    fleet.reply(&node, &job, "Success", &[SUCCESS]).await;
    let later = fleet.invocation(&command, &node).await;
    assert_eq!(later.status.unwrap().as_str(), "TimedOut");
    assert_eq!(later.standard_output_content.as_deref(), Some("hello\n"));
    assert_eq!(fleet.command(&command).await.error_count, Some(1));
}

#[tokio::test]
async fn a_command_that_is_cancelled_before_it_was_sent_is_never_sent() {
    let fleet = Fleet::new().await;
    let node = fleet.node(1).await;
    let command = fleet.send(ONE_STEP, &[&node]).await;
    cancel(&fleet, &command).await;
    assert_eq!(fleet.status(&command, &node).await, "Cancelled");
    assert_eq!(
        fleet.command(&command).await.status.unwrap().as_str(),
        "Cancelled"
    );
    assert_eq!(fleet.due(&node).await, []);
}

#[tokio::test]
async fn a_running_command_is_cancelled_by_a_job_of_its_own() {
    let fleet = Fleet::new().await;
    let node = fleet.node(1).await;
    let command = fleet.send(ONE_STEP, &[&node]).await;
    let job = fleet.due_job(&node).await;
    fleet.ack(&node, &job, "200").await;
    cancel(&fleet, &command).await;
    assert_eq!(fleet.status(&command, &node).await, "Cancelling");
    assert_eq!(
        fleet.command(&command).await.status.unwrap().as_str(),
        "Cancelling"
    );

    let cancel_job = fleet.due_job(&node).await;
    assert_ne!(cancel_job.job_id, job.job_id);
    assert!(cancel_job.payload.topic.starts_with("aws.ssm.cancelCommand"));
    let content: CancelCommandContent = serde_json::from_str(&cancel_job.payload.content).unwrap();
    assert_eq!(content.cancel_message_id, job.job_id);
    fleet.endpoint.advance_millis(5_000);
    let again = fleet.due_job(&node).await;
    assert_eq!(again.job_id, cancel_job.job_id);
    fleet.ack(&node, &again, "200").await;
    fleet.endpoint.advance_millis(5_000);
    assert_eq!(fleet.due(&node).await, []);

    fleet
        .reply(&node, &job, "Cancelled", &[("shell", "Cancelled", 137, "")])
        .await;
    let invocation = fleet.invocation(&command, &node).await;
    assert_eq!(invocation.status.unwrap().as_str(), "Cancelled");
    assert_eq!(invocation.response_code, Some(137));
    assert_eq!(
        fleet.command(&command).await.status.unwrap().as_str(),
        "Cancelled"
    );
    cancel(&fleet, &command).await;
    assert_eq!(
        fleet.due(&node).await,
        [],
        "what has ended is not cancelled again"
    );
}

#[tokio::test]
async fn a_full_node_gets_a_refused_job_when_another_one_ends() {
    let fleet = Fleet::new().await;
    let node = fleet.node(1).await;
    let running = fleet.send(ONE_STEP, &[&node]).await;
    let job = fleet.due_job(&node).await;
    fleet.ack(&node, &job, "200").await;
    let waiting = fleet.send(ONE_STEP, &[&node]).await;
    let refused = fleet.due_job(&node).await;
    fleet.ack(&node, &refused, "51402").await;
    assert_eq!(fleet.status(&waiting, &node).await, "Delayed");
    assert_eq!(fleet.due(&node).await, []);

    fleet.routing_calls();
    fleet.reply(&node, &job, "Success", &[SUCCESS]).await;
    assert_eq!(fleet.status(&running, &node).await, "Success");
    assert_eq!(fleet.routing_calls(), [format!("nudge {node}")]);
    assert_eq!(fleet.due_job(&node).await.job_id, refused.job_id);
}

#[tokio::test]
async fn a_job_that_the_node_refuses_for_good_has_failed() {
    let fleet = Fleet::new().await;
    let node = fleet.node(1).await;
    let command = fleet.send(ONE_STEP, &[&node]).await;
    let job = fleet.due_job(&node).await;
    fleet.ack(&node, &job, "51406").await;
    assert_eq!(fleet.status(&command, &node).await, "Failed");
    assert_eq!(fleet.command(&command).await.error_count, Some(1));
}

#[tokio::test]
async fn the_final_reply_may_overtake_the_result_of_a_step() {
    let fleet = Fleet::new().await;
    let node = fleet.node(1).await;
    let command = fleet.send(TWO_STEPS, &[&node]).await;
    let job = fleet.due_job(&node).await;
    fleet.ack(&node, &job, "200").await;
    fleet
        .reply(&node, &job, "InProgress", &[("second", "Failed", 3, "2\n")])
        .await;
    fleet.reply(&node, &job, "Failed", &[]).await;
    assert_eq!(fleet.status(&command, &node).await, "InProgress");
    fleet
        .reply(&node, &job, "InProgress", &[("first", "Success", 0, "1\n")])
        .await;
    let invocation = fleet.invocation(&command, &node).await;
    assert_eq!(invocation.status.unwrap().as_str(), "Failed");
    assert_eq!(invocation.response_code, Some(3));
    assert_eq!(invocation.standard_output_content.as_deref(), Some("1\n2\n"));
    assert_eq!(invocation.plugin_name.as_deref(), Some(""));
}

#[tokio::test]
async fn a_node_cannot_answer_for_another_one() {
    let fleet = Fleet::new().await;
    let (node, other) = (fleet.node(1).await, fleet.node(2).await);
    let command = fleet.send(ONE_STEP, &[&node]).await;
    let job = fleet.due_job(&node).await;
    fleet.ack(&other, &job, "200").await;
    fleet.reply(&other, &job, "Success", &[SUCCESS]).await;
    assert_eq!(fleet.status(&command, &node).await, "Pending");
    assert_eq!(fleet.due(&other).await, []);
}

#[tokio::test]
async fn what_cannot_be_read_or_belongs_to_nothing_is_acknowledged_and_changes_nothing() {
    let fleet = Fleet::new().await;
    let node = fleet.node(1).await;
    let command = fleet.send(ONE_STEP, &[&node]).await;
    let job = fleet.due_job(&node).await;
    fleet.reply_text(&node, &job.job_id, "{").await;
    fleet
        .reply_text(&node, &job.job_id, r#"{"documentStatus":"Success"}"#)
        .await;
    fleet.reply_text(&node, "aws.ssm.x", "{}").await;
    fleet.reply_text(&node, "", "{}").await;
    let mut unknown = job.clone();
    unknown.job_id = format!("aws.ssm.{}.{node}", uuid::Uuid::nil());
    fleet.ack(&node, &unknown, "200").await;
    fleet.reply(&node, &unknown, "Success", &[SUCCESS]).await;
    assert_eq!(fleet.status(&command, &node).await, "Pending");
    let request = ListCommandInvocationsRequest {
        command_id: command.command_id,
        ..ListCommandInvocationsRequest::default()
    };
    let listed = fleet
        .endpoint
        .call::<ListCommandInvocations>(request)
        .await
        .unwrap();
    let trace = listed.command_invocations.unwrap().remove(0).trace_output;
    assert_eq!(trace.as_deref(), Some("a reply of the node could not be read"));
}

#[tokio::test]
async fn a_backlog_is_handed_out_in_parts() {
    let fleet = Fleet::new().await;
    let node = fleet.node(1).await;
    for _ in 0..super::DUE_JOBS + 3 {
        fleet.send(ONE_STEP, &[&node]).await;
    }
    fleet.routing_calls();
    assert_eq!(fleet.due(&node).await.len(), super::DUE_JOBS);
    assert_eq!(fleet.routing_calls(), [format!("nudge {node}")]);
    assert_eq!(fleet.due(&node).await.len(), 3);
}

#[tokio::test]
async fn commands_are_forgotten_after_thirty_days_unless_they_are_open() {
    let fleet = Fleet::new().await;
    let node = fleet.node(1).await;
    let ended = fleet.send(ONE_STEP, &[&node]).await;
    let job = fleet.due_job(&node).await;
    fleet.reply(&node, &job, "Success", &[SUCCESS]).await;
    let mut long = request(ONE_STEP, &[&node]);
    long.timeout_seconds = Some(2_592_000);
    let open = fleet.send_as(long).await;
    let job = fleet.due_job(&node).await;
    fleet.ack(&node, &job, "200").await;
    let listed = async || {
        let listed = fleet
            .endpoint
            .call::<ListCommands>(ListCommandsRequest::default())
            .await
            .unwrap();
        listed
            .commands
            .unwrap()
            .into_iter()
            .map(|command| command.command_id)
            .collect::<Vec<_>>()
    };
    let app = &fleet.endpoint.app;
    fleet.endpoint.advance_millis(super::RETENTION_MILLIS);
    super::forget_command(app).await.unwrap();
    assert_eq!(listed().await.len(), 2);
    fleet.endpoint.advance_millis(1);
    // what is not to ask the clock for age
    fleet.sweep().await;
    assert_eq!(listed().await.len(), 2);
    super::forget_command(app).await.unwrap();
    super::forget_command(app).await.unwrap();
    assert_eq!(listed().await, [open.command_id]);
    assert_ne!(listed().await, [ended.command_id]);
}

#[tokio::test]
async fn a_clock_that_is_set_leaves_commands_the_time_they_had() {
    const DAYS_MILLIS: i64 = 20 * 86_400_000;
    for step in [DAYS_MILLIS, -DAYS_MILLIS] {
        let fleet = Fleet::new().await;
        let (taken, silent) = (fleet.node(1).await, fleet.node(2).await);
        let command = fleet.send(ONE_STEP, &[&taken, &silent]).await;
        let job = fleet.due_job(&taken).await;
        fleet.ack(&taken, &job, "200").await;
        fleet.due_job(&silent).await;
        let app = &fleet.endpoint.app;
        let mut watch = ClockWatch::new(&app.clock);
        fleet.endpoint.step_clock(step);
        let step = watch.look(&app.clock).unwrap();
        app.store.move_deadlines(step.millis, step.between).await.unwrap();
        fleet.endpoint.advance_millis(10_000);
        super::sweep(app).await.unwrap();
        assert_eq!(fleet.status(&command, &taken).await, "InProgress");
        assert_eq!(fleet.status(&command, &silent).await, "Pending");
        // it is sent again in time
        fleet.due_job(&silent).await;
        fleet.endpoint.advance_millis(24 * 3_600_000);
        super::sweep(app).await.unwrap();
        assert_eq!(fleet.status(&command, &taken).await, "TimedOut");
        assert_eq!(fleet.status(&command, &silent).await, "TimedOut");
    }
}

#[tokio::test]
async fn whatever_a_node_says_of_the_end_of_a_command_is_in_the_audit_log() {
    let fleet = Fleet::new().await;
    let node = fleet.node(1).await;
    let mut ends = Vec::new();
    // in one reply
    let command = fleet.send(ONE_STEP, &[&node]).await;
    let job = fleet.due_job(&node).await;
    fleet.reply(&node, &job, "Success", &[SUCCESS]).await;
    ends.push((command, "Success"));
    // it keeps the result of a step to itself
    let command = fleet.send(ONE_STEP, &[&node]).await;
    let job = fleet.due_job(&node).await;
    fleet.reply(&node, &job, "Success", &[]).await;
    fleet.endpoint.advance_millis(SETTLING_MILLIS);
    fleet.sweep().await;
    ends.push((command, "Success"));
    // it refuses the job for good
    let command = fleet.send(ONE_STEP, &[&node]).await;
    let job = fleet.due_job(&node).await;
    fleet.ack(&node, &job, "51406").await;
    ends.push((command, "Failed"));
    // of this it says nothing
    fleet.send(ONE_STEP, &[&node]).await;
    fleet.endpoint.advance_millis(3_600_000);
    fleet.sweep().await;
    let told = recorded(&fleet, "command-ended").await;
    assert_eq!(told.len(), ends.len(), "{told:?}");
    for (line, (command, details)) in told.into_iter().zip(ends) {
        assert!(line.contains(command.command_id.as_deref().unwrap()), "{line}");
        assert!(line.contains(&format!("\"result\":\"{details}\"")), "{line}");
    }
}

/// Lines of the audit log of this event.
async fn recorded(fleet: &Fleet, event: &str) -> Vec<String> {
    let page = fleet
        .endpoint
        .call::<ListAuditRecords>(ListAuditRecordsRequest::default())
        .await
        .unwrap();
    let lines = page.records.unwrap().into_iter();
    lines
        .filter(|line| line.contains(&format!("\"event\":\"{event}\"")))
        .collect()
}

/// A command has ended by its node's word, and that is stored; nothing else has happened.
async fn with_stored_end() -> Fleet {
    let fleet = Fleet::new().await;
    let node = fleet.node(1).await;
    let command = fleet.send(ONE_STEP, &[&node]).await;
    let job = fleet.due_job(&node).await;
    let id = command.command_id.unwrap().parse().unwrap();
    let refusal = JobAckCode::from_status_code("51406");
    let store = &fleet.endpoint.app.store;
    let ended = store.acknowledge_job(&id, &node, (refusal, Some(job.message_id)), START_MILLIS);
    ended.await.unwrap().unwrap();
    fleet
}

async fn restarted(fleet: Fleet) -> Fleet {
    Fleet {
        endpoint: fleet.endpoint.restarted().await,
    }
}

#[tokio::test]
async fn an_end_that_is_stored_is_in_the_audit_log_once_though_the_endpoint_died_before_it_told_it() {
    let mut fleet = with_stored_end().await;
    for _ in 0..2 {
        fleet = restarted(fleet).await;
        fleet.sweep().await;
        let told = recorded(&fleet, "command-ended").await;
        assert_eq!(told.len(), 1, "{told:?}");
    }
}

#[tokio::test]
async fn an_end_that_the_audit_log_has_is_not_told_again_though_the_endpoint_died_before_it_noted_that() {
    let fleet = with_stored_end().await;
    let app = &fleet.endpoint.app;
    let ends = app.store.take_untold_ends(app.audit.segment()).await.unwrap();
    let [end] = &ends[..] else { panic!("{ends:?}") };
    let told = app
        .audit
        .command_ended(&end.command_id, &end.instance_id, &end.details);
    told.await.unwrap();
    let before = app.audit.segment();
    while app.audit.segment() < before + 2 {
        fleet.send(ONE_STEP, &[&node_id(1)]).await;
    }
    let fleet = restarted(fleet).await;
    fleet.sweep().await;
    assert_eq!(recorded(&fleet, "command-ended").await.len(), 1);
    let app = &fleet.endpoint.app;
    let left = app.store.take_untold_ends(app.audit.segment()).await.unwrap();
    assert_eq!(left, []);
}

#[tokio::test]
async fn an_end_that_the_audit_log_does_not_take_is_told_once_when_it_does_and_is_not_missing() {
    let mut fleet = with_stored_end().await;
    let obstacle = fleet.endpoint.dir().join("obstacle");
    std::fs::write(&obstacle, "no directory").unwrap();
    let app = Arc::get_mut(&mut fleet.endpoint.app).expect("nobody else has it");
    let failures = Metrics::default().counter("failures", &[]);
    let (key, clock) = (Arc::clone(&app.signing_key), app.clock.clone());
    app.audit = AuditLog::open(&obstacle.join("audit"), key, clock, failures).unwrap();
    for _ in 0..3 {
        fleet.sweep().await;
        let app = &fleet.endpoint.app;
        let left = app.store.take_untold_ends(app.audit.segment()).await.unwrap();
        assert_eq!(left.len(), 1);
    }
    std::fs::remove_file(&obstacle).unwrap();
    fleet.sweep().await;
    fleet.sweep().await;
    assert_eq!(recorded(&fleet, "command-ended").await.len(), 1);
    // but for the start of the log
    let [gap] = recorded(&fleet, "log-gap").await.try_into().unwrap();
    assert!(gap.contains("\"count\":1}"), "{gap}");
}

#[tokio::test]
async fn however_many_commands_end_telling_the_audit_log_takes_no_more_than_a_part_of_a_sweep() {
    let fleet = Fleet::new().await;
    let store = &fleet.endpoint.app.store;
    let count = async || -> i64 {
        let counted = sqlx::query_scalar("SELECT COUNT(*) FROM untold_end").fetch_one(&store.readers);
        counted.await.unwrap()
    };
    sqlx::query(
        "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3300) \
         INSERT INTO untold_end (command_id, instance_id, details, ended_at) \
         SELECT printf('00000000-0000-4000-8000-%012x', i), $1, 'Success', i FROM n",
    )
    .bind(node_id(1).as_str())
    .execute(&store.writer)
    .await
    .unwrap();
    fleet.sweep().await;
    assert_eq!(count().await, 100);
    fleet.sweep().await;
    assert_eq!(count().await, 0);
}

#[tokio::test]
async fn commands_that_wait_for_nodes_that_are_away_hold_no_other_up() {
    let fleet = Fleet::new().await;
    let (first, second) = (fleet.node(1).await, fleet.node(2).await);
    let mut commands = Vec::new();
    for _ in 0..12 {
        let request = SendCommandRequest {
            max_concurrency: Some("1".to_owned()),
            ..request(ONE_STEP, &[&first, &second])
        };
        commands.push(fleet.send_as(request).await);
    }
    commands.sort_by(|one, other| one.command_id.cmp(&other.command_id));
    let last = commands.pop().unwrap();
    assert_eq!(fleet.due(&second).await.len(), 0);
    fleet
        .endpoint
        .call::<CancelCommand>(CancelCommandRequest {
            command_id: last.command_id.clone(),
            instance_ids: Some(vec![first.to_string()]),
        })
        .await
        .unwrap();
    fleet.sweep().await;
    let job = fleet.due_job(&second).await;
    assert!(
        job.job_id.contains(last.command_id.as_deref().unwrap()),
        "{job:?}"
    );
}

#[tokio::test]
async fn every_node_that_did_not_answer_is_asked_again_however_many_there_are() {
    let fleet = Fleet::new().await;
    let mut nodes = Vec::new();
    for index in 0..23 {
        nodes.push(fleet.node(index).await);
    }
    fleet.send(ONE_STEP, &nodes.iter().collect::<Vec<_>>()).await;
    for node in &nodes {
        fleet.due_job(node).await;
    }
    fleet.endpoint.advance_millis(REDELIVERY_MILLIS);
    fleet.routing_calls();
    fleet.sweep().await;
    let nudges: Vec<String> = nodes.iter().map(|node| format!("nudge {node}")).collect();
    assert_eq!(fleet.routing_calls(), nudges);
}

#[tokio::test]
async fn a_node_that_answers_jobs_of_others_and_none_at_all_does_not_fill_the_log() {
    let fleet = Fleet::new().await;
    let [node, other] = [fleet.node(1).await, fleet.node(2).await];
    fleet.send(ONE_STEP, &[&node]).await;
    let job = fleet.due_job(&node).await;
    let mut unknown = job.clone();
    unknown.job_id = format!("aws.ssm.{}.{other}", uuid::Uuid::nil());
    let log = CapturedLog::begin();
    let flood = async || {
        for job in [&job, &unknown] {
            for _ in 0..20 {
                fleet.ack(&other, job, "200").await;
                fleet.ack(&other, job, "500").await;
                fleet.reply(&other, job, "Success", &[SUCCESS]).await;
                fleet.reply(&other, job, "\u{7}", &[SUCCESS]).await;
            }
        }
    };
    flood().await;
    let first = log.lines_with(other.as_str());
    assert_eq!(first.len(), 10, "five of each kind: {first:#?}");
    fleet.endpoint.advance_millis(1000);
    flood().await;
    let all = log.lines_with(other.as_str());
    assert_eq!(all.len(), 20, "{all:#?}");
    assert!(all[10].contains("held_back=155"), "{all:#?}");
    assert!(all[15].contains("held_back=15"), "{all:#?}");
}
