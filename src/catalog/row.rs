//! The shape of a catalogue row, exactly as it is written in TOML. Unknown fields are refused.

use std::collections::BTreeMap;

use serde::Deserialize;

pub use super::write::{Action, Batch, BatchReply, Body, Class, IdPlace, Items, KeyPart, NaturalKey};
use crate::model::hint::Op;

/// One file of rows: a family of entities.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Family {
    /// The entities.
    pub entity: Vec<Entity>,
}

/// Everything that the bridge knows about one entity of the management API.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entity {
    /// The name: in topics, commands and config.
    pub name: String,
    /// Other names that config and commands may use.
    #[serde(default)]
    pub aliases: Vec<String>,
    /// One sentence for people.
    pub doc: String,
    /// Bridged when the config has no `incoming` section.
    #[serde(default)]
    pub default: bool,
    /// BigCommerce's OpenAPI file that its paths stand in; empty where there is none.
    #[serde(default)]
    pub spec: String,
    /// The OAuth scope that reads need.
    #[serde(default)]
    pub oauth: String,
    /// Where the parts of the id stand in the entity's JSON (see [`super::place`]); `@name` is the part of that name
    /// of the id that the read was made for, where the JSON does not repeat it. Empty for what can only be written.
    #[serde(default)]
    pub key: Vec<String>,
    /// Where the parts of the *hint's* id stand in the entity's JSON, when a hint is about a group of entities
    /// (stock is hinted by product and published by variant).
    #[serde(default)]
    pub hint_key: Option<Vec<String>>,
    /// What path templates call the parts of the hint's id.
    #[serde(default)]
    pub ids: Vec<String>,
    /// The field that tells when the entity changed last; none where BigCommerce keeps no such date.
    #[serde(default)]
    pub version: Option<String>,
    /// How it is read; nothing for what can only be written.
    #[serde(default)]
    pub read: Read,
    /// How all of them are listed, for polls, snapshots and sweeps; nothing where BigCommerce lists them nowhere.
    #[serde(default)]
    pub list: Option<List>,
    /// Reads that find the ids of entities which a callback names by something else.
    #[serde(default)]
    pub resolve: Vec<Resolve>,
    /// Sub-resources that can be read along.
    #[serde(default)]
    pub include: Vec<Include>,
    /// The webhook scopes that hint at it.
    #[serde(default)]
    pub scope: Vec<Scope>,
    /// What can be written.
    #[serde(default)]
    pub action: Vec<Action>,
}

/// How an entity is read: one at a time, many at a time, or both.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Read {
    /// Path of the read of one.
    #[serde(default)]
    pub one: Option<String>,
    /// Query of the read of one; a value may be `{name}` of a part of the id, and is left out where that part is
    /// [`DEFAULT_PART`].
    #[serde(default)]
    pub query: BTreeMap<String, String>,
    /// Places of arrays in the reply to a read of one, whose elements are the rows (the lines of a cart); where there
    /// are none of them, the reply is the row.
    #[serde(default)]
    pub rows: Vec<String>,
    /// The read of many.
    #[serde(default)]
    pub many: Option<ReadMany>,
}

/// A list that can be narrowed to the wanted ids.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReadMany {
    /// How ids are named in the query.
    pub style: ManyStyle,
    /// The list's path. Where it has places, only ids that agree in these parts share a list.
    pub path: String,
    /// Further query parameters; a value may be `{name}` of a part that all ids of the list agree in.
    #[serde(default)]
    pub query: BTreeMap<String, String>,
    /// How its pages follow each other; none: as the API's version does it.
    #[serde(default)]
    pub pages: Option<Pages>,
    /// For `id_in`: the parameter that takes the comma list.
    #[serde(default)]
    pub param: String,
    /// For `id_in`: which part of the hint's id the list holds.
    #[serde(default)]
    pub part: usize,
    /// Ids (or, for `range`, width of the range) in one call at most.
    pub max: usize,
    /// Rows that one page may hold; 0 where the list takes no `limit`.
    #[serde(default = "page_size")]
    pub page_size: usize,
    /// From how many hints on they are read together; fewer are read one by one: by the path of one, or where there is
    /// none, by this list with a single id.
    #[serde(default = "two")]
    pub from: usize,
}

const fn two() -> usize {
    2
}

/// How a list is narrowed to ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ManyStyle {
    /// A parameter such as `id:in` takes a comma list.
    IdIn,
    /// `min_id` and `max_id` enclose the wanted ids (V2 orders).
    Range,
    /// Nothing narrows it: the whole list below one parent, of which the wanted rows are taken.
    All,
}

/// The part of an id that stands for "whatever the store's default is": settings without a channel.
pub const DEFAULT_PART: &str = "default";

/// How the pages of a list follow each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pages {
    /// One reply holds everything.
    None,
    /// V2: `page` and `limit`, a bare array; a short page or 204 ends it.
    V2,
    /// V3: `page` and `limit`, with `meta.pagination`.
    Page,
    /// V3: `after` and `limit`, with `meta.cursor_pagination`.
    Cursor,
    /// `after` is the last row's id, without any meta (channel listings).
    AfterId,
}

