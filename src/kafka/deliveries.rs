//! Delivery reports of a transaction, counted as they come. Fails nothing by itself: it keeps the first bad report
//! for whoever wants to commit.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::ProducerContext;

use super::settings::Ear;

/// Counts delivery reports: a transaction may be committed when each of its records has one, and all are good.
pub(super) struct Deliveries {
    pub(super) ear: Ear,
    pub(super) outstanding: AtomicUsize,
    failure: Mutex<Option<(String, KafkaError)>>,
}

impl Default for Deliveries {
    fn default() -> Self {
        Self { ear: Ear::new("transact"), outstanding: AtomicUsize::new(0), failure: Mutex::new(None) }
    }
}

impl Deliveries {
    /// Forgets what the transaction before this one came to; all of its reports must be in.
    pub(super) fn start_counting(&self) {
        self.outstanding.store(0, Ordering::Relaxed);
        self.first_failure();
    }

    /// Takes the topic and the error of the first bad report that is a cause, or else of the first.
    pub(super) fn first_failure(&self) -> Option<(String, KafkaError)> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).take()
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
        let _ = self.outstanding.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1));
        if let Err((error, message)) = result {
            let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
            if failure.as_ref().is_none_or(|(_, first)| is_consequence(first) && !is_consequence(error)) {
                *failure = Some((message.topic().to_owned(), error.clone()));
            }
        }
    }
}

/// Whether a record was given up only because another one of its transaction had failed: librdkafka then takes no
/// more, and gives back what waits, often before it gives the report of the one that failed.
pub(super) fn is_consequence(error: &KafkaError) -> bool {
    use RDKafkaErrorCode as C;
    matches!(error.rdkafka_error_code(), Some(C::State | C::PurgeQueue | C::PurgeInflight))
}
