//! Settings files, loaded whole: what is accepted, what is refused, and that neither tells a secret.

use std::time::Duration;

use bcbridge::config::OnFailure;
use bcbridge::config::{
    self, Bootstrap, CommandParts, EntityNames, Expected, RecordFormat, Route, Settings, SignaturePolicy,
};
use proptest::prelude::*;
use secrecy::ExposeSecret;

/// A catalogue of four entities.
pub(crate) struct Names;

impl EntityNames for Names {
    fn resolve(&self, name: &str) -> Option<String> {
        let name = if name == "orders" { "order" } else { name };
        self.all().into_iter().find(|known| known == name)
    }
    fn all(&self) -> Vec<String> {
        ["order", "product", "coupon", "inventory_adjustment"].map(str::to_owned).to_vec()
    }
    fn scopes(&self, entity: &str) -> Vec<String> {
        match entity {
            "order" | "product" => {
                ["created", "updated", "deleted"].map(|what| format!("store/{entity}/{what}")).to_vec()
            }
            _ => Vec::new(),
        }
    }
    fn includes(&self, entity: &str) -> Vec<String> {
        let all: &[&str] = if entity == "order" { &["products", "shipping_addresses"] } else { &[] };
        all.iter().map(|name| (*name).to_owned()).collect()
    }
    fn actions(&self, entity: &str) -> Vec<String> {
        let all: &[&str] = match entity {
            "inventory_adjustment" => &["absolute", "relative"],
            "product" => &["create", "update", "upsert", "delete"],
            _ => &[],
        };
        all.iter().map(|name| (*name).to_owned()).collect()
    }
    fn command_parts(&self, entity: &str, action: &str) -> Option<CommandParts> {
        let ids = match (entity, action) {
            ("product", "update" | "delete") => vec!["product_id".to_owned()],
            _ => Vec::new(),
        };
        Some(CommandParts { ids, payload: action != "delete" })
    }
}

/// What cannot be a command is a mistake of the settings, with its place, and not of each record.
#[test]
fn an_expression_that_cannot_make_a_command_is_refused() {
    let entry = |rest: &str| small(SECRETS, &format!("outgoing:\n  - topic: t\n    {rest}\n"));
    let product = "entity: product\n    action:";
    for (rest, says) in [
        (format!("{product} delete\n    transform: '{{path: {{product_id: .id}}'"), "expected"),
        (format!("{product} delete\n    filter: '$keys == 1'"), "undefined variable $keys (line 1, column 1"),
        (format!("{product} delete\n    transform: '{{pth: {{product_id: .id}}}}'"), "did you mean `path`?"),
        (format!("{product} delete\n    transform: '{{query: {{}}}}'"), "makes no `path`"),
        (
            format!("{product} delete\n    transform: '{{path: {{id: .id}}}}'"),
            "makes the id \"id\" of `path`",
        ),
        (
            format!("{product} delete\n    transform: '{{path: {{}}}}'"),
            "makes a `path` without \"product_id\"",
        ),
        (
            format!("{product} delete\n    transform: '{{path: {{product_id: 1}}, payload: .}}'"),
            "makes a `payload`",
        ),
        (format!("{product} update\n    transform: '{{path: {{product_id: 1}}}}'"), "makes no `payload`"),
        (format!("{product} update\n    transform: '[.]'"), "makes no object"),
        (format!("{product} update\n    payload: '.'"), "makes no `path`"),
        (
            format!("{product} update\n    path: '{{product_ids: 1}}'\n    payload: '.'"),
            "did you mean `product_id`?",
        ),
        (
            format!("{product} update\n    path: '.p'\n    payload: '.'\n    transform: '.'"),
            "both `transform` and `path`",
        ),
        ("payload: '.'".to_owned(), "`entity` is missing"),
        ("transform: '{entity: \"product\"}'".to_owned(), "makes no `action`"),
        (format!("{product} create\n    tests: [{{ in: 1 }}]"), "`out` is missing"),
        (
            format!("{product} create\n    tests: [{{ in: 1, out: 1, error: bad_id }}]"),
            "expects out and error",
        ),
        (format!("{product} create\n    tests: [{{ in: 1, out: 1, timestamp: soon }}]"), "milliseconds"),
    ] {
        let errors = load(&entry(&rest)).unwrap_err();
        assert!(errors.contains(says), "{rest}: {errors}");
    }
    for rest in [
        format!("{product} update\n    transform: '{{path: {{product_id: $key}}, payload: .}}'"),
        format!("{product} update\n    transform: 'if .x then {{a: 1}} else . end'"),
        format!("{product} delete\n    path: '{{product_id: $headers.id}}'"),
        "transform: '{entity: .e, action: .a, id: .i, if_unmodified_since: .d}'".to_owned(),
    ] {
        load(&entry(&rest)).unwrap();
    }
}

