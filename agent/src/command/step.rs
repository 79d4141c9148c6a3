//! The actions that this node can perform, one file each.

mod declined;
mod docker;
mod document_source;
mod download_content;
mod members;
mod process;
mod process_record;
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
    worker::WorkerTask,
};

/// Actions with a handler here.
pub(super) const HANDLED_ACTIONS: [&str; 10] = [
    "aws:configureDocker",
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

/// Most bytes of a dead worker's stream that are reported.
const PARTIAL_BYTES: u64 = 24_000;
/// Most bytes of a step's name in that of its directory.
const MAX_FILE_NAME_BYTES: usize = 120;

/// What the steps of one document share.
#[derive(Debug)]
pub(super) struct StepContext<'a> {
    pub(super) task: &'a WorkerTask,
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
}

/// What a step writes.
#[derive(Debug)]
pub(super) struct Outputs {
    stdout: Capture,
    stderr: Capture,
}

impl Outputs {
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
    let mut outputs = Outputs {
        stdout: Capture::new(context.allowance.clone()),
        stderr: Capture::new(context.allowance.clone()),
    };
    let directory = context.steps_directory.join(file_name(&step.name, position));
    let mut ending = Ending::Exited(0);
    // Only schema 1.x has several sets; all of them run, and the last failure is the step's.
    for (index, inputs) in step.inputs.iter().enumerate() {
        let directory = match step.inputs.len() {
            1 => directory.clone(),
            _ => directory.join(index.to_string()),
        };
        // When it cannot be made, the script finds another place, and the output is reported without a copy.
        if make_private_directory(&directory).is_ok() {
            outputs.stdout.continue_in(&directory.join("stdout"));
            outputs.stderr.continue_in(&directory.join("stderr"));
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
    Ran {
        ending,
        stdout: outputs.stdout.text(),
        stderr: outputs.stderr.text(),
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
