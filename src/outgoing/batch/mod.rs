//! Writes of several commands in one request: what may travel together, when it goes, and what its reply says of each.
//!
//! A command's `part` is planned with the command. The `outbox` gathers parts of one group until their request is
//! worth a call, `sizes` says how many that are, `reply` reads one answer into a verdict for each of them, and `alone`
//! the answer to one that was sent alone. Pure, all of them. Nothing is sent twice here: a verdict goes back to the
//! command's own state machine, which decides under its class.

mod alone;
mod outbox;
mod part;
mod reply;
mod sizes;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use bytes::{BufMut as _, Bytes, BytesMut};

pub(super) use alone::{alone, lists_nothing};
pub(super) use outbox::{Joint, Limits, Member, Outbox};
pub(super) use part::part;
pub(super) use reply::{Said, Verdict, came, read};
pub(super) use sizes::Came;

use crate::catalog::{BatchReply, Class};
use crate::model::request::{ApiPath, Method, Purpose, Request};

/// Bytes of items in one request at most: what a command may bring alone, so that sharing makes no request larger than
/// a store has to take anyway.
const MAX_BODY_BYTES: usize = 1024 * 1024;
/// Bytes of ids in the query of one request at most, commas included: written as `%2C` they stay well below the 8 KiB
/// that gateways take.
const MAX_QUERY_BYTES: usize = 3 * 1024;

/// What a command brings to a request that it shares.
#[derive(Debug, Clone)]
pub(super) struct Part {
    /// All that the commands of a request have in common.
    pub(super) group: Arc<Group>,
    /// Its items as they stand in the body, commas between them; of a delete, the id.
    items: Bytes,
    /// How many items these are.
    count: usize,
    /// What each item is about; empty where the group's items are told by nothing.
    keys: Arc<[Key]>,
}

/// What must be equal for commands to share a request.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Group {
    method: Method,
    path: ApiPath,
    query: Vec<(String, String)>,
    frame: Frame,
    /// Items in one request at most.
    max: usize,
    reply: BatchReply,
    /// The fields that say what an item is about.
    fields: Vec<String>,
    class: Class,
}

/// What stands around the items of a request.
#[derive(Debug, PartialEq, Eq, Hash)]
enum Frame {
    /// The body, before and after them.
    Body { before: Bytes, after: Bytes },
    /// They are ids, the value of this query parameter.
    Query(String),
}

/// What an item is about: the values of the group's fields, of which some may be missing and not all.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key(Box<[Option<Box<str>>]>);

impl Key {
    /// A key of what is found by field. BigCommerce takes names, codes and addresses however they are written, so case
    /// does not tell two things apart.
    fn new(fields: &[String], mut find: impl FnMut(&str) -> Option<String>) -> Option<Self> {
        let values =
            fields.iter().map(|field| find(field).map(|value| value.to_lowercase().into_boxed_str()));
        let values: Box<[_]> = values.collect();
        values.iter().any(Option::is_some).then_some(Self(values))
    }
}

impl Group {
    /// Bytes of items in one request at most.
    fn max_bytes(&self) -> usize {
        match self.frame {
            Frame::Body { .. } => MAX_BODY_BYTES,
            Frame::Query(_) => MAX_QUERY_BYTES,
        }
    }

    /// The request that holds all these parts of the group.
    fn request<'a>(&self, parts: impl Iterator<Item = &'a Part>) -> Request {
        let mut items = BytesMut::new();
        for part in parts {
            if !items.is_empty() {
                items.put_u8(b',');
            }
            items.put_slice(&part.items);
        }
        let mut query = self.query.clone();
        let body = match &self.frame {
            Frame::Body { before, after } => {
                let mut body = BytesMut::with_capacity(before.len() + items.len() + after.len());
                body.put_slice(before);
                body.put_slice(&items);
                body.put_slice(after);
                Some(body.freeze())
            }
            Frame::Query(name) => {
                query.push((name.clone(), String::from_utf8_lossy(&items).into_owned()));
                None
            }
        };
        Request { method: self.method, path: self.path.clone(), query, body, purpose: Purpose::Command }
    }
}
