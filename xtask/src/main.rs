//! Everything a developer types that needs a program.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a developer's command line speaks on both"
)]

mod codegen;
mod node_modules;
mod packages;
mod processes;
mod test;
mod tidy;
mod up;
mod venv;

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Parser;

#[derive(Parser)]
#[command(
    bin_name = "cargo xtask",
    about = "Build, try and test Moorline",
    max_term_width = 100
)]
enum Task {
    /// Build, start a control endpoint, join this machine as a node, run a command, open a recorded shell
    Up(up::Options),
    /// Install what the tests need and run every test; or only the named stages
    Test(test::Options),
    /// Check the rules of the tree that no compiler knows: dependency directions, sizes, versions
    Tidy,
    /// Fold the documentation at 120 columns
    Fold,
    /// Write the operations and shapes of the SSM API from the model
    Codegen {
        /// Write nothing; fail if the committed code is not what the model gives
        #[arg(long)]
        check: bool,
    },
    /// Measure every bound of the README's table, release build, on loopback
    Bench {
        /// Passed on to the benchmark
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
}

fn main() -> Result<()> {
    match Task::parse() {
        Task::Up(options) => up::run(&options),
        Task::Test(options) => test::run(&options),
        Task::Tidy => tidy::run(),
        Task::Fold => tidy::fold(),
        Task::Codegen { check } => codegen::run(check),
        Task::Bench { arguments } => bench(&arguments),
    }
}

fn bench(arguments: &[String]) -> Result<()> {
    let mut build = processes::cargo();
    build.args([
        "build",
        "--release",
        "-p",
        "moorline-control",
        "-p",
        "moorline-agent",
        "-p",
        "moorline",
    ]);
    build.args(["-p", "moorline-tests", "--bins"]);
    processes::must_succeed(&mut build)?;
    let mut package = processes::cargo();
    processes::must_succeed(package.args(["build", "--profile", "dist", "-p", "moorline-agent"]))?;
    let mut bench = std::process::Command::new(target_dir()?.join("release/moorline-bench"));
    processes::must_succeed(bench.args(arguments))
}

/// The checkout's root.
fn root() -> Result<PathBuf> {
    let here = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    Ok(here.parent().context("xtask lies in no workspace")?.to_owned())
}

/// Where cargo puts what it builds.
fn target_dir() -> Result<PathBuf> {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(dir) => Ok(std::path::absolute(dir)?),
        None => Ok(root()?.join("target")),
    }
}
