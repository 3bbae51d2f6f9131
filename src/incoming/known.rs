//! What is known of one entity: the state that was published last, and the events that its last records list. Pure.
//!
//! A hint may be about a group of rows (stock is hinted by product and published by variant); then each row's state
//! is known. Written to the ledger as JSON, kept in memory packed: some 40 bytes for most entities.

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
    /// When it was in hand, in unix milliseconds: what it holds is no newer than that. 0 if that is not known.
    #[serde(rename = "t", default, skip_serializing_if = "is_default")]
    pub seen_ms: i64,
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
            let oldest =
                self.rows.iter().enumerate().min_by_key(|(_, row)| (!row.state.gone, row.state.seen_ms));
            let at = oldest.map(|(at, _)| at).expect("there are rows");
            self.rows.swap_remove(at);
        }
    }

    /// The bytes that are kept in memory: 22 and 7 for each event, most of the time.
    pub(super) fn pack(&self) -> Box<[u8]> {
        let mut out = Vec::with_capacity(22 + self.events.len() * 7);
        let again = self.recheck.is_some_and(|recheck| recheck.again);
        let flags = [(self.recheck.is_some(), RECHECK), (again, AGAIN), (!self.rows.is_empty(), ROWS)];
        let flags = flags.into_iter().filter(|(is, _)| *is).fold(0, |flags, (_, flag)| flags | flag);
        pack_state(&mut out, flags, &self.state);
        if let Some(recheck) = self.recheck {
            out.extend(recheck.at_s.to_le_bytes());
        }
        if !self.rows.is_empty() {
            out.extend(u16::try_from(self.rows.len()).expect("rows are bounded").to_le_bytes());
        }
        for row in &self.rows {
            let id = row.id.as_str().as_bytes();
            pack_state(&mut out, 0, &row.state);
            out.extend(u16::try_from(id.len()).expect("ids are short").to_le_bytes());
            out.extend(id);
            out.extend(&row.missed_ms.to_le_bytes()[..TIME]);
        }
        self.events.iter().for_each(|event| out.extend(&event.to_le_bytes()[..HASH]));
        out.into_boxed_slice()
    }

    /// What was packed.
    pub(super) fn unpack(bytes: &[u8]) -> Self {
        let mut from = Unpack(bytes);
        let (flags, state) = from.state();
        let recheck = flags & RECHECK != 0;
        let recheck = recheck.then(|| Recheck { at_s: from.signed(), again: flags & AGAIN != 0 });
        let rows = if flags & ROWS != 0 { from.number(2) } else { 0 };
        let rows = (0..rows).map(|_| from.row()).collect();
        let events = from.0.chunks_exact(HASH).map(|event| Unpack(event).number(HASH));
        Self { state, rows, recheck, events: events.collect() }
    }
}

const VERSION: u8 = 1;
const GONE: u8 = 2;
const RECHECK: u8 = 4;
const AGAIN: u8 = 8;
const ROWS: u8 = 16;

/// Bytes of a moment in milliseconds: good for 8,900 years.
const TIME: usize = 6;
/// Bytes of a hash of 53 bits.
const HASH: usize = 7;

fn pack_state(out: &mut Vec<u8>, flags: u8, state: &State) {
    let version = if state.version.is_some() { VERSION } else { 0 };
    let gone = if state.gone { GONE } else { 0 };
    out.push(flags | version | gone);
    if let Some(version) = state.version {
        out.extend(version.to_le_bytes());
    }
    out.extend(&state.seen_ms.to_le_bytes()[..TIME]);
    out.extend(&state.content.to_le_bytes()[..HASH]);
}

/// Takes packed fields off the front. What was packed by this process is whole.
struct Unpack<'a>(&'a [u8]);

impl<'a> Unpack<'a> {
    fn take(&mut self, bytes: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(bytes);
        self.0 = rest;
        taken
    }

    fn number(&mut self, bytes: usize) -> u64 {
        let mut number = [0; 8];
        number[..bytes].copy_from_slice(self.take(bytes));
        u64::from_le_bytes(number)
    }

    fn signed(&mut self) -> i64 {
        i64::from_le_bytes(self.take(8).try_into().expect("8 bytes"))
    }

    fn time(&mut self) -> i64 {
        i64::try_from(self.number(TIME)).expect("48 bits fit")
    }

    fn state(&mut self) -> (u8, State) {
        let flags = self.take(1)[0];
        let version = (flags & VERSION != 0).then(|| self.signed());
        let (seen_ms, content) = (self.time(), self.number(HASH));
        (flags, State { version, seen_ms, content, gone: flags & GONE != 0 })
    }

    fn row(&mut self) -> KnownRow {
        let (_, state) = self.state();
        let length = usize::try_from(self.number(2)).expect("16 bits fit");
        let id = std::str::from_utf8(self.take(length)).expect("it was a text when it was packed");
        let id = EntityId::parse(id).expect("it was an id when it was packed");
        KnownRow { id, state, missed_ms: self.time() }
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
        (any::<Option<i64>>(), 0_i64..1 << 47, 0_u64..1 << 53, any::<bool>())
            .prop_map(|(version, seen_ms, content, gone)| State { version, seen_ms, content, gone })
    }

    fn any_row() -> impl Strategy<Value = KnownRow> {
        ("[a-z][a-z0-9.-]{0,20}", any_state(), 0_i64..1 << 47).prop_map(|(id, state, missed_ms)| KnownRow {
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
        (any_state(), rows, recheck, events).prop_map(|(state, rows, recheck, events)| Known {
            state,
            rows,
            recheck,
            events,
        })
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
        assert_eq!((known.state.version, known.state.seen_ms, known.events.len()), (Some(9), 0, 2));
        assert_eq!(serde_json::to_string(&known).unwrap(), r#"{"v":9,"e":[1,2]}"#);
        assert!(!known.state.holds(0), "what was never read holds nothing");
    }

    #[test]
    fn the_rows_of_a_group_are_bounded_and_those_that_are_gone_are_forgotten_first() {
        let mut known = Known::default();
        let id = |n: usize| EntityId::parse(&(n + 1).to_string()).unwrap();
        for n in 0..MAX_ROWS + 2 {
            let seen_ms = i64::try_from(n).unwrap() + 1;
            known.set_row(&id(n), State { seen_ms, gone: n == 7, ..State::default() });
        }
        assert_eq!(known.rows.len(), MAX_ROWS);
        assert_eq!((known.row(&id(7)), known.row(&id(0))), (State::default(), State::default()));
        assert_eq!(known.row(&id(1)).seen_ms, 2);
    }
}
