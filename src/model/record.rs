//! Kafka records as the bridge sees them: plain data, without a client library's types.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;

/// A record to be produced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutRecord {
    /// Where it goes.
    pub topic: Arc<str>,
    /// The partition, or none to let the key decide (murmur2, as Java's producer does).
    pub partition: Option<i32>,
    /// The key; none spreads the records.
    pub key: Option<Bytes>,
    /// The value; none is a tombstone.
    pub value: Option<Bytes>,
    /// Headers in order; names may repeat.
    pub headers: Vec<(Cow<'static, str>, Bytes)>,
    /// Milliseconds since the epoch; none lets the producer stamp it.
    pub timestamp_ms: Option<i64>,
}

/// A record as it was consumed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InRecord {
    /// Where it stood.
    pub position: Position,
    /// Milliseconds since the epoch, where the broker knows it.
    pub timestamp_ms: Option<i64>,
    /// The key.
    pub key: Option<Bytes>,
    /// The value; none is a tombstone.
    pub value: Option<Bytes>,
    /// Headers in order.
    pub headers: Vec<(String, Bytes)>,
}

impl InRecord {
    /// The last header of this name as text, if it is there and is UTF-8.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().rev().find(|(n, _)| n == name).and_then(|(_, v)| std::str::from_utf8(v).ok())
    }
}

/// One partition of one topic.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Partition {
    /// The topic.
    pub topic: Arc<str>,
    /// The partition's number.
    pub number: i32,
}

/// One place in one partition.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Position {
    /// The partition.
    pub partition: Partition,
    /// The offset in it.
    pub offset: i64,
}

impl Position {
    /// Reads `topic/partition/offset`; none where it is something else. No topic's name has a slash.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('/');
        let topic = parts.next().filter(|topic| !topic.is_empty())?;
        let number = parts.next()?.parse().ok().filter(|number| *number >= 0)?;
        let offset = parts.next()?.parse().ok().filter(|offset| *offset >= 0)?;
        parts.next().is_none().then(|| Self { partition: Partition { topic: topic.into(), number }, offset })
    }
}

impl std::fmt::Display for Position {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}/{}", self.partition.topic, self.partition.number, self.offset)
    }
}

/// The offset to be committed for a partition: everything below `next` is settled, and `metadata` tells which
/// records above it are as well (see `engine::checkpoint`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OffsetCommit {
    /// The partition.
    pub partition: Partition,
    /// The first offset that is not settled.
    pub next: i64,
    /// Kept by the broker beside the offset; at most 4,096 bytes (the broker's `offset.metadata.max.bytes`).
    pub metadata: String,
}

/// A partition that was just given to this member of a group, with what was last committed for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assignment {
    /// The partition.
    pub partition: Partition,
    /// The committed offset, if any.
    pub committed: Option<i64>,
    /// The metadata that was committed beside it.
    pub metadata: String,
}
