//! Keys that stand still because a command of theirs failed (`on_failure: halt-key`). Pure.
//!
//! The ledger says which keys are halted and by which command; the commands behind it stay where they are on their
//! topic, unsettled and in order. So a halt survives restarts and moves with its partition. A person's decision ends
//! it: the key goes on, or what waited is dropped first.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::decisions::{About, Decisions};
use crate::model::record::{InRecord, Partition, Position};

/// The beginning of a halt's key in the ledger: the topic and the key, in base64, follow.
pub const KEY_PREFIX: &str = "halt/";

/// What the ledger says of a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Whether it is halted, or was.
    pub state: EntryState,
    /// The topic.
    pub topic: String,
    /// The partition of the key.
    pub partition: i32,
    /// The offset of the command that failed.
    pub offset: i64,
    /// The id of the command that failed.
    pub command: String,
    /// How it ended, and why.
    pub why: String,
    /// When this was written, in milliseconds since the epoch.
    pub at_ms: i64,
}

/// Whether a key is halted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EntryState {
    /// It stands still.
    Halted,
    /// A person let it go on.
    Released,
}

/// What may happen to a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Its key is not halted.
    Free,
    /// It waits for a person.
    Waits,
    /// A person dropped it, together with what else waited behind the command of this id.
    Dropped(Arc<str>),
    /// A person let its key go on; the ledger's record of that.
    Released(Written),
}

/// Key and value of a record of the ledger.
pub(super) type Written = (String, Bytes);

/// A key of a topic.
type Name = (Arc<str>, Bytes);

/// The keys that are halted, of the partitions that are ours.
#[derive(Debug, Default)]
pub(super) struct Halts(HashMap<Name, Entry>);

impl Halts {
    /// Takes what the ledger holds for a partition of commands. Returns entries that are not ours to read.
    pub(super) fn restore(&mut self, partition: &Partition, ledger: &BTreeMap<String, Bytes>) -> usize {
        let mut strange = 0;
        for (key, value) in
            ledger.range(KEY_PREFIX.to_owned()..).take_while(|(key, _)| key.starts_with(KEY_PREFIX))
        {
            let entry = serde_json::from_slice::<Entry>(value).ok().zip(name(key));
            match entry {
                Some((entry, name)) if entry.partition == partition.number && *name.0 == *partition.topic => {
                    if entry.state == EntryState::Halted {
                        self.0.insert(name, entry);
                    }
                }
                // Of another topic that shares the ledger's partition.
                Some(_) => {}
                None => strange += 1,
            }
        }
        strange
    }

    /// Halts the key of a command that failed; the ledger's record of it. A record without a key halts nothing.
    pub(super) fn halt(
        &mut self,
        record: &InRecord,
        command: &str,
        why: String,
        at_ms: i64,
    ) -> Option<Written> {
        let Position { partition, offset } = &record.position;
        let name = (partition.topic.clone(), record.key.clone()?);
        let entry = Entry {
            state: EntryState::Halted,
            topic: partition.topic.to_string(),
            partition: partition.number,
            offset: *offset,
            command: command.to_owned(),
            why,
            at_ms,
        };
        let written = written(&name, &entry);
        self.0.insert(name, entry);
        Some(written)
    }

    /// Whether a command may be begun.
    pub(super) fn judge(
        &mut self,
        store: &str,
        record: &InRecord,
        decisions: &Decisions,
        at_ms: i64,
    ) -> Verdict {
        let Some(key) = &record.key else { return Verdict::Free };
        let name = (record.position.partition.topic.clone(), key.clone());
        let Some(entry) = self.0.get(&name) else { return Verdict::Free };
        let Some(decision) = decisions.about(store, &About::Command(entry.command.clone())) else {
            return Verdict::Waits;
        };
        if decision.drop_before.is_some_and(|before| record.position.offset < before) {
            return Verdict::Dropped(entry.command.as_str().into());
        }
        let entry = Entry { state: EntryState::Released, at_ms, ..entry.clone() };
        self.0.remove(&name);
        Verdict::Released(written(&name, &entry))
    }