pub(crate) fn env(name: &str) -> Option<String> {
    let value = match name {
        "BIGCOMMERCE_STORE_HASH" => "abc123",
        "BIGCOMMERCE_ACCESS_TOKEN" => "canary-token",
        "BIGCOMMERCE_CLIENT_SECRET" => "canary-secret",
        "RESERVE" => "canary-reserve",
        "N" => "12",
        "YES" => "false",
        _ => return None,
    };
    Some(value.to_owned())
}

fn load(text: &str) -> Result<Settings, String> {
    config::load_str("bcbridge.yaml", text, &env, &Names).map_err(|error| error.to_string())
}

/// The smallest file that loads, with `extra` lines of the store and `rest` at the end.
fn small(extra: &str, rest: &str) -> String {
    format!("stores:\n  - store_hash: abc\n    access_token: ${{BIGCOMMERCE_ACCESS_TOKEN}}\n{extra}{rest}")
}

const SECRETS: &str = "    client_secrets: [\"${BIGCOMMERCE_CLIENT_SECRET}\"]\n";

fn refused(text: &str, part: &str) {
    match load(text) {
        Ok(_) => panic!("accepted:\n{text}"),
        Err(error) => assert!(error.contains(part), "expected {part:?} in:\n{error}"),
    }
}

/// The names of [`Names`] are the test's own; the shipped catalogue must know those of the example too.
#[test]
fn the_complete_example_loads_with_the_shipped_catalogue() {
    let text = include_str!("../fixtures/config/complete.yaml");
    let catalog = bcbridge::catalog::Catalog::embedded().unwrap();
    let settings = config::load_str("bcbridge.yaml", text, &env, &catalog).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(settings.incoming.len(), 3);
    assert!(config::load_str("none.yaml", "", &env, &catalog).is_err(), "an empty file has no store");
    let text = small(SECRETS, "");
    let settings = config::load_str("small.yaml", &text, &env, &catalog).unwrap_or_else(|e| panic!("{e}"));
    assert!(settings.incoming.iter().all(|entry| entry.entity != "coupon"), "nothing announces a coupon");
}

#[test]
fn the_complete_example_loads() {
    let settings = load(include_str!("../fixtures/config/complete.yaml")).unwrap();
    assert_eq!(settings.kafka.bootstrap, Bootstrap::Embedded);
    assert_eq!(settings.kafka.topics.replication_factor, 1);
    let store = &settings.stores[0];
    assert_eq!((store.name.as_str(), store.store_hash.as_str()), ("main", "abc123"));
    assert_eq!(store.access_token.expose_secret(), "canary-token");
    assert_eq!(store.client_secrets.len(), 1);
    assert!(store.webhook_headers.is_empty());
    assert_eq!((store.signature, store.budget.reserve), (SignaturePolicy::Required, 0.2));
    assert!(settings.console.token.is_none());
    let order = &settings.incoming[0];
    assert_eq!(order.scopes, ["store/order/created", "store/order/updated", "store/order/deleted"]);
    assert_eq!(order.include, ["products", "shipping_addresses"]);
    assert_eq!(order.query["include"], "consignments.line_items");
    assert!(order.filter.is_some() && order.transform.is_identity() && order.parameters.is_identity());
    assert_eq!((order.quiet, order.max_wait), (Duration::from_millis(250), Duration::from_secs(2)));
    assert_eq!(order.format, RecordFormat::CloudEvents);
    let poll = settings.incoming[1].poll.unwrap();
    assert_eq!(
        (poll.every, poll.at_start, poll.full),
        (Duration::from_secs(900), true, Duration::from_secs(86_400))
    );
    assert_eq!(settings.outgoing[0].route, Route::Commands);
    assert_eq!(settings.outgoing[0].store, "main");
    let test = &settings.outgoing[1].tests[0];
    assert_eq!(Expected::Out(settings.outgoing[1].transform.run(&test.input).unwrap()), test.expected);
    let sweep = settings.incoming.iter().find_map(|entry| entry.sweep).unwrap();
    assert_eq!((sweep.every, sweep.full), (Duration::from_secs(3_600), Duration::from_secs(86_400)));
    assert!(
        settings.warnings.iter().all(|warning| !warning.contains("not active")),
        "{:?}",
        settings.warnings
    );
}

