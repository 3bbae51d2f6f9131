//! What a reply means: from method, status, headers and body to an [`Answer`]. Pure.
//!
//! Two mistakes are never made: nothing but a complete 2xx counts as done, and nothing but a complete, clean
//! 404 or 410 of the API itself counts as gone. Wherever a write may have been applied the answer is `Doubtful`.

use std::time::Duration;

use serde::de::IgnoredAny;

use crate::model::request::{Answer, Method};

/// Levels of nesting in a reply. BigCommerce's deepest has about a dozen; parsers end at 128.
const MAX_DEPTH: usize = 128;

/// How the body ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// As its framing said.
    Whole,
    /// The connection broke, or the encoding was damaged.
    Cut,
    /// It was larger than what is taken.
    TooLarge,
}

/// What the body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Content {
    /// None.
    Empty,
    /// JSON.
    Json,
    /// JSON nested too deeply for any parser.
    TooDeep,
    /// Something else, such as a gateway's page, or damaged JSON.
    Other,
}

/// A reply as far as it matters.
#[derive(Debug, Clone, Copy)]
pub(super) struct Facts {
    pub(super) method: Method,
    pub(super) status: u16,
    pub(super) end: End,
    pub(super) content: Content,
    /// How long the store asked to stay away.
    pub(super) retry_after: Option<Duration>,
}

/// Says what a body is, by its declared type and by its bytes.
pub(super) fn content(content_type: Option<&str>, body: &[u8]) -> Content {
    if body.is_empty() {
        return Content::Empty;
    }
    let declared = content_type.is_none_or(|kind| kind.to_ascii_lowercase().contains("json"));
    if !declared || serde_json::from_slice::<IgnoredAny>(body).is_err() {
        return Content::Other;
    }
    if depth(body) > MAX_DEPTH { Content::TooDeep } else { Content::Json }
}

