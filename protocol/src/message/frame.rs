//! The frame itself.

use bytes::Bytes;
use uuid::Uuid;

use crate::time::Now;

/// The largest frame that is taken from a peer, in bytes. Bounds the memory one message can cost.
/// Command documents travel in control messages, so this is well above the 120,000 bytes of a reply.
pub const MAX_FRAME_BYTES: usize = 1024 * 1024;

/// What a message is (agent-wire §5). `Unknown` keeps the text, since a newer peer may send more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MessageType {
    Acknowledge,
    AgentJob,
    AgentJobAck,
    AgentJobReply,
    AgentJobReplyAck,
    AgentSessionState,
    AgentTaskAcknowledge,
    AgentTaskComplete,
    AgentTelemetry,
    AgentUpdateResult,
    ChannelClosed,
    InputStreamData,
    InteractiveShell,
    OutputStreamData,
    PausePublication,
    StartPublication,
    /// At most 32 bytes of text.
    Unknown(String),
}

/// What the payload of a stream message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PayloadType {
    None,
    Output,
    Error,
    Size,
    Parameter,
    HandshakeRequest,
    HandshakeResponse,
    HandshakeComplete,
    EncChallengeRequest,
    EncChallengeResponse,
    Flag,
    StdErr,
    ExitCode,
    Unknown(u32),
}

/// Bit 0: first message of a stream.
pub const FLAG_SYN: u64 = 1;
/// Bit 1: last or single message.
pub const FLAG_FIN: u64 = 2;

/// One message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentMessage {
    pub message_type: MessageType,
    pub schema_version: u32,
    /// Milliseconds since the Unix epoch.
    pub created_date: u64,
    pub sequence_number: i64,
    pub flags: u64,
    pub message_id: Uuid,
    pub payload_type: PayloadType,
    pub payload: Bytes,
}

/// Why bytes are not a message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    #[error("frame of {0} bytes is shorter than its header")]
    TooShort(usize),
    #[error("frame of {0} bytes is above the limit of {MAX_FRAME_BYTES}")]
    TooLong(usize),
    #[error("header length {0} is not between 112 and 116")]
    HeaderLength(u32),
    #[error("message type is empty or not printable ASCII")]
    MessageType,
    #[error("sequence number {0} is negative")]
    SequenceNumber(i64),
    #[error("payload length {stated} does not match the {actual} bytes present")]
    PayloadLength { stated: u32, actual: usize },
}

impl AgentMessage {
    /// A control message: sequence number 0, no payload type, schema version 1.
    pub fn control(
        message_type: MessageType,
        message_id: Uuid,
        now: Now,
        flags: u64,
        payload: Bytes,
    ) -> Self {
        Self {
            message_type,
            schema_version: 1,
            created_date: now.unix_millis,
            sequence_number: 0,
            flags,
            message_id,
            payload_type: PayloadType::None,
            payload,
        }
    }

    /// Reads one frame. Accepts header lengths 112 to 116 and NUL or space padding on both sides
    /// (client-wire §3.7); the digest is not checked, as some clients send a wrong one (client-wire §6.2).
    ///
    /// # Errors
    /// The frame is malformed; the caller drops it and counts.
    pub fn decode(frame: &Bytes) -> Result<Self, FrameError> {
        let _ = frame;
        todo!()
    }

    /// Writes the strict form: header length 116, space padding, right digest and length.
    pub fn encode(&self) -> Bytes {
        todo!()
    }
}
