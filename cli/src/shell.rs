//! `moorline shell`: a recorded shell on a node, or one recorded command.

use std::{collections::BTreeMap, io::IsTerminal, sync::Arc, time::Duration};

use moorline_protocol::message::TerminalSize;
use moorline_ssm::session::{StartSession, StartSessionRequest, TerminateSession, TerminateSessionRequest};
use moorline_transport::CallError;
use tokio::time::timeout;

use crate::{
    EXIT_NO_SESSION,
    arguments::ShellOptions,
    attach::{self, Ending, Options},
    console,
    error::{self, CliError},
    operator::Operator,
    pick, quote,
    session_client::{Grant, Link, SessionClient},
    sign::sign_session,
    terminal::output::Stream,
};

/// The size for a shell without a terminal.
const DEFAULT_SIZE: TerminalSize = TerminalSize { cols: 80, rows: 24 };
/// Who leaves does not want to wait for an endpoint out of reach.
const TERMINATE_LIMIT: Duration = Duration::from_millis(1500);
/// The reader of our output has gone: 128 + SIGPIPE.
const EXIT_CLOSED_OUTPUT: u8 = 141;

/// One command on a terminal, run by a shell.
const INTERACTIVE_COMMAND: &str = "AWS-StartInteractiveCommand";
/// One command on pipes, run without a shell.
const NON_INTERACTIVE_COMMAND: &str = "AWS-StartNonInteractiveCommand";

pub(crate) async fn execute(operator: Operator, options: &ShellOptions) -> Result<u8, CliError> {
    let operator = Arc::new(operator);
    let is_terminal = std::io::stdin().is_terminal();
    let asked = Asked::new(options, is_terminal && std::io::stdout().is_terminal());
    let reads_input = asked.reads_input;
    let target = pick::node(&operator, &options.node).await?;
    let grant = start(&operator, &target, options, asked).await?;
    let link = Link::new(
        Some(Arc::clone(&operator)),
        operator.trust().clone(),
        &grant.session_id,
    )
    .with_target(&target);
    let mut client = match SessionClient::open(link, &grant).await {
        Ok(client) => client,
        Err(error) => {
            // what was started and cannot be reached must not stay open
            terminate(&operator, &grant.session_id).await;
            return Err(error.into());
        }
    };
    if is_terminal && reads_input {
        greet(&grant.session_id);
    }
    let had = Had::Started { reads_input };
    serve(&operator, &grant.session_id, &mut client, had).await
}

/// How this process came to its session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Had {
    Started {
        reads_input: bool,
    },
    /// It was another client's, and still is where taking it failed.
    TakenOver,
}

pub(crate) fn greet(session_id: &str) {
    console::note(&format!("session {session_id}; ~? at the start of a line helps"));
}

/// Runs the session on the terminal to its end, or until the user leaves.
pub(crate) async fn serve(
    operator: &Operator,
    session_id: &str,
    client: &mut SessionClient,
    had: Had,
) -> Result<u8, CliError> {
    let options = Options {
        default_size: DEFAULT_SIZE,
        stderr: Stream::Err,
        shows_exit_code: false,
        reads_input: had != Had::Started { reads_input: false },
    };
    let ending = match attach::attach(client, options).await {
        Ok(ending) => ending,
        Err(error) => {
            // such as an output that takes no more: nobody can use the session any longer
            terminate(operator, session_id).await;
            return Err(error);
        }
    };
    Ok(conclude(operator, session_id, client, (ending, had)).await)
}

/// What the session is to run.
#[derive(Debug, PartialEq, Eq)]
struct Asked {
    document: Option<String>,
    parameters: BTreeMap<String, Vec<String>>,
    reads_input: bool,
}

impl Asked {
    /// `is_terminal`: the user sees and types on one.
    fn new(options: &ShellOptions, is_terminal: bool) -> Self {
        let mut parameters = BTreeMap::<String, Vec<String>>::new();
        if options.command.is_empty() {
            for (key, value) in &options.parameters {
                parameters.entry(key.clone()).or_default().push(value.clone());
            }
            return Self {
                document: options.document.clone(),
                parameters,
                reads_input: true,
            };
        }
        let (document, command) = if is_terminal {
            (INTERACTIVE_COMMAND, quote::join_on_terminal(&options.command))
        } else {
            parameters.insert("separateOutputStream".to_owned(), vec!["true".to_owned()]);
            (
                NON_INTERACTIVE_COMMAND,
                quote::join_without_shell(&options.command),
            )
        };
        parameters.insert("command".to_owned(), vec![command]);
        Self {
            document: Some(document.to_owned()),
            parameters,
            reads_input: is_terminal,
        }
    }
}

async fn start(
    operator: &Operator,
    target: &str,
    options: &ShellOptions,
    asked: Asked,
) -> Result<Grant, CliError> {
    let request = StartSessionRequest {
        target: Some(target.to_owned()),
        document_name: asked.document,
        reason: options.reason.clone(),
        parameters: (!asked.parameters.is_empty()).then_some(asked.parameters),
        moorline_signature: None,
    };
    let request = sign_session(operator, request, &options.sign).await?;
    start_session(operator, &request).await
}