    /// How many keys are halted.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Forgets everything: the partitions are not ours any more.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}

/// The key that a ledger's entry is about; none where it is not of this shape.
pub fn name(ledger_key: &str) -> Option<(Arc<str>, Bytes)> {
    let (topic, key) = ledger_key.strip_prefix(KEY_PREFIX)?.rsplit_once('/')?;
    Some((topic.into(), URL_SAFE_NO_PAD.decode(key).ok()?.into()))
}

fn written((topic, key): &Name, entry: &Entry) -> Written {
    let key = format!("{KEY_PREFIX}{topic}/{}", URL_SAFE_NO_PAD.encode(key));
    (key, serde_json::to_vec(entry).expect("an entry is plain data").into())
}

#[cfg(test)]
mod tests {
    use super::super::decisions::Decision;
    use super::*;

    fn record(key: &'static str, offset: i64) -> InRecord {
        InRecord {
            position: Position { partition: Partition { topic: "commands".into(), number: 3 }, offset },
            key: Some(Bytes::from_static(key.as_bytes())),
            value: None,
            headers: Vec::new(),
            timestamp_ms: None,
        }
    }

    fn halted() -> (Halts, Written) {
        let mut halts = Halts::default();
        let written = halts.halt(&record("a/b ü", 7), "c-7", "rejected: refused".into(), 1).unwrap();
        (halts, written)
    }

    #[test]
    fn a_halted_key_waits_and_others_do_not() {
        let (mut halts, _) = halted();
        let decisions = Decisions::default();
        assert_eq!(halts.judge("main", &record("a/b ü", 8), &decisions, 2), Verdict::Waits);
        assert_eq!(halts.judge("main", &record("a", 8), &decisions, 2), Verdict::Free);
        let mut keyless = record("a", 9);
        keyless.key = None;
        assert_eq!(halts.judge("main", &keyless, &decisions, 2), Verdict::Free);
        assert_eq!(halts.halt(&keyless, "c-9", String::new(), 2), None);
    }

    #[test]
    fn a_halt_moves_with_its_partition_and_ends_once() {
        let (_, (key, value)) = halted();
        let mut ledger = BTreeMap::from([(key, value)]);
        ledger.insert("command/c-1".into(), Bytes::from_static(b"{}"));
        ledger.insert("halt/commands/!".into(), Bytes::from_static(b"{}"));
        let partition = |number| Partition { topic: "commands".into(), number };
        let mut halts = Halts::default();
        assert_eq!(halts.restore(&partition(2), &ledger), 1);
        assert_eq!(halts.len(), 0, "it is another partition's");
        halts.restore(&partition(3), &ledger);
        let decisions = Decisions::default();
        decisions.take("main", About::Command("c-7".into()), Decision { at_ms: 2, drop_before: None });
        let Verdict::Released((key, value)) = halts.judge("main", &record("a/b ü", 8), &decisions, 3) else {
            panic!("it was released")
        };
        assert_eq!(halts.judge("main", &record("a/b ü", 9), &decisions, 3), Verdict::Free);
        let mut again = Halts::default();
        again.restore(&partition(3), &BTreeMap::from([(key, value)]));
        assert_eq!(again.len(), 0, "the ledger knows that it was released");
    }

    #[test]
    fn what_is_dropped_is_what_waited_when_it_was_decided() {
        let (mut halts, _) = halted();
        let decisions = Decisions::default();
        decisions.take("main", About::Command("c-7".into()), Decision { at_ms: 2, drop_before: Some(10) });
        for offset in 8..10 {
            let verdict = halts.judge("main", &record("a/b ü", offset), &decisions, 3);
            assert_eq!(verdict, Verdict::Dropped("c-7".into()));
        }
        let verdict = halts.judge("main", &record("a/b ü", 10), &decisions, 3);
        assert!(matches!(verdict, Verdict::Released(_)), "{verdict:?}");
    }
}
