//! The drop-in for `session-manager-plugin` (client-wire §1): what the AWS CLI starts once it has a session.
//!
//! The exit code is always 0: at any other one the AWS CLI prints our whole command line, which may hold the token.

use std::{ffi::OsString, sync::Arc};

use moorline_protocol::{channel::CLIENT_VERSION, message::TerminalSize};
use serde::Deserialize;

use crate::{
    attach::{self, Ending, Options},
    console,
    error::{self, CliError},
    forward,
    operator::Operator,
    session_client::{Grant, Link, SessionClient, SessionError},
    settings::{self, Settings},
    shell,
    terminal::output::Stream,
};

/// The size where there is no terminal, which is the stock plugin's.
const DEFAULT_SIZE: TerminalSize = TerminalSize { cols: 300, rows: 100 };
/// What the name of the variable with the response begins with.
const RESPONSE_VARIABLE: &str = "AWS_SSM_START_SESSION_RESPONSE";
const INSTALLED: &str = "\nThe Session Manager plugin was installed successfully. Use the AWS CLI to start a \
                         session.\n\n";

/// What the caller wants.
#[derive(Debug, PartialEq, Eq)]
enum Request {
    /// Say this and end.
    Say(String),
    Session(SessionRequest),
}

#[derive(Debug, PartialEq, Eq)]
struct SessionRequest {
    response: String,
    region: String,
    profile: Option<String>,
    /// The node as the caller named it to StartSession.
    target: Option<String>,
    endpoint: Option<String>,
    document: Option<String>,
}

/// The part of StartSession's request that counts.
#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
struct StartSessionParameters {
    /// The node as the caller named it.
    target: Option<String>,
    document_name: Option<String>,
}

/// The part of StartSession's response that counts; callers pass other members as well.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct StartSessionResponse {
    session_id: String,
    token_value: String,
    stream_url: String,
}

/// Does what the arguments behind the program's name say; the exit code is 0.
pub(crate) async fn main(arguments: &[OsString]) -> u8 {
    let arguments: Vec<String> = arguments
        .iter()
        .map(|argument| argument.to_string_lossy().into_owned())
        .collect();
    // nothing here starts a program that could inherit the variable
    let request = parse(&arguments, |name| std::env::var(name).ok());
    let mut speech = Speech::default();
    match request {
        Request::Say(text) => speech.say(&text),
        Request::Session(request) => {
            speech.is_stdout_taken = request.document.as_deref() == Some(forward::SSH_DOCUMENT);
            if let Err(error) = serve(&request, &mut speech).await {
                if let Some(hint) = error::hint(&error) {
                    console::note(&format!("hint: {hint}"));
                }
                let error = error::chain(&error);
                speech.say(&format!("Cannot perform start session: {error}\n"));
            }
        }
    }
    0
}

/// Where the plugin's own words go.
#[derive(Debug, Default)]
struct Speech {
    /// A connection has standard output: what we said there would be taken for the node's.
    is_stdout_taken: bool,
}

impl Speech {
    fn say(&self, text: &str) {
        if self.is_stdout_taken {
            console::print_error_text(text);
        } else {
            // where no one reads it, there is nothing to do
            let _unread = console::print(text);
        }
    }
}

fn parse(arguments: &[String], variable: impl Fn(&str) -> Option<String>) -> Request {
    let argument = |index: usize| arguments.get(index).map(String::as_str).unwrap_or_default();
    match arguments.len() {
        0 => return Request::Say(INSTALLED.to_owned()),
        1 if argument(0) == "--version" => return Request::Say(format!("{CLIENT_VERSION}\n")),
        1 | 2 => {
            return Request::Say(format!(
                "\nUnknown operation {}. \nUse session-manager-plugin --version to check the version.\n\n",
                console::one_line(argument(0))
            ));
        }
        _ => {}
    }
    if argument(2) != "StartSession" {
        return Request::Say("Invalid Operation\n".to_owned());
    }
    let response = if argument(0).starts_with(RESPONSE_VARIABLE) {
        match variable(argument(0)) {
            Some(response) => response,
            None => {
                return Request::Say(format!(
                    "Cannot perform start session: the environment variable {} is not set\n",
                    console::one_line(argument(0))
                ));
            }
        }
    } else {
        argument(0).to_owned()
    };
    let optional = |index| Some(argument(index).to_owned()).filter(|text| !text.is_empty());
    let parameters = serde_json::from_str::<StartSessionParameters>(argument(4)).unwrap_or_default();
    Request::Session(SessionRequest {
        response,
        region: argument(1).to_owned(),
        profile: optional(3),
        target: parameters.target,
        endpoint: optional(5),
        document: parameters.document_name,
    })
}

