//! The ids that a scan met, and the ids that were published, as 64-bit hashes. Pure.
//!
//! A hash that two ids share could only hide that one of them is gone: among two million, once in ten million scans.
//! Bounded: [`MAX_IDS`]; a scan that meets more says nothing about what is not there.

use std::collections::HashSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use bytes::Bytes;
use sha2::{Digest, Sha256};

/// Ids that one scan remembers: 2 million are some 32 MB.
pub const MAX_IDS: usize = 2_000_000;

/// A hash of an id that stays the same from one release to the next.
pub fn hash(id: &str) -> u64 {
    let digest = Sha256::digest(id.as_bytes());
    u64::from_be_bytes(digest[..8].try_into().expect("a digest has 32 bytes"))
}

/// A set of ids.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ids {
    hashes: HashSet<u64>,
    overflown: bool,
}

impl Ids {
    /// Adds some.
    pub fn add(&mut self, hashes: impl IntoIterator<Item = u64>) {
        for hash in hashes {
            if self.hashes.len() >= MAX_IDS {
                self.overflown = true;
                return;
            }
            self.hashes.insert(hash);
        }
    }

    /// Takes one out.
    pub fn remove(&mut self, hash: u64) {
        self.hashes.remove(&hash);
    }

    /// Whether it is in.
    pub fn has(&self, hash: u64) -> bool {
        self.hashes.contains(&hash)
    }

    /// Whether some found no place, so that what is not in may have been met all the same.
    pub fn is_overflown(&self) -> bool {
        self.overflown
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.hashes.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.hashes.is_empty()
    }
}

/// The hashes of one page, as they stand in the ledger.
pub fn write(hashes: &[u64]) -> Bytes {
    let bytes: Vec<u8> = hashes.iter().flat_map(|hash| hash.to_be_bytes()).collect();
    Bytes::from(STANDARD_NO_PAD.encode(bytes))
}

/// The hashes of one page; none if they cannot be read.
pub fn read(value: &[u8]) -> Option<Vec<u64>> {
    let bytes = STANDARD_NO_PAD.decode(value).ok()?;
    let (chunks, rest) = bytes.as_chunks::<8>();
    rest.is_empty().then(|| chunks.iter().map(|chunk| u64::from_be_bytes(*chunk)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_of_hashes_reads_as_it_is_written() {
        let hashes: Vec<u64> = (1..=250).map(|n| hash(&n.to_string())).collect();
        assert_eq!(read(&write(&hashes)), Some(hashes));
        assert_eq!(read(b"AAAA"), None);
        assert_eq!(read(b"?"), None);
    }

    #[test]
    fn an_id_keeps_its_hash_for_ever() {
        assert_eq!(hash("250"), 0x1e47_2b39_b105_d349);
    }
}
