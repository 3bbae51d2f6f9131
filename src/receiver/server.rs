//! Listens, takes connections within their bounds, and stops without dropping a callback.
//!
//! It never lets one connection's trouble reach another, and never spins: a failure to accept (no file descriptor
//! left) is waited out. At the total limit it stops accepting, so that the next caller waits in the system's queue
//! until a deadline frees a place. It fails only at the start, with a [`BindError`].

use super::guard::{ConnectionClock, Guard};
use super::intake::Intake;
use super::metrics::ReceiverMetrics;
use super::peers::{Peers, Slot};
use super::seen::Seen;
use super::service::{NowMs, Quiet, Shared, serve};
use super::settings::ReceiverConfig;
use super::store::{StoreFault, Stores};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// First pause after a failed accept; each further failure doubles it.
const ACCEPT_PAUSE: Duration = Duration::from_millis(10);

/// Longest pause after a failed accept: short enough that a callback's sender still waits.
const ACCEPT_PAUSE_MAX: Duration = Duration::from_secs(1);

/// How long, once told to stop, a connection that has sent nothing yet is waited for: its request is likely on the
/// way, and closing now would count against us with the sender.
const FRESH_GRACE: Duration = Duration::from_millis(250);

/// How long, once told to stop, the system's queue is waited on: when nothing comes out of it, it is empty.
const QUEUE_PAUSE: Duration = Duration::from_millis(10);

/// Size of the HTTP library's read buffer: one head, and some body.
const READ_BUFFER_BYTES: usize = 32 * 1024;

/// Why the receiver could not start.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// A store's settings can't stand.
    #[error("the receiver's stores are not usable")]
    Store(#[from] StoreFault),
    /// The address can't be had.
    #[error("could not listen on {address}")]
    Listen {
        /// The address asked for.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
}

/// A receiver that has its port and does not serve yet.
pub struct Receiver<I> {
    listener: TcpListener,
    address: SocketAddr,
    connections: Connections<I>,
}

impl<I: Intake> Receiver<I> {
    /// Checks the stores and takes the port. `now_ms` is the wall clock, in milliseconds since 1970.
    ///
    /// # Errors
    /// A [`BindError`].
    pub async fn bind(
        config: ReceiverConfig,
        intake: I,
        metrics: ReceiverMetrics,
        now_ms: NowMs,
    ) -> Result<Self, BindError> {
        let stores = Stores::new(config.stores)?;
        let refused = |source| BindError::Listen { address: config.listen, source };
        let listener = TcpListener::bind(config.listen).await.map_err(refused)?;
        let address = listener.local_addr().map_err(refused)?;
        let connections = Connections {
            open: Arc::new(Semaphore::new(config.limits.connections)),
            peers: Peers::new(config.limits.connections_per_peer, config.trusted_proxies),
            http: http(config.limits.headers, config.limits.head_bytes),
            running: TaskTracker::new(),
            stop: CancellationToken::new(),
            cut: CancellationToken::new(),
            shared: Arc::new(Shared {
                intake,
                stores,
                seen: Seen::new(config.limits.remembered_ids),
                metrics,
                now_ms,
                limits: config.limits,
                deadlines: config.deadlines,
                max_behind_s: i64::try_from(config.max_behind.as_secs()).unwrap_or(i64::MAX),
                logged_refusal: Quiet::default(),
                logged_failure: Quiet::default(),
            }),
        };
        Ok(Self { listener, address, connections })
    }

    /// Where it listens: the real port, if port 0 was asked for.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// A handle to replace the stores while serving.
    pub fn stores(&self) -> Stores {
        self.connections.shared.stores.clone()
    }

    /// Serves until `stop`, then lets what is in flight end, for at most the drain deadline.
    pub async fn serve(self, stop: CancellationToken) {
        let Self { listener, connections, .. } = self;
        let mut pause = ACCEPT_PAUSE;
        loop {
            let accepted = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                accepted = connections.accept(&listener) => accepted,
            };
            match accepted {
                Ok((stream, peer, permit)) => {
                    pause = ACCEPT_PAUSE;
                    connections.take(stream, peer, permit);
                }
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => {
                    connections.accept_failed(&error);
                    let _ = timeout(pause, stop.cancelled()).await;
                    pause = (pause * 2).min(ACCEPT_PAUSE_MAX);
                }
            }
        }
        // Who already stands in the system's queue is served, not reset.
        let until = Instant::now() + FRESH_GRACE;
        while let Ok(Ok((stream, peer, permit))) =
            timeout(QUEUE_PAUSE.min(until - Instant::now()), connections.accept(&listener)).await
        {
            connections.take(stream, peer, permit);
        }
        drop(listener);
        connections.drain().await;
    }
}

