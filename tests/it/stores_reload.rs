//! Many stores in one process: each on its own, coming and going while the others flow.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bcbridge::app::Refusal;
use bcbridge::runtime::spawn;
use bcbridge::sandbox::{Chance, Control, DeliveryState, Profile};
use bcbridge::telemetry::Readiness;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::bridge_lab::until;
use crate::stores_lab::{Bridge, Shop, ask};

/// Changes to products, one after the other, until told to stop.
struct Load {
    on: Arc<AtomicBool>,
    task: JoinHandle<u64>,
}

impl Load {
    fn on(control: &Control) -> Self {
        let (on, control) = (Arc::new(AtomicBool::new(true)), control.clone());
        let goes_on = on.clone();
        let task = spawn("load", async move {
            let mut changes = 0;
            while goes_on.load(Ordering::Relaxed) {
                let product = changes % 40 + 1;
                control.update("product", product, json!({ "name": format!("change {changes}") })).unwrap();
                changes += 1;
                tokio::time::sleep(Duration::from_millis(25)).await;
            }
            changes
        });
        Self { on, task }
    }

    async fn stop(self) -> u64 {
        self.on.store(false, Ordering::Relaxed);
        self.task.await.unwrap()
    }
}

/// Watches whether the process was ever not ready, which every rebalance of a store makes it.
fn watch_readiness(readiness: &Readiness) -> (Arc<AtomicBool>, JoinHandle<Vec<&'static str>>) {
    let (on, readiness) = (Arc::new(AtomicBool::new(true)), readiness.clone());
    let goes_on = on.clone();
    let task = spawn("watch", async move {
        while goes_on.load(Ordering::Relaxed) {
            let waiting = readiness.waiting_for();
            // A new set of stores is looked at by the upkeep of hooks; that takes nobody out of service.
            if waiting.iter().any(|part| *part != "hooks") {
                return waiting;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Vec::new()
    });
    (on, task)
}

/// Every callback of the store was answered 200, and its products are on the topic as the store has them.
async fn all_arrived(bridge: &Bridge, shop: &Shop, products: std::ops::RangeInclusive<u64>) {
    shop.control.quiesce().await;
    for delivery in shop.control.deliveries() {
        assert_eq!(delivery.state, DeliveryState::Delivered, "{delivery:?}");
    }
    let state = shop.control.state("product").unwrap();
    until(&format!("the products of {}", shop.name), || async {
        let found = bridge.products(shop.name).await;
        let same = |id: u64| {
            let id = id.to_string();
            found.get(&id).is_some_and(|product| product["name"] == state[&id]["name"])
        };
        products.clone().all(same).then_some(())
    })
    .await;
}

fn refused(bridge: &Bridge) -> f64 {
    bridge.metric("bcbridge_receiver_requests_total{outcome=\"unauthorized\"}").unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_comes_and_goes_by_reload_while_another_notices_nothing() {
    let (a, b) = (Shop::open("a").await, Shop::open("b").await);
    let bridge = Bridge::start(&[a.entry()]).await;
    let load = Load::on(&a.control);
    let (watching, watched) = watch_readiness(&bridge.readiness);

    let (status, report) = bridge.reload(&[a.entry(), b.entry()]).await;
    assert_eq!(
        (status, &report["added"], &report["unchanged"]),
        (200, &json!(["b"]), &json!(["a"])),
        "{report}"
    );
    until("the hooks of b", || async {
        bridge.metric("bcbridge_hooks{store=\"b\",state=\"active\"}").filter(|n| *n > 0.0)
    })
    .await;
    b.control.update("product", 7, json!({ "name": "Seven of b" })).unwrap();
    bridge.arrived(&b, 7).await;

    // Under load, what b was told before it left is done, or waits for its return on the intake.
    let load_of_b = Load::on(&b.control);
    tokio::time::sleep(Duration::from_millis(500)).await;
    let (status, report) = bridge.reload(&[a.entry()]).await;
    assert_eq!(
        (status, &report["removed"], &report["unchanged"]),
        (200, &json!(["b"]), &json!(["a"])),
        "{report}"
    );
    assert_eq!(
        report["warnings"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|w| w.as_str().unwrap().contains("\"b\""))
            .count(),
        1
    );
    assert_eq!(bridge.post(&b.callback("msg_gone", 7)).await, 404);
    assert!(bridge.metric("bcbridge_store_stopped{store=\"b\"}").is_none(), "its series end with it");

    let (status, report) = bridge.reload(&[a.entry(), b.entry()]).await;
    assert_eq!((status, &report["added"]), (200, &json!(["b"])), "{report}");
    load_of_b.stop().await;
    all_arrived(&bridge, &b, 1..=10).await;
    let changes = load.stop().await;
    all_arrived(&bridge, &a, 1..=40.min(changes)).await;
    assert_eq!(refused(&bridge), 0.0);
    watching.store(false, Ordering::Relaxed);
    assert_eq!(watched.await.unwrap(), Vec::<&str>::new(), "no store lost its partitions, and nobody waited");
    bridge.stop().await;
    a.close().await;
    b.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn secrets_and_headers_change_under_load_without_a_refused_callback() {
    let a = Shop::open("a").await;
    let bridge = Bridge::start(&[a.entry()]).await;
    let load = Load::on(&a.control);
    let with = |secrets: Value, headers: Value| {
        let mut entry = a.entry();
        entry["client_secrets"] = secrets;
        entry["webhook_headers"] = headers;
        entry
    };
    let own = a.config.client_secret.clone();
    for (secrets, headers) in [
        (json!(["next-0123456789abcdef", own]), json!({})),
        (json!([own]), json!({ "x-bridge-key": "one" })),
        (json!([own]), json!({ "x-bridge-key": "two" })),
        (json!([own]), json!({})),
    ] {
        let (status, report) = bridge.reload(&[with(secrets, headers)]).await;
        assert_eq!((status, &report["refreshed"]), (200, &json!(["a"])), "{report}");
        tokio::time::sleep(Duration::from_millis(700)).await;
    }
    let changes = load.stop().await;
    all_arrived(&bridge, &a, 1..=40.min(changes)).await;
    assert_eq!(refused(&bridge), 0.0);
    assert_eq!(bridge.post(&a.callback("msg_1", 7)).await, 200);
    bridge.reload(&[with(json!(["next-0123456789abcdef"]), json!({}))]).await;
    assert_eq!(bridge.post(&a.callback("msg_2", 7)).await, 401, "the earlier secret is no more");
    bridge.stop().await;
    a.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changed_entries_restart_their_store_and_lose_nothing() {
    let (a, b) = (Shop::open("a").await, Shop::open("b").await);
    let bridge = Bridge::start(&[a.entry(), b.entry()]).await;
    let loads = [Load::on(&a.control), Load::on(&b.control)];
    for filter in ["true", ".id > 0"] {
        bridge.text.lock().unwrap()["incoming"] =
            json!([{ "entity": "product" }, { "entity": "product", "store": "b", "filter": filter }]);
        let (status, report) = bridge.post_reload().await;
        assert_eq!(
            (status, &report["restarted"], &report["unchanged"]),
            (200, &json!(["b"]), &json!(["a"])),
            "{report}"
        );
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    let mut changes = Vec::new();
    for load in loads {
        changes.push(load.stop().await);
    }
    all_arrived(&bridge, &a, 1..=40.min(changes[0])).await;
    all_arrived(&bridge, &b, 1..=40.min(changes[1])).await;
    bridge.stop().await;
    a.close().await;
    b.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_is_wrong_or_needs_a_restart_is_refused_whole() {
    let (a, b) = (Shop::open("a").await, Shop::open("b").await);
    let bridge = Bridge::start(&[a.entry()]).await;
    let good = bridge.text.lock().unwrap().clone();
    let mut wrong = b.entry();
    wrong["signature"] = json!("sometimes");
    wrong["store_hash"] = json!("no hash at all");
    let (status, answer) = bridge.reload(&[a.entry(), wrong]).await;
    assert_eq!(status, 422, "{answer}");
    let mistakes = answer["mistakes"].as_array().unwrap();
    assert_eq!(mistakes.len(), 2, "{answer}");
    for mistake in mistakes {
        assert_eq!(mistake["file"], "bcbridge.yaml");
        assert!(mistake["line"].as_u64() > Some(0) && mistake["column"].as_u64() > Some(0), "{mistake}");
    }
    {
        let mut text = bridge.text.lock().unwrap();
        *text = good.clone();
        text["kafka"]["prefix"] = json!("another");
        text["receiver"]["max_connections"] = json!(2_000);
        text["stores"] = json!([a.entry(), b.entry()]);
    }
    let (status, answer) = bridge.post_reload().await;
    assert_eq!(status, 422, "{answer}");
    for key in ["`kafka.prefix`", "`receiver.max_connections`"] {
        assert!(answer["mistakes"].to_string().contains(key), "{answer}");
    }
    assert!(matches!(bridge.reloader.reload().await, Err(Refusal::Wrong(rows)) if rows.len() == 2));
    assert_eq!(bridge.post(&b.callback("msg_b", 7)).await, 404, "nothing of it was taken");
    assert_eq!(bridge.status().await["stores"], json!(["a"]));
    *bridge.text.lock().unwrap() = good;
    let (status, report) = bridge.post_reload().await;
    assert_eq!((status, &report["unchanged"]), (200, &json!(["a"])), "{report}");
    bridge.stop().await;
    a.close().await;
    b.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_store_in_trouble_leaves_the_others_as_fast_as_they_were() {
    let (a, b) = (Shop::open("a").await, Shop::open("b").await);
    let bridge = Bridge::start(&[a.entry(), b.entry()]).await;
    let slowest = async |first: u64| {
        let mut slowest = Duration::ZERO;
        for product in first..first + 5 {
            let begun = Instant::now();
            a.control.update("product", product, json!({ "name": format!("A {product}") })).unwrap();
            bridge.arrived(&a, product).await;
            slowest = slowest.max(begun.elapsed());
        }
        slowest
    };
    let calm = slowest(101).await;
    let storms = [
        ("429", Profile { bare_429: Chance::of(1.0), ..Profile::default() }),
        ("500", Profile { status_500: Chance::of(1.0), ..Profile::default() }),
        ("cut", Profile { cut_before: Chance::of(1.0), ..Profile::default() }),
    ];
    let load = Load::on(&b.control);
    for (number, (storm, profile)) in storms.into_iter().enumerate() {
        b.control.faults(profile);
        let slow = slowest(111 + 10 * number as u64).await;
        println!("calm {calm:?}, while the other store has a storm of {storm}: {slow:?}");
        // A machine that runs the whole suite at once is slow for other reasons; a store that waited for the other
        // would wait for the whole storm.
        assert!(slow < calm + Duration::from_secs(10), "{storm}: {slow:?} instead of {calm:?}");
    }
    b.control.faults(Profile::default());
    assert!(bridge.readiness.waiting_for().is_empty());
    load.stop().await;
    bridge.stop().await;
    a.close().await;
    b.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_whose_token_is_dead_is_left_alone_until_a_reload_brings_another() {
    let (a, b) = (Shop::open("a").await, Shop::open("b").await);
    let mut dead = b.entry();
    dead["access_token"] = json!("a-dead-token");
    let bridge = Bridge::start(&[a.entry(), dead]).await;
    for number in 0..5 {
        assert_eq!(bridge.post(&b.callback(&format!("msg_{number}"), 7 + number)).await, 200);
    }
    let stopped = || bridge.metric("bcbridge_store_stopped{store=\"b\"}");
    until("the store is stopped", || async { stopped().filter(|value| *value == 1.0) }).await;
    assert_eq!(bridge.status().await["stopped"]["b"]["reason"], "unauthorized");
    let before = b.control.stats().calls;
    a.control.update("product", 7, json!({ "name": "Seven of a" })).unwrap();
    bridge.arrived(&a, 7).await;
    assert_eq!(bridge.post(&b.callback("msg_later", 20)).await, 200, "its callbacks are taken all the same");
    assert!(bridge.readiness.waiting_for().is_empty(), "one dead token takes nobody out of service");
    assert!(b.control.stats().calls <= before + 1, "at most the first probe");
    let (status, report) = bridge.reload(&[a.entry(), b.entry()]).await;
    assert_eq!((status, &report["refreshed"]), (200, &json!(["b"])), "{report}");
    until("the store is called again", || async { stopped().filter(|value| *value == 0.0) }).await;
    for product in [7, 8, 9, 10, 11, 20] {
        bridge.arrived(&b, product).await;
    }
    bridge.stop().await;
    a.close().await;
    b.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_news_of_an_uninstalled_app_stops_its_store_until_a_probe_finds_the_token_good() {
    let (a, b) = (Shop::open("a").await, Shop::open("b").await);
    let bridge = Bridge::start(&[a.entry(), b.entry()]).await;
    let news = b.signed("msg_uninstalled", "store/app/uninstalled", &json!({ "type": "store" }));
    assert_eq!(bridge.post(&news).await, 200);
    let stopped = || bridge.metric("bcbridge_store_stopped{store=\"b\"}");
    until("the store is stopped", || async { stopped().filter(|value| *value == 1.0) }).await;
    assert_eq!(bridge.status().await["stopped"]["b"]["reason"], "uninstalled");
    let before = b.control.stats().calls;
    assert_eq!(bridge.post(&b.callback("msg_1", 7)).await, 200);
    a.control.update("product", 7, json!({ "name": "Seven of a" })).unwrap();
    bridge.arrived(&a, 7).await;
    assert!(b.control.stats().calls <= before + 1, "nothing but the probe is sent");
    until("the probe finds the token good", || async { stopped().filter(|value| *value == 0.0) }).await;
    bridge.stop().await;
    a.close().await;
    b.close().await;
}

/// The same by the signal, of the program itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sighup_reads_the_file_again_and_a_wrong_file_changes_nothing() {
    let (a, b) = (Shop::open("a").await, Shop::open("b").await);
    let listen = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let (file, log) = (directory.path().join("bcbridge.yaml"), directory.path().join("log"));
    let write = |stores: &[Value]| {
        let text = json!({
            "kafka": { "bootstrap_servers": "embedded", "topics": { "partitions": 2, "replication_factor": 1 } },
            "receiver": { "listen": listen, "public_url": format!("http://{listen}") },
            "console": { "listen": "127.0.0.1:0" },
            "stores": stores,
            "incoming": [{ "entity": "product" }],
        });
        std::fs::write(&file, text.to_string()).unwrap();
    };
    write(&[a.entry()]);
    let mut bridge = tokio::process::Command::new(env!("CARGO_BIN_EXE_bcbridge"))
        .args(["--log-format", "json", "run", "--config"])
        .arg(&file)
        .env_remove("RUST_LOG")
        .stdout(std::process::Stdio::null())
        .stderr(std::fs::File::create(&log).unwrap())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let pid = bridge.id().unwrap().to_string();
    let signal = |name: &str| {
        assert!(std::process::Command::new("kill").args([name, &pid]).status().unwrap().success());
    };
    let answers = async |request: &[u8], status: u16| {
        until(&format!("an answer of {status}"), || async {
            // Before it listens there is no answer at all.
            tokio::net::TcpStream::connect(listen).await.ok()?;
            (ask(listen, request).await.0 == status).then_some(())
        })
        .await;
    };
    answers(&a.callback("msg_a", 7), 200).await;
    answers(&b.callback("msg_b", 7), 404).await;
    write(&[a.entry(), b.entry()]);
    signal("-HUP");
    answers(&b.callback("msg_b", 7), 200).await;
    until("the hooks of b", || async { (!b.control.state("webhook").unwrap().is_empty()).then_some(()) })
        .await;
    let mut wrong = a.entry();
    wrong["signature"] = json!("sometimes");
    write(&[wrong]);
    signal("-HUP");
    let told = || std::fs::read_to_string(&log).unwrap();
    until("the refusal", || async { told().contains("nothing was changed").then_some(()) }).await;
    assert!(told().contains("signature"), "{}", told());
    answers(&b.callback("msg_c", 8), 200).await;
    signal("-TERM");
    assert!(bridge.wait().await.unwrap().success(), "{}", told());
    assert!(!told().contains("token-of-") && !told().contains("secret-of-"), "no secret is told");
    a.close().await;
    b.close().await;
}
