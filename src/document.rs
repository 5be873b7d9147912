//! TOML that a person wrote, read so that everything that is wrong with it is told at once, and where. serde stops
//! at the first fault; here each value is read by itself.

use std::{fmt, ops::Range};

use serde::de::DeserializeOwned;
use toml::{
    Spanned,
    de::{DeTable, DeValue, ValueDeserializer},
};

use crate::visible::Sentence;

/// What is wrong with a file, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Counted from 1.
    pub line: usize,
    /// What is wrong.
    pub message: String,
}

impl fmt::Display for Fault {
    /// On one line: the message can hold what stands in the file.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, Sentence(&self.message))
    }
}

/// The faults of a text that have been found.
#[derive(Debug)]
pub struct Faults<'t> {
    text: &'t str,
    found: Vec<Fault>,
}

impl Faults<'_> {
    /// Adds one.
    pub fn add(&mut self, span: Range<usize>, message: impl Into<String>) {
        self.found.push(Fault { line: self.line(&span), message: message.into() });
    }

    /// Adds one that is not of any one place, but of the whole.
    pub fn add_to_whole(&mut self, message: impl Into<String>) {
        self.add(0..0, message);
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.found.len()
    }

    /// The value, if no fault was found on the way to it; all of them, in the order of their lines, if any was.
    pub fn or<T>(mut self, value: T) -> Result<T, Vec<Fault>> {
        self.found.sort_by_key(|fault| fault.line);
        if self.found.is_empty() { Ok(value) } else { Err(self.found) }
    }

    fn line(&self, span: &Range<usize>) -> usize {
        self.text.bytes().take(span.start).filter(|byte| *byte == b'\n').count() + 1
    }
}

/// What was read of a table.
#[derive(Clone, Debug)]
pub struct Section<T> {
    /// What it says.
    pub value: T,
    /// Where it stands.
    pub span: Range<usize>,
    /// Whether all of it was understood. If not, what it seems to leave out may be what it misspells.
    pub understood: bool,
}

/// Reads a text with `read`. Text that is no TOML is not looked into.
pub fn read<'t, T>(
    text: &'t str,
    read: impl FnOnce(&mut Keys<'_, 't>) -> T,
) -> Result<(T, Faults<'t>), Vec<Fault>> {
    let mut faults = Faults { text, found: Vec::new() };
    let (table, errors) = DeTable::parse_recoverable(text);
    for error in errors {
        faults.add(error.span().unwrap_or_default(), error.message());
    }
    let mut faults = faults.or(()).map(|()| Faults { text, found: Vec::new() })?;
    let section = section(table, &mut faults, read);
    Ok((section.value, faults))
}

/// A table is read by its keys; those that nobody has asked for are unknown, and faults.
fn section<'t, T>(
    table: Spanned<DeTable<'t>>,
    faults: &mut Faults<'t>,
    read: impl FnOnce(&mut Keys<'_, 't>) -> T,
) -> Section<T> {
    let (span, before) = (table.span(), faults.count());
    let mut keys =
        Keys { span: span.clone(), table: table.into_inner(), known: Vec::new(), faults };
    let value = read(&mut keys);
    let Keys { table, known, faults, .. } = keys;
    for key in table.keys() {
        let known = known.join(", ");
        let message = format!("unknown field `{}`, expected one of: {known}", key.get_ref());
        faults.add(key.span(), message);
    }
    Section { value, span, understood: faults.count() == before }
}

/// A table while it is read. What is asked for and is not of the type that is expected is a fault, and then is
/// nothing, as what is not there.
pub struct Keys<'k, 't> {
    span: Range<usize>,
    table: DeTable<'t>,
    known: Vec<&'static str>,
    faults: &'k mut Faults<'t>,
}

