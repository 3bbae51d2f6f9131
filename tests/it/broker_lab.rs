//! Brokers for the tests: the built-in one always, Apache Kafka where `KAFKA_BOOTSTRAP_SERVERS` names one.

use std::collections::BTreeMap;

use bcbridge::embedded::{self, EmbeddedBroker};
use bcbridge::kafka::settings::ClientSettings;
use bcbridge::kafka::topics::{TopicSpec, Topics};

/// A broker to test against; it lives as long as this does.
pub(crate) struct Lab {
    pub(crate) client: ClientSettings,
    pub(crate) topics: Topics,
    pub(crate) is_apache: bool,
    _embedded: Option<EmbeddedBroker>,
}

impl Lab {
    pub(crate) async fn embedded() -> Self {
        let broker = embedded::start("127.0.0.1:0".parse().unwrap(), None).await.unwrap();
        let client = client(&broker.bootstrap_servers());
        let topics = Topics::new(&client).unwrap();
        Self { client, topics, is_apache: false, _embedded: Some(broker) }
    }

    /// The address, as settings name it.
    pub(crate) fn servers(&self) -> String {
        match &self._embedded {
            Some(broker) => broker.bootstrap_servers(),
            None => std::env::var("KAFKA_BOOTSTRAP_SERVERS").unwrap(),
        }
    }

    /// None where no Apache Kafka was started (`scripts/kafka start` prints how to name it).
    pub(crate) fn apache() -> Option<Self> {
        let servers = std::env::var("KAFKA_BOOTSTRAP_SERVERS").ok()?;
        let client = client(&servers);
        let topics = Topics::new(&client).unwrap();
        Some(Self { client, topics, is_apache: true, _embedded: None })
    }

    /// A topic of its own for each test, with a name that no other run uses.
    pub(crate) async fn topic(&self, what: &str, partitions: i32) -> String {
        let name = unique(what);
        let spec = TopicSpec { name: name.clone(), partitions, replication_factor: 1, config: Vec::new() };
        let states = self.topics.ensure(&[spec]).await.unwrap();
        assert_eq!((states[0].partitions, states[0].created), (partitions, true));
        name
    }
}

pub(crate) fn client(servers: &str) -> ClientSettings {
    ClientSettings::new(servers, BTreeMap::new()).unwrap()
}

pub(crate) fn unique(what: &str) -> String {
    format!("{what}-{}", uuid::Uuid::new_v4().simple())
}

/// Runs one async test body on both brokers, as two tests.
macro_rules! on_both_brokers {
    ($($name:ident),+ $(,)?) => {
        mod on_embedded {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name(crate::broker_lab::Lab::embedded().await).await;
            })+
        }
        mod on_apache_kafka {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                match crate::broker_lab::Lab::apache() {
                    Some(lab) => super::$name(lab).await,
                    None => eprintln!("not run: KAFKA_BOOTSTRAP_SERVERS is not set"),
                }
            })+
        }
    };
}
pub(crate) use on_both_brokers;
