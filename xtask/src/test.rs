//! Every test, in stages: the cheap ones first. Each stage can be run by its name.

use std::time::Instant;

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};

use crate::{codegen, node_modules, packages, processes::cargo, processes::must_succeed, tidy, up, venv};

#[derive(Args)]
pub(crate) struct Options {
    /// Only these stages
    stages: Vec<Stage>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Stage {
    /// rustfmt
    Format,
    /// tidy, and generated code is current
    Tidy,
    /// clippy, warnings are errors
    Lint,
    /// Tests inside the crates
    Unit,
    /// Fuzz targets over their corpus and a seeded run of mutations
    Fuzz,
    /// Real processes, real clients, and faults
    EndToEnd,
    /// `cargo xtask up --once`
    Up,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let stages: Vec<Stage> = match options.stages.as_slice() {
        [] => Stage::value_variants().to_vec(),
        named => named.to_vec(),
    };
    let mut failed = Vec::new();
    for stage in stages {
        println!("== {stage:?}");
        let began = Instant::now();
        if let Err(error) = stage.run() {
            println!("{error:#}");
            failed.push(stage);
        }
        println!("== {stage:?}: {:.0} s", began.elapsed().as_secs_f64());
    }
    if !failed.is_empty() {
        bail!("failed: {failed:?}; run one again with `cargo xtask test STAGE`");
    }
    println!("every stage passed");
    Ok(())
}

impl Stage {
    fn run(self) -> Result<()> {
        match self {
            Self::Format => must_succeed(cargo().args(["fmt", "--all", "--check"])),
            Self::Tidy => {
                tidy::run()?;
                codegen::run(true)
            }
            Self::Lint => {
                must_succeed(cargo().args(["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]))
            }
            Self::Unit => must_succeed(cargo().args(["test", "--workspace", "--exclude", "moorline-tests"])),
            Self::Fuzz => must_succeed(cargo().args(["test", "-p", "moorline-tests", "--lib"])),
            Self::EndToEnd => {
                packages::prepare();
                let venv = venv::prepare()?;
                let node_modules = node_modules::prepare()?;
                up::build()?;
                // The programs under test share two cores with their clients: a few tests at a time.
                let mut tests = cargo();
                tests.args(["test", "-p", "moorline-tests", "--no-fail-fast", "--tests"]);
                tests.args(["--", "--test-threads", "3"]);
                tests.env("MOORLINE_TEST_VENV", venv);
                if let Some(node_modules) = node_modules {
                    tests.env("MOORLINE_TEST_NODE_MODULES", node_modules);
                }
                must_succeed(&mut tests)
            }
            Self::Up => up::run(&up::Options::once()),
        }
    }
}
