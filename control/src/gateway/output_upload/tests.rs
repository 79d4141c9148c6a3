use bytes::Bytes;
use moorline_protocol::types::{InstanceId, TranscriptId};
use moorline_ssm::command::{
    Command, CommandInvocation, ListCommandInvocations, ListCommandInvocationsRequest,
};
use serde_json::json;

use super::*;
use crate::{
    gateway::command_delivery::fixture::{Fleet, ONE_STEP, request},
    store::{Chunk, ChunkBody, OutputUpload, Recorded, S3Server, Sender},
};

const RECORDING: &str = concat!(
    "{\"version\":2,\"width\":80,\"height\":24}\n",
    "[0.000000,\"e\",\"{\\\"event\\\":\\\"step\\\",\\\"name\\\":\\\"shell\\\",\\\"action\\\":\\\"aws:a\\\"}\"]\n",
    "[0.100000,\"o\",\"here\\r\\n\"]\n",
    "[0.200000,\"x\",\"0\"]\n",
);
const DAY_MILLIS: u64 = 24 * 60 * 60 * 1000;

/// An endpoint with a store where nobody listens, and a command that has ended on its only node.
struct Bench {
    fleet: Fleet,
    store: Arc<OutputStore>,
    node: InstanceId,
    command: Command,
}

impl Bench {
    async fn new(steps: &serde_json::Value) -> Self {
        let mut fleet = Fleet::new().await;
        let store = Arc::new(OutputStore::new(S3Server {
            endpoint: Some("http://127.0.0.1:1".to_owned()),
            region: "us-east-1".to_owned(),
            access_key_id: "an-id".to_owned(),
            secret_access_key: "a-secret".to_owned(),
            session_token: None,
        }));
        let app = Arc::get_mut(&mut fleet.endpoint.app).expect("nobody else has it");
        app.output_store = Some(Arc::clone(&store));
        let node = fleet.node(1).await;
        let mut request = request(ONE_STEP, &[&node]);
        request.output_s3_bucket_name = Some("output".to_owned());
        let command = fleet.send_as(request).await;
        let job = fleet.due_job(&node).await;
        fleet.ack(&node, &job, "200").await;
        let content = json!({
            "additionalInfo": {"agent": {"name": "test"}, "dateTime": "2026-11-22T00:00:02.000Z",
                               "runtimeStatusCounts": null},
            "documentStatus": "Success", "documentTraceOutput": "", "runtimeStatus": steps});
        fleet.reply_text(&node, &job.job_id, &content.to_string()).await;
        Self {
            fleet,
            store,
            node,
            command,
        }
    }

    /// Its recording arrives.
    async fn record(&self) {
        let app = &self.fleet.endpoint.app;
        let id = format!("{}.{}", self.command.command_id.as_deref().unwrap(), self.node);
        let id: TranscriptId = id.parse().unwrap();
        let recorded: Recorded = app.store.recorded(&id).await.unwrap().unwrap();
        let now = app.clock.unix_millis();
        app.store.transcript_started(&recorded, now).await.unwrap();
        let sender = Sender {
            node: self.node.to_string(),
            keys: Vec::new(),
        };
        let chunk = Chunk {
            offset: 0,
            body: ChunkBody::Plain(Bytes::from_static(RECORDING.as_bytes())),
            is_last: true,
            is_durable: true,
        };
        app.transcripts
            .append(&id, sender, chunk, (false, now))
            .await
            .unwrap();
        app.store
            .transcript_closed(&id, TranscriptState::Plain, now)
            .await
            .unwrap();
    }

    async fn look(&self) -> CommandInvocation {
        look(&self.fleet.endpoint.app, &self.store).await;
        let request = ListCommandInvocationsRequest {
            command_id: self.command.command_id.clone(),
            details: Some(true),
            ..ListCommandInvocationsRequest::default()
        };
        let listed = self.fleet.endpoint.call::<ListCommandInvocations>(request).await;
        listed.unwrap().command_invocations.unwrap().remove(0)
    }

    async fn state(&self) -> OutputUpload {
        let id = self.command.command_id.as_deref().unwrap().parse().unwrap();
        let upload = self.fleet.endpoint.app.store.output_upload(&id, &self.node).await;
        upload.unwrap().unwrap()
    }
}

fn steps() -> serde_json::Value {
    json!({"shell": {"status": "Success", "code": 0, "name": "aws:runShellScript"}})
}

#[tokio::test]
async fn a_store_that_is_away_for_hours_is_given_up_and_why_is_told() {
    let bench = Bench::new(&steps()).await;
    bench.record().await;
    let begun = bench.fleet.endpoint.now();
    let mut attempts = 0;
    let given_up = loop {
        let listed = bench.look().await;
        assert_eq!(listed.standard_output_url.as_deref(), Some(""));
        let upload = bench.state().await;
        attempts += 1;
        assert_eq!(upload.attempts, attempts);
        let trace = listed.trace_output.unwrap();
        match upload.next_at {
            None => break trace,
            Some(next_at) => {
                assert!(
                    trace.starts_with("The output is not in bucket output yet: "),
                    "{trace}"
                );
                bench.fleet.endpoint.set_millis(next_at);
            }
        }
    };
    assert_eq!(attempts, 12);
    let hours = (bench.fleet.endpoint.now() - begun) / 3_600_000;
    assert_eq!(hours, 2);
    assert!(
        given_up.starts_with("The output was not brought to bucket output: "),
        "{given_up}"
    );
    assert_eq!(bench.state().await.state, UploadState::Failed);
    // nothing follows
    bench.fleet.endpoint.advance_millis(30 * DAY_MILLIS);
    bench.look().await;
    assert_eq!(bench.state().await.attempts, attempts);
}

#[tokio::test]
async fn a_recording_is_waited_for_as_long_as_it_may_come() {
    let bench = Bench::new(&steps()).await;
    let trace = bench.look().await.trace_output.unwrap();
    assert!(trace.contains("there is none"), "{trace}");
    bench.fleet.endpoint.advance_millis(6 * DAY_MILLIS);
    bench.look().await;
    assert_eq!(bench.state().await.state, UploadState::Waiting);
    bench.fleet.endpoint.advance_millis(DAY_MILLIS);
    let trace = bench.look().await.trace_output.unwrap();
    assert!(
        trace.contains("was not brought") && trace.contains("there is none"),
        "{trace}"
    );
    assert_eq!(bench.state().await.state, UploadState::Failed);
}

#[tokio::test]
async fn what_an_agent_uploads_by_itself_is_left_to_it() {
    let mut steps = steps();
    steps["shell"]["outputS3BucketName"] = "output".into();
    steps["shell"]["outputS3KeyPrefix"] = "c/mi/awsrunShellScript".into();
    let bench = Bench::new(&steps).await;
    bench.record().await;
    let listed = bench.look().await;
    assert_eq!(bench.state().await.state, UploadState::Done);
    let trace = listed.trace_output.unwrap();
    assert!(
        trace.contains("brings the output to the bucket by itself"),
        "{trace}"
    );
    let step = &listed.command_plugins.unwrap()[0];
    assert_eq!(step.standard_output_url.as_deref(), Some(""));
    assert_eq!(step.output_s3_bucket_name.as_deref(), Some("output"));
    assert_eq!(
        step.output_s3_key_prefix.as_deref(),
        Some("c/mi/awsrunShellScript")
    );
}
