//! How every client is set up: where the brokers are, the user's librdkafka properties, our own on top, and
//! librdkafka's log lines through `tracing`.
//!
//! The user's properties never override those that correctness rests on: [`ClientSettings::new`] refuses them
//! by name. Values of properties are never logged and are in no error's text: some of them are passwords.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use rdkafka::ClientContext;
use rdkafka::config::{ClientConfig, FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

/// Properties that the bridge sets itself, and why a user's value would break a promise.
const RESERVED: &[(&str, &str)] = &[
    ("bootstrap.servers", "it is the setting kafka.bootstrap_servers"),
    ("metadata.broker.list", "it is the setting kafka.bootstrap_servers"),
    ("enable.idempotence", "without it retries reorder and double records"),
    ("acks", "an accepted callback must be on all in-sync replicas"),
    ("request.required.acks", "an accepted callback must be on all in-sync replicas"),
    ("max.in.flight", "idempotence allows 5 at most, which is the default"),
    ("max.in.flight.requests.per.connection", "idempotence allows 5 at most, which is the default"),
    ("message.timeout.ms", "it is tied to the transaction timeout and to the receiver's deadline"),
    ("delivery.timeout.ms", "it is tied to the transaction timeout and to the receiver's deadline"),
    ("transactional.id", "each partition has its own, so that its next owner fences the last one"),
    ("transaction.timeout.ms", "it bounds how long a crash can hold up readers"),
    ("isolation.level", "the bridge must not read records of aborted transactions"),
    ("enable.auto.commit", "offsets are committed with their results, in transactions"),
    ("auto.commit.enable", "offsets are committed with their results, in transactions"),
    ("auto.commit.interval.ms", "offsets are committed with their results, in transactions"),
    ("enable.auto.offset.store", "offsets are committed with their results, in transactions"),
    ("auto.offset.reset", "a lost offset must stop the bridge, not skip records"),
    ("enable.partition.eof", "the bridge decides where it needs it"),
    ("partitioner", "records of one key must share a partition with those of Java producers"),
    ("partitioner_cb", "records of one key must share a partition with those of Java producers"),
    ("group.id", "it follows from the store and the path"),
    ("group.protocol", "the bridge relies on the classic protocol"),
    ("partition.assignment.strategy", "the bridge relies on eager assignment"),
    ("plugin.library.paths", "the bridge loads no foreign code"),
];

/// A setting that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// No broker named.
    #[error("kafka.bootstrap_servers is empty; give host:port, several of them separated by commas")]
    NoBrokers,
    /// A property of ours.
    #[error("kafka.properties.{name} cannot be set: {why}; remove it")]
    Reserved {
        /// The property.
        name: String,
        /// Why.
        why: &'static str,
    },
    /// A property that librdkafka refuses.
    #[error("kafka.properties.{name} is refused by librdkafka: {why}")]
    Refused {
        /// The property.
        name: String,
        /// What librdkafka said, without the value.
        why: String,
    },
}

/// Where the brokers are and how to talk to them; checked when made.
#[derive(Clone, PartialEq, Eq)]
pub struct ClientSettings {
    bootstrap_servers: String,
    properties: BTreeMap<String, String>,
}

impl std::fmt::Debug for ClientSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<_> = self.properties.keys().collect();
        f.debug_struct("ClientSettings")
            .field("bootstrap_servers", &self.bootstrap_servers)
            .field("properties", &names)
            .finish()
    }
}

impl ClientSettings {
    /// Checks the names and values of all properties (librdkafka's, see its CONFIGURATION.md).
    ///
    /// # Errors
    /// All mistakes at once.
    pub fn new(
        bootstrap_servers: impl Into<String>,
        properties: BTreeMap<String, String>,
    ) -> Result<Self, Vec<SettingsError>> {
        let settings = Self { bootstrap_servers: bootstrap_servers.into(), properties };
        let mut errors = Vec::new();
        if settings.bootstrap_servers.trim().is_empty() {
            errors.push(SettingsError::NoBrokers);
        }
        for (name, value) in &settings.properties {
            errors.extend(check_property(name, value));
        }
        if errors.is_empty() { Ok(settings) } else { Err(errors) }
    }

    /// `host:port`, several of them separated by commas.
    pub fn bootstrap_servers(&self) -> &str {
        &self.bootstrap_servers
    }

