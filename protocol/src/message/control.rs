//! JSON payloads of the control channel (agent-wire §4.2, §6).
//!
//! Names are emitted exactly as the stock peers emit them; unknown members are ignored when read. Members that
//! begin with `Moorline` are ours (docs/deviations.md) and absent towards other endpoints.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// First message of a control channel, as TEXT (agent-wire §4.2).
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct OpenControlChannel {
    pub cookie: Option<String>,
    pub message_schema_version: String,
    pub request_id: String,
    pub token_value: String,
    pub agent_version: String,
    pub platform_type: String,
    /// Ours: random for each start of a daemon. Two living daemons with one key differ in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moorline_process_id: Option<String>,
    /// Ours: it answers [`PolicyQuestion`]s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moorline_answers_policy: Option<bool>,
}

/// Without the token, which opens the channel for whoever reads it.
impl fmt::Debug for OpenControlChannel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenControlChannel")
            .field("agent_version", &self.agent_version)
            .field("moorline_process_id", &self.moorline_process_id)
            .finish_non_exhaustive()
    }
}

/// `agent_job`: run or cancel a command (agent-wire §6.1).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct AgentJob {
    /// JSON text of a [`SendCommandContent`] or a [`CancelCommandContent`].
    pub content: String,
    pub job_id: String,
    pub topic: String,
    pub schema_version: i64,
}

/// Topic prefix of a job that runs a command; AWS may append to it.
pub const TOPIC_SEND_COMMAND: &str = "aws.ssm.sendCommand";
/// Topic prefix of a job that cancels a command.
pub const TOPIC_CANCEL_COMMAND: &str = "aws.ssm.cancelCommand";

/// Content of a job that runs a command (agent-wire §6.2).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct SendCommandContent {
    pub command_id: String,
    pub document_name: String,
    pub document_content: Value,
    #[serde(default)]
    pub parameters: serde_json::Map<String, Value>,
    #[serde(rename = "OutputS3BucketName", default)]
    pub output_s3_bucket_name: String,
    #[serde(rename = "OutputS3KeyPrefix", default)]
    pub output_s3_key_prefix: String,
    #[serde(default)]
    pub cloud_watch_log_group_name: String,
    /// The text `true` or `false`: a JSON boolean makes the stock agent refuse the whole job.
    #[serde(default)]
    pub cloud_watch_output_enabled: String,
    /// Ours: where the recording goes, as a path to which `.NODE-ID` is added; absent: nothing is recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moorline_transcript_path: Option<String>,
    /// Ours: who sent the command.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moorline_operator: Option<String>,
    /// Ours: what for, the command's comment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moorline_reason: Option<String>,
    /// Ours: the version of the document, as it was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moorline_document_version: Option<String>,
    /// Ours: what the operator signed, unchanged ([`SignedCommand`](crate::signed_command::SignedCommand)).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moorline_signature: Option<String>,
}

/// Content of a job that cancels a command: the `JobId` of the job to cancel (agent-wire §6.3).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct CancelCommandContent {
    pub cancel_message_id: String,
}

/// `moorline_policy_question`: ours, to agents that say they answer. What would the policy of the node's owner make of a
/// command? Nothing is run or kept for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct PolicyQuestion {
    /// Comes back with the answer.
    pub question_id: u64,
    /// JSON text of a [`SendCommandContent`], as a job would have it.
    pub content: String,
}

/// `moorline_policy_answer`: ours.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct PolicyAnswer {
    pub question_id: u64,
    pub is_allowed: bool,
    /// Who says so, as text for people.
    pub reason: String,
    /// The command would have to be signed, which a question is not.
    #[serde(default)]
    pub needs_signature: bool,
}

/// `agent_job_ack` (agent-wire §6.4).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AgentJobAck {
    pub job_id: String,
    pub acknowledged_message_id: String,
    pub created_date: String,
    pub status_code: String,
    pub error_message: String,
}

