//! Reads the bodies of replies, decoded, up to a bound for each and for all of a store together.
//!
//! The bounds are on decoded bytes, counted as they come, so that a small compressed reply cannot become a large
//! one in memory: reading stops at the first chunk beyond. A body that grows past [`LARGE_BYTES`] needs one of a
//! few places before it is read on.

use bytes::{Bytes, BytesMut};
use tokio::sync::Semaphore;

use super::classify::End;

/// Largest body. 250 products with all sub-resources are about 4 MiB.
const MAX_BODY_BYTES: usize = 16 * 1024 * 1024;

/// From here on a body is large.
const LARGE_BYTES: usize = 1024 * 1024;

/// Large bodies at once. With 16 requests at once a store's replies take 4 x 16 + 12 x 1 MiB at most.
const LARGE_AT_ONCE: usize = 4;

/// The readers of one store.
#[derive(Debug)]
pub(super) struct Bodies {
    large: Semaphore,
}

impl Bodies {
    pub(super) fn new() -> Self {
        Self { large: Semaphore::new(LARGE_AT_ONCE) }
    }

    /// Reads a body; what had come when it ended early is dropped. The caller sets the deadline.
    pub(super) async fn read(&self, response: &mut reqwest::Response) -> (Bytes, End) {
        // A declared length above the bound need not be read at all.
        if response.content_length().is_some_and(|length| length > MAX_BODY_BYTES as u64) {
            return (Bytes::new(), End::TooLarge);
        }
        let mut body = BytesMut::new();
        let mut place = None;
        loop {
            match response.chunk().await {
                Ok(Some(chunk)) if body.len() + chunk.len() > MAX_BODY_BYTES => {
                    return (Bytes::new(), End::TooLarge);
                }
                Ok(Some(chunk)) => {
                    if body.len() + chunk.len() > LARGE_BYTES && place.is_none() {
                        place = Some(self.large.acquire().await.expect("the semaphore is never closed"));
                    }
                    body.extend_from_slice(&chunk);
                }
                Ok(None) => return (body.freeze(), End::Whole),
                Err(_) => return (Bytes::new(), End::Cut),
            }
        }
    }
}
