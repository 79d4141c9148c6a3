//! The service models, as botocore writes them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;

/// The model files. Their shapes share one namespace, so that an operation of ours can use a published shape.
const FILES: [&str; 5] = [
    "ssm.json",
    "kms.json",
    "agent.json",
    "ec2messages.json",
    "moorline.json",
];

/// All models together.
#[derive(Debug, Default)]
pub(crate) struct Model {
    /// By target prefix, then by name.
    pub(crate) operations: BTreeMap<String, BTreeMap<String, Operation>>,
    pub(crate) shapes: BTreeMap<String, Shape>,
    /// The wanted operations: prefix, name, capability.
    pub(crate) wanted: Vec<(String, String, String)>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Service {
    metadata: Metadata,
    operations: BTreeMap<String, Operation>,
    shapes: BTreeMap<String, Shape>,
    /// Members of ours in shapes of others, by the name of the shape.
    #[serde(default)]
    additions: BTreeMap<String, serde_json::Map<String, serde_json::Value>>,
}

#[derive(Debug, Deserialize)]
struct Metadata {
    #[serde(rename = "targetPrefix")]
    target_prefix: String,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Operation {
    pub(crate) input: Option<Reference>,
    pub(crate) output: Option<Reference>,
    #[serde(default)]
    pub(crate) errors: Vec<Reference>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Reference {
    pub(crate) shape: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Shape {
    #[serde(rename = "type")]
    pub(crate) kind: Kind,
    /// In the order of the file: it becomes the order of the fields.
    #[serde(default)]
    pub(crate) members: serde_json::Map<String, serde_json::Value>,
    #[serde(default)]
    pub(crate) required: BTreeSet<String>,
    pub(crate) member: Option<Reference>,
    pub(crate) key: Option<Reference>,
    pub(crate) value: Option<Reference>,
    #[serde(rename = "enum")]
    pub(crate) values: Option<Vec<String>>,
    pub(crate) min: Option<i64>,
    pub(crate) max: Option<i64>,
    pub(crate) pattern: Option<String>,
    #[serde(default)]
    pub(crate) sensitive: bool,
    #[serde(default)]
    pub(crate) exception: bool,
    #[serde(default)]
    pub(crate) fault: bool,
    #[serde(default, rename = "union")]
    _union: bool,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    Blob,
    Boolean,
    Integer,
    List,
    Long,
    Map,
    String,
    Structure,
    Timestamp,
}

impl Shape {
    /// The shapes that this one is made of.
    pub(crate) fn parts(&self) -> impl Iterator<Item = &str> {
        let containers = [&self.member, &self.key, &self.value];
        let containers = containers
            .into_iter()
            .flatten()
            .map(|reference| reference.shape.as_str());
        self.members().map(|(_, shape)| shape).chain(containers)
    }

    /// The members of a structure: wire name and shape.
    pub(crate) fn members(&self) -> impl Iterator<Item = (&str, &str)> {
        self.members.iter().map(|(name, reference)| {
            (
                name.as_str(),
                reference
                    .get("shape")
                    .and_then(serde_json::Value::as_str)
                    .unwrap_or_default(),
            )
        })
    }
}

impl Model {
    pub(crate) fn load(dir: &Path) -> Result<Self> {
        let read = |name: &str| {
            let path = dir.join(name);
            fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))
        };
        let mut model = Self::default();
        let mut additions = BTreeMap::new();
        for file in FILES {
            let service: Service =
                serde_json::from_str(&read(file)?).with_context(|| format!("parse {file}"))?;
            let operations = model
                .operations
                .entry(service.metadata.target_prefix)
                .or_default();
            for (name, operation) in service.operations {
                ensure!(
                    operations.insert(name.clone(), operation).is_none(),
                    "{file}: {name} exists already"
                );
            }
            additions.extend(service.additions);
            for (name, shape) in service.shapes {
                ensure!(
                    model.shapes.insert(name.clone(), shape).is_none(),
                    "{file}: {name} exists already"
                );
            }
        }
        for (name, members) in additions {
            let shape = model.shapes.get_mut(&name);
            let shape = shape.with_context(|| format!("additions: no shape {name}"))?;
            for (member, reference) in members {
                // So that they cannot become something else when the published model grows.
                ensure!(member.starts_with("Moorline"), "additions: {name}.{member}");
                shape.members.insert(member, reference);
            }
        }
        for name in lines(&read("sensitive.txt")?) {
            model
                .shapes
                .get_mut(name)
                .with_context(|| format!("sensitive.txt: no shape {name}"))?
                .sensitive = true;
        }
        for line in lines(&read("operations.txt")?) {
            let parsed = line
                .split_once(' ')
                .and_then(|(full, capability)| Some((full.split_once('.')?, capability)))
                .with_context(|| format!("operations.txt: {line:?} is not `Prefix.Name capability`"))?;
            let ((prefix, name), capability) = parsed;
            model
                .wanted
                .push((prefix.to_owned(), name.to_owned(), capability.to_owned()));
        }
        Ok(model)
    }

    pub(crate) fn shape(&self, name: &str) -> Result<&Shape> {
        self.shapes
            .get(name)
            .with_context(|| format!("no shape {name} in the models"))
    }

    pub(crate) fn operation(&self, prefix: &str, name: &str) -> Result<&Operation> {
        self.operations
            .get(prefix)
            .and_then(|operations| operations.get(name))
            .with_context(|| format!("no operation {prefix}.{name} in the models"))
    }

    /// Whether this shape or a scalar inside of it is secret. Structures answer for themselves.
    pub(crate) fn is_secret(&self, name: &str) -> Result<bool> {
        let shape = self.shape(name)?;
        if shape.sensitive || shape.kind == Kind::Structure {
            return Ok(shape.sensitive);
        }
        for part in shape.parts() {
            if self.is_secret(part)? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// The lines of a list that say something.
fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
}
