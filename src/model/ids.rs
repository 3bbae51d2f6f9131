//! Names and ids, each a type of its own, each checked once when it is made.
//!
//! An empty id must not exist: rendered into a path it would turn a delete of one thing into a delete of all.

use std::fmt;
use std::sync::Arc;

/// Longest part of an entity id, in bytes. BigCommerce's ids are integers or UUIDs (36 bytes).
const MAX_PART_BYTES: usize = 128;

/// What is wrong with a text that was meant as an id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{found:?} is not an id: {rule}")]
pub struct BadId {
    /// The text as found, cut to 64 characters.
    pub found: String,
    /// The rule that it breaks.
    pub rule: &'static str,
}

impl BadId {
    fn new(found: &str, rule: &'static str) -> Self {
        Self { found: found.chars().take(64).collect(), rule }
    }
}

/// The id of one entity, one or more non-empty parts joined by `:` (a shipment is `order:shipment`).
///
/// A part is made of letters, digits, `_`, `-` and `.`, is neither `.` nor `..`, and, where it is a number, is
/// positive and fits 64 bits. So it needs no escaping in a path and cannot change one.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EntityId(Arc<str>);

impl EntityId {
    /// Reads an id as it stands in a record key or on the command line.
    pub fn parse(text: &str) -> Result<Self, BadId> {
        for part in text.split(':') {
            check_part(part)?;
        }
        Ok(Self(text.into()))
    }

    /// Joins parts to an id.
    pub fn from_parts<S: AsRef<str>>(parts: &[S]) -> Result<Self, BadId> {
        if parts.is_empty() {
            return Err(BadId::new("", "it has no part"));
        }
        for part in parts {
            check_part(part.as_ref())?;
        }
        Ok(Self(parts.iter().map(AsRef::as_ref).collect::<Vec<_>>().join(":").into()))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The parts, in order.
    pub fn parts(&self) -> impl Iterator<Item = &str> {
        self.0.split(':')
    }
}

/// Checks one part of an id: see [`EntityId`].
pub fn check_part(part: &str) -> Result<(), BadId> {
    if part.is_empty() {
        return Err(BadId::new(part, "it is empty"));
    }
    if part.len() > MAX_PART_BYTES {
        return Err(BadId::new(part, "it is longer than 128 bytes"));
    }
    if !part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.')) {
        return Err(BadId::new(part, "only letters, digits, '_', '-' and '.' are allowed"));
    }
    if part.bytes().all(|b| b == b'.') {
        return Err(BadId::new(part, "it is made of dots only"));
    }
    let digits = part.strip_prefix('-').unwrap_or(part);
    if digits.bytes().all(|b| b.is_ascii_digit()) && !part.parse::<u64>().is_ok_and(|n| n > 0) {
        return Err(BadId::new(part, "a number must be positive and fit 64 bits"));
    }
    Ok(())
}

impl fmt::Display for EntityId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for EntityId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// One entity of one store: what a hint is about, and what is kept in order.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EntityKey {
    /// The entity's name in the catalogue, such as `product`.
    pub entity: Arc<str>,
    /// Its id within the store.
    pub id: EntityId,
}

impl EntityKey {
    /// Reads a key of the form `<entity>/<id>`, as the intake topic has it.
    pub fn parse(text: &str) -> Result<Self, BadId> {
        let Some((entity, id)) = text.split_once('/') else {
            return Err(BadId::new(text, "it is not of the form <entity>/<id>"));
        };
        Ok(Self { entity: entity.into(), id: EntityId::parse(id)? })
    }
}

impl fmt::Display for EntityKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.entity, self.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_that_could_change_a_path_do_not_exist() {
        for bad in [
            "",
            ":",
            "1:",
            ":1",
            "a:",
            " ",
            "/",
            "..",
            ".",
            "a/b",
            "%2e",
            "a?b",
            "0",
            "-1",
            "18446744073709551616",
            "1#",
            "a b",
            "é",
        ] {
            assert!(EntityId::parse(bad).is_err(), "{bad:?} was taken");
        }
        for good in ["1", "250", "251:12", "09346904-4175-44fd-be53-f7e598531b6c", "a.b", "usd"] {
            assert_eq!(EntityId::parse(good).unwrap().as_str(), good);
        }
    }

    #[test]
    fn a_key_reads_as_it_is_written() {
        let key = EntityKey::parse("order_shipment/251:12").unwrap();
        assert_eq!(key.to_string(), "order_shipment/251:12");
        assert_eq!(key.id.parts().collect::<Vec<_>>(), ["251", "12"]);
        assert!(EntityKey::parse("product").is_err());
        assert!(EntityKey::parse("product/").is_err());
    }
}
