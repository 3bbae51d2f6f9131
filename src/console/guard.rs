//! Who may ask: the rules that stand before every route.
//!
//! In order: the Host must be ours when the listener is loopback (DNS rebinding), a browser must not come from another
//! site, an address that failed too often waits, and everything but the health checks needs the token. The token is
//! kept as a hash and compared in constant time. A refusal tells nothing: the same status and body on every route,
//! known or not.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use http::header::{AUTHORIZATION, HOST, ORIGIN};
use http::{HeaderMap, HeaderName, StatusCode, Uri};
use secrecy::{ExposeSecret as _, SecretString};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

/// Failures from one address within [`WINDOW`] after which it is answered 429: a person mistypes once or twice.
pub(super) const FAILURES: u32 = 5;

/// The time over which failures count, and for which the address then waits.
const WINDOW: Duration = Duration::from_secs(1);

/// Addresses whose failures are remembered. When more fail within a window, the newcomers share one count.
const ADDRESSES: usize = 1024;

/// Shorter tokens can be guessed: 16 random bytes are 128 bits, and the shortest way to write them has 22 characters.
const SHORTEST_TOKEN: usize = 16;

const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// What a request is after the rules looked at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Entry {
    /// It may have what it asks for.
    Granted,
    /// It may not, and is answered with this status.
    Refused(StatusCode),
}

/// The rules of one listener.
#[derive(Debug)]
pub(super) struct Guard {
    token: Option<[u8; 32]>,
    loopback: bool,
    failures: Mutex<HashMap<IpAddr, Failures>>,
}

#[derive(Debug)]
struct Failures {
    since: Instant,
    count: u32,
}

impl Guard {
    /// The rules for a listener at `address`, with a token or without one (an empty one is none).
    pub(super) fn new(address: SocketAddr, token: Option<&SecretString>) -> Self {
        let token = token.map(|token| token.expose_secret()).filter(|token| !token.is_empty());
        if token.is_some_and(|token| token.len() < SHORTEST_TOKEN) {
            tracing::warn!(
                "the console's token is shorter than {SHORTEST_TOKEN} characters and can be guessed; \
                 use at least 128 random bits"
            );
        }
        Self {
            token: token.map(hash),
            loopback: address.ip().to_canonical().is_loopback(),
            failures: Mutex::default(),
        }
    }

    /// Whether there is a token that could be shown.
    pub(super) fn has_token(&self) -> bool {
        self.token.is_some()
    }

    /// Judges a request by its address, path and headers. `now` is the monotonic time.
    pub(super) fn judge(&self, peer: IpAddr, uri: &Uri, headers: &HeaderMap, now: Instant) -> Entry {
        if (self.loopback && !names_loopback(headers)) || is_from_another_site(headers) {
            return Entry::Refused(StatusCode::FORBIDDEN);
        }
        let path = uri.path();
        if matches!(path, "/healthz" | "/readyz") {
            return Entry::Granted;
        }
        let Some(token) = &self.token else {
            let open = self.loopback && matches!(path, "/" | "/metrics");
            return if open { Entry::Granted } else { Entry::Refused(StatusCode::UNAUTHORIZED) };
        };
        if self.is_waiting(peer, now) {
            return Entry::Refused(StatusCode::TOO_MANY_REQUESTS);
        }
        // The hash of nothing is compared as well, so that a missing token takes the same time as a wrong one.
        if bool::from(hash(presented(headers).unwrap_or_default()).ct_eq(token)) {
            return Entry::Granted;
        }
        self.note_failure(peer, now);
        Entry::Refused(StatusCode::UNAUTHORIZED)
    }

    fn is_waiting(&self, peer: IpAddr, now: Instant) -> bool {
        let failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let key = if failures.contains_key(&peer) { peer } else { NEWCOMERS };
        failures
            .get(&key)
            .is_some_and(|seen| seen.count >= FAILURES && now.duration_since(seen.since) < WINDOW)
    }

    fn note_failure(&self, peer: IpAddr, now: Instant) {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        if failures.len() >= ADDRESSES {
            failures.retain(|_, seen| now.duration_since(seen.since) < WINDOW);
        }
        let key = if failures.len() < ADDRESSES || failures.contains_key(&peer) { peer } else { NEWCOMERS };
        let seen = failures.entry(key).or_insert(Failures { since: now, count: 0 });
        if now.duration_since(seen.since) >= WINDOW {
            *seen = Failures { since: now, count: 0 };
        }
        seen.count = seen.count.saturating_add(1);
    }
}

