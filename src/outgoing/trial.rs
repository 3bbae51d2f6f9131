//! A record through mapping, checks and plan, and no further: for the tests that stand in the settings.
//!
//! Pure. It goes the way of a real record, so what passes here is a command there.

use serde_json::Value;

use super::decode::{self, Fixed};
use super::transform::{Made, Mapping};
use super::{dry, plan};
use crate::catalog::Catalog;
use crate::model::dead_letter::FailedAt;
use crate::model::reason::Reason;
use crate::model::record::InRecord;

/// What becomes of a record.
#[derive(Debug, Clone, PartialEq)]
pub enum Trial {
    /// The filter leaves it out.
    LeftOut,
    /// It ends as a dead letter.
    Refused {
        /// What the expressions made of it, if they got so far.
        made: Option<Value>,
        /// Why.
        reason: Reason,
        /// One clause.
        detail: String,
    },
    /// It is a command.
    Command {
        /// What the expressions made of it.
        made: Value,
        /// What it would send, as in the result of a dry run.
        request: Value,
    },
}

/// Tries a record of a topic.
pub fn trial(record: &InRecord, catalog: &Catalog, fixed: Option<&Fixed>, mapping: &Mapping) -> Trial {
    let made = match mapping.apply(record, &mut FailedAt::Value) {
        Ok(Made::Nothing) => return Trial::LeftOut,
        Ok(Made::Object(object)) => Some(object),
        Ok(Made::AsIs) => record.value.as_deref().and_then(|value| serde_json::from_slice(value).ok()),
        Err((reason, detail)) => return Trial::Refused { made: None, reason, detail },
    };
    let command = match decode::decode(record, catalog, fixed, mapping) {
        Ok(None) => return Trial::LeftOut,
        Ok(Some(command)) => command,
        Err(refusal) => {
            let (reason, detail) = (refusal.reason, refusal.detail);
            return Trial::Refused { made, reason, detail };
        }
    };
    let planned = plan::plan(&command).and_then(|plan| dry::would_send(&command, &plan));
    match planned {
        Ok(sent) => Trial::Command {
            made: made.unwrap_or_default(),
            request: serde_json::to_value(sent).unwrap_or_default(),
        },
        Err((reason, detail)) => Trial::Refused { made, reason, detail },
    }
}
