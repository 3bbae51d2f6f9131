//! The client of one store: the real [`Store`].
//!
//! A request is checked, waits for its place and for the budget, and is sent once. A 429 was not applied, so it
//! waits and is sent again, up to a bound. Everything else is handed back with its meaning, for the caller to
//! judge: only the caller knows whether a second try could do harm.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, header};
use secrecy::SecretString;
use tokio::sync::watch;
use tokio::time::timeout_at;
use url::Url;

use super::access::{Access, StopReason, StoreState, Token};
use super::address::{Address, BadAddress};
use super::admission::Admission;
use super::body::Bodies;
use super::caps::Caps;
use super::classify::{self, Content, End, Facts};
use super::{guard, headers};
use crate::catalog::caps::Cap;
use crate::engine::budget::{BudgetConfig, QuotaView};
use crate::engine::ownership::REQUEST_DEADLINE;
use crate::model::request::{Answer, ApiPath, Method, Purpose, Reply, Request};
use crate::runtime::lease::Lease;
use crate::runtime::ports::Store;

/// Requests at once on one store, however many endpoints: with replies of 100 ms that is 160 a second, far more
/// than any documented quota.
const DEFAULT_AT_ONCE: usize = 16;

/// How long to stay away from a store that could not be reached.
const UNREACHABLE: Duration = Duration::from_secs(2);

/// Some plans have windows of an hour; a caller is better told to come back than kept that long.
const LONGEST_RATE_WAIT: Duration = Duration::from_secs(120);

/// Idle connections are dropped well before a server would, lest a request meets a closing one.
const POOL_IDLE: Duration = Duration::from_secs(20);

/// How to reach one store.
pub struct ClientConfig {
    /// The store's hash, as in its API address.
    pub store_hash: String,
    /// The API account's or app's access token.
    pub access_token: SecretString,
    /// Joined with `/stores/<hash>/v2|v3/...`. HTTPS; plain HTTP is taken for loopback hosts.
    pub base_uri: Url,
    /// Takes plain HTTP for every host: for a sandbox in another container, never for a real store.
    pub allow_plain_http: bool,
    /// A proxy to go through. Environment variables never name one.
    pub proxy: Option<Url>,
    /// Sent as `User-Agent`.
    pub user_agent: String,
    /// The rate budget.
    pub budget: BudgetConfig,
    /// Deadlines.
    pub timeouts: Timeouts,
    /// Requests at once; default 16.
    pub at_once: usize,
    /// Requests at once on single endpoints; default none.
    pub caps: Vec<Cap>,
    /// Told of every reply, for metrics.
    pub on_reply: Option<OnReply>,
}

impl ClientConfig {
    /// A store with all else at its default.
    pub fn new(store_hash: impl Into<String>, access_token: SecretString, base_uri: Url) -> Self {
        Self {
            store_hash: store_hash.into(),
            access_token,
            base_uri,
            allow_plain_http: false,
            proxy: None,
            user_agent: concat!("bcbridge/", env!("CARGO_PKG_VERSION")).to_owned(),
            budget: BudgetConfig::default(),
            timeouts: Timeouts::default(),
            at_once: DEFAULT_AT_ONCE,
            caps: Vec::new(),
            on_reply: None,
        }
    }
}

/// Deadlines of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// From sending to the last byte of the reply. Default 25 s; a new owner of a partition counts on it.
    pub request: Duration,
    /// For a connection to be made. Default 5 s.
    pub connect: Duration,
    /// How long a request may wait for the budget at the head of its queue, and how long refusals (429) are
    /// waited out. None: two of the store's windows, at most two minutes.
    pub rate_wait: Option<Duration>,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self { request: REQUEST_DEADLINE, connect: Duration::from_secs(5), rate_wait: None }
    }
}

/// Told of every reply, and of every request that got none.
pub type OnReply = Arc<dyn Fn(&Seen) + Send + Sync>;

/// One exchange, in labels of closed sets.
#[derive(Debug, Clone)]
pub struct Seen {
    /// The method's name.
    pub method: &'static str,
    /// The path's template.
    pub template: Arc<str>,
    /// `2xx`, `3xx`, `4xx`, `429`, `5xx`, or `none` when no reply came.
    pub class: &'static str,
    /// What the request was for.
    pub purpose: Purpose,
    /// How long it waited for its turn, its places and the budget before it was sent.
    pub waited: Duration,
    /// From sending to the end.
    pub seconds: f64,
    /// Requests left in the store's window, where known.
    pub left: Option<u32>,
    /// Requests that a window grants, as last told or assumed.
    pub quota: u32,
}

