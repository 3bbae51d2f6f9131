//! Topics: creates those that are missing, and says which promises the settings of existing ones cannot keep.
//!
//! Existing topics are never changed. Everything here runs at the start and in `validate --online`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::{Offset, TopicPartitionList};

use super::settings::{ClientError, ClientSettings, Ear, create};

/// One administrative request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a new topic may take until all of its partitions have leaders, as this client sees it.
const APPEAR_TIMEOUT: Duration = Duration::from_secs(20);
/// Between looks at the metadata.
const APPEAR_PAUSE: Duration = Duration::from_millis(50);

/// A topic as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicSpec {
    /// The name.
    pub name: String,
    /// How many partitions.
    pub partitions: i32,
    /// How many copies.
    pub replication_factor: i32,
    /// Topic settings such as `cleanup.policy`, by name.
    pub config: Vec<(String, String)>,
}

/// A topic as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicState {
    /// The name.
    pub name: String,
    /// How many partitions.
    pub partitions: i32,
    /// Whether it was made just now.
    pub created: bool,
}

/// A topic's settings, as far as promises rest on them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicDescription {
    /// The name.
    pub name: String,
    /// How many partitions.
    pub partitions: i32,
    /// The copies of the partition that has the fewest.
    pub replication_factor: i32,
    /// All settings that the broker tells, by name.
    pub config: BTreeMap<String, String>,
}

/// The administrative client.
pub struct Topics(Arc<AdminClient<Ear>>);

impl std::fmt::Debug for Topics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Topics")
    }
}

impl Topics {
    /// Connects in the background.
    ///
    /// # Errors
    /// When librdkafka refuses the settings.
    pub fn new(client: &ClientSettings) -> Result<Self, ClientError> {
        let config = client.config("admin", &[]);
        Ok(Self(Arc::new(create("topics", &config, Ear::new("admin"))?)))
    }

    /// Creates the topics that are missing and waits until each can be written. Existing ones are left alone.
    ///
    /// # Errors
    /// When the broker refuses (a missing permission, more replicas than brokers) or does not answer in time.
    pub async fn ensure(&self, specs: &[TopicSpec]) -> Result<Vec<TopicState>, ClientError> {
        let present = self.partitions().await?;
        let missing: Vec<&TopicSpec> =
            specs.iter().filter(|spec| !present.contains_key(&spec.name)).collect();
        if !missing.is_empty() {
            self.create(&missing).await?;
        }
        let until = Instant::now() + APPEAR_TIMEOUT;
        loop {
            let now = self.partitions().await?;
            let states: Option<Vec<TopicState>> = specs
                .iter()
                .map(|spec| {
                    let (partitions, _) = *now.get(&spec.name)?;
                    let created = missing.iter().any(|m| m.name == spec.name);
                    Some(TopicState { name: spec.name.clone(), partitions, created })
                })
                .collect();
            if let Some(states) = states {
                return Ok(states);
            }
            if Instant::now() > until {
                let cause = format!("not all of them had leaders after {APPEAR_TIMEOUT:?}");
                return Err(ClientError::said("waiting for new topics", cause, true));
            }
            tokio::time::sleep(APPEAR_PAUSE).await;
        }
    }

    async fn create(&self, missing: &[&TopicSpec]) -> Result<(), ClientError> {
        let topics: Vec<NewTopic<'_>> = missing
            .iter()
            .map(|spec| {
                let replication = TopicReplication::Fixed(spec.replication_factor);
                let topic = NewTopic::new(&spec.name, spec.partitions, replication);
                spec.config.iter().fold(topic, |topic, (name, value)| topic.set(name, value))
            })
            .collect();
        let results = self.0.create_topics(&topics, &options()).await;
        for result in results.map_err(|error| ClientError::new("creating topics", &error))? {
            match result {
                // Another replica of the bridge was quicker.
                Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
                Err((name, code)) => {
                    let transient = super::settings::is_transient(code);
                    return Err(ClientError::said(
                        format!("creating the topic {name}"),
                        code.to_string(),
                        transient,
                    ));
                }
            }
        }
        Ok(())
    }

