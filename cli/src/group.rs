//! `moorline group`: named groups of nodes, which a command's targets name as `resource-groups:Name`.

use moorline_ssm::{
    command::Target,
    node_group::{
        DeleteNodeGroup, DeleteNodeGroupRequest, ListNodeGroups, ListNodeGroupsRequest, NodeGroup,
        PutNodeGroup, PutNodeGroupRequest,
    },
};

use crate::{
    console::{self, one_line},
    error::CliError,
    operator::Operator,
    run,
};

#[derive(Debug, clap::Subcommand)]
pub(crate) enum GroupCommand {
    /// Make a group, or change what it is
    Put {
        /// Letters, digits, and . _ -
        name: String,
        /// What its nodes have: tag:K=V,V or tag-key=K,K; of several, all
        #[arg(long = "targets", value_name = "TARGET", required = true, value_parser = run::parse_target)]
        targets: Vec<Target>,
    },
    /// List the groups
    List,
    /// Delete a group: its nodes stay
    Delete {
        /// As `moorline group list` shows it
        name: String,
    },
}

pub(crate) async fn execute(operator: &Operator, command: GroupCommand, json: bool) -> Result<u8, CliError> {
    match command {
        GroupCommand::Put { name, targets } => {
            let request = PutNodeGroupRequest {
                name: Some(name),
                targets: Some(targets),
            };
            operator.call::<PutNodeGroup>(&request).await?;
        }
        GroupCommand::List => list(operator, json).await?,
        GroupCommand::Delete { name } => {
            let request = DeleteNodeGroupRequest { name: Some(name) };
            operator.call::<DeleteNodeGroup>(&request).await?;
        }
    }
    Ok(0)
}

async fn list(operator: &Operator, json: bool) -> Result<(), CliError> {
    let mut groups: Vec<NodeGroup> = Vec::new();
    let mut request = ListNodeGroupsRequest::default();
    loop {
        let page = operator.call::<ListNodeGroups>(&request).await?;
        groups.extend(page.groups.unwrap_or_default());
        request.next_token = page.next_token.filter(|token| !token.is_empty());
        if request.next_token.is_none() {
            break;
        }
    }
    if json {
        return console::print_json(&groups);
    }
    if groups.is_empty() {
        console::note("no group; `moorline group put NAME --targets tag:K=V` makes one");
        return Ok(());
    }
    let mut table = console::table(&["GROUP", "TARGETS"]);
    for group in &groups {
        let targets: Vec<String> = group.targets.iter().flatten().map(run::shown_target).collect();
        table.add_row([
            one_line(group.name.as_deref().unwrap_or("-")),
            one_line(&targets.join(" and ")),
        ]);
    }
    console::print_table(&table)
}
