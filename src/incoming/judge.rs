//! What the reply to a read means for the entity. Pure: a total function of what was gathered and what came.
//!
//! A thing is gone when BigCommerce says so twice, or once after a callback said that it was deleted: a list
//! without it or a single 404 may be a replica that lags. A state older than the one published is not published.

use std::time::{Duration, Instant};

use super::coalesce::Gathering;
use super::hydrate::{Failure, Row};
use super::memory::Known;
use crate::model::reason::Reason;
use crate::model::request::Reply;

/// When a read that came too early is repeated: BigCommerce's replicas lag by seconds, rarely by half a minute.
const REREADS: [Duration; 3] = [Duration::from_secs(1), Duration::from_secs(5), Duration::from_secs(30)];

/// Re-reads of a state that no published one shows to be old, but whose date lies before its callback: two of
/// them, since a callback may also be about what moves no date, and must not wait for half a minute then.
const SUSPECT_REREADS: usize = 2;

/// Seconds that a date may lie before its callback: both are whole seconds of clocks that may differ.
const SUSPECT_SLACK: i64 = 2;

/// Replies in a row that may be unreadable before a person must look.
const MAX_GARBLED: u32 = 5;

/// What is to be done.
#[derive(Debug, PartialEq)]
pub enum Verdict {
    /// Publish these rows.
    Publish {
        /// The rows.
        rows: Vec<Row>,
        /// They are older than they should be, and did not become newer.
        suspect: bool,
    },
    /// Publish that it is gone.
    Gone,
    /// Read again, not before this.
    Again(Instant),
    /// The whole store must wait for a person.
    Unauthorized,
    /// The entity's endpoint is in trouble: try again after a growing pause, not before `after`.
    Trouble {
        /// As the reply asked.
        after: Duration,
        /// One clause for people.
        detail: String,
    },
    /// Give up, with a dead letter.
    Dead {
        /// Why.
        reason: Reason,
        /// One clause for people.
        detail: String,
        /// The reply, if one came.
        reply: Option<Box<Reply>>,
    },
}

/// Judges. Updates the gathering's history where the verdict is to read again.
pub fn judge(
    gathering: &mut Gathering,
    known: &Known,
    outcome: Result<Vec<Row>, Failure>,
    confirm_gone: Duration,
    now: Instant,
) -> Verdict {
    match outcome {
        Ok(rows) if rows.is_empty() => missing(gathering, confirm_gone, now),
        Ok(rows) => found(gathering, known, rows, now),
        Err(Failure::Later { after, detail }) => Verdict::Trouble { after, detail },
        Err(Failure::Unauthorized) => Verdict::Unauthorized,
        Err(Failure::Refused { reason, reply }) => {
            let detail = format!("BigCommerce refused the read with status {}", reply.status);
            Verdict::Dead { reason, detail, reply: Some(reply) }
        }
        Err(Failure::Garbled(detail)) => {
            gathering.history.garbled += 1;
            if gathering.history.garbled >= MAX_GARBLED {
                Verdict::Dead { reason: Reason::BadReply, detail, reply: None }
            } else {
                Verdict::Trouble { after: Duration::ZERO, detail }
            }
        }
    }
}

fn missing(gathering: &mut Gathering, confirm_gone: Duration, now: Instant) -> Verdict {
    if gathering.says_deleted() {
        return Verdict::Gone;
    }
    let history = &mut gathering.history;
    let since = *history.gone_since.get_or_insert(now);
    if history.misses > 0 && now.duration_since(since) >= confirm_gone {
        return Verdict::Gone;
    }
    history.misses += 1;
    // Sooner than the confirmation, in case that it was only created too recently for the replica.
    let soon = REREADS.get(history.misses as usize - 1).map(|pause| now + *pause);
    let confirmed = since + confirm_gone;
    Verdict::Again(soon.filter(|at| *at < confirmed).unwrap_or(confirmed))
}

