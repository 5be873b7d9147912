//! What is taken for a token of an issuer, and what is not: every case by itself, without a server.

use std::sync::Arc;

use approval_authority::auth::{
    Identity,
    jwks::Keys,
    jwt::{Issuer, Issuers, Refusal, Unverified, is_meant},
};
use aws_lc_rs::hmac;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::issuer::{Key, RSA, encoded, key_set, published};

const NOW: i64 = 1_780_000_000;

fn issuer(name: &str, keys: &[Value]) -> Issuer {
    Issuer {
        name: name.to_owned(),
        issuer: format!("https://{name}.example"),
        audience: "approval-authority".to_owned(),
        groups_claim: Some("groups".to_owned()),
        keys: Keys::Read(Arc::new(key_set(keys))),
    }
}

/// Claims that are good for an hour.
fn claims() -> Value {
    json!({
        "iss": "https://corp.example", "aud": "approval-authority", "sub": "alice",
        "exp": NOW + 3600, "iat": NOW, "groups": ["org-admins"],
    })
}

/// The same, with some of another value, or none where it is null.
fn claims_with(changed: &Value) -> Value {
    let mut claims = claims();
    for (name, value) in changed.as_object().expect("an object") {
        if value.is_null() {
            claims.as_object_mut().expect("an object").remove(name);
        } else {
            claims[name] = value.clone();
        }
    }
    claims
}

/// Whom a token speaks for, among these issuers.
async fn examine(issuers: &Issuers, token: &str) -> Result<Identity, Refusal> {
    let token = Unverified::parse(token)?;
    let now = Timestamp::from_second(NOW).expect("a time");
    issuers.of(&token)?.identify(&token, now).await
}

/// Why one is refused, as it is logged.
async fn why(issuers: &Issuers, token: &str) -> String {
    examine(issuers, token).await.expect_err("refused").to_string()
}

fn corp(keys: &[Value]) -> Issuers {
    [issuer("corp", keys)].into_iter().collect()
}

#[tokio::test]
async fn each_algorithm_is_taken_from_a_key_of_its_kind() {
    for key in [&*RSA, &Key::ec(), &Key::ed()] {
        let issuers = corp(&[key.jwk("k")]);
        let identity = examine(&issuers, &key.token("k", &claims())).await.expect("good");
        assert_eq!(identity.principal.as_str(), "corp:alice");
        assert_eq!(identity.groups[0].as_str(), "corp:org-admins");
        let expires = identity.expires.expect("it expires").as_second();
        assert_eq!(expires, NOW + 3600 + 30, "and 30 s of leeway");
    }
}

#[tokio::test]
async fn the_key_says_which_algorithm_it_is_and_not_the_token() {
    let (ec, ed) = (Key::ec(), Key::ed());
    let issuers = corp(&[RSA.jwk("rsa"), ec.jwk("ec"), ed.jwk("ed")]);
    let claims = claims().to_string();
    let unsigned = |header: &Value| {
        let header = header.to_string();
        format!("{}.{}", encoded(header), encoded(&claims))
    };
    for none in ["none", "None", "NONE", ""] {
        let header = json!({"alg": none, "kid": "rsa"});
        let expected = format!("its algorithm {none:?} is not that of the key");
        for signature in ["", "AAAA"] {
            let token = format!("{}.{signature}", unsigned(&header));
            assert_eq!(why(&issuers, &token).await, expected);
        }
    }
    // What was a public key to the issuer is a shared secret to whoever believes the header.
    for secret in [RSA.jwk("rsa").to_string(), published(&[RSA.jwk("rsa")])] {
        let text = unsigned(&json!({"alg": "HS256", "kid": "rsa"}));
        let tag =
            hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()), text.as_bytes());
        let token = format!("{text}.{}", encoded(tag));
        let expected = "its algorithm \"HS256\" is not that of the key";
        assert_eq!(why(&issuers, &token).await, expected);
    }
    for (key, header, reason) in [
        (&ec, json!({"alg": "RS256", "kid": "ec"}), "\"RS256\" is not that of the key"),
        (&*RSA, json!({"alg": "PS256", "kid": "rsa"}), "\"PS256\" is not that of the key"),
        (&*RSA, json!({"alg": "rs256", "kid": "rsa"}), "\"rs256\" is not that of the key"),
        (&ec, json!({"alg": "RS256", "kid": "rsa"}), "the signature is wrong"),
        (&ed, json!({"alg": "ES256", "kid": "ec"}), "the signature is wrong"),
        (&*RSA, json!({"kid": "rsa"}), "it has no alg"),
        (&*RSA, json!({"alg": 1, "kid": "rsa"}), "alg is not text"),
        (&*RSA, json!({"alg": "RS256", "kid": 1}), "kid is not text"),
    ] {
        let token = key.sign(&header.to_string(), &claims);
        let told = why(&issuers, &token).await;
        assert!(told.contains(reason), "{header}: {told}");
    }
}

