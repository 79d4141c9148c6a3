use proptest::prelude::*;

use super::{
    super::{Credentials, SigningScope, canonical::sha256_hex, sign},
    *,
};

const NOW: u64 = 1_795_327_722_000;
const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
/// botocore 1.43.11, `SigV4QueryAuth`, 60 s.
const PRESIGNED: &str = "/v1/data-channel/s-1?role=publish_subscribe&X-Amz-Algorithm=AWS4-HMAC-SHA256\
    &X-Amz-Credential=AKIDEXAMPLE%2F20261122%2Feu-central-1%2Fssmmessages%2Faws4_request\
    &X-Amz-Date=20261122T060842Z&X-Amz-Expires=60&X-Amz-SignedHeaders=host\
    &X-Amz-Security-Token=tok%2Fen%3D%3D\
    &X-Amz-Signature=39b6095ffa6f50d6ef2caf012e9a3bff0422bd84a259e73cb39cb40a9a99c85a";

type Headers = Vec<(String, String)>;

fn get<'a>(uri: &'a str, headers: &'a [(&'a str, &'a str)]) -> SignableRequest<'a> {
    SignableRequest {
        method: "GET",
        uri,
        headers,
        body: b"",
    }
}

/// A signed POST.
fn signed(body: &[u8]) -> Headers {
    let mut headers: Headers = [("host", "h"), ("x-amz-target", "AmazonSSM.X")]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
    let borrowed = borrow(&headers);
    let request = SignableRequest {
        method: "POST",
        uri: "/",
        headers: &borrowed,
        body,
    };
    let scope = SigningScope {
        region: "r-1",
        service: "ssm",
        unix_millis: NOW,
    };
    let credentials = Credentials {
        access_key_id: "AKID".to_owned(),
        secret_access_key: SECRET.to_owned(),
        session_token: None,
    };
    let added = sign(&request, &scope, &credentials);
    headers.extend(added);
    headers
}

fn borrow(headers: &Headers) -> Vec<(&str, &str)> {
    headers
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect()
}

fn check(headers: &Headers, body: &[u8], now: u64) -> Result<(), SignatureError> {
    let headers = borrow(headers);
    let request = SignableRequest {
        method: "POST",
        uri: "/",
        headers: &headers,
        body,
    };
    Claim::parse(&request)?.verify(&request, SECRET, now)
}

#[test]
fn says_what_is_claimed() {
    let headers = signed(b"");
    let headers = borrow(&headers);
    let claim = Claim::parse(&SignableRequest {
        method: "POST",
        ..get("/", &headers)
    })
    .unwrap();
    assert_eq!(claim.access_key_id, "AKID");
    assert_eq!((claim.region.as_str(), claim.service.as_str()), ("r-1", "ssm"));
    assert_eq!((claim.signed_at, claim.session_token), (NOW, None));
    assert_eq!(claim.signed_headers, ["host", "x-amz-date", "x-amz-target"]);
}

#[test]
fn clocks_may_differ_by_a_quarter_of_an_hour() {
    let headers = signed(b"x");
    let skewed = |now| Err(Skewed { signed_at: NOW, now });
    for (offset, accepted) in [
        (0, true),
        (900_000, true),
        (900_001, false),
        (-900_000, true),
        (-900_001, false),
    ] {
        let now = NOW.checked_add_signed(offset).unwrap();
        let expected = if accepted { Ok(()) } else { skewed(now) };
        assert_eq!(check(&headers, b"x", now), expected, "{offset}");
    }
    assert_eq!(check(&headers, b"x", 0), skewed(0));
    assert_eq!(check(&headers, b"x", u64::MAX), skewed(u64::MAX));
    // a wrong signature is not told about the clock
    assert_eq!(check(&headers, b"y", 0), Err(Mismatch));
}

#[test]
fn a_presigned_request_lives_as_long_as_it_says() {
    let headers = [("Host", "h.test"), ("Upgrade", "websocket")];
    let request = get(PRESIGNED, &headers);
    let claim = Claim::parse(&request).unwrap();
    assert_eq!(claim.session_token.as_deref(), Some("tok/en=="));
    assert_eq!(claim.verify(&request, SECRET, NOW), Ok(()));
    assert_eq!(claim.verify(&request, SECRET, NOW + 60_000), Ok(()));
    let now = NOW + 60_001;
    assert_eq!(
        claim.verify(&request, SECRET, now),
        Err(Skewed { signed_at: NOW, now })
    );
    let now = NOW - 900_001;
    assert_eq!(
        claim.verify(&request, SECRET, now),
        Err(Skewed { signed_at: NOW, now })
    );

    let other = PRESIGNED.replace("publish_subscribe", "subscribe");
    assert_eq!(claim.verify(&get(&other, &headers), SECRET, NOW), Err(Mismatch));
    let post = SignableRequest {
        method: "POST",
        ..request
    };
    assert_eq!(
        Claim::parse(&post),
        Err(Incomplete("only a GET request can be presigned"))
    );
}

