//! What runs, and yet had better be written in another way.

use serde_json::Value;

use super::content::plain_text;
use super::substitution::names_in;
use super::{CommandDocument, Interpolation, ParameterType, member};

impl CommandDocument {
    /// One text for every parameter that puts whatever it is given into the lines of a script: a String with neither
    /// `allowedPattern` nor `allowedValues`, whose text the shell reads as code.
    ///
    /// A list of lines, as `commands` of AWS-RunShellScript, is meant to be code and is not told.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        for (name, definition) in self.parameters.iter() {
            let is_open = definition.parameter_type == ParameterType::String
                && definition.interpolation == Interpolation::Text
                && definition.allowed_pattern.is_none()
                && definition.allowed_values.is_empty();
            if !is_open {
                continue;
            }
            let reached = self.steps.iter().filter(|step| {
                matches!(
                    step.action.as_str(),
                    "aws:runShellScript" | "aws:runPowerShellScript"
                ) && lines(&step.inputs)
                    .iter()
                    .any(|line| names_in(line).any(|used| used == name))
            });
            warnings.extend(reached.map(|step| {
                format!(
                    "parameter {name} is put into the script of step {} as it is given, so its value can run anything: \
                     give it an allowedPattern, or interpolationType ENV_VAR",
                    step.name
                )
            }));
        }
        warnings
    }
}

/// The lines of a script, of one set of inputs or of several.
fn lines(inputs: &Value) -> Vec<String> {
    match inputs {
        Value::Array(sets) => sets.iter().flat_map(lines).collect(),
        Value::Object(inputs) => match member(inputs, "runCommand") {
            Some(Value::Array(lines)) => lines.iter().map(|line| plain_text(line).into_owned()).collect(),
            Some(line) => vec![plain_text(line).into_owned()],
            None => Vec::new(),
        },
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_parameter_that_anything_can_be_written_into_is_told_with_its_step() {
        let table = [
            (json!({"type": "String"}), "echo {{ p }}", 1),
            (
                json!({"type": "String", "allowedPattern": "^[a-z]*$"}),
                "echo {{ p }}",
                0,
            ),
            (
                json!({"type": "String", "allowedValues": ["a"]}),
                "echo {{ p }}",
                0,
            ),
            (
                json!({"type": "String", "interpolationType": "ENV_VAR"}),
                "echo {{ p }}",
                0,
            ),
            (json!({"type": "StringList"}), "{{ p }}", 0),
            (json!({"type": "String"}), "echo {{ other }}", 0),
        ];
        for (definition, line, expected) in table {
            let document = CommandDocument::parse(&json!({
                "schemaVersion": "2.2", "parameters": {"p": definition},
                "mainSteps": [
                    {"action": "aws:runShellScript", "name": "a", "inputs": {"RunCommand": ["true", line]}},
                    {"action": "aws:downloadContent", "name": "b", "inputs": {"runCommand": [line]}},
                ]
            }))
            .unwrap();
            let warnings = document.warnings();
            assert_eq!(warnings.len(), expected, "{definition} {line}: {warnings:?}");
            assert!(
                warnings
                    .iter()
                    .all(|warning| warning.contains("parameter p") && warning.contains("step a"))
            );
        }
        let old = CommandDocument::parse(&json!({
            "schemaVersion": "1.2", "parameters": {"p": {"type": "String"}},
            "runtimeConfig": {"aws:runShellScript": {"properties": [{"runCommand": "{{p}}"}]}}
        }));
        assert_eq!(old.unwrap().warnings().len(), 1);
    }
}
