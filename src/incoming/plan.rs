//! The fewest reads for many due entities. Pure.
//!
//! Where a list can be narrowed to ids, one call reads up to 250 of them; where only a range of ids exists (V2
//! orders), ids close together share a call; the rest is read one by one.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::settings::EntitySettings;
use crate::catalog::{ManyStyle, ReadMany, placeholders};
use crate::model::ids::EntityId;
use crate::model::request::{ApiPath, BadPath, Method, Purpose, Request};

/// Entities whose sub-resources are reads of their own are taken in small batches, so that the first is
/// published before the last is read.
const MAX_WITH_PATH_INCLUDES: usize = 8;

/// Rows of one page of a sub-resource: V2's maximum.
pub const SUB_RESOURCE_PAGE: usize = 250;

/// One job of reading.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Plan {
    /// One entity by its own path.
    One(EntityId),
    /// Several by a list.
    Many(Vec<EntityId>),
}

impl Plan {
    /// The entities that are read.
    pub fn ids(&self) -> &[EntityId] {
        match self {
            Self::One(id) => std::slice::from_ref(id),
            Self::Many(ids) => ids,
        }
    }
}

/// Chooses what one job reads of the due ids, the longest waiting first. None if there are none. What
/// `was_missing` from an earlier read is read by its own path, where it has one: a list may leave out what still
/// exists, such as an archived order.
pub fn choose<'a>(
    settings: &EntitySettings,
    mut due: impl Iterator<Item = &'a EntityId>,
    was_missing: impl Fn(&EntityId) -> bool,
) -> Option<Plan> {
    let first = due.next()?.clone();
    let is_alone = |id: &EntityId| settings.row.read.one.is_some() && was_missing(id);
    let Some(many) = settings.row.read.many.as_ref().filter(|_| !is_alone(&first)) else {
        return Some(Plan::One(first));
    };
    let mut ids = vec![first];
    ids.extend(due.filter(|id| !is_alone(id)).take(most_in_one(settings) - 1).cloned());
    if many.style == ManyStyle::Range {
        ids = within_range(ids, many.max);
    }
    let few = ids.len() < many.from;
    if few && settings.row.read.one.is_some() {
        return Some(Plan::One(ids.swap_remove(0)));
    }
    Some(Plan::Many(ids))
}

/// Entities that one job reads at most.
pub fn most_in_one(settings: &EntitySettings) -> usize {
    let Some(many) = &settings.row.read.many else { return 1 };
    let pages = settings.query_includes().filter_map(|include| include.page_size);
    let most = pages.fold(many.max, usize::min);
    if settings.path_includes().next().is_some() { most.min(MAX_WITH_PATH_INCLUDES) } else { most }
}

/// Those that lie within a range of `width` ids around the first.
fn within_range(ids: Vec<EntityId>, width: usize) -> Vec<EntityId> {
    let number = |id: &EntityId| id.as_str().parse::<u64>().ok();
    let Some(first) = ids.first().and_then(number) else { return ids };
    let width = width as u64;
    let near = |id: &EntityId| number(id).is_some_and(|n| n.abs_diff(first) < width / 2);
    ids.into_iter().filter(near).collect()
}

/// The read of one entity by its own path.
///
/// # Errors
/// The row has no such path, or the id does not fit it.
pub fn one_request(settings: &EntitySettings, id: &EntityId) -> Result<Request, String> {
    let template = settings.row.read.one.as_deref().ok_or("it cannot be read one by one")?;
    let path = render(template, settings, id).map_err(|e| e.to_string())?;
    let mut query = Vec::new();
    push_includes(settings, &mut query);
    adjusted(settings, get(path, query))
}

/// The read of one page (from 1) of a list that is narrowed to the ids.
///
/// # Errors
/// The row has no such list.
pub fn list_request(settings: &EntitySettings, ids: &[EntityId], page: usize) -> Result<Request, String> {
    let many = settings.row.read.many.as_ref().ok_or("it cannot be read by a list")?;
    let path = ApiPath::render(&many.path, |_| None).map_err(|e| e.to_string())?;
    let mut query = match many.style {
        ManyStyle::IdIn => vec![(many.param.clone(), id_list(many, ids))],
        ManyStyle::Range => range(ids),
        ManyStyle::All => Vec::new(),
    };
    push_includes(settings, &mut query);
    let size =
        settings.query_includes().filter_map(|include| include.page_size).fold(many.page_size, usize::min);
    query.push(("limit".into(), size.to_string()));
    if page > 1 {
        query.push(("page".into(), page.to_string()));
    }
    adjusted(settings, get(path, query))
}

/// The read of one page (from 1) of a sub-resource.
///
/// # Errors
/// The id does not fit the path.
pub fn sub_request(
    settings: &EntitySettings,
    path: &str,
    id: &EntityId,
    page: usize,
) -> Result<Request, BadPath> {
    let path = render(path, settings, id)?;
    let limit = ("limit".to_owned(), SUB_RESOURCE_PAGE.to_string());
    Ok(get(path, vec![limit, ("page".to_owned(), page.to_string())]))
}

fn render(template: &str, settings: &EntitySettings, id: &EntityId) -> Result<ApiPath, BadPath> {
    let parts: BTreeMap<&str, &str> = settings.row.ids.iter().map(String::as_str).zip(id.parts()).collect();
    debug_assert!(placeholders(template).all(|name| settings.row.ids.iter().any(|id| id == name)));
    ApiPath::render(template, |name| parts.get(name).copied())
}

fn get(path: ApiPath, query: Vec<(String, String)>) -> Request {
    Request { method: Method::Get, path, query, body: None, purpose: Purpose::Live }
}

