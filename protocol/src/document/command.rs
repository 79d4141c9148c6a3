//! Command documents and the plan made from one.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::content::{bounded, description, malformed, present, schema_text, text_member};
use super::environment::ScriptVariables;
use super::precondition::{self, Candidate, Condition};
use super::substitution::Substitution;
use super::{Definitions, ParameterError, member};

/// Most steps of a document.
pub const MAX_STEPS: usize = 1000;

/// Longest name of a step, in characters. It becomes part of paths and replies.
const MAX_NAME_CHARS: usize = 128;

/// Why a document cannot run at all. The text is for the person who wrote it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DocumentError {
    #[error(
        "Document with schema version {0} is not supported by this version of ssm agent, please update to latest version"
    )]
    SchemaVersion(String),
    #[error("Unsupported schema format")]
    NoSteps,
    #[error("Unsupported document: {0}")]
    Malformed(String),
    #[error(transparent)]
    Parameter(#[from] ParameterError),
}

/// Schema of a command document, which decides the rules for steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SchemaVersion {
    /// 1.0 and 1.2: `runtimeConfig`.
    V1,
    /// 2.0, 2.0.1, 2.0.2, 2.0.3: `mainSteps`, no preconditions.
    V2_0,
    /// 2.2: preconditions.
    V2_2,
}

impl SchemaVersion {
    fn from_text(text: &str) -> Option<Self> {
        match text {
            "1.0" | "1.2" => Some(Self::V1),
            "2.0" | "2.0.1" | "2.0.2" | "2.0.3" => Some(Self::V2_0),
            "2.2" => Some(Self::V2_2),
            _ => None,
        }
    }
}

/// A parsed command document.
#[derive(Debug, Clone, PartialEq)]
pub struct CommandDocument {
    pub schema_version: SchemaVersion,
    /// As written.
    pub schema_text: String,
    pub description: String,
    pub parameters: Definitions,
    pub(crate) steps: Vec<RawStep>,
}

/// A step before substitution.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct RawStep {
    pub(crate) action: String,
    pub(crate) name: String,
    /// `inputs`, or `properties` in schema 1.x, which may be a list or a token that becomes one.
    pub(crate) inputs: Value,
    pub(crate) conditions: Vec<Condition>,
}

/// A step that is ready: parameters filled in, precondition decided.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// `aws:runShellScript` and the like, as written.
    pub action: String,
    /// The key of its result: the step's name, or the action in schema 1.x.
    pub name: String,
    /// One set of inputs; schema 1.x may have several, which run in order inside one result. Empty when they have
    /// a shape that cannot run, which is then the reason of a [`Decision::Fail`]. Read them with
    /// [`member`].
    pub inputs: Vec<Map<String, Value>>,
    pub decision: Decision,
    pub control: StepControl,
    /// Variables that a script gets, for parameters with [`Interpolation::EnvironmentVariable`].
    pub environment: Vec<(String, String)>,
}

impl Step {
    /// The output of a step that is skipped because an earlier one ended the document (documents.md §1.7).
    /// It comes before [`Self::decision`].
    pub fn skipped_after_exit(&self) -> String {
        let Self { action, name, .. } = self;
        format!("Plugin with name {action} and id {name} skipped due to prior step with an exit condition")
    }
}

/// Whether a step runs (documents.md §1.7); the texts are the stock agent's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    Run,
    Skip(String),
    Fail(String),
}

/// Step control inside `inputs` (documents.md §1.8).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StepControl {
    pub on_failure: Option<OnFailure>,
    pub exit_on_success: bool,
    /// Honoured on the last step only, so never set on another.
    pub finally: bool,
}

/// `onFailure` of a step's inputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnFailure {
    Exit,
    SuccessAndExit,
}

/// What the node can do, as far as the plan depends on it.
#[derive(Debug, Clone, Copy)]
pub struct Platform<'a> {
    /// `Linux`.
    pub platform_type: &'a str,
    /// Actions with a handler here, e.g. `["aws:runShellScript"]`.
    pub handled_actions: &'a [&'a str],
}

impl CommandDocument {
    /// Parses a document of at most [`MAX_CONTENT_BYTES`](super::MAX_CONTENT_BYTES) as compact JSON, nested at most
    /// [`MAX_DEPTH`](super::MAX_DEPTH) levels, with at most [`MAX_STEPS`] steps.
    ///
    /// Step-level `maxAttempts`, `onFailure` and `timeoutSeconds` have no effect, as on the stock agent.
    ///
    /// # Errors
    /// The document cannot run.
    pub fn parse(content: &Value) -> Result<Self, DocumentError> {
        let members = bounded(content)?;
        let schema_text = schema_text(members)?;
        let (schema_version, steps) = steps(&schema_text, members)?;
        let mut names = BTreeSet::new();
        for step in &steps {
            check_name(&step.name)?;
            if !names.insert(&step.name) {
                return Err(malformed(format!("two steps have the name {}", step.name)));
            }
        }
        let parameters = Definitions::parse(present(members, "parameters"))?;
        if schema_version != SchemaVersion::V2_2
            && let Some(name) = parameters.first_in_environment()
        {
            return Err(malformed(format!(
                "interpolationType of parameter {name} needs schema version 2.2"
            )));
        }
        Ok(Self {
            schema_version,
            schema_text,
            description: description(members),
            parameters,
            steps,
        })
    }

