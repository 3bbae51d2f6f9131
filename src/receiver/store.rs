//! Which stores there are, and whether a callback is one of theirs.
//!
//! The route only selects a store's settings. What binds a callback to the store is the signature and the body's
//! own `producer`: one app secret may serve many stores, so a good signature alone does not say whose callback it is.
//!
//! It stores nothing and never says to the caller which check failed. A table that would let everybody in by mistake
//! is refused when it is built, with a [`StoreFault`].

use super::settings::StoreAuth;
use super::verify::{Claim, Field, Keys, MAX_SECRETS, Refusal, SignaturePolicy, Verified, Window, verify};
use arc_swap::ArcSwap;
use http::{HeaderMap, HeaderName};
use secrecy::ExposeSecret as _;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;
use subtle::{Choice, ConstantTimeEq as _};

const WEBHOOK_ID: HeaderName = HeaderName::from_static("webhook-id");
const WEBHOOK_TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
const WEBHOOK_SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");

/// Most second-factor headers of one store: the hooks API takes few, and each costs a hash a request.
const MAX_SECRET_HEADERS: usize = 8;
/// Most sets of them: those in force, and those of a few reloads in the last hour.
const MAX_HEADER_SETS: usize = 4;

/// A mistake in a store's settings.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreFault {
    /// The name can't stand in the route as it is.
    #[error("store name {0:?} is not 1 to 128 letters, digits, '_', '.' or '-'")]
    BadName(String),
    /// Two stores, one route.
    #[error("two stores are named {0:?}, give each its own name")]
    Twice(String),
    /// No hash to compare `producer` with.
    #[error("store {0:?} has no store_hash")]
    NoHash(String),
    /// A policy that verifies, and nothing to verify with.
    #[error(
        "store {0:?} has no client secret, set client_secrets or, to take unsigned callbacks, signature: off"
    )]
    NoSecret(String),
    /// An empty key is everybody's key.
    #[error("store {0:?} has an empty client secret or webhook header, set a value or remove it")]
    EmptySecret(String),
    /// Over the bound.
    #[error(
        "store {0:?} has more than {MAX_SECRETS} client secrets, {MAX_SECRET_HEADERS} webhook headers or \
         {MAX_SECRETS} values of one"
    )]
    TooMany(String),
}

/// The stores in force. Cheap to clone; all clones see a replacement at once.
#[derive(Debug, Clone)]
pub struct Stores(Arc<ArcSwap<Table>>);

impl Stores {
    /// Checks and takes `stores`.
    ///
    /// # Errors
    /// The first [`StoreFault`] found.
    pub fn new(stores: Vec<StoreAuth>) -> Result<Self, StoreFault> {
        Ok(Self(Arc::new(ArcSwap::from_pointee(Table::new(stores)?))))
    }

    /// Puts `stores` in force for every request whose body is complete from now on.
    ///
    /// # Errors
    /// A [`StoreFault`]; what was in force then stays in force.
    pub fn replace(&self, stores: Vec<StoreAuth>) -> Result<(), StoreFault> {
        self.0.store(Arc::new(Table::new(stores)?));
        Ok(())
    }

    pub(super) fn now(&self) -> arc_swap::Guard<Arc<Table>> {
        self.0.load()
    }
}

/// The stores by name, and a decoy for the names that don't exist.
#[derive(Debug)]
pub(super) struct Table {
    stores: HashMap<Arc<str>, Store>,
    decoy: Store,
}

impl Table {
    fn new(stores: Vec<StoreAuth>) -> Result<Self, StoreFault> {
        let mut table = Self { stores: HashMap::with_capacity(stores.len()), decoy: Store::decoy() };
        for auth in &stores {
            let store = Store::new(auth)?;
            if table.stores.insert(auth.name.clone(), store).is_some() {
                return Err(StoreFault::Twice(auth.name.to_string()));
            }
        }
        Ok(table)
    }

