//! What a row says of writing: the actions, how a thing is found again, and what is written together.

use serde::Deserialize;

use super::change::Change;
use crate::model::request::Method;

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
    /// Of a delete whose path ends in a name: the path's owner has only one such thing, so the owner's id names it.
    #[serde(default)]
    pub only_one: bool,
    /// Ids that go into the query, such as `id:in`, where the path has no place for them.
    #[serde(default)]
    pub id_query: Vec<IdPlace>,
    /// Ids that go into the body, where the path has no place for them.
    #[serde(default)]
    pub id_body: Vec<IdPlace>,
    /// Unique fields by which the thing can be found again, best first.
    #[serde(default)]
    pub natural_key: Vec<NaturalKey>,
    /// Statuses of a refusal that means it is already so: 404 of a delete, 409 of what is there once.
    #[serde(default)]
    pub already_so: Vec<u16>,
    /// Arrays of the payload whose elements are added when they have no id: applying it twice adds them twice. A field
    /// that is no array adds whenever it is there.
    #[serde(default)]
    pub appends: Vec<String>,
    /// For a body of items: the field that holds them, and how many there may be.
    #[serde(default)]
    pub items: Option<Items>,
    /// What it changes besides the entity that it is an action of.
    #[serde(default)]
    pub changes: Vec<Change>,
    /// How commands of several things are written in one request; nothing where each needs its own.
    #[serde(default)]
    pub batch: Option<Batch>,
}

/// A request that holds the writes of several commands.
///
/// The items of a request differ in their key, share the path, the query and all of the body but the items.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Batch {
    /// The endpoint that takes many; the action's own where none is given. Its method is the action's.
    #[serde(default)]
    pub path: Option<String>,
    /// Items in one request at most (BigCommerce's figure; 10 where it names none).
    pub max: usize,
    /// Ids that go into each item, where the path of one thing has a place for them and this path has not; those of
    /// the action's `id_body` go there anyway.
    #[serde(default)]
    pub id_body: Vec<IdPlace>,
    /// Ids of the path of one thing that this endpoint does without: the others name the thing in the whole store.
    #[serde(default)]
    pub without: Vec<String>,
    /// Of a delete: the parameter that takes the ids as a comma list; there is no body then.
    #[serde(default)]
    pub id_query: Option<IdPlace>,
    /// The fields of an item that say which thing it is about, any of which may be missing. Two items that agree in
    /// them never share a request, and a row of the reply that agrees is the item's. Empty: an item is told by nothing,
    /// and rows of the reply are the items' in their order.
    #[serde(default)]
    pub key: Vec<String>,
    /// What the reply says of each item.
    #[serde(default)]
    pub reply: BatchReply,
}

/// What a reply of success says of the items of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BatchReply {
    /// `data` (or the bare array) has a row for each that was written; one that is missing there was not.
    #[default]
    Rows,
    /// Nothing: success is success of all.
    Nothing,
}

/// What a second application of an action would do (P8).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize, serde::Serialize)]
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
    /// The payload, an array that is not empty, as it is.
    Array,
    /// The id of `id_body` as text, the only element of an array; a payload is refused.
    ArrayOfId,
}

impl Body {
    /// Its name in a row.
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Object => "object",
            Self::ArrayOfOne => "array_of_one",
            Self::Array => "array",
            Self::ArrayOfId => "array_of_id",
        }
    }
}

/// Where an id goes that the path has no place for.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IdPlace {
    /// The parameter or field.
    pub name: String,
    /// The id's name in a command's `path`.
    pub id: String,
    /// The id may be [`DEFAULT_PART`](super::DEFAULT_PART), which leaves the parameter out: settings of the store instead of a channel.
    #[serde(default)]
    pub default: bool,
    /// In a body it is a text, also where it is a number.
    #[serde(default)]
    pub text: bool,
}

/// A unique field by which a thing can be found.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NaturalKey {
    /// The field of payload and entity.
    pub field: String,
    /// The list parameter that finds it.
    pub param: String,
    /// The list that takes the parameter, where that is not the one at the path of the create.
    #[serde(default)]
    pub list: Option<String>,
    /// The fields that it is unique together with.
    #[serde(default)]
    pub with: Vec<KeyPart>,
    /// Characters of the value that the store keeps. It cuts a longer one, which so finds nothing: it is no key.
    #[serde(default)]
    pub max_chars: Option<usize>,
}

impl NaturalKey {
    /// Its fields, for people: `namespace and key`.
    pub fn fields(&self) -> String {
        let all = std::iter::once(&self.field).chain(self.with.iter().map(|part| &part.field));
        all.map(String::as_str).collect::<Vec<_>>().join(" and ")
    }
}

/// A further field of a key that is unique only as a whole.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyPart {
    /// The field of payload and entity.
    pub field: String,
    /// The list parameter that narrows by it. Where there is none, it is compared in the rows of the list only.
    #[serde(default)]
    pub param: Option<String>,
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
