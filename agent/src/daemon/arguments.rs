//! The command line.

use std::{
    ffi::CStr,
    fs,
    io::{self, BufRead as _, IsTerminal as _, Read as _},
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use moorline_protocol::{error_chain, types::ActivationId};
use moorline_transport::read_hidden_line;

use super::{policy, run, status};
use crate::{
    command,
    config::Config,
    identity::{Registrar, register},
    runtime::close_memory,
    session,
};

/// sysexits' EX_USAGE: systemd must not restart what can never work (`RestartPreventExitStatus=64`).
const EXIT_USAGE: u8 = 64;
/// What `ps` calls a worker: not as the daemon, which `pkill` is to find alone.
const WORKER_NAME: &CStr = c"moorline-worker";
/// An activation code is short; more is not one.
const MAX_CODE_BYTES: u64 = 4096;

/// The agent of a managed node: holds one outbound connection, runs commands and sessions.
#[derive(Parser)]
#[command(name = "moorline-agent", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Register this machine as a managed node, with a hybrid activation
    Register(RegisterArguments),
    /// Run the agent in the foreground
    Run(RunArguments),
    /// Run a document on this machine, without an endpoint; exit code 0 when it ends with Success
    RunDocument(RunDocumentArguments),
    /// Show the registration and the state of the daemon; exit code 1 when it is not connected
    Status(StatusArguments),
    /// Show what the policy of this node's owner says, and would say of a command or a session
    Policy(policy::PolicyArguments),
    /// End the open sessions of this node and tell their users why, as before it shuts down
    ///
    /// This is root's to do, or the user's that the agent runs as. Exit code: 0, or 1 when some sessions stay.
    EndSessions(EndSessionsArguments),
}

#[derive(Args)]
struct StateDir {
    /// Directory of the registration, the journal and the output of commands
    #[arg(long, value_name = "DIR", default_value = "/var/lib/moorline")]
    state_dir: PathBuf,
}

#[derive(Args)]
struct RegisterArguments {
    #[command(flatten)]
    state: StateDir,
    /// Control endpoint, https://HOST[:PORT]
    #[arg(long, value_name = "URL", required_unless_present = "region")]
    endpoint: Option<String>,
    /// PEM file with the endpoint's CA, which replaces the system's certificates [default: the system's]
    #[arg(long, value_name = "FILE", requires = "endpoint")]
    ca: Option<PathBuf>,
    /// AWS region, to be a node of AWS Systems Manager instead (derives AWS's hosts; not tried against AWS itself)
    #[arg(long, value_name = "REGION", conflicts_with = "endpoint")]
    region: Option<String>,
    /// The activation's id
    #[arg(long, value_name = "ID")]
    activation_id: ActivationId,
    /// File with the activation's code, or - for a line of standard input: a secret does not belong on a command line
    #[arg(long, value_name = "FILE|-")]
    activation_code_file: PathBuf,
    /// Replace an existing registration
    #[arg(long)]
    force: bool,
}

#[derive(Args)]
struct RunArguments {
    #[command(flatten)]
    state: StateDir,
    /// Settings file [default: agent.toml in the state directory, else /etc/moorline/agent.toml]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Only read the settings, say whether they are sound, and end
    #[arg(long)]
    check_config: bool,
}

