//! Finding nodes page by page: filters and order are the database's work, so that a page of a large fleet costs no
//! more than a page of a small one.

use std::str::FromStr;

use sqlx::{QueryBuilder, Row as _, Sqlite, SqliteConnection, sqlite::SqliteRow};

use super::{super::tag::Tags, NodeRow, node};
use crate::store::{Store, StoreError, column, column_millis, failed_to};

/// What a node must have. Values are alternatives; without any, no node has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NodeFilter {
    Column(NodeColumn, Vec<String>),
    /// Nothing has it.
    Never,
    /// The tag has one of these values.
    Tag {
        key: String,
        values: Vec<String>,
    },
    /// One of these tags, with any value.
    TagKey(Vec<String>),
}

/// What of a node can be filtered by its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NodeColumn {
    ActivationId,
    AgentVersion,
    IamRole,
    InstanceId,
    PlatformType,
}

impl NodeColumn {
    fn condition(self) -> &'static str {
        match self {
            Self::ActivationId => " AND activation_id IN (",
            Self::AgentVersion => " AND agent_version IN (",
            Self::IamRole => " AND iam_role IN (",
            Self::InstanceId => " AND instance_id IN (",
            Self::PlatformType => " AND platform_type IN (",
        }
    }
}

/// A node's place in the order of registration. Its text form is for page tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NodePosition {
    registered_at: u64,
    instance_id: String,
}

impl NodePosition {
    pub(crate) fn of(node: &NodeRow) -> Self {
        Self {
            registered_at: node.registered_at,
            instance_id: node.instance_id.to_string(),
        }
    }
}

impl std::fmt::Display for NodePosition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.registered_at, self.instance_id)
    }
}

impl FromStr for NodePosition {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (registered_at, instance_id) = text.split_once(' ').ok_or(())?;
        Ok(Self {
            registered_at: registered_at.parse().map_err(|_| ())?,
            instance_id: instance_id.to_owned(),
        })
    }
}

impl Store {
    /// The nodes that pass every filter, in the order of registration: at most `limit`, behind `after`.
    pub(crate) async fn find_nodes(
        &self,
        filters: &[NodeFilter],
        after: Option<&NodePosition>,
        limit: usize,
    ) -> Result<Vec<NodeRow>, StoreError> {
        let mut query = QueryBuilder::<Sqlite>::new("SELECT * FROM node WHERE 1 = 1");
        for filter in filters {
            push(&mut query, filter);
        }
        if let Some(after) = after {
            query.push(" AND (registered_at, instance_id) > (");
            query.push_bind(column_millis(after.registered_at)).push(", ");
            query.push_bind(after.instance_id.clone()).push(")");
        }
        query.push(" ORDER BY registered_at, instance_id LIMIT ");
        query.push_bind(i64::try_from(limit).unwrap_or(i64::MAX));
        let mut connection = self.readers.acquire().await.map_err(failed_to("find nodes"))?;
        let rows = query
            .build()
            .fetch_all(&mut *connection)
            .await
            .map_err(failed_to("find nodes"))?;
        let mut tags = tags_of(&mut connection, &rows).await?;
        rows.iter()
            .map(|row| {
                let id: String = column(row, "instance_id")?;
                node(row, tags.remove(&id).unwrap_or_default())
            })
            .collect()
    }
}

fn push(query: &mut QueryBuilder<Sqlite>, filter: &NodeFilter) {
    const TAGGED: &str =
        " AND instance_id IN (SELECT resource_id FROM tag WHERE resource_type = 'ManagedInstance' AND ";
    match filter {
        NodeFilter::Column(column, values) => {
            query.push(column.condition());
            push_list(query, values);
        }
        NodeFilter::Never => {
            query.push(" AND 1 = 0");
        }
        NodeFilter::Tag { key, values } => {
            query
                .push(TAGGED)
                .push("key = ")
                .push_bind(key.clone())
                .push(" AND value IN (");
            push_list(query, values);
            query.push(")");
        }
        NodeFilter::TagKey(keys) => {
            query.push(TAGGED).push("key IN (");
            push_list(query, keys);
            query.push(")");
        }
    }
}

/// `$1, $2, …)`. An empty list is PostgreSQL's syntax error, so it becomes a NULL, which is equal to nothing.
fn push_list(query: &mut QueryBuilder<Sqlite>, values: &[String]) {
    if values.is_empty() {
        query.push("NULL");
    }
    let mut list = query.separated(", ");
    for value in values {
        list.push_bind(value.clone());
    }
    query.push(")");
}

async fn tags_of(
    connection: &mut SqliteConnection,
    nodes: &[SqliteRow],
) -> Result<std::collections::BTreeMap<String, Tags>, StoreError> {
    let ids: Result<Vec<String>, StoreError> = nodes.iter().map(|row| column(row, "instance_id")).collect();
    let mut query = QueryBuilder::<Sqlite>::new(
        "SELECT resource_id, key, value FROM tag WHERE resource_type = 'ManagedInstance' AND resource_id IN (",
    );
    push_list(&mut query, &ids?);
    let rows = query
        .build()
        .fetch_all(connection)
        .await
        .map_err(failed_to("read tags"))?;
    let mut tags = std::collections::BTreeMap::<String, Tags>::new();
    for row in &rows {
        let text = |index: usize| row.try_get::<String, _>(index).map_err(failed_to("read a tag"));
        tags.entry(text(0)?).or_default().insert(text(1)?, text(2)?);
    }
    Ok(tags)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_support::{TestApp, node_id};

    #[tokio::test]
    async fn pages_follow_each_other_and_every_filter_must_be_passed() {
        let test = TestApp::new().await;
        for index in 0..6 {
            let env = if index % 2 == 0 { "even" } else { "odd" };
            test.register_node(index, &[("env", env), ("all", "1")]).await;
        }
        let store = &test.app.store;
        let odd = NodeFilter::Tag {
            key: "env".to_owned(),
            values: vec!["odd".to_owned()],
        };
        let ids = [0, 1, 3].map(|index| node_id(index).to_string()).to_vec();
        let some = NodeFilter::Column(NodeColumn::InstanceId, ids);
        let found = store.find_nodes(&[odd.clone(), some], None, 9).await.unwrap();
        assert_eq!(
            found.iter().map(|node| node.tags.len()).collect::<Vec<_>>(),
            [2, 2]
        );
        let first = store
            .find_nodes(std::slice::from_ref(&odd), None, 2)
            .await
            .unwrap();
        let after: NodePosition = NodePosition::of(&first[1]).to_string().parse().unwrap();
        let second = store.find_nodes(&[odd], Some(&after), 2).await.unwrap();
        assert_eq!(
            second
                .iter()
                .map(|node| node.instance_id.clone())
                .collect::<Vec<_>>(),
            [node_id(5)]
        );
    }

    #[tokio::test]
    async fn a_filter_without_values_passes_nobody() {
        let test = TestApp::new().await;
        test.register_node(0, &[("env", "x")]).await;
        for filter in [
            NodeFilter::Never,
            NodeFilter::Column(NodeColumn::IamRole, Vec::new()),
            NodeFilter::Tag {
                key: "env".to_owned(),
                values: Vec::new(),
            },
            NodeFilter::TagKey(Vec::new()),
        ] {
            assert_eq!(test.app.store.find_nodes(&[filter], None, 9).await.unwrap(), []);
        }
    }

    #[test]
    fn a_position_that_was_not_written_by_us_is_refused() {
        for text in ["", "1", "x mi-1", " "] {
            assert_eq!(text.parse::<NodePosition>(), Err(()));
        }
    }
}
