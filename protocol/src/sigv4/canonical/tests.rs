use std::time::{Duration, UNIX_EPOCH};

use aws_sigv4::sign::v4::{calculate_signature, generate_signing_key};
use proptest::prelude::*;

use super::*;

#[test]
fn paths() {
    let cases = [
        ("", "/", "/"),
        ("/", "/", "/"),
        (
            "/v1/data-channel/s-1",
            "/v1/data-channel/s-1",
            "/v1/data-channel/s-1",
        ),
        ("/a%20b/c@d", "/a%2520b/c%40d", "/a%20b/c@d"),
        ("//a/./b/../c//", "/a/c/", "//a/./b/../c//"),
        ("/a/..", "/", "/a/.."),
        ("/../..", "/", "/../.."),
        ("/ä", "/%C3%A4", "/%C3%A4"),
    ];
    for (path, expected, expected_s3) in cases {
        assert_eq!(canonical_path(path, "ssm"), expected, "{path}");
        assert_eq!(canonical_path(path, "s3"), expected_s3, "{path}");
    }
}

#[test]
fn queries() {
    let cases = [
        ("", ""),
        ("encryption=", "encryption="),
        ("encryption", "encryption="),
        ("stream=input&role=subscribe", "role=subscribe&stream=input"),
        ("b=2&a=b&a=a&&A=1", "A=1&a=a&a=b&b=2"),
        ("a=b%2fc+d~%zz%", "a=b%2Fc%20d~%25zz%25"),
        ("a=1&X-Amz-Signature=ff&X-Amz-Date=x", "X-Amz-Date=x&a=1"),
        ("a=b=c", "a=b%3Dc"),
        // sorted as encoded, where `%` comes before letters
        ("a=x&%C3%A4=y&a%20=z", "%C3%A4=y&a=x&a%20=z"),
    ];
    for (query, expected) in cases {
        assert_eq!(canonical_query(query), expected, "{query}");
    }
}

#[test]
fn uris() {
    assert_eq!(split_uri("/a?b=c"), ("/a", "b=c"));
    assert_eq!(split_uri("https://host:1/a?b=c#d"), ("/a", "b=c"));
    assert_eq!(split_uri("wss://host"), ("/", ""));
    assert_eq!(split_uri("wss://host?b"), ("", "b"));
    assert_eq!(split_uri("/a?b=http://x/y"), ("/a", "b=http://x/y"));
}

#[test]
fn headers_fold() {
    let headers = [("Host", " h "), ("X-A", "1  2\t3"), ("x-a", "4"), ("Other", "5")];
    let request = SignableRequest {
        method: "GET",
        uri: "/",
        headers: &headers,
        body: b"",
    };
    let names = ["host".to_owned(), "x-a".to_owned()];
    assert_eq!(
        canonical_headers(&request, &names).unwrap(),
        "host:h\nx-a:1 2 3,4\n"
    );
    assert_eq!(canonical_headers(&request, &["content-type".to_owned()]), None);
}

#[test]
fn dates() {
    assert_eq!(amz_date(1_795_327_722_999), "20261122T060842Z");
    assert_eq!(parse_amz_date("20261122T060842Z"), Some(1_795_327_722_000));
    assert_eq!(amz_date(u64::MAX), amz_date(i64::MAX.unsigned_abs()));
    let wrong = [
        "",
        "20261122T060842",
        "20261122T060842z",
        "20261122t060842Z",
        "20261322T060842Z",
        "20260230T060842Z",
        "20261122T250842Z",
        "20261122T06084ZZ",
        "+0261122T060842Z",
        "20261122T0+0842Z",
        "19690101T000000Z",
        "20261122T060842ZZ",
        "2026112T2060842Z",
        "ä261122T060842Z",
    ];
    for text in wrong {
        assert_eq!(parse_amz_date(text), None, "{text}");
    }
}

#[test]
fn hex_text() {
    assert_eq!(hex(&[0, 0xab, 0xff]), "00abff");
    assert_eq!(unhex("00aBFf"), Some(vec![0, 0xab, 0xff]));
    for text in ["0", "0g", "ä", "+1"] {
        assert_eq!(unhex(text), None, "{text}");
    }
}

proptest! {
    #[test]
    fn dates_read_back(seconds in 0_u64..253_402_000_000) {
        prop_assert_eq!(parse_amz_date(&amz_date(seconds * 1000)), Some(seconds * 1000));
    }

    /// The key and the signature of the SDK.
    #[test]
    fn keys_are_those_of_the_sdk(
        secret in "\\PC{0,80}", region in "[a-z0-9-]{1,20}", service in "[a-z0-9]{1,12}",
        seconds in 0_u64..4_000_000_000, text in "\\PC{0,100}",
    ) {
        let amz_date = amz_date(seconds * 1000);
        let key = Scope::of(&amz_date, &region, &service).signing_key(&secret);
        let time = UNIX_EPOCH + Duration::from_secs(seconds);
        let sdk_key = generate_signing_key(&secret, time, &region, &service);
        prop_assert_eq!(
            hex(hmac::sign(&key, text.as_bytes()).as_ref()),
            calculate_signature(sdk_key, text.as_bytes())
        );
    }

    #[test]
    fn any_text_has_a_canonical_form(uri in "\\PC{0,60}", percent in "[/?&=%+.0-9a-f:]{0,40}") {
        for uri in [&uri, &percent] {
            let (path, query) = split_uri(uri);
            let path = canonical_path(path, "ssm");
            prop_assert!(path.starts_with('/') && path.is_ascii());
            prop_assert!(canonical_query(query).is_ascii());
        }
    }
}
