//! `stores:`: which stores, with what rights, how callbacks prove themselves (S19, S20).

use std::collections::BTreeMap;

use secrecy::{ExposeSecret, SecretString};
use url::Url;

use super::defaults;
use super::mistake::Mistake;
use super::section::{Reading, Section, quoted, scalar};
use super::settings::{BudgetSettings, SignaturePolicy, StoreSettings};
use super::tree::{Node, Place, Value};
use super::values::{self, BadUrl};

pub(super) const KEYS: &[&str] = &[
    "name",
    "store_hash",
    "access_token",
    "access_token_file",
    "base_uri",
    "client_secrets",
    "client_secrets_file",
    "signature",
    "webhook_headers",
    "webhook_headers_file",
    "budget",
];
pub(super) const BUDGET_KEYS: &[&str] = &["reserve"];

/// Headers that every callback has anyway: given a second time, each callback would be refused.
const OWN_HEADERS: &[&str] = &[
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "host",
    "transfer-encoding",
    "webhook-id",
    "webhook-signature",
    "webhook-timestamp",
    "x-bcbridge-store",
];
/// Two while rotating; a few more for apps being moved. Each is tried on every callback.
const MAX_CLIENT_SECRETS: usize = 8;
/// Two while rotating, and room for a slow rotation. Each costs a comparison on every callback.
const MAX_HEADER_VALUES: usize = 8;

pub(super) fn read(cx: &mut Reading<'_>, root: &Section<'_>) -> Vec<StoreSettings> {
    let Some(items) = root.list(cx, "stores") else {
        if root.get("stores").is_none() {
            root.missing(
                cx,
                "stores",
                "a list of stores, each with store_hash, access_token and client_secrets",
            );
        }
        return Vec::new();
    };
    if items.is_empty() {
        let at = root.get("stores").map_or(&root.at, |node| &node.at);
        cx.wrong(Mistake::new(at, "`stores` is empty", "one store or more").help("add a store"));
    }
    let mut stores: Vec<StoreSettings> = Vec::new();
    for (at, node) in items.iter().enumerate() {
        let section = Section::open(cx, node, &format!("stores[{at}]"), KEYS);
        let store = store(cx, &section);
        for (other, key) in stores.iter().filter_map(|other| Some((other, clash(other, &store)?))) {
            let place = section.get(key).map_or(&section.at, |node| &node.at);
            let shown = section.get(key).map_or_else(|| format!("{:?}", other.name), quoted);
            let message = format!("`{key}` {shown} is given to two stores");
            cx.wrong(
                Mistake::new(place, message, "each store once, under its own name")
                    .help("rename or remove one"),
            );
        }
        stores.push(store);
    }
    stores
}

/// The key in which two stores are the same. Names differ in more than case: some clusters' tools fold it.
fn clash(a: &StoreSettings, b: &StoreSettings) -> Option<&'static str> {
    if !a.name.is_empty() && a.name.eq_ignore_ascii_case(&b.name) {
        return Some("name");
    }
    (!a.store_hash.is_empty() && a.store_hash == b.store_hash).then_some("store_hash")
}

fn store(cx: &mut Reading<'_>, section: &Section<'_>) -> StoreSettings {
    let hash = section.parsed(cx, "store_hash", "letters, digits, `-` and `_`", values::store_hash);
    if section.get("store_hash").is_none() {
        section.missing(cx, "store_hash", "the part of the API path after /stores/");
    }
    let hash = hash.unwrap_or_default();
    let name = section.parsed(cx, "name", "letters, digits, `.`, `_` and `-`, at most 64", values::name);
    let signature = signature(cx, section);
    StoreSettings {
        name: name.unwrap_or_else(|| hash.clone()),
        access_token: access_token(cx, section),
        base_uri: base_uri(cx, section),
        client_secrets: client_secrets(cx, section, signature, &hash),
        signature,
        webhook_headers: webhook_headers(cx, section),
        budget: budget(cx, section),
        store_hash: hash,
    }
}

fn signature(cx: &mut Reading<'_>, section: &Section<'_>) -> SignaturePolicy {
    let words = [
        ("required", SignaturePolicy::Required),
        ("if-present", SignaturePolicy::IfPresent),
        ("off", SignaturePolicy::Off),
    ];
    section.choice(cx, "signature", &words).unwrap_or(SignaturePolicy::Required)
}

