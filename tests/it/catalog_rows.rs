//! Rows of the catalogue in the settings: merged, checked at load, and blamed by line.

use bcbridge::catalog::Catalog;
use bcbridge::config::{self, Settings};

const STORE: &str =
    "stores: [{ name: main, store_hash: abc123, access_token: '${T}', client_secrets: ['${T}'] }]\n";

fn load(text: &str) -> Result<Settings, String> {
    let env = |_: &str| Some("secret".to_owned());
    let text = format!("{STORE}receiver: {{ public_url: 'https://bridge.example.com' }}\n{text}");
    config::load_str("bcbridge.yaml", &text, &env, &Catalog::embedded().unwrap()).map_err(|e| e.to_string())
}

const GADGET: &str = "\
catalog:
  entities:
    - name: gadget
      doc: A gadget of ours.
      key: [id]
      ids: [gadget_id]
      read: { one: '/v3/gadgets/{gadget_id}' }
      list: { path: /v3/gadgets, pages: page, max: 100 }
      scope:
        - { name: store/gadget/updated, op: updated, id: [data.id] }
";

#[test]
fn an_entity_of_the_users_is_as_good_as_ours() {
    let settings = load(&format!("{GADGET}incoming: [{{ entity: gadget }}, {{ entity: order }}]\n")).unwrap();
    assert_eq!(settings.incoming[0].entity, "gadget");
    assert_eq!(settings.incoming[0].scopes, ["store/gadget/updated"]);
    let catalog = Catalog::embedded().unwrap().with_rows(&settings.catalog).unwrap();
    let row = catalog.entity("gadget").unwrap();
    assert_eq!(row.list.as_ref().map(|list| list.max), Some(100));
    assert_eq!(catalog.scope("store/gadget/updated").map(|(entity, _)| entity.name.as_str()), Some("gadget"));
}

#[test]
fn the_mistakes_of_a_row_have_their_line() {
    let errors = load(&GADGET.replace("path: /v3/gadgets,", "path: /v4/gadgets,")).unwrap_err();
    assert!(errors.contains("entity `gadget`: the path \"/v4/gadgets\" is not one"), "{errors}");
    assert!(errors.contains("bcbridge.yaml:5:"), "the row starts on line 5:\n{errors}");
    let errors = load(&GADGET.replace("doc:", "dock:")).unwrap_err();
    assert!(errors.contains("unknown field `dock`") && errors.contains("bcbridge.yaml:6:7"), "{errors}");
    let errors = load("catalog: { entities: [{ doc: x }] }\n").unwrap_err();
    assert!(errors.contains("row 1") && errors.contains("missing field `name`"), "{errors}");
    let errors = load("catalog: { rows: [] }\n").unwrap_err();
    assert!(errors.contains("unknown key `rows`"), "{errors}");
}

#[test]
fn what_cannot_be_read_is_not_taken_in() {
    let errors = load("incoming: [{ entity: order_refund_quote }]\n").unwrap_err();
    assert!(errors.contains("of which nothing can be read"), "{errors}");
}

#[test]
fn scopes_of_single_channels_are_meant_only_when_they_are_named() {
    let scopes = |text: &str| load(text).unwrap().incoming[0].scopes.clone();
    let order = scopes("incoming: [{ entity: order }]\n");
    assert_eq!(order.len(), 4);
    assert!(order.iter().all(|scope| !scope.contains("channel")), "{order:?}");
    let page = scopes("incoming: [{ entity: page }]\n");
    assert_eq!(page, ["store/channel/{channel_id}/page/created", "store/channel/{channel_id}/page/updated"]);
    let one = scopes("incoming: [{ entity: order, scopes: ['store/channel/17/order/*'] }]\n");
    assert_eq!(one.len(), 4);
    assert!(one.iter().all(|scope| scope.starts_with("store/channel/17/order/")), "{one:?}");
    // Carts tell of their lines beside the entity of lines itself.
    let lines = scopes("incoming: [{ entity: cart, scopes: ['store/cart/lineItem/*'] }]\n");
    assert_eq!(lines.len(), 3);
}

#[test]
fn a_path_is_made_of_ids_that_the_lists_of_the_entity_want() {
    let of = |path: &str| load(&format!("incoming: [{{ entity: order_message, poll: 1h, path: {path} }}]\n"));
    assert_eq!(of("{ order_id: 100 }").unwrap().incoming[0].path["order_id"], "100");
    let wrong = of("{ ordr_id: 100 }").unwrap_err();
    assert!(wrong.contains("did you mean `order_id`?"), "{wrong}");
    for bad in ["..", "''", "1/../2", "'%2f'", "0", "https://example.com"] {
        let wrong = of(&format!("{{ order_id: {bad} }}")).unwrap_err();
        assert!(wrong.contains("`incoming[0].path.order_id` is no id"), "{bad}: {wrong}");
    }
    let brand = load("incoming: [{ entity: brand, poll: 1h, path: { brand_id: 3 } }]\n").unwrap_err();
    assert!(brand.contains("allowed: nothing"), "{brand}");
}

#[test]
fn a_wrong_interval_hides_no_other_mistake() {
    let wrong = load("incoming: [{ entity: brand, poll: { every: 1y, at_start: maybe } }]\n").unwrap_err();
    assert!(wrong.contains("poll.every") && wrong.contains("poll.at_start"), "{wrong}");
}

#[test]
fn a_cap_of_the_users_takes_its_endpoints_from_ours() {
    use bcbridge::model::request::Method::{Get, Put};
    let caps = "catalog: { caps: [{ at_once: 6, methods: [PUT], paths: [/v3/customers, '/v3/gadgets/{id}'], why: ours }] }\n";
    let settings = load(caps).unwrap();
    let catalog = Catalog::embedded().unwrap().with_rows(&settings.catalog).unwrap();
    let at = |method, path| catalog.cap(method, path).map(|cap| cap.at_once);
    assert_eq!(at(Put, "/v3/customers"), Some(6));
    assert_eq!(at(Put, "/v3/gadgets/{gadget_id}"), Some(6));
    assert_eq!((at(Get, "/v3/gadgets/{gadget_id}"), at(Put, "/v3/customers/addresses")), (None, Some(3)));
}

#[test]
fn the_mistakes_of_a_cap_have_their_line() {
    let wrong = load(
        "catalog:\n  caps:\n    - { at_once: 3, paths: [/v3/a] }\n    - { at_once: 0, paths: [/v3/b] }\n",
    );
    let errors = wrong.unwrap_err();
    assert!(errors.contains("`catalog.caps`, cap 2: `at_once` is 0"), "{errors}");
    assert!(errors.contains("bcbridge.yaml:6:"), "{errors}");
    let errors = load("catalog: { caps: [{ paths: [/v3/a] }] }\n").unwrap_err();
    assert!(errors.contains("has no `at_once`"), "{errors}");
    let errors = load("catalog: { caps: [{ at_once: 3, paths: [/v3/a], max: 3 }] }\n").unwrap_err();
    assert!(errors.contains("unknown field `max`"), "{errors}");
    let errors = load("catalog: { caps: [{ at_once: 3, paths: [/v4/a] }] }\n").unwrap_err();
    assert!(errors.contains("\"/v4/a\" is not one"), "{errors}");
}
