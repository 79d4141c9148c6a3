//! Policies of a parameter: when it ends, and what its owner wants to be told.

use jiff::Timestamp;
use serde_json::{Map, Value};

/// Policies of one parameter.
const MOST: usize = 10;
const HOUR_MILLIS: u64 = 60 * 60 * 1000;

/// What a policy is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PolicyKind {
    Expiration,
    ExpirationNotification,
    NoChangeNotification,
}

impl PolicyKind {
    /// The name on the wire.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Expiration => "Expiration",
            Self::ExpirationNotification => "ExpirationNotification",
            Self::NoChangeNotification => "NoChangeNotification",
        }
    }

    pub(crate) fn from_name(name: &str) -> Option<Self> {
        [
            Self::Expiration,
            Self::ExpirationNotification,
            Self::NoChangeNotification,
        ]
        .into_iter()
        .find(|kind| kind.as_str() == name)
    }
}

/// Why the policies of a request are not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PolicyError {
    #[error(
        "The policy type isn't supported. Parameter Store supports the following policy types: Expiration, \
             ExpirationNotification, and NoChangeNotification."
    )]
    Type,
    #[error("A policy attribute or its value is invalid: {0}")]
    Attribute(String),
    #[error("There is a conflict in the policies specified for this parameter: {0}")]
    Incompatible(&'static str),
    #[error(
        "You specified more than the maximum number of allowed policies for the parameter. The maximum is {MOST}."
    )]
    TooMany,
}

/// When a policy has something to do, relative to what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum When {
    /// Milliseconds since the Unix epoch.
    At(u64),
    BeforeExpiration(u64),
    AfterChange(u64),
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Written {
    kind: PolicyKind,
    text: String,
    when: When,
}

/// The policies of a request, read; each kind at most once.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Policies(Vec<Written>);

/// A policy with its time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Policy {
    pub(crate) kind: PolicyKind,
    /// As it was given.
    pub(crate) text: String,
    /// Milliseconds since the Unix epoch.
    pub(crate) due_at: u64,
}

impl Policies {
    /// Reads the JSON list of a request; `[]`, `{}` and `[{}]` mean none.
    pub(crate) fn parse(json: &str) -> Result<Self, PolicyError> {
        let form = || PolicyError::Attribute("the policies are not a JSON list of objects".to_owned());
        let list = match serde_json::from_str(json) {
            Ok(Value::Array(list)) => list,
            Ok(Value::Object(one)) => vec![Value::Object(one)],
            _ => return Err(form()),
        };
        if list.len() > MOST {
            return Err(PolicyError::TooMany);
        }
        let mut written: Vec<Written> = Vec::new();
        for item in list {
            let Value::Object(members) = &item else {
                return Err(form());
            };
            if members.is_empty() {
                continue;
            }
            let (kind, when) = read(members)?;
            if written.iter().any(|other| other.kind == kind) {
                return Err(PolicyError::Incompatible("it has two policies of one type"));
            }
            let text = item.to_string();
            written.push(Written { kind, text, when });
        }
        let has = |kind| written.iter().any(|one| one.kind == kind);
        if has(PolicyKind::ExpirationNotification) && !has(PolicyKind::Expiration) {
            return Err(PolicyError::Incompatible(
                "an ExpirationNotification needs an Expiration",
            ));
        }
        Ok(Self(written))
    }

