//! What the scheduler needs besides the ports of `runtime`.

use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;

use super::scan::Kind;

/// Takes a key and its value, or none where a tombstone stands.
pub type Take = Box<dyn FnMut(&str, Option<&[u8]>) + Send>;

/// What can be known of a store's topics.
pub trait Topics: Send + Sync + 'static {
    /// Hints on the intake that the incoming path has not settled yet.
    ///
    /// # Errors
    /// The broker does not answer; one clause for people.
    fn backlog(&self, store: &str) -> impl Future<Output = Result<u64, String>> + Send;
    /// Hands every record of the store's ledger to `take`, all partitions, in order within each.
    ///
    /// # Errors
    /// Not all could be read; one clause for people.
    fn notes(&self, store: &str, take: Take) -> impl Future<Output = Result<(), String>> + Send;
}

/// What a look at a store's subscriptions found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Looked {
    /// What the next look is to know; kept in the ledger.
    pub state: Bytes,
    /// What callbacks have missed.
    pub gaps: Vec<Gap>,
    /// When to look again.
    pub next_look: std::time::Duration,
}

/// A time in which callbacks of some entities may be lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gap {
    /// The entities; none means all of the store.
    pub entities: Vec<String>,
    /// When it began, unix milliseconds.
    pub since_ms: i64,
}

/// Keeps a store subscribed.
pub trait Upkeep: Send + Sync + 'static {
    /// Looks at the subscriptions of a store and puts them right. `state` is what the last look left.
    fn look(&self, store: Arc<str>, state: Option<Bytes>) -> impl Future<Output = Looked> + Send;
}

/// What is counted.
pub trait Meter: Send + Sync + 'static {
    /// A page was read, and hints were made of it.
    fn page(&self, store: &str, entity: &str, kind: Kind, hints: usize);
    /// A scan ended: when it began and now, in unix milliseconds.
    fn done(&self, store: &str, entity: &str, kind: Kind, from_to_ms: (i64, i64));
    /// A scan failed, or a page of it has to be asked for again.
    fn failed(&self, store: &str, entity: &str, kind: Kind, is_final: bool);
    /// So many scans are under way.
    fn running(&self, store: &str, scans: usize);
    /// A signal was taken or refused.
    fn signal(&self, accepted: bool);
}
