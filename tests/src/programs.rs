//! Where the programs under test are: beside the test that runs.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};

/// The path of one of our programs, built in the same profile as the running test.
pub(crate) fn program(name: &str) -> Result<PathBuf> {
    let here = std::env::current_exe().context("failed to find the running test")?;
    // target/PROFILE/deps/TEST-HASH, or target/PROFILE/BENCHMARK
    let profile = here
        .ancestors()
        .skip(1)
        .find(|folder| !folder.ends_with("deps"))
        .context("the running test lies in no target directory")?;
    let path = profile.join(name);
    ensure!(
        path.is_file(),
        "{} is not built; run `cargo xtask test`, or `cargo build --workspace` before this test",
        path.display()
    );
    Ok(path)
}
