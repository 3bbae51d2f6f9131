//! A YAML file as a tree in which every key and value knows where it stands. Nothing is interpreted here except
//! what YAML itself says; types, names and variables come later. Fails on broken syntax, with its place.

use std::fmt;
use std::ops::Range;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::options::DuplicateKeyPolicy;
use serde_saphyr::{Location, Spanned};

use super::expand::closing;

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
    /// Where the text itself stands: elsewhere than the node when that is a YAML alias.
    pub(super) written: Place,
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
    let file = File::new(source);
    match serde_saphyr::from_str_with_options::<Spanned<Raw>>(&file.shielded, options) {
        Ok(raw) => Ok(file.node(raw)),
        Err(error) => {
            let first = Place { line: 1, column: 1, start: 0, end: 0 };
            let at = error.location().map_or(first, |location| file.place(&location));
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

/// Characters that end a plain scalar somewhere in YAML, and what stands for them inside `${...}` while the file is
/// parsed: private characters, one for one, so that lines and columns stay.
const SHIELD: [(char, char); 12] = [
    ('{', '\u{f0001}'),
    ('}', '\u{f0002}'),
    ('[', '\u{f0003}'),
    (']', '\u{f0004}'),
    (',', '\u{f0005}'),
    (':', '\u{f0006}'),
    ('#', '\u{f0007}'),
    ('?', '\u{f0008}'),
    ('&', '\u{f0009}'),
    ('*', '\u{f000a}'),
    ('!', '\u{f000b}'),
    ('%', '\u{f000c}'),
];

/// `source` with the variables made safe for YAML: `{ token: ${TOKEN:-} }` should mean what it looks like. A file
/// that already holds the private characters is left alone.
fn shield(source: &str) -> String {
    if source.contains(SHIELD.map(|(_, private)| private)) {
        return source.to_owned();
    }
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(at) = rest.find("${") {
        let (before, variable) = rest.split_at(at);
        out.push_str(before);
        let line = variable.find('\n').unwrap_or(variable.len());
        let Some(end) = closing(&variable[2..line]) else {
            out.push_str(&variable[..2]);
            rest = &variable[2..];
            continue;
        };
        let (variable, after) = variable.split_at(end + 3);
        let swap = |c: char| SHIELD.iter().find(|(plain, _)| *plain == c).map_or(c, |(_, private)| *private);
        out.extend(variable.chars().map(swap));
        rest = after;
    }
    out.push_str(rest);
    out
}

/// The file while it becomes a tree.
struct File<'s> {
    source: &'s str,
    shielded: String,
    /// The byte at which each character of the source begins, and the end.
    bytes: Vec<usize>,
}

impl<'s> File<'s> {
    fn new(source: &'s str) -> Self {
        let bytes = source.char_indices().map(|(at, _)| at).chain([source.len()]).collect();
        Self { source, shielded: shield(source), bytes }
    }

    /// The text that stood there before it was shielded.
    fn plain(&self, text: String) -> String {
        if self.shielded.len() == self.source.len() {
            return text;
        }
        let swap = |c: char| SHIELD.iter().find(|(_, private)| *private == c).map_or(c, |(plain, _)| *plain);
        text.chars().map(swap).collect()
    }

    fn node(&self, raw: Spanned<Raw>) -> Node {
        let at = self.place(&raw.referenced);
        // A hash like `12e4` is a number to YAML; the letters that were written are what counts.
        let written = self.place(&raw.defined);
        let spelled = |fallback: String| match self.source.get(written.range()).map(str::trim) {
            Some(text) if !text.is_empty() => text.to_owned(),
            _ => fallback,
        };
        let scalar = |text, kind| {
            Value::Scalar(Scalar { text, kind, variables: Vec::new(), written: written.clone() })
        };
        let value = match raw.value {
            Raw::Null => Value::Null,
            Raw::Bool(v) => scalar(spelled(v.to_string()), ScalarKind::Bool),
            Raw::Number(v) => scalar(spelled(v), ScalarKind::Number),
            Raw::Text(v) => scalar(self.plain(v), ScalarKind::Text),
            Raw::List(items) => Value::List(items.into_iter().map(|item| self.node(item)).collect()),
            Raw::Map(entries) => Value::Map(
                entries
                    .into_iter()
                    .map(|(key, value)| {
                        let name = self.plain(key.value);
                        (Key { at: self.place(&key.referenced), name }, self.node(value))
                    })
                    .collect(),
            ),
        };
        Node { at, value }
    }

    fn place(&self, location: &Location) -> Place {
        let number = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
        let last = self.bytes.len() - 1;
        let first = number(location.span().offset()).min(last);
        let past = first.saturating_add(number(location.span().len())).min(last);
        let (start, mut end) = (self.bytes[first], self.bytes[past]);
        // A collection's span may reach over the following lines; its first line is what people look for.
        if let Some(newline) = self.source[start..end].find('\n') {
            end = start + newline;
        }
        Place { line: number(location.line()).max(1), column: number(location.column()).max(1), start, end }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scalars(node: &Node, out: &mut Vec<(usize, usize, String)>) {
        match &node.value {
            Value::Null => {}
            Value::Scalar(scalar) => out.push((node.at.line, node.at.column, scalar.text.clone())),
            Value::List(items) => items.iter().for_each(|item| scalars(item, out)),
            Value::Map(entries) => entries.iter().for_each(|(_, value)| scalars(value, out)),
        }
    }

    fn check(source: &str, want: &[(usize, usize, &str)]) {
        let mut found = Vec::new();
        scalars(&parse(source).unwrap(), &mut found);
        let want: Vec<_> =
            want.iter().map(|(line, column, text)| (*line, *column, (*text).to_owned())).collect();
        assert_eq!(found, want, "{source}");
    }

    #[test]
    fn variables_may_stand_unquoted_inside_braces_and_brackets() {
        check("a: { b: ${B:-x, y}, c: d }", &[(1, 9, "${B:-x, y}"), (1, 24, "d")]);
        check(
            "[ ${A}, '${B:-\u{e9}}', \"${C:?no # way}\" ]",
            &[(1, 3, "${A}"), (1, 9, "${B:-\u{e9}}"), (1, 20, "${C:?no # way}")],
        );
        check("a: ${X:-${Y:-}}\nb: ${open\nc: d", &[(1, 4, "${X:-${Y:-}}"), (2, 4, "${open"), (3, 4, "d")]);
    }

    #[test]
    fn scalars_keep_their_spelling() {
        check(
            "a: 12e4\nb: 0x1F\nc: 007\nd: 1_000",
            &[(1, 4, "12e4"), (2, 4, "0x1F"), (3, 4, "007"), (4, 4, "1_000")],
        );
    }
}
