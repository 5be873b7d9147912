//! JSON Web Tokens of OIDC issuers. What a token says counts only once a key of its issuer has verified it; which
//! algorithm does that is the key's to say, never the token's.

use std::{
    collections::HashMap,
    mem,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use self::members::Members;
use super::{
    Identity,
    jwks::{KeySet, Keys},
};
use crate::{error::Error, names::Principal};

mod members;

/// Longest token that is looked at. What an attacker can have us decode is bounded by it.
const TOKEN_BYTES: usize = 16 * 1024;

/// By how much an issuer's clock and ours may differ: `exp` and `nbf` are taken to be that much later and earlier.
const LEEWAY: SignedDuration = SignedDuration::from_secs(30);

/// As much of a name in a token as is logged.
const LOGGED_CHARACTERS: usize = 100;

/// Why a token is refused: for the log. Callers are told no more than that they are refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Not decoded at all.
    #[error("it has {0} bytes, more than are looked at")]
    TooLong(usize),
    /// Not three parts of JSON and base64url, or a member of them that is not what it must be.
    #[error("it is malformed: {0}")]
    Malformed(String),
    /// The header asks for an extension, and we know none.
    #[error("its header lists critical extensions")]
    Critical,
    /// No issuer of that name is configured.
    #[error("no issuer {0:?} is configured")]
    UnknownIssuer(String),
    /// Nothing is known of the issuer's keys, or it has none.
    #[error("no key of the issuer is known")]
    NoKeys,
    /// The issuer has no key of that id, as far as we know.
    #[error("the issuer has no key {0:?}")]
    UnknownKey(String),
    /// It names no key, and the issuer has more than one.
    #[error("it names none of the issuer's keys")]
    NoKeyNamed,
    /// The header's algorithm is not the key's.
    #[error("its algorithm {0:?} is not that of the key")]
    Algorithm(String),
    /// No key that it may mean verifies it.
    #[error("the signature is wrong")]
    Signature,
    /// It is for others.
    #[error("it is for another audience")]
    Audience,
    /// A claim that must be there.
    #[error("it has no {0}")]
    Missing(&'static str),
    /// `exp` is over, and the leeway too.
    #[error("it has expired")]
    Expired,
    /// `nbf` is yet to come, by more than the leeway.
    #[error("it is not valid yet")]
    NotYetValid,
    /// `sub` is no name that a principal can have.
    #[error("its sub {0}")]
    Subject(String),
}

/// Whether a bearer token is meant to be a JWT: it has three parts.
pub fn is_meant(bearer: &str) -> bool {
    bearer.bytes().filter(|byte| *byte == b'.').count() == 2
}

/// A token as it came. Nothing in it is true yet; and all of it is a secret, so that it cannot be printed.
pub struct Unverified<'t> {
    /// Header and claims as they were signed.
    signed: &'t str,
    signature: &'t str,
    header: Members,
    claims: Members,
}

impl<'t> Unverified<'t> {
    /// Decodes a token and checks nothing but its form.
    pub fn parse(token: &'t str) -> Result<Self, Refusal> {
        if token.len() > TOKEN_BYTES {
            return Err(Refusal::TooLong(token.len()));
        }
        let parts = token.rsplit_once('.').and_then(|(signed, signature)| {
            let (header, claims) = signed.split_once('.')?;
            Some((signed, header, claims, signature))
        });
        let Some((signed, header, claims, signature)) = parts else {
            return Err(Refusal::Malformed("it has no three parts".to_owned()));
        };
        let header = decode(header, "header")?;
        if header.get("crit").is_some() {
            return Err(Refusal::Critical);
        }
        Ok(Self { signed, signature, header, claims: decode(claims, "claims")? })
    }
}

fn decode(part: &str, what: &str) -> Result<Members, Refusal> {
    let malformed = |why: String| Refusal::Malformed(format!("{what}: {why}"));
    let json = URL_SAFE_NO_PAD.decode(part).map_err(|error| malformed(error.to_string()))?;
    Members::parse(&json).map_err(malformed)
}