/// Why a client could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The store's address is unusable.
    #[error(transparent)]
    Address(#[from] BadAddress),
    /// The token cannot stand in a header.
    #[error("the access token is empty or holds characters that no header may hold")]
    Token,
    /// The user agent cannot stand in a header.
    #[error("the user agent {0:?} holds characters that no header may hold")]
    UserAgent(String),
    /// The HTTP client could not be set up.
    #[error("the HTTP client could not be set up")]
    Http(#[source] reqwest::Error),
}

/// The client of one store. Clones share connections, budget and caps.
#[derive(Clone)]
pub struct StoreClient {
    inner: Arc<Inner>,
}

struct Inner {
    http: reqwest::Client,
    address: Address,
    access: Access,
    admission: Admission,
    caps: Caps,
    bodies: Bodies,
    timeouts: Timeouts,
    on_reply: Option<OnReply>,
}

impl fmt::Debug for StoreClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreClient").field("address", &self.inner.address).finish_non_exhaustive()
    }
}

impl StoreClient {
    /// Sets a client up. Nothing is sent.
    ///
    /// # Errors
    /// An address, token or user agent that cannot be used.
    pub fn new(config: ClientConfig) -> Result<Self, ClientError> {
        let address = Address::new(&config.base_uri, &config.store_hash, config.allow_plain_http)?;
        let access = Access::new(&config.access_token).ok_or(ClientError::Token)?;
        let http = http_client(&config)?;
        let inner = Inner {
            http,
            address,
            access,
            admission: Admission::new(config.budget, config.at_once),
            caps: Caps::new(&config.caps),
            bodies: Bodies::new(),
            timeouts: config.timeouts,
            on_reply: config.on_reply,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Shares the store's quota with other replicas of the bridge: `share` is this one's part, `0.0..=1.0`, and
    /// `peers` how many there are, this one included. Cheap; may be called at any time.
    pub fn set_peers(&self, share: f64, peers: u32) {
        self.inner.admission.set_peers(share, peers);
    }

    /// Whether the store is called, or left alone; while it is, every request is answered `Unauthorized` at once.
    pub fn state(&self) -> StoreState {
        self.inner.access.state()
    }

    /// Tells of every change of [`StoreClient::state`].
    pub fn states(&self) -> watch::Receiver<StoreState> {
        self.inner.access.states()
    }

    /// Leaves the store alone until a probe succeeds or another token comes.
    pub fn stop(&self, reason: StopReason) {
        self.inner.access.stop(reason);
    }

    /// Uses another token from the next request on, and calls the store again if it was left alone.
    ///
    /// # Errors
    /// The token cannot stand in a header; the earlier one stays.
    pub fn replace_token(&self, token: &SecretString) -> Result<(), ClientError> {
        self.inner.access.replace(token).then_some(()).ok_or(ClientError::Token)
    }

    /// Asks for the store's time, even of a store that is left alone; it is called again if the token works.
    pub async fn probe(&self) -> StoreState {
        let path = ApiPath::render("/v2/time", |_| None).expect("the template needs no id");
        let request =
            Request { method: Method::Get, path, query: Vec::new(), body: None, purpose: Purpose::Upkeep };
        let reply = self.inner.send(&request, Gate::Pass, &Lease::unbounded()).await;
        // A token without the scope for this is a token all the same.
        if matches!(reply.answer, Answer::Done | Answer::Forbidden) {
            self.inner.access.start();
        }
        self.state()
    }

    /// What is known of the store's quota.
    pub fn quota(&self) -> QuotaView {
        self.inner.admission.view()
    }
}

impl Store for StoreClient {
    async fn send(&self, request: Request) -> Reply {
        self.inner.send(&request, Gate::Ask, &Lease::unbounded()).await
    }

    async fn send_while(&self, request: Request, lease: Lease) -> Reply {
        self.inner.send(&request, Gate::Ask, &lease).await
    }
}

fn http_client(config: &ClientConfig) -> Result<reqwest::Client, ClientError> {
    let agent = HeaderValue::from_str(&config.user_agent)
        .map_err(|_| ClientError::UserAgent(config.user_agent.clone()))?;
    let mut headers = HeaderMap::new();
    headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
    headers.insert(header::USER_AGENT, agent);
    let mut builder = reqwest::Client::builder()
        .default_headers(headers)
        // A redirect would carry the token to another host.
        .redirect(reqwest::redirect::Policy::none())
        .referer(false)
        // What is sent again is decided here and by the caller, nowhere else.
        .retry(reqwest::retry::never())
        .no_proxy()
        .connect_timeout(config.timeouts.connect)
        .pool_idle_timeout(POOL_IDLE)
        .pool_max_idle_per_host(config.at_once);
    if let Some(proxy) = &config.proxy {
        builder = builder.proxy(reqwest::Proxy::all(proxy.clone()).map_err(ClientError::Http)?);
    }
    builder.build().map_err(ClientError::Http)
}

/// Whether a request minds that its store is left alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Gate {
    /// It is not sent then.
    Ask,
    /// It is the probe that finds out whether that has an end.
    Pass,
}

/// What one exchange brought.
struct Exchange {
    reply: Reply,
    /// Set when the store refused it for its rate: how long everything waits.
    refused: Option<Duration>,
}

impl Inner {
    async fn send(&self, request: &Request, gate: Gate, lease: &Lease) -> Reply {
        if let Err(refused) = guard::check(request) {
            return unsent(Answer::Invalid, refused.to_string());
        }
        let url = match self.address.of(&request.path, &request.query) {
            Ok(url) => url,
            Err(bad) => return unsent(Answer::Invalid, bad.to_string()),
        };
        let two_windows = (self.admission.window_length() * 2).min(LONGEST_RATE_WAIT);
        let patience = self.timeouts.rate_wait.unwrap_or(two_windows);
        // The clock of the wait starts with the first refusal: being queued is not being refused.
        let mut give_up = None;
        loop {
            let remaining = give_up.map_or(patience, |at: tokio::time::Instant| {
                at.saturating_duration_since(tokio::time::Instant::now())
            });
            if let Some(left_alone) = self.left_alone(gate) {
                return left_alone;
            }
            let exchange = match self.exchange(request, url.clone(), (gate, remaining), lease).await {
                Ok(exchange) => exchange,
                Err(after) => {
                    return unsent(Answer::Busy { after }, "the store's rate budget is spent".to_owned());
                }
            };
            let Some(wait) = exchange.refused else { return exchange.reply };
            let now = tokio::time::Instant::now();
            if now + wait > *give_up.get_or_insert(now + patience) {
                return Reply { answer: Answer::Busy { after: wait }, ..exchange.reply };
            }
        }
    }

