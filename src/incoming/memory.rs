//! What is known of all entities of the assigned partitions. Pure.
//!
//! Written to the ledger in the transaction that publishes, read back when a partition is assigned. It keeps an
//! event from being published twice when BigCommerce sends it again (it does so for 48 hours), an older state from
//! following a newer one, and an unchanged one from being published by a sweep.
//!
//! Bounded: `MAX_ENTITIES` entities, `MAX_RECHECKS` planned reads. Beyond that the oldest are forgotten: a late
//! duplicate costs one more record, a forgotten read is left to the sweep.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use quick_cache::unsync::Cache;
use sha2::{Digest, Sha256};

use super::known::Known;
use crate::model::hint::Hint;
use crate::model::ids::EntityKey;
use crate::model::record::{OutRecord, Partition};

/// Entities remembered by one process: some 60 MB at the most.
const MAX_ENTITIES: usize = 400_000;

/// Reads planned at most: an hour of ten changes a second.
const MAX_RECHECKS: usize = 36_000;

/// How long the ledger keeps what it knows of an entity that is gone: as long as BigCommerce may repeat a callback,
/// and as the intake keeps hints.
const GONE_FOR_MS: i64 = 7 * 24 * 3_600_000;

/// The ledger's keys of this path.
const PREFIX: &str = "read/";

/// What became of one value of the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Restored {
    /// It is known now.
    Kept,
    /// It belongs to another path, or is not understood.
    Strange,
    /// It has been gone for so long that the ledger may forget it: see [`forgotten`].
    Outdated,
}

/// Everything that is known, of the assigned partitions.
pub struct Memory {
    /// By 128 bits of a hash of the key: names and ids need not be kept.
    known: Cache<[u8; 16], Box<[u8]>>,
    /// Planned reads by their time, in unix seconds.
    rechecks: BTreeSet<(i64, EntityKey)>,
}

impl Default for Memory {
    fn default() -> Self {
        Self { known: Cache::new(MAX_ENTITIES), rechecks: BTreeSet::new() }
    }
}

impl Memory {
    /// Takes one value of the ledger; keys of others are left alone.
    pub fn restore(&mut self, key: &str, value: &[u8], now_ms: i64) -> Restored {
        let Some(key) = key.strip_prefix(PREFIX) else { return Restored::Strange };
        let Ok(known) = serde_json::from_slice::<Known>(value) else { return Restored::Strange };
        let Ok(key) = EntityKey::parse(key) else { return Restored::Strange };
        if known.state.gone && known.state.seen_ms < now_ms - GONE_FOR_MS {
            return Restored::Outdated;
        }
        self.keep(&key, &known);
        Restored::Kept
    }

    /// Whether a record that lists this hint's event was published.
    pub fn has(&self, hint: &Hint) -> bool {
        self.known.get(&hash_of(&hint.trigger.key)).is_some_and(|known| Known::unpack(known).has(hint))
    }

    /// What is known of an entity.
    pub fn get(&self, key: &EntityKey) -> Known {
        self.known.get(&hash_of(key)).map(|known| Known::unpack(known)).unwrap_or_default()
    }

    /// Notes what is known by now, without the ledger: what may be lost with the process.
    pub fn keep(&mut self, key: &EntityKey, known: &Known) {
        if let Some(planned) = self.get(key).recheck {
            self.rechecks.remove(&(planned.at_s, key.clone()));
        }
        if let Some(planned) = known.recheck {
            self.rechecks.insert((planned.at_s, key.clone()));
            if self.rechecks.len() > MAX_RECHECKS {
                self.rechecks.pop_last();
            }
        }
        self.known.insert(hash_of(key), known.pack());
    }

    /// Notes what was published, and returns the ledger's record of it.
    pub fn note(
        &mut self,
        key: &EntityKey,
        known: &Known,
        ledger: &Arc<str>,
        intake: &Partition,
    ) -> OutRecord {
        self.keep(key, known);
        let value = serde_json::to_vec(known).expect("plain numbers are JSON");
        record(format!("{PREFIX}{key}"), Some(Bytes::from(value)), ledger, intake)
    }

    /// Takes up to `most` of the reads that are due by now, in unix seconds.
    pub fn due(&mut self, now_s: i64, most: usize) -> Vec<(i64, EntityKey)> {
        let mut due = Vec::new();
        while due.len() < most && self.rechecks.first().is_some_and(|(at, _)| *at <= now_s) {
            due.extend(self.rechecks.pop_first());
        }
        due
    }

    /// When the next planned read is due, in unix seconds.
    pub fn next_due(&self) -> Option<i64> {
        self.rechecks.first().map(|(at, _)| *at)
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.known.clear();
        self.rechecks.clear();
    }
}

/// The record that lets the ledger forget a key.
pub fn forgotten(key: &str, ledger: &Arc<str>, intake: &Partition) -> OutRecord {
    record(key.to_owned(), None, ledger, intake)
}

