//! The actions that this node can perform, one file each.

mod configure_package;
mod declined;
mod docker;
mod document_source;
mod download_content;
mod members;
mod process;
mod process_record;
mod resumable;
mod room;
mod run_document;
mod script;
mod secure_parameters;

use std::{
    fmt::Display,
    fs::{DirBuilder, File},
    io::Read,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use moorline_protocol::document::{Ending, Ran, Step, StopReason};
use ring::digest;
use serde_json::{Map, Value};
use tokio::sync::watch;

use self::script::Language;
use super::{
    output::{Allowance, Capture},
    recording::{CommandRecording, Stream},
    step_limits::StepLimits,
    worker::WorkerTask,
};
use crate::recording::{MASK, Masker, Piece};

/// Actions with a handler here.
pub(super) const HANDLED_ACTIONS: [&str; 11] = [
    "aws:configureDocker",
    "aws:configurePackage",
    "aws:domainJoin",
    "aws:downloadContent",
    "aws:refreshAssociation",
    "aws:runDockerAction",
    "aws:runDocument",
    "aws:runPowerShellScript",
    "aws:runShellScript",
    "aws:softwareInventory",
    "aws:updateSsmAgent",
];

/// What the ids of documents begin with that are run by hand.
pub(super) const BY_HAND: &str = "local-";
/// Most bytes of a dead worker's stream that are reported.
const PARTIAL_BYTES: u64 = 24_000;
/// Most bytes of a step's name in that of its directory.
const MAX_FILE_NAME_BYTES: usize = 120;

/// What the steps of one document share.
#[derive(Debug)]
pub(super) struct StepContext<'a> {
    pub(super) task: &'a WorkerTask,
    /// Of the steps of the document that runs.
    pub(super) limits: StepLimits,
    /// `Some` when the job's id has the dotted form (agent-wire §6.1).
    pub(super) command_id_variable: Option<&'a str>,
    /// What its streams may still take on the disk.
    pub(super) allowance: Allowance,
    /// Set when the command is to stop.
    pub(super) stop: watch::Receiver<Option<StopReason>>,
    /// The command's directory, with what was downloaded.
    pub(super) run_directory: PathBuf,
    /// Where the directories of these steps are: that of the command, or of the step that runs their document.
    pub(super) steps_directory: PathBuf,
    /// Hashes of the documents that run, from the command's own to the one of these steps.
    pub(super) documents: Vec<[u8; 32]>,
    /// How many programs have been started.
    pub(super) programs: u64,
    /// Who sent the command, as the endpoint says; `None`: it does not say, or nobody did.
    pub(super) operator: Option<&'a str>,
    pub(super) recording: CommandRecording,
    /// Values that are shown nowhere: of this document's parameters, and those that scripts were given.
    pub(super) secrets: Vec<String>,
}

impl StepContext<'_> {
    /// From now on these values are shown nowhere either.
    fn hide(&mut self, secrets: impl IntoIterator<Item = String>) {
        self.secrets.extend(secrets);
        self.recording.hide(&self.secrets);
    }
}

/// What a step writes.
#[derive(Debug)]
pub(super) struct Outputs {
    stdout: OutputStream,
    stderr: OutputStream,
}

impl Outputs {
    fn new(secrets: &[String], allowance: &Allowance, recording: &CommandRecording) -> Self {
        let stream = |stream| OutputStream {
            stream,
            masker: Masker::new(secrets),
            capture: Capture::new(allowance.clone()),
            recording: recording.clone(),
        };
        Self {
            stdout: stream(Stream::Output),
            stderr: stream(Stream::Errors),
        }
    }

    /// These values appear nowhere in what follows.
    fn hide(&mut self, secrets: &[String]) {
        for stream in [&mut self.stdout, &mut self.stderr] {
            stream.flush();
            stream.masker = Masker::new(secrets);
        }
    }

    /// A further set of properties runs. What is wrong is told once, behind the errors of all of them.
    fn begin_next_set(&mut self) {
        self.stdout.flush();
        self.stdout.capture.begin_next_set();
    }

    /// Nothing follows. What was written to either, as far as it is told.
    fn end(mut self) -> (String, String) {
        self.stdout.flush();
        self.stderr.flush();
        self.stdout.recording.end_output();
        (self.stdout.capture.text(), self.stderr.capture.text())
    }

    /// A line on standard output.
    fn say(&mut self, line: impl Display) {
        self.stdout.push(format!("{line}\n").as_bytes());
    }

    /// A line on standard error, behind what the step itself has written there.
    fn complain(&mut self, line: impl Display) {
        self.stderr.push(format!("\n{line}\n").as_bytes());
    }

    /// The step fails for this reason.
    fn fail(&mut self, reason: impl Display) -> Ending {
        self.stderr.push(reason.to_string().as_bytes());
        Ending::Failed
    }
}

/// One of the outputs of a step. What is a secret is left out here, before anything keeps it.
#[derive(Debug)]
pub(super) struct OutputStream {
    stream: Stream,
    masker: Masker,
    capture: Capture,
    recording: CommandRecording,
}

impl OutputStream {
    /// Takes what the step wrote.
    fn push(&mut self, bytes: &[u8]) {
        let Self {
            stream,
            masker,
            capture,
            recording,
        } = self;
        masker.push(bytes, |piece| keep(piece, *stream, capture, recording));
    }

    /// What may be the begin of a secret is none.
    fn flush(&mut self) {
        let Self {
            stream,
            masker,
            capture,
            recording,
        } = self;
        masker.flush(|piece| keep(piece, *stream, capture, recording));
    }

    /// Takes what an inner step wrote, which is recorded as its own.
    fn repeat(&mut self, bytes: &[u8]) {
        self.capture.push(bytes);
    }
}