    /// The reply to whoever calls a store that is left alone.
    fn left_alone(&self, gate: Gate) -> Option<Reply> {
        match (gate, self.access.state()) {
            (Gate::Pass, _) | (_, StoreState::Running) => None,
            (Gate::Ask, StoreState::Stopped { reason, .. }) => {
                let detail = format!("the store is not called: {}", reason.advice());
                Some(unsent(Answer::Unauthorized, detail))
            }
        }
    }

    /// Sends once, as soon as the budget allows.
    async fn exchange(
        &self,
        request: &Request,
        url: Url,
        (gate, patience): (Gate, Duration),
        lease: &Lease,
    ) -> Result<Exchange, Duration> {
        let asked = tokio::time::Instant::now();
        let lapsed = || Exchange { reply: Lease::not_sent(), refused: None };
        let mut pass = tokio::select! {
            biased;
            // Whoever waits for the queue to end should not wait for its turn in it.
            () = lease.ended() => return Ok(lapsed()),
            pass = self.admission.enter(request.purpose, self.caps.of(request), patience) => pass?,
        };
        // It may have been stopped while this waited.
        if let Some(reply) = self.left_alone(gate) {
            return Ok(Exchange { reply, refused: None });
        }
        let token = self.access.token();
        let started = tokio::time::Instant::now();
        let waited = started - asked;
        if lease.is_over(started.into_std()) {
            pass.withdraw();
            return Ok(lapsed());
        }
        let deadline = started + self.timeouts.request;
        let sent = tokio::select! {
            // The deadline first: a process that was frozen while it connected must not go on where it was.
            biased;
            () = tokio::time::sleep_until(deadline) => None,
            sent = self.http.execute(outgoing(request, url, &token)) => Some(sent),
        };
        let mut response = match sent {
            Some(Ok(response)) => response,
            Some(Err(error)) => {
                self.tell(request, 0, waited, started.into_std());
                return Ok(Exchange { reply: no_reply(&error), refused: None });
            }
            None => {
                self.tell(request, 0, waited, started.into_std());
                return Ok(Exchange { reply: unsent(Answer::Doubtful, late(self.timeouts)), refused: None });
            }
        };
        let status = response.status().as_u16();
        self.access.answered(&token, status);
        let seen = headers::observation(response.headers());
        let refused = match status {
            429 => Some(pass.refused(seen)),
            _ => {
                pass.replied(seen);
                None
            }
        };
        let (body, end) =
            timeout_at(deadline, self.bodies.read(&mut response)).await.unwrap_or((Bytes::new(), End::Cut));
        self.tell(request, status, waited, started.into_std());
        Ok(Exchange { reply: reply(request.method, &response, body, end), refused })
    }

