//! `moorline package`: a folder with scripts becomes a package.

mod archive;

use std::{
    collections::BTreeMap,
    fs::{self, DirBuilder},
    io::Write as _,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

use moorline_protocol::package::Manifest;
use moorline_ssm::document::DocumentFormat;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    console::{self, one_line},
    documents::{self, PackageCommand, PackageOptions, Version},
    error::CliError,
    operator::Operator,
    output_file::OutputFile,
};

const MANIFEST: &str = "manifest.json";
const ANY: &str = "_any";

pub(crate) async fn execute(
    connect: impl FnOnce() -> Result<Operator, CliError>,
    command: PackageCommand,
    json: bool,
) -> Result<u8, CliError> {
    match command {
        PackageCommand::Build { package, out } => {
            let failed = |source| CliError::io(format!("make {}", out.display()), source);
            fs::create_dir_all(&out).map_err(failed)?;
            let built = build(&package, &out)?;
            let path = out.join(MANIFEST);
            write(&path, built.manifest.as_bytes())?;
            if json {
                console::print_json(&json!({ "Archive": built.archive, "Manifest": path }))?;
            } else {
                let line = format!("{}\n{}", built.archive.display(), path.display());
                console::print_line(&line)?;
            }
            Ok(0)
        }
        PackageCommand::Publish {
            package,
            name,
            keep_default,
        } => {
            let operator = connect()?;
            let workshop = Workshop::new()?;
            let built = build(&package, &workshop.0)?;
            let published = publish(&operator, &name, &built, keep_default).await;
            documents::told(&published?, json)
        }
    }
}

/// A folder of ours alone, until only the copy at the endpoint is wanted.
struct Workshop(PathBuf);

impl Workshop {
    fn new() -> Result<Self, CliError> {
        let path = std::env::temp_dir().join(format!("moorline-{}", Uuid::new_v4()));
        let made = DirBuilder::new().mode(0o700).create(&path);
        made.map_err(|source| CliError::io(format!("make {}", path.display()), source))?;
        Ok(Self(path))
    }
}

impl Drop for Workshop {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

/// A package on this machine.
struct Built {
    archive: PathBuf,
    manifest: String,
}

fn build(options: &PackageOptions, into: &Path) -> Result<Built, CliError> {
    let file_name = format!("{}.zip", options.version);
    let archive = into.join(&file_name);
    let failed = |source| CliError::io(format!("make {}", archive.display()), source);
    let mut file = OutputFile::create(&archive).map_err(failed)?;
    archive::write(&options.folder, &mut file)?;
    let (sha256, size) = documents::sum(&mut file).map_err(failed)?;
    let manifest = manifest(options, &file_name, &sha256, size)?;
    file.finish().map_err(failed)?;
    Ok(Built { archive, manifest })
}

/// The manifest, which the endpoint will take.
fn manifest(options: &PackageOptions, file_name: &str, sha256: &str, size: u64) -> Result<String, CliError> {
    let mut packages: BTreeMap<&str, BTreeMap<&str, BTreeMap<&str, Value>>> = BTreeMap::new();
    let everything = [ANY.to_owned()];
    let platforms = match options.platforms.as_slice() {
        [] => &everything[..],
        some => some,
    };
    for platform in platforms {
        let mut parts = platform.splitn(3, '/').chain([ANY, ANY]);
        let mut next = || parts.next().filter(|part| !part.is_empty()).unwrap_or(ANY);
        let (name, version, architecture) = (next(), next(), next());
        let versions = packages.entry(name).or_default();
        versions
            .entry(version)
            .or_default()
            .insert(architecture, json!({ "file": file_name }));
    }
    let manifest = json!({
        "schemaVersion": "2.0",
        "version": options.version,
        "packages": packages,
        "files": {file_name: {"checksums": {"sha256": sha256}, "size": size}},
    });
    let text = serde_json::to_string_pretty(&manifest);
    let text = text.map_err(|source| CliError::io("write the manifest", source.into()))?;
    Manifest::parse(&text).map_err(|error| CliError::Usage(error.to_string()))?;
    Ok(text)
}

async fn publish(
    operator: &Operator,
    name: &str,
    built: &Built,
    keep_default: bool,
) -> Result<moorline_ssm::document::DocumentDescription, CliError> {
    let version = |attachment| Version {
        text: built.manifest.clone(),
        format: DocumentFormat::Json,
        attachments: vec![attachment],
        version_name: None,
    };
    let attachment = documents::upload(operator, &built.archive).await?;
    let updated = version(attachment.clone())
        .update(operator, name, !keep_default)
        .await;
    match updated {
        Err(CliError::Call(error)) if error.code() == Some("InvalidDocument") => {
            console::note(&one_line(&format!("{name} is a new package")));
            version(attachment).create_package(operator, name).await
        }
        other => other,
    }
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), CliError> {
    let failed = |source| CliError::io(format!("write {}", path.display()), source);
    let mut file = OutputFile::create(path).map_err(failed)?;
    file.write_all(bytes).map_err(failed)?;
    file.finish().map_err(failed)
}

#[cfg(test)]
mod tests {
    use moorline_protocol::package::Target;

    use super::*;

    fn options(folder: &Path, platforms: &[&str]) -> PackageOptions {
        PackageOptions {
            folder: folder.to_owned(),
            version: "1.2-3".to_owned(),
            platforms: platforms.iter().map(|platform| (*platform).to_owned()).collect(),
        }
    }

    #[test]
    fn a_folder_becomes_the_same_package_each_time_for_the_platforms_that_are_named() {
        let (folder, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for name in ["install.sh", "uninstall.sh"] {
            write(&folder.path().join(name), b"true").unwrap();
        }
        let first = build(
            &options(folder.path(), &["ubuntu/22.04", "redhat/8.*/x86_64"]),
            out.path(),
        )
        .unwrap();
        let again = build(
            &options(folder.path(), &["ubuntu/22.04", "redhat/8.*/x86_64"]),
            out.path(),
        )
        .unwrap();
        assert_eq!(first.manifest, again.manifest);
        let manifest = Manifest::parse(&first.manifest).unwrap();
        let fits = |platform: &str, version: &str, architecture: &str| {
            let target = Target {
                platform: platform.to_owned(),
                version: version.to_owned(),
                architecture: architecture.to_owned(),
            };
            manifest.select(&target).is_ok()
        };
        assert!(fits("ubuntu", "22.04", "aarch64") && fits("redhat", "8.9", "x86_64"));
        assert!(!fits("ubuntu", "24.04", "aarch64") && !fits("redhat", "8.9", "aarch64"));
        let for_all = build(&options(folder.path(), &[]), out.path()).unwrap();
        let all = Manifest::parse(&for_all.manifest).unwrap();
        assert_eq!(all.platforms().collect::<Vec<_>>(), ["_any"]);
    }

    #[test]
    fn what_no_node_could_install_is_refused_here() {
        let (folder, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let refused = build(&options(folder.path(), &[]), out.path()).err().unwrap();
        assert!(refused.to_string().contains("install.sh"), "{refused}");
        let mut bad = options(folder.path(), &[]);
        write(&folder.path().join("install.sh"), b"true").unwrap();
        bad.version = "1 2".to_owned();
        assert!(build(&bad, out.path()).is_err());
        assert_eq!(fs::read_dir(out.path()).unwrap().count(), 0);
    }
}
