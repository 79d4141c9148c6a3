//! The frame itself: its layout (agent-wire §5, client-wire §3.1) and its two enumerations of kinds.
//!
//! All integers are big-endian, one websocket message is one frame:
//!
//! | offset | bytes | field |
//! | --- | --- | --- |
//! | 0 | 4 | header length: the number of bytes before the payload length |
//! | 4 | 32 | message type, padded |
//! | 36 | 4 | schema version |
//! | 40 | 8 | created date, Unix milliseconds |
//! | 48 | 8 | sequence number |
//! | 56 | 8 | flags |
//! | 64 | 16 | message id, the halves of the UUID swapped |
//! | 80 | 32 | SHA-256 of the payload |
//! | 112 | 4 | payload type; absent in the short header of 112 bytes |
//! | 116 | 4 | payload length |
//! | 120 | n | payload |

use bytes::{BufMut, Bytes, BytesMut};
use ring::digest;
use uuid::Uuid;

use crate::time::Now;

/// The largest frame that is taken from a peer, in bytes. Bounds the memory one message can cost.
/// Command documents travel in control messages, so this is well above the 120,000 bytes of a reply.
pub const MAX_FRAME_BYTES: usize = 1024 * 1024;

/// Bytes before the payload in the frames that [`AgentMessage::encode`] writes.
pub const FRAME_HEADER_BYTES: usize = LONG_HEADER as usize + 4;

/// Header without a payload type: messages that AWS itself makes (client-wire §3.7).
const SHORT_HEADER: u32 = 112;
/// Header with a payload type: what everyone else sends.
const LONG_HEADER: u32 = 116;
const MESSAGE_TYPE_BYTES: usize = 32;

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
    /// Ours.
    MoorlinePolicyAnswer,
    /// Ours.
    MoorlinePolicyQuestion,
    OutputStreamData,
    PausePublication,
    StartPublication,
    /// At most 32 bytes of text.
    Unknown(String),
}

impl MessageType {
    /// The text on the wire, without padding.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Acknowledge => "acknowledge",
            Self::AgentJob => "agent_job",
            Self::AgentJobAck => "agent_job_ack",
            Self::AgentJobReply => "agent_job_reply",
            Self::AgentJobReplyAck => "agent_job_reply_ack",
            Self::AgentSessionState => "agent_session_state",
            Self::AgentTaskAcknowledge => "agent_task_acknowledge",
            Self::AgentTaskComplete => "agent_task_complete",
            Self::AgentTelemetry => "agent_telemetry",
            Self::AgentUpdateResult => "agent_update_result",
            Self::ChannelClosed => "channel_closed",
            Self::InputStreamData => "input_stream_data",
            Self::InteractiveShell => "interactive_shell",
            Self::MoorlinePolicyAnswer => "moorline_policy_answer",
            Self::MoorlinePolicyQuestion => "moorline_policy_question",
            Self::OutputStreamData => "output_stream_data",
            Self::PausePublication => "pause_publication",
            Self::StartPublication => "start_publication",
            Self::Unknown(text) => text,
        }
    }

    /// The type of this name; [`Self::Unknown`] when the list has none.
    pub fn from_name(name: &str) -> Self {
        match name {
            "acknowledge" => Self::Acknowledge,
            "agent_job" => Self::AgentJob,
            "agent_job_ack" => Self::AgentJobAck,
            "agent_job_reply" => Self::AgentJobReply,
            "agent_job_reply_ack" => Self::AgentJobReplyAck,
            "agent_session_state" => Self::AgentSessionState,
            "agent_task_acknowledge" => Self::AgentTaskAcknowledge,
            "agent_task_complete" => Self::AgentTaskComplete,
            "agent_telemetry" => Self::AgentTelemetry,
            "agent_update_result" => Self::AgentUpdateResult,
            "channel_closed" => Self::ChannelClosed,
            "input_stream_data" => Self::InputStreamData,
            "interactive_shell" => Self::InteractiveShell,
            "moorline_policy_answer" => Self::MoorlinePolicyAnswer,
            "moorline_policy_question" => Self::MoorlinePolicyQuestion,
            "output_stream_data" => Self::OutputStreamData,
            "pause_publication" => Self::PausePublication,
            "start_publication" => Self::StartPublication,
            other => Self::Unknown(other.to_owned()),
        }
    }
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

impl From<u32> for PayloadType {
    fn from(number: u32) -> Self {
        match number {
            0 => Self::None,
            1 => Self::Output,
            2 => Self::Error,
            3 => Self::Size,
            4 => Self::Parameter,
            5 => Self::HandshakeRequest,
            6 => Self::HandshakeResponse,
            7 => Self::HandshakeComplete,
            8 => Self::EncChallengeRequest,
            9 => Self::EncChallengeResponse,
            10 => Self::Flag,
            11 => Self::StdErr,
            12 => Self::ExitCode,
            other => Self::Unknown(other),
        }
    }
}

