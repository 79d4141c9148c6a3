//! `moorline run`: a document on nodes, from the request to the last node's output.

mod cancel;
mod hold_up;
mod interrupts;
mod live;
mod report;
mod watch;

use std::{collections::BTreeMap, pin::pin};

use moorline_ssm::{
    ErrorCode,
    command::{SendCommand, SendCommandRequest, SendCommandResult, Target},
};
use moorline_transport::{CallError, HttpError};

pub(crate) use self::cancel::execute as cancel;
use self::{interrupts::Interrupts, report::Report, watch::Watch};
use crate::{
    arguments::RunOptions,
    console,
    error::CliError,
    operator::{Operator, is_passing},
    pick,
    plan::{self, Ask},
    quote, rollout, sign,
};

/// Cancelled by the user: 128 + SIGINT, as a shell reports it.
const EXIT_INTERRUPTED: u8 = 130;
/// Of a command whose answer did not come.
const MAY_RUN: &str = "the command may run all the same: `aws ssm list-commands` shows whether it was sent";
const PARAMETER_COMMANDS: &str = "commands";
const PARAMETER_TIMEOUT: &str = "executionTimeout";

pub(crate) async fn execute(operator: &Operator, options: &RunOptions, json: bool) -> Result<u8, CliError> {
    let request = request(operator, options).await?;
    if !options.rollout.waves.is_empty() {
        return rollout::execute(operator, request, (&options.rollout, &options.sign), json).await;
    }
    if options.rollout.dry_run {
        plan::show(&plan::fetch(operator, &request, Ask::Nodes).await?, json)?;
        return Ok(0);
    }
    let request = sign::sign(operator, request, &options.sign).await?;
    if options.detach {
        let (id, _) = answered(operator.call::<SendCommand>(&request).await)?;
        if json {
            console::print_json(&serde_json::json!({ "CommandId": id }))?;
        } else {
            console::print_line(&id)?;
        }
        return Ok(0);
    }
    let mut interrupts = Interrupts::watch()?;
    let Some((sent, is_interrupted)) = send(operator, &request, &mut interrupts).await else {
        return Ok(EXIT_INTERRUPTED);
    };
    let (id, target_count) = answered(sent)?;
    let expected = match &request.instance_ids {
        Some(ids) => ids.len(),
        None => target_count,
    };
    let mut report = Report::new(&id, json, request.instance_ids.is_some() && expected == 1);
    let watch = Watch::new(operator, &id, expected);
    let watched = watch.run(&mut report, (interrupts, is_interrupted)).await;
    let outcome = watched.inspect_err(|_| {
        report.note(&format!("command {id} goes on without this program"));
    })?;
    report.finish(&outcome)?;
    if outcome.is_interrupted {
        return Ok(EXIT_INTERRUPTED);
    }
    Ok(u8::from(!report.is_success(&outcome)))
}

/// What the endpoint answers, and whether Ctrl-C was pressed meanwhile. Of a command that is on its way nobody knows the
/// id by which it is cancelled: it is waited for. `None`: the user pressed it again, and leaves.
async fn send(
    operator: &Operator,
    request: &SendCommandRequest,
    interrupts: &mut Interrupts,
) -> Option<(Result<SendCommandResult, CallError>, bool)> {
    let mut sending = pin!(operator.call::<SendCommand>(request));
    tokio::select! {
        sent = &mut sending => return Some((sent, false)),
        () = interrupts.next() => {}
    }
    console::note(
        "the command is on its way, and is cancelled as soon as the endpoint has answered; press Ctrl-C again to leave \
         at once",
    );
    tokio::select! {
        sent = &mut sending => Some((sent, true)),
        () = interrupts.next() => {
            console::note(MAY_RUN);
            None
        }
    }
}

/// The id of a command that was sent, and to how many nodes.
fn answered(sent: Result<SendCommandResult, CallError>) -> Result<(String, usize), CliError> {
    let sent = sent.inspect_err(|error| {
        if may_have_arrived(error) {
            console::note(MAY_RUN);
        }
    })?;
    let command = sent.command.unwrap_or_default();
    let id = command.command_id.ok_or(CliError::Incomplete {
        operation: "SendCommand",
        member: "Command.CommandId",
    })?;
    let target_count = usize::try_from(command.target_count.unwrap_or(0)).unwrap_or(0);
    Ok((id, target_count))
}

