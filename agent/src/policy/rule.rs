//! One rule: what it is about, and whether it holds for what somebody asks for.

use std::collections::BTreeSet;

use moorline_protocol::document::{Digest, SessionType};
use serde::Deserialize;

use crate::runtime::ResourceLimits;

use super::{hours::Hours, pattern::Pattern, target::Destination, target::Target};

/// What a rule makes of what it holds for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Effect {
    Allow,
    Deny,
}

/// What rules are about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Subject {
    Command,
    Session,
}

impl Subject {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Command => "command",
            Self::Session => "session",
        }
    }
}

/// Whether something holds, as far as it is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Truth {
    Yes,
    No,
    /// It depends on what is not known yet.
    Unknown,
}

impl From<bool> for Truth {
    fn from(holds: bool) -> Self {
        match holds {
            true => Self::Yes,
            false => Self::No,
        }
    }
}

impl Truth {
    fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::No, _) | (_, Self::No) => Self::No,
            (Self::Unknown, _) | (_, Self::Unknown) => Self::Unknown,
            (Self::Yes, Self::Yes) => Self::Yes,
        }
    }
}

/// What somebody asks for, as far as it is known.
#[derive(Debug, Clone)]
pub(crate) struct Facts<'a> {
    pub(crate) document: &'a str,
    /// Of the document's content.
    pub(crate) digest: Digest,
    /// The operator's ARN, as the endpoint says it; `None`: it does not say.
    pub(crate) operator: Option<&'a str>,
    pub(crate) asked: Asked<'a>,
}

/// What the document is to be used for.
#[derive(Debug, Clone)]
pub(crate) enum Asked<'a> {
    /// Actions of the steps that would run.
    Command { actions: BTreeSet<&'a str> },
    /// A session with a program.
    Program {
        session_type: SessionType,
        /// `None`: not looked up yet.
        user: Option<&'a str>,
    },
    /// A session of type Port.
    Port(Destination<'a>),
}

impl Asked<'_> {
    pub(super) fn subject(&self) -> Subject {
        match self {
            Self::Command { .. } => Subject::Command,
            Self::Program { .. } | Self::Port(_) => Subject::Session,
        }
    }
}

/// `[[rule]]`, as its file has it. Every condition that is there must hold.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Rule {
    pub(super) name: String,
    pub(super) effect: Effect,
    #[serde(rename = "for")]
    pub(super) subject: Subject,
    documents: Option<Vec<Pattern>>,
    sha256: Option<Vec<Hash>>,
    actions: Option<Vec<Pattern>>,
    operators: Option<Vec<Pattern>>,
    session_types: Option<Vec<TypeName>>,
    users: Option<Vec<Pattern>>,
    forward: Option<Vec<Target>>,
    hours: Option<Hours>,
    limits: Option<ResourceLimits>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
struct Hash(Digest);

impl TryFrom<String> for Hash {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse().map(Self).map_err(|error| {
            format!("sha256 has {text:?}: {error}; `moorline-agent policy digest FILE` tells a document's")
        })
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
struct TypeName(SessionType);

impl TryFrom<String> for TypeName {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        SessionType::from_name(&text).map(Self).ok_or_else(|| {
            format!(
                "{text:?} is no session type: Standard_Stream, InteractiveCommands, NonInteractiveCommands or Port"
            )
        })
    }
}

