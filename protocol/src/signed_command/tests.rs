use proptest::prelude::*;
use serde_json::json;

use super::*;

const NODE: &str = "mi-0123456789abcdef0";
const NOON: u64 = 1_795_694_400;

fn statement() -> Statement {
    Statement {
        document_name: "AWS-RunShellScript".to_owned(),
        document: Digest::of(&json!({"schemaVersion": "2.2"})),
        parameters: Digest::of(&json!({"commands": ["uptime"]})),
        nodes: BTreeSet::from([NODE.parse().unwrap()]),
        nonce: [0xa5; 16],
        not_before: NOON,
        expires: NOON + 3600,
        reason: None,
    }
}

fn key() -> SigningKey {
    SigningKey::from_seed(&[7; 32])
}

fn sent() -> Sent<'static> {
    let Statement {
        document, parameters, ..
    } = statement();
    Sent {
        document_name: "AWS-RunShellScript",
        document,
        parameters,
        node: NODE,
        reason: None,
        now: Some(NOON + 1),
    }
}

#[test]
fn what_is_signed_has_these_bytes() {
    let text = statement().text();
    let golden = format!(
        "{{\"document\":\"{}\",\"documentName\":\"AWS-RunShellScript\",\"expires\":1795698000,\"format\":1,\
         \"nodes\":[\"{NODE}\"],\"nonce\":\"a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5\",\"notBefore\":1795694400,\
         \"parameters\":\"{}\"}}",
        "e59940a45dd4c1c3b1aabda90d54931d5a9ecdb0ed13ee6eae555bab596177d7",
        "99c9ad9313de8d8db92cb9ddd8ab8a8ae2b6b11294fa979d97c749986330c05d",
    );
    assert_eq!(text, golden);
    let token = SignedCommand::sign(statement(), Purpose::Command, &key())
        .unwrap()
        .token();
    let (_, signature) = token.split_once('.').unwrap();
    // As `ssh-keygen -Y sign -n command@moorline` signs that text with that key.
    let golden = "jNNt5nBpAQ1z3p5D5lU1CFajBAgsveyk4kKhpLX1VPHSHJcl4eU27mivoUXeC4YeIeBd4AQCzWLPaOcwxxjNAg";
    assert_eq!(signature, golden);
}

#[test]
fn a_signed_command_is_read_as_it_was_signed_and_is_its_signers() {
    let signed = SignedCommand::sign(statement(), Purpose::Command, &key()).unwrap();
    let read = SignedCommand::parse(&signed.token()).unwrap();
    assert_eq!(read, signed);
    assert!(read.is_by(&key().public(), Purpose::Command));
    assert!(!read.is_by(&SigningKey::from_seed(&[8; 32]).public(), Purpose::Command));
    assert_eq!(read.covers(&sent()), Ok(()));
}

#[test]
fn a_signature_for_a_command_is_none_for_a_session() {
    for (made, other) in [
        (Purpose::Command, Purpose::Session),
        (Purpose::Session, Purpose::Command),
    ] {
        let signed = SignedCommand::sign(statement(), made, &key()).unwrap();
        assert!(signed.is_by(&key().public(), made));
        assert!(!signed.is_by(&key().public(), other));
    }
}

#[test]
fn a_sessions_reason_is_signed_with_it() {
    let statement = Statement {
        reason: Some("to look".to_owned()),
        ..statement()
    };
    let signed = SignedCommand::sign(statement, Purpose::Session, &key()).unwrap();
    let read = SignedCommand::parse(&signed.token()).unwrap();
    assert_eq!(read.covers(&sent()), Err(Mismatch::Reason));
    let with_reason = Sent {
        reason: Some("to look"),
        ..sent()
    };
    assert_eq!(read.covers(&with_reason), Ok(()));
}

#[test]
fn every_difference_to_what_was_sent_is_found() {
    let signed = SignedCommand::sign(statement(), Purpose::Command, &key()).unwrap();
    let other = Digest::of(&json!({}));
    let table = [
        (
            Sent {
                document: other,
                ..sent()
            },
            Err(Mismatch::Document),
        ),
        (
            Sent {
                document_name: "Mine",
                ..sent()
            },
            Err(Mismatch::Document),
        ),
        (
            Sent {
                parameters: other,
                ..sent()
            },
            Err(Mismatch::Parameters),
        ),
        (
            Sent {
                node: "mi-0123456789abcdef1",
                ..sent()
            },
            Err(Mismatch::Node),
        ),
        (
            Sent {
                now: Some(NOON - 121),
                ..sent()
            },
            Err(Mismatch::NotYet),
        ),
        (
            Sent {
                now: Some(NOON - 120),
                ..sent()
            },
            Ok(()),
        ),
        (
            Sent {
                now: Some(NOON + 3599),
                ..sent()
            },
            Ok(()),
        ),
        (
            Sent {
                now: Some(NOON + 3600),
                ..sent()
            },
            Err(Mismatch::Expired),
        ),
        (Sent { now: None, ..sent() }, Ok(())),
    ];
    for (sent, expected) in table {
        assert_eq!(signed.covers(&sent), expected, "{sent:?}");
    }
}

