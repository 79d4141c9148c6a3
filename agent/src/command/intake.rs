//! Jobs as they arrive: what they ask for, or why they cannot be taken.

use moorline_protocol::{
    document::CommandDocument,
    message::{
        AgentJob, CancelCommandContent, JobAckCode, SendCommandContent, TOPIC_CANCEL_COMMAND,
        TOPIC_SEND_COMMAND,
    },
};
use serde_json::{Map, Value};

/// Longest id of a command, which becomes the name of a directory.
const MAX_ID_BYTES: usize = 200;
/// Longest job id. It is kept in the journal, and stands in every reply beside a text that fills the message.
const MAX_JOB_ID_BYTES: usize = 512;

/// What the names of documents begin with that are files of this node. None of an endpoint has such a name: the owner's
/// policy would take it for one of the node's own.
pub(super) const NAME_OF_FILE: &str = "file:";

/// What a job asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Intake {
    Cancel {
        job_id: String,
        command_id: String,
    },
    Send {
        job_id: String,
        command_id: String,
        content: String,
    },
    /// Not a job at all, or one that nobody can do.
    Unusable {
        job_id: String,
        code: JobAckCode,
        reason: String,
    },
}

/// Reads the payload of an `agent_job`.
pub(super) fn read(payload: &[u8]) -> Intake {
    let job: AgentJob = match serde_json::from_slice(payload) {
        Ok(job) => job,
        Err(error) => return unusable(String::new(), format!("the job is not readable: {error}")),
    };
    let AgentJob {
        content,
        job_id,
        topic,
        ..
    } = job;
    if job_id.len() > MAX_JOB_ID_BYTES {
        // Not repeated to the endpoint either, which knows the message by its own id.
        return unusable(String::new(), "the job's id is too long");
    }
    let Some(command_id) = command_id(&job_id) else {
        return unusable(job_id, "the job's id cannot name a command");
    };
    if topic.starts_with(TOPIC_CANCEL_COMMAND) {
        let target: CancelCommandContent = match serde_json::from_str(&content) {
            Ok(target) => target,
            Err(error) => return unusable(job_id, format!("the cancellation is not readable: {error}")),
        };
        return match self::command_id(&target.cancel_message_id) {
            Some(command_id) => Intake::Cancel {
                job_id,
                command_id: command_id.to_owned(),
            },
            None => unusable(job_id, "the cancellation names no command"),
        };
    }
    if !topic.starts_with(TOPIC_SEND_COMMAND) {
        let reason = format!("the topic {topic:?} is not known");
        return Intake::Unusable {
            job_id,
            code: JobAckCode::UnexpectedDocumentType,
            reason,
        };
    }
    let parsed = read_content(&content).and_then(|content| {
        CommandDocument::parse(&content.document_content)
            .map(drop)
            .map_err(|error| error.to_string())
    });
    let command_id = command_id.to_owned();
    match parsed {
        Ok(()) => Intake::Send {
            job_id,
            command_id,
            content,
        },
        Err(reason) => unusable(job_id, reason),
    }
}

fn unusable(job_id: String, reason: impl Into<String>) -> Intake {
    Intake::Unusable {
        job_id,
        code: JobAckCode::AgentJobMessageParseError,
        reason: reason.into(),
    }
}

/// Reads the content of a job that runs a command. Members that are null count as absent.
///
/// # Errors
/// Why it cannot be read.
pub(super) fn read_content(text: &str) -> Result<SendCommandContent, String> {
    let mut members: Map<String, Value> = serde_json::from_str(text).map_err(|error| error.to_string())?;
    members.retain(|_, value| !value.is_null());
    let content: SendCommandContent =
        serde_json::from_value(Value::Object(members)).map_err(|error| error.to_string())?;
    match content.document_name.starts_with(NAME_OF_FILE) {
        false => Ok(content),
        true => Err(format!(
            "the document is called {:?}, and only files of this node have names that begin with {NAME_OF_FILE}",
            content.document_name
        )),
    }
}

/// Action and name of every step; none when the content cannot be read.
pub(super) fn step_names(content: &str) -> Vec<(String, String)> {
    let document = read_content(content)
        .ok()
        .and_then(|content| CommandDocument::parse(&content.document_content).ok());
    let names = document
        .as_ref()
        .map(CommandDocument::step_names)
        .into_iter()
        .flatten();
    names
        .map(|(action, name)| (action.to_owned(), name.to_owned()))
        .collect()
}

/// The command that a job id means: `aws.ssm.COMMAND.NODE`, or the whole text (agent-wire §6.1).
fn command_id(job_id: &str) -> Option<&str> {
    let id = command_id_of_dotted(job_id).unwrap_or(job_id);
    let is_file_name = !id.is_empty()
        && id.len() <= MAX_ID_BYTES
        && !id.starts_with('.')
        && id
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'));
    is_file_name.then_some(id)
}

