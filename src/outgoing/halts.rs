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

use super::decisions::Decision;
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
    /// Once it is released: the key's commands before this offset are dropped.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub drop_before: Option<i64>,
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
}

/// Key and value of a record of the ledger.
pub(super) type Written = (String, Bytes);

/// A key of a topic.
type Name = (Arc<str>, Bytes);

/// The keys that are halted, of the partitions that are ours.
#[derive(Debug, Default)]
pub(super) struct Halts {
    halted: HashMap<Name, Entry>,
    /// Keys that go on, of which commands are dropped before that.
    dropping: HashMap<Name, Entry>,
}

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
                        self.halted.insert(name, entry);
                    } else if entry.drop_before.is_some() {
                        self.dropping.insert(name, entry);
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
            drop_before: None,
        };
        let written = written(&name, &entry);
        self.halted.insert(name, entry);
        Some(written)
    }

    /// Whether a command may be begun.
    pub(super) fn judge(&mut self, record: &InRecord) -> Verdict {
        let Some(key) = &record.key else { return Verdict::Free };
        let name = (record.position.partition.topic.clone(), key.clone());
        if self.halted.contains_key(&name) {
            return Verdict::Waits;
        }
        let Some(entry) = self.dropping.get(&name) else { return Verdict::Free };
        if entry.drop_before.is_some_and(|before| record.position.offset < before) {
            return Verdict::Dropped(entry.command.as_str().into());
        }
        self.dropping.remove(&name);
        Verdict::Free
    }

    /// Lets the keys go on of which a person said so since they halted; the ledger's records of that.
    pub(super) fn release(
        &mut self,
        decided: impl Fn(&Entry) -> Option<Decision>,
        at_ms: i64,
    ) -> Vec<(Entry, Written)> {
        // A command that was replayed may halt its key a second time, which nobody has decided about yet.
        let since = |entry: &Entry| decided(entry).filter(|decision| decision.at_ms >= entry.at_ms);
        let released: Vec<(Name, Decision)> =
            self.halted.iter().filter_map(|(name, entry)| Some((name.clone(), since(entry)?))).collect();
        let release = |(name, Decision { drop_before, .. }): (Name, Decision)| {
            let entry = self.halted.remove(&name)?;
            let entry = Entry { state: EntryState::Released, at_ms, drop_before, ..entry };
            let written = written(&name, &entry);
            if drop_before.is_some() {
                self.dropping.insert(name, entry.clone());
            }
            Some((entry, written))
        };
        released.into_iter().filter_map(release).collect()
    }

    /// How many keys are halted.
    pub(super) fn len(&self) -> usize {
        self.halted.len()
    }

    /// Forgets everything: the partitions are not ours any more.
    pub(super) fn clear(&mut self) {
        self.halted.clear();
        self.dropping.clear();
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

    /// A person's decision about `c-7`, and nothing else.
    fn decided(at_ms: i64, drop_before: Option<i64>) -> impl Fn(&Entry) -> Option<Decision> {
        move |entry| (entry.command == "c-7").then_some(Decision { at_ms, drop_before })
    }

    #[test]
    fn a_halted_key_waits_and_others_do_not() {
        let (mut halts, _) = halted();
        assert_eq!(halts.judge(&record("a/b ü", 8)), Verdict::Waits);
        assert_eq!(halts.judge(&record("a", 8)), Verdict::Free);
        let mut keyless = record("a", 9);
        keyless.key = None;
        assert_eq!(halts.judge(&keyless), Verdict::Free);
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
        assert!(halts.release(|_| None, 3).is_empty());
        let released = halts.release(decided(2, None), 3);
        assert!(halts.release(decided(2, None), 3).is_empty(), "it ends once");
        assert_eq!(halts.judge(&record("a/b ü", 8)), Verdict::Free);
        let mut again = Halts::default();
        again.restore(&partition(3), &released.into_iter().map(|(_, written)| written).collect());
        assert_eq!(again.len(), 0, "the ledger knows that it was released");
    }

    #[test]
    fn a_command_that_halts_its_key_twice_is_decided_about_twice() {
        let (mut halts, _) = halted();
        assert_eq!(halts.release(decided(2, None), 3).len(), 1);
        halts.halt(&record("a/b ü", 9), "c-7", "rejected: refused".into(), 4).unwrap();
        assert!(halts.release(decided(2, None), 5).is_empty(), "that was about the first time");
        assert_eq!(halts.judge(&record("a/b ü", 10)), Verdict::Waits);
        assert_eq!(halts.release(decided(5, None), 6).len(), 1);
    }

    #[test]
    fn what_is_dropped_is_what_waited_when_it_was_decided() {
        let (mut halts, _) = halted();
        let written = halts.release(decided(2, Some(10)), 3).remove(0).1;
        assert_eq!(halts.len(), 0);
        let mut restarted = Halts::default();
        restarted.restore(&record("", 0).position.partition, &BTreeMap::from([written]));
        for mut halts in [halts, restarted] {
            for offset in 8..10 {
                assert_eq!(halts.judge(&record("a/b ü", offset)), Verdict::Dropped("c-7".into()));
            }
            assert_eq!(halts.judge(&record("a/b ü", 10)), Verdict::Free);
        }
    }
}
