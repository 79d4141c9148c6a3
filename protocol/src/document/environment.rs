//! Parameters that scripts get in their environment (`interpolationType: ENV_VAR`, documents.md §1.5).

use serde_json::{Map, Value};

use super::content::plain_text;
use super::{Definitions, Interpolation};

/// Values that are kept out of the text of scripts.
#[derive(Debug, Default)]
pub(super) struct ScriptVariables<'a> {
    /// Name of the parameter and its value, as text.
    values: Vec<(&'a str, String)>,
}

impl<'a> ScriptVariables<'a> {
    /// Those of the resolved parameters that their definition sends this way.
    pub(super) fn of(definitions: &'a Definitions, parameters: &Map<String, Value>) -> Self {
        let values = definitions
            .iter()
            .filter(|(_, definition)| definition.interpolation == Interpolation::EnvironmentVariable)
            .filter_map(|(name, _)| {
                let value = parameters.get(name)?;
                // A null default is no value: what tests whether the variable is set must find that it is not.
                (!value.is_null()).then(|| (name, plain_text(value).into_owned()))
            });
        Self {
            values: values.collect(),
        }
    }

    /// The parameters as the text of a script has them: a reference to the variable in place of its value.
    pub(super) fn references(&self, action: &str, parameters: &Map<String, Value>) -> Map<String, Value> {
        let mut parameters = parameters.clone();
        for (name, _) in &self.values {
            let reference = match action {
                "aws:runPowerShellScript" => format!("${{env:SSM_{name}}}"),
                _ => format!("${{SSM_{name}}}"),
            };
            parameters.insert((*name).to_owned(), reference.into());
        }
        parameters
    }

    pub(super) fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// The variables.
    pub(super) fn environment(&self) -> Vec<(String, String)> {
        self.values
            .iter()
            .map(|(name, value)| (format!("SSM_{name}"), value.clone()))
            .collect()
    }
}

#[cfg(test)]
mod tests;
