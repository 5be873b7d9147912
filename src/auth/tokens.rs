//! The `tokens` authenticator: a file of SHA-256 hashes of random tokens. The file holds no secret.

use std::collections::HashMap;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jiff::Timestamp;
use serde::Deserialize;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::{digest::sha256_hex, error::Error, names::Principal};

/// Prefixes the principals of this authenticator.
pub const AUTHENTICATOR: &str = "tokens";

/// Begins every token, so that scanners for leaked secrets can find one.
const PREFIX: &str = "aa_";

/// Shortest token that is looked at: a hash of nothing, or of a slip, in the file must not let nobody in.
const TOKEN_BYTES: usize = 16;

/// Who holds a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The principal.
    pub principal: Principal,
    /// Its groups.
    pub groups: Vec<Principal>,
    /// Until when the token is good; for ever, if none.
    pub expires: Option<Timestamp>,
}

/// The tokens that are known, by hash.
#[derive(Clone, Debug, Default)]
pub struct Tokens {
    by_hash: HashMap<[u8; 32], Identity>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TokenFile {
    #[serde(default)]
    tokens: Vec<TokenEntry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TokenEntry {
    subject: String,
    sha256: String,
    #[serde(default)]
    groups: Vec<String>,
    expires: Option<toml::value::Datetime>,
}

impl Tokens {
    /// Reads `tokens.toml`; the error says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let file: TokenFile = toml::from_str(text).map_err(|e| e.to_string())?;
        let mut by_hash = HashMap::new();
        for entry in file.tokens {
            let subject = entry.subject.clone();
            let (hash, identity) =
                entry.checked().map_err(|why| format!("the token of {subject:?}: {why}"))?;
            if by_hash.insert(hash, identity).is_some() {
                return Err(format!("the token of {subject:?}: its hash is listed twice"));
            }
        }
        Ok(Self { by_hash })
    }

    /// Who holds a token at a time. An unknown token and an expired one look the same to the caller.
    ///
    /// Only hashes are compared, so how long it takes says nothing about how much of a token was right.
    pub fn authenticate(&self, token: &str, now: Timestamp) -> Result<Identity, Error> {
        if token.len() < TOKEN_BYTES {
            return Err(Error::Unauthenticated);
        }
        let hash: [u8; 32] = Sha256::digest(token).into();
        let identity = self.by_hash.get(&hash).ok_or(Error::Unauthenticated)?;
        if identity.expires.is_some_and(|expires| expires <= now) {
            tracing::info!(principal = %identity.principal, "refused an expired token");
            return Err(Error::Unauthenticated);
        }
        Ok(identity.clone())
    }
}

impl TokenEntry {
    fn checked(self) -> Result<([u8; 32], Identity), String> {
        let mut hash = [0; 32];
        hex::decode_to_slice(&self.sha256, &mut hash)
            .map_err(|_| "sha256 must be 64 hexadecimal digits".to_owned())?;
        let expires = match self.expires {
            None => None,
            Some(when) => Some(when.to_string().parse::<Timestamp>().map_err(|_| {
                "expires must be a time with its offset, such as 2027-01-01T00:00:00Z".to_owned()
            })?),
        };
        let groups = self.groups.iter().map(|group| Principal::new(AUTHENTICATOR, group));
        let identity = Identity {
            principal: Principal::new(AUTHENTICATOR, &self.subject)?,
            groups: groups.collect::<Result<_, _>>()?,
            expires,
        };
        Ok((hash, identity))
    }
}

/// A new random token: 32 bytes from the operating system's generator, less the twelve bits that UUIDs fix.
pub fn new_token() -> String {
    let bytes = [Uuid::new_v4().into_bytes(), Uuid::new_v4().into_bytes()].concat();
    format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes))
}

/// The entry of `tokens.toml` for a token.
pub fn entry(subject: &str, token: &str, groups: &[&str]) -> Result<String, String> {
    Principal::new(AUTHENTICATOR, subject)?;
    let subject = toml::Value::from(subject);
    let groups = toml::Value::from(groups.to_vec());
    let sha256 = sha256_hex(token);
    Ok(format!("[[tokens]]\nsubject = {subject}\nsha256 = \"{sha256}\"\ngroups = {groups}\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(time: &str) -> Timestamp {
        time.parse().expect("a time")
    }

    #[test]
    fn the_token_opens_and_its_hash_does_not() {
        let token = new_token();
        let tokens =
            Tokens::parse(&entry("ci \"x\"", &token, &["a"]).expect("ok")).expect("parses");
        let identity = tokens.authenticate(&token, at("2026-01-01T00:00:00Z")).expect("known");
        assert_eq!(identity.principal.as_str(), "tokens:ci \"x\"");
        assert_eq!(identity.groups[0].as_str(), "tokens:a");
        let hash = sha256_hex(&token);
        assert!(tokens.authenticate(&hash, at("2026-01-01T00:00:00Z")).is_err());
        assert!(tokens.authenticate("", at("2026-01-01T00:00:00Z")).is_err());
    }

    #[test]
    fn a_token_expires() {
        let text = format!(
            "{}expires = 2026-06-01T00:00:00Z\n",
            entry("ci", "a secret of some length", &[]).expect("well-formed")
        );
        let tokens = Tokens::parse(&text).expect("parses");
        assert!(tokens.authenticate("a secret of some length", at("2026-05-31T23:59:59Z")).is_ok());
        assert!(
            tokens.authenticate("a secret of some length", at("2026-06-01T00:00:00Z")).is_err()
        );
    }

    #[test]
    fn the_hash_of_nothing_lets_nobody_in() {
        let tokens = Tokens::parse(&entry("ci", "", &[]).expect("well-formed")).expect("parses");
        assert!(tokens.authenticate("", at("2026-01-01T00:00:00Z")).is_err());
    }

    #[test]
    fn faults_are_refused_and_unknown_keys_too() {
        assert!(Tokens::parse("[[tokens]]\nsubject = \"a\"\nsha256 = \"00\"\n").is_err());
        let entry = entry("a", "t", &[]).expect("well-formed");
        assert!(Tokens::parse(&format!("{entry}admin = true\n")).is_err());
        assert!(Tokens::parse(&format!("{entry}{entry}")).is_err());
        assert!(Tokens::parse(&format!("{entry}expires = 2026-06-01\n")).is_err());
    }
}
