use proptest::prelude::*;

use super::{
    super::{Claim, SignatureError},
    *,
};

const NOW: u64 = 1_795_327_722_000;
const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";

fn credentials(session_token: Option<&str>) -> Credentials {
    Credentials {
        access_key_id: "AKIDEXAMPLE".to_owned(),
        secret_access_key: SECRET.to_owned(),
        session_token: session_token.map(str::to_owned),
    }
}

fn signature(headers: &[(String, String)]) -> &str {
    let (name, value) = headers.last().unwrap();
    assert_eq!(name, "authorization");
    value.split_once("Signature=").unwrap().1
}

/// Expected values: botocore 1.43.11, `SigV4Auth`.
#[test]
fn signs_like_botocore() {
    let scope = SigningScope {
        region: "eu-central-1",
        service: "ssm",
        unix_millis: NOW,
    };
    let headers = [
        ("Host", "ssm.example.test:8443"),
        ("Content-Type", "application/x-amz-json-1.1"),
        ("X-Amz-Target", "AmazonSSM.SendCommand"),
    ];
    let body = br#"{"DocumentName":"x"}"#;
    let request = SignableRequest {
        method: "POST",
        uri: "/",
        headers: &headers,
        body,
    };
    let added = sign(&request, &scope, &credentials(Some("tok/en==")));
    let expected = [
        ("x-amz-date", "20261122T060842Z"),
        ("x-amz-security-token", "tok/en=="),
        (
            "authorization",
            "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20261122/eu-central-1/ssm/aws4_request, \
             SignedHeaders=content-type;host;x-amz-date;x-amz-security-token;x-amz-target, \
             Signature=bd57096b0af6266e5c7d36b6386afbec6940eaa58267ccf9a245edeedba36bd4",
        ),
    ];
    assert_eq!(
        added,
        expected.map(|(name, value)| (name.to_owned(), value.to_owned()))
    );

    let scope = SigningScope {
        service: "ssmmessages",
        ..scope
    };
    let request = SignableRequest {
        method: "GET",
        uri: "/v1/data-channel/u@x%20y?role=publish_subscribe&cell-number=AA%2F1&a",
        headers: &[("host", "h.test")],
        body: b"",
    };
    let added = sign(&request, &scope, &credentials(None));
    assert_eq!(added.len(), 2);
    assert_eq!(
        signature(&added),
        "4710baea8b6928718809871ce1a825cc72db21132d4eb1f7bf6c2025a11f080c"
    );
}

/// Expected values: botocore 1.43.11, `S3SigV4Auth`.
#[test]
fn signs_requests_of_s3_like_botocore() {
    let scope = SigningScope {
        region: "eu-central-1",
        service: "s3",
        unix_millis: NOW,
    };
    let nothing = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    let table = [
        (
            "bucket.s3.eu-central-1.amazonaws.com",
            "https://bucket.s3.eu-central-1.amazonaws.com/a%20b%2Bc%26%3D%C3%BC/~x.sh",
            "04ccc3bc204a15f17f8fcd42790c1287e695d5970af19c923d6dd465adf97235",
        ),
        (
            "127.0.0.1:9000",
            "http://127.0.0.1:9000/things?encoding-type=url&list-type=2&max-keys=500&prefix=folder%2F\
             &continuation-token=a%2Bb%3D",
            "dba91dcbed6f910eb1073169481552e3855b45390a13b70170678f69cc437f00",
        ),
    ];
    for (host, uri, expected) in table {
        let request = SignableRequest {
            method: "GET",
            uri,
            headers: &[("host", host), ("x-amz-content-sha256", nothing)],
            body: b"",
        };
        let added = sign(&request, &scope, &credentials(None));
        assert_eq!(signature(&added), expected, "{uri}");
    }
}

#[test]
fn stale_headers_of_a_signature_are_replaced() {
    let scope = SigningScope {
        region: "r",
        service: "ssm",
        unix_millis: NOW,
    };
    let plain = [("host", "h")];
    let stale = [
        ("host", "h"),
        ("X-Amz-Date", "old"),
        ("Authorization", "old"),
        ("x-amz-security-token", "old"),
    ];
    let of = |headers| {
        let request = SignableRequest {
            method: "GET",
            uri: "/",
            headers,
            body: b"",
        };
        sign(&request, &scope, &credentials(Some("t")))
    };
    assert_eq!(of(&plain), of(&stale));
}

#[test]
fn secrets_stay_out_of_debug_output() {
    let shown = format!("{:?}", credentials(Some("session-token")));
    assert!(shown.contains("AKIDEXAMPLE") && !shown.contains(SECRET) && !shown.contains("session-token"));
}

proptest! {
    #[test]
    fn what_is_signed_verifies(
        method in "(GET|POST|PUT)",
        path in "(/[ -~&&[^?# ]]{0,12}){0,4}",
        query in "[ -~&&[^# ]]{0,40}",
        values in prop::collection::vec("[ -~\t]{0,20}", 0..4),
        body in prop::collection::vec(any::<u8>(), 0..100),
        token in prop::option::of("[!-~]{1,30}"),
        skew in -900_000_i64..=900_000,
        flip in any::<prop::sample::Index>(),
    ) {
        let uri = format!("{path}?{query}");
        prop_assume!(!uri.contains("X-Amz-"));
        let names: Vec<String> = (0..values.len()).map(|n| format!("X-Header-{}", n % 3)).collect();
        let mut headers = vec![("Host", "example.test")];
        headers.extend(names.iter().map(String::as_str).zip(values.iter().map(String::as_str)));
        let request = SignableRequest { method: &method, uri: &uri, headers: &headers, body: &body };
        let scope = SigningScope { region: "eu-central-1", service: "ssm", unix_millis: NOW };
        let added = sign(&request, &scope, &credentials(token.as_deref()));
        let added: Vec<(&str, &str)> = added.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        let sent: Vec<(&str, &str)> = headers.iter().chain(&added).copied().collect();
        let request = SignableRequest { headers: &sent, ..request };

        let claim = Claim::parse(&request).unwrap();
        prop_assert_eq!(claim.session_token.as_deref(), token.as_deref());
        let now = NOW.checked_add_signed(skew).unwrap();
        prop_assert_eq!(claim.verify(&request, SECRET, now), Ok(()));
        prop_assert_eq!(claim.verify(&request, "another", now), Err(SignatureError::Mismatch));
        if !body.is_empty() {
            let mut changed = body.clone();
            changed[flip.index(body.len())] ^= 1;
            let request = SignableRequest { body: &changed, ..request };
            prop_assert_eq!(claim.verify(&request, SECRET, now), Err(SignatureError::Mismatch));
        }
    }
}
