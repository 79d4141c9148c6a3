//! `moorline`, the operator's command line: an ordinary client of the API, and a drop-in for
//! `session-manager-plugin` when started under that name (client-wire §1).
//!
//! One thread runs everything but the terminal's reads and writes, which block and have threads of their own
//! ([`terminal`]). Every command returns its exit code or one error, and both end here.

mod activation;
mod arguments;
mod attach;
mod audit;
mod command_output;
mod console;
mod counted;
#[cfg(test)]
#[path = "../../tests/documentation/command_lines.rs"]
mod documentation;
mod documents;
mod error;
mod explain;
mod forward;
mod group;
mod install_plugin;
mod node;
mod nodes;
mod operator;
mod operators;
mod output_file;
mod packages;
mod parameters;
mod pick;
mod pick_session;
mod plan;
mod plugin;
mod quote;
mod rollout;
mod run;
mod session_client;
mod sessions;
mod settings;
mod shell;
mod sign;
mod tag;
mod take_over;
mod terminal;
mod terminate;
mod transcript;
mod watch;

use std::{ffi::OsString, path::Path, process::ExitCode};

use clap::Parser;

use self::{
    arguments::{Arguments, Command},
    error::CliError,
    operator::Operator,
    settings::Settings,
};

/// Wrong usage or configuration.
const EXIT_USAGE: u8 = 64;
/// The reader of our output has gone: 128 + SIGPIPE, as a shell reports it.
const EXIT_CLOSED_OUTPUT: u8 = 141;
/// No session stands, or it broke: as ssh does, so that it is told apart from a shell's own exit code.
const EXIT_NO_SESSION: u8 = 255;

fn main() -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(source) => {
            console::complain(&CliError::io("start the runtime", source));
            return ExitCode::FAILURE;
        }
    };
    let arguments: Vec<OsString> = std::env::args_os().collect();
    if is_plugin(arguments.first()) {
        let code = runtime.block_on(plugin::main(arguments.get(1..).unwrap_or_default()));
        return ExitCode::from(code);
    }
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(error) => {
            // where it cannot be printed, the exit code has to do
            let _unprintable = error.print();
            return ExitCode::from(if error.use_stderr() { EXIT_USAGE } else { 0 });
        }
    };
    let fallback = if matches!(
        arguments.command,
        Command::Shell(_) | Command::Attach { .. } | Command::Forward(_) | Command::SshProxy(_)
    ) {
        EXIT_NO_SESSION
    } else {
        1
    };
    let code = runtime.block_on(execute(arguments)).unwrap_or_else(|error| {
        if error.is_closed_output() {
            return EXIT_CLOSED_OUTPUT;
        }
        console::complain(&error);
        match error {
            CliError::Settings(_) | CliError::Usage(_) => EXIT_USAGE,
            _ => fallback,
        }
    });
    ExitCode::from(code)
}

/// Whether we were started as the AWS CLI starts its plugin.
fn is_plugin(program: Option<&OsString>) -> bool {
    program
        .and_then(|program| Path::new(program).file_name())
        .is_some_and(|name| name == "session-manager-plugin")
}

async fn execute(arguments: Arguments) -> Result<u8, CliError> {
    let json = arguments.json;
    let connect = || {
        Settings::load(arguments.profile.as_deref())
            .map(Operator::new)
            .map_err(CliError::from)
    };
    match arguments.command {
        Command::Activation { command } => activation::execute(&connect()?, command, json).await,
        Command::Attach { session } => take_over::execute(connect()?, session.as_deref()).await,
        Command::Audit(options) => audit::execute(connect, *options, json).await,
        Command::Watch { session, raw } => watch::execute(&connect()?, session.as_deref(), raw).await,
        Command::Cancel(options) => run::cancel(&connect()?, &options, json).await,
        Command::Explain { command, node } => explain::execute(&connect()?, &command, &node, json).await,
        Command::Document { command } => documents::execute(connect, command, json).await,
        Command::Package { command } => packages::execute(connect, command, json).await,
        Command::Group { command } => group::execute(&connect()?, command, json).await,
        Command::Key { command } => sign::key(&command, json),
        Command::Nodes(options) => nodes::execute(&connect()?, &options, json).await,
        Command::Operator { command } => operators::execute(&connect()?, command, json).await,
        Command::Output(options) => command_output::execute(&connect()?, &options, json).await,
        Command::Parameter { command } => parameters::execute(&connect()?, command, json).await,
        Command::Run(options) => run::execute(&connect()?, &options, json).await,
        Command::Shell(options) => shell::execute(connect()?, &options).await,
        Command::Forward(options) => forward::forward(connect()?, &options, json).await,
        Command::SshProxy(options) => forward::ssh_proxy(connect()?, &options).await,
        Command::Sessions(options) => sessions::execute(&connect()?, &options, json).await,
        Command::Terminate { session } => terminate::execute(&connect()?, &session, json).await,
        Command::Tag { command } => tag::execute(&connect()?, command, json).await,
        Command::Transcript { command } => transcript::execute(connect, command, json).await,
        Command::InstallPlugin { directory } => install_plugin::execute(directory.as_deref(), json),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_name_of_the_program_decides_what_it_is() {
        for (program, expected) in [
            ("session-manager-plugin", true),
            ("/usr/local/bin/session-manager-plugin", true),
            ("moorline", false),
            ("/opt/session-manager-plugin/moorline", false),
        ] {
            assert_eq!(is_plugin(Some(&OsString::from(program))), expected, "{program}");
        }
        assert!(!is_plugin(None));
    }
}
