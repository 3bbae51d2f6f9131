//! Which dead letters may go back to where they came from.
//!
//! Decided by what Kafka holds and nothing else. All letters are shown to the judge, then the part of the origin topics
//! that came after them. There it finds what was replayed already, so that an interrupted replay goes on where it ended;
//! and what a sender wrote later under the same key, so that old state does not overwrite newer state. A later record
//! that is a dead letter itself changed nothing, and hinders nobody.

use std::collections::{BTreeMap, HashMap, HashSet};

use bytes::Bytes;

use super::Letter;
use crate::model::dead_letter::{first_position, header};
use crate::model::record::{InRecord, Partition, Position};

/// Letters that one replay may be about: some 100 MB of memory, and a day's work at two a second.
const MOST_WANTED: usize = 200_000;
/// Letters whose origin is remembered: some 20 bytes each, and 40 MB together.
const MOST_KNOWN: usize = 2_000_000;

/// What a replay is allowed to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// A letter that was replayed so often is left alone.
    pub max_replays: u32,
    /// Also what may overwrite newer state or be done twice.
    pub force: bool,
}

/// What becomes of a letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Verdict {
    /// It goes back.
    Replay,
    /// It went back before.
    Done,
    /// It came again too often.
    TooOften,
    /// It may have been applied, and replaying could do it twice.
    InDoubt,
    /// A newer record of its key stands on its topic.
    Stale,
    /// Records between it and now were deleted: nobody can tell whether one of them was newer.
    Unsure,
    /// Nothing tells where it came from, or that place is no more.
    Lost,
}

impl Verdict {
    /// All, in the order in which they are told.
    pub const ALL: [Self; 7] =
        [Self::Replay, Self::Done, Self::TooOften, Self::InDoubt, Self::Stale, Self::Unsure, Self::Lost];

    /// The stable name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Replay => "replay",
            Self::Done => "done",
            Self::TooOften => "too_often",
            Self::InDoubt => "in_doubt",
            Self::Stale => "stale",
            Self::Unsure => "unsure",
            Self::Lost => "lost",
        }
    }

    /// What it means, for people.
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::Replay => "to be put back on their topic",
            Self::Done => "were replayed before",
            Self::TooOften => "came again too often; see --max-replays",
            Self::InDoubt => "may have been applied: look into the store, then use --force",
            Self::Stale => "would overwrite a newer record of their key; see --force",
            Self::Unsure => "may be older than what their topic deleted; see --force",
            Self::Lost => "do not say where they came from, or that partition is gone",
        }
    }
}

/// More letters than one replay can hold in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("more than {0} letters are {1}")]
pub struct Full(usize, &'static str);

/// A part of a topic that must be read before anything is decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stretch {
    /// One partition, from an offset to its end.
    From(Position),
    /// All partitions of a topic, from a moment (milliseconds since the epoch) to their end.
    Since(std::sync::Arc<str>, i64),
}

/// A letter that is meant.
#[derive(Debug)]
struct Wanted {
    letter: Letter,
    is_command: bool,
    is_done: bool,
    is_unsure: bool,
    is_lost: bool,
}

/// Decides; see the module.
#[derive(Debug)]
pub struct Judge {
    rules: Rules,
    wanted: Vec<Wanted>,
    by_place: HashMap<(i32, i64), usize>,
    /// Records that ended as dead letters, by their partition.
    dead: HashMap<Partition, HashSet<i64>>,
    known: usize,
    /// Of each key that is meant, the newest record that did not: its offset when it came first.
    newest: HashMap<(Partition, Bytes), i64>,
}

impl Judge {
    /// Knows no letter yet.
    pub fn new(rules: Rules) -> Self {
        let (by_place, dead, newest) = (HashMap::new(), HashMap::new(), HashMap::new());
        Self { rules, wanted: Vec::new(), by_place, dead, known: 0, newest }
    }

    /// Takes any letter of the topic; `wanted` says whether it is meant, `is_command` whether it changes the store.
    ///
    /// # Errors
    /// There are too many.
    pub fn letter(&mut self, letter: Letter, wanted: bool, is_command: bool) -> Result<(), Full> {
        if let Some(origin) = letter.origin.as_ref().filter(|_| is_command && !letter.is_in_doubt()) {
            self.known += 1;
            if self.known > MOST_KNOWN {
                return Err(Full(MOST_KNOWN, "on the topic"));
            }
            self.dead.entry(origin.partition.clone()).or_default().insert(origin.offset);
        }
        if !wanted {
            return Ok(());
        }
        if self.wanted.len() >= MOST_WANTED {
            return Err(Full(MOST_WANTED, "meant"));
        }
        if let (true, Some(first), Some(key)) = (is_command, &letter.first, &letter.key) {
            self.newest.entry((first.partition.clone(), key.clone())).or_insert(-1);
        }
        let place = (letter.position.partition.number, letter.position.offset);
        let is_lost = letter.origin_topic.is_none();
        self.by_place.insert(place, self.wanted.len());
        self.wanted.push(Wanted { letter, is_command, is_done: false, is_unsure: false, is_lost });
        Ok(())
    }

