//! What is wrong with this machine, for the first line of a session: its operator may be there because of it.
//!
//! [`gather`] looks at what the kernel knows without asking a disk or a network; [`Condition::text`] says what of it
//! an operator should know. Where nothing is wrong nothing is said.

mod control_group;
mod disk;

use std::{fs::File, io::Read, path::Path, time::Duration};

use moorline_transport::{Endpoint, NameLookup};
use nix::sys::resource::{Resource, getrlimit};

use self::{
    control_group::{memory_of_groups, processes_of_groups},
    disk::Disk,
};

/// What a look at the name lookup may delay a shell by. It runs on if it is slower.
const LOOKUP_LIMIT: Duration = Duration::from_millis(50);
/// The largest file of the kernel that is read: the table of mounts.
const MAX_FILE_BYTES: u64 = 1024 * 1024;
/// Programs that stood still for memory, in percent of the last ten seconds, in hundredths.
const MEMORY_PRESSURE: u64 = 10_00;

/// What systems usually let a program open is four times as much.
const FEW_FILES: u64 = 256;

/// How much of something is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Usage {
    used: u64,
    limit: u64,
}

impl Usage {
    fn free(self) -> u64 {
        self.limit.saturating_sub(self.used)
    }
}

/// The machine as a session finds it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Condition {
    disks: Vec<Disk>,
    /// Each limit that counts: of the control groups and of the kernel.
    processes: Vec<Usage>,
    /// Bytes: of the machine and of the control groups.
    memory: Vec<Usage>,
    /// In hundredths of a percent.
    memory_pressure: u64,
    open_files: Option<Usage>,
    /// What one program may open: sessions inherit it.
    open_files_each: Option<u64>,
    name_lookup_fails: bool,
    /// The endpoint's clock before ours.
    clock_ahead_millis: i64,
    has_no_proc: bool,
}

/// Looks around. Takes no longer than a blink and writes nothing.
pub(super) async fn gather(endpoint: &Endpoint, state_dir: &Path) -> Condition {
    let mut condition = Condition {
        disks: disk::look(state_dir),
        processes: processes_of_groups(),
        memory: memory_of_groups(),
        clock_ahead_millis: endpoint.clock_ahead_millis(),
        ..Condition::default()
    };
    match read("/proc/loadavg") {
        Some(load) => condition.processes.extend(processes_of(&load)),
        None => condition.has_no_proc = true,
    }
    condition
        .memory
        .extend(read("/proc/meminfo").as_deref().and_then(memory_of));
    condition.memory_pressure = read("/proc/pressure/memory")
        .as_deref()
        .and_then(pressure_of)
        .unwrap_or(0);
    condition.open_files = read("/proc/sys/fs/file-nr").as_deref().and_then(open_files_of);
    condition.open_files_each = getrlimit(Resource::RLIMIT_NOFILE).ok().map(|(soft, _)| soft);
    // a lookup takes a thread
    if !condition.is_short_of_processes() {
        endpoint.check_name_lookup(LOOKUP_LIMIT).await;
    }
    condition.name_lookup_fails = endpoint.name_lookup() == NameLookup::Fails;
    condition
}

impl Condition {
    /// Whether the next program that is started may be refused.
    pub(super) fn is_short_of_processes(&self) -> bool {
        self.processes
            .iter()
            .any(|usage| usage.free() < 8 || usage.free() < usage.limit / 50)
    }

    /// What an operator should know; `more` was found elsewhere.
    pub(super) fn text(&self, more: Vec<String>) -> Option<String> {
        let mut lines = self.disks.iter().filter_map(Disk::text).collect::<Vec<_>>();
        lines.extend(self.processes_text());
        lines.extend(self.memory_text());
        if let Some(files) = self.open_files.filter(|usage| usage.free() < usage.limit / 20) {
            lines.push(format!("{} of {} files are open", files.used, files.limit));
        }
        if let Some(limit) = self.open_files_each.filter(|limit| *limit < FEW_FILES) {
            lines.push(format!("no program may open more than {limit} files"));
        }
        if self.name_lookup_fails {
            lines.push("DNS does not answer for the endpoint's name".to_owned());
        }
        lines.extend(self.clock_text());
        if self.has_no_proc {
            lines.push("/proc is not mounted".to_owned());
        }
        lines.extend(more);
        (!lines.is_empty()).then(|| format!("this node is degraded: {}", lines.join("; ")))
    }

    fn processes_text(&self) -> Option<String> {
        let tightest = self.processes.iter().min_by_key(|usage| usage.free())?;
        self.is_short_of_processes().then(|| {
            format!(
                "{} of {} processes are in use, this session included: there may be none for a program",
                tightest.used, tightest.limit
            )
        })
    }

    fn memory_text(&self) -> Option<String> {
        const MIB: u64 = 1024 * 1024;
        let is_low = |usage: &&Usage| {
            usage.free() < usage.limit / 10 && (usage.free() < 64 * MIB || usage.free() < usage.limit / 50)
        };
        let low = self.memory.iter().filter(is_low).min_by_key(|usage| usage.free());
        match low {
            Some(usage) => Some(format!(
                "memory is short ({} MiB of {} MiB are free)",
                usage.free() / MIB,
                usage.limit / MIB
            )),
            None if self.memory_pressure >= MEMORY_PRESSURE => Some(format!(
                "memory is short (programs wait for it {} % of the time)",
                self.memory_pressure / 100
            )),
            None => None,
        }
    }

    fn clock_text(&self) -> Option<String> {
        let minutes = (self.clock_ahead_millis.unsigned_abs() + 30_000) / 60_000;
        let side = if self.clock_ahead_millis > 0 {
            "behind"
        } else {
            "ahead of"
        };
        (minutes > 0).then(|| {
            format!(
                "the clock is wrong: {} h {} min {side} the endpoint's",
                minutes / 60,
                minutes % 60
            )
        })
    }
}

