//! Makes the records that a judged read becomes. Pure.
//!
//! The headers are the contract with consumers: CloudEvents 1.0 in Kafka's binary mode, and the bridge's own
//! `bc_*`, which say what caused the record and what it rests on.

use std::borrow::Cow;

use bytes::Bytes;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::coalesce::Gathering;
use super::row::Row;
use super::settings::{EntitySettings, Format, StoreSettings};
use crate::model::hint::Op;
use crate::model::ids::EntityId;
use crate::model::record::{OutRecord, Position};

/// Events that one record lists, at most; the count beside the list is exact.
pub const MAX_LISTED: usize = 100;

const JSON: &str = "application/json";
const STRUCTURED: &str = "application/cloudevents+json";

/// What one read became.
#[derive(Debug, Clone, Copy)]
pub struct Publication<'a> {
    /// The store.
    pub store: &'a StoreSettings,
    /// The entity.
    pub settings: &'a EntitySettings,
    /// The hints that it answers.
    pub gathering: &'a Gathering,
    /// When the read began, in unix milliseconds.
    pub read_at_ms: i64,
    /// It is older than it should be.
    pub suspect: bool,
    /// The command of the bridge that made it what it is; none where it was changed in the store.
    pub command: Option<&'a str>,
}

/// Why a row could not be published.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotPublished {
    /// A mapping failed on it.
    #[error("the {0} failed: {1}")]
    Mapping(&'static str, String),
    /// It is larger than a record may be.
    #[error("its record has {0} bytes, {1} are allowed (kafka: max.message.bytes)")]
    TooLarge(usize, usize),
}

