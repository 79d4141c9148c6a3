//! Identifiers, each its own type: an id of one kind never stands where another is meant.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// An identifier that breaks its own grammar.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{value:?} is not a valid {kind}: {rule}")]
pub struct InvalidId {
    kind: &'static str,
    value: String,
    rule: &'static str,
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $kind:literal, $rule:literal, $check:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The identifier as it stands on the wire.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;

            fn from_str(value: &str) -> Result<Self, InvalidId> {
                let check: fn(&str) -> bool = $check;
                if check(value) {
                    Ok(Self(value.to_owned()))
                } else {
                    let shown = value.chars().take(64).collect();
                    Err(InvalidId { kind: $kind, value: shown, rule: $rule })
                }
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidId;

            fn try_from(value: String) -> Result<Self, InvalidId> {
                value.parse()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

fn is_lower_hex(text: &str) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

fn is_file_name(text: &str) -> bool {
    (1..=96).contains(&text.len())
        && !text.starts_with('.')
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

fn is_uuid(text: &str) -> bool {
    text.len() == 36 && uuid::Uuid::try_parse(text).is_ok()
}

id!(
    /// A managed node: `mi-` and 17 lower-case hex digits.
    InstanceId,
    "instance id",
    "it is `mi-` and 17 lower-case hex digits",
    |v| v.strip_prefix("mi-").is_some_and(|hex| hex.len() == 17 && is_lower_hex(hex))
);
id!(
    /// One SendCommand request; the same on every node that runs it.
    CommandId,
    "command id",
    "it is a UUID",
    is_uuid
);
id!(
    /// One session. It becomes a path segment and a file name, so its grammar is narrow.
    SessionId,
    "session id",
    "it has 1 to 96 characters of A-Z a-z 0-9 . _ -, and does not begin with a dot",
    is_file_name
);
id!(
    /// One recording: it has the id of its session, or the command's and that of the node, with a dot between them, and
    /// behind another dot a number if it goes on after a reboot. It becomes a path segment and a file name, so its
    /// grammar is narrow.
    TranscriptId,
    "transcript id",
    "it has 1 to 96 characters of A-Z a-z 0-9 . _ -, and does not begin with a dot",
    is_file_name
);
id!(
    /// A hybrid activation: a UUID (agent-wire §2.2: the stock agent wants 36 characters).
    ActivationId,
    "activation id",
    "it is a UUID",
    is_uuid
);

impl TranscriptId {
    /// The command and the node that it is of, if it looks like that; a session's id may.
    #[must_use]
    pub fn command(&self) -> Option<(CommandId, InstanceId)> {
        let (command, rest) = self.as_str().split_once('.')?;
        let node = match rest.split_once('.') {
            None => rest,
            Some((node, part)) if is_part(part) => node,
            Some(_) => return None,
        };
        Some((command.parse().ok()?, node.parse().ok()?))
    }
}

/// A document's steps may ask for 15 reboots.
const MOST_PARTS: u32 = 16;

/// The number of a recording that goes on after a reboot.
fn is_part(text: &str) -> bool {
    text.parse()
        .is_ok_and(|part: u32| (2..=MOST_PARTS).contains(&part))
        && !text.starts_with(['0', '+'])
}

impl From<&SessionId> for TranscriptId {
    fn from(session: &SessionId) -> Self {
        // the grammars are the same
        Self(session.as_str().to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_recording_of_a_command_names_it_and_its_node() {
        let (command, node) = ("1ea95505-c96b-40d1-a906-d37c7ef29d36", "mi-0123456789abcdef0");
        for end in ["", ".2", ".16"] {
            let id: TranscriptId = format!("{command}.{node}{end}").parse().unwrap();
            let (of, on) = id.command().unwrap();
            assert_eq!((of.as_str(), on.as_str()), (command, node));
        }
        for other in [
            "alice-0a1b2c3d4e5f60718".to_owned(),
            command.to_owned(),
            format!("{command}.{node}."),
            format!("{command}.{node}.1"),
            format!("{command}.{node}.02"),
            format!("{command}.{node}.17"),
            format!("{command}.{node}.2.3"),
            format!("x{command}.{node}"),
        ] {
            assert_eq!(other.parse::<TranscriptId>().unwrap().command(), None, "{other}");
        }
    }
}