impl From<PayloadType> for u32 {
    fn from(payload_type: PayloadType) -> Self {
        match payload_type {
            PayloadType::None => 0,
            PayloadType::Output => 1,
            PayloadType::Error => 2,
            PayloadType::Size => 3,
            PayloadType::Parameter => 4,
            PayloadType::HandshakeRequest => 5,
            PayloadType::HandshakeResponse => 6,
            PayloadType::HandshakeComplete => 7,
            PayloadType::EncChallengeRequest => 8,
            PayloadType::EncChallengeResponse => 9,
            PayloadType::Flag => 10,
            PayloadType::StdErr => 11,
            PayloadType::ExitCode => 12,
            PayloadType::Unknown(number) => number,
        }
    }
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
    /// The frame is well formed, but its JSON is not that of its type.
    #[error("payload of {0} cannot be read")]
    Payload(&'static str),
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
        if frame.len() > MAX_FRAME_BYTES {
            return Err(FrameError::TooLong(frame.len()));
        }
        Self::decode_within(frame).ok_or(FrameError::TooShort(frame.len()))?
    }

    /// `None` when the frame ends inside its header.
    fn decode_within(frame: &Bytes) -> Option<Result<Self, FrameError>> {
        let mut header = Reader(frame);
        let header_length = u32::from_be_bytes(header.take()?);
        if !(SHORT_HEADER..=LONG_HEADER).contains(&header_length) {
            return Some(Err(FrameError::HeaderLength(header_length)));
        }
        let name: [u8; MESSAGE_TYPE_BYTES] = header.take()?;
        let schema_version = u32::from_be_bytes(header.take()?);
        let created_date = u64::from_be_bytes(header.take()?);
        let sequence_number = i64::from_be_bytes(header.take()?);
        let flags = u64::from_be_bytes(header.take()?);
        let swapped_id = u128::from_be_bytes(header.take()?);
        let _digest: [u8; 32] = header.take()?;
        let payload_type = if header_length == LONG_HEADER {
            PayloadType::from(u32::from_be_bytes(header.take()?))
        } else {
            for _ in SHORT_HEADER..header_length {
                let _filler: [u8; 1] = header.take()?;
            }
            PayloadType::None
        };
        let stated = u32::from_be_bytes(header.take()?);
        let payload = frame.slice_ref(header.0);

        let Some(message_type) = read_message_type(&name) else {
            return Some(Err(FrameError::MessageType));
        };
        if sequence_number < 0 {
            return Some(Err(FrameError::SequenceNumber(sequence_number)));
        }
        if u32::try_from(payload.len()) != Ok(stated) {
            let actual = payload.len();
            return Some(Err(FrameError::PayloadLength { stated, actual }));
        }
        Some(Ok(Self {
            message_type,
            schema_version,
            created_date,
            sequence_number,
            flags,
            message_id: Uuid::from_u128(swapped_id.rotate_left(64)),
            payload_type,
            payload,
        }))
    }

    /// Writes the strict form: header length 116, space padding, right digest and length.
    ///
    /// A payload above 4 GiB cannot be stated and would be refused by every peer; callers stay below
    /// [`MAX_FRAME_BYTES`].
    pub fn encode(&self) -> Bytes {
        let mut frame = BytesMut::with_capacity(FRAME_HEADER_BYTES + self.payload.len());
        frame.put_u32(LONG_HEADER);
        let name = self.message_type.as_str().as_bytes();
        let name = name.get(..MESSAGE_TYPE_BYTES).unwrap_or(name);
        frame.put_slice(name);
        frame.put_bytes(b' ', MESSAGE_TYPE_BYTES - name.len());
        frame.put_u32(self.schema_version);
        frame.put_u64(self.created_date);
        frame.put_i64(self.sequence_number);
        frame.put_u64(self.flags);
        frame.put_u128(self.message_id.as_u128().rotate_left(64));
        frame.put_slice(digest::digest(&digest::SHA256, &self.payload).as_ref());
        frame.put_u32(self.payload_type.into());
        frame.put_u32(u32::try_from(self.payload.len()).unwrap_or(u32::MAX));
        frame.put_slice(&self.payload);
        frame.freeze()
    }
}

/// Takes fields from the front; what is left is the payload.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (field, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*field)
    }
}

/// `None` when nothing printable is left inside the padding.
fn read_message_type(padded: &[u8]) -> Option<MessageType> {
    let text = std::str::from_utf8(padded).ok()?;
    let name = text.trim_matches(|c: char| c == '\0' || c.is_ascii_whitespace());
    let printable = |b: u8| b == b' ' || b.is_ascii_graphic();
    (!name.is_empty() && name.bytes().all(printable)).then(|| MessageType::from_name(name))
}

#[cfg(test)]
mod tests;