#[test]
fn a_presigned_request_needs_all_its_parameters() {
    let headers = [("host", "h.test")];
    for name in ["Credential", "Date", "Expires", "SignedHeaders", "Signature"] {
        let without = PRESIGNED.replace(&format!("X-Amz-{name}="), "other=");
        assert!(
            matches!(Claim::parse(&get(&without, &headers)), Err(Incomplete(_))),
            "{name}"
        );
        let twice = format!("{PRESIGNED}&X-Amz-{name}=x");
        assert!(
            matches!(Claim::parse(&get(&twice, &headers)), Err(Incomplete(_))),
            "{name}"
        );
    }
    for expires in ["0", "604801", "-1", "x", ""] {
        let uri = PRESIGNED.replace("X-Amz-Expires=60", &format!("X-Amz-Expires={expires}"));
        assert!(
            matches!(Claim::parse(&get(&uri, &headers)), Err(Incomplete(_))),
            "{expires}"
        );
    }
}

#[test]
fn unsigned_requests_are_told_from_incomplete_ones() {
    let parse = |authorization: &str| {
        let headers = [
            ("Host", "h"),
            ("X-Amz-Date", "20261122T060842Z"),
            ("Authorization", authorization),
        ];
        Claim::parse(&get("/", &headers)).map(|claim| claim.access_key_id)
    };
    assert_eq!(Claim::parse(&get("/?a=b", &[("Host", "h")])), Err(Missing));
    assert_eq!(parse("Bearer abc"), Err(Missing));
    assert_eq!(parse(""), Err(Missing));
    let scope = "20261122/r/ssm/aws4_request";
    let good = format!("AWS4-HMAC-SHA256 Credential=A/{scope},SignedHeaders=host,Signature=00");
    assert_eq!(parse(&good).as_deref(), Ok("A"));
    assert_eq!(parse(&good.replace(',', " ,  ")).as_deref(), Ok("A"));
    let bad = [
        good.replace("AWS4-HMAC-SHA256", "AWS4-ECDSA-P256-SHA256"),
        good.replace("Credential", "Other"),
        good.replace("SignedHeaders", "Other"),
        good.replace("Signature", "Other"),
        good.replace("A/2026", "/2026"),
        good.replace("A/20261122", "A/20261123"),
        good.replace("/ssm/", "//"),
        good.replace("/r/", "/r s/"),
        good.replace("aws4_request", "aws4_request/more"),
        good.replace("/aws4_request", ""),
        good.replace("=host", "=content-type"),
        good.replace("=host", "="),
        good.replace("=host", &format!("=host{}", ";x".repeat(64))),
        good.replace("A/", &format!("{}/", "A".repeat(129))),
        format!("{good},Signature=00"),
        format!("{good}{}", " ".repeat(9000)),
    ];
    for authorization in bad {
        assert!(
            matches!(parse(&authorization), Err(Incomplete(_))),
            "{authorization}"
        );
    }
}

#[test]
fn a_date_and_the_target_must_be_signed_for() {
    let headers = signed(b"");
    let without_date: Headers = headers
        .iter()
        .filter(|(name, _)| name != "x-amz-date")
        .cloned()
        .collect();
    assert_eq!(
        check(&without_date, b"", NOW),
        Err(Incomplete("there is no X-Amz-Date header"))
    );
    for name in ["x-amz-date", "authorization"] {
        let mut twice = headers.clone();
        twice.push((name.to_owned(), "20261122T060842Z".to_owned()));
        assert_eq!(
            check(&twice, b"", NOW),
            Err(Incomplete("a header of the signature stands twice"))
        );
    }
    let mut without_target = headers.clone();
    without_target.retain(|(name, _)| name != "x-amz-target");
    let absent = Err(Incomplete("a signed header is not in the request"));
    assert_eq!(check(&without_target, b"", NOW), absent);
    let mut unsigned_target = headers;
    for (name, value) in &mut unsigned_target {
        if name == "authorization" {
            *value = value.replace(";x-amz-target", "");
        }
    }
    let unsigned = Err(Incomplete("the x-amz-target header is not signed"));
    assert_eq!(check(&unsigned_target, b"", NOW), unsigned);
}

