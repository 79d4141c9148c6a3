//! `NAME`, `NAME:VERSION`, `NAME:LABEL`, or an ARN in place of the name.

use super::without_arn;

/// Which version of a parameter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Selector {
    Latest,
    Version(i64),
    Label(String),
}

impl Selector {
    /// As replies have it: `:3`, `:prod`.
    pub(crate) fn text(&self) -> Option<String> {
        match self {
            Self::Latest => None,
            Self::Version(version) => Some(format!(":{version}")),
            Self::Label(label) => Some(format!(":{label}")),
        }
    }
}

/// A parameter in one of its versions, as a request calls it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Selected {
    pub(crate) name: String,
    pub(crate) selector: Selector,
}

impl Selected {
    /// `None`: more than one selector, or an empty one.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let name = without_arn(text);
        let Some((name, selector)) = name.split_once(':') else {
            return Some(Self {
                name,
                selector: Selector::Latest,
            });
        };
        let is_number = !selector.is_empty() && selector.bytes().all(|byte| byte.is_ascii_digit());
        let selector = match selector.parse() {
            Ok(version) if is_number => Selector::Version(version),
            _ if is_number || selector.is_empty() || selector.contains(':') => return None,
            _ => Selector::Label(selector.to_owned()),
        };
        Some(Self {
            name: name.to_owned(),
            selector,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_selector_is_a_number_or_a_label() {
        let parsed = |text| Selected::parse(text).map(|selected| selected.selector.text());
        assert_eq!(parsed("/a/b"), Some(None));
        assert_eq!(parsed("a:3"), Some(Some(":3".to_owned())));
        assert_eq!(parsed("a:prod"), Some(Some(":prod".to_owned())));
        for text in ["a:", "a:1:2", "a:prod:x", "a:99999999999999999999"] {
            assert_eq!(Selected::parse(text), None, "{text}");
        }
    }
}