/// Stands for all addresses that found the list full; nobody can connect from it.
const NEWCOMERS: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

fn hash(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

/// The token of `Authorization: Bearer <token>`; none when the header is absent, twice there, or of another kind.
fn presented(headers: &HeaderMap) -> Option<&str> {
    let mut all = headers.get_all(AUTHORIZATION).iter();
    let (Some(value), None) = (all.next(), all.next()) else { return None };
    let (kind, token) = value.to_str().ok()?.split_once(' ')?;
    kind.eq_ignore_ascii_case("bearer").then_some(token.trim_start_matches(' '))
}

/// Whether the one Host header names this machine by a loopback name, so that no foreign name can be pointed at it.
fn names_loopback(headers: &HeaderMap) -> bool {
    let mut all = headers.get_all(HOST).iter();
    let (Some(value), None) = (all.next(), all.next()) else { return false };
    let Some(authority) = value.to_str().ok().and_then(|text| text.parse::<http::uri::Authority>().ok())
    else {
        return false;
    };
    let host = authority.host();
    let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    host.eq_ignore_ascii_case("localhost") || address.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// Whether a browser says that another site made it send this. Programs send neither header.
fn is_from_another_site(headers: &HeaderMap) -> bool {
    let sites = headers.get_all(FETCH_SITE).iter();
    if sites.map(http::HeaderValue::as_bytes).any(|site| site != b"same-origin" && site != b"none") {
        return true;
    }
    let host = headers.get(HOST).map(http::HeaderValue::as_bytes);
    headers.get_all(ORIGIN).iter().any(|origin| {
        let authority =
            origin.as_bytes().strip_prefix(b"http://").or(origin.as_bytes().strip_prefix(b"https://"));
        authority.is_none() || authority != host
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "0123456789abcdef0123456789abcdef";
    const PEER: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap())).collect()
    }

    fn guard(address: &str, token: Option<&str>) -> Guard {
        let token = token.map(|token| SecretString::from(token.to_owned()));
        Guard::new(address.parse().unwrap(), token.as_ref())
    }

    #[track_caller]
    fn check(guard: &Guard, path: &str, pairs: &[(&'static str, &str)], expected: u16) {
        let entry = guard.judge(PEER, &path.parse().unwrap(), &headers(pairs), Instant::now());
        let status = match entry {
            Entry::Granted => 200,
            Entry::Refused(status) => status.as_u16(),
        };
        assert_eq!(status, expected, "{path} {pairs:?}");
    }

    #[test]
    fn only_the_exact_token_opens_what_is_closed() {
        let right = format!("Bearer {TOKEN}");
        let longer = format!("{right}0");
        for (value, expected) in [
            (right.as_str(), 200),
            (&format!("bearer {TOKEN}"), 200),
            (&longer, 401),
            (&right[..right.len() - 1], 401),
            ("Bearer ", 401),
            ("Bearer", 401),
            (TOKEN, 401),
            ("Basic dXNlcjpwYXNz", 401),
        ] {
            for path in ["/", "/metrics", "/api/status", "/api/nothing", "/nowhere", "/healthz/x"] {
                let fresh = guard("0.0.0.0:0", Some(TOKEN));
                check(&fresh, path, &[("authorization", value)], expected);
            }
        }
        check(&guard("0.0.0.0:0", Some(TOKEN)), "/metrics", &[], 401);
    }

    #[test]
    fn two_authorization_headers_are_none() {
        let right: http::HeaderValue = format!("Bearer {TOKEN}").parse().unwrap();
        let mut twice = HeaderMap::new();
        twice.append(AUTHORIZATION, right.clone());
        twice.append(AUTHORIZATION, right);
        let guard = guard("0.0.0.0:0", Some(TOKEN));
        let entry = guard.judge(PEER, &"/metrics".parse().unwrap(), &twice, Instant::now());
        assert_eq!(entry, Entry::Refused(StatusCode::UNAUTHORIZED));
    }

    #[test]
    fn without_a_token_only_a_loopback_listener_shows_metrics_and_nobody_gets_the_api() {
        for token in [None, Some("")] {
            let local = guard("127.0.0.1:0", token);
            let host = ("host", "localhost:8081");
            for (path, expected) in [("/metrics", 200), ("/", 200), ("/api/status", 401), ("/nowhere", 401)] {
                check(&local, path, &[host], expected);
                check(&local, path, &[host, ("authorization", "Bearer ")], expected);
            }
            for path in ["/metrics", "/", "/api/status"] {
                check(&guard("0.0.0.0:0", token), path, &[], 401);
            }
        }
    }

    #[test]
    fn health_needs_no_token() {
        for path in ["/healthz", "/readyz"] {
            check(&guard("0.0.0.0:0", Some(TOKEN)), path, &[], 200);
            check(&guard("0.0.0.0:0", None), path, &[], 200);
        }
    }

    #[test]
    fn a_loopback_listener_answers_to_loopback_names_only() {
        let local = guard("[::1]:0", None);
        for host in ["localhost", "LOCALHOST:1", "127.0.0.1:8081", "127.8.9.1", "[::1]:8081"] {
            check(&local, "/healthz", &[("host", host)], 200);
        }
        for host in ["evil.example.com", "localhost.example.com", "10.0.0.1", "127.0.0.1.example.com", ""] {
            check(&local, "/healthz", &[("host", host)], 403);
        }
        check(&local, "/healthz", &[], 403);
        check(&guard("0.0.0.0:0", None), "/healthz", &[("host", "bridge.example.com")], 200);
    }

    #[test]
    fn a_browser_that_another_site_sends_is_refused_even_with_the_token() {
        let guard = guard("0.0.0.0:0", Some(TOKEN));
        let (host, right) = (("host", "bridge.example.com"), format!("Bearer {TOKEN}"));
        for (name, value, expected) in [
            ("sec-fetch-site", "cross-site", 403),
            ("sec-fetch-site", "same-site", 403),
            ("sec-fetch-site", "same-origin", 200),
            ("sec-fetch-site", "none", 200),
            ("origin", "https://evil.example.com", 403),
            ("origin", "null", 403),
            ("origin", "https://bridge.example.com.evil.example.com", 403),
            ("origin", "https://bridge.example.com", 200),
        ] {
            check(&guard, "/metrics", &[host, ("authorization", &right), (name, value)], expected);
        }
    }

    #[test]
    fn after_five_failures_in_a_second_an_address_waits_and_then_may_try_again() {
        let guard = guard("0.0.0.0:0", Some(TOKEN));
        let (start, uri) = (Instant::now(), "/metrics".parse::<Uri>().unwrap());
        let right = headers(&[("authorization", &format!("Bearer {TOKEN}"))]);
        let wrong = headers(&[("authorization", "Bearer guess")]);
        let ask = |peer, with: &HeaderMap, at_ms| {
            guard.judge(peer, &uri, with, start + Duration::from_millis(at_ms))
        };
        for at_ms in 0..u64::from(FAILURES) {
            assert_eq!(ask(PEER, &wrong, at_ms), Entry::Refused(StatusCode::UNAUTHORIZED));
        }
        assert_eq!(ask(PEER, &wrong, 10), Entry::Refused(StatusCode::TOO_MANY_REQUESTS));
        assert_eq!(
            ask(PEER, &right, 10),
            Entry::Refused(StatusCode::TOO_MANY_REQUESTS),
            "a guess must not be told"
        );
        let other = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
        assert_eq!(ask(other, &right, 10), Entry::Granted, "another address does not wait");
        assert_eq!(ask(PEER, &right, 1_000), Entry::Granted);
        assert_eq!(ask(PEER, &wrong, 1_001), Entry::Refused(StatusCode::UNAUTHORIZED));
    }

    #[test]
    fn the_memory_of_failures_is_bounded_and_newcomers_share_a_count_when_it_is_full() {
        let guard = guard("0.0.0.0:0", Some(TOKEN));
        let (now, uri) = (Instant::now(), "/metrics".parse::<Uri>().unwrap());
        let mut last = Entry::Granted;
        for number in 0..5_000_u32 {
            let peer = IpAddr::V4(Ipv4Addr::from_bits(0x0a00_0000 + number));
            last = guard.judge(peer, &uri, &HeaderMap::new(), now);
        }
        assert!(guard.failures.lock().unwrap().len() <= ADDRESSES + 1);
        assert_eq!(last, Entry::Refused(StatusCode::TOO_MANY_REQUESTS));
    }
}
