//! A JSON object of a token, in which no member stands twice: two readers could each take another of them for true.

use std::fmt;

use jiff::{SignedDuration, Timestamp};
use serde::{
    Deserialize, Deserializer,
    de::{Error, MapAccess, Visitor},
};
use serde_json::{Map, Value};

use super::Refusal;

/// The members.
pub(super) struct Members(Map<String, Value>);

impl Members {
    /// Reads an object; the error says what is wrong without saying what stands there.
    pub(super) fn parse(json: &[u8]) -> Result<Self, String> {
        serde_json::from_slice(json).map_err(|error| match error.classify() {
            serde_json::error::Category::Data => "no object, or a member stands twice".to_owned(),
            _ => "no JSON".to_owned(),
        })
    }

    pub(super) fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }

    /// A member that is text, if it is there.
    pub(super) fn text(&self, name: &str) -> Result<Option<&str>, Refusal> {
        let Some(value) = self.0.get(name) else { return Ok(None) };
        value.as_str().map(Some).ok_or_else(|| wrong(name, "text"))
    }

    /// A member that is a list of texts, if it is there.
    pub(super) fn texts(&self, name: &str) -> Result<Option<Vec<&str>>, Refusal> {
        let Some(value) = self.0.get(name) else { return Ok(None) };
        let texts = value.as_array().and_then(|list| list.iter().map(Value::as_str).collect());
        texts.map(Some).ok_or_else(|| wrong(name, "a list of texts"))
    }

    /// A member that is a time in seconds since 1970, if it is there, moved by so much.
    pub(super) fn time(
        &self,
        name: &str,
        by: SignedDuration,
    ) -> Result<Option<Timestamp>, Refusal> {
        let Some(value) = self.0.get(name) else { return Ok(None) };
        let time = value.as_f64().and_then(|seconds| {
            let since_1970 = SignedDuration::try_from_secs_f64(seconds).ok()?;
            Timestamp::from_duration(since_1970.checked_add(by)?).ok()
        });
        time.map(Some).ok_or_else(|| wrong(name, "a time"))
    }
}

fn wrong(name: &str, expected: &str) -> Refusal {
    Refusal::Malformed(format!("{name} is not {expected}"))
}

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Once;
        impl<'de> Visitor<'de> for Once {
            type Value = Members;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut given: A) -> Result<Members, A::Error> {
                let mut members = Map::new();
                while let Some((name, value)) = given.next_entry::<String, Value>()? {
                    if members.insert(name, value).is_some() {
                        return Err(A::Error::custom("a member stands twice"));
                    }
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Once)
    }
}
