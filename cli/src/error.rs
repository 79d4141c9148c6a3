//! What can go wrong, and what to do about it.

use std::{io, time::Duration};

use moorline_protocol::error_chain;
use moorline_transport::{CallError, DialError, HttpError};

use crate::{
    console, pick::PickError, pick_session::PickSessionError, session_client::SessionError,
    settings::SettingsError,
};

/// Why a command has no result.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CliError {
    #[error(transparent)]
    Call(#[from] CallError),
    #[error("failed to {doing}")]
    Io {
        doing: String,
        #[source]
        source: io::Error,
    },
    #[error("failed to write to standard output")]
    Output(#[source] io::Error),
    #[error(transparent)]
    Pick(#[from] PickError),
    #[error(transparent)]
    PickSession(#[from] PickSessionError),
    #[error(transparent)]
    Session(#[from] SessionError),
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// The endpoint answered with something that makes no sense.
    #[error("the answer to {operation} has no {member}")]
    Incomplete {
        operation: &'static str,
        member: &'static str,
    },
    #[error(
        "the endpoint took the end of session {id}, and has not shown it within {} s",
        patience.as_secs()
    )]
    NotSeenToEnd { id: String, patience: Duration },
    #[error("{0}")]
    Usage(String),
    #[error("{0}")]
    Transcript(String),
}

impl CliError {
    /// `doing` reads after "failed to".
    pub(crate) fn io(doing: impl Into<String>, source: io::Error) -> Self {
        Self::Io {
            doing: doing.into(),
            source,
        }
    }

    /// Whether the reader of our output has gone, as `head` does: nothing to complain of.
    pub(crate) fn is_closed_output(&self) -> bool {
        matches!(self, Self::Output(source) if source.kind() == io::ErrorKind::BrokenPipe)
    }
}

/// An error and its causes on one line. A cause that its error has already told is left out.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    console::one_line(&error_chain(error).replace(['\n', '\r'], " "))
}

/// What the user can do, where we know it.
pub(crate) fn hint(error: &CliError) -> Option<String> {
    match error {
        CliError::Call(call) => call_hint(call),
        CliError::Session(SessionError::Call(call)) => call_hint(call),
        CliError::Session(session) => session.dial_error().and_then(dial_hint),
        CliError::Pick(PickError::Call(call)) | CliError::PickSession(PickSessionError::Call(call)) => {
            call_hint(call)
        }
        CliError::PickSession(PickSessionError::Unknown { .. }) => {
            Some("`moorline sessions` lists the open sessions".to_owned())
        }
        CliError::Pick(PickError::Unknown { .. } | PickError::Ambiguous { .. }) => {
            Some("`moorline nodes` lists the nodes and their names".to_owned())
        }
        CliError::Settings(settings) => settings.hint(),
        _ => None,
    }
}

/// What helps when a call failed.
pub(crate) fn call_hint(error: &CallError) -> Option<String> {
    let hint = match error {
        CallError::Http {
            source: HttpError::Dial(dial),
            ..
        } => return dial_hint(dial),
        CallError::Http { .. } | CallError::Shape { .. } => return None,
        CallError::Service { source, .. } => match source.code.as_str() {
            "InvalidSignatureException" | "UnrecognizedClientException" | "IncompleteSignatureException" => {
                "check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (`. DIR/admin.env` of the endpoint sets them), \
                 that no AWS_SESSION_TOKEN of other keys is set beside them, and the clock of this machine"
            }
            "RequestExpired" => "the clock of this machine or of the endpoint is wrong",
            "ExpiredTokenException" => "the temporary credentials have expired; get new ones",
            "AccessDeniedException" => "this access key may not do it; ask an administrator",
            "TargetNotConnected" => "`moorline nodes` shows which nodes there are, and which are online",
            "InvalidInstanceId" => {
                "`moorline nodes` lists the nodes; a node that is offline cannot be reached"
            }
            "ParameterAlreadyExists" => "`moorline parameter put --overwrite` makes a new version of it",
            "DocumentAlreadyExists" => "`moorline document update` makes a new version of it",
            "InvalidDocument" if is_about_the_name(&source.message) => {
                "is the document's name spelt right, and made for this use?"
            }
            _ => return None,
        },
    };
    Some(hint.to_owned())
}

/// The code is also for what is wrong within a document, or with something that it names. AWS often says nothing.
fn is_about_the_name(message: &str) -> bool {
    let of_the_name = ["there is no document", "does not exist", " is of type "];
    message.is_empty() || of_the_name.iter().any(|part| message.contains(part))
}

fn dial_hint(error: &DialError) -> Option<String> {
    let hint = match error {
        DialError::Tls { source, .. } if source.to_string().contains("certificate") => {
            "the endpoint's certificate is not trusted: set AWS_CA_BUNDLE to the endpoint's ca.pem, and use a host \
             name that the endpoint was started with (--name)"
        }
        DialError::Tls { .. } => "is it the endpoint's port, and does it speak TLS?",
        DialError::Connect { .. } | DialError::Timeout { .. } => {
            "is the control endpoint running, and AWS_ENDPOINT_URL its address?"
        }
    };
    Some(hint.to_owned())
}

#[cfg(test)]
mod tests {
    use moorline_transport::ServiceError;

    use super::*;

    fn refused(code: &str) -> CliError {
        CliError::Call(CallError::Service {
            operation: "SendCommand",
            source: ServiceError {
                code: code.to_owned(),
                message: "no such node".to_owned(),
                status: 400,
            },
        })
    }

    #[test]
    fn a_cause_that_was_told_is_not_told_again() {
        assert_eq!(
            chain(&refused("InvalidInstanceId")),
            "SendCommand: no such node (InvalidInstanceId)"
        );
        let nested = CliError::Call(CallError::Http {
            operation: "SendCommand",
            source: HttpError::Dial(DialError::Connect {
                endpoint: "https://h".to_owned(),
                source: io::Error::other("refused"),
            }),
        });
        assert_eq!(
            chain(&nested),
            "failed to call SendCommand: failed to connect to https://h: refused"
        );
        assert!(hint(&nested).unwrap().contains("AWS_ENDPOINT_URL"));
    }

    #[test]
    fn an_endpoints_message_cannot_move_the_cursor() {
        let error = CliError::Usage("no\u{1b}[2J such\nnode".to_owned());
        assert_eq!(chain(&error), "no\u{fffd}[2J such node");
    }

    #[test]
    fn a_documents_name_is_asked_after_where_the_name_may_be_wrong() {
        let refused = |message: &str| {
            CliError::Call(CallError::Service {
                operation: "StartSession",
                source: ServiceError {
                    code: "InvalidDocument".to_owned(),
                    message: message.to_owned(),
                    status: 400,
                },
            })
        };
        for message in [
            "there is no document Login",
            "document Login is of type Session; SendCommand runs documents of type Command",
            "Document with name Login does not exist.",
            "",
        ] {
            assert!(hint(&refused(message)).is_some(), "{message}");
        }
        for message in [
            "document Login names kmsKeyId alias/a, and the endpoint has no key of that name; update the document",
            "document Login cannot be used: it has no sessionType",
            "document Login has the hash 12, not 34",
            "AWS-RunShellScript comes with the endpoint and cannot be changed",
        ] {
            assert_eq!(hint(&refused(message)), None, "{message}");
        }
    }

    #[test]
    fn what_an_operator_can_do_is_said() {
        assert!(
            hint(&refused("TargetNotConnected"))
                .unwrap()
                .contains("moorline nodes")
        );
        assert!(
            hint(&refused("InvalidSignatureException"))
                .unwrap()
                .contains("clock")
        );
        assert!(
            hint(&refused("ParameterAlreadyExists"))
                .unwrap()
                .contains("--overwrite")
        );
        assert_eq!(hint(&refused("InternalServerError")), None);
    }
}
