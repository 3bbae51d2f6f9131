//! The API's operations: which handler serves which method and path.
//!
//! Rows of the catalogue get the generic handlers; what a row cannot say is a function named in the table below. A
//! handler runs to its end while the state is locked and does no I/O.

pub(crate) mod bodies;
pub(crate) mod carts;
pub(crate) mod categories;
pub(crate) mod checkouts;
pub(crate) mod consignments;
pub(crate) mod customers;
pub(crate) mod generic;
pub(crate) mod hooks;
pub(crate) mod images;
pub(crate) mod inventory;
pub(crate) mod orders;
pub(crate) mod parts;
pub(crate) mod payments;
pub(crate) mod pricing;
pub(crate) mod products;
mod routes;
pub(crate) mod sets;
pub(crate) mod shipments;
pub(crate) mod singles;
pub(crate) mod store_info;
pub(crate) mod writes;

use std::sync::LazyLock;

use serde_json::{Map, Value, json};

use self::bodies::Facts;
use super::blocklist::Blocked;
use super::query::Query;
use super::reply::Reply;
use super::specs::{self, Spec};
use super::state::State;
use super::store::Key;

/// A request on its way through a handler.
pub(crate) struct Call<'a> {
    pub(crate) state: &'a mut State,
    /// The pattern of the path that was asked for.
    pub(crate) pattern: &'static str,
    pub(crate) query: &'a Query,
    pub(crate) body: &'a Value,
    /// What is documented about the body.
    pub(crate) facts: Option<&'static Facts>,
    /// The path parameters in order.
    pub(crate) params: Vec<String>,
    /// Destinations blocked now, for the hooks' admin page.
    pub(crate) blocked: &'a [Blocked],
    /// The call deleted, or would have deleted, a whole collection.
    pub(crate) forbidden: bool,
}

impl Call<'_> {
    /// The path parameter at `index` as an id.
    pub(crate) fn key(&self, index: usize) -> Key {
        self.params.get(index).map_or(Key::Int(0), |text| Key::parse(text))
    }

    /// Refuses an item of a batch whose fields are missing or of the wrong type.
    pub(crate) fn faults_of(&self, item: &Map<String, Value>) -> Result<(), Reply> {
        let Some(facts) = self.facts else { return Ok(()) };
        let errors = facts.faults(item);
        if errors.is_empty() { Ok(()) } else { Err(facts.refuse(errors)) }
    }
}

/// The answer, or the refusal; both go out the same way.
pub(crate) type Answer = Result<Reply, Reply>;

