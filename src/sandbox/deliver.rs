//! Sends callbacks: signs, posts, retries by the documented ladder, blocks and deactivates.
//!
//! One task takes what is due from a heap and gives it to at most `IN_FLIGHT` attempts at a time. The heap and the log
//! are bounded; an event that finds the heap full is logged as lost, never forgotten. Success is any 2xx; a redirect
//! is a failure and is not followed.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine as _;
use bytes::Bytes;
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde::Serialize;
use serde_json::{Map, Value};
use sha2::Sha256;
use tokio::sync::{Notify, Semaphore};

use super::blocklist::Blocklist;
use super::clock;
use super::faults::{CallbackFate, Dice};

/// The documented waits before each retry, in seconds.
pub(crate) const LADDER: [u64; 11] = [60, 180, 300, 600, 900, 1800, 3600, 7200, 21_600, 50_400, 86_400];
/// Attempts under way at a time.
const IN_FLIGHT: usize = 64;
/// Callbacks waiting at a time (about 600 B each, so some 600 MB at the very worst).
const WAITING_MAX: usize = 1_000_000;
/// Finished callbacks kept in the log (about 250 B each).
const LOG_MAX: usize = 1_000_000;
/// How long a receiver may take. Not documented.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Where a callback stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DeliveryState {
    /// Waiting for an attempt.
    Pending,
    /// Answered with 2xx.
    Delivered,
    /// Given up: the ladder is exhausted, or the hook is gone or inactive.
    Failed,
    /// Lost on purpose, or because the queue was full.
    Lost,
}

/// One callback: an event for one hook.
#[derive(Debug, Clone, Serialize)]
pub struct Delivery {
    /// The `webhook-id`, the same over all attempts.
    pub webhook_id: String,
    /// The hook it is for.
    pub hook_id: u64,
    /// The scope it carries.
    pub scope: String,
    /// The entity's id in the payload, as text.
    pub entity_id: String,
    /// Unix time of the event in milliseconds.
    pub unix_ms: u64,
    /// Attempts made so far.
    pub attempts: u32,
    /// The status of the last answer; none when there was no answer.
    pub status: Option<u16>,
    /// Where it stands.
    pub state: DeliveryState,
    /// Sent a second time on purpose.
    pub duplicated: bool,
}

/// A callback on its way.
#[derive(Debug, Clone)]
pub(crate) struct Post {
    pub(crate) number: u64,
    pub(crate) webhook_id: String,
    pub(crate) hook_id: u64,
    pub(crate) destination: Arc<str>,
    pub(crate) headers: Option<Arc<Map<String, Value>>>,
    pub(crate) body: Bytes,
    attempts: usize,
    first_signed: Option<i64>,
    /// The second copy of a duplicate: one attempt, no retry, no log entry.
    copy: bool,
}

#[derive(Debug)]
struct Due(Instant, u64, Post);

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        (self.0, self.1) == (other.0, other.1)
    }
}
impl Eq for Due {}
impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Due {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.0, self.1).cmp(&(other.0, other.1))
    }
}

#[derive(Debug, Default)]
struct Queue {
    heap: BinaryHeap<Reverse<Due>>,
    order: u64,
    /// Waiting or under way.
    open: usize,
    log: VecDeque<Delivery>,
    /// Number of the first entry in `log`.
    first: u64,
}

impl Queue {
    fn entry(&mut self, number: u64) -> Option<&mut Delivery> {
        self.log.get_mut(usize::try_from(number.checked_sub(self.first)?).ok()?)
    }

    fn push(&mut self, due: Instant, post: Post) {
        self.order += 1;
        self.heap.push(Reverse(Due(due, self.order, post)));
    }
}

/// Totals of the delivery side.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct DeliveryStats {
    /// Callbacks waiting or under way.
    pub open: u64,
    /// Attempts made.
    pub attempts: u64,
    /// Attempts answered with 2xx.
    pub succeeded: u64,
    /// Destinations blocked so far.
    pub blocks: u64,
    /// Hooks deactivated so far.
    pub deactivated: u64,
}

/// The answer of the rest of the simulator to an attempt about to be made or just finished.
pub(crate) trait HookSwitch: Send + Sync + 'static {
    /// Whether the hook exists and is active.
    fn is_active(&self, hook_id: u64) -> bool;
    /// The last retry failed.
    fn deactivate(&self, hook_id: u64, status: Option<u16>);
}