impl Publication<'_> {
    /// The record of a row; none if the filter keeps it back.
    ///
    /// # Errors
    /// A mapping fails on it, or it is too large.
    pub fn row(&self, row: &Row) -> Result<Option<OutRecord>, NotPublished> {
        let Some(json) = self.mapped(&row.json)? else { return Ok(None) };
        let value = match self.settings.format {
            Format::CloudEvents => json,
            Format::CloudEventsStructured => {
                self.structured(&row.id, self.gathering.op(), row.version, Some(&json))
            }
            Format::Envelope => self.envelope(self.gathering.op(), Some(&json)),
        };
        let allowed = self.store.max_record_bytes;
        if value.len() > allowed {
            return Err(NotPublished::TooLarge(value.len(), allowed));
        }
        Ok(Some(self.record(&row.id, self.gathering.op(), row.version, Some(value))))
    }

    /// The records that say that an entity is gone.
    pub fn gone(&self, id: &EntityId) -> Vec<OutRecord> {
        let tombstone = self.record(id, Op::Delete, None, None);
        match self.settings.format {
            Format::CloudEvents | Format::CloudEventsStructured => vec![tombstone],
            Format::Envelope => {
                let value = self.envelope(Op::Delete, None);
                vec![self.record(id, Op::Delete, None, Some(value)), tombstone]
            }
        }
    }

    fn mapped(&self, json: &Bytes) -> Result<Option<Bytes>, NotPublished> {
        if self.settings.filter.is_none() && self.settings.transform.is_none() {
            return Ok(Some(json.clone()));
        }
        let value: Value = serde_json::from_slice(json).expect("it was parsed when it was read");
        if let Some(filter) = &self.settings.filter
            && matches!(
                filter(&value).map_err(|e| NotPublished::Mapping("filter", e))?,
                Value::Bool(false) | Value::Null
            )
        {
            return Ok(None);
        }
        match &self.settings.transform {
            None => Ok(Some(json.clone())),
            Some(transform) => {
                let changed = transform(&value).map_err(|e| NotPublished::Mapping("transform", e))?;
                Ok(Some(Bytes::from(changed.to_string())))
            }
        }
    }

    fn record(&self, id: &EntityId, op: Op, version: Option<i64>, value: Option<Bytes>) -> OutRecord {
        OutRecord {
            topic: self.settings.topic.clone(),
            partition: None,
            key: Some(Bytes::from((self.settings.key)(id.as_str()))),
            value,
            headers: self.headers(id, op, version),
            timestamp_ms: None,
        }
    }

    fn headers(&self, id: &EntityId, op: Op, version: Option<i64>) -> Vec<(Cow<'static, str>, Bytes)> {
        let content_type = match self.settings.format {
            Format::CloudEventsStructured => STRUCTURED,
            Format::CloudEvents | Format::Envelope => JSON,
        };
        let mut headers: Vec<(Cow<'static, str>, Bytes)> = Vec::with_capacity(16);
        let mut push =
            |name: &'static str, value: String| headers.push((Cow::Borrowed(name), Bytes::from(value)));
        push("ce_specversion", "1.0".into());
        push("ce_id", self.event_id(id));
        push("ce_source", format!("/stores/{}", self.store.hash));
        push("ce_type", self.event_type(op));
        push("ce_subject", format!("{}/{id}", self.settings.row.name));
        push("ce_time", rfc3339(self.occurred_ms()));
        push("content-type", content_type.into());
        push("traceparent", self.traceparent(id));
        push("bc_op", op.code().into());
        push("bc_scope", self.newest().hint.trigger.scope.clone());
        push("bc_events", self.events().take(MAX_LISTED).collect::<Vec<_>>().join(","));
        push("bc_events_count", self.events().count().to_string());
        push("bc_read_at", rfc3339(self.read_at_ms));
        push("bc_version", self.version(version));
        push("bc_origin", self.command.map_or_else(|| "store".into(), |command| format!("bridge:{command}")));
        if self.suspect {
            push("bc_suspect_stale", "1".into());
        }
        headers
    }

    /// The hints' events, each once.
    fn events(&self) -> impl Iterator<Item = &str> {
        let mut seen = std::collections::HashSet::new();
        self.gathering.hints.iter().map(|g| g.hint.event.as_str()).filter(move |event| seen.insert(*event))
    }

    fn newest(&self) -> &super::coalesce::Gathered {
        self.gathering.hints.last().expect("a gathering is never empty")
    }

    fn position(&self) -> &Position {
        &self.newest().record.position
    }

    /// Unique per record and the same when the same hints are answered again after a crash.
    fn event_id(&self, id: &EntityId) -> String {
        let position = self.position();
        format!("{}/{id}/{}-{}", self.settings.row.name, position.partition.number, position.offset)
    }

    fn event_type(&self, op: Op) -> String {
        format!("com.bigcommerce.store.{}.{}", self.settings.row.name, op.participle())
    }

    /// When it happened, as the store says; when it was received, where the store does not say.
    fn occurred_ms(&self) -> i64 {
        let said = self.gathering.hints.iter().filter_map(|g| g.hint.created_at).max();
        said.map_or(self.newest().hint.received_ms, |seconds| seconds.saturating_mul(1000))
    }

    /// Two parts, each comparable as a number: when the entity changed last (0 where BigCommerce keeps no such
    /// date), and how far the intake was.
    fn version(&self, version: Option<i64>) -> String {
        format!("{}.{}", version.unwrap_or(0), self.position().offset)
    }

    fn traceparent(&self, id: &EntityId) -> String {
        use sha2::{Digest, Sha256};
        if let Some(parent) = self.gathering.hints.iter().rev().find_map(|g| g.hint.traceparent.clone()) {
            return parent;
        }
        // Derived and not drawn: the same record after a crash has the same trace.
        let digest = Sha256::digest(self.event_id(id).as_bytes());
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        format!("00-{}-{}-00", hex(&digest[..16]), hex(&digest[16..24]))
    }

    /// CloudEvents in structured mode; the entity's JSON is put in as it is.
    fn structured(&self, id: &EntityId, op: Op, version: Option<i64>, data: Option<&Bytes>) -> Bytes {
        #[derive(serde::Serialize)]
        struct Event<'a> {
            specversion: &'a str,
            id: String,
            source: String,
            #[serde(rename = "type")]
            kind: String,
            subject: String,
            time: String,
            datacontenttype: &'a str,
            bcop: &'a str,
            bcversion: String,
            data: Option<&'a RawValue>,
        }
        let event = Event {
            specversion: "1.0",
            id: self.event_id(id),
            source: format!("/stores/{}", self.store.hash),
            kind: self.event_type(op),
            subject: format!("{}/{id}", self.settings.row.name),
            time: rfc3339(self.occurred_ms()),
            datacontenttype: JSON,
            bcop: op.code(),
            bcversion: self.version(version),
            data: data.map(raw),
        };
        Bytes::from(serde_json::to_vec(&event).expect("texts and JSON are JSON"))
    }

    /// Debezium's words.
    fn envelope(&self, op: Op, after: Option<&Bytes>) -> Bytes {
        #[derive(serde::Serialize)]
        struct Envelope<'a> {
            op: &'a str,
            after: Option<&'a RawValue>,
            source: Value,
            ts_ms: i64,
        }
        let position = self.position();
        let source = json!({
            "connector": "bcbridge",
            "store": self.store.hash.as_ref(),
            "name": self.store.name.as_ref(),
            "entity": self.settings.row.name,
            "scope": self.newest().hint.trigger.scope,
            "ts_ms": self.occurred_ms(),
            "partition": position.partition.number,
            "offset": position.offset,
        });
        let envelope = Envelope { op: op.code(), after: after.map(raw), source, ts_ms: self.read_at_ms };
        Bytes::from(serde_json::to_vec(&envelope).expect("texts and JSON are JSON"))
    }
}

