//! Named tasks: the only place that spawns.
//!
//! Every task carries a name in its span, so that a log line says which part of the process spoke.

use tokio::task::JoinHandle;
use tracing::Instrument as _;

/// Starts `fut` on the runtime under `name`; the name is the span of everything it logs.
#[allow(clippy::disallowed_methods)]
pub fn spawn<F>(name: &'static str, fut: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    tokio::spawn(fut.instrument(tracing::debug_span!("task", name)))
}
