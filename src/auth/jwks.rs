//! The keys with which issuers sign.

use std::{fmt, sync::Arc};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{
    Algorithm, DecodingKey, crypto,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, KeyOperations, PublicKeyUse},
};
use serde::Deserialize;
use serde_json::Value;

pub use self::fetch::{Fetched, Pace};

mod fetch;

/// Least length of an RSA modulus, in bits.
const RSA_BITS: usize = 2048;

/// A key that verifies tokens.
#[derive(Clone)]
pub struct Key {
    id: Option<String>,
    algorithm: Algorithm,
    key: DecodingKey,
}

impl Key {
    /// Reads a JWK, or says why it is not used.
    fn read(jwk: Value) -> Result<Self, String> {
        let jwk = Jwk::deserialize(jwk).map_err(|_| "is of no kind that is known")?;
        let common = &jwk.common;
        if !matches!(common.public_key_use, None | Some(PublicKeyUse::Signature)) {
            return Err("is not for signatures".to_owned());
        }
        let verifies = |operations: &Vec<_>| operations.contains(&KeyOperations::Verify);
        if !common.key_operations.as_ref().is_none_or(verifies) {
            return Err("is not for verifying".to_owned());
        }
        let (algorithm, stated) = match &jwk.algorithm {
            AlgorithmParameters::RSA(rsa) => {
                let bits = bits(&rsa.n);
                if bits < RSA_BITS {
                    return Err(format!("has {bits} bits, of {RSA_BITS} at least"));
                }
                (Algorithm::RS256, KeyAlgorithm::RS256)
            }
            AlgorithmParameters::EllipticCurve(ec) if ec.curve == EllipticCurve::P256 => {
                (Algorithm::ES256, KeyAlgorithm::ES256)
            }
            AlgorithmParameters::OctetKeyPair(pair) if pair.curve == EllipticCurve::Ed25519 => {
                (Algorithm::EdDSA, KeyAlgorithm::EdDSA)
            }
            _ => return Err("is for none of RS256, ES256 and EdDSA".to_owned()),
        };
        if common.key_algorithm.is_some_and(|alg| alg != stated) {
            return Err("is for another algorithm than RS256, ES256 or EdDSA".to_owned());
        }
        let key = DecodingKey::from_jwk(&jwk).map_err(|error| error.to_string())?;
        Ok(Self { id: jwk.common.key_id, algorithm, key })
    }

    /// The name of its algorithm, as in a token's header.
    pub fn algorithm(&self) -> &'static str {
        match self.algorithm {
            Algorithm::RS256 => "RS256",
            Algorithm::ES256 => "ES256",
            _ => "EdDSA",
        }
    }

    /// Whether it made a signature, in base64url, of a text.
    pub fn verifies(&self, text: &str, signature: &str) -> bool {
        crypto::verify(signature, text.as_bytes(), &self.key, self.algorithm).unwrap_or(false)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({:?}, {})", self.id, self.algorithm())
    }
}

/// How many bits a number in base64url has; none, if it is no number.
fn bits(number: &str) -> usize {
    let bytes = URL_SAFE_NO_PAD.decode(number).unwrap_or_default();
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    let first = bytes.get(zeros).map_or(0, |byte| byte.leading_zeros() as usize);
    (bytes.len() - zeros) * 8 - first
}

/// The keys of an issuer that can be used here.
#[derive(Clone, Debug, Default)]
pub struct KeySet(Vec<Key>);

impl KeySet {
    /// Reads a JWK set. Keys that are not for us are left out, as RFC 7517 asks.
    pub fn parse(json: &[u8]) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct Document {
            keys: Vec<Value>,
        }
        let document: Document =
            serde_json::from_slice(json).map_err(|error| format!("is no JWK set: {error}"))?;
        let mut keys = Vec::new();
        for (at, jwk) in document.keys.into_iter().enumerate() {
            match Key::read(jwk) {
                Ok(key) => keys.push(key),
                Err(why) => tracing::info!("key {} of a JWK set is not used: it {why}", at + 1),
            }
        }
        Ok(Self(keys))
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Those of an id: it need not be of one only.
    pub fn named(&self, id: &str) -> Vec<&Key> {
        self.0.iter().filter(|key| key.id.as_deref() == Some(id)).collect()
    }

    /// The one, where there is just one.
    pub fn only(&self) -> Vec<&Key> {
        if let [key] = &self.0[..] { vec![key] } else { Vec::new() }
    }
}

/// Where an issuer's keys come from.
#[derive(Clone, Debug)]
pub enum Keys {
    /// A file, read together with the policy.
    Read(Arc<KeySet>),
    /// A URL.
    Fetched(Fetched),
}

impl Keys {
    /// The keys that are known.
    pub fn now(&self) -> Arc<KeySet> {
        match self {
            Self::Read(keys) => keys.clone(),
            Self::Fetched(fetched) => fetched.now(),
        }
    }

    /// Has them fetched, if they are and it is time; returns when [`Keys::now`] is as new as it gets.
    pub async fn look_again(&self) {
        match self {
            Self::Read(_) => {}
            Self::Fetched(fetched) => fetched.look_again().await,
        }
    }
}
