//! The subscriptions that a store should have, and which of its webhooks are ours. Pure.
//!
//! A hook is ours if its destination is the wanted one, or if it carries the header that we put on every hook we make
//! ([`MARKER`], naming this bridge and this store) *and* its destination's path ends with `/webhooks/<store>`: that
//! is a hook of ours from before the bridge moved to another host. Every other hook belongs to somebody else (another
//! bridge on the same store included) and is never touched, whatever its scope.

use std::collections::{BTreeMap, BTreeSet};

use secrecy::{ExposeSecret, SecretString};
use url::Url;

use super::hooks_scopes::{self, Subscription};

/// The header on every hook we make, holding `<kafka prefix>/<store>`: what tells two bridges apart that call one store
/// by one name. BigCommerce replays it on callbacks, where it does no harm; it is no secret. Hooks from before the
/// prefix was part of it hold the store's name alone: at the right destination they are ours all the same, and get the
/// new value; elsewhere nobody can tell whose they are.
pub const MARKER: &str = "x-bcbridge-store";

/// The one scope of which a store takes a single hook of a client, at a destination that no other hook has.
const DELIVERY_EXCEPTION: &str = "store/hook/deliveryException";
/// Makes a destination of its own of the usual one: the receiver reads the path alone.
const OWN_DESTINATION: &str = "?about=hooks";

/// Which bridge, for which store of its settings.
#[derive(Debug, Clone, Copy)]
pub struct Owner<'a> {
    /// The prefix of the bridge's topics: two bridges on one Kafka never share it.
    pub prefix: &'a str,
    /// The store's name in the settings.
    pub store: &'a str,
}

/// The subscriptions that a store should have.
#[derive(Debug, Clone)]
pub struct Wanted {
    store: String,
    destination: String,
    scopes: BTreeSet<String>,
    /// By name in lower case, what a callback may hold: the first value is set on hooks.
    headers: BTreeMap<String, Vec<SecretString>>,
}

impl Wanted {
    /// Subscriptions of a store to scopes, delivered to `<public_url>/webhooks/<store>` with extra headers, whose
    /// values are taken as secrets: of each the first is set on hooks, and the others are taken as well, from hooks
    /// that do not have the first yet. Header names are lowercased; the marker is added.
    pub fn new(
        owner: Owner<'_>,
        public_url: &Url,
        scopes: impl IntoIterator<Item = String>,
        headers: impl IntoIterator<Item = (String, Vec<SecretString>)>,
    ) -> Self {
        let Owner { prefix, store } = owner;
        let headers = headers.into_iter().filter(|(_, values)| !values.is_empty());
        let mut headers: BTreeMap<_, _> =
            headers.map(|(name, values)| (name.to_ascii_lowercase(), values)).collect();
        headers.insert(MARKER.to_owned(), vec![SecretString::from(format!("{prefix}/{store}"))]);
        Self {
            store: store.to_owned(),
            destination: format!("{}/webhooks/{store}", public_url.as_str().trim_end_matches('/')),
            scopes: scopes.into_iter().map(|scope| tidy(&scope).to_owned()).collect(),
            headers,
        }
    }

    /// The store's name in the config.
    pub fn store(&self) -> &str {
        &self.store
    }

    /// Where callbacks go.
    pub fn destination(&self) -> &str {
        &self.destination
    }

    /// Where callbacks of a scope go: the destination, but for the scope that insists on one of its own.
    pub fn destination_of(&self, scope: &str) -> String {
        let own = if tidy(scope) == DELIVERY_EXCEPTION { OWN_DESTINATION } else { "" };
        format!("{}{own}", self.destination)
    }

    /// The scopes, in order; those of single channels with `{channel_id}` in them.
    pub fn scopes(&self) -> impl Iterator<Item = &str> {
        self.scopes.iter().map(String::as_str)
    }

    /// Whether the store's channels must be known.
    pub fn needs_channels(&self) -> bool {
        self.scopes().any(hooks_scopes::is_of_channel)
    }

    /// The fewest hooks for the scopes, on a store with these channels.
    pub fn subscriptions(&self, channels: &[u64]) -> Vec<Subscription> {
        hooks_scopes::fewest(self.scopes(), channels)
    }

    /// What is set on hooks.
    pub(super) fn headers(&self) -> impl Iterator<Item = (&str, &SecretString)> {
        self.headers.iter().filter_map(|(name, values)| Some((name.as_str(), values.first()?)))
    }

    /// Whether the hook is ours.
    pub fn is_ours(&self, hook: &Hook) -> bool {
        if self.is_here(hook) {
            return true;
        }
        let marked = self.header(MARKER).zip(hook.header(MARKER)).is_some_and(|(own, found)| own == found);
        let path = Url::parse(&hook.destination).map(|url| url.path().to_owned()).unwrap_or_default();
        marked && path.ends_with(&format!("/webhooks/{}", self.store))
    }

    /// Whether the hook's destination is the wanted one, however it is spelled.
    pub(super) fn is_here(&self, hook: &Hook) -> bool {
        let wanted = self.destination_of(&hook.scope);
        match (Url::parse(&wanted), Url::parse(&hook.destination)) {
            (Ok(wanted), Ok(found)) => wanted == found,
            _ => wanted == hook.destination,
        }
    }

    /// Whether the hook's callbacks arrive: it fires, at the right place, with headers that the receiver takes.
    pub(super) fn is_delivered(&self, hook: &Hook) -> bool {
        let taken = |(name, values): (&String, &Vec<SecretString>)| {
            let found = hook.header(name);
            name == MARKER || values.iter().any(|value| Some(value.expose_secret()) == found)
        };
        hook.is_active && self.is_here(hook) && self.headers.iter().all(taken)
    }