fn keep(piece: Piece<'_>, stream: Stream, capture: &mut Capture, recording: &CommandRecording) {
    match piece {
        Piece::Plain(plain) => {
            capture.push(plain);
            recording.wrote(stream, plain);
        }
        Piece::Secret(bytes) => {
            capture.push(MASK.as_bytes());
            recording.wrote_secret(stream, bytes);
        }
    }
}

/// What a document is known by among those that run each other.
pub(super) fn document_hash(content: &Value) -> [u8; 32] {
    let hash = digest::digest(&digest::SHA256, content.to_string().as_bytes());
    let mut bytes = [0; 32];
    bytes.copy_from_slice(hash.as_ref());
    bytes
}

/// Where the directories of all commands are.
pub(super) fn run_directories(state_dir: &Path) -> PathBuf {
    state_dir.join("commands")
}

/// Performs a step. What goes wrong is its result, never an error of the agent.
pub(super) async fn run(step: &Step, position: usize, context: &mut StepContext<'_>) -> Ran {
    let mut outputs = Outputs::new(&context.secrets, &context.allowance, &context.recording);
    context.recording.step_begins(step);
    let directory = context.steps_directory.join(file_name(&step.name, position));
    let mut ending = Ending::Exited(0);
    // Only schema 1.x has several sets; all of them run, and the last failure is the step's.
    for (index, inputs) in step.inputs.iter().enumerate() {
        let directory = match step.inputs.len() {
            1 => directory.clone(),
            _ => directory.join(index.to_string()),
        };
        if index > 0 {
            outputs.begin_next_set();
        }
        // When it cannot be made, the script finds another place, and the output is reported without a copy.
        if make_private_directory(&directory).is_ok() {
            outputs.stdout.capture.continue_in(&directory.join("stdout"));
            outputs.stderr.capture.continue_in(&directory.join("stderr"));
        }
        let set_ending = perform(step, inputs, &directory, context, &mut outputs).await;
        let is_over = matches!(set_ending, Ending::Stopped(_));
        if !matches!(set_ending, Ending::Exited(0) | Ending::Done) {
            ending = set_ending;
        }
        if is_over {
            break;
        }
    }
    let (stdout, stderr) = outputs.end();
    context.recording.step_returns();
    Ran {
        ending,
        stdout,
        stderr,
    }
}

/// The action with one set of inputs.
async fn perform(
    step: &Step,
    inputs: &Map<String, Value>,
    directory: &Path,
    context: &mut StepContext<'_>,
    outputs: &mut Outputs,
) -> Ending {
    match step.action.as_str() {
        "aws:runShellScript" => script::run(Language::Shell, step, inputs, directory, context, outputs).await,
        "aws:runPowerShellScript" => {
            script::run(Language::PowerShell, step, inputs, directory, context, outputs).await
        }
        // It runs steps, so its future would hold itself.
        "aws:runDocument" => Box::pin(run_document::run(inputs, directory, context, outputs)).await,
        "aws:downloadContent" => download_content::run(inputs, directory, context, outputs).await,
        "aws:configurePackage" => configure_package::run(step, inputs, directory, context, outputs).await,
        "aws:configureDocker" => docker::configure(inputs, context, outputs).await,
        "aws:runDockerAction" => docker::run_action(inputs, context, outputs).await,
        action => declined::run(action, inputs, outputs),
    }
}

/// What a step of a dead worker had written, from its files.
pub(super) fn partial_output(run_directory: &Path, name: &str, position: usize) -> (String, String) {
    let directory = run_directory.join(file_name(name, position));
    let head = |file: &str| {
        let mut bytes = Vec::new();
        let opened = File::open(directory.join(file)).ok();
        let read = opened.map(|file| file.take(PARTIAL_BYTES).read_to_end(&mut bytes));
        // No file, or not all of it: it is only an aid to whoever looks for the reason.
        drop(read);
        String::from_utf8_lossy(&bytes).into_owned()
    };
    (head("stdout"), head("stderr"))
}

/// Ends the script that a dead worker left behind, if it still runs, with all in its process group: it is reported as
/// unknown, and nobody could cancel it any more.
pub(super) fn end_orphan(run_directory: &Path) {
    process_record::end(&process_record::path(run_directory));
}

/// As [`end_orphan`], of documents that were run by hand and killed: no daemon waits for those.
pub(super) fn end_orphans_by_hand(run_directories: &Path) {
    let entries = std::fs::read_dir(run_directories).into_iter().flatten().flatten();
    let is_by_hand = |name: &std::ffi::OsStr| name.as_encoded_bytes().starts_with(BY_HAND.as_bytes());
    for entry in entries.filter(|entry| is_by_hand(&entry.file_name())) {
        process_record::end_of_dead_worker(&process_record::path(&entry.path()));
    }
}

/// A directory for its owner only, and those above it.
fn make_private_directory(path: &Path) -> std::io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// The directory of a step: its position, so that no name can mean another directory or that of another step, and as
/// much of its name as makes a file name.
fn file_name(name: &str, position: usize) -> String {
    let plain = name.replace([':', '/'], "");
    let end = plain.floor_char_boundary(MAX_FILE_NAME_BYTES);
    format!("{position}-{}", plain.get(..end).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_has_a_directory_of_its_own_whatever_its_name() {
        let table = [
            ("install", "3-install"),
            ("aws:runShellScript", "3-awsrunShellScript"),
            ("..:", "3-.."),
            ("aws:x/../../..", "3-awsx......"),
            (":", "3-"),
        ];
        for (name, expected) in table {
            assert_eq!(file_name(name, 3), expected, "{name}");
        }
        assert_eq!(file_name(&"€".repeat(100), 0), format!("0-{}", "€".repeat(40)));
        assert_ne!(file_name("a", 0), file_name("a:", 1));
    }
}
