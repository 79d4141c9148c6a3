//! What happens to a package, script by script: a state machine over what is known of it on this node.
//!
//! The record is stored before every script, so that whatever is killed when, the next one knows which script may have
//! run half-way. Two rules decide everything else: a version that was installed before is installed again when the new
//! one fails, and nothing is called installed whose last script did not succeed.

use serde::{Deserialize, Serialize};

/// A script of a package, by the name of its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Script {
    Install,
    Uninstall,
    Update,
    Validate,
}

impl Script {
    pub(super) fn action(self) -> &'static str {
        match self {
            Self::Install => "install",
            Self::Uninstall => "uninstall",
            Self::Update => "update",
            Self::Validate => "validate",
        }
    }

    pub(super) fn file_name(self) -> String {
        format!("{}.sh", self.action())
    }
}

/// A version of a package, with the hash of its archive, by which its directory is called.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Version {
    pub(super) name: String,
    /// Lower-case hex.
    pub(super) sha256: String,
}

/// What is known of a package on this node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    /// The version whose scripts succeeded.
    pub(super) installed: Option<Version>,
    /// An update in its place or an uninstallation failed or was interrupted: how the version stands is not known.
    pub(super) is_doubtful: bool,
    /// What is being done, or was when its worker died.
    pub(super) underway: Option<Underway>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Underway {
    /// The step that does it: after a reboot it goes on, another one begins anew.
    pub(super) step: String,
    phase: Phase,
    /// What an interrupted step may have left half-way.
    left: Option<Version>,
    /// What was in order last: to go back to.
    from: Option<Version>,
    /// What the wish is about.
    to: Option<Version>,
    is_in_place: bool,
}

/// The script that is about to run, or runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Phase {
    /// What an interrupted step may have left of the version is taken away.
    CleanUp,
    /// Is the version that is wanted still in order?
    Check,
    UninstallOld,
    Install,
    Validate,
    Update,
    ValidateUpdate,
    RollBackUninstall,
    RollBackInstall,
    RollBackValidate,
    RollBackUpdate,
    Uninstall,
}

/// What is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Wish {
    Install {
        version: Version,
        is_in_place: bool,
    },
    /// Of this version, or of whichever there is.
    Uninstall {
        version: Option<String>,
    },
}

/// How a script went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ScriptEnd {
    Succeeded,
    Failed,
    /// The package has no such script.
    Missing,
}

/// What comes next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Next {
    /// Store the record, then run this.
    Run(Version, Script),
    /// Store the record; that was it.
    Over(Outcome),
}

/// What became of a wish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Installed,
    AlreadyInstalled,
    Uninstalled,
    NotInstalled,
    /// The new version failed, and nothing is installed.
    InstallFailed,
    UninstallFailed,
    /// The new version failed, and the old one is installed as before.
    RolledBack,
    /// So did going back: see the output of both.
    RollBackFailed,
}

impl Record {
    /// The versions whose directories are needed.
    pub(super) fn needed(&self) -> Vec<&Version> {
        let of_step = self
            .underway
            .iter()
            .flat_map(|underway| [&underway.left, &underway.from, &underway.to]);
        of_step
            .chain([&self.installed])
            .filter_map(Option::as_ref)
            .collect()
    }
}

/// The machine.
#[derive(Debug)]
pub(super) struct Installer {
    pub(super) record: Record,
    next: Next,
}

impl Installer {
    /// Goes on after the reboot that this very step has waited for. `None`: it begins.
    pub(super) fn resume(record: &Record, step: &str) -> Option<Self> {
        let underway = record
            .underway
            .as_ref()
            .filter(|underway| underway.step == step)?;
        let (version, script) = underway.acts_on()?;
        Some(Self {
            next: Next::Run(version.clone(), script),
            record: record.clone(),
        })
    }

    /// Begins, with what another step has left.
    pub(super) fn begin(record: Record, wish: Wish, step: &str) -> Self {
        let mut installer = Self {
            record,
            next: Next::Over(Outcome::NotInstalled),
        };
        installer.next = installer.first(wish, step);
        installer
    }

    pub(super) fn next(&self) -> &Next {
        &self.next
    }

    fn first(&mut self, wish: Wish, step: &str) -> Next {
        let interrupted = self.record.underway.clone();
        let left = interrupted.as_ref().and_then(Underway::half_done).cloned();
        let installed = self.record.installed.clone();
        let (to, is_in_place) = match wish {
            Wish::Uninstall { version } => {
                let present = left.or(installed);
                let is_meant = |present: &Version| version.is_none_or(|version| version == present.name);
                let Some(present) = present.filter(is_meant) else {
                    return Next::Over(Outcome::NotInstalled);
                };
                self.record.underway = Some(Underway {
                    step: step.to_owned(),
                    phase: Phase::Uninstall,
                    left: None,
                    from: None,
                    to: Some(present),
                    is_in_place: false,
                });
                return self.run(Phase::Uninstall);
            }
            Wish::Install { version, is_in_place } => (version, is_in_place),
        };
        let was_updated = interrupted.as_ref().is_some_and(Underway::is_update);
        self.record.is_doubtful |= was_updated;
        let phase = match (&left, &installed) {
            (Some(_), _) => {
                self.record.installed = None;
                Phase::CleanUp
            }
            (None, None) => Phase::Install,
            (None, Some(installed)) if *installed == to && !self.record.is_doubtful => Phase::Check,
            (None, Some(_)) if is_in_place => Phase::Update,
            (None, Some(_)) => Phase::UninstallOld,
        };
        self.record.underway = Some(Underway {
            step: step.to_owned(),
            phase,
            left,
            from: installed.or_else(|| interrupted.and_then(|interrupted| interrupted.from)),
            to: Some(to),
            is_in_place,
        });
        self.run(phase)
    }

