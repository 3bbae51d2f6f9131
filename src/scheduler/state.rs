//! What the leader writes to the ledgers, and how the next leader reads it. Pure.
//!
//! Everything stands in the first partition of a store's ledger, under keys that begin with `scan/<store>/` or are
//! `hooks/<store>`. A value that cannot be read counts as not there: the work that it stood for is due again then.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::scan::Scan;
use super::schedule::{Marks, Slot};
use super::seen;
use crate::model::record::OutRecord;

/// What all keys of scans begin with.
pub const SCANS: &str = "scan/";
/// What all keys of subscriptions begin with.
pub const HOOKS: &str = "hooks/";

/// A scan with what is to happen at its end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Saved {
    /// The scan.
    #[serde(flatten)]
    pub scan: Scan,
    /// The slot that it was started for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slot: Option<Slot>,
}

/// What a signal started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// The signal's id.
    pub id: String,
    /// It repairs, rather than reads everything.
    pub is_sweep: bool,
    /// When it began, unix milliseconds.
    pub started_ms: i64,
    /// It rests.
    #[serde(default)]
    pub paused: bool,
    /// Entities that are not begun yet, the next one last.
    pub waiting: Vec<String>,
    /// Entities that are done.
    #[serde(default)]
    pub done: u64,
    /// Entities that failed.
    #[serde(default)]
    pub failed: Vec<String>,
    /// Hints made by scans that ended.
    #[serde(default)]
    pub hints: u64,
    /// Pages read by scans that ended.
    #[serde(default)]
    pub pages: u64,
    /// Rows that the ended scans read; none once the store did not tell.
    #[serde(default)]
    pub total: Option<u64>,
    /// When progress was told last, unix milliseconds.
    #[serde(default)]
    pub told_ms: i64,
}

/// What a look at the subscriptions left.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HookState {
    /// When, unix milliseconds.
    pub at_ms: i64,
    /// Whatever the look wants to know again.
    pub state: String,
}

/// All of one store.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct StoreState {
    /// By entity.
    pub marks: BTreeMap<String, Marks>,
    /// By id.
    pub scans: BTreeMap<String, Saved>,
    /// By signal.
    pub runs: BTreeMap<String, Run>,
    /// The ids that each scan met, by page.
    pub seen: BTreeMap<String, BTreeMap<u64, Vec<u64>>>,
    /// Of the subscriptions.
    pub hooks: Option<HookState>,
}

impl StoreState {
    /// Takes one value of the ledger of this store; whether it was one of the leader's.
    pub fn restore(&mut self, store: &str, key: &str, value: &[u8]) -> bool {
        if key.strip_prefix(HOOKS) == Some(store) {
            self.hooks = serde_json::from_slice(value).ok();
            return true;
        }
        let Some(rest) = key.strip_prefix(SCANS).and_then(|key| key.strip_prefix(store)) else {
            return false;
        };
        let mut parts = rest.strip_prefix('/').unwrap_or_default().splitn(3, '/');
        match (parts.next(), parts.next(), parts.next()) {
            (Some("marks"), Some(entity), None) => keep(&mut self.marks, entity, value),
            (Some("scan"), Some(id), None) => keep(&mut self.scans, id, value),
            (Some("run"), Some(id), None) => keep(&mut self.runs, id, value),
            (Some("seen"), Some(id), Some(page)) => {
                if let (Ok(page), Some(hashes)) = (page.parse(), seen::read(value)) {
                    self.seen.entry(id.to_owned()).or_default().insert(page, hashes);
                }
            }
            _ => return false,
        }
        true
    }
}

fn keep<T: serde::de::DeserializeOwned>(into: &mut BTreeMap<String, T>, name: &str, value: &[u8]) {
    if let Ok(value) = serde_json::from_slice(value) {
        into.insert(name.to_owned(), value);
    }
}

/// Writes records to the ledger of one store.
#[derive(Debug, Clone)]
pub struct Ledger {
    /// The store's name.
    pub store: Arc<str>,
    /// The topic.
    pub topic: Arc<str>,
}

impl Ledger {
    /// How an entity's schedule stands.
    pub fn marks(&self, entity: &str, marks: &Marks) -> OutRecord {
        self.json(&format!("marks/{entity}"), marks)
    }

    /// How a scan stands.
    pub fn scan(&self, scan: &Saved) -> OutRecord {
        self.json(&format!("scan/{}", scan.scan.id), scan)
    }

    /// How a run stands.
    pub fn run(&self, run: &Run) -> OutRecord {
        self.json(&format!("run/{}", run.id), run)
    }

    /// The ids that a scan met on a page.
    pub fn seen(&self, scan: &str, page: u64, hashes: &[u64]) -> OutRecord {
        self.record(format!("{SCANS}{}/seen/{scan}/{page}", self.store), Some(seen::write(hashes)))
    }

    /// Forgets a scan and the pages on which it noted ids.
    pub fn forget_scan(&self, scan: &str, pages: impl IntoIterator<Item = u64>) -> Vec<OutRecord> {
        let store = &self.store;
        let mut records = vec![self.record(format!("{SCANS}{store}/scan/{scan}"), None)];
        let seen = pages.into_iter().map(|page| format!("{SCANS}{store}/seen/{scan}/{page}"));
        records.extend(seen.map(|key| self.record(key, None)));
        records
    }

    /// Forgets a run.
    pub fn forget_run(&self, run: &str) -> OutRecord {
        self.record(format!("{SCANS}{}/run/{run}", self.store), None)
    }

    /// What a look at the subscriptions left.
    pub fn hooks(&self, state: &HookState) -> OutRecord {
        let value = serde_json::to_vec(state).expect("plain text is JSON");
        self.record(format!("{HOOKS}{}", self.store), Some(Bytes::from(value)))
    }

    fn json(&self, name: &str, value: &impl Serialize) -> OutRecord {
        let value = serde_json::to_vec(value).expect("plain numbers and text are JSON");
        self.record(format!("{SCANS}{}/{name}", self.store), Some(Bytes::from(value)))
    }

    fn record(&self, key: String, value: Option<Bytes>) -> OutRecord {
        OutRecord {
            topic: self.topic.clone(),
            partition: Some(0),
            key: Some(Bytes::from(key)),
            value,
            headers: vec![(Cow::Borrowed("content-type"), Bytes::from_static(b"application/json"))],
            timestamp_ms: None,
        }
    }
}