/// What serves a route.
#[derive(Clone, Copy)]
pub(crate) enum Handler {
    Special(fn(&mut Call<'_>) -> Answer),
    Generic(generic::Verb, &'static Spec),
}

/// Method and path pattern, with what serves them.
pub(crate) struct Route {
    pub(crate) method: &'static str,
    pub(crate) pattern: &'static str,
    pub(crate) handler: Handler,
    /// What is documented about the body.
    pub(crate) facts: Option<&'static Facts>,
}

static ROUTES: LazyLock<Vec<Route>> = LazyLock::new(|| {
    let special = routes::SPECIAL.iter().map(|(method, pattern, run)| Route {
        method,
        pattern,
        handler: Handler::Special(*run),
        facts: bodies::find(method, pattern),
    });
    let generic = specs::all().iter().flat_map(|spec| {
        generic::verbs(spec).into_iter().map(move |(method, pattern, verb)| Route {
            method,
            pattern,
            handler: Handler::Generic(verb, spec),
            facts: bodies::find(method, pattern),
        })
    });
    special.chain(generic).collect()
});

/// Every method and path that is served.
pub(crate) fn routes() -> Value {
    let show = |route: &Route| json!({"method": route.method, "path": route.pattern});
    ROUTES.iter().map(show).collect()
}

/// What calls are counted under whose path leads nowhere.
const NOWHERE: &str = "(no such path)";

/// The pattern of a path, whatever the method.
pub(crate) fn pattern(path: &str) -> &'static str {
    let parts: Vec<&str> = path.trim_end_matches('/').split('/').collect();
    let fitting = ROUTES.iter().filter_map(|route| Some((fit(route.pattern, &parts)?.len(), route.pattern)));
    fitting.min_by_key(|(params, _)| *params).map_or(NOWHERE, |(_, pattern)| pattern)
}

/// What a path leads to.
pub(crate) enum Found {
    Route(&'static Route, Vec<String>),
    /// The path exists, the method does not.
    WrongMethod,
    Nothing,
}

/// Finds the route for a method and a path. A literal segment wins over a parameter, as does an earlier row.
pub(crate) fn find(method: &str, path: &str) -> Found {
    let parts: Vec<&str> = path.trim_end_matches('/').split('/').collect();
    let mut found: Option<(usize, &'static Route, Vec<String>)> = None;
    let mut known_path = false;
    for route in ROUTES.iter() {
        let Some(params) = fit(route.pattern, &parts) else { continue };
        let better = found.as_ref().is_none_or(|(fewest, _, _)| params.len() < *fewest);
        known_path = true;
        if route.method == method && better {
            found = Some((params.len(), route, params));
        }
    }
    match found {
        Some((_, route, params)) => Found::Route(route, params),
        None if known_path => Found::WrongMethod,
        None => Found::Nothing,
    }
}

fn fit(pattern: &str, parts: &[&str]) -> Option<Vec<String>> {
    let mut params = Vec::new();
    let mut count = 0;
    for (index, segment) in pattern.split('/').enumerate() {
        count += 1;
        let part = *parts.get(index)?;
        if segment.starts_with('{') {
            if part.is_empty() {
                return None;
            }
            params.push(percent_encoding::percent_decode_str(part).decode_utf8_lossy().into_owned());
        } else if segment != part {
            return None;
        }
    }
    (count == parts.len()).then_some(params)
}

/// Whether there is a route of exactly this method and pattern.
#[cfg(test)]
pub(crate) fn serves(method: &str, pattern: &str) -> bool {
    let plain = |path: &str| -> Vec<String> {
        let of = |segment: &str| if segment.starts_with('{') { "{}".to_owned() } else { segment.to_owned() };
        path.split('/').map(of).collect()
    };
    ROUTES.iter().any(|route| route.method == method && plain(route.pattern) == plain(pattern))
}

/// Whether a route takes a form with files.
pub(crate) fn takes_form(route: &Route) -> bool {
    let path = route.pattern;
    path.ends_with("/image")
        || path.ends_with("/images")
        || path.contains("/images/{")
        || path.ends_with("/imex/import")
        || path == "/v3/themes"
}

/// Whether a POST or PUT says everything with its path.
pub(crate) fn goes_without_body(route: &Route) -> bool {
    let actions = ["/payment_actions/capture", "/payment_actions/void", "/redirect_urls"];
    actions.iter().any(|action| route.pattern.ends_with(action))
        || (route.pattern.starts_with("/v3/checkouts/")
            && (route.pattern.ends_with("/orders") || route.pattern.ends_with("/token")))
}

/// Runs a route's handler.
pub(crate) fn run(route: &Route, call: &mut Call<'_>) -> Reply {
    let answer = match route.handler {
        Handler::Special(run) => {
            let checked = call.facts.map_or(Ok(()), |facts| facts.check(call.pattern, call.body));
            checked.and_then(|()| run(call))
        }
        Handler::Generic(verb, spec) => generic::run(verb, spec, call),
    };
    let reply = answer.unwrap_or_else(|refusal| refusal);
    if route.pattern.starts_with("/v2/") { reply.in_v2() } else { reply }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(method: &str, path: &str) -> Option<&'static str> {
        match find(method, path) {
            Found::Route(route, _) => Some(route.pattern),
            Found::WrongMethod | Found::Nothing => None,
        }
    }

    #[test]
    fn a_literal_segment_wins_over_a_parameter() {
        assert_eq!(found("GET", "/v2/orders/count"), Some("/v2/orders/count"));
        assert_eq!(found("GET", "/v2/orders/17"), Some("/v2/orders/{order_id}"));
        assert_eq!(found("GET", "/v3/hooks/admin"), Some("/v3/hooks/admin"));
        assert_eq!(found("DELETE", "/v2/orders/"), Some("/v2/orders"));
        assert!(matches!(find("PATCH", "/v2/orders"), Found::WrongMethod));
        assert!(matches!(find("GET", "/v3/nothing"), Found::Nothing));
    }
}