/// Who signs tokens for us, and what must be in them.
#[derive(Clone, Debug)]
pub struct Issuer {
    /// Prefixes the principals and groups of this issuer.
    pub name: String,
    /// Its `iss`.
    pub issuer: String,
    /// What `aud` must be, or hold.
    pub audience: String,
    /// The claim that lists the groups, if there is one.
    pub groups_claim: Option<String>,
    /// Its keys.
    pub keys: Keys,
}

impl Issuer {
    /// Whom a token of this issuer speaks for. A key that we do not know may be a new one: the keys are fetched once
    /// more, as far as that is allowed.
    pub async fn identify(
        &self,
        token: &Unverified<'_>,
        now: Timestamp,
    ) -> Result<Identity, Refusal> {
        let verified = match verify(token, &self.keys.now()) {
            Err(Refusal::UnknownKey(_) | Refusal::NoKeys) => {
                self.keys.look_again().await;
                verify(token, &self.keys.now())
            }
            verified => verified,
        };
        verified.and_then(|()| self.read(&token.claims, now))
    }

    /// What the claims of a verified token come to.
    fn read(&self, claims: &Members, now: Timestamp) -> Result<Identity, Refusal> {
        // Whatever led the token here.
        if claims.text("iss")? != Some(&self.issuer) {
            return Err(Refusal::UnknownIssuer(logged(claims.text("iss")?.unwrap_or_default())));
        }
        let meant = match claims.get("aud").ok_or(Refusal::Missing("aud"))? {
            Value::String(audience) => *audience == self.audience,
            Value::Array(audiences) => audiences.iter().any(|one| *one == self.audience),
            _ => return Err(Refusal::Malformed("aud is neither text nor a list".to_owned())),
        };
        if !meant {
            return Err(Refusal::Audience);
        }
        let expires = claims.time("exp", LEEWAY)?.ok_or(Refusal::Missing("exp"))?;
        if now >= expires {
            return Err(Refusal::Expired);
        }
        if claims.time("nbf", -LEEWAY)?.is_some_and(|begins| now < begins) {
            return Err(Refusal::NotYetValid);
        }
        let subject = claims.text("sub")?.ok_or(Refusal::Missing("sub"))?;
        let principal = Principal::new(&self.name, subject).map_err(Refusal::Subject)?;
        Ok(Identity { principal, groups: self.groups(claims)?, expires: Some(expires) })
    }

    fn groups(&self, claims: &Members) -> Result<Vec<Principal>, Refusal> {
        let Some(claim) = &self.groups_claim else { return Ok(Vec::new()) };
        let Some(groups) = claims.texts(claim)? else { return Ok(Vec::new()) };
        // A group gives rights and takes none: one that no policy can name is as good as none.
        Ok(groups.into_iter().filter_map(|group| Principal::new(&self.name, group).ok()).collect())
    }
}

/// Whether one of these keys signed a token: one that the token names, or the only one.
fn verify(token: &Unverified, keys: &KeySet) -> Result<(), Refusal> {
    if keys.is_empty() {
        return Err(Refusal::NoKeys);
    }
    let header = &token.header;
    let algorithm = header.text("alg")?.ok_or(Refusal::Missing("alg"))?;
    let (keys, none) = match header.text("kid")? {
        Some(id) => (keys.named(id), Refusal::UnknownKey(logged(id))),
        None => (keys.only(), Refusal::NoKeyNamed),
    };
    if keys.is_empty() {
        return Err(none);
    }
    let mut keys = keys.into_iter().filter(|key| key.algorithm() == algorithm).peekable();
    if keys.peek().is_none() {
        return Err(Refusal::Algorithm(logged(algorithm)));
    }
    let verified = keys.any(|key| key.verifies(token.signed, token.signature));
    if verified { Ok(()) } else { Err(Refusal::Signature) }
}

