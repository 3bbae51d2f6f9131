//! Signals and notifications: what people ask of a running bridge, and what it tells them.
//!
//! A signal asks for backfill (a snapshot, a sweep, or single entities read again), or lets commands go on that
//! stand still. Whoever may write to the
//! signals topic may ask; the leader carries it out and answers on the notifications topic. Every signal is
//! answered with `accepted` or `rejected` under its own id; what it started then reports under that id as well,
//! until one of the kinds that [`Kind::is_end`] names. So a reader who knows the id needs nothing else.
//!
//! A signal that exists was checked: reading one fails with a clause that says what was found and what is allowed.

mod notification;
#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

pub use self::notification::{Kind, Notification};
use super::ids::{BadId, EntityId, check_part};

/// Entities that one signal may name: more than BigCommerce has kinds of.
pub const MOST_ENTITIES: usize = 256;

/// Ids that one `sync` may name: as hints they fill one transaction of the intake, and more is a snapshot's work.
pub const MOST_IDS: usize = 1_000;

/// Longest id of a command, and longest name of a topic, that a signal may hold.
const MOST_TEXT_BYTES: usize = 256;

/// What somebody asks of the bridge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Wire", into = "Wire")]
pub struct Signal {
    /// Its id, made by who asks: a single part as [`check_part`] has it, best a UUID. It names what it starts.
    pub id: String,
    /// What is asked for.
    pub ask: Ask,
}

/// What a signal asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ask {
    /// Reads everything: a hint for each entity that the store lists.
    StartSnapshot {
        /// The store's name.
        store: String,
        /// The entities by name; none means all that are configured.
        entities: Vec<String>,
    },
    /// Lets snapshots rest where they are.
    PauseSnapshot(Snapshots),
    /// Lets resting snapshots go on.
    ResumeSnapshot(Snapshots),
    /// Ends snapshots for good.
    StopSnapshot(Snapshots),
    /// Tells how far snapshots are: one `snapshot.progress` for each, then `accepted`.
    TellSnapshot(Snapshots),
    /// Repairs what callbacks missed, now instead of on schedule.
    StartSweep {
        /// The store's name.
        store: String,
        /// The entities by name; none means all that are configured.
        entities: Vec<String>,
    },
    /// Reads single entities again.
    Sync {
        /// The store's name.
        store: String,
        /// The entity's name.
        entity: String,
        /// Which ones; never empty.
        ids: Vec<EntityId>,
    },
    /// Lets commands go on that stand still.
    EndHalt {
        /// The store's name.
        store: String,
        /// What stands still.
        halted: Halted,
        /// What waits before this offset is dropped; none drops nothing.
        drop_before: Option<i64>,
    },
}

/// What stands still on the way to a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Halted {
    /// The key that the command of this id halted.
    Key {
        /// The command's id.
        command: String,
    },
    /// A route of which too many commands failed.
    Route {
        /// Its topic.
        topic: String,
    },
}

/// Which snapshots are meant. At least one of the two is given; where both are, both must fit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshots {
    /// Those of this store.
    pub store: Option<String>,
    /// The one with this id.
    pub snapshot: Option<String>,
}

impl Snapshots {
    /// Whether a snapshot is among those meant.
    pub fn covers(&self, store: &str, snapshot: &str) -> bool {
        self.store.as_deref().is_none_or(|wanted| wanted == store)
            && self.snapshot.as_deref().is_none_or(|wanted| wanted == snapshot)
    }
}

impl Signal {
    /// Reads the value of a signal record.
    ///
    /// # Errors
    /// It is not JSON, not of this shape, or breaks a rule; nothing of it may be carried out then.
    pub fn parse(value: &[u8]) -> Result<Self, BadSignal> {
        let wire: Wire =
            serde_json::from_slice(value).map_err(|error| BadSignal::Shape(error.to_string()))?;
        wire.try_into()
    }

    /// The id of a value that [`Self::parse`] refused, where it has one that can be answered to.
    pub fn id_of(value: &[u8]) -> Option<String> {
        let value: serde_json::Value = serde_json::from_slice(value).ok()?;
        let id = value.get("id")?.as_str()?;
        check_part(id).ok()?;
        Some(id.to_owned())
    }

    /// The store that it is about, where it names one.
    pub fn store(&self) -> Option<&str> {
        match &self.ask {
            Ask::StartSnapshot { store, .. }
            | Ask::StartSweep { store, .. }
            | Ask::Sync { store, .. }
            | Ask::EndHalt { store, .. } => Some(store),
            Ask::PauseSnapshot(which)
            | Ask::ResumeSnapshot(which)
            | Ask::StopSnapshot(which)
            | Ask::TellSnapshot(which) => which.store.as_deref(),
        }
    }

    /// The key of its record: the store, or the signal's own id where it names none.
    pub fn key(&self) -> &str {
        self.store().unwrap_or(&self.id)
    }
}

