//! The text of the generated files, before formatting.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::{Context as _, Result};

use super::model::{Kind, Model, Shape};
use super::plan::{self, Plan, SHARED};
use super::{name, pattern};

/// The files by name, without extension.
pub(crate) fn files(model: &Model, plan: &Plan) -> Result<BTreeMap<String, String>> {
    let types = plan.types(model)?;
    let shared = types.get(SHARED).map(Vec::as_slice).unwrap_or_default();
    let mut files = BTreeMap::new();
    files.insert("error_code".to_owned(), error_codes(plan)?);
    files.insert("known".to_owned(), known_operations(model)?);
    files.insert("operation_id".to_owned(), operation_ids(model)?);
    files.insert("rules".to_owned(), rules(model, plan)?);
    files.insert(
        SHARED.to_owned(),
        format!(
            "//! Shapes that several capabilities use.\n\n{}",
            module(model, plan, shared)?
        ),
    );
    for capability in &plan.capabilities {
        let mut text = format!("//! Operations and shapes: {}.\n\n", capability.replace('_', " "));
        let imported: Vec<&str> = shared
            .iter()
            .copied()
            .filter(|shape| plan.uses(capability, shape))
            .collect();
        if !imported.is_empty() {
            writeln!(text, "pub use crate::shared::{{{}}};\n", imported.join(", "))?;
        }
        let own = types
            .get(capability.as_str())
            .map(Vec::as_slice)
            .unwrap_or_default();
        let body = operations(model, capability)? + &declarations(model, plan, own)?;
        text += &imports(&body);
        text += &body;
        files.insert(capability.clone(), text);
    }
    Ok(files)
}

fn module(model: &Model, plan: &Plan, names: &[&str]) -> Result<String> {
    let body = declarations(model, plan, names)?;
    Ok(imports(&body) + &body)
}

/// The imports that the code turns out to need: those whose sign occurs in it.
fn imports(body: &str) -> String {
    let needed = |candidates: &[(&str, &str)]| {
        let names = candidates
            .iter()
            .filter(|(sign, _)| body.contains(sign))
            .map(|(_, name)| *name);
        names.collect::<Vec<_>>().join(", ")
    };
    let of_std = needed(&[("BTreeMap<", "collections::BTreeMap"), ("fmt::", "fmt")]);
    let of_crate = needed(&[
        ("<Blob", "Blob"),
        ("<EpochSeconds", "EpochSeconds"),
        ("&mut Path", "Path"),
        (" Shape for", "Shape"),
        ("&mut Violations", "Violations"),
        ("Rules::", "constraint::Rules"),
        ("rules::", "rules"),
    ]);
    let of_macros = needed(&[
        ("enumeration!", "enumeration"),
        ("operation!", "operation"),
        ("redact(", "redact"),
        ("structures!", "structures"),
    ]);
    format!(
        "use std::{{{of_std}}};\n\nuse serde::{{Deserialize, Serialize}};\n\n\
         use crate::macros::{{{of_macros}}};\nuse crate::{{{of_crate}}};\n\n"
    )
}

fn operations(model: &Model, capability: &str) -> Result<String> {
    let mut text = String::new();
    for (prefix, name, _) in model.wanted.iter().filter(|(_, _, wanted)| wanted == capability) {
        let operation = model.operation(prefix, name)?;
        let (input, output) = plan::ends(operation)?;
        writeln!(
            text,
            "operation! {{\n    /// `{prefix}.{name}`.\n    {name}: {prefix:?},"
        )?;
        writeln!(text, "    {input} => {output},\n    [")?;
        for error in &operation.errors {
            writeln!(text, "        {},", error.shape)?;
        }
        writeln!(text, "    ]\n}}\n")?;
    }
    Ok(text)
}

fn declarations(model: &Model, plan: &Plan, names: &[&str]) -> Result<String> {
    let mut text = String::new();
    let mut structures = Vec::new();
    for &name in names {
        let shape = model.shape(name)?;
        if let Some(values) = &shape.values {
            text += &enumeration(name, values)?;
        } else {
            structures.push(name);
            text += &structure(model, plan, name, shape).with_context(|| name.to_owned())?;
        }
    }
    if !structures.is_empty() {
        writeln!(text, "structures! {{\n    {},\n}}", structures.join(",\n    "))?;
    }
    Ok(text)
}

