use std::collections::HashSet;

use serde::Deserialize;
use serde_json::{Map, Number, Value, json};

use super::*;

const REFERENCE_SUITE: &str = include_str!("../../tests/vectors/rfc8785.json");
const NUMBERS: &str = include_str!("../../tests/vectors/rfc8785_numbers.json");
const REQUEST_HASHES: &str = include_str!("../../tests/vectors/request_hash.json");

#[derive(Deserialize)]
struct Published<T> {
    vectors: Vec<T>,
}

#[derive(Deserialize)]
struct ReferenceVector {
    name: String,
    input: String,
    canonical: String,
}

#[derive(Deserialize)]
struct NumberVector {
    ieee754: String,
    json: Option<String>,
}

impl NumberVector {
    fn number(&self) -> f64 {
        f64::from_bits(u64::from_str_radix(&self.ieee754, 16).unwrap())
    }
}

#[derive(Deserialize)]
struct HashVector {
    name: String,
    workspace_id: WorkspaceId,
    action: Action,
    context: Option<Map<String, Value>>,
    canonical: String,
    request_hash: String,
}

impl HashVector {
    fn context(&self) -> Context {
        Context::new(self.context.clone().unwrap_or_default()).unwrap()
    }
}

fn reference_vectors() -> Vec<ReferenceVector> {
    serde_json::from_str::<Published<ReferenceVector>>(REFERENCE_SUITE).unwrap().vectors
}

fn number_vectors() -> Vec<NumberVector> {
    serde_json::from_str::<Published<NumberVector>>(NUMBERS).unwrap().vectors
}

fn hash_vectors() -> Vec<HashVector> {
    serde_json::from_str(REQUEST_HASHES).unwrap()
}

fn hash_vector(name: &str) -> HashVector {
    let found = hash_vectors().into_iter().find(|v| v.name == name);
    found.unwrap_or_else(|| panic!("no vector named {name:?}"))
}

fn context(value: Value) -> Result<Context, String> {
    match value {
        Value::Object(parameters) => Context::new(parameters),
        other => panic!("{other} is no object"),
    }
}

/// A value with `lists` lists around nothing.
fn nested(lists: usize) -> Value {
    (0..lists).fold(Value::Null, |inner, _| Value::Array(vec![inner]))
}

/// A context whose canonical form takes this many bytes.
fn context_of_length(bytes: usize) -> Result<Context, String> {
    let frame = r#"{"s":""}"#.len();
    context(json!({ "s": "x".repeat(bytes - frame) }))
}

#[test]
fn the_reference_suite_is_reproduced() {
    let vectors = reference_vectors();
    assert_eq!(vectors.len(), 6);
    for vector in vectors {
        let value: Value = serde_json::from_str(&vector.input).unwrap();
        assert_eq!(canonical(&value).unwrap(), vector.canonical, "{}", vector.name);
    }
}

#[test]
fn a_canonical_form_is_its_own_canonical_form() {
    for vector in reference_vectors() {
        let value: Value = serde_json::from_str(&vector.canonical).unwrap();
        assert_eq!(canonical(&value).unwrap(), vector.canonical, "{}", vector.name);
    }
}

#[test]
fn the_number_table_is_reproduced() {
    let vectors = number_vectors();
    assert_eq!(vectors.len(), 26);
    for vector in vectors {
        let written =
            Number::from_f64(vector.number()).map(|n| canonical(&Value::Number(n)).unwrap());
        assert_eq!(written, vector.json, "{}", vector.ieee754);
    }
}

// An approver's tool reads the text back: it must find the very number that was hashed.
#[test]
fn a_number_is_read_back_as_it_was_written() {
    for vector in number_vectors() {
        let Some(text) = &vector.json else { continue };
        let read: f64 = serde_json::from_str(text).unwrap();
        assert_eq!(read, vector.number(), "{text}");
    }
}

#[test]
fn contexts_take_their_published_canonical_form() {
    let vectors = hash_vectors();
    assert!(vectors.len() >= 14);
    for vector in vectors {
        assert_eq!(vector.context().as_str(), vector.canonical, "{}", vector.name);
    }
}

#[test]
fn requests_have_their_published_hash() {
    for vector in hash_vectors() {
        let hash = RequestHash::of(&vector.workspace_id, &vector.action, &vector.context());
        assert_eq!(hash.to_string(), vector.request_hash, "{}", vector.name);
    }
}

#[test]
fn a_request_that_differs_anywhere_has_another_hash() {
    let vectors = hash_vectors();
    let requests: HashSet<_> =
        vectors.iter().map(|v| (&v.workspace_id, &v.action, &v.canonical)).collect();
    let hashes: HashSet<_> = vectors.iter().map(|v| &v.request_hash).collect();
    assert_eq!(hashes.len(), requests.len());
}

#[test]
fn names_do_not_run_into_each_other() {
    let blue = hash_vector("where a workspace ends, blue");
    let bluegreen = hash_vector("where a workspace ends, bluegreen");
    let joined = |v: &HashVector| format!("{}{}{}", v.workspace_id, v.action, v.canonical);
    assert_eq!(joined(&blue), joined(&bluegreen));
    let hash =
        |v: &HashVector| RequestHash::of(&v.workspace_id, &v.action, &v.context()).to_string();
    assert_ne!(hash(&blue), hash(&bluegreen));
}

