//! Nodes that do not take a command, or do not end one that was cancelled, hold it up: who sees no progress is told so,
//! once.

use std::time::Duration;

use moorline_ssm::command::CommandInvocationStatus;
use tokio::time::Instant;

use crate::{
    console::one_line,
    counted::{agreeing, counted},
};

/// A node that is there takes a command, and ends it, sooner, also after a pause of its network.
const AFTER: Duration = Duration::from_secs(15);
/// Nodes that are named.
const MOST_NAMED: usize = 5;

/// What was seen of it.
#[derive(Debug, Default)]
pub(super) struct HoldUp {
    is_cancelled: bool,
    since: Option<Instant>,
    is_told: bool,
}

impl HoldUp {
    /// Of a command that was cancelled.
    pub(super) fn of_cancelled() -> Self {
        Self {
            is_cancelled: true,
            ..Self::default()
        }
    }

    /// Whether a node where the command stands so is one that holds it up.
    pub(super) fn is_one(&self, status: &CommandInvocationStatus) -> bool {
        match self.is_cancelled {
            true => matches!(status, CommandInvocationStatus::Cancelling),
            false => matches!(
                status,
                CommandInvocationStatus::Pending | CommandInvocationStatus::Delayed
            ),
        }
    }

    /// A look found that all that is left are these nodes; none, if others run it. Returns what there is to tell.
    pub(super) fn looked(&mut self, now: Instant, nodes: &[&str]) -> Option<String> {
        if nodes.is_empty() {
            self.since = None;
            return None;
        }
        let since = *self.since.get_or_insert(now);
        if self.is_told || now.duration_since(since) < AFTER {
            return None;
        }
        self.is_told = true;
        let named: Vec<&str> = nodes.iter().take(MOST_NAMED).copied().collect();
        let more = match nodes.len().saturating_sub(MOST_NAMED) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let (what, end) = match self.is_cancelled {
            true => ("ended the cancelled command", "Ctrl-C leaves it"),
            false => (
                "taken the command",
                "that ends with --delivery-timeout at the latest; Ctrl-C cancels the command, and a second one leaves it",
            ),
        };
        Some(one_line(&format!(
            "waiting for {} that {} not {what} for {} s, and may be away: {}{more}; {end}",
            counted(nodes.len(), "node"),
            agreeing(nodes.len(), "has", "have"),
            AFTER.as_secs(),
            named.join(" ")
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_that_hold_a_command_up_are_told_once_after_a_while() {
        let begin = Instant::now();
        let mut hold_up = HoldUp::default();
        let at = |seconds| begin + Duration::from_secs(seconds);
        assert_eq!(hold_up.looked(at(0), &["a"]), None);
        assert_eq!(hold_up.looked(at(14), &["a"]), None);
        assert_eq!(hold_up.looked(at(15), &[]), None, "another one runs it");
        assert_eq!(hold_up.looked(at(16), &["a", "b"]), None);
        let nodes = ["a", "b", "c", "d", "e", "f", "g"];
        let told = hold_up.looked(at(31), &nodes).unwrap();
        assert!(
            told.starts_with("waiting for 7 nodes that have not taken the command for 15 s"),
            "{told}"
        );
        assert!(told.contains("a b c d e and 2 more"), "{told}");
        assert_eq!(hold_up.looked(at(100), &nodes), None, "it was told");
    }
}
