//! Every scope from the callback to the record: the right read on the right path, and the event on the right topic.
//!
//! What is right stands in `tests/fixtures/reads.tsv`, apart from the catalogue: the beginning of a scope (the longest
//! that fits counts, all lines of it), the entity, and the reads, of which one must be made. Places such as `{data.id}`
//! are filled from the callback; `min_id..max_id` is a range that must hold the value.

use std::collections::{BTreeMap, BTreeSet};

use bcbridge::catalog::Catalog;
use bcbridge::model::hint::Op;
use bcbridge::model::record::InRecord;
use bcbridge::sandbox::Request;
use serde_json::{Value, json};

use crate::bridge_lab::{Lab, Setup, events, until};
use crate::openapi_mock::{entries, intake_is_settled, post};
use crate::payloads::{Payload, payloads};

/// One line of the table.
#[derive(Clone, Copy, Debug)]
struct Line {
    prefix: &'static str,
    entity: &'static str,
    reads: &'static str,
}

/// Where nothing of the store can be read after the event.
const NOT_READABLE: &str = "not_readable";

/// The lines that hold for a callback.
fn lines(payload: &Payload) -> Vec<Line> {
    let scope = payload
        .scope
        .replace("/lineItems/", "/lineItem/")
        .replace("store/channel/1/", "store/channel/{channel_id}/");
    let scope = match payload.data["resource_type"].as_str() {
        Some(of) => format!("{of}#{scope}"),
        None => scope,
    };
    let line = |text: &'static str| {
        let mut fields = text.split('\t');
        let mut next = || fields.next().unwrap();
        Line { prefix: next(), entity: next(), reads: next() }
    };
    let fits = |line: &Line| scope.starts_with(line.prefix);
    let all: Vec<Line> = include_str!("../fixtures/reads.tsv").lines().map(line).filter(fits).collect();
    let longest = all.iter().map(|line| line.prefix.len()).max().unwrap_or_default();
    all.into_iter().filter(|line| line.prefix.len() == longest).collect()
}

/// What a callback says at a place.
fn values(payload: &Payload, place: &str) -> Vec<String> {
    if place == "scope.channel_id" {
        return vec!["1".to_owned()];
    }
    let path = place.strip_prefix("data.").unwrap();
    let items = payload.data.as_array().cloned().unwrap_or_else(|| vec![payload.data.clone()]);
    let at = |item: &Value| {
        let field =
            path.trim_end_matches("[]").split('.').fold(item.clone(), |node, name| node[name].clone());
        match field {
            Value::Array(all) => all,
            Value::Null => Vec::new(),
            one => vec![one],
        }
    };
    let text = |value: Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    items.iter().flat_map(at).map(text).collect()
}

/// A template with each value of its places in turn; none where the callback lacks one.
fn filled(payload: &Payload, template: &str) -> Vec<String> {
    let Some((head, rest)) = template.split_once('{') else { return vec![template.to_owned()] };
    let (place, tail) = rest.split_once('}').unwrap();
    let found = if place == "any" { vec!["*".to_owned()] } else { values(payload, place) };
    let tails = filled(payload, tail);
    found.iter().flat_map(|value| tails.iter().map(move |tail| format!("{head}{value}{tail}"))).collect()
}

/// A GET that the sandbox answered: path and decoded query.
struct Asked {
    path: String,
    query: Vec<(String, String)>,
}

impl Asked {
    fn new(request: &Request) -> Self {
        let query = url::form_urlencoded::parse(request.query.as_bytes()).into_owned().collect();
        Self { path: request.path.clone(), query }
    }

    /// Whether it is the wanted read, or one of many that holds it.
    fn is(&self, wanted: &str) -> bool {
        let (path, query) = wanted.split_once('?').unwrap_or((wanted, ""));
        let same = |(a, b): (&str, &str)| a == b || a == "*" && !b.is_empty();
        let is_path = path.split('/').count() == self.path.split('/').count()
            && path.split('/').zip(self.path.split('/')).all(same);
        is_path
            && query
                .split('&')
                .filter(|part| !part.is_empty())
                .all(|part| self.says(part.split_once('=').unwrap()))
    }

