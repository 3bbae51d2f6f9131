//! How one page of a list leads to the next. Pure.

use crate::catalog::Pages;
use crate::model::envelope::{Next, Page};

/// A place among the pages of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum At {
    /// The first page; the request says nothing of pages but their size.
    First,
    /// The page of this number, from 2 on.
    Number(u64),
    /// What follows the row or cursor of this name.
    After(String),
}

impl At {
    /// The query parameter that asks for it.
    pub fn parameter(&self) -> Option<(String, String)> {
        match self {
            Self::First => None,
            Self::Number(number) => Some(("page".into(), number.to_string())),
            Self::After(name) => Some(("after".into(), name.clone())),
        }
    }
}

/// The pages of a list whose row does not say how they follow each other: as the API's version does it.
pub fn style(pages: Option<Pages>, path: &str) -> Pages {
    pages.unwrap_or(if path.starts_with("/v2/") { Pages::V2 } else { Pages::Page })
}

/// What follows a page that was asked for at `at` with `limit` rows; `last` is the id of its last row.
pub fn next(style: Pages, page: &Page, at: &At, limit: usize, last: Option<&str>) -> Option<At> {
    let is_full = !page.rows.is_empty() && page.rows.len() >= limit;
    match (style, &page.next) {
        (Pages::None, _) => None,
        (Pages::AfterId, _) => last.filter(|_| is_full).map(|id| At::After(id.to_owned())),
        (Pages::V2 | Pages::Page | Pages::Cursor, Next::Page(number)) => Some(At::Number(*number)),
        (Pages::V2 | Pages::Page | Pages::Cursor, Next::Cursor(name)) => Some(At::After(name.clone())),
        (Pages::V2, Next::Unknown) => is_full.then_some(At::Number(number(at) + 1)),
        (Pages::Page | Pages::Cursor, Next::Unknown) | (_, Next::End) => None,
    }
}

const fn number(at: &At) -> u64 {
    match at {
        At::Number(number) => *number,
        At::First | At::After(_) => 1,
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::model::envelope::list;

    fn check(style: Pages, body: &str, at: &At) -> Option<At> {
        next(style, &list(&Bytes::copy_from_slice(body.as_bytes())).unwrap(), at, 2, Some("7"))
    }

    #[test]
    fn each_style_of_pages_knows_its_next_and_its_last() {
        let numbered = r#"{"data":[1],"meta":{"pagination":{"current_page":1,"total_pages":2}}}"#;
        let last = r#"{"data":[1],"meta":{"pagination":{"current_page":2,"total_pages":2}}}"#;
        let cursor = r#"{"data":[1],"meta":{"cursor_pagination":{"end_cursor":"x","links":{"next":"?"}}}}"#;
        for (style, body, at, expected) in [
            (Pages::None, "[1,2]", At::First, None),
            (Pages::V2, "[1,2]", At::First, Some(At::Number(2))),
            (Pages::V2, "[1,2]", At::Number(2), Some(At::Number(3))),
            (Pages::V2, "[1]", At::Number(3), None),
            (Pages::V2, "", At::Number(3), None),
            (Pages::Page, numbered, At::First, Some(At::Number(2))),
            (Pages::Page, last, At::Number(2), None),
            (Pages::Page, r#"{"data":[1,2]}"#, At::First, None),
            (Pages::Cursor, cursor, At::First, Some(At::After("x".into()))),
            (Pages::AfterId, r#"{"data":[1,2]}"#, At::First, Some(At::After("7".into()))),
            (Pages::AfterId, r#"{"data":[1]}"#, At::After("7".into()), None),
            (Pages::AfterId, r#"{"data":[]}"#, At::After("7".into()), None),
        ] {
            assert_eq!(check(style, body, &at), expected, "{style:?} {body} {at:?}");
        }
    }
}
