//! The idiom of keys and values that the Describe and List operations share.

use crate::store::Tags;

/// `tag:KEY` with values, or `tag-key` with keys. `None`: the filter is of another kind.
pub(super) fn matches_tags(key: &str, values: &[String], tags: &Tags) -> Option<bool> {
    if key == "tag-key" {
        return Some(values.iter().any(|wanted| tags.contains_key(wanted)));
    }
    let wanted = key.strip_prefix("tag:")?;
    Some(tags.get(wanted).is_some_and(|value| values.contains(value)))
}

/// Whether a value is among those asked for; something unset is equal to nothing.
pub(super) fn matches_value(values: &[String], actual: Option<&str>) -> bool {
    actual.is_some_and(|actual| values.iter().any(|wanted| wanted == actual))
}