/// What an `agent_job_ack` says (agent-wire §6.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobAckCode {
    Successful,
    ClosedProcessor,
    ProcessorBufferFull,
    UnexpectedDocumentType,
    ProcessorErrorCodeTranslationFailed,
    DuplicateCommand,
    InvalidDocument,
    ContainerNotSupported,
    AgentJobMessageParseError,
    UnexpectedError,
}

impl JobAckCode {
    const ALL: [(Self, &'static str, &'static str); 10] = [
        (Self::Successful, "200", "Successful"),
        (Self::ClosedProcessor, "51401", "ClosedProcessor"),
        (Self::ProcessorBufferFull, "51402", "ProcessorBufferFull"),
        (Self::UnexpectedDocumentType, "51403", "UnexpectedDocumentType"),
        (
            Self::ProcessorErrorCodeTranslationFailed,
            "51404",
            "ProcessorErrorCodeTranslationFailed",
        ),
        (Self::DuplicateCommand, "51405", "DuplicateCommand"),
        (Self::InvalidDocument, "51406", "InvalidDocument"),
        (Self::ContainerNotSupported, "51407", "ContainerNotSupported"),
        (
            Self::AgentJobMessageParseError,
            "51408",
            "AgentJobMessageParseError",
        ),
        (Self::UnexpectedError, "51499", "UnexpectedError"),
    ];

    /// The `statusCode` and `errorMessage` on the wire.
    pub fn wire(self) -> (&'static str, &'static str) {
        Self::ALL
            .iter()
            .find(|(code, _, _)| *code == self)
            .map_or(("51499", "UnexpectedError"), |(_, number, text)| (number, text))
    }

    /// Any number this list does not know is an unexpected error.
    pub fn from_status_code(status_code: &str) -> Self {
        Self::ALL
            .iter()
            .find(|(_, number, _)| *number == status_code)
            .map_or(Self::UnexpectedError, |(code, _, _)| *code)
    }

    /// Whether the endpoint should deliver the job again later.
    pub fn is_retryable(self) -> bool {
        matches!(self, Self::ClosedProcessor | Self::ProcessorBufferFull)
    }
}

/// `agent_job_reply` (agent-wire §6.5).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AgentJobReply {
    pub schema_version: i64,
    pub job_id: String,
    /// JSON text of a [`ReplyContent`].
    pub content: String,
    pub topic: String,
}

/// Content of a reply: the state of a document and of its steps.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReplyContent {
    pub additional_info: AdditionalInfo,
    pub document_status: ResultStatus,
    #[serde(default)]
    pub document_trace_output: String,
    /// By step name; `null` in the first reply of a job.
    pub runtime_status: Option<serde_json::Map<String, Value>>,
    /// Ours: true when the policy of the node's owner refused the command, so that nothing ran.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moorline_refused: Option<bool>,
}

impl ReplyContent {
    /// The steps that can be read; an entry of another shape is left out.
    pub fn steps(&self) -> Vec<(String, StepReply)> {
        self.runtime_status
            .iter()
            .flatten()
            .filter_map(|(name, step)| {
                serde_json::from_value(step.clone())
                    .ok()
                    .map(|step| (name.clone(), step))
            })
            .collect()
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AdditionalInfo {
    pub agent: AgentInfo,
    /// ISO-8601 UTC with milliseconds.
    pub date_time: String,
    #[serde(default)]
    pub run_id: String,
    pub runtime_status_counts: Option<std::collections::BTreeMap<String, i64>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentInfo {
    #[serde(default)]
    pub lang: String,
    #[serde(default)]
    pub name: String,
    #[serde(default)]
    pub os: String,
    #[serde(default)]
    pub osver: String,
    #[serde(default)]
    pub ver: String,
}

/// One step in a reply (agent-wire §6.5).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StepReply {
    pub status: ResultStatus,
    pub code: i64,
    #[serde(default)]
    pub name: String,
    #[serde(default)]
    pub output: String,
    #[serde(default)]
    pub start_date_time: String,
    #[serde(default)]
    pub end_date_time: String,
    #[serde(rename = "outputS3BucketName", default)]
    pub output_s3_bucket_name: String,
    #[serde(rename = "outputS3KeyPrefix", default)]
    pub output_s3_key_prefix: String,
    #[serde(default)]
    pub step_name: String,
    #[serde(default)]
    pub standard_output: String,
    #[serde(default)]
    pub standard_error: String,
}

/// Status of a step or of a document on the node (agent-wire §6.7).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ResultStatus {
    NotStarted,
    InProgress,
    Success,
    SuccessAndReboot,
    PassedAndReboot,
    Failed,
    Cancelled,
    TimedOut,
    Skipped,
}

impl ResultStatus {
    /// Whether nothing follows this status. A reboot is followed by the rest of the document.
    pub fn is_terminal(self) -> bool {
        matches!(
            self,
            Self::Success | Self::Failed | Self::Cancelled | Self::TimedOut | Self::Skipped
        )
    }