/// Why a signal was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadSignal {
    /// Not JSON, or a field is missing, unknown or of another type.
    #[error("the value is not a signal: {0}")]
    Shape(String),
    /// A field that this type of signal has no use for.
    #[error("a signal of type {of:?} takes no field {field:?}")]
    Stray {
        /// The type.
        of: &'static str,
        /// The field.
        field: &'static str,
    },
    /// A field that this type of signal needs.
    #[error("a signal of type {of:?} needs {field}")]
    Missing {
        /// The type.
        of: &'static str,
        /// The field, or the fields to choose from.
        field: &'static str,
    },
    /// A text that stands where an id or a name belongs.
    #[error("the field {field:?} is wrong: {bad}")]
    Id {
        /// The field.
        field: &'static str,
        /// What is wrong with it.
        bad: BadId,
    },
    /// A text that is empty or too long.
    #[error("the field {field:?} has {found} bytes; 1 to {most} are taken")]
    Length {
        /// The field.
        field: &'static str,
        /// How many were found.
        found: usize,
        /// How many are allowed.
        most: usize,
    },
    /// More of something than one signal may name.
    #[error("the field {field:?} has {found} items; one signal takes at most {most}")]
    TooMany {
        /// The field.
        field: &'static str,
        /// How many were found.
        found: usize,
        /// How many are allowed.
        most: usize,
    },
}

/// The types of signals, as they are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Type {
    #[serde(rename = "snapshot.start")]
    SnapshotStart,
    #[serde(rename = "snapshot.pause")]
    SnapshotPause,
    #[serde(rename = "snapshot.resume")]
    SnapshotResume,
    #[serde(rename = "snapshot.stop")]
    SnapshotStop,
    #[serde(rename = "snapshot.status")]
    SnapshotStatus,
    #[serde(rename = "sweep.start")]
    SweepStart,
    #[serde(rename = "sync")]
    Sync,
    #[serde(rename = "halt.release")]
    HaltRelease,
    #[serde(rename = "halt.drop")]
    HaltDrop,
}

impl Type {
    const fn name(self) -> &'static str {
        match self {
            Self::SnapshotStart => "snapshot.start",
            Self::SnapshotPause => "snapshot.pause",
            Self::SnapshotResume => "snapshot.resume",
            Self::SnapshotStop => "snapshot.stop",
            Self::SnapshotStatus => "snapshot.status",
            Self::SweepStart => "sweep.start",
            Self::Sync => "sync",
            Self::HaltRelease => "halt.release",
            Self::HaltDrop => "halt.drop",
        }
    }
}

/// A signal as it stands on the topic.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire {
    id: String,
    #[serde(rename = "type")]
    of: Type,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    store: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    snapshot: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    entities: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    entity: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ids: Option<Vec<Id>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    command: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    topic: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    before: Option<i64>,
}

/// People write ids of numbers without quotes.
#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
enum Id {
    Text(String),
    Number(u64),
}

impl TryFrom<Wire> for Signal {
    type Error = BadSignal;

    fn try_from(wire: Wire) -> Result<Self, BadSignal> {
        part("id", &wire.id)?;
        let of = wire.of;
        let id = wire.id.clone();
        let ask = match of {
            Type::SnapshotStart => {
                let (store, entities) = wire.scope()?;
                Ask::StartSnapshot { store, entities }
            }
            Type::SweepStart => {
                let (store, entities) = wire.scope()?;
                Ask::StartSweep { store, entities }
            }
            Type::SnapshotPause => Ask::PauseSnapshot(wire.snapshots()?),
            Type::SnapshotResume => Ask::ResumeSnapshot(wire.snapshots()?),
            Type::SnapshotStop => Ask::StopSnapshot(wire.snapshots()?),
            Type::SnapshotStatus => Ask::TellSnapshot(wire.snapshots()?),
            Type::Sync => wire.sync()?,
            Type::HaltRelease | Type::HaltDrop => wire.end_halt()?,
        };
        Ok(Self { id, ask })
    }
}

impl Wire {
    fn scope(self) -> Result<(String, Vec<String>), BadSignal> {
        self.takes_only(&["store", "entities"])?;
        let store = self.required("store", self.store.as_deref())?;
        let entities = self.entities.unwrap_or_default();
        at_most("entities", entities.len(), MOST_ENTITIES)?;
        entities.iter().try_for_each(|entity| part("entities", entity))?;
        Ok((store, entities))
    }

    fn snapshots(self) -> Result<Snapshots, BadSignal> {
        self.takes_only(&["store", "snapshot"])?;
        if self.store.is_none() && self.snapshot.is_none() {
            return Err(BadSignal::Missing { of: self.of.name(), field: "store or snapshot" });
        }
        self.store.iter().try_for_each(|store| part("store", store))?;
        self.snapshot.iter().try_for_each(|snapshot| part("snapshot", snapshot))?;
        Ok(Snapshots { store: self.store, snapshot: self.snapshot })
    }

