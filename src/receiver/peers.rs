//! How many connections each peer has. Bounded by the total number of connections: a peer without one has no entry.

use super::settings::PeerNet;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};

/// Counts connections by peer and refuses those over the limit.
#[derive(Debug)]
pub(super) struct Peers {
    limit: usize,
    trusted: Vec<PeerNet>,
    open: Mutex<HashMap<IpAddr, usize>>,
}

/// The right to one connection; given back when dropped.
#[derive(Debug)]
pub(super) struct Slot {
    /// None for a trusted proxy, which is not counted.
    counted: Option<(Arc<Peers>, IpAddr)>,
}

impl Peers {
    pub(super) fn new(limit: usize, trusted: Vec<PeerNet>) -> Arc<Self> {
        Arc::new(Self { limit, trusted, open: Mutex::default() })
    }

    /// A slot for `peer`, or none if it has its fill.
    pub(super) fn admit(self: &Arc<Self>, peer: IpAddr) -> Option<Slot> {
        if self.trusted.iter().any(|net| net.contains(peer)) {
            return Some(Slot { counted: None });
        }
        let key = household(peer);
        // The map is whole after every step, so a panic elsewhere while it was held changes nothing.
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let count = open.entry(key).or_default();
        if *count >= self.limit {
            if *count == 0 {
                open.remove(&key);
            }
            return None;
        }
        *count += 1;
        Some(Slot { counted: Some((self.clone(), key)) })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let Some((peers, key)) = &self.counted else { return };
        let mut open = peers.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = open.get_mut(key) {
            *count -= 1;
            if *count == 0 {
                open.remove(key);
            }
        }
    }
}

/// The address that is counted: an IPv6 customer owns a /64 and could use a new address for each connection.
fn household(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_peer_is_refused_over_its_limit_and_taken_again_after_a_close() {
        let peers = Peers::new(2, vec![]);
        let first = peers.admit(ip("192.0.2.1")).unwrap();
        let _second = peers.admit(ip("::ffff:192.0.2.1")).unwrap();
        assert!(peers.admit(ip("192.0.2.1")).is_none());
        assert!(peers.admit(ip("192.0.2.2")).is_some());
        drop(first);
        assert!(peers.admit(ip("192.0.2.1")).is_some());
    }

    #[test]
    fn an_ipv6_network_counts_as_one_peer_and_leaves_nothing_behind() {
        let peers = Peers::new(1, vec![]);
        let slot = peers.admit(ip("2001:db8::1")).unwrap();
        assert!(peers.admit(ip("2001:db8::2")).is_none());
        assert!(peers.admit(ip("2001:db8:0:1::2")).is_some());
        drop(slot);
        assert!(peers.open.lock().unwrap().is_empty());
    }

    #[test]
    fn a_trusted_proxy_is_not_counted() {
        let peers = Peers::new(1, vec!["10.0.0.0/8".parse().unwrap()]);
        let slots: Vec<_> = (0..100).map(|_| peers.admit(ip("10.1.1.1")).unwrap()).collect();
        assert_eq!(slots.len(), 100);
        assert!(peers.open.lock().unwrap().is_empty());
    }
}
