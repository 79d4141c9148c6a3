//! `aws:configureDocker` and `aws:runDockerAction` (documents.md §2.8, §2.9), through the docker program.

use std::{sync::LazyLock, time::Duration};

use moorline_protocol::document::{Ending, member};
use regex::Regex;
use serde_json::{Map, Value};
use tokio::process::Command;

use super::{
    Outputs, StepContext, process,
    script::{set_environment, timeout},
};

/// How long the package manager may take.
const INSTALL_TIMEOUT: Duration = Duration::from_secs(600);

/// `aws:configureDocker`: Amazon Linux and RHEL, as on the stock agent.
pub(super) async fn configure(
    inputs: &Map<String, Value>,
    context: &mut StepContext<'_>,
    outputs: &mut Outputs,
) -> Ending {
    let packages = match context.task.platform.name.as_str() {
        name if name.starts_with("Amazon Linux") => "docker",
        name if name.starts_with("Red Hat") => "docker-ce",
        name if name.contains("Ubuntu") => return outputs.fail("Ubuntu platform is not currently supported"),
        name => {
            let reason = format!("Unsupported Linux variant: {name}");
            return outputs.fail(reason);
        }
    };
    let verb = match text(inputs, "action") {
        "Install" => "install",
        "Uninstall" => "remove",
        other => {
            let reason = format!("Docker Action is set to unsupported value: {other}");
            return outputs.fail(reason);
        }
    };
    let mut command = Command::new("yum");
    command.args([verb, "-y", packages]);
    set_environment(&mut command, &[], &[], context);
    process::run(command, INSTALL_TIMEOUT, context, outputs).await
}

/// `aws:runDockerAction`.
pub(super) async fn run_action(
    inputs: &Map<String, Value>,
    context: &mut StepContext<'_>,
    outputs: &mut Outputs,
) -> Ending {
    let arguments = match arguments(inputs) {
        Ok(arguments) => arguments,
        Err(reason) => return outputs.fail(reason),
    };
    let mut command = Command::new("docker");
    command.args(arguments);
    set_environment(&mut command, &[], &[], context);
    process::run(
        command,
        timeout(member(inputs, "timeoutSeconds")),
        context,
        outputs,
    )
    .await
}

fn text<'a>(inputs: &'a Map<String, Value>, name: &str) -> &'a str {
    member(inputs, name).and_then(Value::as_str).unwrap_or_default()
}

/// One input of an action: how it is passed, and what it may be. The patterns are the published document's, widened by
/// what images and registries are named with.
struct Input {
    name: &'static str,
    option: Option<&'static str>,
    pattern: &'static LazyLock<Regex>,
}

macro_rules! pattern {
    ($name:ident, $pattern:literal) => {
        static $name: LazyLock<Regex> =
            LazyLock::new(|| Regex::new($pattern).expect("the pattern is constant and tested"));
    };
}
pattern!(CONTAINER, r"^[a-zA-Z0-9_][a-zA-Z0-9_.\-/]*$");
pattern!(IMAGE, r"^[a-zA-Z0-9_][a-zA-Z0-9_.\-/:@]*$");
pattern!(COMMAND, r"^[^;,&|\x00]*$");
pattern!(MEMORY, r"^[0-9]+[bkmg]?$");
pattern!(NUMBER, r"^[0-9]+$");
pattern!(ENVIRONMENT, r"^[a-zA-Z0-9_][^\x00]*$");
pattern!(USER, r"^[a-zA-Z0-9_][a-zA-Z0-9_.\-:]*$");
pattern!(PUBLISH, r"^[0-9a-zA-Z][0-9a-zA-Z:\-/.]*$");
pattern!(VOLUME, r"^[^\x00\-][^\x00]*$");

const OPTIONS: [Input; 6] = [
    Input {
        name: "memory",
        option: Some("--memory"),
        pattern: &MEMORY,
    },
    Input {
        name: "cpuShares",
        option: Some("--cpu-shares"),
        pattern: &NUMBER,
    },
    Input {
        name: "volume",
        option: Some("--volume"),
        pattern: &VOLUME,
    },
    Input {
        name: "env",
        option: Some("--env"),
        pattern: &ENVIRONMENT,
    },
    Input {
        name: "user",
        option: Some("--user"),
        pattern: &USER,
    },
    Input {
        name: "publish",
        option: Some("--publish"),
        pattern: &PUBLISH,
    },
];
const CONTAINER_INPUT: Input = Input {
    name: "container",
    option: None,
    pattern: &CONTAINER,
};
const IMAGE_INPUT: Input = Input {
    name: "image",
    option: None,
    pattern: &IMAGE,
};
const COMMAND_INPUT: Input = Input {
    name: "cmd",
    option: None,
    pattern: &COMMAND,
};

