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
use nix::fcntl::OFlag;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Outputs, StepContext, document_hash, document_source, document_source::FetchedDocument};
use crate::{
    command::{
        intake,
        owner_policy::{Candidate, Origin},
        step_limits::StepLimits,
        worker::PLATFORM,
    },
    runtime::make_private_directory,
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
    let mut progress = match Progress::load(directory, plan.hash) {
        Ok(progress) => progress,
        Err(reason) => return outputs.fail(format_args!("the document cannot go on: {reason}")),
    };
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
                        return match progress.store(directory) {
                            Ok(()) => Ending::Exited(194),
                            // else what has run would run again in the next boot
                            Err(error) => outputs.fail(format_args!(
                                "the step {} asks for a reboot, and how far the document has come cannot be kept: \
                                 {error}; the node is not rebooted",
                                step.name
                            )),
                        };
                    }
                }
            }
        };
        progress.results.push(SavedResult {
            status: outcome.status,
            code: outcome.code,
        });
        // it is kept anew before a reboot, where it counts
        if let Err(error) = progress.store(directory) {
            tracing::warn!(%error, "the progress of a document was not kept");
        }
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
            let file = LocalFile::find(path, &context.run_directory.join("downloads"))?;
            let document = FetchedDocument {
                content: file.read()?,
                name: file.name,
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

/// A document in a file.
struct LocalFile {
    /// Without links and `..`.
    path: PathBuf,
    /// As the owner's policy knows it: by where it is, whatever the step calls it.
    name: String,
}

impl LocalFile {
    /// A relative path is one of what was downloaded; a directory that holds one file means that file.
    fn find(path: &str, downloads: &Path) -> Result<Self, String> {
        let named = downloads.join(path);
        let files: Vec<PathBuf> = fs::read_dir(&named)
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path())
            .take(2)
            .collect();
        let named = match files.as_slice() {
            [only] => only.clone(),
            _ => named,
        };
        let real = |path: &Path| path.canonicalize().map_err(|error| unreadable(path, &error));
        let path = real(&named)?;
        // what was not downloaded has no other name than others have for it
        let downloaded = real(downloads)
            .ok()
            .and_then(|downloads| Some(path.strip_prefix(downloads).ok()?.to_owned()));
        let known = downloaded.as_deref().unwrap_or(&path);
        let name = format!("{}{}", intake::NAME_OF_FILE, known.display());
        Ok(Self { path, name })
    }

    fn read(&self) -> Result<String, String> {
        let failed = |error: &dyn std::fmt::Display| unreadable(&self.path, error);
        // Opening must not wait for the other end of a pipe, nor lead elsewhere than what was looked at.
        let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(flags.bits())
            .open(&self.path)
            .map_err(|error| failed(&error))?;
        if !file.metadata().map_err(|error| failed(&error))?.is_file() {
            return Err(failed(&"it is no file"));
        }
        let mut text = String::new();
        let limit = MAX_TEXT_BYTES as u64 + 1;
        file.take(limit)
            .read_to_string(&mut text)
            .map_err(|error| failed(&error))?;
        Ok(text)
    }
}

fn unreadable(path: &Path, reason: &dyn std::fmt::Display) -> String {
    format!("failed to read the document {}: {reason}", path.display())
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
    /// What was kept for this document before a reboot, if there was one.
    ///
    /// # Errors
    /// What was kept cannot be read, or is of another document: which steps have run is not known.
    fn load(directory: &Path, hash: [u8; 32]) -> Result<Self, String> {
        let document: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
        let path = directory.join(PROGRESS_FILE);
        let mut text = Vec::new();
        let read = File::open(&path).and_then(|file| file.take(MAX_TEXT_BYTES as u64).read_to_end(&mut text));
        match read {
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(Self {
                    document,
                    ..Self::default()
                });
            }
            Err(error) => return Err(format!("{} cannot be read: {error}", path.display())),
        }
        let kept: Self = serde_json::from_slice(&text)
            .map_err(|error| format!("{} cannot be read: {error}", path.display()))?;
        match kept.document == document {
            true => Ok(kept),
            false => Err("it is another than it was before the reboot, when steps of it had run".to_owned()),
        }
    }

    /// Keeps it, on disk when this returns.
    fn store(&self, directory: &Path) -> std::io::Result<()> {
        let path = directory.join(PROGRESS_FILE);
        let temporary = directory.join("document.json.new");
        make_private_directory(directory)?;
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&temporary)?;
        file.write_all(&serde_json::to_vec(self)?)?;
        file.sync_all()?;
        fs::rename(&temporary, &path)?;
        File::open(directory)?.sync_all()
    }
}
