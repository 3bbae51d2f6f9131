//! The console: a listener of its own for people and machines that watch the bridge.
//!
//! It answers `/healthz` and `/readyz` to anyone, and everything else only to the holder of the token; without a
//! configured token the metrics and the page are open on a loopback address and `/api` is off. It never answers a
//! request that another site made a browser send, never reads more than a small body, and shows counts and states,
//! never secrets, ids or customers. A failing request costs that request only; failing to listen fails the start.

mod guard;
mod page;
mod routes;
mod server;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use futures::future::BoxFuture;
use secrecy::SecretString;
use serde_json::Value;

use crate::telemetry::{Metrics, Readiness};

pub use server::Console;

/// Where the console listens and who may ask it.
#[derive(Clone, Debug)]
pub struct ConsoleConfig {
    /// The address; port 0 takes a free one, see [`Console::addr`].
    pub listen: SocketAddr,
    /// The bearer token. None or an empty one switches `/api` off, and the rest too unless `listen` is loopback.
    pub token: Option<SecretString>,
}

/// What the console shows and can do.
#[derive(Clone)]
pub struct ConsoleState {
    /// Answers `/readyz`.
    pub readiness: Readiness,
    /// Answers `/metrics`.
    pub metrics: Metrics,
    /// Answers `/api/status`. Called for each request, so it must be quick and must not block.
    pub status: Arc<dyn Fn() -> Value + Send + Sync>,
    /// Answers `POST /api/<name>`; as `<name>/list`, `GET /api/<name>`; as `<name>/<verb>`,
    /// `POST /api/<name>/<id>/<verb>`, with the id of the path as `id` in the body.
    pub actions: BTreeMap<&'static str, Action>,
}

/// Something the console can do when asked with `POST` and a JSON body: takes the body, gives the reply. It is given
/// the time of one request (15 s); what takes longer belongs in a task.
#[derive(Clone)]
pub struct Action {
    run: Arc<dyn Fn(Value) -> BoxFuture<'static, Result<Value, ActionError>> + Send + Sync>,
}

impl Action {
    /// Makes an action of a function from the body to the reply.
    pub fn new<F, Fut>(run: F) -> Self
    where
        F: Fn(Value) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Value, ActionError>> + Send + 'static,
    {
        Self { run: Arc::new(move |body| Box::pin(run(body))) }
    }
}

/// Why an action was not carried out. The text goes to the caller (who holds the token): no secrets.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum ActionError {
    /// The request is wrong: what was found, what is allowed, what to do.
    #[error("{0}")]
    Refused(String),
    /// The request is wrong in several places: a body that lists them.
    #[error("{0}")]
    Wrong(Value),
    /// The request is right and could not be carried out.
    #[error("{0}")]
    Failed(String),
}

/// Why the console did not start.
#[derive(Debug, thiserror::Error)]
pub enum ConsoleError {
    /// The address cannot be listened on.
    #[error("could not listen on {listen}")]
    Listen {
        /// The address that was configured.
        listen: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
}

impl fmt::Debug for ConsoleState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConsoleState")
            .field("readiness", &self.readiness)
            .field("actions", &self.actions.keys())
            .finish_non_exhaustive()
    }
}
