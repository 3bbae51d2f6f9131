//! Makes the intake's records of what a scan, or a person, wants to be looked at. Pure.

use std::sync::Arc;

use bytes::Bytes;

use crate::model::hint::{Cause, Hint, Op, Trigger};
use crate::model::ids::{EntityId, EntityKey};
use crate::model::record::OutRecord;

/// A row that is larger than this is not carried along, and so read again by its id: well below the smallest limit on
/// records that brokers are run with (1 MB).
const MAX_CARRIED_BYTES: usize = 512 << 10;

/// Who makes hints, of which entity.
#[derive(Debug, Clone, Copy)]
pub(super) struct Maker<'a> {
    /// The intake topic of the store.
    pub intake: &'a Arc<str>,
    /// The entity.
    pub entity: &'a str,
    /// Why.
    pub cause: Cause,
    /// Begins the ids of the events; with a number behind it, it must be unique for ever.
    pub source: &'a str,
    /// Now, unix milliseconds.
    pub at_ms: i64,
}

impl Maker<'_> {
    /// The hint for one entity. `carried` is its row, and when the read began that brought it.
    pub(super) fn hint(&self, id: &EntityId, number: &str, carried: Option<(Bytes, i64)>) -> OutRecord {
        let key = EntityKey { entity: self.entity.into(), id: id.clone() };
        let carried = carried.filter(|(row, _)| row.len() <= MAX_CARRIED_BYTES);
        let hint = Hint {
            trigger: Trigger {
                key,
                op: Op::Read,
                scope: self.cause.scope().unwrap_or_default().to_owned(),
                row: None,
            },
            event: format!("{}-{number}", self.source),
            created_at: None,
            received_ms: self.at_ms,
            traceparent: None,
            carried_ms: carried.as_ref().map(|(_, at_ms)| *at_ms),
        };
        OutRecord {
            topic: self.intake.clone(),
            // By the key, as callbacks are: an entity has one partition.
            partition: None,
            key: Some(Bytes::from(hint.trigger.key.to_string())),
            headers: hint.headers(),
            value: Some(carried.map_or(Bytes::from_static(b"{}"), |(row, _)| row)),
            timestamp_ms: None,
        }
    }
}