    /// What must be read of the origin topics.
    pub fn stretches(&self) -> Vec<Stretch> {
        let (mut partitions, mut topics) = (BTreeMap::new(), BTreeMap::new());
        for Wanted { letter, .. } in &self.wanted {
            match (&letter.first, &letter.origin_topic) {
                (Some(first), _) => {
                    let from = partitions.entry(first.partition.clone()).or_insert(first.offset);
                    *from = first.offset.min(*from);
                }
                (None, Some(topic)) => {
                    let since = topics.entry(topic.clone()).or_insert(letter.at_ms);
                    *since = letter.at_ms.min(*since);
                }
                (None, None) => {}
            }
        }
        let from =
            partitions.into_iter().map(|(partition, offset)| Stretch::From(Position { partition, offset }));
        from.chain(topics.into_iter().map(|(topic, at_ms)| Stretch::Since(topic, at_ms))).collect()
    }

    /// Learns how far back a partition reaches; none: there is no such partition.
    pub fn reaches(&mut self, partition: &Partition, low: Option<i64>) {
        for wanted in &mut self.wanted {
            let Some(first) = wanted.letter.first.as_ref().filter(|first| first.partition == *partition)
            else {
                continue;
            };
            match low {
                Some(low) => wanted.is_unsure |= low > first.offset + 1,
                None => wanted.is_lost = true,
            }
        }
    }

    /// Takes a record of an origin topic.
    pub fn record(&mut self, record: &InRecord) {
        let letter = record.header(header::LETTER).and_then(Position::parse);
        let wanted = letter.as_ref().and_then(|letter| {
            let index = *self.by_place.get(&(letter.partition.number, letter.offset))?;
            self.wanted.get_mut(index).filter(|wanted| wanted.letter.position == *letter)
        });
        if let Some(wanted) = wanted {
            wanted.is_done = true;
        }
        let is_dead = |place: &Position| {
            self.dead.get(&place.partition).is_some_and(|offsets| offsets.contains(&place.offset))
        };
        let Some(key) = record.key.as_ref().filter(|_| !is_dead(&record.position)) else { return };
        let first = first_position(record);
        if let Some(newest) = self.newest.get_mut(&(first.partition, key.clone())) {
            *newest = first.offset.max(*newest);
        }
    }

    /// A letter went back just now, whether or not its topic shows it yet.
    pub fn went_back(&mut self, letter: &Letter) {
        let place = (letter.position.partition.number, letter.position.offset);
        if let Some(index) = self.by_place.get(&place) {
            self.wanted[*index].is_done = true;
        }
    }

    fn verdict(&self, wanted: &Wanted) -> Verdict {
        let Wanted { letter, is_command, .. } = wanted;
        let (is_command, force) = (*is_command, self.rules.force);
        let newest = letter.first.as_ref().zip(letter.key.as_ref()).and_then(|(first, key)| {
            let newest = self.newest.get(&(first.partition.clone(), key.clone()))?;
            Some(*newest > first.offset)
        });
        match () {
            () if wanted.is_lost => Verdict::Lost,
            () if wanted.is_done => Verdict::Done,
            () if letter.replays >= self.rules.max_replays => Verdict::TooOften,
            () if is_command && !force && letter.is_in_doubt() => Verdict::InDoubt,
            () if is_command && !force && newest == Some(true) => Verdict::Stale,
            // What has no key was in no order, so that nothing can be newer.
            () if is_command && !force && wanted.is_unsure && letter.key.is_some() => Verdict::Unsure,
            () => Verdict::Replay,
        }
    }

    /// How many letters have which verdict.
    pub fn counts(&self) -> BTreeMap<Verdict, u64> {
        let mut counts = BTreeMap::new();
        for wanted in &self.wanted {
            *counts.entry(self.verdict(wanted)).or_default() += 1;
        }
        counts
    }

    /// The letters that go back, at most `limit`, in the order in which they came first: those of one key stand in one
    /// partition of the dead letters, and so behind each other here.
    pub fn order(&self, limit: usize) -> Vec<&Letter> {
        let go = self.wanted.iter().filter(|wanted| self.verdict(wanted) == Verdict::Replay);
        let mut letters: Vec<&Letter> = go.map(|wanted| &wanted.letter).collect();
        letters.sort_by_key(|letter| {
            (letter.position.partition.number, &letter.first, letter.replays, letter.position.offset)
        });
        letters.truncate(limit);
        letters
    }
}
