//! `kafka:`: where the brokers are and what topics are called.

use std::collections::BTreeMap;

use secrecy::SecretString;

use super::defaults;
use super::mistake::{Mistake, is_secret_key};
use super::section::{Reading, Section};
use super::settings::{Bootstrap, KafkaSettings, TopicNames, TopicSettings};
use super::template::{Hole, Template};
use super::tree::{Node, Place, Value};
use super::values;

pub(super) const KEYS: &[&str] = &["bootstrap_servers", "properties", "properties_file", "prefix", "topics"];
pub(super) const TOPIC_KEYS: &[&str] = &["create", "partitions", "replication_factor", "names", "key"];
pub(super) const NAME_KEYS: &[&str] =
    &["webhooks", "entity", "dlq", "ledger", "commands", "results", "signals", "notifications"];

/// More partitions than any cluster takes for one topic; above it is a slip of the finger.
const MAX_PARTITIONS: u64 = 10_000;
/// More copies than brokers of all but the largest clusters.
const MAX_REPLICATION: u64 = 15;

/// Properties that the bridge's promises rest on; passing another value through would break them unseen.
const RESERVED: &[(&str, &str)] = &[
    ("bootstrap.servers", "set `kafka.bootstrap_servers` instead"),
    ("metadata.broker.list", "set `kafka.bootstrap_servers` instead"),
    ("enable.idempotence", "the bridge always writes idempotently"),
    ("acks", "the bridge always waits for all replicas"),
    ("request.required.acks", "the bridge always waits for all replicas"),
    ("enable.auto.commit", "the bridge commits what is finished, and nothing else"),
    ("enable.auto.offset.store", "the bridge commits what is finished, and nothing else"),
    ("isolation.level", "the bridge reads committed records only"),
    ("partitioner", "keys must keep their partition: murmur2_random"),
    ("transactional.id", "the bridge names its own transactions"),
    ("group.id", "the bridge names its own consumer groups"),
];

pub(super) fn read(cx: &mut Reading<'_>, root: &Section<'_>) -> KafkaSettings {
    let nothing = Node { at: Place::default(), value: Value::Null };
    let node = root.get("kafka").unwrap_or(&nothing);
    let section = Section::open(cx, node, "kafka", KEYS);
    let bootstrap = section.parsed(cx, "bootstrap_servers", "`embedded`, or host:port,host:port", bootstrap);
    let bootstrap = bootstrap.unwrap_or(Bootstrap::Embedded);
    let prefix = section.parsed(cx, "prefix", "letters, digits, `.`, `_` and `-`, at most 64", values::name);
    KafkaSettings {
        properties: properties(cx, &section),
        prefix: prefix.unwrap_or_else(|| defaults::PREFIX.to_owned()),
        topics: topics(cx, &section, &bootstrap),
        bootstrap,
    }
}

fn bootstrap(text: &str) -> Option<Bootstrap> {
    if text == "embedded" {
        return Some(Bootstrap::Embedded);
    }
    let good = |server: &str| {
        let address = server.rsplit_once("://").map_or(server, |(_, rest)| rest);
        let (host, port) = address.rsplit_once(':').unwrap_or((address, "9092"));
        !host.is_empty() && !host.contains([' ', '/', '@']) && port.parse::<u16>().is_ok_and(|port| port > 0)
    };
    text.split(',').all(|server| good(server.trim())).then(|| Bootstrap::Servers(text.to_owned()))
}

fn properties(cx: &mut Reading<'_>, section: &Section<'_>) -> BTreeMap<String, SecretString> {
    let mut properties = BTreeMap::new();
    if let Some(path) = section.text(cx, "properties_file") {
        let text = section.secret_file(cx, "properties_file", &path).unwrap_or_default();
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
            if let Some((name, value)) = line.split_once('=') {
                properties.insert(name.trim().to_owned(), SecretString::from(value.trim()));
            }
        }
    }
    for (key, value, node) in section.pairs(cx, "properties") {
        if let Some((_, why)) = RESERVED.iter().find(|(name, _)| *name == key.name) {
            let message = format!("`{}` cannot be set", key.name);
            cx.wrong(Mistake::new(&key.at, message, "any other librdkafka property").help(*why));
        } else if value.is_empty() && is_secret_key(&key.name) {
            let message = format!("`kafka.properties.{}` is empty", key.name);
            cx.wrong(Mistake::new(&node.at, message, "a secret that is not empty"));
        }
        properties.insert(key.name.clone(), SecretString::from(value));
    }
    properties
}