    fn sync(self) -> Result<Ask, BadSignal> {
        self.takes_only(&["store", "entity", "ids"])?;
        let store = self.required("store", self.store.as_deref())?;
        let entity = self.required("entity", self.entity.as_deref())?;
        let given = self.ids.unwrap_or_default();
        if given.is_empty() {
            return Err(BadSignal::Missing { of: self.of.name(), field: "at least one id in ids" });
        }
        at_most("ids", given.len(), MOST_IDS)?;
        let id = |id: &Id| match id {
            Id::Text(text) => EntityId::parse(text),
            Id::Number(number) => EntityId::parse(&number.to_string()),
        };
        let ids: Result<_, _> = given.iter().map(id).collect();
        Ok(Ask::Sync { store, entity, ids: ids.map_err(|bad| BadSignal::Id { field: "ids", bad })? })
    }

    fn end_halt(self) -> Result<Ask, BadSignal> {
        let is_drop = self.of == Type::HaltDrop;
        self.takes_only(if is_drop {
            &["store", "command", "before"]
        } else {
            &["store", "command", "topic"]
        })?;
        let missing = |field| BadSignal::Missing { of: self.of.name(), field };
        let store = self.required("store", self.store.as_deref())?;
        let halted = match (self.command, self.topic) {
            (Some(command), None) => Halted::Key { command: text("command", command)? },
            (None, Some(topic)) => Halted::Route { topic: text("topic", topic)? },
            _ if is_drop => return Err(missing("command")),
            _ => return Err(missing("either command or topic")),
        };
        let before = self.before.filter(|before| *before >= 0);
        if is_drop && before.is_none() {
            return Err(missing("an offset in before: what waits from there on stays"));
        }
        Ok(Ask::EndHalt { store, halted, drop_before: before })
    }

    /// Refuses fields that this type of signal has no use for.
    fn takes_only(&self, taken: &[&str]) -> Result<(), BadSignal> {
        let given = [
            ("store", self.store.is_some()),
            ("snapshot", self.snapshot.is_some()),
            ("entities", self.entities.is_some()),
            ("entity", self.entity.is_some()),
            ("ids", self.ids.is_some()),
            ("command", self.command.is_some()),
            ("topic", self.topic.is_some()),
            ("before", self.before.is_some()),
        ];
        match given.into_iter().find(|(field, given)| *given && !taken.contains(field)) {
            Some((field, _)) => Err(BadSignal::Stray { of: self.of.name(), field }),
            None => Ok(()),
        }
    }

    fn required(&self, field: &'static str, value: Option<&str>) -> Result<String, BadSignal> {
        let value = value.ok_or(BadSignal::Missing { of: self.of.name(), field })?;
        part(field, value)?;
        Ok(value.to_owned())
    }
}

fn part(field: &'static str, text: &str) -> Result<(), BadSignal> {
    check_part(text).map_err(|bad| BadSignal::Id { field, bad })
}

/// A text that is no single part: the id of a command, which may be a place on a topic.
fn text(field: &'static str, text: String) -> Result<String, BadSignal> {
    let most = MOST_TEXT_BYTES;
    if (1..=most).contains(&text.len()) {
        Ok(text)
    } else {
        Err(BadSignal::Length { field, found: text.len(), most })
    }
}

fn at_most(field: &'static str, found: usize, most: usize) -> Result<(), BadSignal> {
    if found > most { Err(BadSignal::TooMany { field, found, most }) } else { Ok(()) }
}

impl From<Signal> for Wire {
    fn from(Signal { id, ask }: Signal) -> Self {
        let empty = |of, store| Self {
            id,
            of,
            store,
            snapshot: None,
            entities: None,
            entity: None,
            ids: None,
            command: None,
            topic: None,
            before: None,
        };
        let scope = |entities: Vec<String>| (!entities.is_empty()).then_some(entities);
        match ask {
            Ask::StartSnapshot { store, entities } => {
                Self { entities: scope(entities), ..empty(Type::SnapshotStart, Some(store)) }
            }
            Ask::StartSweep { store, entities } => {
                Self { entities: scope(entities), ..empty(Type::SweepStart, Some(store)) }
            }
            Ask::PauseSnapshot(Snapshots { store, snapshot }) => {
                Self { snapshot, ..empty(Type::SnapshotPause, store) }
            }
            Ask::ResumeSnapshot(Snapshots { store, snapshot }) => {
                Self { snapshot, ..empty(Type::SnapshotResume, store) }
            }
            Ask::StopSnapshot(Snapshots { store, snapshot }) => {
                Self { snapshot, ..empty(Type::SnapshotStop, store) }
            }
            Ask::TellSnapshot(Snapshots { store, snapshot }) => {
                Self { snapshot, ..empty(Type::SnapshotStatus, store) }
            }
            Ask::Sync { store, entity, ids } => {
                let ids = ids.iter().map(|id| Id::Text(id.as_str().to_owned())).collect();
                Self { entity: Some(entity), ids: Some(ids), ..empty(Type::Sync, Some(store)) }
            }
            Ask::EndHalt { store, halted, drop_before } => {
                let of = if drop_before.is_some() { Type::HaltDrop } else { Type::HaltRelease };
                let (command, topic) = match halted {
                    Halted::Key { command } => (Some(command), None),
                    Halted::Route { topic } => (None, Some(topic)),
                };
                Self { command, topic, before: drop_before, ..empty(of, Some(store)) }
            }
        }
    }
}
