//! `NAME.result.json`: what has become of a document, from the replies that an endpoint would have got.

use moorline_protocol::message::{AgentJobReply, ReplyContent, ResultStatus, StepReply};
use serde_json::{Value, json};

/// The result of a command that has ended; `replies` are its payloads, in their order.
pub(in crate::command) fn ended(command_id: &str, replies: &[String]) -> String {
    let mut steps: Vec<(String, StepReply)> = Vec::new();
    let mut end: Option<ReplyContent> = None;
    let contents = replies.iter().filter_map(|payload| {
        let reply: AgentJobReply = serde_json::from_str(payload).ok()?;
        serde_json::from_str::<ReplyContent>(&reply.content).ok()
    });
    for content in contents {
        for (name, step) in content.steps() {
            // The end of an only step repeats it.
            match steps.iter_mut().find(|(known, _)| *known == name) {
                Some((_, known)) => *known = step,
                None => steps.push((name, step)),
            }
        }
        if content.document_status.is_terminal() {
            end = Some(content);
        }
    }
    let steps: Vec<Value> = steps.iter().map(|(name, step)| step_value(name, step)).collect();
    // Without an end that can be read nothing is known, and nothing is called a success.
    let status = end
        .as_ref()
        .map_or(ResultStatus::Failed, |end| end.document_status);
    let reason = end.as_ref().map_or("", |end| &end.document_trace_output);
    text(&json!({
        "commandId": command_id, "status": status.as_str(), "reason": reason,
        "ended": end.as_ref().map(|end| &end.additional_info.date_time), "steps": steps,
    }))
}

/// The result of a document that cannot be run.
pub(in crate::command) fn refused(reason: &str) -> String {
    text(&json!({"status": "Failed", "reason": reason, "steps": []}))
}

fn step_value(name: &str, step: &StepReply) -> Value {
    json!({
        "name": name, "action": step.name, "status": step.status.as_str(), "code": step.code,
        "output": step.output, "standardOutput": step.standard_output, "standardError": step.standard_error,
        "started": step.start_date_time, "ended": step.end_date_time,
    })
}

fn text(value: &Value) -> String {
    format!("{value:#}\n")
}
