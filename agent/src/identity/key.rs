//! The node's RSA key: made here, signs here, never leaves the node.

use std::fmt;

use base64::{Engine, engine::general_purpose::STANDARD};
use ring::{
    rand::SystemRandom,
    signature::{RSA_PSS_SHA256, RsaKeyPair},
};
use rsa::{
    RsaPrivateKey, RsaPublicKey,
    pkcs8::{EncodePrivateKey, EncodePublicKey},
};

/// Bits of a new key; what the stock agent makes (agent-wire §2.2).
const KEY_BITS: usize = 2048;

/// Why there is no usable key.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KeyError {
    #[error("failed to generate an RSA key")]
    Generate(#[source] rsa::Error),
    #[error("failed to encode the RSA key")]
    Encode,
    #[error("the private key is not a PKCS#8 RSA key that can sign")]
    Unusable,
}

/// A private key that signs.
pub(crate) struct NodeKey(RsaKeyPair);

impl fmt::Debug for NodeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NodeKey")
    }
}

/// A new key pair, ready to be stored and sent.
pub(crate) struct GeneratedKey {
    /// Base64 of PKCS#8 DER: secret.
    pub(crate) private_key: String,
    /// Base64 of DER SubjectPublicKeyInfo.
    pub(crate) public_key: String,
}

impl NodeKey {
    /// Makes a key pair. Takes some hundred milliseconds.
    pub(crate) fn generate() -> Result<GeneratedKey, KeyError> {
        let private = RsaPrivateKey::new(&mut rsa::rand_core::OsRng, KEY_BITS).map_err(KeyError::Generate)?;
        let private_der = private.to_pkcs8_der().map_err(|_| KeyError::Encode)?;
        let public_der = RsaPublicKey::from(&private)
            .to_public_key_der()
            .map_err(|_| KeyError::Encode)?;
        Ok(GeneratedKey {
            private_key: STANDARD.encode(private_der.as_bytes()),
            public_key: STANDARD.encode(public_der.as_bytes()),
        })
    }

    /// Reads the base64 PKCS#8 form.
    pub(crate) fn from_base64(private_key: &str) -> Result<Self, KeyError> {
        let der = STANDARD.decode(private_key).map_err(|_| KeyError::Unusable)?;
        RsaKeyPair::from_pkcs8(&der)
            .map(Self)
            .map_err(|_| KeyError::Unusable)
    }

    /// RSASSA-PSS with SHA-256 and a 32-byte salt.
    pub(crate) fn sign_pss(&self, text: &[u8]) -> Result<Vec<u8>, KeyError> {
        let mut signature = vec![0; self.0.public().modulus_len()];
        self.0
            .sign(&RSA_PSS_SHA256, &SystemRandom::new(), text, &mut signature)
            .map_err(|_| KeyError::Unusable)?;
        Ok(signature)
    }
}
