//! Names that cannot be wrong: each is checked once, where it enters, and carried as its own type from
//! there on. All are cheap to clone.

use std::{fmt, sync::Arc};

use serde::{Deserialize, Serialize};

#[cfg(feature = "server")]
use unicode_normalization::UnicodeNormalization;

use crate::visible::is_invisible;

/// Longest workspace id, in bytes.
const WORKSPACE_ID_BYTES: usize = 128;
/// Longest action, in characters, all of them ASCII.
const ACTION_CHARACTERS: usize = 64;
/// Longest namespace, in characters, all of them ASCII.
const NAMESPACE_CHARACTERS: usize = 63;
/// Longest principal, in bytes: `<authenticator>:<subject>`.
const PRINCIPAL_BYTES: usize = 512;
/// Longest name in whose behalf a backend asks, in bytes.
const ON_BEHALF_OF_BYTES: usize = 256;
/// Longest idempotency key, in bytes.
const IDEMPOTENCY_KEY_BYTES: usize = 128;
/// Longest reason, in characters.
const TEXT_CHARACTERS: usize = 2_000;

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $check:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks the text; the error says, for the caller to read, what is wrong with it.
            pub fn parse(text: impl AsRef<str>) -> Result<Self, String> {
                let text = text.as_ref();
                $check(text)?;
                Ok(Self(text.into()))
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = String;

            fn try_from(text: String) -> Result<Self, String> {
                Self::parse(text)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.as_str().to_owned()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }
    };
}

name!(
    /// An organisation: 1 to 63 characters of a-z, 0-9 and '-'.
    Namespace,
    check_namespace
);
name!(
    /// A workspace: 1 to 128 bytes, no control characters.
    WorkspaceId,
    check_workspace_id
);
name!(
    /// A gated operation: 1 to 64 characters of a-z, 0-9, '_', '.' and '-'.
    Action,
    check_action
);
name!(
    /// Who a credential speaks for: `<authenticator>:<subject>`, so that equal subjects from two
    /// sources are two principals.
    Principal,
    check_principal
);
name!(
    /// The person or agent in whose name a backend asks: 1 to 256 bytes, no control characters.
    OnBehalfOf,
    check_on_behalf_of
);
name!(
    /// One attempt to execute an operation: 1 to 128 bytes, no control characters.
    IdempotencyKey,
    check_idempotency_key
);
name!(
    /// What a person wrote for another to read: at most 2,000 characters, none of them U+0000.
    Text,
    check_text
);

impl Namespace {
    /// The namespace of a deployment for one organisation.
    pub fn default_namespace() -> Self {
        Self("default".into())
    }
}

impl Principal {
    /// The principal that `authenticator` vouches for.
    pub fn new(authenticator: &str, subject: &str) -> Result<Self, String> {
        Self::parse(format!("{authenticator}:{subject}"))
    }

    /// What vouches for it.
    pub fn authenticator(&self) -> &str {
        self.0.split_once(':').map_or("", |(authenticator, _)| authenticator)
    }

    /// The name without its authenticator.
    pub fn subject(&self) -> &str {
        self.0.split_once(':').map_or(&self.0, |(_, subject)| subject)
    }
}

impl OnBehalfOf {
    /// A name that was checked when it was stored, perhaps by rules that were not yet as strict: what is there must
    /// stay readable.
    pub fn stored(name: &str) -> Self {
        Self(name.into())
    }

    /// Whether this may be a name of the principal. A backend spells people as its own directory does, so case, white
    /// space, another source's prefix, a domain before or after it, a directory and what mail lets stand behind a "+" make no
    /// difference, nor does which of Unicode's ways of writing the same characters is used. What it takes for the same person may not approve.
    #[cfg(feature = "server")]
    pub fn may_name(&self, principal: &Principal) -> bool {
        let names = readings(self.as_str());
        readings(principal.as_str()).iter().any(|name| names.contains(name))
    }
}

/// A name as it stands, without what leads to it (a source, a domain, a path), and without its mail domain; in one case and in
/// Unicode's normal form KC (UAX 15), by which full-width letters, ligatures and composed accents are those that they stand for.
#[cfg(feature = "server")]
fn readings(name: &str) -> [String; 3] {
    // By way of the upper case, as "ß" and "ss" are one there.
    let folded = name.nfkc().flat_map(char::to_uppercase).flat_map(char::to_lowercase);
    let normal: String = folded.nfkc().collect();
    let whole = normal.split_whitespace().collect::<Vec<_>>().join(" ");
    let leads = [':', '\\', '/', '|'];
    let subject = whole.rsplit(leads).next().unwrap_or(&whole).trim().to_owned();
    let local = subject.split(['@', '+']).next().unwrap_or(&subject).to_owned();
    [whole, subject, local]
}

impl Text {
    /// No words.
    pub fn empty() -> Self {
        Self("".into())
    }

    /// Whether nothing was written but white space.
    pub fn is_blank(&self) -> bool {
        self.0.trim().is_empty()
    }
}

fn check_namespace(text: &str) -> Result<(), String> {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    check_alphabet(text, NAMESPACE_CHARACTERS, "a-z, 0-9 and '-'", allowed)
}

