//! The `tokens` authenticator: a file of SHA-256 hashes of random tokens. The file holds no secret.

use std::{collections::HashMap, ops::Range};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jiff::Timestamp;
use sha2::{Digest, Sha256};
use toml::value::Datetime;
use uuid::Uuid;

use super::Identity;
use crate::{
    digest::sha256_hex,
    document::{self, Fault, Keys},
    error::Error,
    names::Principal,
};

/// Prefixes the principals of this authenticator.
pub const AUTHENTICATOR: &str = "tokens";

/// Begins every token, so that scanners for leaked secrets can find one.
const PREFIX: &str = "aa_";

/// Shortest token that is looked at: a hash of nothing, or of a slip, in the file must not let nobody in.
const TOKEN_BYTES: usize = 16;

/// A token as it is known here: its SHA-256.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TokenHash([u8; 32]);

impl TokenHash {
    /// The hash of what a caller shows; what is too short to be a token is none.
    ///
    /// Only hashes are compared, so how long it takes says nothing about how much of a token was right.
    pub fn of(token: &str) -> Result<Self, Error> {
        if token.len() < TOKEN_BYTES {
            return Err(Error::Unauthenticated);
        }
        Ok(Self(Sha256::digest(token).into()))
    }
}

impl std::fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TokenHash(..)")
    }
}

/// The tokens that are known, by hash.
#[derive(Clone, Debug, Default)]
pub struct Tokens {
    by_hash: HashMap<TokenHash, Identity>,
}

impl Tokens {
    /// Reads `tokens.toml`, or says everything that is wrong with it.
    pub fn parse(text: &str) -> Result<Self, Vec<Fault>> {
        let (entries, mut faults) = document::read(text, |keys| keys.tables("tokens", entry_of))?;
        let mut by_hash = HashMap::new();
        for entry in entries {
            let Some((hash, identity)) = entry.value else { continue };
            let principal = identity.principal.clone();
            if by_hash.insert(hash, identity).is_some() {
                let message = format!("the sha256 of {principal} is listed twice");
                faults.add(entry.span, message);
            }
        }
        faults.or(Self { by_hash })
    }

    /// Who holds a token at a time. An unknown token and an expired one look the same to the caller.
    pub fn holder(&self, hash: &TokenHash, now: Timestamp) -> Result<Identity, Error> {
        let identity = self.by_hash.get(hash).ok_or(Error::Unauthenticated)?;
        if identity.expires.is_some_and(|expires| expires <= now) {
            tracing::info!(principal = %identity.principal, "refused an expired token");
            return Err(Error::Unauthenticated);
        }
        Ok(identity.clone())
    }
}

/// An entry of the file, if it is whole. No message quotes the hash: it may be the token, put there by mistake.
fn entry_of(keys: &mut Keys) -> Option<(TokenHash, Identity)> {
    let subject = keys.required::<String>("subject");
    let sha256 = keys.required::<String>("sha256");
    let groups = keys.list::<String>("groups");
    let expires = keys.value::<Datetime>("expires");

    let principal =
        subject.and_then(|subject| principal_of(keys, subject.span(), subject.get_ref()));
    let hash = sha256.and_then(|sha256| {
        let mut hash = [0; 32];
        match hex::decode_to_slice(sha256.get_ref(), &mut hash) {
            Ok(()) => Some(hash),
            Err(_) => {
                keys.fault(sha256.span(), "sha256 must be 64 hexadecimal digits");
                None
            }
        }
    });
    let groups = groups.map_or_else(Vec::new, |groups| {
        let (span, groups) = (groups.span(), groups.into_inner());
        groups.iter().filter_map(|group| principal_of(keys, span.clone(), group)).collect()
    });
    let expires = expires.and_then(|expires| {
        let time = expires.get_ref().to_string().parse::<Timestamp>();
        if time.is_err() {
            let message = "expires must be a time with its offset, such as 2027-01-01T00:00:00Z";
            keys.fault(expires.span(), message);
        }
        time.ok()
    });
    Some((TokenHash(hash?), Identity { principal: principal?, groups, expires }))
}

fn principal_of(keys: &mut Keys, span: Range<usize>, subject: &str) -> Option<Principal> {
    let principal = Principal::new(AUTHENTICATOR, subject);
    principal.map_err(|why| keys.fault(span, format!("{subject:?} {why}"))).ok()
}

/// A new random token: 32 bytes from the operating system's generator, less the twelve bits that UUIDs fix.
pub fn new_token() -> String {
    let bytes = [Uuid::new_v4().into_bytes(), Uuid::new_v4().into_bytes()].concat();
    format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes))
}