    /// The name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotStarted => "NotStarted",
            Self::InProgress => "InProgress",
            Self::Success => "Success",
            Self::SuccessAndReboot => "SuccessAndReboot",
            Self::PassedAndReboot => "PassedAndReboot",
            Self::Failed => "Failed",
            Self::Cancelled => "Cancelled",
            Self::TimedOut => "TimedOut",
            Self::Skipped => "Skipped",
        }
    }
}

/// `agent_job_reply_ack` (agent-wire §6.6).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AgentJobReplyAck {
    pub job_id: String,
    pub acknowledged_message_id: String,
}

/// `interactive_shell`: start a session (agent-wire §6.9).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct InteractiveShell {
    /// JSON text of a [`StartSessionContent`].
    pub content: String,
    pub task_id: String,
    pub topic: String,
    pub schema_version: i64,
}

/// Content of `interactive_shell`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct StartSessionContent {
    pub document_name: String,
    pub document_content: Value,
    pub session_id: String,
    #[serde(default)]
    pub parameters: serde_json::Map<String, Value>,
    #[serde(default)]
    pub run_as_user: String,
    #[serde(default)]
    pub session_owner: String,
    /// Ours: what the session is for, as its operator said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moorline_reason: Option<String>,
    /// Ours: what the operator signed, unchanged ([`SignedCommand`](crate::signed_command::SignedCommand)).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moorline_signature: Option<String>,
    /// Ours: where the recording goes. Absent: the endpoint takes none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moorline_transcript_path: Option<String>,
}

/// `channel_closed`, on control and data channels (agent-wire §6.10, client-wire §4.7).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ChannelClosed {
    #[serde(default)]
    pub message_schema_version: String,
    pub message_id: String,
    pub created_date: String,
    pub destination_id: String,
    pub session_id: String,
    pub message_type: String,
    pub schema_version: i64,
    /// The reason shown to the user; empty on a normal end.
    #[serde(default)]
    pub output: String,
    /// Ours: exit code of the shell, when the session ended by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moorline_exit_code: Option<i32>,
}

/// `agent_task_complete`: a session has ended on the node (agent-wire §6.10).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct AgentTaskComplete {
    pub schema_version: i64,
    /// The session id.
    pub task_id: String,
    pub topic: String,
    pub final_task_status: String,
    #[serde(default)]
    pub is_routing_failure: bool,
    #[serde(default)]
    pub aws_account_id: String,
    pub instance_id: String,
    #[serde(default)]
    pub output: String,
    #[serde(rename = "S3Bucket", default)]
    pub s3_bucket: String,
    #[serde(rename = "S3UrlSuffix", default)]
    pub s3_url_suffix: String,
    #[serde(default)]
    pub cwl_group: String,
    #[serde(default)]
    pub cwl_stream: String,
    #[serde(default)]
    pub retry_number: i64,
    /// Ours: exit code of the shell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moorline_exit_code: Option<i32>,
}

/// `agent_task_acknowledge` (agent-wire §6.10); matched by `MessageId` only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct AgentTaskAcknowledge {
    pub schema_version: i64,
    pub message_id: String,
    pub task_id: String,
    pub topic: String,
}
