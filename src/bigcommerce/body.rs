//! Reads the body of a reply, decoded, up to a bound.
//!
//! The bound is on decoded bytes, counted as they come, so that a small compressed reply cannot become a large
//! one in memory: reading stops at the first chunk beyond it.

use bytes::{Bytes, BytesMut};

use super::classify::End;

/// Largest body, decoded. 250 products with all sub-resources are about 4 MiB.
pub(super) const MAX_BODY_BYTES: usize = 16 * 1024 * 1024;

/// Reads the body; what had come when it ended early is dropped.
pub(super) async fn read(response: &mut reqwest::Response) -> (Bytes, End) {
    // A declared length above the bound need not be read at all.
    if response.content_length().is_some_and(|length| length > MAX_BODY_BYTES as u64) {
        return (Bytes::new(), End::TooLarge);
    }
    let mut body = BytesMut::new();
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) if body.len() + chunk.len() > MAX_BODY_BYTES => {
                return (Bytes::new(), End::TooLarge);
            }
            Ok(Some(chunk)) => body.extend_from_slice(&chunk),
            Ok(None) => return (body.freeze(), End::Whole),
            Err(_) => return (Bytes::new(), End::Cut),
        }
    }
}
