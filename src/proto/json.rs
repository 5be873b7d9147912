//! Protobuf's `Struct` as a JSON object, and back. Both sides of the wire hash what these make of a context.

use prost_types::{ListValue, Struct, Value, value::Kind};
use serde_json::{Map, Number};

use crate::digest::Way;

/// The members of a protobuf object. The error says what JSON cannot express, and where.
pub fn members(object: Struct) -> Result<Map<String, serde_json::Value>, String> {
    members_at(Way::Context, object)
}

/// The protobuf object with these members.
pub fn object(members: Map<String, serde_json::Value>) -> Struct {
    Struct { fields: members.into_iter().map(|(name, member)| (name, value(member))).collect() }
}

fn members_at(way: Way<'_>, object: Struct) -> Result<Map<String, serde_json::Value>, String> {
    let mut members = Map::new();
    for (name, value) in object.fields {
        let member = json(Way::Member(&way, &name), value)?;
        members.insert(name, member);
    }
    Ok(members)
}

fn json(way: Way<'_>, value: Value) -> Result<serde_json::Value, String> {
    Ok(match value.kind {
        Some(Kind::NullValue(_)) => serde_json::Value::Null,
        Some(Kind::BoolValue(boolean)) => boolean.into(),
        Some(Kind::StringValue(text)) => text.into(),
        Some(Kind::NumberValue(number)) => match Number::from_f64(number) {
            Some(number) => serde_json::Value::Number(number),
            None => return Err(format!("holds at {way} a number that is not finite")),
        },
        Some(Kind::StructValue(object)) => serde_json::Value::Object(members_at(way, object)?),
        Some(Kind::ListValue(list)) => {
            let items = list.values.into_iter().enumerate();
            let items = items.map(|(index, item)| json(Way::Item(&way, index), item));
            serde_json::Value::Array(items.collect::<Result<_, String>>()?)
        }
        None => return Err(format!("holds at {way} a value of no kind")),
    })
}

fn value(json: serde_json::Value) -> Value {
    let kind = match json {
        serde_json::Value::Null => Kind::NullValue(0),
        serde_json::Value::Bool(boolean) => Kind::BoolValue(boolean),
        serde_json::Value::String(text) => Kind::StringValue(text),
        // A context is checked to hold nothing but what is a double, so each of its numbers is one.
        serde_json::Value::Number(number) => Kind::NumberValue(number.as_f64().unwrap_or(f64::NAN)),
        serde_json::Value::Array(items) => {
            Kind::ListValue(ListValue { values: items.into_iter().map(value).collect() })
        }
        serde_json::Value::Object(members) => Kind::StructValue(object(members)),
    };
    Value { kind: Some(kind) }
}
