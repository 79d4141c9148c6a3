use std::time::Duration;

use proptest::prelude::*;

use super::*;

const ID: Uuid = Uuid::from_u128(0x0011_2233_4455_6677_8899_aabb_ccdd_eeff);

fn bytes_of(hex: &str) -> Bytes {
    let digits: Vec<u8> = hex
        .bytes()
        .filter_map(|b| char::from(b).to_digit(16))
        .map(|digit| u8::try_from(digit).unwrap())
        .collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

fn input(
    sequence_number: i64,
    flags: u64,
    payload_type: PayloadType,
    payload: &'static [u8],
) -> AgentMessage {
    AgentMessage {
        message_type: MessageType::InputStreamData,
        schema_version: 1,
        created_date: 1_700_000_000_000,
        sequence_number,
        flags,
        message_id: ID,
        payload_type,
        payload: Bytes::from_static(payload),
    }
}

fn control(message_type: MessageType, payload: &'static [u8]) -> AgentMessage {
    let now = Now {
        monotonic: Duration::ZERO,
        unix_millis: 1_700_000_000_000,
    };
    AgentMessage::control(
        message_type,
        ID,
        now,
        FLAG_SYN | FLAG_FIN,
        Bytes::from_static(payload),
    )
}

/// The vectors of agent-wire §5 and client-wire §3.8.
fn golden() -> Vec<(&'static str, AgentMessage, &'static str)> {
    let ack = br#"{"AcknowledgedMessageType":"output_stream_data","AcknowledgedMessageId":"00112233-4455-6677-8899-aabbccddeeff","AcknowledgedMessageSequenceNumber":7,"IsSequentialMessage":true}"#;
    vec![
        (
            "size with SYN",
            input(0, FLAG_SYN, PayloadType::Size, br#"{"cols":80,"rows":24}"#),
            "00000074696e7075745f73747265616d5f646174612020202020202020202020
             20202020000000010000018bcfe5680000000000000000000000000000000001
             8899aabbccddeeff0011223344556677d53ca1ea7dce87c11432052a8550ed26
             15cf715ca843c89710ed83325b691cba00000003000000157b22636f6c73223a
             38302c22726f7773223a32347d",
        ),
        (
            "output",
            input(5, 0, PayloadType::Output, b"ls\r"),
            "00000074696e7075745f73747265616d5f646174612020202020202020202020
             20202020000000010000018bcfe5680000000000000000050000000000000000
             8899aabbccddeeff00112233445566771d887ce0f8672e4914d9000e801cd74e
             cd805dd9366c0bc42dc16adc0197dc2f00000001000000036c730d",
        ),
        (
            "flag",
            input(1, 0, PayloadType::Flag, &[0, 0, 0, 2]),
            "00000074696e7075745f73747265616d5f646174612020202020202020202020
             20202020000000010000018bcfe5680000000000000000010000000000000000
             8899aabbccddeeff0011223344556677433ebf5bc03dffa38536673207a21281
             612cef5faa9bc7a4d5b9be2fdb12cf1a0000000a0000000400000002",
        ),
        (
            "start",
            control(MessageType::StartPublication, b""),
            "0000007473746172745f7075626c69636174696f6e2020202020202020202020
             20202020000000010000018bcfe5680000000000000000000000000000000003
             8899aabbccddeeff0011223344556677e3b0c44298fc1c149afbf4c8996fb924
             27ae41e4649b934ca495991b7852b8550000000000000000",
        ),
        (
            "acknowledge",
            control(MessageType::Acknowledge, ack),
            "0000007461636b6e6f776c656467652020202020202020202020202020202020
             20202020000000010000018bcfe5680000000000000000000000000000000003
             8899aabbccddeeff001122334455667762d57ca2dfb7aa0eee6a8e12491c3e9f
             effd166f2b0f36b96eba41866669e85400000000000000b07b2241636b6e6f77
             6c65646765644d65737361676554797065223a226f75747075745f7374726561
             6d5f64617461222c2241636b6e6f776c65646765644d6573736167654964223a
             2230303131323233332d343435352d363637372d383839392d61616262636364
             6465656666222c2241636b6e6f776c65646765644d6573736167655365717565
             6e63654e756d626572223a372c22497353657175656e7469616c4d6573736167
             65223a747275657d",
        ),
    ]
}

#[test]
fn golden_frames() {
    for (name, message, hex) in golden() {
        let frame = bytes_of(hex);
        assert_eq!(message.encode(), frame, "{name}");
        assert_eq!(AgentMessage::decode(&frame), Ok(message), "{name}");
    }
}

/// What AWS makes itself: no payload type, NUL padding, a digest of something else (client-wire §3.7).
#[test]
fn short_header_with_nul_padding() {
    let mut frame = 112_u32.to_be_bytes().to_vec();
    frame.extend(b"channel_closed");
    frame.resize(36, 0);
    frame.extend(1_u32.to_be_bytes());
    frame.extend(1_700_000_000_000_u64.to_be_bytes());
    frame.extend([0; 8]);
    frame.extend(3_u64.to_be_bytes());
    frame.extend(ID.as_u128().rotate_left(64).to_be_bytes());
    frame.extend([0xaa; 32]);
    frame.extend(2_u32.to_be_bytes());
    frame.extend(b"{}");
    let message = AgentMessage::decode(&frame.into()).unwrap();
    assert_eq!(message, control(MessageType::ChannelClosed, b"{}"));
}

/// `ssm-session` pads on the left with NUL and sends a wrong digest (client-wire §6.1).
#[test]
fn left_padding_and_wrong_digest() {
    let message = input(5, 0, PayloadType::Output, b"ls\r");
    let mut frame = message.encode().to_vec();
    frame[4..36].fill(0);
    frame[19..36].copy_from_slice(b"input_stream_data");
    frame[80..112].fill(b'x');
    assert_eq!(AgentMessage::decode(&frame.into()), Ok(message));
}

#[test]
fn malformed_frames_are_named() {
    let good = input(5, 0, PayloadType::Output, b"ls\r").encode().to_vec();
    let changed = |at: usize, bytes: &[u8]| {
        let mut frame = good.clone();
        frame[at..at + bytes.len()].copy_from_slice(bytes);
        AgentMessage::decode(&frame.into()).unwrap_err()
    };
    assert_eq!(changed(0, &[0, 0, 0, 111]), FrameError::HeaderLength(111));
    assert_eq!(changed(0, &[0, 0, 0, 117]), FrameError::HeaderLength(117));
    assert_eq!(changed(4, &[b' '; 32]), FrameError::MessageType);
    assert_eq!(changed(4, b"\x01"), FrameError::MessageType);
    assert_eq!(changed(4, &[0xff]), FrameError::MessageType);
    assert_eq!(
        changed(48, &(-1_i64).to_be_bytes()),
        FrameError::SequenceNumber(-1)
    );
    for stated in [0_u32, 2, 4, u32::MAX] {
        let expected = FrameError::PayloadLength { stated, actual: 3 };
        assert_eq!(changed(116, &stated.to_be_bytes()), expected);
    }
    for length in 0..FRAME_HEADER_BYTES {
        let cut = Bytes::copy_from_slice(&good[..length]);
        assert_eq!(AgentMessage::decode(&cut), Err(FrameError::TooShort(length)));
    }
    let long = Bytes::from(vec![0; MAX_FRAME_BYTES + 1]);
    assert_eq!(
        AgentMessage::decode(&long),
        Err(FrameError::TooLong(MAX_FRAME_BYTES + 1))
    );
}

#[test]
fn names_of_all_types_read_back() {
    let names = "acknowledge agent_job agent_job_ack agent_job_reply agent_job_reply_ack agent_session_state \
                 agent_task_acknowledge agent_task_complete agent_telemetry agent_update_result channel_closed \
                 input_stream_data interactive_shell output_stream_data pause_publication start_publication";
    for name in names.split(' ') {
        let message_type = MessageType::from_name(name);
        assert!(!matches!(message_type, MessageType::Unknown(_)), "{name}");
        assert_eq!(message_type.as_str(), name);
    }
}

fn any_message_type() -> impl Strategy<Value = MessageType> {
    prop_oneof![
        Just(MessageType::Acknowledge),
        Just(MessageType::OutputStreamData),
        Just(MessageType::AgentTaskAcknowledge),
        "[!-~]([ -~]{0,30}[!-~])?".prop_map(|name| MessageType::from_name(&name)),
    ]
}

fn any_message() -> impl Strategy<Value = AgentMessage> {
    (
        any_message_type(),
        any::<(u32, u64, u64, u128, u32)>(),
        0..=i64::MAX,
        prop::collection::vec(any::<u8>(), 0..2000),
    )
        .prop_map(|(message_type, numbers, sequence_number, payload)| {
            let (schema_version, created_date, flags, id, payload_type) = numbers;
            AgentMessage {
                message_type,
                schema_version,
                created_date,
                sequence_number,
                flags,
                message_id: Uuid::from_u128(id),
                payload_type: payload_type.into(),
                payload: payload.into(),
            }
        })
}

proptest! {
    #[test]
    fn decode_undoes_encode(message in any_message()) {
        prop_assert_eq!(AgentMessage::decode(&message.encode()), Ok(message));
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        drop(AgentMessage::decode(&bytes.into()));
    }

    /// Nearly right frames reach further into the decoder than random bytes do.
    #[test]
    fn any_damage_is_read_or_refused(
        message in any_message(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        length in any::<prop::sample::Index>(),
    ) {
        let mut frame = message.encode().to_vec();
        for (at, byte) in damage {
            let at = at.index(frame.len());
            frame[at] = byte;
        }
        frame.truncate(length.index(frame.len() + 1));
        if let Ok(message) = AgentMessage::decode(&frame.into()) {
            prop_assert_eq!(AgentMessage::decode(&message.encode()), Ok(message));
        }
    }
}
