//! The life of the process: components run until somebody asks them to stop, and then they drain in order.
//!
//! A component that ends uninvited (done, failed or panicked) is a failure of the process: the others are drained and
//! the first one is reported, instead of a service that looks alive and does half of its work. Nothing is restarted
//! here; the supervisor of the process (systemd, Kubernetes) does that. A drain never takes longer than
//! [`DRAIN_DEADLINE`]: who is late is cut off and named.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use tokio::task::{JoinError, JoinHandle};
use tokio::time::Instant;

use super::drain::{Drain, DrainTrigger};
use super::task::{message, spawn};

/// The time from the request to stop to the end of the process. Kubernetes kills after 30 s by default, so this leaves
/// 5 s for what surrounds the drain.
pub const DRAIN_DEADLINE: Duration = Duration::from_secs(25);

/// The time kept back for each component that has not yet been asked to drain: enough to commit and leave a consumer
/// group, so that a slow component cannot take the turn of those behind it.
const KEPT_FOR_EACH: Duration = Duration::from_secs(2);

type BoxError = Box<dyn std::error::Error + Send + Sync>;
type Outcome = Result<Result<(), BoxError>, JoinError>;

/// Why the process cannot go on, or did not stop cleanly.
#[derive(Debug, thiserror::Error)]
pub enum LifecycleError {
    /// A component returned although nobody had asked it to drain.
    #[error("component {name} ended without being asked to")]
    Ended {
        /// The component.
        name: &'static str,
    },
    /// A component returned an error, before or during the drain.
    #[error("component {name} failed")]
    Failed {
        /// The component.
        name: &'static str,
        /// What it said.
        source: BoxError,
    },
    /// A component panicked, before or during the drain.
    #[error("component {name} panicked: {message}")]
    Panicked {
        /// The component.
        name: &'static str,
        /// The text of the panic.
        message: String,
    },
    /// Components were cut off because the time to drain was over.
    #[error("{} did not drain within {} s", .names.join(", "), .within.as_secs())]
    Late {
        /// The components that were cut off.
        names: Vec<&'static str>,
        /// The time that all had together.
        within: Duration,
    },
}

/// The components of a process, in the order of their start.
///
/// Start what others rely on first and the edge that takes work in last: they drain in the **reverse** order, so the
/// tap is closed before the tank is emptied, and the console can still tell what goes on until the end.
#[derive(Debug, Default)]
pub struct Lifecycle {
    components: Vec<Component>,
}

#[derive(Debug)]
struct Component {
    name: &'static str,
    trigger: DrainTrigger,
    task: JoinHandle<Result<(), BoxError>>,
}

impl Lifecycle {
    /// No component yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Starts a component as a task called `name`. `build` receives the handle that says when it should finish.
    pub fn start<F, Fut, E>(&mut self, name: &'static str, build: F)
    where
        F: FnOnce(Drain) -> Fut,
        Fut: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<BoxError>,
    {
        let (trigger, drain) = Drain::switch();
        let component = build(drain);
        let task = spawn(name, async move { component.await.map_err(Into::into) });
        self.components.push(Component { name, trigger, task });
    }

    /// Runs until `stop` ends or a component does, then drains every component in the reverse order of their start.
    ///
    /// # Errors
    /// The first trouble: a component that ended uninvited, one that failed or panicked while draining, or those that
    /// were cut off at [`DRAIN_DEADLINE`]. Later ones are in the log.
    pub async fn run(mut self, stop: impl Future<Output = ()>) -> Result<(), LifecycleError> {
        let uninvited = tokio::select! {
            biased;
            trouble = first_to_end(&mut self.components) => Some(trouble),
            () = stop => None,
        };
        if let Some(trouble) = &uninvited {
            tracing::error!("{trouble}; draining the other components");
        }
        let drained = self.drain(DRAIN_DEADLINE).await;
        match uninvited {
            Some(trouble) => Err(trouble),
            None => drained,
        }
    }

    async fn drain(mut self, within: Duration) -> Result<(), LifecycleError> {
        let deadline = Instant::now() + within;
        let mut first = Ok(());
        let mut late: Vec<Component> = Vec::new();
        while let Some(mut component) = self.components.pop() {
            let waiting = u32::try_from(self.components.len()).unwrap_or(u32::MAX);
            let turn_ends = deadline.checked_sub(KEPT_FOR_EACH.saturating_mul(waiting)).unwrap_or(deadline);
            component.trigger.request();
            match tokio::time::timeout_at(turn_ends, Pin::new(&mut component.task)).await {
                Ok(outcome) => keep_first(&mut first, invited(component.name, outcome)),
                Err(_) => {
                    tracing::warn!(component = component.name, "{} is slow to drain", component.name);
                    late.push(component);
                }
            }
        }
        let names = cut_off(late, deadline, &mut first).await;
        if !names.is_empty() {
            keep_first(&mut first, Err(LifecycleError::Late { names, within }));
        }
        first
    }
}

/// Catches SIGTERM and SIGINT from this call on; the future ends with the name of the first one that arrives.
///
/// # Errors
/// When the process may not install a handler.
///
/// # Panics
/// Outside of a tokio runtime.
pub fn stop_signal() -> std::io::Result<impl Future<Output = &'static str>> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        }
    })
}

/// Waits for the first component that ends by itself, takes it out of the list and says why that is trouble.
async fn first_to_end(components: &mut Vec<Component>) -> LifecycleError {
    if components.is_empty() {
        return std::future::pending().await;
    }
    let (outcome, index, _) =
        futures::future::select_all(components.iter_mut().map(|component| &mut component.task)).await;
    let name = components.remove(index).name;
    invited(name, outcome).err().unwrap_or(LifecycleError::Ended { name })
}

