//! The receiver's settings, resolved: limits, deadlines, stores. Every default says why.

use super::verify::{DEFAULT_MAX_BEHIND_S, SignaturePolicy};
use http::HeaderName;
use secrecy::SecretString;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

/// Everything the receiver needs to know before it listens.
#[derive(Debug, Clone)]
pub struct ReceiverConfig {
    /// Where to listen; port 0 lets the system choose.
    pub listen: SocketAddr,
    /// Bounds on what a peer may make us hold.
    pub limits: Limits,
    /// Bounds on how long a peer may make us wait.
    pub deadlines: Deadlines,
    /// How old a signed timestamp may be. 72 h unless set: the sender's retries last 48 h.
    pub max_behind: Duration,
    /// Peers that forward for others: they may open any number of connections within the total. Nothing else is
    /// believed of them; `X-Forwarded-*` is never read.
    pub trusted_proxies: Vec<PeerNet>,
    /// The stores whose callbacks are taken. Reloadable, see [`Stores`](super::Stores).
    pub stores: Vec<StoreAuth>,
}

impl ReceiverConfig {
    /// The defaults, for `listen` and `stores`.
    pub fn new(listen: SocketAddr, stores: Vec<StoreAuth>) -> Self {
        Self {
            listen,
            limits: Limits::default(),
            deadlines: Deadlines::default(),
            max_behind: Duration::from_secs(DEFAULT_MAX_BEHIND_S.unsigned_abs()),
            trusted_proxies: Vec::new(),
            stores,
        }
    }
}

/// Sizes and counts.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Open connections in all. 1,024: with 16 KiB of head and 64 KiB of body each, 80 MiB at the very worst.
    pub connections: usize,
    /// Open connections of one peer address (an IPv6 /64 counts as one). 64: the sender itself uses a handful.
    pub connections_per_peer: usize,
    /// Header lines of one request. 64 is what the sender itself accepts.
    pub headers: usize,
    /// Bytes of one request head. 16 KiB; a callback's is under 1 KiB.
    pub head_bytes: usize,
    /// Bytes of the request target. 1 KiB; ours are under 100 bytes.
    pub uri_bytes: usize,
    /// Bytes of a body, counted as they are read. 64 KiB; a callback's is under 1 KiB.
    pub body_bytes: usize,
    /// Event ids remembered as durable, so that a repeat is answered without appending it again. 200,000 are
    /// about 10 MiB: an hour of repeats at 50 callbacks a second. What is older is dropped by later stages.
    pub remembered_ids: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 1024,
            connections_per_peer: 64,
            headers: 64,
            head_bytes: 16 * 1024,
            uri_bytes: 1024,
            body_bytes: 64 * 1024,
            remembered_ids: 200_000,
        }
    }
}

/// Times.
#[derive(Debug, Clone)]
pub struct Deadlines {
    /// From the accept to the first byte: 5 s.
    pub first_byte: Duration,
    /// From the first byte of a head to its end: 5 s.
    pub head: Duration,
    /// From the end of the head to the end of the body: 10 s.
    pub body: Duration,
    /// Between two requests of one connection: 30 s.
    pub idle: Duration,
    /// From the first byte of a request to its answer: 15 s.
    pub total: Duration,
    /// For connections in flight when the receiver is told to stop: 10 s, of the 25 s that the process has.
    pub drain: Duration,
}

impl Default for Deadlines {
    fn default() -> Self {
        Self {
            first_byte: Duration::from_secs(5),
            head: Duration::from_secs(5),
            body: Duration::from_secs(10),
            idle: Duration::from_secs(30),
            total: Duration::from_secs(15),
            drain: Duration::from_secs(10),
        }
    }
}

