//! One request that no fault has stopped: its body is read, its handler runs, and what it did is written down.
//!
//! Everything happens while the store is locked, so that the log has the order of the effects. A body that is no JSON,
//! or no form where the API takes forms, is refused before the store is touched.

use bytes::Bytes;
use serde_json::Value;

use super::core::Core;
use super::forms;
use super::history::{self, Hash};
use super::query::Query;
use super::reply::Reply;
use super::resources::{self, Call, Route};
use super::{clock, partly};

/// How a body says it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    Json,
    /// A form with files; its boundary.
    Form(String),
    Other,
}

impl Kind {
    /// Reads the header; a body without one is taken for JSON.
    pub(crate) fn of(header: Option<&str>) -> Kind {
        let Some(header) = header else { return Kind::Json };
        let lower = header.to_ascii_lowercase();
        if lower.contains("json") {
            return Kind::Json;
        }
        let boundary = header.split(';').find_map(|part| part.trim().strip_prefix("boundary="));
        match boundary {
            Some(boundary) if lower.starts_with("multipart/form-data") => {
                Kind::Form(boundary.trim_matches('"').to_owned())
            }
            _ => Kind::Other,
        }
    }
}

/// One API request as the log and the handlers see it.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) method: String,
    /// From `/v2` or `/v3` on.
    pub(crate) path: String,
    pub(crate) query: String,
    pub(crate) body: Bytes,
    pub(crate) hash: Hash,
    pub(crate) kind: Kind,
    /// The number of the request.
    pub(crate) number: u64,
}

impl Asked {
    pub(crate) fn is_read(&self) -> bool {
        matches!(self.method.as_str(), "GET" | "HEAD")
    }

    /// The request as the log keeps it.
    pub(crate) fn entry(&self, status: u16) -> history::Asked {
        history::Asked {
            unix_ms: clock::unix_ms(),
            method: self.method.as_str().into(),
            path: self.path.as_str().into(),
            query: self.query.as_str().into(),
            hash: self.hash,
            status,
            request: self.number,
        }
    }
}

/// What is special about the way a request is done.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Way {
    /// The caller will not see the whole answer.
    pub(crate) cut: bool,
    /// The caller is long gone.
    pub(crate) late: bool,
    /// Done in part, where that is documented.
    pub(crate) partly: bool,
}

impl Way {
    /// After the connection was cut.
    pub(crate) const LATE: Way = Way { cut: true, late: true, partly: false };
}

/// Finds the handler of a request and runs it.
pub(crate) fn perform(core: &Core, asked: &Asked, way: Way) -> Reply {
    match resources::find(&asked.method, &asked.path) {
        resources::Found::Route(route, params) => run(core, asked, (route, params), way),
        resources::Found::WrongMethod => Reply::error(&asked.path, 405, "Method not allowed."),
        resources::Found::Nothing => Reply::error(&asked.path, 404, "Not found."),
    }
}

/// Runs a handler that was found.
pub(crate) fn run(
    core: &Core,
    asked: &Asked,
    (route, params): (&'static Route, Vec<String>),
    way: Way,
) -> Reply {
    let mut body = match body(asked, route) {
        Ok(body) => body,
        Err(reply) => return reply,
    };
    let plan = way.partly.then(|| partly::Plan::of(route, &mut body)).flatten();
    let blocked = core.deliverer.blocked();
    let query = Query::parse(&asked.query);
    core.with(|state| {
        state.look_at(asked.is_read(), route.pattern);
        let own = params.last().filter(|_| route.pattern.ends_with('}')).cloned();
        let pattern = route.pattern;
        let mut call = Call {
            state,
            pattern,
            query: &query,
            body: &body,
            facts: route.facts,
            params,
            blocked: &blocked,
            forbidden: false,
        };
        let before = call.state.changes;
        let mut reply = resources::run(route, &mut call);
        let changed = call.state.changes != before;
        let forbidden = call.forbidden;
        if let Some(plan) = plan {
            reply = plan.word(reply);
        }
        // Some refusals keep the good part of a batch.
        let accepted = !asked.is_read() && (changed || (200..300).contains(&reply.status));
        core.log(|log| {
            log.stats.forbidden_collection_deletes += u64::from(forbidden);
            if accepted {
                log.write(kept(asked, own, &reply, way, forbidden));
            }
        });
        reply
    })
}

fn kept(asked: &Asked, own: Option<String>, reply: &Reply, way: Way, forbidden: bool) -> history::Kept {
    let key = own.or_else(|| {
        let body = reply.body.as_ref()?;
        let id = body.get("data").unwrap_or(body).get("id").filter(|_| asked.method == "POST")?;
        Some(id.as_str().map_or_else(|| id.to_string(), str::to_owned))
    });
    history::Kept {
        asked: asked.entry(reply.status),
        key: key.unwrap_or_default().into(),
        body: (!asked.body.is_empty()).then(|| asked.body.as_ref().into()),
        answer_cut: way.cut,
        late: way.late,
        forbidden,
    }
}

/// What a request's body holds; null when there is none.
fn body(asked: &Asked, route: &Route) -> Result<Value, Reply> {
    let path = asked.path.as_str();
    if asked.body.is_empty() || asked.is_read() {
        let needs = matches!(route.method, "POST" | "PUT") && !resources::goes_without_body(route);
        return if needs { Err(Reply::error(path, 400, "The body is empty.")) } else { Ok(Value::Null) };
    }
    match &asked.kind {
        Kind::Form(boundary) if resources::takes_form(route) => Ok(forms::read(&asked.body, boundary)),
        Kind::Json => serde_json::from_slice(&asked.body)
            .map_err(|_| Reply::error(path, 400, "The body is not valid JSON.")),
        Kind::Form(_) | Kind::Other => {
            Err(Reply::error(path, 415, "The content type must be application/json."))
        }
    }
}