/// A file of the kernel; what is not there says nothing.
fn read(path: impl AsRef<Path>) -> Option<String> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MAX_FILE_BYTES).read_to_end(&mut bytes))
        .ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// `0.00 0.01 0.05 2/345 6789`: of the fourth field, all tasks that there are.
fn processes_of(load: &str) -> Vec<Usage> {
    let tasks = load.split(' ').nth(3).and_then(|tasks| tasks.split_once('/'));
    let Some(used) = tasks.and_then(|(_, all)| all.parse().ok()) else {
        return Vec::new();
    };
    ["/proc/sys/kernel/threads-max", "/proc/sys/kernel/pid_max"]
        .into_iter()
        .filter_map(|limit| read(limit)?.trim().parse().ok())
        .map(|limit| Usage { used, limit })
        .collect()
}

fn memory_of(meminfo: &str) -> Option<Usage> {
    let bytes = |name: &str| {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(name))?;
        let kib: u64 = line.trim().trim_end_matches(" kB").parse().ok()?;
        kib.checked_mul(1024)
    };
    let (limit, available) = (bytes("MemTotal:")?, bytes("MemAvailable:")?);
    Some(Usage {
        used: limit.saturating_sub(available),
        limit,
    })
}

/// `full avg10=12.34 …`, in hundredths.
fn pressure_of(pressure: &str) -> Option<u64> {
    let line = pressure
        .lines()
        .find_map(|line| line.strip_prefix("full avg10="))?;
    let (whole, hundredths) = line.split(' ').next()?.split_once('.')?;
    Some(whole.parse::<u64>().ok()?.saturating_mul(100) + hundredths.parse::<u64>().ok()?)
}

/// `used free limit`
fn open_files_of(numbers: &str) -> Option<Usage> {
    let mut numbers = numbers.split_ascii_whitespace().map(str::parse);
    let used = numbers.next()?.ok()?;
    let limit = numbers.nth(1)?.ok()?;
    Some(Usage { used, limit })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1024 * 1024;

    fn well() -> Condition {
        Condition {
            processes: vec![Usage {
                used: 300,
                limit: 32_768,
            }],
            memory: vec![Usage {
                used: 100 * MIB,
                limit: 1024 * MIB,
            }],
            open_files: Some(Usage {
                used: 1000,
                limit: 100_000,
            }),
            ..Condition::default()
        }
    }

    #[test]
    fn a_machine_that_is_well_says_nothing() {
        assert_eq!(well().text(Vec::new()), None);
    }

    #[test]
    fn each_trouble_is_named_with_its_numbers() {
        let text = |condition: Condition| condition.text(Vec::new()).unwrap_or_default();
        let (used, limit) = (97, 100);
        let processes = Condition {
            processes: vec![Usage { used, limit }],
            ..well()
        };
        assert!(processes.is_short_of_processes());
        assert!(text(processes).contains("97 of 100 processes"));
        let memory = vec![Usage {
            used: 30 * MIB,
            limit: 32 * MIB,
        }];
        assert!(text(Condition { memory, ..well() }).contains("2 MiB of 32 MiB"));
        let pressed = Condition {
            memory_pressure: 4512,
            ..well()
        };
        assert!(text(pressed).contains("45 %"));
        let open_files = Some(Usage { used, limit });
        assert!(text(Condition { open_files, ..well() }).contains("97 of 100 files"));
        let nameless = Condition {
            name_lookup_fails: true,
            ..well()
        };
        assert!(text(nameless).contains("DNS"));
        for (clock_ahead_millis, expected) in [
            (86_459_000, "24 h 1 min behind"),
            (-86_400_000, "24 h 0 min ahead of"),
        ] {
            let wrong = Condition {
                clock_ahead_millis,
                ..well()
            };
            assert!(text(wrong).contains(expected));
        }
        let more = vec!["one thing".to_owned(), "another".to_owned()];
        let text = well().text(more).unwrap();
        assert_eq!(text, "this node is degraded: one thing; another");
    }

    #[test]
    fn a_large_machine_with_little_used_memory_is_not_short_of_it() {
        let memory = vec![Usage {
            used: 95 * 1024 * MIB,
            limit: 100 * 1024 * MIB,
        }];
        assert_eq!(Condition { memory, ..well() }.text(Vec::new()), None);
    }

    #[test]
    fn the_kernels_files_are_read_as_they_are() {
        let meminfo = "MemTotal:        2048 kB\nMemFree:  1 kB\nMemAvailable:    512 kB\n";
        let expected = Usage {
            used: 1536 * 1024,
            limit: 2048 * 1024,
        };
        assert_eq!(memory_of(meminfo), Some(expected));
        assert_eq!(memory_of("MemTotal: x kB\n"), None);
        let pressure = "some avg10=50.00 avg60=1.00 avg300=0.00 total=1\nfull avg10=12.34 avg60=0.00 avg300=0.00 total=1\n";
        assert_eq!(pressure_of(pressure), Some(1234));
        assert_eq!(pressure_of(""), None);
        assert_eq!(
            open_files_of("1216\t0\t9223372036854775807\n").map(|usage| usage.used),
            Some(1216)
        );
        assert_eq!(processes_of("nonsense"), []);
    }

    #[tokio::test]
    async fn this_machine_can_be_looked_at() {
        let endpoint = Endpoint::parse("https://127.0.0.1:1").unwrap();
        let condition = gather(&endpoint, Path::new("/")).await;
        assert!(!condition.name_lookup_fails && !condition.has_no_proc);
    }
}
