//! `{{ssm:…}}` and `{{ssm-secure:…}}` of a command: the first are put in when it is sent, the second are read by the node.

use std::collections::{BTreeMap, BTreeSet};

use moorline_protocol::document::{CommandDocument, ParameterType as DocumentType};
use moorline_ssm::{ErrorCode, parameter::ParameterType};
use serde_json::Value;

use crate::{
    api::{ApiError, ApiResult, RequestContext},
    auth::{Resource, authorize},
    engine::parameter::{Found, Selected, names_in, replace},
    store::{ParameterRow, TakenParameter},
};

/// Parameters that one command can name.
const MOST_NAMES: usize = 50;

/// The parameters of a command with what its references stand for.
#[derive(Debug, Default)]
pub(super) struct Resolved {
    /// As the request gives them, and the defaults that had references.
    pub(super) parameters: BTreeMap<String, Vec<String>>,
    /// Those of them that name parameters, before anything was put in.
    pub(super) references: BTreeMap<String, Vec<String>>,
    pub(super) taken: Vec<TakenParameter>,
}

/// Looks up what a command names. Who sends it has to be allowed to read it.
pub(super) async fn resolve(
    cx: &RequestContext,
    document: &CommandDocument,
    content: &Value,
    given: &BTreeMap<String, Vec<String>>,
) -> ApiResult<Resolved> {
    refuse_in_steps(content)?;
    let mut parameters = given.clone();
    for (name, definition) in document.parameters.iter() {
        let default = definition.default.as_ref().map(texts).unwrap_or_default();
        if !given.contains_key(name) && default.iter().any(|text| names_in(text, "ssm").next().is_some()) {
            parameters.insert(name.to_owned(), default);
        }
    }
    let references = parameters
        .iter()
        .filter(|(_, texts)| names_a_parameter(texts))
        .map(|(name, texts)| (name.clone(), texts.clone()))
        .collect();
    let mut taken = Vec::new();
    let found = look_up(cx, names(parameters.values().flatten(), "ssm")?, &mut taken).await?;
    for (name, texts) in &mut parameters {
        let is_list = document
            .parameters
            .iter()
            .any(|(defined, it)| defined == name && it.parameter_type == DocumentType::StringList);
        *texts = replace(texts, is_list, &found).map_err(|error| invalid(error.to_string()))?;
    }
    let content = content.to_string();
    let secret = names(given.values().flatten().chain([&content]), "ssm-secure")?;
    for (text, row) in secret.clone().into_iter().zip(rows(cx, secret).await?) {
        if row.parameter_type != ParameterType::SecureString {
            return Err(invalid(format!(
                "secure prefix ssm-secure: is used for a non-secure type {}: parameter {}",
                row.parameter_type, row.name
            )));
        }
        let selector = Selected::parse(text).and_then(|selected| selected.selector.text());
        taken.push(TakenParameter {
            name: row.name + &selector.unwrap_or_default(),
            version: None,
        });
    }
    Ok(Resolved {
        parameters,
        references,
        taken,
    })
}

fn names_a_parameter(texts: &[String]) -> bool {
    texts.iter().any(|text| {
        ["ssm", "ssm-secure"]
            .iter()
            .any(|prefix| names_in(text, prefix).next().is_some())
    })
}

/// The document goes to the node as it is, since its owner may know it by its hash.
fn refuse_in_steps(content: &Value) -> ApiResult<()> {
    let steps = content.as_object().into_iter().flatten();
    let outside = steps.filter(|(member, _)| !member.eq_ignore_ascii_case("parameters"));
    for (_, member) in outside {
        if let Some(name) = names_in(&member.to_string(), "ssm").next() {
            return Err(invalid(format!(
                "the document has {{{{ssm:{name}}}}} in its steps; make it the default of a parameter instead"
            )));
        }
    }
    Ok(())
}

fn texts(default: &Value) -> Vec<String> {
    match default {
        Value::String(text) => vec![text.clone()],
        Value::Array(elements) => elements
            .iter()
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect(),
        _ => Vec::new(),
    }
}

fn names<'a>(texts: impl Iterator<Item = &'a String>, prefix: &'a str) -> ApiResult<BTreeSet<&'a str>> {
    let names: BTreeSet<&str> = texts.flat_map(|text| names_in(text, prefix)).collect();
    if names.len() > MOST_NAMES {
        let message = format!(
            "the command names {} parameters; {MOST_NAMES} is the limit",
            names.len()
        );
        return Err(invalid(message));
    }
    Ok(names)
}

async fn look_up(
    cx: &RequestContext,
    names: BTreeSet<&str>,
    taken: &mut Vec<TakenParameter>,
) -> ApiResult<BTreeMap<String, Found>> {
    let mut found = BTreeMap::new();
    let rows = rows(cx, names.clone()).await?;
    let secret: Vec<&str> = rows
        .iter()
        .filter(|row| row.parameter_type == ParameterType::SecureString)
        .map(|row| row.name.as_str())
        .collect();
    if !secret.is_empty() {
        let secret = secret.join(" ");
        return Err(invalid(format!(
            "Parameters [{secret}] of type SecureString are not supported"
        )));
    }
    for (name, row) in names.into_iter().zip(rows) {
        taken.push(TakenParameter {
            name: row.name,
            version: Some(row.version),
        });
        let value = match row.parameter_type {
            ParameterType::StringList => Found::List(row.value.split(',').map(str::to_owned).collect()),
            _ => Found::Text(row.value),
        };
        found.insert(name.to_owned(), value);
    }
    Ok(found)
}

/// The rows of these names, in their order.
async fn rows(cx: &RequestContext, names: BTreeSet<&str>) -> ApiResult<Vec<ParameterRow>> {
    let (mut rows, mut unknown) = (Vec::with_capacity(names.len()), Vec::new());
    for text in names {
        let row = match Selected::parse(text) {
            None => None,
            Some(selected) => {
                let resource = Resource::Parameter(selected.name.clone());
                authorize(&cx.principal, "ssm:GetParameters", &resource)?;
                cx.app.store.parameter(&selected, cx.now).await?
            }
        };
        match row {
            Some(row) => rows.push(row),
            None => unknown.push(text),
        }
    }
    if unknown.is_empty() {
        return Ok(rows);
    }
    Err(invalid(format!(
        "Input contains invalid parameters [{}]",
        unknown.join(" ")
    )))
}

fn invalid(message: String) -> ApiError {
    ApiError::new(ErrorCode::InvalidParameters, message)
}