#[test]
fn the_order_of_keys_does_not_matter() {
    let forwards = r#"{ "a": { "x": 1, "y": 2 }, "b": [], "c": null }"#;
    let backwards = r#"{ "c": null, "b": [], "a": { "y": 2, "x": 1 } }"#;
    let read = |text| context(serde_json::from_str(text).unwrap()).unwrap();
    assert_eq!(read(forwards), read(backwards));
}

#[test]
fn the_order_of_a_list_matters() {
    let rising = context(json!({ "list": [1, 2] })).unwrap();
    let falling = context(json!({ "list": [2, 1] })).unwrap();
    assert_ne!(rising, falling);
}

#[test]
fn keys_are_sorted_by_utf16_code_units() {
    // By code points, or by bytes of UTF-8, the Hebrew letter would come first.
    let both = context(json!({ "\u{fb33}": 1, "\u{1f600}": 2 })).unwrap();
    assert_eq!(both.as_str(), "{\"\u{1f600}\":2,\"\u{fb33}\":1}");
}

#[test]
fn letters_are_not_normalised() {
    let composed = hash_vector("a composed letter");
    let decomposed = hash_vector("the same letter decomposed");
    assert_ne!(composed.context(), decomposed.context());
}

#[test]
fn no_byte_of_a_canonical_form_is_zero() {
    let text = context(json!({ "a\0b": "\0" })).unwrap();
    assert!(!text.as_str().contains('\0'), "{:?}", text.as_str());
}

#[test]
fn a_context_of_65536_bytes_is_the_longest() {
    assert_eq!(context_of_length(65_536).unwrap().as_str().len(), 65_536);
    let fault = context_of_length(65_537).unwrap_err();
    assert!(fault.contains("65537"), "{fault}");
}

#[test]
fn length_is_that_of_the_canonical_form() {
    // Six bytes each in canonical form, one in the request.
    let controls = |count| context(json!({ "s": "\u{1}".repeat(count) }));
    assert!(controls(10_921).is_ok());
    assert!(controls(10_922).is_err());
}

#[test]
fn the_context_is_the_first_of_32_levels() {
    assert!(context(json!({ "list": nested(31) })).is_ok());
    let fault = context(json!({ "list": nested(32) })).unwrap_err();
    assert!(fault.contains("32 levels"), "{fault}");
}

#[test]
fn objects_are_levels_as_lists_are() {
    let objects = |count| (0..count).fold(json!(1), |inner, _| json!({ "o": inner }));
    assert!(context(objects(32)).is_ok());
    assert!(context(objects(33)).is_err());
}

#[test]
fn depth_is_counted_on_every_branch() {
    let fault = context(json!({ "a": [], "b": nested(32), "c": {} })).unwrap_err();
    assert!(fault.contains("\".b[0][0]"), "{fault}");
}

#[test]
fn integers_up_to_2_to_the_53rd_less_one_pass() {
    for number in [
        json!(9_007_199_254_740_991_i64),
        json!(-9_007_199_254_740_991_i64),
        json!(9_007_199_254_740_991.0),
        json!(5e-324),
    ] {
        assert!(context(json!({ "n": number })).is_ok(), "{number}");
    }
}

#[test]
fn larger_numbers_are_refused_wherever_they_are() {
    for number in [
        json!(9_007_199_254_740_992_i64),
        json!(-9_007_199_254_740_992_i64),
        json!(9_007_199_254_740_992.0),
        json!(9_007_199_254_740_993_i64),
        json!(i64::MIN),
        json!(u64::MAX),
        json!(1e300),
        json!(-1e300),
    ] {
        let fault = context(json!({ "list": [0, { "n": number }] })).unwrap_err();
        assert!(fault.contains(".list[1].n"), "{number}: {fault}");
    }
}

#[test]
fn a_fault_quotes_no_more_than_the_beginning_of_a_path() {
    let name = "n".repeat(10_000);
    let fault = context(json!({ name: 1e300 })).unwrap_err();
    assert!(fault.len() < 200, "{} bytes", fault.len());
}

#[test]
fn a_context_is_read_back_as_it_was_put_away() {
    let context = context(json!({ "b": 1, "a": [] })).unwrap();
    assert_eq!(Context::from_canonical(context.as_str()), context);
}

#[test]
fn debug_shows_nothing_of_a_context() {
    let secret = context(json!({ "password": "hunter2" })).unwrap();
    assert_eq!(format!("{secret:?}"), "Context(22 bytes)");
}

#[test]
fn a_hash_is_read_back_from_its_digits_and_its_bytes() {
    for vector in hash_vectors() {
        let hash = RequestHash::parse(&vector.request_hash).unwrap();
        assert_eq!(hash.to_string(), vector.request_hash);
        assert_eq!(RequestHash::from_bytes(hash.as_bytes()), Ok(hash));
    }
}

#[test]
fn only_64_lower_case_digits_are_a_hash() {
    let digits = "ab".repeat(32);
    assert!(RequestHash::parse(&digits).is_ok());
    for wrong in [
        String::new(),
        digits.to_uppercase(),
        digits.replacen('a', "A", 1),
        digits[1..].to_owned(),
        digits[2..].to_owned(),
        format!("{digits}a"),
        format!("{digits}ab"),
        digits.replacen('a', "g", 1),
        format!("0x{}", &digits[2..]),
        format!(" {}", &digits[1..]),
    ] {
        assert!(RequestHash::parse(&wrong).is_err(), "{wrong:?}");
    }
}

#[test]
fn only_32_bytes_are_a_hash() {
    assert!(RequestHash::from_bytes(&[0; 31]).is_err());
    assert!(RequestHash::from_bytes(&[0; 33]).is_err());
}