/// Whether a command may have been taken whose answer did not come. What is refused as unavailable was not begun: the
/// endpoint says so before it does anything.
fn may_have_arrived(error: &CallError) -> bool {
    let is_undone = match error {
        CallError::Http { source, .. } => matches!(source, HttpError::Dial(_)),
        CallError::Service { source, .. } => [ErrorCode::ServiceUnavailable, ErrorCode::ThrottlingException]
            .map(ErrorCode::as_str)
            .contains(&source.code.as_str()),
        CallError::Shape { .. } => false,
    };
    is_passing(error) && !is_undone
}

/// The command as it is asked for.
async fn request(operator: &Operator, options: &RunOptions) -> Result<SendCommandRequest, CliError> {
    let request = SendCommandRequest {
        document_name: Some(options.document.clone()),
        parameters: Some(parameters(options)?),
        timeout_seconds: options.delivery_timeout,
        max_concurrency: Some(options.max_concurrency.clone()),
        max_errors: Some(options.max_errors.clone()),
        comment: options.comment.clone(),
        output_s3_bucket_name: options.output_bucket.clone(),
        output_s3_key_prefix: options.output_prefix.clone(),
        output_s3_region: options.output_region.clone(),
        ..Default::default()
    };
    let mut targets = targets(&options.tags);
    targets.extend(options.targets.iter().cloned());
    Ok(if targets.is_empty() {
        SendCommandRequest {
            instance_ids: Some(pick::nodes(operator, &options.nodes).await?),
            ..request
        }
    } else {
        SendCommandRequest {
            targets: Some(targets),
            ..request
        }
    })
}

/// `KEY=VALUE,VALUE` with the keys of the API, or `Key=KEY,Values=VALUE,VALUE` as the AWS CLI takes it.
pub(crate) fn parse_target(text: &str) -> Result<Target, String> {
    let wrong = || {
        format!(
            "{text:?} must have the form tag:KEY=VALUE,VALUE, tag-key=KEY, InstanceIds=ID,ID or resource-groups:Name=GROUP"
        )
    };
    let (key, values) = match text.strip_prefix("Key=") {
        Some(rest) => rest.split_once(",Values="),
        None => text.split_once('='),
    }
    .ok_or_else(wrong)?;
    let is_known = key.strip_prefix("tag:").is_some_and(|tag| !tag.is_empty())
        || matches!(key, "tag-key" | "InstanceIds" | "resource-groups:Name");
    if !is_known {
        return Err(wrong());
    }
    Ok(Target {
        key: Some(key.to_owned()),
        values: Some(values.split(',').map(str::to_owned).collect()),
    })
}

/// A target as [`parse_target`] takes it.
pub(crate) fn shown_target(target: &Target) -> String {
    let values = target.values.as_deref().unwrap_or_default();
    format!(
        "{}={}",
        target.key.as_deref().unwrap_or_default(),
        values.join(",")
    )
}

/// The document's parameters: those given, and what COMMAND and --timeout stand for.
fn parameters(options: &RunOptions) -> Result<BTreeMap<String, Vec<String>>, CliError> {
    let mut parameters: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (key, value) in &options.parameters {
        parameters.entry(key.clone()).or_default().push(value.clone());
    }
    let mut stand_for =
        |key: &str, flag: &str, value: String| match parameters.insert(key.to_owned(), vec![value]) {
            None => Ok(()),
            Some(_) => Err(CliError::Usage(format!(
                "{flag} and --param {key}=… exclude each other"
            ))),
        };
    if !options.command.is_empty() {
        stand_for(PARAMETER_COMMANDS, "COMMAND", quote::join(&options.command))?;
    }
    if let Some(seconds) = options.timeout {
        stand_for(PARAMETER_TIMEOUT, "--timeout", seconds.to_string())?;
    }
    let is_shell_script = matches!(
        options.document.as_str(),
        "AWS-RunShellScript" | "AWS-RunPowerShellScript"
    );
    if is_shell_script && !parameters.contains_key(PARAMETER_COMMANDS) {
        return Err(CliError::Usage(
            "what to run is missing: moorline run --node NODE -- COMMAND".to_owned(),
        ));
    }
    Ok(parameters)
}

