//! The contract's protobuf JSON. What a terminal would not show, or would obey, is escaped in it, which changes nothing
//! of what it says.

use std::{
    io::{self, Write},
    sync::LazyLock,
};

use prost::{Message, Name};
use prost_reflect::{DescriptorPool, DynamicMessage, SerializeOptions};
use serde::Serialize;
use serde_json::ser::{CompactFormatter, Formatter, PrettyFormatter, Serializer};

use crate::{digest::LARGEST_INTEGER, proto::DESCRIPTORS, visible::is_invisible};

static CONTRACT: LazyLock<Option<DescriptorPool>> =
    LazyLock::new(|| DescriptorPool::decode(DESCRIPTORS).ok());

/// A message, over several lines.
pub(super) fn pretty<M: Message + Name>(message: &M) -> io::Result<String> {
    write(message, PrettyFormatter::new())
}

/// A message on one line.
pub(super) fn line<M: Message + Name>(message: &M) -> io::Result<String> {
    write(message, CompactFormatter)
}

/// JSON of no message's, over several lines.
pub(super) fn pretty_value(value: &serde_json::Value) -> io::Result<String> {
    let mut serializer = Serializer::with_formatter(Vec::new(), Legible(PrettyFormatter::new()));
    value.serialize(&mut serializer)?;
    String::from_utf8(serializer.into_inner()).map_err(io::Error::other)
}

fn write<M: Message + Name>(message: &M, layout: impl Formatter) -> io::Result<String> {
    let descriptor = CONTRACT.as_ref().and_then(|all| all.get_message_by_name(&M::full_name()));
    let descriptor = descriptor.ok_or_else(|| io::Error::other("not in the contract"))?;
    let message = DynamicMessage::decode(descriptor, message.encode_to_vec().as_slice());
    let message = message.map_err(io::Error::other)?;
    let mut serializer = Serializer::with_formatter(Vec::new(), Legible(layout));
    message.serialize_with_options(&mut serializer, &SerializeOptions::new())?;
    String::from_utf8(serializer.into_inner()).map_err(io::Error::other)
}

/// A layout in which nothing is invisible, and whole numbers are written as people write them.
struct Legible<F>(F);

impl<F: Formatter> Formatter for Legible<F> {
    fn write_string_fragment<W: ?Sized + Write>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        fragment.chars().try_for_each(|c| match c {
            c if c.is_control() || is_invisible(c) => {
                let units = &mut [0; 2];
                c.encode_utf16(units).iter().try_for_each(|unit| write!(writer, "\\u{unit:04x}"))
            }
            c => write!(writer, "{c}"),
        })
    }

    fn write_f64<W: ?Sized + Write>(&mut self, writer: &mut W, value: f64) -> io::Result<()> {
        if value.fract() == 0.0 && value.abs() <= LARGEST_INTEGER {
            // Within 2^53, so the cast is exact.
            return self.0.write_i64(writer, value as i64);
        }
        self.0.write_f64(writer, value)
    }

    fn begin_array<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.begin_array(writer)
    }

    fn end_array<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.end_array(writer)
    }

    fn begin_array_value<W: ?Sized + Write>(
        &mut self,
        writer: &mut W,
        first: bool,
    ) -> io::Result<()> {
        self.0.begin_array_value(writer, first)
    }

    fn end_array_value<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.end_array_value(writer)
    }

    fn begin_object<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.begin_object(writer)
    }

    fn end_object<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.end_object(writer)
    }

    fn begin_object_key<W: ?Sized + Write>(
        &mut self,
        writer: &mut W,
        first: bool,
    ) -> io::Result<()> {
        self.0.begin_object_key(writer, first)
    }

    fn begin_object_value<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.begin_object_value(writer)
    }

    fn end_object_value<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.end_object_value(writer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::{Approval, ApprovalEvent, json};

    #[test]
    fn what_cannot_be_seen_is_escaped_and_says_the_same() {
        let context = serde_json::json!({"a\u{202e}": ["\u{1b}[2J\u{9b}\u{7f}", "\u{e0041}\n", "é", 3, -0.5, 1e21]});
        let serde_json::Value::Object(members) = context.clone() else { panic!("an object") };
        let approval = Approval { context: Some(json::object(members)), ..Default::default() };
        let text = line(&approval).expect("JSON");
        let expected = r#"{"context":{"a\u202e":["\u001b[2J\u009b\u007f","\udb40\udc41\n","é",3,-0.5,1e+21]}}"#;
        assert_eq!(text, expected);
        let read: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(
            read["context"].to_string(),
            serde_json::json!({"a\u{202e}": context["a\u{202e}"]}).to_string()
        );
        assert_eq!(pretty_value(&read["context"]["a\u{202e}"][2]).expect("JSON"), "\"é\"");
    }

    #[test]
    fn fields_are_spelt_and_numbers_quoted_as_protobuf_has_it() {
        let event =
            ApprovalEvent { revision: 1 << 60, workspace_id: "w".into(), ..Default::default() };
        assert_eq!(
            line(&event).expect("JSON"),
            r#"{"revision":"1152921504606846976","workspaceId":"w"}"#
        );
    }
}
