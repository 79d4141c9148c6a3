//! `moorline run --wave …`: a command goes to its nodes wave after wave, and halts when something is wrong.
//!
//! The roll-out lives in this process: without it nothing further is sent. What is under way on nodes goes on.

mod driver;
mod heartbeat;
mod machine;
mod options;
mod report;
mod wave;

pub(crate) use options::RolloutOptions;

use std::{
    collections::{BTreeMap, BTreeSet},
    io::IsTerminal,
};

use moorline_protocol::signed_command::MAX_NODES;
use moorline_ssm::command::{PlanCommandResponse, PlannedState, PlannedVerdict, SendCommandRequest, Target};
use tokio::io::{AsyncBufReadExt, BufReader};

use self::{
    driver::{Driver, Order},
    report::Report,
    wave::{Selector, WaveSpec, assign},
};
use crate::{
    console,
    error::CliError,
    operator::Operator,
    plan::{self, Ask},
    sign::{SignOptions, Signer},
};

/// The roll-out was halted.
const EXIT_HALTED: u8 = 3;

/// Nodes of the plan that are in no wave, and why.
#[derive(Debug, Default)]
pub(crate) struct LeftOut {
    away: Vec<String>,
    wrong_platform: Vec<String>,
    refusing: Vec<String>,
    unassigned: Vec<String>,
}

/// Plans, shows, asks, and goes.
pub(crate) async fn execute(
    operator: &Operator,
    request: SendCommandRequest,
    (options, sign): (&RolloutOptions, &SignOptions),
    json: bool,
) -> Result<u8, CliError> {
    let allowed = request.max_errors.clone().unwrap_or_default();
    let specs: Vec<WaveSpec> = options.waves.iter().flat_map(|waves| waves.0.clone()).collect();
    wave::refuse_one_name_twice(&specs).map_err(CliError::Usage)?;
    if json && !options.dry_run && !options.yes {
        let reason = "with --json no plan is shown that could be asked for: --yes begins without asking";
        return Err(CliError::Usage(reason.to_owned()));
    }
    let planned = plan::fetch(operator, &request, Ask::Nodes).await?;
    let is_signed = sign.sign_with.is_some();
    let (able, mut left_out) = split(&planned, is_signed);
    let probe = probe(options);
    let unprobed = match &probe {
        Some(probe) => refuse_probe(operator, &request, probe, is_signed).await?,
        None => BTreeSet::new(),
    };
    let (refusing, able): (Vec<_>, Vec<_>) = able.into_iter().partition(|id| unprobed.contains(id));
    left_out.refusing.extend(refusing);
    let tagged = tagged(operator, &request, &specs).await?;
    let waves = assign(&able, &specs, &tagged);
    let assigned: BTreeSet<&String> = waves.iter().flat_map(|wave| &wave.nodes).collect();
    left_out.unassigned = able
        .iter()
        .filter(|node| !assigned.contains(node))
        .cloned()
        .collect();
    let total = assigned.len();
    let allowed_errors = allowed_errors(&allowed, total)?;
    let mut report = Report::new(json, waves.clone(), left_out);
    if !json || options.dry_run {
        if !json {
            plan::show(&planned, false)?;
        }
        report.plan(probe.as_ref(), allowed_errors)?;
    }
    if is_signed && let Some(wave) = waves.iter().find(|wave| wave.nodes.len() > MAX_NODES) {
        let (name, nodes) = (&wave.name, wave.nodes.len());
        return Err(CliError::Usage(format!(
            "wave {name} has {nodes} nodes, and a signature is for {MAX_NODES} at most: make smaller waves"
        )));
    }
    if options.dry_run {
        return Ok(0);
    }
    if total == 0 {
        return Err(CliError::Usage("no wave has a node: nothing is sent".to_owned()));
    }
    if !options.yes && !confirmed().await? {
        console::note("nothing was sent");
        return Ok(EXIT_HALTED);
    }
    let order = Order {
        signer: Signer::new(operator, &request, sign).await?,
        probe_signer: Signer::of_probe(operator, probe.as_ref(), sign).await?,
        request,
        probe,
        allowed_errors,
        heartbeat_grace: options.heartbeat_grace,
    };
    let ended = Driver::begin(operator, order, waves, &mut report)?.run().await;
    report.finish(&ended)?;
    Ok(ended.exit_code())
}

/// Nodes that can run it now, in the plan's order, and the others. What is not signed is refused where signatures are
/// asked for.
fn split(plan: &PlanCommandResponse, is_signed: bool) -> (Vec<String>, LeftOut) {
    let (mut able, mut left_out) = (Vec::new(), LeftOut::default());
    for node in plan.nodes.iter().flatten() {
        let Some(id) = node.instance_id.clone() else {
            continue;
        };
        let is_refused = node.policy == Some(PlannedVerdict::Refuses)
            || (node.needs_signature == Some(true) && !is_signed);
        match (&node.state, is_refused) {
            (Some(PlannedState::Waits), _) => left_out.away.push(id),
            (Some(PlannedState::WrongPlatform), _) => left_out.wrong_platform.push(id),
            (Some(PlannedState::Runs | PlannedState::Unknown(_)) | None, true) => left_out.refusing.push(id),
            (Some(PlannedState::Runs | PlannedState::Unknown(_)) | None, false) => able.push(id),
        }
    }
    (able, left_out)
}

/// Nodes whose owners refuse the health probe. That there is such a document, for such parameters, is known then, too:
/// before the first wave, and not after it.
async fn refuse_probe(
    operator: &Operator,
    request: &SendCommandRequest,
    probe: &SendCommandRequest,
    is_signed: bool,
) -> Result<BTreeSet<String>, CliError> {
    let asked = SendCommandRequest {
        targets: request.targets.clone(),
        instance_ids: request.instance_ids.clone(),
        ..probe.clone()
    };
    let planned = plan::fetch(operator, &asked, Ask::Nodes).await?;
    Ok(split(&planned, is_signed).1.refusing.into_iter().collect())
}

