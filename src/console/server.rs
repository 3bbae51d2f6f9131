//! The listener: accepts connections within bounds and serves the routes on each.
//!
//! A peer that says nothing, slowly, or for ever is cut off by a deadline; more connections than allowed wait in the
//! system's queue. A panic in a handler is a 500 for that request. Stopping finishes the requests that are running.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::response::Response;
use futures::FutureExt as _;
use http::{Request, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;
use tower::ServiceExt as _;

use super::guard::Guard;
use super::page::Page;
use super::routes::{Peer, Shared, refusal, router};
use super::{ConsoleConfig, ConsoleError, ConsoleState};
use crate::runtime::{Drain, DrainTrigger, Tasks, spawn};

/// Connections at a time: a handful of people, a scraper and a prober, with room.
const CONNECTIONS: usize = 128;

/// The time in which a connection must send a whole head, the first one or the next.
const HEAD_WITHIN: Duration = Duration::from_secs(5);

/// The time for one request, its body and its answer included.
const REQUEST_WITHIN: Duration = Duration::from_secs(15);

/// A connection is closed after this time whatever it does, so that one which does not read its answers ends too.
const CONNECTION_WITHIN: Duration = Duration::from_secs(300);

/// Enough for the headers that browsers and proxies send.
const HEADERS: usize = 64;

/// The buffer of a connection, which bounds the head of a request.
const BUFFER_BYTES: usize = 16 * 1024;

/// The time that running requests get when the console stops.
const STOP_WITHIN: Duration = Duration::from_secs(2);

/// The pause after a failed accept: without file descriptors it would fail again at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A running console. Dropping it stops it without waiting for the requests that are running.
#[derive(Debug)]
pub struct Console {
    addr: SocketAddr,
    trigger: DrainTrigger,
    accepting: JoinHandle<()>,
}

impl Console {
    /// Listens and serves until [`stop`](Self::stop).
    ///
    /// # Errors
    /// When the address cannot be listened on.
    pub async fn start(config: ConsoleConfig, state: ConsoleState) -> Result<Self, ConsoleError> {
        let ConsoleConfig { listen, token } = config;
        let failed = |source| ConsoleError::Listen { listen, source };
        let listener = TcpListener::bind(listen).await.map_err(failed)?;
        let addr = listener.local_addr().map_err(failed)?;
        let guard = Guard::new(addr, token.as_ref());
        let router = router(Arc::new(Shared { state, guard, page: Page::new() }));
        let (trigger, drain) = Drain::switch();
        let accepting = spawn("console", accept(listener, router, drain));
        tracing::info!(address = %addr, "the console listens on {addr}");
        Ok(Self { addr, trigger, accepting })
    }

    /// The address that it listens on, with the real port.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Ends when the console does, which it does uninvited only by a panic. For the life of the process.
    pub async fn ended(&mut self) {
        // A panic was logged by the task itself.
        drop((&mut self.accepting).await);
    }

    /// Closes the listener, finishes the requests that are running (2 s at most), and ends.
    pub async fn stop(mut self) {
        self.trigger.request();
        self.ended().await;
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        self.trigger.request();
    }
}

async fn accept(listener: TcpListener, router: Router, drain: Drain) {
    let permits = Arc::new(Semaphore::new(CONNECTIONS));
    let tasks = Tasks::new(drain.clone());
    loop {
        let next = async {
            let permit = Arc::clone(&permits).acquire_owned().await.expect("the semaphore is never closed");
            (permit, listener.accept().await)
        };
        let (permit, accepted) = tokio::select! {
            () = drain.requested() => break,
            next = next => next,
        };
        match accepted {
            Ok((stream, peer)) => {
                let router = router.clone();
                tasks.spawn("console connection", move |drain| serve(stream, peer, router, drain, permit));
            }
            Err(error) => {
                tracing::warn!(
                    error = &error as &(dyn std::error::Error + 'static),
                    "could not accept a connection"
                );
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    let late = tasks.finish(STOP_WITHIN).await;
    if late > 0 {
        tracing::warn!(late, "{late} connections of the console were cut off");
    }
}

async fn serve(
    stream: TcpStream,
    peer: SocketAddr,
    router: Router,
    drain: Drain,
    permit: OwnedSemaphorePermit,
) {
    let _permit = permit;
    let service = service_fn(move |request| answer(router.clone(), peer, request));
    let mut connection = std::pin::pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_WITHIN)
            .max_headers(HEADERS)
            .max_buf_size(BUFFER_BYTES)
            .serve_connection(TokioIo::new(stream), service)
    );
    let served = async {
        tokio::select! {
            ended = connection.as_mut() => return ended,
            () = drain.requested() => connection.as_mut().graceful_shutdown(),
        }
        connection.await
    };
    match tokio::time::timeout(CONNECTION_WITHIN, served).await {
        Ok(Ok(())) => {}
        // What a peer sends wrong or late is its own affair; it has its answer or a closed connection.
        Ok(Err(error)) => {
            tracing::debug!(error = %io::Error::other(error), "a connection of the console broke")
        }
        Err(_) => tracing::debug!("a connection of the console was cut off after its time"),
    }
}

async fn answer(
    router: Router,
    peer: SocketAddr,
    request: Request<Incoming>,
) -> Result<Response, Infallible> {
    let mut request = request.map(Body::new);
    request.extensions_mut().insert(Peer(peer));
    let work = AssertUnwindSafe(router.oneshot(request)).catch_unwind();
    Ok(match tokio::time::timeout(REQUEST_WITHIN, work).await {
        Ok(Ok(answered)) => answered.unwrap_or_else(|never| match never {}),
        Ok(Err(_)) => {
            tracing::error!("a request to the console panicked");
            refusal(StatusCode::INTERNAL_SERVER_ERROR)
        }
        Err(_) => refusal(StatusCode::REQUEST_TIMEOUT),
    })
}
