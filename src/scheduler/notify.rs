//! Makes the notifications topic's records. Pure.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;

use crate::model::record::OutRecord;
use crate::model::signal::Notification;

/// A time of the wall clock in unix milliseconds, as notifications have it.
pub(super) fn timestamp(at_ms: i64) -> Timestamp {
    Timestamp::from_millisecond(at_ms).unwrap_or_default()
}

/// The record of a notification.
pub(super) fn record(topic: &Arc<str>, told: &Notification) -> OutRecord {
    let value = serde_json::to_vec(told).expect("a notification is JSON");
    OutRecord {
        topic: topic.clone(),
        partition: None,
        key: Some(Bytes::from(told.key())),
        value: Some(Bytes::from(value)),
        headers: vec![(Cow::Borrowed("content-type"), Bytes::from_static(b"application/json"))],
        timestamp_ms: None,
    }
}
