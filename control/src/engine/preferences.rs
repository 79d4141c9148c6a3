//! Session preferences: where they are, and whom a session runs as. docs/session-preferences.md tells it to operators.

/// The operator's tag with the user on the node that their sessions run as.
pub(crate) const RUN_AS_TAG: &str = "SSMSessionRunAs";

/// Longest name of a user: LOGIN_NAME_MAX of Linux without its NUL.
const MOST_USER_NAME_BYTES: usize = 255;

/// Whether a text can be the name of a user of a node. Names of directories (`user@domain`, `DOMAIN\user`) are.
pub(crate) fn is_user_name(name: &str) -> bool {
    let breaks = |c: char| c.is_control() || c.is_whitespace() || matches!(c, ':' | '/');
    (1..=MOST_USER_NAME_BYTES).contains(&name.len()) && !name.starts_with('-') && !name.contains(breaks)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_users_name_is_one_word_that_no_tool_takes_for_an_option_or_a_path() {
        for name in [
            "ops",
            "_www",
            "a.b-c",
            "user@example.com",
            "DOMAIN\\user",
            "jörg",
            &"x".repeat(255),
        ] {
            assert!(is_user_name(name), "{name}");
        }
        for name in ["", "-x", "a:b", "a/b", "a b", "a\0b", "a\nb", &"x".repeat(256)] {
            assert!(!is_user_name(name), "{name:?}");
        }
    }
}
