use proptest::{collection::vec, prelude::*, sample::select};
use serde_json::Number;

use super::*;
use crate::fuzz::{can_be_shown, json, run, slips, spoilt, texts};

/// Writes a value in one of the many ways that mean the same. `turns` says which.
fn written(value: &Value, turns: &mut impl Iterator<Item = u8>) -> String {
    let space = [" ", "", "\n\t", ""][usize::from(turns.next().unwrap_or(1)) % 4];
    let text = match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => value.to_string(),
        Value::String(text) => quoted(text, turns),
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(|item| written(item, turns)).collect();
            format!("[{}{space}]", items.join(","))
        }
        Value::Object(members) => {
            let mut members: Vec<String> = members
                .iter()
                .map(|(name, member)| format!("{}:{}", quoted(name, turns), written(member, turns)))
                .collect();
            let first = usize::from(turns.next().unwrap_or(0)) % members.len().max(1);
            members.rotate_left(first);
            format!("{{{space}{}}}", members.join(","))
        }
    };
    format!("{space}{text}{space}")
}

/// A text with some of its characters escaped, those beyond the first plane as surrogates.
fn quoted(text: &str, turns: &mut impl Iterator<Item = u8>) -> String {
    let mut quoted = String::new();
    for character in text.chars() {
        let must = character.is_control() || matches!(character, '"' | '\\');
        if must || turns.next().is_some_and(|turn| turn % 2 == 0) {
            let units = &mut [0; 2];
            for unit in character.encode_utf16(units) {
                quoted.push_str(&format!("\\u{unit:04x}"));
            }
        } else {
            quoted.push(character);
        }
    }
    format!("\"{quoted}\"")
}

/// Levels of objects and lists.
fn levels(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(levels).max().unwrap_or(0),
        Value::Object(members) => 1 + members.values().map(levels).max().unwrap_or(0),
        _ => 0,
    }
}

fn largest(value: &Value) -> f64 {
    match value {
        Value::Array(items) => items.iter().map(largest).fold(0.0, f64::max),
        Value::Object(members) => members.values().map(largest).fold(0.0, f64::max),
        Value::Number(number) => number.as_f64().map_or(f64::INFINITY, f64::abs),
        _ => 0.0,
    }
}

/// Whether two values are the same to a reader for whom all numbers are doubles.
fn same(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Number(one), Value::Number(other)) => one.as_f64() == other.as_f64(),
        (Value::Array(one), Value::Array(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(one, other)| same(one, other))
        }
        (Value::Object(one), Value::Object(other)) => {
            one.len() == other.len()
                && one.iter().all(|(name, value)| other.get(name).is_some_and(|o| same(value, o)))
        }
        _ => one == other,
    }
}

fn parsed(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn all_ways_of_writing_a_value_have_one_canonical_form() {
    let cases = (json(), vec(any::<u8>(), 0..200));
    run("canonical JSON", &["read"], cases, |(value, turns)| {
        let form = canonical(&value).unwrap();
        let other = parsed(&written(&value, &mut turns.into_iter()));
        prop_assert_eq!(canonical(&other), Ok(form.clone()));
        let again = parsed(&form);
        prop_assert!(same(&again, &value), "{}", form);
        prop_assert_eq!(canonical(&again), Ok(form));
        Ok("read")
    });
}

/// Of few words, so that two are the same now and then.
fn small() -> impl Strategy<Value = Value> {
    let number = |number| Value::Number(Number::from_f64(number).unwrap());
    let leaves =
        [Value::Null, false.into(), "".into(), "0".into(), 0.into(), number(-0.0), number(0.5)];
    select(leaves.to_vec()).prop_recursive(2, 6, 2, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..3).prop_map(Value::from),
            vec((select(vec!["", "a", "b"]), inner), 0..3).prop_map(|members| {
                Value::Object(
                    members.into_iter().map(|(name, one)| (name.to_owned(), one)).collect(),
                )
            }),
        ]
    })
}

#[test]
fn two_values_have_one_canonical_form_only_if_they_are_the_same() {
    run("pairs of JSON", &["the same", "different"], (small(), small()), |(one, other)| {
        let equal = canonical(&one) == canonical(&other);
        prop_assert_eq!(equal, same(&one, &other));
        Ok(if equal { "the same" } else { "different" })
    });
}

#[test]
fn a_context_is_taken_if_it_is_within_the_limits_and_no_other_is() {
    let long = (texts(), 0..40usize).prop_map(|(text, times)| Value::from(text.repeat(times)));
    let cases = vec((texts(), prop_oneof![3 => json(), 1 => long]), 0..4);
    run("limits of contexts", &["taken", "refused"], cases, |members| {
        let members: Map<String, Value> = members.into_iter().collect();
        let whole = Value::Object(members.clone());
        let form = canonical(&whole).unwrap();
        let fits = form.len() <= CONTEXT_BYTES
            && levels(&whole) <= CONTEXT_LEVELS
            && largest(&whole) <= LARGEST_INTEGER;
        match Context::new(members) {
            Ok(context) => {
                prop_assert!(fits);
                prop_assert_eq!(context.as_str(), form);
                Ok("taken")
            }
            Err(fault) => {
                prop_assert!(!fits, "{}", fault);
                can_be_shown(&fault)?;
                Ok("refused")
            }
        }
    });
}

/// What is stored is read back by others, too.
#[test]
fn spoilt_json_is_refused_or_means_something() {
    run("spoilt JSON", &["read", "refused"], (json(), slips()), |(value, slips)| {
        let spoilt = spoilt(canonical(&value).unwrap().as_bytes(), &slips);
        let Ok(read) = serde_json::from_slice::<Value>(&spoilt) else { return Ok("refused") };
        let form = canonical(&read).unwrap();
        prop_assert_eq!(canonical(&parsed(&form)), Ok(form));
        Ok("read")
    });
}
