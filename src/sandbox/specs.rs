//! The rows that describe each simulated resource, read once from the TOML files under `data/`.
//!
//! A row says where a resource lives, what a read shows (the template: every field with its default), what a write must
//! carry, which filters a list knows and which callbacks a change fires. A resource that needs nothing else is a row
//! and no code. The files are part of the program: a broken row is a bug that `every_row_parses` finds.

use std::collections::{BTreeMap, HashMap};
use std::sync::LazyLock;

use serde::Deserialize;
use serde_json::{Map, Value};

/// How a resource is created: one object or an array of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Style {
    Single,
    Array,
    /// An object or an array; the answer has the shape of the question.
    Either,
}

/// What a batch answers with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Tells {
    /// The rows.
    #[default]
    Rows,
    /// The rows, and counts in `meta`.
    Counted,
    /// Counts in `meta`, without the rows.
    Counts,
    /// `data` and `meta`, both empty.
    Hollow,
    /// `transaction_id` only.
    Transaction,
    /// No body.
    Nothing,
}

/// The shape of `date_created`/`date_modified` and who keeps them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Dates {
    #[default]
    None,
    /// `date_created` and `date_modified`, ISO 8601 with `+00:00`.
    Iso,
    /// Only `date_modified`, ISO 8601.
    IsoModified,
    /// `created_at` and `updated_at`, ISO 8601.
    IsoAt,
    /// `created_time` and `updated_time`, ISO 8601.
    Cart,
    /// `date_created` and `date_modified`, RFC 2822 (the V2 API).
    Rfc2822,
    /// Only `date_created`, RFC 2822.
    Rfc2822Created,
}

impl Dates {
    /// The field that says when a row changed.
    pub(crate) fn modified(self) -> Option<&'static str> {
        match self {
            Dates::None | Dates::Rfc2822Created => None,
            Dates::Iso | Dates::IsoModified | Dates::Rfc2822 => Some("date_modified"),
            Dates::IsoAt => Some("updated_at"),
            Dates::Cart => Some("updated_time"),
        }
    }
}

/// How a resource is wrapped in answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Shape {
    /// `{data, meta}`.
    #[default]
    Data,
    /// Bare objects and arrays, as all of V2 has them.
    Bare,
    /// Lists in `{data, meta}`, single rows bare.
    BareOne,
}

/// Words for pages that a few resources have for themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum OddMeta {
    /// `offset`, `limit` and `total_items`.
    Offset,
    /// `total_page` in place of `total_pages`.
    TotalPage,
}

