//! A dry run: what a command would send, told in its result.
//!
//! Pure. No request is made and no entry of the ledger is written, so a later command of the same id is a first one.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::decode::{Checked, Fault};
use super::plan::{Plan, Update, with_id};
use super::settle::{Topics, as_json, from_path, result_record, value};
use crate::catalog::Body;
use crate::model::command::{CommandResult, Outcome};
use crate::model::record::InRecord;
use crate::model::request::{ApiPath, Request};
use crate::runtime::ports::Settled;

/// What would be sent.
#[derive(Debug, Serialize)]
pub(super) struct WouldSend {
    /// The write; of an upsert, the create.
    #[serde(flatten)]
    write: Sent,
    /// Read before it, to find the thing of an upsert.
    #[serde(skip_serializing_if = "Option::is_none")]
    probe: Option<Sent>,
    /// Sent instead of the write where the probe finds the thing; `{id}` stands for the found id.
    #[serde(skip_serializing_if = "Option::is_none")]
    update: Option<Sent>,
    /// Read before it, of a guarded command.
    #[serde(skip_serializing_if = "Option::is_none")]
    guard: Option<Sent>,
    /// The request of many that it could join.
    #[serde(skip_serializing_if = "Option::is_none")]
    batch: Option<Joined>,
}

/// One request.
#[derive(Debug, Serialize)]
struct Sent {
    method: &'static str,
    path: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    query: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<Box<RawValue>>,
}

#[derive(Debug, Serialize)]
struct Joined {
    method: &'static str,
    path: String,
    /// Items in one request at most.
    max: usize,
}

/// The result of a command on a route that sends nothing. `known`: an earlier command of this id is under way or
/// ended, so that it would be answered with that one's result.
pub(super) fn settled(
    topics: &Topics,
    record: &InRecord,
    command: &Checked,
    plan: &Plan,
    known: bool,
) -> Settled {
    let request = would_send(command, plan).ok().and_then(|sent| serde_json::value::to_raw_value(&sent).ok());
    let known = known.then(|| "an earlier command has this id: its result would be given again".to_owned());
    let result = value(&CommandResult {
        id: command.id.to_string(),
        entity: Some(command.entity.name.clone()),
        action: Some(command.action().name.clone()),
        outcome: Outcome::DryRun,
        status: None,
        resource_id: from_path(command),
        body: None,
        request_id: None,
        attempts: 0,
        class: Some(plan.class.name().to_owned()),
        reason: None,
        detail: known,
        request,
    });
    let record_of_result = result_record(topics, record, &command.id, Outcome::DryRun, result);
    Settled { positions: vec![record.position.clone()], records: vec![record_of_result] }
}

/// What a planned command would send.
pub(super) fn would_send(command: &Checked, plan: &Plan) -> Result<WouldSend, Fault> {
    Ok(WouldSend {
        write: sent(&plan.write),
        probe: plan.update.as_ref().and(plan.probe.as_ref()).map(|probe| sent(&probe.request)),
        update: plan.update.as_ref().map(update).transpose()?,
        guard: plan.guard.as_ref().map(|guard| sent(&guard.request)),
        batch: if plan.guard.is_none() { joined(command) } else { None },
    })
}

fn sent(request: &Request) -> Sent {
    Sent {
        method: request.method.as_str(),
        path: request.path.as_str().to_owned(),
        query: request.query.iter().cloned().collect(),
        body: request.body.as_ref().and_then(as_json),
    }
}

fn joined(command: &Checked) -> Option<Joined> {
    let action = command.action();
    let batch = action.batch.as_ref()?;
    let template = batch.path.as_ref().or(action.path.as_ref())?;
    let path = ApiPath::render(template, |name| command.path_id(name)).ok()?;
    Some(Joined { method: action.method?.as_str(), path: path.as_str().to_owned(), max: batch.max })
}

/// The update of an upsert, with the id's name in braces where the found id will stand.
fn update(update: &Update) -> Result<Sent, Fault> {
    let command = &update.command;
    let action = &command.entity.action[update.action];
    let place = format!("{{{}}}", update.id);
    let id = |name: &str| command.path_id(name).unwrap_or(&place).to_owned();
    let filled = |segment: &str| match segment.strip_prefix('{').and_then(|name| name.strip_suffix('}')) {
        Some(name) => id(name),
        None => segment.to_owned(),
    };
    let path: Vec<String> = action.path.as_deref().unwrap_or_default().split('/').map(filled).collect();
    let given = action.id_query.iter().map(|place| (place.name.clone(), id(&place.id)));
    let mut payload = command.payload.clone();
    if let Some(whole) = command.payload.as_ref() {
        let fields: Map<String, Value> = serde_json::from_slice(whole).unwrap_or_default();
        let mut body = whole.clone();
        for (more, place) in action.id_body.iter().enumerate() {
            body = with_id(&body, &fields, fields.len() + more, (place, &id(&place.id)))?;
        }
        payload = Some(match action.body {
            Body::ArrayOfOne => [b"[", &body[..], b"]"].concat().into(),
            Body::None | Body::Object | Body::Array | Body::ArrayOfId => body,
        });
    }
    Ok(Sent {
        method: action.method.map_or("", |method| method.as_str()),
        path: path.join("/"),
        query: given.chain(command.query.iter().cloned()).collect(),
        body: payload.as_ref().and_then(as_json),
    })
}