    /// Deletes topics; those that are not there are fine.
    ///
    /// # Errors
    /// When the broker refuses or does not answer.
    pub async fn delete(&self, names: &[&str]) -> Result<(), ClientError> {
        let results = self.0.delete_topics(names, &options()).await;
        for result in results.map_err(|error| ClientError::new("deleting topics", &error))? {
            match result {
                Ok(_)
                | Err((_, RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic)) => {}
                Err((name, code)) => {
                    return Err(ClientError::said(
                        format!("deleting the topic {name}"),
                        code.to_string(),
                        false,
                    ));
                }
            }
        }
        Ok(())
    }

    /// Deletes the records of a topic's partitions below the given offsets. Nobody can bring them back.
    ///
    /// # Errors
    /// When the broker refuses (a missing permission, a compacted topic) or does not answer; some partitions may have
    /// lost their records then.
    pub async fn delete_below(&self, topic: &str, offsets: &BTreeMap<i32, i64>) -> Result<(), ClientError> {
        let attempt = || format!("deleting records of {topic}");
        let mut list = TopicPartitionList::new();
        for (partition, offset) in offsets {
            let added = list.add_partition_offset(topic, *partition, Offset::Offset(*offset));
            added.map_err(|error| ClientError::new(attempt(), &error))?;
        }
        let deleted = self.0.delete_records(&list, &options()).await;
        for partition in deleted.map_err(|error| ClientError::new(attempt(), &error))?.elements() {
            partition.error().map_err(|error| ClientError::new(attempt(), &error))?;
        }
        Ok(())
    }

    /// The settings of existing topics; those that do not exist are left out.
    ///
    /// # Errors
    /// When the broker refuses or does not answer.
    pub async fn describe(&self, names: &[&str]) -> Result<Vec<TopicDescription>, ClientError> {
        let present = self.partitions().await?;
        let known: Vec<&str> = names.iter().copied().filter(|name| present.contains_key(*name)).collect();
        if known.is_empty() {
            return Ok(Vec::new());
        }
        let specifiers: Vec<_> = known.iter().map(|name| ResourceSpecifier::Topic(name)).collect();
        let results = self.0.describe_configs(&specifiers, &options()).await;
        let results = results.map_err(|error| ClientError::new("describing topics", &error))?;
        let mut descriptions = Vec::with_capacity(known.len());
        for (name, result) in known.iter().zip(results) {
            let resource = result.map_err(|code| {
                ClientError::said(format!("describing the topic {name}"), code.to_string(), false)
            })?;
            let (partitions, replication_factor) = present[*name];
            let entries = resource.entries.into_iter();
            let config = entries.filter_map(|entry| Some((entry.name, entry.value?))).collect();
            descriptions.push(TopicDescription {
                name: (*name).to_owned(),
                partitions,
                replication_factor,
                config,
            });
        }
        Ok(descriptions)
    }

    /// The number of partitions of a topic; 0 where there is none.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn partitions_of(&self, topic: &str) -> Result<i32, ClientError> {
        Ok(self.partitions().await?.get(topic).map_or(0, |(partitions, _)| *partitions))
    }

    /// Partitions and replication factor of every topic all of whose partitions have leaders.
    async fn partitions(&self) -> Result<BTreeMap<String, (i32, i32)>, ClientError> {
        let admin = self.0.clone();
        let metadata =
            tokio::task::spawn_blocking(move || admin.inner().fetch_metadata(None, REQUEST_TIMEOUT)).await;
        let metadata = metadata
            .unwrap_or(Err(rdkafka::error::KafkaError::Canceled))
            .map_err(|error| ClientError::new("listing topics", &error))?;
        let led = metadata.topics().iter().filter(|topic| {
            topic.error().is_none()
                && !topic.partitions().is_empty()
                && topic.partitions().iter().all(|p| p.error().is_none() && p.leader() >= 0)
        });
        Ok(led
            .map(|topic| {
                let partitions = topic.partitions();
                // A broker allows far fewer than 2^31 of either.
                let copies = partitions.iter().map(|p| p.replicas().len() as i32).min().unwrap_or(0);
                (topic.name().to_owned(), (partitions.len() as i32, copies))
            })
            .collect())
    }
}