/// How a list is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Paging {
    /// `page` and `limit`.
    #[default]
    Pages,
    /// Everything in one answer.
    None,
    /// `after` is the id of the last row seen.
    AfterId,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Create {
    pub(crate) style: Style,
    pub(crate) status: u16,
    /// Most objects in one call; 413 above.
    #[serde(default = "one")]
    pub(crate) max: usize,
    #[serde(default)]
    pub(crate) envelope: Option<String>,
    #[serde(default)]
    pub(crate) tells: Tells,
    /// The good items of a batch are written although others are refused.
    #[serde(default)]
    pub(crate) keeps_good: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct BatchUpdate {
    pub(crate) max: usize,
    #[serde(default = "ok")]
    pub(crate) status: u16,
    /// Rows that do not exist are created.
    #[serde(default)]
    pub(crate) upsert: bool,
    /// Rows that do not exist are left out of the answer without a word.
    #[serde(default)]
    pub(crate) skips_unknown: bool,
    #[serde(default)]
    pub(crate) tells: Tells,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Single {
    #[serde(default = "ok")]
    pub(crate) status: u16,
}

/// A DELETE on the collection.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DeleteBy {
    /// The filters that select what goes.
    pub(crate) keys: Vec<String>,
    #[serde(default = "no_content")]
    pub(crate) status: u16,
    /// What a call without any of `keys` answers.
    pub(crate) without_filter: u16,
    /// Whether a call without a filter deletes everything (and is counted as forbidden).
    #[serde(default)]
    pub(crate) collection: bool,
    #[serde(default)]
    pub(crate) tells: Tells,
    #[serde(default = "many")]
    pub(crate) max: usize,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Parent {
    pub(crate) entity: String,
    pub(crate) field: String,
    /// The read does not show the parent's id.
    #[serde(default)]
    pub(crate) hidden: bool,
    /// The parent's id comes with the body, not with the path.
    #[serde(default)]
    pub(crate) in_body: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Unique {
    /// Must be indexed where it is looked for often.
    pub(crate) field: String,
    /// Fields that must be the same, too, for two rows to clash.
    #[serde(default)]
    pub(crate) with: Vec<String>,
    pub(crate) status: u16,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Choice {
    pub(crate) field: String,
    pub(crate) values: Vec<String>,
}

/// One resource.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Spec {
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) collection: Option<String>,
    #[serde(default)]
    pub(crate) item: Option<String>,
    /// The item's path changes and deletes but does not read.
    #[serde(default)]
    pub(crate) hidden_item: bool,
    /// Further paths that list the rows of every parent.
    #[serde(default)]
    pub(crate) lists: Vec<String>,
    /// Where rows are created, when not at `collection`.
    #[serde(default)]
    pub(crate) create_path: Option<String>,
    /// One object, for the store or for each parent or channel.
    #[serde(default)]
    pub(crate) singleton: bool,
    /// The path of batches in which every item stands for itself, as metafields have them.
    #[serde(default)]
    pub(crate) sets: Option<String>,
    /// Names in bodies whose field is called otherwise in answers.
    #[serde(default)]
    pub(crate) aliases: BTreeMap<String, String>,
    /// Fields that must name a row of another resource.
    #[serde(default)]
    pub(crate) refs: BTreeMap<String, String>,
    /// The fields by which an upsert finds a row that it does not name by id.
    #[serde(default)]
    pub(crate) natural: Vec<String>,
    /// The fields that make the key together.
    #[serde(default)]
    pub(crate) compose: Vec<String>,
    /// Names in paths and queries whose field is called otherwise.
    #[serde(default)]
    pub(crate) params: BTreeMap<String, String>,
    #[serde(default)]
    pub(crate) shape: Shape,
    #[serde(default)]
    pub(crate) paging: Paging,
    /// The resource whose rows this one shows in another form.
    #[serde(default)]
    pub(crate) table: Option<String>,
    /// Answers have `data` without `meta`.
    #[serde(default)]
    pub(crate) no_meta: bool,
    /// Pages are told in words of this resource's own.
    #[serde(default)]
    pub(crate) odd_meta: Option<OddMeta>,
    /// Fields that only a list shows.
    #[serde(default)]
    pub(crate) only_in_lists: Vec<String>,
    /// Fields that only a single read shows.
    #[serde(default)]
    pub(crate) only_alone: Vec<String>,
    /// Query parameters the resource does not know are answered with 400.
    #[serde(default)]
    pub(crate) strict: bool,
    /// Rows at the start, for each of the first parents where there is one.
    #[serde(default)]
    pub(crate) seed: u64,
    /// The scopes of the callbacks that a change fires, without their last word; see `events`.
    #[serde(default)]
    pub(crate) fires: Vec<String>,
    /// Fields of those callbacks whose name differs from the row's: theirs, then the row's.
    #[serde(default)]
    pub(crate) about: BTreeMap<String, String>,
    /// The texts that are the ids of the rows at the start, where an id is a name.
    #[serde(default)]
    pub(crate) seed_ids: Vec<String>,
    #[serde(default = "id")]
    pub(crate) id: String,
    #[serde(default)]
    pub(crate) parent: Option<Parent>,
    pub(crate) limit: usize,
    #[serde(default = "first")]
    pub(crate) first_id: u64,
    #[serde(default)]
    pub(crate) text_id: bool,
    #[serde(default)]
    pub(crate) empty_is_204: bool,
    #[serde(default)]
    pub(crate) cursor: bool,
    #[serde(default = "yes")]
    pub(crate) touches_parent: bool,
    #[serde(default)]
    pub(crate) create: Option<Create>,
    #[serde(default)]
    pub(crate) update: Option<Single>,
    #[serde(default)]
    pub(crate) batch_update: Option<BatchUpdate>,
    #[serde(default)]
    pub(crate) delete: Option<Single>,
    #[serde(default)]
    pub(crate) delete_by: Option<DeleteBy>,
    #[serde(default)]
    pub(crate) required: Vec<String>,
    #[serde(default)]
    pub(crate) unique: Vec<Unique>,
    #[serde(default)]
    pub(crate) enums: Vec<Choice>,
    #[serde(default)]
    pub(crate) indexes: Vec<String>,
    #[serde(default)]
    pub(crate) readonly: Vec<String>,
    #[serde(default)]
    pub(crate) filters: Vec<String>,
    #[serde(default)]
    pub(crate) dates: Dates,
    #[serde(default)]
    pub(crate) scope: Option<String>,
    /// A field that gets a fresh UUID.
    #[serde(default)]
    pub(crate) uuid: Option<String>,
    /// An array of objects inside the row that get ids of their own.
    #[serde(default)]
    pub(crate) numbers_children: Option<String>,
    #[serde(deserialize_with = "json_object")]
    pub(crate) template: Map<String, Value>,
}

impl Spec {
    /// The resource that keeps the rows.
    pub(crate) fn root(&'static self) -> &'static Spec {
        self.table.as_deref().and_then(find).unwrap_or(self)
    }
}

fn one() -> usize {
    1
}
fn ok() -> u16 {
    200
}
fn no_content() -> u16 {
    204
}
fn many() -> usize {
    250
}
fn id() -> String {
    "id".to_owned()
}
fn first() -> u64 {
    1
}
fn yes() -> bool {
    true
}

fn json_object<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Map<String, Value>, D::Error> {
    let text = String::deserialize(from)?;
    serde_json::from_str(&text).map_err(serde::de::Error::custom)
}

#[derive(Deserialize)]
struct File {
    entity: Vec<Spec>,
}

const FILES: &[&str] = &[
    include_str!("data/catalog.toml"),
    include_str!("data/catalog_parts.toml"),
    include_str!("data/channels.toml"),
    include_str!("data/checkout.toml"),
    include_str!("data/content.toml"),
    include_str!("data/customers.toml"),
    include_str!("data/logistics.toml"),
    include_str!("data/marketing.toml"),
    include_str!("data/metafields.toml"),
    include_str!("data/people.toml"),
    include_str!("data/pricing.toml"),
    include_str!("data/sales.toml"),
    include_str!("data/sales_more.toml"),
    include_str!("data/settings.toml"),
    include_str!("data/store.toml"),
    include_str!("data/tax.toml"),
];

/// The id of rows that have none: the parts of a composite key, or the owner of a singleton.
pub(crate) const KEY: &str = "_key";

static SPECS: LazyLock<Vec<Spec>> = LazyLock::new(|| {
    FILES
        .iter()
        .flat_map(|text| {
            toml::from_str::<File>(text)
                .expect("the rows are part of the program, and a test parses them")
                .entity
        })
        .collect()
});

/// Every row.
pub(crate) fn all() -> &'static [Spec] {
    &SPECS
}

static NAMES: LazyLock<HashMap<&'static str, &'static Spec>> =
    LazyLock::new(|| SPECS.iter().map(|spec| (spec.name.as_str(), spec)).collect());

/// The row called `name`.
pub(crate) fn find(name: &str) -> Option<&'static Spec> {
    NAMES.get(name).copied()
}

/// The rows below the one called `name`.
pub(crate) fn children(name: &str) -> impl Iterator<Item = &'static Spec> {
    SPECS.iter().filter(move |spec| spec.parent.as_ref().is_some_and(|parent| parent.entity == name))
}

/// The row called `name`, where the name is written in this program.
pub(crate) fn known(name: &'static str) -> &'static Spec {
    find(name).expect("the name is a literal of this module, and the rows are part of the program")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_parses_and_its_lists_name_fields_of_its_template() {
        assert!(all().len() > 130);
        assert_eq!(NAMES.len(), all().len(), "a name is used twice");
        for spec in all() {
            assert!(spec.id == KEY || spec.template.contains_key(&spec.id), "{}: id field", spec.name);
            let named = spec.required.iter().chain(&spec.readonly).chain(&spec.indexes).chain(&spec.compose);
            let named = named.chain(spec.unique.iter().map(|rule| &rule.field)).chain(&spec.natural);
            for field in named {
                let hidden =
                    spec.parent.as_ref().is_some_and(|parent| parent.hidden && parent.field == *field);
                assert!(hidden || spec.template.contains_key(field), "{}: {field}", spec.name);
            }
        }
    }
}
