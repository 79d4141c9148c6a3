//! The managed node's agent: `register`, `run`, `status`, and the hidden `worker` that `run` starts for every
//! command and every session.

mod command;
mod config;
mod daemon;
#[cfg(test)]
#[path = "../../tests/documentation/command_lines.rs"]
mod documentation;
mod identity;
mod policy;
mod recording;
mod runtime;
mod session;

fn main() -> std::process::ExitCode {
    daemon::main()
}
