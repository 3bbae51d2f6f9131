//! What can be told of a mapping's result without running it: the fields of an object that is written out.

use jaq_core::load::lex::StrPart;
use jaq_core::load::parse::Term;

/// Objects inside objects that are looked into: the parts of a command, and what stands in them.
const MAX_DEPTH: usize = 3;

/// The result of a mapping, as far as its text tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shape {
    /// It depends on the record.
    Unknown,
    /// An object with these fields, and no others.
    Object(Vec<(String, Shape)>),
    /// A text, a number or an array.
    Other,
}

impl Shape {
    /// The shape of the field called `name`; none where the object has no such field, or this is no object.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&Shape> {
        let Shape::Object(fields) = self else { return None };
        fields.iter().rev().find(|(field, _)| field == name).map(|(_, shape)| shape)
    }

    pub(super) fn of(term: &Term<&str>) -> Self {
        shape(term, MAX_DEPTH)
    }
}

fn shape(term: &Term<&str>, depth: usize) -> Shape {
    match term {
        Term::Obj(entries) if depth > 0 => {
            let fields = entries.iter().map(|(key, value)| {
                let inner = value.as_ref().map_or(Shape::Unknown, |value| shape(value, depth - 1));
                Some((literal(key, value.is_none())?, inner))
            });
            fields.collect::<Option<Vec<_>>>().map_or(Shape::Unknown, Shape::Object)
        }
        Term::Num(_) | Term::Str(..) | Term::Arr(_) => Shape::Other,
        _ => Shape::Unknown,
    }
}

/// A key that is written out; `{$x}` is the field `x`.
fn literal(key: &Term<&str>, short: bool) -> Option<String> {
    match key {
        Term::Var(name) if short => Some(name.trim_start_matches('$').to_owned()),
        Term::Str(None, parts) => {
            let mut text = String::new();
            for part in parts {
                match part {
                    StrPart::Str(part) => text.push_str(part),
                    StrPart::Char(char) => text.push(*char),
                    StrPart::Term(_) => return None,
                }
            }
            Some(text)
        }
        _ => None,
    }
}