/// The connections, and what bounds them.
struct Connections<I> {
    open: Arc<Semaphore>,
    peers: Arc<Peers>,
    http: http1::Builder,
    running: TaskTracker,
    /// Tells the connections to end after the request in flight.
    stop: CancellationToken,
    /// Tells the connections to end.
    cut: CancellationToken,
    shared: Arc<Shared<I>>,
}

impl<I: Intake> Connections<I> {
    /// Waits for a place, then for a caller to take it.
    async fn accept(
        &self,
        listener: &TcpListener,
    ) -> io::Result<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
        let permit = self.open.clone().acquire_owned().await.expect("the semaphore is never closed");
        let (stream, peer) = listener.accept().await?;
        Ok((stream, peer, permit))
    }

    fn accept_failed(&self, error: &io::Error) {
        self.shared.metrics.accept_errors.inc();
        if self.shared.logged_failure.may_speak((self.shared.now_ms)()) {
            tracing::error!(%error, "could not take a connection, waiting before the next try");
        }
    }

    fn take(&self, stream: TcpStream, peer: SocketAddr, permit: OwnedSemaphorePermit) {
        let metrics = &self.shared.metrics;
        let Some(slot) = self.peers.admit(peer.ip()) else {
            metrics.connections_over_peer_limit.inc();
            if self.shared.logged_failure.may_speak((self.shared.now_ms)()) {
                tracing::warn!(
                    "a connection was refused: its address has as many as receiver.max_connections_per_peer allows; a proxy belongs into receiver.trusted_proxies"
                );
            }
            return;
        };
        // A failure here means that the peer is gone already; the read will say so.
        let _ = stream.set_nodelay(true);
        let connection =
            self.connection(stream, Held { _slot: slot, _permit: permit, metrics: metrics.clone() });
        crate::runtime::spawn("receiver connection", self.running.track_future(connection));
    }

    /// One connection from the accept to the close; the future owns its places.
    fn connection(&self, stream: TcpStream, held: Held) -> impl Future<Output = ()> + Send + use<I> {
        held.metrics.connections.inc();
        let (shared, stop, cut) = (self.shared.clone(), self.stop.clone(), self.cut.clone());
        let clock = ConnectionClock::new();
        let guard =
            Guard::new(stream, &shared.limits, &shared.deadlines, shared.metrics.clone(), clock.clone());
        let service = {
            let clock = clock.clone();
            service_fn(move |request| serve(shared.clone(), clock.clone(), request))
        };
        let connection = self.http.serve_connection(TokioIo::new(guard), service);
        async move {
            let _held = held;
            let mut connection = pin!(connection);
            // How a connection ends is its own affair: what matters was answered and counted by request.
            tokio::select! {
                _ = connection.as_mut() => return,
                () = stop.cancelled() => {}
            }
            if clock.is_fresh() && timeout(FRESH_GRACE, connection.as_mut()).await.is_ok() {
                return;
            }
            connection.as_mut().graceful_shutdown();
            tokio::select! {
                _ = connection => {}
                () = cut.cancelled() => {}
            }
        }
    }

    async fn drain(self) {
        self.stop.cancel();
        self.running.close();
        if timeout(self.shared.deadlines.drain, self.running.wait()).await.is_err() {
            tracing::warn!(connections = self.running.len(), "connections were cut at the drain deadline");
            self.cut.cancel();
            self.running.wait().await;
        }
    }
}

/// The places that a connection takes; given back when dropped.
struct Held {
    _slot: Slot,
    _permit: OwnedSemaphorePermit,
    metrics: ReceiverMetrics,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.metrics.connections.dec();
    }
}

/// The HTTP library's settings: its own limits stand behind the guard's.
fn http(headers: usize, head_bytes: usize) -> http1::Builder {
    let mut http = http1::Builder::new();
    http.max_headers(headers)
        .max_header_size(head_bytes)
        .max_buf_size(READ_BUFFER_BYTES.max(head_bytes))
        // The guard times heads, silence included, which this timer would not.
        .header_read_timeout(None)
        // A refused head looks like the end of the input; the answer before it must still go out.
        .half_close(true);
    http
}

/// Whether a failed accept says something of that one caller only, so that the next can be taken at once.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionRefused
    )
}
