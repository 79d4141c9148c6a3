//! `{{ssm:NAME}}` in the parameters of a command (documents.md §1.4).

use std::{collections::BTreeMap, sync::LazyLock};

use moorline_protocol::document::MAX_INSERTED_BYTES;
use regex::{Captures, Regex};

/// A reference: its prefix and what it names.
static REFERENCE: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"\{\{ *(ssm|ssm-secure):([0-9A-Za-z_.:/-]+) *\}\}")
        .expect("the pattern is constant and tested")
});

/// What a reference stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Found {
    Text(String),
    /// Of a StringList: put in where the reference is a whole element of a list.
    List(Vec<String>),
}

/// Why a reference cannot be put in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ReferenceError {
    #[error("Input contains invalid parameters [{0}]")]
    Unknown(String),
    #[error("Parameter {0} of type StringList cannot be used as a String")]
    ListAsText(String),
    #[error("the parameters that are put in have more than {MAX_INSERTED_BYTES} bytes")]
    TooLong,
}

/// The references of one prefix (`ssm` or `ssm-secure`) in a text: name with selector, in order.
pub(crate) fn names_in<'a>(text: &'a str, prefix: &'a str) -> impl Iterator<Item = &'a str> {
    REFERENCE.captures_iter(text).filter_map(move |captures| {
        let (_, [found, name]) = captures.extract();
        (found == prefix).then_some(name)
    })
}

/// The texts of one parameter of a command with what its references stand for. What is put in is not looked at again.
pub(crate) fn replace(
    texts: &[String],
    is_list: bool,
    found: &BTreeMap<String, Found>,
) -> Result<Vec<String>, ReferenceError> {
    let mut replaced = Vec::with_capacity(texts.len());
    let mut left = MAX_INSERTED_BYTES;
    for text in texts {
        if is_list
            && let Some(name) = whole(text)
            && let Some(Found::List(items)) = found.get(name)
        {
            let length = items.iter().map(String::len).sum();
            left = left.checked_sub(length).ok_or(ReferenceError::TooLong)?;
            replaced.extend(items.iter().cloned());
            continue;
        }
        replaced.push(replaced_text(text, found, &mut left)?);
    }
    Ok(replaced)
}

/// What the only reference of a text names, if the text is nothing else.
fn whole(text: &str) -> Option<&str> {
    let captures = REFERENCE.captures(text)?;
    (captures[0].len() == text.len() && &captures[1] == "ssm")
        .then(|| captures.get(2).map(|name| name.as_str()))
        .flatten()
}

fn replaced_text(
    text: &str,
    found: &BTreeMap<String, Found>,
    left: &mut usize,
) -> Result<String, ReferenceError> {
    let mut refused = None;
    let replaced = REFERENCE.replace_all(text, |captures: &Captures<'_>| {
        let name = &captures[2];
        match found.get(name) {
            _ if &captures[1] != "ssm" => return captures[0].to_owned(),
            Some(Found::Text(value)) => match left.checked_sub(value.len()) {
                Some(rest) => {
                    *left = rest;
                    return value.clone();
                }
                None => refused = Some(ReferenceError::TooLong),
            },
            Some(Found::List(_)) => refused = Some(ReferenceError::ListAsText(name.to_owned())),
            None => refused = Some(ReferenceError::Unknown(name.to_owned())),
        }
        String::new()
    });
    match refused {
        None => Ok(replaced.into_owned()),
        Some(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found() -> BTreeMap<String, Found> {
        let list = vec!["a".to_owned(), "b".to_owned()];
        BTreeMap::from([
            ("/x".to_owned(), Found::Text("{{ssm:/x}} $1".to_owned())),
            ("/l:2".to_owned(), Found::List(list)),
        ])
    }

    fn replaced(text: &str, is_list: bool) -> Result<Vec<String>, ReferenceError> {
        replace(&[text.to_owned()], is_list, &found())
    }

    #[test]
    fn references_are_replaced_once() {
        assert_eq!(
            replaced("echo {{ ssm:/x }}!", false),
            Ok(vec!["echo {{ssm:/x}} $1!".to_owned()])
        );
        for other in ["{{\tssm:/x}}", "{{ssm:}}", "{{ssm-secure:/x}}", "{{x}}"] {
            assert_eq!(replaced(other, false), Ok(vec![other.to_owned()]));
        }
        assert_eq!(
            replaced("{{ssm:/y}}", false),
            Err(ReferenceError::Unknown("/y".to_owned()))
        );
    }

    #[test]
    fn a_list_takes_the_place_of_a_whole_element_of_a_list_only() {
        assert_eq!(
            replaced("{{ssm:/l:2}}", true),
            Ok(vec!["a".to_owned(), "b".to_owned()])
        );
        for (text, is_list) in [("{{ssm:/l:2}}", false), ("x {{ssm:/l:2}}", true)] {
            let refused = Err(ReferenceError::ListAsText("/l:2".to_owned()));
            assert_eq!(replaced(text, is_list), refused);
        }
    }

    #[test]
    fn a_small_text_does_not_become_a_large_one_without_bound() {
        let found = BTreeMap::from([("x".to_owned(), Found::Text("v".repeat(8192)))]);
        let refused = replace(&["{{ssm:x}}".repeat(200)], false, &found);
        assert_eq!(refused, Err(ReferenceError::TooLong));
    }

    #[test]
    fn each_prefix_has_its_names() {
        let text = "{{ssm:/a:1}} {{ ssm-secure:/b }} {{ssm:c}}";
        assert_eq!(names_in(text, "ssm").collect::<Vec<_>>(), ["/a:1", "c"]);
        assert_eq!(names_in(text, "ssm-secure").collect::<Vec<_>>(), ["/b"]);
    }
}