    /// Whether callbacks to `destination`, a domain or a URL, include ours.
    pub(super) fn is_our_domain(&self, destination: &str) -> bool {
        let host = |text: &str| {
            let url = Url::parse(text).ok().filter(Url::has_host);
            let url = url.or_else(|| Url::parse(&format!("https://{text}")).ok());
            url.and_then(|url| url.host_str().map(str::to_ascii_lowercase))
        };
        host(&self.destination).is_some_and(|ours| host(destination) == Some(ours))
    }

    /// Names of the headers that differ, on either side. Values stay out of it.
    pub(super) fn differing_headers(&self, hook: &Hook) -> Vec<String> {
        let found = hook.headers.keys().map(|name| name.to_ascii_lowercase());
        let names: BTreeSet<String> = self.headers.keys().cloned().chain(found).collect();
        names.into_iter().filter(|name| self.header(name) != hook.header(name)).collect()
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|values| values.first()).map(ExposeSecret::expose_secret)
    }
}

/// A webhook as the store has it.
#[derive(Debug, Clone)]
pub struct Hook {
    /// The store's id of it.
    pub id: u64,
    /// What it subscribes to.
    pub scope: String,
    /// Where its callbacks go.
    pub destination: String,
    /// What is sent along; the values may be secrets.
    pub headers: BTreeMap<String, SecretString>,
    /// Whether it fires.
    pub is_active: bool,
    /// When it was made or changed last, in seconds since 1970; 0 where the store does not tell.
    pub touched_s: i64,
}

impl Hook {
    fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(found, _)| found.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.expose_secret())
    }
}

/// BigCommerce's samples write some scopes with a trailing slash.
pub(super) fn tidy(scope: &str) -> &str {
    scope.trim().trim_end_matches('/')
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in super::super) const HERE: &str = "https://bridge.example.com/in/webhooks/main";
    const OWNER: Owner<'static> = Owner { prefix: "shop", store: "main" };

    pub(in super::super) fn wanted(scopes: &[&str]) -> Wanted {
        let public = Url::parse("https://bridge.example.com/in/").unwrap();
        let values = ["hush", "older"].map(SecretString::from).to_vec();
        let headers = [("X-Bridge-Key".to_owned(), values)];
        Wanted::new(OWNER, &public, scopes.iter().map(|s| (*s).to_owned()), headers)
    }

    pub(in super::super) fn hook(id: u64, scope: &str, destination: &str) -> Hook {
        let headers = [("x-bridge-key", "hush"), (MARKER, "shop/main")];
        let headers = headers.map(|(name, value)| (name.to_owned(), SecretString::from(value)));
        Hook {
            id,
            scope: scope.to_owned(),
            destination: destination.to_owned(),
            headers: headers.into(),
            is_active: true,
            touched_s: 1_700_000_000,
        }
    }

    fn marked(mut hook: Hook, marker: &str) -> Hook {
        hook.headers.insert(MARKER.to_owned(), SecretString::from(marker));
        hook
    }

    #[test]
    fn a_hook_is_ours_by_its_place_or_by_its_marker_and_path() {
        let wanted = wanted(&[]);
        let old = "https://old.example.com/webhooks/main";
        let is_ours = |destination: &str, marker: &str| {
            wanted.is_ours(&marked(hook(1, "store/order/*", destination), marker))
        };
        assert!(is_ours(HERE, "shop/main") && is_ours(HERE, "main") && is_ours(HERE, "x"));
        assert!(is_ours(old, "shop/main"));
        // The name alone is an old marker, or another bridge's: nobody can tell.
        assert!(!is_ours(old, "main") && !is_ours(old, "another/main") && !is_ours(old, "shop/other"));
        assert!(!is_ours("https://old.example.com/other", "shop/main"));
    }

    #[test]
    fn callbacks_with_a_value_that_is_on_its_way_out_arrive_still() {
        let wanted = wanted(&[]);
        let with = |value: &str| {
            let mut hook = hook(1, "store/order/*", HERE);
            hook.headers.insert("x-bridge-key".to_owned(), SecretString::from(value));
            (wanted.is_delivered(&hook), wanted.differing_headers(&hook).len())
        };
        assert_eq!(with("hush"), (true, 0));
        assert_eq!(with("older"), (true, 1));
        assert_eq!(with("another"), (false, 1));
    }

    #[test]
    fn the_hook_about_hooks_has_a_destination_of_its_own_on_the_same_path() {
        let wanted = wanted(&[DELIVERY_EXCEPTION]);
        let own = wanted.destination_of("store/hook/deliveryException/");
        assert_ne!(own, wanted.destination());
        assert_eq!(Url::parse(&own).unwrap().path(), Url::parse(HERE).unwrap().path());
        assert!(wanted.is_here(&hook(1, DELIVERY_EXCEPTION, &own)));
        assert!(!wanted.is_here(&hook(1, DELIVERY_EXCEPTION, HERE)));
    }

    #[test]
    fn a_domain_is_ours_as_a_name_and_as_an_address() {
        let wanted = wanted(&[]);
        for ours in ["bridge.example.com", "https://bridge.example.com", "HTTPS://BRIDGE.example.com/x"] {
            assert!(wanted.is_our_domain(ours), "{ours}");
        }
        for other in ["example.com", "", "https://other.example.com/in/webhooks/main", "not a domain"] {
            assert!(!wanted.is_our_domain(other), "{other}");
        }
    }
}
