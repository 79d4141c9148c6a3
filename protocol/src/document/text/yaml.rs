//! YAML into a value: the parser's events, within bounds.
//!
//! Scalars follow the core schema of YAML 1.2, with one caution: a number that would not be written back as it
//! stands (`0777`, `1.10`, `1e3`) stays a text. Inputs that take a number take its text too, while a text that became
//! a number is another text. Members have texts as names; a member that is given twice, a merge key (`<<`), a tag
//! other than those of the core schema, and a second document are refused, since programs differ in what they make of
//! them.

use std::borrow::Cow;
use std::collections::BTreeMap;

use saphyr_parser::{Event, Parser, ScalarStyle, Tag};
use serde_json::{Map, Number, Value, map::Entry};

use super::super::content::{MAX_DEPTH, json_bytes, malformed};
use super::{DocumentError, MAX_TEXT_BYTES};

/// Most values of a text, with those that aliases repeat.
const MAX_NODES: usize = 64 * 1024;

/// The value of the only document in the text.
pub(super) fn read(text: &str) -> Result<Value, DocumentError> {
    let mut builder = Builder::default();
    let mut parser = Parser::new_from_str(text);
    while let Some(event) = parser.next_event() {
        let (event, span) = event.map_err(|error| malformed(format!("it is not YAML: {error}")))?;
        let at = |reason: String| malformed(format!("line {}: {reason}", span.start.line()));
        builder.take(event).map_err(at)?;
    }
    builder
        .root
        .ok_or_else(|| malformed("the text holds no document"))
}

/// A list or an object whose end has not come.
struct Open {
    anchor: usize,
    kind: Kind,
}

enum Kind {
    List(Vec<Value>),
    /// With the name whose value comes next.
    Object(Map<String, Value>, Option<String>),
}

#[derive(Default)]
struct Builder {
    open: Vec<Open>,
    root: Option<Value>,
    anchors: BTreeMap<usize, Value>,
    nodes: usize,
    bytes: usize,
}

impl Builder {
    fn take(&mut self, event: Event<'_>) -> Result<(), String> {
        match event {
            Event::Nothing
            | Event::StreamStart
            | Event::StreamEnd
            | Event::DocumentStart(_)
            | Event::DocumentEnd => Ok(()),
            Event::Alias(anchor) => {
                let Some(value) = self.anchors.get(&anchor) else {
                    return Err("an alias stands inside of what it repeats".to_owned());
                };
                let value = value.clone();
                self.count(nodes(&value), &value)?;
                if depth(&value) + self.open.len() > MAX_DEPTH {
                    return Err(too_deep());
                }
                self.place(value, 0)
            }
            Event::Scalar(text, style, anchor, tag) => {
                let value = scalar(text, style, tag.as_deref())?;
                self.count(1, &value)?;
                self.place(value, anchor)
            }
            Event::SequenceStart(anchor, tag) => self.open(anchor, tag, "seq", Kind::List(Vec::new())),
            Event::MappingStart(anchor, tag) => self.open(anchor, tag, "map", Kind::Object(Map::new(), None)),
            Event::SequenceEnd | Event::MappingEnd => match self.open.pop() {
                Some(Open { anchor, kind }) => {
                    let value = match kind {
                        Kind::List(elements) => Value::Array(elements),
                        Kind::Object(members, _) => Value::Object(members),
                    };
                    self.place(value, anchor)
                }
                None => Err("an end without a beginning".to_owned()),
            },
        }
    }

    fn open(
        &mut self,
        anchor: usize,
        tag: Option<Cow<'_, Tag>>,
        expected: &str,
        kind: Kind,
    ) -> Result<(), String> {
        if let Some(tag) = tag.filter(|tag| !is_core(tag, expected)) {
            return Err(unknown_tag(&tag));
        }
        // The value itself is one level more.
        if self.open.len() + 1 >= MAX_DEPTH {
            return Err(too_deep());
        }
        self.count(1, &Value::Null)?;
        self.open.push(Open { anchor, kind });
        Ok(())
    }