/// The sending side.
pub(crate) struct Deliverer {
    queue: Mutex<Queue>,
    blocklist: Mutex<Blocklist>,
    wake: Notify,
    idle: Notify,
    slots: Arc<Semaphore>,
    client: reqwest::Client,
    secret: Vec<u8>,
    time_scale: f64,
    attempts: AtomicU64,
    succeeded: AtomicU64,
    deactivated: AtomicU64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Deliverer {
    pub(crate) fn new(secret: &str, time_scale: f64) -> Result<Deliverer, reqwest::Error> {
        let client = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(TIMEOUT)
            .pool_max_idle_per_host(IN_FLIGHT)
            .build()?;
        Ok(Deliverer {
            queue: Mutex::default(),
            blocklist: Mutex::new(Blocklist::new(time_scale)),
            wake: Notify::new(),
            idle: Notify::new(),
            slots: Arc::new(Semaphore::new(IN_FLIGHT)),
            client,
            secret: secret.as_bytes().to_vec(),
            time_scale,
            attempts: AtomicU64::new(0),
            succeeded: AtomicU64::new(0),
            deactivated: AtomicU64::new(0),
        })
    }

    /// Takes a callback into the queue, with the fate that was drawn for it.
    pub(crate) fn accept(&self, mut entry: Delivery, mut post: Post, fate: CallbackFate) {
        let mut queue = lock(&self.queue);
        let full = queue.heap.len() >= WAITING_MAX;
        if fate.lost || full {
            entry.state = DeliveryState::Lost;
        }
        entry.duplicated = fate.twice;
        if queue.log.len() == LOG_MAX {
            queue.log.pop_front();
            queue.first += 1;
        }
        post.number = queue.first + queue.log.len() as u64;
        let lost = entry.state == DeliveryState::Lost;
        queue.log.push_back(entry);
        if lost {
            return;
        }
        let due = Instant::now() + fate.wait;
        if fate.twice {
            queue.open += 1;
            queue.push(due, Post { copy: true, ..post.clone() });
        }
        queue.open += 1;
        queue.push(due, post);
        drop(queue);
        self.wake.notify_one();
    }

    /// Everything logged, in order of the events.
    pub(crate) fn log(&self) -> Vec<Delivery> {
        lock(&self.queue).log.iter().cloned().collect()
    }

    pub(crate) fn stats(&self) -> DeliveryStats {
        DeliveryStats {
            open: lock(&self.queue).open as u64,
            attempts: self.attempts.load(Ordering::Relaxed),
            succeeded: self.succeeded.load(Ordering::Relaxed),
            blocks: lock(&self.blocklist).blocks,
            deactivated: self.deactivated.load(Ordering::Relaxed),
        }
    }

    /// The destinations blocked now; times are those of the unscaled clock.
    pub(crate) fn blocked(&self) -> Vec<super::blocklist::Blocked> {
        let mut rows = lock(&self.blocklist).blocked(Instant::now());
        rows.iter_mut().for_each(|row| row.time_left = row.time_left.mul_f64(self.time_scale));
        rows
    }

    /// Waits until nothing is waiting or under way.
    pub(crate) async fn idle(&self) {
        loop {
            let idle = self.idle.notified();
            if lock(&self.queue).open == 0 {
                return;
            }
            idle.await;
        }
    }

    /// Sends what becomes due, for ever.
    pub(crate) async fn run(self: Arc<Self>, hooks: Arc<dyn HookSwitch>, dice: Arc<Mutex<Dice>>) {
        loop {
            let Ok(slot) = Arc::clone(&self.slots).acquire_owned().await else { return };
            let post = self.next().await;
            let (this, hooks, dice) = (Arc::clone(&self), Arc::clone(&hooks), Arc::clone(&dice));
            crate::runtime::spawn("sandbox-callback", async move {
                this.attempt(post, &*hooks, &dice).await;
                drop(slot);
            });
        }
    }

    async fn next(&self) -> Post {
        loop {
            let wake = self.wake.notified();
            let wait = {
                let mut queue = lock(&self.queue);
                let now = Instant::now();
                match queue.heap.peek().map(|Reverse(due)| due.0.saturating_duration_since(now)) {
                    Some(Duration::ZERO) => {
                        if let Some(Reverse(Due(_, _, post))) = queue.heap.pop() {
                            return post;
                        }
                        None
                    }
                    other => other,
                }
            };
            match wait {
                Some(wait) => {
                    let _woken_or_due = tokio::time::timeout(wait, wake).await;
                }
                None => wake.await,
            }
        }
    }

    async fn attempt(&self, mut post: Post, hooks: &dyn HookSwitch, dice: &Mutex<Dice>) {
        if !hooks.is_active(post.hook_id) {
            return self.settle(&post, DeliveryState::Failed, None);
        }
        let place = authority(&post.destination);
        if lock(&self.blocklist).is_blocked(&place, Instant::now()) {
            if lock(dice).lost_while_blocked() {
                return self.settle(&post, DeliveryState::Lost, None);
            }
            return self.later(post, None, hooks);
        }
        let resign = lock(dice).profile.resign_retries;
        let now = clock::unix_s();
        let first = *post.first_signed.get_or_insert(now);
        let stamp = if resign { now } else { first };
        self.attempts.fetch_add(1, Ordering::Relaxed);
        let answer = self.post(&post, stamp).await;
        let status = answer.as_ref().ok().copied();
        let good = status.is_some_and(|status| (200..300).contains(&status));
        let failure = (!good).then(|| match &answer {
            Ok(status) => format!("HTTP status {status}"),
            Err(text) => text.clone(),
        });
        lock(&self.blocklist).record(&place, Instant::now(), failure, u64::try_from(now).unwrap_or(0));
        if good {
            self.succeeded.fetch_add(1, Ordering::Relaxed);
            return self.settle(&post, DeliveryState::Delivered, status);
        }
        self.later(post, status, hooks);
    }

    /// Puts a failed callback on the next step of the ladder, or gives it up.
    fn later(&self, mut post: Post, status: Option<u16>, hooks: &dyn HookSwitch) {
        let Some(step) = LADDER.get(post.attempts).filter(|_| !post.copy) else {
            if !post.copy {
                self.deactivated.fetch_add(1, Ordering::Relaxed);
                hooks.deactivate(post.hook_id, status);
            }
            return self.settle(&post, DeliveryState::Failed, status);
        };
        post.attempts += 1;
        let mut queue = lock(&self.queue);
        if let Some(entry) = queue.entry(post.number) {
            entry.attempts += 1;
            entry.status = status;
        }
        queue.push(Instant::now() + Duration::from_secs(*step).div_f64(self.time_scale), post);
        drop(queue);
        self.wake.notify_one();
    }

    fn settle(&self, post: &Post, state: DeliveryState, status: Option<u16>) {
        let mut queue = lock(&self.queue);
        if !post.copy
            && let Some(entry) = queue.entry(post.number)
        {
            entry.attempts += 1;
            entry.state = state;
            entry.status = status;
        }
        queue.open -= 1;
        let idle = queue.open == 0;
        drop(queue);
        if idle {
            self.idle.notify_waiters();
        }
    }

    async fn post(&self, post: &Post, stamp: i64) -> Result<u16, String> {
        let mut request = self
            .client
            .post(&*post.destination)
            .header("content-type", "application/json")
            .header("user-agent", "bigcommerce-sandbox")
            .header("webhook-id", &post.webhook_id)
            .header("webhook-timestamp", stamp.to_string())
            .header("webhook-signature", signature(&self.secret, &post.webhook_id, stamp, &post.body));
        for (name, value) in post.headers.iter().flat_map(|map| map.iter()) {
            request = request.header(name, value.as_str().unwrap_or_default());
        }
        match request.body(post.body.clone()).send().await {
            Ok(answer) => {
                let status = answer.status().as_u16();
                // The body is read so that the connection can serve the next callback.
                let _unused = answer.bytes().await;
                Ok(status)
            }
            Err(error) if error.is_timeout() => Err("timeout".to_owned()),
            Err(error) if error.is_connect() => Err("connection refused".to_owned()),
            Err(_) => Err("connection error".to_owned()),
        }
    }
}

impl Post {
    pub(crate) fn new(
        webhook_id: String,
        hook_id: u64,
        destination: Arc<str>,
        headers: Option<Arc<Map<String, Value>>>,
        body: Bytes,
    ) -> Post {
        Post {
            number: 0,
            webhook_id,
            hook_id,
            destination,
            headers,
            body,
            attempts: 0,
            first_signed: None,
            copy: false,
        }
    }
}

/// The Standard Webhooks signature: `v1,` and the base64 of HMAC-SHA256 over id, timestamp and body.
pub(crate) fn signature(secret: &[u8], id: &str, stamp: i64, body: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret).expect("HMAC takes keys of any length");
    mac.update(format!("{id}.{stamp}.").as_bytes());
    mac.update(body);
    format!("v1,{}", base64::engine::general_purpose::STANDARD.encode(mac.finalize().into_bytes()))
}

fn authority(destination: &str) -> String {
    url::Url::parse(destination)
        .ok()
        .and_then(|url| Some(format!("{}:{}", url.host_str()?, url.port_or_known_default()?)))
        .unwrap_or_else(|| destination.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_equals_the_standard_webhooks_projects_own_vector() {
        let key =
            base64::engine::general_purpose::STANDARD.decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let made = signature(&key, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, br#"{"test": 2432232314}"#);
        assert_eq!(made, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }
}
