//! The people's side of signals: what is asked is checked, put on the signals topic, and its notifications are
//! remembered for the console.
//!
//! Nothing is carried out here: the leader does that, wherever it runs, and a signal stays on its topic until it is
//! read. The memory is bounded and holds no more than the topic; a topic that cannot be read is tried again.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::watch;
use tracing::warn;

use super::load::{InForce, Load};
use crate::catalog::Catalog;
use crate::config::{Fill, Settings, Template, closest};
use crate::console::{Action, ActionError};
use crate::kafka::append::IntakeProducer;
use crate::kafka::settings::ClientSettings;
use crate::kafka::tail::Tail;
use crate::model::record::OutRecord;
use crate::model::signal::{Ask, MOST_ENTITIES, Notification, Signal, Snapshots};
use crate::runtime::{Drain, Lifecycle};

/// How long the signals topic may take to acknowledge.
const APPEND_DEADLINE: Duration = Duration::from_secs(10);

/// Between two tries to read the notifications.
const PAUSE: Duration = Duration::from_secs(5);

/// Snapshots that are remembered: weeks of nightly ones.
const REMEMBERED: usize = 64;

/// The signals topic.
pub fn signals_topic(settings: &Settings) -> Arc<str> {
    name(settings, &settings.kafka.topics.names.signals)
}

/// The notifications topic.
pub fn notifications_topic(settings: &Settings) -> Arc<str> {
    name(settings, &settings.kafka.topics.names.notifications)
}

fn name(settings: &Settings, template: &Template) -> Arc<str> {
    template.render(Fill { prefix: &settings.kafka.prefix, ..Fill::default() }).into()
}

/// A signal with a fresh id.
pub fn fresh(ask: Ask) -> Signal {
    Signal { id: uuid::Uuid::now_v7().to_string(), ask }
}

/// The store that is meant: the one named, else the only one.
///
/// # Errors
/// It is not configured, or there are several to choose from.
pub fn store(settings: &Settings, named: Option<&str>) -> Result<String> {
    let known = || settings.stores.iter().map(|store| store.name.as_str());
    match (named, settings.stores.as_slice()) {
        (Some(name), _) if settings.store(name).is_some() => Ok(name.to_owned()),
        (Some(name), _) => {
            let listed = known().collect::<Vec<_>>().join(", ");
            bail!("the store {name:?} is not configured; configured are {listed}{}", meant(name, known()))
        }
        (None, [only]) => Ok(only.name.clone()),
        (None, _) => bail!("name one of the stores: {}", known().collect::<Vec<_>>().join(", ")),
    }
}

/// The entity's name in the catalogue, if it is published for the store.
///
/// # Errors
/// The catalogue has none of this name, or it is not configured.
pub fn entity(settings: &Settings, catalog: &Catalog, store: &str, named: &str) -> Result<String> {
    let configured = || settings.incoming_of(store).map(|entry| entry.entity.as_str());
    let Some(found) = catalog.entity(named) else {
        let all = catalog.entities().iter().map(|entity| entity.name.as_str());
        let meant = meant(named, all);
        bail!("the entity {named:?} is not in the catalogue{meant}; see `bcbridge catalog entities`")
    };
    if configured().all(|name| name != found.name) {
        let listed = configured().collect::<Vec<_>>().join(", ");
        bail!(
            "{:?} is not published for the store {store:?}; add it to incoming, or take one of {listed}",
            found.name
        )
    }
    Ok(found.name.clone())
}

fn meant<'a>(name: &str, candidates: impl Iterator<Item = &'a str>) -> String {
    closest(name, candidates).map_or_else(String::new, |name| format!("; did you mean {name:?}?"))
}

/// Checks what a signal names against the settings and gives it with the catalogue's names.
///
/// # Errors
/// An unknown store or entity, or more or other ids than a signal takes.
pub fn checked(settings: &Settings, catalog: &Catalog, signal: Signal) -> Result<Signal> {
    let known = |store: &str| self::store(settings, Some(store));
    let entities = |store: &str, named: &[String]| -> Result<Vec<String>> {
        known(store)?;
        named.iter().map(|name| entity(settings, catalog, store, name)).collect()
    };
    let ask = match signal.ask {
        Ask::StartSnapshot { store, entities: named } => {
            Ask::StartSnapshot { entities: entities(&store, &named)?, store }
        }
        Ask::StartSweep { store, entities: named } => {
            Ask::StartSweep { entities: entities(&store, &named)?, store }
        }
        Ask::Sync { store, entity: named, ids } => {
            known(&store)?;
            Ask::Sync { entity: entity(settings, catalog, &store, &named)?, store, ids }
        }
        which @ (Ask::EndHalt { .. }
        | Ask::PauseSnapshot(_)
        | Ask::ResumeSnapshot(_)
        | Ask::StopSnapshot(_)
        | Ask::TellSnapshot(_)) => which,
    };
    let signal = Signal { id: signal.id, ask };
    if let Some(store) = signal.store() {
        known(store)?;
    }
    // What is written is read once as the bridge will read it: one place knows the rules of shape.
    Ok(Signal::parse(&serde_json::to_vec(&signal)?)?)
}

