//! The shape of a catalogue row, exactly as it is written in TOML. Unknown fields are refused.

use serde::Deserialize;

use crate::model::hint::Op;
use crate::model::request::Method;

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
    /// The OpenAPI file that its paths stand in.
    pub spec: String,
    /// The OAuth scope that reads need.
    pub oauth: String,
    /// Where the parts of the id stand in the entity's JSON, dots between names. Empty for what can only be written.
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
    /// The list's path.
    pub path: String,
    /// For `id_in`: the parameter that takes the comma list.
    #[serde(default)]
    pub param: String,
    /// For `id_in`: which part of the hint's id the list holds.
    #[serde(default)]
    pub part: usize,
    /// Ids (or, for `range`, width of the range) in one call at most.
    pub max: usize,
    /// Rows that one page may hold.
    pub page_size: usize,
    /// From how many hints on the list is cheaper than reads of one. Only matters where both exist.
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
    /// The concrete scope.
    pub name: String,
    /// What it says happened.
    #[serde(deserialize_with = "op")]
    pub op: Op,
    /// Where the parts of the hint's id stand in the callback, dots between names.
    pub id: Vec<String>,
    /// Where the meant row's key stands, of a hint that is about a group.
    #[serde(default)]
    pub row: Option<Vec<String>>,
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

/// One way to write an entity.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Action {
    /// `create`, `update`, `upsert`, `delete` or a name of its own.
    pub name: String,
    /// The method; none for an emulated upsert.
    #[serde(default)]
    pub method: Option<Method>,
    /// The path; none for an emulated upsert.
    #[serde(default)]
    pub path: Option<String>,
    /// What a second application would do.
    pub class: Class,
    /// What the payload must be, and what is sent.
    #[serde(default)]
    pub body: Body,
    /// An id that goes into the query, such as `id:in`, where the path has no place for it.
    #[serde(default)]
    pub id_query: Option<IdPlace>,
    /// An id that goes into the body, where the path has no place for it.
    #[serde(default)]
    pub id_body: Option<IdPlace>,
    /// Unique fields by which the thing can be found again, best first.
    #[serde(default)]
    pub natural_key: Vec<NaturalKey>,
    /// A reply of "no such thing" means that it is already so.
    #[serde(default)]
    pub missing_is_done: bool,
    /// Arrays of the payload whose elements are added when they have no id: applying it twice adds them twice.
    #[serde(default)]
    pub appends: Vec<String>,
    /// For a body of items: the field that holds them, and how many there may be.
    #[serde(default)]
    pub items: Option<Items>,
}

/// What a second application of an action would do (P8).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, serde::Serialize)]
pub enum Class {
    /// Nothing: idempotent. Retried freely.
    A,
    /// A second thing, but the first can be found by a unique field. Probed before a retry.
    B,
    /// A second thing, and nobody could tell. Never sent again when in doubt.
    C,
}

impl Class {
    /// The letter.
    pub const fn name(self) -> &'static str {
        match self {
            Self::A => "A",
            Self::B => "B",
            Self::C => "C",
        }
    }
}

/// The body of an action.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Body {
    /// None; a payload is refused.
    #[default]
    None,
    /// The payload, an object, as it is.
    Object,
    /// The payload, an object, as the only element of an array.
    ArrayOfOne,
}

/// Where an id goes that the path has no place for.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IdPlace {
    /// The parameter or field.
    pub name: String,
    /// The id's name in a command's `path`.
    pub id: String,
}

/// A unique field by which a thing can be found.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NaturalKey {
    /// The field of payload and entity.
    pub field: String,
    /// The list parameter that finds it.
    pub param: String,
}

/// The items of a body.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Items {
    /// The field.
    pub field: String,
    /// The maximum in one request.
    pub max: usize,
}
