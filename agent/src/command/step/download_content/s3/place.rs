//! How documents call objects of S3.

/// A bucket, and a key in it; an empty key is the whole bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) bucket: String,
    pub(super) key: String,
    /// Where the URL says it.
    pub(super) region: Option<String>,
    /// Amazon's, where the URL names one of its other domains.
    domain: Option<String>,
}

const DOMAINS: [&str; 2] = ["amazonaws.com.cn", "amazonaws.com"];

impl Place {
    /// Reads `s3://BUCKET/KEY`, an URL of Amazon's with the bucket in its host or its path, or one of the owner's own
    /// server with the bucket in its path.
    pub(super) fn parse(path: &str, endpoint: &str) -> Result<Self, String> {
        let invalid = || format!("invalid S3 path parameter: {path:?}");
        if let Some(rest) = path.strip_prefix("s3://") {
            let (bucket, key) = rest.split_once('/').unwrap_or((rest, ""));
            return Self::new(bucket, key.to_owned(), None, None).ok_or_else(invalid);
        }
        let endpoint = endpoint.trim_end_matches('/');
        let own = path
            .strip_prefix(endpoint)
            .and_then(|rest| rest.strip_prefix('/'));
        if let Some(rest) = own.filter(|_| !endpoint.is_empty()) {
            let (bucket, key) = rest.split_once('/').unwrap_or((rest, ""));
            return Self::new(bucket, decoded(key), None, None).ok_or_else(invalid);
        }
        let rest = path.strip_prefix("https://").ok_or_else(invalid)?;
        let rest = rest.split(['?', '#']).next().unwrap_or_default();
        let (host, rest) = rest.split_once('/').unwrap_or((rest, ""));
        let host = host.to_ascii_lowercase();
        let domain = DOMAINS
            .into_iter()
            .find(|domain| host.ends_with(&format!(".{domain}")))
            .ok_or_else(invalid)?;
        let front = host
            .strip_suffix(domain)
            .unwrap_or_default()
            .trim_end_matches('.');
        // `s3`, `s3-REGION`, `s3.REGION`, `s3.dualstack.REGION`, behind a bucket or not.
        let labels: Vec<&str> = front.split('.').collect();
        let service = labels
            .iter()
            .rposition(|label| *label == "s3" || label.starts_with("s3-"));
        let service = service.ok_or_else(invalid)?;
        let (before, behind) = labels.split_at(service);
        let region = match behind {
            ["s3"] => None,
            ["s3", "dualstack", region] | ["s3", region] => Some((*region).to_owned()),
            [dashed] => dashed.strip_prefix("s3-").map(str::to_owned),
            _ => return Err(invalid()),
        };
        let domain = (domain != DOMAINS[1]).then(|| domain.to_owned());
        let place = if before.is_empty() {
            let (bucket, key) = rest.split_once('/').unwrap_or((rest, ""));
            Self::new(bucket, decoded(key), region, domain)
        } else {
            Self::new(&before.join("."), decoded(rest), region, domain)
        };
        place.ok_or_else(invalid)
    }

    fn new(bucket: &str, key: String, region: Option<String>, domain: Option<String>) -> Option<Self> {
        let is_bucket = (3..=63).contains(&bucket.len())
            && bucket
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_'));
        (is_bucket && !key.contains('\0')).then(|| Self {
            bucket: bucket.to_owned(),
            key,
            region,
            domain,
        })
    }

    /// The URL of the bucket at Amazon's. A bucket with dots in its name fits no certificate as a part of the host.
    pub(super) fn amazon_url(&self, region: &str) -> String {
        let domain = self.domain.as_deref().unwrap_or(DOMAINS[1]);
        match self.bucket.contains(['.', '_']) {
            true => format!("https://s3.{region}.{domain}/{}", self.bucket),
            false => format!("https://{}.s3.{region}.{domain}", self.bucket),
        }
    }
}

/// The text of a path: `%XX`, and `+` for a space as the original has it.
fn decoded(text: &str) -> String {
    percent_decoded(&text.replace('+', " "))
}

