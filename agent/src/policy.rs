//! The node owner's policy: which commands and sessions this node takes (docs/policy.md).
//!
//! Rules stand in files of the node, in the order of their names, and the first one that holds decides. The daemon
//! asks before it starts anything, and the worker again, which knows more: what depends on something that is not known
//! yet is undecided. A policy that cannot be read refuses everything, which the worker says.

mod files;
mod hours;
mod pattern;
mod rule;
mod signer;
mod target;
mod watch;

use std::{
    fmt,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use moorline_protocol::error_chain;

pub(crate) use self::{
    files::PolicyError,
    rule::{Asked, Effect, Facts, Subject},
    signer::Once,
    target::Destination,
    watch::until_other_than,
};
use self::{
    rule::{Rule, Truth},
    signer::Signer,
};
use crate::runtime::ResourceLimits;

/// All files together.
#[derive(Debug, Clone, Default)]
pub(crate) struct Policy {
    rules: Vec<Source>,
    defaults: Vec<Fallback>,
    /// The file that lets nothing run that is not signed, if there is one.
    signed_only: Option<PathBuf>,
    signers: Vec<Signer>,
    fingerprint: Fingerprint,
}

/// A rule, and where it stands.
#[derive(Debug, Clone)]
struct Source {
    path: PathBuf,
    line: usize,
    rule: Rule,
}

/// What becomes of what no rule holds for, and where that stands.
#[derive(Debug, Clone)]
struct Fallback {
    path: PathBuf,
    subject: Subject,
    effect: Effect,
}

/// What a policy is known by to those who cannot read it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) enum Fingerprint {
    /// There is no file.
    #[default]
    None,
    /// SHA-256 over names and contents of all files, in hexadecimal.
    Files(String),
    /// There is one that cannot be used, so everything is refused.
    Unusable,
}

impl Fingerprint {
    fn of(hash: &[u8]) -> Self {
        Self::Files(hash.iter().map(|byte| format!("{byte:02x}")).collect())
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::Files(hash) => hash,
            Self::Unusable => "unusable",
        })
    }
}

/// What is allowed, and within what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Grant {
    pub(crate) by: By,
    /// Of each step of a command.
    pub(crate) limits: ResourceLimits,
}

impl fmt::Display for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.limits.is_none() {
            true => self.by.fmt(f),
            false => write!(f, "{}, within {}", self.by, self.limits),
        }
    }
}

impl Grant {
    fn unlimited(by: String) -> Self {
        Self {
            by: By(by),
            limits: ResourceLimits::default(),
        }
    }
}

/// What a policy says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    Allowed(Grant),
    Refused(By),
    /// This rule may hold, by what is not known yet.
    Undecided(By),
}

impl From<Refusal> for Verdict {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(By(refusal.0))
    }
}

/// Who says it, as text for whoever asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct By(String);

impl fmt::Display for By {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Refused, as whoever asked is told.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("refused by the policy of this node's owner: {0}")]
pub(crate) struct Refusal(String);

impl Refusal {
    /// Allowed within limits only, which this machine cannot keep.
    pub(crate) fn of_limits(by: &By, settings: &[&str]) -> Self {
        Self(format!(
            "{by} allows it within limits that cannot be kept on this machine: {}; they take control groups \
             (docs/documents.md)",
            settings.join(", ")
        ))
    }

    /// A signed command that has run already, under another id.
    pub(crate) fn of_replay() -> Self {
        Self("the signed command has been run before; a signature is good for one command".to_owned())
    }

    /// A signed session that has been begun already.
    pub(crate) fn of_second_session() -> Self {
        Self("the signed session has been begun before; a signature is good for one session".to_owned())
    }

    /// What may be begun once only cannot be noted as begun.
    pub(crate) fn of_no_note(error: &(dyn std::error::Error + 'static)) -> Self {
        Self(format!("its signature cannot be noted as used: {error}"))
    }
}

impl Policy {
    /// Reads it. A folder that is not there holds no rule.
    ///
    /// # Errors
    /// It cannot be used, so nothing may be allowed.
    pub(crate) fn load(folder: &Path) -> Result<Self, PolicyError> {
        files::read(folder)
    }

