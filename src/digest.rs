//! Canonical JSON (RFC 8785, "JCS") and the request hash that binds an approval to one operation.

use std::{fmt, sync::Arc};

use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use crate::{
    names::{Action, WorkspaceId},
    visible::Visible,
};

/// Longest context in canonical form, in bytes.
pub const CONTEXT_BYTES: usize = 64 * 1024;
/// Deepest context: the context itself is the first level, each object or list in it one more.
pub const CONTEXT_LEVELS: usize = 32;
/// The largest integer that every JSON implementation reads back as it was written (RFC 7493 section 2.2).
pub const LARGEST_INTEGER: f64 = 9_007_199_254_740_991.0;

/// The parameters of an operation in their canonical form: the very bytes that are hashed, stored and shown.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Context(Arc<str>);

impl Context {
    /// Canonicalises the parameters.
    ///
    /// The error says what is wrong: too long, too deep, or a number that does not survive JSON.
    pub fn new(parameters: Map<String, Value>) -> Result<Self, String> {
        let value = Value::Object(parameters);
        check(&value, 1, Way::Context)?;
        let text = canonical(&value)?;
        if text.len() > CONTEXT_BYTES {
            return Err(format!(
                "takes {} bytes in canonical form; at most {CONTEXT_BYTES} are allowed",
                text.len()
            ));
        }
        Ok(Self(text.into()))
    }

    /// A context read back from where `new` put it.
    pub fn from_canonical(text: &str) -> Self {
        Self(text.into())
    }

    /// The canonical form.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Context {
    /// Names the size alone: parameters may hold what does not belong in a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Context({} bytes)", self.0.len())
    }
}

/// SHA-256 of workspace, action and context: what an approver approves.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestHash([u8; 32]);

impl RequestHash {
    /// `SHA-256(workspace_id || 0x00 || action || 0x00 || JCS(context))`.
    ///
    /// Neither name can contain 0x00 (their types refuse it), so two requests that differ are never the
    /// same sequence of bytes.
    pub fn of(workspace: &WorkspaceId, action: &Action, context: &Context) -> Self {
        let mut sha = Sha256::new();
        sha.update(workspace.as_str());
        sha.update([0]);
        sha.update(action.as_str());
        sha.update([0]);
        sha.update(context.as_str());
        Self(sha.finalize().into())
    }

    /// The hash that the store holds.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, String> {
        bytes.try_into().map(Self).map_err(|_| format!("a request hash of {} bytes", bytes.len()))
    }

    /// Reads 64 hexadecimal digits, lower-case as the contract writes them.
    pub fn parse(hex_digits: &str) -> Result<Self, String> {
        let mut bytes = [0; 32];
        let lower = !hex_digits.bytes().any(|b| b.is_ascii_uppercase());
        match hex::decode_to_slice(hex_digits, &mut bytes) {
            Ok(()) if lower => Ok(Self(bytes)),
            _ => Err("must be 64 lower-case hexadecimal digits".to_owned()),
        }
    }

    /// The 32 bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for RequestHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut digits = [0; 64];
        hex::encode_to_slice(self.0, &mut digits).map_err(|_| fmt::Error)?;
        f.write_str(str::from_utf8(&digits).map_err(|_| fmt::Error)?)
    }
}

impl fmt::Debug for RequestHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The RFC 8785 form of a value. Fails on what JSON cannot express; a `serde_json::Value` always can.
pub fn canonical(value: &Value) -> Result<String, String> {
    serde_json_canonicalizer::to_string(value).map_err(|e| format!("has no canonical form: {e}"))
}

/// Lower-case hex of the SHA-256 of some bytes.
pub fn sha256_hex(bytes: impl AsRef<[u8]>) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// The way to a value in a context. It is spelt out only when something is wrong there.
#[derive(Clone, Copy)]
pub(crate) enum Way<'a> {
    /// The context itself.
    Context,
    /// A member of an object.
    Member(&'a Way<'a>, &'a str),
    /// An item of a list, counted from 0.
    Item(&'a Way<'a>, usize),
}

impl Way<'_> {
    fn spell(&self, way: &mut String) {
        match self {
            Self::Context => {}
            Self::Member(object, name) => {
                object.spell(way);
                way.push('.');
                way.push_str(name);
            }
            Self::Item(list, index) => {
                list.spell(way);
                way.push_str(&format!("[{index}]"));
            }
        }
    }
}

impl fmt::Display for Way<'_> {
    /// As much of it as it takes to find the place: names in a context can be as long as the context, and hold anything.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut way = String::new();
        self.spell(&mut way);
        let beginning: String = way.chars().take(80).collect();
        write!(f, "\"{}\"", Visible(&beginning))
    }
}

fn check(value: &Value, level: usize, way: Way<'_>) -> Result<(), String> {
    match value {
        Value::Object(members) => {
            check_level(level, way)?;
            members
                .iter()
                .try_for_each(|(name, member)| check(member, level + 1, Way::Member(&way, name)))
        }
        Value::Array(items) => {
            check_level(level, way)?;
            items
                .iter()
                .enumerate()
                .try_for_each(|(index, item)| check(item, level + 1, Way::Item(&way, index)))
        }
        Value::Number(number) => match number.as_f64() {
            // Above 2^53 - 1 every double is an integer, so the bound refuses all of them.
            Some(n) if n.is_finite() && n.abs() <= LARGEST_INTEGER => Ok(()),
            _ => Err(format!("holds at {way} a number beyond +/-(2^53 - 1); send it as a string")),
        },
        Value::Null | Value::Bool(_) | Value::String(_) => Ok(()),
    }
}

fn check_level(level: usize, way: Way<'_>) -> Result<(), String> {
    if level > CONTEXT_LEVELS {
        return Err(format!("is more than {CONTEXT_LEVELS} levels deep below {way}"));
    }
    Ok(())
}

#[cfg(test)]
#[cfg(feature = "server")]
mod fuzz;
#[cfg(test)]
mod tests;
