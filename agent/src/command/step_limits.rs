//! What the steps of a document may use: the limits of `agent.toml` and those of the policy's rules that allow the
//! documents which brought them; the strictest of each kind counts.

use std::{fmt, path::Path};

use crate::{
    policy::{Grant, Refusal},
    runtime::{CpuQuota, GroupPlaces, MemoryMax, ResourceLimits},
};

use super::node::groups_name;

/// A limit, and who sets it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Limit<T> {
    pub(super) value: T,
    /// For people, as the owner finds it again.
    pub(super) by: String,
}

/// Of each step, and where the control groups that keep them are made.
#[derive(Debug, Clone, Default)]
pub(super) struct StepLimits {
    pub(super) cpu: Option<Limit<CpuQuota>>,
    pub(super) memory: Option<Limit<MemoryMax>>,
    pub(super) tasks: Option<Limit<u32>>,
    /// `None`: steps have no control groups.
    pub(super) groups: Option<GroupPlaces>,
}

impl StepLimits {
    /// Those of `agent.toml`. What of them this machine cannot keep the daemon has told.
    pub(super) fn of_agent(limits: &ResourceLimits, groups: Option<&GroupPlaces>) -> Self {
        Self {
            groups: groups.cloned(),
            ..Self::by(limits, |setting| format!("command.limits.{setting}"))
        }
    }

    /// Besides with those that a rule allows a document within.
    ///
    /// # Errors
    /// This machine cannot keep them, so what is allowed within them only is not.
    pub(super) fn within(&self, grant: &Grant, state_dir: &Path) -> Result<Self, Refusal> {
        // The daemon has looked only for what its own settings need.
        self.within_groups(grant, |limits| GroupPlaces::find(&groups_name(state_dir), limits))
    }

    /// `find` looks for control groups that keep these limits.
    pub(super) fn within_groups(
        &self,
        grant: &Grant,
        find: impl FnOnce(&ResourceLimits) -> Option<GroupPlaces>,
    ) -> Result<Self, Refusal> {
        if grant.limits.is_none() {
            return Ok(self.clone());
        }
        let rule = Self::by(&grant.limits, |setting| {
            format!("limits.{setting} of {}", grant.by)
        });
        let both = Self {
            cpu: stricter(self.cpu.clone(), rule.cpu),
            memory: stricter(self.memory.clone(), rule.memory),
            tasks: stricter(self.tasks.clone(), rule.tasks),
            groups: self.groups.clone(),
        };
        let values = both.values();
        let groups = match GroupPlaces::lacking(self.groups.as_ref(), &values).is_empty() {
            true => both.groups,
            false => find(&values),
        };
        let lacking = GroupPlaces::lacking(groups.as_ref(), &grant.limits);
        match lacking.is_empty() {
            true => Ok(Self { groups, ..both }),
            false => Err(Refusal::of_limits(&grant.by, &lacking)),
        }
    }

    fn by(limits: &ResourceLimits, by: impl Fn(&str) -> String) -> Self {
        let ResourceLimits { cpu, memory, tasks } = limits;
        Self {
            cpu: cpu.map(|value| Limit { value, by: by("cpu") }),
            memory: memory.map(|value| Limit {
                value,
                by: by("memory"),
            }),
            tasks: tasks.map(|value| Limit {
                value,
                by: by("tasks"),
            }),
            groups: None,
        }
    }

    pub(super) fn values(&self) -> ResourceLimits {
        ResourceLimits {
            cpu: self.cpu.as_ref().map(|limit| limit.value),
            memory: self.memory.as_ref().map(|limit| limit.value),
            tasks: self.tasks.as_ref().map(|limit| limit.value),
        }
    }
}

/// Who sets them.
impl fmt::Display for StepLimits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let by = [
            self.cpu.as_ref().map(|limit| &limit.by),
            self.memory.as_ref().map(|limit| &limit.by),
            self.tasks.as_ref().map(|limit| &limit.by),
        ];
        let by: Vec<_> = by.into_iter().flatten().map(String::as_str).collect();
        f.write_str(&by.join(", "))
    }
}

/// Of two that are the same the first, which is more general.
fn stricter<T: Ord>(general: Option<Limit<T>>, own: Option<Limit<T>>) -> Option<Limit<T>> {
    general
        .into_iter()
        .chain(own)
        .min_by(|a, b| a.value.cmp(&b.value))
}
