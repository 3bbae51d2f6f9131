//! The address of a request: the configured origin and store, and nothing that a caller could bend. Pure.

use std::fmt::Write as _;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use url::Url;

use crate::model::request::ApiPath;

/// Everything but unreserved characters, and `:` and `,`, which BigCommerce's filters are made of.
const IN_QUERY: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~').remove(b':').remove(b',');

/// Longest address, in bytes. BigCommerce documents none; gateways commonly end at 8 to 16 KiB.
const MAX_BYTES: usize = 16 * 1024;

/// Why an address could not be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadAddress {
    /// The base address is unusable.
    #[error("the base address {found:?} is not usable: {rule}")]
    Base {
        /// The address without any password.
        found: String,
        /// The rule that it breaks.
        rule: &'static str,
    },
    /// The store's hash is malformed.
    #[error("the store hash {0:?} is not made of 1 to 64 letters and digits")]
    StoreHash(String),
    /// The path would lead elsewhere.
    #[error("the path leads outside the store")]
    Outside,
    /// The address is too long.
    #[error("the address is longer than {MAX_BYTES} bytes")]
    TooLong,
}

/// Where one store's API lives.
#[derive(Debug, Clone)]
pub(super) struct Address {
    base: Url,
    prefix: String,
}

impl Address {
    /// Joins the base and the store. Plain HTTP is taken for loopback hosts, and for others only where allowed.
    pub(super) fn new(base: &Url, store_hash: &str, allow_plain_http: bool) -> Result<Self, BadAddress> {
        let bad = |rule| {
            let mut found = base.clone();
            let _ = found.set_password(None);
            Err(BadAddress::Base { found: found.to_string(), rule })
        };
        match base.scheme() {
            "https" => {}
            "http" if allow_plain_http || is_loopback(base) => {}
            "http" => return bad("the token must not travel in the clear: use https"),
            _ => return bad("it must be https"),
        }
        if base.host_str().is_none_or(str::is_empty) {
            return bad("it has no host");
        }
        if !base.username().is_empty() || base.password().is_some() {
            return bad("it must not carry a user or a password");
        }
        if base.query().is_some() || base.fragment().is_some() {
            return bad("it must not carry a query or a fragment");
        }
        let hash_ok =
            (1..=64).contains(&store_hash.len()) && store_hash.bytes().all(|b| b.is_ascii_alphanumeric());
        if !hash_ok {
            return Err(BadAddress::StoreHash(store_hash.chars().take(80).collect()));
        }
        let prefix = format!("{}/stores/{store_hash}", base.path().trim_end_matches('/'));
        Ok(Self { base: base.clone(), prefix })
    }

    /// The address of a path with a query. Each name and value is encoded exactly once.
    pub(super) fn of(&self, path: &ApiPath, query: &[(String, String)]) -> Result<Url, BadAddress> {
        let mut url = self.base.clone();
        let full = format!("{}{}", self.prefix, path.as_str());
        url.set_path(&full);
        if !query.is_empty() {
            url.set_query(Some(&render(query)));
        }
        let same_origin = url.scheme() == self.base.scheme()
            && url.host() == self.base.host()
            && url.port_or_known_default() == self.base.port_or_known_default();
        if !same_origin || url.path() != full {
            return Err(BadAddress::Outside);
        }
        if url.as_str().len() > MAX_BYTES {
            return Err(BadAddress::TooLong);
        }
        Ok(url)
    }
}

fn render(query: &[(String, String)]) -> String {
    let mut out = String::new();
    for (name, value) in query {
        let join = if out.is_empty() { "" } else { "&" };
        let (name, value) = (utf8_percent_encode(name, IN_QUERY), utf8_percent_encode(value, IN_QUERY));
        write!(out, "{join}{name}={value}").expect("writing to a string cannot fail");
    }
    out
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost",
        Some(url::Host::Ipv4(ip)) => ip.is_loopback(),
        Some(url::Host::Ipv6(ip)) => ip.is_loopback(),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn address(base: &str) -> Result<Address, BadAddress> {
        Address::new(&Url::parse(base).unwrap(), "abc123", false)
    }

    fn path() -> ApiPath {
        ApiPath::render("/v3/catalog/products/{id}", |_| Some("77")).unwrap()
    }

    #[test]
    fn the_store_and_the_path_follow_the_base() {
        for (base, expected) in [
            (
                "https://api.bigcommerce.com",
                "https://api.bigcommerce.com/stores/abc123/v3/catalog/products/77",
            ),
            (
                "https://proxy.example.com/bc/",
                "https://proxy.example.com/bc/stores/abc123/v3/catalog/products/77",
            ),
            ("http://127.0.0.1:9000", "http://127.0.0.1:9000/stores/abc123/v3/catalog/products/77"),
        ] {
            assert_eq!(address(base).unwrap().of(&path(), &[]).unwrap().as_str(), expected);
        }
    }

    #[test]
    fn bases_that_leak_or_mislead_are_refused() {
        for base in [
            "http://api.bigcommerce.com",
            "ftp://api.bigcommerce.com",
            "https://user@api.bigcommerce.com",
            "https://user:secret@api.bigcommerce.com",
            "https://api.bigcommerce.com?x=1",
            "https://api.bigcommerce.com/#x",
            "http://127.0.0.1.example.com",
            "data:text/plain,x",
        ] {
            let refused = address(base).expect_err(base);
            assert!(!refused.to_string().contains("secret"));
        }
        let base = Url::parse("https://api.bigcommerce.com").unwrap();
        for hash in ["", "a/b", "..", "a b", "a?b", "é"] {
            assert!(Address::new(&base, hash, false).is_err(), "{hash:?}");
        }
    }

    #[test]
    fn filters_stay_readable_and_a_plus_is_encoded() {
        let query = [
            ("id:in".to_owned(), "1,2".to_owned()),
            ("min".to_owned(), "2026-01-01T00:00:00+00:00".to_owned()),
        ];
        let url = address("https://api.bigcommerce.com").unwrap().of(&path(), &query).unwrap();
        assert_eq!(url.query(), Some("id:in=1,2&min=2026-01-01T00:00:00%2B00:00"));
    }

    proptest! {
        #[test]
        fn a_query_reads_as_it_was_given(query in prop::collection::vec((".{0,20}", ".{0,40}"), 0..8)) {
            let url = address("https://api.bigcommerce.com/x").unwrap().of(&path(), &query).unwrap();
            let read: Vec<_> = url.query_pairs().into_owned().collect();
            prop_assert_eq!(read, query);
            prop_assert_eq!(url.path(), "/x/stores/abc123/v3/catalog/products/77");
            prop_assert_eq!(url.host_str(), Some("api.bigcommerce.com"));
            prop_assert!(url.fragment().is_none());
        }
    }
}