/// The nodes that each wave's tag selects, by the endpoint's own word.
async fn tagged(
    operator: &Operator,
    request: &SendCommandRequest,
    specs: &[WaveSpec],
) -> Result<Vec<BTreeSet<String>>, CliError> {
    let mut tagged = Vec::with_capacity(specs.len());
    for spec in specs {
        let Selector::Tag { key, value } = &spec.selector else {
            tagged.push(BTreeSet::new());
            continue;
        };
        let mut narrowed = request.clone();
        let mut targets = narrowed.targets.take().unwrap_or_default();
        if let Some(ids) = narrowed.instance_ids.take() {
            targets.push(target("InstanceIds".to_owned(), ids));
        }
        targets.push(target(format!("tag:{key}"), vec![value.clone()]));
        narrowed.targets = Some(targets);
        let plan = plan::fetch(operator, &narrowed, Ask::Nobody).await?;
        let ids = plan
            .nodes
            .into_iter()
            .flatten()
            .filter_map(|node| node.instance_id);
        tagged.push(ids.collect());
    }
    Ok(tagged)
}

fn target(key: String, values: Vec<String>) -> Target {
    Target {
        key: Some(key),
        values: Some(values),
    }
}

/// What is run on the nodes of a wave when it is through.
fn probe(options: &RolloutOptions) -> Option<SendCommandRequest> {
    let (document, parameters) = match (&options.health_document, &options.health_command) {
        (Some(document), _) => {
            let mut parameters: BTreeMap<String, Vec<String>> = BTreeMap::new();
            for (key, value) in &options.health_parameters {
                parameters.entry(key.clone()).or_default().push(value.clone());
            }
            (document.clone(), parameters)
        }
        (None, Some(line)) => (
            "AWS-RunShellScript".to_owned(),
            BTreeMap::from([("commands".to_owned(), vec![line.clone()])]),
        ),
        (None, None) => return None,
    };
    Some(SendCommandRequest {
        document_name: Some(document),
        parameters: Some(parameters),
        // every node says how it is, also when another is not well
        max_errors: Some("100%".to_owned()),
        ..SendCommandRequest::default()
    })
}

/// `--max-errors` of the whole roll-out: a number, or a share of its nodes, rounded down.
fn allowed_errors(text: &str, nodes: usize) -> Result<usize, CliError> {
    let wrong = || {
        CliError::Usage(format!(
            "--max-errors {text:?} is neither a number nor a percentage"
        ))
    };
    let (digits, is_percentage) = text
        .strip_suffix('%')
        .map_or((text, false), |digits| (digits, true));
    let number: usize = digits.parse().map_err(|_| wrong())?;
    match (is_percentage, number) {
        (false, number) => Ok(number),
        (true, percent @ 0..=100) => Ok(nodes * percent / 100),
        (true, _) => Err(wrong()),
    }
}

/// Asks at the terminal.
async fn confirmed() -> Result<bool, CliError> {
    if !std::io::stdin().is_terminal() {
        return Err(CliError::Usage(
            "there is no terminal to ask at: --yes begins without asking, --dry-run only shows the plan"
                .to_owned(),
        ));
    }
    console::print_error_text("moorline: begin? [y/N] ");
    let mut answer = String::new();
    BufReader::new(tokio::io::stdin())
        .read_line(&mut answer)
        .await
        .map_err(|source| CliError::io("read the answer", source))?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

#[cfg(test)]
mod tests {
    use moorline_ssm::command::PlannedNode;

    use super::*;

    #[test]
    fn errors_are_allowed_by_number_or_share() {
        for (text, nodes, expected) in [("0", 10, 0), ("3", 10, 3), ("10%", 25, 2), ("100%", 7, 7)] {
            assert_eq!(allowed_errors(text, nodes).unwrap(), expected, "{text}");
        }
        for text in ["", "%", "x", "-1", "101%"] {
            assert!(allowed_errors(text, 10).is_err(), "{text}");
        }
    }

    #[test]
    fn a_node_that_is_away_or_of_another_platform_or_refuses_is_in_no_wave() {
        let node = |id: &str, state| PlannedNode {
            instance_id: Some(id.to_owned()),
            state: Some(state),
            ..PlannedNode::default()
        };
        let plan = PlanCommandResponse {
            nodes: Some(vec![
                node("a", PlannedState::Runs),
                node("b", PlannedState::Waits),
                node("c", PlannedState::WrongPlatform),
                PlannedNode {
                    policy: Some(PlannedVerdict::Refuses),
                    ..node("d", PlannedState::Runs)
                },
                PlannedNode {
                    policy: Some(PlannedVerdict::NotKnown),
                    ..node("e", PlannedState::Runs)
                },
                PlannedNode {
                    policy: Some(PlannedVerdict::Allows),
                    needs_signature: Some(true),
                    ..node("f", PlannedState::Runs)
                },
            ]),
            ..PlanCommandResponse::default()
        };
        let (able, left_out) = split(&plan, true);
        assert_eq!(able, ["a", "e", "f"]);
        assert_eq!(left_out.refusing, ["d"]);
        let (able, unsigned) = split(&plan, false);
        assert_eq!(able, ["a", "e"]);
        assert_eq!(unsigned.refusing, ["d", "f"]);
        assert_eq!(
            (left_out.away, left_out.wrong_platform),
            (vec!["b".to_owned()], vec!["c".to_owned()])
        );
    }
}