/// Gives the late ones what is left of the time, then cuts them off. Returns the names of those.
async fn cut_off(
    late: Vec<Component>,
    deadline: Instant,
    first: &mut Result<(), LifecycleError>,
) -> Vec<&'static str> {
    let mut names = Vec::new();
    for mut component in late {
        match tokio::time::timeout_at(deadline, Pin::new(&mut component.task)).await {
            Ok(outcome) => keep_first(first, invited(component.name, outcome)),
            Err(_) => {
                component.task.abort();
                tracing::error!(component = component.name, "{} was cut off while draining", component.name);
                names.push(component.name);
            }
        }
    }
    names
}

/// What the end of a component means when it was asked to end.
fn invited(name: &'static str, outcome: Outcome) -> Result<(), LifecycleError> {
    match outcome {
        Ok(Ok(())) => Ok(()),
        Ok(Err(source)) => Err(LifecycleError::Failed { name, source }),
        Err(error) => {
            let message = match error.try_into_panic() {
                Ok(payload) => message(payload.as_ref()).to_owned(),
                Err(error) => error.to_string(),
            };
            Err(LifecycleError::Panicked { name, message })
        }
    }
}

/// Keeps the first trouble and logs each that comes while draining.
fn keep_first(first: &mut Result<(), LifecycleError>, next: Result<(), LifecycleError>) {
    if let Err(trouble) = next {
        tracing::error!("while draining: {trouble}");
        if first.is_ok() {
            *first = Err(trouble);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    type Log = Arc<Mutex<Vec<(&'static str, Duration)>>>;

    /// A component that takes `needs` to drain and then writes down when it had finished.
    fn add(life: &mut Lifecycle, name: &'static str, needs: Duration, log: &Log) {
        let log = Arc::clone(log);
        let start = Instant::now();
        life.start(name, move |drain| async move {
            drain.requested().await;
            tokio::time::sleep(needs).await;
            log.lock().unwrap().push((name, start.elapsed()));
            Ok::<_, BoxError>(())
        });
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn components_drain_one_after_the_other_in_the_reverse_order_of_their_start() {
        let log = Log::default();
        let mut life = Lifecycle::new();
        for name in ["console", "incoming", "receiver"] {
            add(&mut life, name, SECOND, &log);
        }
        life.run(tokio::time::sleep(10 * SECOND)).await.unwrap();
        let expected = [("receiver", 11 * SECOND), ("incoming", 12 * SECOND), ("console", 13 * SECOND)];
        assert_eq!(*log.lock().unwrap(), expected);
    }

    #[tokio::test(start_paused = true)]
    async fn a_component_that_ends_uninvited_is_reported_and_the_others_are_drained() {
        let log = Log::default();
        let mut life = Lifecycle::new();
        add(&mut life, "console", SECOND, &log);
        life.start("incoming", |_| async {
            tokio::time::sleep(3 * SECOND).await;
            Ok::<_, BoxError>(())
        });
        let error = life.run(std::future::pending()).await.unwrap_err();
        assert_eq!(error.to_string(), "component incoming ended without being asked to");
        assert_eq!(*log.lock().unwrap(), [("console", 4 * SECOND)]);
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_failure_is_the_one_reported_with_its_cause() {
        let mut life = Lifecycle::new();
        life.start("outgoing", |drain| async move {
            drain.requested().await;
            Err::<(), _>(std::io::Error::other("second"))
        });
        life.start("incoming", |_| async { Err::<(), _>(std::io::Error::other("broker is gone")) });
        let error = life.run(std::future::pending()).await.unwrap_err();
        let LifecycleError::Failed { name, source } = error else { panic!("{error}") };
        assert_eq!((name, source.to_string().as_str()), ("incoming", "broker is gone"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_panic_is_a_failure_of_the_process_with_the_name_of_the_component() {
        let mut life = Lifecycle::new();
        life.start("scheduler", |_| async {
            if Instant::now().elapsed() < SECOND {
                panic!("no next run");
            }
            Ok::<_, BoxError>(())
        });
        let error = life.run(std::future::pending()).await.unwrap_err();
        assert_eq!(error.to_string(), "component scheduler panicked: no next run");
    }

    #[tokio::test(start_paused = true)]
    async fn a_component_that_never_drains_is_cut_off_at_the_deadline_and_named() {
        let log = Log::default();
        let mut life = Lifecycle::new();
        add(&mut life, "console", SECOND, &log);
        life.start("deaf", |_| std::future::pending::<Result<(), BoxError>>());
        let start = Instant::now();
        let error = life.run(std::future::ready(())).await.unwrap_err();
        assert_eq!(error.to_string(), "deaf did not drain within 25 s");
        assert_eq!(start.elapsed(), DRAIN_DEADLINE);
        let expected = [("console", DRAIN_DEADLINE - KEPT_FOR_EACH + SECOND)];
        assert_eq!(*log.lock().unwrap(), expected, "the slow one must not take the turn of those behind it");
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_while_draining_is_an_error_of_the_run() {
        let mut life = Lifecycle::new();
        life.start("outgoing", |drain| async move {
            drain.requested().await;
            Err::<(), _>(std::io::Error::other("commit failed"))
        });
        let error = life.run(std::future::ready(())).await.unwrap_err();
        assert_eq!(error.to_string(), "component outgoing failed");
    }

    #[tokio::test(start_paused = true)]
    async fn a_process_without_components_waits_for_the_request_to_stop() {
        let start = Instant::now();
        Lifecycle::new().run(tokio::time::sleep(SECOND)).await.unwrap();
        assert_eq!(start.elapsed(), SECOND);
    }
}
