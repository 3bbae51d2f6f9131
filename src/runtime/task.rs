//! Named tasks: the only place that hands a future to tokio.
//!
//! A task without a name cannot be found in a log, and a panic that nobody joins vanishes. [`spawn`] gives every task
//! a span with its name and says once, with that name, that it panicked; the panic still reaches whoever joins the
//! handle. It never restarts anything: what a dead task means is its owner's decision (see
//! [`Lifecycle`](super::Lifecycle)).

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::panic::{self, AssertUnwindSafe};
use std::pin::pin;

use futures::FutureExt as _;
use tokio::task::JoinHandle;
use tracing::Instrument as _;

thread_local! {
    /// How many named tasks this thread is polling right now (more than one only when a runtime blocks in another).
    static POLLING: Cell<u32> = const { Cell::new(0) };
    /// Where the panic that is unwinding through a named task began; the hook leaves it here for the task's own log.
    static PANICKED_AT: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Runs `fut` as a task called `name`, inside a span that carries the name.
///
/// A panic is logged once, with the name, the message and (with [`install_panic_hook`]) the place; the returned handle
/// then yields the same panic as a `JoinError`. Dropping the handle detaches the task, as with tokio itself.
///
/// # Panics
/// Outside of a tokio runtime.
pub fn spawn<F>(name: &'static str, fut: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    let span = tracing::info_span!("task", task = name);
    #[expect(clippy::disallowed_methods, reason = "this is the one place that the ban points to")]
    tokio::spawn(watched(name, fut).instrument(span))
}

/// Replaces the process's panic hook, so that a panic is a line in the log and not loose text on stderr.
///
/// A panic inside of a named task is left to the task (which knows its name); any other one is logged here. Call once,
/// after the log is set up. The message is the programmer's text; it must not carry a secret or a customer's data.
pub fn install_panic_hook() {
    panic::set_hook(Box::new(|info| {
        let place = info.location().map_or_else(|| "an unknown place".to_owned(), ToString::to_string);
        if POLLING.with(Cell::get) > 0 {
            PANICKED_AT.with_borrow_mut(|at| *at = Some(place));
            return;
        }
        let thread = std::thread::current();
        let text = message(info.payload());
        tracing::error!(
            thread = thread.name().unwrap_or("unnamed"),
            place,
            panic = text,
            "a thread panicked: {text}"
        );
    }));
}

/// The text of a panic's payload, as far as it has one.
pub(super) fn message(payload: &(dyn Any + Send)) -> &str {
    if let Some(text) = payload.downcast_ref::<&'static str>() {
        return text;
    }
    payload.downcast_ref::<String>().map_or("a payload that is not text", String::as_str)
}

async fn watched<F: Future>(name: &'static str, fut: F) -> F::Output {
    let mut fut = pin!(AssertUnwindSafe(fut).catch_unwind());
    let ended = poll_fn(|cx| {
        let _polling = Polling::enter();
        fut.as_mut().poll(cx)
    })
    .await;
    match ended {
        Ok(output) => output,
        Err(payload) => {
            let place = PANICKED_AT.with_borrow_mut(Option::take).unwrap_or_default();
            let text = message(payload.as_ref());
            tracing::error!(task = name, place, panic = text, "task {name} panicked: {text}");
            panic::resume_unwind(payload)
        }
    }
}

/// Marks this thread as polling a named task for as long as it lives.
struct Polling;

impl Polling {
    fn enter() -> Self {
        POLLING.with(|depth| depth.set(depth.get().saturating_add(1)));
        Self
    }
}

impl Drop for Polling {
    fn drop(&mut self) {
        POLLING.with(|depth| depth.set(depth.get().saturating_sub(1)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::testing::captured;

    #[tokio::test]
    async fn a_task_gives_its_output_to_whoever_joins_it() {
        assert_eq!(spawn("adder", async { 40 + 2 }).await.unwrap(), 42);
    }

    #[test]
    fn a_panic_is_logged_once_with_the_name_of_its_task_and_still_reaches_the_owner() {
        let (joined, log) = captured(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(async { spawn("hydrator", async { panic!("lane {} is gone", 7) }).await })
        });
        let error = joined.map(|()| "no panic").unwrap_err();
        assert!(error.is_panic());
        assert_eq!(message(error.into_panic().as_ref()), "lane 7 is gone");
        let lines: Vec<_> = log.lines().filter(|line| line.contains("panicked")).collect();
        assert_eq!(lines.len(), 1, "{log}");
        assert!(lines[0].contains("task hydrator panicked: lane 7 is gone"), "{log}");
    }

    #[test]
    fn what_a_task_logs_carries_its_name() {
        let ((), log) = captured(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(async {
                spawn("sweeper", async { tracing::info!("one page read") }).await.unwrap();
            });
        });
        assert!(log.contains("one page read") && log.contains("sweeper"), "{log}");
    }

    #[tokio::test]
    async fn an_aborted_task_is_cancelled_and_not_a_panic() {
        let task = spawn("waiter", std::future::pending::<()>());
        task.abort();
        assert!(task.await.unwrap_err().is_cancelled());
    }
}
