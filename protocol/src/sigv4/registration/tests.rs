use proptest::prelude::*;
use ring::{
    rand::SystemRandom,
    signature::{RSA_PSS_SHA256, RsaKeyPair},
};

use super::*;

const NOW: u64 = 1_795_327_722_000;
/// Made for these tests, PKCS#1 as a node stores it (agent-wire §2.3).
const PRIVATE_KEY: &str = "\
    MIIEpAIBAAKCAQEAn7Eynim310ytQAawQI0ghsSMX3GNVR5wlBazubo/DNligOGtZKMJepbcd8aJAdyTqI70SQpGxY3cro+DF0knlVxluGtf\
    2fJ4UTri0ITFMUaCpRR9vcXlIzkOhSvh8Ta6wBhOe8cfLx6Nvj9Gi2zfrUDNH7DxsL1XgW9ZdxdXh7tLlCyxHvuJ7tGgnZlkkDucQGSg7/Py\
    CQ8sB0s8jSpPNjjyjteuZS7YANrTa9cC2NjoPvrVK+15+tqoq2lLiYmZFmkMgKWzbWia1iHf7H1S2jnM6d0DrrZ2uGLexjtk2StrR5pmKRxd\
    3KtVHcMjG9IZSoaRkuyLxFga8JWv+vhZhQIDAQABAoIBAAJhYOiuCx3/K02OUl4PKUio/fisPiTIxXluCM0zcASQHWF51U/wBQOm42/SB0r+\
    T6GOSlwbKZvnQr6QlOEp4Rh4xJ4y1FgKciDjC+xH/MWzw3dhFOpZXIWH/UxR4tY2ie+A5tnK4yjPv66LmrcYVXgFKvZjRYifaE8D6svIjsoo\
    pALpnZvkGt0yiXGj8XMAsvsQwyaBUQHJNW9IWTzoDOWKTtdE99ETDvF0CN9N7PI50DkYVf4hCn0eKGfWmwNLxToxbs2ICiHrtnwaHvlwU8pD\
    ZOigirpura0TBDveZfela073n1c3M9bITbQB91PvK06MInTk1O/jhV8HRrV4vm8CgYEA3N73EILdSvf5di6iK/dvLwdX0OkU8QBSeKYB/BM2\
    ZpgovK6H2Uu6PJiMoNXgeMaDX+U6FBXPJmHhPEn3VHkyTVIRSSW6/Jehk0vYGLWvKsTdvWFlEAD5qoKza3AxtrNBhOwGtfL+fDrsAWQTrWH+\
    uKMNBoGZqDYe2Oglr/i9BdMCgYEAuRdDRlSnDLOnVZmAGCSDRALYm35gTEuVNC56dcoyVDgSJ5LzinSarcY7MSkUlWeyDQaqo+BqNmplLHDM\
    cFDIyQMJVOH+iO8HDDNqfRb3IljQ+FX1JYBz8dOnMZc6cF7Vz+3zrSlentaeXVBE87iYRhPgHCILu7fSkddrzCLD1EcCgYEAj6Z0CckTJC8j\
    kDnEP9Qt++hKtRTjCdurx8wwfkIAn7lWxWC9+hXGiqKs0+5GkEaMK1Jq86U7lTsTwqJYuhgZHzDBDVH8y0vTSnmJkoiX5LklfoZZtI7t0ngv\
    OTE/JBRyCIF529yupx2rYTw1kA6sHGnvjsu7pCuO5IQX/ttIFQECgYA2C1TZdF5SlyKFHA0K/55UfYBB5uS3YlpuoiOfwSpw7O5gH8h85Q9F\
    LlyaPiSEe4LByvCIaT6aJPblwwnuwaffCcPvxQ1Nbn3gUiMF427F2Kkr2e16xccVFXf8QuwNY6OK0zATn8DBIGmdVZLMl1nfHG6TyF0kssgJ\
    TZ1sPbpwgQKBgQCiivh8IsWsq9kzweKEKBD/NDuFga8m7OzIHvbOZ1oh/Ev5mzS/RIf8Yh6iYqPSsh5vCI033ocI1T76+buEYOwZ6bDQwFQg\
    dBs6rhaYFQQhmEz42noXh5y+MJcU8+zzkFpivPKckz3Zv/7/LpAmXMOAQGgKXtkuHS5oKmOotlXRvw==";
