//! What a step of a command may use, as the node's owner says it: `[command.limits]` of `agent.toml`, and `limits` of a
//! policy's rule.
//!
//! The texts are systemd's of `CPUQuota=`, `MemoryMax=` and `TasksMax=`, which owners know.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// Below this no interpreter starts.
const LEAST_MEMORY: u64 = 4 * 1024 * 1024;
/// Ten thousand processors.
const MOST_PERCENT: u32 = 1_000_000;

/// Why a text is no limit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LimitError {
    #[error("{0:?} is no share of processors: give percent of one, as 50% or 200%")]
    Cpu(String),
    #[error("{0:?} is no amount of memory: give 4M or more, with K, M, G or T for powers of 1024")]
    Memory(String),
}

/// Each limit holds for everything that one step has started, together. `None`: no limit.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct ResourceLimits {
    pub(crate) cpu: Option<CpuQuota>,
    pub(crate) memory: Option<MemoryMax>,
    /// Processes and threads.
    pub(crate) tasks: Option<u32>,
}

impl ResourceLimits {
    pub(crate) fn is_none(&self) -> bool {
        let Self { cpu, memory, tasks } = self;
        cpu.is_none() && memory.is_none() && tasks.is_none()
    }
}

impl fmt::Display for ResourceLimits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cpu, memory, tasks } = self;
        let each = [
            cpu.map(|cpu| format!("cpu {cpu}")),
            memory.map(|memory| format!("memory {memory}")),
            tasks.map(|tasks| format!("tasks {tasks}")),
        ];
        f.write_str(&each.into_iter().flatten().collect::<Vec<_>>().join(", "))
    }
}

/// Percent of one processor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct CpuQuota(u32);

impl CpuQuota {
    /// Microseconds of processor time in each period of this many.
    pub(crate) fn micros_in(self, period: u64) -> u64 {
        u64::from(self.0) * period / 100
    }
}

impl FromStr for CpuQuota {
    type Err = LimitError;

    fn from_str(text: &str) -> Result<Self, LimitError> {
        text.strip_suffix('%')
            .and_then(|number| number.parse().ok())
            .filter(|percent| (1..=MOST_PERCENT).contains(percent))
            .map(Self)
            .ok_or_else(|| LimitError::Cpu(text.to_owned()))
    }
}

impl fmt::Display for CpuQuota {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", self.0)
    }
}

/// Bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct MemoryMax(u64);

impl MemoryMax {
    pub(crate) fn bytes(self) -> u64 {
        self.0
    }
}

/// Largest first.
const UNITS: [(char, u64); 4] = [('T', 1 << 40), ('G', 1 << 30), ('M', 1 << 20), ('K', 1 << 10)];

impl FromStr for MemoryMax {
    type Err = LimitError;

    fn from_str(text: &str) -> Result<Self, LimitError> {
        let with_unit = |(unit, bytes): &(char, u64)| Some((text.strip_suffix(*unit)?, *bytes));
        let (number, bytes) = UNITS.iter().find_map(with_unit).unwrap_or((text, 1));
        number
            .parse::<u64>()
            .ok()
            .and_then(|number| number.checked_mul(bytes))
            // what the kernel takes is signed
            .filter(|bytes| (LEAST_MEMORY..=1 << 60).contains(bytes))
            .map(Self)
            .ok_or_else(|| LimitError::Memory(text.to_owned()))
    }
}

impl fmt::Display for MemoryMax {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match UNITS.iter().find(|(_, bytes)| self.0.is_multiple_of(*bytes)) {
            Some((unit, bytes)) => write!(f, "{}{unit}", self.0 / bytes),
            None => write!(f, "{}", self.0),
        }
    }
}

macro_rules! as_text {
    ($type:ty) => {
        impl TryFrom<String> for $type {
            type Error = LimitError;

            fn try_from(text: String) -> Result<Self, LimitError> {
                text.parse()
            }
        }

        impl From<$type> for String {
            fn from(limit: $type) -> Self {
                limit.to_string()
            }
        }
    };
}

as_text!(CpuQuota);
as_text!(MemoryMax);

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<ResourceLimits, String> {
        toml::from_str(text).map_err(|error| error.to_string())
    }

    #[test]
    fn limits_are_read_as_systemd_writes_them_and_written_back_alike() {
        let limits = read("cpu = \"150%\"\nmemory = \"512M\"\ntasks = 200").unwrap();
        assert_eq!(limits.cpu.unwrap().micros_in(100_000), 150_000);
        assert_eq!(limits.memory.unwrap().bytes(), 512 << 20);
        assert_eq!(limits.tasks, Some(200));
        let text = serde_json::to_string(&limits).unwrap();
        assert_eq!(serde_json::from_str::<ResourceLimits>(&text).unwrap(), limits);
        for text in ["1G", "1536M", "4097K", "4194305"] {
            assert_eq!(text.parse::<MemoryMax>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_is_no_limit_says_what_one_is() {
        for text in [
            "cpu = \"0%\"",
            "cpu = \"1.5\"",
            "cpu = \"-5%\"",
            "cpu = \"9999999%\"",
        ] {
            assert!(read(text).unwrap_err().contains("percent of one"), "{text}");
        }
        for text in [
            "memory = \"1M\"",
            "memory = \"1X\"",
            "memory = \"99999999T\"",
            "memory = \"\"",
        ] {
            assert!(read(text).unwrap_err().contains("4M or more"), "{text}");
        }
        assert!(read("tasks = -1").is_err());
        assert!(read("disk = 1").is_err());
    }
}
