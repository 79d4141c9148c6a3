//! `moorline-agent run-document`: a document on this machine, planned or run without an endpoint.

use std::{
    fs::File,
    io::{Read, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use moorline_protocol::{
    document::{
        AfterRun, CommandDocument, Decision, Flow, MAX_TEXT_BYTES, Next, Step, StepOutcome, StopReason,
        read_text, write_yaml,
    },
    message::ResultStatus,
};
use serde_json::{Map, Value};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};
use uuid::Uuid;

use crate::{config::Config, identity::Registration, runtime::Platform};

use super::{
    node,
    output::Allowance,
    recording::CommandRecording,
    step::{self, StepContext},
    step_limits::StepLimits,
    worker::{PLATFORM, WorkerTask},
};

/// What to run, as the command line has it.
#[derive(Debug)]
pub(crate) struct LocalRun<'a> {
    /// JSON or YAML; `-` is standard input.
    pub(crate) document: &'a Path,
    /// Each a map in JSON or YAML, or `NAME=VALUE`; later ones win.
    pub(crate) parameters: &'a [String],
    /// A file with a map, for what does not belong on a command line.
    pub(crate) parameters_file: Option<&'a Path>,
    /// Only say what would run.
    pub(crate) is_plan: bool,
    /// Absolute.
    pub(crate) state_dir: PathBuf,
}

