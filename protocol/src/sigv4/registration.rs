//! The signature of a node that has only its RSA key: SigV4's form, RSASSA-PSS over the string to sign
//! (agent-wire §2.5).

use super::{Claim, SignableRequest, SignatureError};

/// Signs with the node's private key. `sign_pss` makes an RSASSA-PSS SHA-256 signature with a 32-byte salt of the
/// text it is given (the salt is random, so the caller does it). Returns the headers to add
/// (`X-Amz-Date`, `X-Amz-Content-Sha256`, `Authorization`).
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
    let _ = (request, instance_id, region, unix_millis, sign_pss);
    todo!()
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
    let _ = (claim, request, public_key_spki_base64, now_unix_millis);
    todo!()
}

/// Whether this is the base64 of an RSA SubjectPublicKeyInfo of 2048 to 4096 bits: checked at registration.
pub fn is_rsa_public_key(public_key_spki_base64: &str) -> bool {
    let _ = public_key_spki_base64;
    todo!()
}
