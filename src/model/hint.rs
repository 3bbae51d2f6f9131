//! A hint: "look at this entity again". The only thing that the intake topic carries, besides notes of what the
//! bridge wrote itself ([`super::written`]).
//!
//! Callbacks, polls, snapshots, sweeps and re-syncs all become hints, so that there is one path and one rule of
//! order. What is published is read after the hint was consumed, with one exception: a hint made from a row of a
//! list may carry that row, which is a read as well, together with the moment at which it began.

use std::borrow::Cow;

use bytes::Bytes;

use super::ids::{EntityId, EntityKey};
use super::record::InRecord;

/// What happened to the entity, as Debezium's one-letter codes have it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Op {
    /// Created.
    Create,
    /// Updated.
    Update,
    /// Deleted.
    Delete,
    /// Read without a cause in the store: a snapshot or a re-sync.
    Read,
}

impl Op {
    /// The code in the `bc_op` header.
    pub const fn code(self) -> &'static str {
        match self {
            Self::Create => "c",
            Self::Update => "u",
            Self::Delete => "d",
            Self::Read => "r",
        }
    }

    /// Reads the code of a header.
    pub fn from_code(code: &str) -> Option<Self> {
        [Self::Create, Self::Update, Self::Delete, Self::Read].into_iter().find(|op| op.code() == code)
    }

    /// The last word of a CloudEvents type: `com.bigcommerce.store.order.updated`.
    pub const fn participle(self) -> &'static str {
        match self {
            Self::Create => "created",
            Self::Update => "updated",
            Self::Delete => "deleted",
            Self::Read => "read",
        }
    }
}

/// What a callback says, once the catalogue understood it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trigger {
    /// The entity to look at.
    pub key: EntityKey,
    /// What is said to have happened.
    pub op: Op,
    /// The scope, as delivered.
    pub scope: String,
    /// Of a read that brings several rows, the one row that was meant; none means all.
    pub row: Option<EntityId>,
}

/// Why a hint was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Cause {
    /// A callback said so.
    Callback,
    /// A scheduled read found it.
    Poll,
    /// A snapshot lists it.
    Snapshot,
    /// A sweep found it changed, new or gone.
    Sweep,
    /// A person asked for it.
    Sync,
    /// The bridge looks again at what it published, since nothing proves that it was the newest state.
    Recheck,
}

impl Cause {
    /// All but callbacks, whose scope is BigCommerce's.
    const OWN: [(Self, &'static str); 5] = [
        (Self::Poll, "bridge/poll"),
        (Self::Snapshot, "bridge/snapshot"),
        (Self::Sweep, "bridge/sweep"),
        (Self::Sync, "bridge/sync"),
        (Self::Recheck, "bridge/recheck"),
    ];

    /// The scope of hints that the bridge makes itself; none for callbacks.
    pub fn scope(self) -> Option<&'static str> {
        Self::OWN.iter().find(|(cause, _)| *cause == self).map(|(_, scope)| *scope)
    }

    /// The cause of a hint with this scope.
    pub fn of_scope(scope: &str) -> Self {
        Self::OWN.iter().find(|(_, own)| *own == scope).map_or(Self::Callback, |(cause, _)| *cause)
    }
}

/// A hint as it stands on the intake topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hint {
    /// What to look at and why.
    pub trigger: Trigger,
    /// The id of the event: BigCommerce's `webhook-id`, else the intake position.
    pub event: String,
    /// When the store says that it happened, in seconds since the epoch.
    pub created_at: Option<i64>,
    /// When the bridge received it, in milliseconds since the epoch.
    pub received_ms: i64,
    /// W3C trace context of the callback.
    pub traceparent: Option<String>,
    /// The record's value is the row of a list, whose read began then, in milliseconds since the epoch.
    pub carried_ms: Option<i64>,
}

/// Header names of intake records.
pub mod header {
    /// BigCommerce's id of the callback.
    pub const EVENT: &str = "bc_event";
    /// The scope as delivered.
    pub const SCOPE: &str = "bc_scope";
    /// c, u, d or r.
    pub const OP: &str = "bc_op";
    /// The meant row of a read that brings several.
    pub const ROW: &str = "bc_row";
    /// When the store says that it happened, unix seconds.
    pub const CREATED_AT: &str = "bc_created_at";
    /// When the bridge received it, unix milliseconds.
    pub const RECEIVED_AT: &str = "bc_received_at";
    /// W3C trace context.
    pub const TRACEPARENT: &str = "traceparent";
    /// The value is a row whose read began then, unix milliseconds.
    pub const CARRIED_AT: &str = "bc_carried_at";
}

impl Hint {
    /// Why it was made.
    pub fn cause(&self) -> Cause {
        Cause::of_scope(&self.trigger.scope)
    }

    /// The headers of this hint's intake record.
    pub fn headers(&self) -> Vec<(Cow<'static, str>, Bytes)> {
        let text = |s: &str| Bytes::copy_from_slice(s.as_bytes());
        let mut headers = vec![
            (Cow::Borrowed(header::EVENT), text(&self.event)),
            (Cow::Borrowed(header::SCOPE), text(&self.trigger.scope)),
            (Cow::Borrowed(header::OP), text(self.trigger.op.code())),
            (Cow::Borrowed(header::RECEIVED_AT), text(&self.received_ms.to_string())),
        ];
        if let Some(at) = self.created_at {
            headers.push((Cow::Borrowed(header::CREATED_AT), text(&at.to_string())));
        }
        if let Some(row) = &self.trigger.row {
            headers.push((Cow::Borrowed(header::ROW), text(row.as_str())));
        }
        if let Some(parent) = &self.traceparent {
            headers.push((Cow::Borrowed(header::TRACEPARENT), text(parent)));
        }
        if let Some(at) = self.carried_ms {
            headers.push((Cow::Borrowed(header::CARRIED_AT), text(&at.to_string())));
        }
        headers
    }

    /// Reads a hint from an intake record; none if it is not one that the bridge wrote.
    pub fn from_record(record: &InRecord) -> Option<Self> {
        let key = EntityKey::parse(std::str::from_utf8(record.key.as_deref()?).ok()?).ok()?;
        let row = match record.header(header::ROW) {
            Some(row) => Some(EntityId::parse(row).ok()?),
            None => None,
        };
        let position = &record.position;
        Some(Self {
            trigger: Trigger {
                key,
                op: Op::from_code(record.header(header::OP)?)?,
                scope: record.header(header::SCOPE)?.to_owned(),
                row,
            },
            event: record
                .header(header::EVENT)
                .filter(|event| !event.is_empty())
                .map_or_else(|| format!("{}-{}", position.partition.number, position.offset), str::to_owned),
            created_at: record.header(header::CREATED_AT).and_then(|v| v.parse().ok()),
            received_ms: record
                .header(header::RECEIVED_AT)
                .and_then(|v| v.parse().ok())
                .or(record.timestamp_ms)
                .unwrap_or(0),
            traceparent: record.header(header::TRACEPARENT).map(str::to_owned),
            carried_ms: record.header(header::CARRIED_AT).and_then(|v| v.parse().ok()),
        })
    }
}
