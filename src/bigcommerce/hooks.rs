//! A store's webhooks: reads them, and makes them the wanted ones.
//!
//! Applying is safe to repeat: what is right is kept, and a create whose reply was lost or that met a duplicate is
//! looked up before anything else is tried. It never touches a hook that is not ours ([`super::hooks_plan`]), and
//! one hook that fails does not stop the others.

use std::collections::BTreeMap;

use bytes::Bytes;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;

use super::hooks_plan::{self, Action, Hook, Item, Plan, Wanted};
use super::hooks_scopes::Subscription;
use crate::model::envelope::{self, BadShape, Next};
use crate::model::request::{Answer, ApiPath, BadPath, Method, Purpose, Reply, Request};
use crate::runtime::ports::Store;

pub use super::hooks_admin::{Admin, BlockedDomain, Status, admin, status};

const LIST: &str = "/v3/hooks";
const ONE: &str = "/v3/hooks/{webhook_id}";
const CHANNELS: &str = "/v3/channels";

/// Rows a page; the most that the API takes.
const PAGE: usize = 250;

/// Pages of a listing: 10,000 rows. 200 scopes with 10 hooks each are 8 pages, and 70 scopes of each of a hundred
/// channels are 28; more is a store that repeats itself.
const MAX_PAGES: u64 = 40;

/// Channels that are no more: the API refuses hooks on them, or never calls them.
const GONE_CHANNELS: [&str; 2] = ["deleted", "terminated"];

/// Why the hooks could not be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum HookError {
    /// The store answered otherwise.
    #[error("{doing} failed: {detail}")]
    Reply {
        /// What was tried.
        doing: &'static str,
        /// What came back, in one clause.
        detail: String,
        /// Its meaning.
        answer: Answer,
    },
    /// The reply could not be understood.
    #[error("{doing} failed: {source}")]
    Shape {
        /// What was tried.
        doing: &'static str,
        /// What is wrong with the reply.
        source: BadShape,
    },
    /// The listing does not end.
    #[error("{doing} did not end after {MAX_PAGES} pages of {PAGE}")]
    Endless {
        /// What was tried.
        doing: &'static str,
    },
    /// A path could not be made.
    #[error(transparent)]
    Path(#[from] BadPath),
}

/// What became of one item of a plan.
#[derive(Debug)]
pub struct Applied {
    /// The item.
    pub item: Item,
    /// The hook's id if it is now as wanted; none if nothing was to be done about it.
    pub result: Result<Option<u64>, HookError>,
}

/// Reads all hooks that the token may see: those of its own client.
///
/// # Errors
/// A reply that is not a list of hooks.
pub async fn list(store: &impl Store) -> Result<Vec<Hook>, HookError> {
    const DOING: &str = "listing the webhooks";
    rows(store, DOING, LIST).await?.iter().map(|row| read_hook(DOING, row)).collect()
}

/// Reads the hooks to have: the fewest for the wanted scopes. The store is asked for its channels only where a scope is
/// wanted for each of them.
///
/// # Errors
/// The channels could not be read.
pub async fn subscriptions(store: &impl Store, wanted: &Wanted) -> Result<Vec<Subscription>, HookError> {
    let channels = if wanted.needs_channels() { channels(store).await? } else { Vec::new() };
    Ok(wanted.subscriptions(&channels))
}

/// Says what is to be done.
///
/// # Errors
/// The hooks, or the channels where they matter, could not be read.
pub async fn plan(store: &impl Store, wanted: &Wanted) -> Result<Plan, HookError> {
    let subscriptions = subscriptions(store, wanted).await?;
    Ok(hooks_plan::plan(wanted, &subscriptions, &list(store).await?))
}

async fn channels(store: &impl Store) -> Result<Vec<u64>, HookError> {
    const DOING: &str = "listing the channels";
    let mut ids = Vec::new();
    for row in rows(store, DOING, CHANNELS).await? {
        let channel: WireChannel = serde_json::from_slice(&row)
            .map_err(|_| HookError::Shape { doing: DOING, source: BadShape::Not { wanted: "a channel" } })?;
        if !channel.status.is_some_and(|status| GONE_CHANNELS.contains(&status.as_str())) {
            ids.push(channel.id);
        }
    }
    Ok(ids)
}

/// All pages of a list.
async fn rows(store: &impl Store, doing: &'static str, path: &str) -> Result<Vec<Bytes>, HookError> {
    let mut all = Vec::new();
    let mut page = 1;
    while page <= MAX_PAGES {
        let mut request = request(Method::Get, path, None)?;
        request.query = vec![("page".to_owned(), page.to_string()), ("limit".to_owned(), PAGE.to_string())];
        let reply = done(doing, store.send(request).await)?;
        let found = envelope::list(&reply.body).map_err(|source| HookError::Shape { doing, source })?;
        let is_full = found.rows.len() >= PAGE;
        all.extend(found.rows);
        page = match found.next {
            Next::Page(next) => next,
            Next::Unknown if is_full => page + 1,
            Next::Unknown | Next::End => return Ok(all),
            // Half a list would make hooks that exist look missing.
            Next::Cursor(_) => {
                return Err(HookError::Shape { doing, source: BadShape::Not { wanted: "a numbered page" } });
            }
        };
    }
    Err(HookError::Endless { doing })
}