impl Rule {
    /// # Errors
    /// A condition can never hold, or is not about what the rule is about.
    pub(super) fn check(&self) -> Result<(), String> {
        let Self {
            name,
            subject,
            documents,
            sha256,
            actions,
            operators,
            session_types,
            users,
            forward,
            limits,
            effect,
            hours: _,
        } = self;
        if name.trim().is_empty() || name.len() > 200 || name.chars().any(char::is_control) {
            return Err(
                "a rule needs a name of at most 200 bytes, by which a refusal tells of it".to_owned(),
            );
        }
        let lists = [
            ("documents", documents.as_ref().map(Vec::len)),
            ("sha256", sha256.as_ref().map(Vec::len)),
            ("actions", actions.as_ref().map(Vec::len)),
            ("operators", operators.as_ref().map(Vec::len)),
            ("session_types", session_types.as_ref().map(Vec::len)),
            ("users", users.as_ref().map(Vec::len)),
            ("forward", forward.as_ref().map(Vec::len)),
        ];
        if let Some((key, _)) = lists.iter().find(|(_, length)| *length == Some(0)) {
            return Err(format!("{key} is empty, which never holds; leave it out"));
        }
        match (limits, effect, subject) {
            (None, ..) => {}
            (Some(_), Effect::Deny, _) => {
                return Err("limits are for what is allowed, and this rule denies".to_owned());
            }
            (Some(_), _, Subject::Session) => {
                return Err("limits is for commands, and this rule is not".to_owned());
            }
            (Some(limits), Effect::Allow, Subject::Command) if limits.is_none() => {
                return Err("limits is empty; leave it out".to_owned());
            }
            (Some(_), Effect::Allow, Subject::Command) => {}
        }
        let foreign: &[&str] = match subject {
            Subject::Command => &["session_types", "users", "forward"],
            Subject::Session => &["actions"],
        };
        let is_foreign = |(key, length): &&(&str, Option<usize>)| length.is_some() && foreign.contains(key);
        match (lists.iter().find(is_foreign), subject) {
            (Some((key, _)), Subject::Command) => Err(format!("{key} is for sessions, and this rule is not")),
            (Some((key, _)), Subject::Session) => Err(format!("{key} is for commands, and this rule is not")),
            (None, _) => Ok(()),
        }
    }

    /// What each step may use of a command that it allows.
    pub(super) fn limits(&self) -> ResourceLimits {
        self.limits.clone().unwrap_or_default()
    }

    /// Whether it names a document by this content.
    pub(super) fn names_content(&self, digest: &Digest) -> bool {
        self.sha256.iter().flatten().any(|Hash(hash)| hash == digest)
    }

    /// Whether the rule holds. `now` is in seconds since the Unix epoch.
    pub(super) fn holds(&self, facts: &Facts<'_>, now: u64) -> Truth {
        if self.subject != facts.asked.subject() {
            return Truth::No;
        }
        let any = |patterns: &[Pattern], name: &str| patterns.iter().any(|pattern| pattern.matches(name));
        let conditions = [
            condition(&self.documents, |patterns| any(patterns, facts.document).into()),
            condition(&self.sha256, |hashes| {
                hashes.iter().any(|Hash(hash)| *hash == facts.digest).into()
            }),
            condition(&self.operators, |patterns| match facts.operator {
                Some(operator) => any(patterns, operator).into(),
                // It may be the one who is refused, and need not be the one who is allowed.
                None => (self.effect == Effect::Deny).into(),
            }),
            self.hours
                .as_ref()
                .map_or(Truth::Yes, |hours| hours.contain(now).into()),
            self.asked_for(facts, any),
        ];
        conditions.into_iter().fold(Truth::Yes, Truth::and)
    }

    /// The conditions on what the document is to be used for.
    fn asked_for(&self, facts: &Facts<'_>, any: impl Fn(&[Pattern], &str) -> bool) -> Truth {
        match &facts.asked {
            Asked::Command { actions } => condition(&self.actions, |patterns| {
                let mut actions = actions.iter();
                match self.effect {
                    Effect::Allow => actions.all(|action| any(patterns, action)),
                    Effect::Deny => actions.any(|action| any(patterns, action)),
                }
                .into()
            }),
            Asked::Program { session_type, user } => {
                let users = condition(&self.users, |patterns| match user {
                    Some(user) => any(patterns, user).into(),
                    None => Truth::Unknown,
                });
                self.is_type(*session_type)
                    .and(users)
                    .and(condition(&self.forward, |_| Truth::No))
            }
            Asked::Port(destination) => {
                let targets = condition(&self.forward, |targets| {
                    let truths = targets.iter().map(|target| target.is(destination, self.effect));
                    truths.fold(Truth::No, |one, other| match (one, other) {
                        (Truth::Yes, _) | (_, Truth::Yes) => Truth::Yes,
                        (Truth::Unknown, _) | (_, Truth::Unknown) => Truth::Unknown,
                        (Truth::No, Truth::No) => Truth::No,
                    })
                });
                self.is_type(SessionType::Port)
                    .and(targets)
                    .and(condition(&self.users, |_| Truth::No))
            }
        }
    }

    fn is_type(&self, session_type: SessionType) -> Truth {
        condition(&self.session_types, |types| {
            types.iter().any(|TypeName(known)| *known == session_type).into()
        })
    }
}

/// A condition that is not there holds.
fn condition<T>(condition: &Option<Vec<T>>, holds: impl FnOnce(&[T]) -> Truth) -> Truth {
    condition.as_deref().map_or(Truth::Yes, holds)
}
