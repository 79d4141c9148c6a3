//! Actions that this agent knows and does not perform from a command: each says why, and what to do instead.

use std::path::Path;

use moorline_protocol::document::{Ending, member};
use serde_json::{Map, Value};

use super::Outputs;

/// Where distributions have realmd's program.
const REALM_PROGRAMS: [&str; 2] = ["/usr/sbin/realm", "/usr/bin/realm"];

/// Answers for an action that has a handler and no work to do.
pub(super) fn run(action: &str, inputs: &Map<String, Value>, outputs: &mut Outputs) -> Ending {
    match action {
        // Inventory is collected for an association, which says how often.
        "aws:softwareInventory" => {
            outputs.fail("aws:softwareInventory plugin can only be invoked via ssm-associate")
        }
        "aws:refreshAssociation" => {
            outputs.say("no association is known on this node, so none has been requested to execute");
            Ending::Done
        }
        // A document must never put another program in the agent's place.
        "aws:updateSsmAgent" => {
            let version = member(inputs, "targetVersion").and_then(Value::as_str);
            let version = version.filter(|text| !text.is_empty()).unwrap_or("latest");
            outputs.say(format!(
                "moorline-agent {} is updated by the node's package manager; the update to {version} was skipped",
                env!("CARGO_PKG_VERSION")
            ));
            Ending::Done
        }
        "aws:domainJoin" => outputs.fail(domain_join_refusal(inputs)),
        other => outputs.fail(format!("{other} has no handler on this node")),
    }
}

fn domain_join_refusal(inputs: &Map<String, Value>) -> String {
    for required in ["directoryId", "directoryName"] {
        let given = member(inputs, required).and_then(Value::as_str);
        if given.is_none_or(str::is_empty) {
            return format!("Domain join failed.\n{required} must be specified");
        }
    }
    let realm = REALM_PROGRAMS
        .into_iter()
        .find(|program| Path::new(program).exists());
    match realm {
        None => "Domain join failed.\nrealmd is not installed on this node: install it, and join with `realm join`"
            .to_owned(),
        Some(realm) => format!(
            "Domain join failed.\nthis agent has no access to the directory's join account, which AWS keeps in \
             Secrets Manager: join with `{realm} join` in a script"
        ),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{
        command::{output::Allowance, recording::CommandRecording},
        config::OutputLimits,
    };

    fn go(action: &str, inputs: &Value) -> (Ending, String, String) {
        let mut outputs = Outputs::new(
            &[],
            &Allowance::new(OutputLimits::default()),
            &CommandRecording::default(),
        );
        let ending = run(action, inputs.as_object().unwrap(), &mut outputs);
        let (stdout, stderr) = outputs.end();
        (ending, stdout, stderr)
    }

    #[test]
    fn an_update_is_left_to_the_package_manager_and_is_no_failure() {
        let (ending, stdout, _) = go("aws:updateSsmAgent", &json!({"agentName": "amazon-ssm-agent"}));
        assert_eq!(ending, Ending::Done);
        assert!(stdout.contains("package manager"), "{stdout}");
    }

    #[test]
    fn what_cannot_be_done_says_what_to_do() {
        let (ending, _, stderr) = go("aws:softwareInventory", &json!({}));
        assert_eq!(ending, Ending::Failed);
        assert!(stderr.contains("only be invoked via ssm-associate"));
        let (ending, _, stderr) = go("aws:domainJoin", &json!({"directoryId": "d-1"}));
        assert_eq!(ending, Ending::Failed);
        assert!(stderr.contains("directoryName must be specified"), "{stderr}");
        let inputs = json!({"directoryId": "d-1", "directoryName": "corp.example"});
        let (_, _, stderr) = go("aws:domainJoin", &inputs);
        assert!(stderr.contains("realm"), "{stderr}");
    }
}