    /// The rules in the order in which they are asked, for people.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        for source in &self.rules {
            let word = match source.rule.effect {
                Effect::Allow => "allow",
                Effect::Deny => "deny",
            };
            let subject = source.rule.subject.as_str();
            let limits = match source.rule.limits() {
                limits if limits.is_none() => String::new(),
                limits => format!(", within {limits}"),
            };
            text.push_str(&format!("{word:5} {subject:7} {source}{limits}\n"));
        }
        if let Some(path) = &self.signed_only {
            let names: Vec<_> = self.signers.iter().map(|signer| signer.name.as_str()).collect();
            text.push_str(&format!(
                "commands need a signature, sessions {}: {}; signers: {}\n",
                match self.signers.iter().any(Signer::may_sign_sessions) {
                    true => "as well",
                    false => "are refused",
                },
                path.display(),
                names.join(", ")
            ));
        }
        for fallback in &self.defaults {
            text.push_str(&format!("otherwise: {fallback}\n"));
        }
        if self.defaults.is_empty() {
            text.push_str("otherwise: allow\n");
        }
        text.push_str(&format!("fingerprint: {}\n", self.fingerprint));
        text
    }

    /// What it says. `now` is in seconds since the Unix epoch.
    pub(crate) fn judge(&self, facts: &Facts<'_>, now: u64) -> Verdict {
        let subject = facts.asked.subject();
        let may_sign_sessions = self.signers.iter().any(Signer::may_sign_sessions);
        if let (Subject::Session, Some(path), false) = (subject, &self.signed_only, may_sign_sessions) {
            let reason = format!(
                "{} has require_signature = true, and {}",
                path.display(),
                signer::NO_SESSIONS
            );
            return Verdict::Refused(By(reason));
        }
        for source in &self.rules {
            let by = || By(source.to_string());
            match (source.rule.holds(facts, now), source.rule.effect) {
                (Truth::No, _) => {}
                (Truth::Yes, Effect::Allow) => {
                    return Verdict::Allowed(Grant {
                        by: by(),
                        limits: source.rule.limits(),
                    });
                }
                (Truth::Yes, Effect::Deny) => return Verdict::Refused(by()),
                (Truth::Unknown, _) => return Verdict::Undecided(by()),
            }
        }
        match self.defaults.iter().find(|default| default.subject == subject) {
            Some(default) if default.effect == Effect::Deny => Verdict::Refused(By(default.to_string())),
            Some(default) => Verdict::Allowed(Grant::unlimited(default.to_string())),
            None => Verdict::Allowed(Grant::unlimited(
                "no rule holds, and there is no [default]".to_owned(),
            )),
        }
    }

    /// Refuses what is not allowed by what is known now.
    ///
    /// # Errors
    /// Refused, or undecided although nothing more will be known.
    pub(crate) fn permit(&self, facts: &Facts<'_>, now: u64) -> Result<Grant, Refusal> {
        match self.judge(facts, now) {
            Verdict::Allowed(grant) => Ok(grant),
            Verdict::Refused(By(text)) => Err(Refusal(text)),
            Verdict::Undecided(By(text)) => Err(Refusal(format!("{text} cannot be decided"))),
        }
    }
}

/// What the daemon can say before a worker is started: only a policy that can be read refuses, and only what is
/// certain.
pub(crate) fn foresee(folder: &Path, facts: &Facts<'_>) -> Result<(), Refusal> {
    match Policy::load(folder).map(|policy| policy.judge(facts, unix_seconds())) {
        Ok(Verdict::Refused(By(text))) => Err(Refusal(text)),
        Ok(Verdict::Allowed(_) | Verdict::Undecided(_)) | Err(_) => Ok(()),
    }
}

/// Reads the policy for a worker, who has to know.
///
/// # Errors
/// It cannot be used, so everything is refused.
pub(crate) fn load_or_refuse(folder: &Path) -> Result<Policy, Refusal> {
    Policy::load(folder).map_err(|error| {
        let reason = error_chain(&error);
        Refusal(format!("it cannot be used, so everything is refused: {reason}"))
    })
}

/// Of the files as they are now.
pub(crate) fn fingerprint(folder: &Path) -> Fingerprint {
    Policy::load(folder).map_or(Fingerprint::Unusable, |policy| policy.fingerprint)
}

/// By this machine's clock, which no endpoint sets.
pub(crate) fn unix_seconds() -> u64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH);
    since_epoch.unwrap_or_default().as_secs()
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, line, rule } = self;
        write!(f, "rule {:?} of {}, line {line}", rule.name, path.display())
    }
}

impl fmt::Display for Fallback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        let what = self.subject.as_str();
        match self.effect {
            Effect::Deny => write!(f, "no rule allows it, and {path} has default.{what} = \"deny\""),
            Effect::Allow => write!(f, "no rule holds, and {path} has default.{what} = \"allow\""),
        }
    }
}

/// A file of a policy as its owner would have made it.
#[cfg(test)]
pub(crate) fn write_file(folder: &Path, name: &str, text: &str) {
    use std::{fs, io::Write, os::unix::fs::PermissionsExt};
    fs::create_dir_all(folder).unwrap();
    let path = folder.join(name);
    fs::File::create(&path)
        .unwrap()
        .write_all(text.as_bytes())
        .unwrap();
    for (path, mode) in [(folder, 0o755), (path.as_path(), 0o644)] {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }
}

#[cfg(test)]
mod tests;