/// The deepest nesting of well-formed JSON, without recursion.
fn depth(json: &[u8]) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0);
    let (mut in_text, mut escaped) = (false, false);
    for byte in json {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_text => escaped = true,
            b'"' => in_text = !in_text,
            _ if in_text => {}
            b'[' | b'{' => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

/// The default wait for a locked thing (423), for which BigCommerce names none.
const LOCKED: Duration = Duration::from_secs(5);

/// The meaning of a reply, and one clause for people.
pub(super) fn answer(facts: &Facts) -> (Answer, &'static str) {
    let after = facts.retry_after.unwrap_or(LOCKED);
    match facts.status {
        // Refused before it was looked at; how the body ended does not matter.
        429 => return (Answer::Busy { after }, "too many requests"),
        423 => return (Answer::Busy { after }, "the thing is locked"),
        300..=399 => return (Answer::Invalid, "redirects are not followed; check base_uri"),
        _ => {}
    }
    match facts.end {
        End::Whole => {}
        End::Cut => return (Answer::Doubtful, "the reply was cut short"),
        End::TooLarge => return (Answer::Doubtful, "the reply is larger than 16 MiB"),
    }
    match facts.status {
        200..=299 => success(facts),
        400..=499 => refused(facts),
        501 | 505 | 507 => {
            (Answer::Invalid, "the store does not support this, or its plan's limit is reached")
        }
        // A read has no effect, so it may just be told to come back.
        503 if facts.method == Method::Get && facts.retry_after.is_some() => {
            (Answer::Busy { after }, "the store asked to come back later")
        }
        500..=599 => (Answer::Doubtful, "the store failed"),
        _ => (Answer::Doubtful, "the status is not one of HTTP's"),
    }
}

fn success(facts: &Facts) -> (Answer, &'static str) {
    match facts.content {
        Content::Other => return (Answer::Doubtful, "a success that is not JSON: perhaps a gateway's page"),
        Content::TooDeep => return (Answer::Doubtful, "the reply is nested more than 128 levels deep"),
        Content::Empty if facts.method == Method::Get && facts.status != 204 => {
            return (Answer::Doubtful, "a read that brought nothing");
        }
        Content::Empty if facts.status == 207 => {
            return (Answer::Doubtful, "a partial success without its list");
        }
        Content::Empty | Content::Json => {}
    }
    if facts.status == 207 {
        return (Answer::Partial, "done in part; the body tells which");
    }
    (Answer::Done, "")
}

fn refused(facts: &Facts) -> (Answer, &'static str) {
    match facts.status {
        401 => (Answer::Unauthorized, "the access token is not valid"),
        403 => (Answer::Forbidden, "the access token lacks a scope, or the plan lacks the feature"),
        404 | 410 => match facts.content {
            Content::Empty | Content::Json => (Answer::Missing, "there is no such thing"),
            Content::Other | Content::TooDeep => {
                (Answer::Doubtful, "a 404 that the API did not send: perhaps a gateway's page")
            }
        },
        408 => (Answer::Doubtful, "the store gave up waiting for the request"),
        409 => (Answer::Conflict, "it conflicts with what the store holds"),
        413 | 414 => (Answer::Invalid, "the request is larger than the store takes"),
        422 => (Answer::Invalid, "the content was refused"),
        _ => (Answer::Invalid, "the request was refused"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn meaning(method: Method, status: u16, end: End, content: Content) -> Answer {
        answer(&Facts { method, status, end, content, retry_after: None }).0
    }

    #[test]
    fn every_documented_status_has_its_meaning() {
        use Content::Json;
        let busy = Answer::Busy { after: LOCKED };
        let table = [
            (200, Answer::Done),
            (201, Answer::Done),
            (202, Answer::Done),
            (204, Answer::Done),
            (207, Answer::Partial),
            (301, Answer::Invalid),
            (302, Answer::Invalid),
            (307, Answer::Invalid),
            (308, Answer::Invalid),
            (400, Answer::Invalid),
            (401, Answer::Unauthorized),
            (403, Answer::Forbidden),
            (404, Answer::Missing),
            (405, Answer::Invalid),
            (406, Answer::Invalid),
            (408, Answer::Doubtful),
            (409, Answer::Conflict),
            (410, Answer::Missing),
            (413, Answer::Invalid),
            (414, Answer::Invalid),
            (415, Answer::Invalid),
            (422, Answer::Invalid),
            (423, busy),
            (429, busy),
            (500, Answer::Doubtful),
            (501, Answer::Invalid),
            (502, Answer::Doubtful),
            (503, Answer::Doubtful),
            (504, Answer::Doubtful),
            (505, Answer::Invalid),
            (507, Answer::Invalid),
            (522, Answer::Doubtful),
        ];
        for method in [Method::Get, Method::Post, Method::Put, Method::Delete] {
            for (status, expected) in table {
                assert_eq!(meaning(method, status, End::Whole, Json), expected, "{method:?} {status}");
            }
        }
    }

    #[test]
    fn a_page_of_a_gateway_is_neither_a_success_nor_an_absence() {
        let page = content(Some("text/html; charset=utf-8"), b"<html>sorry</html>");
        assert_eq!(page, Content::Other);
        for status in [200, 201, 404, 410] {
            assert_eq!(meaning(Method::Get, status, End::Whole, page), Answer::Doubtful, "{status}");
            assert_eq!(meaning(Method::Post, status, End::Whole, page), Answer::Doubtful, "{status}");
        }
    }

    #[test]
    fn an_empty_body_is_an_empty_list_by_204_and_doubtful_by_200() {
        assert_eq!(meaning(Method::Get, 204, End::Whole, Content::Empty), Answer::Done);
        assert_eq!(meaning(Method::Get, 200, End::Whole, Content::Empty), Answer::Doubtful);
        assert_eq!(meaning(Method::Put, 200, End::Whole, Content::Empty), Answer::Done);
        assert_eq!(meaning(Method::Get, 404, End::Whole, Content::Empty), Answer::Missing);
        assert_eq!(meaning(Method::Put, 207, End::Whole, Content::Empty), Answer::Doubtful);
    }

    #[test]
    fn a_store_that_names_a_time_is_believed_for_reads_and_doubted_for_writes() {
        let after = Duration::from_secs(40);
        let facts = |method, status| Facts {
            method,
            status,
            end: End::Whole,
            content: Content::Json,
            retry_after: Some(after),
        };
        assert_eq!(answer(&facts(Method::Get, 503)).0, Answer::Busy { after });
        assert_eq!(answer(&facts(Method::Post, 503)).0, Answer::Doubtful);
        assert_eq!(answer(&facts(Method::Post, 429)).0, Answer::Busy { after });
    }

    #[test]
    fn deep_json_is_harmless_and_doubtful() {
        let deep = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels)).into_bytes();
        assert_eq!(content(None, &deep(100_000)), Content::TooDeep);
        assert_eq!(content(None, &deep(129)), Content::TooDeep);
        assert_eq!(content(None, &deep(128)), Content::Json);
        assert_eq!(content(None, br#"{"a":"[[[\"[{"}"#), Content::Json);
        assert_eq!(meaning(Method::Get, 200, End::Whole, Content::TooDeep), Answer::Doubtful);
    }

    proptest! {
        #[test]
        fn nothing_but_a_whole_2xx_is_done_and_nothing_but_a_clean_404_is_missing(
            status in 0_u16..1000,
            end in prop_oneof![Just(End::Whole), Just(End::Cut), Just(End::TooLarge)],
            content in prop_oneof![Just(Content::Empty), Just(Content::Json), Just(Content::TooDeep), Just(Content::Other)],
            method in prop_oneof![Just(Method::Get), Just(Method::Post), Just(Method::Put), Just(Method::Delete)],
        ) {
            let sound = end == End::Whole && matches!(content, Content::Empty | Content::Json);
            match meaning(method, status, end, content) {
                Answer::Done | Answer::Partial => prop_assert!((200..300).contains(&status) && sound),
                Answer::Missing => prop_assert!(matches!(status, 404 | 410) && sound),
                _ => {}
            }
        }

        #[test]
        fn any_bytes_have_a_content(kind in prop::option::of(".{0,20}"), body in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = content(kind.as_deref(), &body);
        }
    }
}
