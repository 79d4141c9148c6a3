//! Keys for many nodes. Making an RSA key takes a tenth of a second, nearly all of it for its two primes; each pair of a
//! few primes makes another key. Such keys share their primes and protect nothing.

use anyhow::{Context, Result};
use base64::{Engine, engine::general_purpose::STANDARD};
use ring::{
    rand::SystemRandom,
    signature::{RSA_PSS_SHA256, RsaKeyPair},
};
use rsa::{
    BigUint, RsaPrivateKey, RsaPublicKey,
    pkcs8::{EncodePrivateKey, EncodePublicKey},
    traits::{PrivateKeyParts, PublicKeyParts},
};

const BITS: usize = 2048;
const EXPONENT: u32 = 65_537;
/// Of two primes, one pair in some is a bit too short.
const SPARE: usize = 4;

/// A simulated node's key.
pub(super) struct NodeKey {
    pair: RsaKeyPair,
    /// Base64 of DER SubjectPublicKeyInfo.
    pub(super) public: String,
}

impl NodeKey {
    pub(super) fn sign_pss(&self, text: &[u8]) -> Result<Vec<u8>> {
        let mut signature = vec![0; self.pair.public().modulus_len()];
        self.pair
            .sign(&RSA_PSS_SHA256, &SystemRandom::new(), text, &mut signature)
            .ok()
            .context("the key does not sign")?;
        Ok(signature)
    }
}

/// Gives out keys, each once.
pub(super) struct NodeKeys {
    primes: Vec<BigUint>,
    next: (usize, usize),
}

impl NodeKeys {
    /// Enough primes for `count` keys.
    pub(super) fn generate(count: usize) -> Result<Self> {
        let mut primes: Vec<BigUint> = Vec::new();
        while primes.len() * primes.len().saturating_sub(1) / 2 < count * SPARE {
            let key = RsaPrivateKey::new(&mut rsa::rand_core::OsRng, BITS)?;
            primes.extend(key.primes().iter().cloned());
        }
        Ok(Self { primes, next: (1, 0) })
    }

    fn pair(&mut self) -> Option<(BigUint, BigUint)> {
        let (larger, smaller) = self.next;
        self.next = if smaller + 1 < larger {
            (larger, smaller + 1)
        } else {
            (larger + 1, 0)
        };
        Some((
            self.primes.get(larger)?.clone(),
            self.primes.get(smaller)?.clone(),
        ))
    }
}

impl Iterator for NodeKeys {
    type Item = Result<NodeKey>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let (p, q) = self.pair()?;
            match RsaPrivateKey::from_p_q(p, q, BigUint::from(EXPONENT)) {
                Ok(key) if key.n().bits() == BITS => return Some(node_key(&key)),
                Ok(_) => {}
                Err(error) => return Some(Err(error.into())),
            }
        }
    }
}

fn node_key(key: &RsaPrivateKey) -> Result<NodeKey> {
    let public = RsaPublicKey::from(key).to_public_key_der()?;
    Ok(NodeKey {
        pair: RsaKeyPair::from_pkcs8(key.to_pkcs8_der()?.as_bytes())?,
        public: STANDARD.encode(public.as_bytes()),
    })
}
