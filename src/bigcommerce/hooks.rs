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
use super::paging::{self, BadShape, Next};
use crate::model::request::{Answer, ApiPath, BadPath, Method, Purpose, Reply, Request};
use crate::runtime::ports::Store;

const LIST: &str = "/v3/hooks";
const ONE: &str = "/v3/hooks/{webhook_id}";
const ADMIN: &str = "/v3/hooks/admin";

/// Rows a page; the most that the API takes.
const PAGE: usize = 250;

/// Pages of a listing. 200 scopes with 10 hooks each are 8 pages; more is a store that repeats itself.
const MAX_PAGES: u64 = 40;

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
    #[error("the list of webhooks is longer than {MAX_PAGES} pages of {PAGE}")]
    Endless,
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

/// The state of a store's webhooks.
#[derive(Debug)]
pub struct Status {
    /// The hooks.
    pub hooks: Vec<Hook>,
    /// The status of each hook by id: `active`, `inactive` or `deactivated`, as the store words it.
    pub states: BTreeMap<u64, String>,
    /// Domains that BigCommerce does not deliver to for now.
    pub blocked: Vec<BlockedDomain>,
    /// Who is told when a hook is deactivated.
    pub emails: usize,
}

/// A domain that failed too often.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, serde::Serialize)]
pub struct BlockedDomain {
    /// The domain, or the destination.
    #[serde(default)]
    pub destination: String,
    /// Seconds until it is tried again.
    #[serde(default)]
    pub time_left: u64,
    /// Why.
    #[serde(default)]
    pub reasons: Vec<String>,
}

/// Reads all hooks that the token may see: those of its own client.
///
/// # Errors
/// A reply that is not a list of hooks.
pub async fn list(store: &impl Store) -> Result<Vec<Hook>, HookError> {
    const DOING: &str = "listing the webhooks";
    let mut hooks = Vec::new();
    let mut page = 1;
    loop {
        let mut request = request(Method::Get, LIST, None)?;
        request.query = vec![("page".to_owned(), page.to_string()), ("limit".to_owned(), PAGE.to_string())];
        let reply = done(DOING, store.send(request).await)?;
        let rows = paging::list(&reply.body).map_err(|source| HookError::Shape { doing: DOING, source })?;
        for row in &rows.rows {
            hooks.push(read_hook(DOING, row)?);
        }
        page = match rows.next {
            Next::Page(next) => next,
            Next::Unknown if rows.rows.len() >= PAGE => page + 1,
            Next::Unknown | Next::End => return Ok(hooks),
            // Half a list would make hooks that exist look missing.
            Next::Cursor(_) => {
                return Err(HookError::Shape {
                    doing: DOING,
                    source: BadShape::Not { wanted: "a numbered page" },
                });
            }
        };
        if page > MAX_PAGES {
            return Err(HookError::Endless);
        }
    }
}

/// Says what is to be done.
///
/// # Errors
/// The hooks could not be read.
pub async fn plan(store: &impl Store, wanted: &Wanted) -> Result<Plan, HookError> {
    Ok(hooks_plan::plan(wanted, &list(store).await?))
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

/// Reads the hooks and what BigCommerce says of their health.
///
/// # Errors
/// A reply that could not be understood.
pub async fn status(store: &impl Store) -> Result<Status, HookError> {
    const DOING: &str = "reading the webhooks' status";
    let hooks = list(store).await?;
    let reply = done(DOING, store.send(request(Method::Get, ADMIN, None)?).await)?;
    let body = paging::single(&reply.body).map_err(|source| HookError::Shape { doing: DOING, source })?;
    let admin: Admin = serde_json::from_slice(&body).map_err(|_| HookError::Shape {
        doing: DOING,
        source: BadShape::Not { wanted: "the webhooks' status" },
    })?;
    let states = admin.hooks_list.into_iter().filter_map(|hook| Some((hook.id, hook.status?))).collect();
    Ok(Status { hooks, states, blocked: admin.blocked_domains, emails: admin.emails.len() })
}

#[derive(Deserialize)]
struct Admin {
    #[serde(default)]
    emails: Vec<String>,
    #[serde(default)]
    hooks_list: Vec<AdminHook>,
    #[serde(default)]
    blocked_domains: Vec<BlockedDomain>,
}

#[derive(Deserialize)]
struct AdminHook {
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
    let hook = paging::single(body).map_err(|source| HookError::Shape { doing, source })?;
    Ok(read_hook(doing, &hook)?.id)
}

/// The whole hook, so that one request corrects whatever is wrong.
fn body(wanted: &Wanted, scope: &str) -> Bytes {
    let headers: BTreeMap<&str, &str> =
        wanted.headers().iter().map(|(name, value)| (name.as_str(), value.expose_secret())).collect();
    let hook = serde_json::json!({
        "scope": scope,
        "destination": wanted.destination(),
        "is_active": true,
        "headers": headers,
    });
    hook.to_string().into()
}

fn request(method: Method, template: &str, id: Option<u64>) -> Result<Request, BadPath> {
    let id = id.map(|id| id.to_string());
    let path = ApiPath::render(template, |_| id.as_deref())?;
    Ok(Request { method, path, query: Vec::new(), body: None, purpose: Purpose::Upkeep })
}

fn done(doing: &'static str, reply: Reply) -> Result<Reply, HookError> {
    if reply.answer == Answer::Done { Ok(reply) } else { Err(failed(doing, reply)) }
}

fn failed(doing: &'static str, reply: Reply) -> HookError {
    HookError::Reply { doing, detail: reply.detail, answer: reply.answer }
}
