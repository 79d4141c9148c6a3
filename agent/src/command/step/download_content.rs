//! `aws:downloadContent` (documents.md §2.3): files from a Git repository, an HTTP server, S3 or the endpoint.

mod destination;
mod folder;
mod git;
mod http;
mod s3;

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
};

use moorline_protocol::{
    document::{Ending, member, read_text},
    error_chain,
};
use serde_json::{Map, Value};

use self::destination::Destination;
use super::{
    Outputs, StepContext, document_source, make_private_directory, script::Language, secure_parameters,
};
use crate::{
    command::{owner_policy, worker::WorkerTask},
    config::S3Config,
};

/// Members of a source's information that may be a SecureString, in the spelling of AWS.
const SECRETS: [&str; 4] = ["tokenInfo", "username", "password", "privateSSHKey"];
/// Mode of everything that was downloaded: scripts are to run as they come.
const MODE: u32 = 0o700;

/// Where content comes from, with what its source needs to know.
enum Source<'a> {
    Git(git::Repository<'a>),
    Http(http::File<'a>),
    S3(s3::Objects),
    Document(&'a str),
}

/// Downloads, and says where to.
pub(super) async fn run(
    inputs: &Map<String, Value>,
    directory: &Path,
    context: &mut StepContext<'_>,
    outputs: &mut Outputs,
) -> Ending {
    let info = match source_info(inputs) {
        Ok(info) => reveal_secrets(info, context.task).await,
        Err(reason) => Err(reason),
    };
    let info = match info {
        Ok((info, secrets)) => {
            context.hide(secrets);
            outputs.hide(&context.secrets);
            info
        }
        Err(reason) => return outputs.fail(reason),
    };
    let source = match source(inputs, &info, &context.task.s3, &context.task.region) {
        Ok(source) => source,
        Err(reason) => return outputs.fail(reason),
    };
    let wanted = member(inputs, "destinationPath")
        .and_then(Value::as_str)
        .unwrap_or_default();
    let destination = Destination::new(&context.run_directory.join("downloads"), wanted);
    let downloaded = match source {
        Source::Git(repository) => {
            match git::download(&repository, &destination, directory, context, outputs).await {
                Ok(path) => Ok(path),
                Err(git::GitFailure::Ended(ending)) => return ending,
                Err(git::GitFailure::Reason(reason)) => Err(reason),
            }
        }
        Source::Http(file) => {
            tokio::select! {
                downloaded = http::download(&file, &destination) => downloaded,
                Ok(reason) = context.stop.wait_for(Option::is_some) => {
                    return Ending::Stopped(reason.unwrap_or(super::StopReason::Cancelled));
                }
            }
        }
        Source::S3(objects) => {
            tokio::select! {
                downloaded = s3::download(&objects, &destination) => downloaded,
                Ok(reason) = context.stop.wait_for(Option::is_some) => {
                    return Ending::Stopped(reason.unwrap_or(super::StopReason::Cancelled));
                }
            }
        }
        Source::Document(name) => download_document(name, &destination, context).await,
    };
    match downloaded {
        Ok(path) => {
            outputs.say(format!("Content downloaded to {}", path.display()));
            Ending::Done
        }
        Err(reason) => outputs.fail(reason),
    }
}

/// `sourceInfo`: a map, or its text in JSON or YAML.
fn source_info(inputs: &Map<String, Value>) -> Result<Map<String, Value>, String> {
    match member(inputs, "sourceInfo") {
        None | Some(Value::Null) => Err("SourceInfo must be specified".to_owned()),
        Some(Value::Object(members)) => Ok(members.clone()),
        Some(Value::String(text)) if text.trim().is_empty() => Err("SourceInfo must be specified".to_owned()),
        Some(Value::String(text)) => match read_text(text) {
            Ok(Value::Object(members)) => Ok(members),
            Ok(_) => Err("SourceInfo must be a map".to_owned()),
            Err(error) => Err(format!("SourceInfo cannot be read: {error}")),
        },
        Some(_) => Err("SourceInfo must be a map, or its text".to_owned()),
    }
}

/// Puts SecureStrings in place of the references to them, where the node's owner lets documents read them, and tells
/// their values.
async fn reveal_secrets(
    mut info: Map<String, Value>,
    task: &WorkerTask,
) -> Result<(Map<String, Value>, Vec<String>), String> {
    let is_secret = |name: &str| SECRETS.iter().any(|secret| secret.eq_ignore_ascii_case(name));
    let referred: Vec<(String, String)> = info
        .iter()
        .filter(|(name, _)| is_secret(name))
        .filter_map(|(name, value)| Some((name.clone(), value.as_str()?.trim().to_owned())))
        .filter(|(_, text)| text.starts_with("{{"))
        .collect();
    let count = referred.len();
    let revealed = secure_parameters::reveal(Language::Shell, "", referred, task).await;
    let revealed = revealed.map_err(|error| error_chain(&error))?;
    for (name, value) in revealed.environment.into_iter().take(count) {
        info.insert(name, Value::String(value));
    }
    Ok((info, revealed.secrets))
}

fn source<'a>(
    inputs: &Map<String, Value>,
    info: &'a Map<String, Value>,
    s3: &S3Config,
    region: &str,
) -> Result<Source<'a>, String> {
    let source_type = member(inputs, "sourceType")
        .and_then(Value::as_str)
        .unwrap_or_default();
    match source_type {
        "" => Err("SourceType must be specified".to_owned()),
        "Git" => git::Repository::read(info).map(Source::Git),
        "GitHub" => git::Repository::read_github(info).map(Source::Git),
        "HTTP" => http::File::read(info).map(Source::Http),
        "S3" => s3::Objects::read(text(info, "path")?, s3, region).map(Source::S3),
        "SSMDocument" => match text(info, "name")? {
            "" => Err("SSM Document name in SourceInfo must be specified".to_owned()),
            name => Ok(Source::Document(name)),
        },
        _ => Err("Unsupported source type".to_owned()),
    }
}

