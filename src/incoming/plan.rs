//! The fewest reads for many due entities. Pure.
//!
//! Where a list can be narrowed to ids, one call reads up to 250 of them; where only a range of ids exists (V2
//! orders), ids close together share a call; where only the list below a parent exists, ids of that parent do; the
//! rest is read one by one.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::pages::{self, At};
use super::row::part_of;
use super::settings::EntitySettings;
use crate::catalog::{DEFAULT_PART, Entity, ManyStyle, Pages, ReadMany, placeholders};
use crate::model::ids::{EntityId, check_part};
use crate::model::request::{ApiPath, Method, Purpose, Request};

/// Entities whose sub-resources are reads of their own are taken in small batches, so that the first is
/// published before the last is read.
const MAX_WITH_PATH_INCLUDES: usize = 8;

/// Due ids that are looked at for company in a list below a parent: one look at a window full of strangers costs
/// less than the call that it may save.
const MAX_LOOKED_AT: usize = 20_000;

/// Rows of one page of a sub-resource: V2's maximum.
pub const SUB_RESOURCE_PAGE: usize = 250;

/// One job of reading.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Plan {
    /// One entity by its own path.
    One(EntityId),
    /// Several by a list; they agree in the parts that it needs.
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
    let first = due.next()?;
    let is_alone = |id: &EntityId| settings.row.read.one.is_some() && was_missing(id);
    let Some(many) = settings.row.read.many.as_ref().filter(|_| !is_alone(first)) else {
        return Some(Plan::One(first.clone()));
    };
    let parts = shared_parts(&settings.row, many);
    let shares = |id: &EntityId| parts.iter().all(|at| id.parts().nth(*at) == first.parts().nth(*at));
    let near = |id: &EntityId| many.style != ManyStyle::Range || is_near(many, first, id);
    let company = due.take(MAX_LOOKED_AT).filter(|id| !is_alone(id) && shares(id) && near(id));
    // What the API could not have as an id fails alone.
    let company = company.filter(|id| is_askable(many, first) && is_askable(many, id));
    let ids: Vec<EntityId> =
        std::iter::once(first).chain(company).take(most_in_one(settings)).cloned().collect();
    Some(match settings.row.read.one {
        _ if ids.len() >= many.from => Plan::Many(ids),
        Some(_) => Plan::One(first.clone()),
        None => Plan::Many(vec![first.clone()]),
    })
}

/// Which parts of the hint's id all ids of a list must agree in.
fn shared_parts(row: &Entity, many: &ReadMany) -> Vec<usize> {
    let in_query = many.query.values().filter_map(|value| place(value));
    let names = placeholders(&many.path).chain(in_query);
    names.filter_map(|name| row.ids.iter().position(|known| known == name)).collect()
}

/// The name in a value of the form `{name}`.
fn place(value: &str) -> Option<&str> {
    value.strip_prefix('{')?.strip_suffix('}')
}

/// Entities that one job reads at most.
pub fn most_in_one(settings: &EntitySettings) -> usize {
    let Some(many) = &settings.row.read.many else { return 1 };
    let pages = settings.query_includes().filter_map(|include| include.page_size);
    let most = pages.fold(many.max, usize::min);
    if settings.path_includes().next().is_some() { most.min(MAX_WITH_PATH_INCLUDES) } else { most }
}

/// Whether a list can be asked for the id: a text that is no id of the API's has its place in keys only.
fn is_askable(many: &ReadMany, id: &EntityId) -> bool {
    many.style == ManyStyle::All || id.parts().nth(many.part).is_some_and(|part| check_part(part).is_ok())
}

/// Whether an id lies so close to another that one range holds both, and whatever else does.
fn is_near(many: &ReadMany, first: &EntityId, id: &EntityId) -> bool {
    let number = |id: &EntityId| id.parts().nth(many.part)?.parse::<u64>().ok();
    number(first).zip(number(id)).is_some_and(|(a, b)| a.abs_diff(b) < many.max as u64 / 2)
}

