//! What the reply to a read means for the entity. Pure: a total function of what was gathered and what came.
//!
//! A thing is gone when BigCommerce says so twice, or once after a callback said that it was deleted: a list
//! without it or a single 404 may be a replica that lags. A state older than the one published is not published.

use std::time::{Duration, Instant};

use super::coalesce::Gathering;
use super::hydrate::Failure;
use super::known::Known;
use super::row::Row;
use crate::model::reason::Reason;
use crate::model::request::Reply;

/// When a read that came too early is repeated, counted from the first: BigCommerce's replicas lag by seconds,
/// rarely by half a minute.
const REREADS: [Duration; 3] = [Duration::from_secs(1), Duration::from_secs(6), Duration::from_secs(36)];

/// Re-reads of a state that is new, but whose date lies before its callback: a callback may be about what moves no
/// date, such as the stock of a product, and such a state must not wait for half a minute. It is published, and
/// looked at again later.
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
    /// Read again, at the latest then.
    Again(Instant),
    /// The whole store must wait for a person.
    Unauthorized,
    /// The entity must wait for a person: the token lacks a scope.
    Denied(Box<Reply>),
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

/// What the judge must know of the entity.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    /// A hint is about a group of rows.
    pub is_group: bool,
    /// How long a missing entity is given before it counts as gone.
    pub confirm_gone: Duration,
}