    /// Takes nodes and their text out of what the whole document may have.
    fn count(&mut self, nodes: usize, value: &Value) -> Result<(), String> {
        self.nodes += nodes;
        let bytes = match value {
            Value::Null => Some("null".len()),
            other => json_bytes(other, MAX_TEXT_BYTES),
        };
        self.bytes += bytes.unwrap_or(MAX_TEXT_BYTES + 1);
        if self.nodes > MAX_NODES || self.bytes > MAX_TEXT_BYTES {
            return Err(format!(
                "with what its aliases repeat the document has more than {MAX_TEXT_BYTES} bytes or {MAX_NODES} values"
            ));
        }
        Ok(())
    }

    fn place(&mut self, value: Value, anchor: usize) -> Result<(), String> {
        if anchor > 0 {
            self.anchors.insert(anchor, value.clone());
        }
        match self.open.last_mut().map(|open| &mut open.kind) {
            None if self.root.is_some() => return Err("there is more than one document".to_owned()),
            None => self.root = Some(value),
            Some(Kind::List(elements)) => elements.push(value),
            Some(Kind::Object(members, name)) => match name.take() {
                None => *name = Some(member_name(value)?),
                Some(name) => match members.entry(name) {
                    Entry::Vacant(vacant) => {
                        vacant.insert(value);
                    }
                    Entry::Occupied(member) => return Err(format!("{} is given twice", member.key())),
                },
            },
        }
        Ok(())
    }
}

fn too_deep() -> String {
    format!("nested deeper than {MAX_DEPTH} levels")
}

fn member_name(value: Value) -> Result<String, String> {
    match value {
        Value::String(text) if text == "<<" => {
            Err("merge keys (<<) are not read; write the members out".to_owned())
        }
        Value::String(text) => Ok(text),
        Value::Bool(_) | Value::Number(_) => Ok(value.to_string()),
        _ => Err("the name of a member must be a text".to_owned()),
    }
}

fn is_core(tag: &Tag, suffix: &str) -> bool {
    tag.is_yaml_core_schema() && tag.suffix == suffix
}

fn unknown_tag(tag: &Tag) -> String {
    format!("the tag {}{} is not known", tag.handle, tag.suffix)
}

fn scalar(text: Cow<'_, str>, style: ScalarStyle, tag: Option<&Tag>) -> Result<Value, String> {
    if let Some(tag) = tag {
        if is_core(tag, "str") {
            return Ok(text.into());
        }
        let plain = plain(text);
        let fits = match &plain {
            Value::Null => is_core(tag, "null"),
            Value::Bool(_) => is_core(tag, "bool"),
            Value::Number(number) => is_core(tag, if number.is_f64() { "float" } else { "int" }),
            _ => false,
        };
        return if fits { Ok(plain) } else { Err(unknown_tag(tag)) };
    }
    Ok(match style {
        ScalarStyle::Plain => plain(text),
        _ => text.into(),
    })
}

/// A plain scalar by the core schema.
fn plain(text: Cow<'_, str>) -> Value {
    match text.as_ref() {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "true" | "True" | "TRUE" => true.into(),
        "false" | "False" | "FALSE" => false.into(),
        other => match number(other) {
            Some(number) => Value::Number(number),
            None => text.into(),
        },
    }
}

/// A number that is written back as it stands.
fn number(text: &str) -> Option<Number> {
    let first = text.trim_start_matches('-').bytes().next()?;
    if !first.is_ascii_digit() {
        return None;
    }
    let number: Number = serde_json::from_str(text).ok()?;
    (number.to_string() == text).then_some(number)
}

fn nodes(value: &Value) -> usize {
    match value {
        Value::Array(elements) => 1 + elements.iter().map(nodes).sum::<usize>(),
        Value::Object(members) => 1 + members.values().map(nodes).sum::<usize>(),
        _ => 1,
    }
}

fn depth(value: &Value) -> usize {
    let below = match value {
        Value::Array(elements) => elements.iter().map(depth).max(),
        Value::Object(members) => members.values().map(depth).max(),
        _ => None,
    };
    1 + below.unwrap_or_default()
}