fn found(gathering: &mut Gathering, known: &Known, rows: Vec<Row>, now: Instant) -> Verdict {
    let deleted = gathering.says_deleted();
    let version = rows.iter().filter_map(|row| row.version).max();
    let suspect =
        version.zip(gathering.created_at()).is_some_and(|(version, at)| version < at - SUSPECT_SLACK);
    let hints = gathering.hints.len();
    let history = &mut gathering.history;
    history.gone_since = None;
    history.misses = 0;
    history.garbled = 0;
    let older = rows.iter().any(|row| row.version.zip(known.version).is_some_and(|(new, old)| new < old));
    if !older && !deleted && !suspect {
        return Verdict::Publish { rows, suspect: false };
    }
    let rereads = if older || deleted { &REREADS[..] } else { &REREADS[..SUSPECT_REREADS] };
    match rereads.get(history.stale as usize) {
        Some(pause) => {
            if history.stale == 0 {
                history.waited_for = hints;
            }
            history.stale += 1;
            Verdict::Again(now + *pause)
        }
        None => Verdict::Publish { rows, suspect: true },
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::incoming::stage::testing::gathering;
    use crate::model::hint::Op;
    use crate::model::ids::EntityId;

    const CONFIRM: Duration = Duration::from_secs(60);
    /// When the hints of these tests were created.
    const HINTED: i64 = 1_767_225_600;

    fn row(version: i64) -> Row {
        let version = Some(HINTED + version);
        Row { id: EntityId::parse("1").unwrap(), json: Bytes::from_static(b"{}"), version }
    }

    fn known(version: i64) -> Known {
        let mut known = Known::default();
        known.version = Some(HINTED + version);
        known
    }

    #[test]
    fn a_miss_is_confirmed_before_it_counts() {
        let start = Instant::now();
        let mut gathering = gathering(&[Op::Update]);
        let mut now = start;
        let mut reads = 0;
        loop {
            reads += 1;
            match judge(&mut gathering, &Known::default(), Ok(Vec::new()), CONFIRM, now) {
                Verdict::Again(at) => now = at,
                Verdict::Gone => break,
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(now.duration_since(start), CONFIRM);
        assert!((2..=5).contains(&reads), "{reads} reads");
    }

    #[test]
    fn a_miss_after_a_delete_counts_at_once() {
        let verdict = judge(
            &mut gathering(&[Op::Update, Op::Delete]),
            &known(1),
            Ok(Vec::new()),
            CONFIRM,
            Instant::now(),
        );
        assert_eq!(verdict, Verdict::Gone);
    }

    #[test]
    fn what_was_deleted_and_is_still_there_is_read_again_and_published_in_the_end() {
        let now = Instant::now();
        let mut gathering = gathering(&[Op::Delete]);
        for pause in REREADS {
            let verdict = judge(&mut gathering, &Known::default(), Ok(vec![row(5)]), CONFIRM, now);
            assert_eq!(verdict, Verdict::Again(now + pause));
        }
        let verdict = judge(&mut gathering, &Known::default(), Ok(vec![row(5)]), CONFIRM, now);
        assert_eq!(verdict, Verdict::Publish { rows: vec![row(5)], suspect: true });
    }

    #[test]
    fn a_state_older_than_the_published_one_is_read_again() {
        let now = Instant::now();
        let mut gathering = gathering(&[Op::Update]);
        assert_eq!(
            judge(&mut gathering, &known(6), Ok(vec![row(5)]), CONFIRM, now),
            Verdict::Again(now + REREADS[0])
        );
        let fresh = judge(&mut gathering, &known(6), Ok(vec![row(6)]), CONFIRM, now);
        assert_eq!(fresh, Verdict::Publish { rows: vec![row(6)], suspect: false });
    }

    #[test]
    fn a_state_from_before_its_callback_is_read_again_for_some_seconds() {
        let now = Instant::now();
        let mut gathering = gathering(&[Op::Update]);
        for pause in &REREADS[..SUSPECT_REREADS] {
            let verdict = judge(&mut gathering, &known(-9), Ok(vec![row(-9)]), CONFIRM, now);
            assert_eq!(verdict, Verdict::Again(now + *pause));
        }
        let verdict = judge(&mut gathering, &known(-9), Ok(vec![row(-9)]), CONFIRM, now);
        assert_eq!(verdict, Verdict::Publish { rows: vec![row(-9)], suspect: true });
        let verdict = judge(&mut gathering, &known(-9), Ok(vec![row(-2)]), CONFIRM, now);
        assert_eq!(verdict, Verdict::Publish { rows: vec![row(-2)], suspect: false }, "within the slack");
    }

    #[test]
    fn garbled_replies_end_as_a_dead_letter() {
        let mut gathering = gathering(&[Op::Update]);
        for _ in 1..MAX_GARBLED {
            let outcome = Err(Failure::Garbled("x".into()));
            assert!(matches!(
                judge(&mut gathering, &known(1), outcome, CONFIRM, Instant::now()),
                Verdict::Trouble { .. }
            ));
        }
        let verdict =
            judge(&mut gathering, &known(1), Err(Failure::Garbled("x".into())), CONFIRM, Instant::now());
        assert!(matches!(verdict, Verdict::Dead { reason: Reason::BadReply, .. }));
    }
}
