//! Replies to the endpoint: `agent_job_ack` and `agent_job_reply` (agent-wire §6.4-6.7).

use std::collections::BTreeMap;

use jiff::Timestamp;
use moorline_protocol::{
    document::StepOutcome,
    message::{
        AdditionalInfo, AgentInfo, AgentJobAck, AgentJobReply, JobAckCode, ReplyContent, ResultStatus,
        StepReply, TOPIC_CANCEL_COMMAND, TOPIC_SEND_COMMAND,
    },
};
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::runtime::AGENT_VERSION;

use super::{
    journal::{Conclusion, NewReply, StepRecord},
    output::{COMBINED_BYTES, STREAM_BYTES, combined_text, cut, stream_text},
};

/// Larger payloads are dropped by peers.
const MAX_PAYLOAD_BYTES: usize = 120_000;
const MAX_TRACE_BYTES: usize = 2_500;

/// How a command ends whose worker died without saying how.
pub(super) const LOST: &str = "the command's worker ended unexpectedly; the outcome is unknown";
/// How a command ends whose reboot has not come.
pub(super) const NO_REBOOT: &str = "the step asked for a reboot, and the node was not rebooted";

/// The form on the wire of what a step came to. `started` and `ended` are Unix milliseconds.
pub(super) fn step_reply(outcome: StepOutcome, action: &str, started: u64, ended: u64) -> StepReply {
    let StepOutcome {
        status,
        code,
        stdout,
        stderr,
        text,
    } = outcome;
    StepReply {
        status,
        // A failure without a code of its own would read as a success.
        code: if status == ResultStatus::Failed && code == 0 {
            1
        } else {
            code
        },
        name: action.to_owned(),
        output: match text {
            Some(text) => combined_text(&text, "", COMBINED_BYTES),
            None => combined_text(&stdout, &stderr, COMBINED_BYTES),
        },
        start_date_time: iso(started),
        end_date_time: iso(ended),
        output_s3_bucket_name: String::new(),
        output_s3_key_prefix: String::new(),
        step_name: String::new(),
        standard_output: stream_text(&stdout, STREAM_BYTES),
        standard_error: stream_text(&stderr, STREAM_BYTES),
    }
}

/// Steps so far, by status.
pub(super) type Counts = BTreeMap<String, i64>;

pub(super) fn counts(steps: impl Iterator<Item = ResultStatus>) -> Counts {
    let mut counts = Counts::new();
    for status in steps {
        *counts.entry(status.as_str().to_owned()).or_default() += 1;
    }
    counts
}

/// The acknowledgement of a job, as JSON text. `created_date` is that of the job's frame.
pub(super) fn job_ack(job_id: &str, message_id: Uuid, created_date: u64, code: JobAckCode) -> String {
    let (status_code, error_message) = code.wire();
    json(&AgentJobAck {
        job_id: job_id.to_owned(),
        acknowledged_message_id: message_id.to_string(),
        created_date: iso(created_date),
        status_code: status_code.to_owned(),
        error_message: error_message.to_owned(),
    })
}

/// The first reply to a job: it has been taken in. Sent once and never kept.
pub(super) fn in_progress(job_id: &str, is_cancel: bool, now: u64) -> String {
    let topic = if is_cancel {
        TOPIC_CANCEL_COMMAND
    } else {
        TOPIC_SEND_COMMAND
    };
    let content = content(ResultStatus::InProgress, None, None, "", now);
    job_reply(job_id, topic, &content)
}

/// One finished step.
pub(super) fn step(job_id: &str, name: &str, step: &StepReply, counts: Counts, now: u64) -> NewReply {
    new_reply(
        job_id,
        content(ResultStatus::InProgress, Some(counts), one(name, step), "", now),
        false,
    )
}

/// The end of a document; with its step when it has only one (`only_step`).
pub(super) fn end(
    job_id: &str,
    status: ResultStatus,
    only_step: Option<(&str, &StepReply)>,
    counts: Counts,
    trace: &str,
    now: u64,
) -> NewReply {
    new_reply(job_id, end_content(status, only_step, counts, trace, now), true)
}

fn end_content(
    status: ResultStatus,
    only_step: Option<(&str, &StepReply)>,
    counts: Counts,
    trace: &str,
    now: u64,
) -> ReplyContent {
    let steps = only_step.map_or_else(|| Some(Map::new()), |(name, step)| one(name, step));
    content(status, Some(counts), steps, trace, now)
}

/// The end of a command that never ran: every step says so. `steps` are their actions and names.
pub(super) fn never_run(
    job_id: &str,
    steps: &[(String, String)],
    status: ResultStatus,
    reason: &str,
    now: u64,
) -> Conclusion {
    let mut replies = Vec::with_capacity(steps.len() + 1);
    let end = unrun(job_id, steps, (status, reason), &mut replies, now);
    replies.push(new_reply(job_id, end, true));
    Conclusion { status, replies }
}

/// The end of a command that the node's owner does not allow. Only endpoints of ours know the word for it.
pub(super) fn refused(
    job_id: &str,
    steps: &[(String, String)],
    reason: &str,
    is_moorline: bool,
    now: u64,
) -> Conclusion {
    let status = ResultStatus::Failed;
    let mut replies = Vec::with_capacity(steps.len() + 1);
    let end = ReplyContent {
        moorline_refused: is_moorline.then_some(true),
        ..unrun(job_id, steps, (status, reason), &mut replies, now)
    };
    replies.push(new_reply(job_id, end, true));
    Conclusion { status, replies }
}

