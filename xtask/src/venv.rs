//! The Python environment with the real clients (AWS CLI, boto3) that the tests use, at pinned versions.

use std::{fs, path::PathBuf, process::Command};

use anyhow::{Context, Result};

use crate::{processes::must_succeed, root};

/// Makes the environment, or keeps it when its requirements have not changed; returns its folder.
pub(crate) fn prepare() -> Result<PathBuf> {
    let requirements = root()?.join("tests/requirements.txt");
    let wanted =
        fs::read(&requirements).with_context(|| format!("failed to read {}", requirements.display()))?;
    let venv = crate::target_dir()?.join("test-venv");
    let stamp = venv.join("requirements.txt");
    if fs::read(&stamp).is_ok_and(|installed| installed == wanted) {
        return Ok(venv);
    }
    let python = std::env::var_os("PYTHON").unwrap_or_else(|| "python3".into());
    println!(
        "== making a Python environment for the real clients in {}",
        venv.display()
    );
    must_succeed(Command::new(python).args(["-m", "venv", "--clear"]).arg(&venv))
        .context("Python 3 with its venv module is needed for the tests")?;
    must_succeed(
        Command::new(venv.join("bin/python"))
            .args([
                "-m",
                "pip",
                "install",
                "--quiet",
                "--disable-pip-version-check",
                "--requirement",
            ])
            .arg(&requirements),
    )?;
    fs::copy(&requirements, &stamp)?;
    Ok(venv)
}
