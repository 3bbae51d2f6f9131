//! The event ids that this process made durable lately, so that a repeat costs nothing.
//!
//! It only ever saves work: an id is remembered after its callback became durable, and forgetting one costs a second
//! append that later stages drop. It goes by the signed event id alone; the `hash` in a body may be shared by two
//! different changes, and so never counts.

use super::verify::EventId;
use quick_cache::sync::Cache;
use std::hash::{BuildHasher as _, RandomState};

/// A bounded memory of durable ids.
pub(super) struct Seen {
    ids: Cache<u128, ()>,
    /// Two independent keyed hashes make a fingerprint of 128 bits: a chance likeness would lose a callback, and
    /// among 200,000 ids it comes once in 10^33.
    hashers: [RandomState; 2],
}

/// What a callback turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Arrival {
    /// It was made durable by this call.
    New,
    /// It had been made durable before.
    Repeat,
}

impl Seen {
    pub(super) fn new(capacity: usize) -> Self {
        Self { ids: Cache::new(capacity.max(1)), hashers: [RandomState::new(), RandomState::new()] }
    }

    /// Runs `append` unless the id is durable already. Of several at once with one id, one appends and the others
    /// wait for it; if it fails, the next tries.
    ///
    /// # Errors
    /// That of `append`; nothing is then remembered.
    pub(super) async fn once<E>(
        &self,
        store: &str,
        id: &EventId,
        append: impl Future<Output = Result<(), E>>,
    ) -> Result<Arrival, E> {
        let key = self.fingerprint(store, id);
        match self.ids.get_value_or_guard_async(&key).await {
            Ok(()) => Ok(Arrival::Repeat),
            Err(guard) => {
                append.await?;
                // Refused only if the entry was taken out meanwhile; then the id is merely not remembered.
                let _ = guard.insert(());
                Ok(Arrival::New)
            }
        }
    }

    fn fingerprint(&self, store: &str, id: &EventId) -> u128 {
        let [high, low] = self.hashers.each_ref().map(|hasher| hasher.hash_one((store, id.as_str())));
        (u128::from(high) << 64) | u128::from(low)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    fn id(text: &str) -> EventId {
        EventId::parse(text.as_bytes()).unwrap()
    }

    #[tokio::test]
    async fn an_id_is_appended_once_for_each_store() {
        let seen = Seen::new(100);
        let ok = || async { Ok::<(), ()>(()) };
        assert_eq!(seen.once("a", &id("1"), ok()).await, Ok(Arrival::New));
        assert_eq!(seen.once("a", &id("1"), ok()).await, Ok(Arrival::Repeat));
        assert_eq!(seen.once("b", &id("1"), ok()).await, Ok(Arrival::New));
        assert_eq!(seen.once("a", &id("2"), ok()).await, Ok(Arrival::New));
    }

    #[tokio::test]
    async fn a_failed_append_is_not_remembered() {
        let seen = Seen::new(100);
        assert_eq!(seen.once("a", &id("1"), async { Err::<(), u8>(7) }).await, Err(7));
        assert_eq!(seen.once("a", &id("1"), async { Ok::<(), u8>(()) }).await, Ok(Arrival::New));
    }

    #[tokio::test]
    async fn copies_that_arrive_together_are_appended_once() {
        let (seen, appends, id) = (Seen::new(100), AtomicU32::new(0), id("1"));
        let one = || {
            seen.once("a", &id, async {
                tokio::task::yield_now().await;
                appends.fetch_add(1, Ordering::Relaxed);
                Ok::<(), ()>(())
            })
        };
        let ends = futures::future::join_all((0..50).map(|_| one())).await;
        assert_eq!(appends.load(Ordering::Relaxed), 1);
        assert_eq!(ends.iter().filter(|end| **end == Ok(Arrival::New)).count(), 1);
    }

    #[tokio::test]
    async fn the_memory_is_bounded() {
        let seen = Seen::new(100);
        for n in 0..10_000_u32 {
            seen.once("a", &id(&n.to_string()), async { Ok::<(), ()>(()) }).await.unwrap();
        }
        assert!(seen.ids.len() <= 200, "{}", seen.ids.len());
    }
}