/// Does it. One result per item, in order.
pub async fn apply(store: &impl Store, wanted: &Wanted, plan: Plan) -> Vec<Applied> {
    let mut applied = Vec::with_capacity(plan.items.len());
    for item in plan.items {
        let result = match &item.action {
            Action::Create => create(store, wanted, &item.scope).await.map(Some),
            Action::Update { id, .. } => update(store, wanted, &item.scope, *id).await.map(Some),
            Action::Keep { id } => Ok(Some(*id)),
            Action::Unwanted { .. } | Action::Foreign { .. } => Ok(None),
            Action::Full => Err(HookError::Reply {
                doing: "creating the webhook",
                detail: "the scope already has 10 webhooks of this client, none of them the bridge's"
                    .to_owned(),
                answer: Answer::Conflict,
            }),
        };
        applied.push(Applied { item, result });
    }
    applied
}

/// Deletes the hooks that are ours and no longer wanted, one by one. One result per such item, in order.
pub async fn prune(store: &impl Store, plan: Plan) -> Vec<Applied> {
    let mut applied = Vec::new();
    for item in plan.items {
        let Action::Unwanted { id } = item.action else { continue };
        let result = delete(store, id).await.map(|()| Some(id));
        applied.push(Applied { item, result });
    }
    applied
}

#[derive(Deserialize)]
struct WireChannel {
    id: u64,
    status: Option<String>,
}

/// A hook on the wire; fields that we do not know are left alone.
#[derive(Deserialize)]
struct WireHook {
    id: u64,
    scope: String,
    destination: String,
    #[serde(default)]
    headers: Option<BTreeMap<String, Option<String>>>,
    #[serde(default)]
    is_active: bool,
    created_at: Option<i64>,
    updated_at: Option<i64>,
}

fn read_hook(doing: &'static str, row: &[u8]) -> Result<Hook, HookError> {
    let hook: WireHook = serde_json::from_slice(row)
        .map_err(|_| HookError::Shape { doing, source: BadShape::Not { wanted: "a webhook" } })?;
    let headers = hook.headers.unwrap_or_default();
    Ok(Hook {
        id: hook.id,
        scope: hook.scope,
        destination: hook.destination,
        headers: headers.into_iter().map(|(n, v)| (n, SecretString::from(v.unwrap_or_default()))).collect(),
        is_active: hook.is_active,
        touched_s: hook.updated_at.max(hook.created_at).unwrap_or(0),
    })
}

async fn create(store: &impl Store, wanted: &Wanted, scope: &str) -> Result<u64, HookError> {
    const DOING: &str = "creating the webhook";
    let body = body(wanted, scope);
    let reply = store.send(Request { body: Some(body), ..request(Method::Post, LIST, None)? }).await;
    match reply.answer {
        Answer::Done => id_of(DOING, &reply.body),
        // A duplicate, whose status is not documented, or a lost reply: see what there is now.
        Answer::Conflict | Answer::Invalid | Answer::Doubtful => {
            let found = plan(store, wanted).await?.items.into_iter().find(|item| item.scope == scope);
            match found.map(|item| item.action) {
                Some(Action::Keep { id }) => Ok(id),
                Some(Action::Update { id, .. }) => update(store, wanted, scope, id).await,
                _ => Err(failed(DOING, reply)),
            }
        }
        _ => Err(failed(DOING, reply)),
    }
}

async fn update(store: &impl Store, wanted: &Wanted, scope: &str, id: u64) -> Result<u64, HookError> {
    let request = Request { body: Some(body(wanted, scope)), ..request(Method::Put, ONE, Some(id))? };
    done("correcting the webhook", store.send(request).await)?;
    Ok(id)
}

async fn delete(store: &impl Store, id: u64) -> Result<(), HookError> {
    let reply = store.send(request(Method::Delete, ONE, Some(id))?).await;
    match reply.answer {
        Answer::Done | Answer::Missing => Ok(()),
        _ => Err(failed("deleting the webhook", reply)),
    }
}

fn id_of(doing: &'static str, body: &Bytes) -> Result<u64, HookError> {
    let hook = envelope::single(body).map_err(|source| HookError::Shape { doing, source })?;
    Ok(read_hook(doing, &hook)?.id)
}

/// The whole hook, so that one request corrects whatever is wrong.
fn body(wanted: &Wanted, scope: &str) -> Bytes {
    let headers: BTreeMap<&str, &str> =
        wanted.headers().map(|(name, value)| (name, value.expose_secret())).collect();
    let hook = serde_json::json!({
        "scope": scope,
        "destination": wanted.destination_of(scope),
        "is_active": true,
        "headers": headers,
    });
    hook.to_string().into()
}

pub(super) fn request(method: Method, template: &str, id: Option<u64>) -> Result<Request, BadPath> {
    let id = id.map(|id| id.to_string());
    let path = ApiPath::render(template, |_| id.as_deref())?;
    Ok(Request { method, path, query: Vec::new(), body: None, purpose: Purpose::Upkeep })
}

pub(super) fn done(doing: &'static str, reply: Reply) -> Result<Reply, HookError> {
    if reply.answer == Answer::Done { Ok(reply) } else { Err(failed(doing, reply)) }
}

fn failed(doing: &'static str, reply: Reply) -> HookError {
    HookError::Reply { doing, detail: reply.detail, answer: reply.answer }
}
