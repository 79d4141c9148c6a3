//! The files of a policy: who may have written them, what they hold, and their hash.

use std::{
    fs::{self, File, Metadata, OpenOptions},
    io::{self, Read},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use nix::{libc::O_NONBLOCK, unistd::Uid};
use ring::digest::{Context, SHA256};
use serde::Deserialize;

use super::{
    Fallback, Fingerprint, Policy, Source,
    rule::{Effect, Rule, Subject},
    signer::Signer,
};

/// A file of rules is small; a larger one is a mistake.
const MAX_FILE_BYTES: u64 = 256 * 1024;
const MAX_FILES: usize = 256;

/// Why a policy cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PolicyError {
    #[error("failed to read {path}")]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{path} {what}")]
    Untrusted { path: PathBuf, what: String },
    #[error("{path} holds more than {MAX_FILES} files")]
    TooMany { path: PathBuf },
    #[error("{path} is larger than {MAX_FILE_BYTES} bytes")]
    TooLarge { path: PathBuf },
    // toml's text names line and column and shows the line.
    #[error("failed to understand {path}")]
    Parse {
        path: PathBuf,
        #[source]
        source: Box<toml::de::Error>,
    },
    #[error("{path}, line {line}: {reason}")]
    Rule {
        path: PathBuf,
        line: usize,
        reason: String,
    },
}

/// One file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleFile {
    #[serde(default)]
    default: Defaults,
    #[serde(default)]
    rule: Vec<toml::Spanned<Rule>>,
    #[serde(default)]
    require_signature: bool,
    #[serde(default)]
    signer: Vec<toml::Spanned<Signer>>,
}

/// `[default]`: what becomes of what no rule holds for.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Defaults {
    command: Option<Effect>,
    session: Option<Effect>,
}

/// Reads a policy. A folder that is not there holds no file.
///
/// # Errors
/// What is there cannot be read or understood, or others than the owner could have written it.
pub(super) fn read(folder: &Path) -> Result<Policy, PolicyError> {
    let mut policy = Policy::default();
    let mut hash = Context::new(&SHA256);
    let paths = listed(folder)?;
    for path in &paths {
        let text = read_file(path)?;
        let name = path.file_name().unwrap_or_default().as_encoded_bytes();
        for part in [name, text.as_bytes()] {
            hash.update(&(part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        add(&mut policy, path, &text)?;
    }
    if !paths.is_empty() {
        policy.fingerprint = Fingerprint::of(hash.finish().as_ref());
    }
    Ok(policy)
}

fn listed(folder: &Path) -> Result<Vec<PathBuf>, PolicyError> {
    let failed = |source| PolicyError::Read {
        path: folder.to_owned(),
        source,
    };
    match fs::metadata(folder) {
        Ok(metadata) => is_the_owners(folder, &metadata)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    }
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        let bytes = name.as_encoded_bytes();
        if !bytes.ends_with(b".toml") || bytes.starts_with(b".") {
            continue;
        }
        if paths.len() >= MAX_FILES {
            return Err(PolicyError::TooMany {
                path: folder.to_owned(),
            });
        }
        paths.push(folder.join(name));
    }
    paths.sort();
    Ok(paths)
}

/// What others may write is not the owner's word.
fn is_the_owners(path: &Path, metadata: &Metadata) -> Result<(), PolicyError> {
    let untrusted = |what: String| {
        Err(PolicyError::Untrusted {
            path: path.to_owned(),
            what,
        })
    };
    let (owner, own) = (metadata.uid(), Uid::effective().as_raw());
    if owner != 0 && owner != own {
        return untrusted(format!("belongs to user {owner}: it must be root's"));
    }
    if metadata.mode() & 0o022 != 0 {
        let mode = metadata.mode() & 0o7777;
        return untrusted(format!(
            "has mode {mode:04o}: nobody but its owner may write it (chmod go-w)"
        ));
    }
    Ok(())
}

fn read_file(path: &Path) -> Result<String, PolicyError> {
    let failed = |source| PolicyError::Read {
        path: path.to_owned(),
        source,
    };
    // Opening must not wait for the other end of a pipe.
    let file: File = OpenOptions::new()
        .read(true)
        .custom_flags(O_NONBLOCK)
        .open(path)
        .map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    is_the_owners(path, &metadata)?;
    if !metadata.is_file() {
        return Err(PolicyError::Untrusted {
            path: path.to_owned(),
            what: "is no file".to_owned(),
        });
    }
    let mut text = String::new();
    let read = file.take(MAX_FILE_BYTES + 1).read_to_string(&mut text);
    if read.map_err(failed)? as u64 > MAX_FILE_BYTES {
        return Err(PolicyError::TooLarge {
            path: path.to_owned(),
        });
    }
    Ok(text)
}

/// Adds what a file says to what those before it say.
fn add(policy: &mut Policy, path: &Path, text: &str) -> Result<(), PolicyError> {
    let file: RuleFile = toml::from_str(text).map_err(|source| PolicyError::Parse {
        path: path.to_owned(),
        source: Box::new(source),
    })?;
    for rule in file.rule {
        let before = text.get(..rule.span().start).unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        let rule = rule.into_inner();
        rule.check().map_err(|reason| PolicyError::Rule {
            path: path.to_owned(),
            line,
            reason,
        })?;
        policy.rules.push(Source {
            path: path.to_owned(),
            line,
            rule,
        });
    }
    for signer in file.signer {
        let before = text.get(..signer.span().start).unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        let signer = signer.into_inner();
        signer.check().map_err(|reason| PolicyError::Rule {
            path: path.to_owned(),
            line,
            reason,
        })?;
        policy.signers.push(signer);
    }
    // One file is enough, and none takes it back.
    if file.require_signature && policy.signed_only.is_none() {
        policy.signed_only = Some(path.to_owned());
    }
    let Defaults { command, session } = file.default;
    for (subject, effect) in [(Subject::Command, command), (Subject::Session, session)] {
        let Some(effect) = effect else { continue };
        // As with rules, who comes first decides.
        if !policy.defaults.iter().any(|default| default.subject == subject) {
            policy.defaults.push(Fallback {
                path: path.to_owned(),
                subject,
                effect,
            });
        }
    }
    Ok(())
}