    fn says(&self, (name, wanted): (&str, &str)) -> bool {
        let get =
            |name: &str| self.query.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
        if name == "min_id..max_id" {
            let number = |name: &str| get(name).and_then(|value| value.parse::<u64>().ok());
            let range = number("min_id").zip(number("max_id"));
            return range.is_some_and(|(min, max)| (min..=max).contains(&wanted.parse().unwrap()));
        }
        get(name).is_some_and(|value| value.split(',').any(|value| value == wanted))
    }
}

/// Whether a read of the line was made, for each thing that the callback names. Some may be read alone and others
/// together: which travel together is a matter of when they arrive.
fn is_read(line: &Line, payload: &Payload, asked: &[Asked]) -> bool {
    let wanted: Vec<Vec<String>> = line.reads.split(' ').map(|template| filled(payload, template)).collect();
    let things = wanted.iter().map(Vec::len).max().unwrap_or_default();
    let is_made = |wanted: &String| asked.iter().any(|asked| asked.is(wanted));
    things > 0 && (0..things).all(|thing| wanted.iter().filter_map(|reads| reads.get(thing)).any(is_made))
}

/// What happened, as its topics and the sandbox's log tell.
struct Told {
    asked: Vec<Asked>,
    /// By entity: the events that its records list, and whether one of them had a value.
    events: BTreeMap<String, BTreeMap<String, bool>>,
    /// By event: the reason of its dead letter.
    letters: BTreeMap<String, String>,
}

impl Told {
    async fn by(lab: &Lab) -> Told {
        let asked = lab.control.requests();
        let asked = asked.iter().filter(|request| request.method == "GET").map(Asked::new).collect();
        let mut events_of: BTreeMap<String, BTreeMap<String, bool>> = BTreeMap::new();
        for entity in Catalog::embedded().unwrap().entities().iter().filter(|entity| entity.is_readable()) {
            let found = events_of.entry(entity.name.clone()).or_default();
            for record in lab.records(&entity.name).await {
                for event in events(&record) {
                    *found.entry(event.to_owned()).or_default() |= record.value.is_some();
                }
            }
        }
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let letter = |record: InRecord| {
            let event = record.key.as_deref().map(text).unwrap_or_default();
            (event, record.header("bc_dlq_reason").unwrap_or_default().to_owned())
        };
        let letters = lab.records("dlq").await.into_iter().map(letter).collect();
        Told { asked, events: events_of, letters }
    }

    /// How a callback ended: what is wrong with it, or how many of its hints found a group without rows, of which no
    /// record can tell.
    fn end(&self, event: &str, payload: &Payload) -> Result<usize, String> {
        let catalog = Catalog::embedded().unwrap();
        let letter = self.letters.get(event).map(String::as_str);
        let (mut faults, mut rowless) = (Vec::new(), 0);
        let lines = lines(payload);
        if lines.is_empty() {
            faults.push("the table has no line for it".to_owned());
        }
        for line in &lines {
            if line.entity == NOT_READABLE {
                if letter != Some(NOT_READABLE) {
                    faults.push(format!("dead letter: {letter:?}"));
                }
                continue;
            }
            let is_read = is_read(line, payload, &self.asked);
            if !is_read {
                faults.push(format!("not read: {}", line.reads));
            }
            if line.entity == "-" || self.events[line.entity].contains_key(event) {
                continue;
            }
            let is_group = catalog.entity(line.entity).unwrap().hint_key.is_some();
            if is_read && is_group && letter.is_none() {
                rowless += payload.data.as_array().map_or(1, Vec::len);
            } else {
                faults.push(format!("no record on {}, dead letter: {letter:?}", line.entity));
            }
        }
        if faults.is_empty() { Ok(rowless) } else { Err(faults.join("; ")) }
    }

    /// Whether a record with a value lists the event on every topic of its lines.
    fn has_value(&self, event: &str, payload: &Payload) -> bool {
        lines(payload)
            .iter()
            .all(|line| line.entity == "-" || self.events[line.entity].get(event) == Some(&true))
    }
}