/// A record of the ledger about the work of a partition of the intake.
pub(super) fn record(key: String, value: Option<Bytes>, ledger: &Arc<str>, intake: &Partition) -> OutRecord {
    OutRecord {
        topic: ledger.clone(),
        partition: Some(intake.number),
        key: Some(Bytes::from(key)),
        value,
        headers: vec![(Cow::Borrowed("content-type"), Bytes::from_static(b"application/json"))],
        timestamp_ms: None,
    }
}

/// Half a SHA-256: among a million keys, two collide once in 10^26.
fn hash_of(key: &EntityKey) -> [u8; 16] {
    let mut hasher = Sha256::new_with_prefix(key.entity.as_bytes());
    hasher.update(b"/");
    hasher.update(key.id.as_str().as_bytes());
    hasher.finalize()[..16].try_into().expect("a digest has 32 bytes")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::incoming::known::{Recheck, State};
    use crate::incoming::stage::testing::gathering;
    use crate::model::hint::Op;
    use crate::model::ids::EntityId;

    fn hint(event: &str) -> Hint {
        let mut hint = gathering(&[Op::Update]).hints.remove(0).hint;
        hint.trigger.key = EntityKey::parse("product/7").unwrap();
        event.clone_into(&mut hint.event);
        hint
    }

    fn intake() -> Partition {
        Partition { topic: "i".into(), number: 3 }
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
        memory.note(&row("5").trigger.key, &known, &"ledger".into(), &intake());
        assert!(memory.has(&row("5")) && !memory.has(&row("6")));
    }

    #[test]
    fn what_was_noted_is_restored() {
        let key = EntityKey::parse("product/7").unwrap();
        let mut memory = Memory::default();
        let mut known = memory.get(&key);
        known.add([hint("msg_1"), hint("msg_2"), hint("msg_1")].iter());
        known.state = State { version: Some(9), seen_ms: 5, content: 6, gone: false };
        known.recheck = Some(Recheck { at_s: 77, again: true });
        let record = memory.note(&key, &known, &"ledger".into(), &intake());
        assert_eq!(record.partition, Some(3));
        let mut other = Memory::default();
        let text = String::from_utf8(record.key.unwrap().to_vec()).unwrap();
        assert_eq!(other.restore(&text, &record.value.unwrap(), 0), Restored::Kept);
        assert_eq!(other.get(&key), known);
        assert!(other.has(&hint("msg_2")) && !other.has(&hint("msg_3")));
        assert_eq!((other.next_due(), other.due(76, 9)), (Some(77), vec![]));
        assert_eq!(other.due(77, 9), [(77, key)]);
    }

    #[test]
    fn a_planned_read_moves_with_what_is_known() {
        let key = EntityKey::parse("product/7").unwrap();
        let mut memory = Memory::default();
        let plan = |at_s| Known { recheck: Some(Recheck { at_s, again: false }), ..Known::default() };
        memory.keep(&key, &plan(5));
        memory.keep(&key, &plan(9));
        assert_eq!(memory.next_due(), Some(9));
        memory.keep(&key, &Known::default());
        assert_eq!(memory.next_due(), None);
    }

    #[test]
    fn what_has_been_gone_for_a_week_is_forgotten() {
        let gone = br#"{"v":1,"t":1000,"g":true,"e":[]}"#;
        let mut memory = Memory::default();
        assert_eq!(memory.restore("read/product/7", gone, 1001 + GONE_FOR_MS), Restored::Outdated);
        assert_eq!(memory.restore("read/product/7", gone, GONE_FOR_MS), Restored::Kept);
        assert_eq!(memory.restore("command/7", gone, 0), Restored::Strange);
        assert_eq!(memory.restore("read/product/7", b"?", 0), Restored::Strange);
        let record = forgotten("read/product/7", &"ledger".into(), &intake());
        assert_eq!((record.value, record.partition), (None, Some(3)));
    }

    /// By what the process holds before and after; so it runs alone, in a process of its own.
    #[test]
    fn an_entity_costs_less_than_150_bytes() {
        const ALONE: &str = "BCBRIDGE_TEST_ALONE";
        let name = "incoming::memory::tests::an_entity_costs_less_than_150_bytes";
        if std::env::var_os(ALONE).is_none() {
            let tests = std::env::current_exe().unwrap();
            let mut alone = std::process::Command::new(tests);
            let output = alone.args(["--exact", name, "--nocapture"]).env(ALONE, "1").output().unwrap();
            let text = String::from_utf8_lossy(&output.stdout);
            print!("{text}");
            assert!(output.status.success() && text.contains("bytes each"), "{output:?}");
            return;
        }
        let resident = || {
            let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
            statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
        };
        let before = resident();
        let mut memory = Memory::default();
        let mut known = Known::default();
        known.add([hint("msg_1"), hint("msg_2")].iter());
        known.state = State { version: Some(9), seen_ms: 5, content: 6, gone: false };
        for id in 1..=MAX_ENTITIES {
            memory.keep(&EntityKey::parse(&format!("product/{id}")).unwrap(), &known);
        }
        let each = (resident() - before) / MAX_ENTITIES;
        println!("{each} bytes each");
        assert!(each < 150, "{each} bytes each");
    }
}
