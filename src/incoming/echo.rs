//! Which changes are the bridge's own: notes of what it wrote, compared with what is read. Pure.
//!
//! A read is the echo of a write where every field that both hold is the same. It stays one only while the thing
//! stays as it was then: a later change is somebody else's, even in a field that the note knows nothing of, and a
//! note that a later read contradicts is spent. In doubt it is somebody else's change, and so is published.
//!
//! What it cannot tell: a change by somebody else to a field that the store's reply to the write did not hold,
//! made between that write and the first read after it, is taken for a part of the write.
//!
//! Bounded: a note holds for [`WINDOW_MS`], and so many are kept in all and of one thing. What is forgotten too early
//! is published as the store's own change; between two bridges that mirror each other, this costs one more write and
//! no loop.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use serde_json::Value;
use sha2::{Digest, Sha256};

use super::known::State;
use super::row::Row;
use crate::catalog::Catalog;
use crate::catalog::place::text_at;
use crate::model::ids::EntityId;
use crate::model::record::Partition;
use crate::model::written::{Fingerprint, Note, notes_of};

/// How long a write is remembered: BigCommerce sends most callbacks within seconds, and again after one and two
/// minutes where they were not taken.
pub const WINDOW_MS: i64 = 5 * 60_000;

/// Notes kept by one process: five minutes of 160 writes a second, some 40 MB at the most.
const MAX_NOTES: usize = 50_000;

/// Notes of one thing: several commands write it in a row, and one of the last of them shows.
const MAX_OF_ONE: usize = 8;

/// The ledger's keys of notes; the offset of their record on the intake follows.
const PREFIX: &str = "written/";

/// By what a note is found: half a hash of the entity, the place and the text there.
type Address = [u8; 16];

/// A note of one command.
#[derive(Debug)]
struct Kept {
    command: Arc<str>,
    time_ms: i64,
    deleted: bool,
    version: Option<i64>,
    fields: Fingerprint,
    proof: Proof,
}

/// How far a note was compared with what was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Proof {
    /// No read agreed yet.
    Open,
    /// A read of this content agreed; 0 where the thing was gone.
    Agreed(u64),
    /// An earlier process had it, and may have compared it.
    Inherited,
}

/// What was read of a thing, and what was published of it before.
#[derive(Debug, Clone, Copy)]
pub struct Seen<'a> {
    /// The entity.
    pub entity: &'a str,
    /// When the read began, in unix milliseconds.
    pub read_at_ms: i64,
    /// What was published last.
    pub before: State,
}

/// The key of the ledger's entry of notes that stood there on the intake.
pub fn ledger_key(offset: i64) -> String {
    format!("{PREFIX}{offset}")
}

/// The notes that are in force.
pub struct Echoes {
    notes: HashMap<Address, Vec<Kept>>,
    /// The ledger's entries by the time of their newest note, and what their notes are about.
    entries: BTreeMap<(i64, Partition, String), BTreeSet<Address>>,
    count: usize,
    /// For each entity the places, besides the id, by which commands name it.
    places: BTreeMap<String, BTreeSet<String>>,
}

impl Echoes {
    /// Nothing noted yet. The catalogue says by what notes can name a thing.
    pub fn new(catalog: &Catalog) -> Self {
        let mut places: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        let actions = catalog.entities().iter().flat_map(|entity| &entity.action);
        for change in actions.flat_map(|action| &action.changes) {
            places.entry(change.entity.clone()).or_default().extend(change.by.iter().map(|by| by.at.clone()));
        }
        Self { notes: HashMap::new(), entries: BTreeMap::new(), count: 0, places }
    }

    /// Takes one value of the ledger; keys of others are left alone. What is older than the window stays until
    /// [`Self::expired`] gives it up, and so does what this version does not understand.
    pub fn restore(&mut self, key: &str, value: &[u8], intake: &Partition, now_ms: i64) {
        if key.starts_with(PREFIX) {
            let notes = notes_of(value).unwrap_or_default();
            self.add(notes, Proof::Inherited, (intake, key), now_ms);
        }
    }

    /// Takes the notes of a record of the intake. They will be in the ledger under this key.
    pub fn take(&mut self, notes: Vec<Note>, entry: (&Partition, &str), now_ms: i64) {
        self.add(notes, Proof::Open, entry, now_ms);
    }