/// Hints that ended without a record since nothing was found, as the metrics count them.
async fn counted_without_row(lab: &Lab) -> usize {
    let metrics = lab.metrics().await;
    let is_one = |line: &&str| {
        line.starts_with("bcbridge_hints_total")
            && (line.contains("\"no_row\"") || line.contains("\"unresolved\""))
    };
    let count = |line: &str| line.rsplit(' ').next()?.parse::<f64>().ok();
    metrics.lines().filter(is_one).filter_map(count).sum::<f64>() as usize
}

async fn lab() -> Lab {
    let entry = json!({ "confirm_gone": "1s", "second_read": "off" });
    Lab::start(Setup { incoming: entries(entry, |_| true), ..Setup::default() }).await
}

/// Posts callbacks, waits until all are settled, and judges each. The end of the store comes last.
async fn check(lab: &Lab, wanted: Vec<Payload>) -> (Told, Vec<(String, Payload)>) {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let (ends, others): (Vec<Payload>, Vec<Payload>) =
        wanted.into_iter().partition(|payload| payload.scope == "store/app/uninstalled");
    let mut posted: Vec<(String, Payload)> = Vec::new();
    for part in [others, ends].into_iter().filter(|part| !part.is_empty()) {
        let events = post(lab, &client, part.clone()).await;
        posted.extend(events.into_iter().zip(part));
        intake_is_settled(lab).await;
    }
    let told = Told::by(lab).await;
    let (mut faults, mut rowless) = (Vec::new(), 0);
    for (event, payload) in &posted {
        match told.end(event, payload) {
            Ok(hints) => rowless += hints,
            Err(fault) => faults.push(format!("{} {}: {fault}", payload.scope, payload.data)),
        }
    }
    let listed: BTreeSet<&String> = told.events.values().flat_map(BTreeMap::keys).collect();
    let (counted, letters) = (counted_without_row(lab).await, told.letters.len());
    println!(
        "{} callbacks: {} on topics, {letters} dead letters, {rowless} hints of groups without rows, {counted} counted",
        posted.len(),
        listed.len(),
    );
    assert!(faults.is_empty(), "{} of {} went wrong:\n{}", faults.len(), posted.len(), faults.join("\n"));
    assert!(counted >= rowless, "{rowless} hints found no row, {counted} were counted");
    (told, posted)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_scope_ends_as_the_documented_read_on_its_own_topic() {
    let lab = lab().await;
    check(&lab, payloads()).await;
    lab.stop().await;
}

/// The first row of an entity of the sandbox: its id, and itself.
fn first(lab: &Lab, entity: &str) -> Option<(Value, Value)> {
    let (key, row) = lab.control.state_page(entity, None, 1).ok()?.pop()?;
    let id = ["id", "uuid"].iter().map(|name| row[*name].clone()).find(|id| !id.is_null());
    let id = id.unwrap_or_else(|| key.parse::<u64>().map_or_else(|_| json!(key), |number| json!(number)));
    Some((id, row))
}

/// Scopes whose `data.id` is another thing's.
const OWNERS: &[(&str, &str)] = &[
    ("store/order/message/", "order_id"),
    ("store/order/refund/", "order_id"),
    ("store/customer/payment/", "customer_id"),
    ("store/cart/lineItem/", "cart_item_id"),
];

/// Callbacks of every scope about what the store has.
fn of_existing_rows(lab: &Lab) -> Vec<Payload> {
    let catalog = Catalog::embedded().unwrap();
    let mut about =
        json!({ "resource_type": "product", "template_kind": "abandoned_cart_email", "tree_id": 1 });
    let named = [
        ("cart_id", "cart"),
        ("cartId", "cart"),
        ("category_id", "category"),
        ("configuration_id", "theme_configuration"),
        ("customer_id", "customer"),
        ("location_id", "location"),
        ("order_id", "order"),
        ("page_id", "page"),
        ("price_list_id", "price_list"),
        ("product_id", "product"),
        ("site_id", "site"),
        ("theme_id", "theme"),
        ("uuid", "script"),
    ];
    for (field, entity) in named {
        about[field] = first(lab, entity).unwrap_or_else(|| panic!("the sandbox has no {entity}")).0;
    }
    let (_, cart) = first(lab, "cart").unwrap();
    about["cart_item_id"] = cart["line_items"]["physical_items"][0]["id"].clone();
    let scopes =
        catalog.entities().iter().flat_map(|entity| entity.scope.iter().map(move |scope| (entity, scope)));
    let payload =
        |(entity, scope): (&std::sync::Arc<bcbridge::catalog::Entity>, &bcbridge::catalog::row::Scope)| {
            let mut about = about.clone();
            if let Some((id, row)) = first(lab, &entity.name) {
                for field in ["id", "metafield_id", "refund_id", "order_message_id"] {
                    about[field] = id.clone();
                }
                for parent in ["cart_id", "customer_id", "order_id", "product_id", "resource_id"] {
                    if let Some(id) = row.get(parent) {
                        about[parent] = id.clone();
                    }
                }
            }
            let owner = OWNERS.iter().find(|(beginning, _)| scope.name.starts_with(beginning));
            if let Some((_, owner)) = owner {
                about["id"] = about[*owner].clone();
            }
            about["affected_product_ids"] = json!([about["product_id"]]);
            about["orderId"] = about["order_id"].clone();
            let scope = scope.name.replace("{channel_id}", "1");
            let data = lab.control.emit(&scope, about).unwrap();
            Payload { scope, data }
        };
    scopes.map(payload).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callbacks_about_what_exists_end_as_records_with_a_value() {
    let lab = lab().await;
    lab.control.new_cart(4, &[5]).unwrap();
    let order = lab.control.place_order(2, &[1]).unwrap();
    lab.control.ship_order(order).unwrap();
    lab.control.quiesce().await;
    let (told, posted) = check(&lab, of_existing_rows(&lab)).await;
    let catalog = Catalog::embedded().unwrap();
    let is_there = |payload: &Payload| {
        let (_, scope) = catalog.scope(&payload.scope).unwrap();
        scope.not_readable.is_none() && scope.op != Op::Delete
    };
    let wanted: Vec<_> = posted.iter().filter(|(_, payload)| is_there(payload)).collect();
    let without = wanted.iter().filter(|(event, payload)| !told.has_value(event, payload));
    let without: Vec<String> =
        without.map(|(_, payload)| format!("{} {}", payload.scope, payload.data)).collect();
    assert!(
        without.is_empty(),
        "{} of {} without a value:\n{}",
        without.len(),
        wanted.len(),
        without.join("\n")
    );
    lab.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn odd_spellings_are_understood_and_unknown_scopes_put_aside() {
    let lab = lab().await;
    let payload = |scope: &str, data: Value| Payload { scope: scope.into(), data };
    let cart = lab.control.new_cart(4, &[5]).unwrap();
    let known = vec![
        payload("store/channel/metafield/created/", json!({ "metafield_id": 1, "resource_id": "1" })),
        payload("store/order/statusUpdated/", json!({ "type": "order", "id": "101" })),
        payload(
            "store/cart/lineItems/created/",
            json!({ "type": "cart_line_item", "id": cart, "cartId": cart }),
        ),
        payload("store/product/*", json!({ "type": "product", "id": 7 })),
        payload("store/category/*", json!({ "type": "category", "id": "3" })),
        payload("store/channel/1/order/*", json!({ "order_id": 101 })),
        payload("store/channel/1/settings/robots/updated", json!({})),
    ];
    let unknown = vec![
        // It says neither which settings nor anything else.
        payload("store/channel/1/settings/*", json!({})),
        payload("store/nothing/created", json!({ "id": 1 })),
        payload("store/product/updated", json!({})),
        payload("store/product/updated", json!({ "id": null })),
        payload("", json!([])),
    ];
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let ids = post(&lab, &client, [known.clone(), unknown.clone()].concat()).await;
    intake_is_settled(&lab).await;
    let told = until("all have ended", || async {
        let told = Told::by(&lab).await;
        let ended =
            |id: &String| told.letters.contains_key(id) || told.events.values().any(|of| of.contains_key(id));
        ids.iter().all(ended).then_some(told)
    })
    .await;
    for (id, payload) in ids.iter().zip(&known) {
        assert_eq!(told.end(id, payload), Ok(0), "{payload:?}");
    }
    for (id, payload) in ids.iter().skip(known.len()).zip(&unknown) {
        assert_eq!(told.letters.get(id).map(String::as_str), Some("quarantined"), "{payload:?}");
    }
    lab.stop().await;
}