fn check_action(text: &str) -> Result<(), String> {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "_.-".contains(c);
    check_alphabet(text, ACTION_CHARACTERS, "a-z, 0-9, '_', '.' and '-'", allowed)
}

fn check_workspace_id(text: &str) -> Result<(), String> {
    check_printable(text, WORKSPACE_ID_BYTES)
}

fn check_on_behalf_of(text: &str) -> Result<(), String> {
    check_printable(text, ON_BEHALF_OF_BYTES)?;
    check_visible(text)
}

fn check_idempotency_key(text: &str) -> Result<(), String> {
    check_printable(text, IDEMPOTENCY_KEY_BYTES)
}

fn check_principal(text: &str) -> Result<(), String> {
    check_printable(text, PRINCIPAL_BYTES)?;
    check_visible(text)?;
    match text.split_once(':') {
        Some((authenticator, subject)) if !authenticator.is_empty() && !subject.is_empty() => {
            Ok(())
        }
        _ => Err("must be <authenticator>:<subject>".to_owned()),
    }
}

fn check_text(text: &str) -> Result<(), String> {
    let characters = text.chars().count();
    if characters > TEXT_CHARACTERS {
        return Err(format!("has {characters} characters; at most {TEXT_CHARACTERS} are allowed"));
    }
    if text.contains('\0') {
        return Err("contains the character U+0000".to_owned());
    }
    Ok(())
}

fn check_alphabet(
    text: &str,
    most: usize,
    alphabet: &str,
    allowed: impl Fn(char) -> bool,
) -> Result<(), String> {
    if text.is_empty() || text.len() > most || !text.chars().all(allowed) {
        return Err(format!("must be 1 to {most} characters of {alphabet}"));
    }
    Ok(())
}

fn check_printable(text: &str, most: usize) -> Result<(), String> {
    if text.is_empty() || text.len() > most {
        return Err(format!("must be 1 to {most} bytes"));
    }
    if text.chars().any(char::is_control) {
        return Err("must not contain control characters".to_owned());
    }
    Ok(())
}

/// A name of a person is what can be seen of it.
fn check_visible(text: &str) -> Result<(), String> {
    if text.trim() != text {
        return Err("must not begin or end with white space".to_owned());
    }
    if text.chars().any(is_invisible) {
        return Err("must not contain invisible characters".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_hold_at_their_edges() {
        assert!(Namespace::parse("a".repeat(63)).is_ok());
        assert!(Namespace::parse("a".repeat(64)).is_err());
        assert!(Namespace::parse("").is_err());
        assert!(Namespace::parse("Acme").is_err());
        assert!(WorkspaceId::parse("é".repeat(64)).is_ok());
        assert!(WorkspaceId::parse("é".repeat(65)).is_err());
        assert!(WorkspaceId::parse("a\0b").is_err());
        assert!(WorkspaceId::parse("a\u{85}b").is_err());
        assert!(Action::parse("org.token-mint_2").is_ok());
        assert!(Action::parse("a b").is_err());
        assert!(Text::parse("é".repeat(2_000)).is_ok());
        assert!(Text::parse("é".repeat(2_001)).is_err());
        assert!(Text::parse("nul\0").is_err());
    }

    #[test]
    fn a_person_is_known_however_a_backend_spells_the_name() {
        let alice = Principal::parse("tokens:alice").expect("well-formed");
        for name in [
            "alice",
            "Alice",
            "tokens:alice",
            "TOKENS:alice",
            "corp:alice",
            "alice@corp.example",
            "ａｌｉｃｅ",
            "CORP\\alice",
            "auth0|alice",
            "spiffe://corp.example/people/alice",
            "alice+approvals@corp.example",
        ] {
            assert!(OnBehalfOf::parse(name).expect("well-formed").may_name(&alice), "{name}");
        }
        for name in ["bob", "alice2", "tokens:bob", "malice"] {
            assert!(!OnBehalfOf::parse(name).expect("well-formed").may_name(&alice), "{name}");
        }
        for (name, subject) in [
            ("jose\u{301}", "José"),
            ("Sam  Smith", "sam smith"),
            ("山田\u{3000}太郎", "山田 太郎"),
            ("STRASSER", "straßer"),
            ("ΟΔΥΣΣΕΥΣ", "οδυσσευς"),
        ] {
            let principal = Principal::new("tokens", subject).expect("well-formed");
            assert!(OnBehalfOf::parse(name).expect("well-formed").may_name(&principal), "{name}");
        }
        for name in
            ["alice ", " alice", "alice\u{200b}", "al\u{ad}ice", "alice\u{1d173}", "sam\u{a0}smith"]
        {
            assert!(OnBehalfOf::parse(name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn a_principal_names_its_source() {
        let principal = Principal::new("tokens", "spiffe://a:b").expect("well-formed");
        assert_eq!((principal.authenticator(), principal.subject()), ("tokens", "spiffe://a:b"));
        assert!(Principal::parse("alice").is_err());
        assert!(Principal::new("tokens", "").is_err());
    }
}
