//! Dead letters on the command line, while a bridge runs: looked at, replayed until they are applied, deleted.

use std::process::{Output, Stdio};
use std::time::Duration;

use bcbridge::kafka::append::IntakeProducer;
use bcbridge::model::dead_letter::header;
use bcbridge::model::record::{InRecord, OutRecord};
use bytes::Bytes;
use serde_json::{Value, json};
use tokio::io::AsyncReadExt as _;
use tokio::process::Command;

use crate::bridge_lab::{Lab, PATIENCE, Setup, json_of, read_topic, until};
use crate::schemas::assert_valid;

/// A bridge and a command line that reaches its broker.
struct Desk {
    lab: Lab,
    directory: tempfile::TempDir,
}

impl Desk {
    async fn open() -> Self {
        let lab =
            Lab::start(Setup { incoming: vec![json!({ "entity": "product" })], ..Setup::default() }).await;
        let directory = tempfile::tempdir().unwrap();
        let settings = json!({
            "kafka": { "bootstrap_servers": lab.client.bootstrap_servers(), "prefix": lab.prefix },
            "stores": [{
                "name": "main", "store_hash": "abc123", "access_token": "not-used", "client_secrets": ["not-used"],
            }],
        });
        std::fs::write(directory.path().join("bcbridge.yaml"), settings.to_string()).unwrap();
        Self { lab, directory }
    }