/// The read of one entity by its own path.
///
/// # Errors
/// The row has no such path, or the id does not fit it.
pub fn one_request(settings: &EntitySettings, id: &EntityId, purpose: Purpose) -> Result<Request, String> {
    let template = settings.row.read.one.as_deref().ok_or("it cannot be read one by one")?;
    let mut query = filled(&settings.row.read.query, &settings.row, id);
    push_includes(settings, &mut query);
    adjusted(settings, get(template, settings, id, query, purpose)?)
}

/// The read of one page of a list that is narrowed to the ids.
///
/// # Errors
/// The row has no such list, or the ids do not fit it.
pub fn list_request(
    settings: &EntitySettings,
    ids: &[EntityId],
    at: &At,
    purpose: Purpose,
) -> Result<Request, String> {
    let many = settings.row.read.many.as_ref().ok_or("it cannot be read by a list")?;
    let first = ids.first().ok_or("a list of nothing")?;
    if let Some(id) = ids.iter().find(|id| !is_askable(many, id)) {
        return Err(format!("no list can be asked for {id}"));
    }
    let mut query = match many.style {
        ManyStyle::IdIn => vec![(many.param.clone(), id_list(many, ids))],
        ManyStyle::Range => range(many, ids),
        ManyStyle::All => Vec::new(),
    };
    query.extend(filled(&many.query, &settings.row, first));
    push_includes(settings, &mut query);
    let mut paging = Vec::new();
    if pages::style(many.pages, &many.path) != Pages::None && many.page_size > 0 {
        let sizes = settings.query_includes().filter_map(|include| include.page_size);
        paging.push(("limit".to_owned(), sizes.fold(many.page_size, usize::min).to_string()));
    }
    paging.extend(at.parameter());
    for (name, value) in paging.clone() {
        set(&mut query, name, value);
    }
    let mut request = adjusted(settings, get(&many.path, settings, first, query, purpose)?)?;
    // Whatever the mapping says of pages: what a page of another size leaves out would count as gone.
    for (name, value) in paging {
        set(&mut request.query, name, value);
    }
    Ok(request)
}

/// The read of one page of a sub-resource.
///
/// # Errors
/// The id does not fit the path.
pub fn sub_request(
    settings: &EntitySettings,
    path: &str,
    id: &EntityId,
    at: &At,
    purpose: Purpose,
) -> Result<Request, String> {
    let limit = ("limit".to_owned(), SUB_RESOURCE_PAGE.to_string());
    let query = std::iter::once(limit).chain(at.parameter()).collect();
    get(path, settings, id, query, purpose)
}

fn get(
    template: &str,
    settings: &EntitySettings,
    id: &EntityId,
    query: Vec<(String, String)>,
    purpose: Purpose,
) -> Result<Request, String> {
    let path =
        ApiPath::render(template, |name| part_of(&settings.row, id, name)).map_err(|e| e.to_string())?;
    Ok(Request { method: Method::Get, path, query, body: None, purpose })
}

/// A row's query with the places filled from the id; a parameter whose part is the store's default is left out.
fn filled(query: &BTreeMap<String, String>, row: &Entity, id: &EntityId) -> Vec<(String, String)> {
    let value = |(name, value): (&String, &String)| {
        let Some(part) = place(value) else { return Some((name.clone(), value.clone())) };
        let part = part_of(row, id, part).filter(|part| *part != DEFAULT_PART)?;
        Some((name.clone(), part.to_owned()))
    };
    query.iter().filter_map(value).collect()
}

fn id_list(many: &ReadMany, ids: &[EntityId]) -> String {
    let mut parts: Vec<&str> = ids.iter().filter_map(|id| id.parts().nth(many.part)).collect();
    parts.sort_unstable();
    parts.dedup();
    parts.join(",")
}

fn range(many: &ReadMany, ids: &[EntityId]) -> Vec<(String, String)> {
    let numbers = || ids.iter().filter_map(|id| id.parts().nth(many.part)?.parse::<u64>().ok());
    let (min, max) = (numbers().min().unwrap_or(1), numbers().max().unwrap_or(1));
    vec![("min_id".into(), min.to_string()), ("max_id".into(), max.to_string())]
}