/// `%XX` as the byte that it is; anything else stays.
pub(super) fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, behind)) = rest.split_first() {
        let digits = behind
            .get(..2)
            .and_then(|digits| std::str::from_utf8(digits).ok());
        let byte = digits
            .filter(|digits| *first == b'%' && digits.bytes().all(|digit| digit.is_ascii_hexdigit()))
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match byte {
            Some(byte) => {
                bytes.push(byte);
                rest = behind.get(2..).unwrap_or_default();
            }
            None => {
                bytes.push(*first);
                rest = behind;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// As it stands in a URL that is signed: everything but letters, digits and `-._~` as `%XX`.
pub(super) fn encoded(text: &str, keeps_slashes: bool) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                encoded.push(char::from(byte));
            }
            b'/' if keeps_slashes => encoded.push('/'),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_are_called_in_every_way_in_which_amazon_does() {
        let table = [
            ("s3://bucket/a/b c+d", ("bucket", "a/b c+d", None)),
            ("s3://bucket", ("bucket", "", None)),
            (
                "https://s3.amazonaws.com/bucket/a/b+c%2Bd",
                ("bucket", "a/b c+d", None),
            ),
            (
                "https://s3-eu-west-1.amazonaws.com/bucket/a",
                ("bucket", "a", Some("eu-west-1")),
            ),
            (
                "https://s3.eu-west-1.amazonaws.com/bucket/",
                ("bucket", "", Some("eu-west-1")),
            ),
            (
                "https://s3.dualstack.eu-west-1.amazonaws.com/bucket/a",
                ("bucket", "a", Some("eu-west-1")),
            ),
            ("https://bucket.s3.amazonaws.com/a/b?x=y", ("bucket", "a/b", None)),
            (
                "https://my.bucket.s3.eu-west-1.amazonaws.com/a",
                ("my.bucket", "a", Some("eu-west-1")),
            ),
            (
                "https://bucket.s3.cn-north-1.amazonaws.com.cn/a",
                ("bucket", "a", Some("cn-north-1")),
            ),
            ("http://minio:9000/bucket/a%20b", ("bucket", "a b", None)),
        ];
        for (path, (bucket, key, region)) in table {
            let place = Place::parse(path, "http://minio:9000/").unwrap();
            assert_eq!(
                (place.bucket.as_str(), place.key.as_str()),
                (bucket, key),
                "{path}"
            );
            assert_eq!(place.region.as_deref(), region, "{path}");
        }
    }

    #[test]
    fn what_is_elsewhere_or_nothing_is_refused() {
        for path in [
            "s3:///key",
            "s3://b/key",
            "s3://bu cket/key",
            "https://example.com/bucket/key",
            "https://s3.amazonaws.com.example.com/bucket/key",
            "https://amazonaws.com/bucket/key",
            "https://ec2.eu-west-1.amazonaws.com/bucket/key",
            "http://s3.amazonaws.com/bucket/key",
            "https://s3.amazonaws.com/",
            "s3://bucket/a\0b",
            "/bucket/key",
        ] {
            let refused = Place::parse(path, "").unwrap_err();
            assert!(refused.contains("invalid S3 path parameter"), "{path}");
        }
    }

    #[test]
    fn a_key_reads_back_from_its_url_and_the_bucket_has_one() {
        let key = "a b/ü+%&=?#~";
        assert_eq!(percent_decoded(&encoded(key, true)), key);
        assert_eq!(encoded("a/b", false), "a%2Fb");
        let url = |path: &str, region: &str| Place::parse(path, "").unwrap().amazon_url(region);
        assert_eq!(
            url("s3://bucket/a", "eu-west-1"),
            "https://bucket.s3.eu-west-1.amazonaws.com"
        );
        assert_eq!(
            url("s3://my.bucket/a", "eu-west-1"),
            "https://s3.eu-west-1.amazonaws.com/my.bucket"
        );
        let in_china = "https://bucket.s3.cn-north-1.amazonaws.com.cn/a";
        assert_eq!(
            url(in_china, "cn-north-1"),
            "https://bucket.s3.cn-north-1.amazonaws.com.cn"
        );
    }
}
