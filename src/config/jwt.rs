//! `[auth.jwt.NAME]`: an issuer whose JWTs are taken.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use reqwest::Url;
use serde::Deserialize;

/// Longest name of an issuer.
const NAME_CHARACTERS: usize = 63;

/// The names of other authenticators.
const TAKEN: [&str; 2] = ["tokens", "mtls"];

/// `[auth.jwt.NAME]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JwtConfig {
    /// The `iss` of its tokens, to the letter.
    pub issuer: String,
    /// What their `aud` must be, or hold.
    pub audience: String,
    /// Where its keys are.
    pub jwks: JwksSource,
    /// The claim that lists the groups; unset: its callers are in none.
    pub groups_claim: Option<String>,
}

/// Where the keys of an issuer are.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum JwksSource {
    /// A file.
    File(PathBuf),
    /// A URL; plaintext only on this machine.
    Url(Url),
}

impl TryFrom<String> for JwksSource {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        if !text.contains("://") {
            return if text.is_empty() {
                Err("jwks is empty")
            } else {
                Ok(Self::File(text.into()))
            };
        }
        let url = Url::parse(&text).map_err(|_| "jwks is neither a URL nor a file")?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err("jwks must hold no password: keys to verify with are public");
        }
        match url.scheme() {
            "https" => Ok(Self::Url(url)),
            "http" if is_loopback(&url) => Ok(Self::Url(url)),
            _ => Err("jwks must be an https URL: who can change the keys can be anybody"),
        }
    }
}

fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>();
    address.map_or(host == "localhost", |address| address.is_loopback())
}

impl JwksSource {
    /// Takes the path of a file to begin at a folder.
    pub(super) fn make_relative_to(&mut self, folder: &Path) {
        if let Self::File(file) = self {
            *file = folder.join(&*file);
        }
    }
}

/// Whether these issuers can be told apart, from one another and from the other authenticators.
pub(super) fn check(issuers: &BTreeMap<String, JwtConfig>) -> Result<(), String> {
    let mut seen = BTreeMap::new();
    for (name, JwtConfig { issuer, audience, groups_claim, .. }) in issuers {
        let allowed =
            |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
        if name.is_empty() || name.len() > NAME_CHARACTERS || !name.chars().all(allowed) {
            return Err(format!(
                "auth.jwt.{name:?}: a name has 1 to {NAME_CHARACTERS} characters of a-z, 0-9, '-' and '_'"
            ));
        }
        if TAKEN.contains(&name.as_str()) {
            return Err(format!("auth.jwt.{name} has the name of another authenticator"));
        }
        if issuer.is_empty() || audience.is_empty() || groups_claim.as_deref() == Some("") {
            return Err(format!(
                "auth.jwt.{name}: issuer, audience and groups_claim are not empty"
            ));
        }
        if let Some(other) = seen.insert(issuer, name) {
            return Err(format!("auth.jwt.{other} and auth.jwt.{name} have the same issuer"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn issuer(more: &str) -> Result<JwtConfig, toml::de::Error> {
        toml::from_str(&format!("issuer = \"https://a\"\naudience = \"b\"\n{more}"))
    }

    #[test]
    fn keys_come_from_a_file_or_over_tls() {
        let source = |jwks: &str| issuer(&format!("jwks = \"{jwks}\"")).map(|issuer| issuer.jwks);
        for url in [
            "https://login.example.com/keys",
            "http://127.0.0.1:8080/keys",
            "http://[::1]/keys",
            "http://localhost/keys",
        ] {
            assert!(matches!(source(url), Ok(JwksSource::Url(_))), "{url}");
        }
        assert_eq!(source("keys.json"), Ok(JwksSource::File("keys.json".into())));
        for refused in [
            "",
            "http://login.example.com/keys",
            "http://10.0.0.1/keys",
            "http://127.0.0.1.example.com/keys",
            "http://localhost.example.com/keys",
            "https://user:secret@login.example.com/keys",
            "ftp://127.0.0.1/keys",
            "file:///keys.json",
            "https://",
        ] {
            assert!(source(refused).is_err(), "{refused}");
        }
    }

    #[test]
    fn every_key_is_known_and_what_is_needed_is_there() {
        assert!(issuer("jwks = \"k\"\ngroups_claim = \"groups\"").is_ok());
        assert!(issuer("jwks = \"k\"\ngroup_claim = \"groups\"").is_err());
        assert!(issuer("").is_err());
    }

    #[test]
    fn issuers_can_be_told_apart() {
        let one = issuer("jwks = \"k\"").expect("well-formed");
        let other = JwtConfig { issuer: "https://other".to_owned(), ..one.clone() };
        let checked = |issuers: &[(&str, &JwtConfig)]| {
            let issuers = issuers.iter().map(|(name, one)| ((*name).to_owned(), (*one).clone()));
            check(&issuers.collect())
        };
        assert_eq!(checked(&[("corp", &one), ("partner_2-b", &other)]), Ok(()));
        let same = checked(&[("corp", &one), ("partner", &one)]).expect_err("the same issuer");
        assert!(same.contains("corp") && same.contains("partner"), "{same}");
        for name in ["tokens", "mtls", "", "Corp", "a:b", "a b", &"a".repeat(64)] {
            assert!(checked(&[(name, &one)]).is_err(), "{name:?}");
        }
        for empty in [
            JwtConfig { issuer: String::new(), ..one.clone() },
            JwtConfig { audience: String::new(), ..one.clone() },
            JwtConfig { groups_claim: Some(String::new()), ..one.clone() },
        ] {
            assert!(checked(&[("corp", &empty)]).is_err(), "{empty:?}");
        }
    }
}