fn access_token(cx: &mut Reading<'_>, section: &Section<'_>) -> SecretString {
    let token = section.secret(cx, "access_token");
    if token.is_none() && section.get("access_token").is_none() && section.get("access_token_file").is_none()
    {
        section.missing(cx, "access_token", "access_token or access_token_file");
    }
    let token = token.unwrap_or_default();
    let place = section.get("access_token").or(section.get("access_token_file")).map(|node| node.at.clone());
    if let Some(place) = place {
        let text = token.expose_secret();
        let reported = cx.mistakes.iter().any(|m| (m.line, m.column) == (place.line, place.column));
        if text.is_empty() && !reported {
            let mistake = Mistake::new(&place, "`access_token` is empty", "the token of an API account");
            cx.wrong(mistake.help("set the variable it comes from, or use access_token_file"));
        } else if http::HeaderValue::from_str(text).is_err() {
            let message = "`access_token` has characters that no header can carry (its value is hidden)";
            cx.wrong(Mistake::new(&place, message, "visible ASCII characters"));
        }
    }
    token
}

/// What is wrong with a URL, as the rest of a sentence.
pub(super) fn url_help(bad: BadUrl) -> &'static str {
    match bad {
        BadUrl::NotHttps => "is not an https URL",
        BadUrl::PlainHttp => "is plain http to another machine",
        BadUrl::Extras => "has a user, a query or a fragment",
        BadUrl::Path => "has a path",
    }
}

fn base_uri(cx: &mut Reading<'_>, section: &Section<'_>) -> Url {
    let default = || Url::parse(defaults::BASE_URI).expect("the default origin parses: it is a literal");
    let text = section.text(cx, "base_uri");
    let (Some(text), Some(node)) = (text, section.get("base_uri")) else { return default() };
    values::https(&text, false).unwrap_or_else(|bad| {
        let message = format!("`{}` {}", section.path_of("base_uri"), url_help(bad));
        let allowed = "https://host[:port]; http only for this machine (localhost, 127.0.0.1, [::1])";
        let help = "the token is sent there with every request; /stores/<hash>/v3 is added by the bridge";
        cx.wrong(Mistake::new(&node.at, message, allowed).help(help));
        default()
    })
}

fn client_secrets(
    cx: &mut Reading<'_>,
    section: &Section<'_>,
    signature: SignaturePolicy,
    hash: &str,
) -> Vec<SecretString> {
    let before = cx.mistakes.len();
    let mut secrets = Vec::new();
    for (text, node) in section.texts(cx, "client_secrets").unwrap_or_default() {
        // With signatures off an unset variable is no reason to stop; otherwise it is the reason.
        if !text.is_empty() {
            secrets.push(SecretString::from(text));
        } else if signature != SignaturePolicy::Off {
            let mistake =
                Mistake::new(&node.at, "an empty client secret", "the secret that callbacks are signed with");
            cx.wrong(mistake.help("set the variable it comes from; anyone can sign with an empty secret"));
        }
    }
    if let Some(path) = section.text(cx, "client_secrets_file") {
        let text = section.secret_file(cx, "client_secrets_file", &path).unwrap_or_default();
        secrets.extend(text.lines().map(str::trim).filter(|line| !line.is_empty()).map(SecretString::from));
    }
    let name = if hash.is_empty() { &section.path } else { hash };
    if secrets.len() > MAX_CLIENT_SECRETS {
        let at = section.get("client_secrets").map_or(&section.at, |node| &node.at);
        let message = format!("{} client secrets", secrets.len());
        cx.wrong(
            Mistake::new(at, message, format!("at most {MAX_CLIENT_SECRETS}")).help("remove retired secrets"),
        );
    }
    match signature {
        SignaturePolicy::Off => cx.warnings.push(format!(
            "store {name}: signature is off: anyone who can reach the receiver can make the bridge read the store"
        )),
        SignaturePolicy::IfPresent => cx.warnings.push(format!(
            "store {name}: signature is if-present: callbacks without a signature are believed"
        )),
        SignaturePolicy::Required => {}
    }
    // An unset variable has its own mistake; one is enough.
    let excused = cx.mistakes.len() > before || section.has("client_secrets") && unset_variable(cx);
    if secrets.is_empty() && signature != SignaturePolicy::Off && !excused {
        let at =
            section.get("signature").or(section.get("client_secrets")).map_or(&section.at, |node| &node.at);
        let message = format!("`{}` has no client secret, and signatures are checked", section.path);
        let mistake = Mistake::new(at, message, "client_secrets or client_secrets_file");
        cx.wrong(mistake.help("add the app's client secret; `signature: off` accepts anyone's callbacks"));
    }
    secrets
}