    /// The script of the phase has ended so. Not to be called when nothing was to run.
    pub(super) fn ran(&mut self, end: ScriptEnd) {
        let Some(underway) = self.record.underway.clone() else {
            return;
        };
        let is_fine = end != ScriptEnd::Failed;
        let has_run = end == ScriptEnd::Succeeded;
        self.next = match underway.phase {
            Phase::CleanUp => self.run(Phase::Install),
            Phase::Check if is_fine => self.over(underway.to, Outcome::AlreadyInstalled),
            Phase::Check if underway.is_in_place => self.run(Phase::Update),
            Phase::Check => self.run(Phase::UninstallOld),
            Phase::UninstallOld if is_fine => {
                self.record.installed = None;
                self.run(Phase::Install)
            }
            Phase::UninstallOld => self.run(Phase::RollBackInstall),
            Phase::Install if has_run => self.run(Phase::Validate),
            Phase::Validate | Phase::ValidateUpdate if is_fine => self.over(underway.to, Outcome::Installed),
            Phase::Install | Phase::Validate => self.run(Phase::RollBackUninstall),
            Phase::Update if has_run => self.run(Phase::ValidateUpdate),
            Phase::Update | Phase::ValidateUpdate => self.run(Phase::RollBackUpdate),
            Phase::RollBackUninstall => match underway.from {
                Some(_) => self.run(Phase::RollBackInstall),
                None => self.over(None, Outcome::InstallFailed),
            },
            Phase::RollBackInstall if has_run => self.run(Phase::RollBackValidate),
            Phase::RollBackInstall => self.over(None, Outcome::RollBackFailed),
            Phase::RollBackValidate if is_fine => self.over(underway.from, Outcome::RolledBack),
            Phase::RollBackValidate => self.over(None, Outcome::RollBackFailed),
            Phase::RollBackUpdate if has_run => self.over(underway.from, Outcome::RolledBack),
            Phase::RollBackUpdate => self.doubtful(underway.from, Outcome::RollBackFailed),
            Phase::Uninstall if is_fine => self.over(None, Outcome::Uninstalled),
            Phase::Uninstall => self.doubtful(underway.to, Outcome::UninstallFailed),
        };
    }

    fn run(&mut self, phase: Phase) -> Next {
        let Some(underway) = &mut self.record.underway else {
            return Next::Over(Outcome::NotInstalled);
        };
        underway.phase = phase;
        match underway.acts_on() {
            Some((version, script)) => Next::Run(version.clone(), script),
            // No phase is entered without its version.
            None => self.over(None, Outcome::NotInstalled),
        }
    }

    fn over(&mut self, installed: Option<Version>, outcome: Outcome) -> Next {
        self.record = Record {
            installed,
            is_doubtful: false,
            underway: None,
        };
        Next::Over(outcome)
    }

    /// As [`Self::over`], and only another attempt tells how it stands.
    fn doubtful(&mut self, installed: Option<Version>, outcome: Outcome) -> Next {
        let next = self.over(installed, outcome);
        self.record.is_doubtful = true;
        next
    }
}

impl Underway {
    /// What the wish is about.
    pub(super) fn wanted(&self) -> Option<&Version> {
        self.to.as_ref()
    }

    /// The version that may be there half-way when the phase was interrupted.
    fn half_done(&self) -> Option<&Version> {
        match self.phase {
            Phase::CleanUp => self.left.as_ref(),
            Phase::UninstallOld | Phase::RollBackInstall | Phase::RollBackValidate => self.from.as_ref(),
            Phase::Install | Phase::Validate | Phase::RollBackUninstall | Phase::Uninstall => {
                self.to.as_ref()
            }
            Phase::Check | Phase::Update | Phase::ValidateUpdate | Phase::RollBackUpdate => None,
        }
    }

    fn is_update(&self) -> bool {
        matches!(
            self.phase,
            Phase::Update | Phase::ValidateUpdate | Phase::RollBackUpdate
        )
    }

    /// The version that the phase's script belongs to, and the script.
    fn acts_on(&self) -> Option<(&Version, Script)> {
        let (version, script) = match self.phase {
            Phase::CleanUp => (self.left.as_ref(), Script::Uninstall),
            Phase::Check => (self.to.as_ref(), Script::Validate),
            Phase::UninstallOld => (self.from.as_ref(), Script::Uninstall),
            Phase::Install => (self.to.as_ref(), Script::Install),
            Phase::Validate | Phase::ValidateUpdate => (self.to.as_ref(), Script::Validate),
            Phase::Update => (self.to.as_ref(), Script::Update),
            Phase::RollBackUninstall => (self.to.as_ref(), Script::Uninstall),
            Phase::RollBackInstall => (self.from.as_ref(), Script::Install),
            Phase::RollBackValidate => (self.from.as_ref(), Script::Validate),
            Phase::RollBackUpdate => (self.from.as_ref(), Script::Update),
            Phase::Uninstall => (self.to.as_ref(), Script::Uninstall),
        };
        Some((version?, script))
    }
}

#[cfg(test)]
mod tests;
