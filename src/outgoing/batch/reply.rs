//! One reply to the writes of several commands: what it says of each.
//!
//! BigCommerce has many shapes for it, and a gateway before it has more. What is read here can only be three things: it
//! was written, and this is its row; it must be asked again, among fewer others or alone; or the reply is the
//! command's own as it stands. Whatever is unclear is asked again alone: a command's own reply is not open to
//! interpretation. A create is never asked again where the store may have looked at its items, but is in doubt.
//!
//! Pure. It gives one verdict for each part, in their order, whatever the bytes are.

mod names;
pub(super) mod rows;

use bytes::Bytes;

use super::{Came, Frame, Group, Part};
use crate::catalog::{BatchReply, Class};
use crate::model::request::{Answer, Reply};

/// Bytes of a reply that is about many, in the results of each of them.
const MAX_SHARED_BYTES: usize = 4 * 1024;

/// What a reply says of one command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) said: Said,
    /// Items in the next request that it shares, at most.
    pub(crate) most: Option<usize>,
}

/// What is to be made of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Said {
    /// This is its reply.
    Reply(Reply),
    /// It was refused for what it was sent with, or nothing tells: send it again.
    Again,
}

/// Reads the reply to a request that held these parts, at least two of one group. `most` is what bounded their number,
/// if an earlier reply did.
pub(crate) fn read(parts: &[Part], most: Option<usize>, reply: &Reply) -> Vec<Verdict> {
    let Some(Part { group, .. }) = parts.first() else { return Vec::new() };
    match reply.answer {
        Answer::Busy { .. } | Answer::Unauthorized | Answer::Doubtful => {
            parts.iter().map(|_| as_it_is(reply, most)).collect()
        }
        Answer::Forbidden => forbidden(group, parts, (reply, most)),
        Answer::Done => done(group, parts, reply),
        Answer::Partial => Shared::new(group, parts, most, reply).partly(),
        Answer::Missing | Answer::Conflict | Answer::Invalid => {
            Shared::new(group, parts, most, reply).refused()
        }
    }
}

/// Items of some parts.
fn items(parts: &[Part]) -> usize {
    parts.iter().map(|part| part.count).sum()
}

fn as_it_is(reply: &Reply, most: Option<usize>) -> Verdict {
    let body = reply.body.slice(..reply.body.len().min(MAX_SHARED_BYTES));
    Verdict { said: Said::Reply(Reply { body, ..reply.clone() }), most }
}

fn again(most: usize) -> Verdict {
    Verdict { said: Said::Again, most: Some(most.max(1)) }
}

fn written(reply: &Reply, body: Bytes) -> Verdict {
    let said = Said::Reply(Reply { answer: Answer::Done, body, ..reply.clone() });
    Verdict { said, most: None }
}

/// May have been applied: the command's own machine finds out.
fn doubtful(reply: &Reply, most: usize) -> Verdict {
    let detail = "it was sent among others, and the reply does not say what became of it".to_owned();
    as_it_is(&Reply { answer: Answer::Doubtful, detail, ..reply.clone() }, Some(most))
}

/// A scope that is missing is missing for all of them. One thing that is another's is denied for its own sake: where
/// items are named, and of metafields, which apps may keep to themselves, only its own reply tells.
fn forbidden(group: &Group, parts: &[Part], (reply, most): (&Reply, Option<usize>)) -> Vec<Verdict> {
    let is_named = || names::of_parts(group, parts, &reply.body).contains(&true);
    match group.path.template().ends_with("/metafields") || is_named() {
        true => parts.iter().map(|_| again(1)).collect(),
        false => parts.iter().map(|_| as_it_is(reply, most)).collect(),
    }
}

