use proptest::{collection::vec, prelude::*, sample::select};
use toml::{Table, Value};

use super::*;
use crate::fuzz::{can_be_shown, few_slips, run, spoilt_text, toml_table};

/// Keys, each with what is good for it.
type Known = &'static [(&'static str, &'static [&'static str])];

/// Every table and its keys. An issuer of JWTs may have any name.
const TABLES: &[(&str, Known)] = &[
    (
        "database",
        &[
            ("url", &["\"postgres://u:pa55word@h/d\""]),
            ("notify_url", &["\"\"", "\"postgres://u:pa55word@h/d\""]),
            ("pool_size", &["1", "8"]),
            ("migrate_on_start", &["true", "false"]),
        ],
    ),
    ("auth.tokens", &[("file", &["\"tokens.toml\""])]),
    (
        "server",
        &[
            ("listen", &["\"127.0.0.1:0\"", "\"[::1]:1\"", "\"0.0.0.0:50051\""]),
            ("allow_plaintext", &["true", "false"]),
            ("reflection", &["true", "false"]),
            ("drain_grace", &["\"10s\"", "\"0s\""]),
        ],
    ),
    (
        "server.tls",
        &[("cert", &["\"c.pem\""]), ("key", &["\"k.pem\""]), ("client_ca", &["\"a.pem\""])],
    ),
    ("auth.mtls", &[("subject", &["\"uri\"", "\"dns\""])]),
    (
        "auth.jwt.NAME",
        &[
            ("issuer", &["\"https://corp\"", "\"https://other\""]),
            ("audience", &["\"us\""]),
            (
                "jwks",
                &[
                    "\"k.json\"",
                    "\"https://h/k\"",
                    "\"http://[::1]/k\"",
                    "\"http://h/k\"",
                    "\"https://u:s3cret@h/k\"",
                ],
            ),
            ("groups_claim", &["\"groups\""]),
        ],
    ),
    ("policy", &[("file", &["\"p.toml\""])]),
    (
        "limits",
        &[
            ("connections", &["1", "10000"]),
            ("calls", &["1"]),
            ("calls_per_principal", &["1"]),
            ("waiters", &["1"]),
            ("waiters_per_principal", &["1"]),
            ("watchers", &["1"]),
            ("watchers_per_principal", &["1"]),
        ],
    ),
    (
        "retention",
        &[("closed_approvals", &["\"90d\"", "\"1d\""]), ("events", &["\"24h\"", "\"23h\""])],
    ),
];