/// What an unknown caller wrote, as far as it is logged.
fn logged(text: &str) -> String {
    text.chars().take(LOGGED_CHARACTERS).collect()
}

/// The issuers whose tokens are taken.
#[derive(Clone, Debug, Default)]
pub struct Issuers {
    by_issuer: HashMap<String, Arc<Issuer>>,
    refusals: Arc<Refusals>,
}

/// Refusals that are logged within a second: whoever is refused is not to fill the log.
const SAID: u32 = 10;

/// Refusals that are logged, and those that are not.
#[derive(Debug, Default)]
struct Refusals(Mutex<Told>);

#[derive(Debug, Default)]
struct Told {
    since: Option<Instant>,
    said: u32,
    unsaid: u64,
}

impl Refusals {
    /// Whether one is to be logged, and then how many were not since the last that was.
    fn unsaid(&self, now: Instant) -> Option<u64> {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if told.since.is_none_or(|since| now >= since + Duration::from_secs(1)) {
            (told.since, told.said) = (Some(now), 0);
        }
        if told.said == SAID {
            told.unsaid += 1;
            return None;
        }
        told.said += 1;
        Some(mem::take(&mut told.unsaid))
    }
}

impl FromIterator<Issuer> for Issuers {
    /// Each is found by its `iss`, which no other has: the configuration is refused otherwise.
    fn from_iter<I: IntoIterator<Item = Issuer>>(issuers: I) -> Self {
        let by_issuer = issuers.into_iter().map(|one| (one.issuer.clone(), Arc::new(one)));
        Self { by_issuer: by_issuer.collect(), refusals: Arc::default() }
    }
}

impl Issuers {
    /// The issuer that a token says it is of.
    pub fn of(&self, token: &Unverified) -> Result<&Issuer, Refusal> {
        let issuer = token.claims.text("iss")?.ok_or(Refusal::Missing("iss"))?;
        let known = self.by_issuer.get(issuer);
        known.map(Arc::as_ref).ok_or_else(|| Refusal::UnknownIssuer(logged(issuer)))
    }

    /// Whom a token speaks for. Why one is refused is logged now and then, without the token.
    pub async fn admit(&self, token: &str, now: Timestamp) -> Result<Identity, Error> {
        if self.by_issuer.is_empty() {
            return Err(Error::Unauthenticated);
        }
        let refused = |issuer: Option<&str>, why: Refusal| {
            if let Some(unsaid) = self.refusals.unsaid(Instant::now()) {
                tracing::info!(issuer, %why, unsaid, "refused a JWT");
            }
            Error::Unauthenticated
        };
        let token = Unverified::parse(token).map_err(|why| refused(None, why))?;
        let issuer = self.of(&token).map_err(|why| refused(None, why))?;
        let identity = issuer.identify(&token, now).await;
        identity.map_err(|why| refused(Some(&issuer.name), why))
    }

    /// An identity that a token gave, as long as the token is good and its issuer configured.
    pub fn still_good(&self, identity: &Identity, now: Timestamp) -> Result<Identity, Error> {
        let authenticator = identity.principal.authenticator();
        let configured = self.by_issuer.values().any(|issuer| issuer.name == authenticator);
        if configured && identity.expires.is_some_and(|expires| now < expires) {
            Ok(identity.clone())
        } else {
            tracing::info!(principal = %identity.principal, "a JWT has expired");
            Err(Error::Unauthenticated)
        }
    }
}

#[cfg(test)]
mod fuzz;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_logged_now_and_then_and_counted_meanwhile() {
        let (refusals, now) = (Refusals::default(), Instant::now());
        let at = |milliseconds| refusals.unsaid(now + Duration::from_millis(milliseconds));
        let said: Vec<Option<u64>> = (0..13).map(|_| at(999)).collect();
        assert_eq!(said, [[Some(0); 10].as_slice(), &[None; 3]].concat());
        assert_eq!([at(1_998), at(1_999), at(2_000)], [None, Some(4), Some(0)]);
    }
}
