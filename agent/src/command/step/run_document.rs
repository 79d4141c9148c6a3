//! `aws:runDocument`: a step that runs the steps of another document (documents.md §2.2).
//!
//! What its steps came to is kept in a file beside their output, so that after a reboot the inner document goes on
//! where it stood.

use std::{
    fs::{self, File, OpenOptions},
    io::{Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use moorline_protocol::{
    document::{
        AfterRun, CommandDocument, Ending, Flow, MAX_TEXT_BYTES, Next, Step, StepOutcome, StepResult,
        StopReason, member, read_text,
    },
    message::ResultStatus,
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Outputs, StepContext, document_hash, document_source, document_source::FetchedDocument};
use crate::command::{
    owner_policy::{Candidate, Origin},
    step_limits::StepLimits,
    worker::PLATFORM,
};

/// Documents in each other below the command's own, as the stock agent counts them (tried with 3.3: the fourth below is
/// refused).
const MAX_DEPTH: usize = 3;
/// A path that means: nothing to do.
const NO_DOCUMENT: &str = "AWS-Noop";
/// The file that keeps how far the inner document has come.
const PROGRESS_FILE: &str = "document.json";

/// Runs the inner document.
pub(super) async fn run(
    inputs: &Map<String, Value>,
    directory: &Path,
    context: &mut StepContext<'_>,
    outputs: &mut Outputs,
) -> Ending {
    let plan = match plan(inputs, context).await {
        Ok(Some(plan)) => plan,
        Ok(None) => return Ending::Done,
        Err(reason) => return outputs.fail(reason),
    };
    context.hide(plan.secrets);
    let mut progress = Progress::load(directory, plan.hash);
    let steps_directory = std::mem::replace(&mut context.steps_directory, directory.join("steps"));
    let limits = std::mem::replace(&mut context.limits, plan.limits);
    context.documents.push(plan.hash);
    let ending = run_steps(&plan.steps, &mut progress, directory, context, outputs).await;
    context.documents.pop();
    context.steps_directory = steps_directory;
    context.limits = limits;
    ending
}

async fn run_steps(
    steps: &[Step],
    progress: &mut Progress,
    directory: &Path,
    context: &mut StepContext<'_>,
    outputs: &mut Outputs,
) -> Ending {
    let results: Vec<StepResult> = progress.results.iter().map(SavedResult::read).collect();
    let mut flow = Flow::resume(steps, &results, progress.reboots);
    loop {
        let stop = *context.stop.borrow();
        let (position, outcome) = match flow.next(stop) {
            Next::Over(status) => return ending(status, stop),
            Next::Settled(position, outcome) => (position, outcome),
            Next::Run(position) => {
                let Some(step) = steps.get(position) else {
                    return outputs.fail("a step of the document is missing");
                };
                match flow.ran(super::run(step, position, context).await) {
                    AfterRun::Outcome(outcome) => (position, outcome),
                    AfterRun::Reboot => {
                        progress.reboots += 1;
                        progress.store(directory);
                        return Ending::Exited(194);
                    }
                }
            }
        };
        progress.results.push(SavedResult {
            status: outcome.status,
            code: outcome.code,
        });
        progress.store(directory);
        if let Some(step) = steps.get(position) {
            context.recording.step_ended(step, &outcome);
            tell(step, outcome, steps.len() > 1, outputs);
        }
    }
}

/// The outer step has the output of the inner ones, in their order.
fn tell(step: &Step, outcome: StepOutcome, is_one_of_many: bool, outputs: &mut Outputs) {
    let stdout = outcome.text.unwrap_or(outcome.stdout);
    for (stream, text) in [
        (&mut outputs.stdout, stdout),
        (&mut outputs.stderr, outcome.stderr),
    ] {
        if text.is_empty() {
            continue;
        }
        if is_one_of_many {
            stream.repeat(format!("--- {} ---\n", step.name).as_bytes());
        }
        stream.repeat(text.as_bytes());
        if !text.ends_with('\n') {
            stream.repeat(b"\n");
        }
    }
}

/// Exit codes of inner steps end the inner document only, so the outer step has none.
fn ending(status: ResultStatus, stop: Option<StopReason>) -> Ending {
    match status {
        ResultStatus::Success | ResultStatus::Skipped => Ending::Done,
        ResultStatus::TimedOut => Ending::Stopped(StopReason::TimedOut),
        ResultStatus::Cancelled => Ending::Stopped(stop.unwrap_or(StopReason::Cancelled)),
        _ => match stop {
            Some(reason) => Ending::Stopped(reason),
            None => Ending::Failed,
        },
    }
}

/// An inner document that can run.
struct Plan {
    steps: Vec<Step>,
    /// What its steps may use.
    limits: StepLimits,
    hash: [u8; 32],
    /// Texts of parameters that the document marks as secrets.
    secrets: Vec<String>,
}

/// `None`: there is nothing to do.
async fn plan(inputs: &Map<String, Value>, context: &StepContext<'_>) -> Result<Option<Plan>, String> {
    let text = |name| member(inputs, name).and_then(Value::as_str).unwrap_or_default();
    let path = text("documentPath");
    if path == NO_DOCUMENT {
        return Ok(None);
    }
    let document_type = text("documentType");
    if !matches!(document_type, "SSMDocument" | "LocalPath") {
        return Err("Document Type must be specified to either by SSMDocument or LocalPath.".to_owned());
    }
    if path.is_empty() {
        return Err("Document Path must be provided".to_owned());
    }
    let depth = context.documents.len();
    if depth > MAX_DEPTH {
        return Err(format!(
            "Maximum depth for document execution exceeded. Maximum depth permitted - {MAX_DEPTH} and current depth - \
             {depth}; {path} would be the next"
        ));
    }
    let (FetchedDocument { name, content }, origin) = match document_type {
        "LocalPath" => {
            let document = FetchedDocument {
                // So that no file has the name of a document of the endpoint.
                name: format!("file:{path}"),
                content: read_file(&local_path(path, context))?,
            };
            (document, Origin::File)
        }
        _ => (
            document_source::fetch(&context.task.state_dir, path).await?,
            Origin::Endpoint,
        ),
    };
    let failed = |reason: String| format!("the document {path} cannot run: {reason}");
    let content = read_text(&content).map_err(|error| failed(error.to_string()))?;
    let hash = document_hash(&content);
    if context.documents.contains(&hash) {
        return Err(failed(
            "it is one of those that run it, so it would run itself without end".to_owned(),
        ));
    }
    let document = CommandDocument::parse(&content).map_err(|error| failed(error.to_string()))?;
    let given = parameters(inputs).map_err(failed)?;
    let given = document.parameters.typed_values(&given);
    let given = given.map_err(|error| failed(error.to_string()))?;
    let steps = document.plan(&given, PLATFORM);
    let steps = steps.map_err(|error| failed(error.to_string()))?;
    let candidate = Candidate {
        name: &name,
        content: &content,
        operator: context.operator,
        steps: &steps,
        origin,
    };
    let permitted = candidate.permit(&context.task.policy_folder);
    let limits =
        permitted.and_then(|permission| context.limits.within(&permission.grant, &context.task.state_dir));
    let limits = limits.map_err(|refusal| failed(refusal.to_string()))?;
    let values = document.parameters.resolve_values(&given);
    let values = values.map_err(|error| failed(error.to_string()))?;
    Ok(Some(Plan {
        steps,
        limits,
        hash,
        secrets: document.parameters.secret_texts(values.as_map()),
    }))
}

/// `documentParameters`: a map, or its text in JSON or YAML.
fn parameters(inputs: &Map<String, Value>) -> Result<Map<String, Value>, String> {
    let shape = || "documentParameters must be a map, or its text in JSON or YAML".to_owned();
    match member(inputs, "documentParameters") {
        None | Some(Value::Null) => Ok(Map::new()),
        Some(Value::Object(members)) => Ok(members.clone()),
        Some(Value::String(text)) if text.trim().is_empty() => Ok(Map::new()),
        Some(Value::String(text)) => match read_text(text) {
            Ok(Value::Object(members)) => Ok(members),
            Ok(Value::Null) => Ok(Map::new()),
            Ok(_) => Err(shape()),
            Err(error) => Err(format!("{}: {error}", shape())),
        },
        Some(_) => Err(shape()),
    }
}

/// A relative path is one of what was downloaded; a directory that holds one file means that file.
fn local_path(path: &str, context: &StepContext<'_>) -> PathBuf {
    let path = context.run_directory.join("downloads").join(path);
    let files: Vec<PathBuf> = fs::read_dir(&path)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .take(2)
        .collect();
    match files.as_slice() {
        [only] => only.clone(),
        _ => path,
    }
}

fn read_file(path: &Path) -> Result<String, String> {
    let failed =
        |reason: &dyn std::fmt::Display| format!("failed to read the document {}: {reason}", path.display());
    // Opening must not wait for the other end of a pipe.
    let is_file = fs::metadata(path).map_err(|error| failed(&error))?.is_file();
    if !is_file {
        return Err(failed(&"it is no file"));
    }
    let file = File::open(path).map_err(|error| failed(&error))?;
    let mut text = String::new();
    let limit = MAX_TEXT_BYTES as u64 + 1;
    file.take(limit)
        .read_to_string(&mut text)
        .map_err(|error| failed(&error))?;
    Ok(text)
}

/// How far an inner document has come.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Progress {
    /// Of which document, in hexadecimal.
    document: String,
    results: Vec<SavedResult>,
    reboots: u32,
}

#[derive(Debug, Serialize, Deserialize)]
struct SavedResult {
    status: ResultStatus,
    code: i64,
}

impl SavedResult {
    fn read(&self) -> StepResult {
        StepResult {
            status: self.status,
            code: self.code,
        }
    }
}

impl Progress {
    /// What was kept for this document; a file that is missing or not readable is a beginning.
    fn load(directory: &Path, hash: [u8; 32]) -> Self {
        let document: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
        let kept = File::open(directory.join(PROGRESS_FILE)).ok().and_then(|file| {
            let mut text = Vec::new();
            file.take(MAX_TEXT_BYTES as u64).read_to_end(&mut text).ok()?;
            serde_json::from_slice::<Self>(&text).ok()
        });
        match kept {
            Some(kept) if kept.document == document => kept,
            _ => Self {
                document,
                ..Self::default()
            },
        }
    }

    /// Keeps it. Where that fails, a reboot lets the inner document begin anew, as on the stock agent.
    fn store(&self, directory: &Path) {
        let path = directory.join(PROGRESS_FILE);
        let temporary = directory.join("document.json.new");
        let write = || -> std::io::Result<()> {
            let mut file = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(&temporary)?;
            file.write_all(&serde_json::to_vec(self)?)?;
            file.sync_data()?;
            fs::rename(&temporary, &path)
        };
        if let Err(error) = write() {
            tracing::warn!(%error, "the progress of a document was not kept");
        }
    }
}
