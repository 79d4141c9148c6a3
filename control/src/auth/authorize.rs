//! The one function that every operation passes. Deny by default.

use moorline_protocol::types::InstanceId;

use super::Principal;
use crate::log_lines::shown;

/// What an operation acts on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Resource {
    /// Nothing in particular, or many things: lists, creations.
    Any,
    Activation(String),
    /// The endpoint's audit log: for administrators only.
    AuditLog,
    Command(String),
    Document(String),
    /// A key of our KMS.
    Key(String),
    Node(String),
    Operator(String),
    /// By name, or the names of several.
    Parameter(String),
    Session(String),
    /// A data key that is bound to a session on this node.
    SessionKey {
        node: String,
    },
}

/// Ids and names come from the request, before it is validated.
impl std::fmt::Display for Resource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Any => f.write_str("resource: *"),
            Self::AuditLog => f.write_str("resource: audit log"),
            Self::Activation(id) => write!(f, "activation: {}", shown(id)),
            Self::Command(id) => write!(f, "command: {}", shown(id)),
            Self::Document(name) => write!(f, "document: {}", shown(name)),
            Self::Key(id) => write!(f, "key: {}", shown(id)),
            Self::Node(id) => write!(f, "managed node: {}", shown(id)),
            Self::Operator(name) => write!(f, "operator: {}", shown(name)),
            Self::Parameter(name) => write!(f, "parameter: {}", shown(name)),
            Self::Session(id) => write!(f, "session: {}", shown(id)),
            Self::SessionKey { node } => write!(f, "data key of a session on managed node: {}", shown(node)),
        }
    }
}

/// The refusal; its text names who, what and on what.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{principal} is not authorized to perform: {action} on {resource}")]
pub(crate) struct Denied {
    pub(crate) principal: String,
    pub(crate) action: String,
    pub(crate) resource: Resource,
}

/// May `principal` perform `action` (`ssm:SendCommand`, `ssmmessages:OpenDataChannel`, …) on `resource`?
pub(crate) fn authorize(principal: &Principal, action: &str, resource: &Resource) -> Result<(), Denied> {
    let allowed = match principal {
        Principal::Administrator { .. } => {
            !belongs_to_node_key(action)
                && !belongs_to_node(action)
                && !matches!(resource, Resource::SessionKey { .. })
        }
        Principal::Anonymous => action == "ssm:RegisterManagedInstance",
        Principal::Node(id) => node_may(id, action, resource),
        Principal::NodeKey(_) => belongs_to_node_key(action),
    };
    if allowed {
        return Ok(());
    }
    Err(Denied {
        principal: principal.arn(),
        action: action.to_owned(),
        resource: resource.clone(),
    })
}

/// What a node does with its registration key, and nobody else can do in its name.
fn belongs_to_node_key(action: &str) -> bool {
    matches!(
        action,
        "ssm:RequestManagedInstanceRoleToken" | "ssm:UpdateManagedInstancePublicKey"
    )
}

/// What a node says of itself, and nobody else can say in its name.
fn belongs_to_node(action: &str) -> bool {
    action == "moorline:RegisterTranscriptKey"
}

