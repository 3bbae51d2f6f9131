//! The registered webhooks: rules of the hooks API and the match between events and hooks.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::clock;
use super::{events, scopes};

/// Hooks per store, client and scope.
pub(crate) const PER_SCOPE_MAX: usize = 10;

/// One registered webhook.
#[derive(Debug, Clone)]
pub(crate) struct Hook {
    pub(crate) id: u64,
    pub(crate) scope: String,
    pub(crate) destination: Arc<str>,
    pub(crate) headers: Option<Arc<Map<String, Value>>>,
    pub(crate) is_active: bool,
    /// Switched off by the platform after the last retry.
    pub(crate) deactivated: bool,
    pub(crate) created_at: i64,
    pub(crate) updated_at: i64,
}

/// All webhooks of the one client that the simulator knows.
#[derive(Debug)]
pub(crate) struct Hooks {
    rows: BTreeMap<u64, Hook>,
    next: u64,
    pub(crate) emails: Vec<String>,
    client_id: String,
    store_hash: String,
}

/// Why a hook was refused: field and text.
pub(crate) type Refusal = (&'static str, String);

/// What a caller asks of a hook; absent fields stay as they are.
#[derive(Debug, Default, Clone)]
pub(crate) struct Wish {
    pub(crate) scope: Option<String>,
    pub(crate) destination: Option<String>,
    pub(crate) is_active: Option<bool>,
    pub(crate) headers: Option<Option<Map<String, Value>>>,
}

impl Wish {
    /// Reads a request body; the refusal names the first field with a wrong type.
    pub(crate) fn read(body: &Value) -> Result<Wish, Refusal> {
        let text = |name: &'static str| match body.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(_) => Err((name, format!("{name} must be a string"))),
        };
        let headers = match body.get("headers") {
            None => None,
            Some(Value::Null) => Some(None),
            Some(Value::Object(map)) if map.values().all(Value::is_string) => Some(Some(map.clone())),
            Some(_) => return Err(("headers", "headers must be an object of strings".to_owned())),
        };
        let is_active = match body.get("is_active") {
            None | Some(Value::Null) => None,
            Some(Value::Bool(flag)) => Some(*flag),
            Some(_) => return Err(("is_active", "is_active must be a boolean".to_owned())),
        };
        Ok(Wish { scope: text("scope")?, destination: text("destination")?, is_active, headers })
    }

    fn is_empty(&self) -> bool {
        self.scope.is_none()
            && self.destination.is_none()
            && self.is_active.is_none()
            && self.headers.is_none()
    }
}

impl Hooks {
    pub(crate) fn new(client_id: &str, store_hash: &str) -> Hooks {
        Hooks {
            rows: BTreeMap::new(),
            next: 1,
            emails: Vec::new(),
            client_id: client_id.to_owned(),
            store_hash: store_hash.to_owned(),
        }
    }

    /// Registers a hook.
    pub(crate) fn create(&mut self, wish: Wish) -> Result<Hook, Refusal> {
        let scope = wish.scope.ok_or(("scope", "scope is required".to_owned()))?;
        let destination = wish.destination.ok_or(("destination", "destination is required".to_owned()))?;
        self.check(None, &scope, &destination)?;
        let id = self.next;
        self.next += 1;
        let now = clock::unix_s();
        let hook = Hook {
            id,
            scope: normal(&scope).to_owned(),
            destination: Arc::from(destination),
            headers: wish.headers.flatten().map(Arc::new),
            is_active: wish.is_active.unwrap_or(true),
            deactivated: false,
            created_at: now,
            updated_at: now,
        };
        self.rows.insert(id, hook.clone());
        Ok(hook)
    }

    /// Changes a hook; none when there is no such hook.
    pub(crate) fn update(&mut self, id: u64, wish: Wish) -> Option<Result<Hook, Refusal>> {
        let old = self.rows.get(&id)?.clone();
        if wish.is_empty() {
            return Some(Err(("scope", "at least one field is required".to_owned())));
        }
        let scope = wish.scope.unwrap_or_else(|| old.scope.clone());
        let destination = wish.destination.unwrap_or_else(|| old.destination.to_string());
        if let Err(refusal) = self.check(Some(id), &scope, &destination) {
            return Some(Err(refusal));
        }
        let hook = self.rows.get_mut(&id)?;
        normal(&scope).clone_into(&mut hook.scope);
        hook.destination = Arc::from(destination);
        if let Some(headers) = wish.headers {
            hook.headers = headers.map(Arc::new);
        }
        if let Some(active) = wish.is_active {
            hook.is_active = active;
            hook.deactivated = false;
        }
        hook.updated_at = clock::unix_s();
        Some(Ok(hook.clone()))
    }

