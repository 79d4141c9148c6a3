//! What the user sees of a roll-out: its plan on standard output, its course on standard error, or all of it as JSON at
//! the end.

use std::{collections::BTreeMap, time::Duration};

use moorline_ssm::command::SendCommandRequest;
use serde::Serialize;

use super::{
    EXIT_HALTED, LeftOut,
    machine::{Cause, Halt},
    wave::Wave,
};
use crate::{
    console::{self, one_line},
    counted::{agreeing, counted},
    error::CliError,
};

const EXIT_INTERRUPTED: u8 = 130;
/// Values of one target.
const MOST_VALUES: usize = 50;

/// How a roll-out ended.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) id: String,
    /// `None`: all waves are through.
    pub(super) halt: Option<Halt>,
    /// Nodes where the command did not succeed.
    pub(super) errors: usize,
}

impl Ended {
    pub(super) fn exit_code(&self) -> u8 {
        match self.halt.as_ref().map(|halt| &halt.cause) {
            Some(Cause::Interrupted) => EXIT_INTERRUPTED,
            Some(_) => EXIT_HALTED,
            None => u8::from(self.errors > 0),
        }
    }

    fn status(&self) -> &'static str {
        match self.halt.as_ref().map(|halt| &halt.cause) {
            Some(Cause::Interrupted) => "Interrupted",
            Some(_) => "Halted",
            None => "Complete",
        }
    }
}

/// How far a wave came.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
enum Progress {
    #[default]
    NotSent,
    /// Its command may not have ended: `Failed` is not known.
    Running,
    /// Its command has ended on every node.
    Ended,
    /// Its probe may not have ended: `ProbeFailed` is not known.
    Probing,
    /// Its probe has ended on every node.
    Probed,
}

/// A wave as scripts read it.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
struct WaveReport {
    name: String,
    nodes: Vec<String>,
    progress: Progress,
    /// `null`: it was not sent.
    command_id: Option<String>,
    /// Those that were targets no longer when it was sent: they did not get it.
    no_longer_targets: Vec<String>,
    failed: BTreeMap<String, String>,
    /// `null`: it was not probed.
    probe_command_id: Option<String>,
    probe_failed: BTreeMap<String, String>,
}

/// A roll-out as scripts read it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Whole<'a> {
    rollout_id: Option<&'a str>,
    status: &'static str,
    /// Why it was halted.
    reason: Option<String>,
    waves: &'a [WaveReport],
    not_connected: &'a [String],
    wrong_platform: &'a [String],
    refusing: &'a [String],
    in_no_wave: &'a [String],
}

/// Tells the user.
#[derive(Debug)]
pub(super) struct Report {
    json: bool,
    waves: Vec<WaveReport>,
    left_out: LeftOut,
}

impl Report {
    pub(super) fn new(json: bool, waves: Vec<Wave>, left_out: LeftOut) -> Self {
        let waves = waves.into_iter().map(|wave| WaveReport {
            name: wave.name,
            nodes: wave.nodes,
            ..WaveReport::default()
        });
        Self {
            json,
            waves: waves.collect(),
            left_out,
        }
    }

    /// It begins, and is known by this id.
    pub(super) fn begins(&self, id: &str) {
        tell(&format!(
            "roll-out {id} begins; when this program dies no further wave is sent, and the comment of each command that \
             was sent has that id"
        ));
    }

    /// The waves, before anything is sent.
    pub(super) fn plan(
        &self,
        probe: Option<&SendCommandRequest>,
        allowed_errors: usize,
    ) -> Result<(), CliError> {
        if self.json {
            return console::print_json(&self.whole(None, "Planned", None));
        }
        let mut table = console::table(&["WAVE", "NODES", ""]);
        for wave in &self.waves {
            table.add_row([wave.name.clone(), wave.nodes.len().to_string(), some(&wave.nodes)]);
        }
        console::print_table(&table)?;
        let health = probe.and_then(|probe| probe.document_name.as_deref());
        let health = health.map_or_else(
            || "no health probe".to_owned(),
            |document| format!("{document} asks for the health of each wave"),
        );
        console::print_line(&one_line(&format!(
            "{health}; halts after more than {}",
            counted(allowed_errors, "failed node")
        )))?;
        for (nodes, why) in [
            (&self.left_out.away, "not connected"),
            (&self.left_out.wrong_platform, "of another platform"),
            (
                &self.left_out.refusing,
                "where the owner refuses it, its health probe, or what is not signed",
            ),
            (&self.left_out.unassigned, "in no wave"),
        ] {
            if !nodes.is_empty() {
                console::print_line(&format!(
                    "{} {} left out, {why}: {}",
                    counted(nodes.len(), "node"),
                    agreeing(nodes.len(), "is", "are"),
                    some(nodes)
                ))?;
            }
        }
        Ok(())
    }

    /// A command is on its way to a wave, or its probe; whether the endpoint took it may not be known.
    pub(super) fn sent(&mut self, wave: usize, is_probe: bool, command_id: &str) {
        let Some(report) = self.waves.get_mut(wave) else {
            return;
        };
        let name = &report.name;
        if is_probe {
            report.progress = Progress::Probing;
            report.probe_command_id = Some(command_id.to_owned());
            tell(&format!(
                "wave {name}: asking for its health, command {command_id}"
            ));
        } else {
            report.progress = Progress::Running;
            report.command_id = Some(command_id.to_owned());
        }
    }