#[tokio::test]
async fn a_claim_that_is_not_as_it_must_be_refuses_the_token() {
    let key = Key::ed();
    let issuers = corp(&[key.jwk("k")]);
    for (changed, expected) in [
        (json!({"aud": "others"}), Err("it is for another audience")),
        (json!({"aud": ["others", "another"]}), Err("it is for another audience")),
        (json!({"aud": []}), Err("it is for another audience")),
        (json!({"aud": ["others", "approval-authority"]}), Ok(())),
        (json!({"aud": null}), Err("it has no aud")),
        (json!({"aud": {"approval-authority": 1}}), Err("aud is neither text nor a list")),
        (json!({"iss": "https://evil.example"}), Err("no issuer \"https://evil.example\"")),
        (json!({"iss": "https://corp.example/"}), Err("no issuer \"https://corp.example/\"")),
        (json!({"iss": "HTTPS://corp.example"}), Err("no issuer \"HTTPS://corp.example\"")),
        (json!({"iss": ["https://corp.example"]}), Err("iss is not text")),
        (json!({"iss": null}), Err("it has no iss")),
        (json!({"exp": NOW - 29}), Ok(())),
        (json!({"exp": NOW - 30}), Err("it has expired")),
        (json!({"exp": 1_779_999_970.5}), Ok(())),
        (json!({"exp": 1_779_999_969.5}), Err("it has expired")),
        (json!({"exp": 0}), Err("it has expired")),
        (json!({"exp": null}), Err("it has no exp")),
        (json!({"exp": (NOW + 3600).to_string()}), Err("exp is not a time")),
        (json!({"exp": 1e300}), Err("exp is not a time")),
        (json!({"nbf": NOW + 30}), Ok(())),
        (json!({"nbf": NOW + 31}), Err("it is not valid yet")),
        (json!({"nbf": NOW - 3600}), Ok(())),
        (json!({"nbf": "now"}), Err("nbf is not a time")),
        (json!({"sub": null}), Err("it has no sub")),
        (json!({"sub": ""}), Err("its sub must be <authenticator>:<subject>")),
        (json!({"sub": 7}), Err("sub is not text")),
        (json!({"sub": "al\u{200b}ice"}), Err("must not contain invisible characters")),
        (json!({"sub": "alice\n"}), Err("must not contain control characters")),
        (json!({"sub": "a".repeat(600)}), Err("must be 1 to 512 bytes")),
        (json!({"groups": null}), Ok(())),
        (json!({"groups": []}), Ok(())),
        (json!({"groups": "org-admins"}), Err("groups is not a list of texts")),
        (json!({"groups": ["org-admins", 1]}), Err("groups is not a list of texts")),
        (json!({"groups": {"org-admins": true}}), Err("groups is not a list of texts")),
    ] {
        let examined = examine(&issuers, &key.token("k", &claims_with(&changed))).await;
        match (&examined, expected) {
            (Ok(_), Ok(())) => {}
            (Err(told), Err(reason)) if told.to_string().contains(reason) => {}
            _ => panic!("{changed}: {examined:?}, not {expected:?}"),
        }
    }
}

