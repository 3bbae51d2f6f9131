//! What readers of the output topics see.

use crate::model::record::OutRecord;

/// A record on an output topic that readers see.
pub(super) struct Visible {
    pub(super) record: OutRecord,
    /// Milliseconds when it became visible.
    pub(super) at_ms: i64,
}

/// The text of an outgoing record's header.
pub(super) fn text<'a>(record: &'a OutRecord, name: &str) -> Option<&'a str> {
    let found = record.headers.iter().find(|(found, _)| found == name)?;
    std::str::from_utf8(&found.1).ok()
}
