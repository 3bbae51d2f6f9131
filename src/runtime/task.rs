//! Named tasks: the one place that hands work to tokio, so that every task has a name in the logs.

use std::future::Future;

use tokio::task::JoinHandle;
use tracing::Instrument as _;

/// Starts `fut` as a task called `name`; the name becomes a span around everything the task logs.
#[allow(clippy::disallowed_methods, reason = "this is the place the ban points to")]
pub fn spawn<F>(name: &'static str, fut: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    tokio::spawn(fut.instrument(tracing::debug_span!("task", name)))
}
