//! From a verified callback to durable records: the receiver's intake, on Kafka.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use serde::Deserialize;
use tokio::sync::watch;

use super::load::InForce;
use crate::bigcommerce::StopReason;
use crate::catalog::Catalog;
use crate::incoming::decode::{IntakeTopics, Received, intake_records};
use crate::receiver::{Delivery, Intake, NotDurable};
use crate::runtime::ports::Append;

/// Appends callbacks to the intake topic of their store.
pub(super) struct KafkaIntake<A> {
    known: ArcSwap<Known>,
    appender: Arc<A>,
    /// Whose clients are told when their app was uninstalled.
    stores: watch::Receiver<Arc<InForce>>,
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
        stores: watch::Receiver<Arc<InForce>>,
    ) -> Self {
        let known = Known { catalog, topics, left: BTreeMap::new() };
        Self { known: ArcSwap::from_pointee(known), appender, stores }
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
        self.appender.append(records).await.map_err(|e| NotDurable { why: e.to_string() })?;
        if stops_store(&known.catalog, &received.body)
            && let Some(client) = self.stores.borrow().clients.get(&*delivery.store)
        {
            client.stop(StopReason::Uninstalled);
        }
        Ok(())
    }
}

/// Whether the store sends the bridge away with this callback: its token is void from now on. A process that does not
/// receive learns it from the API, which refuses the token.
fn stops_store(catalog: &Catalog, body: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Body<'a> {
        #[serde(borrow)]
        scope: Cow<'a, str>,
    }
    // Nearly every callback is about something else, and need not be parsed once more.
    let may_be = body.windows(WORD.len()).any(|window| window == WORD.as_bytes());
    may_be
        && serde_json::from_slice::<Body<'_>>(body)
            .is_ok_and(|body| catalog.scope(&body.scope).is_some_and(|(_, scope)| scope.stops_store))
}

/// The part of `store/app/uninstalled` that no way of writing JSON escapes without need.
const WORD: &str = "uninstalled";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_news_of_an_uninstalled_app_stops_its_store() {
        let catalog = Catalog::embedded().unwrap();
        for body in [
            r#"{"scope":"store/app/uninstalled","data":{}}"#,
            r#"{"data":{"scope":"x"},"scope":"store\/app\/uninstalled/"}"#,
        ] {
            assert!(stops_store(&catalog, body.as_bytes()), "{body}");
        }
        for body in [
            r#"{"scope":"store/product/updated","data":{"name":"uninstalled"}}"#,
            r#"{"scope":"store/app/uninstalled/not","data":{}}"#,
            r#"{"data":{"scope":"store/app/uninstalled"}}"#,
            "uninstalled",
            "",
        ] {
            assert!(!stops_store(&catalog, body.as_bytes()), "{body}");
        }
    }
}
