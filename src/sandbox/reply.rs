//! Answers in the shapes the API documents: V3 envelopes and error objects, V2 bare values and error arrays.

use serde_json::{Map, Value, json};

use super::query::Query;

/// The `type` of every V3 error points at this page.
pub(crate) const ERROR_TYPE: &str =
    "https://developer.bigcommerce.com/api-docs/getting-started/api-status-codes";

/// Page size when the caller names none.
const DEFAULT_LIMIT: usize = 50;

/// An answer before faults and headers.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) body: Option<Value>,
}

impl Reply {
    /// `status` and `body` as they are.
    pub(crate) fn bare(status: u16, body: Value) -> Reply {
        Reply { status, body: Some(body) }
    }

    /// `status` without a body.
    pub(crate) fn empty(status: u16) -> Reply {
        Reply { status, body: None }
    }

    /// `{data, meta: {}}`.
    pub(crate) fn data(status: u16, data: impl Into<Value>) -> Reply {
        Reply::wrapped(status, data.into(), Value::Object(Map::new()))
    }

    /// `{data, meta}`. Large data is moved, not copied as a macro would.
    pub(crate) fn wrapped(status: u16, data: Value, meta: Value) -> Reply {
        let body = Map::from_iter([("data".to_owned(), data), ("meta".to_owned(), meta)]);
        Reply::bare(status, Value::Object(body))
    }

    /// A V3 error: `{status, title, type, errors}`.
    pub(crate) fn invalid(status: u16, title: &str, errors: Map<String, Value>) -> Reply {
        Reply::bare(status, json!({"status": status, "title": title, "type": ERROR_TYPE, "errors": errors}))
    }

    /// A V3 error about one field.
    pub(crate) fn field(status: u16, field: &str, text: impl Into<String>) -> Reply {
        let text = text.into();
        let mut errors = Map::new();
        errors.insert(field.to_owned(), Value::from(text.clone()));
        Reply::invalid(status, &text, errors)
    }

    /// A V3 error without fields. Only 405 is documented with a `detail`.
    pub(crate) fn plain(status: u16, title: &str) -> Reply {
        let mut body = json!({"status": status, "title": title, "type": ERROR_TYPE});
        if status == 405 {
            body["detail"] = Value::from(title);
        }
        Reply::bare(status, body)
    }

    /// The same answer with an error in the shape of V2.
    pub(crate) fn in_v2(self) -> Reply {
        match self.body.as_ref().and_then(|body| body.get("title")?.as_str()) {
            Some(title) if self.status >= 400 => Reply::v2(self.status, title),
            _ => self,
        }
    }

    /// The same error as the category trees word it: inside `errors`, beside counts.
    pub(crate) fn in_batch(self, total: usize) -> Reply {
        let errors = self.body.unwrap_or(Value::Null);
        Reply::bare(
            self.status,
            json!({"errors": errors, "meta": {"total": total, "success": 0, "failed": total}}),
        )
    }

    /// A V2 error: an array of one.
    pub(crate) fn v2(status: u16, message: &str) -> Reply {
        Reply::bare(status, json!([{"status": status, "message": message}]))
    }

    /// The error in the shape of the API version that `path` belongs to.
    pub(crate) fn error(path: &str, status: u16, text: &str) -> Reply {
        if path.starts_with("/v2/") { Reply::v2(status, text) } else { Reply::plain(status, text) }
    }
}

/// Which page of a list was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Page {
    /// From 1.
    pub(crate) number: usize,
    pub(crate) limit: usize,
}

impl Page {
    /// Reads `page` and `limit`; a limit above `max` is cut to `max`.
    pub(crate) fn of(query: &Query, max: usize) -> Page {
        let read =
            |name| query.get(name).and_then(|text| text.parse::<usize>().ok()).filter(|number| *number > 0);
        Page {
            number: read("page").unwrap_or(1),
            limit: read("limit").unwrap_or(DEFAULT_LIMIT.min(max)).min(max),
        }
    }

    pub(crate) fn skip(self) -> usize {
        (self.number - 1).saturating_mul(self.limit)
    }

    /// `meta.pagination` for a list of `total` rows of which `count` are shown.
    pub(crate) fn meta(self, total: usize, count: usize, query: &Query) -> Value {
        let pages = total.div_ceil(self.limit);
        let mut links = Map::new();
        if self.number > 1 && self.number <= pages + 1 {
            links.insert("previous".to_owned(), Value::from(query.link(self.number - 1, self.limit)));
        }
        links.insert("current".to_owned(), Value::from(query.link(self.number, self.limit)));
        if self.number < pages {
            links.insert("next".to_owned(), Value::from(query.link(self.number + 1, self.limit)));
        }
        json!({"pagination": {"total": total, "count": count, "per_page": self.limit, "current_page": self.number,
            "total_pages": pages, "links": links}})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_say_where_they_are_and_what_comes_next() {
        let query = Query::parse("limit=2&page=2&name=a");
        let page = Page::of(&query, 250);
        assert_eq!((page.number, page.limit, page.skip()), (2, 2, 2));
        let meta = page.meta(5, 2, &query);
        assert_eq!(meta["pagination"]["total_pages"], 3);
        assert_eq!(meta["pagination"]["links"]["next"], "?name=a&page=3&limit=2");
        assert_eq!(Page::of(&Query::parse("limit=9999"), 250).limit, 250);
        assert_eq!(Page::of(&Query::parse("limit=0&page=-1"), 250), Page { number: 1, limit: 50 });
    }
}