fn id_list(many: &ReadMany, ids: &[EntityId]) -> String {
    let mut parts: Vec<&str> = ids.iter().filter_map(|id| id.parts().nth(many.part)).collect();
    parts.sort_unstable();
    parts.dedup();
    parts.join(",")
}

fn range(ids: &[EntityId]) -> Vec<(String, String)> {
    let numbers = || ids.iter().filter_map(|id| id.as_str().parse::<u64>().ok());
    let (min, max) = (numbers().min().unwrap_or(1), numbers().max().unwrap_or(1));
    vec![("min_id".into(), min.to_string()), ("max_id".into(), max.to_string())]
}

fn push_includes(settings: &EntitySettings, query: &mut Vec<(String, String)>) {
    let names: Vec<&str> = settings.query_includes().map(|include| include.name.as_str()).collect();
    if !names.is_empty() {
        query.push(("include".into(), names.join(",")));
    }
    query.extend(settings.query.iter().map(|(name, value)| (name.clone(), value.clone())));
}

/// Lets the configured mapping change the query parameters. The path stays: it decides what is asked for.
pub(crate) fn adjusted(settings: &EntitySettings, mut request: Request) -> Result<Request, String> {
    let Some(mapping) = &settings.parameters else { return Ok(request) };
    let query: serde_json::Map<String, Value> =
        request.query.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
    let changed = mapping(&json!({ "path": request.path.as_str(), "query": query }))?;
    let Some(Value::Object(query)) = changed.get("query") else {
        return Err("the parameters mapping must return an object with `query`".into());
    };
    request.query = query
        .iter()
        .map(|(name, value)| match value {
            Value::String(text) => Ok((name.clone(), text.clone())),
            Value::Number(_) | Value::Bool(_) => Ok((name.clone(), value.to_string())),
            other => Err(format!("the query parameter {name:?} must be a scalar, not {other}")),
        })
        .collect::<Result<_, String>>()?;
    Ok(request)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::incoming::stage::testing::settings;

    fn ids(texts: &[&str]) -> Vec<EntityId> {
        texts.iter().map(|text| EntityId::parse(text).unwrap()).collect()
    }

    fn shown(request: &Request) -> String {
        let query: Vec<String> = request.query.iter().map(|(n, v)| format!("{n}={v}")).collect();
        format!("{} {}?{}", request.method.as_str(), request.path.as_str(), query.join("&"))
    }

    #[test]
    fn products_are_read_by_one_list() {
        let mut product = settings("product");
        product.include.clear();
        let ids = ids(&["3", "1", "2"]);
        assert_eq!(choose(&product, ids.iter(), |_| false), Some(Plan::Many(ids.clone())));
        let request = list_request(&product, &ids, 1).unwrap();
        assert_eq!(shown(&request), "GET /v3/catalog/products?id:in=1,2,3&limit=250");
        assert_eq!(shown(&one_request(&product, &ids[0]).unwrap()), "GET /v3/catalog/products/3?");
    }

    #[test]
    fn an_include_that_shrinks_the_page_shrinks_the_batch() {
        let mut product = settings("product");
        product.include = vec!["images".into(), "options".into()];
        let many: Vec<EntityId> = (1..=100).map(|n| EntityId::parse(&n.to_string()).unwrap()).collect();
        let plan = choose(&product, many.iter(), |_| false).unwrap();
        assert_eq!(plan.ids().len(), 10);
        let request = list_request(&product, plan.ids(), 1).unwrap();
        assert!(shown(&request).ends_with("&include=images,options&limit=10"), "{}", shown(&request));
    }

    #[test]
    fn orders_share_a_call_only_when_their_ids_are_close() {
        let order = settings("order");
        let close = ids(&["100", "101", "150", "9000"]);
        assert_eq!(choose(&order, close.iter(), |_| false), Some(Plan::Many(ids(&["100", "101", "150"]))));
        let request = list_request(&order, &close[..3], 1).unwrap();
        assert_eq!(shown(&request), "GET /v2/orders?min_id=100&max_id=150&limit=250");
        let far = ids(&["100", "9000"]);
        assert_eq!(choose(&order, far.iter(), |_| false), Some(Plan::One(far[0].clone())));
    }

    #[test]
    fn what_a_list_left_out_is_asked_for_by_its_own_path() {
        let order = settings("order");
        let ids = ids(&["100", "101", "102"]);
        let plan = choose(&order, ids.iter(), |id| id.as_str() == "100");
        assert_eq!(plan, Some(Plan::One(ids[0].clone())));
        let plan = choose(&order, ids.iter(), |id| id.as_str() == "101");
        assert_eq!(plan, Some(Plan::Many(vec![ids[0].clone(), ids[2].clone()])));
        let stock = settings("inventory_item");
        assert_eq!(choose(&stock, ids.iter(), |_| true), Some(Plan::Many(ids)), "it has no path of its own");
    }

    #[test]
    fn variants_are_read_by_product_when_there_are_several() {
        let variant = settings("product_variant");
        let few = ids(&["7:1", "7:2"]);
        assert_eq!(choose(&variant, few.iter(), |_| false), Some(Plan::One(few[0].clone())));
        let request = one_request(&variant, &few[0]).unwrap();
        assert_eq!(shown(&request), "GET /v3/catalog/products/7/variants/1?");
        let several = ids(&["7:1", "7:2", "8:3", "9:4"]);
        let request =
            list_request(&variant, choose(&variant, several.iter(), |_| false).unwrap().ids(), 2).unwrap();
        assert_eq!(shown(&request), "GET /v3/catalog/variants?product_id:in=7,8,9&limit=250&page=2");
    }
}
