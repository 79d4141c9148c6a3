//! What is generated, and into which file.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, ensure};

use super::model::{Kind, Model, Operation};

/// The file of shapes that several capabilities use.
pub(crate) const SHARED: &str = "shared";

/// Errors that any operation can give, whatever its model says: variant, code, whether it is the server's fault.
const COMMON_ERRORS: [(&str, &str, bool); 15] = [
    ("AccessDeniedException", "AccessDeniedException", false),
    ("ExpiredTokenException", "ExpiredTokenException", false),
    ("IncompleteSignature", "IncompleteSignatureException", false),
    ("InternalServerError", "InternalServerError", true),
    ("InvalidSignatureException", "InvalidSignatureException", false),
    (
        "MachineFingerprintDoesNotMatch",
        "MachineFingerprintDoesNotMatch",
        false,
    ),
    (
        "MissingAuthenticationToken",
        "MissingAuthenticationTokenException",
        false,
    ),
    ("RequestEntityTooLarge", "RequestEntityTooLarge", false),
    ("RequestExpired", "RequestExpired", false),
    ("SerializationException", "SerializationException", false),
    ("ServiceUnavailable", "ServiceUnavailableException", true),
    ("ThrottlingException", "ThrottlingException", false),
    ("UnknownOperationException", "UnknownOperationException", false),
    (
        "UnrecognizedClientException",
        "UnrecognizedClientException",
        false,
    ),
    ("ValidationException", "ValidationException", false),
];

#[derive(Debug, Default)]
pub(crate) struct Plan {
    /// The capabilities of each shape that is reached.
    users: BTreeMap<String, BTreeSet<String>>,
    /// The shapes that inputs reach: only these are checked.
    pub(crate) checked: BTreeSet<String>,
    /// The errors: code and whether it is a fault, by variant.
    pub(crate) errors: BTreeMap<String, (String, bool)>,
    pub(crate) capabilities: BTreeSet<String>,
}

impl Plan {
    pub(crate) fn new(model: &Model) -> Result<Self> {
        let mut plan = Self::default();
        for (variant, code, fault) in COMMON_ERRORS {
            plan.errors.insert(variant.to_owned(), (code.to_owned(), fault));
        }
        for (prefix, name, capability) in &model.wanted {
            let operation = model.operation(prefix, name)?;
            ensure!(
                !model.shapes.contains_key(name),
                "{name} is an operation and a shape"
            );
            ensure!(capability != SHARED, "{name}: {SHARED} is not a capability");
            plan.capabilities.insert(capability.clone());
            let (input, output) = ends(operation).with_context(|| name.clone())?;
            plan.reach(model, capability, input)?;
            plan.reach(model, capability, output)?;
            plan.reach_checked(model, input)?;
            for error in &operation.errors {
                let shape = model.shape(&error.shape)?;
                ensure!(shape.exception, "{name}: {} is not an error", error.shape);
                plan.errors
                    .entry(error.shape.clone())
                    .or_insert_with(|| (error.shape.clone(), shape.fault));
            }
        }
        Ok(plan)
    }

    fn reach(&mut self, model: &Model, capability: &str, name: &str) -> Result<()> {
        let users = self.users.entry(name.to_owned()).or_default();
        if users.insert(capability.to_owned()) {
            for part in model.shape(name)?.parts() {
                self.reach(model, capability, part)?;
            }
        }
        Ok(())
    }

    fn reach_checked(&mut self, model: &Model, name: &str) -> Result<()> {
        if self.checked.insert(name.to_owned()) {
            for part in model.shape(name)?.parts() {
                self.reach_checked(model, part)?;
            }
        }
        Ok(())
    }

    /// The types to declare, by file: structures and enumerations.
    pub(crate) fn types<'a>(&'a self, model: &'a Model) -> Result<BTreeMap<&'a str, Vec<&'a str>>> {
        let mut types: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for name in self.users.keys() {
            let shape = model.shape(name)?;
            if shape.kind == Kind::Structure || shape.values.is_some() {
                types.entry(self.file(name)).or_default().push(name);
            }
        }
        Ok(types)
    }

    /// The file that declares a shape.
    pub(crate) fn file(&self, name: &str) -> &str {
        match self.users.get(name).map(|users| (users.len(), users.first())) {
            Some((1, Some(capability))) => capability,
            _ => SHARED,
        }
    }

    /// Whether a capability reaches a shape.
    pub(crate) fn uses(&self, capability: &str, name: &str) -> bool {
        self.users
            .get(name)
            .is_some_and(|users| users.contains(capability))
    }
}

/// The shapes that go in and come out.
pub(crate) fn ends(operation: &Operation) -> Result<(&str, &str)> {
    let input = operation.input.as_ref().context("the model only has the name")?;
    let output = operation.output.as_ref().context("no output in the model")?;
    Ok((&input.shape, &output.shape))
}