fn unset_variable(cx: &Reading<'_>) -> bool {
    cx.mistakes.iter().any(|mistake| mistake.message.starts_with("variable "))
}

fn webhook_headers(cx: &mut Reading<'_>, section: &Section<'_>) -> BTreeMap<String, Vec<SecretString>> {
    let mut headers: BTreeMap<String, Vec<SecretString>> = BTreeMap::new();
    for (name, value, place) in given_headers(cx, section) {
        let Some(lower) = values::header_name(&name) else {
            let message = format!("{name:?} is no name of a header");
            cx.wrong(Mistake::new(&place, message, "letters, digits and `-`"));
            continue;
        };
        if OWN_HEADERS.contains(&lower.as_str()) {
            let message = format!("header `{lower}` is part of every callback, and is no second factor");
            cx.wrong(Mistake::new(&place, message, "a header of your own, such as x-bridge-key"));
            continue;
        }
        if value.is_empty() {
            continue;
        }
        if http::HeaderValue::from_str(&value).is_err() {
            let message = format!("the value of header `{lower}` cannot be sent (it is hidden)");
            cx.wrong(Mistake::new(&place, message, "visible ASCII characters"));
        }
        let values = headers.entry(lower.clone()).or_default();
        values.push(SecretString::from(value));
        if values.len() == MAX_HEADER_VALUES + 1 {
            let message = format!("header `{lower}` has more than {MAX_HEADER_VALUES} values");
            let mistake = Mistake::new(&place, message, format!("at most {MAX_HEADER_VALUES}"));
            cx.wrong(mistake.help("remove values that no hook sends any more"));
        }
    }
    headers
}

/// Names and values as they are written, each with the place of what may be wrong with it.
fn given_headers(cx: &mut Reading<'_>, section: &Section<'_>) -> Vec<(String, String, Place)> {
    let mut given = Vec::new();
    if let Some(node) = section.get("webhook_headers") {
        let headers = Section::open_any(cx, node, &section.path_of("webhook_headers"));
        for (key, node) in headers.entries() {
            let wrong_name = values::header_name(&key.name).is_none();
            let mut give = |text: &str, node: &Node| {
                let place = if wrong_name { &key.at } else { &node.at };
                given.push((key.name.clone(), text.to_owned(), place.clone()));
            };
            if let Value::List(_) = &node.value {
                let texts = headers.texts(cx, &key.name).unwrap_or_default();
                texts.iter().for_each(|(text, node)| give(text, node));
            } else if let Some(one) =
                scalar(cx, node, &headers.path_of(&key.name), "a text or a list of texts")
            {
                give(&one.text, node);
            }
        }
    }
    if let Some(path) = section.text(cx, "webhook_headers_file") {
        let text = section.secret_file(cx, "webhook_headers_file", &path).unwrap_or_default();
        let place = section.get("webhook_headers_file").map(|node| node.at.clone()).unwrap_or_default();
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let (name, value) = line.split_once(':').unwrap_or((line, ""));
            given.push((name.trim().to_owned(), value.trim().to_owned(), place.clone()));
        }
    }
    given
}

fn budget(cx: &mut Reading<'_>, store: &Section<'_>) -> BudgetSettings {
    let nothing = Node { at: Place::default(), value: Value::Null };
    let path = store.path_of("budget");
    let section = Section::open(cx, store.get("budget").unwrap_or(&nothing), &path, BUDGET_KEYS);
    let reserve = section.parsed(cx, "reserve", "a share from 0% to 95%", |text| {
        values::percent(text).filter(|share| (0.0..=defaults::RESERVE_MAX).contains(share))
    });
    BudgetSettings { reserve: reserve.unwrap_or(defaults::RESERVE) }
}
