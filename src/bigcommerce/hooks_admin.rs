//! What BigCommerce says of the health of webhooks: which it switched off, and which domains it does not deliver to
//! for now.
//!
//! It reads and never changes anything. A reply is taken with what can be understood of it: a field that is missing
//! or new never hides the others.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::hooks::{HookError, done, list, request};
use super::hooks_plan::Hook;
use crate::model::envelope::{self, BadShape};
use crate::model::request::Method;
use crate::runtime::ports::Store;

const ADMIN: &str = "/v3/hooks/admin";
const DOING: &str = "reading the webhooks' status";

/// The state of a store's webhooks.
#[derive(Debug)]
pub struct Status {
    /// The hooks.
    pub hooks: Vec<Hook>,
    /// What BigCommerce says of them.
    pub admin: Admin,
}

/// What BigCommerce says of the hooks of one client.
#[derive(Debug, Clone, Default)]
pub struct Admin {
    /// The status of each hook by id: `active`, `inactive` or `deactivated`, as the store words it.
    pub states: BTreeMap<u64, String>,
    /// Domains that BigCommerce does not deliver to for now.
    pub blocked: Vec<BlockedDomain>,
    /// How many people are told when a hook is deactivated or a domain blocked.
    pub emails: usize,
}

impl Admin {
    /// Whether BigCommerce itself switched the hook off, after its last retry or for want of use.
    pub fn is_deactivated(&self, id: u64) -> bool {
        self.states.get(&id).is_some_and(|state| state == "deactivated")
    }
}

/// A domain that failed too often.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct BlockedDomain {
    /// The domain, or the destination.
    pub destination: String,
    /// Seconds until it is tried again.
    pub time_left_s: u64,
    /// Why, each with how often.
    pub reasons: Vec<String>,
}

/// Reads the hooks and what BigCommerce says of them.
///
/// # Errors
/// A reply that could not be understood.
pub async fn status(store: &impl Store) -> Result<Status, HookError> {
    Ok(Status { hooks: list(store).await?, admin: admin(store).await? })
}

/// Reads what BigCommerce says of the hooks.
///
/// # Errors
/// A reply that could not be understood.
pub async fn admin(store: &impl Store) -> Result<Admin, HookError> {
    let reply = done(DOING, store.send(request(Method::Get, ADMIN, None)?).await)?;
    let body = envelope::single(&reply.body).map_err(|source| HookError::Shape { doing: DOING, source })?;
    let wire: Wire = serde_json::from_slice(&body).map_err(|_| HookError::Shape {
        doing: DOING,
        source: BadShape::Not { wanted: "the webhooks' status" },
    })?;
    let hooks = wire.hooks_list.unwrap_or_default().into_iter();
    Ok(Admin {
        states: hooks.filter_map(|hook| Some((hook.id?, hook.status?))).collect(),
        blocked: wire.blocked_domains.unwrap_or_default().into_iter().map(blocked).collect(),
        emails: wire.emails.unwrap_or_default().len(),
    })
}

fn blocked(wire: WireBlocked) -> BlockedDomain {
    let reasons = wire.reasons.unwrap_or_default().into_iter().map(|reason| match reason {
        WireReason::Text(text) => text,
        WireReason::Counted { failure_description, count: Some(count) } => {
            format!("{failure_description} ({count} times)")
        }
        WireReason::Counted { failure_description, count: None } => failure_description,
        WireReason::Other(_) => "not stated".to_owned(),
    });
    BlockedDomain {
        destination: wire.destination.unwrap_or_default(),
        time_left_s: wire.time_left.and_then(|left| u64::try_from(left).ok()).unwrap_or(0),
        reasons: reasons.collect(),
    }
}

#[derive(Deserialize)]
struct Wire {
    emails: Option<Vec<serde::de::IgnoredAny>>,
    hooks_list: Option<Vec<WireHook>>,
    blocked_domains: Option<Vec<WireBlocked>>,
}

#[derive(Deserialize)]
struct WireHook {
    id: Option<u64>,
    status: Option<String>,
}

#[derive(Deserialize)]
struct WireBlocked {
    destination: Option<String>,
    time_left: Option<i64>,
    reasons: Option<Vec<WireReason>>,
}

/// An object in the specification; a text costs one line more.
#[derive(Deserialize)]
#[serde(untagged)]
enum WireReason {
    Counted { failure_description: String, count: Option<u64> },
    Text(String),
    Other(serde::de::IgnoredAny),
}