    fn check(&self, own: Option<u64>, scope: &str, destination: &str) -> Result<(), Refusal> {
        let scope = normal(scope);
        if !scopes::is_known(scope) {
            return Err(("scope", format!("The scope '{scope}' is not valid.")));
        }
        if !allowed(destination) {
            return Err((
                "destination",
                "destination must be an https URL on port 443, or a loopback http URL".to_owned(),
            ));
        }
        let others = || self.rows.values().filter(|hook| Some(hook.id) != own && hook.scope == scope);
        if others().any(|hook| &*hook.destination == destination) {
            return Err(("destination", "a hook with this scope and destination already exists".to_owned()));
        }
        if others().count() >= PER_SCOPE_MAX {
            return Err(("scope", format!("at most {PER_SCOPE_MAX} hooks per scope")));
        }
        Ok(())
    }

    pub(crate) fn get(&self, id: u64) -> Option<&Hook> {
        self.rows.get(&id)
    }

    pub(crate) fn remove(&mut self, id: u64) -> Option<Hook> {
        self.rows.remove(&id)
    }

    /// Forgets every hook, as the platform does when the app goes.
    pub(crate) fn clear(&mut self) {
        self.rows.clear();
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Hook> {
        self.rows.values()
    }

    /// Switches a hook off after its last retry; true when it was on.
    pub(crate) fn deactivate(&mut self, id: u64) -> bool {
        let Some(hook) = self.rows.get_mut(&id) else { return false };
        let was = hook.is_active;
        hook.is_active = false;
        hook.deactivated = true;
        hook.updated_at = clock::unix_s();
        was
    }

    /// The active hooks that receive events of `scope`.
    pub(crate) fn receivers<'a>(&'a self, scope: &'a str) -> impl Iterator<Item = &'a Hook> {
        self.rows.values().filter(move |hook| hook.is_active && events::matches(&hook.scope, scope))
    }

    /// The hook as the API shows it.
    pub(crate) fn show(&self, hook: &Hook) -> Map<String, Value> {
        let headers = hook.headers.as_ref().map_or(Value::Null, |map| Value::Object((**map).clone()));
        let shown = json!({"id": hook.id, "client_id": self.client_id, "store_hash": self.store_hash, "scope": hook.scope,
            "destination": &*hook.destination, "headers": headers, "is_active": hook.is_active,
            "created_at": hook.created_at, "updated_at": hook.updated_at});
        match shown {
            Value::Object(map) => map,
            _ => Map::new(),
        }
    }
}

fn normal(scope: &str) -> &str {
    scope.strip_suffix('/').unwrap_or(scope)
}

fn allowed(destination: &str) -> bool {
    let Ok(url) = url::Url::parse(destination) else { return false };
    match url.scheme() {
        "https" => url.port().is_none_or(|port| port == 443) || is_loopback(&url),
        "http" => is_loopback(&url),
        _ => false,
    }
}

fn is_loopback(url: &url::Url) -> bool {
    match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost",
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish(scope: &str, destination: &str) -> Wish {
        Wish { scope: Some(scope.to_owned()), destination: Some(destination.to_owned()), ..Wish::default() }
    }

    #[test]
    fn a_hook_is_refused_for_what_the_documentation_forbids() {
        let mut hooks = Hooks::new("client", "hash");
        hooks.create(wish("store/product/updated", "https://example.com/a")).unwrap();
        let again = hooks.create(wish("store/product/updated", "https://example.com/a"));
        assert_eq!(again.unwrap_err().0, "destination");
        assert_eq!(hooks.create(wish("store/nothing", "https://example.com/a")).unwrap_err().0, "scope");
        for bad in ["http://example.com/a", "https://example.com:8443/a", "ftp://127.0.0.1/", "a"] {
            assert_eq!(
                hooks.create(wish("store/product/updated", bad)).unwrap_err().0,
                "destination",
                "{bad}"
            );
        }
        for number in 0..9 {
            hooks.create(wish("store/product/updated", &format!("http://127.0.0.1:9/{number}"))).unwrap();
        }
        assert_eq!(
            hooks.create(wish("store/product/updated", "https://example.com/z")).unwrap_err().0,
            "scope"
        );
        hooks.create(wish("store/channel/1/order/created", "https://example.com/a")).unwrap();
        hooks.create(wish("store/product/*", "https://example.com/a")).unwrap();
        assert_eq!(hooks.receivers("store/product/updated").count(), 11);
        assert!(hooks.update(1, Wish::default()).unwrap().is_err());
        assert!(hooks.update(99, wish("store/product/*", "https://example.com/q")).is_none());
    }
}
