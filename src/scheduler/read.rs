//! What a scan asks of the outside: a page of the store, or what stands in the ledger.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::Deserialize;

use super::page::{self, Page};
use super::plan::StorePlan;
use super::ports::Topics;
use super::scan::Scan;
use super::seen::{Ids, hash};
use super::stage::{Done, What};
use crate::incoming::stage::WallClock;
use crate::model::request::{Answer, Reply, Request};
use crate::runtime::ports::Store;

/// Suspects of one comparison; those beyond are found by the next.
const MAX_SUSPECTS: usize = 10_000;

/// Why a page could not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Failure {
    /// The store is busy or in trouble; worth another try.
    Later(Duration, String),
    /// The token is not valid.
    Unauthorized,
    /// There is no such list.
    Missing(u16),
    /// The list is refused as often as it is asked for: the status, and one clause.
    Refused(u16, String),
    /// The reply is not what the catalogue says, or the request cannot be made.
    Garbled(String),
}

/// One read of a page.
pub(super) struct Read<S> {
    /// Tells when it began.
    pub(super) clock: WallClock,
    /// The store.
    pub(super) plan: Arc<StorePlan<S>>,
    /// The scan.
    pub(super) id: String,
}

impl<S: Store> Read<S> {
    /// Sends the request and reads the reply.
    pub(super) async fn run(self, request: Result<Request, String>, scan: Scan) -> Done {
        let began_ms = (self.clock)();
        let result = match request {
            Ok(request) => self.page(self.plan.client.send(request).await, &scan),
            Err(detail) => Err(Failure::Garbled(detail)),
        };
        Done { store: self.plan.name.clone(), what: What::Page(self.id, began_ms, result) }
    }

    fn page(&self, reply: Reply, scan: &Scan) -> Result<Page, Failure> {
        let detail = || format!("status {}: {}", reply.status, reply.detail);
        match reply.answer {
            Answer::Done => {}
            Answer::Busy { after } => return Err(Failure::Later(after, detail())),
            Answer::Doubtful | Answer::Partial | Answer::Conflict => {
                return Err(Failure::Later(Duration::ZERO, detail()));
            }
            Answer::Unauthorized => return Err(Failure::Unauthorized),
            Answer::Missing => return Err(Failure::Missing(reply.status)),
            Answer::Forbidden | Answer::Invalid => return Err(Failure::Refused(reply.status, detail())),
        }
        let entry = self.plan.entries.get(&scan.entity);
        let levels = entry.and_then(|entry| entry.levels.as_deref()).unwrap_or_default();
        let frame = scan.stack.last().ok_or_else(|| Failure::Garbled("nothing was asked for".into()))?;
        let level = levels.get(frame.level).ok_or_else(|| Failure::Garbled("its list is gone".into()))?;
        page::read(level, &frame.places, &reply.body).map_err(Failure::Garbled)
    }
}

/// Hashes of all ids of an entity that are published and not gone.
pub(super) async fn published<K: Topics>(topics: &K, store: &str, entity: &str) -> Result<Arc<Ids>, String> {
    let ids = Arc::new(Mutex::new(Ids::default()));
    let (taken, prefix) = (ids.clone(), format!("read/{entity}/"));
    let take = move |key: &str, value: Option<&[u8]>| {
        let Some(id) = key.strip_prefix(&prefix) else { return };
        let mut ids = taken.lock().unwrap_or_else(PoisonError::into_inner);
        if value.is_some_and(is_there) { ids.add([hash(id)]) } else { ids.remove(hash(id)) }
    };
    topics.notes(store, Box::new(take)).await?;
    let ids = std::mem::take(&mut *ids.lock().unwrap_or_else(PoisonError::into_inner));
    Ok(Arc::new(ids))
}

/// The ids of an entity that are published, not gone, and were not met.
pub(super) async fn vanished<K: Topics>(
    topics: &K,
    store: &str,
    entity: &str,
    met: Arc<Ids>,
) -> Result<Vec<String>, String> {
    let found = Arc::new(Mutex::new(BTreeSet::new()));
    let (taken, prefix) = (found.clone(), format!("read/{entity}/"));
    let take = move |key: &str, value: Option<&[u8]>| {
        let Some(id) = key.strip_prefix(&prefix) else { return };
        let mut found = taken.lock().unwrap_or_else(PoisonError::into_inner);
        if !value.is_some_and(is_there) || met.has(hash(id)) {
            found.remove(id);
        } else if found.len() < MAX_SUSPECTS {
            found.insert(id.to_owned());
        }
    };
    topics.notes(store, Box::new(take)).await?;
    let found = std::mem::take(&mut *found.lock().unwrap_or_else(PoisonError::into_inner));
    Ok(found.into_iter().collect())
}

/// Whether the incoming path's note about an entity says that it was published and is not known to be gone.
fn is_there(note: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Note {
        #[serde(default, rename = "g")]
        gone: bool,
    }
    serde_json::from_slice(note).map_or(true, |note: Note| !note.gone)
}