impl<'t> Keys<'_, 't> {
    /// A value.
    pub fn value<T: DeserializeOwned>(&mut self, key: &'static str) -> Option<Spanned<T>> {
        let value = self.take(key)?;
        self.typed(key, value)
    }

    /// A value that must be there.
    pub fn required<T: DeserializeOwned>(&mut self, key: &'static str) -> Option<Spanned<T>> {
        if !self.table.contains_key(key) {
            self.faults.add(self.span.clone(), format!("{key} is missing"));
        }
        self.value(key)
    }

    /// A list; each value in it is read by itself.
    pub fn list<T: DeserializeOwned>(&mut self, key: &'static str) -> Option<Spanned<Vec<T>>> {
        let value = self.take(key)?;
        let (span, before) = (value.span(), self.faults.count());
        let DeValue::Array(values) = value.into_inner() else {
            self.faults.add(span, format!("{key}: expected a list"));
            return None;
        };
        let values = values.into_iter().filter_map(|value| self.typed(key, value));
        let values = values.map(Spanned::into_inner).collect();
        (self.faults.count() == before).then(|| Spanned::new(span, values))
    }

    /// A table.
    pub fn table<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&mut Keys<'_, 't>) -> T,
    ) -> Option<T> {
        let value = self.take(key)?;
        let table = self.expect_table(key, value)?;
        Some(section(table, self.faults, read).value)
    }

    /// A table of tables, by name. One that is none is told, and is as if nothing were said in it.
    pub fn named<T: Default>(
        &mut self,
        key: &'static str,
        mut read: impl FnMut(&mut Keys<'_, 't>) -> T,
    ) -> Option<Vec<(Spanned<String>, T)>> {
        let value = self.take(key)?;
        let tables = self.expect_table(key, value)?.into_inner();
        let read = tables.into_iter().map(|(name, value)| {
            let table = self.expect_table(name.get_ref(), value);
            let value = table.map(|table| section(table, self.faults, &mut read).value);
            let name = Spanned::new(name.span(), name.into_inner().into_owned());
            (name, value.unwrap_or_default())
        });
        Some(read.collect())
    }

    /// A list of tables; none, where there is no such key.
    pub fn tables<T>(
        &mut self,
        key: &'static str,
        mut read: impl FnMut(&mut Keys<'_, 't>) -> T,
    ) -> Vec<Section<T>> {
        let Some(value) = self.take(key) else { return Vec::new() };
        let span = value.span();
        let DeValue::Array(values) = value.into_inner() else {
            self.faults.add(span, format!("{key}: expected [[{key}]]"));
            return Vec::new();
        };
        let tables = values.into_iter().filter_map(|value| {
            let table = self.expect_table(key, value)?;
            Some(section(table, self.faults, &mut read))
        });
        tables.collect()
    }

    /// Adds a fault of what has been read.
    pub fn fault(&mut self, span: Range<usize>, message: impl Into<String>) {
        self.faults.add(span, message);
    }

    fn take(&mut self, key: &'static str) -> Option<Spanned<DeValue<'t>>> {
        self.known.push(key);
        self.table.remove(key)
    }

    fn typed<T: DeserializeOwned>(
        &mut self,
        key: &str,
        value: Spanned<DeValue<'t>>,
    ) -> Option<Spanned<T>> {
        let span = value.span();
        match T::deserialize(ValueDeserializer::from(value)) {
            Ok(value) => Some(Spanned::new(span, value)),
            Err(error) => {
                let span = error.span().unwrap_or(span);
                self.faults.add(span, format!("{key}: {}", without_texts(error.message())));
                None
            }
        }
    }

    fn expect_table(
        &mut self,
        key: &str,
        value: Spanned<DeValue<'t>>,
    ) -> Option<Spanned<DeTable<'t>>> {
        let span = value.span();
        match value.into_inner() {
            DeValue::Table(table) => Some(Spanned::new(span, table)),
            _ => {
                self.faults.add(span, format!("{key}: expected a table"));
                None
            }
        }
    }
}

/// What serde says of a value, without the text that stands there: it may be a secret, put there by mistake.
fn without_texts(message: &str) -> String {
    match message.split_once(": string \"") {
        Some((why, rest)) => {
            let expected = rest.rsplit(", expected ").next().unwrap_or("something else");
            format!("{why}: string, expected {expected}")
        }
        None => message.to_owned(),
    }
}