/// The entry of `tokens.toml` for a token.
pub fn entry(subject: &str, token: &str, groups: &[&str]) -> Result<String, String> {
    for name in [subject].iter().chain(groups) {
        Principal::new(AUTHENTICATOR, name).map_err(|why| format!("{name:?} {why}"))?;
    }
    let subject = toml::Value::from(subject);
    let groups = toml::Value::from(groups.to_vec());
    let sha256 = sha256_hex(token);
    Ok(format!("[[tokens]]\nsubject = {subject}\nsha256 = \"{sha256}\"\ngroups = {groups}\n"))
}

#[cfg(test)]
mod fuzz;
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
        let identity = holder(&tokens, &token, "2026-01-01T00:00:00Z").expect("known");
        assert_eq!(identity.principal.as_str(), "tokens:ci \"x\"");
        assert_eq!(identity.groups[0].as_str(), "tokens:a");
        let hash = sha256_hex(&token);
        assert!(holder(&tokens, &hash, "2026-01-01T00:00:00Z").is_err());
        assert!(holder(&tokens, "", "2026-01-01T00:00:00Z").is_err());
    }

    fn holder(tokens: &Tokens, token: &str, now: &str) -> Result<Identity, Error> {
        tokens.holder(&TokenHash::of(token)?, at(now))
    }

    #[test]
    fn a_token_expires() {
        let text = format!(
            "{}expires = 2026-06-01T00:00:00Z\n",
            entry("ci", "a secret of some length", &[]).expect("well-formed")
        );
        let tokens = Tokens::parse(&text).expect("parses");
        assert!(holder(&tokens, "a secret of some length", "2026-05-31T23:59:59Z").is_ok());
        assert!(holder(&tokens, "a secret of some length", "2026-06-01T00:00:00Z").is_err());
    }

    #[test]
    fn the_hash_of_nothing_lets_nobody_in() {
        let tokens = Tokens::parse(&entry("ci", "", &[]).expect("well-formed")).expect("parses");
        assert!(holder(&tokens, "", "2026-01-01T00:00:00Z").is_err());
    }

    #[test]
    fn every_fault_is_told_with_its_line_and_no_hash_is_quoted() {
        let twice = entry("a", "t", &[]).expect("well-formed");
        let text = format!(
            "{twice}{twice}\n[[tokens]]\nsubject = \"\"\nsha256 = \"aa_secret\"\nadmin = true\n\
             [[tokens]]\nexpires = 2026-06-01\ngroups = [\"a\", 1]\n"
        );
        let faults = Tokens::parse(&text).expect_err("faults");
        let told: Vec<String> = faults.iter().map(Fault::to_string).collect();
        let expected = [
            "line 5: the sha256 of tokens:a is listed twice",
            "line 11: \"\" must be <authenticator>:<subject>",
            "line 12: sha256 must be 64 hexadecimal digits",
            "line 13: unknown field `admin`, expected one of: subject, sha256, groups, expires",
            "line 14: subject is missing",
            "line 14: sha256 is missing",
            "line 15: expires must be a time with its offset, such as 2027-01-01T00:00:00Z",
            "line 16: groups: invalid type: integer `1`, expected a string",
        ];
        assert_eq!(told, expected);
    }

    #[test]
    fn a_token_cannot_be_printed() {
        let token = new_token();
        let entry = entry("ci", &token, &[]).expect("well-formed");
        let tokens = Tokens::parse(&entry).expect("parses");
        let credential = crate::auth::Credential::Token(TokenHash::of(&token).expect("long"));
        let printed = format!("{tokens:?} {credential:?}");
        assert!(printed.contains("tokens:ci") && printed.contains("Token"), "{printed}");
        let hash: [u8; 32] = Sha256::digest(&token).into();
        for secret in [token, hex::encode(hash), format!("{hash:?}")] {
            assert!(!printed.contains(&secret), "{printed}");
        }
    }

    /// Whoever reads the log must not find the token there that somebody put into the file by mistake.
    #[test]
    fn no_fault_repeats_what_stands_where_it_does_not_belong() {
        let token = new_token();
        for line in [
            format!("sha256 = \"{token}\""),
            format!("sha256 = {token}"),
            format!("sha256 = '{token}"),
            format!("sha256 = [\"{token}\"]"),
            format!("token = \"{token}\""),
            format!("expires = \"{token}\""),
            format!("expires = {token}"),
            format!("groups = \"{token}\""),
            token.clone(),
        ] {
            let faults = Tokens::parse(&format!("[[tokens]]\nsubject = \"ci\"\n{line}\n"));
            let told: Vec<String> = faults.expect_err(&line).iter().map(Fault::to_string).collect();
            assert!(!told.concat().contains(&token), "{told:?}");
        }
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
