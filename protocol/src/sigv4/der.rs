//! Just enough DER to take an RSA public key out of its SubjectPublicKeyInfo (RFC 5280 §4.1, RFC 8017 A.1.1).
//! Strict: one encoding per value, nothing left over.

const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const SEQUENCE: u8 = 0x30;
/// OBJECT IDENTIFIER rsaEncryption (1.2.840.113549.1.1.1), then NULL.
const RSA_ENCRYPTION: &[u8] = &[
    0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00,
];

/// An RSA public key.
pub(super) struct RsaPublicKey<'a> {
    /// The PKCS#1 `RSAPublicKey`, DER.
    pub(super) pkcs1: &'a [u8],
    pub(super) modulus_bits: usize,
}

/// `None` for anything but exactly one RSA SubjectPublicKeyInfo.
pub(super) fn read_rsa_spki(der: &[u8]) -> Option<RsaPublicKey<'_>> {
    let spki = only(der, SEQUENCE)?;
    let (algorithm, spki) = value(spki, SEQUENCE)?;
    let key = only(spki, BIT_STRING)?;
    let (unused_bits, pkcs1) = key.split_first()?;
    if algorithm != RSA_ENCRYPTION || *unused_bits != 0 {
        return None;
    }
    let numbers = only(pkcs1, SEQUENCE)?;
    let (modulus, numbers) = value(numbers, INTEGER)?;
    let modulus = positive(modulus)?;
    let exponent = positive(only(numbers, INTEGER)?)?;
    // ring takes exponents from 3 to 2^33 - 1; an even one cannot be of RSA
    let exponent_is_odd = exponent.last()? & 1 == 1;
    if exponent == [1] || !exponent_is_odd || exponent.len() > 4 {
        return None;
    }
    let leading_zeros = usize::try_from(modulus.first()?.leading_zeros()).ok()?;
    let modulus_bits = modulus.len() * 8 - leading_zeros;
    Some(RsaPublicKey { pkcs1, modulus_bits })
}

/// One value of this tag, and what follows it.
fn value(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (&found, der) = der.split_first()?;
    let (&first, der) = der.split_first()?;
    let (length, der) = match first {
        0..=0x7f => (usize::from(first), der),
        0x81 => {
            let (&length, der) = der.split_first()?;
            (usize::from(length), der)
        }
        0x82 => {
            let (length, der) = der.split_first_chunk::<2>()?;
            (usize::from(u16::from_be_bytes(*length)), der)
        }
        _ => return None,
    };
    let shortest_form = match first {
        0x81 => length > 0x7f,
        0x82 => length > 0xff,
        _ => true,
    };
    (found == tag && shortest_form).then_some(())?;
    der.split_at_checked(length)
}

/// One value of this tag, with nothing after it.
fn only(der: &[u8], tag: u8) -> Option<&[u8]> {
    let (value, rest) = value(der, tag)?;
    rest.is_empty().then_some(value)
}

/// The magnitude of an integer above zero, without its sign byte.
fn positive(integer: &[u8]) -> Option<&[u8]> {
    match integer {
        [0, rest @ ..] if rest.first()? & 0x80 != 0 => Some(rest),
        [first, ..] if (1..0x80).contains(first) => Some(integer),
        _ => None,
    }
}