    fn add(&mut self, notes: Vec<Note>, proof: Proof, (intake, key): (&Partition, &str), now_ms: i64) {
        let newest = notes.iter().map(|note| note.time_ms.min(now_ms)).max().unwrap_or(0);
        let addresses = self.entries.entry((newest, intake.clone(), key.to_owned())).or_default();
        for note in notes {
            let address = address(&note.key.entity, note.at.as_deref().unwrap_or(""), &note.key.id);
            addresses.insert(address);
            let of_one = self.notes.entry(address).or_default();
            // All partitions bring the same note where its thing is not named by its id.
            if of_one.iter().any(|kept| *kept.command == *note.command) {
                continue;
            }
            let time_ms = note.time_ms.min(now_ms);
            let Note { deleted, version, fields, command, .. } = note;
            let kept = Kept { command: command.into(), time_ms, deleted, version, fields, proof };
            of_one.insert(of_one.partition_point(|kept| kept.time_ms <= time_ms), kept);
            self.count += 1;
            if of_one.len() > MAX_OF_ONE {
                of_one.remove(0);
                self.count -= 1;
            }
        }
    }

    /// Forgets what is older than the window or too much, and returns the keys that the ledger may forget.
    pub fn expired(&mut self, now_ms: i64) -> Vec<(String, Partition)> {
        let mut forgotten = Vec::new();
        while let Some(entry) = self.entries.first_entry() {
            let newest = entry.key().0;
            if newest + WINDOW_MS > now_ms && self.count <= MAX_NOTES {
                break;
            }
            let ((_, intake, key), addresses) = entry.remove_entry();
            for address in addresses {
                let Some(of_one) = self.notes.get_mut(&address) else { continue };
                let before = of_one.len();
                of_one.retain(|kept| kept.time_ms > newest);
                self.count -= before - of_one.len();
                if of_one.is_empty() {
                    self.notes.remove(&address);
                }
            }
            forgotten.push((key, intake));
        }
        forgotten
    }

    /// The last command whose write a row shows; none where somebody else changed it.
    pub fn of_row(&mut self, row: &Row, seen: Seen<'_>) -> Option<Arc<str>> {
        if self.notes.is_empty() {
            return None;
        }
        let mut json = None;
        let mut last = None;
        for address in self.addresses(row, seen.entity, &mut json) {
            let json = &mut json;
            let found = self.compare(address, (row.version, Proof::Agreed(row.content)), seen, |kept| {
                kept.shows_in(row, json.get_or_insert_with(|| parsed(row)), &seen)
            });
            last = last.max(found);
        }
        last.map(|(_, command)| command)
    }

    /// The last command that deleted what is gone; none where somebody else did.
    pub fn of_gone(&mut self, id: &EntityId, seen: Seen<'_>) -> Option<Arc<str>> {
        let at = address(seen.entity, "", id);
        let shows = |kept: &Kept| kept.deleted && kept.holds_still(&seen, seen.before.gone, 0);
        self.compare(at, (None, Proof::Agreed(0)), seen, shows).map(|(_, command)| command)
    }

    /// Compares the notes of a thing with what was read, drops those that it contradicts, and tells the last of those
    /// that it shows. `proof`: what showing it proves.
    fn compare(
        &mut self,
        at: Address,
        (version, proof): (Option<i64>, Proof),
        seen: Seen<'_>,
        mut shows: impl FnMut(&Kept) -> bool,
    ) -> Option<(i64, Arc<str>)> {
        let of_one = self.notes.get_mut(&at)?;
        let (before, mut last) = (of_one.len(), None);
        of_one.retain_mut(|kept| {
            if !shows(kept) {
                return !kept.is_contradicted(version, seen.read_at_ms);
            }
            kept.proof = proof;
            last = Some((kept.time_ms, kept.command.clone()));
            true
        });
        self.count -= before - of_one.len();
        last
    }

    /// Where notes about a row may be. The row is parsed only if it has to be.
    fn addresses(&self, row: &Row, entity: &str, json: &mut Option<Value>) -> Vec<Address> {
        let mut addresses = vec![address(entity, "", &row.id)];
        let Some(places) = self.places.get(entity) else { return addresses };
        let value = json.get_or_insert_with(|| parsed(row));
        for place in places {
            let id = text_at(value, place).and_then(|text: Cow<'_, str>| EntityId::of_row(&[text]).ok());
            addresses.extend(id.map(|id| address(entity, place, &id)));
        }
        addresses
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.notes.clear();
        self.entries.clear();
        self.count = 0;
    }
}

impl Kept {
    fn shows_in(&self, row: &Row, value: &Value, seen: &Seen<'_>) -> bool {
        let is_unchanged = seen.before.holds(row.content);
        self.holds_still(seen, is_unchanged, row.content) && self.fields.agrees(value)
    }