#[derive(Args)]
struct RunDocumentArguments {
    /// Command document in JSON or YAML, or - for standard input
    #[arg(value_name = "FILE|-")]
    document: PathBuf,
    /// Parameters: a map in JSON or YAML, or NAME=VALUE; may be repeated
    #[arg(long, value_name = "MAP|NAME=VALUE")]
    parameters: Vec<String>,
    /// File with a map of parameters: a secret does not belong on a command line
    #[arg(long, value_name = "FILE")]
    parameters_file: Option<PathBuf>,
    /// Only show what would run, and why the rest would not
    #[arg(long)]
    plan: bool,
    #[command(flatten)]
    state: StateDir,
    /// Settings file [default: agent.toml in the state directory, else /etc/moorline/agent.toml]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(Args)]
struct StatusArguments {
    #[command(flatten)]
    state: StateDir,
    /// Print JSON for programs
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct EndSessionsArguments {
    #[command(flatten)]
    state: StateDir,
    /// What the users are told
    #[arg(long, value_name = "TEXT", default_value = "the node is shutting down")]
    reason: String,
    /// How long to wait for their end; programs that stay are killed four seconds after they were asked to end
    #[arg(long, value_name = "SECONDS", default_value_t = 15, value_parser = clap::value_parser!(u64).range(1..=3600))]
    wait: u64,
}

/// Entry point of the binary.
pub(crate) fn main() -> ExitCode {
    let closed = close_memory();
    // Workers first, before the parser of arguments costs them memory.
    let mut arguments = std::env::args().skip(1);
    if arguments.next().as_deref() == Some("worker") {
        // it was started as /proc/self/exe, and `ps` and `top` would show it as `exe`
        let _unnamed = nix::sys::prctl::set_name(WORKER_NAME);
        return match arguments.next().as_deref() {
            Some("command") => command::worker_main(),
            Some("session") => session::worker_main(),
            Some("login") => session::login_main(),
            _ => ExitCode::from(EXIT_USAGE),
        };
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let code = if error.use_stderr() { EXIT_USAGE } else { 0 };
            return match error.print() {
                Ok(()) => ExitCode::from(code),
                Err(_) => ExitCode::FAILURE,
            };
        }
    };
    let outcome = match cli.command {
        Verb::Register(arguments) => register_node(arguments),
        Verb::Run(arguments) => run_daemon(&arguments, closed),
        Verb::RunDocument(arguments) => run_document(&arguments),
        Verb::Status(arguments) => status::show(&arguments.state.state_dir, arguments.json),
        Verb::Policy(arguments) => policy::execute(&arguments),
        Verb::EndSessions(arguments) => end_sessions(&arguments),
    };
    outcome.unwrap_or_else(|error| {
        say_error(&error);
        ExitCode::FAILURE
    })
}

#[expect(clippy::print_stderr, reason = "this is what a command line answers on")]
fn say_error(error: &anyhow::Error) {
    eprintln!("moorline-agent: {}", error_chain(&**error));
}

#[expect(clippy::print_stdout, reason = "this is what a command line answers on")]
fn register_node(arguments: RegisterArguments) -> anyhow::Result<ExitCode> {
    let registrar = Registrar {
        activation_code: read_code(&arguments.activation_code_file)?,
        state_dir: arguments.state.state_dir,
        endpoint: arguments.endpoint,
        ca: arguments.ca,
        region: arguments.region,
        activation_id: arguments.activation_id,
        force: arguments.force,
    };
    let instance_id = run::runtime()?.block_on(register(&registrar))?;
    println!("registered as {instance_id}");
    Ok(ExitCode::SUCCESS)
}

#[expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "this is what a command line answers on"
)]
fn end_sessions(arguments: &EndSessionsArguments) -> anyhow::Result<ExitCode> {
    let (state_dir, wait) = (&arguments.state.state_dir, Duration::from_secs(arguments.wait));
    let ended = run::runtime()?.block_on(session::end_sessions(state_dir, &arguments.reason, wait))?;
    if let Some(error) = ended.untold {
        eprintln!("moorline-agent: the sessions end with a reason of their own: {error}");
    }
    println!("{} ended", sessions(ended.ended));
    if ended.left == 0 {
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!(
        "moorline-agent: {} did not end within {wait:?}",
        sessions(ended.left)
    );
    Ok(ExitCode::FAILURE)
}

fn sessions(count: usize) -> String {
    match count {
        1 => "1 session".to_owned(),
        count => format!("{count} sessions"),
    }
}

fn read_code(file: &Path) -> anyhow::Result<String> {
    let stdin = io::stdin();
    let read = if file.as_os_str() != "-" {
        fs::File::open(file).and_then(|file| io::read_to_string(file.take(MAX_CODE_BYTES)))
    } else if stdin.is_terminal() {
        read_hidden_line(ask_for_code, "--activation-code-file")
    } else {
        let mut line = String::new();
        let read = stdin.lock().take(MAX_CODE_BYTES).read_line(&mut line);
        read.map(|_| line)
    };
    let code = read.with_context(|| format!("failed to read the activation code from {}", file.display()))?;
    let code = code.trim().to_owned();
    match file.as_os_str() == "-" {
        true => anyhow::ensure!(!code.is_empty(), "no activation code was entered"),
        false => anyhow::ensure!(!code.is_empty(), "{} holds no activation code", file.display()),
    }
    Ok(code)
}

#[expect(clippy::print_stderr, reason = "a prompt is for who types")]
fn ask_for_code() {
    eprint!("activation code (what you type is not shown): ");
}

fn run_document(arguments: &RunDocumentArguments) -> anyhow::Result<ExitCode> {
    let state_dir = std::path::absolute(&arguments.state.state_dir)?;
    let config = Config::load(arguments.config.as_deref(), &state_dir)?;
    let run = command::LocalRun {
        document: &arguments.document,
        parameters: &arguments.parameters,
        parameters_file: arguments.parameters_file.as_deref(),
        is_plan: arguments.plan,
        state_dir,
    };
    command::run_document(&run, &config)
}

#[expect(clippy::print_stdout, reason = "this is what a command line answers on")]
fn run_daemon(arguments: &RunArguments, closed: nix::Result<()>) -> anyhow::Result<ExitCode> {
    // Workers start elsewhere: a relative path would be another directory to them.
    let state_dir = std::path::absolute(&arguments.state.state_dir)?;
    let config = match Config::load(arguments.config.as_deref(), &state_dir) {
        Ok(config) => config,
        Err(error) => {
            say_error(&error.into());
            return Ok(ExitCode::from(EXIT_USAGE));
        }
    };
    if arguments.check_config {
        println!("settings are sound");
        return Ok(ExitCode::SUCCESS);
    }
    run::run(config, state_dir, closed)?;
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn every_command_and_value_is_explained_and_has_its_unit() {
        let unexplained = crate::documentation::unexplained(&Cli::command());
        assert!(unexplained.is_empty(), "{}", unexplained.join("\n"));
    }

    #[test]
    fn every_command_line_of_the_documentation_is_one() {
        let refused = crate::documentation::refused(&Cli::command());
        assert!(refused.is_empty(), "{}", refused.join("\n"));
    }
}