/// Starts a session, which may then be connected to.
pub(crate) async fn start_session(
    operator: &Operator,
    request: &StartSessionRequest,
) -> Result<Grant, CliError> {
    let response = operator.call::<StartSession>(request).await?;
    let missing = |member| CliError::Incomplete {
        operation: "StartSession",
        member,
    };
    Ok(Grant {
        session_id: response.session_id.ok_or_else(|| missing("SessionId"))?,
        token: response.token_value.ok_or_else(|| missing("TokenValue"))?,
        stream_url: response.stream_url.ok_or_else(|| missing("StreamUrl"))?,
    })
}

/// Ends what has not ended, tells why, and gives the exit code.
async fn conclude(
    operator: &Operator,
    session_id: &str,
    client: &mut SessionClient,
    (ending, had): (Ending, Had),
) -> u8 {
    match ending {
        Ending::Closed { reason, exit_code } => {
            if !reason.is_empty() {
                console::note(&format!("session ended: {}", console::one_line(&reason)));
                if exit_code.is_none() {
                    return EXIT_NO_SESSION; // cut short: whatever ran there did not end by itself
                }
            }
            shell_code(exit_code)
        }
        Ending::Expired => {
            console::note("the session ended while the connection was lost");
            EXIT_NO_SESSION
        }
        Ending::Detached => {
            console::note(&format!("the session goes on: moorline attach {session_id}"));
            0
        }
        Ending::Left => {
            if !terminate(operator, session_id).await {
                return EXIT_NO_SESSION;
            }
            let exit_code = attach::goodbye(client).await;
            console::note("session terminated");
            shell_code(exit_code)
        }
        Ending::Signalled(number) => {
            terminate(operator, session_id).await;
            number.saturating_add(128)
        }
        Ending::OutputClosed => {
            terminate(operator, session_id).await;
            EXIT_CLOSED_OUTPUT
        }
        Ending::WrongType(session_type) => {
            terminate(operator, session_id).await;
            console::note(&format!(
                "error: the document asks for a session of type {session_type}, which this command cannot serve"
            ));
            EXIT_NO_SESSION
        }
        Ending::Failed(error) => {
            if had != Had::TakenOver {
                terminate(operator, session_id).await;
            }
            console::complain(&CliError::Session(error));
            EXIT_NO_SESSION
        }
    }
}

/// Ends a session on the endpoint. Where that fails, its time limits end it; the user should know.
pub(crate) async fn terminate(operator: &Operator, session_id: &str) -> bool {
    let request = TerminateSessionRequest {
        session_id: Some(session_id.to_owned()),
    };
    let failure = match timeout(TERMINATE_LIMIT, operator.call::<TerminateSession>(&request)).await {
        // what the endpoint refuses to end has ended, or never was
        Ok(Ok(_) | Err(CallError::Service { .. })) => return true,
        Ok(Err(error)) => error::chain(&error),
        Err(_) => "the endpoint does not answer".to_owned(),
    };
    console::note(&format!("session {session_id} was not terminated: {failure}"));
    false
}

/// A shell's exit code as ours; 0 when the node did not tell.
fn shell_code(exit_code: Option<i32>) -> u8 {
    let code = exit_code.unwrap_or(0);
    u8::try_from(code & 0xff).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sign::SessionSignOptions;

    #[test]
    fn a_command_gets_a_terminal_where_there_is_one_and_else_two_streams() {
        let options = ShellOptions {
            node: "mi-1".to_owned(),
            document: None,
            parameters: Vec::new(),
            reason: None,
            sign: SessionSignOptions { sign_with: None },
            command: vec!["echo".to_owned(), "a b".to_owned()],
        };
        let expected = |document: &str, parameters: &[(&str, &str)], reads_input| Asked {
            document: Some(document.to_owned()),
            parameters: parameters
                .iter()
                .map(|(name, value)| ((*name).to_owned(), vec![(*value).to_owned()]))
                .collect(),
            reads_input,
        };
        let command = ("command", "exec echo 'a b'");
        assert_eq!(
            Asked::new(&options, true),
            expected("AWS-StartInteractiveCommand", &[command], true)
        );
        let command = ("command", "echo 'a b'");
        let separate = ("separateOutputStream", "true");
        assert_eq!(
            Asked::new(&options, false),
            expected("AWS-StartNonInteractiveCommand", &[command, separate], false)
        );
    }

    #[test]
    fn the_exit_code_is_that_of_the_shell() {
        for (code, expected) in [
            (None, 0),
            (Some(0), 0),
            (Some(7), 7),
            (Some(130), 130),
            (Some(-1), 255),
            (Some(256), 0),
        ] {
            assert_eq!(shell_code(code), expected, "{code:?}");
        }
    }
}
