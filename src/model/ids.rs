//! Names and ids, each a type of its own, each checked once when it is made.
//!
//! An empty id must not exist: rendered into a path it would turn a delete of one thing into a delete of all.

use std::fmt::{self, Write as _};
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
/// A part is made of letters, digits, `_`, `-` and `.`, is not of dots only, and, where it is a number, is positive
/// and fits 64 bits ([`check_part`]). So it needs no escaping in a path and cannot change one.
///
/// Some things are told apart by texts (a blog's tags), or by a 0 (the status of an incomplete order). Their
/// parts have every other byte as `%XX`, and may be 0. Such a part stands in keys, and no path takes it.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EntityId(Arc<str>);

impl EntityId {
    /// Reads an id as it stands in a record key or on the command line.
    pub fn parse(text: &str) -> Result<Self, BadId> {
        for part in text.split(':') {
            if part != "0" && !is_escaped(part) {
                check_part(part)?;
            }
        }
        Ok(Self(text.into()))
    }

    /// Joins the texts that tell an entity apart in a list, whatever they hold, to an id.
    pub fn of_row<S: AsRef<str>>(texts: &[S]) -> Result<Self, BadId> {
        let parts: Vec<String> = texts.iter().map(|text| escape(text.as_ref())).collect();
        if parts.is_empty() {
            return Err(BadId::new("", "it has no part"));
        }
        Self::parse(&parts.join(":"))
    }

    /// Joins parts to an id that a path takes.
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

/// The bytes that stand in a part as they are.
const fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.')
}

/// The text with every byte that is not plain as `%XX`; a text of dots, or that is a number but no id, wholly so.
fn escape(text: &str) -> String {
    let wholly = text != "0" && text.bytes().all(is_plain) && check_part(text).is_err();
    let mut part = String::with_capacity(text.len());
    for byte in text.bytes() {
        if is_plain(byte) && !wholly {
            part.push(char::from(byte));
        } else {
            let _ = write!(part, "%{byte:02X}");
        }
    }
    part
}

/// Whether a part is what [`escape`] makes of some text that needs it.
fn is_escaped(part: &str) -> bool {
    let mut bytes = part.bytes();
    let mut text = Vec::with_capacity(part.len());
    while let Some(byte) = bytes.next() {
        let hex =
            |byte: Option<u8>| char::from(byte?).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        match byte {
            b'%' => {
                let (Some(high), Some(low)) = (hex(bytes.next()), hex(bytes.next())) else { return false };
                text.push(high << 4 | low);
            }
            plain => text.push(plain),
        }
    }
    part.contains('%')
        && part.len() <= 3 * MAX_PART_BYTES
        && std::str::from_utf8(&text).is_ok_and(|text| !text.is_empty() && escape(text) == part)
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
            "-1",
            "18446744073709551616",
            "1#",
            "a b",
            "é",
        ] {
            assert!(EntityId::parse(bad).is_err(), "{bad:?} was taken");
        }
        for key_only in ["0", "a%20b", "caf%C3%A9", "%2E%2E", "a%2Fb", "%2D%31"] {
            assert_eq!(EntityId::parse(key_only).unwrap().as_str(), key_only);
            assert!(check_part(key_only).is_err(), "{key_only:?} could stand in a path");
        }
        for good in ["1", "250", "251:12", "09346904-4175-44fd-be53-f7e598531b6c", "a.b", "usd"] {
            assert_eq!(EntityId::parse(good).unwrap().as_str(), good);
        }
    }

    #[test]
    fn any_text_of_a_row_makes_an_id_and_no_two_the_same() {
        let id = |text: &str| EntityId::of_row(&[text]).map(|id| id.to_string());
        for (text, part) in [
            ("7", "7"),
            ("0", "0"),
            ("new in", "new%20in"),
            ("a:b/c%20", "a%3Ab%2Fc%2520"),
            ("..", "%2E%2E"),
            ("-1", "%2D%31"),
            ("00", "%30%30"),
        ] {
            assert_eq!(id(text).unwrap(), part);
            assert_eq!(EntityId::parse(part).unwrap().as_str(), part);
        }
        assert!(id("").is_err());
        assert!(id(&"x".repeat(129)).is_err());
        for not_canonical in ["%41", "%2e", "a%", "a%2", "%zz", "%FF"] {
            assert!(EntityId::parse(not_canonical).is_err(), "{not_canonical:?} was taken");
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
