//! The demo's eyes and its simulated ERP.

use std::time::Duration;

use anyhow::Result;
use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};

use crate::catalog::Catalog;
use crate::kafka::append::IntakeProducer;
use crate::kafka::settings::ClientSettings;
use crate::kafka::tail::Tail;
use crate::model::record::{InRecord, OutRecord};

const PREFIX: &str = "bigcommerce";

/// The topics of all entities that are published.
pub(super) fn entity_topics(store: &str) -> Result<Vec<(String, String)>> {
    let catalog = Catalog::embedded()?;
    let topic = |name: &str| (name.to_owned(), format!("{PREFIX}.{store}.{name}"));
    Ok(super::published(&catalog).map(|entity| topic(&entity.name)).collect())
}

/// The name of another topic of the store.
pub(super) fn topic(store: &str, name: &str) -> String {
    format!("{PREFIX}.{store}.{name}")
}

/// What was seen so far.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) entities: u64,
    pub(super) commands: u64,
    pub(super) results: u64,
}

/// One record that went by.
pub(super) struct Seen {
    pub(super) is_entity: bool,
}

/// Reads all topics as they grow.
pub(super) struct Observer {
    tail: Tail,
    store: String,
    pub(super) counts: Counts,
    /// The last record, in words.
    pub(super) last: String,
}

impl Observer {
    pub(super) async fn open(client: &ClientSettings, store: &str) -> Result<Self> {
        let mut topics: Vec<String> = entity_topics(store)?.into_iter().map(|(_, topic)| topic).collect();
        topics.push(topic(store, "commands"));
        topics.push(topic(store, "results"));
        let tail = Tail::from_start(client, topics).await?;
        Ok(Self { tail, store: store.to_owned(), counts: Counts::default(), last: String::new() })
    }

    pub(super) async fn next(&mut self) -> Result<Seen> {
        let record = self.tail.next().await?;
        let name = &*record.position.partition.topic;
        let is_command = name == topic(&self.store, "commands");
        let is_result = name == topic(&self.store, "results");
        let is_entity = !is_command && !is_result;
        if is_command {
            self.counts.commands += 1;
        } else if is_result {
            self.counts.results += 1;
            self.last = format!("result {}", record.header("bc_outcome").unwrap_or("?"));
        } else {
            self.counts.entities += 1;
            self.last = in_words(&record);
        }
        Ok(Seen { is_entity })
    }
}

fn in_words(record: &InRecord) -> String {
    let op = match record.header("bc_op") {
        Some("c") => "created",
        Some("d") => "deleted",
        Some("u") => "updated",
        _ => "read",
    };
    let bytes = record.value.as_ref().map_or(0, Bytes::len);
    let events = record.header("bc_events_count").unwrap_or("0");
    format!("{} {op}: {bytes} bytes from {events} callbacks", record.header("ce_subject").unwrap_or("?"))
}

/// Sends a command now and then, as an ERP would: prices and stock.
pub(super) struct Erp {
    producer: IntakeProducer,
    topic: String,
    random: StdRng,
    sent: u64,
}

impl Erp {
    pub(super) fn new(client: &ClientSettings, store: &str) -> Result<Self> {
        let producer = IntakeProducer::new(client.clone(), Duration::from_secs(5))?;
        Ok(Self { producer, topic: topic(store, "commands"), random: StdRng::seed_from_u64(1), sent: 0 })
    }

    pub(super) async fn send(&mut self) -> Result<()> {
        self.sent += 1;
        let product: u32 = self.random.random_range(1..=50);
        let command = match self.sent % 2 {
            0 => self.price(product),
            _ => self.stock(product),
        };
        let record = OutRecord {
            topic: self.topic.as_str().into(),
            partition: None,
            key: Some(Bytes::from(format!("product/{product}"))),
            value: Some(Bytes::from(command.to_string())),
            headers: Vec::new(),
            timestamp_ms: None,
        };
        self.producer.append(vec![record], Duration::from_secs(5)).await?;
        Ok(())
    }

    fn price(&mut self, product: u32) -> Value {
        let cents: u32 = self.random.random_range(100..20_000);
        json!({
            "id": format!("erp-{}", self.sent),
            "entity": "product",
            "action": "update",
            "path": { "product_id": product },
            "payload": { "price": f64::from(cents) / 100.0 },
        })
    }

    fn stock(&mut self, product: u32) -> Value {
        let quantity: u32 = self.random.random_range(0..500);
        json!({
            "id": format!("erp-{}", self.sent),
            "entity": "inventory_adjustment",
            "action": "absolute",
            "payload": {
                "reason": "erp",
                "items": [{ "location_id": 1, "variant_id": product, "quantity": quantity }],
            },
        })
    }
}
