//! What is known of command ids: under way, meant to be sent, or done and with which result.
//!
//! Pure. The ledger topic is the truth; this is what a process keeps of it, restored when a partition is assigned.
//! It forgets the oldest results when it holds too many, and never an intent: a command whose id was forgotten and
//! comes again is applied again.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::halts;
use crate::engine::ownership;
use crate::model::command::Outcome;
use crate::model::record::Position;
use crate::runtime::ports::Want;

/// Results kept at most: a day of two commands a second.
const MAX_IDS: usize = 200_000;
/// Bytes of results kept at most, with what each id weighs.
const MAX_BYTES: usize = 48 * 1024 * 1024;
/// Bytes of results that stand together in one piece of memory, which is free when the last of them is forgotten: alone,
/// they would leave holes that nothing else fits into.
const PIECE_BYTES: usize = 256 * 1024;
/// Bytes of an id beside those of its result: its places in the map and in the queue, and the rest of its entry in the
/// ledger.
const ID_BYTES: usize = 320;
/// How long the ledger keeps an entry: a day more than the seven in which a repeated command is recognised.
const KEPT_MS: i64 = 8 * 24 * 3_600_000;
/// The prefix of a command's key in the ledger; other keys there belong to others.
pub(super) const KEY_PREFIX: &str = "command/";

/// A command's id within one ledger.
pub(super) type Name = (Arc<str>, Arc<str>);

/// What the ledger says about a command.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Entry<'a> {
    state: EntryState,
    at_ms: i64,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    class: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    topic: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    partition: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    offset: Option<i64>,
    /// The value of its result record.
    #[serde(skip_serializing_if = "Option::is_none", default, borrow)]
    result: Option<&'a RawValue>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum EntryState {
    /// It is about to be sent for the first time.
    Intent,
    /// It ended.
    Done,
}

impl<'a> Entry<'a> {
    /// It is about to be sent for the first time.
    pub(super) fn intent(class: &str, position: &Position, at_ms: i64) -> Self {
        Self {
            state: EntryState::Intent,
            at_ms,
            class: Some(class.to_owned()),
            topic: Some(position.partition.topic.to_string()),
            partition: Some(position.partition.number),
            offset: Some(position.offset),
            result: None,
        }
    }

    /// It ended, with this as the value of its result record.
    pub(super) fn done(result: &'a RawValue, at_ms: i64) -> Self {
        let (class, topic, partition, offset) = (None, None, None, None);
        Self { state: EntryState::Done, at_ms, class, topic, partition, offset, result: Some(result) }
    }
}

/// Whether an entry of the ledger is older than any command that may come again: commands are kept for seven days, and
/// no id is recognised after that.
pub(super) fn is_outdated(key: &str, value: &[u8], now_ms: i64) -> bool {
    let entry = key.strip_prefix(KEY_PREFIX).and_then(|_| serde_json::from_slice::<Entry<'_>>(value).ok());
    entry.is_some_and(|entry| entry.at_ms < now_ms - KEPT_MS)
}

/// What of a ledger is to be read back for the commands: intents and halts, the newest results, and of what is outdated
/// only that it is there.
pub fn wanted(key: &str, value: &[u8], now_ms: i64) -> Want {
    match key.strip_prefix(KEY_PREFIX).map(|_| serde_json::from_slice::<Entry<'_>>(value)) {
        Some(Ok(entry)) if entry.at_ms < now_ms - KEPT_MS => Want::Key,
        Some(Ok(Entry { state: EntryState::Done, .. })) => Want::Newest,
        Some(_) => Want::Each,
        None if is_ours(key) => Want::Each,
        None => Want::Nothing,
    }
}

/// Whether an entry of a ledger is about commands.
pub fn is_ours(key: &str) -> bool {
    key.starts_with(KEY_PREFIX) || key.starts_with(halts::KEY_PREFIX) || ownership::is_key(key)
}

/// What is known of one id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum State {
    /// A lane of this process is at it.
    Open,
    /// Its intent is durable, and nothing tells how it ended.
    Intent,
    /// It ended with this result.
    Done {
        /// How.
        outcome: Outcome,
        /// The value of its result record.
        result: Bytes,
        /// Tells this ending from a later one of the same id.
        number: u64,
    },
}

/// The outcome within a stored result.
#[derive(Deserialize)]
struct Ended {
    outcome: Outcome,
}

/// All ids that are known, within bounds.
#[derive(Debug)]
pub(super) struct Known {
    states: HashMap<Name, State>,
    /// Results in the order in which they came, each with its number and size.
    oldest: VecDeque<(Name, u64, usize)>,
    number: u64,
    bytes: usize,
    max_ids: usize,
    /// The rest of the last piece.
    piece: BytesMut,
}

impl Default for Known {
    fn default() -> Self {
        Self::with_limit(MAX_IDS)
    }
}

impl Known {
    fn with_limit(max_ids: usize) -> Self {
        let (states, oldest, piece) = (HashMap::new(), VecDeque::new(), BytesMut::new());
        Self { states, oldest, number: 0, bytes: 0, max_ids, piece }
    }

