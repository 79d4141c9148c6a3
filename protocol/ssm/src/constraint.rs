//! The constraints of the model, and what AWS says when a value breaks one.
//!
//! The wording is AWS's. So is the way it treats a list or map of scalars: the whole value is shown at the list's
//! own path, with all rules of its members (`Value '[x]' at 'instanceIds' failed to satisfy constraint: Member must
//! satisfy constraint: [...]`), while structures in a list are told apart (`targets.1.member.key`).

use std::collections::BTreeMap;
use std::fmt::{self, Write};
use std::sync::OnceLock;

use regex::Regex;

use crate::scalar::{Blob, EpochSeconds};

/// No more violations than these are reported, or looked for.
const MOST_VIOLATIONS: usize = 10;
/// No more bytes of a value than these are quoted.
const LONGEST_QUOTE: usize = 256;

/// The constraints of one shape.
#[derive(Debug)]
pub(crate) struct Rules {
    pub(crate) list: &'static [Rule],
    /// Set if the shape, or one inside of it, is secret.
    pub(crate) sensitive: bool,
}

impl Rules {
    pub(crate) const NONE: &'static Self = &Self {
        list: &[],
        sensitive: false,
    };
}

impl fmt::Display for Rules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, rule) in self.list.iter().enumerate() {
            write!(f, "{}{rule}", if index == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

/// One constraint. `Display` is AWS's sentence for it.
#[derive(Debug)]
pub(crate) enum Rule {
    Enum(&'static [&'static str]),
    Keys(&'static Rules),
    MaxLength(usize),
    MaxValue(i64),
    Members(&'static Rules),
    MinLength(usize),
    MinValue(i64),
    Pattern(&'static Pattern),
    Values(&'static Rules),
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Enum(values) => write!(f, "Member must satisfy enum value set: [{}]", values.join(", ")),
            Self::Keys(rules) => write!(f, "Map keys must satisfy constraint: [{rules}]"),
            Self::MaxLength(most) => write!(f, "Member must have length less than or equal to {most}"),
            Self::MaxValue(most) => write!(f, "Member must have value less than or equal to {most}"),
            Self::Members(rules) => write!(f, "Member must satisfy constraint: [{rules}]"),
            Self::MinLength(least) => write!(f, "Member must have length greater than or equal to {least}"),
            Self::MinValue(least) => write!(f, "Member must have value greater than or equal to {least}"),
            Self::Pattern(pattern) => {
                write!(
                    f,
                    "Member must satisfy regular expression pattern: {}",
                    pattern.published
                )
            }
            Self::Values(rules) => write!(f, "Map value must satisfy constraint: [{rules}]"),
        }
    }
}

impl Rule {
    pub(crate) fn allows_text(&self, text: &str) -> bool {
        match self {
            Self::Enum(values) => values.contains(&text),
            Self::Pattern(pattern) => pattern.matches(text),
            _ => self.allows_length(|| text.chars().count()),
        }
    }

    fn allows_length(&self, length: impl FnOnce() -> usize) -> bool {
        match self {
            Self::MaxLength(most) => length() <= *most,
            Self::MinLength(least) => length() >= *least,
            _ => true,
        }
    }

    fn allows_number(&self, number: i64) -> bool {
        match self {
            Self::MaxValue(most) => number <= *most,
            Self::MinValue(least) => number >= *least,
            _ => true,
        }
    }
}

/// A regular expression, compiled when it is first needed.
#[derive(Debug)]
pub(crate) struct Pattern {
    published: &'static str,
    translated: &'static str,
    compiled: OnceLock<Regex>,
}

impl Pattern {
    /// `translated` is what the generator made of `published`: anchored, and with ASCII classes as in Java.
    pub(crate) const fn new(published: &'static str, translated: &'static str) -> Self {
        Self {
            published,
            translated,
            compiled: OnceLock::new(),
        }
    }

    fn matches(&self, text: &str) -> bool {
        let regex = self
            .compiled
            .get_or_init(|| Regex::new(self.translated).expect("the generator has compiled the pattern"));
        regex.is_match(text)
    }
}

/// A pattern of its own, as published and as translated.
macro_rules! pattern {
    ($published:literal, $translated:literal) => {{
        static PATTERN: $crate::constraint::Pattern =
            $crate::constraint::Pattern::new($published, $translated);
        &PATTERN
    }};
}
pub(crate) use pattern;

/// A value that rules can be applied to.
pub(crate) trait Checked {
    fn keeps(&self, _rule: &Rule) -> bool {
        true
    }

    /// Checks the structures inside.
    fn descend(&self, _path: &mut Path, _violations: &mut Violations) {}

    /// Writes the value as AWS quotes it; `out` fails when it has enough.
    fn show(&self, out: &mut dyn Write) -> fmt::Result;
}

fn keeps_all(value: &impl Checked, rules: &Rules) -> bool {
    rules.list.iter().all(|rule| value.keeps(rule))
}

impl Checked for String {
    fn keeps(&self, rule: &Rule) -> bool {
        rule.allows_text(self)
    }

    fn show(&self, out: &mut dyn Write) -> fmt::Result {
        out.write_str(self)
    }
}

impl Checked for i32 {
    fn keeps(&self, rule: &Rule) -> bool {
        rule.allows_number(i64::from(*self))
    }

    fn show(&self, out: &mut dyn Write) -> fmt::Result {
        write!(out, "{self}")
    }
}

impl Checked for i64 {
    fn keeps(&self, rule: &Rule) -> bool {
        rule.allows_number(*self)
    }

    fn show(&self, out: &mut dyn Write) -> fmt::Result {
        write!(out, "{self}")
    }
}

impl Checked for bool {
    fn show(&self, out: &mut dyn Write) -> fmt::Result {
        write!(out, "{self}")
    }
}

impl Checked for f64 {
    fn show(&self, out: &mut dyn Write) -> fmt::Result {
        write!(out, "{self}")
    }
}

impl Checked for EpochSeconds {
    fn show(&self, out: &mut dyn Write) -> fmt::Result {
        write!(out, "{}", self.0)
    }
}

impl Checked for Blob {
    fn keeps(&self, rule: &Rule) -> bool {
        rule.allows_length(|| self.0.len())
    }

    fn show(&self, out: &mut dyn Write) -> fmt::Result {
        write!(out, "({} bytes)", self.0.len())
    }
}

impl<T: Checked> Checked for Vec<T> {
    fn keeps(&self, rule: &Rule) -> bool {
        match rule {
            Rule::Members(rules) => self.iter().all(|member| keeps_all(member, rules)),
            _ => rule.allows_length(|| self.len()),
        }
    }

    fn descend(&self, path: &mut Path, violations: &mut Violations) {
        for (index, member) in self.iter().enumerate() {
            if violations.are_enough() {
                break;
            }
            path.0.push(Segment::Index(index));
            member.descend(path, violations);
            path.0.pop();
        }
    }

    fn show(&self, out: &mut dyn Write) -> fmt::Result {
        out.write_char('[')?;
        for (index, member) in self.iter().enumerate() {
            out.write_str(if index == 0 { "" } else { ", " })?;
            member.show(out)?;
        }
        out.write_char(']')
    }
}

impl<T: Checked> Checked for BTreeMap<String, T> {
    fn keeps(&self, rule: &Rule) -> bool {
        match rule {
            Rule::Keys(rules) => self.keys().all(|key| keeps_all(key, rules)),
            Rule::Values(rules) => self.values().all(|value| keeps_all(value, rules)),
            _ => rule.allows_length(|| self.len()),
        }
    }

    fn descend(&self, path: &mut Path, violations: &mut Violations) {
        for (key, value) in self {
            if violations.are_enough() {
                break;
            }
            path.0.push(Segment::Key(excerpt(key)));
            value.descend(path, violations);
            path.0.pop();
        }
    }

    fn show(&self, out: &mut dyn Write) -> fmt::Result {
        out.write_char('{')?;
        for (index, (key, value)) in self.iter().enumerate() {
            write!(out, "{}{key}=", if index == 0 { "" } else { ", " })?;
            value.show(out)?;
        }
        out.write_char('}')
    }
}

/// Where in an input a value is. `Display` gives the path as AWS writes it: `targets.1.member.key`.
#[derive(Debug, Default)]
pub struct Path(Vec<Segment>);

#[derive(Debug)]
enum Segment {
    /// A member of a structure, with the name it has on the wire.
    Member(&'static str),
    /// A member of a list, counted from 0.
    Index(usize),
    /// A value of a map.
    Key(String),
}

impl Path {
    /// Checks a member that has to be there.
    pub(crate) fn required<T: Checked>(
        &mut self,
        name: &'static str,
        member: Option<&T>,
        rules: &Rules,
        violations: &mut Violations,
    ) {
        if member.is_some() {
            self.optional(name, member, rules, violations);
        } else {
            self.0.push(Segment::Member(name));
            violations.push(self, None, &"Member must not be null");
            self.0.pop();
        }
    }

    /// Checks a member, if it is there.
    pub(crate) fn optional<T: Checked>(
        &mut self,
        name: &'static str,
        member: Option<&T>,
        rules: &Rules,
        violations: &mut Violations,
    ) {
        let Some(member) = member else { return };
        self.0.push(Segment::Member(name));
        for rule in rules.list {
            if violations.are_enough() {
                break;
            }
            if !member.keeps(rule) {
                let value = if rules.sensitive {
                    "***".to_owned()
                } else {
                    quote(member)
                };
                violations.push(self, Some(&value), rule);
            }
        }
        member.descend(self, violations);
        self.0.pop();
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, segment) in self.0.iter().enumerate() {
            f.write_str(if index == 0 { "" } else { "." })?;
            match segment {
                Segment::Member(name) => {
                    let mut rest = name.chars();
                    let first = rest.next().map(|first| first.to_ascii_lowercase());
                    write!(f, "{}{}", first.unwrap_or_default(), rest.as_str())?;
                }
                Segment::Index(index) => write!(f, "{}.member", index + 1)?,
                Segment::Key(key) => write!(f, "{key}.member")?,
            }
        }
        Ok(())
    }
}

/// What is wrong with an input: at least one constraint is broken, and the first few of them are told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Violations(Vec<String>);

impl Violations {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The sentences, one for each broken constraint.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }

    fn are_enough(&self) -> bool {
        self.0.len() >= MOST_VIOLATIONS
    }

    fn push(&mut self, path: &Path, value: Option<&str>, constraint: &dyn fmt::Display) {
        if self.are_enough() {
            return;
        }
        let value = value.map_or_else(|| "null".to_owned(), |value| format!("'{value}'"));
        self.0.push(format!(
            "Value {value} at '{path}' failed to satisfy constraint: {constraint}"
        ));
    }
}

impl fmt::Display for Violations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = if self.0.len() == 1 { "" } else { "s" };
        write!(
            f,
            "{} validation error{plural} detected: {}",
            self.0.len(),
            self.0.join("; ")
        )
    }
}

impl std::error::Error for Violations {}

/// Text that takes no more than a quotation's length.
struct Excerpt(String);

impl Write for Excerpt {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = LONGEST_QUOTE.saturating_sub(self.0.len());
        if text.len() <= room {
            self.0.push_str(text);
            return Ok(());
        }
        let fitting = (0..=room)
            .rev()
            .find(|&end| text.is_char_boundary(end))
            .unwrap_or(0);
        self.0.push_str(text.get(..fitting).unwrap_or_default());
        self.0.push_str("...");
        Err(fmt::Error)
    }
}

fn quote(value: &impl Checked) -> String {
    let mut out = Excerpt(String::new());
    // An error says that the text was cut, which is no error here.
    let _cut = value.show(&mut out);
    out.0
}

fn excerpt(text: &str) -> String {
    let mut out = Excerpt(String::new());
    let _cut = out.write_str(text);
    out.0
}
