//! Writes that are done in part: the endpoints that may answer 207, what then stays undone, and the words for it.
//!
//! A batch loses its last item, a single object the one part that the documentation names. Everywhere else, and where
//! the part is not in the body or the batch holds one item, the write is done whole.

use serde_json::{Map, Value, json};

use super::reply::{ERROR_TYPE, Reply};
use super::resources::Route;

/// How a 207 is worded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Words {
    /// `{data, errors: {status, title, type, errors}, meta: {total, success, failed}}`.
    Counted,
    /// `{data, errors: {status, title, type, errors}, meta: {}}`.
    Named,
    /// `{status, title, type, instance}` and no data.
    Title,
    /// `{status, message}` and no data.
    Message,
    /// The object, as if all had gone well.
    Silent,
}

/// Method, pattern, what is left out (nothing: the last item of the batch), words.
const ENDPOINTS: &[(&str, &str, Option<&str>, Words)] = &[
    ("PUT", "/v3/catalog/products", None, Words::Named),
    ("POST", "/v3/catalog/products", Some("inventory_level"), Words::Named),
    ("PUT", "/v3/catalog/products/{product_id}", Some("inventory_level"), Words::Named),
    ("POST", "/v3/catalog/products/{product_id}/variants", Some("inventory_level"), Words::Named),
    ("PUT", "/v3/catalog/products/{product_id}/variants/{variant_id}", Some("inventory_level"), Words::Named),
    ("POST", "/v3/catalog/trees/categories", None, Words::Counted),
    ("PUT", "/v3/catalog/trees/categories", None, Words::Counted),
    ("POST", "/v3/catalog/brands", Some("custom_url"), Words::Named),
    ("PUT", "/v3/catalog/brands/{brand_id}", Some("custom_url"), Words::Named),
    ("POST", "/v3/catalog/categories", Some("custom_url"), Words::Title),
    ("PUT", "/v3/catalog/categories/{category_id}", Some("custom_url"), Words::Title),
    ("POST", "/v3/content/pages", None, Words::Named),
    ("POST", "/v2/customer_groups", Some("discount_rules"), Words::Message),
    ("PUT", "/v2/customer_groups/{customer_group_id}", Some("discount_rules"), Words::Message),
    ("POST", "/v2/blog/posts", Some("url"), Words::Silent),
    ("PUT", "/v2/blog/posts/{blog_post_id}", Some("url"), Words::Silent),
    ("POST", "/v2/pages", Some("url"), Words::Silent),
    ("PUT", "/v2/pages/{page_id}", Some("url"), Words::Silent),
];

/// What the answer must say once the rest is done.
#[derive(Debug)]
pub(crate) struct Plan {
    words: Words,
    /// The field or `{index}.{field}` that was left out.
    field: String,
    /// Items that were asked for.
    total: usize,
}

impl Plan {
    /// Takes out of `body` what will stay undone; none where the write must be done whole.
    pub(crate) fn of(route: &Route, body: &mut Value) -> Option<Plan> {
        let (_, _, part, words) = *ENDPOINTS
            .iter()
            .find(|(method, pattern, _, _)| *method == route.method && *pattern == route.pattern)?;
        let (field, total) = match part {
            Some(name) => (body.as_object_mut()?.shift_remove(name).map(|_| name.to_owned())?, 1),
            None => {
                let items = body.as_array_mut().filter(|items| items.len() > 1)?;
                items.pop();
                (format!("{}.name", items.len()), items.len() + 1)
            }
        };
        Some(Plan { words, field, total })
    }

    /// The answer as a 207; a refusal of the rest stays what it is.
    pub(crate) fn word(&self, reply: Reply) -> Reply {
        if !(200..300).contains(&reply.status) {
            return reply;
        }
        let title = "A part of the request could not be done.";
        let failed = usize::from(self.total > 1);
        let whole = |meta: Value| {
            let data = reply.body.as_ref().and_then(|body| body.get("data")).cloned();
            let fields = Map::from_iter([(self.field.clone(), Value::from("could not be saved"))]);
            let errors = json!({"status": 422, "title": title, "type": ERROR_TYPE, "errors": fields});
            let mut body = Map::from_iter([("errors".to_owned(), errors), ("meta".to_owned(), meta)]);
            body.extend(data.map(|data| ("data".to_owned(), data)));
            Reply::bare(207, Value::Object(body))
        };
        match self.words {
            Words::Counted => {
                whole(json!({"total": self.total, "success": self.total - failed, "failed": failed}))
            }
            Words::Named => whole(json!({})),
            Words::Title => Reply::plain(207, title),
            Words::Message => Reply::bare(207, json!({"status": 207, "message": title})),
            Words::Silent => Reply { status: 207, ..reply },
        }
    }
}
