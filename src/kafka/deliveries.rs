//! Delivery reports of a transaction, counted as they come. Fails nothing by itself: it keeps the first bad report
//! for whoever wants to commit.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError;
use rdkafka::message::DeliveryResult;
use rdkafka::producer::ProducerContext;

use super::settings::Ear;

/// Counts delivery reports: a transaction may be committed when each of its records has one, and all are good.
pub(super) struct Deliveries {
    pub(super) ear: Ear,
    pub(super) outstanding: AtomicUsize,
    pub(super) failure: Mutex<Option<(String, KafkaError)>>,
}

impl Default for Deliveries {
    fn default() -> Self {
        Self { ear: Ear::new("transact"), outstanding: AtomicUsize::new(0), failure: Mutex::new(None) }
    }
}

impl Deliveries {
    /// Forgets the reports of an aborted transaction.
    pub(super) fn start_counting(&self) {
        self.outstanding.store(0, Ordering::Relaxed);
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

impl ClientContext for Deliveries {
    fn log(&self, level: RDKafkaLogLevel, fac: &str, message: &str) {
        self.ear.hear(level, fac, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.ear.fail(&error, reason);
    }

    fn stats_raw(&self, _statistics: &[u8]) {}
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, _opaque: ()) {
        use rdkafka::Message as _;
        // Reports of purged records of an aborted transaction may come late.
        let _ = self.outstanding.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1));
        if let Err((error, message)) = result {
            let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
            // The first one is the cause; the others follow from it.
            failure.get_or_insert_with(|| (message.topic().to_owned(), error.clone()));
        }
    }
}
