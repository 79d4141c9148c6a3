//! What of a program's output a recording may lack when its worker is killed: by the times that its lines have.

use std::{path::Path, time::Duration};

use anyhow::{Context, Result, ensure};

/// What is promised (docs/transcripts.md), and what a loaded machine adds to it.
const MOST_LOST: Duration = Duration::from_millis(200);
const SCHEDULING: Duration = Duration::from_millis(800);

/// A script that writes the time, over and over; into this file what it has written, and when it had.
pub(crate) fn script(written: &Path) -> String {
    format!(
        "while :; do read -r up _ </proc/uptime; n=${{up%.*}}${{up#*.}}; echo n=$n; read -r up _ </proc/uptime; \
         echo $n ${{up%.*}}${{up#*.}} >> {}; sleep 0.02; done",
        written.display()
    )
}

/// Hundredths of a second since the machine started.
pub(crate) fn uptime() -> Result<u64> {
    let text = std::fs::read_to_string("/proc/uptime")?;
    let seconds = text.split_ascii_whitespace().next().context("no time")?;
    Ok(seconds.replace('.', "").parse()?)
}

/// The last time that this text has.
fn last_recorded(recorded: &str) -> u64 {
    let times = recorded.split("n=").skip(1).filter_map(|rest| {
        let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
        digits.parse().ok()
    });
    times.max().unwrap_or_default()
}

/// Checks that what had been written for so long when the worker was killed is recorded.
pub(crate) fn check(recorded: &str, written: &Path, killed_at: u64) -> Result<()> {
    let kept = MOST_LOST + SCHEDULING;
    let kept_until = killed_at - u64::try_from(kept.as_millis() / 10)?;
    let written = std::fs::read_to_string(written)?;
    let times = written.lines().filter_map(|line| {
        let (line, written_at) = line.split_once(' ')?;
        Some((line.parse::<u64>().ok()?, written_at.parse::<u64>().ok()?))
    });
    let due = times
        .filter(|(_, written_at)| *written_at <= kept_until)
        .map(|(line, _)| line)
        .max();
    let due = due.context("nothing was written long enough before the kill")?;
    let last = last_recorded(recorded);
    ensure!(
        last >= due,
        "{due} was written {kept:?} before the kill, and {last} is the last that is recorded"
    );
    Ok(())
}