    fn tell(&self, request: &Request, status: u16, waited: Duration, started: Instant) {
        let Some(on_reply) = &self.on_reply else { return };
        let seconds = tokio::time::Instant::now().into_std().saturating_duration_since(started).as_secs_f64();
        let class = match status {
            0 => "none",
            429 => "429",
            200..=299 => "2xx",
            300..=399 => "3xx",
            400..=499 => "4xx",
            _ => "5xx",
        };
        let quota = self.admission.view();
        on_reply(&Seen {
            method: request.method.as_str(),
            template: Arc::clone(request.path.template()),
            class,
            purpose: request.purpose,
            waited,
            seconds,
            left: quota.left,
            quota: quota.quota,
        });
    }
}

fn outgoing(request: &Request, url: Url, token: &Token) -> reqwest::Request {
    let method = match request.method {
        Method::Get => http::Method::GET,
        Method::Post => http::Method::POST,
        Method::Put => http::Method::PUT,
        Method::Delete => http::Method::DELETE,
    };
    let mut outgoing = reqwest::Request::new(method, url);
    outgoing.headers_mut().insert("x-auth-token", token.header.clone());
    // Without a body it says nothing, but the specification demands it of some reads, `/v2/orders/{order_id}/products`.
    outgoing.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let Some(body) = &request.body {
        *outgoing.body_mut() = Some(body.clone().into());
    }
    outgoing
}

/// A reply of our own: nothing was sent, or nothing came back.
fn unsent(answer: Answer, detail: String) -> Reply {
    Reply { answer, status: 0, body: Bytes::new(), request_id: None, detail }
}

fn late(timeouts: Timeouts) -> String {
    format!("no reply within {} s", timeouts.request.as_secs_f64())
}

/// What an error means. Its own text is left out: it repeats the address with its query.
fn no_reply(error: &reqwest::Error) -> Reply {
    if error.is_connect() {
        let busy = Answer::Busy { after: UNREACHABLE };
        return unsent(busy, "the store could not be reached (name, connection or TLS)".to_owned());
    }
    if error.is_builder() {
        return unsent(Answer::Invalid, "the request could not be built".to_owned());
    }
    unsent(Answer::Doubtful, "the connection broke before the reply".to_owned())
}

fn reply(method: Method, response: &reqwest::Response, body: Bytes, end: End) -> Reply {
    let status = response.status().as_u16();
    let headers = response.headers();
    let content = match end {
        End::Whole => classify::content(text(headers, "content-type"), &body),
        End::Cut | End::TooLarge => Content::Empty,
    };
    let retry_after = headers::retry_after(headers);
    let (answer, detail) = classify::answer(&Facts { method, status, end, content, retry_after });
    // An id of the request is an opaque token; anything longer or odder is not one.
    let request_id = text(headers, "x-request-id").filter(|id| id.len() <= 128).map(str::to_owned);
    let detail = if detail.is_empty() { String::new() } else { format!("{status}: {detail}") };
    Reply { answer, status, body, request_id, detail }
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}
