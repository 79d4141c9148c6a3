//! What a stock agent was seen to send about its jobs, through the engine, in its order and turned round.

use std::{collections::BTreeMap, path::Path};

use bytes::Bytes;
use moorline_protocol::{
    document::CommandDocument,
    message::{
        AgentJob, AgentJobAck, AgentJobReply, AgentMessage, MessageType, SendCommandContent,
        TOPIC_SEND_COMMAND,
    },
};
use serde_json::Value;

use super::*;

const START: u64 = 1_000_000;
const DEADLINES: Deadlines = Deadlines {
    delivery: START + 60_000,
    execution_millis: 3_600_000,
};

#[derive(Debug, Clone)]
enum Answer {
    Ack(JobAckCode, Option<Uuid>),
    Reply(Reply),
}

/// A job of the capture: the steps of its document, its message, what the agent answered.
#[derive(Debug, Default)]
struct Job {
    step_names: Vec<String>,
    message_id: Option<Uuid>,
    answers: Vec<Answer>,
}

fn jobs(run: &str) -> BTreeMap<String, Job> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../tests/data/vectors")
        .join(run);
    let text = std::fs::read_to_string(path).unwrap();
    let mut jobs: BTreeMap<String, Job> = BTreeMap::new();
    for line in text.lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        let is_control = line["channel"]
            .as_str()
            .is_some_and(|channel| channel.contains("control-channel"));
        if !is_control || line["opcode"] != 2 {
            continue;
        }
        let message = AgentMessage::decode(&Bytes::from(unhex(line["hex"].as_str().unwrap()))).unwrap();
        match message.message_type {
            MessageType::AgentJob => {
                let job: AgentJob = serde_json::from_slice(&message.payload).unwrap();
                let Ok(content) = serde_json::from_str::<SendCommandContent>(&job.content) else {
                    continue;
                };
                assert!(job.topic.starts_with(TOPIC_SEND_COMMAND));
                let document = CommandDocument::parse(&content.document_content);
                let known = jobs.entry(job.job_id).or_default();
                known.message_id.get_or_insert(message.message_id);
                known.step_names = document.map_or_else(
                    |_| Vec::new(),
                    |document| document.step_names().map(|(_, name)| name.to_owned()).collect(),
                );
            }
            MessageType::AgentJobAck => {
                let ack: AgentJobAck = serde_json::from_slice(&message.payload).unwrap();
                let code = JobAckCode::from_status_code(&ack.status_code);
                let answer = Answer::Ack(code, ack.acknowledged_message_id.parse().ok());
                jobs.entry(ack.job_id).or_default().answers.push(answer);
            }
            MessageType::AgentJobReply => {
                let reply: AgentJobReply = serde_json::from_slice(&message.payload).unwrap();
                let answer = Answer::Reply(Reply::parse(&reply).unwrap());
                jobs.entry(reply.job_id).or_default().answers.push(answer);
            }
            _ => {}
        }
    }
    jobs.retain(|_, job| job.message_id.is_some());
    jobs
}

fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u32> = text.chars().map(|digit| digit.to_digit(16).unwrap()).collect();
    digits
        .chunks(2)
        .map(|pair| u8::try_from(pair[0] * 16 + pair[1]).unwrap())
        .collect()
}

/// How the invocation ends, and of which steps it has a final result then.
fn end(job: &Job, answers: impl Iterator<Item = Answer>) -> (Option<Outcome>, BTreeMap<String, bool>) {
    let mut invocation = Invocation::accepted(START, DEADLINES);
    invocation.sent(job.message_id.unwrap(), START);
    for answer in answers {
        match answer {
            Answer::Ack(code, message_id) => invocation.job_acknowledged(code, message_id, DEADLINES, START),
            Answer::Reply(reply) => {
                invocation.replied(&reply, &job.step_names, DEADLINES, START);
            }
        }
    }
    invocation.time_passed(START + SETTLING_MILLIS);
    let outcome = invocation.outcome();
    let steps = invocation.steps.into_iter();
    (outcome, steps.map(|(name, rank)| (name, rank.is_final)).collect())
}

fn reported(job: &Job) -> Option<Outcome> {
    job.answers.iter().find_map(|answer| match answer {
        Answer::Reply(reply) => Outcome::from_document(reply.document_status, reply.is_refused),
        Answer::Ack(..) => None,
    })
}

#[test]
fn jobs_of_a_stock_agent_end_as_it_reported_in_its_order_and_turned_round() {
    let mut ended = BTreeMap::new();
    for run in ["agent-run-a.jsonl", "agent-run-b.jsonl"] {
        for (id, job) in jobs(run) {
            let reported = reported(&job);
            let in_order = end(&job, job.answers.iter().cloned());
            assert_eq!(in_order.0, reported, "{run} {id}");
            assert_eq!(in_order.1.len(), job.step_names.len(), "{run} {id}: {in_order:?}");
            assert_eq!(
                end(&job, job.answers.iter().rev().cloned()),
                in_order,
                "{run} {id}"
            );
            *ended.entry(format!("{:?}", in_order.0)).or_insert(0) += 1;
        }
    }
    assert!(ended.len() >= 3, "the capture has several ends: {ended:?}");
}
