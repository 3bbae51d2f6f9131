//! Names and settings of the topics that the bridge uses.

use std::sync::Arc;
use std::time::Duration;

use crate::config::{Bootstrap, Fill, Settings, Template};
use crate::kafka::topics::TopicSpec;

const DAY: Duration = Duration::from_secs(24 * 3600);

/// Hints are kept for longer than any stop of hydration that the bridge promises to survive (48 h).
const INTAKE_RETENTION: Duration = DAY.saturating_mul(7);
/// Dead letters wait for a person.
const DEAD_LETTER_RETENTION: Duration = DAY.saturating_mul(30);

/// The topics of one store besides its entities'.
#[derive(Debug, Clone)]
pub struct StoreTopics {
    /// Hints.
    pub intake: Arc<str>,
    /// What could not be processed.
    pub dead_letters: Arc<str>,
    /// What is known to be published and applied.
    pub ledger: Arc<str>,
    /// Commands to the store.
    pub commands: Arc<str>,
    /// What became of them.
    pub results: Arc<str>,
}

impl StoreTopics {
    /// The topics of the store of this name.
    pub fn of(settings: &Settings, store: &str) -> Self {
        let names = &settings.kafka.topics.names;
        let fill = Fill { prefix: &settings.kafka.prefix, store, ..Fill::default() };
        let name = |template: &Template| -> Arc<str> { template.render(fill).into() };
        Self {
            intake: name(&names.webhooks),
            dead_letters: name(&names.dlq),
            ledger: name(&names.ledger),
            commands: name(&names.commands),
            results: name(&names.results),
        }
    }
}

/// The topic of an entity of a store.
pub fn entity_topic(settings: &Settings, store: &str, entity: &str, template: &Template) -> Arc<str> {
    template.render(Fill { prefix: &settings.kafka.prefix, store, entity, id: "" }).into()
}

/// Every topic that the settings ask for, each once.
pub fn specs(settings: &Settings) -> Vec<TopicSpec> {
    let mut specs: Vec<TopicSpec> = Vec::new();
    let mut add = |spec: TopicSpec| {
        if specs.iter().all(|known| known.name != spec.name) {
            specs.push(spec);
        }
    };
    for store in &settings.stores {
        let topics = StoreTopics::of(settings, &store.name);
        add(deleted(settings, &topics.intake, INTAKE_RETENTION));
        add(deleted(settings, &topics.dead_letters, DEAD_LETTER_RETENTION));
        add(deleted(settings, &topics.commands, INTAKE_RETENTION));
        add(deleted(settings, &topics.results, INTAKE_RETENTION));
        // Never deleted by age: what is known of an entity holds until it changes. Its readers remove what is outdated.
        add(spec(settings, &topics.ledger, &[("cleanup.policy", "compact")]));
        for entry in settings.incoming_of(&store.name) {
            let topic = entity_topic(settings, &store.name, &entry.entity, &entry.topic);
            add(spec(settings, &topic, &[("cleanup.policy", "compact")]));
        }
    }
    let fill = Fill { prefix: &settings.kafka.prefix, ..Fill::default() };
    for template in [&settings.kafka.topics.names.signals, &settings.kafka.topics.names.notifications] {
        // One partition: its owner is the leader, and progress is read in order.
        add(TopicSpec { partitions: 1, ..deleted(settings, &template.render(fill), INTAKE_RETENTION) });
    }
    specs
}

fn deleted(settings: &Settings, name: &str, retention: Duration) -> TopicSpec {
    let retention = retention.as_millis().to_string();
    spec(settings, name, &[("cleanup.policy", "delete"), ("retention.ms", &retention)])
}

fn spec(settings: &Settings, name: &str, config: &[(&str, &str)]) -> TopicSpec {
    let copies = i32::from(settings.kafka.topics.replication_factor);
    let mut config: Vec<(String, String)> =
        config.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    if copies >= 3 && settings.kafka.bootstrap != Bootstrap::Embedded {
        config.push(("min.insync.replicas".into(), "2".into()));
    }
    TopicSpec {
        name: name.to_owned(),
        partitions: i32::try_from(settings.kafka.topics.partitions).unwrap_or(i32::MAX),
        replication_factor: copies,
        config,
    }
}