fn topics(cx: &mut Reading<'_>, kafka: &Section<'_>, bootstrap: &Bootstrap) -> TopicSettings {
    let nothing = Node { at: Place::default(), value: Value::Null };
    let node = kafka.get("topics").unwrap_or(&nothing);
    let section = Section::open(cx, node, "kafka.topics", TOPIC_KEYS);
    let replication = match bootstrap {
        Bootstrap::Embedded => defaults::REPLICATION_FACTOR_EMBEDDED,
        Bootstrap::Servers(_) => defaults::REPLICATION_FACTOR,
    };
    let partitions = section.whole(cx, "partitions", 1..=MAX_PARTITIONS).and_then(|n| u32::try_from(n).ok());
    let copies =
        section.whole(cx, "replication_factor", 1..=MAX_REPLICATION).and_then(|n| u16::try_from(n).ok());
    let copies = match bootstrap {
        // One process cannot hold two copies; asking for three, as the full example does, is no reason to stop.
        Bootstrap::Embedded => copies.map(|_| defaults::REPLICATION_FACTOR_EMBEDDED),
        Bootstrap::Servers(_) => copies,
    };
    TopicSettings {
        create: section.flag(cx, "create").unwrap_or(defaults::CREATE_TOPICS),
        partitions: partitions.unwrap_or(defaults::PARTITIONS),
        replication_factor: copies.unwrap_or(replication),
        names: names(cx, &section),
        key: key_template(cx, &section).unwrap_or_else(|| default(defaults::KEY)),
    }
}

fn names(cx: &mut Reading<'_>, topics: &Section<'_>) -> TopicNames {
    let nothing = Node { at: Place::default(), value: Value::Null };
    let node = topics.get("names").unwrap_or(&nothing);
    let section = Section::open(cx, node, "kafka.topics.names", NAME_KEYS);
    let mut name = |key: &str, holes: &[Hole], text: &str| {
        template(cx, &section, key, holes).unwrap_or_else(|| default(text))
    };
    let of_store = [Hole::Prefix, Hole::Store];
    TopicNames {
        webhooks: name("webhooks", &of_store, defaults::TOPIC_WEBHOOKS),
        entity: name("entity", &[Hole::Prefix, Hole::Store, Hole::Entity], defaults::TOPIC_ENTITY),
        dlq: name("dlq", &of_store, defaults::TOPIC_DLQ),
        ledger: name("ledger", &of_store, defaults::TOPIC_LEDGER),
        commands: name("commands", &of_store, defaults::TOPIC_COMMANDS),
        results: name("results", &of_store, defaults::TOPIC_RESULTS),
        signals: name("signals", &[Hole::Prefix], defaults::TOPIC_SIGNALS),
        notifications: name("notifications", &[Hole::Prefix], defaults::TOPIC_NOTIFICATIONS),
    }
}

/// A template of the program's own.
pub(super) fn default(text: &str) -> Template {
    Template::parse(text, &Hole::ALL).expect("a default template parses: a test reads all of them")
}

/// A template from the file, in which `holes` may appear.
pub(super) fn template(
    cx: &mut Reading<'_>,
    section: &Section<'_>,
    key: &str,
    holes: &[Hole],
) -> Option<Template> {
    let text = section.text(cx, key)?;
    let node = section.get(key)?;
    let words: Vec<String> = holes.iter().map(|hole| format!("{{{}}}", hole.name())).collect();
    let allowed = format!("a text with {}", words.join(", "));
    match Template::parse(&text, holes) {
        Ok(template) => Some(template),
        Err(error) => {
            let message = format!("`{}` is no template: {error}", section.path_of(key));
            cx.wrong(
                Mistake::new(&node.at, message, allowed).help("name only what is allowed between braces"),
            );
            None
        }
    }
}

/// The template of a record's key: without the id, all of an entity's records would replace each other.
pub(super) fn key_template(cx: &mut Reading<'_>, section: &Section<'_>) -> Option<Template> {
    let template = template(cx, section, "key", &[Hole::Store, Hole::Entity, Hole::Id])?;
    if !template.has(Hole::Id) {
        let node = section.get("key")?;
        let message = format!("`{}` has no {{id}}", section.path_of("key"));
        let mistake = Mistake::new(&node.at, message, "a template with {id}, such as {entity}:{id}");
        cx.wrong(mistake.help("records with equal keys replace each other on a compacted topic"));
    }
    Some(template)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_template_parses() {
        for text in [
            defaults::TOPIC_WEBHOOKS,
            defaults::TOPIC_ENTITY,
            defaults::TOPIC_DLQ,
            defaults::TOPIC_LEDGER,
            defaults::TOPIC_COMMANDS,
            defaults::TOPIC_RESULTS,
            defaults::TOPIC_SIGNALS,
            defaults::TOPIC_NOTIFICATIONS,
            defaults::KEY,
        ] {
            assert_eq!(default(text).to_string(), text);
        }
    }

    #[test]
    fn servers_have_a_host_and_a_port() {
        let servers = |text: &str| Some(Bootstrap::Servers(text.to_owned()));
        for good in ["kafka:9092", "a:1,b:2", "kafka", "SASL_SSL://a:9093", "[::1]:9092"] {
            assert_eq!(bootstrap(good), servers(good));
        }
        for bad in ["", "a:9092,", ":9092", "a:0", "a:99999", "http://a/b:9"] {
            assert_eq!(bootstrap(bad), None, "{bad}");
        }
        assert_eq!(bootstrap("embedded"), Some(Bootstrap::Embedded));
    }
}
