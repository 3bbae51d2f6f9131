//! The shapes of list replies: V2's bare arrays, V3's `data` with its paging, and single things. Pure.
//!
//! Rows are slices of the reply, byte for byte: money strings, unknown fields and the order of keys stay as the
//! store sent them.

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

/// Why a body has no rows.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadShape {
    /// Not JSON, or not of the shape of a list or an envelope.
    #[error("the reply is not {wanted}")]
    Not {
        /// What it should have been.
        wanted: &'static str,
    },
}

/// One page of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// The rows, each the bytes of one JSON value.
    pub rows: Vec<Bytes>,
    /// Where the next page is.
    pub next: Next,
    /// Rows in all pages, where the store tells.
    pub total: Option<u64>,
}

/// Where the next page is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// This was the last one.
    End,
    /// A page by number.
    Page(u64),
    /// The page after a cursor, for the parameter `after`.
    Cursor(String),
    /// The store does not tell (V2): a page shorter than the limit, or an empty one, is the last.
    Unknown,
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    #[serde(default)]
    meta: Option<Meta>,
}

#[derive(Deserialize, Default)]
struct Meta {
    pagination: Option<Pagination>,
    cursor_pagination: Option<CursorPagination>,
}

#[derive(Deserialize)]
struct Pagination {
    total: Option<u64>,
    current_page: Option<u64>,
    // Customs information and site routes spell it without the s.
    #[serde(alias = "total_page")]
    total_pages: Option<u64>,
}

#[derive(Deserialize)]
struct CursorPagination {
    end_cursor: Option<String>,
    links: Option<CursorLinks>,
}

#[derive(Deserialize)]
struct CursorLinks {
    next: Option<String>,
}

/// The rows of a list reply. An empty body (204) is an empty list.
///
/// # Errors
/// A body that is not a list: neither an array nor an object with an array `data`.
pub fn list(body: &Bytes) -> Result<Page, BadShape> {
    if is_blank(body) {
        return Ok(Page { rows: Vec::new(), next: Next::End, total: None });
    }
    let not_a_list = BadShape::Not { wanted: "an array, nor an object with an array data" };
    if first(body) == Some(b'[') {
        let rows = elements(body, body).ok_or(not_a_list)?;
        let next = if rows.is_empty() { Next::End } else { Next::Unknown };
        return Ok(Page { rows, next, total: None });
    }
    let envelope: Envelope<'_> = serde_json::from_slice(body).map_err(|_| not_a_list.clone())?;
    let data = envelope.data.ok_or_else(|| not_a_list.clone())?;
    let rows = elements(body, data.get().as_bytes()).ok_or(not_a_list)?;
    let meta = envelope.meta.unwrap_or_default();
    let total = meta.pagination.as_ref().and_then(|pagination| pagination.total);
    let next = if rows.is_empty() { Next::End } else { next(&meta) };
    Ok(Page { rows, next, total })
}

/// The rows of a list reply of V2: a bare array, or nothing.
///
/// # Errors
/// Anything else; a V3 envelope is none of V2's replies.
pub fn bare_list(body: &Bytes) -> Result<Page, BadShape> {
    match first(body) {
        None | Some(b'[') => list(body),
        Some(_) => Err(BadShape::Not { wanted: "an array" }),
    }
}

fn next(meta: &Meta) -> Next {
    if let Some(cursor) = &meta.cursor_pagination {
        let more =
            cursor.links.as_ref().is_some_and(|links| links.next.as_ref().is_some_and(|n| !n.is_empty()));
        return match &cursor.end_cursor {
            Some(end) if more && !end.is_empty() => Next::Cursor(end.clone()),
            _ => Next::End,
        };
    }
    match meta.pagination.as_ref().map(|pagination| (pagination.current_page, pagination.total_pages)) {
        Some((Some(current), Some(all))) if current < all => Next::Page(current + 1),
        Some((Some(_), Some(_))) => Next::End,
        _ => Next::Unknown,
    }
}

/// The one thing of a reply: `data` where it is an object, else the whole object (V2, and the few bare V3 ones).
///
/// # Errors
/// A body that is not an object, or whose `data` is neither an object nor an array of one.
pub fn single(body: &Bytes) -> Result<Bytes, BadShape> {
    let not_one = BadShape::Not { wanted: "a JSON object" };
    if first(body) != Some(b'{') {
        return Err(not_one);
    }
    let envelope: Envelope<'_> = match serde_json::from_slice(body) {
        Ok(envelope) => envelope,
        // A bare thing may have a `meta` of its own kind; all that matters is that it is JSON.
        Err(_) => Envelope { data: None, meta: None },
    };
    let Some(data) = envelope.data else {
        let whole: &RawValue = serde_json::from_slice(body).map_err(|_| not_one)?;
        return Ok(body.slice_ref(whole.get().as_bytes()));
    };
    let bytes = body.slice_ref(data.get().as_bytes());
    match first(&bytes) {
        Some(b'{') => Ok(bytes),
        Some(b'[') => match elements(body, &bytes).as_deref() {
            Some([one]) => Ok(one.clone()),
            _ => Err(not_one),
        },
        _ => Err(not_one),
    }
}

