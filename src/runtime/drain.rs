//! Draining: how a component learns that it should finish, and how it finishes the tasks it started.
//!
//! [`Drain`] is the listening end of one switch and is handed down as an argument; [`DrainTrigger`] throws it, once and
//! for good. [`Tasks`] holds the tasks that belong to one component, so that none outlives it unseen. Neither waits
//! without a bound: whoever waits brings the time it may take, and what is late is cut off and counted.

use std::future::Future;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::task::spawn;

/// The end that listens: cheap to clone, and it never changes back once the drain was requested.
#[derive(Clone, Debug)]
pub struct Drain {
    token: CancellationToken,
}

/// The end that asks for the drain. Dropping it asks for nothing.
#[derive(Debug)]
pub struct DrainTrigger {
    token: CancellationToken,
}

impl Drain {
    /// A fresh switch: the end that asks and the end that listens.
    #[must_use]
    pub fn switch() -> (DrainTrigger, Self) {
        let token = CancellationToken::new();
        (DrainTrigger { token: token.clone() }, Self { token })
    }

    /// Ends when the drain is requested; at once when it already was. Cancel-safe, for any number of waiters.
    pub async fn requested(&self) {
        self.token.cancelled().await;
    }

    /// Whether the drain was requested.
    #[must_use]
    pub fn is_requested(&self) -> bool {
        self.token.is_cancelled()
    }
}

impl DrainTrigger {
    /// Requests the drain. A second call changes nothing.
    pub fn request(&self) {
        self.token.cancel();
    }
}

/// The tasks of one component. They hear the component's drain, and [`finish`](Tasks::finish) waits for them.
///
/// It bounds nothing by itself: who spawns per connection or per record holds a permit for each.
#[derive(Debug)]
pub struct Tasks {
    tracker: TaskTracker,
    drain: Drain,
    cut: CancellationToken,
}

impl Tasks {
    /// An empty group that hears `drain`.
    #[must_use]
    pub fn new(drain: Drain) -> Self {
        Self { tracker: TaskTracker::new(), drain, cut: CancellationToken::new() }
    }

    /// Starts a task of the group; `build` receives the drain handle that the task should listen to.
    pub fn spawn<F, Fut>(&self, name: &'static str, build: F)
    where
        F: FnOnce(Drain) -> Fut,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let work = build(self.drain.clone());
        let cut = self.cut.clone();
        let task = self.tracker.track_future(async move {
            tokio::select! {
                () = work => {}
                () = cut.cancelled() => {}
            }
        });
        drop(spawn(name, task));
    }

    /// How many tasks are running.
    #[must_use]
    pub fn len(&self) -> usize {
        self.tracker.len()
    }

    /// Whether no task is running.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tracker.is_empty()
    }

    /// Waits until every task has ended, at most `within`; then cuts off the rest. Returns how many were cut off.
    ///
    /// It does not request the drain: that is the trigger's business.
    pub async fn finish(self, within: Duration) -> usize {
        self.tracker.close();
        if tokio::time::timeout(within, self.tracker.wait()).await.is_ok() {
            return 0;
        }
        let late = self.tracker.len();
        self.cut.cancel();
        self.tracker.wait().await;
        late
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::Instant;

    #[tokio::test]
    async fn a_drain_is_heard_by_every_clone_and_stays_requested() {
        let (trigger, drain) = Drain::switch();
        let other = drain.clone();
        assert!(!other.is_requested());
        let waiter = spawn("waiter", async move { other.requested().await });
        trigger.request();
        trigger.request();
        waiter.await.unwrap();
        drain.requested().await;
        assert!(drain.is_requested());
    }

    #[tokio::test]
    async fn dropping_the_trigger_requests_nothing() {
        let (trigger, drain) = Drain::switch();
        drop(trigger);
        assert!(!drain.is_requested());
    }

    #[tokio::test(start_paused = true)]
    async fn tasks_that_listen_are_all_finished_in_time() {
        let (trigger, drain) = Drain::switch();
        let tasks = Tasks::new(drain);
        for _ in 0..3 {
            tasks.spawn("worker", |drain| async move {
                drain.requested().await;
                tokio::time::sleep(Duration::from_secs(1)).await;
            });
        }
        assert_eq!(tasks.len(), 3);
        trigger.request();
        assert_eq!(tasks.finish(Duration::from_secs(2)).await, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_does_not_listen_is_cut_off_when_its_time_is_over() {
        let (trigger, drain) = Drain::switch();
        let tasks = Tasks::new(drain);
        tasks.spawn("deaf", |_| std::future::pending());
        tasks.spawn("good", |drain| async move { drain.requested().await });
        trigger.request();
        let start = Instant::now();
        assert_eq!(tasks.finish(Duration::from_secs(5)).await, 1);
        assert_eq!(start.elapsed(), Duration::from_secs(5));
    }

    #[tokio::test]
    async fn a_task_that_panicked_counts_as_ended() {
        let (_trigger, drain) = Drain::switch();
        let tasks = Tasks::new(drain);
        tasks.spawn("broken", |_| async { panic!("on purpose") });
        assert_eq!(tasks.finish(Duration::from_secs(5)).await, 0);
    }
}