    /// Whether nothing changed since a read first agreed. `is_unchanged`: what is read is what was published last.
    fn holds_still(&self, seen: &Seen<'_>, is_unchanged: bool, content: u64) -> bool {
        match self.proof {
            Proof::Open => true,
            Proof::Agreed(agreed) => agreed == content && is_unchanged,
            // If it was read since the write, that read agreed or contradicted, and nobody remembers which.
            Proof::Inherited => is_unchanged || seen.before.seen_ms <= self.time_ms,
        }
    }

    /// Whether a read that does not show the write must have come after it. A replica that lags shows an older date.
    fn is_contradicted(&self, version: Option<i64>, read_at_ms: i64) -> bool {
        let lags = self.version.zip(version).is_some_and(|(written, read)| read < written);
        read_at_ms > self.time_ms && !lags
    }
}

fn parsed(row: &Row) -> Value {
    serde_json::from_slice(&row.json).expect("it was parsed when it was read")
}

fn address(entity: &str, place: &str, id: &EntityId) -> Address {
    let mut hasher = Sha256::new_with_prefix(entity.as_bytes());
    for part in [place, id.as_str()] {
        hasher.update(b"/");
        hasher.update(part.as_bytes());
    }
    hasher.finalize()[..16].try_into().expect("a digest has 32 bytes")
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use bytes::Bytes;
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::model::content::content_of;
    use crate::model::ids::EntityKey;

    fn intake() -> Partition {
        Partition { topic: "i".into(), number: 0 }
    }

    static CATALOG: LazyLock<Catalog> = LazyLock::new(|| Catalog::embedded().unwrap());

    fn echoes() -> Echoes {
        Echoes::new(&CATALOG)
    }

    fn note(command: &str, time_ms: i64, fields: Fingerprint) -> Note {
        let key = EntityKey::parse("product/7").unwrap();
        Note { key, at: None, command: command.into(), time_ms, deleted: false, version: None, fields }
    }

    fn row(value: &Value, version: Option<i64>) -> Row {
        let json = Bytes::from(value.to_string());
        Row { id: EntityId::parse("7").unwrap(), json, version, content: content_of(value) }
    }

    fn seen(read_at_ms: i64, before: State) -> Seen<'static> {
        Seen { entity: "product", read_at_ms, before }
    }

    #[test]
    fn a_replica_that_lags_does_not_end_a_note_that_has_a_date() {
        let (ours, older) = (json!({ "name": "ours" }), json!({ "name": "older" }));
        for (version, wanted) in [(Some(100), Some("c-1")), (None, None)] {
            let mut echoes = echoes();
            let note = Note { version, ..note("c-1", 10, Fingerprint::of_row(&ours, &[])) };
            echoes.take(vec![note], (&intake(), "written/1"), 10);
            assert_eq!(echoes.of_row(&row(&older, Some(99)), seen(20, State::default())), None);
            let origin = echoes.of_row(&row(&ours, Some(100)), seen(30, State::default()));
            assert_eq!(origin.as_deref(), wanted, "{version:?}");
        }
    }

    #[test]
    fn notes_of_an_earlier_process_are_taken_only_where_nothing_could_have_ended_them() {
        let ours = json!({ "name": "ours" });
        let state = |seen_ms, content| State { seen_ms, content, ..State::default() };
        let same = content_of(&ours);
        for (before, wanted) in [(state(5, 1), true), (state(15, 1), false), (state(15, same), true)] {
            let mut echoes = echoes();
            let value = crate::model::written::value_of(&[note("c-1", 10, Fingerprint::of_row(&ours, &[]))]);
            echoes.restore("written/1", &value, &intake(), 10);
            echoes.restore("read/product/7", b"{}", &intake(), 10);
            let origin = echoes.of_row(&row(&ours, None), seen(20, before));
            assert_eq!(origin.is_some(), wanted, "{before:?}");
        }
    }

