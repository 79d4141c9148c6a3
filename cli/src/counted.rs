//! Numbers of things, in words that agree with them.

use std::fmt::Display;

/// "1 node", "2 nodes".
pub(crate) fn counted<N: Display + PartialEq + From<u8> + Copy>(count: N, thing: &str) -> String {
    format!("{count} {thing}{}", agreeing(count, "", "s"))
}

/// The word for one, or the one for none and for several.
pub(crate) fn agreeing<N: PartialEq + From<u8>>(
    count: N,
    one: &'static str,
    many: &'static str,
) -> &'static str {
    match count == N::from(1) {
        true => one,
        false => many,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_one_and_none_and_several_are_many() {
        assert_eq!(counted(0_usize, "node"), "0 nodes");
        assert_eq!(counted(1_i32, "node"), "1 node");
        assert_eq!(counted(2_u64, "node"), "2 nodes");
        assert_eq!(
            (agreeing(1, "is", "are"), agreeing(0, "is", "are")),
            ("is", "are")
        );
    }
}