    pub(super) fn get(&self, name: &str) -> Option<&Store> {
        self.stores.get(name)
    }

    /// A store that nobody's callbacks belong to. Verifying against it makes an unknown name cost what a wrong
    /// signature costs.
    pub(super) fn decoy(&self) -> &Store {
        &self.decoy
    }
}

/// One store's checks, prepared.
#[derive(Debug)]
pub(super) struct Store {
    pub(super) name: Arc<str>,
    store_hash: String,
    store_id: Option<String>,
    policy: SignaturePolicy,
    keys: Keys,
    /// Sets of headers, any one of which will do, the current one first: names and SHA-256 of the values taken, whose
    /// fixed length keeps a comparison from telling a length. Never empty; an empty set asks for nothing.
    headers: Vec<Vec<(HeaderName, Vec<[u8; 32]>)>>,
}

/// A request judged part by part. For a person with a captured request; the sender is told none of it.
#[derive(Debug)]
pub struct Examination {
    /// The signature, its headers and its time.
    pub signature: Result<Verified, Refusal>,
    /// Each secret header, and whether it came once with a value that is taken.
    pub headers: Vec<(HeaderName, bool)>,
    /// Whether the body plainly names another store.
    pub is_anothers: bool,
}

/// Judges a request as the receiver does, but to the end.
///
/// # Errors
/// The store's settings are not to be used.
pub fn examine(
    auth: &StoreAuth,
    headers: &HeaderMap,
    body: &[u8],
    window: Window,
) -> Result<Examination, StoreFault> {
    let store = Store::new(auth)?;
    let judged =
        store.headers[0].iter().map(|(name, taken)| (name.clone(), is_taken(headers, name, taken).into()));
    Ok(Examination {
        signature: verify(&store.keys, store.policy, &claim(headers), body, window),
        headers: judged.collect(),
        is_anothers: store.is_anothers(body),
    })
}

impl Store {
    fn new(auth: &StoreAuth) -> Result<Self, StoreFault> {
        let name = auth.name.to_string();
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
        if !(1..=128).contains(&name.len()) || !name.bytes().all(plain) {
            return Err(StoreFault::BadName(name));
        }
        if auth.store_hash.is_empty() {
            return Err(StoreFault::NoHash(name));
        }
        let header_sets = || std::iter::once(&auth.headers).chain(&auth.earlier_headers);
        let headers = header_sets().map(Vec::len).sum::<usize>();
        let too_many_values = header_sets().flatten().any(|(_, values)| values.len() > MAX_SECRETS);
        if auth.secrets.len() > MAX_SECRETS
            || headers > MAX_SECRET_HEADERS * MAX_HEADER_SETS
            || too_many_values
        {
            return Err(StoreFault::TooMany(name));
        }
        if auth.policy != SignaturePolicy::Off && auth.secrets.is_empty() {
            return Err(StoreFault::NoSecret(name));
        }
        let mut values = auth.secrets.iter().chain(header_sets().flatten().flat_map(|(_, values)| values));
        let no_value = header_sets().flatten().any(|(_, values)| values.is_empty());
        if no_value || values.any(|value| value.expose_secret().is_empty()) {
            return Err(StoreFault::EmptySecret(name));
        }
        let digest = |(header, values): &(HeaderName, Vec<secrecy::SecretString>)| {
            let taken = values.iter().map(|value| sha256(value.expose_secret().as_bytes()));
            (header.clone(), taken.collect())
        };
        Ok(Self {
            name: auth.name.clone(),
            store_hash: auth.store_hash.clone(),
            store_id: auth.store_id.clone(),
            policy: auth.policy,
            keys: Keys::new(auth.secrets.iter().map(|secret| secret.expose_secret().as_bytes())),
            headers: header_sets().map(|set| set.iter().map(digest).collect()).collect(),
        })
    }

