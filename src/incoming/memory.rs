//! What is known of each published entity: its version and the events that its last records list. Pure.
//!
//! Written to the ledger in the transaction that publishes, read back when a partition is assigned. It keeps an
//! event from being published twice when BigCommerce sends it again (it does so for 48 hours), and an older
//! state from following a newer one.
//!
//! Bounded: `MAX_EVENTS` events of an entity, `MAX_ENTITIES` entities. Beyond that the oldest are forgotten,
//! and a late duplicate costs one more record.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use quick_cache::unsync::Cache;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::model::hint::Hint;
use crate::model::ids::EntityKey;
use crate::model::record::{OutRecord, Partition};

/// Events remembered of one entity. A record lists up to a hundred; a repeat comes after minutes or hours, when
/// few others of the same entity came between.
const MAX_EVENTS: usize = 32;

/// Entities remembered by one process: some 100 MB at the most.
const MAX_ENTITIES: usize = 400_000;

/// The ledger's keys of this path.
const PREFIX: &str = "read/";

/// What is known of one entity.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Known {
    /// Its last published version (unix seconds), where it has one.
    #[serde(rename = "v", default, skip_serializing_if = "Option::is_none")]
    pub version: Option<i64>,
    /// Short hashes of the events that were published (with the row that they meant), oldest first.
    #[serde(rename = "e", default)]
    events: Vec<u64>,
}

impl Known {
    /// Adds the events of hints.
    pub fn add<'a>(&mut self, hints: impl Iterator<Item = &'a Hint>) {
        for hint in hints {
            let hash = short_hash(hint);
            if !self.events.contains(&hash) {
                self.events.push(hash);
            }
        }
        let excess = self.events.len().saturating_sub(MAX_EVENTS);
        self.events.drain(..excess);
    }
}

/// Everything that is known, of the assigned partitions.
pub struct Memory {
    known: Cache<EntityKey, Known>,
}

impl Default for Memory {
    fn default() -> Self {
        Self { known: Cache::new(MAX_ENTITIES) }
    }
}

impl Memory {
    /// Takes one value of the ledger; keys of others are left alone.
    pub fn restore(&mut self, key: &str, value: &[u8]) {
        let Some(key) = key.strip_prefix(PREFIX) else { return };
        if let (Ok(key), Ok(known)) = (EntityKey::parse(key), serde_json::from_slice(value)) {
            self.known.insert(key, known);
        }
    }

    /// Whether a record that lists this hint's event was published.
    pub fn has(&self, hint: &Hint) -> bool {
        let known = self.known.get(&hint.trigger.key);
        known.is_some_and(|known| known.events.contains(&short_hash(hint)))
    }

    /// What is known of an entity.
    pub fn get(&self, key: &EntityKey) -> Known {
        self.known.get(key).cloned().unwrap_or_default()
    }

    /// Notes what was published, and returns the ledger's record of it.
    pub fn note(
        &mut self,
        key: &EntityKey,
        known: Known,
        ledger: &Arc<str>,
        intake: &Partition,
    ) -> OutRecord {
        let value = serde_json::to_vec(&known).expect("plain numbers are JSON");
        self.known.insert(key.clone(), known);
        OutRecord {
            topic: ledger.clone(),
            partition: Some(intake.number),
            key: Some(Bytes::from(format!("{PREFIX}{key}"))),
            value: Some(Bytes::from(value)),
            headers: vec![(Cow::Borrowed("content-type"), Bytes::from_static(b"application/json"))],
            timestamp_ms: None,
        }
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.known.clear();
    }
}

/// 53 bits of a SHA-256, so that any reader of JSON keeps them: two events of one entity collide once in 10^13.
/// One event may mean several rows of a group (a batch callback does): each is a thing of its own.
fn short_hash(hint: &Hint) -> u64 {
    let mut hasher = Sha256::new_with_prefix(hint.event.as_bytes());
    if let Some(row) = &hint.trigger.row {
        hasher.update([0]);
        hasher.update(row.as_str().as_bytes());
    }
    let digest = hasher.finalize();
    u64::from_be_bytes(digest[..8].try_into().expect("a digest has 32 bytes")) >> 11
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::incoming::stage::testing::gathering;
    use crate::model::hint::Op;
    use crate::model::ids::EntityId;

    fn hint(event: &str) -> Hint {
        let mut hint = gathering(&[Op::Update]).hints.remove(0).hint;
        hint.trigger.key = EntityKey::parse("product/7").unwrap();
        event.clone_into(&mut hint.event);
        hint
    }

    #[test]
    fn the_rows_of_one_event_are_told_apart() {
        let row = |row: &str| {
            let mut hint = hint("msg_1");
            hint.trigger.row = Some(EntityId::parse(row).unwrap());
            hint
        };
        let mut memory = Memory::default();
        let mut known = Known::default();
        known.add([row("5")].iter());
        let intake = Partition { topic: "i".into(), number: 0 };
        memory.note(&row("5").trigger.key, known, &"ledger".into(), &intake);
        assert!(memory.has(&row("5")) && !memory.has(&row("6")));
    }

    #[test]
    fn what_was_noted_is_restored() {
        let key = EntityKey::parse("product/7").unwrap();
        let intake = Partition { topic: "i".into(), number: 3 };
        let mut memory = Memory::default();
        let mut known = memory.get(&key);
        known.add([hint("msg_1"), hint("msg_2"), hint("msg_1")].iter());
        known.version = Some(9);
        let record = memory.note(&key, known.clone(), &"ledger".into(), &intake);
        assert_eq!(record.partition, Some(3));
        let mut other = Memory::default();
        let text = String::from_utf8(record.key.unwrap().to_vec()).unwrap();
        other.restore(&text, &record.value.unwrap());
        assert_eq!(other.get(&key), known);
        assert!(other.has(&hint("msg_2")) && !other.has(&hint("msg_3")));
    }

    #[test]
    fn the_events_of_an_entity_are_bounded() {
        let mut known = Known::default();
        let hints: Vec<Hint> = (0..1000).map(|n| hint(&n.to_string())).collect();
        known.add(hints.iter());
        assert_eq!(known.events.len(), MAX_EVENTS);
    }
}