/// Runs the session, and says how it ended.
async fn serve(request: &SessionRequest, speech: &mut Speech) -> Result<(), CliError> {
    let response: StartSessionResponse = serde_json::from_str(&request.response).map_err(|_| {
        // the text is not shown, nor the parser's error that may quote it: it may hold a token
        CliError::Usage(
            "the StartSession response is not a JSON object with SessionId, TokenValue, StreamUrl".to_owned(),
        )
    })?;
    let grant = Grant {
        session_id: response.session_id,
        token: response.token_value,
        stream_url: response.stream_url,
    };
    let trust = settings::Environment::of_process(request.profile.as_deref()).trust()?;
    // a session can be used without an access key, but not resumed
    let operator = Settings::for_plugin(
        request.profile.as_deref(),
        &request.region,
        request.endpoint.as_deref(),
    );
    let operator = operator.map(|settings| Arc::new(Operator::new(settings))).ok();
    speech.say(&format!(
        "\nStarting session with SessionId: {}\n",
        grant.session_id
    ));
    let mut link = Link::new(operator.clone(), trust, &grant.session_id);
    if let Some(target) = &request.target {
        link = link.with_target(target);
    }
    let mut client = match SessionClient::open(link, &grant).await {
        Ok(client) => client,
        Err(error) => {
            terminate(operator.as_deref(), &grant).await;
            return Err(error.into());
        }
    };
    client.settle().await;
    let served = if client.session_type() == Some(forward::SESSION_TYPE) {
        serve_port(&mut client, &grant, speech).await
    } else {
        serve_terminal(&mut client, &grant, speech).await
    };
    match served {
        Ok(ending) => conclude(operator.as_deref(), &grant, (&mut client, ending), speech).await,
        Err(error) => {
            // such as an output that takes no more: nobody can use the session any longer
            terminate(operator.as_deref(), &grant).await;
            Err(error)
        }
    }
}

async fn serve_terminal(
    client: &mut SessionClient,
    grant: &Grant,
    speech: &mut Speech,
) -> Result<Ending, CliError> {
    let options = Options {
        default_size: DEFAULT_SIZE,
        // as the stock plugin, whose users read both from there
        stderr: Stream::Out,
        shows_exit_code: true,
        reads_input: true,
    };
    let ending = attach::attach(client, options).await?;
    if !matches!(&ending, Ending::WrongType(session_type) if session_type == forward::SESSION_TYPE) {
        return Ok(ending);
    }
    // the node was so late that the session seemed to be a shell
    if forward::is_on_stdio(client) {
        return Err(CliError::Usage(
            "the node took part so late that input was lost; try again".to_owned(),
        ));
    }
    serve_port(client, grant, speech).await
}

async fn serve_port(
    client: &mut SessionClient,
    grant: &Grant,
    speech: &mut Speech,
) -> Result<Ending, CliError> {
    speech.is_stdout_taken |= forward::is_on_stdio(client);
    forward::serve(client, &grant.session_id).await
}