/// Tags as targets: the values of one key side by side, keys one after the other.
fn targets(tags: &[(String, String)]) -> Vec<Target> {
    let mut targets: Vec<Target> = Vec::new();
    for (key, value) in tags {
        let key = format!("tag:{key}");
        match targets
            .iter_mut()
            .find(|target| target.key.as_ref() == Some(&key))
        {
            Some(target) => target.values.get_or_insert_default().push(value.clone()),
            None => targets.push(Target {
                key: Some(key),
                values: Some(vec![value.clone()]),
            }),
        }
    }
    targets
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use moorline_transport::ServiceError;

    use super::*;
    use crate::arguments::{Arguments, Command};

    fn options(words: &[&str]) -> Box<RunOptions> {
        let words = ["moorline", "run"].iter().chain(words);
        match Arguments::try_parse_from(words).unwrap().command {
            Command::Run(options) => options,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_command_may_run_unless_the_endpoint_said_that_nothing_was_begun() {
        for (status, code, expected) in [
            (503, "ServiceUnavailableException", false),
            (400, "ThrottlingException", false),
            (400, "InvalidInstanceId", false),
            (500, "InternalServerError", true),
            // of something between us and the endpoint
            (503, "", true),
        ] {
            let source = ServiceError {
                code: code.to_owned(),
                message: String::new(),
                status,
            };
            let error = CallError::Service {
                operation: "SendCommand",
                source,
            };
            assert_eq!(may_have_arrived(&error), expected, "{code}");
        }
    }

    #[test]
    fn the_command_becomes_a_parameter() {
        let words = [
            "--node",
            "a",
            "--timeout",
            "9",
            "--param",
            "workingDirectory=/tmp",
            "echo",
            "a b",
        ];
        let parameters = parameters(&options(&words)).unwrap();
        assert_eq!(parameters["commands"], ["echo 'a b'"]);
        assert_eq!(parameters["executionTimeout"], ["9"]);
        assert_eq!(parameters["workingDirectory"], ["/tmp"]);
    }

    #[test]
    fn a_repeated_parameter_is_a_list() {
        let words = ["--node", "a", "--param", "commands=x", "--param", "commands=y=z"];
        assert_eq!(parameters(&options(&words)).unwrap()["commands"], ["x", "y=z"]);
    }

    #[test]
    fn what_is_missing_or_said_twice_is_an_error() {
        assert!(parameters(&options(&["--node", "a"])).is_err());
        assert!(parameters(&options(&["--node", "a", "--param", "commands=x", "y"])).is_err());
        assert!(parameters(&options(&["--node", "a", "--document", "Mine"])).is_ok());
    }

    #[test]
    fn values_of_one_key_are_alternatives() {
        let tags = [("a", "1"), ("b", "2"), ("a", "3")].map(|(k, v)| (k.to_owned(), v.to_owned()));
        let targets = targets(&tags);
        assert_eq!(targets.len(), 2);
        assert_eq!(targets[0].key.as_deref(), Some("tag:a"));
        assert_eq!(targets[0].values.as_ref().unwrap(), &["1", "3"]);
        assert_eq!(targets[1].values.as_ref().unwrap(), &["2"]);
    }

    #[test]
    fn a_target_is_typed_in_our_form_or_as_the_aws_cli_takes_it() {
        let parsed = |text: &str| {
            let target = parse_target(text).unwrap();
            (target.key.unwrap(), target.values.unwrap())
        };
        let of = |key: &str, values: &[&str]| {
            (
                key.to_owned(),
                values.iter().map(|&value| value.to_owned()).collect::<Vec<_>>(),
            )
        };
        assert_eq!(parsed("tag:Env=a,b"), of("tag:Env", &["a", "b"]));
        assert_eq!(parsed("tag:Env=a=b"), of("tag:Env", &["a=b"]));
        assert_eq!(parsed("tag-key=Role"), of("tag-key", &["Role"]));
        assert_eq!(parsed("Key=tag:Env,Values=a,b"), of("tag:Env", &["a", "b"]));
        for text in ["", "tag:=a", "Env=a", "tag:Env", "Key=tag:Env"] {
            assert!(parse_target(text).is_err(), "{text}");
        }
    }
}