    /// Our defaults, then the user's properties, then what must not be changed.
    pub(super) fn config(&self, role: &str, fixed: &[(&str, &str)]) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("client.id", format!("bcbridge-{role}"));
        for (name, value) in &self.properties {
            config.set(name, value);
        }
        config.set("bootstrap.servers", &self.bootstrap_servers);
        for (name, value) in fixed {
            config.set(*name, *value);
        }
        // Lines above `info` of librdkafka are for its own developers; `debug` is a property of its own.
        config.set_log_level(RDKafkaLogLevel::Info);
        config
    }

    /// Settings that every producer has (K1, K2).
    pub(super) fn producer(&self, role: &str, fixed: &[(&str, &str)]) -> ClientConfig {
        let mut config = self.config(role, fixed);
        config.set("enable.idempotence", "true").set("acks", "all").set("partitioner", "murmur2_random");
        // Callers wait for the answer, so waiting for company only adds to their time.
        if !self.properties.contains_key("linger.ms") {
            config.set("linger.ms", "0");
        }
        config
    }

    /// Settings that every consumer has (K3).
    pub(super) fn consumer(&self, role: &str, group: &str, fixed: &[(&str, &str)]) -> ClientConfig {
        let mut config = self.config(role, fixed);
        config.set("group.id", group).set("isolation.level", "read_committed");
        config.set("enable.auto.commit", "false").set("enable.auto.offset.store", "false");
        // Where to start is always told explicitly; what is left is an offset that is gone (K18).
        config.set("auto.offset.reset", "error");
        // Memory held by fetched but unread records; fetch.max.bytes may overshoot it once.
        config.set("queued.max.messages.kbytes", "16384").set("fetch.max.bytes", "16777216");
        // The built-in broker answers with everything it has, whatever the limits say.
        config.set("receive.message.max.bytes", "1000000000");
        config
    }
}

fn check_property(name: &str, value: &str) -> Option<SettingsError> {
    if let Some((_, why)) = RESERVED.iter().find(|(reserved, _)| *reserved == name) {
        return Some(SettingsError::Reserved { name: name.to_owned(), why });
    }
    let mut config = ClientConfig::new();
    config.set(name, value);
    match config.create_native_config() {
        Ok(_) => None,
        Err(error) => {
            Some(SettingsError::Refused { name: name.to_owned(), why: without_value(&error, value) })
        }
    }
}

/// librdkafka quotes the value it refuses.
fn without_value(error: &KafkaError, value: &str) -> String {
    let text = match error {
        KafkaError::ClientConfig(_, description, _, _) => description.clone(),
        other => other.to_string(),
    };
    if value.is_empty() { text } else { text.replace(value, "***") }
}

/// What a Kafka client could not do.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{attempt} failed: {cause}")]
pub struct ClientError {
    attempt: String,
    cause: String,
    transient: bool,
}

impl ClientError {
    /// `attempt` completes "… failed", such as "describing the topic orders".
    pub(super) fn new(attempt: impl Into<String>, cause: &KafkaError) -> Self {
        let transient = cause.rdkafka_error_code().is_some_and(is_transient);
        let cause = match cause {
            // Its text quotes the value, which may be a secret.
            KafkaError::ClientConfig(_, _, name, _) => format!("the property {name} is refused"),
            other => other.to_string(),
        };
        Self { attempt: attempt.into(), cause, transient }
    }

    pub(super) fn said(attempt: impl Into<String>, cause: impl Into<String>, transient: bool) -> Self {
        Self { attempt: attempt.into(), cause: cause.into(), transient }
    }

    /// Whether the same may succeed later without anybody changing anything.
    pub fn is_transient(&self) -> bool {
        self.transient
    }
}

/// Errors of brokers and connections that pass by themselves.
pub(super) fn is_transient(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode as C;
    matches!(
        code,
        C::BrokerTransportFailure
            | C::AllBrokersDown
            | C::Resolve
            | C::OperationTimedOut
            | C::MessageTimedOut
            | C::RequestTimedOut
            | C::TimedOutQueue
            | C::WaitingForCoordinator
            | C::CoordinatorLoadInProgress
            | C::CoordinatorNotAvailable
            | C::NotCoordinator
            | C::LeaderNotAvailable
            | C::NotLeaderForPartition
            | C::NotEnoughReplicas
            | C::NotEnoughReplicasAfterAppend
            | C::NetworkException
            | C::UnstableOffsetCommit
            | C::ConcurrentTransactions
            | C::QueueFull
    )
}

/// The part of every client that hears librdkafka's log lines and errors.
#[derive(Debug)]
pub(super) struct Ear {
    role: &'static str,
    /// How often a connection broke or a request timed out under the client.
    troubles: AtomicU64,
}

