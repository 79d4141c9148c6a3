//! What a client can do, by the version that it says it has (client-wire §5.2).

use std::cmp::Ordering;

/// From this one on clients multiplex.
const MULTIPLEXES_FROM: &str = "1.1.70";
/// Up to this one they close a multiplexed stream on which nothing comes.
const KEPT_ALIVE_UNTIL: &str = "1.2.331.0";

pub(super) fn multiplexes(version: &str) -> bool {
    compare(version, MULTIPLEXES_FROM) != Ordering::Less
}

pub(super) fn wants_keep_alive(version: &str) -> bool {
    compare(version, KEPT_ALIVE_UNTIL) != Ordering::Greater
}

/// Part by part, as numbers where both are, else as texts; with all parts the same, the longer is the newer.
fn compare(one: &str, other: &str) -> Ordering {
    let (mut left, mut right) = (one.split('.'), other.split('.'));
    loop {
        let order = match (left.next(), right.next()) {
            (None, None) => return Ordering::Equal,
            (None, Some(_)) => Ordering::Less,
            (Some(_), None) => Ordering::Greater,
            (Some(left), Some(right)) => match (left.parse::<u64>(), right.parse::<u64>()) {
                (Ok(left), Ok(right)) => left.cmp(&right),
                _ => left.cmp(right),
            },
        };
        if order != Ordering::Equal {
            return order;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_are_taken_for_what_stock_agents_take_them() {
        for (version, expected) in [
            ("1.1.70", true),
            ("1.1.70.0", true),
            ("1.1.69.9", false),
            ("1.2.0.0", true),
            ("1.10", true),
            ("2", true),
            ("0.0.1", false),
            ("", false),
            ("pyssm-client/0.1.0", true),
        ] {
            assert_eq!(multiplexes(version), expected, "{version}");
        }
        for (version, expected) in [
            ("1.2.331.0", true),
            ("1.2.332.0", false),
            ("1.2.764.0", false),
            ("1.2.54.0", true),
        ] {
            assert_eq!(wants_keep_alive(version), expected, "{version}");
        }
    }
}
