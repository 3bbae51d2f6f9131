//! The built-in broker of `demo` and of the offline tests, behind one function.
//!
//! It wraps the `noida-db` crate's in-process Kafka (pinned exactly; nothing else of the crate is used), so that
//! the bridge can be tried and tested with nothing installed. **Never a production broker.** Its limits, all
//! of them checked by `tests/it/broker_probe.rs`:
//!
//! - everything lives in memory; with a data directory the whole state is written out every
//!   [`SAVE_EVERY`] and at [`EmbeddedBroker::stop`], so a kill loses up to that much, acknowledged or not;
//! - one broker, no replication, no authentication, no TLS: bind it to loopback;
//! - a dead member of a consumer group is never evicted (take-over after a crash needs a real broker);
//! - `send_offsets_to_transaction` does not check the group generation, so a zombie member is not fenced there;
//! - the open transaction of a dead producer blocks readers until its `transactional.id` initialises again;
//! - readers are told of an aborted transaction for ever, which hides what the same producer id commits later
//!   from readers that follow live; `kafka::transact` takes a new id after an abort here;
//! - a fetch ignores the byte limits of the request, and does not wait for data: see `pace`.
//!
//! It fails only at the start (port taken, unreadable data); later a failed save is logged and tried again.

mod pace;

use std::fs::File;
use std::io::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use noida::kafka::engine::{Engine, Snapshot};
use noida::lifecycle::Lifecycle;

use crate::kafka::transact::FORGETS_NO_ABORT;

/// How often the state is written to the data directory while something changed.
pub const SAVE_EVERY: Duration = Duration::from_secs(5);
/// How often retention and compaction run; once a second, so that a demo can show them.
const CLEAN_EVERY: Duration = Duration::from_secs(1);
/// Each connection costs one thread. A demo has about ten; this is where a leak becomes visible.
const MAX_CONNECTIONS: usize = 512;
/// The one file in the data directory.
const SNAPSHOT_FILE: &str = "embedded-broker.json";

/// Why the built-in broker could not start.
#[derive(Debug, thiserror::Error)]
pub enum EmbeddedError {
    /// The address cannot be listened on.
    #[error("listening on {address} for the built-in broker failed; choose a free port (0 picks one)")]
    Listen {
        /// What was asked for.
        address: SocketAddr,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// The data directory cannot be created, read or written.
    #[error("using {path} for the built-in broker's data failed")]
    Data {
        /// The directory or file.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// The data is not what this version writes.
    #[error("{path} is no snapshot of the built-in broker; move it away to start empty")]
    Format {
        /// The file.
        path: PathBuf,
        /// What the parser met.
        #[source]
        source: serde_json::Error,
    },
    /// A thread could not be started.
    #[error("starting a thread of the built-in broker failed")]
    Thread(#[source] io::Error),
}

/// A running built-in broker. Dropping it stops it (the port closes, connections end, the state is saved).
#[derive(Debug)]
pub struct EmbeddedBroker {
    address: SocketAddr,
    running: Option<Running>,
}

struct Running {
    lifecycle: Lifecycle,
    janitor: JoinHandle<()>,
    stop_janitor: mpsc::SyncSender<()>,
}

impl std::fmt::Debug for Running {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Running").field("connections", &self.lifecycle.connections()).finish()
    }
}

/// Starts the built-in broker on `listen` (port 0 picks a free one), in memory, or with its state kept in
/// `data_dir`. Several may run in one process, each with its own directory.
///
/// # Errors
/// When the port or the data directory cannot be used, see [`EmbeddedError`].
pub async fn start(listen: SocketAddr, data_dir: Option<&Path>) -> Result<EmbeddedBroker, EmbeddedError> {
    let data_dir = data_dir.map(Path::to_owned);
    // Reading a snapshot blocks, so it leaves the async threads alone.
    tokio::task::spawn_blocking(move || start_blocking(listen, data_dir))
        .await
        .expect("start_blocking does not panic, and nothing aborts it")
}

impl EmbeddedBroker {
    /// What clients put into `bootstrap.servers`: `host:port`.
    pub fn bootstrap_servers(&self) -> String {
        SocketAddr::new(advertised(self.address.ip()), self.address.port()).to_string()
    }

    /// The address it listens on, with the port that was picked.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Closes the port and every connection (waiting at most 3 s for them) and saves the state.
    pub async fn stop(mut self) {
        if let Some(running) = self.running.take() {
            let stopped = tokio::task::spawn_blocking(move || running.stop()).await;
            stopped.expect("Running::stop does not panic, and nothing aborts it");
        }
    }
}

impl Drop for EmbeddedBroker {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            running.stop();
        }
    }
}

impl Running {
    fn stop(self) {
        self.lifecycle.stop();
        // An error means that the janitor already ended; joining it is then immediate.
        let _ = self.stop_janitor.send(());
        if self.janitor.join().is_err() {
            tracing::error!("the built-in broker's janitor thread panicked; its last state was not saved");
        }
    }
}

