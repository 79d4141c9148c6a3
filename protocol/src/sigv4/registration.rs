//! The signature of a node that has only its RSA key: SigV4's form, RSASSA-PSS over the string to sign
//! (agent-wire §2.5).

use base64::{Engine, engine::general_purpose::STANDARD};
use ring::signature::{RSA_PSS_2048_8192_SHA256, UnparsedPublicKey};

use super::{
    Claim, SignableRequest, SignatureError,
    canonical::{Scope, amz_date, sha256_hex},
    der::read_rsa_spki,
    request::Signing,
};

/// Both calls that a node signs so go to this service.
const SERVICE: &str = "ssm";
/// Sizes of a node's RSA key, in bits.
const KEY_BITS: std::ops::RangeInclusive<usize> = 2048..=4096;
/// Longest base64 text of a public key that is looked at. A 4096-bit key takes 736.
const MAX_KEY_TEXT_BYTES: usize = 2048;

/// Signs with the node's private key. `sign_pss` makes an RSASSA-PSS SHA-256 signature with a 32-byte salt of the
/// text it is given (the salt is random, so the caller does it). Returns the headers to add
/// (`X-Amz-Date`, `X-Amz-Content-Sha256`, `Authorization`).
///
/// Signed are, as the stock agent does it, `content-type`, `host`, `x-amz-date` and `x-amz-target`.
///
/// # Errors
/// What `sign_pss` says.
pub fn sign_registration<E>(
    request: &SignableRequest<'_>,
    instance_id: &str,
    region: &str,
    unix_millis: u64,
    sign_pss: impl FnOnce(&[u8]) -> Result<Vec<u8>, E>,
) -> Result<Vec<(String, String)>, E> {
    let amz_date = amz_date(unix_millis);
    let mut added = vec![("X-Amz-Date".to_owned(), amz_date.clone())];
    let signing = Signing::new(request, &added, |name| {
        matches!(name, "content-type" | "host" | "x-amz-target")
    });
    let scope = Scope::of(&amz_date, region, SERVICE);
    let signature = STANDARD.encode(sign_pss(signing.text(&scope).as_bytes())?);
    let authorization = signing.authorization(&scope, instance_id, &signature);
    added.push(("X-Amz-Content-Sha256".to_owned(), sha256_hex(request.body)));
    added.push(("Authorization".to_owned(), authorization));
    Ok(added)
}

/// Verifies against a public key: DER SubjectPublicKeyInfo, base64, as sent at registration.
///
/// # Errors
/// The key cannot be read, the signature does not match, or the clock differs by more than 15 minutes.
pub fn verify_registration(
    claim: &Claim,
    request: &SignableRequest<'_>,
    public_key_spki_base64: &str,
    now_unix_millis: u64,
) -> Result<(), SignatureError> {
    let text = claim.string_to_sign(request)?;
    let spki = decode_key(public_key_spki_base64).ok_or(SignatureError::Mismatch)?;
    let key = read_rsa_spki(&spki).ok_or(SignatureError::Mismatch)?;
    let signature = STANDARD
        .decode(&claim.signature)
        .map_err(|_| SignatureError::Mismatch)?;
    UnparsedPublicKey::new(&RSA_PSS_2048_8192_SHA256, key.pkcs1)
        .verify(text.as_bytes(), &signature)
        .map_err(|_| SignatureError::Mismatch)?;
    claim.check_time(now_unix_millis)
}

/// Whether this is the base64 of an RSA SubjectPublicKeyInfo of 2048 to 4096 bits: checked at registration.
pub fn is_rsa_public_key(public_key_spki_base64: &str) -> bool {
    decode_key(public_key_spki_base64)
        .and_then(|spki| read_rsa_spki(&spki).map(|key| KEY_BITS.contains(&key.modulus_bits)))
        .unwrap_or(false)
}

fn decode_key(base64: &str) -> Option<Vec<u8>> {
    if base64.len() > MAX_KEY_TEXT_BYTES {
        return None;
    }
    STANDARD.decode(base64).ok()
}

#[cfg(test)]
mod tests;
