//! Everything a developer types that needs a program.

mod codegen;

use anyhow::Result;
use clap::Parser;

#[derive(Parser)]
#[command(about)]
enum Task {
    /// Write the operations and shapes of the SSM API from the model.
    Codegen {
        /// Write nothing; fail if the committed code is not what the model gives.
        #[arg(long)]
        check: bool,
    },
}

fn main() -> Result<()> {
    match Task::parse() {
        Task::Codegen { check } => codegen::run(check),
    }
}
