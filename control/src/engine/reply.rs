//! What a node reports, cut to the sizes that are kept.

use moorline_protocol::message::{AgentJobReply, ReplyContent, ResultStatus, StepReply};

/// Bytes of standard output, and of standard error, that are kept per step.
pub(crate) const STREAM_BYTES: usize = 24_000;
/// Bytes of the combined output that are kept per step, and of the trace per invocation.
pub(crate) const OUTPUT_BYTES: usize = 2_500;
const NAME_BYTES: usize = 256;
const TIME_BYTES: usize = 64;

/// One report on one invocation.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Reply {
    /// When the node made it, in milliseconds since the Unix epoch by the node's clock; 0 if it does not say.
    pub(crate) made_at: i64,
    pub(crate) document_status: ResultStatus,
    /// The node's owner does not allow it.
    pub(crate) is_refused: bool,
    pub(crate) trace: String,
    pub(crate) steps: Vec<(String, StepReply)>,
}

impl Reply {
    /// # Errors
    /// The content is not JSON of a reply's shape.
    pub(crate) fn parse(message: &AgentJobReply) -> Result<Self, serde_json::Error> {
        let content: ReplyContent = serde_json::from_str(&message.content)?;
        let steps = content
            .steps()
            .into_iter()
            .map(|(name, step)| (cut(name, NAME_BYTES), cut_step(step)))
            .collect();
        Ok(Self {
            made_at: unix_millis(&content.additional_info.date_time).unwrap_or(0),
            document_status: content.document_status,
            is_refused: content.moorline_refused.unwrap_or_default(),
            trace: cut(content.document_trace_output, OUTPUT_BYTES),
            steps,
        })
    }
}

/// A time as nodes write it, in milliseconds since the Unix epoch.
pub(crate) fn unix_millis(text: &str) -> Option<i64> {
    text.parse().ok().map(jiff::Timestamp::as_millisecond)
}

/// At most `bytes` bytes, ending at a character boundary. The node has marked its own cuts already.
pub(crate) fn cut(mut text: String, bytes: usize) -> String {
    text.truncate(text.floor_char_boundary(bytes));
    text
}

fn cut_step(step: StepReply) -> StepReply {
    StepReply {
        name: cut(step.name, NAME_BYTES),
        output: cut(step.output, OUTPUT_BYTES),
        start_date_time: cut(step.start_date_time, TIME_BYTES),
        end_date_time: cut(step.end_date_time, TIME_BYTES),
        output_s3_bucket_name: cut(step.output_s3_bucket_name, NAME_BYTES),
        output_s3_key_prefix: cut(step.output_s3_key_prefix, 2 * NAME_BYTES),
        step_name: cut(step.step_name, NAME_BYTES),
        standard_output: cut(step.standard_output, STREAM_BYTES),
        standard_error: cut(step.standard_error, STREAM_BYTES),
        status: step.status,
        code: step.code,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(content: &str) -> AgentJobReply {
        AgentJobReply {
            schema_version: 1,
            job_id: "aws.ssm.x.mi-1".to_owned(),
            content: content.to_owned(),
            topic: "aws.ssm.sendCommand".to_owned(),
        }
    }

    #[test]
    fn the_first_reply_of_a_job_has_no_steps() {
        let reply = Reply::parse(&message(
            r#"{"additionalInfo":{"agent":{"lang":"en-US","name":"amazon-ssm-agent","os":"linux","osver":"1",
            "ver":"3.3.0.0"},"dateTime":"2026-11-22T06:08:52.893Z","runId":"","runtimeStatusCounts":null},
            "documentStatus":"InProgress","documentTraceOutput":"","runtimeStatus":null}"#,
        ))
        .unwrap();
        assert_eq!(reply.document_status, ResultStatus::InProgress);
        assert_eq!(reply.made_at, 1_795_327_732_893);
        assert_eq!(reply.steps, []);
    }

    #[test]
    fn output_is_cut_at_a_character_boundary() {
        let text = "é".repeat(STREAM_BYTES);
        let kept = cut(text, STREAM_BYTES + 1);
        assert_eq!(kept.len(), STREAM_BYTES);
    }
}
