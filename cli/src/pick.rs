//! Which node the user means: its id, or a name that only one node has. And whether a command can be meant.

use moorline_protocol::types::CommandId;
use moorline_ssm::node::InstanceInformation;
use moorline_transport::CallError;

use crate::{node, operator::Operator};

/// Why there is no such node.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PickError {
    #[error(transparent)]
    Call(#[from] CallError),
    #[error("no node has the name {name:?}")]
    Unknown { name: String },
    #[error("{} nodes have the name {name:?}: {}", ids.len(), ids.join(", "))]
    Ambiguous { name: String, ids: Vec<String> },
    #[error(
        "{0:?} is no command id; `moorline run` and `aws ssm list-commands` show them: 36 characters, hex digits and \
         hyphens"
    )]
    NoCommand(String),
}

/// The endpoint would tell the length that an id has, and not what was mistaken for one.
///
/// # Errors
/// No command has such an id.
pub(crate) fn command(id: &str) -> Result<(), PickError> {
    match id.parse::<CommandId>() {
        Ok(_) => Ok(()),
        Err(_) => Err(PickError::NoCommand(id.to_owned())),
    }
}

/// The ids of nodes, in the order given. The nodes are listed only if one of them is given by name.
///
/// # Errors
/// A name fits no node or several.
pub(crate) async fn nodes(operator: &Operator, names: &[String]) -> Result<Vec<String>, PickError> {
    let mut known = None;
    let mut ids: Vec<String> = Vec::with_capacity(names.len());
    for name in names {
        let id = if is_id(name) {
            name.clone()
        } else {
            if known.is_none() {
                known = Some(node::list(operator, &[]).await?);
            }
            find(known.as_deref().unwrap_or_default(), name)?
        };
        if !ids.contains(&id) {
            ids.push(id);
        }
    }
    Ok(ids)
}

/// As [`nodes`], for one.
///
/// # Errors
/// The name fits no node or several.
pub(crate) async fn node(operator: &Operator, name: &str) -> Result<String, PickError> {
    let ids = nodes(operator, &[name.to_owned()]).await?;
    ids.into_iter().next().ok_or_else(|| PickError::Unknown {
        name: name.to_owned(),
    })
}

/// `mi-` or `i-` and hex digits: the endpoint judges whether there is such a node.
fn is_id(name: &str) -> bool {
    let digits = name.strip_prefix("mi-").or_else(|| name.strip_prefix("i-"));
    digits.is_some_and(|digits| digits.len() >= 8 && digits.bytes().all(|b| b.is_ascii_hexdigit()))
}

fn find(nodes: &[InstanceInformation], name: &str) -> Result<String, PickError> {
    let has_name = |node: &&InstanceInformation| {
        [&node.instance_id, &node.name, &node.computer_name]
            .into_iter()
            .flatten()
            .any(|known| known.eq_ignore_ascii_case(name))
    };
    let mut ids: Vec<String> = nodes
        .iter()
        .filter(has_name)
        .filter_map(|node| node.instance_id.clone())
        .collect();
    match (ids.pop(), ids.is_empty()) {
        (Some(id), true) => Ok(id),
        (Some(id), false) => {
            ids.push(id);
            Err(PickError::Ambiguous {
                name: name.to_owned(),
                ids,
            })
        }
        (None, _) => Err(PickError::Unknown {
            name: name.to_owned(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(id: &str, name: Option<&str>, computer: &str) -> InstanceInformation {
        InstanceInformation {
            instance_id: Some(id.to_owned()),
            name: name.map(str::to_owned),
            computer_name: Some(computer.to_owned()),
            ..Default::default()
        }
    }

    #[test]
    fn a_name_must_fit_one_node() {
        let nodes = [
            node("mi-1", Some("web"), "host-a"),
            node("mi-2", Some("web"), "host-b"),
            node("mi-3", None, "web2"),
        ];
        assert_eq!(find(&nodes, "host-B").unwrap(), "mi-2");
        assert_eq!(find(&nodes, "web2").unwrap(), "mi-3");
        assert_eq!(find(&nodes, "mi-1").unwrap(), "mi-1");
        assert_eq!(
            find(&nodes, "web").unwrap_err().to_string(),
            "2 nodes have the name \"web\": mi-1, mi-2"
        );
        assert!(matches!(find(&nodes, "db"), Err(PickError::Unknown { .. })));
    }

    #[test]
    fn an_id_is_known_by_its_form() {
        assert!(is_id("mi-0123456789abcdef0"));
        assert!(is_id("i-0123456789abcdef0"));
        for name in ["mi-web", "i-", "web", "mi-0123"] {
            assert!(!is_id(name), "{name}");
        }
    }
}