#[test]
fn defaults_fill_a_small_file() {
    let text = small(SECRETS, "kafka: { bootstrap_servers: \"k:9092\" }\n");
    let settings = load(&text).unwrap();
    assert_eq!(settings.kafka.topics.replication_factor, 3);
    assert_eq!((settings.kafka.topics.partitions, settings.kafka.prefix.as_str()), (6, "bigcommerce"));
    assert_eq!(settings.stores[0].name, "abc");
    assert_eq!(settings.receiver.past_window, Duration::from_secs(72 * 3600));
    assert_eq!(settings.receiver.max_connections_per_peer, 64);
    let entities: Vec<&str> = settings.incoming.iter().map(|entry| entry.entity.as_str()).collect();
    assert_eq!(entities, ["order", "product"]);
    assert_eq!(settings.outgoing[0].topic, "bigcommerce.abc.commands");
    assert_eq!(settings.incoming[0].confirm_gone, Duration::from_secs(60));
}

#[test]
fn every_mistake_is_reported_at_its_place_and_no_secret_is_told() {
    let text = include_str!("../fixtures/config/mistakes.yaml");
    let errors = config::load_str("bcbridge.yaml", text, &env, &Names).unwrap_err();
    let shown = errors.to_string();
    let rows = errors.rows();
    let places: Vec<String> =
        rows.iter().map(|row| format!("{}:{} {}", row.line, row.column, row.message)).collect();
    insta::assert_snapshot!("config_mistakes", shown);
    insta::assert_snapshot!("config_mistakes_places", places.join("\n"));
    let json = serde_json::to_string(&rows).unwrap();
    for canary in
        ["canary-one", "canary-two", "canary-three", "canary-four", "canary-reserve", "canary-token"]
    {
        assert!(
            !shown.contains(canary) && !json.contains(canary) && !format!("{errors:?}").contains(canary),
            "{canary}"
        );
    }
    assert!(rows.len() >= 16);
}

#[test]
fn what_this_release_ignores_is_told() {
    let rest = "receiver: { spool: { dir: x } }\nincoming: [{ entity: order }]\n";
    let warnings = load(&small(SECRETS, rest)).unwrap().warnings;
    assert!(warnings.iter().any(|warning| warning.contains("receiver.spool:")), "{warnings:?}");
}

#[test]
fn a_route_says_what_follows_a_failure() {
    let with = |keys: &str| {
        let rest = format!("incoming: [{{ entity: order }}]\noutgoing: [{{ topic: t{keys} }}]\n");
        load(&small(SECRETS, &rest))
    };
    let entry = |keys: &str| with(keys).unwrap().outgoing[0].clone();
    assert_eq!((entry("").on_failure, entry("").stop_at), (OnFailure::Skip, Some(50)));
    let strict = entry(", on_failure: halt-key, stop_at: 5%");
    assert_eq!((strict.on_failure, strict.stop_at), (OnFailure::HaltKey, Some(5)));
    assert_eq!(entry(", stop_at: off").stop_at, None);
    for wrong in ["0%", "0.5%", "101%", "50", "never"] {
        let error = with(&format!(", stop_at: {wrong}")).unwrap_err().to_string();
        assert!(error.contains("a share from 1% to 100%, or off"), "{wrong}: {error}");
    }
}

#[test]
fn commands_are_not_read_from_a_topic_that_the_bridge_writes() {
    let outgoing =
        |topic: &str| format!("outgoing: [{{ topic: {topic}, entity: product, action: upsert }}]\n");
    for topic in ["abc.results", "abc.dlq", "abc.webhooks", "abc.ledger", "signals"] {
        let text = small(SECRETS, &outgoing(&format!("bigcommerce.{topic}")));
        refused(&text, "which the bridge itself writes");
    }
    load(&small(SECRETS, &outgoing("erp.products"))).unwrap();
}

#[test]
fn a_header_that_every_callback_has_is_no_second_factor() {
    for name in ["Host", "webhook-id"] {
        refused(
            &small(&format!("{SECRETS}    webhook_headers: {{ {name}: abc }}\n"), ""),
            "no second factor",
        );
    }
}

fn values(secrets: &[secrecy::SecretString]) -> Vec<&str> {
    secrets.iter().map(ExposeSecret::expose_secret).collect()
}

#[test]
fn a_header_takes_several_values_while_it_is_rotated() {
    let with = |value: &str| small(&format!("{SECRETS}    webhook_headers: {{ X-Key: {value} }}\n"), "");
    for (written, expected) in
        [("new", vec!["new"]), ("[new, old]", vec!["new", "old"]), ("['', old]", vec!["old"])]
    {
        let settings = load(&with(written)).unwrap();
        assert_eq!(values(&settings.stores[0].webhook_headers["x-key"]), expected, "{written}");
    }
    assert!(load(&with("['']")).unwrap().stores[0].webhook_headers.is_empty());
    refused(&with("[1, 2, 3, 4, 5, 6, 7, 8, 9]"), "has more than 8 values");
    refused(&with("{ a: b }"), "a text or a list of texts");
}