#[tokio::test]
async fn a_group_that_no_policy_can_name_is_left_out() {
    let key = Key::ed();
    let issuers = corp(&[key.jwk("k")]);
    let groups = json!({"groups": ["", "a ", "b:c", "tokens:x"]});
    let identity = examine(&issuers, &key.token("k", &claims_with(&groups))).await.expect("good");
    let groups: Vec<&str> = identity.groups.iter().map(|group| group.as_str()).collect();
    assert_eq!(groups, ["corp:b:c", "corp:tokens:x"]);

    let silent = Issuer { groups_claim: None, ..issuer("corp", &[key.jwk("k")]) };
    let silent: Issuers = [silent].into_iter().collect();
    let identity = examine(&silent, &key.token("k", &claims())).await.expect("good");
    assert!(identity.groups.is_empty(), "no claim is configured");
}

#[tokio::test]
async fn an_issuer_vouches_for_its_own() {
    let (of_corp, of_partner) = (Key::ec(), Key::ec());
    let issuers: Issuers =
        [issuer("corp", &[of_corp.jwk("k")]), issuer("partner", &[of_partner.jwk("k")])]
            .into_iter()
            .collect();
    let partners = claims_with(&json!({"iss": "https://partner.example"}));
    let token = of_partner.token("k", &partners);
    let identity = examine(&issuers, &token).await.expect("good");
    assert_eq!(identity.principal.as_str(), "partner:alice");
    assert_eq!(identity.groups[0].as_str(), "partner:org-admins");
    // Another's key, under the same id; and another's token, whatever led it there.
    let forged = of_partner.token("k", &claims());
    assert_eq!(why(&issuers, &forged).await, "the signature is wrong");
    let corp = issuer("corp", &[of_partner.jwk("k")]);
    let now = Timestamp::from_second(NOW).expect("a time");
    let led_astray = corp.identify(&Unverified::parse(&token).expect("a token"), now).await;
    assert!(matches!(led_astray, Err(Refusal::UnknownIssuer(_))), "{led_astray:?}");
}

#[tokio::test]
async fn a_key_is_found_by_its_id_or_by_being_the_only_one() {
    let (one, two) = (Key::ec(), Key::ec());
    let unnamed = one.sign("{\"alg\":\"ES256\"}", &claims().to_string());
    let both = corp(&[one.jwk("one"), two.jwk("two")]);
    assert_eq!(why(&both, &one.token("three", &claims())).await, "the issuer has no key \"three\"");
    assert_eq!(why(&both, &one.token("two", &claims())).await, "the signature is wrong");
    assert_eq!(why(&both, &unnamed).await, "it names none of the issuer's keys");
    assert!(examine(&corp(&[one.jwk("one")]), &unnamed).await.is_ok());
    assert_eq!(why(&corp(&[two.jwk("two")]), &unnamed).await, "the signature is wrong");
    assert_eq!(why(&corp(&[]), &unnamed).await, "no key of the issuer is known");

    // An id need not be of one key only.
    let same = corp(&[two.jwk("same"), Key::ed().jwk("same"), one.jwk("same")]);
    assert!(examine(&same, &one.token("same", &claims())).await.is_ok());
    // A long name is not logged at length.
    let long = why(&both, &one.token(&"k".repeat(5_000), &claims())).await;
    assert!(long.len() < 200, "{long}");
}

#[tokio::test]
async fn keys_that_are_not_for_this_are_not_used() {
    let key = Key::ec();
    let jwk_with = |member: &str, value: Value| {
        let mut jwk = key.jwk("k");
        jwk[member] = value;
        jwk
    };
    let token = key.token("k", &claims());
    for (jwk, used) in [
        (jwk_with("use", json!("sig")), true),
        (jwk_with("alg", json!("ES256")), true),
        (jwk_with("key_ops", json!(["verify"])), true),
        (jwk_with("x5t", json!("whatever")), true),
        (jwk_with("use", json!("enc")), false),
        (jwk_with("use", json!("tls")), false),
        (jwk_with("key_ops", json!(["sign"])), false),
        (jwk_with("alg", json!("ES384")), false),
        (jwk_with("alg", json!("RS256")), false),
        (jwk_with("alg", json!("HS256")), false),
        (jwk_with("crv", json!("P-384")), false),
        (jwk_with("crv", json!("secp256k1")), false),
        (jwk_with("kty", json!("OKP")), false),
        (json!({"kty": "oct", "kid": "k", "k": encoded([7; 32])}), false),
        (json!("k"), false),
    ] {
        // A good key beside it is used all the same.
        let set = key_set(&[jwk.clone(), Key::ed().jwk("other")]);
        assert_eq!(set.named("k").len(), usize::from(used), "{jwk}");
        assert_eq!(set.named("other").len(), 1, "{jwk}");
        assert_eq!(examine(&corp(std::slice::from_ref(&jwk)), &token).await.is_ok(), used, "{jwk}");
    }
    let mut for_pss = RSA.jwk("k");
    for_pss["alg"] = json!("PS256");
    assert!(key_set(&[for_pss]).is_empty());
    // As an RSA key of 2047 bits is, however many zeros are put in front of it.
    let modulus = |first: &[u8], rest: usize| encoded([first, &vec![0xff; rest]].concat());
    for (n, bits) in [
        (modulus(&[0xff], 127), 1024),
        (modulus(&[0x7f], 255), 2047),
        (modulus(&[0, 0, 0x7f], 255), 2047),
        (modulus(&[0x80], 255), 2048),
        (modulus(&[0, 0x80], 255), 2048),
        (modulus(&[], 0), 0),
        ("no base64url!".to_owned(), 0),
    ] {
        let jwk = json!({"kty": "RSA", "kid": "k", "n": n, "e": "AQAB"});
        assert_eq!(key_set(&[jwk]).is_empty(), bits < 2048, "{bits} bits");
    }
}

