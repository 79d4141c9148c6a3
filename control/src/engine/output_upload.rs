//! Bringing a command's output to a bucket: under which names, and when it is tried again.

use moorline_protocol::transcript::{OutputStep, OutputStream};

/// How often a bucket may refuse: over about three hours.
const MOST_ATTEMPTS: u32 = 12;
const FIRST_PAUSE_MILLIS: u64 = 5000;
const LONGEST_PAUSE_MILLIS: u64 = 60 * 60 * 1000;

/// A recording that is not there yet is waited for so long: as long as one is taken from a node.
const LONGEST_WAIT_MILLIS: u64 = 7 * 24 * 60 * 60 * 1000;
const SHORTEST_LOOK_MILLIS: u64 = 250;
const LONGEST_LOOK_MILLIS: u64 = 10 * 60 * 1000;

/// How long names of buckets are, in bytes.
const BUCKET_BYTES: std::ops::RangeInclusive<usize> = 3..=63;

/// When it is tried again after so many refusals; `None`: not any more.
pub(crate) fn retry_at(attempts: u32, now: u64) -> Option<u64> {
    if attempts >= MOST_ATTEMPTS {
        return None;
    }
    let pause = FIRST_PAUSE_MILLIS.saturating_mul(1 << attempts.saturating_sub(1).min(31));
    Some(now.saturating_add(pause.min(LONGEST_PAUSE_MILLIS)))
}

/// When to look again for the recording of what ended at `ended_at`: the longer it is away, the less often. `None`: it
/// does not come any more.
pub(crate) fn look_at(ended_at: u64, now: u64) -> Option<u64> {
    let age = now.saturating_sub(ended_at);
    let pause = (age / 4).clamp(SHORTEST_LOOK_MILLIS, LONGEST_LOOK_MILLIS);
    (age < LONGEST_WAIT_MILLIS).then(|| now.saturating_add(pause))
}

/// The name of an object (documents.md §1.17): `PREFIX/COMMAND/NODE/ACTION/STEP/stdout`, without colons in the last
/// parts. A step of schema 1.x has the name of its action, and is called `0.ACTION` there.
pub(crate) fn object_key(
    prefix: &str,
    (command, node): (&str, &str),
    step: &OutputStep,
    stream: OutputStream,
) -> String {
    let plain = |name: &str| name.replace([':', '/'], "");
    let action = plain(&step.action);
    let name = match step.name == step.action {
        true => format!("0.{action}"),
        false => plain(&step.name),
    };
    let mut parts = prefix_parts(prefix);
    parts.extend([command, node, &action, &name, stream.name()]);
    parts.join("/")
}

/// Empty parts mean nothing, as in the original.
fn prefix_parts(prefix: &str) -> Vec<&str> {
    prefix
        .split('/')
        .filter(|part| !part.is_empty() && *part != ".")
        .collect()
}

/// Why output cannot be brought to such a place. All of it becomes part of addresses that the endpoint calls.
pub(crate) fn unusable(bucket: &str, region: Option<&str>, prefix: &str) -> Option<String> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    if !BUCKET_BYTES.contains(&bucket.len()) || !bucket.bytes().all(is_plain) || bucket.starts_with('.') {
        return Some(format!("OutputS3BucketName: {bucket:?} is no name of a bucket"));
    }
    let is_of_region = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if let Some(region) = region.filter(|region| region.is_empty() || !region.bytes().all(is_of_region)) {
        return Some(format!("OutputS3Region: {region:?} is no region"));
    }
    prefix_parts(prefix)
        .into_iter()
        .find(|part| *part == ".." || part.chars().any(char::is_control))
        .map(|part| format!("OutputS3KeyPrefix: {part:?} cannot stand in the name of an object"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_has_the_name_that_the_original_gives_it() {
        let step = |name: &str, action: &str| OutputStep {
            name: name.to_owned(),
            action: action.to_owned(),
        };
        let shell = step("aws:runShellScript", "aws:runShellScript");
        for (prefix, step, stream, expected) in [
            (
                "",
                &shell,
                OutputStream::Output,
                "c/mi-1/awsrunShellScript/0.awsrunShellScript/stdout",
            ),
            (
                "/of//us/./",
                &shell,
                OutputStream::Errors,
                "of/us/c/mi-1/awsrunShellScript/0.awsrunShellScript/stderr",
            ),
            (
                "p",
                &step("a:b/c", "aws:downloadContent"),
                OutputStream::Output,
                "p/c/mi-1/awsdownloadContent/abc/stdout",
            ),
        ] {
            assert_eq!(object_key(prefix, ("c", "mi-1"), step, stream), expected);
        }
    }

    #[test]
    fn a_bucket_that_refuses_is_asked_less_and_less_and_then_no_more() {
        let mut now = 0;
        let mut pauses = Vec::new();
        let mut attempts = 1;
        while let Some(next) = retry_at(attempts, now) {
            pauses.push((next - now) / 1000);
            now = next;
            attempts += 1;
        }
        assert_eq!(pauses, [5, 10, 20, 40, 80, 160, 320, 640, 1280, 2560, 3600]);
    }

    #[test]
    fn a_recording_is_looked_for_as_long_as_one_is_taken() {
        assert_eq!(look_at(1000, 1000), Some(1250));
        assert_eq!(look_at(1000, 61_000), Some(76_000));
        assert_eq!(look_at(0, 24 * 3_600_000), Some(24 * 3_600_000 + 600_000));
        assert_eq!(look_at(0, LONGEST_WAIT_MILLIS), None);
    }

    #[test]
    fn a_place_that_would_lead_elsewhere_is_refused() {
        assert_eq!(unusable("output.of-us_1", Some("eu-central-1"), "a/b/ü c"), None);
        assert_eq!(unusable("output", None, ""), None);
        for (bucket, region, prefix) in [
            ("ab", "eu-central-1", ""),
            ("", "eu-central-1", ""),
            ("a/../b", "eu-central-1", ""),
            ("..a", "eu-central-1", ""),
            ("a?b=c", "eu-central-1", ""),
            (&"x".repeat(64), "eu-central-1", ""),
            ("bucket", "evil.example/", ""),
            ("bucket", "eu.central", ""),
            ("bucket", "", ""),
            ("bucket", "eu-central-1", "a/../b"),
            ("bucket", "eu-central-1", "a\nb"),
        ] {
            assert!(
                unusable(bucket, Some(region), prefix).is_some(),
                "{bucket} {region} {prefix}"
            );
        }
    }
}