impl Ear {
    pub(super) fn new(role: &'static str) -> Self {
        Self { role, troubles: AtomicU64::new(0) }
    }

    /// Grows whenever a connection of this client breaks: whatever was under way may have been sent twice.
    pub(super) fn troubles(&self) -> u64 {
        self.troubles.load(Ordering::Relaxed)
    }

    pub(super) fn hear(&self, level: RDKafkaLogLevel, fac: &str, message: &str) {
        let role = self.role;
        match level {
            RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
                tracing::error!(target: "librdkafka", role, fac, "{message}");
            }
            // Properties for consumers given to a producer, and the other way round: one list serves both.
            _ if fac == "CONFWARN" => tracing::debug!(target: "librdkafka", role, fac, "{message}"),
            // It reconnects by itself; what then fails is reported where it was asked for.
            RDKafkaLogLevel::Error | RDKafkaLogLevel::Warning => {
                tracing::warn!(target: "librdkafka", role, fac, "{message}");
            }
            _ => tracing::debug!(target: "librdkafka", role, fac, "{message}"),
        }
    }

    pub(super) fn fail(&self, error: &KafkaError, reason: &str) {
        self.troubles.fetch_add(1, Ordering::Relaxed);
        tracing::debug!(target: "librdkafka", role = self.role, %error, reason, "the client reports an error");
    }
}

/// A client's context that only listens.
impl ClientContext for Ear {
    fn log(&self, level: RDKafkaLogLevel, fac: &str, message: &str) {
        self.hear(level, fac, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.fail(&error, reason);
    }

    fn stats_raw(&self, _statistics: &[u8]) {}
}

impl rdkafka::consumer::ConsumerContext for Ear {}

impl rdkafka::producer::ProducerContext for Ear {
    type DeliveryOpaque = ();

    /// The probe looks at what arrives, not at reports.
    fn delivery(&self, _result: &rdkafka::message::DeliveryResult<'_>, _opaque: ()) {}
}

/// Makes a client, hiding values of properties from the error.
pub(super) fn create<C, T>(what: &str, config: &ClientConfig, context: C) -> Result<T, ClientError>
where
    C: ClientContext,
    T: FromClientConfigAndContext<C>,
{
    config
        .create_with_context(context)
        .map_err(|error| ClientError::new(format!("creating the Kafka client for {what}"), &error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn properties(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn every_mistake_is_reported_at_once_and_no_value_is_quoted() {
        let wrong = properties(&[
            ("acks", "0"),
            ("security.protocol", "hunter2"),
            ("no.such.property", "hunter2"),
            ("sasl.password", "hunter2"),
        ]);
        let errors = ClientSettings::new(" ", wrong).unwrap_err();
        let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(texts.len(), 4, "{texts:?}");
        assert!(texts[0].contains("bootstrap_servers is empty"));
        assert!(texts[1].contains("kafka.properties.acks cannot be set: an accepted callback"));
        assert!(texts[2].contains("no.such.property is refused"), "{texts:?}");
        assert!(texts[3].contains("security.protocol is refused"), "{texts:?}");
        assert!(!texts.join(" ").contains("hunter2"), "{texts:?}");
    }

    #[test]
    fn what_correctness_rests_on_cannot_be_overridden() {
        for (name, _) in RESERVED {
            let errors = ClientSettings::new("localhost:9092", properties(&[(name, "1")])).unwrap_err();
            assert!(matches!(&errors[..], [SettingsError::Reserved { .. }]), "{name}: {errors:?}");
        }
    }

    #[test]
    fn the_users_properties_reach_every_client_below_ours() {
        let settings =
            ClientSettings::new("localhost:9092", properties(&[("client.id", "mine"), ("linger.ms", "7")]))
                .unwrap();
        let config = settings.producer("intake", &[("message.timeout.ms", "5000")]);
        assert_eq!(config.get("client.id"), Some("mine"));
        assert_eq!(config.get("acks"), Some("all"));
        assert_eq!(config.get("partitioner"), Some("murmur2_random"));
        assert_eq!(config.get("message.timeout.ms"), Some("5000"));
        let config = settings.consumer("incoming", "group", &[]);
        assert_eq!(config.get("isolation.level"), Some("read_committed"));
        assert_eq!(config.get("enable.auto.commit"), Some("false"));
    }

    #[test]
    fn the_debug_text_shows_no_values() {
        let settings =
            ClientSettings::new("localhost:9092", properties(&[("sasl.password", "hunter2")])).unwrap();
        assert!(!format!("{settings:?}").contains("hunter2"));
    }
}
