//! Named tasks.

use std::future::Future;

use tokio::task::JoinHandle;
use tracing::Instrument;

/// Starts a task under a name that shows in logs.
#[allow(clippy::disallowed_methods, reason = "the one place that spawns")]
pub fn spawn<F>(name: &'static str, future: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    tokio::spawn(future.instrument(tracing::debug_span!("task", name)))
}
