//! A YAML file as a tree in which every key and value knows where it stands. Nothing is interpreted here except
//! what YAML itself says; types, names and variables come later. Fails on broken syntax, with its place.

use std::fmt;
use std::ops::Range;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::options::DuplicateKeyPolicy;
use serde_saphyr::{Location, Spanned};

/// Where something stands in the file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) struct Place {
    /// Counted from 1.
    pub(super) line: usize,
    /// In characters, counted from 1.
    pub(super) column: usize,
    /// Bytes of the file; empty where the end is not known.
    pub(super) start: usize,
    /// Past the last byte.
    pub(super) end: usize,
}

impl Place {
    /// The bytes, as annotate-snippets wants them.
    pub(super) fn range(&self) -> Range<usize> {
        self.start..self.end
    }
}

/// A value and its place.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) at: Place,
    pub(super) value: Value,
}

/// A key and its place.
#[derive(Debug, Clone)]
pub(super) struct Key {
    pub(super) at: Place,
    pub(super) name: String,
}

/// What a value is.
#[derive(Debug, Clone)]
pub(super) enum Value {
    /// Nothing, `null` or `~`.
    Null,
    /// Everything that is no list and no map, as written: whether `6` is a number is for its reader to say.
    Scalar(Scalar),
    /// `[...]` or dashes.
    List(Vec<Node>),
    /// `{...}` or lines of `key: value`, in order, repeated keys included.
    Map(Vec<(Key, Node)>),
}

/// A text, a number or a boolean.
#[derive(Debug, Clone)]
pub(super) struct Scalar {
    /// The text, with variables put in.
    pub(super) text: String,
    /// What YAML takes it for.
    pub(super) kind: ScalarKind,
    /// Names of the variables that became part of the text.
    pub(super) variables: Vec<String>,
}

/// What YAML takes a scalar for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ScalarKind {
    /// A text, quoted or not.
    Text,
    /// An unquoted number.
    Number,
    /// An unquoted `true` or `false`.
    Bool,
}

/// Why a text is no YAML.
#[derive(Debug)]
pub(super) struct SyntaxError {
    pub(super) at: Place,
    pub(super) message: String,
}

/// Parses one YAML document. An empty file is an empty map.
pub(super) fn parse(source: &str) -> Result<Node, SyntaxError> {
    let options = serde_saphyr::options! {
        // Repeated keys are reported by the reader, all of them at once.
        duplicate_keys: DuplicateKeyPolicy::PassThrough,
        with_snippet: false,
    };
    let empty = source.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#'));
    if empty {
        return Ok(Node { at: Place { line: 1, column: 1, start: 0, end: 0 }, value: Value::Null });
    }
    match serde_saphyr::from_str_with_options::<Spanned<Raw>>(source, options) {
        Ok(raw) => Ok(node(raw, source)),
        Err(error) => {
            let at = error
                .location()
                .map_or(Place { line: 1, column: 1, start: 0, end: 0 }, |l| place(&l, source));
            Err(SyntaxError { at, message: short(&error.to_string()) })
        }
    }
}

/// The first line of the parser's text, without the place it repeats.
fn short(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    let cut = line.find(" at line ").unwrap_or(line.len());
    line[..cut].trim_end_matches(['.', ':', ',']).to_owned()
}

/// The tree as serde sees it.
enum Raw {
    Null,
    Bool(bool),
    Number(String),
    Text(String),
    List(Vec<Spanned<Raw>>),
    Map(Vec<(Spanned<String>, Spanned<Raw>)>),
}

struct RawVisitor;

impl<'de> Visitor<'de> for RawVisitor {
    type Value = Raw;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }
    fn visit_bool<E>(self, v: bool) -> Result<Raw, E> {
        Ok(Raw::Bool(v))
    }
    fn visit_i64<E>(self, v: i64) -> Result<Raw, E> {
        Ok(Raw::Number(v.to_string()))
    }
    fn visit_u64<E>(self, v: u64) -> Result<Raw, E> {
        Ok(Raw::Number(v.to_string()))
    }
    fn visit_i128<E>(self, v: i128) -> Result<Raw, E> {
        Ok(Raw::Number(v.to_string()))
    }
    fn visit_u128<E>(self, v: u128) -> Result<Raw, E> {
        Ok(Raw::Number(v.to_string()))
    }
    fn visit_f64<E>(self, v: f64) -> Result<Raw, E> {
        Ok(Raw::Number(v.to_string()))
    }
    fn visit_str<E>(self, v: &str) -> Result<Raw, E> {
        Ok(Raw::Text(v.to_owned()))
    }
    fn visit_string<E>(self, v: String) -> Result<Raw, E> {
        Ok(Raw::Text(v))
    }
    fn visit_unit<E>(self) -> Result<Raw, E> {
        Ok(Raw::Null)
    }
    fn visit_none<E>(self) -> Result<Raw, E> {
        Ok(Raw::Null)
    }
    fn visit_some<D: Deserializer<'de>>(self, inner: D) -> Result<Raw, D::Error> {
        Raw::deserialize(inner)
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Raw, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element()? {
            items.push(item);
        }
        Ok(Raw::List(items))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Raw, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = access.next_entry()? {
            entries.push(entry);
        }
        Ok(Raw::Map(entries))
    }
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RawVisitor)
    }
}

fn node(raw: Spanned<Raw>, source: &str) -> Node {
    let at = place(&raw.referenced, source);
    // A hash like `12e4` is a number to YAML; the letters that were written are what counts.
    let written = place(&raw.defined, source);
    let spelled = |fallback: String| match source.get(written.range()).map(str::trim) {
        Some(text) if !text.is_empty() => text.to_owned(),
        _ => fallback,
    };
    let scalar = |text, kind| Value::Scalar(Scalar { text, kind, variables: Vec::new() });
    let value = match raw.value {
        Raw::Null => Value::Null,
        Raw::Bool(v) => scalar(spelled(v.to_string()), ScalarKind::Bool),
        Raw::Number(v) => scalar(spelled(v), ScalarKind::Number),
        Raw::Text(v) => scalar(v, ScalarKind::Text),
        Raw::List(items) => Value::List(items.into_iter().map(|item| node(item, source)).collect()),
        Raw::Map(entries) => Value::Map(
            entries
                .into_iter()
                .map(|(key, value)| {
                    let key = Key { at: place(&key.referenced, source), name: key.value };
                    (key, node(value, source))
                })
                .collect(),
        ),
    };
    Node { at, value }
}

fn place(location: &Location, source: &str) -> Place {
    let number = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
    let line = number(location.line()).max(1);
    let column = number(location.column()).max(1);
    let fallback = || offset(source, line, column);
    let start = location.span().byte_offset().map_or_else(fallback, number).min(source.len());
    let len = location.span().byte_len().map_or(0, number);
    let mut end = start.saturating_add(len).min(source.len());
    if !source.is_char_boundary(start) || !source.is_char_boundary(end) {
        return Place { line, column, start: 0, end: 0 };
    }
    // A collection's span may reach over the following lines; its first line is what people look for.
    if let Some(newline) = source[start..end].find('\n') {
        end = start + newline;
    }
    Place { line, column, start, end }
}

/// The byte at which a line and column stand.
fn offset(source: &str, line: usize, column: usize) -> usize {
    let before: usize = source.split_inclusive('\n').take(line - 1).map(str::len).sum();
    let rest = source.get(before..).unwrap_or_default();
    before + rest.char_indices().nth(column - 1).map_or(rest.len(), |(at, _)| at)
}
