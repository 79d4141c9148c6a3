//! `moorline operator`: who has access keys, and their tags.

use std::collections::BTreeMap;

use moorline_ssm::operator::{
    ListOperators, ListOperatorsRequest, Operator as Listed, Tag, TagOperator, TagOperatorRequest,
    UntagOperator, UntagOperatorRequest,
};
use serde::Serialize;

use crate::{
    arguments::OperatorCommand,
    console::{self, one_line},
    error::CliError,
    operator::Operator,
    tag,
};

/// An operator as scripts read it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Shown {
    user_name: String,
    access_key_ids: Vec<String>,
    created_date: Option<String>,
    tags: BTreeMap<String, String>,
}

pub(crate) async fn execute(
    operator: &Operator,
    command: OperatorCommand,
    json: bool,
) -> Result<u8, CliError> {
    match command {
        OperatorCommand::List => list(operator, json).await?,
        OperatorCommand::Tag { name, tags } => {
            let tags = tags.into_iter().map(|(key, value)| Tag {
                key: Some(key),
                value: Some(value),
            });
            let request = TagOperatorRequest {
                user_name: Some(name),
                tags: Some(tags.collect()),
            };
            operator.call::<TagOperator>(&request).await?;
        }
        OperatorCommand::Untag { name, keys } => {
            // K=V is what `tag` takes: the value is of no matter here
            let keys = keys
                .iter()
                .map(|key| key.split_once('=').map_or(key.as_str(), |pair| pair.0));
            let request = UntagOperatorRequest {
                user_name: Some(name),
                tag_keys: Some(keys.map(str::to_owned).collect()),
            };
            operator.call::<UntagOperator>(&request).await?;
        }
    }
    Ok(0)
}

async fn list(operator: &Operator, json: bool) -> Result<(), CliError> {
    let mut shown = Vec::new();
    let mut request = ListOperatorsRequest::default();
    loop {
        let page = operator.call::<ListOperators>(&request).await?;
        shown.extend(page.operators.unwrap_or_default().into_iter().map(describe));
        request.next_token = page.next_token.filter(|token| !token.is_empty());
        if request.next_token.is_none() {
            break;
        }
    }
    if json {
        return console::print_json(&shown);
    }
    let mut table = console::table(&["NAME", "ACCESS KEYS", "CREATED", "TAGS"]);
    for one in &shown {
        let tags: Vec<String> = one
            .tags
            .iter()
            .map(|(key, value)| format!("{key}={value}"))
            .collect();
        table.add_row([
            one_line(&one.user_name),
            one_line(&one.access_key_ids.join(" ")),
            one_line(one.created_date.as_deref().unwrap_or("-")),
            one_line(&tags.join(" ")),
        ]);
    }
    console::print_table(&table)
}

fn describe(listed: Listed) -> Shown {
    Shown {
        user_name: listed.user_name.unwrap_or_default(),
        access_key_ids: listed.access_key_ids.unwrap_or_default(),
        created_date: listed.created_date.and_then(console::timestamp),
        tags: tag::map(listed.tags.as_deref().unwrap_or_default()),
    }
}