/// Role credentials: a node acts on itself, reads documents, and serves the sessions that were started on it.
fn node_may(id: &InstanceId, action: &str, resource: &Resource) -> bool {
    match (action, resource) {
        (
            "ec2messages:GetMessages"
            | "ssm:ListInstanceAssociations"
            | "ssm:PutComplianceItems"
            | "ssm:PutInventory"
            | "ssm:UpdateInstanceAssociationStatus"
            | "ssm:UpdateInstanceInformation"
            | "ssmmessages:CreateControlChannel"
            | "ssmmessages:OpenControlChannel"
            // The caller looks up whose session it is and asks about that node.
            | "ssmmessages:CreateDataChannel"
            | "ssmmessages:OpenDataChannel"
            | "moorline:ListOpenTranscripts"
            | "moorline:PutTranscript"
            | "moorline:RegisterTranscriptKey",
            Resource::Node(node),
        ) => node == id.as_str(),
        // It asks as well whether the session is the caller's.
        ("kms:Decrypt", Resource::SessionKey { node }) => node == id.as_str(),
        // It asks for a package of AWS, of which there is none.
        ("ssm:GetManifest", Resource::Any)
        // They ask as well whether a command that is open on the node names the parameter.
        | ("ssm:GetParameter" | "ssm:GetParameters", Resource::Parameter(_))
        // These name a message, whose id carries no right: nothing is kept or changed by them.
        | ("ec2messages:AcknowledgeMessage" | "ec2messages:FailMessage" | "ec2messages:SendReply", Resource::Any)
        | ("ssm:DescribeDocument" | "ssm:GetDocument", Resource::Document(_)) => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SELF: &str = "mi-0123456789abcdef0";
    const OTHER: &str = "mi-0123456789abcdef1";

    fn node() -> Principal {
        Principal::Node(SELF.parse().unwrap())
    }

    #[test]
    fn a_node_acts_on_itself_only() {
        for action in [
            "ssm:UpdateInstanceInformation",
            "ssm:PutInventory",
            "ssmmessages:CreateControlChannel",
        ] {
            assert_eq!(
                authorize(&node(), action, &Resource::Node(SELF.to_owned())),
                Ok(())
            );
            assert!(authorize(&node(), action, &Resource::Node(OTHER.to_owned())).is_err());
            assert!(authorize(&node(), action, &Resource::Any).is_err());
        }
    }

    #[test]
    fn a_node_does_nothing_that_an_operator_does() {
        for action in [
            "ssm:SendCommand",
            "ssm:StartSession",
            "ssm:CreateActivation",
            "ssm:DescribeInstanceInformation",
        ] {
            for resource in [Resource::Any, Resource::Node(SELF.to_owned())] {
                assert!(authorize(&node(), action, &resource).is_err(), "{action}");
            }
        }
    }

    #[test]
    fn a_sessions_data_key_is_opened_by_its_node_and_by_no_administrator() {
        let administrator = Principal::Administrator {
            access_key_id: "AKIA".to_owned(),
            user_name: "admin".to_owned(),
        };
        let bound = |node: &str| Resource::SessionKey {
            node: node.to_owned(),
        };
        let key = Resource::Key("alias/moorline".to_owned());
        assert_eq!(authorize(&node(), "kms:Decrypt", &bound(SELF)), Ok(()));
        for (principal, action, resource) in [
            (&administrator, "kms:Decrypt", &bound(SELF)),
            (&node(), "kms:Decrypt", &bound(OTHER)),
            (&node(), "kms:Decrypt", &key),
            (&node(), "kms:GenerateDataKey", &key),
            (
                &Principal::NodeKey(SELF.parse().unwrap()),
                "kms:Decrypt",
                &bound(SELF),
            ),
        ] {
            assert!(
                authorize(principal, action, resource).is_err(),
                "{principal:?} {action}"
            );
        }
        for action in ["kms:Decrypt", "kms:GenerateDataKey"] {
            assert_eq!(authorize(&administrator, action, &key), Ok(()));
        }
    }

    #[test]
    fn nobody_takes_a_nodes_credentials_without_its_key() {
        let administrator = Principal::Administrator {
            access_key_id: "AKIA".to_owned(),
            user_name: "admin".to_owned(),
        };
        let action = "ssm:RequestManagedInstanceRoleToken";
        for principal in [administrator, node(), Principal::Anonymous] {
            assert!(authorize(&principal, action, &Resource::Any).is_err());
        }
        let key = Principal::NodeKey(SELF.parse().unwrap());
        assert_eq!(authorize(&key, action, &Resource::Any), Ok(()));
        assert!(
            authorize(
                &key,
                "ssm:UpdateInstanceInformation",
                &Resource::Node(SELF.to_owned())
            )
            .is_err()
        );
    }

    #[test]
    fn what_a_request_names_is_cut_and_escaped_in_the_refusal() {
        let named = format!("x\nWARN {}", "y".repeat(4096));
        let refused = authorize(&node(), "ssm:SendCommand", &Resource::Document(named)).unwrap_err();
        let text = refused.to_string();
        assert!(text.contains("document: x\\nWARN yyy"), "{text}");
        assert!(!text.contains('\n') && text.len() < 400, "{text}");
    }

    #[test]
    fn an_unsigned_request_may_only_register() {
        assert_eq!(
            authorize(
                &Principal::Anonymous,
                "ssm:RegisterManagedInstance",
                &Resource::Any
            ),
            Ok(())
        );
        let refused = authorize(&Principal::Anonymous, "ssm:ListCommands", &Resource::Any).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "anonymous is not authorized to perform: ssm:ListCommands on resource: *"
        );
    }
}