fn raw(json: &Bytes) -> &RawValue {
    serde_json::from_slice(json).expect("it was parsed when it was read")
}

fn rfc3339(ms: i64) -> String {
    jiff::Timestamp::from_millisecond(ms)
        .map_or_else(|_| String::from("1970-01-01T00:00:00.000Z"), |at| format!("{at:.3}"))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::incoming::stage::testing::{gathering, settings, store};

    fn check(
        format: Format,
        change: impl Fn(&mut EntitySettings),
    ) -> Result<Option<OutRecord>, NotPublished> {
        let mut settings = settings("product");
        settings.format = format;
        change(&mut settings);
        let (store, gathering) = (store(), gathering(&[Op::Update, Op::Update]));
        let publication = Publication {
            store: &store,
            settings: &settings,
            gathering: &gathering,
            read_at_ms: 1_700_000_000_123,
            suspect: false,
            command: None,
        };
        let json = Bytes::from_static(br#"{"id":1,"price":"9.90","x":1.0}"#);
        publication.row(&Row { id: EntityId::parse("1").unwrap(), json, version: Some(77), content: 1 })
    }

    fn header<'a>(record: &'a OutRecord, name: &str) -> &'a str {
        let found = record.headers.iter().find(|(n, _)| n == name).unwrap_or_else(|| panic!("no {name}"));
        std::str::from_utf8(&found.1).unwrap()
    }

    #[test]
    fn the_entity_passes_through_byte_for_byte_with_all_headers() {
        let record = check(Format::CloudEvents, |_| {}).unwrap().unwrap();
        assert_eq!(record.value.as_deref(), Some(&br#"{"id":1,"price":"9.90","x":1.0}"#[..]));
        assert_eq!(record.key.as_deref(), Some(&b"1"[..]));
        for (name, value) in [
            ("ce_specversion", "1.0"),
            ("ce_id", "product/1/0-1"),
            ("ce_source", "/stores/abc123"),
            ("ce_type", "com.bigcommerce.store.product.updated"),
            ("ce_subject", "product/1"),
            ("ce_time", "2026-01-01T00:00:00.000Z"),
            ("content-type", "application/json"),
            ("bc_op", "u"),
            ("bc_scope", "store/product/updated"),
            ("bc_events", "msg_0,msg_1"),
            ("bc_events_count", "2"),
            ("bc_read_at", "2023-11-14T22:13:20.123Z"),
            ("bc_version", "77.1"),
            ("bc_origin", "store"),
        ] {
            assert_eq!(header(&record, name), value, "{name}");
        }
        assert_eq!(header(&record, "traceparent").len(), 55);
    }

    #[test]
    fn an_envelope_speaks_debezium() {
        let record = check(Format::Envelope, |_| {}).unwrap().unwrap();
        let value: Value = serde_json::from_slice(&record.value.unwrap()).unwrap();
        assert_eq!(value["op"], "u");
        assert_eq!(value["after"]["price"], "9.90");
        assert_eq!(value["source"]["entity"], "product");
        assert_eq!(value["ts_ms"], 1_700_000_000_123_i64);
    }

    #[test]
    fn a_structured_event_holds_the_entity() {
        let record = check(Format::CloudEventsStructured, |_| {}).unwrap().unwrap();
        assert_eq!(header(&record, "content-type"), "application/cloudevents+json");
        let value: Value = serde_json::from_slice(&record.value.unwrap()).unwrap();
        assert_eq!(value["data"]["id"], 1);
        assert_eq!(value["type"], "com.bigcommerce.store.product.updated");
    }

    #[test]
    fn false_and_null_do_not_pass_the_filter() {
        for (answer, passes) in
            [(json!(true), true), (json!(false), false), (json!(null), false), (json!(1), true)]
        {
            let record = check(Format::CloudEvents, |s| {
                let answer = answer.clone();
                s.filter = Some(Arc::new(move |_| Ok(answer.clone())));
            });
            assert_eq!(record.unwrap().is_some(), passes, "{answer}");
        }
    }

    #[test]
    fn a_mapping_that_fails_says_so() {
        let error =
            check(Format::CloudEvents, |s| s.transform = Some(Arc::new(|_| Err("no".into())))).unwrap_err();
        assert_eq!(error, NotPublished::Mapping("transform", "no".into()));
    }
}
