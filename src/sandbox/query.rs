//! Query strings and the filters that lists understand (`field`, `field:in`, `field:min`, ...).

use serde_json::{Map, Value};

use super::clock;
use super::specs::Spec;
use super::store::{Key, field};

/// A decoded query string, in order.
#[derive(Debug, Clone, Default)]
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    pub(crate) fn parse(text: &str) -> Query {
        Query(url::form_urlencoded::parse(text.as_bytes()).into_owned().collect())
    }

    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().rev().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The names of all parameters, in order.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(name, _)| name.as_str())
    }

    /// The comma-separated values of `name`; none when absent.
    pub(crate) fn list(&self, name: &str) -> Option<Vec<&str>> {
        Some(self.get(name)?.split(',').map(str::trim).filter(|text| !text.is_empty()).collect())
    }

    /// Whether the comma list `name` has `value`.
    pub(crate) fn lists(&self, name: &str, value: &str) -> bool {
        self.list(name).is_some_and(|values| values.contains(&value))
    }

    /// The relative link to another page of the same list.
    pub(crate) fn link(&self, page: usize, limit: usize) -> String {
        let mut out = url::form_urlencoded::Serializer::new(String::new());
        for (name, value) in self.0.iter().filter(|(name, _)| name != "page" && name != "limit") {
            out.append_pair(name, value);
        }
        out.append_pair("page", &page.to_string()).append_pair("limit", &limit.to_string());
        format!("?{}", out.finish())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Op {
    Is,
    In,
    NotIn,
    Not,
    Min,
    Max,
    Greater,
    Less,
    Like,
}

/// One condition of a list request.
#[derive(Debug, Clone)]
pub(crate) struct Filter {
    field: String,
    op: Op,
    values: Vec<String>,
    /// The moment in a bound of a date, read once: Unix seconds.
    bound: Option<i64>,
}

impl Filter {
    /// The conditions of `query` that `spec` knows; others are ignored, as the API mostly does.
    pub(crate) fn of(spec: &Spec, query: &Query) -> Vec<Filter> {
        let asked =
            spec.filters.iter().filter_map(|name| Some(Filter::renamed(spec, name, query.get(name)?)));
        asked.filter(|filter| filter.is_about(spec)).collect()
    }

    /// The condition `name` against `text`, with V2's `min_x` and `max_x` and the row's own names understood.
    pub(crate) fn renamed(spec: &Spec, name: &str, text: &str) -> Filter {
        let (field, op) = name.split_once(':').unwrap_or((name, ""));
        let bound =
            |prefix: &str| field.strip_prefix(prefix).filter(|rest| spec.template.contains_key(*rest));
        if spec.template.contains_key(field) {
            return Filter::new(name, text);
        }
        match (bound("min_"), bound("max_"), spec.params.get(field)) {
            (Some(rest), _, _) => Filter::new(&format!("{rest}:min"), text),
            (_, Some(rest), _) => Filter::new(&format!("{rest}:max"), text),
            (_, _, Some(own)) if op.is_empty() => Filter::new(own, text),
            (_, _, Some(own)) => Filter::new(&format!("{own}:{op}"), text),
            _ => Filter::new(name, text),
        }
    }

    /// Whether the resource has what this condition is about; others ask for things that are not modelled.
    fn is_about(&self, spec: &Spec) -> bool {
        spec.template.contains_key(&self.field)
            || spec.name == "location"
            || self.field == "keyword"
            || (self.field == "name" && spec.name.starts_with("customer"))
    }

    /// The condition `name` (with its operator) against `text`.
    pub(crate) fn new(name: &str, text: &str) -> Filter {
        let (field, op) = name.split_once(':').unwrap_or((name, ""));
        let op = match op {
            "in" => Op::In,
            "not_in" => Op::NotIn,
            "not" => Op::Not,
            "min" => Op::Min,
            "max" => Op::Max,
            "greater" => Op::Greater,
            "less" => Op::Less,
            "like" => Op::Like,
            _ => Op::Is,
        };
        let values = match op {
            Op::In | Op::NotIn => text.split(',').map(|part| part.trim().to_owned()).collect(),
            _ => vec![text.to_owned()],
        };
        let bound = (is_date(field) && matches!(op, Op::Min | Op::Max)).then(|| clock::parse(text)).flatten();
        Filter { field: field.to_owned(), op, values, bound }
    }

    /// The ids to look at, when this condition names them or an index knows them.
    pub(crate) fn wanted(&self) -> Option<(&str, &[String])> {
        matches!(self.op, Op::In | Op::Is).then_some((self.field.as_str(), self.values.as_slice()))
    }

    /// The least id, where this condition says no more than that.
    pub(crate) fn least_id(&self, spec: &Spec) -> Option<u64> {
        let is_bound = self.op == Op::Min && self.field == spec.id;
        is_bound.then(|| self.values.first()?.parse().ok()).flatten()
    }

    /// Whether this is a bound of the date of change, which `span` speaks for.
    pub(crate) fn is_span(&self, spec: &Spec) -> bool {
        self.bound.is_some() && Some(self.field.as_str()) == spec.dates.modified()
    }

    /// Whether `row` meets the condition.
    pub(crate) fn accepts(&self, spec: &Spec, row: &Map<String, Value>) -> bool {
        if self.field == "keyword" {
            return ["name", "sku", "description"]
                .iter()
                .any(|name| holds(field(spec, row, name), &self.values[0]));
        }
        if self.field == "name" && matches!(spec.name.as_str(), "customer" | "customer_address") {
            let text = |name| field(spec, row, name).as_str().unwrap_or_default();
            return self.compare(&Value::from(format!("{} {}", text("first_name"), text("last_name"))));
        }
        let name = match (self.field.as_str(), spec.name.as_str()) {
            ("location_id", "location") => "id",
            ("location_code", "location") => "code",
            ("is_active", "location") => "enabled",
            (other, _) => other,
        };
        self.compare(field(spec, row, name))
    }

    fn compare(&self, value: &Value) -> bool {
        let dates = is_date(&self.field);
        let any = || self.values.iter().any(|wanted| same(value, wanted, dates));
        let first = self.values.first().map_or("", String::as_str);
        match self.op {
            Op::Is | Op::In => any(),
            Op::Not | Op::NotIn => !any(),
            Op::Like => holds(value, first),
            Op::Min if self.bound.is_some() => self.bound <= moment(value),
            Op::Max if self.bound.is_some() => moment(value).is_some_and(|at| Some(at) <= self.bound),
            Op::Min => order(value, first, dates).is_some_and(std::cmp::Ordering::is_ge),
            Op::Max => order(value, first, dates).is_some_and(std::cmp::Ordering::is_le),
            Op::Greater => order(value, first, dates).is_some_and(std::cmp::Ordering::is_gt),
            Op::Less => order(value, first, dates).is_some_and(std::cmp::Ordering::is_lt),
        }
    }
}

fn is_date(field: &str) -> bool {
    field.contains("date") || field.ends_with("_at") || field == "created"
}

fn moment(value: &Value) -> Option<i64> {
    clock::parse(value.as_str()?)
}

/// The span of time (Unix seconds, both ends included) that `filters` set for the date of change; none where they do
/// not.
pub(crate) fn span(spec: &Spec, filters: &[Filter]) -> Option<(i64, i64)> {
    let mut span = None;
    for filter in filters.iter().filter(|filter| filter.is_span(spec)) {
        let Some(at) = filter.bound else { continue };
        let (from, to) = span.unwrap_or((i64::MIN, i64::MAX));
        span = Some(if filter.op == Op::Min { (from.max(at), to) } else { (from, to.min(at)) });
    }
    span
}

fn holds(value: &Value, text: &str) -> bool {
    value.as_str().is_some_and(|whole| whole.to_lowercase().contains(&text.to_lowercase()))
}

fn same(value: &Value, wanted: &str, dates: bool) -> bool {
    match value {
        Value::Array(items) => items.iter().any(|item| same(item, wanted, dates)),
        Value::Bool(flag) => matches!(wanted, "1" | "true") == *flag,
        Value::Number(number) => wanted.parse::<f64>().ok() == number.as_f64(),
        Value::String(text) if dates => {
            clock::parse(text).is_some() && clock::parse(text) == clock::parse(wanted)
        }
        Value::String(text) => text.eq_ignore_ascii_case(wanted),
        Value::Null | Value::Object(_) => false,
    }
}

fn order(value: &Value, limit: &str, dates: bool) -> Option<std::cmp::Ordering> {
    if dates {
        return Some(clock::parse(value.as_str()?)?.cmp(&clock::parse(limit)?));
    }
    value.as_f64()?.partial_cmp(&limit.parse::<f64>().ok()?)
}

/// Keeps or drops fields as `include_fields` and `exclude_fields` ask; the id always stays.
pub(crate) fn project(query: &Query, id: &str, row: Map<String, Value>) -> Map<String, Value> {
    let (keep, drop) = (query.list("include_fields"), query.list("exclude_fields"));
    if keep.is_none() && drop.is_none() {
        return row;
    }
    row.into_iter()
        .filter(|(name, _)| {
            name == id
                || (keep.as_ref().is_none_or(|names| names.contains(&name.as_str()))
                    && drop.as_ref().is_none_or(|names| !names.contains(&name.as_str())))
        })
        .collect()
}

/// The ids in a comma list.
pub(crate) fn keys(values: &[String]) -> Vec<Key> {
    let mut keys: Vec<Key> =
        values.iter().filter(|text| !text.is_empty()).map(|text| Key::parse(text)).collect();
    keys.sort();
    keys.dedup();
    keys
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::specs;
    use serde_json::json;

    fn check(name: &str, text: &str, row: Value) -> bool {
        Filter::new(name, text).accepts(specs::known("product"), row.as_object().unwrap())
    }

    #[test]
    fn operators_compare_numbers_texts_dates_and_lists() {
        let row = json!({"id": 5, "name": "Blue Cup", "price": 2.5, "categories": [3, 4],
            "date_modified": "2026-01-01T00:00:00+00:00"});
        assert!(check("id:in", "4,5", row.clone()));
        assert!(!check("id:not_in", "4,5", row.clone()));
        assert!(check("price:min", "2.5", row.clone()));
        assert!(!check("price:greater", "2.5", row.clone()));
        assert!(check("name:like", "cup", row.clone()));
        assert!(check("categories:in", "9,4", row.clone()));
        assert!(check("is_visible", "true", row.clone()));
        assert!(check("date_modified:min", "Thu, 01 Jan 2026 00:00:00 +0000", row.clone()));
        assert!(!check("date_modified:min", "2026-01-01T00:00:01Z", row));
    }
}
