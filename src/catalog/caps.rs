//! How many requests an endpoint takes at once, as rows of data.
//!
//! The rows that ship are `caps.toml`; a user's row takes its endpoints away from them. The module knows the rows, not
//! the requests: whoever sends keeps to them.

use serde::Deserialize;

use super::check::is_template;
use super::{Fault, nameless};
use crate::model::request::Method;

/// The caps that ship with the bridge.
const CAPS: &str = include_str!("caps.toml");

/// A store is never asked more at once, however many rows say so; a larger figure is a mistake.
const MAX_AT_ONCE: usize = 1000;

const ALL: [Method; 4] = [Method::Get, Method::Post, Method::Put, Method::Delete];

/// One cap: its methods and paths share the places.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cap {
    /// Requests at once.
    pub at_once: usize,
    /// The methods; none for all.
    #[serde(default)]
    pub methods: Vec<Method>,
    /// Path templates; what they call the ids is without meaning.
    pub paths: Vec<String>,
    /// Who says so, for people.
    #[serde(default)]
    pub why: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    cap: Vec<Cap>,
}

/// An endpoint: the method, and the path without the names of its ids.
pub type Endpoint = (Method, String);

impl Cap {
    /// What it covers.
    pub fn endpoints(&self) -> impl Iterator<Item = Endpoint> + '_ {
        let methods = if self.methods.is_empty() { &ALL[..] } else { &self.methods };
        self.paths.iter().flat_map(move |path| methods.iter().map(move |method| (*method, nameless(path))))
    }

    fn covers(&self, endpoint: &Endpoint) -> bool {
        self.endpoints().any(|covered| covered == *endpoint)
    }

    /// This cap without some endpoints; nothing where none is left, and several where what is left is no rectangle.
    fn without(&self, taken: &[Endpoint]) -> Vec<Self> {
        let is_taken = |method: &Method, path: &String| taken.contains(&(*method, nameless(path)));
        if !self.endpoints().any(|endpoint| taken.contains(&endpoint)) {
            return vec![self.clone()];
        }
        let methods = if self.methods.is_empty() { &ALL[..] } else { &self.methods };
        let left = methods.iter().map(|method| Self {
            methods: vec![*method],
            paths: self.paths.iter().filter(|path| !is_taken(method, path)).cloned().collect(),
            ..self.clone()
        });
        left.filter(|cap| !cap.paths.is_empty()).collect()
    }
}

/// The caps that ship with the bridge.
///
/// # Errors
/// Never for the embedded rows, which a test loads.
pub(super) fn embedded() -> Result<Vec<Cap>, Fault> {
    let file: File = toml::from_str(CAPS)
        .map_err(|error| Fault { entity: "caps.toml".to_owned(), what: error.to_string() })?;
    Ok(file.cap)
}

/// The caps with a user's: these take their endpoints away from the others.
pub(super) fn with(caps: &[Cap], own: &[Cap]) -> Vec<Cap> {
    let taken: Vec<Endpoint> = own.iter().flat_map(Cap::endpoints).collect();
    caps.iter().flat_map(|cap| cap.without(&taken)).chain(own.iter().cloned()).collect()
}

/// The cap of an endpoint.
pub(super) fn of<'a>(caps: &'a [Cap], method: Method, path: &str) -> Option<&'a Cap> {
    let endpoint = (method, nameless(path));
    caps.iter().find(|cap| cap.covers(&endpoint))
}

/// What is wrong with caps; each is called `cap N`, counted from 1.
pub(super) fn faults(caps: &[Cap], found: &mut Vec<Fault>) {
    for (at, cap) in caps.iter().enumerate() {
        let mut add = |what: String| found.push(Fault { entity: cap_name(at), what });
        if !(1..=MAX_AT_ONCE).contains(&cap.at_once) {
            add(format!("`at_once` is {}; 1 to {MAX_AT_ONCE} requests run at once", cap.at_once));
        }
        if cap.paths.is_empty() {
            add("it has no paths".to_owned());
        }
        for path in cap.paths.iter().filter(|path| !is_template(path)) {
            add(format!("the path {path:?} is not one: /v2/ or /v3/, then names and whole {{ids}}"));
        }
        let earlier = || caps[..at].iter().flat_map(Cap::endpoints);
        for (method, path) in cap.endpoints().filter(|endpoint| earlier().any(|e| e == *endpoint)) {
            add(format!("{} {path} has two caps", method.as_str()));
        }
    }
}

/// What faults call the cap at a place, counted from 0.
pub(super) fn cap_name(at: usize) -> String {
    format!("cap {}", at + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cap(at_once: usize, methods: &[Method], paths: &[&str]) -> Cap {
        let paths = paths.iter().map(|path| (*path).to_owned()).collect();
        Cap { at_once, methods: methods.to_vec(), paths, why: String::new() }
    }

    #[test]
    fn no_endpoint_that_ships_has_two_caps() {
        let mut found = Vec::new();
        faults(&embedded().unwrap(), &mut found);
        assert_eq!(found, []);
    }

    #[test]
    fn a_users_cap_takes_its_endpoints_and_leaves_the_others() {
        let ours = [cap(40, &[], &["/v3/a", "/v3/a/{id}"]), cap(3, &[Method::Put], &["/v3/b"])];
        let all = with(&ours, &[cap(7, &[Method::Get], &["/v3/a/{other_id}"])]);
        let at = |method, path| of(&all, method, path).map(|cap| cap.at_once);
        assert_eq!(at(Method::Get, "/v3/a/{x}"), Some(7));
        assert_eq!(at(Method::Get, "/v3/a"), Some(40));
        assert_eq!(at(Method::Put, "/v3/a/{x}"), Some(40));
        assert_eq!(at(Method::Put, "/v3/b"), Some(3));
        assert_eq!(at(Method::Get, "/v3/b"), None);
        let mut found = Vec::new();
        faults(&all, &mut found);
        assert_eq!(found, []);
    }

    #[test]
    fn a_cap_that_says_nothing_is_refused() {
        for (wrong, why) in [
            (cap(0, &[], &["/v3/a"]), "1 to 1000"),
            (cap(5, &[], &[]), "no paths"),
            (cap(5, &[], &["/v3/a?b=c"]), "is not one"),
            (cap(5, &[Method::Put, Method::Put], &["/v3/a", "/v3/a"]), ""),
        ] {
            let mut found = Vec::new();
            faults(std::slice::from_ref(&wrong), &mut found);
            assert_eq!(found.is_empty(), why.is_empty(), "{found:?}");
            assert!(found.iter().all(|fault| fault.what.contains(why) && fault.entity == "cap 1"));
        }
        let mut found = Vec::new();
        faults(&[cap(5, &[], &["/v3/{a}"]), cap(6, &[Method::Get], &["/v3/{b}"])], &mut found);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].what, "GET /v3/{} has two caps");
    }
}