#[test]
fn nothing_is_signed_or_read_without_bounds() {
    let nodes = (0..=MAX_NODES).map(|number| format!("mi-{number:017x}").parse().unwrap());
    for (statement, expected) in [
        (
            Statement {
                nodes: BTreeSet::new(),
                ..statement()
            },
            Malformed::Nodes,
        ),
        (
            Statement {
                nodes: nodes.collect(),
                ..statement()
            },
            Malformed::Nodes,
        ),
        (
            Statement {
                expires: NOON + MAX_LIFE_SECONDS + 1,
                ..statement()
            },
            Malformed::Life,
        ),
        (
            Statement {
                expires: NOON - 1,
                ..statement()
            },
            Malformed::Life,
        ),
    ] {
        assert_eq!(
            Statement::parse(statement.text().as_bytes()),
            Err(expected.clone())
        );
        assert_eq!(
            SignedCommand::sign(statement, Purpose::Command, &key()),
            Err(expected)
        );
    }
    assert_eq!(
        SignedCommand::parse(&"a".repeat(MAX_TOKEN_BYTES + 1)),
        Err(Malformed::TooLong)
    );
    let text = statement().text();
    for other in [
        text.replace("\"format\":1", "\"format\": 1"),
        text.replace("\"format\":1", "\"format\":1,\"more\":1"),
        text.replace("\"a5", "\"A5"),
        text.replace("\"format\":1,", ""),
        String::new(),
    ] {
        assert_eq!(
            Statement::parse(other.as_bytes()),
            Err(Malformed::Form),
            "{other}"
        );
    }
    let later = text.replace("\"format\":1", "\"format\":2");
    assert_eq!(Statement::parse(later.as_bytes()), Err(Malformed::Format));
}

#[test]
fn keys_are_in_the_files_of_openssh() {
    // As ssh-keygen writes it.
    let line = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOpKbGPinFIKvvVQexMuxfmVR3auvr57kkIe6mkURtIs me@there";
    let public = key().public();
    assert_eq!(public_key_line(&public, "me@there"), line);
    assert_eq!(read_public_key(line), Ok(public));
    assert_eq!(read_public_key(&format!("  {line} more words\n")), Ok(public));
    for other in [
        "",
        "ssh-rsa AAAA",
        "ssh-ed25519",
        "ssh-ed25519 AAAA me",
        &line.replace("IOpK", "IOpL8"),
    ] {
        assert_eq!(read_public_key(other), Err(KeyError::Public), "{other}");
    }
    let file = SigningKey::file(&[7; 32], "me@there");
    assert_eq!(SigningKey::read(&file).unwrap().public(), public);
    let refused = |text: &str| SigningKey::read(text).unwrap_err();
    assert_eq!(refused(""), KeyError::Private);
    assert_eq!(refused(&file.replace("OPENSSH", "RSA")), KeyError::Private);
}

proptest! {
    #[test]
    fn a_changed_character_is_another_command_or_none(position in any::<prop::sample::Index>(), digit in 0_usize..64) {
        const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        let token = SignedCommand::sign(statement(), Purpose::Command, &key()).unwrap().token();
        let mut bytes = token.clone().into_bytes();
        let position = position.index(bytes.len());
        bytes[position] = ALPHABET[digit];
        let changed = String::from_utf8(bytes).unwrap();
        let accepted = SignedCommand::parse(&changed).is_ok_and(|read| read.is_by(&key().public(), Purpose::Command));
        prop_assert_eq!(accepted, changed == token);
    }

    #[test]
    fn every_statement_has_one_text(
        name in "[A-Za-z0-9_.-]{1,128}", number in 1..=MAX_NODES, nonce in any::<[u8; 16]>(),
        not_before in 0_u64..4_000_000_000, life in 0..=MAX_LIFE_SECONDS,
    ) {
        let nodes = (0..number).map(|number| format!("mi-{number:017x}").parse().unwrap());
        let statement = Statement {
            document_name: name, nodes: nodes.collect(), nonce, not_before, expires: not_before + life, ..statement()
        };
        prop_assert_eq!(Statement::parse(statement.text().as_bytes()), Ok(statement.clone()));
        let token = SignedCommand::sign(statement, Purpose::Command, &key()).unwrap().token();
        prop_assert!(token.len() <= MAX_TOKEN_BYTES);
    }

    #[test]
    fn every_key_is_read_from_its_file(seed in any::<[u8; 32]>(), comment in "[ -~]{0,40}") {
        let key = SigningKey::from_seed(&seed);
        prop_assert_eq!(SigningKey::read(&SigningKey::file(&seed, &comment)).unwrap().public(), key.public());
        prop_assert_eq!(read_public_key(&public_key_line(&key.public(), &comment)), Ok(key.public()));
    }

    #[test]
    fn no_text_makes_a_reader_panic(text in "\\PC{0,300}", bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        drop(SignedCommand::parse(&text));
        prop_assert!(read_public_key(&text).is_err());
        drop(SigningKey::read(&text));
        drop(Statement::parse(&bytes));
    }
}