    /// The command of a wave was taken, for so many nodes; others of the wave are targets no longer.
    pub(super) fn targets(&mut self, wave: usize, targets: usize, no_longer: Vec<String>) {
        let of = self.waves.len();
        let Some(report) = self.waves.get_mut(wave) else {
            return;
        };
        report.no_longer_targets = no_longer;
        let (name, no_longer) = (&report.name, &report.no_longer_targets);
        let command_id = report.command_id.as_deref().unwrap_or_default();
        tell(&format!(
            "wave {} of {of}, {name}: {}, command {command_id}",
            wave + 1,
            counted(targets, "node")
        ));
        if !no_longer.is_empty() {
            tell(&format!(
                "wave {name}: {} {}: {}",
                counted(no_longer.len(), "node"),
                agreeing(
                    no_longer.len(),
                    "is no longer a target and does not get it",
                    "are no longer targets and do not get it"
                ),
                some(no_longer)
            ));
        }
    }

    /// All waves are through, and their nodes are watched for so long.
    pub(super) fn watching(&self, nodes: usize, time: Duration) {
        tell(&format!(
            "{}; watching the heartbeats of {} for {} s (--heartbeat-grace)",
            self.all_through(),
            counted(nodes, "node"),
            time.as_secs()
        ));
    }

    pub(super) fn wave_ended(&mut self, wave: usize, failed: &BTreeMap<String, String>) {
        let Some(report) = self.waves.get_mut(wave) else {
            return;
        };
        report.progress = Progress::Ended;
        report.failed.clone_from(failed);
        let name = &report.name;
        let command = report.command_id.as_deref().unwrap_or_default();
        if failed.is_empty() {
            let got = report.nodes.len() - report.no_longer_targets.len();
            let all = match got {
                1 => "the only node that got it".to_owned(),
                _ => format!("all {got} nodes that got it"),
            };
            tell(&format!("wave {name}: succeeded on {all}"));
        }
        for (node, status) in failed {
            tell(&format!(
                "wave {name}: {node}: {status}; `moorline explain {command} {node}` says why"
            ));
        }
    }

    pub(super) fn probe_ended(&mut self, wave: usize, failed: &BTreeMap<String, String>) {
        let Some(report) = self.waves.get_mut(wave) else {
            return;
        };
        report.progress = Progress::Probed;
        report.probe_failed.clone_from(failed);
        if failed.is_empty() {
            tell(&format!("wave {}: every node is well", report.name));
        }
    }

    /// The roll-out is over.
    pub(super) fn finish(&self, ended: &Ended) -> Result<(), CliError> {
        let reason = ended.halt.as_ref().map(ToString::to_string);
        if self.json {
            return console::print_json(&self.whole(Some(&ended.id), ended.status(), reason));
        }
        match reason {
            Some(reason) => {
                let halted_in = ended.halt.as_ref().and_then(|halt| halt.wave.as_ref());
                let through = self
                    .waves
                    .iter()
                    .take_while(|wave| halted_in != Some(&wave.name))
                    .filter(|wave| wave.progress != Progress::NotSent);
                let untouched: Vec<&str> = self
                    .waves
                    .iter()
                    .filter(|wave| wave.progress == Progress::NotSent)
                    .flat_map(|wave| wave.nodes.iter().map(String::as_str))
                    .collect();
                tell(&format!(
                    "halted after {}: {reason}; {} {} not touched",
                    counted(through.count(), "whole wave"),
                    counted(untouched.len(), "node"),
                    agreeing(untouched.len(), "was", "were")
                ));
                if let Some(way) = way_on(&untouched) {
                    tell(&way);
                }
                Ok(())
            }
            None => console::print_line(&format!(
                "roll-out {}: {}, {} failed",
                ended.id,
                self.all_through(),
                counted(ended.errors, "node")
            )),
        }
    }

    fn all_through(&self) -> String {
        match self.waves.len() {
            1 => "its only wave is through".to_owned(),
            waves => format!("all {waves} waves are through"),
        }
    }

    fn whole<'a>(&'a self, id: Option<&'a str>, status: &'static str, reason: Option<String>) -> Whole<'a> {
        Whole {
            rollout_id: id,
            status,
            reason,
            waves: &self.waves,
            not_connected: &self.left_out.away,
            wrong_platform: &self.left_out.wrong_platform,
            refusing: &self.left_out.refusing,
            in_no_wave: &self.left_out.unassigned,
        }
    }
}

/// Tells the user how the roll-out goes.
pub(super) fn tell(text: &str) {
    console::note(&one_line(text));
}

/// How to roll out to the nodes that are left, if there are any.
fn way_on(untouched: &[&str]) -> Option<String> {
    let targets = match untouched.len() {
        0 => return None,
        1..=MOST_VALUES => format!("--targets InstanceIds={}", untouched.join(",")),
        _ => format!("--targets InstanceIds=…, {MOST_VALUES} nodes at a time; --json names them"),
    };
    Some(format!(
        "to go on with what was not touched, the same command line takes in place of its targets: {targets}"
    ))
}

/// The first few of many.
fn some(nodes: &[String]) -> String {
    const SHOWN: usize = 5;
    let named: Vec<&str> = nodes.iter().take(SHOWN).map(String::as_str).collect();
    let more = nodes.len().saturating_sub(SHOWN);
    let more = if more > 0 {
        format!(" and {more} more")
    } else {
        String::new()
    };
    format!("{}{more}", named.join(" "))
}
