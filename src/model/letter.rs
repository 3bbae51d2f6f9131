//! Dead letters read back: what is known of one without its content, which of them are meant, and which may be replayed.
//!
//! Nothing here fails: a record that stands among the dead letters without a letter's headers is shown as far as it can
//! be, and is never replayed. [`Letter`] holds no value, so that many fit into memory and none is printed by mistake.

mod filter;
mod replay;

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use serde::Deserialize;

pub use self::filter::Filter;
pub use self::replay::{Full, Judge, Rules, Stretch, Verdict};
use super::dead_letter::{self, header, is_of_a_letter};
use super::hint;
use super::ids::EntityKey;
use super::reason::Reason;
use super::record::{InRecord, OutRecord, Partition, Position};

/// Longest name that is taken from a value: the catalogue's are shorter, and what is longer is no name.
const MAX_NAME_CHARS: usize = 64;

/// What is known of a dead letter, without its content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Letter {
    /// Where it stands.
    pub position: Position,
    /// When it was put there, in milliseconds since the epoch.
    pub at_ms: i64,
    /// The failed record's key.
    pub key: Option<Bytes>,
    /// Why: a [`Reason`]'s name, or whatever a newer bridge wrote; empty where the record is no letter.
    pub reason: String,
    /// One clause for people.
    pub message: Option<String>,
    /// The last HTTP status, where a reply came.
    pub status: Option<u16>,
    /// BigCommerce's id of the last request.
    pub request_id: Option<String>,
    /// How often it was sent.
    pub attempts: u32,
    /// How often it was replayed before.
    pub replays: u32,
    /// When the bridge first read the record, in milliseconds since the epoch.
    pub first_seen_ms: Option<i64>,
    /// The topic that the failed record is of; none where the record is no letter.
    pub origin_topic: Option<Arc<str>>,
    /// Where the failed record stood; none for a callback that was put aside before it stood anywhere.
    pub origin: Option<Position>,
    /// Where it stood when it came first: the same, unless it was replayed.
    pub first: Option<Position>,
    /// The entity, as far as key and value name it.
    pub entity: Option<String>,
    /// A command's action.
    pub action: Option<String>,
    /// A callback's scope.
    pub scope: Option<String>,
    /// Key, value and headers together, in bytes.
    pub bytes: usize,
}

/// The names in a command or a callback; a value of any other shape has none.
#[derive(Default, Deserialize)]
struct Named {
    #[serde(default)]
    entity: Option<String>,
    #[serde(default)]
    action: Option<String>,
    #[serde(default)]
    scope: Option<String>,
}

impl Letter {
    /// Reads what a record of a dead-letter topic says.
    pub fn read(record: &InRecord) -> Self {
        let number = |name: &str| record.header(name).and_then(|text| text.parse().ok());
        let own = |name: &str| record.header(name).map(str::to_owned);
        let origin_topic: Option<Arc<str>> = record.header(header::TOPIC).map(Arc::from);
        let origin = origin_topic.as_ref().and_then(|topic| {
            let (number, offset) = (number(header::PARTITION)?, number(header::OFFSET)?);
            let partition = Partition { topic: topic.clone(), number: i32::try_from(number).ok()? };
            (number >= 0 && offset >= 0).then_some(Position { partition, offset })
        });
        let first = record.header(header::ORIGIN).and_then(Position::parse).or_else(|| origin.clone());
        let value: Option<Named> =
            record.value.as_deref().and_then(|value| serde_json::from_slice(value).ok());
        let value = value.unwrap_or_default();
        let hint = record.key.as_deref().filter(|_| record.header(hint::header::OP).is_some());
        let hinted = hint.and_then(|key| EntityKey::parse(std::str::from_utf8(key).ok()?).ok());
        Self {
            position: record.position.clone(),
            at_ms: record.timestamp_ms.unwrap_or(0),
            key: record.key.clone(),
            reason: own(header::REASON).unwrap_or_default(),
            message: own(header::MESSAGE),
            status: number(header::HTTP_STATUS).and_then(|status| u16::try_from(status).ok()),
            request_id: own(header::REQUEST_ID),
            attempts: number(header::ATTEMPTS).and_then(|count| u32::try_from(count).ok()).unwrap_or(0),
            replays: dead_letter::replay_count(record),
            first_seen_ms: number(header::FIRST_SEEN),
            origin_topic,
            origin,
            first,
            entity: hinted.map(|key| key.entity.to_string()).or_else(|| value.entity.map(name)),
            action: value.action.map(name),
            scope: own(hint::header::SCOPE).or(value.scope).map(name),
            bytes: size(record),
        }
    }

    /// Whether it may have been applied although it failed.
    pub fn is_in_doubt(&self) -> bool {
        self.reason == Reason::InDoubt.name()
    }

    /// The failed record again, as it goes back to where it came from: key, value and the sender's headers byte for
    /// byte, to the partition that it stood in. None where the record is no letter.
    pub fn again(&self, record: &InRecord) -> Option<OutRecord> {
        let text = |value: &dyn std::fmt::Display| Bytes::from(value.to_string());
        let mut headers: Vec<(Cow<'static, str>, Bytes)> = record
            .headers
            .iter()
            .filter(|(name, _)| !is_of_a_letter(name))
            .map(|(name, value)| (Cow::Owned(name.clone()), value.clone()))
            .collect();
        headers.push((Cow::Borrowed(header::REPLAY_COUNT), text(&self.replays.saturating_add(1))));
        headers.push((Cow::Borrowed(header::LETTER), text(&self.position)));
        if let Some(first) = &self.first {
            headers.push((Cow::Borrowed(header::ORIGIN), text(first)));
        }
        if let Some(first_seen) = self.first_seen_ms {
            headers.push((Cow::Borrowed(header::FIRST_SEEN), text(&first_seen)));
        }
        Some(OutRecord {
            topic: self.origin_topic.clone()?,
            // Not the partitioner's choice: the sender may have had another one, and the rest of the key is here.
            partition: self.origin.as_ref().map(|origin| origin.partition.number),
            key: record.key.clone(),
            value: record.value.clone(),
            headers,
            timestamp_ms: None,
        })
    }
}

fn size(record: &InRecord) -> usize {
    let headers: usize = record.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
    headers + record.key.as_ref().map_or(0, Bytes::len) + record.value.as_ref().map_or(0, Bytes::len)
}

/// A name out of somebody's value, fit to be shown.
fn name(text: String) -> String {
    text.chars().filter(|c| !c.is_control()).take(MAX_NAME_CHARS).collect()
}

#[cfg(test)]
mod tests;
