//! From a verified callback to durable records: the receiver's intake, on Kafka.

use std::collections::BTreeMap;
use std::sync::Arc;

use tracing::warn;

use crate::catalog::Catalog;
use crate::incoming::decode::{IntakeTopics, Received, intake_records, stops_store};
use crate::receiver::{Delivery, Intake, NotDurable};
use crate::runtime::ports::Append;

/// Appends callbacks to the intake topic of their store.
pub(super) struct KafkaIntake<A> {
    catalog: Arc<Catalog>,
    topics: BTreeMap<Arc<str>, IntakeTopics>,
    appender: Arc<A>,
}

impl<A> KafkaIntake<A> {
    /// An intake for these stores, by name.
    pub(super) fn new(
        catalog: Arc<Catalog>,
        topics: BTreeMap<Arc<str>, IntakeTopics>,
        appender: Arc<A>,
    ) -> Self {
        Self { catalog, topics, appender }
    }
}

impl<A: Append> Intake for KafkaIntake<A> {
    async fn append(&self, delivery: Delivery) -> Result<(), NotDurable> {
        let Some(topics) = self.topics.get(&delivery.store) else {
            return Err(NotDurable { why: format!("store {} has no intake topic", delivery.store) });
        };
        let received = Received {
            event_id: delivery.event_id,
            body: delivery.body,
            received_ms: delivery.received_ms,
            traceparent: delivery.traceparent,
        };
        let records = intake_records(&self.catalog, topics, &received);
        self.appender.append(records).await.map_err(|e| NotDurable { why: e.to_string() })?;
        if stops_store(&self.catalog, &received.body) {
            warn!(store = %delivery.store, "the app was uninstalled: the store's token is void from now on");
        }
        Ok(())
    }
}
