//! When the owner of a partition may begin to send, by the note that the last owner left in the ledger.
//!
//! Kafka fences what an owner writes to Kafka once it has lost a partition; nothing fences the requests that it has on
//! their way to a store. So owners leave notes: `open` before the first request, `clean` once the last one has ended.
//! Who finds `clean`, or no note at all, may begin at once. Who finds `open` waits until whatever its predecessor sent
//! has ended, notes until when, and so does not make its own successor wait all over again.
//!
//! Pure: the times are arguments. Notes are made durable in transactions that prove the membership, so that an owner
//! that was replaced cannot write one.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::model::record::Partition;

/// A request to a store has ended this long after it was sent, one way or the other: with no reply by then, nobody
/// waits for it any longer.
pub const REQUEST_DEADLINE: Duration = Duration::from_secs(25);
/// What a new owner waits for where it cannot know: the deadline, and a margin for what a replaced owner sends between
/// its last look at its lease and the end of that.
pub const WAIT: Duration = Duration::from_secs(30);
/// How far the clocks of two replicas may be apart: far more than a time server leaves, and little beside the wait.
const SKEW: Duration = Duration::from_secs(2);
/// The prefix of a note's key in the ledger.
const KEY_PREFIX: &str = "owner/";

/// The key of a partition's note in the ledger.
pub fn key(partition: &Partition) -> String {
    format!("{KEY_PREFIX}{}/{}", partition.topic, partition.number)
}

/// Whether a key of the ledger is that of a partition's note.
pub fn is_key(key: &str) -> bool {
    key.starts_with(KEY_PREFIX)
}

/// What an owner leaves to the next one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "lowercase")]
pub enum Note {
    /// Requests of the owner may be on their way.
    Open,
    /// The owner gave the partition up when none was.
    Clean,
    /// The owner has sent nothing yet; requests of an earlier one may be on their way up to this moment.
    Waits {
        /// By the wall clock, milliseconds since the epoch.
        until_ms: i64,
    },
}

/// A note as it stands in the ledger. No two are equal, so that one that is found tells which transaction counted.
#[derive(Debug, Serialize, Deserialize)]
struct Entry<'a> {
    #[serde(flatten)]
    note: Note,
    /// Who wrote it.
    owner: &'a str,
    /// Which of its notes it is.
    number: u64,
}

impl Note {
    /// The ledger's value. `owner` and `number` make it one of its kind.
    pub fn value(self, owner: &str, number: u64) -> Vec<u8> {
        serde_json::to_vec(&Entry { note: self, owner, number }).expect("a note is plain data")
    }

    /// Reads a value of the ledger. What cannot be read may hide anything.
    pub fn read(value: &[u8]) -> Self {
        serde_json::from_slice::<Self>(value).unwrap_or(Self::Open)
    }
}

/// One partition in the hands of one owner.
#[derive(Debug)]
pub struct Tenure {
    phase: Phase,
    /// Nothing is sent before.
    begins: Instant,
    /// What to note while it waits, as long as that is not noted.
    to_note: Option<Note>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Nothing was sent.
    Shut,
    /// Requests may be on their way.
    Open,
    /// Nothing will be sent any more.
    Left,
}

impl Tenure {
    /// The partition was assigned at `now`, which is `wall_ms` by the wall clock; this note was found.
    pub fn begin(found: Option<Note>, now: Instant, wall_ms: i64) -> Self {
        let until_ms = |wait: Duration| wall_ms.saturating_add(millis(wait));
        let (wait, to_note) = match found {
            None | Some(Note::Clean) => (Duration::ZERO, None),
            Some(Note::Open) => (WAIT, Some(Note::Waits { until_ms: until_ms(WAIT) })),
            Some(Note::Waits { until_ms: until }) => {
                let left = until.saturating_add(millis(SKEW)).saturating_sub(wall_ms);
                let left = Duration::from_millis(u64::try_from(left).unwrap_or(0));
                // Nobody has to wait for longer; the clocks are far apart, and the next owner's may be as ours.
                let is_odd = left > WAIT + SKEW;
                (left.min(WAIT), is_odd.then(|| Note::Waits { until_ms: until_ms(WAIT) }))
            }
        };
        Self { phase: Phase::Shut, begins: now + wait, to_note }
    }

    /// The note that is to be made durable now. `has_work`: there is something to be sent.
    pub fn due(&self, has_work: bool, now: Instant) -> Option<Note> {
        let is_ready = self.phase == Phase::Shut && now >= self.begins;
        match self.to_note {
            Some(note) if now < self.begins => Some(note),
            _ => (is_ready && has_work).then_some(Note::Open),
        }
    }

