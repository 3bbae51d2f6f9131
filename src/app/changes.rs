//! What a reload would change: which stores, and what cannot be changed while running. Compares, and decides nothing.
//!
//! Settings are compared by their `Debug` text, which shows every field but secrets, and those one by one. So a field
//! that is added later is compared without anybody's thinking of it. A new section, or a new field of a store, does
//! not compile here until somebody decides what its change means.

use std::collections::BTreeMap;
use std::fmt::Debug;

use secrecy::{ExposeSecret, SecretString};

use super::load::Load;
use crate::config::{
    ConsoleSettings, KafkaSettings, MistakeRow, OutgoingSettings, ReceiverSettings, Settings, StoreSettings,
    TopicSettings,
};

/// What becomes of each store, by name, in the order of the settings.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Changes {
    /// New ones.
    pub(super) added: Vec<String>,
    /// Those that are configured no more.
    pub(super) removed: Vec<String>,
    /// Those whose paths are built anew.
    pub(super) restarted: Vec<String>,
    /// Those that only get other secrets; their paths go on.
    pub(super) refreshed: Vec<String>,
    /// All others.
    pub(super) unchanged: Vec<String>,
}

impl Changes {
    /// Compares two loads.
    pub(super) fn between(old: &Load, new: &Load) -> Self {
        let is_other_catalog = !same(&old.catalog.entities(), &new.catalog.entities());
        let mut changes = Self::default();
        for store in &new.settings.stores {
            let list = match old.settings.store(&store.name) {
                None => &mut changes.added,
                Some(_) if is_other_catalog => &mut changes.restarted,
                Some(before) if has_other_paths((&old.settings, before), (&new.settings, store)) => {
                    &mut changes.restarted
                }
                Some(before) if has_other_secrets(before, store) => &mut changes.refreshed,
                Some(_) => &mut changes.unchanged,
            };
            list.push(store.name.clone());
        }
        let gone = old.settings.stores.iter().filter(|store| new.settings.store(&store.name).is_none());
        changes.removed = gone.map(|store| store.name.clone()).collect();
        changes
    }
}

/// Whether the store's paths were built from something else.
fn has_other_paths(
    (old, before): (&Settings, &StoreSettings),
    (new, after): (&Settings, &StoreSettings),
) -> bool {
    fn outgoing<'a>(settings: &'a Settings, store: &str) -> Vec<&'a OutgoingSettings> {
        settings.outgoing.iter().filter(|entry| entry.store == store).collect()
    }
    needs_another_client(before, after)
        || !same(
            &old.incoming_of(&before.name).collect::<Vec<_>>(),
            &new.incoming_of(&after.name).collect::<Vec<_>>(),
        )
        || !same(&outgoing(old, &before.name), &outgoing(new, &after.name))
}

/// Whether a store's client cannot go on: all but its token.
pub(super) fn needs_another_client(before: &StoreSettings, after: &StoreSettings) -> bool {
    let of_client = |store: &StoreSettings| (store.store_hash.clone(), store.base_uri.clone(), store.budget);
    of_client(before) != of_client(after)
}

/// Whether what callbacks and requests prove themselves with is another.
fn has_other_secrets(before: &StoreSettings, after: &StoreSettings) -> bool {
    let StoreSettings {
        name: _,
        store_hash: _,
        base_uri: _,
        budget: _,
        access_token,
        client_secrets,
        signature,
        webhook_headers,
    } = before;
    !same_secret(access_token, &after.access_token)
        || *signature != after.signature
        || client_secrets.len() != after.client_secrets.len()
        || !client_secrets.iter().zip(&after.client_secrets).all(|(a, b)| same_secret(a, b))
        || !same_headers(webhook_headers, &after.webhook_headers)
}

/// Whether two maps hold the same secrets under the same names.
fn same_secrets(a: &BTreeMap<String, SecretString>, b: &BTreeMap<String, SecretString>) -> bool {
    a.len() == b.len()
        && a.iter().all(|(name, value)| b.get(name).is_some_and(|other| same_secret(value, other)))
}