/// The list of all entities of a kind.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct List {
    /// Its path. Places are filled with the parts of a parent's id, for each parent in turn.
    pub path: String,
    /// The entity whose ids fill the places, in the order of its `ids`.
    #[serde(default)]
    pub over: Option<String>,
    /// Query parameters; a value may be `{name}` of a part of the parent's id, and is left out where that part is
    /// [`DEFAULT_PART`].
    #[serde(default)]
    pub query: BTreeMap<String, String>,
    /// Besides the parents, once more with [`DEFAULT_PART`] in every place: the settings that no channel overrides.
    #[serde(default)]
    pub default: bool,
    /// How its pages follow each other. A reply that is one object instead of an array is a list of one row.
    pub pages: Pages,
    /// Rows of one page at most; 0 where the list takes no `limit`, without meaning where there are no pages.
    #[serde(default = "page_size")]
    pub max: usize,
    /// The filter by date of change, where there is one.
    #[serde(default)]
    pub since: Option<Since>,
    /// A row of the list is the whole entity, as a read of one would bring it, given the same includes; where some of
    /// them are reads of their own, it is not.
    #[serde(default)]
    pub whole: bool,
    /// The list takes the entity's `include` parameter.
    #[serde(default)]
    pub include: bool,
    /// Where the list is ordered by the id and can begin at one: its pages are asked for by the next id instead of by
    /// number, so that no row is passed over when others vanish in between. Only with an id of one number.
    #[serde(default)]
    pub keyset: Option<Keyset>,
}

const fn page_size() -> usize {
    250
}

/// How a list is asked to begin at an id.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Keyset {
    /// The parameter that takes the least id, inclusive: `id:min`, `min_id`.
    pub param: String,
    /// The value of `sort` that orders by rising ids, where it is not the default.
    #[serde(default)]
    pub sort: Option<String>,
}

/// A list's filter by date of change.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Since {
    /// The parameter that takes the earliest date, inclusive.
    pub param: String,
    /// The parameter that takes the latest date, where there is one.
    #[serde(default)]
    pub until: Option<String>,
    /// How dates are written.
    #[serde(default)]
    pub format: DateFormat,
}

/// How a date is written in a query.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DateFormat {
    /// `2026-01-31T08:00:00+00:00`, always with time and offset.
    #[default]
    Rfc3339,
    /// `Sat, 31 Jan 2026 08:00:00 +0000` (V2).
    Rfc2822,
}

/// A read that finds entities by something other than their id; each row found becomes a hint of its own.
///
/// One entity has one owner, the partition of its hint's id; a callback that names it otherwise must not bypass it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Resolve {
    /// Its name, which scopes refer to; the hint's key is `<entity>~<name>/<id>`.
    pub name: String,
    /// What templates call the parts of the id that is resolved.
    pub ids: Vec<String>,
    /// The list.
    pub many: ReadMany,
    /// Where the resolved parts stand in a row of it.
    pub key: Vec<String>,
}

/// A sub-resource that is read along with the entity.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Include {
    /// Its name in config, and in the `include` parameter.
    pub name: String,
    /// Read along unless config says otherwise.
    #[serde(default)]
    pub default: bool,
    /// Where this include shrinks the page of a list: rows in one page then.
    #[serde(default)]
    pub page_size: Option<usize>,
    /// A path of its own, paged; its rows replace the field of the include's name in the entity's JSON.
    #[serde(default)]
    pub path: Option<String>,
}

/// A webhook scope and where its payload says which entity is meant.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scope {
    /// The concrete scope; `{channel_id}` stands for the channel's number.
    pub name: String,
    /// What it says happened.
    #[serde(deserialize_with = "op")]
    pub op: Op,
    /// Where the parts of the hint's id stand in the callback; see [`Target::id`].
    #[serde(default)]
    pub id: Vec<String>,
    /// Where the meant row's key stands, of a hint that is about a group; without any of its parts all rows are meant.
    #[serde(default)]
    pub row: Option<Vec<String>>,
    /// The [`Resolve`] that takes the id, where the callback does not hold the entity's own.
    #[serde(default)]
    pub resolve: Option<String>,
    /// Only callbacks of which this holds are about this entity; the others are about those in `also`.
    #[serde(default)]
    pub when: Option<When>,
    /// What the callback is about where it lacks the id.
    #[serde(default)]
    pub otherwise: Option<Target>,
    /// Other entities that the callback is about as well, where it holds their ids.
    #[serde(default)]
    pub also: Vec<Target>,
    /// Why nothing can be read after this event; it becomes a dead letter that says so.
    #[serde(default)]
    pub not_readable: Option<String>,
    /// The store has sent the bridge away: its token is void from now on.
    #[serde(default)]
    pub stops_store: bool,
}

/// An entity that a callback of another entity's scope is about as well.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Target {
    /// Its name.
    pub entity: String,
    /// What the callback says happened to it.
    #[serde(deserialize_with = "op")]
    pub op: Op,
    /// Where the parts of its hint's id stand: `data.id`, `scope.channel_id`, `=text` for a fixed part,
    /// `data.ids[]` for one hint per element, `data.a|data.b` for whichever is there.
    pub id: Vec<String>,
    /// Where the meant row's key stands, as in [`Scope::row`].
    #[serde(default)]
    pub row: Option<Vec<String>>,
    /// The [`Resolve`] of that entity that takes the id.
    #[serde(default)]
    pub resolve: Option<String>,
    /// Only callbacks of which this holds are about it.
    #[serde(default)]
    pub when: Option<When>,
}

/// A condition on a callback: one place holds one of these texts, in whatever case.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct When {
    /// The place, such as `data.resource_type`.
    pub at: String,
    /// The texts.
    pub is: Vec<String>,
}

fn op<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Op, D::Error> {
    let word = String::deserialize(deserializer)?;
    match word.as_str() {
        "created" => Ok(Op::Create),
        "updated" => Ok(Op::Update),
        "deleted" => Ok(Op::Delete),
        other => Err(serde::de::Error::custom(format!("{other:?} is none of created, updated, deleted"))),
    }
}
