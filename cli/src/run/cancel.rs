//! `moorline cancel`: what Ctrl-C of `moorline run` does, for any command, and for some of its nodes alone.

use std::collections::BTreeMap;

use moorline_ssm::command::{CancelCommand, CancelCommandRequest};
use moorline_transport::CallError;
use serde::Serialize;

use super::{
    EXIT_INTERRUPTED,
    interrupts::Interrupts,
    report::Report,
    watch::{self, Watch},
};
use crate::{
    arguments::CancelOptions,
    console,
    counted::counted,
    error::{self, CliError},
    operator::Operator,
    pick,
};

const CANCELLED: &str = "Cancelled";
const CANCELLING: &str = "Cancelling";

/// Why a command was not cancelled.
#[derive(Debug)]
pub(super) enum NotCancelled {
    Interrupted,
    Call(CallError),
}

impl NotCancelled {
    /// For the user.
    pub(super) fn told(&self, id: &str) -> String {
        let why = match self {
            Self::Interrupted => "interrupted".to_owned(),
            Self::Call(error) => error::chain(error),
        };
        format!("command {id} was not cancelled, and may still run: {why}")
    }
}

/// Asks the endpoint to end a command on all its nodes, or on these.
///
/// # Errors
/// The user pressed Ctrl-C meanwhile, or the endpoint refused.
pub(super) async fn ask(
    operator: &Operator,
    id: &str,
    nodes: Option<Vec<String>>,
    interrupts: &mut Interrupts,
) -> Result<(), NotCancelled> {
    let request = CancelCommandRequest {
        command_id: Some(id.to_owned()),
        instance_ids: nodes,
    };
    tokio::select! {
        () = interrupts.next() => Err(NotCancelled::Interrupted),
        cancelled = operator.call::<CancelCommand>(&request) => match cancelled {
            Ok(_) => Ok(()),
            Err(error) => Err(NotCancelled::Call(error)),
        },
    }
}

/// A node of the command, as scripts read it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Invocation {
    instance_id: String,
    status: String,
    /// Before the command was to be cancelled.
    had_ended: bool,
}

impl Invocation {
    fn is_left(&self) -> bool {
        self.status == CANCELLING
    }
}

/// The command as scripts read it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Cancelled<'a> {
    command_id: &'a str,
    status: Option<String>,
    invocations: &'a [Invocation],
}

/// Cancels, and waits for the end.
pub(crate) async fn execute(
    operator: &Operator,
    options: &CancelOptions,
    json: bool,
) -> Result<u8, CliError> {
    let id = options.command.as_str();
    pick::command(id)?;
    let only = pick::nodes(operator, &options.nodes).await?;
    let mut interrupts = Interrupts::watch()?;
    let mut invocations = standing(operator, id, &only).await?;
    // also where nothing is left to end: whether these nodes have the command, and who may, is the endpoint's to say
    let nodes = (!only.is_empty()).then_some(only);
    match ask(operator, id, nodes, &mut interrupts).await {
        Ok(()) => {}
        Err(NotCancelled::Call(error)) => return Err(error.into()),
        Err(why) => {
            console::note(&why.told(id));
            return Ok(EXIT_INTERRUPTED);
        }
    }
    let open = invocations.iter_mut().filter(|invocation| !invocation.had_ended);
    let mut open: BTreeMap<String, &mut Invocation> = open
        .map(|invocation| (invocation.instance_id.clone(), invocation))
        .collect();
    if !open.is_empty() {
        let mut report = Report::quiet(id, json);
        let watch = Watch::of_cancelled(operator, id, open.keys().cloned().collect());
        let watched = watch.run(&mut report, (interrupts, false)).await;
        watched.inspect_err(|_| {
            report.note(&format!("command {id} was cancelled, and its end was not seen"));
        })?;
        let ended = report.into_statuses();
        for (node, invocation) in &mut open {
            invocation.status = ended.get(node).cloned().unwrap_or_else(|| CANCELLING.to_owned());
        }
    }
    if json {
        let command = watch::command(operator, id).await?.unwrap_or_default();
        console::print_json(&Cancelled {
            command_id: id,
            status: command.status.map(|status| status.to_string()),
            invocations: &invocations,
        })?;
    } else {
        console::print_line(&format!("command {id}: {}", told(&invocations)))?;
    }
    let is_left = invocations.iter().any(Invocation::is_left);
    Ok(if is_left { EXIT_INTERRUPTED } else { 0 })
}

/// How the command stands on these nodes, or on all.
async fn standing(operator: &Operator, id: &str, only: &[String]) -> Result<Vec<Invocation>, CliError> {
    let listed = watch::invocations(operator, id).await?.into_iter();
    let found = listed.filter_map(|listed| {
        let (instance_id, status) = (listed.instance_id?, listed.status?);
        (only.is_empty() || only.contains(&instance_id)).then(|| Invocation {
            instance_id,
            status: status.to_string(),
            had_ended: watch::is_final(&status),
        })
    });
    Ok(found.collect())
}

/// What came of it, in one line.
fn told(invocations: &[Invocation]) -> String {
    let (had_ended, asked): (Vec<_>, Vec<_>) = invocations.iter().partition(|one| one.had_ended);
    let (left, ended): (Vec<_>, Vec<_>) = asked.into_iter().partition(|one| one.is_left());
    let (cancelled, others): (Vec<_>, Vec<_>) = ended.into_iter().partition(|one| one.status == CANCELLED);
    let mut parts = Vec::new();
    if cancelled.is_empty() && left.is_empty() {
        parts.push("nothing was left to cancel".to_owned());
    }
    if !cancelled.is_empty() {
        parts.push(format!("cancelled on {}", counted(cancelled.len(), "node")));
    }
    if !others.is_empty() {
        parts.push(format!("ended by itself on {}", listed(&others)));
    }
    if !had_ended.is_empty() {
        parts.push(format!("had ended before on {}", listed(&had_ended)));
    }
    if !left.is_empty() {
        parts.push(format!("may still run on {}", counted(left.len(), "node")));
    }
    parts.join("; ")
}

/// "3 nodes (1 Failed, 2 Success)".
fn listed(invocations: &[&Invocation]) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for invocation in invocations {
        *counts.entry(&invocation.status).or_default() += 1;
    }
    let counts: Vec<String> = counts
        .iter()
        .map(|(status, count)| format!("{count} {status}"))
        .collect();
    format!("{} ({})", counted(invocations.len(), "node"), counts.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_cancelled_and_what_had_ended_is_told_apart() {
        let one = |status: &str, had_ended| Invocation {
            instance_id: "mi-1".to_owned(),
            status: status.to_owned(),
            had_ended,
        };
        for (invocations, expected) in [
            (vec![], "nothing was left to cancel"),
            (
                vec![one("Failed", true), one("Success", true), one("Success", true)],
                "nothing was left to cancel; had ended before on 3 nodes (1 Failed, 2 Success)",
            ),
            (
                vec![
                    one("Cancelled", false),
                    one("Cancelled", true),
                    one("Success", false),
                ],
                "cancelled on 1 node; ended by itself on 1 node (1 Success); had ended before on 1 node (1 Cancelled)",
            ),
            (
                vec![one(CANCELLING, false), one("Cancelled", false)],
                "cancelled on 1 node; may still run on 1 node",
            ),
        ] {
            assert_eq!(told(&invocations), expected);
        }
    }
}
