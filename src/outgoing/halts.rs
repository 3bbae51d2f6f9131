//! What stands still, as the ledger knows it: keys of which a command failed (`on_failure: halt-key`), and partitions
//! of routes of which too many did (`stop_at`). Pure.
//!
//! The ledger says what stands still and since which command; the commands behind it stay where they are on their
//! topic, unsettled and in order. So it survives restarts and moves with its partition. A person's decision ends it:
//! that is noted beside it first, and once that is in the ledger and nothing can need it any more, the entry is deleted.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::decisions::Decision;
use crate::model::record::{InRecord, Partition, Position};

/// The beginning of an entry's key in the ledger. The topic follows, then the key in base64, or `*` and the number of
/// the partition of a route.
pub const KEY_PREFIX: &str = "halt/";

/// How long a note is kept that what waited is dropped, in milliseconds: a day more than commands are kept.
const DROPS_KEPT_MS: i64 = 8 * 24 * 3_600_000;

/// What the ledger says of a key, or of a partition of a route.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Whether it is halted, or was.
    pub state: EntryState,
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The offset of the command that failed, or was one too many.
    pub offset: i64,
    /// Its id.
    pub command: String,
    /// How it ended, and why; of a route, how many did.
    pub why: String,
    /// When this was written, in milliseconds since the epoch.
    pub at_ms: i64,
    /// The first place on the signals topic at which a decision about it can be; none where that was not known.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub decided_from: Option<i64>,
    /// Once it is released: the key's commands before this offset are dropped.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub drop_before: Option<i64>,
}

/// Whether something stands still.
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

/// When something came to stand still.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moment {
    /// By the wall clock, in milliseconds since the epoch.
    pub(super) at_ms: i64,
    /// See [`Entry::decided_from`].
    pub(super) decided_from: Option<i64>,
}

/// What an entry of the ledger is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum About {
    /// A key of a topic.
    Key(Arc<str>, Bytes),
    /// A partition of a route.
    Route(Partition),
}

/// What is halted, of the partitions that are ours.
#[derive(Debug, Default)]
pub(super) struct Halts {
    /// The partitions.
    ours: BTreeSet<Partition>,
    halted: HashMap<Name, Entry>,
    /// Keys that go on, of which commands are dropped before that.
    dropping: HashMap<Name, Entry>,
    stopped: BTreeMap<Partition, Entry>,
    /// Of partitions: keys of the ledger of which nothing is needed any more.
    over: Vec<(Partition, String)>,
}