async fn conclude(
    operator: Option<&Operator>,
    grant: &Grant,
    (client, ending): (&mut SessionClient, Ending),
    speech: &Speech,
) -> Result<(), CliError> {
    let id = &grant.session_id;
    let exiting = format!("\n\nExiting session with sessionId: {id}.\n\n");
    let is_port = client.session_type() == Some(forward::SESSION_TYPE);
    match ending {
        Ending::Closed { reason, .. } if reason.is_empty() => speech.say(&exiting),
        Ending::Closed { reason, .. } => speech.say(&format!("\n\nSessionId: {id} : {reason}\n\n")),
        Ending::Detached => speech.say(&format!("\n\nSession {id} goes on; moorline attach {id}\n\n")),
        Ending::Expired => speech.say(&format!("Session: {id} timed out.\n")),
        Ending::Left | Ending::Signalled(_) | Ending::OutputClosed if is_port => {
            if matches!(ending, Ending::Left) {
                speech.say(&exiting);
            }
            if !forward::leave(client).await {
                terminate(operator, grant).await;
            }
        }
        Ending::Left => {
            terminate(operator, grant).await;
            attach::goodbye(client).await;
            speech.say(&exiting);
        }
        Ending::Signalled(_) | Ending::OutputClosed => terminate(operator, grant).await,
        Ending::WrongType(session_type) => {
            terminate(operator, grant).await;
            return Err(CliError::Usage(format!(
                "sessions of type {session_type} are not supported by this version"
            )));
        }
        Ending::Failed(error) => {
            if !matches!(error, SessionError::NoCredentials) {
                terminate(operator, grant).await;
            }
            return Err(error.into());
        }
    }
    Ok(())
}

async fn terminate(operator: Option<&Operator>, grant: &Grant) {
    if let Some(operator) = operator {
        shell::terminate(operator, &grant.session_id).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RESPONSE: &str = r#"{"SessionId":"s","TokenValue":"t","StreamUrl":"wss://h/p"}"#;

    fn parsed(arguments: &[&str]) -> Request {
        let arguments: Vec<String> = arguments.iter().map(|&text| text.to_owned()).collect();
        parse(&arguments, |name| {
            (name == "AWS_SSM_START_SESSION_RESPONSE_2").then(|| RESPONSE.to_owned())
        })
    }

    fn said(arguments: &[&str]) -> String {
        match parsed(arguments) {
            Request::Say(text) => text,
            Request::Session(request) => panic!("{request:?}"),
        }
    }

    #[test]
    fn the_version_is_one_that_the_aws_cli_accepts() {
        let version = said(&["--version"]);
        let numbers: Vec<u32> = version.trim().split('.').map(|n| n.parse().unwrap()).collect();
        assert_eq!(numbers.len(), 4);
        assert!(numbers >= vec![1, 2, 764, 0]);
        assert!(version.ends_with('\n'));
    }

    #[test]
    fn other_calls_get_the_stock_texts() {
        assert_eq!(
            said(&[]),
            "\nThe Session Manager plugin was installed successfully. Use the AWS CLI to start a session.\n\n"
        );
        assert_eq!(
            said(&["x"]),
            "\nUnknown operation x. \nUse session-manager-plugin --version to check the version.\n\n"
        );
        assert_eq!(said(&[RESPONSE, "r", "Other"]), "Invalid Operation\n");
    }

    #[test]
    fn the_response_comes_as_an_argument_or_in_a_variable() {
        let expected = |profile: Option<&str>| {
            Request::Session(SessionRequest {
                response: RESPONSE.to_owned(),
                region: "eu-central-1".to_owned(),
                profile: profile.map(str::to_owned),
                target: Some("mi-1".to_owned()),
                endpoint: Some("https://h:1".to_owned()),
                document: Some("AWS-StartSSHSession".to_owned()),
            })
        };
        let parameters = r#"{"Target": "mi-1", "DocumentName": "AWS-StartSSHSession"}"#;
        let rest = ["eu-central-1", "StartSession"];
        let form_a = [&[RESPONSE], &rest[..], &["ops", parameters, "https://h:1"]].concat();
        assert_eq!(parsed(&form_a), expected(Some("ops")));
        let form_b = [
            &["AWS_SSM_START_SESSION_RESPONSE_2"],
            &rest[..],
            &["", parameters, "https://h:1"],
        ]
        .concat();
        assert_eq!(parsed(&form_b), expected(None));
        let unset = [&["AWS_SSM_START_SESSION_RESPONSE"], &rest[..]].concat();
        assert!(said(&unset).contains("is not set"));
    }

    #[test]
    fn a_very_old_caller_gives_three_arguments() {
        let request = Request::Session(SessionRequest {
            response: RESPONSE.to_owned(),
            region: "r".to_owned(),
            profile: None,
            target: None,
            endpoint: None,
            document: None,
        });
        assert_eq!(parsed(&[RESPONSE, "r", "StartSession"]), request);
    }
}
