//! What is known of command ids: under way, meant to be sent, or done and with which result.
//!
//! Pure. The ledger topic is the truth; this is what a process keeps of it, restored when a partition is assigned: intents
//! whole, results only of the commands that ended last, and of the others that they ended (`ended`). It forgets the
//! oldest of those when there are too many, and never an intent: a command whose id was forgotten and comes again is
//! applied again. A result is kept until it is committed, since nobody could read it in the ledger before.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::ended::{Ended, Place, hash};
use super::halts;
use crate::engine::ownership;
use crate::model::command::Outcome;
use crate::model::record::Position;
use crate::runtime::ports::{Recalled, Trace, Want};

/// Bytes of committed results that are kept at most, with what each id weighs: some ten thousand. A repeat most often
/// comes soon; a later one is looked up in the ledger.
const MAX_BYTES: usize = 6 * 1024 * 1024;
/// Bytes of results that stand together in one piece of memory, which is free when the last of them is forgotten: alone,
/// they would leave holes that nothing else fits into.
const PIECE_BYTES: usize = 256 * 1024;
/// Bytes of an id beside those of its result: its places in the map and in the queues.
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

/// What of a ledger is to be read back for the commands: intents and halts, of what ended that it did, and of what is
/// outdated only that it is there.
pub fn wanted(ledger: &str, key: &str, value: &[u8], now_ms: i64) -> Want {
    let Some(id) = key.strip_prefix(KEY_PREFIX) else {
        return if is_ours(key) { Want::Each } else { Want::Nothing };
    };
    if let Some(at_ms) = ended_at(value) {
        return match at_ms < now_ms - KEPT_MS {
            true => Want::Key,
            false => Want::Trace(Trace { hash: hash(ledger, id), at_ms }),
        };
    }
    match serde_json::from_slice::<Entry<'_>>(value) {
        Ok(entry) if entry.at_ms < now_ms - KEPT_MS => Want::Key,
        _ => Want::Each,
    }
}

/// When a command ended, by its entry in the ledger; none where that is something else.
fn ended_at(value: &[u8]) -> Option<i64> {
    if let Some(at_ms) = written_end(value) {
        return Some(at_ms);
    }
    match serde_json::from_slice::<Entry<'_>>(value).ok()? {
        Entry { state: EntryState::Done, at_ms, result: Some(_), .. } => Some(at_ms),
        _ => None,
    }
}

