//! `moorline parameter`: Parameter Store. A secret value comes from a file or standard input, never from an argument,
//! where every user of the machine could read it.

mod options;

pub(crate) use options::ParameterCommand;

use std::{
    io::{IsTerminal as _, Read as _},
    path::Path,
};

use moorline_ssm::parameter::{
    DeleteParameters, DeleteParametersRequest, DescribeParameters, DescribeParametersRequest, GetParameter,
    GetParameterHistory, GetParameterHistoryRequest, GetParameterRequest, LabelParameterVersion,
    LabelParameterVersionRequest, ParameterStringFilter, ParameterType, PutParameter, PutParameterRequest,
};
use moorline_transport::read_hidden_line;
use serde::Serialize;

use self::options::ParameterPutOptions;
use crate::{
    console::{self, one_line},
    error::CliError,
    operator::Operator,
};

/// Bytes of a value that are read: more than the endpoint takes, so that it is the one that says so.
const MOST_VALUE_BYTES: u64 = 64 * 1024;
/// Names of one DeleteParameters.
const NAMES_AT_ONCE: usize = 10;

/// A parameter in one version, as scripts read it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Shown {
    name: String,
    version: i64,
    #[serde(rename = "Type")]
    kind: String,
    tier: String,
    last_modified_date: Option<String>,
    last_modified_user: String,
    description: String,
    labels: Vec<String>,
}

pub(crate) async fn execute(
    operator: &Operator,
    command: ParameterCommand,
    json: bool,
) -> Result<u8, CliError> {
    match command {
        ParameterCommand::Put(options) => put(operator, options, json).await,
        ParameterCommand::Get {
            name,
            with_decryption,
        } => get(operator, name, with_decryption, json).await,
        ParameterCommand::List { path } => list(operator, path, json).await,
        ParameterCommand::History { name } => history(operator, name, json).await,
        ParameterCommand::Delete { names } => delete(operator, &names).await,
        ParameterCommand::Label {
            name,
            labels,
            version,
        } => label(operator, name, labels, version, json).await,
    }
}

async fn put(operator: &Operator, options: ParameterPutOptions, json: bool) -> Result<u8, CliError> {
    let parameter_type = ParameterType::from(options.kind.as_str());
    let value = match (options.value, options.value_file) {
        (Some(_), _) if options.kind == "SecureString" => {
            return Err(CliError::Usage(
                "a secret is not for the command line, which everybody on this machine can read: give it on standard \
                 input or with --value-file"
                    .to_owned(),
            ));
        }
        (Some(value), _) => value,
        (None, None) if options.kind == "SecureString" && std::io::stdin().is_terminal() => ask_for_value()?,
        (None, path) => read_value(path.as_deref())?,
    };
    let request = PutParameterRequest {
        name: Some(options.name.clone()),
        value: Some(value),
        r#type: Some(parameter_type),
        description: options.description,
        overwrite: Some(options.overwrite),
        key_id: options.key_id,
        ..PutParameterRequest::default()
    };
    let done = operator.call::<PutParameter>(&request).await?;
    let version = done.version.unwrap_or_default();
    if json {
        console::print_json(&serde_json::json!({ "Name": options.name, "Version": version }))?;
    } else {
        console::print_line(&one_line(&format!("{} version {version}", options.name)))?;
    }
    Ok(0)
}

/// A line that is typed; what is pasted with line ends of its own is for a file.
fn ask_for_value() -> Result<String, CliError> {
    let ask = || console::print_error_text("value (what you type is not shown): ");
    let line =
        read_hidden_line(ask, "--value-file").map_err(|source| CliError::io("read the value", source))?;
    Ok(line.strip_suffix('\n').unwrap_or(&line).to_owned())
}

/// A text of standard input or a file. One line end at its end is not part of it: editors and echo add one.
fn read_value(path: Option<&Path>) -> Result<String, CliError> {
    let mut text = String::new();
    match path {
        None => std::io::stdin()
            .lock()
            .take(MOST_VALUE_BYTES)
            .read_to_string(&mut text),
        Some(path) => {
            std::fs::File::open(path).and_then(|file| file.take(MOST_VALUE_BYTES).read_to_string(&mut text))
        }
    }
    .map_err(|source| CliError::io("read the value", source))?;
    let value = text.strip_suffix('\n').unwrap_or(&text);
    Ok(value.strip_suffix('\r').unwrap_or(value).to_owned())
}

async fn get(operator: &Operator, name: String, with_decryption: bool, json: bool) -> Result<u8, CliError> {
    let request = GetParameterRequest {
        name: Some(name),
        with_decryption: Some(with_decryption),
    };
    let found = operator.call::<GetParameter>(&request).await?;
    let parameter = found.parameter.unwrap_or_default();
    if json {
        console::print_json(&serde_json::json!({
            "Name": parameter.name,
            "Type": parameter.r#type.map(|kind| kind.to_string()),
            "Version": parameter.version,
            "Value": parameter.value,
        }))?;
    } else {
        // as it is: it may have several lines, and goes where the user wants it
        console::print_line(&parameter.value.unwrap_or_default())?;
    }
    Ok(0)
}

