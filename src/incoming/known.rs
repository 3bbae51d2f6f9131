//! What is known of one entity: the state that was published last, and the events that its last records list. Pure.
//!
//! A hint may be about a group of rows (stock is hinted by product and published by variant); then each row's state
//! is known. Written to the ledger as JSON, kept in memory packed: some 60 bytes for most entities.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::model::hint::Hint;
use crate::model::ids::EntityId;

/// Events remembered of one entity. A record lists up to a hundred; a repeat comes after minutes or hours, when
/// few others of the same entity came between.
pub const MAX_EVENTS: usize = 32;

/// Rows remembered of one group: a product may have 600 variants, few have more than some dozens. Of larger groups,
/// those rows are forgotten whose state was read longest ago; they are published again when the group is read, and
/// their disappearance is found by the next sweep.
pub const MAX_ROWS: usize = 512;

/// The state that was published last.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// When it changed last (unix seconds), where BigCommerce says so; of what is gone, when it was deleted.
    #[serde(rename = "v", default, skip_serializing_if = "Option::is_none")]
    pub version: Option<i64>,
    /// When its read began, in unix milliseconds; 0 if that is not known.
    #[serde(rename = "t", default, skip_serializing_if = "is_default")]
    pub read_at_ms: i64,
    /// What it holds: see [`super::row::Row::content`].
    #[serde(rename = "h", default, skip_serializing_if = "is_default")]
    pub content: u64,
    /// It is gone, and a tombstone says so.
    #[serde(rename = "g", default, skip_serializing_if = "is_default")]
    pub gone: bool,
}

impl State {
    /// Whether what was read is what was published.
    pub const fn holds(&self, content: u64) -> bool {
        !self.gone && self.content != 0 && self.content == content
    }
}

/// One row of a group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownRow {
    /// Its id.
    #[serde(rename = "i", with = "id_as_text")]
    pub id: EntityId,
    /// Its state.
    #[serde(flatten)]
    pub state: State,
    /// When a complete read of the group first lacked it, in unix milliseconds; 0 if the last one had it.
    #[serde(rename = "m", default, skip_serializing_if = "is_default")]
    pub missed_ms: i64,
}

/// One more read that is planned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recheck {
    /// When, in unix seconds.
    #[serde(rename = "at")]
    pub at_s: i64,
    /// Another follows it.
    #[serde(rename = "again", default, skip_serializing_if = "is_default")]
    pub again: bool,
}

/// What is known of one entity, or of one group.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Known {
    /// The state of the entity; of a group, when it was read last.
    #[serde(flatten)]
    pub state: State,
    /// The rows of a group.
    #[serde(rename = "k", default, skip_serializing_if = "Vec::is_empty")]
    pub rows: Vec<KnownRow>,
    /// One more read that is planned.
    #[serde(rename = "r", default, skip_serializing_if = "Option::is_none")]
    pub recheck: Option<Recheck>,
    /// Short hashes of the events that were published (with the row that they meant), oldest first.
    #[serde(rename = "e", default)]
    pub(super) events: Vec<u64>,
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

    /// Whether a record that lists this hint's event was published.
    pub fn has(&self, hint: &Hint) -> bool {
        self.events.contains(&short_hash(hint))
    }

    /// The state of a group's row; nothing is known of a row that was never published.
    pub fn row(&self, id: &EntityId) -> State {
        self.rows.iter().find(|row| row.id == *id).map_or_else(State::default, |row| row.state)
    }

    /// Notes the state of a group's row.
    pub fn set_row(&mut self, id: &EntityId, state: State) {
        match self.rows.iter_mut().find(|row| row.id == *id) {
            Some(row) => (row.state, row.missed_ms) = (state, 0),
            None => self.rows.push(KnownRow { id: id.clone(), state, missed_ms: 0 }),
        }
        if self.rows.len() > MAX_ROWS {
            let oldest = self.rows.iter().enumerate().min_by_key(|(_, row)| (!row.state.gone, row.state.read_at_ms));
            let at = oldest.map(|(at, _)| at).expect("there are rows");
            self.rows.swap_remove(at);
        }
    }

    /// The bytes that are kept in memory.
    pub(super) fn pack(&self) -> Box<[u8]> {
        let mut out = Vec::with_capacity(32 + self.events.len() * 8);
        let again = self.recheck.is_some_and(|recheck| recheck.again);
        out.push(u8::from(self.recheck.is_some()) | u8::from(again) << 1);
        pack_state(&mut out, &self.state);
        if let Some(recheck) = self.recheck {
            out.extend(recheck.at_s.to_le_bytes());
        }
        out.extend(u16::try_from(self.rows.len()).expect("rows are bounded").to_le_bytes());
        for row in &self.rows {
            let id = row.id.as_str().as_bytes();
            out.extend(u16::try_from(id.len()).expect("ids are short").to_le_bytes());
            out.extend(id);
            pack_state(&mut out, &row.state);
            out.extend(row.missed_ms.to_le_bytes());
        }
        self.events.iter().for_each(|event| out.extend(event.to_le_bytes()));
        out.into_boxed_slice()
    }

    /// What was packed.
    pub(super) fn unpack(bytes: &[u8]) -> Self {
        let mut from = Unpack(bytes);
        let flags = from.byte();
        let state = from.state();
        let recheck = (flags & 1 != 0).then(|| Recheck { at_s: from.number(), again: flags & 2 != 0 });
        let rows = (0..from.short())
            .map(|_| {
                let length = usize::from(from.short());
                let id = std::str::from_utf8(from.take(length)).expect("it was a text when it was packed");
                let id = EntityId::parse(id).expect("it was an id when it was packed");
                KnownRow { id, state: from.state(), missed_ms: from.number() }
            })
            .collect();
        let events = from.0.chunks_exact(8).map(|event| u64::from_le_bytes(event.try_into().expect("8 bytes")));
        Self { state, rows, recheck, events: events.collect() }
    }
}

