//! From a verified callback to durable records: the receiver's intake, on Kafka.

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::catalog::Catalog;
use crate::incoming::decode::{IntakeTopics, Received, intake_records};
use crate::receiver::{Delivery, Intake, NotDurable};
use crate::runtime::ports::Append;

/// Appends callbacks to the intake topic of their store.
pub(super) struct KafkaIntake<A> {
    known: ArcSwap<Known>,
    appender: Arc<A>,
}

/// What a reload replaces.
struct Known {
    catalog: Arc<Catalog>,
    topics: BTreeMap<Arc<str>, IntakeTopics>,
    /// Of stores that left with the last reload, for the callbacks that were let in before.
    left: BTreeMap<Arc<str>, IntakeTopics>,
}

impl<A> KafkaIntake<A> {
    /// An intake for these stores, by name.
    pub(super) fn new(
        catalog: Arc<Catalog>,
        topics: BTreeMap<Arc<str>, IntakeTopics>,
        appender: Arc<A>,
    ) -> Self {
        let known = Known { catalog, topics, left: BTreeMap::new() };
        Self { known: ArcSwap::from_pointee(known), appender }
    }

    /// Takes these stores' callbacks from now on. Those of before are taken until the next reload.
    pub(super) fn learn(&self, catalog: Arc<Catalog>, topics: BTreeMap<Arc<str>, IntakeTopics>) {
        let left = self.known.load().topics.clone();
        self.known.store(Arc::new(Known { catalog, topics, left }));
    }
}

impl<A: Append> Intake for KafkaIntake<A> {
    async fn append(&self, delivery: Delivery) -> Result<(), NotDurable> {
        let known = self.known.load_full();
        let Some(topics) = known.topics.get(&delivery.store).or_else(|| known.left.get(&delivery.store))
        else {
            return Err(NotDurable { why: format!("store {} has no intake topic", delivery.store) });
        };
        let received = Received {
            event_id: delivery.event_id,
            body: delivery.body,
            received_ms: delivery.received_ms,
            traceparent: delivery.traceparent,
        };
        let records = intake_records(&known.catalog, topics, &received);
        self.appender.append(records).await.map_err(|e| NotDurable { why: e.to_string() })
    }
}
