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
    |v| (1..=96).contains(&v.len())
        && !v.starts_with('.')
        && v.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
);
id!(
    /// A hybrid activation: a UUID (agent-wire §2.2: the stock agent wants 36 characters).
    ActivationId,
    "activation id",
    "it is a UUID",
    is_uuid
);
