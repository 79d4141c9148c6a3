//! Names, paths and labels.

/// Levels of a hierarchy, the parameter's own included.
const MOST_LEVELS: usize = 15;
/// Characters of a name.
const MOST_CHARACTERS: usize = 1011;
/// Characters of a label.
const MOST_LABEL_CHARACTERS: usize = 100;

/// Why a parameter cannot be called that.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NameError {
    #[error("No access to reserved parameter name: {0}.")]
    Reserved(String),
    #[error(
        "Parameter name: can't be prefixed with \"ssm\" (case-insensitive). If formed as a path, it can consist of \
         sub-paths divided by slash symbol; each sub-path can be formed as a mix of letters, numbers and the following \
         3 symbols .-_"
    )]
    Form,
    #[error("Parameter name must be a fully qualified name.")]
    NotQualified,
    #[error("Parameter name must have at most {MOST_CHARACTERS} characters.")]
    Long,
    #[error(
        "Hierarchies can have a maximum of {MOST_LEVELS} levels. The parameter's name has {0}: make it shorter and try \
         again."
    )]
    Levels(usize),
    #[error(
        "The parameter doesn't meet the parameter name requirements. The parameter name must begin with a forward slash \
         \"/\". It can't be prefixed with \"aws\" or \"ssm\" (case-insensitive). It must use only letters, numbers, or \
         the following symbols: . (period), - (hyphen), _ (underscore). Special characters are not allowed. All \
         sub-paths, if specified, must use the forward slash symbol \"/\". Valid example: /get/parameters2-/by1./path0_."
    )]
    Path,
}

/// Whether a parameter may be called that. A name with a slash is a path, and begins with one.
pub(crate) fn check_name(name: &str) -> Result<(), NameError> {
    let levels = name.strip_prefix('/').unwrap_or(name);
    if starts_with_word(levels, "aws") {
        return Err(NameError::Reserved(name.to_owned()));
    }
    if starts_with_word(levels, "ssm") || !levels.split('/').all(is_level) {
        return Err(NameError::Form);
    }
    if levels.contains('/') && !name.starts_with('/') {
        return Err(NameError::NotQualified);
    }
    if name.chars().count() > MOST_CHARACTERS {
        return Err(NameError::Long);
    }
    match levels.split('/').count() {
        count if count > MOST_LEVELS => Err(NameError::Levels(count)),
        _ => Ok(()),
    }
}

/// The path of a hierarchy: `/`, `/a/b` or `/a/b/`. Returns it with a slash at its end.
pub(crate) fn check_path(path: &str) -> Result<String, NameError> {
    let levels = path.strip_prefix('/').ok_or(NameError::Path)?;
    let levels = levels.strip_suffix('/').unwrap_or(levels);
    if levels.is_empty() && path.len() <= 1 {
        return Ok("/".to_owned());
    }
    if levels.split('/').all(is_level) && path.chars().count() <= MOST_CHARACTERS {
        return Ok(format!("/{levels}/"));
    }
    Err(NameError::Path)
}

/// Whether a parameter is in a hierarchy, whose path ends with a slash. Names without one are directly below the root.
pub(crate) fn is_below(name: &str, path: &str, is_recursive: bool) -> bool {
    let rest = match name.strip_prefix(path) {
        Some(rest) => rest,
        None if path == "/" => name,
        None => return false,
    };
    is_recursive || !rest.contains('/')
}

/// Whether a label may be that.
pub(crate) fn check_label(label: &str) -> bool {
    let begins_with_digit = label.starts_with(|first: char| first.is_ascii_digit());
    is_level(label)
        && label.len() <= MOST_LABEL_CHARACTERS
        && !begins_with_digit
        && !starts_with_word(label, "aws")
        && !starts_with_word(label, "ssm")
}

fn is_level(level: &str) -> bool {
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    !level.is_empty() && level.chars().all(is_allowed)
}

fn starts_with_word(text: &str, word: &str) -> bool {
    text.get(..word.len())
        .is_some_and(|start| start.eq_ignore_ascii_case(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked_as_documented() {
        for name in ["a", "/a", "/a/b.c-d_e", "db", &"x".repeat(1011)] {
            assert_eq!(check_name(name), Ok(()), "{name}");
        }
        let levels = |count| "/x".repeat(count);
        assert_eq!(check_name(&levels(15)), Ok(()));
        for (name, error) in [
            ("aws-x", NameError::Reserved("aws-x".to_owned())),
            ("/AWS/x", NameError::Reserved("/AWS/x".to_owned())),
            ("ssm.x", NameError::Form),
            ("/SSM/x", NameError::Form),
            ("a b", NameError::Form),
            ("", NameError::Form),
            ("/", NameError::Form),
            ("/a/", NameError::Form),
            ("//a", NameError::Form),
            ("a:1", NameError::Form),
            ("ä", NameError::Form),
            ("a/b", NameError::NotQualified),
            (&"x".repeat(1012), NameError::Long),
            (&levels(16), NameError::Levels(16)),
        ] {
            assert_eq!(check_name(name), Err(error), "{name}");
        }
    }

    #[test]
    fn a_path_is_a_hierarchy() {
        for (path, checked) in [("/", "/"), ("/a", "/a/"), ("/a/b/", "/a/b/")] {
            assert_eq!(check_path(path).as_deref(), Ok(checked));
        }
        for path in ["", "a", "//", "/a//b", "/a b", "/a:1"] {
            assert_eq!(check_path(path), Err(NameError::Path), "{path}");
        }
        assert!(is_below("/a/b", "/a/", false));
        assert!(!is_below("/a/b/c", "/a/", false) && is_below("/a/b/c", "/a/", true));
        assert!(!is_below("/ab", "/a/", true) && !is_below("/a", "/a/", true));
        assert!(is_below("a", "/", false) && is_below("/a", "/", false) && !is_below("/a/b", "/", false));
    }

    #[test]
    fn labels_are_checked_as_documented() {
        for label in ["prod", "v1.0-rc_2", "_x", &"x".repeat(100)] {
            assert!(check_label(label), "{label}");
        }
        for label in ["", "1", "aws", "SSMx", "a b", "a/b", "a:b", &"x".repeat(101)] {
            assert!(!check_label(label), "{label}");
        }
    }
}