fn options() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(REQUEST_TIMEOUT)).operation_timeout(Some(REQUEST_TIMEOUT))
}

impl TopicDescription {
    /// A number among the settings, such as `retention.ms`.
    pub fn number(&self, name: &str) -> Option<i64> {
        self.config.get(name)?.parse().ok()
    }

    /// Which promises this topic's settings cannot keep, in plain words without its name, so that many topics with
    /// one weakness can be told in one line; nothing when all is well (K14).
    pub fn degraded(&self, wanted: &TopicSpec) -> Vec<String> {
        let mut found = Vec::new();
        let mut say = |text: String| found.push(text);
        if self.partitions != wanted.partitions {
            say(format!(
                "it has {} partitions, the configuration says {}; the number decides where a key goes and is never changed",
                self.partitions, wanted.partitions
            ));
        }
        if self.replication_factor < 3 {
            say(format!(
                "replication factor {}; below 3 an accepted record can be lost with a broker",
                self.replication_factor
            ));
        }
        let insync = self.number("min.insync.replicas").unwrap_or(1);
        if insync < 2 {
            say(format!(
                "min.insync.replicas is {insync}; below 2 an acknowledged record may be on one disk only"
            ));
        }
        if i64::from(self.replication_factor) <= insync && self.replication_factor > 1 {
            say(format!(
                "min.insync.replicas {insync} equals the replication factor; one broker down stops all writing"
            ));
        }
        if self.config.get("unclean.leader.election.enable").is_some_and(|v| v == "true") {
            say("unclean.leader.election.enable is true; an election can lose acknowledged records".into());
        }
        for (name, value) in &wanted.config {
            match (name.as_str(), self.config.get(name)) {
                ("cleanup.policy", Some(actual)) if !same_policy(actual, value) => {
                    say(format!("cleanup.policy is {actual}, needed is {value}"));
                }
                ("retention.ms", Some(actual)) if shorter(actual, value) => {
                    say(format!(
                        "retention.ms is {actual}, needed is {value}; older records are gone before that"
                    ));
                }
                ("max.message.bytes", Some(actual)) if shorter(actual, value) => {
                    say(format!(
                        "max.message.bytes is {actual}, needed is {value}; larger records are refused"
                    ));
                }
                _ => {}
            }
        }
        found
    }
}

fn same_policy(actual: &str, wanted: &str) -> bool {
    let parts = |text: &str| {
        let mut parts: Vec<String> = text.split(',').map(|part| part.trim().to_owned()).collect();
        parts.sort();
        parts
    };
    parts(actual) == parts(wanted)
}

/// Whether a limit is lower than needed; -1 stands for none.
fn shorter(actual: &str, wanted: &str) -> bool {
    let number = |text: &str| text.parse().map_or(i64::MAX, |n: i64| if n < 0 { i64::MAX } else { n });
    number(actual) < number(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> TopicSpec {
        TopicSpec {
            name: "intake".into(),
            partitions: 6,
            replication_factor: 3,
            config: vec![
                ("cleanup.policy".into(), "delete".into()),
                ("retention.ms".into(), "604800000".into()),
            ],
        }
    }

    fn described(partitions: i32, replication_factor: i32, config: &[(&str, &str)]) -> TopicDescription {
        let config = config.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        TopicDescription { name: "intake".into(), partitions, replication_factor, config }
    }

    #[test]
    fn a_safe_topic_degrades_nothing() {
        let config = [("min.insync.replicas", "2"), ("retention.ms", "-1"), ("cleanup.policy", "delete")];
        assert_eq!(described(6, 3, &config).degraded(&spec()), Vec::<String>::new());
    }

    #[test]
    fn every_weak_setting_is_named() {
        let config = [
            ("min.insync.replicas", "1"),
            ("retention.ms", "1000"),
            ("cleanup.policy", "compact,delete"),
            ("unclean.leader.election.enable", "true"),
        ];
        let text = described(5, 1, &config).degraded(&spec()).join("\n");
        for word in [
            "5 partitions",
            "replication factor 1",
            "min.insync",
            "unclean",
            "cleanup.policy",
            "retention.ms",
        ] {
            assert!(text.contains(word), "{word} missing in {text}");
        }
    }
}
