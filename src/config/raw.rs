//! The shape of the settings file, for its JSON Schema: every key with its meaning, unit, default and what happens
//! when it is wrong. Nothing is read into these types (the readers keep places and go on after mistakes); a test
//! holds the keys here against the keys that are read.
#![expect(dead_code, reason = "described, not constructed")]

use std::collections::BTreeMap;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

/// Settings of bcbridge, the bridge between BigCommerce and Kafka. Every text may hold `${NAME}`,
/// `${NAME:-default}` or `${NAME:?message}`; `$${` stands for a literal `${`.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields, title = "bcbridge settings")]
pub(super) struct Root {
    /// Where the brokers are and what topics are called.
    kafka: Option<Kafka>,
    /// The listener for callbacks.
    receiver: Option<Receiver>,
    /// The listener of the console, the metrics and the API.
    console: Option<Console>,
    /// Rows beside those of the built-in catalogue, or in their place.
    catalog: Option<Catalog>,
    /// The stores; one or more.
    #[schemars(length(min = 1))]
    stores: Vec<Store>,
    /// BigCommerce to Kafka, one entry per entity. Without it: products, variants, categories, stock, customers, orders,
    /// shipments and carts.
    incoming: Option<Vec<Incoming>>,
    /// Kafka to BigCommerce. Without it, the command topic of every store; `[]` for none.
    outgoing: Option<Vec<Outgoing>>,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct Catalog {
    /// Rows with the fields of the built-in ones: `name`, `doc`, `key`, `ids`, `read`, `list`, `scope`... A row of a
    /// known name takes that one's place, wholly.
    entities: Option<Vec<BTreeMap<String, serde_json::Value>>>,
    /// How many requests run `at_once` on the endpoints of `paths` with `methods` (none: all). They take the places of
    /// the built-in ones.
    caps: Option<Vec<BTreeMap<String, serde_json::Value>>>,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct Kafka {
    /// `host:port,host:port`, or `embedded` for the built-in broker. Default: embedded.
    bootstrap_servers: Option<String>,
    /// librdkafka properties, passed through. Those that the bridge's promises rest on are refused.
    properties: Option<BTreeMap<String, Scalar>>,
    /// A file of `name=value` lines with further properties, for passwords.
    properties_file: Option<String>,
    /// First part of every topic's name. Default: bigcommerce.
    prefix: Option<String>,
    /// Names and settings of topics.
    topics: Option<Topics>,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct Topics {
    /// Create what is missing. Default: true.
    create: Option<Flag>,
    /// Partitions of a created topic. Default: 6.
    partitions: Option<Whole>,
    /// Copies of a created topic. Default: 3, and 1 with the built-in broker.
    replication_factor: Option<Whole>,
    /// Names of topics, templates of `{prefix}`, `{store}` and, for `entity`, `{entity}`.
    names: Option<Names>,
    /// Key of entity records: a template of `{id}`, `{entity}` and `{store}`. Default: `{id}`.
    key: Option<String>,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct Names {
    /// Hints waiting to be read. Default: `{prefix}.{store}.webhooks`.
    webhooks: Option<String>,
    /// State of entities. Default: `{prefix}.{store}.{entity}`.
    entity: Option<String>,
    /// Dead letters. Default: `{prefix}.{store}.dlq`.
    dlq: Option<String>,
    /// What is published. Default: `{prefix}.{store}.ledger`.
    ledger: Option<String>,
    /// Commands to the store. Default: `{prefix}.{store}.commands`.
    commands: Option<String>,
    /// Results of commands. Default: `{prefix}.{store}.results`.
    results: Option<String>,
    /// Control of the bridge. Default: `{prefix}.signals`.
    signals: Option<String>,
    /// Progress of the bridge. Default: `{prefix}.notifications`.
    notifications: Option<String>,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct Receiver {
    /// Address and port. Default: 0.0.0.0:8080.
    listen: Option<String>,
    /// What BigCommerce calls; callbacks go to `<public_url>/webhooks/<store>`. https. Without it hooks cannot be made.
    public_url: Option<String>,
    /// Oldest signed timestamp that is accepted. Default: 72h.
    past_window: Option<Time>,
    /// Open connections in all. Default: 1024.
    max_connections: Option<Whole>,
    /// Open connections from one address. Default: 64.
    max_connections_per_peer: Option<Whole>,
    /// Address blocks of proxies in front: no limit per peer counts for them. Default: none.
    trusted_proxies: Option<Vec<String>>,
    /// Where callbacks wait when Kafka cannot take them.
    spool: Option<Spool>,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct Spool {
    /// Directory. Default: bcbridge-data/spool.
    dir: Option<String>,
    /// Size at which callbacks are refused, such as 512MiB. Default: 10GiB.
    max_bytes: Option<Scalar>,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct Console {
    /// Address and port. Default: 127.0.0.1:8081. Another machine's address needs a token.
    listen: Option<String>,
    /// Bearer token; empty means none.
    token: Option<String>,
    /// File that holds the token.
    token_file: Option<String>,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct Store {
    /// Used in topic names and in the callback's path. Default: the store hash.
    name: Option<String>,
    /// The part of API paths after /stores/.
    store_hash: Scalar,
    /// Token of an API account. This or access_token_file.
    access_token: Option<String>,
    /// File that holds the token.
    access_token_file: Option<String>,
    /// Origin of the API; https, http only for this machine. Default: <https://api.bigcommerce.com>.
    base_uri: Option<String>,
    /// Secrets that callbacks may be signed with; several while rotating.
    client_secrets: Option<Vec<Scalar>>,
    /// File with one secret per line.
    client_secrets_file: Option<String>,
    /// required, if-present or off. Default: required.
    signature: Option<Signature>,
    /// Headers set on the hook and asked of every callback, each with a value or a list of values: the first is set, any
    /// is taken. To change a value without refusing a callback: add the new one at the end of the list in every
    /// replica, then move it to the front, and drop the old one two days later, when the last retry has come. One with
    /// an empty value is not used.
    webhook_headers: Option<BTreeMap<String, Parameter>>,
    /// File with one `name: value` per line; a name may have several lines.
    webhook_headers_file: Option<String>,
    /// Share of the API's rate limit that the bridge leaves alone.
    budget: Option<Budget>,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct Budget {
    /// 0% to 95%. Default: 20%.
    reserve: Option<String>,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "kebab-case")]
pub(super) enum Signature {
    Required,
    IfPresent,
    Off,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct Incoming {
    /// A name or alias of the catalogue; see `bcbridge catalog entities`.
    entity: String,
    /// The store this entry is for. Default: all that have no own entry for the entity.
    store: Option<String>,
    /// Webhook scopes; `*` stands for any text, `[]` for no webhook. Default: all scopes of the entity.
    scopes: Option<Vec<String>>,
    /// Sub-resources read along; `[]` for none. Default: those that the entity's row marks, see `bcbridge catalog show`.
    include: Option<Vec<String>>,
    /// Query parameters of the read; a list is joined with commas.
    query: Option<BTreeMap<String, Parameter>>,
    /// Ids in the path of the list that polls, sweeps and snapshots read; else those of all parents are looked up.
    path: Option<BTreeMap<String, Parameter>>,
    /// jq: changes the request parameters before the read. Default: `.`.
    parameters: Option<String>,
    /// jq: false or null means not published. Default: everything is published.
    filter: Option<String>,
    /// jq: changes the entity before it is published. Default: `.`.
    transform: Option<String>,
    /// Scheduled reads: an interval, or a map. Default: none.
    poll: Option<PollOrTime>,
    /// Scheduled repairs of what callbacks missed: an interval, or a map. Default: none.
    sweep: Option<SweepOrTime>,
    /// How long hints about one entity are gathered. Default: 250ms.
    quiet: Option<Time>,
    /// How long a hint waits at most. Default: 2s.
    max_wait: Option<Time>,
    /// How long after a first 404 the second read follows. Default: 60s.
    confirm_gone: Option<Time>,
    /// Settle callbacks that change nothing without a record. Default: false.
    suppress_unchanged: Option<Flag>,
    /// Settle changes that the bridge itself made without a record. Default: false.
    suppress_echo: Option<Flag>,
    /// How long after a callback an entity without a date of change is read once more; `off`: never. Default: 60s.
    second_read: Option<TimeOrOff>,
    /// Shape of the record. Default: cloudevents.
    format: Option<Format>,
    /// Topic template. Default: kafka.topics.names.entity.
    topic: Option<String>,
    /// Key template. Default: kafka.topics.key.
    key: Option<String>,
    /// Examples of filter and transform for `bcbridge test`.
    tests: Option<Vec<EntityTest>>,
}

#[derive(JsonSchema)]
#[schemars(untagged)]
#[expect(dead_code, reason = "only its schema is of use")]
pub(super) enum PollOrTime {
    Time(Time),
    Poll(Poll),
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct Poll {
    /// Interval, from 1s to 7d.
    every: Time,
    /// The first poll runs at the start. Default: true.
    at_start: Option<Flag>,
    /// Interval of polls that read everything, where others ask for what changed, from 1s to 7d. Default: 24h.
    full: Option<Time>,
}

#[derive(JsonSchema)]
#[schemars(untagged)]
#[expect(dead_code, reason = "only its schema is of use")]
pub(super) enum SweepOrTime {
    Time(Time),
    Sweep(Sweep),
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct Sweep {
    /// Interval, from 1s to 7d.
    every: Time,
    /// Interval of comparisons of all ids, where that takes many calls, from 1s to 7d. Default: 24h.
    full: Option<Time>,
}

#[derive(JsonSchema)]
pub(super) enum Format {
    #[schemars(rename = "cloudevents")]
    CloudEvents,
    #[schemars(rename = "cloudevents-structured")]
    CloudEventsStructured,
    #[schemars(rename = "envelope")]
    Envelope,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct Outgoing {
    /// The topic that is read.
    topic: String,
    /// The store that is written to. Needed unless there is one store or the topic is a store's command topic.
    store: Option<String>,
    /// With `action`: every record is for this entity. Without: records are whole commands.
    entity: Option<String>,
    /// create, update, upsert, delete, or a named action of the entity.
    action: Option<String>,
    /// jq: false or null means no command. It sees the value as `.` (null for a tombstone), and `$key`, `$headers`,
    /// `$timestamp` (milliseconds since the epoch), `$topic`, `$partition` and `$offset`.
    filter: Option<String>,
    /// jq: makes a command, or its `{path, query, payload}`, of the record; it sees what `filter` sees. Default: `.`.
    transform: Option<String>,
    /// jq: makes the path's ids, an object. Instead of `transform`; null leaves the part out.
    path: Option<String>,
    /// jq: makes the query parameters, an object.
    query: Option<String>,
    /// jq: makes the payload.
    payload: Option<String>,
    /// skip: the key goes on after a dead letter; halt-key: it waits. Default: skip.
    on_failure: Option<OnFailure>,
    /// The share of dead letters among the last 200 commands at which the route stops and waits for a person, or off.
    /// Default: 50%.
    stop_at: Option<String>,
    /// Check and plan, answer with what would be sent, send nothing. Default: false.
    dry_run: Option<Flag>,
    /// Examples for `bcbridge test`.
    tests: Option<Vec<Test>>,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "kebab-case")]
pub(super) enum OnFailure {
    Skip,
    HaltKey,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct Test {
    /// Shown in the report.
    name: Option<String>,
    /// A record's value; null is a tombstone.
    #[schemars(rename = "in")]
    input: serde_json::Value,
    /// The record's key: a text as it is, anything else as its JSON. Default: none.
    key: Option<serde_json::Value>,
    /// The record's headers.
    headers: Option<BTreeMap<String, Scalar>>,
    /// The record's time: milliseconds since the epoch, or a date. Default: none.
    timestamp: Option<Scalar>,
    /// What is made of it, and is a command that the catalogue knows. One of `out`, `error` and `filtered`.
    #[schemars(rename = "out")]
    expected: Option<serde_json::Value>,
    /// It is refused: the reason's name, or a part of its message.
    error: Option<String>,
    /// The filter leaves it out.
    filtered: Option<bool>,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct EntityTest {
    /// Shown in the report.
    name: Option<String>,
    /// An entity's JSON.
    #[schemars(rename = "in")]
    input: serde_json::Value,
    /// What is published. One of `out`, `error` and `filtered`.
    #[schemars(rename = "out")]
    expected: Option<serde_json::Value>,
    /// The expression fails: a part of its message.
    error: Option<String>,
    /// The filter leaves it out.
    filtered: Option<bool>,
}

/// A text, number or boolean, taken as it is spelled.
pub(super) struct Scalar;
/// A scalar or a list of them.
pub(super) struct Parameter;
/// A whole number, or a variable that holds one.
pub(super) struct Whole;
/// True or false, or a variable that holds one.
pub(super) struct Flag;
/// A time with its unit.
pub(super) struct Time;
/// A time, or `off`.
pub(super) struct TimeOrOff;

macro_rules! inline_schema {
    ($type:ident, $schema:tt) => {
        impl JsonSchema for $type {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($type).into()
            }
            fn inline_schema() -> bool {
                true
            }
            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!($schema)
            }
        }
    };
}

inline_schema!(Scalar, { "type": ["string", "number", "boolean"] });
inline_schema!(Parameter, {
    "type": ["string", "number", "boolean", "array"],
    "items": { "type": ["string", "number", "boolean"] }
});
inline_schema!(Whole, { "anyOf": [{ "type": "integer", "minimum": 1 }, { "type": "string", "pattern": "^([0-9]+|.*\\$\\{.+\\}.*)$" }] });
inline_schema!(Flag, { "anyOf": [{ "type": "boolean" }, { "type": "string", "pattern": "^(true|false|.*\\$\\{.+\\}.*)$" }] });
inline_schema!(Time, { "type": "string", "pattern": "^([0-9]+(ms|s|m|h|d)|.*\\$\\{.+\\}.*)$" });
inline_schema!(TimeOrOff, { "type": "string", "pattern": "^(off|[0-9]+(ms|s|m|h|d)|.*\\$\\{.+\\}.*)$" });

/// The JSON Schema (draft 2020-12) of the settings file.
#[must_use]
pub fn schema() -> serde_json::Value {
    let settings = schemars::generate::SchemaSettings::draft2020_12();
    let mut value = settings.into_generator().into_root_schema_for::<Root>().to_value();
    value["$id"] = "urn:bcbridge:schema:config:1".into();
    value["examples"] = serde_json::json!([{
        "kafka": { "bootstrap_servers": "${KAFKA_BOOTSTRAP_SERVERS:-embedded}" },
        "receiver": { "public_url": "https://bridge.example.com" },
        "stores": [{
            "name": "main",
            "store_hash": "${BIGCOMMERCE_STORE_HASH}",
            "access_token": "${BIGCOMMERCE_ACCESS_TOKEN}",
            "client_secrets": ["${BIGCOMMERCE_CLIENT_SECRET}"]
        }],
        "incoming": [{ "entity": "order", "scopes": ["store/order/*"], "filter": ".status != \"Incomplete\"" }],
        "outgoing": [{ "topic": "bigcommerce.main.commands" }]
    }]);
    value
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::{catalog, examples, incoming, kafka, load, outgoing, receiver, stores};
    use super::*;

    #[test]
    fn the_keys_described_are_the_keys_read() {
        let schema = schema();
        let check = |part: &serde_json::Value, keys: &[&str]| {
            let described: BTreeSet<&str> =
                part["properties"].as_object().unwrap().keys().map(String::as_str).collect();
            assert_eq!(described, keys.iter().copied().collect::<BTreeSet<_>>());
        };
        check(&schema, load::KEYS);
        let read = [
            ("Catalog", catalog::KEYS),
            ("Kafka", kafka::KEYS),
            ("Topics", kafka::TOPIC_KEYS),
            ("Names", kafka::NAME_KEYS),
            ("Receiver", receiver::KEYS),
            ("Spool", receiver::SPOOL_KEYS),
            ("Console", receiver::CONSOLE_KEYS),
            ("Store", stores::KEYS),
            ("Budget", stores::BUDGET_KEYS),
            ("Incoming", incoming::KEYS),
            ("Poll", incoming::POLL_KEYS),
            ("Sweep", incoming::SWEEP_KEYS),
            ("Outgoing", outgoing::KEYS),
            ("Test", examples::KEYS),
            ("EntityTest", examples::INCOMING_KEYS),
        ];
        for (name, keys) in read {
            check(&schema["$defs"][name], keys);
        }
    }
}
