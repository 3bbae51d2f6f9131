//! Signature verification of callbacks. Pure: no clock, no socket, no allocation that grows with the input.
//!
//! BigCommerce signs with the Standard Webhooks scheme: HMAC-SHA256 over `id.timestamp.body`, keyed with the raw
//! bytes of the app's client secret, in three headers. This module turns what arrived (anybody's bytes) into a
//! [`Verified`], which nothing else can make. It never parses the body, never compares a MAC with `==`, and never
//! stops at the first match or mismatch: every key meets every signature.
//!
//! It fails by saying why, in a [`Refusal`]; the sender is told none of it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

/// Most signatures looked at in one header. A sender that rotates keys sends two; eight leaves room and bounds
/// the work that an unauthenticated header can cause.
pub const MAX_SIGNATURES: usize = 8;

/// Most secrets one store may hold: the current, the previous, and room for a slow rotation.
pub const MAX_SECRETS: usize = 8;

/// Longest event id taken, in bytes.
pub const MAX_ID_BYTES: usize = 128;

/// Most digits of a timestamp: eleven reach the year 5138 and cannot overflow an `i64`.
pub const MAX_TIMESTAMP_DIGITS: usize = 11;

/// How far ahead of our clock a timestamp may be, in seconds: five minutes of clock skew, as the scheme's own
/// libraries allow.
pub const MAX_AHEAD_S: i64 = 300;

/// How far behind our clock a timestamp may be by default, in seconds: 72 hours. The sender retries for 48 hours,
/// and nothing says that a retry is signed anew; a narrow window would refuse every retry.
pub const DEFAULT_MAX_BEHIND_S: i64 = 72 * 3600;

/// Length of an HMAC-SHA256, in bytes.
const MAC_BYTES: usize = 32;

/// What a store demands of a callback's signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SignaturePolicy {
    /// A good signature, always.
    #[default]
    Required,
    /// A good signature where any of the three headers is there; none at all is let through unsigned.
    IfPresent,
    /// Nothing is checked and nothing in the signature headers is believed, the event id included.
    Off,
}

/// One header as it arrived. Repeated headers are a case of their own: which of two to believe is how requests
/// are smuggled past a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field<'a> {
    /// Not sent.
    Missing,
    /// Sent once, with this value.
    Once(&'a [u8]),
    /// Sent more than once.
    Repeated,
}

/// The three signature headers, unverified.
#[derive(Debug, Clone, Copy)]
pub struct Claim<'a> {
    /// `webhook-id`.
    pub id: Field<'a>,
    /// `webhook-timestamp`.
    pub timestamp: Field<'a>,
    /// `webhook-signature`.
    pub signature: Field<'a>,
}

impl Claim<'_> {
    fn is_absent(&self) -> bool {
        [self.id, self.timestamp, self.signature].iter().all(|f| *f == Field::Missing)
    }
}

/// When a signature counts: our clock, and how old it may be.
#[derive(Debug, Clone, Copy)]
pub struct Window {
    /// Now, in seconds since 1970.
    pub now_s: i64,
    /// Oldest timestamp taken, in seconds before `now_s`; [`DEFAULT_MAX_BEHIND_S`] unless set.
    pub max_behind_s: i64,
}

/// A sender's name for one delivery: 1 to 128 of `A-Z a-z 0-9 _ -`.
///
/// The narrow alphabet matters: with a dot allowed, the border between id, timestamp and body could be moved
/// without changing the signed bytes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct EventId(String);

impl EventId {
    /// Takes `raw` if it is a well-formed id.
    pub fn parse(raw: &[u8]) -> Option<Self> {
        let fits = (1..=MAX_ID_BYTES).contains(&raw.len())
            && raw.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'));
        let text = if fits { std::str::from_utf8(raw).ok()? } else { return None };
        Some(Self(text.to_owned()))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The id as an owned text.
    pub fn into_string(self) -> String {
        self.0
    }
}

/// A callback that passed its store's policy. Only [`verify`] makes one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    event_id: Option<EventId>,
    timestamp: Option<i64>,
}

impl Verified {
    /// The signed event id; none where the callback was let through unsigned.
    pub fn event_id(&self) -> Option<&EventId> {
        self.event_id.as_ref()
    }

    /// The signed timestamp in seconds since 1970; none where the callback was let through unsigned.
    pub fn timestamp(&self) -> Option<i64> {
        self.timestamp
    }

    /// The id and the timestamp, taken apart.
    pub fn into_parts(self) -> (Option<EventId>, Option<i64>) {
        (self.event_id, self.timestamp)
    }
}

/// Why a callback was refused. A closed list; the names are metric labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Refusal {
    /// A signature header is not there.
    #[error("a signature header is missing")]
    MissingHeader,
    /// A signature header came twice.
    #[error("a signature header was sent more than once")]
    RepeatedHeader,
    /// The id is not 1 to 128 of the allowed characters.
    #[error("the webhook-id is malformed")]
    BadId,
    /// The timestamp is not 1 to 11 digits without a leading zero.
    #[error("the webhook-timestamp is malformed")]
    BadTimestamp,
    /// The signature header lists more than [`MAX_SIGNATURES`].
    #[error("too many signatures were sent")]
    TooManySignatures,
    /// No signature fits any key.
    #[error("no signature matches")]
    NoMatch,
    /// Well signed, but older than the window.
    #[error("the signed timestamp is too old")]
    TooOld,
    /// Well signed, but ahead of our clock.
    #[error("the signed timestamp is in the future")]
    InFuture,
    /// A header that the store's hooks carry as a second factor is missing, repeated or wrong.
    #[error("a secret webhook header is missing or wrong")]
    WrongHeader,
    /// Authentic, but the body names another store.
    #[error("the callback belongs to another store")]
    OtherStore,
}