fn files() -> impl Strategy<Value = String> {
    let table = |(at, &(name, keys)): (usize, &(&'static str, Known))| {
        let table = (select(vec!["corp", "partner_2", "tokens", "Corp"]), toml_table(keys));
        let table = table.prop_map(move |(issuer, lines)| {
            format!("[{}]\n{lines}", name.replace("NAME", issuer))
        });
        let chance = if at < 2 { 0.97 } else { 0.25 };
        proptest::option::weighted(chance, table).prop_map(Option::unwrap_or_default)
    };
    let tables: Vec<_> = TABLES.iter().enumerate().map(table).collect();
    // Twice as many, so that issuers can be two.
    let more = toml_table(TABLES[5].1).prop_map(|lines| format!("[auth.jwt.more]\n{lines}"));
    (tables, proptest::option::weighted(0.1, more))
        .prop_map(|(tables, more)| tables.concat() + &more.unwrap_or_default())
}

/// Whether a path leads to a key, or through one: `auth.jwt.corp.issuer`.
fn is_known(path: &[String]) -> bool {
    TABLES.iter().any(|(table, keys)| {
        let table: Vec<&str> = table.split('.').collect();
        let name = |at: usize| {
            at >= table.len() || table[at] == "NAME" || path.get(at).is_none_or(|p| p == table[at])
        };
        (0..table.len()).all(name)
            && path.get(table.len()).is_none_or(|key| keys.iter().any(|(known, _)| known == key))
            && path.len() <= table.len() + 1
    })
}

fn all_known(table: &Table, path: &mut Vec<String>) -> Result<(), TestCaseError> {
    for (key, value) in table {
        path.push(key.clone());
        prop_assert!(is_known(path), "{:?} is no key", path);
        if let Value::Table(table) = value {
            all_known(table, path)?;
        }
        path.pop();
    }
    Ok(())
}

/// What every configuration that is taken comes to.
fn makes_sense(config: &Config) -> Result<(), TestCaseError> {
    let ServerConfig { listen, allow_plaintext, tls, drain_grace, .. } = &config.server;
    prop_assert!(
        tls.is_some() || listen.ip().is_loopback() || *allow_plaintext,
        "tokens in plaintext"
    );
    prop_assert!(!drain_grace.is_negative());
    let AuthConfig { tokens, jwt, mtls } = &config.auth;
    prop_assert!(tokens.is_some() || mtls.is_some() || !jwt.is_empty(), "nobody can call");
    let client_ca = tls.as_ref().is_some_and(|tls| tls.client_ca.is_some());
    prop_assert!(mtls.is_none() || client_ca, "certificates that nobody verifies");
    for (name, issuer) in jwt {
        prop_assert!(!["tokens", "mtls"].contains(&name.as_str()), "two sources of one name");
        prop_assert!(
            name.chars().all(|c| c.is_ascii_lowercase() || "0123456789_-".contains(c)),
            "{}",
            name
        );
        prop_assert!(!issuer.issuer.is_empty() && !issuer.audience.is_empty());
        if let JwksSource::Url(url) = &issuer.jwks {
            prop_assert!(url.scheme() == "https" || url.host_str() == Some("[::1]"), "{}", url);
        }
    }
    let issuers: std::collections::BTreeSet<_> = jwt.values().map(|one| &one.issuer).collect();
    prop_assert_eq!(issuers.len(), jwt.len(), "two names of one source");
    prop_assert!(config.database.pool_size > 0);
    let LimitsConfig { connections, calls, waiters, watchers, .. } = config.limits;
    prop_assert!([connections, calls, waiters, watchers].iter().all(|most| *most > 0));
    let RetentionConfig { closed_approvals, events } = config.retention;
    prop_assert!(closed_approvals >= LEAST_RETENTION && events >= LEAST_RETENTION);
    prop_assert!(!format!("{config:?}").contains("pa55word"), "a password is printed");
    Ok(())
}

#[test]
fn a_configuration_is_what_stands_there_or_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.toml");
    run("configurations", &["read", "refused"], (files(), few_slips()), |(text, slips)| {
        let text = spoilt_text(&text, &slips);
        std::fs::write(&file, &text).unwrap();
        let table = text.parse::<Table>();
        match Config::read(&file, Vec::new()) {
            Ok(config) => {
                let table = table.map_err(|error| TestCaseError::fail(format!("{error}")))?;
                all_known(&table, &mut Vec::new())?;
                makes_sense(&config)?;
                Ok("read")
            }
            Err(fault) => {
                // It may name a key, and slips can make one of a password.
                let named = table.is_ok_and(|table| repeats(&format!("{:?}", keys(&table))));
                prop_assert!(named || !repeats(&fault), "{}", fault);
                can_be_shown(&fault.chars().take(500).collect::<String>())?;
                Ok("refused")
            }
        }
    });
}

/// Whether a fault tells what may be a secret: a value, or a password in one.
fn repeats(text: &str) -> bool {
    text.contains("s3cret") || text.contains("pa55word")
}

fn keys(table: &Table) -> Vec<&String> {
    let below = table.values().filter_map(Value::as_table).flat_map(|table| keys(table));
    table.keys().chain(below).collect()
}

/// A variable that is taken is that of a key.
#[test]
fn an_override_is_that_of_a_key_or_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.toml");
    std::fs::write(&file, "[database]\nurl = \"x\"\n[auth.tokens]\nfile = \"t\"\n").unwrap();
    let keys: Vec<String> = TABLES
        .iter()
        .flat_map(|(table, keys)| keys.iter().map(move |(key, _)| format!("{table}.{key}")))
        .map(|path| path.replace('.', "__").to_uppercase())
        .collect();
    let values = select(vec![
        "1",
        "true",
        "10s",
        "90d",
        "127.0.0.1:0",
        "s3cret",
        "",
        "\0",
        "a,b",
        "[1]",
        "{",
    ]);
    let cases = vec((select(keys), values, few_slips()), 1..3);
    run("overrides", &["read", "refused"], cases, |given| {
        let named = |(key, value, slips): (String, &str, Vec<_>)| {
            (spoilt_text(&key, &slips), value.to_owned())
        };
        let given: Vec<(String, String)> = given.into_iter().map(named).collect();
        match Config::read(&file, given.clone()) {
            Ok(config) => {
                for (key, _) in &given {
                    let path: Vec<String> =
                        key.to_lowercase().split("__").map(str::to_owned).collect();
                    prop_assert!(is_known(&path), "{} is no key", key);
                }
                makes_sense(&config)?;
                Ok("read")
            }
            Err(fault) => {
                prop_assert!(!repeats(&fault), "{}", fault);
                Ok("refused")
            }
        }
    });
}
