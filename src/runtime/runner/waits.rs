//! What the loop waits for, and what it weighs.

use std::time::Instant;

use crate::model::record::InRecord;
use crate::runtime::ports::{Consume, Consumed};

/// The event that was held back, else the consumer's next.
pub(super) async fn next_event<C: Consume>(
    held: &mut Option<Consumed>,
    consumer: &mut C,
) -> Result<Consumed, C::Error> {
    match held.take() {
        Some(event) => Ok(event),
        None => consumer.next().await,
    }
}

/// Never, without a time.
pub(super) async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

/// Bytes of a record, as far as they count.
pub(super) fn size_of(record: &InRecord) -> usize {
    let headers: usize = record.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
    record.key.as_ref().map_or(0, bytes::Bytes::len)
        + record.value.as_ref().map_or(0, bytes::Bytes::len)
        + headers
}