const PUBLIC_KEY: &str = "\
    MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAn7Eynim310ytQAawQI0ghsSMX3GNVR5wlBazubo/DNligOGtZKMJepbcd8aJAdyT\
    qI70SQpGxY3cro+DF0knlVxluGtf2fJ4UTri0ITFMUaCpRR9vcXlIzkOhSvh8Ta6wBhOe8cfLx6Nvj9Gi2zfrUDNH7DxsL1XgW9ZdxdXh7tL\
    lCyxHvuJ7tGgnZlkkDucQGSg7/PyCQ8sB0s8jSpPNjjyjteuZS7YANrTa9cC2NjoPvrVK+15+tqoq2lLiYmZFmkMgKWzbWia1iHf7H1S2jnM\
    6d0DrrZ2uGLexjtk2StrR5pmKRxd3KtVHcMjG9IZSoaRkuyLxFga8JWv+vhZhQIDAQAB";
const PUBLIC_KEY_1024: &str = "\
    MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDVYMp4LASsF7jlsHVU4XUI21f42cbZ8fbSgs29+PFSLIUpStlzOqS2paO3TjBZyWBj9TGl\
    T85Ysyu9qKdid/g+L3s3U4+T4Sy9zRiBug93IzUlSVNRUBOthy7o/dJm2NXbCbv+XirclG/bh053oi164q8atEkPqS2t56i/8q7XLQIDAQAB";
const PUBLIC_KEY_4096: &str = "\
    MIICIjANBgkqhkiG9w0BAQEFAAOCAg8AMIICCgKCAgEAtsm0uKVxkpCRoHBiyXdVrk4Ss4we+lG9fFJ6ncPfeuPQdsVnpxcK2mxnW2Bq/wkH\
    dKp2eGA9ppJKKpbB8JIUbjtuXxJ/i8QFWpXZ6Nt/lJuHr4TaEnE1P0YF59/PLqaXabmXPiCdKLzZ6y/+LacC9SsYmHWmsso3Afw3nFy+mdrq\
    HakOX/tXdcQL4Km3VZvW04Wt7xmvjUmtYuK5DsjJqRmIJae4jknHgzK2Q5q34owt4z2OxiWYXbbJjXIMuI4QD4Xn84MgsMQUKSx2ROYkYr1V\
    0XlxcvOSUDkVZvecBIDHXmW45QR62r8+i1Zazp3Ta7HfJFcEfF3xZMTl9Qy7wiR5iT4x6wmDG/vStAoqFNWldhW87JYwvgl7MFz8rTP5Dh7e\
    qFIkArC1Pw/1TE1I6q1RYHoYps+MHcJYa2KOl5A0mf+e/0tlCDTQ3fw2VNUcqdVf6+Ohabn7IwvffTZ9JQvg3RgikSrIibDfen/uuKpNvbu+\
    yhb3brHBYLj+5XovQKbsxQanTqOmNyaV+5URkZcyHh5kmQOHif9zA5hCw1w3j6uXo/4q3M1VCzeTPDi+pnUl7UrirSxOgoMqF+vUKFpN+W/Z\
    dZzvHTnbr1NDq4jHmPy+SqlYQ6GY5Uk8FTGeBdXQkIB+Vy7YpzKqmJCrAJbeROnwlRdw59CdIgPaTbECAwEAAQ==";
const PUBLIC_KEY_EC: &str = "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEinJV21aYfd7ues3kbYwCaTNpg7tN1VGB\
    +Dpf6khJKeofYtZJOZZQXEmYO68mKiMMj6yVlU3nmB1PceFQafYuUQ==";

const HEADERS: [(&str, &str); 4] = [
    ("Host", "h:8443"),
    ("Content-Type", "application/x-amz-json-1.1"),
    ("X-Amz-Target", "AmazonSSM.RequestManagedInstanceRoleToken"),
    ("User-Agent", "agent"),
];

fn sign_pss(text: &[u8]) -> Result<Vec<u8>, ring::error::Unspecified> {
    let key = RsaKeyPair::from_der(&STANDARD.decode(PRIVATE_KEY).unwrap()).unwrap();
    let mut signature = vec![0; key.public().modulus_len()];
    key.sign(&RSA_PSS_SHA256, &SystemRandom::new(), text, &mut signature)?;
    Ok(signature)
}