/// The record of a signal.
///
/// # Errors
/// None is known.
pub fn record(topic: &Arc<str>, signal: &Signal) -> Result<OutRecord> {
    Ok(OutRecord {
        topic: Arc::clone(topic),
        partition: None,
        key: Some(Bytes::copy_from_slice(signal.key().as_bytes())),
        value: Some(Bytes::from(serde_json::to_vec(signal)?)),
        headers: vec![("content-type".into(), Bytes::from_static(b"application/json"))],
        timestamp_ms: None,
    })
}

/// Puts a signal on its topic.
///
/// # Errors
/// The brokers do not acknowledge it in time.
pub async fn send(producer: &IntakeProducer, topic: &Arc<str>, signal: &Signal) -> Result<()> {
    let sent = producer.append(vec![record(topic, signal)?], APPEND_DEADLINE).await;
    sent.with_context(|| format!("writing the signal to {topic}"))
}

/// The console's signals: its actions work once [`Self::start`] was called.
#[derive(Debug, Clone)]
pub struct Signals {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    in_force: watch::Receiver<Arc<InForce>>,
    producer: OnceLock<IntakeProducer>,
    memory: Mutex<Memory>,
}

impl Signals {
    /// Not connected yet.
    pub fn new(in_force: watch::Receiver<Arc<InForce>>) -> Self {
        let (producer, memory) = (OnceLock::new(), Mutex::default());
        Self { inner: Arc::new(Inner { in_force, producer, memory }) }
    }

    /// Connects, and follows the notifications until the drain.
    ///
    /// # Errors
    /// When librdkafka refuses the settings.
    pub fn start(&self, client: &ClientSettings, lifecycle: &mut Lifecycle) -> Result<()> {
        let producer = IntakeProducer::new(client.clone(), APPEND_DEADLINE)?;
        if self.inner.producer.set(producer).is_err() {
            bail!("the console's signals were started twice");
        }
        let (inner, client) = (Arc::clone(&self.inner), client.clone());
        lifecycle.start("signals", |drain| async move {
            inner.follow(&client, &drain).await;
            Ok::<(), std::convert::Infallible>(())
        });
        Ok(())
    }

    /// What the console can be asked: see [`crate::console::ConsoleState::actions`].
    pub fn actions(&self) -> Vec<(&'static str, Action)> {
        let action = |ask: fn(&Inner, Value) -> Result<Ask>| {
            let inner = Arc::clone(&self.inner);
            Action::new(move |body| {
                let inner = Arc::clone(&inner);
                async move { inner.carry_out(ask, body).await }
            })
        };
        let inner = Arc::clone(&self.inner);
        let list = Action::new(move |_| std::future::ready(Ok(inner.memory().list())));
        vec![
            ("snapshots", action(Inner::start_snapshot)),
            ("snapshots/list", list),
            ("snapshots/pause", action(|_, body| Ok(Ask::PauseSnapshot(which(body)?)))),
            ("snapshots/resume", action(|_, body| Ok(Ask::ResumeSnapshot(which(body)?)))),
            ("snapshots/stop", action(|_, body| Ok(Ask::StopSnapshot(which(body)?)))),
            ("sync", action(Inner::sync)),
        ]
    }
}

/// The body of `POST /api/snapshots`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct StartBody {
    store: Option<String>,
    #[serde(default)]
    entities: Vec<String>,
}

/// The body of `POST /api/snapshots/<id>/<verb>`; the id comes from the path.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WhichBody {
    id: String,
}

/// The body of `POST /api/sync`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SyncBody {
    store: Option<String>,
    entity: String,
    ids: Vec<Value>,
}

fn which(body: Value) -> Result<Snapshots> {
    let WhichBody { id } = serde_json::from_value(body).context("the body is not empty")?;
    Ok(Snapshots { store: None, snapshot: Some(id) })
}

impl Inner {
    fn load(&self) -> Load {
        self.in_force.borrow().load.clone()
    }

    fn start_snapshot(&self, body: Value) -> Result<Ask> {
        let body: StartBody = serde_json::from_value(body)?;
        Ok(Ask::StartSnapshot {
            store: store(&self.load().settings, body.store.as_deref())?,
            entities: body.entities,
        })
    }

    fn sync(&self, body: Value) -> Result<Ask> {
        let SyncBody { store, entity, ids } = serde_json::from_value(body)?;
        let store = self::store(&self.load().settings, store.as_deref())?;
        // The rules for ids are those of a signal.
        let wire = json!({ "id": "sync", "type": "sync", "store": store, "entity": entity, "ids": ids });
        Ok(Signal::parse(wire.to_string().as_bytes())?.ask)
    }