    /// The actions of a document's steps. Its parameters are not looked at, so this costs little.
    ///
    /// # Errors
    /// It has no steps that could run.
    pub fn actions(content: &Value) -> Result<BTreeSet<String>, DocumentError> {
        let members = bounded(content)?;
        let (_, steps) = steps(&schema_text(members)?, members)?;
        Ok(steps.into_iter().map(|step| step.action).collect())
    }

    /// Action and name of every step, in order. The name is the key of the step's result.
    pub fn step_names(&self) -> impl Iterator<Item = (&str, &str)> {
        self.steps
            .iter()
            .map(|step| (step.action.as_str(), step.name.as_str()))
    }

    /// Fills the parameters in and decides every step.
    ///
    /// Parameter Store references stay as they are written.
    ///
    /// # Errors
    /// A parameter breaks its pattern or is missing, or the parameters insert more than
    /// [`MAX_INSERTED_BYTES`](super::MAX_INSERTED_BYTES).
    pub fn plan(
        &self,
        parameters: &Map<String, Value>,
        platform: Platform<'_>,
    ) -> Result<Vec<Step>, DocumentError> {
        let parameters = self.parameters.resolve_values(parameters)?;
        let variables = ScriptVariables::of(&self.parameters, parameters.as_map());
        let mut substitution = Substitution::new(parameters.as_map());
        let mut steps = Vec::with_capacity(self.steps.len());
        for step in &self.steps {
            let mut resolved = substitution.value(&step.inputs)?;
            let mut environment = Vec::new();
            if is_script(&step.action) && !variables.is_empty() {
                let references = variables.references(&step.action, parameters.as_map());
                replace_commands(&mut resolved, &step.inputs, &mut Substitution::new(&references))?;
                environment = variables.environment();
            }
            let candidate = Candidate {
                action: &step.action,
                name: &step.name,
                conditions: &step.conditions,
            };
            let mut decision =
                precondition::decide(self.schema_version, candidate, platform, &mut substitution)?;
            let control = match &resolved {
                Value::Object(inputs) => step_control(inputs),
                _ => StepControl::default(),
            };
            let inputs = match input_sets(self.schema_version, resolved) {
                Ok(mut inputs) => {
                    if is_script(&step.action) {
                        inputs.iter_mut().for_each(flatten_commands);
                    }
                    inputs
                }
                Err(reason) => {
                    if decision == Decision::Run {
                        decision = Decision::Fail(reason);
                    }
                    Vec::new()
                }
            };
            steps.push(Step {
                action: step.action.clone(),
                name: step.name.clone(),
                inputs,
                decision,
                control,
                environment,
            });
        }
        if let Some((_last, earlier)) = steps.split_last_mut() {
            for step in earlier {
                step.control.finally = false;
            }
        }
        Ok(steps)
    }
}

fn steps(
    schema_text: &str,
    members: &Map<String, Value>,
) -> Result<(SchemaVersion, Vec<RawStep>), DocumentError> {
    let schema_version = SchemaVersion::from_text(schema_text)
        .ok_or_else(|| DocumentError::SchemaVersion(schema_text.to_owned()))?;
    let steps = match schema_version {
        SchemaVersion::V1 => runtime_config(present(members, "runtimeConfig"))?,
        SchemaVersion::V2_0 | SchemaVersion::V2_2 => main_steps(present(members, "mainSteps"))?,
    };
    Ok((schema_version, steps))
}

/// Schema 1.x: a map from action to what it does.
fn runtime_config(config: Option<&Value>) -> Result<Vec<RawStep>, DocumentError> {
    let actions = match config {
        None => return Err(DocumentError::NoSteps),
        Some(value) => value
            .as_object()
            .ok_or_else(|| malformed("runtimeConfig must be an object"))?,
    };
    check_count(actions.len())?;
    let step = |(action, value): (&String, &Value)| {
        let members = value
            .as_object()
            .ok_or_else(|| malformed(format!("{action} of runtimeConfig must be an object")))?;
        let properties = present(members, "properties").cloned();
        if let Some(Value::Array(sets)) = &properties {
            check_count(sets.len().max(1))?;
        }
        Ok(RawStep {
            action: action.clone(),
            name: action.clone(),
            inputs: properties.unwrap_or_else(|| Map::new().into()),
            conditions: Vec::new(),
        })
    };
    actions.iter().map(step).collect()
}

