//! What the listener, the control API, the shoppers and the callbacks share.
//!
//! One lock for the store, one for each of the logs; none is held across an await. The order is always state first.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use rand::Rng as _;
use serde_json::{Value, json};
use sha1::{Digest as _, Sha1};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::clock;
use super::deliver::{Deliverer, Delivery, DeliveryState, HookSwitch, Post};
use super::events::Event;
use super::faults::{Dice, Profile};
use super::history::History;
use super::hooks::Hooks;
use super::late::Late;
use super::limits::{InFlight, Window};
use super::state::State;
use super::{SandboxConfig, SandboxError, seed, shoppers};

/// The shared part of a sandbox.
pub(crate) struct Core {
    pub(crate) config: SandboxConfig,
    pub(crate) base_uri: String,
    state: Mutex<State>,
    history: Mutex<History>,
    pub(crate) dice: Arc<Mutex<Dice>>,
    window: Mutex<Window>,
    pub(crate) in_flight: InFlight,
    pub(crate) deliverer: Arc<Deliverer>,
    pub(crate) late: Late,
    /// Ends everything that runs.
    pub(crate) stop: CancellationToken,
    /// Changes a second that simulated shoppers make.
    pub(crate) rate: watch::Sender<f64>,
    requests: AtomicU64,
    /// The app is off the store: its token is refused.
    uninstalled: AtomicBool,
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Core {
    pub(crate) fn new(config: SandboxConfig, address: SocketAddr) -> Result<Core, SandboxError> {
        let base_uri = format!("http://{address}");
        let history = History::open(config.history_file.as_deref()).map_err(|source| {
            SandboxError::History { path: config.history_file.clone().unwrap_or_default(), source }
        })?;
        let hooks = Hooks::new(&config.client_id, &config.store_hash);
        let api_url = format!("{base_uri}/stores/{}", config.store_hash);
        let mut state = State::new(config.seed, hooks, api_url, config.store_hash.clone());
        seed::fill(&mut state, &config);
        let (single, list) = config.profile.lags();
        state.set_lag(single, list);
        Ok(Core {
            base_uri,
            state: Mutex::new(state),
            history: Mutex::new(history),
            dice: Arc::new(Mutex::new(Dice::new(config.profile.clone(), config.seed ^ 0x00fa_0175))),
            window: Mutex::new(Window::new(config.quota, config.window)),
            in_flight: InFlight::default(),
            deliverer: Arc::new(Deliverer::new(&config.client_secret, config.time_scale)?),
            late: Late::default(),
            stop: CancellationToken::new(),
            rate: watch::Sender::new(0.0),
            requests: AtomicU64::new(0),
            uninstalled: AtomicBool::new(false),
            config,
        })
    }

    /// Starts what runs beside the listener.
    pub(crate) fn start(self: &Arc<Self>) {
        let stop = &self.stop;
        let switch: Arc<dyn HookSwitch> = Arc::clone(self) as Arc<dyn HookSwitch>;
        let sending = Arc::clone(&self.deliverer).run(switch, Arc::clone(&self.dice));
        crate::runtime::spawn("sandbox-callbacks", stop.clone().run_until_cancelled_owned(sending));
        let shopping = shoppers::run(Arc::clone(self));
        crate::runtime::spawn("sandbox-shoppers", stop.clone().run_until_cancelled_owned(shopping));
    }

    /// Does something to the store and hands the events it caused to the hooks.
    pub(crate) fn with<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        let mut state = lock(&self.state);
        let result = work(&mut state);
        let events = state.drain();
        if !events.is_empty() {
            lock(&self.history).stats.events += events.len() as u64;
            for event in &events {
                self.send(&mut state, event);
            }
        }
        result
    }

    /// Does something to the log.
    pub(crate) fn log<T>(&self, work: impl FnOnce(&mut History) -> T) -> T {
        work(&mut lock(&self.history))
    }

    /// Does something to the quota.
    pub(crate) fn window<T>(&self, work: impl FnOnce(&mut Window) -> T) -> T {
        work(&mut lock(&self.window))
    }