    fn decoy() -> Self {
        Self {
            name: Arc::from(""),
            store_hash: String::new(),
            store_id: None,
            policy: SignaturePolicy::Required,
            keys: Keys::new([b"a key that nobody signs with".as_slice()]),
            headers: vec![Vec::new()],
        }
    }

    /// Whether the callback is authentic and this store's.
    ///
    /// # Errors
    /// A [`Refusal`]; the signature and the secret headers are both always looked at.
    pub(super) fn admit(
        &self,
        headers: &HeaderMap,
        body: &[u8],
        window: Window,
    ) -> Result<Verified, Refusal> {
        let verified = verify(&self.keys, self.policy, &claim(headers), body, window);
        let has_headers = self.has_secret_headers(headers);
        let verified = verified?;
        if !has_headers {
            return Err(Refusal::WrongHeader);
        }
        if self.is_anothers(body) { Err(Refusal::OtherStore) } else { Ok(verified) }
    }

    fn has_secret_headers(&self, headers: &HeaderMap) -> bool {
        let mut any = Choice::from(0);
        for set in &self.headers {
            let mut right = Choice::from(1);
            for (name, taken) in set {
                right &= is_taken(headers, name, taken);
            }
            any |= right;
        }
        any.into()
    }

    /// Whether the body plainly names another store. A body that names none, or can't be read, is not refused here:
    /// it is authentic, and what can't be understood is set aside by a later stage.
    fn is_anothers(&self, body: &[u8]) -> bool {
        let Ok(stated) = serde_json::from_slice::<Stated<'_>>(body) else { return false };
        let other_hash = stated.producer.as_ref().and_then(Said::get).is_some_and(|producer| {
            let hash = producer.strip_prefix("stores/").map(|rest| rest.split('/').next().unwrap_or(rest));
            hash.is_some_and(|hash| hash != self.store_hash)
        });
        let other_id = match (&self.store_id, stated.store_id.as_ref().and_then(Said::get)) {
            (Some(known), Some(stated)) => *known != stated,
            (None, _) | (_, None) => false,
        };
        other_hash || other_id
    }
}

/// The part of a callback that says whose it is.
#[derive(Deserialize)]
struct Stated<'a> {
    #[serde(borrow)]
    producer: Option<Said<'a>>,
    #[serde(borrow)]
    store_id: Option<Said<'a>>,
}

/// A text, a number read as one, or something else that says nothing.
#[derive(Deserialize)]
#[serde(untagged)]
enum Said<'a> {
    Name(#[serde(borrow)] Cow<'a, str>),
    Number(u64),
    Other(serde::de::IgnoredAny),
}

impl Said<'_> {
    fn get(&self) -> Option<Cow<'_, str>> {
        match self {
            Self::Name(text) => Some(Cow::Borrowed(text)),
            Self::Number(number) => Some(Cow::Owned(number.to_string())),
            Self::Other(_) => None,
        }
    }
}

fn claim(headers: &HeaderMap) -> Claim<'_> {
    Claim {
        id: field(headers, &WEBHOOK_ID),
        timestamp: field(headers, &WEBHOOK_TIMESTAMP),
        signature: field(headers, &WEBHOOK_SIGNATURE),
    }
}

/// Whether the header came once with one of the values that are taken. Compares with all of them whatever it finds.
fn is_taken(headers: &HeaderMap, name: &HeaderName, taken: &[[u8; 32]]) -> Choice {
    let (once, value) = match field(headers, name) {
        Field::Once(value) => (1, value),
        Field::Missing | Field::Repeated => (0, b"".as_slice()),
    };
    let found = sha256(value);
    let mut matched = Choice::from(0);
    for expected in taken {
        matched |= found.ct_eq(expected);
    }
    Choice::from(once) & matched
}

fn field<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Field<'a> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Field::Missing,
        (Some(value), None) => Field::Once(value.as_bytes()),
        (Some(_), Some(_)) => Field::Repeated,
    }
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}
