use proptest::{collection::vec, prelude::*};
use toml::{Table, Value};

use super::*;
use crate::fuzz::{can_be_shown, few_slips, run, spoilt_text, toml_table};

/// A token, and what is said of it: its hash.
const TOKENS: [&str; 2] = ["a token for the fuzz tests", "another token of the fuzz tests"];

/// What is good for each, but for a token where its hash belongs.
const KEYS: &[(&str, &[&str])] = &[
    ("subject", &["\"ci\"", "\"spiffe://a:b\"", "\"\u{e9}\""]),
    (
        "sha256",
        &[
            "\"HASH-0\"",
            "\"HASH-1\"",
            "\"pa55word\"",
            "\"9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08\"",
        ],
    ),
    ("groups", &["[]", "[\"a\", \"b\"]"]),
    ("expires", &["2027-01-01T00:00:00Z", "2020-01-01T00:00:00+02:00", "2026-06-01T00:00:00.5Z"]),
];

fn written(entries: &[String]) -> String {
    let text: String = entries.iter().map(|entry| format!("[[tokens]]\n{entry}")).collect();
    let hashed =
        |text: String, at: usize| text.replace(&format!("HASH-{at}"), &sha256_hex(TOKENS[at]));
    hashed(hashed(text, 0), 1)
}

#[test]
fn a_token_opens_what_stands_there_or_the_file_is_refused() {
    let now: Timestamp = "2026-06-01T00:00:00Z".parse().unwrap();
    let cases = (vec(toml_table(KEYS), 0..3), few_slips());
    run("files of tokens", &["read", "refused"], cases, |(entries, slips)| {
        let text = spoilt_text(&written(&entries), &slips);
        let tokens = match Tokens::parse(&text) {
            Ok(tokens) => tokens,
            Err(faults) => {
                for fault in faults {
                    // A slip can make a name of anything, and names are told.
                    let told = fault.to_string().contains("pa55word");
                    prop_assert!(!told || !slips.is_empty(), "{}", fault);
                    can_be_shown(&fault.to_string().chars().take(500).collect::<String>())?;
                }
                return Ok("refused");
            }
        };
        let table: Table = text.parse().map_err(|error| TestCaseError::fail(format!("{error}")))?;
        let entries = table.get("tokens").and_then(Value::as_array).cloned().unwrap_or_default();
        prop_assert!(table.keys().all(|key| key == "tokens"));
        prop_assert_eq!(tokens.by_hash.len(), entries.len(), "each is known, and no other");
        for entry in &entries {
            let keys = entry.as_table().unwrap().keys();
            prop_assert!(keys.into_iter().all(|key| KEYS.iter().any(|(known, _)| known == key)));
        }
        for token in TOKENS {
            let hash = sha256_hex(token);
            let of = |entry: &&Value| {
                entry["sha256"].as_str().is_some_and(|written| written.to_lowercase() == hash)
            };
            let expected = entries.iter().find(of).map(|entry| {
                let expires =
                    entry.get("expires").map(|time| time.as_datetime().unwrap().to_string());
                (format!("tokens:{}", entry["subject"].as_str().unwrap()), expires)
            });
            let held = tokens.holder(&TokenHash::of(token).unwrap(), now);
            let expires = |time: &String| time.parse::<Timestamp>().unwrap();
            match expected {
                Some((principal, time)) if time.as_ref().is_none_or(|time| now < expires(time)) => {
                    let held = held.unwrap();
                    prop_assert_eq!(held.principal.as_str(), principal);
                    prop_assert_eq!(held.expires, time.as_ref().map(expires));
                }
                _ => prop_assert!(held.is_err()),
            }
        }
        Ok("read")
    });
}