fn start_blocking(listen: SocketAddr, data_dir: Option<PathBuf>) -> Result<EmbeddedBroker, EmbeddedError> {
    let listen_error = |source| EmbeddedError::Listen { address: listen, source };
    let listener = TcpListener::bind(listen).map_err(listen_error)?;
    let address = listener.local_addr().map_err(listen_error)?;
    if !address.ip().is_loopback() {
        tracing::warn!(%address, "the built-in broker has no authentication and listens beyond this machine");
    }
    let file = data_dir.map(|dir| dir.join(SNAPSHOT_FILE));
    let engine = load(file.as_deref(), address)?;

    let lifecycle = Lifecycle::default();
    spawn_acceptor(listener, lifecycle.clone(), engine.clone()).map_err(EmbeddedError::Thread)?;
    let (stop_janitor, stopped) = mpsc::sync_channel(1);
    let janitor = std::thread::Builder::new()
        .name("embedded-janitor".into())
        .spawn(move || keep_clean(&engine, file.as_deref(), &stopped))
        .map_err(EmbeddedError::Thread)?;
    Ok(EmbeddedBroker { address, running: Some(Running { lifecycle, janitor, stop_janitor }) })
}

/// The host that metadata answers name: a wildcard address is reached through loopback.
fn advertised(ip: IpAddr) -> IpAddr {
    if ip.is_unspecified() { IpAddr::V4(Ipv4Addr::LOCALHOST) } else { ip }
}

fn load(file: Option<&Path>, address: SocketAddr) -> Result<Engine, EmbeddedError> {
    let (host, port) = (advertised(address.ip()).to_string(), i32::from(address.port()));
    let stored = file.map(read_snapshot).transpose()?.flatten();
    let mut snapshot = stored.unwrap_or_else(|| Engine::new(host.clone(), port).snapshot());
    // Clients recognise this broker by it: see the constant.
    snapshot.cluster_id = FORGETS_NO_ABORT.to_owned();
    // As on a well-kept cluster: a misspelt topic is an error, not a new topic.
    snapshot.broker_configs.insert("auto.create.topics.enable".into(), "false".into());
    Ok(Engine::new_persistent(snapshot, host, port))
}

/// What was saved last, if anything was.
fn read_snapshot(path: &Path) -> Result<Option<Snapshot>, EmbeddedError> {
    let data = |source| EmbeddedError::Data { path: path.to_owned(), source };
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir).map_err(data)?;
    }
    match std::fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|source| EmbeddedError::Format { path: path.to_owned(), source }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(data(error)),
    }
}

fn spawn_acceptor(listener: TcpListener, lifecycle: Lifecycle, engine: Engine) -> io::Result<()> {
    let incoming = lifecycle.incoming(listener);
    std::thread::Builder::new().name("embedded-accept".into()).spawn(move || {
        for (stream, connection) in incoming {
            if lifecycle.connections() > MAX_CONNECTIONS {
                tracing::warn!(limit = MAX_CONNECTIONS, "the built-in broker refused a connection: too many");
                continue;
            }
            let engine = engine.clone();
            let served = std::thread::Builder::new().name("embedded-conn".into()).spawn(move || {
                // Held for as long as the connection is served, so that stop can close it.
                let _connection = connection;
                if let Err(error) = pace::serve(stream, engine) {
                    tracing::debug!(%error, "a connection to the built-in broker ended");
                }
            });
            if let Err(error) = served {
                tracing::warn!(%error, "the built-in broker refused a connection: no thread for it");
            }
        }
    })?;
    Ok(())
}

/// Runs retention and compaction, and saves the state, until `stopped` says so; then saves once more.
fn keep_clean(engine: &Engine, file: Option<&Path>, stopped: &mpsc::Receiver<()>) {
    let mut saved = None;
    let mut since_save = Duration::ZERO;
    loop {
        let stopping = !matches!(stopped.recv_timeout(CLEAN_EVERY), Err(mpsc::RecvTimeoutError::Timeout));
        engine.run_log_cleaner();
        since_save += CLEAN_EVERY;
        if let Some(path) = file
            && (stopping || since_save >= SAVE_EVERY)
        {
            since_save = Duration::ZERO;
            save(engine, path, &mut saved);
        }
        if stopping {
            return;
        }
    }
}

/// What changes whenever something worth saving does. Cheap beside writing everything out.
type Fingerprint = (usize, i64, i64);

fn fingerprint(snapshot: &Snapshot) -> Fingerprint {
    let parts = snapshot.topics.iter().flat_map(|(_, topic)| &topic.partitions);
    let written = parts.map(|(_, part)| part.high_watermark + part.log_start_offset).sum();
    (snapshot.topics.len(), written, snapshot.committed_offsets.iter().map(|(_, offset)| offset).sum())
}

fn save(engine: &Engine, path: &Path, saved: &mut Option<Fingerprint>) {
    let snapshot = engine.snapshot();
    let now = fingerprint(&snapshot);
    if *saved == Some(now) {
        return;
    }
    match write_atomically(path, &snapshot) {
        Ok(()) => *saved = Some(now),
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "saving the built-in broker's state failed; trying again");
        }
    }
}

/// A reader sees the old file or the whole new one, also after a power cut.
fn write_atomically(path: &Path, snapshot: &Snapshot) -> io::Result<()> {
    let staging = path.with_extension("json.new");
    let mut file = File::create(&staging)?;
    file.write_all(&serde_json::to_vec(snapshot)?)?;
    file.sync_data()?;
    std::fs::rename(&staging, path)?;
    match path.parent() {
        Some(dir) => File::open(dir)?.sync_all(),
        None => Ok(()),
    }
}
