//! Rules of the tree that no compiler knows. A broken rule says which file and why the rule is there.

mod documentation;
mod promises;

pub(crate) use documentation::fold;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::{
    processes::{cargo, output_of},
    root,
};

/// Which of our crates may use which (ARCHITECTURE.md, "Who may depend on whom").
const EDGES: [(&str, &[&str]); 8] = [
    ("moorline-protocol", &[]),
    ("moorline-ssm", &[]),
    ("moorline-transport", &["moorline-protocol", "moorline-ssm"]),
    (
        "moorline-agent",
        &["moorline-protocol", "moorline-ssm", "moorline-transport"],
    ),
    ("moorline-control", &["moorline-protocol", "moorline-ssm"]),
    (
        "moorline",
        &["moorline-protocol", "moorline-ssm", "moorline-transport"],
    ),
    (
        "moorline-tests",
        &["moorline-protocol", "moorline-ssm", "moorline-transport"],
    ),
    ("xtask", &[]),
];
/// What the pure crates must never link: it would bring sockets, clocks or threads with it.
const NOT_IN_PROTOCOL: [&str; 5] = ["tokio", "hyper", "rusqlite", "sqlx", "nix"];
/// Production lines of one file; beyond it a file has more than one reason to change.
const MAX_LINES: usize = 600;

/// Checks everything and lists every breach.
pub(crate) fn run() -> Result<()> {
    let mut breaches = Vec::new();
    dependencies(&mut breaches)?;
    for path in sources()? {
        let text = fs::read_to_string(root()?.join(&path))?;
        source(&path, &text, &mut breaches);
    }
    manifests(&mut breaches)?;
    promises::check(&mut breaches)?;
    documentation::check(&mut breaches)?;
    if !breaches.is_empty() {
        bail!(
            "tidy found {} breaches:\n  {}",
            breaches.len(),
            breaches.join("\n  ")
        );
    }
    println!("tidy: the tree keeps its rules");
    Ok(())
}

fn dependencies(breaches: &mut Vec<String>) -> Result<()> {
    let metadata: Value = serde_json::from_str(&output_of(cargo().args([
        "metadata",
        "--format-version",
        "1",
        "--no-deps",
    ]))?)?;
    let allowed: BTreeMap<&str, &[&str]> = EDGES.into_iter().collect();
    for package in metadata["packages"]
        .as_array()
        .context("cargo metadata has no packages")?
    {
        let name = package["name"].as_str().context("a package has no name")?;
        let Some(may_use) = allowed.get(name) else {
            breaches.push(format!(
                "{name}: a new crate needs its line in the table of tidy and in ARCHITECTURE.md"
            ));
            continue;
        };
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            let used = dependency["name"].as_str().unwrap_or_default();
            if allowed.contains_key(used) && !may_use.contains(&used) {
                breaches.push(format!("{name} must not depend on {used}"));
            }
            let is_pure = matches!(name, "moorline-protocol" | "moorline-ssm");
            if is_pure && dependency["kind"].is_null() && NOT_IN_PROTOCOL.contains(&used) {
                breaches.push(format!("{name} does no I/O and must not depend on {used}"));
            }
        }
    }
    Ok(())
}

fn sources() -> Result<Vec<PathBuf>> {
    let listed = output_of(Command::new("git").current_dir(root()?).args([
        "ls-files",
        "--cached",
        "--others",
        "--exclude-standard",
        "*.rs",
    ]))?;
    Ok(listed
        .lines()
        .map(PathBuf::from)
        .filter(|path| path.exists())
        .collect())
}

fn source(path: &Path, text: &str, breaches: &mut Vec<String>) {
    let shown = path.display();
    let is_test = path
        .components()
        .any(|part| matches!(part.as_os_str().to_str(), Some("tests" | "fuzz_targets")))
        || path.file_name().is_some_and(|name| name == "tests.rs");
    let is_generated = text.starts_with("// Generated")
        || text.starts_with("// @generated")
        || text.starts_with("//! Generated");
    if !is_test && !text.starts_with("//!") && !is_generated && !text.starts_with("#!") {
        breaches.push(format!(
            "{shown}: begins with no module doc (`//!`) that says what it is for"
        ));
    }
    let production = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or(text);
    let lines = production.lines().count();
    if lines > MAX_LINES && !is_test && !is_generated {
        breaches.push(format!(
            "{shown}: {lines} production lines, above {MAX_LINES}; split it by reason to change"
        ));
    }
    if path.file_name().is_some_and(|name| {
        matches!(
            name.to_str(),
            Some("utils.rs" | "helpers.rs" | "common.rs" | "manager.rs" | "mod.rs")
        )
    }) {
        breaches.push(format!("{shown}: a file is named after what it holds"));
    }
}

/// Versions stand once, in the workspace.
fn manifests(breaches: &mut Vec<String>) -> Result<()> {
    for (_, manifest) in member_manifests()? {
        let text = fs::read_to_string(&manifest)?;
        let mut in_dependencies = false;
        for line in text.lines() {
            if let Some(section) = line.strip_prefix('[') {
                in_dependencies = section.contains("dependencies");
            } else if in_dependencies && line.contains('=') && !line.contains("workspace = true") {
                breaches.push(format!(
                    "{}: `{line}` must take its version from the workspace",
                    manifest.display()
                ));
            }
        }
    }
    Ok(())
}

fn member_manifests() -> Result<Vec<(String, PathBuf)>> {
    let members = [
        "protocol",
        "protocol/ssm",
        "transport",
        "agent",
        "control",
        "cli",
        "tests",
        "xtask",
    ];
    let root = root()?;
    Ok(members
        .iter()
        .map(|member| ((*member).to_owned(), root.join(member).join("Cargo.toml")))
        .collect())
}
