//! Which managed nodes a command is for: `tag:KEY`, `tag-key` and `InstanceIds` targets.

use std::collections::{BTreeMap, BTreeSet};

use moorline_protocol::types::InstanceId;

/// One entry of `Targets`; a node must meet every entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Criterion {
    /// One of these nodes.
    Nodes(BTreeSet<InstanceId>),
    /// The tag has one of these values.
    Tag { key: String, values: BTreeSet<String> },
    /// Has one of these tags, with any value.
    TagKey(BTreeSet<String>),
    /// Is in one of these groups, by name: meets all that is asked of its nodes.
    Groups(Vec<(String, Vec<Criterion>)>),
}

/// A target that cannot be resolved.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TargetError {
    #[error("target key {0:?} is not supported: use tag:KEY, tag-key or InstanceIds")]
    UnknownKey(String),
    #[error("target {0:?} has no values")]
    NoValues(String),
    #[error("{0}")]
    Node(#[source] moorline_protocol::types::InvalidId),
}

impl Criterion {
    pub(crate) fn parse(key: &str, values: &[String]) -> Result<Self, TargetError> {
        if values.is_empty() {
            return Err(TargetError::NoValues(key.to_owned()));
        }
        let texts = || values.iter().cloned().collect();
        if let Some(tag) = key.strip_prefix("tag:").filter(|tag| !tag.is_empty()) {
            return Ok(Self::Tag {
                key: tag.to_owned(),
                values: texts(),
            });
        }
        match key {
            "tag-key" => Ok(Self::TagKey(texts())),
            "InstanceIds" => {
                let nodes: Result<_, _> = values.iter().map(|value| value.parse()).collect();
                Ok(Self::Nodes(nodes.map_err(TargetError::Node)?))
            }
            _ => Err(TargetError::UnknownKey(key.to_owned())),
        }
    }

    fn is_met_by(&self, node: &InstanceId, tags: &BTreeMap<String, String>) -> bool {
        match self {
            Self::Nodes(nodes) => nodes.contains(node),
            Self::Tag { key, values } => tags.get(key).is_some_and(|value| values.contains(value)),
            Self::TagKey(keys) => keys.iter().any(|key| tags.contains_key(key)),
            Self::Groups(groups) => groups.iter().any(|(_, criteria)| is_target(criteria, node, tags)),
        }
    }
}

/// Whether the node, which has these tags, meets every criterion.
pub(crate) fn is_target(criteria: &[Criterion], node: &InstanceId, tags: &BTreeMap<String, String>) -> bool {
    criteria.iter().all(|criterion| criterion.is_met_by(node, tags))
}

/// The first criterion that the node does not meet with these tags, in words.
pub(crate) fn unmet(
    criteria: &[Criterion],
    node: &InstanceId,
    tags: &BTreeMap<String, String>,
) -> Option<String> {
    let first = criteria
        .iter()
        .find(|criterion| !criterion.is_met_by(node, tags))?;
    let list = |texts: &BTreeSet<String>| texts.iter().cloned().collect::<Vec<_>>().join(" or ");
    Some(match first {
        Criterion::Nodes(_) => "it is none of the nodes that the command names".to_owned(),
        Criterion::Tag { key, values } => match tags.get(key) {
            Some(value) => format!(
                "its tag {key} is {value}, and the command is for {}",
                list(values)
            ),
            None => format!("it has no tag {key}, and the command is for {}", list(values)),
        },
        Criterion::TagKey(keys) => format!("it has no tag {}", list(keys)),
        Criterion::Groups(groups) => {
            let names: Vec<&str> = groups.iter().map(|(name, _)| name.as_str()).collect();
            format!("it is not in the group {}", names.join(" or "))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(last: char) -> InstanceId {
        format!("mi-0000000000000000{last}").parse().unwrap()
    }

    fn criterion(key: &str, values: &[&str]) -> Criterion {
        let values: Vec<String> = values.iter().map(|&value| value.to_owned()).collect();
        Criterion::parse(key, &values).unwrap()
    }

    fn tags() -> BTreeMap<InstanceId, BTreeMap<String, String>> {
        let of = |pairs: &[(&str, &str)]| {
            pairs
                .iter()
                .map(|&(key, value)| (key.to_owned(), value.to_owned()))
                .collect()
        };
        BTreeMap::from([
            (node('1'), of(&[("Env", "prod"), ("Role", "web")])),
            (node('2'), of(&[("Env", "prod"), ("Role", "db")])),
            (node('3'), of(&[("Env", "test")])),
        ])
    }

    #[test]
    fn values_of_one_target_are_alternatives_and_targets_are_all_required() {
        let table = [
            (vec![criterion("tag:Env", &["prod"])], vec!['1', '2']),
            (vec![criterion("tag:Env", &["prod", "test"])], vec!['1', '2', '3']),
            (
                vec![
                    criterion("tag:Env", &["prod"]),
                    criterion("tag:Role", &["db", "x"]),
                ],
                vec!['2'],
            ),
            (vec![criterion("tag-key", &["Role", "Owner"])], vec!['1', '2']),
            (vec![criterion("tag:env", &["prod"])], vec![]),
            (
                vec![criterion(
                    "InstanceIds",
                    &[node('9').as_str(), node('1').as_str()],
                )],
                vec!['1'],
            ),
            (
                vec![
                    criterion("InstanceIds", &[node('3').as_str()]),
                    criterion("tag:Env", &["prod"]),
                ],
                vec![],
            ),
        ];
        for (criteria, expected) in table {
            let expected: BTreeSet<_> = expected.into_iter().map(node).collect();
            let nodes = tags();
            let met = nodes
                .iter()
                .filter(|(node, tags)| is_target(&criteria, node, tags));
            let met: BTreeSet<_> = met.map(|(node, _)| node.clone()).collect();
            assert_eq!(met, expected, "{criteria:?}");
        }
    }

    #[test]
    fn a_target_that_cannot_be_resolved_is_refused() {
        assert_eq!(
            Criterion::parse("resource-groups:Name", &["x".to_owned()]),
            Err(TargetError::UnknownKey("resource-groups:Name".to_owned()))
        );
        assert_eq!(
            Criterion::parse("tag:Env", &[]),
            Err(TargetError::NoValues("tag:Env".to_owned()))
        );
        assert!(Criterion::parse("tag:", &["x".to_owned()]).is_err());
        assert!(Criterion::parse("InstanceIds", &["web-1".to_owned()]).is_err());
    }

    #[test]
    fn a_node_that_is_no_target_is_told_by_what_it_lacks() {
        let tags = tags();
        let why = |criteria: &[Criterion], which: char| unmet(criteria, &node(which), &tags[&node(which)]);
        let prod_db = [
            criterion("tag:Env", &["prod"]),
            criterion("tag:Role", &["db", "x"]),
        ];
        assert_eq!(why(&prod_db, '2'), None);
        assert_eq!(
            why(&prod_db, '1').as_deref(),
            Some("its tag Role is web, and the command is for db or x")
        );
        let by_role = [criterion("tag:Role", &["db"])];
        assert_eq!(
            why(&by_role, '3').as_deref(),
            Some("it has no tag Role, and the command is for db")
        );
        assert_eq!(
            why(&[criterion("tag-key", &["Role"])], '3').as_deref(),
            Some("it has no tag Role")
        );
        let named = [criterion("InstanceIds", &[node('1').as_str()])];
        assert_eq!(
            why(&named, '3').as_deref(),
            Some("it is none of the nodes that the command names")
        );
    }
}
