//! `moorline nodes`: the managed nodes.

use std::collections::BTreeMap;

use jiff::Timestamp;
use moorline_ssm::{EpochSeconds, node::InstanceInformation};
use serde::Serialize;

use crate::{
    arguments::NodesOptions,
    console::{self, one_line},
    error::CliError,
    node,
    operator::Operator,
    tag,
};

/// Tags need a call for each node: beyond this many nodes only `--json` waits for them.
const MAX_TAGGED: usize = 200;

/// A node as scripts read it, in the API's own words.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Node {
    instance_id: String,
    name: Option<String>,
    computer_name: Option<String>,
    ping_status: Option<String>,
    last_ping_date_time: Option<String>,
    platform_type: Option<String>,
    platform_name: Option<String>,
    platform_version: Option<String>,
    agent_version: Option<String>,
    #[serde(rename = "IPAddress")]
    ip_address: Option<String>,
    activation_id: Option<String>,
    registration_date: Option<String>,
    /// Hash of the owner's policy, `none` or `unusable`; `null`: the node says nothing of one.
    policy: Option<String>,
    /// `null` when they were not asked for.
    tags: Option<BTreeMap<String, String>>,
}

pub(crate) async fn execute(operator: &Operator, options: &NodesOptions, json: bool) -> Result<u8, CliError> {
    let listed = node::list(operator, &options.tags).await?;
    let with_tags = !options.no_tags && (json || listed.len() <= MAX_TAGGED);
    let mut nodes = Vec::with_capacity(listed.len());
    for information in &listed {
        let id = information.instance_id.as_deref().unwrap_or_default();
        let tags = if with_tags {
            Some(tag::of_node(operator, id).await?)
        } else {
            None
        };
        nodes.push(describe(information, tags));
    }
    if json {
        console::print_json(&nodes)?;
    } else if nodes.is_empty() {
        console::note("no managed node; `moorline activation create` makes an activation to register one");
    } else {
        print_table(&nodes, &listed)?;
    }
    Ok(0)
}

fn describe(information: &InstanceInformation, tags: Option<BTreeMap<String, String>>) -> Node {
    let time = |time: Option<EpochSeconds>| time.and_then(console::timestamp);
    Node {
        instance_id: information.instance_id.clone().unwrap_or_default(),
        name: information.name.clone(),
        computer_name: information.computer_name.clone(),
        ping_status: information.ping_status.as_ref().map(ToString::to_string),
        last_ping_date_time: time(information.last_ping_date_time),
        platform_type: information.platform_type.as_ref().map(ToString::to_string),
        platform_name: information.platform_name.clone(),
        platform_version: information.platform_version.clone(),
        agent_version: information.agent_version.clone(),
        ip_address: information.ip_address.clone(),
        activation_id: information.activation_id.clone(),
        registration_date: time(information.registration_date),
        policy: information.moorline_policy.clone(),
        tags,
    }
}

fn print_table(nodes: &[Node], listed: &[InstanceInformation]) -> Result<(), CliError> {
    let now = Timestamp::now();
    let mut table = console::table(&[
        "ID",
        "NAME",
        "STATUS",
        "PLATFORM",
        "VERSION",
        "ADDRESS",
        "LAST PING",
        "POLICY",
        "TAGS",
    ]);
    for (node, information) in nodes.iter().zip(listed) {
        let text = |value: &Option<String>| one_line(value.as_deref().unwrap_or("-"));
        let name = node.name.as_ref().filter(|name| !name.is_empty());
        let name = name.or(node.computer_name.as_ref());
        let platform = [&node.platform_name, &node.platform_version]
            .into_iter()
            .flatten()
            .map(String::as_str)
            .collect::<Vec<_>>()
            .join(" ");
        let ping = information
            .last_ping_date_time
            .map_or_else(|| "never".to_owned(), |time| console::ago(time, now));
        let tags = node
            .tags
            .iter()
            .flatten()
            .map(|(key, value)| format!("{key}={value}"))
            .collect::<Vec<_>>()
            .join(" ");
        table.add_row([
            node.instance_id.clone(),
            text(&name.cloned()),
            text(&node.ping_status),
            one_line(&platform),
            text(&node.agent_version),
            text(&node.ip_address),
            ping,
            text(&node.policy.as_deref().map(short)),
            one_line(&tags),
        ]);
    }
    console::print_table(&table)
}

/// The beginning of a hash, by which nodes of one policy are seen to be.
fn short(policy: &str) -> String {
    policy.chars().take(12).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_read_the_words_of_the_api() {
        let information = InstanceInformation {
            instance_id: Some("mi-0123456789abcdef0".to_owned()),
            ip_address: Some("10.0.0.1".to_owned()),
            last_ping_date_time: Some(EpochSeconds(1_700_000_000.0)),
            ..Default::default()
        };
        let value = serde_json::to_value(describe(&information, Some(BTreeMap::new()))).unwrap();
        assert_eq!(value["InstanceId"], "mi-0123456789abcdef0");
        assert_eq!(value["IPAddress"], "10.0.0.1");
        assert_eq!(value["LastPingDateTime"], "2023-11-14T22:13:20.000Z");
        assert_eq!(value["PingStatus"], serde_json::Value::Null);
        assert_eq!(value["Tags"], serde_json::json!({}));
    }
}
