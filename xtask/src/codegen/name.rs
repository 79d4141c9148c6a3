//! From the model's names to Rust's.

/// `IPAddress` → `ip_address`, `OutputS3BucketName` → `output_s3_bucket_name`.
pub(crate) fn snake(name: &str) -> String {
    let chars: Vec<char> = name.chars().collect();
    let mut out = String::new();
    for (index, &c) in chars.iter().enumerate() {
        let before = index.checked_sub(1).and_then(|before| chars.get(before));
        let after = chars.get(index + 1);
        let starts_word = c.is_uppercase()
            && before.is_some_and(|before| {
                !before.is_uppercase() || after.is_some_and(|after| after.is_lowercase())
            });
        if starts_word {
            out.push('_');
        }
        out.push(c.to_ascii_lowercase());
    }
    out
}

/// The name of a field; keywords become raw identifiers.
pub(crate) fn field(name: &str) -> String {
    let name = snake(name);
    if ["type", "match", "ref", "use"].contains(&name.as_str()) {
        format!("r#{name}")
    } else {
        name
    }
}

/// `NON_COMPLIANT` → `NonCompliant`, `AWS::EC2::Instance` → `AwsEc2Instance`, `notconnected` → `Notconnected`.
pub(crate) fn variant(value: &str) -> String {
    let words = value
        .split(|c: char| !c.is_ascii_alphanumeric())
        .filter(|word| !word.is_empty());
    words
        .map(|word| {
            let shouts = !word.chars().any(|c| c.is_ascii_lowercase());
            let mut chars = word.chars();
            let first = chars.next().map(|c| c.to_ascii_uppercase()).into_iter();
            let rest = chars.map(|c| if shouts { c.to_ascii_lowercase() } else { c });
            first.chain(rest).collect::<String>()
        })
        .collect()
}

/// What serde's `rename_all = "PascalCase"` makes of a field.
pub(crate) fn pascal(field: &str) -> String {
    field.trim_start_matches("r#").split('_').map(variant).collect()
}

#[cfg(test)]
mod tests {
    use super::{pascal, snake, variant};

    #[test]
    fn names_become_those_of_rust() {
        assert_eq!(snake("IPAddress"), "ip_address");
        assert_eq!(snake("OutputS3BucketName"), "output_s3_bucket_name");
        assert_eq!(snake("valueSet"), "value_set");
        assert_eq!(variant("NON_COMPLIANT"), "NonCompliant");
        assert_eq!(variant("AWS::EC2::Instance"), "AwsEc2Instance");
        assert_eq!(variant("MacOS"), "MacOS");
        assert_eq!(pascal("r#type"), "Type");
        assert_eq!(pascal("ip_address"), "IpAddress");
    }
}
