//! From an ending to records: the result, the ledger's entry, and the dead letter of what failed.
//!
//! Pure. They are committed together with the offset, so each command has exactly one result, and an id that
//! comes again finds it.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use serde_json::Value;
use serde_json::value::RawValue;

use super::apply::Ending;
use super::decode::{Checked, Refusal};
use super::known::{Entry, KEY_PREFIX};
use super::plan::{at, scalar};
use crate::engine::ownership;
use crate::model::command::{CommandResult, Outcome};
use crate::model::dead_letter::{DeadLetter, FailedAt};
use crate::model::hint::header::TRACEPARENT;
use crate::model::record::{InRecord, OutRecord, Partition};
use crate::runtime::ports::Settled;

/// Largest JSON reply that a result carries whole. The ledger holds the result a second time in the same
/// transaction, and both must fit a broker's 1 MiB.
const MAX_JSON_BYTES: usize = 256 * 1024;
/// Most bytes of a reply that is not JSON, or is too large, in a result.
const MAX_TEXT_BYTES: usize = 64 * 1024;
/// Longest trace context that is handed on: the standard's is 55 bytes.
const MAX_TRACEPARENT_BYTES: usize = 128;

/// Header names of result records.
pub mod header {
    /// The command's id.
    pub const COMMAND: &str = "bc_command";
    /// How it ended.
    pub const OUTCOME: &str = "bc_outcome";
    /// `1` on the stored result of an id that came again.
    pub const REPLAYED: &str = "bc_replayed";
}

/// Where the records of a store's commands go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topics {
    /// Results.
    pub results: Arc<str>,
    /// Dead letters.
    pub dlq: Arc<str>,
    /// Intents and stored results.
    pub ledger: Arc<str>,
    /// How many partitions the ledger has; a command's entries stand in partition `n % ledger_partitions`, where
    /// `n` is the command's own.
    pub ledger_partitions: i32,
}

impl Topics {
    /// The ledger's partition that belongs to a partition of commands.
    pub fn ledger_partition(&self, commands: &Partition) -> i32 {
        commands.number.rem_euclid(self.ledger_partitions.max(1))
    }

    /// The ledger's record of an intent.
    pub(super) fn intent(&self, record: &InRecord, id: &str, class: &str, now_ms: i64) -> OutRecord {
        self.ledger_record(record, id, &Entry::intent(class, &record.position, now_ms))
    }

    /// The record that lets the ledger forget an entry that was read back for a partition of commands.
    pub(super) fn forgotten(&self, commands: &Partition, key: String) -> OutRecord {
        OutRecord {
            topic: self.ledger.clone(),
            partition: Some(self.ledger_partition(commands)),
            key: Some(Bytes::from(key)),
            value: None,
            headers: Vec::new(),
            timestamp_ms: None,
        }
    }

    /// The ledger's record of a note about who owns a partition of commands.
    pub(super) fn owner_note(&self, commands: &Partition, note: Bytes) -> OutRecord {
        let key = ownership::key(commands);
        OutRecord { value: Some(note), ..self.forgotten(commands, key) }
    }

    fn ledger_record(&self, record: &InRecord, id: &str, entry: &Entry<'_>) -> OutRecord {
        let value = serde_json::to_vec(entry).expect("an entry is plain data and a value that is JSON");
        OutRecord {
            topic: self.ledger.clone(),
            partition: Some(self.ledger_partition(&record.position.partition)),
            key: Some(Bytes::from(format!("{KEY_PREFIX}{id}"))),
            value: Some(value.into()),
            headers: vec![(Cow::Borrowed("content-type"), Bytes::from_static(b"application/json"))],
            timestamp_ms: None,
        }
    }
}

/// The end of a command: its records, and the stored result.
pub(super) fn ended(
    topics: &Topics,
    record: &InRecord,
    command: &Checked,
    ending: &Ending,
    (first_seen_ms, now_ms): (i64, i64),
) -> (Settled, Bytes) {
    let last = ending.last.as_ref();
    let body = match &ending.found {
        Some(row) => Some(Bytes::from(row.to_string())),
        None => last.map(|last| last.body.clone()),
    };
    let result = value(&CommandResult {
        id: command.id.to_string(),
        entity: Some(command.entity.name.clone()),
        action: Some(command.action().name.clone()),
        outcome: ending.outcome,
        status: last.map(|last| last.status),
        resource_id: resource_id(command, ending),
        body: body.as_ref().and_then(as_json),
        request_id: last.and_then(|last| last.request_id.clone()),
        attempts: ending.attempts,
        class: Some(ending.class.name().to_owned()),
        reason: ending.reason.map(|reason| reason.name().to_owned()),
        detail: ending.detail.clone(),
        request: None,
    });
    let raw = RawValue::from_string(String::from_utf8_lossy(&result).into_owned())
        .expect("a result was just written as JSON");
    let mut records = vec![
        result_record(topics, record, &command.id, ending.outcome, result.clone()),
        // It is found again by its time.
        OutRecord {
            timestamp_ms: Some(now_ms),
            ..topics.ledger_record(record, &command.id, &Entry::done(&raw, now_ms))
        },
    ];
    if let Some(reason) = ending.reason {
        let letter = DeadLetter {
            reason,
            stage: FailedAt::Task,
            message: ending.detail.clone().unwrap_or_default(),
            http_status: last.map(|last| last.status),
            response_body: last.map(|last| last.body.clone()).filter(|body| !body.is_empty()),
            request_id: last.and_then(|last| last.request_id.clone()),
            attempts: ending.attempts,
            first_seen_ms,
        };
        records.push(letter.record(&topics.dlq, record));
    }
    (Settled { positions: vec![record.position.clone()], records }, result)
}

