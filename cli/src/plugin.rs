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
    let text = match request {
        Request::Say(text) => Some(text),
        Request::Session(request) => match serve(&request).await {
            Ok(text) => text,
            Err(error) => {
                if let Some(hint) = error::hint(&error) {
                    console::note(&format!("hint: {hint}"));
                }
                let error = error::chain(&error);
                Some(format!("Cannot perform start session: {error}\n"))
            }
        },
    };
    if let Some(text) = text {
        // where no one reads it, there is nothing to do
        let _unread = console::print(&text);
    }
    0
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
    Request::Session(SessionRequest {
        response,
        region: argument(1).to_owned(),
        profile: optional(3),
        target: target(argument(4)),
        endpoint: optional(5),
    })
}

/// The node, in the parameters that the caller gave to StartSession.
fn target(parameters: &str) -> Option<String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Parameters {
        target: String,
    }
    serde_json::from_str(parameters)
        .ok()
        .map(|Parameters { target }| target)
}

/// Runs the session; returns what is to be said at its end.
async fn serve(request: &SessionRequest) -> Result<Option<String>, CliError> {
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
    console::print(&format!(
        "\nStarting session with SessionId: {}\n",
        grant.session_id
    ))?;
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
    let options = Options {
        default_size: DEFAULT_SIZE,
        stderr: Stream::Err,
    };
    let ending = match attach::attach(&mut client, options).await {
        Ok(ending) => ending,
        Err(error) => {
            // such as an output that takes no more: nobody can use the session any longer
            terminate(operator.as_deref(), &grant).await;
            return Err(error);
        }
    };
    conclude(operator.as_deref(), &grant, &mut client, ending).await
}

async fn conclude(
    operator: Option<&Operator>,
    grant: &Grant,
    client: &mut SessionClient,
    ending: Ending,
) -> Result<Option<String>, CliError> {
    let id = &grant.session_id;
    let exiting = format!("\n\nExiting session with sessionId: {id}.\n\n");
    match ending {
        Ending::Closed { reason, .. } if reason.is_empty() => Ok(Some(exiting)),
        Ending::Closed { reason, .. } => Ok(Some(format!("\n\nSessionId: {id} : {reason}\n\n"))),
        Ending::Expired => Ok(Some(format!("Session: {id} timed out.\n"))),
        Ending::Left => {
            terminate(operator, grant).await;
            attach::goodbye(client).await;
            Ok(Some(exiting))
        }
        Ending::Signalled(_) | Ending::OutputClosed => {
            terminate(operator, grant).await;
            Ok(None)
        }
        Ending::WrongType(session_type) => {
            terminate(operator, grant).await;
            Err(CliError::Usage(format!(
                "sessions of type {session_type} are not supported by this version"
            )))
        }
        Ending::Failed(error) => {
            if !matches!(error, SessionError::NoCredentials) {
                terminate(operator, grant).await;
            }
            Err(error.into())
        }
    }
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
            })
        };
        let parameters = r#"{"Target": "mi-1"}"#;
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
        });
        assert_eq!(parsed(&[RESPONSE, "r", "StartSession"]), request);
    }
}
