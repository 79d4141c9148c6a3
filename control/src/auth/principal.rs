//! Principals: who a request comes from, proven.

use moorline_protocol::types::InstanceId;

/// Made only by signature verification (or by its absence).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Principal {
    /// An operator with an access key; today every operator is an administrator.
    Administrator {
        access_key_id: String,
        user_name: String,
    },
    /// No signature: may only register a node, with an activation.
    Anonymous,
    /// A node with role credentials.
    Node(InstanceId),
    /// A node that proved its registration key only.
    NodeKey(InstanceId),
}

impl Principal {
    /// For other people: the user's name, or else the whole name.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Administrator { user_name, .. } => user_name.clone(),
            other => other.arn(),
        }
    }

    /// As shown in logs, owners and refusals: `arn:moorline:iam:::user/admin`, `arn:moorline:ssm:::managed-instance/mi-…`.
    pub(crate) fn arn(&self) -> String {
        match self {
            Self::Administrator { user_name, .. } => format!("arn:moorline:iam:::user/{user_name}"),
            Self::Anonymous => "anonymous".to_owned(),
            Self::Node(id) | Self::NodeKey(id) => format!("arn:moorline:ssm:::managed-instance/{id}"),
        }
    }
}
