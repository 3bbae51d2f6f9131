//! Commands to the store and their results, as they stand on Kafka.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// The value of a command record.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Command {
    /// The idempotency key; default: where the record stands, as `topic/partition/offset`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The entity's name or alias in the catalogue.
    pub entity: String,
    /// `create`, `update`, `upsert`, `delete` or a named action of the entity.
    pub action: String,
    /// Ids of the path by name, such as `product_id`; numbers or texts.
    #[serde(default, skip_serializing_if = "serde_json::Map::is_empty")]
    pub path: serde_json::Map<String, serde_json::Value>,
    /// Query parameters.
    #[serde(default, skip_serializing_if = "serde_json::Map::is_empty")]
    pub query: serde_json::Map<String, serde_json::Value>,
    /// The body, passed on byte for byte where the endpoint takes it as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload: Option<Box<RawValue>>,
    /// Written only if the thing did not change after this date (RFC 3339 or RFC 2822).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub if_unmodified_since: Option<String>,
    /// Written only if the thing has this version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected_version: Option<String>,
}

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// Done.
    Applied,
    /// Refused, by the bridge or by the store; nothing changed.
    Rejected,
    /// Partly done; the body says which part.
    Partial,
    /// It may or may not have been done; parked for a person.
    Unknown,
    /// Given up; the record is a dead letter.
    Dead,
    /// Checked and planned on a route that sends nothing.
    #[serde(rename = "dry_run")]
    DryRun,
}

impl Outcome {
    /// The stable name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Rejected => "rejected",
            Self::Partial => "partial",
            Self::Unknown => "unknown",
            Self::Dead => "dead",
            Self::DryRun => "dry_run",
        }
    }
}

/// The value of a result record.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CommandResult {
    /// The command's id.
    pub id: String,
    /// The command's entity, as the catalogue names it; as given where it is unknown.
    pub entity: Option<String>,
    /// The command's action.
    pub action: Option<String>,
    /// How it ended.
    pub outcome: Outcome,
    /// The last HTTP status, if a reply came.
    pub status: Option<u16>,
    /// The id of the thing that was written, where the reply or the path tells it.
    pub resource_id: Option<String>,
    /// The reply's body: JSON as it came, or text.
    pub body: Option<Box<RawValue>>,
    /// BigCommerce's id of the request.
    pub request_id: Option<String>,
    /// How often it was sent.
    pub attempts: u32,
    /// A, B or C; see `catalog::Class`.
    pub class: Option<String>,
    /// Why, when it was not applied.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reason: Option<String>,
    /// One clause for people, when it was not applied.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub detail: Option<String>,
    /// Of a dry run: what would have been sent.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub request: Option<Box<RawValue>>,
}