/// The elements of a JSON array that lies within `body`.
fn elements(body: &Bytes, array: &[u8]) -> Option<Vec<Bytes>> {
    let rows: Vec<&RawValue> = serde_json::from_slice(array).ok()?;
    Some(rows.into_iter().map(|row| body.slice_ref(row.get().as_bytes())).collect())
}

fn is_blank(body: &[u8]) -> bool {
    first(body).is_none()
}

fn first(body: &[u8]) -> Option<u8> {
    body.iter().copied().find(|byte| !byte.is_ascii_whitespace())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rows(body: &'static str) -> Vec<String> {
        let page = list(&Bytes::from_static(body.as_bytes())).unwrap();
        page.rows.iter().map(|row| String::from_utf8(row.to_vec()).unwrap()).collect()
    }

    fn next_of(body: &str) -> Next {
        list(&Bytes::copy_from_slice(body.as_bytes())).unwrap().next
    }

    #[test]
    fn rows_are_the_bytes_that_came() {
        let expected = [r#"{"total":"69.8400",  "id" : 1}"#, r#"{"id":2,"x":1e400}"#];
        assert_eq!(rows(r#"[{"total":"69.8400",  "id" : 1}, {"id":2,"x":1e400}]"#), expected);
        assert_eq!(
            rows(r#"{"data":[{"total":"69.8400",  "id" : 1},{"id":2,"x":1e400}],"meta":{}}"#),
            expected
        );
        assert_eq!(rows(""), [""; 0]);
        assert_eq!(rows("[]"), [""; 0]);
    }

    #[test]
    fn the_next_page_is_told_by_numbers_or_by_a_cursor() {
        let page = |meta: &str| next_of(&format!(r#"{{"data":[{{"id":1}}],"meta":{meta}}}"#));
        assert_eq!(page(r#"{"pagination":{"total":3,"current_page":1,"total_pages":3}}"#), Next::Page(2));
        assert_eq!(page(r#"{"pagination":{"total":3,"current_page":3,"total_pages":3}}"#), Next::End);
        assert_eq!(page(r#"{"pagination":{"current_page":1,"total_page":2}}"#), Next::Page(2));
        let cursor = r#"{"cursor_pagination":{"end_cursor":"abc","links":{"next":"?after=abc"}}}"#;
        assert_eq!(page(cursor), Next::Cursor("abc".to_owned()));
        assert_eq!(page(r#"{"cursor_pagination":{"end_cursor":"abc","links":{"next":null}}}"#), Next::End);
        assert_eq!(page("null"), Next::Unknown);
        assert_eq!(next_of(r#"[{"id":1}]"#), Next::Unknown);
        assert_eq!(
            next_of(r#"{"data":[],"meta":{"pagination":{"current_page":1,"total_pages":9}}}"#),
            Next::End
        );
    }

    #[test]
    fn a_single_thing_comes_in_an_envelope_or_bare() {
        let one = |body: &'static str| single(&Bytes::from_static(body.as_bytes()));
        assert_eq!(one(r#"{"data":{"id":7},"meta":{}}"#).unwrap(), r#"{"id":7}"#);
        assert_eq!(one(r#"{"data":[{"id":7}]}"#).unwrap(), r#"{"id":7}"#);
        assert_eq!(one(r#" {"id":7,"meta":"x"} "#).unwrap(), r#"{"id":7,"meta":"x"}"#);
        for wrong in ["", "[1]", "7", r#"{"data":7}"#, r#"{"data":[]}"#, r#"{"id":7"#, "<html>"] {
            assert!(one(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_list_of_v2_has_no_envelope() {
        let rows =
            |body: &'static str| bare_list(&Bytes::from_static(body.as_bytes())).map(|page| page.rows.len());
        assert_eq!((rows(""), rows(" [1,2]")), (Ok(0), Ok(2)));
        assert!(rows(r#"{"data":[1]}"#).is_err() && rows("<html>").is_err());
    }

    #[test]
    fn what_is_no_list_is_refused() {
        for wrong in
            ["<html>", "{}", r#"{"data":{}}"#, r#"{"data":null}"#, "[1,", r#"{"data":[1}"#, "7", "null"]
        {
            assert!(list(&Bytes::from_static(wrong.as_bytes())).is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(body in prop::collection::vec(any::<u8>(), 0..300)) {
            let body = Bytes::from(body);
            let _ = list(&body);
            let _ = single(&body);
        }
    }
}
