//! The bodies of the control API's calls. A field that none of them knows is refused, except where it goes into a payload.

use serde::Deserialize;
use serde_json::{Map, Value};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Mutation {
    pub(crate) entity: String,
    pub(crate) op: String,
    #[serde(default)]
    pub(crate) id: Option<Value>,
    #[serde(default)]
    pub(crate) body: Map<String, Value>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Touch {
    pub(crate) entity: String,
    pub(crate) from: u64,
    pub(crate) to: u64,
    #[serde(default = "once")]
    pub(crate) times: u64,
}

fn once() -> u64 {
    1
}

#[derive(Deserialize)]
pub(crate) struct Emit {
    pub(crate) scope: String,
    #[serde(flatten)]
    pub(crate) about: Map<String, Value>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Bulk {
    pub(crate) products: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Shoppers {
    pub(crate) rate: f64,
}