fn enumeration(name: &str, values: &[String]) -> Result<String> {
    let mut text = format!("enumeration! {{\n    {name} {{\n");
    for value in values {
        let mut variant = name::variant(value);
        if variant == "Unknown" {
            // `Unknown` itself is for values that the model does not have.
            variant += "Value";
        }
        writeln!(text, "        {variant} = {value:?},")?;
    }
    Ok(text + "    }\n}\n\n")
}

fn structure(model: &Model, plan: &Plan, name: &str, shape: &Shape) -> Result<String> {
    let (mut fields, mut checks, mut shown) = (String::new(), String::new(), String::new());
    let mut has_secret = false;
    for (wire, member) in shape.members() {
        let field = name::field(wire);
        let rename = if name::pascal(&field) == wire {
            String::new()
        } else {
            format!("rename = {wire:?}, ")
        };
        writeln!(
            fields,
            "    #[serde({rename}skip_serializing_if = \"Option::is_none\")]"
        )?;
        writeln!(fields, "    pub {field}: Option<{}>,", rust_type(model, member)?)?;

        if plan.checked.contains(name) {
            let check = if shape.required.contains(wire) {
                "required"
            } else {
                "optional"
            };
            let has_rules = !rules_of(model, plan, member)?.is_empty();
            if has_rules || check == "required" || holds_structure(model, member)? {
                let rules = if has_rules {
                    rules_path(member)
                } else {
                    "Rules::NONE".to_owned()
                };
                writeln!(
                    checks,
                    "path.{check}({wire:?}, self.{field}.as_ref(), {rules}, violations);"
                )?;
            }
        }

        let secret = model.is_secret(member)?;
        has_secret |= secret;
        let value = if secret {
            format!("redact(self.{field}.as_ref())")
        } else {
            format!("self.{field}")
        };
        write!(shown, ".field({:?}, &{value})", field.trim_start_matches("r#"))?;
    }
    let debug = if has_secret { "" } else { "Debug, " };
    let mut text = format!(
        "#[derive(Clone, {debug}Default, PartialEq, Serialize, Deserialize)]\n\
         #[serde(rename_all = \"PascalCase\")]\npub struct {name} {{\n{fields}}}\n\n"
    );
    if has_secret {
        writeln!(
            text,
            "impl fmt::Debug for {name} {{\n    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {{\n\
             f.debug_struct({name:?}){shown}.finish()\n    }}\n}}\n"
        )?;
    }
    if checks.is_empty() {
        writeln!(text, "impl Shape for {name} {{}}\n")?;
    } else {
        writeln!(
            text,
            "impl Shape for {name} {{\n    fn validate(&self, path: &mut Path, violations: &mut Violations) {{\n\
             {checks}}}\n}}\n"
        )?;
    }
    Ok(text)
}

fn rust_type(model: &Model, name: &str) -> Result<String> {
    let shape = model.shape(name)?;
    let inner = |reference: &Option<super::model::Reference>| {
        let reference = reference
            .as_ref()
            .with_context(|| format!("{name} has no member"))?;
        rust_type(model, &reference.shape)
    };
    Ok(match shape.kind {
        Kind::Blob => "Blob".to_owned(),
        Kind::Boolean => "bool".to_owned(),
        Kind::Integer => "i32".to_owned(),
        Kind::List => format!("Vec<{}>", inner(&shape.member)?),
        Kind::Long => "i64".to_owned(),
        Kind::Map => format!("BTreeMap<String, {}>", inner(&shape.value)?),
        Kind::String if shape.values.is_none() => "String".to_owned(),
        Kind::String | Kind::Structure => name.to_owned(),
        Kind::Timestamp => "EpochSeconds".to_owned(),
    })
}

/// Whether members of this shape have to be visited although it has no rules.
fn holds_structure(model: &Model, name: &str) -> Result<bool> {
    let shape = model.shape(name)?;
    Ok(match (shape.kind, &shape.member, &shape.value) {
        (Kind::Structure, ..) => true,
        (Kind::List, Some(inner), _) | (Kind::Map, _, Some(inner)) => holds_structure(model, &inner.shape)?,
        _ => false,
    })
}