#[test]
fn a_secret_behind_an_anchor_is_masked_where_it_is_written() {
    let text = "shared: &t canary-anchor\nstores:\n  - store_hash: abc\n    access_token: *t\n    client_secrets: [*t]\n";
    let error = load(text).unwrap_err();
    assert!(error.contains("unknown key `shared`") && !error.contains("canary"), "{error}");
}

#[test]
fn debug_of_settings_tells_no_secret() {
    let settings = load(include_str!("../fixtures/config/complete.yaml")).unwrap();
    let shown = format!("{settings:?}");
    assert!(!shown.contains("canary"), "{shown}");
}

#[test]
fn broken_yaml_is_one_mistake_without_secrets() {
    let text = "stores:\n  - access_token: canary-x\n    client_secrets: [canary-y\nkafka: {";
    let error = load(text).unwrap_err();
    assert!(error.contains("not YAML") && !error.contains("canary"), "{error}");
}

#[test]
fn variables_work_where_numbers_and_booleans_are_expected() {
    let rest = "kafka: { topics: { partitions: \"${N}\", create: ${YES} } }\n";
    let settings = load(&small(SECRETS, rest)).unwrap();
    assert_eq!((settings.kafka.topics.partitions, settings.kafka.topics.create), (12, false));
}

#[test]
fn an_unset_variable_is_named_with_its_line_and_alone() {
    let text = small("    client_secrets: [\"${NOT_SET}\"]\n", "");
    let errors = config::load_str("f", &text, &env, &Names).unwrap_err();
    let rows = errors.rows();
    assert_eq!(rows.len(), 1, "{errors}");
    assert_eq!((rows[0].line, rows[0].message.as_str()), (4, "variable NOT_SET is not set"));
}

#[test]
fn a_store_without_a_secret_is_refused_unless_signatures_are_off_loudly() {
    refused(&small("", ""), "has no client secret");
    refused(&small("    client_secrets: [\"\"]\n", ""), "an empty client secret");
    refused(&small("    signature: if-present\n", ""), "has no client secret");
    let settings = load(&small("    signature: off\n", "")).unwrap();
    assert_eq!(settings.stores[0].signature, SignaturePolicy::Off);
    assert!(settings.warnings.iter().any(|warning| warning.contains("signature is off")));
}

#[test]
fn secrets_come_from_files_beside_the_settings() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("token"), "t0ken\n").unwrap();
    std::fs::write(dir.path().join("secrets"), "one\n\ntwo\n").unwrap();
    std::fs::write(dir.path().join("headers"), "X-Key: k\nx-key: older\n").unwrap();
    std::fs::write(dir.path().join("empty"), "\n").unwrap();
    let file = dir.path().join("bcbridge.yaml");
    let text = "stores:\n  - store_hash: abc\n    access_token_file: token\n    client_secrets_file: secrets\n    webhook_headers_file: headers\n";
    std::fs::write(&file, text).unwrap();
    let settings = config::load(&file, &env, &Names).unwrap();
    let store = &settings.stores[0];
    assert_eq!(store.access_token.expose_secret(), "t0ken");
    assert_eq!(store.client_secrets.iter().map(|s| s.expose_secret()).collect::<Vec<_>>(), ["one", "two"]);
    assert_eq!(values(&store.webhook_headers["x-key"]), ["k", "older"]);
    for bad in ["missing", "empty"] {
        std::fs::write(&file, text.replace("token_file: token", &format!("token_file: {bad}"))).unwrap();
        let error = config::load(&file, &env, &Names).unwrap_err().to_string();
        assert!(error.contains("access_token_file"), "{error}");
    }
    std::fs::write(&file, format!("{text}    access_token: x\n")).unwrap();
    let error = config::load(&file, &env, &Names).unwrap_err().to_string();
    assert!(error.contains("both `access_token` and `access_token_file`"), "{error}");
}