/// Schema 2.x: a list of steps.
fn main_steps(steps: Option<&Value>) -> Result<Vec<RawStep>, DocumentError> {
    let steps = match steps {
        None => return Err(DocumentError::NoSteps),
        Some(value) => value
            .as_array()
            .ok_or_else(|| malformed("mainSteps must be a list"))?,
    };
    check_count(steps.len())?;
    let step = |value: &Value| {
        let members = value
            .as_object()
            .ok_or_else(|| malformed("a step must be an object"))?;
        let action = text_member(members, "action")?;
        if action.is_empty() {
            return Err(malformed("a step has no action"));
        }
        Ok(RawStep {
            action,
            name: text_member(members, "name")?,
            inputs: present(members, "inputs")
                .cloned()
                .unwrap_or_else(|| Map::new().into()),
            conditions: precondition::parse(member(members, "precondition"))?,
        })
    };
    steps.iter().map(step).collect()
}

fn check_count(steps: usize) -> Result<(), DocumentError> {
    match steps {
        0 => Err(DocumentError::NoSteps),
        1..=MAX_STEPS => Ok(()),
        _ => Err(malformed(format!("more than {MAX_STEPS} steps"))),
    }
}

/// A name becomes an element of paths, here and in copies of the output.
fn check_name(name: &str) -> Result<(), DocumentError> {
    if name.is_empty() {
        return Err(malformed("a step has no name"));
    }
    let is_path = matches!(name, "." | "..") || name.contains(['/', '\\']);
    if is_path || name.contains(char::is_control) || name.chars().count() > MAX_NAME_CHARS {
        return Err(malformed(format!(
            "the name of a step has at most {MAX_NAME_CHARS} characters and is no path"
        )));
    }
    Ok(())
}

/// The sets of inputs, or the output of a step that has something else there.
fn input_sets(schema: SchemaVersion, resolved: Value) -> Result<Vec<Map<String, Value>>, String> {
    let text = match resolved {
        Value::Object(inputs) => return Ok(vec![inputs]),
        Value::Array(sets) if schema == SchemaVersion::V1 && sets.iter().all(Value::is_object) => {
            let objects = sets.into_iter().filter_map(|set| match set {
                Value::Object(inputs) => Some(inputs),
                _ => None,
            });
            return Ok(objects.collect());
        }
        other => other.to_string(),
    };
    Err(format!(
        "Invalid format in plugin properties {text};\nerror the inputs must be an object"
    ))
}

/// Fills the script's lines in anew, from how they are written.
fn replace_commands(
    resolved: &mut Value,
    written: &Value,
    substitution: &mut Substitution<'_>,
) -> Result<(), DocumentError> {
    let (Value::Object(inputs), Value::Object(written)) = (resolved, written) else {
        return Ok(());
    };
    for (name, value) in inputs {
        if name.eq_ignore_ascii_case("runCommand")
            && let Some(lines) = written.get(name)
        {
            *value = substitution.value(lines)?;
        }
    }
    Ok(())
}

fn is_script(action: &str) -> bool {
    matches!(action, "aws:runShellScript" | "aws:runPowerShellScript")
}

/// `runCommand: ["{{ commands }}"]` makes a list in a list; its elements take its place (documents.md §1.4).
fn flatten_commands(inputs: &mut Map<String, Value>) {
    let commands = inputs
        .iter_mut()
        .filter(|(name, _)| name.eq_ignore_ascii_case("runCommand"))
        .filter_map(|(_, value)| value.as_array_mut());
    for elements in commands {
        if elements.iter().any(Value::is_array) {
            *elements = std::mem::take(elements)
                .into_iter()
                .flat_map(|element| match element {
                    Value::Array(inner) => inner,
                    other => vec![other],
                })
                .collect();
        }
    }
}

/// These names, unlike other inputs, are matched with their case; values are texts or booleans.
fn step_control(inputs: &Map<String, Value>) -> StepControl {
    let text = |name| inputs.get(name).and_then(Value::as_str);
    StepControl {
        on_failure: match text("onFailure") {
            Some("exit") => Some(OnFailure::Exit),
            Some("successAndExit") => Some(OnFailure::SuccessAndExit),
            _ => None,
        },
        exit_on_success: text("onSuccess") == Some("exit"),
        finally: text("finallyStep") == Some("true")
            || inputs.get("finallyStep").and_then(Value::as_bool) == Some(true),
    }
}

#[cfg(test)]
mod tests;
