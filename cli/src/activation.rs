//! `moorline activation`: what a node registers with.

use std::time::SystemTime;

use moorline_ssm::{
    EpochSeconds,
    activation::{
        Activation, CreateActivation, CreateActivationRequest, DeleteActivation, DeleteActivationRequest,
        DescribeActivations, DescribeActivationsRequest, Tag,
    },
};
use serde::Serialize;

use crate::{
    arguments::{ActivationCommand, ActivationOptions},
    console::{self, one_line},
    error::CliError,
    operator::Operator,
};

const PAGE: i32 = 50;
/// The model demands a role; here it says who made the activation's nodes, not what they may do.
const IAM_ROLE: &str = "MoorlineManagedNode";

/// What scripts read.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Created {
    activation_id: String,
    activation_code: String,
}

pub(crate) async fn execute(
    operator: &Operator,
    command: ActivationCommand,
    json: bool,
) -> Result<u8, CliError> {
    match command {
        ActivationCommand::Create(options) => create(operator, options, json).await?,
        ActivationCommand::List => list(operator, json).await?,
        ActivationCommand::Delete { activation_id } => {
            let request = DeleteActivationRequest {
                activation_id: Some(activation_id.clone()),
            };
            operator.call::<DeleteActivation>(&request).await?;
            if json {
                console::print_json(&serde_json::json!({ "ActivationId": activation_id }))?;
            }
        }
    }
    Ok(0)
}

async fn create(operator: &Operator, options: ActivationOptions, json: bool) -> Result<(), CliError> {
    let expires = SystemTime::now() + options.expires;
    let since_epoch = expires.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let tags: Vec<Tag> = options.tags.into_iter().map(tag).collect();
    let request = CreateActivationRequest {
        description: options.description,
        default_instance_name: options.name,
        iam_role: Some(IAM_ROLE.to_owned()),
        registration_limit: Some(options.limit),
        // whole seconds: what AWS keeps
        expiration_date: Some(EpochSeconds::from_millis(since_epoch.as_secs() * 1000)),
        tags: (!tags.is_empty()).then_some(tags),
        registration_metadata: None,
    };
    let result = operator.call::<CreateActivation>(&request).await?;
    let missing = |member| CliError::Incomplete {
        operation: "CreateActivation",
        member,
    };
    let created = Created {
        activation_id: result.activation_id.ok_or_else(|| missing("ActivationId"))?,
        activation_code: result.activation_code.ok_or_else(|| missing("ActivationCode"))?,
    };
    if json {
        console::print_json(&created)
    } else {
        console::print(&instructions(
            &created,
            &operator.endpoint_url(),
            ca_file().as_deref(),
        ))
    }
}

/// The file that this program trusts, which a node must trust as well.
fn ca_file() -> Option<String> {
    std::env::var("AWS_CA_BUNDLE")
        .or_else(|_| std::env::var("SSL_CERT_FILE"))
        .ok()
        .filter(|path| !path.is_empty())
}

/// What to type on the node. The code goes through standard input: in an argument it would be in the node's list of
/// processes and in the shell's history.
fn instructions(created: &Created, endpoint: &str, ca_file: Option<&str>) -> String {
    let copy = ca_file.map_or_else(String::new, |path| {
        format!("# ca.pem is the endpoint's {path}, copied to the node\n")
    });
    format!(
        "Activation id:   {id}\nActivation code: {code}   (shown this once)\n\n\
         On the node, then enter the code and end the line:\n\n{copy}\
         moorline-agent register --state-dir /var/lib/moorline --endpoint {endpoint} \\\n    \
         --ca ca.pem --activation-id {id} --activation-code-file -\n",
        id = created.activation_id,
        code = created.activation_code,
    )
}

fn tag((key, value): (String, String)) -> Tag {
    Tag {
        key: Some(key),
        value: Some(value),
    }
}

async fn list(operator: &Operator, json: bool) -> Result<(), CliError> {
    let mut activations: Vec<Activation> = Vec::new();
    let mut next_token = None;
    loop {
        let request = DescribeActivationsRequest {
            max_results: Some(PAGE),
            next_token,
            ..Default::default()
        };
        let page = operator.call::<DescribeActivations>(&request).await?;
        activations.extend(page.activation_list.unwrap_or_default());
        next_token = page.next_token.filter(|token| !token.is_empty());
        if next_token.is_none() {
            break;
        }
    }
    if json {
        return console::print_json(&activations.iter().map(Listed::from).collect::<Vec<_>>());
    }
    let mut table = console::table(&["ID", "NAME", "USED", "EXPIRES", "TAGS"]);
    for activation in &activations {
        let row = Listed::from(activation);
        let expires = if row.expired {
            "expired".to_owned()
        } else {
            row.expiration_date.unwrap_or_default()
        };
        let tags: Vec<String> = row.tags.iter().map(|(k, v)| format!("{k}={v}")).collect();
        table.add_row([
            row.activation_id,
            one_line(&row.default_instance_name.unwrap_or_default()),
            format!("{} of {}", row.registrations_count, row.registration_limit),
            expires,
            one_line(&tags.join(" ")),
        ]);
    }
    console::print_table(&table)
}

/// An activation as scripts read it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Listed {
    activation_id: String,
    default_instance_name: Option<String>,
    description: Option<String>,
    registration_limit: i32,
    registrations_count: i32,
    expiration_date: Option<String>,
    expired: bool,
    created_date: Option<String>,
    tags: std::collections::BTreeMap<String, String>,
}

impl From<&Activation> for Listed {
    fn from(activation: &Activation) -> Self {
        Self {
            activation_id: activation.activation_id.clone().unwrap_or_default(),
            default_instance_name: activation.default_instance_name.clone(),
            description: activation.description.clone(),
            registration_limit: activation.registration_limit.unwrap_or(1),
            registrations_count: activation.registrations_count.unwrap_or(0),
            expiration_date: activation.expiration_date.and_then(console::timestamp),
            expired: activation.expired.unwrap_or(false),
            created_date: activation.created_date.and_then(console::timestamp),
            tags: crate::tag::map(activation.tags.as_deref().unwrap_or_default()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn created() -> Created {
        Created {
            activation_id: "8f4e6a2e-0000-4000-8000-000000000000".to_owned(),
            activation_code: "SECRETSECRETSECRET12".to_owned(),
        }
    }

    #[test]
    fn scripts_read_id_and_code() {
        assert_eq!(
            serde_json::to_string(&created()).unwrap(),
            r#"{"ActivationId":"8f4e6a2e-0000-4000-8000-000000000000","ActivationCode":"SECRETSECRETSECRET12"}"#
        );
    }

    #[test]
    fn the_code_is_never_part_of_the_command_to_type() {
        let text = instructions(&created(), "https://h:8443", Some("/x/ca.pem"));
        let command = text.split_once("moorline-agent register").unwrap().1;
        assert!(!command.contains("SECRET"), "{command}");
        assert!(command.contains("--activation-code-file -"));
        assert!(command.contains("--endpoint https://h:8443"));
    }
}
