//! Preconditions and the decision whether a step runs (documents.md §1.7). The texts are the stock agent's.

use std::sync::LazyLock;

use regex::Regex;
use serde_json::Value;

use super::content::{malformed, plain_text};
use super::substitution::Substitution;
use super::{Decision, DocumentError, Platform, SchemaVersion};

/// Every action the stock agent knows; anything else calls for a newer agent.
const KNOWN_ACTIONS: [&str; 16] = [
    "aws:applications",
    "aws:cloudWatch",
    "aws:configureDaemon",
    "aws:configureDocker",
    "aws:configurePackage",
    "aws:domainJoin",
    "aws:downloadContent",
    "aws:psModule",
    "aws:refreshAssociation",
    "aws:runDockerAction",
    "aws:runDocument",
    "aws:runPowerShellScript",
    "aws:runShellScript",
    "aws:softwareInventory",
    "aws:updateAgent",
    "aws:updateSsmAgent",
];

static STORE_REFERENCE: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"\{\{ *ssm(-secure)?:[0-9A-Za-z_.:/-]+ *\}\}").expect("the pattern is constant and tested")
});

/// One operator and its arguments, as written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Condition {
    pub(crate) operator: String,
    pub(crate) arguments: Vec<String>,
}

/// Reads `precondition`; missing, null and `{}` are none.
///
/// # Errors
/// Not an object of lists of texts.
pub(super) fn parse(precondition: Option<&Value>) -> Result<Vec<Condition>, DocumentError> {
    let shape = || malformed("precondition must be an object of lists of texts");
    let members = match precondition {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(value) => value.as_object().ok_or_else(shape)?,
    };
    let condition = |(operator, arguments): (&String, &Value)| {
        let arguments = arguments.as_array().ok_or_else(shape)?;
        let texts = arguments
            .iter()
            .map(|argument| argument.as_str().map(str::to_owned).ok_or_else(shape));
        Ok(Condition {
            operator: operator.clone(),
            arguments: texts.collect::<Result<_, _>>()?,
        })
    };
    members.iter().map(condition).collect()
}

/// The step that is decided about.
#[derive(Debug, Clone, Copy)]
pub(super) struct Candidate<'a> {
    pub(super) action: &'a str,
    pub(super) name: &'a str,
    pub(super) conditions: &'a [Condition],
}

/// The decision table, without the rule about earlier steps, which needs their results.
///
/// The stock agent has one more rule before schema 2.2, "not supported in current platform". On Linux it counts
/// every known action as fit for the platform, so the rule never applies and is left out.
///
/// # Errors
/// The parameters of a precondition are too large.
pub(super) fn decide(
    schema: SchemaVersion,
    candidate: Candidate<'_>,
    platform: Platform<'_>,
    substitution: &mut Substitution<'_>,
) -> Result<Decision, DocumentError> {
    let Candidate {
        action,
        name,
        conditions,
    } = candidate;
    let is_known = KNOWN_ACTIONS.contains(&action);
    let has_handler = platform.handled_actions.contains(&action);
    let unknown = || {
        Decision::Fail(format!(
            "Plugin with name {action} is not supported by this version of ssm agent, \
             please update to latest version. Step name: {name}"
        ))
    };
    if schema != SchemaVersion::V2_2 {
        return Ok(if !is_known && !has_handler {
            unknown()
        } else if !conditions.is_empty() {
            Decision::Fail(format!(
                "Precondition is not supported for document schema version prior to 2.2. Step name: {name}"
            ))
        } else if !has_handler {
            Decision::Fail(format!("Plugin with name {action} not found. Step name: {name}"))
        } else {
            Decision::Run
        });
    }
    let verdict = evaluate(conditions, platform.platform_type, substitution)?;
    let texts = verdict.texts.join(", ");
    Ok(if !verdict.is_unsatisfied && !is_known && !has_handler {
        unknown()
    } else if !has_handler {
        Decision::Skip(format!(
            "Step execution skipped due to unsupported plugin: {action}. Step name: {name}"
        ))
    } else if verdict.is_unsatisfied {
        Decision::Skip(format!(
            "Step execution skipped due to unsatisfied preconditions: '{texts}'. Step name: {name}"
        ))
    } else if !verdict.texts.is_empty() {
        Decision::Fail(format!(
            "Unrecognized precondition(s): '{texts}', please update agent to latest version. Step name: {name}"
        ))
    } else {
        Decision::Run
    })
}

/// What the conditions of a step come to.
#[derive(Debug, Default)]
struct Verdict {
    is_unsatisfied: bool,
    /// One for every condition that is unsatisfied or unrecognized.
    texts: Vec<String>,
}

fn evaluate(
    conditions: &[Condition],
    platform_type: &str,
    substitution: &mut Substitution<'_>,
) -> Result<Verdict, DocumentError> {
    let mut verdict = Verdict::default();
    for condition in conditions {
        let operator = &condition.operator;
        if operator != "StringEquals" {
            verdict
                .texts
                .push(format!("unrecognized operator: \"{operator}\""));
            continue;
        }
        match string_equals(&condition.arguments, platform_type, substitution)? {
            Equality::Equal => {}
            Equality::Different(first, second) => {
                verdict.is_unsatisfied = true;
                verdict.texts.push(format!("\"{operator}\": [{first}, {second}]"));
            }
            Equality::Unrecognized(reason) => verdict.texts.push(format!("\"{operator}\": {reason}")),
        }
    }
    Ok(verdict)
}

enum Equality<'a> {
    Equal,
    Different(&'a str, &'a str),
    Unrecognized(&'static str),
}

fn string_equals<'a>(
    arguments: &'a [String],
    platform_type: &str,
    substitution: &mut Substitution<'_>,
) -> Result<Equality<'a>, DocumentError> {
    let [first, second] = arguments else {
        return Ok(Equality::Unrecognized("operator accepts exactly 2 arguments"));
    };
    if first == second {
        return Ok(Equality::Unrecognized("operator's arguments can't be identical"));
    }
    let mut is_secure = None;
    for found in [first, second]
        .into_iter()
        .filter(|text| text.contains("{{"))
        .flat_map(|text| STORE_REFERENCE.captures_iter(text))
    {
        // A plain reference in either argument is named before a secure one.
        is_secure = Some(is_secure.unwrap_or(true) && found.get(1).is_some());
    }
    match is_secure {
        Some(false) => {
            return Ok(Equality::Unrecognized(
                "operator's arguments can't contain SSM parameters",
            ));
        }
        Some(true) => {
            return Ok(Equality::Unrecognized(
                "operator's arguments can't contain secure SSM parameters",
            ));
        }
        None => {}
    }
    let resolved_first = substitution.string(first)?;
    let resolved_second = substitution.string(second)?;
    let is_plain =
        plain_text(&resolved_first) == first.as_str() && plain_text(&resolved_second) == second.as_str();
    let is_equal = if first == "platformType" || second == "platformType" {
        if !is_plain {
            return Ok(Equality::Unrecognized(
                "the second argument for the platformType variable can't contain document parameters",
            ));
        }
        let wanted = if first == "platformType" { second } else { first };
        wanted.eq_ignore_ascii_case(platform_type)
    } else if is_plain {
        return Ok(Equality::Unrecognized(
            "at least one of operator's arguments must contain a valid document parameter",
        ));
    } else {
        plain_text(&resolved_first) == plain_text(&resolved_second)
    };
    Ok(if is_equal {
        Equality::Equal
    } else {
        Equality::Different(first, second)
    })
}

#[cfg(test)]
mod tests;
