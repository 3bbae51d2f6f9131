//! A request to the store and what became of it, in words that both paths share.
//!
//! A path can only be made from a template of the catalogue and checked ids, so no caller can reach another
//! host, another store or a collection that it did not mean. HTTP statuses stay with the client; here a reply
//! is one of the things that may have happened.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::ids::{BadId, check_part};

/// The HTTP method of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Method {
    /// Reads.
    Get,
    /// Creates.
    Post,
    /// Replaces or updates.
    Put,
    /// Deletes.
    Delete,
}

impl Method {
    /// The method's name on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Delete => "DELETE",
        }
    }
}

/// A path below `/stores/<hash>`, such as `/v3/catalog/products/77`, rendered from a template.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ApiPath {
    template: Arc<str>,
    rendered: Arc<str>,
}

impl ApiPath {
    /// Fills the `{name}` segments of a template. Each value is a checked, non-empty part of an id.
    ///
    /// # Errors
    /// A value that is missing or is not an id; nothing is rendered then.
    pub fn render<'a>(template: &str, value: impl Fn(&str) -> Option<&'a str>) -> Result<Self, BadPath> {
        if !(template.starts_with("/v2/") || template.starts_with("/v3/")) {
            return Err(BadPath::NotAnApiPath(template.to_owned()));
        }
        let mut rendered = String::with_capacity(template.len() + 16);
        for segment in template.split('/').skip(1) {
            rendered.push('/');
            match segment.strip_prefix('{').and_then(|s| s.strip_suffix('}')) {
                None => rendered.push_str(segment),
                Some(name) => {
                    let found = value(name).ok_or_else(|| BadPath::MissingId(name.to_owned()))?;
                    check_part(found).map_err(|bad| BadPath::BadId { name: name.to_owned(), bad })?;
                    rendered.push_str(found);
                }
            }
        }
        Ok(Self { template: template.into(), rendered: rendered.into() })
    }

    /// The template: one of a closed set, fit for a metric label or a concurrency cap.
    pub fn template(&self) -> &Arc<str> {
        &self.template
    }

    /// The path with its ids.
    pub fn as_str(&self) -> &str {
        &self.rendered
    }
}

/// Why a path could not be rendered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadPath {
    /// The template does not start with the API's version.
    #[error("the path template {0:?} does not start with /v2/ or /v3/")]
    NotAnApiPath(String),
    /// An id that the template needs was not given.
    #[error("the path needs {0:?}, which is missing")]
    MissingId(String),
    /// An id that was given is not one.
    #[error("the path id {name:?} is wrong: {bad}")]
    BadId {
        /// The id's name in the template.
        name: String,
        /// What is wrong with it.
        bad: BadId,
    },
}

/// What the request is for; it decides who gets the last calls of a window. The order is the order of precedence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Purpose {
    /// A read caused by a callback.
    Live,
    /// A write caused by a command, and the reads that it needs.
    Command,
    /// Hook upkeep, probes and other reads that a person waits for.
    Upkeep,
    /// A read of single entities that somebody asked for.
    Sync,
    /// A list that is read on schedule, for entities without callbacks.
    Poll,
    /// A list that is compared with what was published, to repair what callbacks missed.
    Sweep,
    /// A list of everything, and the reads that it leads to.
    Snapshot,
}

impl Purpose {
    /// All, in the order of precedence.
    pub const ALL: [Self; 7] =
        [Self::Live, Self::Command, Self::Upkeep, Self::Sync, Self::Poll, Self::Sweep, Self::Snapshot];

    /// The name: a label of metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Command => "command",
            Self::Upkeep => "upkeep",
            Self::Sync => "sync",
            Self::Poll => "poll",
            Self::Sweep => "sweep",
            Self::Snapshot => "snapshot",
        }
    }

    /// Whether it always has a backlog and nobody waits for it: it takes what is left, spread evenly.
    pub const fn is_backfill(self) -> bool {
        match self {
            Self::Live | Self::Command | Self::Upkeep | Self::Sync => false,
            Self::Poll | Self::Sweep | Self::Snapshot => true,
        }
    }
}

/// A request to one store's management API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The method.
    pub method: Method,
    /// Where to.
    pub path: ApiPath,
    /// Query parameters, not yet encoded, in order.
    pub query: Vec<(String, String)>,
    /// The JSON body, if any.
    pub body: Option<Bytes>,
    /// What for.
    pub purpose: Purpose,
}

/// What became of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// The meaning of the status.
    pub answer: Answer,
    /// The status itself, for reports; 0 when no reply came.
    pub status: u16,
    /// The whole body, decoded; at most 16 MiB.
    pub body: Bytes,
    /// BigCommerce's id of the request, for its support.
    pub request_id: Option<String>,
    /// One clause for people: what went wrong, without any customer's data.
    pub detail: String,
}

/// The meaning of a reply. `Doubtful` is the honest answer wherever a write may have been applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Answer {
    /// Done, with the whole body (2xx but 207).
    Done,
    /// Partly done: the body tells which part (207).
    Partial,
    /// There is no such thing (404, 410).
    Missing,
    /// Something else holds the same unique value, or the version moved (409).
    Conflict,
    /// Refused for its content; the same request will be refused again (400, 405, 406, 413, 415, 422 ...).
    Invalid,
    /// The token is not valid (401).
    Unauthorized,
    /// The token lacks a scope or the plan lacks the feature (403).
    Forbidden,
    /// Not applied; worth another try, not before `after` (429, 423, or a connection that could not be made).
    Busy {
        /// How long to wait at least.
        after: Duration,
    },
    /// May or may not have been applied (5xx, 408, cut or late replies).
    Doubtful,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn purposes_stand_in_the_order_of_their_precedence() {
        assert!(Purpose::ALL.is_sorted());
        assert!(Purpose::ALL.into_iter().enumerate().all(|(at, purpose)| purpose as usize == at));
    }
}