/// Adds a reply for every step, and gives the content of the last one.
fn unrun(
    job_id: &str,
    steps: &[(String, String)],
    (status, reason): (ResultStatus, &str),
    replies: &mut Vec<NewReply>,
    now: u64,
) -> ReplyContent {
    let mut only_step = None;
    for (index, (action, name)) in steps.iter().enumerate() {
        let outcome = StepOutcome {
            stderr: reason.to_owned(),
            ..StepOutcome::not_run(status, 1, reason)
        };
        let reply = step_reply(outcome, action, now, now);
        let counts = counts(std::iter::repeat_n(status, index + 1));
        replies.push(step(job_id, name, &reply, counts, now));
        only_step = (steps.len() == 1).then_some((name.as_str(), reply));
    }
    let counts = counts(std::iter::repeat_n(status, steps.len()));
    let only_step = only_step.as_ref().map(|(name, reply)| (*name, reply));
    end_content(status, only_step, counts, reason, now)
}

/// The end of a command whose worker is gone, for this reason: what finished stays, the step that ran is unknown, the rest never ran.
/// `partial` tells what the step that ran had written, by its name and position.
pub(super) fn lost(
    job_id: &str,
    steps: &[StepRecord],
    reason: &str,
    partial: impl FnOnce(&str, usize) -> (String, String),
    now: u64,
) -> Conclusion {
    let mut statuses: Vec<ResultStatus> = steps.iter().filter_map(|step| step.status).collect();
    let mut replies = Vec::new();
    let mut only_step = None;
    let mut partial = Some(partial);
    let open = steps.iter().enumerate().filter(|(_, step)| step.status.is_none());
    for (position, record) in open {
        let outcome = match partial.take() {
            Some(partial) => {
                let (stdout, stderr) = partial(&record.name, position);
                // The reason first: it must not be what is cut off.
                let stderr = format!("{reason}\n{stderr}");
                StepOutcome {
                    status: ResultStatus::Failed,
                    code: -1,
                    stdout,
                    stderr,
                    text: None,
                }
            }
            None => StepOutcome::not_run(ResultStatus::Cancelled, 1, format!("not run: {reason}")),
        };
        statuses.push(outcome.status);
        let reply = step_reply(outcome, &record.action, now, now);
        replies.push(step(
            job_id,
            &record.name,
            &reply,
            counts(statuses.iter().copied()),
            now,
        ));
        if steps.len() == 1 {
            only_step = Some((record.name.as_str(), reply));
        }
    }
    let only_step = only_step.as_ref().map(|(name, reply)| (*name, reply));
    let counts = counts(statuses.iter().copied());
    // Even if every step has finished: the end itself was not recorded, so something went wrong after them.
    let status = ResultStatus::Failed;
    replies.push(end(job_id, status, only_step, counts, reason, now));
    Conclusion { status, replies }
}

/// The reply to a job whose document cannot be read; the acknowledgement has said so already.
pub(super) fn unreadable(job_id: &str, reason: &str, now: u64) -> String {
    let content = content(ResultStatus::Failed, None, None, reason, now);
    job_reply(job_id, TOPIC_SEND_COMMAND, &content)
}

fn one(name: &str, step: &StepReply) -> Option<Map<String, Value>> {
    let value = serde_json::to_value(step).unwrap_or_default();
    Some(Map::from_iter([(name.to_owned(), value)]))
}

fn content(
    status: ResultStatus,
    counts: Option<Counts>,
    steps: Option<Map<String, Value>>,
    trace: &str,
    now: u64,
) -> ReplyContent {
    ReplyContent {
        additional_info: AdditionalInfo {
            agent: AgentInfo {
                lang: "en-US".to_owned(),
                name: "amazon-ssm-agent".to_owned(),
                os: "linux".to_owned(),
                osver: "1".to_owned(),
                ver: AGENT_VERSION.to_owned(),
            },
            date_time: iso(now),
            run_id: String::new(),
            runtime_status_counts: counts,
        },
        document_status: status,
        document_trace_output: cut(trace, MAX_TRACE_BYTES, "..."),
        runtime_status: steps,
        moorline_refused: None,
    }
}

fn new_reply(job_id: &str, content: ReplyContent, is_final: bool) -> NewReply {
    NewReply {
        message_id: Uuid::new_v4(),
        is_final,
        payload: fitting(job_id, content),
    }
}

/// The payload, with the streams cut further until it is small enough: JSON in JSON may take several bytes for one.
fn fitting(job_id: &str, mut content: ReplyContent) -> String {
    let mut limit = STREAM_BYTES;
    loop {
        let payload = job_reply(job_id, TOPIC_SEND_COMMAND, &content);
        if payload.len() <= MAX_PAYLOAD_BYTES || limit == 0 {
            return payload;
        }
        limit = limit / 4 * 3;
        if limit < 1_000 {
            limit = 0;
        }
        for step in content.runtime_status.iter_mut().flat_map(Map::values_mut) {
            for stream in ["standardOutput", "standardError"] {
                if let Some(Value::String(text)) = step.get_mut(stream) {
                    *text = stream_text(text, limit);
                }
            }
        }
    }
}

fn job_reply(job_id: &str, topic: &str, content: &ReplyContent) -> String {
    json(&AgentJobReply {
        schema_version: 1,
        job_id: job_id.to_owned(),
        content: json(content),
        topic: topic.to_owned(),
    })
}

fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).expect("texts, numbers and maps with text keys always have a JSON form")
}

/// ISO 8601 in UTC with milliseconds.
pub(super) fn iso(unix_millis: u64) -> String {
    let time = i64::try_from(unix_millis)
        .ok()
        .and_then(|millis| Timestamp::from_millisecond(millis).ok());
    time.unwrap_or(Timestamp::UNIX_EPOCH)
        .strftime("%Y-%m-%dT%H:%M:%S%.3fZ")
        .to_string()
}

#[cfg(test)]
mod tests;
