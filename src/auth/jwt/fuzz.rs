use std::sync::LazyLock;

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair},
};
use futures_util::FutureExt;
use proptest::{collection::vec, option, prelude::*, sample::select};
use serde_json::json;

use super::*;
use crate::fuzz::{few_slips, json, run, slips, spoilt, spoilt_text, texts};

const NOW: i64 = 1_780_000_000;

/// The last second that a time can be.
const LAST: f64 = 253_402_207_200.0;

static ED: LazyLock<Ed25519KeyPair> = LazyLock::new(|| Ed25519KeyPair::generate().unwrap());
static EC: LazyLock<EcdsaKeyPair> =
    LazyLock::new(|| EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap());
static STRANGER: LazyLock<Ed25519KeyPair> = LazyLock::new(|| Ed25519KeyPair::generate().unwrap());

fn encoded(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn published() -> String {
    let (x, y) = EC.public_key().as_ref()[1..].split_at(32);
    json!({"keys": [
        {"kty": "OKP", "crv": "Ed25519", "kid": "ed", "x": encoded(ED.public_key())},
        {"kty": "EC", "crv": "P-256", "kid": "ec", "x": encoded(x), "y": encoded(y)},
    ]})
    .to_string()
}

fn issuers(keys: &[u8]) -> Result<Issuers, String> {
    let corp = Issuer {
        name: "corp".to_owned(),
        issuer: "https://corp".to_owned(),
        audience: "us".to_owned(),
        groups_claim: Some("groups".to_owned()),
        keys: Keys::Read(Arc::new(KeySet::parse(keys)?)),
    };
    Ok([corp].into_iter().collect())
}

/// Whom a token speaks for; nothing has to be fetched for it.
fn admitted(issuers: &Issuers, token: &str) -> Option<Identity> {
    let now = Timestamp::from_second(NOW).unwrap();
    issuers.admit(token, now).now_or_never().expect("nothing is waited for").ok()
}

fn signed_by(key: &Ed25519KeyPair, header: &str, claims: &str) -> String {
    let text = format!("{}.{}", encoded(header), encoded(claims));
    let signature = encoded(key.sign(text.as_bytes()));
    format!("{text}.{signature}")
}

/// Good ones, of either key and for two people.
fn good() -> Vec<String> {
    let claims = |sub: &str| {
        json!({"iss": "https://corp", "aud": "us", "exp": NOW + 60, "sub": sub, "groups": ["g"]})
            .to_string()
    };
    let ec = format!("{}.{}", encoded(r#"{"alg":"ES256","kid":"ec"}"#), encoded(claims("alice")));
    let signature = EC.sign(&SystemRandom::new(), ec.as_bytes()).unwrap();
    vec![
        signed_by(&ED, r#"{"alg":"EdDSA","kid":"ed"}"#, &claims("alice")),
        signed_by(&ED, r#"{"alg":"EdDSA","kid":"ed"}"#, &claims("root")),
        format!("{ec}.{}", encoded(signature)),
    ]
}

/// A part of a token: a good one's, bytes that are encoded as they should be, or a text.
#[derive(Clone, Debug)]
enum Part {
    Of(usize),
    Bytes(Vec<u8>),
    Text(String),
}

fn parts() -> impl Strategy<Value = Part> {
    prop_oneof![
        12 => (0..3usize).prop_map(Part::Of),
        1 => vec(any::<u8>(), 0..100).prop_map(Part::Bytes),
        1 => json().prop_map(|json| Part::Bytes(json.to_string().into_bytes())),
        // Deeper than is read.
        1 => (0..400usize).prop_map(|levels| Part::Bytes(b"{\"a\":[".repeat(levels))),
        1 => texts().prop_map(Part::Text),
    ]
}

#[test]
fn a_token_is_taken_as_it_was_signed_or_not_at_all() {
    let (good, issuers) = (good(), issuers(published().as_bytes()).unwrap());
    for token in &good {
        assert!(admitted(&issuers, token).is_some());
    }
    let cases = ([parts(), parts(), parts()], few_slips());
    run("tokens", &["admitted", "refused"], cases, |(parts, slips)| {
        let part = |(at, part): (usize, Part)| match part {
            Part::Of(token) => good[token].split('.').nth(at).unwrap().to_owned(),
            Part::Bytes(bytes) => encoded(bytes),
            Part::Text(text) => text,
        };
        let parts: Vec<String> = parts.into_iter().enumerate().map(part).collect();
        let token = spoilt_text(&parts.join("."), &slips);
        let admitted = admitted(&issuers, &token).is_some();
        prop_assert_eq!(admitted, good.contains(&token), "{}", token);
        Ok(if admitted { "admitted" } else { "refused" })
    });
}

/// What a claim or a member of the header can be, beside good.
fn odd() -> impl Strategy<Value = Value> {
    let numbers = [
        json!(0),
        json!(-1),
        json!(-0.0),
        json!(NOW - 31),
        json!(NOW - 30),
        json!(NOW - 29),
        json!(NOW as f64 - 29.5),
        json!(NOW + 30),
        json!(NOW + 31),
        json!(LAST - 31.0),
        json!(LAST),
        json!(i64::MAX),
        json!(u64::MAX),
        json!(1e308),
        json!(-1e308),
    ];
    let texts_of_ours =
        ["https://corp", "us", "EdDSA", "ed", "ec", "none", "HS256", "alice", "https://corp/"];
    prop_oneof![
        4 => select(numbers.to_vec()),
        4 => select(texts_of_ours.to_vec()).prop_map(Value::from),
        1 => Just(json!(["us", 1])),
        1 => Just(json!(["a", ""])),
        1 => texts().prop_map(Value::from),
        1 => json(),
    ]
}

/// Members as they are written: in order, some changed, left out or twice.
fn members(good: Vec<(&'static str, Value)>) -> impl Strategy<Value = Vec<(&'static str, Value)>> {
    let given = good.into_iter().map(|(name, value)| {
        let good = Just(vec![(name, value)]);
        prop_oneof![
            40 => good.clone(),
            2 => Just(Vec::new()),
            4 => odd().prop_map(move |value| vec![(name, value)]),
            1 => (good, odd()).prop_map(move |(good, odd)| [good, vec![(name, odd)]].concat()),
        ]
    });
    given.collect::<Vec<_>>().prop_map(|members| members.concat())
}

fn object(members: &[(&str, Value)]) -> String {
    let members: Vec<String> =
        members.iter().map(|(name, value)| format!("{}:{value}", json!(name))).collect();
    format!("{{{}}}", members.join(","))
}

/// The one member of that name.
fn one<'m>(members: &'m [(&str, Value)], name: &str) -> Option<&'m Value> {
    members.iter().find(|(known, _)| *known == name).map(|(_, value)| value)
}

/// What RFC 7519 and `docs/configuration.md` ask of a token whose signature is right, said once more.
fn should_be_admitted(header: &[(&str, Value)], claims: &[(&str, Value)]) -> bool {
    let once = |members: &[(&str, Value)]| {
        members
            .iter()
            .enumerate()
            .all(|(at, (name, _))| members[..at].iter().all(|(other, _)| other != name))
    };
    let is =
        |name: &str, expected: &str| one(claims, name).is_some_and(|value| *value == *expected);
    let audience = is("aud", "us")
        || one(claims, "aud")
            .and_then(Value::as_array)
            .is_some_and(|all| all.contains(&json!("us")));
    let now = NOW as f64;
    let lasts = one(claims, "exp").and_then(Value::as_f64);
    let lasts = lasts.is_some_and(|end| now < end + 30.0 && end + 30.0 <= LAST);
    let begun = one(claims, "nbf").is_none_or(|begin| {
        begin.as_f64().is_some_and(|begin| begin - 30.0 <= now && begin > -1e11)
    });
    let subject = one(claims, "sub").and_then(Value::as_str);
    let subject = subject.is_some_and(|subject| Principal::new("corp", subject).is_ok());
    let groups = one(claims, "groups").is_none_or(|groups| {
        groups.as_array().is_some_and(|groups| groups.iter().all(Value::is_string))
    });
    once(header)
        && once(claims)
        && one(header, "crit").is_none()
        && one(header, "alg") == Some(&json!("EdDSA"))
        && one(header, "kid") == Some(&json!("ed"))
        && is("iss", "https://corp")
        && audience
        && lasts
        && begun
        && subject
        && groups
}

#[test]
fn a_signed_token_is_taken_if_all_it_says_is_right_and_no_other_is() {
    let issuers = issuers(published().as_bytes()).unwrap();
    let header = (
        members(vec![("alg", json!("EdDSA")), ("kid", json!("ed")), ("typ", json!("JWT"))]),
        option::weighted(0.02, odd()),
    );
    let claims = members(vec![
        ("iss", json!("https://corp")),
        ("aud", json!("us")),
        ("exp", json!(NOW + 60)),
        ("nbf", json!(NOW)),
        ("sub", json!("alice")),
        ("groups", json!(["g"])),
    ]);
    run("signed tokens", &["admitted", "refused"], (header, claims), |((header, crit), claims)| {
        let header = [header, crit.map(|crit| ("crit", crit)).into_iter().collect()].concat();
        let token = signed_by(&ED, &object(&header), &object(&claims));
        let fits = token.len() <= TOKEN_BYTES;
        let identity = admitted(&issuers, &token);
        let should = fits && should_be_admitted(&header, &claims);
        prop_assert_eq!(identity.is_some(), should, "{:?} {:?}", header, claims);
        let forged = signed_by(&STRANGER, &object(&header), &object(&claims));
        prop_assert_eq!(admitted(&issuers, &forged), None, "a stranger's");
        let Some(identity) = identity else { return Ok("refused") };
        let subject = one(&claims, "sub").and_then(Value::as_str).unwrap();
        prop_assert_eq!(identity.principal.as_str(), format!("corp:{subject}"));
        let named = one(&claims, "groups").and_then(Value::as_array).cloned().unwrap_or_default();
        let of_corp = |group: &Principal| {
            group.authenticator() == "corp" && named.iter().any(|named| *named == *group.subject())
        };
        prop_assert!(identity.groups.iter().all(of_corp));
        let end = one(&claims, "exp").and_then(Value::as_f64).unwrap() + 30.0;
        prop_assert!((identity.expires.unwrap().as_duration().as_secs_f64() - end).abs() < 1e-3);
        Ok("admitted")
    });
}

/// However a set of keys is spoilt, it verifies nothing that its issuer has not signed.
#[test]
fn spoilt_keys_admit_nobody_new() {
    let (published, good) = (published(), good());
    let claims =
        json!({"iss": "https://corp", "aud": "us", "exp": NOW + 60, "sub": "alice"}).to_string();
    let forged: Vec<String> = [r#"{"alg":"EdDSA","kid":"ed"}"#, r#"{"alg":"EdDSA"}"#]
        .into_iter()
        .map(|header| signed_by(&STRANGER, header, &claims))
        .collect();
    run("sets of keys", &["read", "refused"], slips(), |slips| {
        let Ok(issuers) = issuers(&spoilt(published.as_bytes(), &slips)) else {
            return Ok("refused");
        };
        for token in &good {
            admitted(&issuers, token);
        }
        for token in &forged {
            prop_assert_eq!(admitted(&issuers, token), None);
        }
        Ok("read")
    });
}
