//! Commands made of what the specification allows: the mock offers ids, parameters and bodies for each operation.

use bcbridge::catalog::row::{Body, IdPlace};
use bcbridge::catalog::{Action, Entity, placeholders};
use serde_json::{Map, Value, json};

use super::Mock;
use crate::bridge_lab::Setup;

/// What an operation takes.
pub(super) struct Sample {
    /// What stands in the places of the path, in their order.
    pub(super) path: Vec<String>,
    pub(super) query: Map<String, Value>,
    pub(super) bodies: Vec<Value>,
    why: Value,
}

/// What a sample is to be like.
#[derive(Default)]
pub(super) struct Wish<'a> {
    /// Samples of different numbers have different ids.
    pub(super) n: u64,
    /// Fields of an item that are to differ as well.
    pub(super) vary: &'a [String],
    /// Fields that no item may have.
    pub(super) without: &'a [String],
}

/// A command and the key of its record.
pub(super) type Command = (String, Value);

impl Mock {
    async fn get(&self, path: &str, query: &[(&str, String)]) -> Value {
        let url = reqwest::Url::parse_with_params(&format!("{}{path}", self.url), query).unwrap();
        let reply = self.client.get(url).send().await.unwrap();
        let status = reply.status();
        let body: Value = serde_json::from_slice(&reply.bytes().await.unwrap()).unwrap();
        assert!(status.is_success(), "{query:?}: {body}");
        body
    }

    /// What the replies are to be like until the next reset or the next call of this.
    pub(super) async fn behave(&self, behaviour: &Value) {
        let request = self.client.post(format!("{}/_mock/behaviour", self.url)).body(behaviour.to_string());
        assert!(request.send().await.unwrap().status().is_success());
    }

    /// What the operation of an action takes.
    pub(super) async fn sample(&self, action: &Action, wish: &Wish<'_>) -> Sample {
        let (method, path) = (action.method.unwrap(), action.path.as_deref().unwrap());
        let shape = match action.body {
            Body::None => "",
            Body::Object => "object",
            Body::ArrayOfOne | Body::Array | Body::ArrayOfId => "array",
        };
        let names: Vec<&str> = action.id_query.iter().map(|place| place.name.as_str()).collect();
        let query = [
            ("method", method.as_str().to_owned()),
            ("path", format!("/stores/{}{path}", Setup::default().sandbox.store_hash)),
            ("n", wish.n.to_string()),
            ("shape", shape.to_owned()),
            ("query", names.join(",")),
            ("vary", wish.vary.join(",")),
            ("without", wish.without.join(",")),
            ("items", action.items.as_ref().map(|items| items.field.clone()).unwrap_or_default()),
        ];
        let mut made = self.get("/_mock/sample", &query).await;
        Sample {
            path: serde_json::from_value(made["path"].take()).unwrap(),
            query: serde_json::from_value(made["query"].take()).unwrap(),
            bodies: serde_json::from_value(made["bodies"].take()).unwrap(),
            why: made["why"].take(),
        }
    }
}

impl Sample {
    /// The payloads of commands: what a record says, which is less than what is sent.
    pub(super) fn payloads(&self, action: &Action) -> Vec<Value> {
        match action.body {
            Body::None | Body::ArrayOfId => Vec::new(),
            Body::Object | Body::Array => self.bodies.clone(),
            Body::ArrayOfOne => {
                let all = self.bodies.iter().filter_map(Value::as_array).flatten();
                all.filter(|item| item.is_object()).cloned().collect()
            }
        }
    }

    /// The command of a payload: its ids are those of the sample, and the bridge is to put them where they belong.
    pub(super) fn command(&self, entity: &Entity, action: &Action, payload: Option<Value>, n: u64) -> Value {
        let mut ids = Map::new();
        let names = placeholders(action.path.as_deref().unwrap());
        for (name, value) in names.zip(&self.path) {
            ids.insert(name.to_owned(), json!(value));
        }
        let mut query = self.query.clone();
        for IdPlace { name, id, .. } in &action.id_query {
            let value = query.remove(name).unwrap_or_else(|| json!(n));
            ids.entry(id.clone()).or_insert(value);
        }
        let mut payload = payload;
        for IdPlace { name, id, .. } in &action.id_body {
            let held = payload.as_mut().and_then(Value::as_object_mut).and_then(|fields| fields.remove(name));
            let held = held.filter(|held| held.is_string() || held.as_u64().is_some_and(|id| id > 0));
            let of_kind = match held {
                Some(Value::String(text)) if uuid::Uuid::try_parse(&text).is_ok() => {
                    json!(format!("0f0e0d0c-1b2a-4c3d-8e4f-{n:012}"))
                }
                Some(Value::String(text)) if !text.bytes().all(|b| b.is_ascii_digit()) => json!(text),
                _ if action.body == Body::ArrayOfId => self.id_of_list(n),
                _ => json!(n),
            };
            ids.entry(id.clone()).or_insert(of_kind);
        }
        let mut command =
            json!({ "entity": entity.name, "action": action.name, "path": ids, "query": query });
        if let Some(payload) = payload {
            command["payload"] = payload;
        }
        command
    }

    /// The first id of a body that is a list of ids.
    fn id_of_list(&self, n: u64) -> Value {
        let first = self.bodies.first().and_then(|body| body.get(0)).filter(|id| id.is_string());
        first.cloned().unwrap_or_else(|| json!(n))
    }

    /// Why there is no body.
    pub(super) fn why(&self) -> &Value {
        &self.why
    }
}