    /// The note that is to be made durable once nothing is on its way any more, and nothing will be.
    pub fn farewell(&self) -> Option<Note> {
        self.is_open().then_some(Note::Clean)
    }

    /// A note is durable.
    pub fn noted(&mut self, note: Note) {
        match note {
            Note::Waits { .. } => self.to_note = None,
            Note::Open => self.phase = Phase::Open,
            Note::Clean => self.phase = Phase::Left,
        }
    }

    /// Whether requests may be sent, as far as earlier owners go.
    pub fn is_open(&self) -> bool {
        self.phase == Phase::Open
    }

    /// Until when it waits.
    pub fn waits_until(&self) -> Option<Instant> {
        (self.phase == Phase::Shut).then_some(self.begins)
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_note_is_read_as_it_was_written_and_no_two_are_equal() {
        for note in [Note::Open, Note::Clean, Note::Waits { until_ms: 7 }] {
            let value = note.value("o", 1);
            assert_eq!(Note::read(&value), note, "{}", String::from_utf8_lossy(&value));
            assert_ne!(value, note.value("o", 2));
            assert_ne!(value, note.value("p", 1));
        }
        for strange in [&b"{}"[..], b"", b"\xff", br#"{"state":"halted"}"#, br#"{"state":"waits"}"#] {
            assert_eq!(Note::read(strange), Note::Open);
        }
        let partition = Partition { topic: "shop.commands".into(), number: 3 };
        assert_eq!(key(&partition), "owner/shop.commands/3");
    }

    #[test]
    fn who_finds_clean_or_nothing_begins_with_the_first_record_and_not_before_its_note_is_durable() {
        for found in [None, Some(Note::Clean)] {
            let now = Instant::now();
            let mut tenure = Tenure::begin(found, now, 0);
            assert_eq!((tenure.due(false, now), tenure.due(true, now)), (None, Some(Note::Open)));
            assert_eq!((tenure.is_open(), tenure.farewell()), (false, None), "nothing to say farewell to");
            tenure.noted(Note::Open);
            assert_eq!((tenure.is_open(), tenure.due(true, now)), (true, None));
            assert_eq!(tenure.farewell(), Some(Note::Clean));
            tenure.noted(Note::Clean);
            assert_eq!((tenure.is_open(), tenure.farewell(), tenure.due(true, now)), (false, None, None));
        }
    }

    #[test]
    fn who_finds_open_says_until_when_it_waits_and_the_next_one_waits_for_the_rest() {
        let (now, wall_ms) = (Instant::now(), 1_000_000);
        let mut first = Tenure::begin(Some(Note::Open), now, wall_ms);
        let note = Note::Waits { until_ms: wall_ms + 30_000 };
        assert_eq!(first.due(true, now), Some(note));
        first.noted(note);
        assert_eq!(first.due(true, now + 29 * SECOND), None);
        assert_eq!(first.due(true, now + WAIT), Some(Note::Open));
        let second = Tenure::begin(Some(note), now + 10 * SECOND, wall_ms + 10_000);
        assert_eq!(second.waits_until(), Some(now + WAIT + SKEW));
        assert_eq!(second.due(true, now + 31 * SECOND), None, "what is noted holds for the next one, too");
        let late = Tenure::begin(Some(note), now, wall_ms + 60_000);
        assert_eq!(late.due(true, now), Some(Note::Open));
    }

    #[test]
    fn no_note_makes_anybody_wait_for_longer_than_a_request_can_take() {
        let now = Instant::now();
        let mut tenure = Tenure::begin(Some(Note::Waits { until_ms: i64::MAX }), now, 5_000);
        assert_eq!(tenure.waits_until(), Some(now + WAIT));
        let note = Note::Waits { until_ms: 35_000 };
        assert_eq!(tenure.due(false, now), Some(note), "a clock far ahead is not handed on");
        tenure.noted(note);
        assert_eq!(tenure.due(true, now + WAIT), Some(Note::Open));
    }

    #[test]
    fn a_wait_that_is_over_before_it_was_noted_is_not_noted_any_more() {
        let now = Instant::now();
        let tenure = Tenure::begin(Some(Note::Open), now, 0);
        assert_eq!((tenure.due(false, now + WAIT), tenure.due(true, now + WAIT)), (None, Some(Note::Open)));
    }
}
