//! The sandbox: a BigCommerce store on a local port, for tests, for the demo, and for users' own integration tests.
//!
//! It answers the REST API the way its documentation says: envelopes, paging, filters, error bodies, rate limits, the
//! hooks API and signed callbacks with retries, blocking and deactivation. On demand it misbehaves ([`Profile`]). It
//! remembers every write it accepted and every callback it sent, so that a test can compare histories ([`Control`]).
//!
//! It shares no type with the bridge's own client: two readings of the same documentation that meet on the wire. It
//! needs no network beyond its listener and the hooks' destinations, keeps everything in memory, and is repeatable by
//! its seed as far as the order of requests is. A request it does not understand gets the error the API would give;
//! nothing a caller sends can stop it.

mod announce;
mod blocklist;
mod chance;
mod clock;
mod control;
mod control_bodies;
mod core;
mod deliver;
mod events;
mod faults;
mod forms;
mod history;
mod hooks;
mod late;
mod limits;
mod mutate;
mod partly;
mod perform;
mod query;
mod reply;
mod resources;
mod scopes;
mod seed;
mod server;
mod shoppers;
mod specs;
mod state;
mod store;
mod view;

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub use chance::{Chance, Delay, Only};
pub use control::{Control, ControlError};
pub use deliver::{Delivery, DeliveryState, DeliveryStats};
pub use faults::Profile;
pub use history::{Request, Stats, Write};

use self::core::Core;

/// What kind of store the sandbox plays.
#[derive(Clone)]
pub struct SandboxConfig {
    /// Where it listens; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Seed of the store's content, of shoppers and of faults.
    pub seed: u64,
    /// The hash in `/stores/{hash}/...` and in the callbacks' `producer`.
    pub store_hash: String,
    /// What `X-Auth-Token` must be.
    pub access_token: String,
    /// The key that callbacks are signed with (its raw bytes).
    pub client_secret: String,
    /// The client that owns the hooks.
    pub client_id: String,
    /// The store's number, as callbacks carry it.
    pub store_id: String,
    /// Requests allowed per window.
    pub quota: u32,
    /// Length of the rate-limit window.
    pub window: Duration,
    /// How much faster than real time the retry ladder and the block rule run.
    pub time_scale: f64,
    /// Products at the start.
    pub products: u32,
    /// Plain products on top of those: one variant each, made quickly and kept small, for stores of any size.
    pub bulk_products: u32,
    /// Categories at the start.
    pub categories: u32,
    /// Customers at the start.
    pub customers: u32,
    /// Orders at the start.
    pub orders: u32,
    /// What goes wrong on purpose.
    pub profile: Profile,
    /// Where accepted writes are appended as JSON lines.
    pub history_file: Option<PathBuf>,
}

impl Default for SandboxConfig {
    fn default() -> Self {
        SandboxConfig {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            seed: 1,
            store_hash: "sandbox1".to_owned(),
            access_token: "sandbox-access-token".to_owned(),
            client_secret: "sandbox-client-secret-0123456789abcdef0123456789abcdef".to_owned(),
            client_id: "sandbox-client-id".to_owned(),
            store_id: "1025646".to_owned(),
            quota: 150,
            window: Duration::from_secs(30),
            time_scale: 1.0,
            products: 300,
            bulk_products: 0,
            categories: 20,
            customers: 100,
            orders: 100,
            profile: Profile::default(),
            history_file: None,
        }
    }
}

/// Prints everything but the token and the secret.
impl fmt::Debug for SandboxConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SandboxConfig")
            .field("listen", &self.listen)
            .field("seed", &self.seed)
            .field("store_hash", &self.store_hash)
            .field("quota", &self.quota)
            .field("window", &self.window)
            .field("time_scale", &self.time_scale)
            .field("products", &self.products)
            .finish_non_exhaustive()
    }
}

/// Why a sandbox did not start.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// The address cannot be listened on.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address that was asked for.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// The history file cannot be opened.
    #[error("cannot open the history file {}", path.display())]
    History {
        /// The file that was asked for.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The HTTP client for callbacks cannot be made.
    #[error("cannot make the client that sends callbacks")]
    Client(#[from] reqwest::Error),
    /// A number in the configuration makes no sense.
    #[error("the sandbox's {name} is {found}, but must be {allowed}")]
    Config {
        /// The field.
        name: &'static str,
        /// Its value.
        found: String,
        /// What would do.
        allowed: &'static str,
    },
}

/// A running sandbox. Stops when it is dropped.
pub struct Sandbox {
    core: Arc<Core>,
    address: SocketAddr,
    stop: CancellationToken,
    listening: Option<JoinHandle<()>>,
}

impl Sandbox {
    /// Fills the store and begins to listen.
    ///
    /// # Errors
    /// When the address, the history file or a number in `config` cannot be used.
    pub async fn start(config: SandboxConfig) -> Result<Sandbox, SandboxError> {
        check(&config)?;
        let asked = config.listen;
        let refused = |source| SandboxError::Listen { address: asked, source };
        let listener = TcpListener::bind(asked).await.map_err(refused)?;
        let address = listener.local_addr().map_err(refused)?;
        let core = Arc::new(Core::new(config, address)?);
        let stop = core.stop.clone();
        core.start();
        let (serving, token) = (Arc::clone(&core), stop.clone());
        let listening = crate::runtime::spawn("sandbox-listener", server::serve(listener, serving, token));
        Ok(Sandbox { core, address, stop, listening: Some(listening) })
    }

    /// `http://127.0.0.1:port`; the API's base is this plus `/stores/{hash}`.
    pub fn base_uri(&self) -> String {
        self.core.base_uri.clone()
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.address
    }

    /// The hands and eyes of a test.
    pub fn control(&self) -> Control {
        Control::new(Arc::clone(&self.core))
    }

    /// Stops listening, sending and shopping, and writes the history file through. The port is free afterwards.
    pub async fn stop(mut self) {
        self.stop.cancel();
        if let Some(listening) = self.listening.take() {
            let _ended_or_panicked = listening.await;
        }
        self.core.sync();
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn check(config: &SandboxConfig) -> Result<(), SandboxError> {
    let refuse = |name, found: String, allowed| Err(SandboxError::Config { name, found, allowed });
    if !(config.time_scale.is_finite() && config.time_scale > 0.0) {
        return refuse("time_scale", config.time_scale.to_string(), "a number above 0");
    }
    if config.window.is_zero() {
        return refuse("window", "0".to_owned(), "longer than 0");
    }
    if config.quota == 0 {
        return refuse("quota", "0".to_owned(), "at least 1");
    }
    let plain = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric());
    if !plain(&config.store_hash) {
        return refuse("store_hash", config.store_hash.clone(), "letters and digits");
    }
    Ok(())
}