    fn call(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_bcbridge"));
        command
            .arg("dlq")
            .args(args)
            .arg("--config")
            .arg(self.directory.path().join("bcbridge.yaml"))
            .env("RUST_LOG", "error")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    /// What a call prints, which must end with this code.
    async fn text(&self, code: i32, args: &[&str]) -> String {
        let Output { status, stdout, stderr } =
            tokio::time::timeout(PATIENCE, self.call(args).output()).await.expect("it ends").unwrap();
        let (stdout, stderr) = (String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap());
        assert_eq!(status.code(), Some(code), "{args:?}: {stdout}{stderr}");
        format!("{stdout}{stderr}")
    }

    async fn json(&self, code: i32, args: &[&str]) -> Value {
        let text = self.text(code, &[args, &["--output", "json"]].concat()).await;
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    async fn letters(&self, count: usize) -> Vec<InRecord> {
        until(&format!("{count} dead letters"), || async {
            let letters = self.lab.records("dlq").await;
            (letters.len() >= count).then_some(letters)
        })
        .await
    }

    /// All results of a command, once there are so many.
    async fn outcomes(&self, id: &str, count: usize) -> Vec<String> {
        until(&format!("{count} results of {id}"), || async {
            let results: Vec<Value> = self.lab.records("results").await.iter().filter_map(json_of).collect();
            let own = results.iter().filter(|result| result["id"] == id);
            let outcomes: Vec<String> =
                own.map(|result| result["outcome"].as_str().unwrap().to_owned()).collect();
            (outcomes.len() >= count).then_some(outcomes)
        })
        .await
    }

    /// What the command line told of its acts.
    async fn notes(&self) -> Vec<Value> {
        let records = read_topic(&self.lab.client, &format!("{}.notifications", self.lab.prefix)).await;
        let all = records.iter().filter_map(json_of);
        all.filter(|told| told["detail"].as_str().is_some_and(|detail| detail.starts_with("dlq "))).collect()
    }
}

fn update(id: Option<&str>, product: u32, payload: Value) -> Value {
    let mut command = json!({
        "entity": "product", "action": "update", "path": { "product_id": product }, "payload": payload,
    });
    if let Some(id) = id {
        command["id"] = id.into();
    }
    command
}

fn replayed(records: &[InRecord]) -> Vec<&InRecord> {
    records.iter().filter(|record| record.header(header::LETTER).is_some()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rejected_command_is_applied_when_it_is_replayed_after_its_cause_is_gone() {
    let desk = Desk::open().await;
    let taken = desk.lab.control.state("product").unwrap()["7"]["sku"].clone();
    let product =
        json!({ "name": "canary-name", "sku": taken, "type": "physical", "weight": 1, "price": 1.50 });
    let create = json!({ "id": "c-1", "entity": "product", "action": "create", "payload": product });
    desk.lab.send(&[("new".to_owned(), create)]).await;
    desk.lab.send(&[("nameless".to_owned(), update(None, 9, json!({ "sku": taken })))]).await;
    let letters = desk.letters(2).await;
    let nameless = letters.iter().find(|l| l.key.as_deref() == Some(b"nameless")).unwrap();
    let place = |name| nameless.header(name).unwrap();
    let own_id = format!("{}/{}/{}", place(header::TOPIC), place(header::PARTITION), place(header::OFFSET));

    let listed = desk.json(0, &["list", "main", "--entity", "product"]).await;
    assert_eq!(listed.as_array().unwrap().len(), 2, "{listed}");
    let stats = desk.json(0, &["stats"]).await;
    assert_eq!((&stats[0]["letters"], &stats[0]["by"]["age"]["under an hour"]), (&json!(2), &json!(2)));
    for call in [&["list"][..], &["stats"], &["replay", "main", "--all", "--dry-run"]] {
        let text = desk.text(0, call).await;
        assert!(!text.contains("canary") && !text.is_empty(), "{call:?} prints what a letter holds: {text}");
    }
    let one = listed.as_array().unwrap().iter().find(|letter| letter["key"] == "new").unwrap();
    let one = format!("{}/{}", one["partition"], one["offset"]);
    let shown = desk.text(0, &["show", "main", &one]).await;
    assert!(shown.contains("canary-name") && shown.contains("response body"), "{shown}");
    let shown = desk.json(0, &["show", "main", &one]).await;
    assert!(shown["value"]["content"].as_str().unwrap().contains("1.5"), "{shown}");

    assert_eq!(replayed(&desk.lab.records("commands").await).len(), 0, "a dry run writes nothing");
    assert!(desk.notes().await.is_empty());
    // Nobody is asked, and nobody said yes.
    desk.json(3, &["replay", "main", "--all"]).await;
    assert!(desk.text(2, &["replay", "main"]).await.contains("--all"));

    let free = update(Some("free"), 7, json!({ "sku": "FREE-1" }));
    desk.lab.send(&[("free".to_owned(), free)]).await;
    desk.outcomes("free", 1).await;
    let ended = desk.json(0, &["replay", "main", "--offset", &one, "--yes"]).await;
    assert_eq!((&ended["replayed"], &ended["end"]), (&json!(1), &json!("to the end")), "{ended}");
    assert_eq!(desk.outcomes("c-1", 2).await, ["rejected", "applied"]);
    // The first product has the number again; a command without an id is still known by where it stood first.
    desk.json(0, &["replay", "main", "--key", "nameless", "--yes"]).await;
    assert_eq!(desk.outcomes(&own_id, 2).await, ["rejected", "rejected"]);
    let letters = desk.letters(3).await;
    let again = letters.iter().find(|letter| letter.header(header::REPLAY_COUNT) == Some("1")).unwrap();
    assert_eq!(again.header(header::ORIGIN), Some(own_id.as_str()));
    let all = again.headers.iter().map(|(n, v)| (n.clone(), Value::from(String::from_utf8_lossy(v))));
    assert_valid("dead-letter-headers", &Value::Object(all.collect()));

    // The two old ones went back already; the new one would be its second time.
    let guarded = desk.json(3, &["replay", "main", "--all", "--max-replays", "1", "--yes"]).await;
    assert_eq!(guarded["letters"], json!({ "done": 2, "too_often": 1 }), "{guarded}");
    let notes = desk.notes().await;
    let kinds: Vec<&str> = notes.iter().map(|note| note["type"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["accepted", "dlq.replayed", "accepted", "dlq.replayed"]);
    for note in &notes {
        assert_valid("notification", note);
        assert!(!note.to_string().contains("nameless"), "a key is a customer's: {note}");
    }
    desk.lab.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_command_does_not_overtake_a_newer_one_unless_it_is_forced_to() {
    let desk = Desk::open().await;
    let taken = desk.lab.control.state("product").unwrap()["7"]["sku"].clone();
    let key = || "product/9".to_owned();
    desk.lab.send(&[(key(), update(Some("old"), 9, json!({ "sku": taken })))]).await;
    desk.letters(1).await;
    desk.lab.send(&[(key(), update(Some("new"), 9, json!({ "sku": "NEW-1" })))]).await;
    desk.outcomes("new", 1).await;
    let refused = desk.json(3, &["replay", "main", "--all", "--yes"]).await;
    assert_eq!((&refused["replayed"], &refused["letters"]), (&json!(0), &json!({ "stale": 1 })));
    let text = desk.text(3, &["replay", "main", "--all", "--yes"]).await;
    assert!(text.contains("1 would overwrite a newer record of their key; see --force"), "{text}");
    assert_eq!(replayed(&desk.lab.records("commands").await).len(), 0);
    let forced = desk.json(0, &["replay", "main", "--all", "--yes", "--force"]).await;
    assert_eq!(forced["replayed"], 1);
    desk.outcomes("old", 2).await;
    desk.lab.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_interrupted_replay_goes_on_where_it_ended() {
    let desk = Desk::open().await;
    let bad: Vec<(String, Value)> = (0..40)
        .map(|n| (format!("k{}", n % 7), json!({ "id": format!("c-{n}"), "entity": "unicorn" })))
        .collect();
    desk.lab.send(&bad).await;
    desk.letters(40).await;
    let some = desk.json(3, &["replay", "main", "--reason", "bad_field", "--limit", "5", "--yes"]).await;
    assert_eq!((&some["replayed"], &some["letters"]), (&json!(5), &json!({ "done": 5, "replay": 35 })));

    let mut running =
        desk.call(&["replay", "main", "--until", "0s", "--max-replays", "1", "--rate", "10", "--yes"]);
    let mut running = running.spawn().unwrap();
    until("ten are back", || async {
        (replayed(&desk.lab.records("commands").await).len() >= 10).then_some(())
    })
    .await;
    let id = running.id().unwrap().to_string();
    assert!(std::process::Command::new("kill").args(["-INT", &id]).status().unwrap().success());
    let status = tokio::time::timeout(PATIENCE, running.wait()).await.unwrap().unwrap();
    let mut told = String::new();
    running.stderr.take().unwrap().read_to_string(&mut told).await.unwrap();
    assert_eq!(status.code(), Some(1), "{told}");
    assert!(told.contains("it goes on where it ended"), "{told}");
    assert!(desk.notes().await.last().unwrap()["detail"].as_str().unwrap().ends_with(": stopped"));

    // What failed again has been replayed once, and is left alone here.
    desk.json(3, &["replay", "main", "--all", "--max-replays", "1", "--rate", "1000", "--yes"]).await;
    let records = desk.lab.records("commands").await;
    let copies = replayed(&records);
    let mut letters: Vec<_> = copies.iter().map(|record| record.header(header::LETTER).unwrap()).collect();
    letters.sort_unstable();
    letters.dedup();
    assert_eq!((copies.len(), letters.len()), (40, 40), "each went back once");
    for key in 0..7 {
        let of_key = |records: &[&InRecord]| -> Vec<Option<Bytes>> {
            let key = format!("k{key}");
            let own = records.iter().filter(|record| record.key.as_deref() == Some(key.as_bytes()));
            own.map(|record| record.value.clone()).collect()
        };
        let sent: Vec<&InRecord> =
            records.iter().filter(|record| record.header(header::LETTER).is_none()).collect();
        assert_eq!(of_key(&copies), of_key(&sent), "in the order of the key");
    }
    desk.lab.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_callback_that_was_put_aside_is_judged_again() {
    let desk = Desk::open().await;
    // As an older version put it aside, which did not know the scope.
    let body = json!({ "scope": "store/product/updated", "created_at": 7, "data": { "id": 7 } });
    let text = |text: &str| Bytes::from(text.to_owned());
    let intake = desk.lab.topic("webhooks");
    let headers = [
        ("bc_event", "event-1"),
        (header::TOPIC, intake.as_str()),
        (header::PARTITION, "-1"),
        (header::OFFSET, "-1"),
        (header::REASON, "quarantined"),
        (header::ATTEMPTS, "0"),
        (header::REPLAY_COUNT, "0"),
    ];
    let letter = OutRecord {
        topic: desk.lab.topic("dlq").into(),
        partition: None,
        key: Some(text("event-1")),
        value: Some(text(&body.to_string())),
        headers: headers.iter().map(|(name, value)| ((*name).into(), text(value))).collect(),
        timestamp_ms: None,
    };
    let producer = IntakeProducer::new(desk.lab.client.clone(), Duration::from_secs(10)).unwrap();
    producer.append(vec![letter], PATIENCE).await.unwrap();
    let listed = desk.json(0, &["list", "main", "--reason", "quarantined"]).await;
    assert_eq!(listed[0]["scope"], "store/product/updated", "{listed}");
    let ended = desk.json(0, &["replay", "main", "--reason", "quarantined", "--yes"]).await;
    assert_eq!(ended["replayed"], 1);
    let published = until("the product", || async {
        let records = desk.lab.records("product").await;
        records
            .into_iter()
            .find(|record| record.header("bc_events").is_some_and(|events| events.contains("event-1")))
    })
    .await;
    assert_eq!(published.key.as_deref(), Some(&b"7"[..]));
    let again = desk.json(0, &["replay", "main", "--reason", "quarantined", "--yes"]).await;
    assert_eq!((&again["replayed"], &again["letters"]), (&json!(0), &json!({ "done": 1 })));
    desk.lab.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_purge_deletes_the_oldest_and_nothing_else() {
    let desk = Desk::open().await;
    let bad = |n: u32| (format!("k{n}"), json!({ "id": format!("c-{n}"), "entity": "unicorn" }));
    desk.lab.send(&[bad(0), bad(1), bad(2)]).await;
    let old = desk.letters(3).await;
    let newest = old.iter().filter_map(|letter| letter.timestamp_ms).max().unwrap();
    // Letters are dated by the bridge, which sees the next second only when it has come.
    until("the next second", || async {
        (jiff::Timestamp::now().as_millisecond() > newest + 1_000).then_some(())
    })
    .await;
    desk.lab.send(&[bad(3)]).await;
    desk.letters(4).await;
    let cut = jiff::Timestamp::from_millisecond(newest + 1).unwrap().to_string();

    let refused = desk.text(2, &["purge", "main", "--reason", "bad_field"]).await;
    assert!(refused.contains("--reason") && refused.contains("only from its beginning"), "{refused}");
    desk.text(2, &["purge", "main"]).await;
    let counted = desk.json(0, &["purge", "main", "--before", &cut, "--dry-run"]).await;
    assert_eq!(
        (&counted["letters"], &counted["deleted"], &counted["kept"]),
        (&json!(3), &json!(0), &json!(1))
    );
    desk.json(3, &["purge", "main", "--all"]).await;
    assert_eq!(desk.lab.records("dlq").await.len(), 4, "nothing was deleted so far");
    let done = desk.json(0, &["purge", "main", "--before", &cut, "--yes"]).await;
    assert_eq!((&done["deleted"], &done["kept"]), (&json!(3), &json!(1)));
    let left = desk.json(0, &["list", "main"]).await;
    let keys: Vec<&str> = left.as_array().unwrap().iter().map(|l| l["key"].as_str().unwrap()).collect();
    assert_eq!(keys, ["k3"]);
    desk.json(0, &["purge", "main", "--all", "--yes"]).await;
    assert_eq!(desk.json(0, &["list", "main"]).await, json!([]));
    let notes = desk.notes().await;
    let told: Vec<_> = notes.iter().map(|note| (note["type"].as_str().unwrap(), &note["rows"])).collect();
    let (none, one, three) = (json!(0), json!(1), json!(3));
    assert_eq!(
        told,
        [("accepted", &none), ("dlq.purged", &three), ("accepted", &none), ("dlq.purged", &one)]
    );
    notes.iter().for_each(|note| assert_valid("notification", note));
    desk.lab.stop().await;
}
