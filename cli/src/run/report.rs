//! What the user sees of a command: live status on standard error when that is a terminal, the nodes' output on
//! standard output and standard error, or everything at once as JSON.

use std::{collections::BTreeMap, io::IsTerminal};

use indicatif::{ProgressBar, ProgressStyle};
use moorline_protocol::transcript::{OutputPiece, OutputStream};
use moorline_ssm::command::{CommandStatus, GetCommandInvocationResult};
use serde::Serialize;

use super::watch::Outcome;
use crate::{
    command_output::Lines,
    console,
    counted::{agreeing, counted},
    error::CliError,
};

/// What stands in a result where something was left out.
const CUT: &str = "--output truncated--";

/// One node's result, as scripts read it.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Invocation {
    instance_id: String,
    #[serde(skip)]
    name: Option<String>,
    status: String,
    #[serde(skip)]
    details: Option<String>,
    /// The exit code; -1 when the node has none.
    response_code: i32,
    standard_output: String,
    standard_error: String,
}

impl Invocation {
    pub(super) fn new(node: &str, name: Option<String>, result: GetCommandInvocationResult) -> Self {
        Self {
            instance_id: node.to_owned(),
            name,
            status: result.status.map(|status| status.to_string()).unwrap_or_default(),
            details: result.status_details,
            response_code: result.response_code.unwrap_or(-1),
            standard_output: result.standard_output_content.unwrap_or_default(),
            standard_error: result.standard_error_content.unwrap_or_default(),
        }
    }

    fn is_success(&self) -> bool {
        self.status == "Success"
    }

    fn is_cut(&self) -> bool {
        [&self.standard_output, &self.standard_error]
            .iter()
            .any(|text| text.contains(CUT))
    }

    /// What the user wants to know of a node that failed.
    fn failure(&self, command_id: &str) -> String {
        let node = self.name.as_ref().map_or_else(
            || self.instance_id.clone(),
            |name| format!("{} ({})", self.instance_id, console::one_line(name)),
        );
        let details = self.details.as_ref().filter(|details| **details != self.status);
        let details = details.map_or_else(String::new, |details| {
            format!(" ({})", console::one_line(details))
        });
        let code = if self.response_code > 0 {
            format!(", exit code {}", self.response_code)
        } else {
            String::new()
        };
        format!(
            "{node}: {}{details}{code}; `moorline explain {command_id} {}` says why",
            self.status, self.instance_id
        )
    }
}

/// The command as scripts read it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Finished<'a> {
    command_id: &'a str,
    status: &'a str,
    invocations: &'a [Invocation],
}

/// Shows results as they come.
#[derive(Debug)]
pub(super) struct Report {
    command_id: String,
    json: bool,
    /// Neither output nor failures are shown: the user looks at the end alone.
    is_quiet: bool,
    /// Only one node can answer: its output is shown raw.
    is_single: bool,
    progress: Option<ProgressBar>,
    invocations: Vec<Invocation>,
    lines: Lines,
}

impl Report {
    pub(super) fn new(command_id: &str, json: bool, is_single: bool) -> Self {
        let progress = (!json && std::io::stderr().is_terminal()).then(|| {
            let bar = ProgressBar::new_spinner();
            if let Ok(style) = ProgressStyle::with_template("{spinner} {elapsed} {msg}") {
                bar.set_style(style);
            }
            bar
        });
        Self {
            command_id: command_id.to_owned(),
            json,
            is_quiet: false,
            is_single,
            progress,
            invocations: Vec::new(),
            lines: Lines::default(),
        }
    }

    /// Of a command whose output is another's to look at.
    pub(super) fn quiet(command_id: &str, json: bool) -> Self {
        Self {
            is_quiet: true,
            ..Self::new(command_id, json, false)
        }
    }

    /// Whether output is shown while nodes run.
    pub(super) fn shows_output(&self) -> bool {
        !self.json && !self.is_quiet
    }

    /// Whether the user sees how the command stands.
    pub(super) fn shows_progress(&self) -> bool {
        self.progress.is_some()
    }

    /// Output of a node that still runs.
    pub(super) fn output(&mut self, node: &str, pieces: &[OutputPiece]) -> Result<(), CliError> {
        for piece in pieces {
            match piece {
                OutputPiece::Bytes { stream, bytes, .. } if self.is_single => {
                    self.print_output(*stream, bytes)?;
                }
                OutputPiece::Bytes { stream, bytes, .. } => {
                    let text = String::from_utf8_lossy(bytes);
                    let lines = self.lines.push(node, *stream, &text);
                    self.print(*stream, &lines)?;
                }
                OutputPiece::Gap(bytes) => self.note(&format!(
                    "{} of the output of {node} {} missing: it had no room for {}",
                    counted(*bytes, "byte"),
                    agreeing(*bytes, "is", "are"),
                    agreeing(*bytes, "it", "them")
                )),
            }
        }
        Ok(())
    }

    /// A node has ended, and its output was shown or is still to be.
    pub(super) fn ended(&mut self, invocation: Invocation, is_shown: bool) -> Result<(), CliError> {
        if is_shown {
            for stream in [OutputStream::Output, OutputStream::Errors] {
                let rest = self.lines.end(&invocation.instance_id, stream);
                self.print(stream, &rest)?;
            }
        } else if self.shows_output() {
            self.show(&invocation)?;
        }
        if self.shows_output() && !invocation.is_success() {
            self.note(&invocation.failure(&self.command_id));
        }
        self.invocations.push(invocation);
        Ok(())
    }