/// What was configured takes the place of what the row says.
fn push_includes(settings: &EntitySettings, query: &mut Vec<(String, String)>) {
    let names: Vec<&str> = settings.query_includes().map(|include| include.name.as_str()).collect();
    if !names.is_empty() {
        set(query, "include".into(), names.join(","));
    }
    for (name, value) in &settings.query {
        set(query, name.clone(), value.clone());
    }
}

fn set(query: &mut Vec<(String, String)>, name: String, value: String) {
    match query.iter_mut().find(|(known, _)| *known == name) {
        Some((_, known)) => *known = value,
        None => query.push((name, value)),
    }
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
        let request = list_request(&product, &ids, &At::First, Purpose::Live).unwrap();
        assert_eq!(shown(&request), "GET /v3/catalog/products?id:in=1,2,3&limit=250");
        assert_eq!(
            shown(&one_request(&product, &ids[0], Purpose::Live).unwrap()),
            "GET /v3/catalog/products/3?"
        );
    }

    #[test]
    fn a_mapping_changes_no_page() {
        let mut product = settings("product");
        product.include.clear();
        product.parameters = Some(std::sync::Arc::new(|_: &Value| {
            Ok(json!({ "query": { "id:in": "1,2", "limit": 1, "is_visible": true } }))
        }));
        let request = list_request(&product, &ids(&["1", "2"]), &At::Number(3), Purpose::Live).unwrap();
        assert_eq!(shown(&request), "GET /v3/catalog/products?id:in=1,2&limit=250&is_visible=true&page=3");
    }

    #[test]
    fn an_include_that_shrinks_the_page_shrinks_the_batch() {
        let mut product = settings("product");
        product.include = vec!["images".into(), "options".into()];
        let many: Vec<EntityId> = (1..=100).map(|n| EntityId::parse(&n.to_string()).unwrap()).collect();
        let plan = choose(&product, many.iter(), |_| false).unwrap();
        assert_eq!(plan.ids().len(), 10);
        let request = list_request(&product, plan.ids(), &At::First, Purpose::Live).unwrap();
        assert!(shown(&request).ends_with("&include=images,options&limit=10"), "{}", shown(&request));
    }

    #[test]
    fn orders_share_a_call_only_when_their_ids_are_close() {
        let order = settings("order");
        let close = ids(&["100", "101", "150", "9000"]);
        assert_eq!(choose(&order, close.iter(), |_| false), Some(Plan::Many(ids(&["100", "101", "150"]))));
        let request = list_request(&order, &close[..3], &At::First, Purpose::Live).unwrap();
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
        let plan = choose(&stock, ids[..1].iter(), |_| true);
        assert_eq!(plan, Some(Plan::Many(ids[..1].to_vec())), "it has no path of its own");
    }

    #[test]
    fn few_ids_of_a_list_that_is_meant_for_one_are_asked_for_one_by_one() {
        let stock = settings("inventory_item");
        let many: Vec<EntityId> = (1..=10).map(|n| EntityId::parse(&n.to_string()).unwrap()).collect();
        assert_eq!(choose(&stock, many[..9].iter(), |_| false), Some(Plan::Many(vec![many[0].clone()])));
        assert_eq!(choose(&stock, many.iter(), |_| false), Some(Plan::Many(many.clone())));
    }

    #[test]
    fn what_is_no_id_of_the_api_is_never_asked_for() {
        let product = settings("product");
        let mut due = ids(&["1", "2"]);
        due.insert(1, EntityId::of_row(&["-5"]).unwrap());
        assert_eq!(choose(&product, due.iter(), |_| false), Some(Plan::Many(ids(&["1", "2"]))));
        let alone = choose(&product, due[1..].iter(), |_| false).unwrap();
        assert_eq!(alone.ids(), &due[1..2]);
        assert!(list_request(&product, alone.ids(), &At::First, Purpose::Live).is_err());
    }

    #[test]
    fn variants_are_read_by_product_when_there_are_several() {
        let variant = settings("product_variant");
        let few = ids(&["7:1", "7:2"]);
        assert_eq!(choose(&variant, few.iter(), |_| false), Some(Plan::One(few[0].clone())));
        let request = one_request(&variant, &few[0], Purpose::Live).unwrap();
        assert_eq!(shown(&request), "GET /v3/catalog/products/7/variants/1?");
        let several = ids(&["7:1", "7:2", "8:3", "9:4"]);
        let plan = choose(&variant, several.iter(), |_| false).unwrap();
        let request = list_request(&variant, plan.ids(), &At::Number(2), Purpose::Live).unwrap();
        assert_eq!(shown(&request), "GET /v3/catalog/variants?product_id:in=7,8,9&limit=250&page=2");
    }

    /// Settings of an entity whose row is given as TOML.
    fn of(row: &str) -> EntitySettings {
        let family: crate::catalog::row::Family = toml::from_str(row).unwrap();
        EntitySettings { row: family.entity.into_iter().next().unwrap().into(), ..settings("product") }
    }

    #[test]
    fn ids_of_one_parent_share_the_list_below_it() {
        let image = of(r#"
            [[entity]]
            name = "product_image"
            doc = "."
            spec = "."
            oauth = "."
            key = ["product_id", "id"]
            ids = ["product_id", "id"]
            read.one = "/v3/catalog/products/{product_id}/images/{id}"
            read.many = { style = "all", path = "/v3/catalog/products/{product_id}/images", max = 50, page_size = 250, from = 2 }
        "#);
        let due = ids(&["7:1", "8:1", "7:2", "7:3", "8:2"]);
        let plan = choose(&image, due.iter(), |_| false).unwrap();
        assert_eq!(plan, Plan::Many(ids(&["7:1", "7:2", "7:3"])));
        let request = list_request(&image, plan.ids(), &At::Number(2), Purpose::Live).unwrap();
        assert_eq!(shown(&request), "GET /v3/catalog/products/7/images?limit=250&page=2");
        let alone = ids(&["9:1", "8:2"]);
        assert_eq!(choose(&image, alone.iter(), |_| false), Some(Plan::One(alone[0].clone())));
    }

    #[test]
    fn a_place_of_the_query_is_filled_and_left_out_for_the_store_s_default() {
        let setting = of(r#"
            [[entity]]
            name = "catalog_settings"
            doc = "."
            spec = "."
            oauth = "."
            key = ["@channel_id"]
            ids = ["channel_id"]
            read.one = "/v3/settings/catalog"
            read.query = { channel_id = "{channel_id}", fixed = "1" }
        "#);
        let url =
            |id: &str| shown(&one_request(&setting, &EntityId::parse(id).unwrap(), Purpose::Live).unwrap());
        assert_eq!(url("5"), "GET /v3/settings/catalog?channel_id=5&fixed=1");
        assert_eq!(url(DEFAULT_PART), "GET /v3/settings/catalog?fixed=1");
    }

    #[test]
    fn a_list_without_pages_is_asked_without_a_limit_and_one_by_query_for_one_parent() {
        let mut listing = of(r#"
            [[entity]]
            name = "price"
            doc = "."
            spec = "."
            oauth = "."
            key = ["channel_id", "id"]
            ids = ["channel_id", "id"]
            read.many = { style = "id_in", path = "/v3/prices", param = "id:in", part = 1, query = { channel_id = "{channel_id}" }, pages = "none", max = 50, page_size = 50 }
        "#);
        listing.query.insert("fields".into(), "a,b".into());
        let due = ids(&["1:9", "2:9", "1:8"]);
        let plan = choose(&listing, due.iter(), |_| false).unwrap();
        let request = list_request(&listing, plan.ids(), &At::First, Purpose::Live).unwrap();
        assert_eq!(shown(&request), "GET /v3/prices?id:in=8,9&channel_id=1&fields=a,b");
    }
}