/// The end of a record that is no command.
pub(super) fn refused(topics: &Topics, record: &InRecord, refusal: &Refusal, now_ms: i64) -> Settled {
    let result = value(&CommandResult {
        id: refusal.id.to_string(),
        entity: refusal.entity.clone(),
        action: refusal.action.clone(),
        outcome: Outcome::Rejected,
        status: None,
        resource_id: None,
        body: None,
        request_id: None,
        attempts: 0,
        class: refusal.class.map(|class| class.name().to_owned()),
        reason: Some(refusal.reason.name().to_owned()),
        detail: Some(refusal.detail.clone()),
        request: None,
    });
    let letter = DeadLetter {
        reason: refusal.reason,
        stage: refusal.stage,
        message: refusal.detail.clone(),
        http_status: None,
        response_body: None,
        request_id: None,
        attempts: 0,
        first_seen_ms: now_ms,
    };
    let records = vec![
        result_record(topics, record, &refusal.id, Outcome::Rejected, result),
        letter.record(&topics.dlq, record),
    ];
    Settled { positions: vec![record.position.clone()], records }
}

/// The end of a command whose id has come before: the stored result again.
pub(super) fn repeated(
    topics: &Topics,
    record: &InRecord,
    id: &str,
    outcome: Outcome,
    result: Bytes,
) -> Settled {
    let mut again = result_record(topics, record, id, outcome, result);
    again.headers.push((Cow::Borrowed(header::REPLAYED), Bytes::from_static(b"1")));
    Settled { positions: vec![record.position.clone()], records: vec![again] }
}

pub(super) fn value(result: &CommandResult) -> Bytes {
    serde_json::to_vec(result).expect("a result is plain data and a body that is JSON").into()
}

pub(super) fn result_record(
    topics: &Topics,
    record: &InRecord,
    id: &str,
    outcome: Outcome,
    value: Bytes,
) -> OutRecord {
    let mut headers = vec![
        (Cow::Borrowed("content-type"), Bytes::from_static(b"application/json")),
        (Cow::Borrowed(header::COMMAND), Bytes::copy_from_slice(id.as_bytes())),
        (Cow::Borrowed(header::OUTCOME), Bytes::from_static(outcome.name().as_bytes())),
    ];
    let plain = |parent: &&str| {
        parent.len() <= MAX_TRACEPARENT_BYTES && parent.bytes().all(|byte| byte.is_ascii_graphic())
    };
    if let Some(parent) = record.header(TRACEPARENT).filter(plain) {
        headers.push((Cow::Borrowed(TRACEPARENT), Bytes::copy_from_slice(parent.as_bytes())));
    }
    OutRecord {
        topic: topics.results.clone(),
        partition: None,
        key: record.key.clone(),
        value: Some(value),
        headers,
        timestamp_ms: None,
    }
}

/// A reply's body for a result: JSON as it came, else its text, cut.
pub(super) fn as_json(body: &Bytes) -> Option<Box<RawValue>> {
    if body.trim_ascii().is_empty() {
        return None;
    }
    if body.len() <= MAX_JSON_BYTES
        && let Ok(json) = serde_json::from_slice::<Box<RawValue>>(body)
    {
        return Some(json);
    }
    let text = String::from_utf8_lossy(&body[..body.len().min(MAX_TEXT_BYTES)]);
    serde_json::value::to_raw_value(&*text).ok()
}

/// The id of the thing that was written: out of the reply, else out of the path.
pub(super) fn resource_id(command: &Checked, ending: &Ending) -> Option<String> {
    if !matches!(ending.outcome, Outcome::Applied | Outcome::Partial) {
        return from_path(command);
    }
    let row = written_row(ending);
    from_row(command, row.as_ref()).or_else(|| ending.found_id.clone()).or_else(|| from_path(command))
}

/// The thing that was written, as the store told it.
pub(super) fn written_row(ending: &Ending) -> Option<Value> {
    match (&ending.found, &ending.last) {
        (Some(row), _) => Some(row.clone()),
        (None, Some(last)) => serde_json::from_slice(&last.body).ok().and_then(row),
        (None, None) => None,
    }
}

/// The one thing that a reply is about.
fn row(reply: Value) -> Option<Value> {
    let inner = match reply {
        Value::Object(mut envelope) => match envelope.remove("data") {
            Some(data @ (Value::Object(_) | Value::Array(_))) => data,
            _ => Value::Object(envelope),
        },
        other => other,
    };
    match inner {
        Value::Array(mut rows) if rows.len() == 1 => rows.pop(),
        Value::Object(_) => Some(inner),
        _ => None,
    }
}

fn from_row(command: &Checked, row: Option<&Value>) -> Option<String> {
    let row = row?.as_object()?;
    let part = |path: &String| {
        let held = at(row, path).and_then(scalar);
        held.or_else(|| command.path_id(path).map(str::to_owned))
    };
    let keys = &command.entity.key;
    let parts: Vec<String> = keys.iter().map(part).collect::<Option<_>>()?;
    (!parts.is_empty()).then(|| parts.join(":"))
}

pub(super) fn from_path(command: &Checked) -> Option<String> {
    // With fewer ids than the thing has, as in a create, the path names what is around it.
    let ids: Vec<&str> = command.path.iter().map(|(_, id)| id.as_str()).collect();
    (!ids.is_empty() && ids.len() == command.entity.ids.len()).then(|| ids.join(":"))
}