/// A text of the source's information; empty when there is none.
fn text<'a>(info: &'a Map<String, Value>, name: &str) -> Result<&'a str, String> {
    match member(info, name) {
        None | Some(Value::Null) => Ok(""),
        Some(Value::String(text)) if text.contains('\0') => {
            Err(format!("{name} in SourceInfo holds a NUL byte"))
        }
        Some(Value::String(text)) => Ok(text),
        Some(_) => Err(format!("{name} in SourceInfo must be a text")),
    }
}

/// A text that may be a secret, which documents refer to and do not hold.
///
/// # Errors
/// It is a reference that names no SecureString.
fn secret<'a>(info: &'a Map<String, Value>, name: &str) -> Result<&'a str, String> {
    let text = text(info, name)?;
    if text.trim_start().starts_with("{{") {
        return Err(format!(
            "The following parameter(s) cannot be resolved: {text} ({name}); a secret is a SecureString, named as \
             {{{{ssm-secure:NAME}}}}"
        ));
    }
    Ok(text)
}

/// A switch: a boolean, or its text.
fn switch(info: &Map<String, Value>, name: &str) -> bool {
    match member(info, name) {
        Some(Value::Bool(value)) => *value,
        Some(Value::String(text)) => text.eq_ignore_ascii_case("true"),
        _ => false,
    }
}

async fn download_document(
    name: &str,
    destination: &Destination,
    context: &StepContext<'_>,
) -> Result<PathBuf, String> {
    let document = document_source::fetch(&context.task.state_dir, name).await?;
    let permitted = owner_policy::permit_download(&context.task.policy_folder, &document.content);
    permitted.map_err(|refusal| refusal.to_string())?;
    let name = format!("{}.json", document.name);
    let path = destination.path.join(&name);
    let write = || -> std::io::Result<()> {
        let folder = destination.folder()?;
        folder
            .create(OsStr::new(&name))?
            .finish_with(document.content.as_bytes())
    };
    write().map_err(|error| format!("failed to write {}: {error}", path.display()))?;
    Ok(path)
}

#[cfg(test)]
mod tests;
