//! What tests of commands share: an endpoint with documents, and a node's part played by hand.

use std::collections::BTreeMap;

use moorline_protocol::{
    message::{AgentJobAck, AgentJobReply},
    types::InstanceId,
};
use moorline_ssm::command::{
    Command, GetCommandInvocation, GetCommandInvocationRequest, GetCommandInvocationResult, ListCommands,
    ListCommandsRequest, SendCommand, SendCommandRequest,
};
use serde_json::{Value, json};
use uuid::Uuid;

use super::OutgoingJob;
use crate::{
    store::{NewDocument, NewVersion},
    test_support::TestApp,
};

/// One step, `shell`, with the parameter `commands`.
pub(crate) const ONE_STEP: &str = "Test-OneStep";
/// Two steps, `first` and `second`.
pub(crate) const TWO_STEPS: &str = "Test-TwoSteps";
/// A document of type Session.
pub(crate) const SESSION: &str = "Test-Session";

pub(crate) struct Fleet {
    pub(crate) endpoint: TestApp,
}

impl Fleet {
    pub(crate) async fn new() -> Self {
        let fleet = Self {
            endpoint: TestApp::new().await,
        };
        let shell = |name: &str| {
            json!({"action": "aws:runShellScript", "name": name,
                   "inputs": {"runCommand": "{{ commands }}", "timeoutSeconds": "60"}})
        };
        let parameters = json!({"commands": {"type": "StringList", "default": ["true"]},
            "mode": {"type": "String", "default": "fast", "allowedPattern": "^[a-z]+$"}});
        let of = |steps: &[Value]| json!({"schemaVersion": "2.2", "description": "d", "parameters": parameters, "mainSteps": steps});
        fleet.document(ONE_STEP, "Command", &of(&[shell("shell")])).await;
        fleet
            .document(TWO_STEPS, "Command", &of(&[shell("first"), shell("second")]))
            .await;
        fleet
            .document(SESSION, "Session", &json!({"schemaVersion": "1.0"}))
            .await;
        fleet
    }

    pub(crate) async fn document(&self, name: &str, document_type: &str, content: &Value) {
        let content = content.to_string();
        let hash = ring::digest::digest(&ring::digest::SHA256, content.as_bytes());
        let document = NewDocument {
            name: name.to_owned(),
            document_type: document_type.to_owned(),
            owner: "test".to_owned(),
            tags: BTreeMap::new(),
            version: NewVersion {
                document_format: "JSON".to_owned(),
                schema_version: "2.2".to_owned(),
                display_name: None,
                version_name: None,
                target_type: None,
                description: None,
                content,
                sha256: hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect(),
                attachments: Vec::new(),
            },
        };
        assert!(
            self.endpoint
                .app
                .store
                .insert_document(&document, false, 1)
                .await
                .unwrap()
        );
    }

    pub(crate) async fn node(&self, index: u32) -> InstanceId {
        self.endpoint.register_node(index, &[("Env", "prod")]).await
    }

    /// Runs a document on these nodes.
    pub(crate) async fn send(&self, document: &str, nodes: &[&InstanceId]) -> Command {
        self.send_as(request(document, nodes)).await
    }

    pub(crate) async fn send_as(&self, request: SendCommandRequest) -> Command {
        self.endpoint
            .call::<SendCommand>(request)
            .await
            .unwrap()
            .command
            .unwrap()
    }

    pub(crate) async fn due(&self, node: &InstanceId) -> Vec<OutgoingJob> {
        super::due(&self.endpoint.app, node).await.unwrap()
    }

    /// The one job that is due.
    pub(crate) async fn due_job(&self, node: &InstanceId) -> OutgoingJob {
        let mut jobs = self.due(node).await;
        assert_eq!(jobs.len(), 1, "{jobs:?}");
        jobs.remove(0)
    }

    pub(crate) async fn ack(&self, node: &InstanceId, job: &OutgoingJob, status_code: &str) {
        let ack = AgentJobAck {
            job_id: job.job_id.clone(),
            acknowledged_message_id: job.message_id.to_string(),
            created_date: "2026-11-22T00:00:00.000Z".to_owned(),
            status_code: status_code.to_owned(),
            error_message: String::new(),
        };
        super::acked(&self.endpoint.app, node, &ack).await.unwrap();
    }

    /// A reply with the results of these steps: name, status, code, standard output.
    pub(crate) async fn reply(
        &self,
        node: &InstanceId,
        job: &OutgoingJob,
        status: &str,
        steps: &[(&str, &str, i64, &str)],
    ) {
        let steps: serde_json::Map<String, Value> = steps
            .iter()
            .map(|(name, status, code, output)| {
                let step = json!({"status": status, "code": code, "name": "aws:runShellScript",
                    "output": output, "startDateTime": "2026-11-22T00:00:01.000Z",
                    "endDateTime": "2026-11-22T00:00:01.050Z", "standardOutput": output,
                    "standardError": if *code == 0 { "" } else { "failed to run commands" }});
                ((*name).to_owned(), step)
            })
            .collect();
        let content = json!({
            "additionalInfo": {"agent": {"name": "test"}, "dateTime": "2026-11-22T00:00:02.000Z",
                               "runtimeStatusCounts": null},
            "documentStatus": status, "documentTraceOutput": "", "runtimeStatus": steps});
        self.reply_text(node, &job.job_id, &content.to_string()).await;
    }

    pub(crate) async fn reply_text(&self, node: &InstanceId, job_id: &str, content: &str) {
        let reply = AgentJobReply {
            schema_version: 1,
            job_id: job_id.to_owned(),
            content: content.to_owned(),
            topic: "aws.ssm.sendCommand".to_owned(),
        };
        super::replied(&self.endpoint.app, node, Uuid::new_v4(), &reply)
            .await
            .unwrap();
    }

    pub(crate) async fn sweep(&self) {
        super::sweep(&self.endpoint.app).await.unwrap();
    }

    pub(crate) async fn invocation(
        &self,
        command: &Command,
        node: &InstanceId,
    ) -> GetCommandInvocationResult {
        self.endpoint
            .call::<GetCommandInvocation>(GetCommandInvocationRequest {
                command_id: command.command_id.clone(),
                instance_id: Some(node.to_string()),
                plugin_name: None,
            })
            .await
            .unwrap()
    }

    pub(crate) async fn status(&self, command: &Command, node: &InstanceId) -> String {
        self.invocation(command, node).await.status.unwrap().to_string()
    }

    pub(crate) async fn command(&self, command: &Command) -> Command {
        let request = ListCommandsRequest {
            command_id: command.command_id.clone(),
            ..ListCommandsRequest::default()
        };
        let listed = self.endpoint.call::<ListCommands>(request).await.unwrap();
        listed.commands.unwrap().remove(0)
    }

    /// What was asked of the routing since the last look.
    pub(crate) fn routing_calls(&self) -> Vec<String> {
        std::mem::take(&mut self.endpoint.routing.calls.lock().unwrap())
    }
}

pub(crate) fn request(document: &str, nodes: &[&InstanceId]) -> SendCommandRequest {
    SendCommandRequest {
        document_name: Some(document.to_owned()),
        instance_ids: (!nodes.is_empty()).then(|| nodes.iter().map(ToString::to_string).collect()),
        ..SendCommandRequest::default()
    }
}
