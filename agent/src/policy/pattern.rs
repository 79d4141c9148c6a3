//! Patterns of names: `*` is any text, `?` one character, everything else itself.

use serde::Deserialize;

/// Longest pattern.
const MAX_BYTES: usize = 2048;

/// What names are compared with.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct Pattern(Vec<char>);

impl Pattern {
    /// Whether it means the whole name. Takes time in proportion to both lengths at most, whatever they hold.
    pub(super) fn matches(&self, name: &str) -> bool {
        let name: Vec<char> = name.chars().collect();
        let (mut at, mut position) = (0, 0);
        // Behind the last star, and what it has taken so far ends here.
        let mut star: Option<(usize, usize)> = None;
        while let Some(character) = name.get(position) {
            match self.0.get(at) {
                Some('*') => {
                    at += 1;
                    star = Some((at, position));
                }
                Some(wanted) if *wanted == '?' || wanted == character => {
                    at += 1;
                    position += 1;
                }
                _ => match star {
                    Some((behind, taken)) => {
                        at = behind;
                        position = taken + 1;
                        star = Some((behind, taken + 1));
                    }
                    None => return false,
                },
            }
        }
        self.0.iter().skip(at).all(|rest| *rest == '*')
    }
}

impl TryFrom<String> for Pattern {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.len() {
            0 => Err("a pattern must not be empty; * means everything".to_owned()),
            1..=MAX_BYTES => Ok(Self(text.chars().collect())),
            _ => Err(format!("a pattern has at most {MAX_BYTES} bytes")),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn matches(pattern: &str, name: &str) -> bool {
        Pattern::try_from(pattern.to_owned()).unwrap().matches(name)
    }

    #[test]
    fn a_pattern_means_the_whole_name() {
        for (pattern, name, expected) in [
            ("AWS-RunShellScript", "AWS-RunShellScript", true),
            ("AWS-RunShellScript", "AWS-RunShellScript2", false),
            ("AWS-*", "AWS-RunShellScript", true),
            ("AWS-*", "aws-x", false),
            ("*", "", true),
            ("?", "", false),
            ("?", "é", true),
            ("*Shell*", "AWS-RunShellScript", true),
            ("a*b*c", "abcbc", true),
            ("a*b*c", "abcb", false),
            ("arn:aws:iam::*:user/ops-?", "arn:aws:iam::1:user/ops-7", true),
            ("**", "x", true),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
        assert!(Pattern::try_from(String::new()).is_err());
    }

    #[test]
    fn a_pattern_that_would_take_for_ever_does_not() {
        assert!(!matches(&"*a".repeat(1000), &"a".repeat(999)));
    }

    proptest! {
        #[test]
        fn a_pattern_is_the_regular_expression_that_one_thinks_of(pattern in "[ab*?]{1,8}", name in "[ab]{0,10}") {
            let expression = pattern.replace('*', ".*").replace('?', ".");
            let expression = regex::Regex::new(&format!("^(?:{expression})$")).unwrap();
            prop_assert_eq!(matches(&pattern, &name), expression.is_match(&name));
        }
    }
}
