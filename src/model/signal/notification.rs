//! What the bridge tells of a signal and of the work that it started.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// What the bridge tells: how a signal was taken, how far its work is, how it ended.
///
/// Counts are totals since the work began, so that the newest notification is enough.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notification {
    /// The id of the signal that is answered, or of the snapshot, sweep or sync that reports (which is the id of
    /// the signal that started it).
    pub id: String,
    /// What is told.
    #[serde(rename = "type")]
    pub kind: Kind,
    /// The store; none where a refused signal named none.
    pub store: Option<String>,
    /// The entity that this is about; none: the whole.
    #[serde(default)]
    pub entity: Option<String>,
    /// Rows handled: entities found by a snapshot, repaired by a sweep, asked for by a sync; dead letters replayed
    /// or deleted.
    #[serde(default)]
    pub rows: u64,
    /// Rows to handle in all, where the store tells.
    #[serde(default)]
    pub total: Option<u64>,
    /// Pages read.
    #[serde(default)]
    pub pages: u64,
    /// Requests sent to the store.
    #[serde(default)]
    pub calls: u64,
    /// When the work began.
    #[serde(default, with = "rfc3339::maybe")]
    pub started_at: Option<Timestamp>,
    /// When this was told.
    #[serde(with = "rfc3339")]
    pub at: Timestamp,
    /// One clause for people, without any customer's data.
    #[serde(default)]
    pub detail: Option<String>,
}

impl Notification {
    /// One that tells nothing but its kind; the rest is for the caller to fill in.
    pub fn new(id: impl Into<String>, kind: Kind, store: Option<&str>, at: Timestamp) -> Self {
        Self {
            id: id.into(),
            kind,
            store: store.map(str::to_owned),
            entity: None,
            rows: 0,
            total: None,
            pages: 0,
            calls: 0,
            started_at: None,
            at,
            detail: None,
        }
    }

    /// The key of its record: `<store>/<id>`, and `-` for a store that is not known.
    pub fn key(&self) -> String {
        format!("{}/{}", self.store.as_deref().unwrap_or("-"), self.id)
    }

    /// Whether it is the last that is told under its id.
    pub fn is_end(&self) -> bool {
        self.entity.is_none() && self.kind.is_end()
    }
}

/// What a notification tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Kind {
    /// The signal is being carried out, or was.
    #[serde(rename = "accepted")]
    Accepted,
    /// The signal is wrong or cannot be carried out; the detail says why.
    #[serde(rename = "rejected")]
    Rejected,
    /// How far a snapshot is.
    #[serde(rename = "snapshot.progress")]
    SnapshotProgress,
    /// A snapshot rests.
    #[serde(rename = "snapshot.paused")]
    SnapshotPaused,
    /// All was read: of the entity that is named, else of all.
    #[serde(rename = "snapshot.done")]
    SnapshotDone,
    /// Given up; the detail says why.
    #[serde(rename = "snapshot.failed")]
    SnapshotFailed,
    /// Ended by a signal.
    #[serde(rename = "snapshot.stopped")]
    SnapshotStopped,
    /// How far a sweep is.
    #[serde(rename = "sweep.progress")]
    SweepProgress,
    /// All was compared.
    #[serde(rename = "sweep.done")]
    SweepDone,
    /// Given up; the detail says why.
    #[serde(rename = "sweep.failed")]
    SweepFailed,
    /// The hints of a sync stand on the intake topic.
    #[serde(rename = "sync.done")]
    SyncDone,
    /// Given up; the detail says why.
    #[serde(rename = "sync.failed")]
    SyncFailed,
    /// Dead letters were put back on their topics; the detail says how many were not, and why.
    #[serde(rename = "dlq.replayed")]
    DlqReplayed,
    /// Dead letters were deleted.
    #[serde(rename = "dlq.purged")]
    DlqPurged,
}

impl Kind {
    /// The name, as it is written.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Rejected => "rejected",
            Self::SnapshotProgress => "snapshot.progress",
            Self::SnapshotPaused => "snapshot.paused",
            Self::SnapshotDone => "snapshot.done",
            Self::SnapshotFailed => "snapshot.failed",
            Self::SnapshotStopped => "snapshot.stopped",
            Self::SweepProgress => "sweep.progress",
            Self::SweepDone => "sweep.done",
            Self::SweepFailed => "sweep.failed",
            Self::SyncDone => "sync.done",
            Self::SyncFailed => "sync.failed",
            Self::DlqReplayed => "dlq.replayed",
            Self::DlqPurged => "dlq.purged",
        }
    }

    /// Whether nothing more is told after it, when it is about the whole.
    pub const fn is_end(self) -> bool {
        match self {
            Self::Accepted | Self::SnapshotProgress | Self::SnapshotPaused | Self::SweepProgress => false,
            Self::Rejected
            | Self::SnapshotDone
            | Self::SnapshotFailed
            | Self::SnapshotStopped
            | Self::SweepDone
            | Self::SweepFailed
            | Self::SyncDone
            | Self::SyncFailed
            | Self::DlqReplayed
            | Self::DlqPurged => true,
        }
    }

    /// Whether it tells of something that did not happen as it was asked.
    pub const fn is_failure(self) -> bool {
        matches!(self, Self::Rejected | Self::SnapshotFailed | Self::SweepFailed | Self::SyncFailed)
    }

    /// Whether it is about a snapshot.
    pub const fn is_of_a_snapshot(self) -> bool {
        matches!(
            self,
            Self::SnapshotProgress
                | Self::SnapshotPaused
                | Self::SnapshotDone
                | Self::SnapshotFailed
                | Self::SnapshotStopped
        )
    }
}

/// Times as RFC 3339 has them, in UTC.
mod rfc3339 {
    use jiff::Timestamp;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(at: &Timestamp, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(at)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Timestamp, D::Error> {
        String::deserialize(from)?.parse().map_err(D::Error::custom)
    }

    /// The same where a time may be missing.
    pub(super) mod maybe {
        use jiff::Timestamp;
        use serde::{Deserialize, Deserializer, Serializer, de::Error};

        pub(in super::super) fn serialize<S: Serializer>(
            at: &Option<Timestamp>,
            to: S,
        ) -> Result<S::Ok, S::Error> {
            match at {
                Some(at) => to.collect_str(at),
                None => to.serialize_none(),
            }
        }

        pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
            from: D,
        ) -> Result<Option<Timestamp>, D::Error> {
            let text = Option::<String>::deserialize(from)?;
            text.map(|text| text.parse().map_err(D::Error::custom)).transpose()
        }
    }
}
