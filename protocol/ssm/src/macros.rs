//! What all generated operations, enumerations and structures have in common.

use std::fmt;

/// Marker types of operations: `Name: "Prefix", Input => Output, [errors]`.
macro_rules! operation {
    ($(#[$doc:meta])* $name:ident: $prefix:literal, $input:ident => $output:ident, [$($error:ident),* $(,)?]) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug)]
        pub struct $name;

        impl $crate::Operation for $name {
            const PREFIX: &'static str = $prefix;
            const NAME: &'static str = stringify!($name);
            const ID: $crate::OperationId = $crate::OperationId::$name;
            const ERRORS: &'static [$crate::ErrorCode] = &[$($crate::ErrorCode::$error),*];
            type Input = $input;
            type Output = $output;

            fn decode_input(body: &[u8]) -> serde_json::Result<$input> {
                serde_json::from_slice($crate::macros::or_empty_object(body))
            }

            fn encode_input(input: &$input) -> Vec<u8> {
                serde_json::to_vec(input).expect($crate::macros::ENCODABLE)
            }

            fn decode_output(body: &[u8]) -> serde_json::Result<$output> {
                serde_json::from_slice($crate::macros::or_empty_object(body))
            }

            fn encode_output(output: &$output) -> Vec<u8> {
                serde_json::to_vec(output).expect($crate::macros::ENCODABLE)
            }
        }
    };
}

/// Strings with a fixed set of values. A value that the model lacks is kept as `Unknown`.
macro_rules! enumeration {
    ($name:ident { $($variant:ident = $value:literal),* $(,)? }) => {
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum $name {
            $($variant,)*
            /// A value that the model does not have.
            Unknown(String),
        }

        impl $name {
            /// The values of the model, in its order.
            pub const VALUES: &'static [&'static str] = &[$($value),*];

            pub fn as_str(&self) -> &str {
                match self {
                    $(Self::$variant => $value,)*
                    Self::Unknown(value) => value,
                }
            }
        }

        impl From<&str> for $name {
            fn from(value: &str) -> Self {
                match value {
                    $($value => Self::$variant,)*
                    _ => Self::Unknown(value.to_owned()),
                }
            }
        }

        impl std::str::FromStr for $name {
            type Err = std::convert::Infallible;

            fn from_str(value: &str) -> Result<Self, Self::Err> {
                Ok(Self::from(value))
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let value: std::borrow::Cow<'de, str> = serde::Deserialize::deserialize(deserializer)?;
                Ok(Self::from(value.as_ref()))
            }
        }

        impl $crate::constraint::Checked for $name {
            fn keeps(&self, rule: &$crate::constraint::Rule) -> bool {
                rule.allows_text(self.as_str())
            }

            fn show(&self, out: &mut dyn std::fmt::Write) -> std::fmt::Result {
                out.write_str(self.as_str())
            }
        }
    };
}

/// Lets structures occur where constraints are checked: they have no rule of their own, their members do.
macro_rules! structures {
    ($($name:ident),* $(,)?) => {$(
        impl $crate::constraint::Checked for $name {
            fn descend(&self, path: &mut $crate::Path, violations: &mut $crate::Violations) {
                $crate::Shape::validate(self, path, violations);
            }

            fn show(&self, out: &mut dyn std::fmt::Write) -> std::fmt::Result {
                out.write_str(concat!(stringify!($name), "(...)"))
            }
        }
    )*};
}

/// The errors of the API, sorted by whose fault they are.
macro_rules! error_codes {
    (
        caller { $($caller:ident = $caller_code:literal),* $(,)? }
        server { $($server:ident = $server_code:literal),* $(,)? }
    ) => {
        /// The code of an error: what `__type` says in a reply.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum ErrorCode {
            $($caller,)*
            $($server,)*
        }

        impl ErrorCode {
            /// Every code there is.
            pub const ALL: &'static [Self] = &[$(Self::$caller,)* $(Self::$server,)*];

            /// The code as it is on the wire.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$caller => $caller_code,)*
                    $(Self::$server => $server_code,)*
                }
            }

            /// The code of this name, if there is one.
            pub fn from_name(name: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|code| code.as_str() == name)
            }

            /// Whether the fault is the server's (status 500) rather than the caller's (400).
            pub fn is_fault(self) -> bool {
                matches!(self, $(Self::$server)|*)
            }
        }

        impl std::fmt::Display for ErrorCode {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

pub(crate) use {enumeration, error_codes, operation, structures};

/// Why encoding cannot fail: it could for a map whose keys are not strings, or for an I/O error.
pub(crate) const ENCODABLE: &str = "shapes have string keys and a Vec takes every byte";

/// Peers send no body at all for an empty structure now and then.
pub(crate) fn or_empty_object(body: &[u8]) -> &[u8] {
    if body.is_empty() { b"{}" } else { body }
}

/// Stands for a secret in `Debug`.
pub(crate) struct Redacted;

impl fmt::Debug for Redacted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Shows whether a secret is there, not what it is.
pub(crate) fn redact<T>(member: Option<&T>) -> Option<Redacted> {
    member.map(|_| Redacted)
}