/// The same for an entry as this version writes it, of which only the beginning is looked at: a million are read back in
/// a row.
fn written_end(value: &[u8]) -> Option<i64> {
    let rest = value.strip_prefix(br#"{"state":"done","at_ms":"#)?;
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (digits, rest) = rest.split_at(digits);
    let is_whole = rest.starts_with(br#","result":{"#) && rest.ends_with(b"}}");
    std::str::from_utf8(digits).ok()?.parse().ok().filter(|_| is_whole)
}

/// Whether an entry of the ledger says that a command ended, at this moment or later.
pub(super) fn is_ending(value: &[u8], at_ms: i64) -> bool {
    ended_at(value).is_some_and(|ended_ms| ended_ms >= at_ms)
}

/// How a command ended and the value of its result record, by its entry in the ledger.
pub(super) fn stored(value: &Bytes) -> Option<(Outcome, Bytes)> {
    let result = serde_json::from_slice::<Entry<'_>>(value).ok()?.result?;
    let Stored { outcome } = serde_json::from_str(result.get()).ok()?;
    Some((outcome, value.slice_ref(result.get().as_bytes())))
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
    /// It ended, or another id with the same hash did; the ledger tells.
    Ended(Place),
}

/// The outcome within a stored result.
#[derive(Deserialize)]
struct Stored {
    outcome: Outcome,
}

/// All ids that are known, within bounds.
#[derive(Debug)]
pub(super) struct Known {
    states: HashMap<Name, State>,
    ended: Ended,
    /// Results in the order in which they came, each with its number and size.
    oldest: VecDeque<(Name, u64, usize)>,
    /// Where the commands stood whose results are not committed, in the order of their numbers.
    uncommitted: VecDeque<(Position, Name)>,
    number: u64,
    bytes: usize,
    max_bytes: usize,
    /// The rest of the last piece.
    piece: BytesMut,
}

impl Default for Known {
    fn default() -> Self {
        Self::with_limits(MAX_BYTES, Ended::default())
    }
}

impl Known {
    pub(super) fn with_limits(max_bytes: usize, ended: Ended) -> Self {
        let (states, oldest, uncommitted) = (HashMap::new(), VecDeque::new(), VecDeque::new());
        Self { states, ended, oldest, uncommitted, number: 0, bytes: 0, max_bytes, piece: BytesMut::new() }
    }

    /// Takes what a partition of a ledger holds. What this process knows already is newer. Returns how many entries are
    /// not the bridge's: they are left alone.
    pub(super) fn restore(&mut self, ledger: &Arc<str>, partition: i32, recalled: &mut Recalled) -> usize {
        self.ended.restore(partition, std::mem::take(&mut recalled.traces));
        let mut strange = 0;
        for (key, value) in &recalled.values {
            let Some(id) = key.strip_prefix(KEY_PREFIX) else { continue };
            let name = (ledger.clone(), Arc::from(id));
            match serde_json::from_slice::<Entry<'_>>(value) {
                Ok(Entry { state: EntryState::Intent, .. }) => {
                    self.states.entry(name).or_insert(State::Intent);
                }
                Ok(Entry { state: EntryState::Done, .. }) | Err(_) => strange += 1,
            }
        }
        strange
    }

    /// What is known of an id; of one that ended, for as long as the ledger keeps it.
    pub(super) fn get(&mut self, name: &Name, now_ms: i64) -> Option<State> {
        let (ledger, id) = name;
        let ended = || self.ended.get(hash(ledger, id), now_ms - KEPT_MS).map(State::Ended);
        self.states.get(name).cloned().or_else(ended)
    }

    /// A lane is at it; returns what was known before, but for what only the ledger tells.
    pub(super) fn open(&mut self, name: Name) -> Option<State> {
        self.states.insert(name, State::Open)
    }

    /// The command that stands at `position` ended; that is written down at `place`, once it is committed.
    pub(super) fn done(
        &mut self,
        name: Name,
        place: Place,
        position: Position,
        (outcome, result): (Outcome, Bytes),
    ) {
        let size = result.len() + ID_BYTES;
        self.bytes += size;
        self.number += 1;
        self.ended.insert(hash(&name.0, &name.1), place);
        self.oldest.push_back((name.clone(), self.number, size));
        self.uncommitted.push_back((position, name.clone()));
        self.states.insert(name, State::Done { outcome, result, number: self.number });
    }

    /// What stood there is committed: the next ones of those that were settled, in order.
    pub(super) fn committed(&mut self, positions: &[Position]) {
        for position in positions {
            // Between them are some that had no result of their own.
            if self.uncommitted.front().is_none_or(|(next, _)| next != position) {
                continue;
            }
            let Some((_, name)) = self.uncommitted.pop_front() else { continue };
            // Until now it shared the memory of the records that are written.
            if let Some(State::Done { result, .. }) = self.states.get_mut(&name) {
                if self.piece.capacity() < result.len() {
                    self.piece = BytesMut::with_capacity(result.len().max(PIECE_BYTES));
                }
                self.piece.extend_from_slice(result);
                *result = self.piece.split().freeze();
            }
        }
        while self.bytes > self.max_bytes && self.oldest.len() > self.uncommitted.len() {
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

    /// It ends at a moment that is its number.
    fn end(known: &mut Known, id: u32) {
        known.open(name(id));
        let result = (Outcome::Applied, Bytes::from_static(b"{}"));
        known.done(name(id), Place::new(0, id.into()), position(id.into()), result);
    }

    #[test]
    fn of_the_oldest_results_only_a_trace_stays_and_intents_stay_whole() {
        let mut known = Known::with_limits(10 * (2 + ID_BYTES), Ended::with_limits(2, 25));
        let intent = serde_json::to_vec(&Entry::intent("C", &position(4), 1)).unwrap();
        let strange = Bytes::from_static(b"{}");
        let entries =
            [("command/intent", Bytes::from(intent)), ("command/x", strange.clone()), ("other/y", strange)];
        let values = entries.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        let mut recalled = Recalled { values, traces: Vec::new() };
        assert_eq!(known.restore(&"ledger".into(), 0, &mut recalled), 1);
        for id in 0..100 {
            end(&mut known, id);
            known.committed(&[position(i64::from(id) + 1_000), position(id.into())]);
        }
        assert_eq!(known.states.len(), 11);
        assert_eq!(known.get(&("ledger".into(), "intent".into()), 0), Some(State::Intent));
        assert_eq!(known.get(&name(49), 0), None);
        assert_eq!(known.get(&name(89), 0), Some(State::Ended(Place::new(0, 89))));
        assert_eq!(known.get(&name(89), 90 + KEPT_MS), None, "it is outdated");
        assert!(matches!(known.get(&name(90), 0), Some(State::Done { .. })));
        assert_eq!(known.bytes, 10 * (2 + ID_BYTES));
    }

    #[test]
    fn a_result_stays_until_it_is_committed() {
        let mut known = Known::with_limits(0, Ended::default());
        (0..3).for_each(|id| end(&mut known, id));
        // The second one ends again before the first ending is committed.
        end(&mut known, 1);
        known.committed(&[position(0), position(1)]);
        assert_eq!(known.get(&name(0), 0), Some(State::Ended(Place::new(0, 0))));
        assert!([1, 2].iter().all(|id| matches!(known.get(&name(*id), 0), Some(State::Done { .. }))));
        known.committed(&[position(2), position(1)]);
        assert!((0..3).all(|id| known.get(&name(id), 0) == Some(State::Ended(Place::new(0, id.into())))));
        assert_eq!((known.bytes, known.states.len(), known.uncommitted.len()), (0, 0, 0));
    }

    #[test]
    fn an_entry_is_outdated_after_eight_days() {
        let intent = serde_json::to_vec(&Entry::intent("C", &position(4), 1_000)).unwrap();
        assert!(is_outdated("command/1", &intent, 1_001 + KEPT_MS));
        assert!(!is_outdated("command/1", &intent, 1_000 + KEPT_MS));
        assert!(!is_outdated("read/product/1", &intent, i64::MAX), "it is the other path's");
        assert!(!is_outdated("command/1", b"{}", i64::MAX), "it is not understood");
    }

    #[test]
    fn of_a_ledger_intents_and_halts_are_needed_and_traces_of_what_ended() {
        let intent = serde_json::to_vec(&Entry::intent("C", &position(4), 1_000)).unwrap();
        let result = RawValue::from_string("{}".to_owned()).unwrap();
        let done = serde_json::to_vec(&Entry::done(&result, 1_000)).unwrap();
        let wanted = |key, value: &[u8], now_ms| wanted("ledger", key, value, now_ms);
        let trace = Want::Trace(Trace { hash: hash("ledger", "1"), at_ms: 1_000 });
        assert_eq!(wanted("command/1", &intent, 2_000), Want::Each);
        assert_eq!(wanted("command/1", &intent, 1_001 + KEPT_MS), Want::Key);
        assert_eq!(wanted("command/1", &done, 2_000), trace);
        assert_eq!(wanted("command/1", &done, 1_001 + KEPT_MS), Want::Key);
        assert_eq!(wanted("command/1", b"?", 2_000), Want::Each, "it is not understood");
        let strange = br#"{"state":"done","at_ms":1000}"#;
        assert_eq!(wanted("command/1", strange, 2_000), Want::Each, "it is not understood");
        let foreign = br#" { "at_ms" : 1000, "more" : 1, "result" : { } , "state" : "done" } "#;
        assert_eq!(wanted("command/1", foreign, 2_000), trace, "another version wrote it");
        assert_eq!(wanted("halt/commands/a", b"{}", 2_000), Want::Each);
        assert_eq!(wanted("owner/commands/0", b"{}", 2_000), Want::Each);
        assert_eq!(wanted("read/product/1", b"{}", 2_000), Want::Nothing);
    }

    #[test]
    fn an_ending_is_read_by_its_beginning_as_the_parser_reads_it() {
        let result = RawValue::from_string(r#"{"outcome":"applied", "body": 1.50}"#.to_owned()).unwrap();
        for at_ms in [0, 7, 1_795_475_000_123] {
            let done = Bytes::from(serde_json::to_vec(&Entry::done(&result, at_ms)).unwrap());
            assert_eq!((written_end(&done), ended_at(&done)), (Some(at_ms), Some(at_ms)));
            assert!(is_ending(&done, at_ms) && is_ending(&done, at_ms - 1) && !is_ending(&done, at_ms + 1));
            let raw = Bytes::copy_from_slice(result.get().as_bytes());
            assert_eq!(stored(&done), Some((Outcome::Applied, raw)), "byte for byte");
        }
        for other in [
            r#"{"state":"done","at_ms":,"result":{}}"#,
            r#"{"state":"done","at_ms":99999999999999999999,"result":{}}"#,
            r#"{"state":"done","at_ms":1,"result":{}"#,
            r#"{"state":"done","at_ms":1}"#,
            r#"{"state":"intent","at_ms":1,"class":"C"}"#,
            "",
        ] {
            assert_eq!((written_end(other.as_bytes()), ended_at(other.as_bytes())), (None, None), "{other}");
        }
    }

    fn position(offset: i64) -> Position {
        let partition = crate::model::record::Partition { topic: "t".into(), number: 0 };
        Position { partition, offset }
    }
}
