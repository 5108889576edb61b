// SPDX-License-Identifier: GPL-2.0-only
//! Lines of named values, for people or for programs.

use std::io::{self, Write};

use serde_json::{Map, Value};

/// A value of a line.
pub enum Field {
    /// A number.
    Number(u64),
    /// A number that may be negative.
    Signed(i64),
    /// A number that is no quantity, in 16 hexadecimal digits.
    Id(u64),
    /// Text without blanks or control characters.
    Word(String),
    /// Text that may hold anything, quoted.
    Text(String),
    /// Bytes that somebody named something, escaped and quoted.
    Name(Vec<u8>),
}

impl From<u64> for Field {
    fn from(n: u64) -> Self {
        Field::Number(n)
    }
}

impl From<u32> for Field {
    fn from(n: u32) -> Self {
        Field::Number(n.into())
    }
}

impl From<usize> for Field {
    fn from(n: usize) -> Self {
        Field::Number(n as u64)
    }
}

impl Field {
    fn text(&self) -> String {
        match self {
            Field::Number(n) => n.to_string(),
            Field::Signed(n) => n.to_string(),
            Field::Id(n) => format!("{n:016x}"),
            Field::Word(text) => text.clone(),
            Field::Text(text) => format!("{text:?}"),
            Field::Name(bytes) => format!("\"{}\"", bytes.escape_ascii()),
        }
    }

    fn json(&self) -> Value {
        match self {
            Field::Number(n) => (*n).into(),
            Field::Signed(n) => (*n).into(),
            Field::Id(_) | Field::Word(_) => self.text().into(),
            Field::Text(text) => text.clone().into(),
            Field::Name(bytes) => bytes.escape_ascii().to_string().into(),
        }
    }
}

/// Named values in order.
#[derive(Default)]
pub struct Fields(Vec<(&'static str, Field)>);

impl Fields {
    /// Adds a value.
    pub fn with(mut self, name: &'static str, value: impl Into<Field>) -> Self {
        self.0.push((name, value.into()));
        self
    }

    /// Adds values.
    pub fn and(mut self, other: Fields) -> Self {
        self.0.extend(other.0);
        self
    }
}

/// Where lines go.
pub struct Output<'a> {
    out: &'a mut dyn Write,
    json: bool,
    /// The first error; nothing is written after it.
    error: Option<io::Error>,
}

impl<'a> Output<'a> {
    /// Text, or one JSON object a line.
    pub fn new(out: &'a mut dyn Write, json: bool) -> Self {
        Output { out, json, error: None }
    }

    /// Writes a line that says what it is of, and its values.
    pub fn line(&mut self, kind: &'static str, fields: Fields) {
        let mut line = String::new();
        if self.json {
            let mut object = Map::new();
            object.insert("type".into(), kind.into());
            for (name, value) in &fields.0 {
                object.insert((*name).into(), value.json());
            }
            line.push_str(&Value::Object(object).to_string());
        } else {
            line.push_str(kind);
            for (name, value) in &fields.0 {
                line.push_str(&format!(" {name}={}", value.text()));
            }
        }
        if self.error.is_none() {
            self.error = writeln!(self.out, "{line}").err();
        }
    }

    /// Whether an earlier line could not be written.
    pub fn failed(&self) -> bool {
        self.error.is_some()
    }

    /// Ends the output.
    pub fn finish(mut self) -> io::Result<()> {
        match self.error.take() {
            Some(e) => Err(e),
            None => self.out.flush(),
        }
    }
}
