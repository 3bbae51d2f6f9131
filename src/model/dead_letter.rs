//! Dead letters: records put aside whole, with headers that say why.
//!
//! The key, the value and the sender's headers stay as they came, byte for byte, so that a replay is the same
//! record again. The reasons stand in headers: Kafka Connect's names, which its tools already read, and the
//! bridge's own. A record that was replayed and failed again carries the new reasons only, and the day it was
//! first seen.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;

use super::reason::Reason;
use super::record::{InRecord, OutRecord, Position};

/// Most bytes of a store's reply that a header carries: enough for any error body that BigCommerce documents,
/// and small beside the broker's limit of 1 MiB for a whole record.
const MAX_BODY_BYTES: usize = 16 * 1024;
/// Most bytes of the message: it is one clause for people.
const MAX_MESSAGE_BYTES: usize = 4 * 1024;
/// The prefix of Kafka Connect's headers.
const CONNECT_PREFIX: &str = "__connect.errors.";
/// The prefix of the bridge's own headers.
const BRIDGE_PREFIX: &str = "bc_dlq_";

/// Header names of dead letters.
pub mod header {
    /// Why, as [`Reason::name`](super::Reason::name) has it.
    pub const REASON: &str = "bc_dlq_reason";
    /// The last HTTP status, where a reply came.
    pub const HTTP_STATUS: &str = "bc_dlq_http_status";
    /// The last reply's body, cut at 16 KiB.
    pub const RESPONSE_BODY: &str = "bc_dlq_response_body";
    /// BigCommerce's id of the last request.
    pub const REQUEST_ID: &str = "bc_dlq_request_id";
    /// How often it was sent.
    pub const ATTEMPTS: &str = "bc_dlq_attempts";
    /// When the bridge first read the record, in milliseconds since the epoch.
    pub const FIRST_SEEN: &str = "bc_dlq_first_seen";
    /// How often it was replayed before.
    pub const REPLAY_COUNT: &str = "bc_dlq_replay_count";
    /// Of a replayed record: where it stood when it came first, as `topic/partition/offset`.
    pub const ORIGIN: &str = "bc_dlq_origin";
    /// Of a replayed record: the dead letter that it was made from, as `topic/partition/offset`.
    pub const LETTER: &str = "bc_dlq_letter";
    /// The topic that it came from.
    pub const TOPIC: &str = "__connect.errors.topic";
    /// The partition that it came from.
    pub const PARTITION: &str = "__connect.errors.partition";
    /// The offset that it stood at.
    pub const OFFSET: &str = "__connect.errors.offset";
    /// The program.
    pub const CONNECTOR: &str = "__connect.errors.connector.name";
    /// Always 0: the bridge has no numbered tasks.
    pub const TASK: &str = "__connect.errors.task.id";
    /// Where it failed.
    pub const STAGE: &str = "__connect.errors.stage";
    /// The part of the program that failed.
    pub const CLASS: &str = "__connect.errors.class.name";
    /// The reason, as a class name.
    pub const EXCEPTION: &str = "__connect.errors.exception.class.name";
    /// One clause for people.
    pub const MESSAGE: &str = "__connect.errors.exception.message";
}

/// Where a record failed, in Kafka Connect's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FailedAt {
    /// Reading the value.
    Value,
    /// Mapping it.
    Transform,
    /// Acting on it.
    Task,
}

impl FailedAt {
    /// The word in the `__connect.errors.stage` header.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Value => "VALUE_CONVERTER",
            Self::Transform => "TRANSFORMATION",
            Self::Task => "TASK_PUT",
        }
    }

    const fn class(self) -> &'static str {
        match self {
            Self::Value => "bcbridge.decode",
            Self::Transform => "bcbridge.transform",
            Self::Task => "bcbridge.apply",
        }
    }
}

/// Why a record is put aside, and what is known about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// The reason.
    pub reason: Reason,
    /// Where it failed.
    pub stage: FailedAt,
    /// One clause for people, without any customer's data.
    pub message: String,
    /// The last HTTP status, where a reply came.
    pub http_status: Option<u16>,
    /// The last reply's body.
    pub response_body: Option<Bytes>,
    /// BigCommerce's id of the last request.
    pub request_id: Option<String>,
    /// How often it was sent; 0 if never.
    pub attempts: u32,
    /// When the bridge first read the record, in milliseconds since the epoch; an earlier date that the record
    /// carries from an earlier failure is kept.
    pub first_seen_ms: i64,
}