    #[test]
    fn what_is_kept_is_bounded_and_what_is_forgotten_leaves_the_ledger() {
        let mut echoes = echoes();
        let ours = Fingerprint::of_row(&json!({ "name": "ours" }), &[]);
        for n in 0..20_i64 {
            echoes.take(vec![note(&format!("c-{n}"), n, ours.clone())], (&intake(), &ledger_key(n)), n);
        }
        assert_eq!(echoes.count, MAX_OF_ONE);
        assert!(echoes.expired(WINDOW_MS - 1).is_empty());
        assert_eq!(echoes.expired(WINDOW_MS + 4).len(), 5);
        assert_eq!(echoes.expired(WINDOW_MS + 15).len(), 11);
        assert_eq!(echoes.count, 4);
        assert_eq!(echoes.expired(WINDOW_MS + 100).len(), 4);
        assert!(echoes.count == 0 && echoes.notes.is_empty() && echoes.entries.is_empty());
        for n in 0..i64::try_from(MAX_NOTES).unwrap() + 10 {
            let key = EntityKey::parse(&format!("product/{}", n + 1)).unwrap();
            let note = Note { key, ..note("c", 5, Fingerprint::default()) };
            echoes.take(vec![note], (&intake(), &ledger_key(n)), 5);
        }
        echoes.expired(6);
        assert!(echoes.count <= MAX_NOTES && echoes.entries.len() == echoes.count);
    }

    #[derive(Debug, Clone)]
    enum Event {
        /// A command sets `a` (and its reply holds all fields, or only this one).
        Ours {
            a: u8,
            whole: bool,
        },
        /// Somebody else sets a field.
        Theirs {
            field: &'static str,
            value: u8,
        },
        Read,
    }

    fn any_event() -> impl Strategy<Value = Event> {
        prop_oneof![
            (0_u8..3, any::<bool>()).prop_map(|(a, whole)| Event::Ours { a, whole }),
            (prop::sample::select(vec!["a", "b"]), 0_u8..3)
                .prop_map(|(field, value)| Event::Theirs { field, value }),
            Just(Event::Read),
        ]
    }

    /// A command as the test remembers it: its id, what it left behind, and what reads have shown since.
    struct Ours {
        command: String,
        left: Value,
        whole: bool,
        shown: Vec<Value>,
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        /// What nobody else touched since a command is the command's. What is said to be a command's holds what it
        /// wrote, and no read since showed anything else.
        #[test]
        fn a_write_is_known_for_the_bridges_exactly_while_it_shows(
            events in prop::collection::vec(any_event(), 1..24),
        ) {
            let (mut echoes, mut now_ms) = (echoes(), 1_000);
            let mut truth = json!({ "a": 0, "b": 0 });
            let (mut state, mut ours, mut last_by_us) = (State::default(), Vec::<Ours>::new(), false);
            for event in events {
                now_ms += 10;
                match event {
                    Event::Ours { a, whole } => {
                        truth["a"] = json!(a);
                        let command = format!("c-{}", ours.len());
                        let part = json!({ "a": a });
                        let fields = Fingerprint::of_row(if whole { &truth } else { &part }, &[]);
                        let entry = ledger_key(now_ms);
                        echoes.take(vec![note(&command, now_ms, fields)], (&intake(), &entry), now_ms);
                        ours.push(Ours { command, left: truth.clone(), whole, shown: Vec::new() });
                        last_by_us = true;
                    }
                    Event::Theirs { field, value } => {
                        last_by_us &= truth[field] == json!(value);
                        truth[field] = json!(value);
                    }
                    Event::Read => {
                        let origin = echoes.of_row(&row(&truth, None), seen(now_ms, state));
                        ours.iter_mut().for_each(|one| one.shown.push(truth.clone()));
                        if let Some(origin) = &origin {
                            let one = ours.iter().find(|one| one.command == **origin).unwrap();
                            prop_assert!(one.shown.iter().all(|shown| *shown == truth), "{origin} {truth}");
                            prop_assert_eq!(&one.left["a"], &truth["a"]);
                            prop_assert!(!one.whole || one.left == truth, "{} {}", origin, truth);
                        }
                        prop_assert!(!last_by_us || origin.is_some(), "nobody else changed {truth}");
                        state = State { seen_ms: now_ms, content: content_of(&truth), ..State::default() };
                    }
                }
            }
        }
    }
}