/// Whether two sets of webhook headers take the same values, the same one first.
pub(super) fn same_headers(
    a: &BTreeMap<String, Vec<SecretString>>,
    b: &BTreeMap<String, Vec<SecretString>>,
) -> bool {
    let same_values = |a: &[SecretString], b: &[SecretString]| {
        a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same_secret(a, b))
    };
    a.len() == b.len()
        && a.iter().all(|(name, values)| b.get(name).is_some_and(|others| same_values(values, others)))
}

/// Whether two secrets are the same.
pub(super) fn same_secret(a: &SecretString, b: &SecretString) -> bool {
    a.expose_secret() == b.expose_secret()
}

fn same(a: &impl Debug, b: &impl Debug) -> bool {
    format!("{a:?}") == format!("{b:?}")
}

/// What differs and cannot while the process runs, as mistakes.
pub(super) fn fixed(old: &Settings, new: &Settings) -> Vec<MistakeRow> {
    // Stores and what flows between them and Kafka can be changed; warnings are no settings.
    let Settings { kafka, receiver, console, stores: _, incoming: _, outgoing: _, warnings: _, catalog: _ } =
        old;
    let mut keys = of_kafka(kafka, &new.kafka);
    keys.extend(of_receiver(receiver, &new.receiver));
    let ConsoleSettings { listen, token: _ } = console;
    let token = |token: &Option<SecretString>| token.as_ref().map(|t| t.expose_secret().to_owned());
    keys.push(("console.listen", *listen == new.console.listen));
    keys.push(("console.token", token(&console.token) == token(&new.console.token)));
    let row = |(key, _): (&str, bool)| MistakeRow {
        file: String::new(),
        line: 0,
        column: 0,
        message: format!("`{key}` cannot be changed while the bridge runs"),
        allowed: "the value that it was started with".to_owned(),
        help: "restart the bridge to change it, or put the earlier value back and reload".to_owned(),
    };
    keys.into_iter().filter(|(_, is_same)| !is_same).map(row).collect()
}