/// The command line after `docker`. Each value is one argument of it, and none is read by a shell.
fn arguments(inputs: &Map<String, Value>) -> Result<Vec<String>, String> {
    let action = text(inputs, "action");
    let mut line: Vec<String> = Vec::new();
    let begin = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    match action {
        "Create" | "Run" => {
            line = begin(if action == "Run" {
                &["run", "-d"]
            } else {
                &["create"]
            });
            if action == "Create" || !text(inputs, "container").is_empty() {
                line.extend(["--name".to_owned(), required(inputs, action, &CONTAINER_INPUT)?]);
            }
            for option in &OPTIONS {
                for value in values(inputs, option)? {
                    line.extend(option.option.map(str::to_owned));
                    line.push(value);
                }
            }
            line.push(required(inputs, action, &IMAGE_INPUT)?);
            line.extend(values(inputs, &COMMAND_INPUT)?);
        }
        "Exec" => {
            line = begin(&["exec"]);
            for value in OPTIONS.iter().filter(|input| input.name == "user") {
                for user in values(inputs, value)? {
                    line.extend(["--user".to_owned(), user]);
                }
            }
            line.push(required(inputs, action, &CONTAINER_INPUT)?);
            line.push(required(inputs, action, &COMMAND_INPUT)?);
        }
        "Start" | "Stop" | "Rm" | "Inspect" | "Logs" => {
            line.push(action.to_ascii_lowercase());
            line.push(required(inputs, action, &CONTAINER_INPUT)?);
        }
        "Ps" => line = begin(&["ps", "--all"]),
        "Stats" => line = begin(&["stats", "--no-stream"]),
        "Images" => line = begin(&["images"]),
        "Pull" | "Rmi" => {
            line.push(action.to_ascii_lowercase());
            line.push(required(inputs, action, &IMAGE_INPUT)?);
        }
        other => return Err(format!("Docker Action is set to unsupported value: {other}")),
    }
    Ok(line)
}

fn required(inputs: &Map<String, Value>, action: &str, input: &Input) -> Result<String, String> {
    values(inputs, input)?
        .into_iter()
        .next()
        .ok_or_else(|| format!("Action {action} requires parameter {}", input.name))
}

/// The values of an input: one text, or each of a list.
fn values(inputs: &Map<String, Value>, input: &Input) -> Result<Vec<String>, String> {
    let texts: Vec<&str> = match member(inputs, input.name) {
        Some(Value::Array(elements)) => elements.iter().filter_map(Value::as_str).collect(),
        Some(Value::String(text)) => vec![text],
        _ => Vec::new(),
    };
    let checked = |text: &str| {
        if input.pattern.is_match(text) {
            Ok(text.to_owned())
        } else {
            Err(format!("Validation error, Invalid {}", input.name))
        }
    };
    texts
        .into_iter()
        .filter(|text| !text.is_empty())
        .map(checked)
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn line(inputs: &Value) -> Result<String, String> {
        arguments(inputs.as_object().unwrap()).map(|arguments| arguments.join("|"))
    }

    #[test]
    fn each_action_has_its_command_line() {
        let table = [
            (json!({"action": "Ps"}), "ps|--all"),
            (json!({"action": "Images"}), "images"),
            (json!({"action": "Stats"}), "stats|--no-stream"),
            (
                json!({"action": "Pull", "image": "registry.example:5000/a/b:1.2"}),
                "pull|registry.example:5000/a/b:1.2",
            ),
            (json!({"action": "Logs", "container": "web-1"}), "logs|web-1"),
            (
                json!({"action": "Exec", "container": "web", "cmd": "ls /", "user": "www"}),
                "exec|--user|www|web|ls /",
            ),
            (
                json!({"action": "Run", "image": "nginx", "container": "web", "volume": ["/a:/a", "/b:/b"],
                    "publish": "80:80", "env": "A=b c", "memory": "64m"}),
                "run|-d|--name|web|--memory|64m|--volume|/a:/a|--volume|/b:/b|--env|A=b c|--publish|80:80|nginx",
            ),
        ];
        for (inputs, expected) in table {
            assert_eq!(line(&inputs).unwrap(), expected, "{inputs}");
        }
    }

    #[test]
    fn what_is_missing_or_would_be_an_option_is_refused() {
        let table = [
            (
                json!({"action": "Start"}),
                "Action Start requires parameter container",
            ),
            (
                json!({"action": "Create", "container": "a"}),
                "Action Create requires parameter image",
            ),
            (
                json!({"action": "Bake"}),
                "Docker Action is set to unsupported value: Bake",
            ),
            (
                json!({"action": "Rm", "container": "--force"}),
                "Validation error, Invalid container",
            ),
            (
                json!({"action": "Pull", "image": "a b"}),
                "Validation error, Invalid image",
            ),
            (
                json!({"action": "Exec", "container": "a", "cmd": "a;b"}),
                "Validation error, Invalid cmd",
            ),
            (
                json!({"action": "Run", "image": "a", "volume": ["--privileged"]}),
                "Validation error, Invalid volume",
            ),
        ];
        for (inputs, expected) in table {
            assert_eq!(line(&inputs).unwrap_err(), expected, "{inputs}");
        }
    }
}