/// Plans or runs the document, and tells on standard output what becomes of its steps.
///
/// # Errors
/// The document or its parameters cannot be read or do not fit each other: nothing is run.
pub(crate) fn run_document(run: &LocalRun<'_>, config: &Config) -> anyhow::Result<ExitCode> {
    let content = read_text(&read(run.document)?)?;
    let document = CommandDocument::parse(&content)?;
    let given = document
        .parameters
        .typed_values(&parameters(run.parameters, run.parameters_file)?)?;
    let steps = document.plan(&given, PLATFORM)?;
    if run.is_plan {
        tell_plan(&document, &steps)?;
        return Ok(ExitCode::SUCCESS);
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let secrets = document.parameters.resolve_values(&given)?;
    let secrets = document.parameters.secret_texts(secrets.as_map());
    let document = (step::document_hash(&content), secrets);
    let status = runtime.block_on(run_steps(run, config, &steps, document))?;
    Ok(match status {
        ResultStatus::Success => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    })
}

/// A document, or `-` for standard input.
pub(super) fn read(path: &Path) -> anyhow::Result<String> {
    let limit = MAX_TEXT_BYTES as u64 + 1;
    let mut text = String::new();
    let read = match path.as_os_str() == "-" {
        true => std::io::stdin().take(limit).read_to_string(&mut text),
        false => File::open(path).and_then(|file| file.take(limit).read_to_string(&mut text)),
    };
    read.map_err(|error| anyhow::anyhow!("failed to read {}: {error}", path.display()))?;
    Ok(text)
}

/// The parameters of a command line: maps and `NAME=VALUE`, and those of a file.
pub(super) fn parameters(texts: &[String], file: Option<&Path>) -> anyhow::Result<Map<String, Value>> {
    let map = |text: &str| match read_text(text)? {
        Value::Object(members) => Ok(members),
        _ => anyhow::bail!("parameters must be a map in JSON or YAML, or NAME=VALUE"),
    };
    let mut given = match file {
        Some(path) => map(&read(path)?)?,
        None => Map::new(),
    };
    for text in texts {
        match text.split_once('=') {
            Some((name, value)) if name.bytes().all(|byte| byte.is_ascii_alphanumeric()) => {
                given.insert(name.to_owned(), value.into());
            }
            _ => given.extend(map(text)?),
        }
    }
    Ok(given)
}

/// What would run, as YAML: with the parameters filled in, and the reason why a step does not.
fn tell_plan(document: &CommandDocument, steps: &[Step]) -> std::io::Result<()> {
    let step = |step: &Step| {
        let mut told = Map::new();
        told.insert("name".to_owned(), step.name.as_str().into());
        told.insert("action".to_owned(), step.action.as_str().into());
        let (decision, reason) = match &step.decision {
            Decision::Run => ("run", None),
            Decision::Skip(reason) => ("skip", Some(reason)),
            Decision::Fail(reason) => ("fail", Some(reason)),
        };
        told.insert("decision".to_owned(), decision.into());
        if let Some(reason) = reason {
            told.insert("reason".to_owned(), reason.as_str().into());
        }
        let inputs: Vec<Value> = step.inputs.iter().cloned().map(Value::Object).collect();
        told.insert("inputs".to_owned(), inputs.into());
        if !step.environment.is_empty() {
            let variables = step.environment.iter();
            let variables = variables.map(|(name, value)| (name.clone(), value.as_str().into()));
            told.insert("environment".to_owned(), Value::Object(variables.collect()));
        }
        Value::Object(told)
    };
    let plan = Map::from_iter([
        ("steps".to_owned(), steps.iter().map(step).collect()),
        ("warnings".to_owned(), document.warnings().into()),
    ]);
    say(&write_yaml(&Value::Object(plan)))
}

fn say(text: &str) -> std::io::Result<()> {
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()
}

async fn run_steps(
    run: &LocalRun<'_>,
    config: &Config,
    steps: &[Step],
    (document, secrets): ([u8; 32], Vec<String>),
) -> anyhow::Result<ResultStatus> {
    step::end_orphans_by_hand(&step::run_directories(&run.state_dir));
    let registration = Registration::load(&run.state_dir).ok();
    let task = WorkerTask {
        state_dir: run.state_dir.clone(),
        command_id: format!("{}{}", step::BY_HAND, Uuid::new_v4()),
        instance_id: registration
            .as_ref()
            .map_or_else(String::new, |node| node.instance_id.to_string()),
        region: registration
            .as_ref()
            .map_or_else(String::new, |node| node.region.clone()),
        platform: Platform::detect(),
        is_moorline: registration.is_some_and(|node| node.is_moorline),
        reboot_command: config.command.reboot_command.clone(),
        secure_parameters: config.command.secure_parameters.clone(),
        s3: config.command.s3.clone(),
        groups: node::find_groups(&run.state_dir, &config.command.limits),
        output: config.command.output,
        limits: config.command.limits.clone(),
        transcript: config.transcript.clone(),
        seals: false,
        policy_folder: config.policy.folder.clone(),
    };
    let (stop, stopped) = watch::channel(None);
    listen(stop)?;
    let run_directory = step::run_directories(&task.state_dir).join(&task.command_id);
    let mut context = StepContext {
        task: &task,
        limits: StepLimits::of_agent(&task.limits, task.groups.as_ref()),
        command_id_variable: Some(&task.command_id),
        allowance: Allowance::new(task.output),
        stop: stopped,
        steps_directory: run_directory.clone(),
        run_directory,
        documents: vec![document],
        programs: 0,
        recording: CommandRecording::default(),
        secrets,
        operator: None,
    };
    let mut flow = Flow::new(steps);
    loop {
        let stop = *context.stop.borrow();
        let (position, outcome) = match flow.next(stop) {
            Next::Over(status) => {
                say(&format!(
                    "{}: files are in {}\n",
                    status.as_str(),
                    context.run_directory.display()
                ))?;
                return Ok(status);
            }
            Next::Settled(position, outcome) => (position, outcome),
            Next::Run(position) => {
                let Some(step) = steps.get(position) else {
                    anyhow::bail!("a step of the document is missing");
                };
                let ran = step::run(step, position, &mut context).await;
                match flow.ran(ran.clone()) {
                    AfterRun::Outcome(outcome) => (position, outcome),
                    // Nobody would go on with the document in the next boot.
                    AfterRun::Reboot => {
                        let reason = "the step asks for a reboot, after which nobody goes on with a document that was \
                                      run by hand: reboot, and run it again";
                        (position, flow.reboot_failed(ran, reason))
                    }
                }
            }
        };
        if let Some(step) = steps.get(position) {
            tell(step, &outcome)?;
        }
    }
}

fn tell(step: &Step, outcome: &StepOutcome) -> std::io::Result<()> {
    let status = outcome.status.as_str();
    let mut told = format!(
        "=== {} ({}): {status}, code {}\n",
        step.name, step.action, outcome.code
    );
    let texts = match &outcome.text {
        Some(text) => [text.as_str(), ""],
        None => [outcome.stdout.as_str(), outcome.stderr.as_str()],
    };
    for text in texts.into_iter().filter(|text| !text.is_empty()) {
        told.push_str(text);
        if !text.ends_with('\n') {
            told.push('\n');
        }
    }
    say(&told)
}

/// Ctrl-C cancels the document, and SIGTERM stops it; both end what its steps have started.
fn listen(stop: watch::Sender<Option<StopReason>>) -> std::io::Result<()> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::spawn(async move {
        let reason = tokio::select! {
            _ = interrupt.recv() => StopReason::Cancelled,
            _ = terminate.recv() => StopReason::Interrupted,
        };
        stop.send_replace(Some(reason));
        stop.closed().await;
    });
    Ok(())
}