#[test]
fn topics_that_mix_entities_or_stores_are_refused() {
    let two = "  - store_hash: xyz\n    access_token: ${BIGCOMMERCE_ACCESS_TOKEN}\n    client_secrets: [\"${BIGCOMMERCE_CLIENT_SECRET}\"]\n";
    let with =
        |topics: &str, stores: &str| small(SECRETS, &format!("{stores}kafka: {{ topics: {topics} }}\n"));
    refused(&with("{ names: { entity: \"{prefix}.all\" } }", ""), "{entity}");
    load(&with("{ names: { entity: \"{prefix}.all\" }, key: \"{entity}:{id}\" }", "")).unwrap();
    refused(&with("{ names: { entity: \"{prefix}.{entity}\" } }", two), "{store}");
    load(&with("{ names: { entity: \"{prefix}.{entity}\" }, key: \"{store}:{id}\" }", two)).unwrap();
    refused(&with("{ names: { webhooks: \"{prefix}.in\" } }", two), "would hold");
    refused(&with("{ names: { dlq: \"{prefix}.{store}.order\" } }", ""), "would hold");
    refused(&with("{ names: { dlq: \"{prefix} {store}\" } }", ""), "no name of a topic");
    refused(&with("{ key: \"{store}\" }", ""), "{id}");
}

#[test]
fn the_api_is_reached_by_https_or_on_this_machine() {
    let at = |uri: &str| small(&format!("    base_uri: {uri}\n{SECRETS}"), "");
    load(&at("http://127.0.0.1:4010")).unwrap();
    for bad in
        ["http://10.0.0.1", "https://user:pw@example.com", "https://example.com/stores", "file:///etc/passwd"]
    {
        refused(&at(bad), "base_uri");
    }
}

#[test]
fn aliases_are_resolved_and_entities_given_once() {
    let settings = load(&small(SECRETS, "incoming: [{entity: orders}]\n")).unwrap();
    assert_eq!(settings.incoming[0].entity, "order");
    refused(&small(SECRETS, "incoming: [{entity: orders}, {entity: order}]\n"), "given twice");
    load(&small(SECRETS, "incoming: [{entity: order, store: abc}, {entity: order}]\n")).unwrap();
    refused(&small(SECRETS, "incoming: [{entity: order, store: abd}]\n"), "did you mean `abc`?");
}

#[test]
fn a_settings_file_is_looked_for_where_it_is_named() {
    let none = |_: &str| None;
    let named = |name: &str| (name == "BCBRIDGE_CONFIG").then(|| "/x/y.yaml".to_owned());
    let explicit = std::path::Path::new("/a.yaml");
    assert_eq!(config::find(Some(explicit), &named).unwrap(), config::Source::File("/a.yaml".into()));
    assert_eq!(config::find(None, &named).unwrap(), config::Source::File("/x/y.yaml".into()));
    assert!(config::find(None, &none).unwrap_err().to_string().contains("--config"));
    assert_eq!(config::find(None, &env).unwrap(), config::Source::Environment);
    let settings = config::load_source(&config::Source::Environment, &env, &Names).unwrap();
    assert_eq!(settings.stores[0].store_hash, "abc123");
    let gone = config::load(std::path::Path::new("/nowhere/x.yaml"), &env, &Names).unwrap_err();
    assert!(gone.to_string().contains("/nowhere/x.yaml"), "{gone}");
}

proptest! {
    #[test]
    fn a_variable_never_becomes_a_key_and_never_changes_its_neighbours(value in "\\PC*|[\\n:{}\\[\\]#'\" a-z-]{0,40}") {
        let env = |name: &str| (name == "TRICK").then(|| value.clone());
        for (open, close) in [("", ""), ("\"", "\""), ("'", "'")] {
            let text = format!(
                "stores:\n  - store_hash: abc\n    access_token: x{open}\n    client_secrets: [y]\n    webhook_headers: {{ a: {open}${{TRICK}}{close} }}\nincoming: [ {{ entity: order, query: {{ q: {open}${{TRICK}}{close}, r: s }} }} ]\n"
            ).replace(&format!("access_token: x{open}"), "access_token: x");
            match config::load_str("f", &text, &env, &Names) {
                Ok(settings) => {
                    prop_assert_eq!(&settings.incoming[0].query["q"], &value);
                    prop_assert_eq!(settings.incoming[0].query.len(), 2);
                    prop_assert_eq!(settings.stores.len(), 1);
                }
                // A header cannot carry every text: that, and nothing else, may be refused.
                Err(error) => {
                    let rows = error.rows();
                    prop_assert!(rows.iter().all(|row| row.message.contains("header")), "{}", error);
                }
            }
        }
    }

    #[test]
    fn no_text_makes_the_loader_panic(text in "([a-z_]{0,12}(: |:\\n  |\\n|- |\\$\\{[A-Z]*\\}|[\\[\\]{}'\"#,|>&*]|\\t| )){0,30}") {
        let _ = load(&text);
    }
}