    async fn carry_out(
        &self,
        ask: fn(&Self, Value) -> Result<Ask>,
        body: Value,
    ) -> Result<Value, ActionError> {
        let Load { settings, catalog } = self.load();
        let signal = ask(self, body).and_then(|ask| checked(&settings, &catalog, fresh(ask)));
        let signal = signal.map_err(|error| ActionError::Refused(format!("{error:#}")))?;
        let Some(producer) = self.producer.get() else {
            return Err(ActionError::Failed("Kafka is not reached yet; try again".to_owned()));
        };
        let sent = send(producer, &signals_topic(&settings), &signal).await;
        sent.map_err(|error| ActionError::Failed(format!("{error:#}")))?;
        Ok(json!({ "id": signal.id }))
    }

    async fn follow(&self, client: &ClientSettings, drain: &Drain) {
        loop {
            tokio::select! {
                () = drain.requested() => return,
                ended = self.read(client) => {
                    let Err(error) = ended;
                    warn!(%error, "the notifications cannot be read; trying again");
                }
            }
            tokio::select! {
                () = drain.requested() => return,
                () = tokio::time::sleep(PAUSE) => {}
            }
        }
    }

    async fn read(&self, client: &ClientSettings) -> Result<std::convert::Infallible> {
        let topic = notifications_topic(&self.load().settings).to_string();
        let mut tail = Tail::from_start(client, vec![topic]).await?;
        loop {
            let record = tail.next().await?;
            let Some(Ok(told)) = record.value.as_deref().map(serde_json::from_slice::<Notification>) else {
                continue;
            };
            self.memory().note(told);
        }
    }

    fn memory(&self) -> std::sync::MutexGuard<'_, Memory> {
        // Plain data; after a panic elsewhere it is still the best that is known.
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The last notification of each snapshot and of each of its entities; the oldest snapshots are forgotten.
#[derive(Debug, Default)]
struct Memory {
    snapshots: VecDeque<(String, Vec<Notification>)>,
}

impl Memory {
    fn note(&mut self, told: Notification) {
        if !told.kind.is_of_a_snapshot() {
            return;
        }
        let Some((_, parts)) = self.snapshots.iter_mut().find(|(id, _)| *id == told.id) else {
            if self.snapshots.len() >= REMEMBERED {
                self.snapshots.pop_front();
            }
            self.snapshots.push_back((told.id.clone(), vec![told]));
            return;
        };
        let has_room = parts.len() < MOST_ENTITIES;
        match parts.iter_mut().find(|part| part.entity == told.entity) {
            // Read again from the start after a fault, the topic tells old news.
            Some(part) if part.at > told.at => {}
            Some(part) => *part = told,
            None if has_room => parts.push(told),
            None => {}
        }
    }

    /// Newest first.
    fn list(&self) -> Value {
        let snapshots = self.snapshots.iter().rev().map(|(id, parts)| {
            let newest = parts.iter().max_by_key(|part| part.at);
            let last = parts.iter().find(|part| part.entity.is_none()).or(newest);
            json!({
                "id": id,
                "store": last.and_then(|last| last.store.as_deref()),
                "state": last.map(|last| last.kind.name()),
                "parts": parts,
            })
        });
        json!({ "snapshots": snapshots.collect::<Vec<_>>() })
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::model::signal::Kind;

    fn told(id: &str, kind: Kind, entity: Option<&str>, second: i64) -> Notification {
        let at = Timestamp::from_second(second).unwrap();
        Notification { entity: entity.map(str::to_owned), ..Notification::new(id, kind, Some("main"), at) }
    }

    #[test]
    fn the_memory_keeps_the_last_of_each_part_and_forgets_the_oldest_snapshot() {
        let mut memory = Memory::default();
        memory.note(told("a", Kind::SnapshotProgress, Some("product"), 5));
        memory.note(told("a", Kind::SnapshotProgress, Some("product"), 4));
        memory.note(told("a", Kind::SnapshotDone, Some("product"), 6));
        memory.note(told("a", Kind::Accepted, None, 7));
        let list = memory.list();
        assert_eq!(list["snapshots"][0]["state"], "snapshot.done");
        assert_eq!(list["snapshots"][0]["parts"].as_array().unwrap().len(), 1);
        for n in 0..REMEMBERED {
            memory.note(told(&format!("s{n}"), Kind::SnapshotProgress, None, 8));
        }
        let list = memory.list();
        let ids: Vec<_> =
            list["snapshots"].as_array().unwrap().iter().map(|one| one["id"].as_str().unwrap()).collect();
        assert_eq!((ids.len(), ids.contains(&"a")), (REMEMBERED, false));
    }
}