impl Refusal {
    /// The stable name, for metrics and logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::MissingHeader => "missing_header",
            Self::RepeatedHeader => "repeated_header",
            Self::BadId => "bad_id",
            Self::BadTimestamp => "bad_timestamp",
            Self::TooManySignatures => "too_many_signatures",
            Self::NoMatch => "no_match",
            Self::TooOld => "too_old",
            Self::InFuture => "in_future",
            Self::WrongHeader => "wrong_header",
            Self::OtherStore => "other_store",
        }
    }
}

/// The keys of one store, ready to use. Prints nothing.
#[derive(Clone)]
pub struct Keys(Vec<Hmac<Sha256>>);

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Keys({})", self.0.len())
    }
}

impl Keys {
    /// Prepares the keys. A key is the raw bytes of a client secret, not decoded.
    pub fn new<'a>(secrets: impl IntoIterator<Item = &'a [u8]>) -> Self {
        Self(secrets.into_iter().map(keyed).collect())
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is no key, so that nothing can ever match.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Checks `body` under `claim` as `policy` demands.
///
/// # Errors
/// A [`Refusal`]. The signature is judged before the time, so that `TooOld` and `InFuture` are only ever said of
/// authentic callbacks.
pub fn verify(
    keys: &Keys,
    policy: SignaturePolicy,
    claim: &Claim<'_>,
    body: &[u8],
    window: Window,
) -> Result<Verified, Refusal> {
    let unsigned = Verified { event_id: None, timestamp: None };
    match policy {
        SignaturePolicy::Off => return Ok(unsigned),
        SignaturePolicy::IfPresent if claim.is_absent() => return Ok(unsigned),
        SignaturePolicy::IfPresent | SignaturePolicy::Required => {}
    }
    let (raw_id, raw_timestamp) = (once(claim.id)?, once(claim.timestamp)?);
    let signatures = Signatures::parse(once(claim.signature)?)?;
    let event_id = EventId::parse(raw_id).ok_or(Refusal::BadId)?;
    let timestamp = parse_timestamp(raw_timestamp).ok_or(Refusal::BadTimestamp)?;
    if !any_match(keys, &signatures, [raw_id, raw_timestamp, body]) {
        return Err(Refusal::NoMatch);
    }
    if timestamp.saturating_sub(window.now_s) > MAX_AHEAD_S {
        return Err(Refusal::InFuture);
    }
    if window.now_s.saturating_sub(timestamp) > window.max_behind_s {
        return Err(Refusal::TooOld);
    }
    Ok(Verified { event_id: Some(event_id), timestamp: Some(timestamp) })
}

/// Signs as the sender does: the value of `webhook-signature`. For tests, the bench and `hooks verify`.
pub fn sign(secret: &[u8], id: &str, timestamp: i64, body: &[u8]) -> String {
    let mut mac = keyed(secret);
    mac.update(format!("{id}.{timestamp}.").as_bytes());
    mac.update(body);
    format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
}

fn keyed(secret: &[u8]) -> Hmac<Sha256> {
    Hmac::new_from_slice(secret).expect("HMAC takes a key of any length")
}

fn once(field: Field<'_>) -> Result<&[u8], Refusal> {
    match field {
        Field::Missing => Err(Refusal::MissingHeader),
        Field::Repeated => Err(Refusal::RepeatedHeader),
        Field::Once(value) => Ok(value),
    }
}

/// Digits only, no sign, no leading zero: one number has one spelling, so the signed bytes and the number agree.
fn parse_timestamp(raw: &[u8]) -> Option<i64> {
    let plain = (1..=MAX_TIMESTAMP_DIGITS).contains(&raw.len())
        && raw.iter().all(u8::is_ascii_digit)
        && raw[0] != b'0';
    if !plain {
        return None;
    }
    std::str::from_utf8(raw).ok()?.parse().ok()
}

/// The decoded `v1` signatures of one header.
struct Signatures {
    macs: [[u8; MAC_BYTES]; MAX_SIGNATURES],
    count: usize,
}

impl Signatures {
    /// Splits the header at single spaces. What is not `v1,` and 32 bytes of strict base64 can't match and is
    /// passed over: other versions may stand beside ours.
    fn parse(raw: &[u8]) -> Result<Self, Refusal> {
        let mut found = Self { macs: [[0; MAC_BYTES]; MAX_SIGNATURES], count: 0 };
        for (index, item) in raw.split(|b| *b == b' ').enumerate() {
            if index >= MAX_SIGNATURES {
                return Err(Refusal::TooManySignatures);
            }
            let Some(text) = item.strip_prefix(b"v1,") else { continue };
            // The buffer has the decoder's own upper estimate (33) for 44 characters; longer text is refused.
            let mut buffer = [0_u8; MAC_BYTES + 1];
            if let Ok(MAC_BYTES) = STANDARD.decode_slice(text, &mut buffer) {
                found.macs[found.count].copy_from_slice(&buffer[..MAC_BYTES]);
                found.count += 1;
            }
        }
        Ok(found)
    }
}

/// Whether any key makes any of the signatures. Runs through all pairs whatever it finds.
fn any_match(keys: &Keys, signatures: &Signatures, [id, timestamp, body]: [&[u8]; 3]) -> bool {
    let mut matched = false;
    for key in &keys.0 {
        let mut mac = key.clone();
        for part in [id, b".", timestamp, b".", body] {
            mac.update(part);
        }
        for signature in &signatures.macs[..signatures.count] {
            matched |= mac.clone().verify_slice(signature).is_ok();
        }
    }
    matched
}
