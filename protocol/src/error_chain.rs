//! An error as a line tells it.

use std::error::Error;

/// An error and its causes. A cause that was told already is left out: errors of many crates tell theirs themselves.
pub fn error_chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let told = cause.to_string();
        if !text.contains(&told) {
            text.push_str(": ");
            text.push_str(&told);
        }
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[derive(Debug, thiserror::Error)]
    enum Failed {
        #[error("failed to open the store")]
        Apart(#[source] Box<Self>),
        #[error("the server refused: {0}")]
        Within(#[source] io::Error),
    }

    #[test]
    fn each_cause_is_told_once() {
        let refused = Failed::Within(io::Error::other("no such bucket"));
        assert_eq!(
            error_chain(&Failed::Apart(Box::new(refused))),
            "failed to open the store: the server refused: no such bucket"
        );
    }
}