type Compared = Vec<(&'static str, bool)>;

fn of_kafka(old: &KafkaSettings, new: &KafkaSettings) -> Compared {
    let KafkaSettings { bootstrap, properties, prefix, topics } = old;
    let TopicSettings { create, partitions, replication_factor, names, key: _ } = topics;
    // The common key is in every entry of `incoming` that has none of its own, and compared there.
    vec![
        ("kafka.bootstrap_servers", *bootstrap == new.bootstrap),
        ("kafka.properties", same_secrets(properties, &new.properties)),
        ("kafka.prefix", *prefix == new.prefix),
        ("kafka.topics.create", *create == new.topics.create),
        ("kafka.topics.partitions", *partitions == new.topics.partitions),
        ("kafka.topics.replication_factor", *replication_factor == new.topics.replication_factor),
        ("kafka.topics.names", same(names, &new.topics.names)),
    ]
}

fn of_receiver(old: &ReceiverSettings, new: &ReceiverSettings) -> Compared {
    // Hooks follow the public address by themselves.
    let ReceiverSettings {
        listen,
        public_url: _,
        past_window,
        max_connections,
        max_connections_per_peer,
        trusted_proxies,
        spool,
    } = old;
    vec![
        ("receiver.listen", *listen == new.listen),
        ("receiver.past_window", *past_window == new.past_window),
        ("receiver.max_connections", *max_connections == new.max_connections),
        ("receiver.max_connections_per_peer", *max_connections_per_peer == new.max_connections_per_peer),
        ("receiver.trusted_proxies", *trusted_proxies == new.trusted_proxies),
        ("receiver.spool", *spool == new.spool),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};
    use std::sync::Arc;

    fn text() -> Value {
        let store = |name: &str| {
            json!({
                "name": name, "store_hash": format!("hash{name}"), "access_token": "t", "client_secrets": ["s"],
                "webhook_headers": { "x-bridge-key": "one" },
            })
        };
        json!({
            "kafka": { "bootstrap_servers": "kafka:9092", "properties": { "client.id": "x" } },
            "console": { "token": "0123456789abcdef0123456789" },
            "stores": [store("a"), store("b")],
            "incoming": [{ "entity": "order" }, { "entity": "product", "store": "b" }],
            "outgoing": [{ "topic": "commands.a", "store": "a" }, { "topic": "commands.b", "store": "b" }],
        })
    }

    fn load(text: &Value) -> Load {
        let catalog = crate::catalog::Catalog::embedded().unwrap();
        let settings = crate::config::load_str("test", &text.to_string(), &|_| None, &catalog);
        Load::new(Arc::new(settings.unwrap_or_else(|e| panic!("{e}")))).unwrap()
    }

    fn set(text: &mut Value, pointer: &str, value: Value) {
        let (parent, name) = pointer.rsplit_once('/').unwrap();
        match text.pointer_mut(parent).unwrap() {
            Value::Array(items) => items[name.parse::<usize>().unwrap()] = value,
            parent => parent[name] = value,
        }
    }

    /// What an edit does: added, removed, restarted, refreshed, unchanged.
    #[track_caller]
    fn check(pointer: &str, value: Value, expected: [&[&str]; 5]) {
        let (old, mut new) = (text(), text());
        set(&mut new, pointer, value);
        let (old, new) = (load(&old), load(&new));
        assert!(fixed(&old.settings, &new.settings).is_empty());
        let Changes { added, removed, restarted, refreshed, unchanged } = Changes::between(&old, &new);
        assert_eq!([added, removed, restarted, refreshed, unchanged], expected, "{pointer}");
    }

    #[test]
    fn each_change_touches_the_stores_that_it_concerns() {
        check("/stores/0/name", json!("a"), [&[], &[], &[], &[], &["a", "b"]]);
        for (key, value) in [
            ("access_token", json!("other")),
            ("client_secrets", json!(["s", "next"])),
            ("webhook_headers", json!({ "x-bridge-key": "two" })),
            ("webhook_headers", json!({})),
        ] {
            check(&format!("/stores/0/{key}"), value, [&[], &[], &[], &["a"], &["b"]]);
        }
        check("/stores/1/store_hash", json!("other"), [&[], &[], &["b"], &[], &["a"]]);
        check("/incoming/0", json!({ "entity": "order", "filter": ".x" }), [&[], &[], &["a", "b"], &[], &[]]);
        check("/incoming/1/query", json!({ "limit": "5" }), [&[], &[], &["b"], &[], &["a"]]);
        check("/outgoing/0/transform", json!(".y"), [&[], &[], &["a"], &[], &["b"]]);
    }

    #[test]
    fn stores_come_and_go() {
        let (old, mut new) = (load(&text()), text());
        new["stores"][1]["name"] = json!("c");
        new["incoming"][1]["store"] = json!("c");
        new["outgoing"][1]["store"] = json!("c");
        let changes = Changes::between(&old, &load(&new));
        assert_eq!((changes.added, changes.removed), (vec!["c".to_owned()], vec!["b".to_owned()]));
        assert_eq!(changes.unchanged, ["a"]);
    }

    #[test]
    fn what_needs_a_restart_is_named() {
        for (pointer, value, key) in [
            ("/kafka/bootstrap_servers", json!("other:9092"), "kafka.bootstrap_servers"),
            ("/kafka/properties", json!({ "client.id": "y" }), "kafka.properties"),
            ("/kafka/prefix", json!("other"), "kafka.prefix"),
            ("/kafka/topics", json!({ "partitions": 99 }), "kafka.topics.partitions"),
            ("/receiver", json!({ "listen": "127.0.0.1:9999" }), "receiver.listen"),
            ("/console/token", json!("fedcba9876543210fedcba9876"), "console.token"),
        ] {
            let mut new = text();
            set(&mut new, pointer, value);
            let rows = fixed(&load(&text()).settings, &load(&new).settings);
            assert_eq!(rows.len(), 1, "{pointer}: {rows:?}");
            assert!(rows[0].message.contains(&format!("`{key}`")), "{rows:?}");
        }
        let mut new = text();
        new["receiver"] = json!({ "public_url": "https://bridge.example.com" });
        assert!(fixed(&load(&text()).settings, &load(&new).settings).is_empty(), "hooks follow it");
    }
}