#[test]
fn what_is_signed_verifies() {
    let body = br#"{"Fingerprint":"f"}"#;
    let request = SignableRequest {
        method: "POST",
        uri: "/",
        headers: &HEADERS,
        body,
    };
    let added = sign_registration(&request, "mi-0123456789abcdef0", "eu-central-1", NOW, sign_pss).unwrap();
    let names: Vec<&str> = added.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["X-Amz-Date", "X-Amz-Content-Sha256", "Authorization"]);
    assert!(added[2].1.starts_with(
        "AWS4-HMAC-SHA256 Credential=mi-0123456789abcdef0/20261122/eu-central-1/ssm/aws4_request, \
         SignedHeaders=content-type;host;x-amz-date;x-amz-target, Signature="
    ));

    let mut headers = HEADERS.to_vec();
    headers.extend(added.iter().map(|(name, value)| (name.as_str(), value.as_str())));
    let request = SignableRequest {
        headers: &headers,
        ..request
    };
    let claim = Claim::parse(&request).unwrap();
    assert_eq!(claim.access_key_id, "mi-0123456789abcdef0");
    assert_eq!(verify_registration(&claim, &request, PUBLIC_KEY, NOW), Ok(()));

    let mismatch = Err(SignatureError::Mismatch);
    assert_eq!(
        verify_registration(&claim, &request, PUBLIC_KEY_4096, NOW),
        mismatch
    );
    assert_eq!(verify_registration(&claim, &request, "no key", NOW), mismatch);
    let now = NOW + 900_001;
    let skewed = Err(SignatureError::Skewed { signed_at: NOW, now });
    assert_eq!(verify_registration(&claim, &request, PUBLIC_KEY, now), skewed);
    let other = SignableRequest {
        body: b"{}",
        ..request
    };
    assert_eq!(
        verify_registration(&claim, &other, PUBLIC_KEY, NOW),
        Err(SignatureError::BodyHash)
    );
    let other = SignableRequest {
        uri: "/other",
        ..request
    };
    assert_eq!(verify_registration(&claim, &other, PUBLIC_KEY, NOW), mismatch);
    let plain = Claim {
        signature: "no base64".to_owned(),
        ..claim
    };
    assert_eq!(verify_registration(&plain, &request, PUBLIC_KEY, NOW), mismatch);
}

#[test]
fn the_signer_says_what_went_wrong() {
    let request = SignableRequest {
        method: "POST",
        uri: "/",
        headers: &HEADERS,
        body: b"",
    };
    let failed = sign_registration(&request, "mi-0123456789abcdef0", "r", NOW, |_| Err("no key"));
    assert_eq!(failed, Err("no key"));
}

#[test]
fn public_keys() {
    assert!(is_rsa_public_key(PUBLIC_KEY));
    assert!(is_rsa_public_key(PUBLIC_KEY_4096));
    for key in [
        PUBLIC_KEY_1024,
        PUBLIC_KEY_EC,
        "",
        "AAAA",
        "no base64",
        PRIVATE_KEY,
    ] {
        assert!(!is_rsa_public_key(key), "{key}");
    }
    let der = STANDARD.decode(PUBLIC_KEY).unwrap();
    let trailing = STANDARD.encode([der.as_slice(), &[0]].concat());
    assert!(!is_rsa_public_key(&trailing));
    for length in 0..der.len() {
        assert!(!is_rsa_public_key(&STANDARD.encode(&der[..length])), "{length}");
    }
    let even_exponent = [&der[..der.len() - 1], &[0]].concat();
    assert!(!is_rsa_public_key(&STANDARD.encode(even_exponent)));
    assert!(!is_rsa_public_key(&"A".repeat(MAX_KEY_TEXT_BYTES + 4)));
}

proptest! {
    #[test]
    fn any_key_is_read_or_refused(
        bytes in prop::collection::vec(any::<u8>(), 0..400),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
    ) {
        is_rsa_public_key(&STANDARD.encode(bytes));
        let mut der = STANDARD.decode(PUBLIC_KEY).unwrap();
        for (at, byte) in damage {
            let at = at.index(der.len());
            der[at] = byte;
        }
        is_rsa_public_key(&STANDARD.encode(der));
    }
}
