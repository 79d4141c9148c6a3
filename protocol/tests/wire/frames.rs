//! Every frame of the captured runs is read, and written again byte for byte.

use moorline_protocol::message::{
    Acknowledge, AgentJobAck, AgentJobReply, AgentMessage, AgentSessionState, AgentTaskComplete, MessageType,
    ReplyContent,
};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::vectors::{RUNS, frames};

#[test]
fn captured_frames_survive_a_round_trip() {
    let mut count = 0;
    for run in RUNS {
        for frame in frames(run).iter().filter(|frame| frame.is_binary) {
            let message = AgentMessage::decode(&frame.bytes).unwrap();
            assert!(
                !matches!(message.message_type, MessageType::Unknown(_)),
                "{message:?}"
            );
            assert_eq!(message.encode(), frame.bytes, "{} {message:?}", frame.channel);
            count += 1;
        }
    }
    assert_eq!(count, 218);
}

/// Reads a payload into its type; nothing is lost on the way back.
fn reads_back<T: DeserializeOwned + serde::Serialize>(payload: &[u8]) -> T {
    let typed: T = serde_json::from_slice(payload).unwrap();
    let value: Value = serde_json::from_slice(payload).unwrap();
    assert_eq!(serde_json::to_value(&typed).unwrap(), value);
    typed
}

#[test]
fn captured_payloads_of_the_agent_fit_their_types() {
    let mut count = 0;
    for run in RUNS {
        for frame in frames(run)
            .iter()
            .filter(|frame| frame.is_binary && !frame.to_agent)
        {
            let message = AgentMessage::decode(&frame.bytes).unwrap();
            match message.message_type {
                MessageType::Acknowledge => drop(reads_back::<Acknowledge>(&message.payload)),
                MessageType::AgentSessionState => drop(reads_back::<AgentSessionState>(&message.payload)),
                MessageType::AgentTaskComplete => drop(reads_back::<AgentTaskComplete>(&message.payload)),
                MessageType::AgentJobAck => drop(reads_back::<AgentJobAck>(&message.payload)),
                MessageType::AgentJobReply => {
                    let reply: AgentJobReply = reads_back(&message.payload);
                    let content: ReplyContent = reads_back(reply.content.as_bytes());
                    let steps = content.runtime_status.as_ref().map_or(0, serde_json::Map::len);
                    assert_eq!(content.steps().len(), steps);
                }
                _ => continue,
            }
            count += 1;
        }
    }
    assert!(count > 60, "{count}");
}