#[tokio::test]
async fn what_is_not_well_formed_is_not_looked_into() {
    let key = Key::ed();
    let issuers = corp(&[key.jwk("k")]);
    let good = claims().to_string();
    let header = "{\"alg\":\"EdDSA\",\"kid\":\"k\"}";
    assert!(examine(&issuers, &key.sign(header, &good)).await.is_ok(), "as it should be");
    for (header, claims, reason) in [
        (
            "{\"alg\":\"none\",\"alg\":\"EdDSA\",\"kid\":\"k\"}",
            good.as_str(),
            "header: a member stands twice",
        ),
        ("{\"alg\":\"EdDSA\",\"kid\":\"k\",\"kid\":\"l\"}", &good, "header: a member stands twice"),
        ("{\"alg\":\"EdDSA\",\"kid\":\"k\",\"crit\":[\"b64\"],\"b64\":false}", &good, "critical"),
        ("{\"alg\":\"EdDSA\",\"kid\":\"k\",\"crit\":[]}", &good, "critical"),
        ("[\"EdDSA\"]", &good, "header: no object"),
        ("", &good, "header: no JSON"),
        (
            "{\"alg\":\"EdDSA\",\"kid\":\"k\",\"jwk\":{\"k\":1,\"k\":2}}",
            &good,
            "header: a member stands twice",
        ),
        (header, "{\"iss\":\"https://evil.example\",\"iss\":\"https://corp.example\"}", "twice"),
        (header, "null", "claims: no object"),
        (header, "{\"sub\":\"alice\"", "claims: no JSON"),
        (header, &"[".repeat(5_000), "claims: no"),
    ] {
        let told = why(&issuers, &key.sign(header, claims)).await;
        assert!(told.contains(reason), "{header} {claims}: {told}");
    }
    let token = key.sign(header, &good);
    let (signed, signature) = token.rsplit_once('.').expect("three parts");
    for (token, reason) in [
        (format!("{signed}.{signature}="), "the signature is wrong"),
        (format!("{signed}."), "the signature is wrong"),
        (format!("{signed}.{}", &signature[2..]), "the signature is wrong"),
        (format!("{}.{signature}", signed.replace('.', "=.")), "header: Invalid"),
        (signed.to_owned(), "it has no three parts"),
        ("..".to_owned(), "header: no JSON"),
        (format!("{token}.x"), "claims: Invalid"),
        ("a".repeat(1024 * 1024), "1048576 bytes"),
        (format!("{}.{}.{}", "a".repeat(600_000), "b".repeat(400_000), "c"), "bytes, more than"),
    ] {
        let told = why(&issuers, &token).await;
        assert!(told.contains(reason), "{told}");
    }
}

#[test]
fn a_jwt_is_what_has_three_parts() {
    assert!(is_meant("a.b.c") && is_meant(".."));
    for other in ["", "aa_token", "a.b", "a.b.c.d", "a.b.c.d.e"] {
        assert!(!is_meant(other), "{other}");
    }
}
