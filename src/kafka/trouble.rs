//! What a failure inside a transaction means: which call is repeated, what is aborted, and when the producer has had
//! its day (RELIABILITY K7, K8).

use std::time::{Duration, Instant};

use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, Producer as _};

use super::append::is_refusal;
use super::deliveries::Deliveries;
use crate::runtime::ports::NotCommitted;

/// How a step inside a transaction failed, and what has to be done about it.
pub(super) enum Trouble {
    /// Abort, then say this.
    Abort(NotCommitted),
    /// The result is indefinite: destroy the producer.
    Indefinite(String),
    /// Somebody else has the id.
    Fenced(String),
    /// Destroy the producer and say this.
    Fatal(String),
}

/// A record that was not delivered, for whatever reason, aborts its transaction.
pub(super) fn undeliverable(producer: &BaseProducer<Deliveries>, error: &KafkaError, topic: &str) -> Trouble {
    // A producer that is fenced purges its queue: the reports then tell of the purge, not of the reason.
    if let Some((code, reason)) = producer.client().fatal_error() {
        return if is_fencing(code) { Trouble::Fenced(reason) } else { Trouble::Fatal(reason) };
    }
    let text = format!("a record for {topic} was not delivered: {error}");
    match error.rdkafka_error_code() {
        Some(code) if is_refusal(code) => Trouble::Abort(NotCommitted::Refused(text)),
        _ => Trouble::Abort(NotCommitted::Aborted(text)),
    }
}

/// Another producer has initialised our transactional.id.
fn is_fencing(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode as C;
    matches!(code, C::Fenced | C::ProducerFenced | C::InvalidProducerEpoch)
}

/// Calls until the result is definite or the deadline has passed (K7).
pub(super) fn retry(
    deadline: Instant,
    mut call: impl FnMut(Duration) -> Result<(), KafkaError>,
) -> Result<(), Trouble> {
    /// Between tries that fail at once.
    const PAUSE: Duration = Duration::from_millis(20);
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let error = match call(left.max(Duration::from_millis(1))) {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        match judge(&error) {
            Judgement::Final(trouble) => return Err(trouble),
            Judgement::SameAgain if Instant::now() + PAUSE < deadline => std::thread::sleep(PAUSE),
            Judgement::SameAgain => return Err(Trouble::Indefinite(error.to_string())),
        }
    }
}

enum Judgement {
    SameAgain,
    Final(Trouble),
}

fn judge(error: &KafkaError) -> Judgement {
    use RDKafkaErrorCode as C;
    let text = error.to_string();
    let KafkaError::Transaction(inner) = error else {
        // Only the flush before a commit answers otherwise, and only when it runs out of time.
        return Judgement::SameAgain;
    };
    let code = inner.code();
    if inner.is_fatal() {
        return Judgement::Final(if is_fencing(code) { Trouble::Fenced(text) } else { Trouble::Fatal(text) });
    }
    if inner.txn_requires_abort() {
        let membership = matches!(
            code,
            C::IllegalGeneration
                | C::UnknownMemberId
                | C::FencedInstanceId
                | C::RebalanceInProgress
                | C::FencedMemberEpoch
                | C::StaleMemberEpoch
        );
        let outcome = match code {
            _ if membership => NotCommitted::Fenced(text),
            C::GroupAuthorizationFailed | C::OffsetMetadataTooLarge | C::InvalidCommitOffsetSize => {
                NotCommitted::Refused(text)
            }
            _ if is_refusal(code) => NotCommitted::Refused(text),
            _ => NotCommitted::Aborted(text),
        };
        return Judgement::Final(Trouble::Abort(outcome));
    }
    if inner.is_retriable() { Judgement::SameAgain } else { Judgement::Final(Trouble::Fatal(text)) }
}