    /// The policies that a parameter has, which were read before.
    pub(crate) fn of_texts(texts: &[String]) -> Result<Self, PolicyError> {
        Self::parse(&format!("[{}]", texts.join(",")))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// When the parameter ends, in milliseconds since the Unix epoch.
    pub(crate) fn expires_at(&self) -> Option<u64> {
        self.0.iter().find_map(|written| match written.when {
            When::At(at) => Some(at),
            When::BeforeExpiration(_) | When::AfterChange(_) => None,
        })
    }

    /// The policies of a parameter that changes now.
    ///
    /// # Errors
    /// It would end before.
    pub(crate) fn at(&self, now: u64) -> Result<Vec<Policy>, PolicyError> {
        let expires_at = self.expires_at();
        if expires_at.is_some_and(|at| at <= now) {
            let reason = "the Timestamp of Expiration is in the past".to_owned();
            return Err(PolicyError::Attribute(reason));
        }
        let policy = |written: &Written| Policy {
            kind: written.kind,
            text: written.text.clone(),
            due_at: match written.when {
                When::At(at) => at,
                When::BeforeExpiration(millis) => expires_at.unwrap_or(u64::MAX).saturating_sub(millis),
                When::AfterChange(millis) => now.saturating_add(millis),
            },
        };
        Ok(self.0.iter().map(policy).collect())
    }
}

fn read(members: &Map<String, Value>) -> Result<(PolicyKind, When), PolicyError> {
    let kind = members
        .get("Type")
        .and_then(Value::as_str)
        .and_then(PolicyKind::from_name)
        .ok_or(PolicyError::Type)?;
    if members.get("Version").and_then(Value::as_str) != Some("1.0") {
        return Err(PolicyError::Attribute("Version is not \"1.0\"".to_owned()));
    }
    let attribute = |name: &str| {
        let attributes = members.get("Attributes").and_then(Value::as_object);
        attributes
            .and_then(|attributes| attributes.get(name))
            .and_then(Value::as_str)
            .ok_or_else(|| PolicyError::Attribute(format!("{} has no attribute {name}", kind.as_str())))
    };
    let when = match kind {
        PolicyKind::Expiration => When::At(timestamp(attribute("Timestamp")?)?),
        PolicyKind::ExpirationNotification => {
            When::BeforeExpiration(duration(attribute("Before")?, attribute("Unit")?)?)
        }
        PolicyKind::NoChangeNotification => {
            When::AfterChange(duration(attribute("After")?, attribute("Unit")?)?)
        }
    };
    Ok((kind, when))
}

fn timestamp(text: &str) -> Result<u64, PolicyError> {
    let millis = text.parse::<Timestamp>().ok().map(Timestamp::as_millisecond);
    millis
        .and_then(|millis| u64::try_from(millis).ok())
        .ok_or_else(|| {
            PolicyError::Attribute("Timestamp is not a time like 2030-01-02T03:04:05.000Z".to_owned())
        })
}

fn duration(count: &str, unit: &str) -> Result<u64, PolicyError> {
    let unit = match unit {
        "Days" => 24 * HOUR_MILLIS,
        "Hours" => HOUR_MILLIS,
        _ => {
            return Err(PolicyError::Attribute(
                "Unit is neither Days nor Hours".to_owned(),
            ));
        }
    };
    let count = count.parse::<u32>().ok().filter(|count| *count > 0);
    let count = count.ok_or_else(|| PolicyError::Attribute("a time is not a positive number".to_owned()))?;
    Ok(u64::from(count).saturating_mul(unit))
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXPIRATION: &str =
        r#"{"Type":"Expiration","Version":"1.0","Attributes":{"Timestamp":"2030-01-01T00:00:00.000Z"}}"#;
    const NOTICE: &str =
        r#"{"Type":"ExpirationNotification","Version":"1.0","Attributes":{"Before":"15","Unit":"Days"}}"#;
    const NO_CHANGE: &str =
        r#"{"Type":"NoChangeNotification","Version":"1.0","Attributes":{"After":"20","Unit":"Hours"}}"#;
    const YEAR_2030: u64 = 1_893_456_000_000;

    #[test]
    fn policies_get_their_times() {
        let policies = Policies::parse(&format!("[{EXPIRATION},{NOTICE},{NO_CHANGE}]")).unwrap();
        assert_eq!(policies.expires_at(), Some(YEAR_2030));
        let due: Vec<u64> = policies.at(1000).unwrap().iter().map(|one| one.due_at).collect();
        assert_eq!(
            due,
            [
                YEAR_2030,
                YEAR_2030 - 15 * 24 * HOUR_MILLIS,
                1000 + 20 * HOUR_MILLIS
            ]
        );
        assert!(matches!(policies.at(YEAR_2030), Err(PolicyError::Attribute(_))));
        for none in ["[]", "{}", "[{}]"] {
            assert!(Policies::parse(none).unwrap().is_empty());
        }
    }

    #[test]
    fn wrong_policies_are_refused_by_kind() {
        let refused = |text: &str| Policies::parse(text).unwrap_err();
        assert_eq!(
            refused(r#"[{"Type":"Nonsense","Version":"1.0"}]"#),
            PolicyError::Type
        );
        assert!(matches!(
            refused(&format!("[{EXPIRATION},{EXPIRATION}]")),
            PolicyError::Incompatible(_)
        ));
        assert!(matches!(
            refused(&format!("[{NOTICE}]")),
            PolicyError::Incompatible(_)
        ));
        assert_eq!(
            refused(&format!("[{}]", [EXPIRATION; 11].join(","))),
            PolicyError::TooMany
        );
        for text in [
            "",
            "7",
            "[7]",
            &EXPIRATION.replace("2030-01-01T00:00:00.000Z", "tomorrow"),
            &EXPIRATION.replace("1.0", "2.0"),
            &EXPIRATION.replace("Timestamp", "Time"),
            &NO_CHANGE.replace("Hours", "Weeks"),
            &NO_CHANGE.replace("20", "-1"),
        ] {
            assert!(matches!(refused(text), PolicyError::Attribute(_)), "{text}");
        }
    }
}