const VERSION: u8 = 1;
const GONE: u8 = 2;

fn pack_state(out: &mut Vec<u8>, state: &State) {
    out.push(u8::from(state.version.is_some()) * VERSION | u8::from(state.gone) * GONE);
    if let Some(version) = state.version {
        out.extend(version.to_le_bytes());
    }
    out.extend(state.read_at_ms.to_le_bytes());
    out.extend(state.content.to_le_bytes());
}

/// Takes packed fields off the front. What was packed by this process is whole.
struct Unpack<'a>(&'a [u8]);

impl<'a> Unpack<'a> {
    fn take(&mut self, bytes: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(bytes);
        self.0 = rest;
        taken
    }

    fn byte(&mut self) -> u8 {
        self.take(1)[0]
    }

    fn short(&mut self) -> u16 {
        u16::from_le_bytes(self.take(2).try_into().expect("2 bytes"))
    }

    fn number(&mut self) -> i64 {
        i64::from_le_bytes(self.take(8).try_into().expect("8 bytes"))
    }

    fn state(&mut self) -> State {
        let flags = self.byte();
        let version = (flags & VERSION != 0).then(|| self.number());
        let read_at_ms = self.number();
        let content = u64::from_le_bytes(self.take(8).try_into().expect("8 bytes"));
        State { version, read_at_ms, content, gone: flags & GONE != 0 }
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

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

mod id_as_text {
    use serde::{Deserialize as _, Deserializer, Serializer};

    use crate::model::ids::EntityId;

    pub(super) fn serialize<S: Serializer>(id: &EntityId, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(id.as_str())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<EntityId, D::Error> {
        EntityId::parse(&String::deserialize(from)?).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_state() -> impl Strategy<Value = State> {
        (any::<Option<i64>>(), any::<i64>(), 0_u64..1 << 53, any::<bool>())
            .prop_map(|(version, read_at_ms, content, gone)| State { version, read_at_ms, content, gone })
    }

    fn any_row() -> impl Strategy<Value = KnownRow> {
        ("[a-z][a-z0-9.-]{0,20}", any_state(), any::<i64>()).prop_map(|(id, state, missed_ms)| KnownRow {
            id: EntityId::parse(&id).unwrap(),
            state,
            missed_ms,
        })
    }

    fn any_known() -> impl Strategy<Value = Known> {
        let recheck = prop::option::of((any::<i64>(), any::<bool>()))
            .prop_map(|recheck| recheck.map(|(at_s, again)| Recheck { at_s, again }));
        let rows = prop::collection::vec(any_row(), 0..5);
        let events = prop::collection::vec(0_u64..1 << 53, 0..MAX_EVENTS);
        (any_state(), rows, recheck, events)
            .prop_map(|(state, rows, recheck, events)| Known { state, rows, recheck, events })
    }

    proptest! {
        #[test]
        fn what_is_packed_and_what_is_written_is_what_comes_back(known in any_known()) {
            prop_assert_eq!(&Known::unpack(&known.pack()), &known);
            let json = serde_json::to_vec(&known).unwrap();
            prop_assert_eq!(&serde_json::from_slice::<Known>(&json).unwrap(), &known);
        }
    }

    #[test]
    fn a_ledger_of_before_is_understood() {
        let known: Known = serde_json::from_str(r#"{"v":9,"e":[1,2]}"#).unwrap();
        assert_eq!((known.state.version, known.state.read_at_ms, known.events.len()), (Some(9), 0, 2));
        assert_eq!(serde_json::to_string(&known).unwrap(), r#"{"v":9,"e":[1,2]}"#);
        assert!(!known.state.holds(0), "what was never read holds nothing");
    }

    #[test]
    fn the_rows_of_a_group_are_bounded_and_those_that_are_gone_are_forgotten_first() {
        let mut known = Known::default();
        let id = |n: usize| EntityId::parse(&(n + 1).to_string()).unwrap();
        for n in 0..MAX_ROWS + 2 {
            let read_at_ms = i64::try_from(n).unwrap() + 1;
            known.set_row(&id(n), State { read_at_ms, gone: n == 7, ..State::default() });
        }
        assert_eq!(known.rows.len(), MAX_ROWS);
        assert_eq!((known.row(&id(7)), known.row(&id(0))), (State::default(), State::default()));
        assert_eq!(known.row(&id(1)).read_at_ms, 2);
    }
}