/// One store, and what proves that a callback is its own.
#[derive(Debug, Clone)]
pub struct StoreAuth {
    /// The last segment of the route `/webhooks/<name>`.
    pub name: Arc<str>,
    /// The hash that a body's `producer` must name.
    pub store_hash: String,
    /// The number that a body's `store_id` must hold, where it is known.
    pub store_id: Option<String>,
    /// Client secrets, raw; several while rotating, at most [`MAX_SECRETS`](super::verify::MAX_SECRETS).
    pub secrets: Vec<SecretString>,
    /// Whether a signature is demanded.
    pub policy: SignaturePolicy,
    /// A second factor: headers that the store's hooks carry, and their secret values, any of which will do: several
    /// while rotating, at most [`MAX_SECRETS`](super::verify::MAX_SECRETS).
    pub headers: Vec<(HeaderName, Vec<SecretString>)>,
    /// Sets of headers that were in force before and are still good: hooks change one after the other.
    pub earlier_headers: Vec<Vec<(HeaderName, Vec<SecretString>)>>,
}

/// An address block such as `10.0.0.0/8`, `::1` or `fd00::/8`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerNet {
    base: IpAddr,
    prefix_bits: u32,
}

/// A text that is no [`PeerNet`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{found:?} is not an address block, use an address with an optional prefix length such as 10.0.0.0/8"
)]
pub struct BadPeerNet {
    found: String,
}

impl PeerNet {
    /// Whether `peer` lies in the block. An IPv4 address inside IPv6 counts as the IPv4 address.
    pub fn contains(&self, peer: IpAddr) -> bool {
        let (peer, base) = (peer.to_canonical(), self.base.to_canonical());
        match (peer, base) {
            (IpAddr::V4(a), IpAddr::V4(b)) => {
                let differing = a.to_bits() ^ b.to_bits();
                differing.checked_shr(32 - self.prefix_bits).unwrap_or(0) == 0
            }
            (IpAddr::V6(a), IpAddr::V6(b)) => {
                let differing = a.to_bits() ^ b.to_bits();
                differing.checked_shr(128 - self.prefix_bits).unwrap_or(0) == 0
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }
}

impl FromStr for PeerNet {
    type Err = BadPeerNet;

    fn from_str(text: &str) -> Result<Self, BadPeerNet> {
        let bad = || BadPeerNet { found: text.to_owned() };
        let (address, prefix) = text.split_once('/').map_or((text, None), |(a, p)| (a, Some(p)));
        let base: IpAddr = address.parse().map_err(|_| bad())?;
        let whole = if base.is_ipv4() { 32 } else { 128 };
        let prefix_bits = match prefix {
            Some(digits) => digits.parse().ok().filter(|bits| *bits <= whole).ok_or_else(bad)?,
            None => whole,
        };
        // An IPv4 address inside IPv6 would be compared as IPv4 with a prefix meant for IPv6.
        let mixed = base.is_ipv6() && base.to_canonical().is_ipv4();
        if mixed { Err(bad()) } else { Ok(Self { base, prefix_bits }) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_holds_its_own_addresses_and_no_others() {
        let check = |net: &str, peer: &str| net.parse::<PeerNet>().unwrap().contains(peer.parse().unwrap());
        assert!(check("10.0.0.0/8", "10.255.0.1"));
        assert!(check("10.0.0.0/8", "::ffff:10.1.2.3"));
        assert!(!check("10.0.0.0/8", "11.0.0.1"));
        assert!(check("0.0.0.0/0", "1.2.3.4"));
        assert!(!check("0.0.0.0/0", "::1"));
        assert!(check("::1", "::1"));
        assert!(!check("::1", "::2"));
        assert!(check("fd00::/8", "fdab::1"));
    }

    #[test]
    fn a_bad_block_says_what_was_found() {
        for text in ["", "10.0.0.0/33", "10.0.0/8", "::/129", "10.0.0.0/-1", "::ffff:10.0.0.0/104", "host"] {
            let error = text.parse::<PeerNet>().unwrap_err();
            assert!(error.to_string().contains(&format!("{text:?}")), "{error}");
        }
    }
}