    /// What a node reported at its end: the begin and the end of its output.
    fn show(&self, invocation: &Invocation) -> Result<(), CliError> {
        let prefix = (!self.is_single).then_some(invocation.instance_id.as_str());
        self.print(
            OutputStream::Output,
            &prefixed(&invocation.standard_output, prefix),
        )?;
        let mut errors = prefixed(&invocation.standard_error, prefix);
        // what the agent adds to it has no line's end
        if !errors.is_empty() && !errors.ends_with('\n') {
            errors.push('\n');
        }
        self.print(OutputStream::Errors, &errors)?;
        if invocation.is_cut() {
            self.note(&format!(
                "this is not all of it: moorline output {} {}",
                self.command_id, invocation.instance_id
            ));
        }
        Ok(())
    }

    fn print_output(&self, stream: OutputStream, bytes: &[u8]) -> Result<(), CliError> {
        self.suspended(|| match stream {
            OutputStream::Output => console::print_output(bytes),
            OutputStream::Errors => {
                console::print_error_output(bytes);
                Ok(())
            }
        })
    }

    fn print(&self, stream: OutputStream, text: &str) -> Result<(), CliError> {
        if text.is_empty() {
            return Ok(());
        }
        self.suspended(|| match stream {
            OutputStream::Output => console::print(text),
            OutputStream::Errors => {
                console::print_error_text(text);
                Ok(())
            }
        })
    }

    /// Something the user should know.
    pub(super) fn note(&self, text: &str) {
        self.suspended(|| console::note(text));
    }

    pub(super) fn progress(&self, summary: &str) {
        if let Some(bar) = &self.progress {
            bar.set_message(console::one_line(summary));
            bar.tick();
        }
    }

    fn suspended<T>(&self, write: impl FnOnce() -> T) -> T {
        match &self.progress {
            Some(bar) => bar.suspend(write),
            None => write(),
        }
    }

    /// The nodes that have ended, each with its status; nothing more is shown.
    pub(super) fn into_statuses(mut self) -> BTreeMap<String, String> {
        self.clear_progress();
        let ended = self.invocations.into_iter();
        ended.map(|ended| (ended.instance_id, ended.status)).collect()
    }

    fn clear_progress(&mut self) {
        if let Some(bar) = self.progress.take() {
            bar.finish_and_clear();
        }
    }

    /// The command is over.
    pub(super) fn finish(&mut self, outcome: &Outcome) -> Result<(), CliError> {
        self.clear_progress();
        self.invocations.sort_by(|a, b| a.instance_id.cmp(&b.instance_id));
        if self.json {
            return console::print_json(&Finished {
                command_id: &self.command_id,
                status: outcome.status.as_str(),
                invocations: &self.invocations,
            });
        }
        if self.invocations.is_empty() {
            console::note("no node has these tags");
        }
        Ok(())
    }

    /// Whether every node did what was asked, and there was one.
    pub(super) fn is_success(&self, outcome: &Outcome) -> bool {
        outcome.status == CommandStatus::Success
            && !self.invocations.is_empty()
            && self.invocations.iter().all(Invocation::is_success)
    }
}

/// Each line behind the node's id, and a line's end at the end; without a node the text as it is.
fn prefixed(text: &str, prefix: Option<&str>) -> String {
    match prefix {
        None => text.to_owned(),
        Some(prefix) => text.lines().map(|line| format!("{prefix} | {line}\n")).collect(),
    }
}

#[cfg(test)]
mod tests {
    use moorline_ssm::command::CommandInvocationStatus;

    use super::*;

    fn invocation(status: CommandInvocationStatus, code: i32) -> Invocation {
        let result = GetCommandInvocationResult {
            status: Some(status),
            status_details: Some("ExecutionTimedOut".to_owned()),
            response_code: Some(code),
            standard_output_content: Some("a\nb".to_owned()),
            ..Default::default()
        };
        Invocation::new("mi-1", Some("web".to_owned()), result)
    }

    #[test]
    fn scripts_read_every_node() {
        let invocations = [invocation(CommandInvocationStatus::Failed, 7)];
        let finished = Finished {
            command_id: "c",
            status: "Failed",
            invocations: &invocations,
        };
        assert_eq!(
            serde_json::to_string(&finished).unwrap(),
            r#"{"CommandId":"c","Status":"Failed","Invocations":[{"InstanceId":"mi-1","Status":"Failed","ResponseCode":7,"StandardOutput":"a\nb","StandardError":""}]}"#
        );
    }

    #[test]
    fn lines_of_several_nodes_are_told_apart() {
        assert_eq!(prefixed("a\nb", Some("mi-1")), "mi-1 | a\nmi-1 | b\n");
        assert_eq!(prefixed("", Some("mi-1")), "");
        assert_eq!(prefixed("a\nb", None), "a\nb");
    }

    #[test]
    fn a_failure_says_how() {
        assert_eq!(
            invocation(CommandInvocationStatus::TimedOut, -1).failure("c"),
            "mi-1 (web): TimedOut (ExecutionTimedOut); `moorline explain c mi-1` says why"
        );
        assert_eq!(
            invocation(CommandInvocationStatus::Failed, 7).failure("c"),
            "mi-1 (web): Failed (ExecutionTimedOut), exit code 7; `moorline explain c mi-1` says why"
        );
    }

    #[test]
    fn success_needs_a_node() {
        let mut report = Report::new("c", true, false);
        let outcome = Outcome {
            status: CommandStatus::Success,
            is_interrupted: false,
        };
        assert!(!report.is_success(&outcome));
        report
            .ended(invocation(CommandInvocationStatus::Success, 0), false)
            .unwrap();
        assert!(report.is_success(&outcome));
        report
            .ended(invocation(CommandInvocationStatus::TimedOut, -1), false)
            .unwrap();
        assert!(!report.is_success(&outcome));
    }
}