#[test]
fn a_stated_body_hash_must_be_right() {
    let with_hash = |hash: &str| {
        let mut headers = signed(b"body");
        headers.push(("X-Amz-Content-Sha256".to_owned(), hash.to_owned()));
        check(&headers, b"body", NOW)
    };
    assert_eq!(with_hash(&sha256_hex(b"body")), Ok(()));
    assert_eq!(with_hash(&sha256_hex(b"bodi")), Err(BodyHash));
    assert_eq!(with_hash("no hash"), Err(BodyHash));
    let unsigned = Err(Incomplete("the body is not signed"));
    assert_eq!(with_hash("UNSIGNED-PAYLOAD"), unsigned);
    assert_eq!(with_hash("STREAMING-AWS4-HMAC-SHA256-PAYLOAD"), unsigned);
}

#[test]
fn a_body_may_be_left_out_of_the_signature_only_where_that_is_permitted_and_said_in_what_is_signed() {
    let headers: Headers = [("host", "h"), ("x-amz-content-sha256", "UNSIGNED-PAYLOAD")]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
    let verified = |headers: &Headers, body: &[u8], permits: bool| {
        let headers = borrow(headers);
        let request = SignableRequest {
            method: "POST",
            body,
            ..get("/v1/transcript/s-1?offset=7", &headers)
        };
        let claim = Claim::parse(&request)?;
        let claim = match permits {
            true => claim.permitting_unsigned_body(),
            false => claim,
        };
        claim.verify(&request, SECRET, NOW)
    };
    let signed_over = |stated: &Headers, body: &[u8]| {
        let borrowed = borrow(stated);
        let request = SignableRequest {
            method: "POST",
            body,
            ..get("/v1/transcript/s-1?offset=7", &borrowed)
        };
        let scope = SigningScope {
            region: "r-1",
            service: "ssmmessages",
            unix_millis: NOW,
        };
        let credentials = Credentials {
            access_key_id: "AKID".to_owned(),
            secret_access_key: SECRET.to_owned(),
            session_token: None,
        };
        let mut headers = stated.clone();
        headers.extend(sign(&request, &scope, &credentials));
        headers
    };
    let unsigned = signed_over(&headers, b"one");
    assert_eq!(verified(&unsigned, b"one", true), Ok(()));
    assert_eq!(verified(&unsigned, b"another", true), Ok(()));
    let refused = Err(Incomplete("the body is not signed"));
    assert_eq!(verified(&unsigned, b"one", false), refused);
    // who comes in between cannot say it for a sender who signed the body
    let mut added = signed_over(&vec![("host".to_owned(), "h".to_owned())], b"one");
    assert_eq!(verified(&added, b"one", true), Ok(()));
    assert_eq!(verified(&added, b"another", true), Err(Mismatch));
    added.push(("x-amz-content-sha256".to_owned(), "UNSIGNED-PAYLOAD".to_owned()));
    assert_eq!(verified(&added, b"another", true), refused);
}

/// Some clients add the token after signing.
#[test]
fn an_unsigned_session_token_is_read() {
    let mut headers = signed(b"");
    headers.push(("X-Amz-Security-Token".to_owned(), "token".to_owned()));
    assert_eq!(check(&headers, b"", NOW), Ok(()));
    let headers = borrow(&headers);
    let claim = Claim::parse(&SignableRequest {
        method: "POST",
        ..get("/", &headers)
    })
    .unwrap();
    assert_eq!(claim.session_token.as_deref(), Some("token"));
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(
        authorization in "\\PC{0,100}",
        fields in "AWS4-HMAC-SHA256 (Credential=[A/a-z0-9_]{0,30},?|SignedHeaders=[a-z;]{0,9},?|Signature=\\PC{0,9},?){0,4}",
        date in "(20261122T060842Z|[0-9TZ]{0,18})",
        query in "(X-Amz-(Algorithm=AWS4-HMAC-SHA256|Credential=A/20261122/r/s/aws4_request|Date=20261122T060842Z\
                  |SignedHeaders=host|Expires=[0-9]{0,25}|Signature=\\PC{0,8})&){0,8}",
    ) {
        for authorization in [Some(&authorization), Some(&fields), None] {
            let mut headers = vec![("host", "h"), ("x-amz-date", date.as_str())];
            headers.extend(authorization.map(|value| ("authorization", value.as_str())));
            let uri = format!("/?{query}");
            let request = get(&uri, &headers);
            if let Ok(claim) = Claim::parse(&request) {
                prop_assert!(claim.verify(&request, SECRET, NOW).is_err());
            }
        }
    }
}