/// A success says of which things. Where it says nothing at all, it is that of all of them.
fn done(group: &Group, parts: &[Part], reply: &Reply) -> Vec<Verdict> {
    let rows = rows::rows(&reply.body).filter(|_| group.reply == BatchReply::Rows);
    let Some(rows) = rows else {
        let small = if reply.body.len() <= MAX_SHARED_BYTES { reply.body.clone() } else { Bytes::new() };
        return parts.iter().map(|_| written(reply, small.clone())).collect();
    };
    let rows = rows::of_parts(group, parts, &rows, true);
    let of_each = rows.into_iter().map(|row| match (row, group.class) {
        (Some(row), _) => written(reply, rows::body(&reply.body, &row)),
        (None, Class::A) => again(1),
        // It was left out silently, or created and not shown.
        (None, Class::B | Class::C) => doubtful(reply, 1),
    });
    of_each.collect()
}

/// A reply that may name items.
struct Shared<'a> {
    parts: &'a [Part],
    reply: &'a Reply,
    class: Class,
    /// The row of each part that was written.
    rows: Vec<Option<Vec<&'a str>>>,
    /// Whether the reply names an item of a part.
    named: Vec<bool>,
    /// Items that those may share their next request with that nothing is said of.
    rest: usize,
}

impl<'a> Shared<'a> {
    fn new(group: &'a Group, parts: &'a [Part], most: Option<usize>, reply: &'a Reply) -> Self {
        let rows = rows::rows(&reply.body).filter(|_| !matches!(group.frame, Frame::Query(_)));
        let rows = rows::of_parts(group, parts, &rows.unwrap_or_default(), false);
        let named = names::of_parts(group, parts, &reply.body);
        let innocent =
            parts.iter().zip(&named).filter(|(_, named)| !**named).map(|(part, _)| part.count).sum();
        let rest = match (innocent < items(parts), most) {
            // The bad ones are known: without them it should do.
            (true, None) => innocent,
            // Others were bad as well, or nobody knows which: each half finds its own.
            (true, Some(_)) | (false, _) => items(parts).div_ceil(2),
        };
        Self { parts, reply, class: group.class, rows, named, rest }
    }

    /// 207: some of it was done.
    fn partly(self) -> Vec<Verdict> {
        let of_each = self.rows.iter().zip(&self.named).map(|(row, named)| match (row, named, self.class) {
            (Some(row), false, _) => written(self.reply, rows::body(&self.reply.body, row)),
            // Its own reply says which part of it.
            (_, true, Class::A) => again(1),
            (None, false, Class::A) => again(self.rest),
            (_, true, Class::B | Class::C) => doubtful(self.reply, 1),
            (None, false, Class::B | Class::C) => doubtful(self.reply, self.rest),
        });
        of_each.collect()
    }

    /// Refused, or most of it: what was written nevertheless stands beside the errors.
    fn refused(self) -> Vec<Verdict> {
        // Only this is certain to be said before any item is looked at.
        if is_too_large(self.reply) {
            let half = items(self.parts).div_ceil(2);
            return self.parts.iter().map(|_| again(half)).collect();
        }
        self.partly()
    }
}

/// What a reply to these verdicts' commands says of the size of the next request.
pub(crate) fn came(reply: &Reply, verdicts: &[Verdict]) -> Came {
    let is_written =
        |verdict: &&Verdict| matches!(&verdict.said, Said::Reply(own) if own.answer == Answer::Done);
    let is_over =
        |verdict: &Verdict| matches!(&verdict.said, Said::Reply(own) if own.answer == Answer::Forbidden);
    match reply.answer {
        _ if is_too_large(reply) && verdicts.len() > 1 => Came::TooLarge,
        // Smaller requests would be denied as well.
        Answer::Forbidden if verdicts.iter().all(is_over) => Came::Nothing,
        Answer::Busy { .. } | Answer::Unauthorized | Answer::Doubtful => Came::Nothing,
        Answer::Done => Came::Done,
        _ if verdicts.iter().filter(is_written).count() * 2 >= verdicts.len() => Came::Done,
        _ => Came::Refused,
    }
}

/// Whether a reply holds errors.
pub(super) fn says_why(body: &[u8]) -> bool {
    names::has_errors(body)
}

/// Whether the request was larger than the endpoint takes.
fn is_too_large(reply: &Reply) -> bool {
    reply.answer == Answer::Invalid && matches!(reply.status, 413 | 414)
}

#[cfg(test)]
mod tests;
