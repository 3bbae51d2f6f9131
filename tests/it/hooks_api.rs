//! Webhook subscriptions against a hooks API that pages, answers bare or enveloped, and refuses duplicates.

use std::sync::{Arc, Mutex};

use bcbridge::bigcommerce::hooks_plan::{MARKER, Owner, Wanted};
use bcbridge::bigcommerce::{StoreClient, hooks};
use bcbridge::cli::hooks::{self as cli, Output, Target};
use secrecy::SecretString;
use serde_json::{Value, json};
use url::Url;

use crate::client_lab::{self, Act, Arrived, RawStore, raw};

/// The store's side.
#[derive(Default)]
struct Api {
    hooks: Vec<Value>,
    /// Answers without `data`, as the prose examples have it.
    bare: bool,
    /// The next listing pretends to be empty, as if somebody else created a hook in between.
    blind_once: bool,
    /// The next create is done, but its reply is lost.
    lose_reply_once: bool,
    writes: usize,
    channel_reads: usize,
}

impl Api {
    fn answer(&mut self, request: &Arrived) -> Act {
        let path = request.path.strip_prefix("/stores/abc123/v3").expect("the API");
        if path.starts_with("/channels?") {
            return self.channels();
        }
        let path = path.strip_prefix("/hooks").expect("the hooks API");
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        if request.method != "GET" {
            self.writes += 1;
        }
        let found = path.strip_prefix('/').and_then(|id| id.parse::<u64>().ok());
        let found = found.and_then(|id| self.hooks.iter().position(|hook| hook["id"] == id));
        match (request.method.as_str(), path, found) {
            ("GET", "", _) => self.list(query),
            ("GET", "/admin", _) => self.admin(),
            ("POST", "", _) => self.create(serde_json::from_str(&request.body).unwrap()),
            ("PUT", _, Some(at)) => {
                let change: Value = serde_json::from_str(&request.body).unwrap();
                for (name, value) in change.as_object().unwrap() {
                    self.hooks[at][name] = value.clone();
                }
                self.one(200, self.hooks[at].clone())
            }
            ("DELETE", _, Some(at)) => {
                let gone = self.hooks.remove(at);
                self.one(200, gone)
            }
            _ => Act::Write(client_lab::json(404, "", r#"{"status":404}"#)),
        }
    }

    /// Pages of two, whatever limit is asked for.
    fn list(&mut self, query: &str) -> Act {
        let page: usize = query.split('&').find_map(|q| q.strip_prefix("page=")).unwrap().parse().unwrap();
        let hooks = if std::mem::take(&mut self.blind_once) { Vec::new() } else { self.hooks.clone() };
        let pages = hooks.len().div_ceil(2).max(1);
        let data: Vec<_> = hooks.iter().skip((page - 1) * 2).take(2).collect();
        let meta = json!({"pagination": {"total": hooks.len(), "current_page": page, "total_pages": pages}});
        Act::Write(client_lab::json(200, "", &json!({"data": data, "meta": meta}).to_string()))
    }

    fn channels(&mut self) -> Act {
        self.channel_reads += 1;
        let data = json!([{"id": 1, "status": "active"}, {"id": 7, "status": "deleted"}, {"id": 20}]);
        Act::Write(client_lab::json(200, "", &json!({"data": data, "meta": {}}).to_string()))
    }

    fn admin(&self) -> Act {
        let status = |hook: &Value| if hook["is_active"] == true { "active" } else { "deactivated" };
        let list: Vec<_> =
            self.hooks.iter().map(|hook| json!({"id": hook["id"], "status": status(hook)})).collect();
        let reason = json!({"failure_description": "timed out", "count": 12, "timestamp": 1_700_000_000});
        let blocked = json!([{"destination": "bridge.example.com", "time_left": 90, "reasons": [reason]}]);
        let data = json!({"emails": ["ops@example.com"], "hooks_list": list, "blocked_domains": blocked});
        self.one(200, data)
    }

    fn create(&mut self, mut hook: Value) -> Act {
        let same =
            |other: &Value| other["scope"] == hook["scope"] && other["destination"] == hook["destination"];
        if self.hooks.iter().any(same) {
            return Act::Write(client_lab::json(422, "", r#"{"status":422,"title":"exists"}"#));
        }
        hook["id"] = json!(100 + self.hooks.len());
        self.hooks.push(hook.clone());
        if std::mem::take(&mut self.lose_reply_once) {
            return Act::Write(Vec::new());
        }
        self.one(200, hook)
    }

    fn one(&self, status: u16, thing: Value) -> Act {
        let body = if self.bare { thing } else { json!({"data": thing, "meta": {}}) };
        Act::Write(client_lab::json(status, "", &body.to_string()))
    }
}

struct Lab {
    api: Arc<Mutex<Api>>,
    _store: RawStore,
    targets: [Target<StoreClient>; 1],
}

const OWNER: Owner<'static> = Owner { prefix: "shop", store: "main" };
const SECRET: &str = "canary-hook-secret";
const HERE: &str = "https://bridge.example.com/webhooks/main";

async fn lab(api: Api, scopes: &[&str]) -> Lab {
    let api = Arc::new(Mutex::new(api));
    let shared = Arc::clone(&api);
    let store = raw(move |request| shared.lock().unwrap().answer(request)).await;
    let public = Url::parse("https://bridge.example.com").unwrap();
    let headers = [("x-bridge-key".to_owned(), [SECRET, "canary-older"].map(SecretString::from).to_vec())];
    let wanted = Wanted::new(OWNER, &public, scopes.iter().map(|s| (*s).to_owned()), headers);
    let targets = [Target { store: store.client(), wanted }];
    Lab { api, _store: store, targets }
}

impl Lab {
    async fn plan(&self) -> (u8, Value) {
        let mut out = Vec::new();
        let code = cli::plan(&self.targets, Output::Json, &mut out).await.unwrap();
        (code, read(&out))
    }

    async fn apply(&self) -> (u8, Value) {
        let mut out = Vec::new();
        let code = cli::apply(&self.targets, Output::Json, &mut out).await.unwrap();
        (code, read(&out))
    }

    async fn prune(&self, consent: bool) -> (u8, Value) {
        let mut out = Vec::new();
        let consent = |shown: &str| {
            assert!(shown.contains("unwanted"), "{shown}");
            Ok(consent)
        };
        let code = cli::prune(&self.targets, consent, Output::Json, &mut out).await.unwrap();
        (code, read(&out))
    }

    fn writes(&self) -> usize {
        self.api.lock().unwrap().writes
    }

    fn hooks(&self) -> Vec<Value> {
        self.api.lock().unwrap().hooks.clone()
    }
}

fn read(out: &[u8]) -> Value {
    let text = String::from_utf8(out.to_vec()).unwrap();
    assert!(!text.contains("canary"), "a header's value is printed: {text}");
    serde_json::from_str(&text).unwrap()
}

fn actions(rows: &Value) -> Vec<&str> {
    rows.as_array().unwrap().iter().map(|row| row["action"].as_str().unwrap()).collect()
}

fn hook(id: u64, scope: &str, destination: &str, marked: bool) -> Value {
    let mut headers = json!({"x-bridge-key": SECRET});
    if marked {
        headers[MARKER] = json!("shop/main");
    }
    json!({"id": id, "scope": scope, "destination": destination, "headers": headers, "is_active": true})
}

#[tokio::test]
async fn missing_hooks_are_created_once_and_the_second_run_writes_nothing() {
    for bare in [false, true] {
        let lab =
            lab(Api { bare, ..Api::default() }, &["store/order/*", "store/cart/*", "store/sku/*"]).await;
        let (code, rows) = lab.plan().await;
        assert_eq!((code, actions(&rows)), (cli::HAS_CHANGES, vec!["create"; 3]));
        assert_eq!(lab.writes(), 0);
        let (code, _) = lab.apply().await;
        assert_eq!((code, lab.writes()), (0, 3));
        for made in lab.hooks() {
            assert_eq!((&made["destination"], &made["is_active"]), (&json!(HERE), &json!(true)));
            assert_eq!(made["headers"], json!({"x-bridge-key": SECRET, MARKER: "shop/main"}));
        }
        let (code, rows) = lab.plan().await;
        assert_eq!((code, actions(&rows)), (0, vec!["keep"; 3]));
        lab.apply().await;
        assert_eq!(lab.writes(), 3);
    }
}

#[tokio::test]
async fn a_hook_that_is_asleep_moved_or_has_old_headers_is_corrected_in_one_write() {
    let mut asleep = hook(1, "store/order/*", HERE, true);
    asleep["is_active"] = json!(false);
    let moved = hook(2, "store/cart/*", "https://old.example.com/webhooks/main", true);
    let mut plain = hook(3, "store/sku/*", HERE, true);
    plain["headers"] = Value::Null;
    let api = Api { hooks: vec![asleep, moved, plain], ..Api::default() };
    let lab = lab(api, &["store/order/*", "store/cart/*", "store/sku/*"]).await;
    let (code, rows) = lab.plan().await;
    assert_eq!((code, actions(&rows)), (cli::HAS_CHANGES, vec!["update"; 3]));
    lab.apply().await;
    assert_eq!(lab.writes(), 3);
    let (code, rows) = lab.plan().await;
    assert_eq!((code, actions(&rows)), (0, vec!["keep"; 3]), "{rows}");
    let ids: Vec<_> = lab.hooks().iter().map(|hook| hook["id"].as_u64().unwrap()).collect();
    assert_eq!(ids, [1, 2, 3]);
}

#[tokio::test]
async fn foreign_hooks_are_never_touched_and_only_ours_are_pruned() {
    let foreign = [
        hook(1, "store/order/*", "https://erp.example.com/in?key=hidden", false),
        hook(2, "store/order/*", "https://old.example.com/webhooks/main", false),
        hook(3, "store/cart/*", "https://bridge.example.com/webhooks/other", true),
    ];
    let mut hooks = foreign.to_vec();
    hooks.push(hook(4, "store/coupon/*", HERE, true));
    let lab = lab(Api { hooks, ..Api::default() }, &["store/order/*"]).await;
    let (_, rows) = lab.apply().await;
    assert_eq!(actions(&rows), ["create", "foreign", "unwanted", "foreign", "foreign"]);
    assert!(!rows.to_string().contains("hidden"));
    assert_eq!(lab.hooks()[..3], foreign);
    let (code, rows) = lab.prune(true).await;
    assert_eq!((code, rows.as_array().unwrap().len()), (0, 1));
    assert_eq!(lab.hooks()[..3], foreign);
    assert_eq!(lab.hooks().len(), 4);
    assert_eq!(lab.writes(), 2);
}

#[tokio::test]
async fn pruning_shows_first_and_deletes_nothing_without_consent_or_before_the_replacement_is_there() {
    let stale = hook(1, "store/coupon/*", HERE, true);
    let lab = lab(Api { hooks: vec![stale], ..Api::default() }, &["store/order/created"]).await;
    let (code, rows) = lab.prune(false).await;
    assert_eq!((code, &rows[0]["result"]), (cli::HAS_CHANGES, &json!("not deleted")));
    let (code, rows) = lab.prune(true).await;
    assert_eq!(code, cli::FAILED);
    assert!(rows[0]["result"].as_str().unwrap().contains("hooks apply first"), "{rows}");
    assert_eq!(lab.writes(), 0);
    lab.apply().await;
    let (code, rows) = lab.prune(true).await;
    assert_eq!((code, &rows[0]["result"], lab.hooks().len()), (0, &json!("ok"), 1));
    assert_eq!(lab.prune(false).await, (0, json!([])), "nothing to ask about");
}

#[tokio::test]
async fn scopes_of_channels_are_subscribed_for_each_channel_that_is_left() {
    let of = |change: &str| format!("store/channel/{{channel_id}}/cart/lineItem/{change}");
    let scopes = ["created", "updated", "deleted"].map(of);
    let scopes: Vec<&str> = scopes.iter().map(String::as_str).chain(["store/sku/created"]).collect();
    let with = lab(Api::default(), &scopes).await;
    let (code, rows) = with.apply().await;
    let made: Vec<&str> = rows.as_array().unwrap().iter().map(|row| row["scope"].as_str().unwrap()).collect();
    assert_eq!(
        (code, made),
        (0, vec!["store/channel/1/cart/lineItem/*", "store/channel/20/cart/lineItem/*", "store/sku/created"])
    );
    assert_eq!(with.api.lock().unwrap().channel_reads, 1);
    assert_eq!(with.plan().await.0, 0);
    let without = lab(Api::default(), &["store/sku/created"]).await;
    without.apply().await;
    assert_eq!(without.api.lock().unwrap().channel_reads, 0);
}

#[tokio::test]
async fn two_bridges_with_one_name_for_one_store_leave_each_other_alone() {
    let other = json!({
        "id": 1, "scope": "store/order/*", "is_active": true, "headers": {MARKER: "another/main"},
        "destination": "https://another.example.com/webhooks/main",
    });
    let old = json!({
        "id": 2, "scope": "store/cart/*", "is_active": true,
        "headers": {"x-bridge-key": SECRET, MARKER: "main"}, "destination": HERE,
    });
    let lab =
        lab(Api { hooks: vec![other.clone(), old], ..Api::default() }, &["store/order/*", "store/cart/*"])
            .await;
    let (_, rows) = lab.apply().await;
    assert_eq!(actions(&rows), ["update", "create", "foreign"]);
    assert_eq!(lab.hooks()[0], other);
    assert_eq!(lab.hooks()[1]["headers"][MARKER], "shop/main", "a marker of before, at the right place");
}

#[tokio::test]
async fn a_duplicate_or_a_lost_reply_on_create_is_looked_up() {
    let made = hook(1, "store/order/*", HERE, true);
    let raced = lab(Api { hooks: vec![made], blind_once: true, ..Api::default() }, &["store/order/*"]).await;
    let (code, rows) = raced.apply().await;
    assert_eq!((code, &rows[0]["result"], &rows[0]["id"]), (0, &json!("ok"), &json!(1)));
    assert_eq!(raced.hooks().len(), 1);
    let lost = lab(Api { lose_reply_once: true, ..Api::default() }, &["store/order/*"]).await;
    let (code, rows) = lost.apply().await;
    assert_eq!((code, &rows[0]["result"], &rows[0]["id"]), (0, &json!("ok"), &json!(100)));
    assert_eq!((lost.hooks().len(), lost.writes()), (1, 1));
}

#[tokio::test]
async fn the_status_shows_health_and_blocked_domains_but_no_secret() {
    let mut asleep = hook(1, "store/order/*", HERE, true);
    asleep["is_active"] = json!(false);
    let lab = lab(Api { hooks: vec![asleep], ..Api::default() }, &["store/order/*"]).await;
    let mut out = Vec::new();
    assert_eq!(cli::status(&lab.targets, Output::Json, &mut out).await.unwrap(), 0);
    let rows = read(&out);
    assert_eq!((&rows[0]["state"], &rows[1]["state"]), (&json!("deactivated"), &json!("blocked")));
    assert_eq!(
        (&rows[0]["owner"], &rows[1]["why"]),
        (&json!("bridge"), &json!("for 90 s more: timed out (12 times)"))
    );
    assert_eq!((&rows[2]["state"], &rows[2]["emails"]), (&json!("notified"), &json!(1)));
    assert!(!rows.to_string().contains("ops@example.com"));
    let mut table = Vec::new();
    cli::status(&lab.targets, Output::Table, &mut table).await.unwrap();
    let table = String::from_utf8(table).unwrap();
    assert!(table.contains("x-bridge-key: ***") && !table.contains(SECRET), "{table}");
    let status = hooks::status(&lab.targets[0].store).await.unwrap();
    assert_eq!(status.admin.blocked[0].time_left_s, 90);
}

#[tokio::test]
async fn a_store_that_refuses_everything_fails_each_item_and_says_why() {
    let store = raw(|request| {
        Act::Write(match request.method.as_str() {
            "GET" => client_lab::json(200, "", r#"{"data":[],"meta":{}}"#),
            _ => client_lab::json(403, "", r#"{"status":403}"#),
        })
    })
    .await;
    let public = Url::parse("https://bridge.example.com").unwrap();
    let scopes = ["store/order/*".to_owned(), "store/cart/*".to_owned()];
    let wanted = Wanted::new(OWNER, &public, scopes, []);
    let targets = [Target { store: store.client(), wanted }];
    let mut out = Vec::new();
    assert_eq!(cli::apply(&targets, Output::Json, &mut out).await.unwrap(), cli::FAILED);
    let rows = read(&out);
    for row in rows.as_array().unwrap() {
        assert!(row["result"].as_str().unwrap().contains("lacks a scope"), "{row}");
    }
}