impl DeadLetter {
    /// The record for the dead-letter topic.
    pub fn record(&self, dlq_topic: &Arc<str>, failed: &InRecord) -> OutRecord {
        let mut headers: Vec<(Cow<'static, str>, Bytes)> = failed
            .headers
            .iter()
            .filter(|(name, _)| !is_of_a_letter(name))
            .map(|(name, value)| (Cow::Owned(name.clone()), value.clone()))
            .collect();
        self.connect_headers(failed, &mut headers);
        self.bridge_headers(failed, &mut headers);
        OutRecord {
            topic: dlq_topic.clone(),
            partition: None,
            key: failed.key.clone(),
            value: failed.value.clone(),
            headers,
            timestamp_ms: None,
        }
    }

    fn connect_headers(&self, failed: &InRecord, headers: &mut Vec<(Cow<'static, str>, Bytes)>) {
        let position = &failed.position;
        let message = Bytes::copy_from_slice(self.message.as_bytes());
        headers.extend([
            (Cow::Borrowed(header::TOPIC), Bytes::copy_from_slice(position.partition.topic.as_bytes())),
            (Cow::Borrowed(header::PARTITION), text(position.partition.number)),
            (Cow::Borrowed(header::OFFSET), text(position.offset)),
            (Cow::Borrowed(header::CONNECTOR), Bytes::from_static(b"bcbridge")),
            (Cow::Borrowed(header::TASK), Bytes::from_static(b"0")),
            (Cow::Borrowed(header::STAGE), Bytes::from_static(self.stage.name().as_bytes())),
            (Cow::Borrowed(header::CLASS), Bytes::from_static(self.stage.class().as_bytes())),
            (Cow::Borrowed(header::EXCEPTION), text(format_args!("bcbridge.{}", self.reason))),
            (Cow::Borrowed(header::MESSAGE), cut(&message, MAX_MESSAGE_BYTES)),
        ]);
    }

    fn bridge_headers(&self, failed: &InRecord, headers: &mut Vec<(Cow<'static, str>, Bytes)>) {
        let first_seen = failed
            .header(header::FIRST_SEEN)
            .and_then(|at| at.parse::<i64>().ok())
            .map_or(self.first_seen_ms, |earlier| earlier.min(self.first_seen_ms));
        headers.extend([
            (Cow::Borrowed(header::REASON), Bytes::from_static(self.reason.name().as_bytes())),
            (Cow::Borrowed(header::ATTEMPTS), text(self.attempts)),
            (Cow::Borrowed(header::FIRST_SEEN), text(first_seen)),
            (Cow::Borrowed(header::REPLAY_COUNT), text(replay_count(failed))),
        ]);
        if let Some(origin) = failed.headers.iter().find(|(name, _)| name == header::ORIGIN) {
            headers.push((Cow::Borrowed(header::ORIGIN), origin.1.clone()));
        }
        if let Some(status) = self.http_status {
            headers.push((Cow::Borrowed(header::HTTP_STATUS), text(status)));
        }
        if let Some(body) = &self.response_body {
            headers.push((Cow::Borrowed(header::RESPONSE_BODY), cut(body, MAX_BODY_BYTES)));
        }
        if let Some(id) = &self.request_id {
            headers.push((Cow::Borrowed(header::REQUEST_ID), text(id)));
        }
    }
}

/// How often a record was replayed from a dead-letter topic, as its headers tell; 0 for a first delivery.
pub fn replay_count(record: &InRecord) -> u32 {
    record.header(header::REPLAY_COUNT).and_then(|count| count.parse().ok()).unwrap_or(0)
}

/// Where a record stood when it came first: a replayed one says so, any other stands there.
pub fn first_position(record: &InRecord) -> Position {
    let told = record.header(header::ORIGIN).filter(|_| replay_count(record) > 0);
    told.and_then(Position::parse).unwrap_or_else(|| record.position.clone())
}

/// Whether a header says something about the letter, and was not the sender's.
pub(super) fn is_of_a_letter(header: &str) -> bool {
    header.starts_with(CONNECT_PREFIX) || header.starts_with(BRIDGE_PREFIX)
}

fn text(value: impl std::fmt::Display) -> Bytes {
    Bytes::from(value.to_string())
}

/// The first bytes of a text, not cut within a character. Bytes that are not UTF-8 are cut where the limit is.
fn cut(bytes: &Bytes, limit: usize) -> Bytes {
    if bytes.len() <= limit {
        return bytes.clone();
    }
    // A character of UTF-8 has at most three bytes after its first one.
    let start = (limit.saturating_sub(3)..=limit).rev().find(|at| bytes[*at] & 0xC0 != 0x80);
    bytes.slice(..start.unwrap_or(limit))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::record::Partition;

    fn failed(headers: Vec<(String, Bytes)>) -> InRecord {
        InRecord {
            position: Position {
                partition: Partition { topic: "bigcommerce.main.commands".into(), number: 3 },
                offset: 41,
            },
            timestamp_ms: Some(5),
            key: Some(Bytes::from_static(b"\xff\x00key")),
            value: Some(Bytes::from_static(b"{not json")),
            headers,
        }
    }

    fn letter() -> DeadLetter {
        DeadLetter {
            reason: Reason::Refused,
            stage: FailedAt::Task,
            message: "the store refused the request".into(),
            http_status: Some(422),
            response_body: Some(Bytes::from_static(b"{\"title\":\"bad\"}")),
            request_id: Some("r-1".into()),
            attempts: 2,
            first_seen_ms: 1_000,
        }
    }

    fn value<'a>(record: &'a OutRecord, name: &str) -> Vec<&'a str> {
        let same = record.headers.iter().filter(|(n, _)| n == name);
        same.map(|(_, v)| std::str::from_utf8(v).unwrap()).collect()
    }

    #[test]
    fn the_record_is_kept_byte_for_byte_and_says_why() {
        let sender =
            vec![("x".to_owned(), Bytes::from_static(b"\xfe")), ("x".to_owned(), Bytes::from_static(b"2"))];
        let record = letter().record(&"bigcommerce.main.dlq".into(), &failed(sender));
        assert_eq!(record.key.as_deref(), Some(&b"\xff\x00key"[..]));
        assert_eq!(record.value.as_deref(), Some(&b"{not json"[..]));
        assert_eq!(record.headers[0], (Cow::Borrowed("x"), Bytes::from_static(b"\xfe")));
        assert_eq!(record.headers[1], (Cow::Borrowed("x"), Bytes::from_static(b"2")));
        for (name, expected) in [
            (header::TOPIC, "bigcommerce.main.commands"),
            (header::PARTITION, "3"),
            (header::OFFSET, "41"),
            (header::CONNECTOR, "bcbridge"),
            (header::TASK, "0"),
            (header::STAGE, "TASK_PUT"),
            (header::CLASS, "bcbridge.apply"),
            (header::EXCEPTION, "bcbridge.refused"),
            (header::MESSAGE, "the store refused the request"),
            (header::REASON, "refused"),
            (header::HTTP_STATUS, "422"),
            (header::RESPONSE_BODY, "{\"title\":\"bad\"}"),
            (header::REQUEST_ID, "r-1"),
            (header::ATTEMPTS, "2"),
            (header::FIRST_SEEN, "1000"),
            (header::REPLAY_COUNT, "0"),
        ] {
            assert_eq!(value(&record, name), [expected], "{name}");
        }
    }

    #[test]
    fn a_replayed_record_keeps_its_first_day_and_has_each_header_once() {
        let earlier = vec![
            (header::REPLAY_COUNT.to_owned(), Bytes::from_static(b"2")),
            (header::FIRST_SEEN.to_owned(), Bytes::from_static(b"400")),
            (header::REASON.to_owned(), Bytes::from_static(b"exhausted")),
            (header::TOPIC.to_owned(), Bytes::from_static(b"old")),
        ];
        let record = letter().record(&"dlq".into(), &failed(earlier));
        assert_eq!(value(&record, header::REPLAY_COUNT), ["2"]);
        assert_eq!(value(&record, header::FIRST_SEEN), ["400"]);
        assert_eq!(value(&record, header::REASON), ["refused"]);
        assert_eq!(value(&record, header::TOPIC), ["bigcommerce.main.commands"]);
    }

    #[test]
    fn a_long_reply_is_cut_between_characters() {
        let body = Bytes::from(format!("{}é{}", "a".repeat(MAX_BODY_BYTES - 1), "b".repeat(100)));
        let record =
            DeadLetter { response_body: Some(body), ..letter() }.record(&"d".into(), &failed(vec![]));
        let cut = value(&record, header::RESPONSE_BODY)[0].len();
        assert_eq!(cut, MAX_BODY_BYTES - 1);
        let not_text = Bytes::from(vec![0x80; MAX_BODY_BYTES + 5]);
        let record =
            DeadLetter { response_body: Some(not_text), ..letter() }.record(&"d".into(), &failed(vec![]));
        let (_, bytes) = record.headers.iter().find(|(n, _)| n == header::RESPONSE_BODY).unwrap();
        assert_eq!(bytes.len(), MAX_BODY_BYTES);
    }
}
