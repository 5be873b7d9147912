use proptest::{collection::vec, prelude::*};
use prost_types::{Value, value::Kind};

use super::*;
use crate::{
    digest::{CONTEXT_LEVELS, LARGEST_INTEGER},
    error::Violation,
    fuzz::{can_be_shown, numbers, run, texts},
    grpc::fields::Fields,
};

/// Contexts as they can come, those that no client's library would make included.
pub(in crate::grpc) fn contexts() -> impl Strategy<Value = Struct> {
    let leaf = prop_oneof![
        1 => Just(None),
        1 => any::<i32>().prop_map(|null| Some(Kind::NullValue(null))),
        1 => any::<bool>().prop_map(|boolean| Some(Kind::BoolValue(boolean))),
        2 => numbers().prop_map(|number| Some(Kind::NumberValue(number))),
        2 => texts().prop_map(|text| Some(Kind::StringValue(text))),
    ];
    let leaf = leaf.prop_map(|kind| Value { kind });
    let values = leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(list),
            vec((texts(), inner), 0..4).prop_map(|members| object(members.into_iter().collect())),
        ]
    });
    let members = prop_oneof![
        4 => values,
        // Deeper than is taken, and than is decoded.
        1 => (0..60usize).prop_map(|levels| (0..levels).fold(list(Vec::new()), |inner, _| list(vec![inner]))),
        1 => (65_000..66_000usize).prop_map(|length| {
            Value { kind: Some(Kind::StringValue("x".repeat(length))) }
        }),
    ];
    vec((texts(), members), 0..3).prop_map(|fields| Struct { fields: fields.into_iter().collect() })
}

fn list(values: Vec<Value>) -> Value {
    Value { kind: Some(Kind::ListValue(prost_types::ListValue { values })) }
}

fn object(fields: std::collections::BTreeMap<String, Value>) -> Value {
    Value { kind: Some(Kind::StructValue(Struct { fields })) }
}

/// Whether JSON can say this, within the contract's limits but for its length; and how deep it is.
fn can_be_taken(value: &Value) -> (bool, usize) {
    match &value.kind {
        None => (false, 0),
        Some(Kind::NumberValue(number)) => (number.abs() <= LARGEST_INTEGER, 0),
        Some(Kind::NullValue(_) | Kind::BoolValue(_) | Kind::StringValue(_)) => (true, 0),
        Some(Kind::ListValue(list)) => all(list.values.iter()),
        Some(Kind::StructValue(object)) => all(object.fields.values()),
    }
}

fn all<'v>(values: impl Iterator<Item = &'v Value>) -> (bool, usize) {
    values
        .map(can_be_taken)
        .fold((true, 1), |(good, deep), (one, below)| (good && one, deep.max(below + 1)))
}

/// As it is told, where every null is the same.
fn told(value: Value) -> Value {
    let kind = value.kind.map(|kind| match kind {
        Kind::NullValue(_) => Kind::NullValue(0),
        Kind::ListValue(list) => Kind::ListValue(prost_types::ListValue {
            values: list.values.into_iter().map(told).collect(),
        }),
        Kind::StructValue(object) => Kind::StructValue(Struct {
            fields: object.fields.into_iter().map(|(name, value)| (name, told(value))).collect(),
        }),
        other => other,
    });
    Value { kind }
}

#[test]
fn what_is_asked_for_is_what_approvers_are_shown() {
    run("contexts", &["taken", "refused", "too long"], contexts(), |given| {
        let (sayable, levels) = all(given.fields.values());
        let good = sayable && levels <= CONTEXT_LEVELS;
        let mut fields = Fields::default();
        match fields.context(Some(given.clone())) {
            Some(taken) => {
                prop_assert!(good);
                let Some(Kind::StructValue(given)) = told(object(given.fields)).kind else {
                    unreachable!("an object");
                };
                prop_assert_eq!(context(&taken).unwrap(), given.clone());
                let again = Fields::default().context(Some(given));
                prop_assert_eq!(again, Some(taken), "it is bound again as it is shown");
                Ok("taken")
            }
            None => {
                let Error::Invalid(violations) = fields.into_error() else {
                    unreachable!("nothing else comes of fields");
                };
                let [Violation { field, description }] = &violations[..] else {
                    panic!("{violations:?}");
                };
                prop_assert_eq!(field, "context");
                can_be_shown(description)?;
                let too_long = description.contains("bytes in canonical form");
                prop_assert_eq!(too_long, good, "{}", description);
                Ok(if too_long { "too long" } else { "refused" })
            }
        }
    });
}