/// Judges. Updates the gathering's history where the verdict is to read again.
pub fn judge(
    gathering: &mut Gathering,
    known: &Known,
    outcome: Result<Vec<Row>, Failure>,
    rules: Rules,
    now: Instant,
) -> Verdict {
    match outcome {
        Ok(rows) if rows.is_empty() => missing(gathering, rules.confirm_gone, now),
        Ok(rows) => found(gathering, known, rows, rules, now),
        Err(Failure::Later { after, detail }) => Verdict::Trouble { after, detail },
        Err(Failure::Unauthorized) => Verdict::Unauthorized,
        Err(Failure::Denied(reply)) => {
            gathering.history.denied_since.get_or_insert(now);
            Verdict::Denied(reply)
        }
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
    let confirmed = since + confirm_gone;
    let soon = REREADS.iter().map(|after| since + *after).find(|at| *at > now);
    Verdict::Again(soon.map_or(confirmed, |at| at.min(confirmed)))
}

fn found(gathering: &mut Gathering, known: &Known, rows: Vec<Row>, rules: Rules, now: Instant) -> Verdict {
    let of = |row: &Row| if rules.is_group { known.row(&row.id) } else { known.state };
    let older = rows.iter().any(|row| row.version.zip(of(row).version).is_some_and(|(new, old)| new < old));
    let deleted = rows
        .iter()
        .any(|row| gathering.says_row_deleted(&row.id) || !rules.is_group && gathering.says_deleted());
    let version = rows.iter().filter_map(|row| row.version).max();
    let suspect =
        version.zip(gathering.created_at()).is_some_and(|(version, at)| version < at - SUSPECT_SLACK);
    let hints = gathering.hints.len();
    let history = &mut gathering.history;
    history.gone_since = None;
    history.misses = 0;
    history.garbled = 0;
    history.denied_since = None;
    if !older && !deleted && !suspect {
        return Verdict::Publish { rows, suspect: false };
    }
    let unchanged = rows.iter().all(|row| of(row).holds(row.content));
    let rereads = if older || deleted || unchanged { &REREADS[..] } else { &REREADS[..SUSPECT_REREADS] };
    if history.stale_since.is_none() {
        history.waited_for = hints;
    }
    let since = *history.stale_since.get_or_insert(now);
    match rereads.iter().map(|after| since + *after).find(|at| *at > now) {
        Some(at) => Verdict::Again(at),
        None => Verdict::Publish { rows, suspect: true },
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;
    use crate::incoming::known::State;
    use crate::incoming::stage::testing::gathering;
    use crate::model::hint::Op;
    use crate::model::ids::EntityId;
    use crate::model::request::Answer;

    const RULES: Rules = Rules { is_group: false, confirm_gone: Duration::from_secs(60) };
    /// When the hints of these tests were created.
    const HINTED: i64 = 1_767_225_600;

    fn row(version: i64) -> Row {
        let content = version.unsigned_abs() + 1000;
        let version = Some(HINTED + version);
        Row { id: EntityId::parse("1").unwrap(), json: Bytes::from_static(b"{}"), version, content }
    }

    fn known(version: i64) -> Known {
        let state = State { version: Some(HINTED + version), ..State::default() };
        Known { state, ..Known::default() }
    }

    /// Reads again and again, each as the verdict before said; how long it took until another verdict came.
    fn until_decided(ops: &[Op], known: &Known, rows: &[Row]) -> (Vec<u64>, Verdict) {
        let (start, mut gathering) = (Instant::now(), gathering(ops));
        let (mut now, mut waits) = (start, Vec::new());
        loop {
            match judge(&mut gathering, known, Ok(rows.to_vec()), RULES, now) {
                Verdict::Again(at) => {
                    assert!(at > now, "it waits for what is over");
                    waits.push(at.duration_since(start).as_secs());
                    now = at;
                }
                verdict => return (waits, verdict),
            }
        }
    }

    #[test]
    fn a_miss_is_confirmed_before_it_counts() {
        assert_eq!(until_decided(&[Op::Update], &Known::default(), &[]), (vec![1, 6, 36, 60], Verdict::Gone));
    }

    #[test]
    fn a_miss_after_a_delete_counts_at_once() {
        assert_eq!(until_decided(&[Op::Update, Op::Delete], &known(1), &[]), (vec![], Verdict::Gone));
    }

    #[test]
    fn what_was_deleted_and_is_still_there_is_read_again_and_published_in_the_end() {
        let suspect = Verdict::Publish { rows: vec![row(5)], suspect: true };
        assert_eq!(until_decided(&[Op::Delete], &Known::default(), &[row(5)]), (vec![1, 6, 36], suspect));
    }

    #[test]
    fn a_state_older_than_the_published_one_is_read_again() {
        let suspect = Verdict::Publish { rows: vec![row(5)], suspect: true };
        assert_eq!(until_decided(&[Op::Update], &known(6), &[row(5)]), (vec![1, 6, 36], suspect));
        let fresh = Verdict::Publish { rows: vec![row(6)], suspect: false };
        assert_eq!(until_decided(&[Op::Update], &known(6), &[row(6)]), (vec![], fresh));
    }

    #[test]
    fn a_new_state_from_before_its_callback_waits_for_seconds_and_an_unchanged_one_for_longer() {
        let suspect = Verdict::Publish { rows: vec![row(-9)], suspect: true };
        assert_eq!(until_decided(&[Op::Update], &known(-9), &[row(-9)]), (vec![1, 6], suspect));
        let mut same = known(-9);
        same.state.content = row(-9).content;
        assert_eq!(until_decided(&[Op::Update], &same, &[row(-9)]).0, [1, 6, 36]);
        let fresh = Verdict::Publish { rows: vec![row(-2)], suspect: false };
        assert_eq!(until_decided(&[Op::Update], &known(-9), &[row(-2)]), (vec![], fresh), "within the slack");
    }

    #[test]
    fn of_a_group_each_row_has_its_own_age() {
        let rules = Rules { is_group: true, ..RULES };
        let id = |id: &str| EntityId::parse(id).unwrap();
        let mut known = Known::default();
        known.set_row(&id("1"), State { version: Some(HINTED + 9), ..State::default() });
        known.set_row(&id("2"), State { version: Some(HINTED + 3), ..State::default() });
        let rows = |one: i64, two: i64| vec![row(one), Row { id: id("2"), ..row(two) }];
        let check = |rows| judge(&mut gathering(&[Op::Update]), &known, Ok(rows), rules, Instant::now());
        assert!(matches!(check(rows(9, 3)), Verdict::Publish { suspect: false, .. }));
        assert!(matches!(check(rows(9, 2)), Verdict::Again(_)));
        let mut deleted = gathering(&[Op::Delete]);
        deleted.hints[0].hint.trigger.row = Some(id("3"));
        let verdict = judge(&mut deleted, &known, Ok(rows(9, 3)), rules, Instant::now());
        assert!(
            matches!(verdict, Verdict::Publish { suspect: false, .. }),
            "the row is not among them: {verdict:?}"
        );
        deleted.hints[0].hint.trigger.row = Some(id("2"));
        assert!(matches!(
            judge(&mut deleted, &known, Ok(rows(9, 3)), rules, Instant::now()),
            Verdict::Again(_)
        ));
    }

    #[test]
    fn garbled_replies_end_as_a_dead_letter() {
        let mut gathering = gathering(&[Op::Update]);
        let mut check = || {
            let outcome = Err(Failure::Garbled("x".into()));
            judge(&mut gathering, &known(1), outcome, RULES, Instant::now())
        };
        for _ in 1..MAX_GARBLED {
            assert!(matches!(check(), Verdict::Trouble { .. }));
        }
        assert!(matches!(check(), Verdict::Dead { reason: Reason::BadReply, .. }));
    }

    fn any_outcome() -> impl Strategy<Value = Result<Vec<Row>, Failure>> {
        let reply = || {
            let (answer, body) = (Answer::Invalid, Bytes::new());
            Box::new(Reply { answer, status: 422, body, request_id: None, detail: String::new() })
        };
        prop_oneof![
            Just(Ok(Vec::new())),
            (-20_i64..20).prop_map(|version| Ok(vec![row(version)])),
            Just(Err(Failure::Garbled("x".into()))),
            Just(Err(Failure::Denied(reply()))),
            Just(Err(Failure::Refused { reason: Reason::Refused, reply: reply() })),
            (0_u64..5)
                .prop_map(|s| Err(Failure::Later { after: Duration::from_secs(s), detail: "x".into() })),
        ]
    }

    proptest! {
        /// Whatever comes, in whatever order and at whatever pace: nothing older than what is known is published as
        /// if it were fresh, nothing is gone before it was missed twice or said to be deleted, and a re-read is
        /// never planned for the past or for longer than the confirmation.
        #[test]
        fn verdicts_keep_their_promises(
            deleted in any::<bool>(),
            version in -20_i64..20,
            reads in prop::collection::vec((any_outcome(), 0_u64..50), 1..30),
        ) {
            let known = known(version);
            let mut gathering = gathering(&[if deleted { Op::Delete } else { Op::Update }]);
            let (mut now, mut missed): (Instant, Option<Instant>) = (Instant::now(), None);
            for (outcome, pause) in reads {
                let is_miss = outcome.as_ref().is_ok_and(Vec::is_empty);
                if outcome.as_ref().is_ok_and(|rows| !rows.is_empty()) {
                    missed = None;
                }
                match judge(&mut gathering, &known, outcome, RULES, now) {
                    Verdict::Publish { rows, suspect } => {
                        prop_assert!(suspect || rows[0].version >= known.state.version);
                        prop_assert!(suspect || !deleted);
                        return Ok(());
                    }
                    Verdict::Gone => {
                        prop_assert!(is_miss);
                        let waited = missed.map(|since| now.duration_since(since));
                        prop_assert!(deleted || waited.is_some_and(|waited| waited >= RULES.confirm_gone));
                        return Ok(());
                    }
                    Verdict::Again(at) => {
                        prop_assert!(at > now && at <= now + RULES.confirm_gone);
                    }
                    Verdict::Dead { .. } => return Ok(()),
                    Verdict::Trouble { .. } | Verdict::Denied(_) | Verdict::Unauthorized => {}
                }
                if is_miss {
                    missed.get_or_insert(now);
                }
                now += Duration::from_secs(pause);
            }
        }
    }
}