impl Halts {
    /// Takes what the ledger holds for a partition of commands. Returns how many entries cannot be read.
    pub(super) fn restore(
        &mut self,
        partition: &Partition,
        ledger: &BTreeMap<String, Bytes>,
        now_ms: i64,
    ) -> usize {
        self.ours.insert(partition.clone());
        let mut strange = 0;
        for (key, value) in
            ledger.range(KEY_PREFIX.to_owned()..).take_while(|(key, _)| key.starts_with(KEY_PREFIX))
        {
            let Some((entry, about)) = serde_json::from_slice::<Entry>(value).ok().zip(about(key)) else {
                strange += 1;
                continue;
            };
            // Another topic may share the ledger's partition.
            if entry.partition != partition.number || *entry.topic != *partition.topic {
                continue;
            }
            let is_recent = entry.at_ms >= now_ms - DROPS_KEPT_MS;
            match (entry.state, about) {
                (EntryState::Halted, About::Key(topic, key)) => {
                    drop(self.halted.insert((topic, key), entry));
                }
                (EntryState::Halted, About::Route(partition)) => {
                    drop(self.stopped.insert(partition, entry));
                }
                (EntryState::Released, About::Key(topic, key))
                    if entry.drop_before.is_some() && is_recent =>
                {
                    drop(self.dropping.insert((topic, key), entry));
                }
                (EntryState::Released, _) => self.over.push((partition.clone(), key.clone())),
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
        moment: Moment,
    ) -> Option<Written> {
        let name = (record.position.partition.topic.clone(), record.key.clone()?);
        let entry = entry(&record.position, command, why, moment);
        let written = written(key_of(&name), &entry);
        self.halted.insert(name, entry);
        Some(written)
    }

    /// Stops all partitions of a topic that are ours and go on; the ledger's records of that. The command was one too
    /// many.
    pub(super) fn stop(
        &mut self,
        last: &Position,
        command: &str,
        why: &str,
        moment: Moment,
    ) -> Vec<(Partition, Written)> {
        let ours = self.ours.iter().filter(|partition| partition.topic == last.partition.topic);
        let all: BTreeSet<Partition> = ours.chain([&last.partition]).cloned().collect();
        let stops = all.into_iter().filter(|partition| !self.stopped.contains_key(partition));
        let stops: Vec<Partition> = stops.collect();
        let stop = |partition: Partition| {
            let mut entry = entry(last, command, why.to_owned(), moment);
            entry.partition = partition.number;
            let written = written(stop_key(&partition), &entry);
            self.stopped.insert(partition.clone(), entry);
            (partition, written)
        };
        stops.into_iter().map(stop).collect()
    }

    /// Whether a partition of a route stands still.
    pub(super) fn is_stopped(&self, partition: &Partition) -> bool {
        self.stopped.contains_key(partition)
    }

    /// The topics of which partitions stand still.
    pub(super) fn stopped(&self) -> impl Iterator<Item = &Arc<str>> {
        self.stopped.keys().map(|partition| &partition.topic)
    }

    /// Lets partitions of routes go on; the ledger's records of that.
    pub(super) fn resume(
        &mut self,
        is_decided: impl Fn(&Partition, &Entry) -> bool,
        at_ms: i64,
    ) -> Vec<(Partition, Written)> {
        let decided = self.stopped.iter().filter(|(partition, entry)| is_decided(partition, entry));
        let decided: Vec<Partition> = decided.map(|(partition, _)| partition.clone()).collect();
        let resume = |partition: Partition| {
            let entry = self.stopped.remove(&partition)?;
            let entry = Entry { state: EntryState::Released, at_ms, ..entry };
            let written = written(stop_key(&partition), &entry);
            Some((partition, written))
        };
        decided.into_iter().filter_map(resume).collect()
    }

    /// Whether a command may be begun.
    pub(super) fn judge(&mut self, record: &InRecord) -> Verdict {
        let Some(key) = &record.key else { return Verdict::Free };
        let name = (record.position.partition.topic.clone(), key.clone());
        if self.halted.contains_key(&name) {
            return Verdict::Waits;
        }
        let Some(entry) = self.dropping.get(&name) else { return Verdict::Free };
        if entry.partition != record.position.partition.number {
            return Verdict::Free;
        }
        if drops(entry, record) {
            return Verdict::Dropped(entry.command.as_str().into());
        }
        self.dropping.remove(&name);
        // The lane is in order: all that was dropped has ended.
        self.over.push((record.position.partition.clone(), key_of(&name)));
        Verdict::Free
    }

    /// Whether a person dropped a command.
    pub(super) fn is_dropped(&self, record: &InRecord) -> bool {
        let name = |key: &Bytes| (record.position.partition.topic.clone(), key.clone());
        let entry = record.key.as_ref().and_then(|key| self.dropping.get(&name(key)));
        entry.is_some_and(|entry| drops(entry, record))
    }

    /// Keys of the ledger of which nothing is needed any more, and the partitions that they belong to.
    pub(super) fn over(&mut self) -> Vec<(Partition, String)> {
        std::mem::take(&mut self.over)
    }

    /// Whether the ledger's entry of this key says what is to be dropped.
    pub(super) fn is_dropping(&self, ledger_key: &str) -> bool {
        match about(ledger_key) {
            Some(About::Key(topic, key)) => self.dropping.contains_key(&(topic, key)),
            Some(About::Route(_)) | None => false,
        }
    }

    /// Lets the keys go on of which it was decided; the ledger's records of that.
    pub(super) fn release(
        &mut self,
        decided: impl Fn(&Entry) -> Option<Decision>,
        at_ms: i64,
    ) -> Vec<(Entry, Written)> {
        let released: Vec<(Name, Decision)> =
            self.halted.iter().filter_map(|(name, entry)| Some((name.clone(), decided(entry)?))).collect();
        let release = |(name, Decision { drop_before, .. }): (Name, Decision)| {
            let entry = self.halted.remove(&name)?;
            let entry = Entry { state: EntryState::Released, at_ms, drop_before, ..entry };
            let written = written(key_of(&name), &entry);
            if drop_before.is_some() {
                self.dropping.insert(name, entry.clone());
            }
            Some((entry, written))
        };
        released.into_iter().filter_map(release).collect()
    }

    /// Whether nothing stands still.
    pub(super) fn is_empty(&self) -> bool {
        self.halted.is_empty() && self.stopped.is_empty()
    }

    /// How many keys are halted.
    pub(super) fn keys(&self) -> usize {
        self.halted.len()
    }

    /// Forgets everything: the partitions are not ours any more.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

/// What a ledger's entry is about; none where its key is not of this shape.
pub fn about(ledger_key: &str) -> Option<About> {
    let (topic, key) = ledger_key.strip_prefix(KEY_PREFIX)?.rsplit_once('/')?;
    let topic: Arc<str> = topic.into();
    Some(match key.strip_prefix('*') {
        Some(number) => About::Route(Partition { topic, number: number.parse().ok()? }),
        None => About::Key(topic, URL_SAFE_NO_PAD.decode(key).ok()?.into()),
    })
}

/// Offsets count within a partition; the same key is on another one where a topic has grown, or has two writers that
/// place keys differently.
fn drops(entry: &Entry, record: &InRecord) -> bool {
    let Position { partition, offset } = &record.position;
    entry.partition == partition.number && entry.drop_before.is_some_and(|before| *offset < before)
}

fn key_of((topic, key): &Name) -> String {
    format!("{KEY_PREFIX}{topic}/{}", URL_SAFE_NO_PAD.encode(key))
}

/// No base64 has a `*`.
fn stop_key(Partition { topic, number }: &Partition) -> String {
    format!("{KEY_PREFIX}{topic}/*{number}")
}

fn entry(position: &Position, command: &str, why: String, moment: Moment) -> Entry {
    Entry {
        state: EntryState::Halted,
        topic: position.partition.topic.to_string(),
        partition: position.partition.number,
        offset: position.offset,
        command: command.to_owned(),
        why,
        at_ms: moment.at_ms,
        decided_from: moment.decided_from,
        drop_before: None,
    }
}

fn written(key: String, entry: &Entry) -> Written {
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

    fn at(at_ms: i64) -> Moment {
        Moment { at_ms, decided_from: None }
    }

    fn halted() -> (Halts, Written) {
        let mut halts = Halts::default();
        let written = halts.halt(&record("a/b ü", 7), "c-7", "rejected: refused".into(), at(1)).unwrap();
        (halts, written)
    }

    /// A person's decision about `c-7`, and nothing else.
    fn decided(at_ms: i64, drop_before: Option<i64>) -> impl Fn(&Entry) -> Option<Decision> {
        let decision = Decision { place: 0, at_ms, drop_before };
        move |entry| (entry.command == "c-7" && at_ms >= entry.at_ms).then_some(decision)
    }

    #[test]
    fn a_halted_key_waits_and_others_do_not() {
        let (mut halts, _) = halted();
        assert_eq!(halts.judge(&record("a/b ü", 8)), Verdict::Waits);
        assert_eq!(halts.judge(&record("a", 8)), Verdict::Free);
        let mut keyless = record("a", 9);
        keyless.key = None;
        assert_eq!(halts.judge(&keyless), Verdict::Free);
        assert_eq!(halts.halt(&keyless, "c-9", String::new(), at(2)), None);
    }

    #[test]
    fn a_halt_moves_with_its_partition_and_ends_once() {
        let (_, (key, value)) = halted();
        let mut ledger = BTreeMap::from([(key, value)]);
        ledger.insert("command/c-1".into(), Bytes::from_static(b"{}"));
        ledger.insert("halt/commands/!".into(), Bytes::from_static(b"{}"));
        let partition = |number| Partition { topic: "commands".into(), number };
        let mut halts = Halts::default();
        assert_eq!(halts.restore(&partition(2), &ledger, 9), 1);
        assert_eq!(halts.keys(), 0, "it is another partition's");
        halts.restore(&partition(3), &ledger, 9);
        assert!(halts.release(|_| None, 3).is_empty());
        let released = halts.release(decided(2, None), 3);
        assert!(halts.release(decided(2, None), 3).is_empty(), "it ends once");
        assert_eq!(halts.judge(&record("a/b ü", 8)), Verdict::Free);
        let mut again = Halts::default();
        let written: BTreeMap<String, Bytes> = released.into_iter().map(|(_, written)| written).collect();
        again.restore(&partition(3), &written, 9);
        assert_eq!(again.keys(), 0, "the ledger knows that it was released");
        let over = again.over().into_iter().map(|(_, key)| key);
        assert!(over.eq(written.into_keys()), "and needs to no longer");
    }

    #[test]
    fn a_command_that_halts_its_key_twice_is_decided_about_twice() {
        let (mut halts, _) = halted();
        assert_eq!(halts.release(decided(2, None), 3).len(), 1);
        halts.halt(&record("a/b ü", 9), "c-7", "rejected: refused".into(), at(4)).unwrap();
        assert!(halts.release(decided(2, None), 5).is_empty(), "that was about the first time");
        assert_eq!(halts.judge(&record("a/b ü", 10)), Verdict::Waits);
        assert_eq!(halts.release(decided(5, None), 6).len(), 1);
    }

    #[test]
    fn what_is_dropped_is_what_waited_when_it_was_decided() {
        let (mut halts, _) = halted();
        let written = halts.release(decided(2, Some(10)), 3).remove(0).1;
        assert_eq!(halts.keys(), 0);
        let partition = record("", 0).position.partition;
        let ledger = BTreeMap::from([written]);
        let mut restarted = Halts::default();
        restarted.restore(&partition, &ledger, DROPS_KEPT_MS);
        for mut halts in [halts, restarted] {
            for offset in 8..10 {
                assert_eq!(halts.judge(&record("a/b ü", offset)), Verdict::Dropped("c-7".into()));
            }
            assert!(halts.over().is_empty(), "a restart must still know it");
            assert_eq!(halts.judge(&record("a/b ü", 10)), Verdict::Free);
            assert_eq!(halts.over().len(), 1);
        }
        let mut late = Halts::default();
        late.restore(&partition, &ledger, DROPS_KEPT_MS + 4);
        assert_eq!(late.over().len(), 1, "no command is left that it could be about");
    }

    #[test]
    fn what_the_same_key_has_on_another_partition_is_not_dropped() {
        let (mut halts, _) = halted();
        halts.release(decided(2, Some(10)), 3);
        let mut elsewhere = record("a/b ü", 8);
        elsewhere.position.partition.number = 4;
        assert!(!halts.is_dropped(&elsewhere));
        assert_eq!(halts.judge(&elsewhere), Verdict::Free);
        assert!(halts.over().is_empty(), "what waited is still to be dropped");
        assert_eq!(halts.judge(&record("a/b ü", 8)), Verdict::Dropped("c-7".into()));
    }

    #[test]
    fn all_partitions_of_a_route_stop_that_are_ours_and_each_is_remembered_alone() {
        let partition = |number| Partition { topic: "commands".into(), number };
        let mut halts = Halts::default();
        halts.restore(&partition(1), &BTreeMap::new(), 9);
        halts.restore(&Partition { topic: "others".into(), number: 2 }, &BTreeMap::new(), 9);
        let last = record("a", 7).position;
        let stopped: Vec<_> = halts.stop(&last, "c-7", "100 of 200", at(1));
        assert!(halts.stop(&last, "c-8", "100 of 200", at(2)).is_empty(), "they stop once");
        let keys: Vec<_> = stopped.iter().map(|(_, (key, _))| key.as_str()).collect();
        assert_eq!(keys, ["halt/commands/*1", "halt/commands/*3"]);
        let mut ledger: BTreeMap<String, Bytes> = stopped.into_iter().map(|(_, written)| written).collect();
        let mut next = Halts::default();
        assert_eq!(next.restore(&partition(1), &ledger, 9), 0);
        assert_eq!((next.is_stopped(&partition(1)), next.is_stopped(&partition(3))), (true, false));
        assert!(next.resume(|_, _| false, 3).is_empty());
        ledger.extend(next.resume(|of, _| *of == partition(1), 3).into_iter().map(|(_, written)| written));
        assert!(!next.is_stopped(&partition(1)));
        let mut after = Halts::default();
        after.restore(&partition(1), &ledger, 9);
        after.restore(&partition(3), &ledger, 9);
        assert_eq!((after.is_stopped(&partition(1)), after.is_stopped(&partition(3))), (false, true));
        assert_eq!(after.over(), [(partition(1), "halt/commands/*1".to_owned())]);
    }
}
