//! Reading the settings again while the process runs: who may ask, and what the answer is.
//!
//! The file is taken whole or not at all. What is wrong with it is told as `validate` tells it, and nothing changes.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde_json::json;
use tokio::sync::{mpsc, oneshot};

use crate::config::{MistakeRow, Settings};
use crate::console::{Action, ActionError};

/// How long the console waits for a reload: less than the time of one request. Draining a store may take longer.
const ANSWER_WITHIN: Duration = Duration::from_secs(13);

/// Reads the settings from where they came from.
#[derive(Clone)]
pub struct Loader(Arc<dyn Fn() -> Result<Settings, Vec<MistakeRow>> + Send + Sync>);

impl Loader {
    /// Makes a loader of a function that reads and checks everything, and gives every mistake otherwise. It may
    /// block on files.
    pub fn new(load: impl Fn() -> Result<Settings, Vec<MistakeRow>> + Send + Sync + 'static) -> Self {
        Self(Arc::new(load))
    }

    /// Reads and checks, off the async threads.
    pub(super) async fn load(&self) -> Result<Settings, Refusal> {
        let load = self.0.clone();
        let loaded = tokio::task::spawn_blocking(move || load()).await;
        loaded.map_err(|_| Refusal::Failed("reading the settings panicked".into()))?.map_err(Refusal::Wrong)
    }
}

impl fmt::Debug for Loader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Loader(..)")
    }
}

/// What a reload did: the names of stores.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Started.
    pub added: Vec<String>,
    /// Drained and gone.
    pub removed: Vec<String>,
    /// Drained and started with other settings.
    pub restarted: Vec<String>,
    /// Running on with other secrets.
    pub refreshed: Vec<String>,
    /// Not touched.
    pub unchanged: Vec<String>,
    /// What is allowed but deserves a look.
    pub warnings: Vec<String>,
}

/// Why a reload changed nothing.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Refusal {
    /// The settings are wrong, or change what cannot be changed while running.
    #[error("the settings have {} mistakes", .0.len())]
    Wrong(Vec<MistakeRow>),
    /// They are right, and could not be put in force.
    #[error("{0}")]
    Failed(String),
    /// The process is stopping.
    #[error("the bridge is stopping")]
    Stopping,
}

/// A request to reload; the answer goes back through it.
pub(super) type Order = oneshot::Sender<Result<Report, Refusal>>;

/// Asks for a reload. Clones ask the same process; one reload runs at a time.
#[derive(Debug, Clone)]
pub struct Reloader(mpsc::Sender<Order>);

impl Reloader {
    /// One that asks, and what it asks through.
    pub(super) fn channel() -> (Self, mpsc::Receiver<Order>) {
        // One waits while one runs; whoever comes after waits to be let in.
        let (orders, inbox) = mpsc::channel(1);
        (Self(orders), inbox)
    }

    /// Reads the settings again and puts them in force. What comes of it is also in the log.
    ///
    /// # Errors
    /// Nothing changed; see [`Refusal`].
    pub async fn reload(&self) -> Result<Report, Refusal> {
        let (order, answer) = oneshot::channel();
        self.0.send(order).await.map_err(|_| Refusal::Stopping)?;
        answer.await.map_err(|_| Refusal::Stopping)?
    }

    /// The console's `POST /api/reload`.
    pub(super) fn action(self) -> Action {
        Action::new(move |_| {
            let reloader = self.clone();
            async move {
                match tokio::time::timeout(ANSWER_WITHIN, reloader.reload()).await {
                    Ok(Ok(report)) => Ok(json!(report)),
                    Ok(Err(Refusal::Wrong(mistakes))) => Err(ActionError::Wrong(
                        json!({ "error": "the settings are wrong", "mistakes": mistakes }),
                    )),
                    Ok(Err(refusal)) => Err(ActionError::Failed(refusal.to_string())),
                    Err(_) => Ok(
                        json!({ "pending": "stores are still being drained; the log tells when it is done" }),
                    ),
                }
            }
        })
    }
}
