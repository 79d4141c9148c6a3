//! A page of ListObjectsV2: the few elements that are needed of it. Keys are asked for in URL encoding, so no text has
//! an entity of XML in it that means something.

use super::place::percent_decoded;

/// Most of a page: 500 keys of 1,024 bytes, each byte as `%XX`, and what is around them.
pub(super) const MAX_BYTES: u64 = 2 * 1024 * 1024;

/// A page.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Listing {
    pub(super) keys: Vec<String>,
    /// Where the next page begins, if there is one.
    pub(super) next: Option<String>,
}

impl Listing {
    /// `None`: it is no such page.
    pub(super) fn parse(text: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(text).ok()?;
        if !text.contains("<ListBucketResult") {
            return None;
        }
        let keys = text
            .split("<Contents>")
            .skip(1)
            .map(|object| element(object, "Key").map(|key| percent_decoded(&key.replace('+', " "))))
            .collect::<Option<Vec<_>>>()?;
        let is_cut = element(text, "IsTruncated") == Some("true");
        let next = element(text, "NextContinuationToken").filter(|token| is_cut && !token.is_empty());
        Some(Self {
            keys,
            next: next.map(unescaped),
        })
    }
}

/// The text of the first element of this name.
fn element<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(&format!("<{name}>"))?;
    let (inner, _) = rest.split_once(&format!("</{name}>"))?;
    Some(inner)
}

/// A token is the server's own, and not in URL encoding.
fn unescaped(text: &str) -> String {
    [
        ("&lt;", "<"),
        ("&gt;", ">"),
        ("&quot;", "\""),
        ("&apos;", "'"),
        ("&amp;", "&"),
    ]
    .iter()
    .fold(text.to_owned(), |text, (entity, character)| {
        text.replace(entity, character)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_the_next_page_are_read() {
        let page = "<?xml version=\"1.0\"?>\n<ListBucketResult xmlns=\"x\"><IsTruncated>true</IsTruncated>\
            <Contents><Key>a/b%20c</Key><Size>1</Size></Contents><Contents><Key>a/d+e%3C</Key></Contents>\
            <NextContinuationToken>x&amp;y=</NextContinuationToken></ListBucketResult>";
        let expected = Listing {
            keys: vec!["a/b c".to_owned(), "a/d e<".to_owned()],
            next: Some("x&y=".to_owned()),
        };
        assert_eq!(Listing::parse(page.as_bytes()), Some(expected));
        let last = page.replace(">true<", ">false<");
        assert_eq!(Listing::parse(last.as_bytes()).unwrap().next, None);
        for other in [
            "",
            "<Error/>",
            "<ListBucketResult><Contents></Contents>",
            "\u{fffd}",
        ] {
            assert_eq!(Listing::parse(other.as_bytes()), None, "{other}");
        }
        assert_eq!(Listing::parse(&[0xff]), None);
    }
}