/// The command id of the dotted form; `None` for every other.
pub(super) fn command_id_of_dotted(job_id: &str) -> Option<&str> {
    let (command_id, _node) = job_id.strip_prefix("aws.ssm.")?.rsplit_once('.')?;
    command_id.rsplit('.').next().filter(|id| !id.is_empty())
}

#[cfg(test)]
mod tests {
    use moorline_protocol::message::TOPIC_SEND_COMMAND;
    use serde_json::json;

    use super::*;

    fn job(job_id: &str, topic: &str, content: &str) -> Vec<u8> {
        let job = json!({"Content": content, "JobId": job_id, "Topic": topic, "SchemaVersion": 1});
        serde_json::to_vec(&job).unwrap()
    }

    fn content() -> String {
        json!({
            "CommandId": "1ea95505-c96b-40d1-a906-d37c7ef29d36", "DocumentName": "AWS-RunShellScript",
            "DocumentContent": {"schemaVersion": "2.2", "mainSteps": [
                {"action": "aws:runShellScript", "name": "a", "inputs": {"runCommand": ["true"]}}]},
            "Parameters": null, "CloudWatchOutputEnabled": "false",
        })
        .to_string()
    }

    #[test]
    fn both_forms_of_a_job_id_name_their_command() {
        let table = [
            ("aws.ssm.1ea9-55.mi-0123456789abcdef0", Some("1ea9-55")),
            ("1ea9-55", Some("1ea9-55")),
            ("aws.ssm.eu-west-1.1ea9-55.mi-0123456789abcdef0", Some("1ea9-55")),
            ("aws.ssm.x", Some("aws.ssm.x")),
            ("../../etc", None),
            ("a/b", None),
            ("", None),
        ];
        for (job_id, expected) in table {
            assert_eq!(command_id(job_id), expected, "{job_id}");
        }
    }

    #[test]
    fn a_job_id_without_bound_is_neither_kept_nor_repeated() {
        let dotted = |length: usize| format!("aws.ssm.{}.c1.mi-0", "x".repeat(length));
        let taken = dotted(MAX_JOB_ID_BYTES - dotted(0).len());
        assert!(matches!(
            read(&job(&taken, TOPIC_SEND_COMMAND, &content())),
            Intake::Send { .. }
        ));
        let refused = Intake::Unusable {
            job_id: String::new(),
            code: JobAckCode::AgentJobMessageParseError,
            reason: "the job's id is too long".to_owned(),
        };
        assert_eq!(
            read(&job(&format!("{taken}0"), TOPIC_SEND_COMMAND, &content())),
            refused
        );
    }

    #[test]
    fn a_job_that_runs_a_command_is_read_with_null_members() {
        let read = read(&job(
            "aws.ssm.c1.mi-0",
            "aws.ssm.sendCommand.us-east-1.mi-0",
            &content(),
        ));
        let expected = Intake::Send {
            job_id: "aws.ssm.c1.mi-0".to_owned(),
            command_id: "c1".to_owned(),
            content: content(),
        };
        assert_eq!(read, expected);
    }

    #[test]
    fn a_cancellation_names_the_command_of_another_job() {
        let read = read(&job(
            "c2",
            TOPIC_CANCEL_COMMAND,
            r#"{"CancelMessageId":"aws.ssm.c1.mi-0"}"#,
        ));
        assert_eq!(
            read,
            Intake::Cancel {
                job_id: "c2".to_owned(),
                command_id: "c1".to_owned()
            }
        );
    }

    #[test]
    fn what_cannot_be_run_says_why() {
        let table = [
            (b"nonsense".to_vec(), "", JobAckCode::AgentJobMessageParseError),
            (
                job("c", TOPIC_SEND_COMMAND, "{"),
                "c",
                JobAckCode::AgentJobMessageParseError,
            ),
            (
                job("c", TOPIC_SEND_COMMAND, "{}"),
                "c",
                JobAckCode::AgentJobMessageParseError,
            ),
            (
                job("c", TOPIC_SEND_COMMAND, &content().replace("2.2", "9.9")),
                "c",
                JobAckCode::AgentJobMessageParseError,
            ),
            (
                job("c", "aws.ssm.other", &content()),
                "c",
                JobAckCode::UnexpectedDocumentType,
            ),
            (
                // the policy would take it for a file of the node
                job(
                    "c",
                    TOPIC_SEND_COMMAND,
                    &content().replace("AWS-RunShellScript", "file:/opt/approved/a.json"),
                ),
                "c",
                JobAckCode::AgentJobMessageParseError,
            ),
            (
                job("a/b", TOPIC_SEND_COMMAND, &content()),
                "a/b",
                JobAckCode::AgentJobMessageParseError,
            ),
        ];
        for (payload, expected_job, expected_code) in table {
            match read(&payload) {
                Intake::Unusable { job_id, code, reason } => {
                    assert_eq!((job_id.as_str(), code), (expected_job, expected_code));
                    assert!(!reason.is_empty());
                }
                other => panic!("{other:?}"),
            }
        }
    }
}