    /// A number for a request.
    pub(crate) fn number(&self) -> u64 {
        self.requests.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Puts other faults in force.
    pub(crate) fn set_profile(&self, profile: Profile) {
        let (single, list) = profile.lags();
        lock(&self.dice).profile = profile;
        self.with(|state| state.set_lag(single, list));
    }

    /// Tells the hooks that the app goes; from then on its token is refused and no other callback is sent.
    pub(crate) fn uninstall(&self) {
        self.uninstalled.store(true, Ordering::SeqCst);
        self.with(|state| state.outbox.push(Event::new(UNINSTALLED, json!({"type": "store"}))));
    }

    /// Takes the token again; the hooks of before are gone.
    pub(crate) fn reinstall(&self) {
        self.with(|state| state.hooks.clear());
        self.uninstalled.store(false, Ordering::SeqCst);
    }

    pub(crate) fn is_uninstalled(&self) -> bool {
        self.uninstalled.load(Ordering::SeqCst)
    }

    /// Writes the history file through to the disk.
    pub(crate) fn sync(&self) {
        if let Err(error) = self.log(History::sync) {
            tracing::error!(%error, "the sandbox's history file cannot be written through");
        }
    }

    fn send(&self, state: &mut State, event: &Event) {
        if self.is_uninstalled() && event.scope != UNINSTALLED {
            return;
        }
        let receivers: Vec<_> = state
            .hooks
            .receivers(&event.scope)
            .map(|hook| (hook.id, Arc::clone(&hook.destination), hook.headers.clone()))
            .collect();
        if receivers.is_empty() {
            return;
        }
        let body = payload(event, &self.config);
        for (hook_id, destination, headers) in receivers {
            let webhook_id =
                format!("msg_{:016x}{:08x}", state.rng.random::<u64>(), state.rng.random::<u32>());
            let entry = Delivery {
                webhook_id: webhook_id.clone(),
                hook_id,
                scope: event.scope.clone(),
                entity_id: entity_id(&event.data),
                unix_ms: clock::unix_ms(),
                attempts: 0,
                status: None,
                state: DeliveryState::Pending,
                duplicated: false,
            };
            let fate = lock(&self.dice).callback();
            self.deliverer.accept(
                entry,
                Post::new(webhook_id, hook_id, destination, headers, body.clone()),
                fate,
            );
        }
    }
}

/// The callback's body. `hash` is the SHA-1 of the data, as the documentation describes it.
fn payload(event: &Event, config: &SandboxConfig) -> Bytes {
    let data = event.data.to_string();
    let hash: String = Sha1::digest(data.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
    let body = json!({"producer": format!("stores/{}", config.store_hash), "hash": hash, "created_at": clock::unix_s(),
        "store_id": config.store_id, "scope": event.scope, "data": event.data});
    Bytes::from(body.to_string())
}

fn entity_id(data: &Value) -> String {
    let names =
        ["id", "cart_id", "order_id", "category_id", "product_id", "variant_id", "location_id", "tree_id"];
    let found = names.iter().find_map(|name| data.get(*name));
    found.map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned)).unwrap_or_default()
}

impl HookSwitch for Core {
    fn is_active(&self, hook_id: u64) -> bool {
        lock(&self.state).hooks.get(hook_id).is_some_and(|hook| hook.is_active)
    }

    fn deactivate(&self, hook_id: u64, status: Option<u16>) {
        self.with(|state| {
            let own = state.hooks.get(hook_id).is_some_and(|hook| hook.scope == EXCEPTION);
            if state.hooks.deactivate(hook_id) && !own {
                let data = json!({"type": "webhook", "id": hook_id, "error_code": status.unwrap_or(0),
                    "message": "the last retry failed; the hook is now inactive"});
                state.outbox.push(Event::new(EXCEPTION, data));
            }
        });
    }
}

/// Tells that the app was taken off the store.
const UNINSTALLED: &str = "store/app/uninstalled";
/// Tells about a hook's failure; a hook on this scope never causes another.
const EXCEPTION: &str = "store/hook/deliveryException";