    /// Takes what a ledger holds. What this process knows already is newer. Returns entries that are not the
    /// bridge's: they are left alone.
    pub(super) fn restore<'a>(
        &mut self,
        ledger: &Arc<str>,
        entries: impl Iterator<Item = (&'a str, &'a Bytes)>,
    ) -> usize {
        let (mut done, mut strange) = (Vec::new(), 0);
        for (key, value) in entries {
            let Some(id) = key.strip_prefix(KEY_PREFIX) else { continue };
            let name = (ledger.clone(), Arc::from(id));
            if self.states.contains_key(&name) {
                continue;
            }
            match serde_json::from_slice::<Entry>(value) {
                Ok(Entry { state: EntryState::Intent, .. }) => {
                    self.states.insert(name, State::Intent);
                }
                Ok(Entry { state: EntryState::Done, at_ms, result: Some(result), .. }) => {
                    done.push((at_ms, name, value.slice_ref(result.get().as_bytes())));
                }
                Ok(Entry { state: EntryState::Done, result: None, .. }) | Err(_) => strange += 1,
            }
        }
        done.sort_by_key(|(at_ms, _, _)| *at_ms);
        for (_, name, result) in done {
            match serde_json::from_slice::<Ended>(&result) {
                Ok(Ended { outcome }) => self.done(name, outcome, &result),
                Err(_) => strange += 1,
            }
        }
        strange
    }

    pub(super) fn get(&self, name: &Name) -> Option<&State> {
        self.states.get(name)
    }

    /// A lane is at it; returns what was known before.
    pub(super) fn open(&mut self, name: Name) -> Option<State> {
        self.states.insert(name, State::Open)
    }

    /// It ended.
    pub(super) fn done(&mut self, name: Name, outcome: Outcome, result: &[u8]) {
        if self.piece.capacity() < result.len() {
            self.piece = BytesMut::with_capacity(result.len().max(PIECE_BYTES));
        }
        self.piece.extend_from_slice(result);
        let result = self.piece.split().freeze();
        let size = result.len() + ID_BYTES;
        self.bytes += size;
        self.number += 1;
        self.oldest.push_back((name.clone(), self.number, size));
        self.states.insert(name, State::Done { outcome, result, number: self.number });
        while self.oldest.len() > self.max_ids || self.bytes > MAX_BYTES {
            let Some((name, number, bytes)) = self.oldest.pop_front() else { break };
            self.bytes -= bytes;
            if matches!(self.states.get(&name), Some(State::Done { number: n, .. }) if *n == number) {
                self.states.remove(&name);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(id: u32) -> Name {
        ("ledger".into(), id.to_string().into())
    }

    #[test]
    fn the_oldest_results_are_forgotten_and_intents_are_not() {
        let mut known = Known::with_limit(10);
        let intent = serde_json::to_vec(&Entry::intent("C", &position(), 1)).unwrap();
        let intent = Bytes::from(intent);
        let strange = Bytes::from_static(b"{}");
        let entries = [("command/intent", &intent), ("command/x", &strange), ("other/y", &strange)];
        assert_eq!(known.restore(&"ledger".into(), entries.into_iter()), 1);
        for id in 0..100 {
            known.open(name(id));
            known.done(name(id), Outcome::Applied, b"{}");
        }
        assert_eq!(known.states.len(), 11);
        assert_eq!(known.get(&("ledger".into(), "intent".into())), Some(&State::Intent));
        assert_eq!(known.get(&name(89)), None);
        assert!(matches!(known.get(&name(90)), Some(State::Done { .. })));
        assert_eq!(known.bytes, 10 * (2 + ID_BYTES));
    }

    #[test]
    fn an_entry_is_outdated_after_eight_days() {
        let intent = serde_json::to_vec(&Entry::intent("C", &position(), 1_000)).unwrap();
        assert!(is_outdated("command/1", &intent, 1_001 + KEPT_MS));
        assert!(!is_outdated("command/1", &intent, 1_000 + KEPT_MS));
        assert!(!is_outdated("read/product/1", &intent, i64::MAX), "it is the other path's");
        assert!(!is_outdated("command/1", b"{}", i64::MAX), "it is not understood");
    }

    #[test]
    fn of_a_ledger_intents_and_halts_are_needed_and_the_newest_results() {
        let intent = serde_json::to_vec(&Entry::intent("C", &position(), 1_000)).unwrap();
        let result = RawValue::from_string("{}".to_owned()).unwrap();
        let done = serde_json::to_vec(&Entry::done(&result, 1_000)).unwrap();
        assert_eq!(wanted("command/1", &intent, 2_000), Want::Each);
        assert_eq!(wanted("command/1", &done, 2_000), Want::Newest);
        assert_eq!(wanted("command/1", &done, 1_001 + KEPT_MS), Want::Key);
        assert_eq!(wanted("command/1", b"?", 2_000), Want::Each, "it is not understood");
        assert_eq!(wanted("halt/commands/a", b"{}", 2_000), Want::Each);
        assert_eq!(wanted("owner/commands/0", b"{}", 2_000), Want::Each);
        assert_eq!(wanted("read/product/1", b"{}", 2_000), Want::Nothing);
    }

    #[test]
    fn results_are_restored_in_the_order_of_their_time() {
        let mut known = Known::with_limit(1);
        let done = |at_ms: i64| {
            Bytes::from(format!(
                r#"{{"state":"done","at_ms":{at_ms},"result":{{"id":"x","outcome":"applied", "body": 1.50}}}}"#
            ))
        };
        let (newer, older) = (done(9), done(3));
        known.restore(&"ledger".into(), [("command/1", &newer), ("command/2", &older)].into_iter());
        assert_eq!(known.get(&name(2)), None);
        let Some(State::Done { result, .. }) = known.get(&name(1)) else { panic!("it was forgotten") };
        assert_eq!(result, &Bytes::from_static(br#"{"id":"x","outcome":"applied", "body": 1.50}"#));
    }

    fn position() -> Position {
        let partition = crate::model::record::Partition { topic: "t".into(), number: 0 };
        Position { partition, offset: 4 }
    }
}
