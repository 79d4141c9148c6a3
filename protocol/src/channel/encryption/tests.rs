use std::collections::BTreeSet;

use super::*;

/// The data key and nonce of the vector in client-wire §4.6: bytes that count up.
fn counting<const N: usize>() -> [u8; N] {
    std::array::from_fn(|index| u8::try_from(index).unwrap())
}

fn key() -> DataKey {
    DataKey::from_slice(&counting::<64>()).unwrap()
}

fn cipher(role: Role) -> Cipher {
    Cipher::new(role, &key(), counting())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn both_directions_agree_with_the_golden_vector() {
    let (mut client, mut agent) = (cipher(Role::Client), cipher(Role::Agent));
    let (input, output) = (client.seal(b"ls\r"), agent.seal(b"ok\r\n"));
    assert_eq!(
        hex(&input),
        "000102030405060708090a0b302150796b6ce92de9e02938ee56f3d16b8741"
    );
    assert_eq!(
        hex(&output),
        "000102030405060708090a0b2869db1126161a1a57dc109e6dc7212f66d6b597"
    );
    assert_eq!(agent.open(&input).unwrap(), b"ls\r");
    assert_eq!(client.open(&output).unwrap(), b"ok\r\n");
    // nobody opens what he sealed himself
    assert_eq!((client.open(&input), agent.open(&output)), (None, None));
}

#[test]
fn no_nonce_comes_twice_though_the_count_goes_round() {
    let mut cipher = Cipher::new(Role::Client, &key(), [0xff; NONCE_LEN]);
    let nonces: Vec<[u8; NONCE_LEN]> = (0..1000).map(|_| cipher.next_nonce()).collect();
    assert_eq!(nonces[0], [0xff; NONCE_LEN]);
    assert_eq!(nonces[1], [0; NONCE_LEN]);
    assert_eq!(nonces.iter().collect::<BTreeSet<_>>().len(), nonces.len());
}

#[test]
fn whatever_was_changed_does_not_open() {
    let agent = cipher(Role::Agent);
    let sealed = cipher(Role::Client).seal(b"rm -r build");
    assert_eq!(sealed.len(), b"rm -r build".len() + OVERHEAD_BYTES);
    for index in 0..sealed.len() {
        let mut changed = sealed.clone();
        changed[index] ^= 1;
        assert_eq!(agent.open(&changed), None, "byte {index}");
        assert_eq!(agent.open(&sealed[..index]), None, "cut at {index}");
    }
    assert_eq!(agent.open(b"rm -r build, and this is long enough"), None);
}

#[test]
fn each_side_encrypts_its_own_types_and_no_other() {
    let types = |sender| -> Vec<u32> {
        (0..14)
            .filter(|number| is_encrypted(sender, PayloadType::from(*number)))
            .collect()
    };
    assert_eq!(types(Role::Agent), [1, 11, 12]);
    assert_eq!(types(Role::Client), [1]);
}

#[test]
fn the_context_names_session_node_and_challenge() {
    let context = encryption_context("s-1", "mi-1", Some("c2FsdA=="));
    let entries: Vec<(&str, &str)> = context.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    assert_eq!(
        entries,
        [
            ("aws:ssm:RandomChallenge", "c2FsdA=="),
            ("aws:ssm:SessionId", "s-1"),
            ("aws:ssm:TargetId", "mi-1"),
        ]
    );
    assert_eq!(encryption_context("s-1", "mi-1", None).len(), 2);
}

#[test]
fn a_data_key_has_one_length_and_is_not_shown() {
    assert_eq!(DataKey::from_slice(&[7; 63]), None);
    assert_eq!(format!("{:?}", key()), "DataKey(***)");
}

/// Session u-sess5 of `tests/data/vectors/agent-run-b.jsonl`: the real agent's challenge, the answer that it took, and
/// the input that it typed into the shell.
#[test]
fn what_a_real_agent_and_its_client_sealed_opens() {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    let challenge = "SoYk42AsWua7Aq8bLXTbWxeHhLdoNZCbC3w3HUBc0o4ns5KLzgA6/Fmf8vHVTH9a1Hw4Vfr5qJKDr9x/VuQYBB5BTzAiEUNO\
                     vGJpKLUkfCkS26laY1VC57hoxe0=";
    let answer = "uQM+pSAFi7Q5FY4XWenhqCW00Op3x10bpkFk4r3C37SCkPC0bJK4qmjh2ZcaUjkTI0i/is62n8kTz++z/aqllNMXPK/wDReXGec7\
                  ZopS0NbsvrWn0ZfKvG2lHBE=";
    let input = "K50pCNX76CwQZq2oBG2QVwYx5o4O1vcAb0cCUWljtrnPe/gA1AGd7hVfDLjQZQ==";
    let bytes = |text: &str| STANDARD.decode(text).unwrap();
    let (client, agent) = (cipher(Role::Client), cipher(Role::Agent));
    let probe = client.open(&bytes(challenge)).unwrap();
    assert_eq!(probe.len(), 64);
    assert_eq!(agent.open(&bytes(answer)).unwrap(), probe);
    assert_eq!(agent.open(&bytes(input)).unwrap(), b"echo enc-$((1+1))\r");
}