fn rules_path(name: &str) -> String {
    format!("&rules::{}", name::snake(name).to_uppercase())
}

/// The rules of a shape, as Rust expressions, in the order in which AWS tells them.
fn rules_of(model: &Model, plan: &Plan, name: &str) -> Result<Vec<String>> {
    let shape = model.shape(name)?;
    let measure = if matches!(shape.kind, Kind::Integer | Kind::Long) {
        "Value"
    } else {
        "Length"
    };
    let mut rules = Vec::new();
    if let Some(max) = shape.max {
        rules.push(format!("Rule::Max{measure}({max})"));
    }
    // A length is never negative.
    if let Some(min) = shape.min.filter(|&min| measure == "Value" || min > 0) {
        rules.push(format!("Rule::Min{measure}({min})"));
    }
    if let Some(published) = &shape.pattern {
        let translated = pattern::translate(published)?;
        rules.push(format!(
            "Rule::Pattern(pattern!(r\"{published}\", r\"{translated}\"))"
        ));
    }
    if shape.values.is_some() {
        rules.push(format!("Rule::Enum(crate::{}::{name}::VALUES)", plan.file(name)));
    }
    for (part, kind) in [
        (&shape.key, "Keys"),
        (&shape.value, "Values"),
        (&shape.member, "Members"),
    ] {
        let Some(part) = part else { continue };
        if !rules_of(model, plan, &part.shape)?.is_empty() {
            let path = rules_path(&part.shape);
            rules.push(format!("Rule::{kind}({})", path.replace("rules::", "")));
        }
    }
    Ok(rules)
}

fn rules(model: &Model, plan: &Plan) -> Result<String> {
    let mut text = String::from(
        "//! The constraints of what inputs are made of.\n\nuse crate::constraint::{Rule, Rules, pattern};\n\n",
    );
    for name in &plan.checked {
        let rules = rules_of(model, plan, name)?;
        if !rules.is_empty() {
            let constant = name::snake(name).to_uppercase();
            let sensitive = model.is_secret(name)?;
            writeln!(
                text,
                "pub(crate) static {constant}: Rules = Rules {{ list: &[{}], sensitive: {sensitive} }};\n",
                rules.join(", ")
            )?;
        }
    }
    Ok(text)
}

fn error_codes(plan: &Plan) -> Result<String> {
    let mut text = String::from("//! The errors of the API.\n\ncrate::macros::error_codes! {\n");
    for is_fault in [false, true] {
        writeln!(text, "    {} {{", if is_fault { "server" } else { "caller" })?;
        for (variant, (code, _)) in plan.errors.iter().filter(|(_, (_, fault))| *fault == is_fault) {
            writeln!(text, "        {variant} = {code:?},")?;
        }
        writeln!(text, "    }}")?;
    }
    Ok(text + "}\n")
}

fn known_operations(model: &Model) -> Result<String> {
    let mut text = String::from(
        "//! The names of all operations of the models.\n\n\
         /// By prefix: the operations of the models, generated or not, sorted.\n\
         pub const KNOWN_OPERATIONS: &[(&str, &[&str])] = &[\n",
    );
    for (prefix, operations) in &model.operations {
        writeln!(text, "    ({prefix:?}, &[")?;
        for name in operations.keys() {
            writeln!(text, "        {name:?},")?;
        }
        writeln!(text, "    ]),")?;
    }
    Ok(text + "];\n")
}

fn operation_ids(model: &Model) -> Result<String> {
    let mut text = String::from(
        "//! The generated operations as values.\n\n\
         /// An operation that this workspace has, so that a rule over all of them is complete or does not compile.\n\
         #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]\n\
         pub enum OperationId {\n",
    );
    let mut wanted: Vec<_> = model.wanted.iter().collect();
    wanted.sort();
    for (prefix, name, _) in wanted {
        writeln!(text, "    /// `{prefix}.{name}`.\n    {name},")?;
    }
    Ok(text + "}\n")
}