async fn list(operator: &Operator, path: Option<String>, json: bool) -> Result<u8, CliError> {
    let mut request = DescribeParametersRequest {
        parameter_filters: path.map(|path| {
            vec![ParameterStringFilter {
                key: Some("Path".to_owned()),
                option: Some("Recursive".to_owned()),
                values: Some(vec![path]),
            }]
        }),
        ..DescribeParametersRequest::default()
    };
    let mut shown = Vec::new();
    loop {
        let page = operator.call::<DescribeParameters>(&request).await?;
        let described = page.parameters.unwrap_or_default().into_iter().map(|one| Shown {
            name: one.name.unwrap_or_default(),
            version: one.version.unwrap_or_default(),
            kind: one.r#type.map(|kind| kind.to_string()).unwrap_or_default(),
            tier: one.tier.map(|tier| tier.to_string()).unwrap_or_default(),
            last_modified_date: one.last_modified_date.and_then(console::timestamp),
            last_modified_user: one.last_modified_user.unwrap_or_default(),
            description: one.description.unwrap_or_default(),
            labels: Vec::new(),
        });
        shown.extend(described);
        request.next_token = page.next_token.filter(|token| !token.is_empty());
        if request.next_token.is_none() {
            return show(&shown, json);
        }
    }
}

async fn history(operator: &Operator, name: String, json: bool) -> Result<u8, CliError> {
    let mut request = GetParameterHistoryRequest {
        name: Some(name),
        ..GetParameterHistoryRequest::default()
    };
    let mut shown = Vec::new();
    loop {
        let page = operator.call::<GetParameterHistory>(&request).await?;
        let versions = page.parameters.unwrap_or_default().into_iter().map(|one| Shown {
            name: one.name.unwrap_or_default(),
            version: one.version.unwrap_or_default(),
            kind: one.r#type.map(|kind| kind.to_string()).unwrap_or_default(),
            tier: one.tier.map(|tier| tier.to_string()).unwrap_or_default(),
            last_modified_date: one.last_modified_date.and_then(console::timestamp),
            last_modified_user: one.last_modified_user.unwrap_or_default(),
            description: one.description.unwrap_or_default(),
            labels: one.labels.unwrap_or_default(),
        });
        shown.extend(versions);
        request.next_token = page.next_token.filter(|token| !token.is_empty());
        if request.next_token.is_none() {
            return show(&shown, json);
        }
    }
}

fn show(shown: &[Shown], json: bool) -> Result<u8, CliError> {
    if json {
        console::print_json(&shown)?;
        return Ok(0);
    }
    let mut table = console::table(&[
        "NAME",
        "VERSION",
        "TYPE",
        "CHANGED",
        "BY",
        "LABELS",
        "DESCRIPTION",
    ]);
    for one in shown {
        table.add_row([
            one_line(&one.name),
            one_line(&one.version.to_string()),
            one_line(&one.kind),
            one_line(one.last_modified_date.as_deref().unwrap_or("-")),
            one_line(&one.last_modified_user),
            one_line(&one.labels.join(" ")),
            one_line(&one.description),
        ]);
    }
    console::print_table(&table)?;
    Ok(0)
}

/// Exit code 1: some were not there.
async fn delete(operator: &Operator, names: &[String]) -> Result<u8, CliError> {
    let mut code = 0;
    for names in names.chunks(NAMES_AT_ONCE) {
        let request = DeleteParametersRequest {
            names: Some(names.to_vec()),
        };
        let done = operator.call::<DeleteParameters>(&request).await?;
        for name in done.invalid_parameters.unwrap_or_default() {
            console::note(&format!("there is no parameter {}", one_line(&name)));
            code = 1;
        }
    }
    Ok(code)
}

async fn label(
    operator: &Operator,
    name: String,
    labels: Vec<String>,
    version: Option<i64>,
    json: bool,
) -> Result<u8, CliError> {
    let request = LabelParameterVersionRequest {
        name: Some(name.clone()),
        parameter_version: version,
        labels: Some(labels),
    };
    let done = operator.call::<LabelParameterVersion>(&request).await?;
    let version = done.parameter_version.unwrap_or_default();
    let invalid = done.invalid_labels.unwrap_or_default();
    if json {
        let shown = serde_json::json!({ "Name": name, "Version": version, "InvalidLabels": invalid });
        console::print_json(&shown)?;
    } else {
        console::print_line(&one_line(&format!("{name} version {version}")))?;
    }
    for label in &invalid {
        console::note(&format!("{} cannot be a label", one_line(label)));
    }
    Ok(u8::from(!invalid.is_empty()))
}
